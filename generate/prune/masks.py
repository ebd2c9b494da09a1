"""Weight pruning: the layers that lose weights, what the rest costs, which weights stay, and how zeros stay zeros.

A layer takes the place of a dependency group: its width is the number of its weights, and a recipe keeps a multiple of
its step. Unstructured, the step is one weight per filter; with 2:4 it is half of the layer, so that a layer carries the
pattern or is dense. Spaces, budgets and worklist then work as they do for filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from generate.plan import PruningPlan
from generate.prune.attention import is_inside
from generate.prune.cost_forms import CostModel, QuadraticForm, check_exact, count_positions
from generate.prune.dependency_graph import Group, copy_network, with_values
from generate.prune.groups import check_keep
from generate.prune.operations import Convolution
from popstats.errors import PlanError

# Of so many consecutive weights of a filter, a 2:4 pattern keeps half.
BLOCK = 4
# Name of the buffer that marks a layer's removed weights; it is not part of the state that is saved.
REMOVED = "removed_weights"


def weight_costs(
    network: nn.Module, input_shape: tuple[int, ...], pruning: PruningPlan, keep: Sequence[str] = ()
) -> CostModel:
    """Return the layers whose weights can be pruned, as groups, with the exact costs of what stays."""
    # Biases, normalisation and everything that is no convolution or linear layer stay dense.
    shell = with_values(network)
    check_keep(keep, [name for name, _ in shell.named_modules()])
    positions, counted = count_positions(shell, input_shape)
    layers = [(name, layer) for name, layer in shell.named_modules() if positions.get(name)]
    found = [_as_group(name, layer, pruning) for name, layer in layers if not is_inside(name, keep)]
    groups = tuple(group for group in found if group is not None)
    if not groups:
        raise PlanError(
            f"pruning: no layer of {type(network).__name__} can be pruned with kind = {pruning.kind!r}: each of its "
            f"{len(layers)} layers is kept, {_reason(pruning)}."
        )
    macs = _linear_form(counted, [positions[group.name] for group in groups], groups)
    params = _linear_form(sum(p.numel() for p in shell.parameters()), [1] * len(groups), groups)
    model = CostModel(groups, macs, params)
    check_exact(model, type(network).__name__)
    return model


def dense_layers(network: nn.Module, groups: Sequence[Group], pruning: PruningPlan) -> str:
    """Say which layers stay dense, and why; "" if none does."""
    pruned = {group.name for group in groups}
    modules = with_values(network).named_modules()
    weighted = [name for name, layer in modules if isinstance(layer, nn.Linear | Convolution)]
    dense = [name for name in weighted if name not in pruned]
    return f"{', '.join(dense)} (kept, unused, {_reason(pruning)})" if dense else ""


def _reason(pruning: PruningPlan) -> str:
    if pruning.kind == "2:4":
        return f"transposed, or with a fan-in (input channels x kernel) that is not a multiple of {BLOCK}"
    return f"or with a fan-in of at most {pruning.floor} weights, the floor"


def _as_group(name: str, layer: nn.Module, pruning: PruningPlan) -> Group | None:
    """Return the layer as a group; None where nothing can be removed from it."""
    weights, (filters, fan_in) = cast(Tensor, layer.weight).numel(), _places(layer).shape
    if pruning.kind == "2:4":
        fits = fan_in % BLOCK == 0 and not getattr(layer, "transposed", False)
        return Group(name, weights, (name,), weights // 2) if fits else None
    fits = fan_in > pruning.floor
    return Group(name, weights, (name,), filters, least=pruning.floor * filters) if fits else None


def _linear_form(total: int, per_weight: Sequence[int], groups: Sequence[Group]) -> QuadraticForm:
    """Return a cost that is `total` in the original and falls by `per_weight` with each weight of a layer."""
    linear = np.array([each * group.step for each, group in zip(per_weight, groups, strict=True)], np.int64)
    units = np.array([group.width // group.step for group in groups], dtype=np.int64)
    return QuadraticForm(total - int(linear @ units), linear, np.zeros((len(groups),) * 2, np.int64))


def _places(layer: nn.Module) -> Tensor:
    """Return where the weights of each filter lie in the flat weight tensor, shape (filters, fan-in)."""
    weight = cast(Tensor, layer.weight)
    places = torch.arange(weight.numel()).reshape(weight.shape)
    if getattr(layer, "transposed", False):
        # (inputs, outputs per group, kernel): the outputs of one group of inputs come one after the other.
        groups = cast(int, layer.groups)
        places = places.reshape(groups, -1, *places.shape[1:]).transpose(1, 2)
        return places.reshape(groups * weight.shape[1], -1)
    return places.reshape(len(weight), -1)


def magnitudes(network: nn.Module, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Return the absolute weights of each layer by name, flat, shape (width,)."""
    weights = {group.name: network.get_submodule(group.name).weight for group in groups}
    return {name: cast(Tensor, weight).detach().abs().reshape(-1).cpu() for name, weight in weights.items()}


def mask_network(
    network: nn.Module,
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],  # of weights, by layer; higher stays longer
    widths: ArrayLike,
    pruning: PruningPlan,
) -> nn.Module:
    """Return a copy of `network` whose removed weights are zero, and stay zero in training."""
    masked = copy_network(network)
    for group, width in zip(groups, np.asarray(widths).tolist(), strict=True):
        layer = masked.get_submodule(group.name)
        weight, places = cast(Tensor, layer.weight), _places(layer)
        rows = scores[group.name].reshape(-1)[places].double()
        kept = _two_of_four(rows) if pruning.kind == "2:4" else _highest(rows, width, pruning.floor)
        removed = torch.zeros(weight.numel(), dtype=torch.bool)
        if width < group.width:
            removed[places.reshape(-1)] = ~kept.reshape(-1)
        layer.register_buffer(REMOVED, removed.reshape(weight.shape).to(weight.device), persistent=False)
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(partial(_drop_gradient, layer))  # type: ignore[no-untyped-call]
    zero_removed(masked)
    return masked


def _highest(rows: Tensor, count: int, floor: int) -> Tensor:
    """Mark the `count` highest scores of a layer, and in any case the `floor` highest of each filter."""
    rows = rows.scatter(1, rows.topk(floor, dim=1).indices, torch.inf)
    # Equal scores are decided by the lower index, so that the choice is the same everywhere.
    best = torch.sort(rows.reshape(-1), descending=True, stable=True).indices[:count]
    return torch.zeros(rows.numel(), dtype=torch.bool).index_fill(0, best, True)


def _two_of_four(rows: Tensor) -> Tensor:
    """Mark the two highest of each four consecutive scores of a filter, along input channels x kernel."""
    blocks = rows.reshape(-1, BLOCK)
    best = torch.sort(blocks, dim=1, descending=True, stable=True).indices[:, : BLOCK // 2]
    return torch.zeros(blocks.shape, dtype=torch.bool).scatter(1, best, True)


def _drop_gradient(layer: nn.Module, weight: Tensor) -> None:
    # A weight that is zero and has no gradient has no momentum and no decay: every optimiser leaves it at zero.
    cast(Tensor, weight.grad).masked_fill_(layer.get_buffer(REMOVED), 0.0)


@torch.no_grad()
def zero_removed(network: nn.Module) -> None:
    """Set the removed weights of a masked network to zero, in place; training leaves them there."""
    for layer in network.modules():
        if REMOVED in layer._buffers:
            cast(Tensor, layer.weight).masked_fill_(layer.get_buffer(REMOVED), 0.0)
