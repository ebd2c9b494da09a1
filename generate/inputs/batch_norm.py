"""Batch norm that takes up the addition and the ReLU behind it, in torch's operations or in the compiled kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from generate.inputs.kernel import MOST_LANES, Kernel, lanes_of


def normalise(
    norm: nn.Module, features: Tensor, added: Tensor | None = None, *, rectify: bool = False
) -> Tensor:
    """Return [ReLU of] what `norm` makes of `features` [+ `added`], all of shape (batch, channels, height, width).

    The same as the operations one by one; inside `fused_batch_norm` up to rounding, in fewer passes over memory.
    """
    if isinstance(norm, _FusedBatchNorm) and norm.suits(features, added):
        return norm.fused(features, added, rectify)
    normalised: Tensor = norm(features)
    # In place: activations of small images are bound by memory traffic, not by arithmetic.
    if added is not None:
        normalised = normalised.add_(added)
    return torch.relu_(normalised) if rectify else normalised


@contextlib.contextmanager
def fused_batch_norm(network: nn.Module, kernel: Kernel | None) -> Iterator[None]:
    """Run the network's batch norms in `kernel` inside the block; with None, nothing changes."""
    norms = [m for m in network.modules() if type(m) is nn.BatchNorm2d and kernel is not None]
    for norm in norms:
        # Another class for a while, so that the network needs no other modules than everybody's.
        norm.__class__ = _FusedBatchNorm
        norm.kernel = kernel  # type: ignore[assignment]
    try:
        yield
    finally:
        for norm in norms:
            del norm.kernel
            norm.__class__ = nn.BatchNorm2d


class _FusedBatchNorm(nn.BatchNorm2d):
    """What `nn.BatchNorm2d` is inside `fused_batch_norm`."""

    kernel: Kernel

    def forward(self, features: Tensor) -> Tensor:
        if self.suits(features, None):
            return self.fused(features, None, rectify=False)
        return super().forward(features)

    def suits(self, features: Tensor, added: Tensor | None) -> bool:
        """Return whether the kernel can take these: trained statistics, and dense tensors of single precision."""
        return (
            self.training
            and self.affine
            and self.track_running_stats
            and self.momentum is not None
            and self.num_features <= MOST_LANES
            and features.numel() > self.num_features
            and all(_is_dense(tensor) for tensor in (features, added) if tensor is not None)
            and (added is None or added.shape == features.shape)
        )

    def fused(self, features: Tensor, added: Tensor | None, rectify: bool) -> Tensor:
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        output: Tensor = _Normalise.apply(features, added, self.weight, self.bias, self, rectify)
        return output


def _is_dense(tensor: Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.is_contiguous(memory_format=torch.channels_last)
    )


class _Normalise(torch.autograd.Function):
    """The kernel's two ways, with what the first leaves for the second."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        added: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        norm: _FusedBatchNorm,
        rectify: bool,
    ) -> Tensor:
        channels = features.shape[1]
        lanes = lanes_of(channels)
        output = torch.empty_like(features)
        scale, shift = torch.empty(2, lanes).unbind()
        mean, inverse = torch.empty(2, channels, dtype=torch.float64).unbind()
        norm.kernel.forward(
            *_addresses(features, added, output),
            *(features.numel(), channels, lanes),
            *_addresses(weight, bias),
            *(norm.eps, norm.momentum),
            *_addresses(norm.running_mean, norm.running_var, scale, shift, mean, inverse),
            rectify,
        )
        summed = output if rectify and added is not None else None
        ctx.save_for_backward(features, weight, scale, shift, mean, inverse, summed)
        ctx.kernel, ctx.rectify, ctx.added = norm.kernel, rectify, added is not None
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, scale, shift, mean, inverse, summed = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_features, of_weight, of_bias = (torch.empty_like(one) for one in (features, weight, weight))
        # Without a ReLU behind it, an addition passes the gradient on as it is.
        of_added = torch.empty_like(features) if summed is not None else gradient if ctx.added else None
        ctx.kernel.backward(
            *_addresses(gradient, features, summed, None if summed is None else of_added, of_features),
            *(features.numel(), features.shape[1], len(scale)),
            *_addresses(weight, scale, shift, mean, inverse, of_weight, of_bias),
            ctx.rectify,
        )
        return of_features, of_added, of_weight, of_bias, None, None


def _addresses(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]
