"""Filter scores: how much each filter of a group matters, by the usual criteria; filters with higher scores are kept longer.

The scores are computed by torch-pruning's importance classes. `l1`, `l2` and `fpgm` look at the filters themselves
(the output side of every producing layer of the group), `bn_scale` at the group's batch norms, `taylor` at every
layer the filters touch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning import _helpers
from torch_pruning.pruner import function, importance

from generate.inputs.networks import TRACED_IMAGES
from generate.prune.attention import at
from generate.prune.dependency_graph import Group, Member, copy_network
from generate.prune.operations import Convolution, is_depthwise
from popstats.errors import PlanError

# The criteria of plans, by torch-pruning's class: Li et al. 2017 (arXiv 1608.08710), its Euclidean variant, Liu et al. 2017
# (1708.06519), He et al. 2019 (1811.00250), Molchanov et al. 2019 (1906.10771), and chance as the control.
SCORERS: dict[str, Callable[[], Any]] = {
    "group_l2": partial(importance.GroupMagnitudeImportance, p=2),
    "l1": partial(importance.MagnitudeImportance, p=1, normalizer=None),
    "l2": partial(importance.MagnitudeImportance, p=2, normalizer=None),
    "bn_scale": partial(importance.BNScaleImportance, normalizer=None),
    "fpgm": partial(importance.FPGMImportance, p=1, normalizer=None),
    "taylor": partial(importance.TaylorImportance, normalizer=None),
    "random": importance.RandomImportance,
}


def score_filters(
    network: nn.Module,
    input_shape: tuple[int, ...],
    groups: Sequence[Group],
    criterion: str = "l1",
    *,
    backpropagate: Callable[[nn.Module], object] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return the score of every filter."""
    # -> (width,)
    if criterion not in SCORERS:
        raise PlanError(f"criterion {criterion!r} is unknown: expected one of {', '.join(SCORERS)}.")
    scorer = SCORERS[criterion]()
    if criterion == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return {group.name: scorer([(None, range(group.width))]).double() for group in groups}
    network = copy_network(network)
    if criterion == "taylor":
        if backpropagate is None:
            raise PlanError(
                "criterion taylor: expected `backpropagate`, which fills the gradients; got None."
            )
        network.zero_grad(set_to_none=True)
        backpropagate(network)
        if empty := [name for name, parameter in network.named_parameters() if parameter.grad is None]:
            raise PlanError(f"criterion taylor: no gradient reached {', '.join(empty)}.")
    order = _torch_prunings_order(network, input_shape, groups) if criterion == "group_l2" else {}
    return {
        group.name: _score(network, group, criterion, scorer, order.get(group.name, {})) for group in groups
    }


def _torch_prunings_order(
    network: nn.Module, input_shape: tuple[int, ...], groups: Sequence[Group]
) -> dict[str, dict[tuple[str, str], int]]:
    """Return in which order torch-pruning adds up the layers of each group: {group: {(layer, side): place}}."""
    # Sums of single precision depend on their order in the last digit, and filters of equal score on that digit.
    graph = tp.DependencyGraph()
    try:
        images = torch.zeros(TRACED_IMAGES, *input_shape)
        graph.build_dependency(network.requires_grad_(True), images, verbose=False)
        return {group.name: _places(graph, network, group) for group in groups}
    except Exception:
        return {}  # torch-pruning cannot trace this network, so it has no order to reproduce


def _places(graph: Any, network: nn.Module, group: Group) -> dict[tuple[str, str], int]:
    """Return the places of layers and sides in torch-pruning's walk from the first filter of a group."""
    # Its `get_pruning_group` does not end on some networks: it comes back to a layer for every new set of channels.
    outs = {at(network, member.layer): member for member in group.members if member.side == "out"}
    kinds = nn.modules.conv._ConvNd | nn.Linear
    root = next(
        (module for module in graph.module2node if isinstance(module, kinds) and module in outs), None
    )
    if root is None:
        return {}
    handler = graph.get_pruner_of_module(root).prune_out_channels
    if getattr(root, "groups", 1) == getattr(root, "out_channels", 0) > 1:
        handler = function.prune_depthwise_conv_out_channels
    start, channel = (graph.module2node[root], handler), int(outs[root].channels[0, 0])
    found: dict[Any, None] = {start: None}  # in the order in which they are met
    visited: set[Any] = set()
    stack = [(*start, [_helpers._HybridIndex(idx=channel, root_idx=channel)])]
    while stack:
        node, handler, indices = stack.pop()
        visited.add(node)
        for dependency in (d for d in node.dependencies if d.is_triggered_by(handler)):
            mapped, met = indices, (dependency.target, dependency.handler)
            for mapping in filter(None, dependency.index_mapping):
                mapped = mapping(mapped)
            if mapped and not (dependency.target in visited and met in found):
                found.setdefault(met)
                stack.append((*met, mapped))
    names = {module: name for name, module in network.named_modules()}
    inward = (function.prune_conv_in_channels, function.prune_linear_in_channels)
    sides = [(names.get(node.module, ""), "in" if handler in inward else "out") for node, handler in found]
    return {side: place for place, side in enumerate(sides)}


def _score(
    network: nn.Module, group: Group, criterion: str, scorer: Any, order: Mapping[tuple[str, str], int]
) -> Tensor:
    members = list(group.members)
    if criterion in ("l1", "l2", "fpgm"):  # of the filters themselves
        members = [m for m in members if m.side == "out" and m.layer in group.layers]
    members.sort(key=lambda member: order.get((member.layer, member.side), len(order)))
    entries = [_Entry.of(network, member) for member in members]
    found = scorer([entry for entry in entries if entry is not None])
    if found is None:
        raise PlanError(
            f"criterion {criterion}: group {group.name!r} has no layer that it can score. Choose another "
            "criterion, or protect the group with `keep`."
        )
    return cast(Tensor, found.detach().to("cpu", torch.float64)[: group.width])


class _Entry(tuple[Any, list[int]]):
    """What torch-pruning's importance classes read of one layer: (dependency, channels), and the filters."""

    root_idxs: list[int]

    @classmethod
    def of(cls, network: nn.Module, member: Member) -> _Entry | None:
        """Return the entry of one member; None for what has no importance itself."""
        layer = at(network, member.layer)
        pruning = _pruning_function(layer, member.side)
        if pruning is None:
            return None
        channels = member.channels.ravel()
        filters = np.repeat(np.arange(len(member.channels)), member.multiplicity)
        # In ascending order of channels, because some of the classes sort the channels but not the filters.
        order = np.argsort(channels, kind="stable")
        dependency = SimpleNamespace(
            layer=layer, pruning_fn=pruning, handler=pruning, target=SimpleNamespace(module=layer)
        )
        entry = cls((dependency, channels[order].tolist()))
        entry.root_idxs = filters[order].tolist()
        return entry


def _pruning_function(layer: object, side: str) -> Any:
    if isinstance(layer, nn.Linear):
        return function.prune_linear_out_channels if side == "out" else function.prune_linear_in_channels
    if isinstance(layer, Convolution) and layer.transposed and layer.groups > 1:
        return None  # torch-pruning reads its columns as if it had one group
    if isinstance(layer, Convolution) and not is_depthwise(layer):
        return function.prune_conv_out_channels if side == "out" else function.prune_conv_in_channels
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return function.prune_batchnorm_out_channels
    if isinstance(layer, nn.LayerNorm):
        return function.prune_layernorm_out_channels
    return None
