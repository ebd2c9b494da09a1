"""Latency: how long one forward pass takes on the training device, measured where a plan sets `latency_batch`."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.benchmark import Timer

from generate.train.device import memory_format


@torch.inference_mode()
def measure_latency(
    network: nn.Module, input_shape: tuple[int, int, int], *, batch: int, device: torch.device
) -> float:
    """Return the median wall time of one forward pass in evaluation mode (ms), for `batch` images at once."""
    network.eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *input_shape, generator=generator).to(device)
    images = images.contiguous(memory_format=memory_format(device))
    # Warms up, waits for a GPU, and repeats short passes until they can be timed.
    timer = Timer("network(images)", globals={"network": network, "images": images})
    return 1000 * float(timer.blocked_autorange().median)
