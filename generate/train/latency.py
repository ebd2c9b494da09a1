"""Latency: how long one forward pass takes on the training device, measured where a plan sets `latency_batch`."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from generate.train.device import memory_format

# The first passes allocate memory and choose kernels; the median of the rest forgives a few interruptions.
WARM_UP_PASSES = 5
TIMED_PASSES = 30


@torch.inference_mode()
def measure_latency(
    network: nn.Module, input_shape: tuple[int, int, int], *, batch: int, device: torch.device
) -> float:
    """Return the median wall time of one forward pass in evaluation mode (ms), for `batch` images at once."""
    network.eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *input_shape, generator=generator).to(device)
    images = images.contiguous(memory_format=memory_format(device))
    times = [_seconds(network, images) for _ in range(WARM_UP_PASSES + TIMED_PASSES)]
    return 1000 * statistics.median(times[WARM_UP_PASSES:])


def _seconds(network: nn.Module, images: Tensor) -> float:
    _finish(images.device)
    started = time.perf_counter()
    network(images)
    _finish(images.device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    """Wait for the device: a GPU is handed its work and finishes it later."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
