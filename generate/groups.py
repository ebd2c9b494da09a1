"""Dependency groups: the channels that can only be removed together, and where each of them lives.

torch-pruning finds which channels depend on which ("DepGraph", arXiv 2301.12900). Here its answer is turned
into plain index arrays, once per network: filter f of a group drives these channels of these layers. Costs are
counted from them, and networks are cut with them; the network is never traced again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch_pruning as tp
from numpy.typing import NDArray
from torch import nn

from popstats.errors import PlanError

__all__ = ["Group", "IntArray", "Member", "Side", "find_groups", "is_depthwise", "on_meta_device"]

IntArray = NDArray[np.int64]
Side = Literal["in", "out"]

_CARRIERS = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.PReLU,
    nn.Parameter,
)


@dataclass(frozen=True)
class Member:
    """The channels of one layer that a group drives.

    Parameters
    ----------
    layer : str
        Name of the module (or, for a parameter held by no standard layer, of the parameter).
    side : {"in", "out"}
        Which channels. Layers that pass channels through (norms, depthwise convolutions) have "out" only.
    channels : numpy.ndarray of int, shape (width, multiplicity)
        Row f lists the channels that go when filter f goes.
    """

    layer: str
    side: Side
    channels: IntArray

    @property
    def multiplicity(self) -> int:
        """Channels of this layer for each filter of the group: 49 behind VGG's flatten, usually 1."""
        return int(self.channels.shape[1])


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together: the unit of pruning.

    Parameters
    ----------
    name : str
        The group's first producing layer in `named_modules()` order.
    width : int
        Filters before pruning.
    layers : tuple of str
        All producing layers that it ties together, in `named_modules()` order.
    step : int
        Widths must be multiples of it (more than 1 at grouped convolutions).
    members : tuple of Member
        Every place where its channels live.
    blocks : numpy.ndarray of int, shape (width,)
        Block of each filter, 0 .. step - 1; the same number stays in every block.
    """

    name: str
    width: int
    layers: tuple[str, ...]
    step: int = 1
    members: tuple[Member, ...] = field(default=(), repr=False, compare=False)
    blocks: IntArray = field(default_factory=lambda: np.zeros(0, np.int64), repr=False, compare=False)


def find_groups(
    network: nn.Module, input_shape: tuple[int, int, int], keep: Sequence[str] = ()
) -> tuple[Group, ...]:
    """Return the prunable groups of `network`, ordered by their first producing layer.

    The input and the classifier's output are never prunable. The network itself is not touched: a copy
    without values is traced.

    Parameters
    ----------
    network : torch.nn.Module
        A classifier.
    input_shape : tuple of int
        Channels, height and width of one input.
    keep : sequence of str
        Layers (or modules that hold layers) whose output channels must all stay.

    Returns
    -------
    tuple of Group
        Names and order depend on `named_modules()` alone.

    Raises
    ------
    PlanError
        If the network cannot be pruned by groups, with the reason, or `keep` names no layer.
    """
    shell = on_meta_device(network)
    names = {module: name for name, module in shell.named_modules()}
    _check_keep(keep, names.values())
    graph = _trace(shell, input_shape)
    found = [group for group in _all_groups(graph, shell) if not _is_kept(group, keep)]
    if not found:
        raise PlanError(f"network {type(network).__name__}: no group of filters can be pruned.")
    return tuple(found)


def on_meta_device(network: nn.Module) -> nn.Module:
    """Return a copy of `network` that has shapes but no values: no memory, no arithmetic."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, memo).eval()


def _check_keep(keep: Sequence[str], names: Iterable[str]) -> None:
    legal = set(names)
    unknown = [name for name in keep if name not in legal]
    if unknown:
        shown = ", ".join(sorted(name for name in legal if name))
        raise PlanError(f"keep: no layer is called {', '.join(unknown)}; the network has {shown}.")


def _is_kept(group: Group, keep: Sequence[str]) -> bool:
    return any(layer == name or layer.startswith(f"{name}.") for layer in group.layers for name in keep)


def _trace(shell: nn.Module, input_shape: tuple[int, int, int]) -> Any:
    image = torch.zeros(1, *input_shape, device="meta")
    with torch.enable_grad():
        return tp.DependencyGraph().build_dependency(
            shell, image, unwrapped_parameters=_loose_parameters(shell), verbose=False
        )


def _loose_parameters(shell: nn.Module) -> list[tuple[nn.Parameter, int]]:
    # Parameters outside standard layers, such as ConvNeXt's layer scale: channels lie along their longest axis.
    loose = []
    for module in shell.modules():
        if not isinstance(module, _CARRIERS):
            loose += [(p, int(np.argmax(p.shape))) for p in module.parameters(recurse=False)]
    return loose


def _all_groups(graph: Any, shell: nn.Module) -> Iterator[Group]:
    order = {name: place for place, (name, _) in enumerate(shell.named_modules())}
    taken: dict[str, set[int]] = {}
    for name, module in shell.named_modules():
        if not _produces(module) or module not in graph.module2node:
            continue
        free = [c for c in range(_out_channels(module)) if c not in taken.get(name, set())]
        if not free:
            continue
        for members, prunable in _split(_members_of(graph, shell, module, free), len(free)):
            _mark(taken, members)
            if prunable:
                yield _as_group(members, shell, order)


def _produces(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.conv._ConvNd):
        return not is_depthwise(module)
    return isinstance(module, nn.Linear)


def is_depthwise(module: nn.Module) -> bool:
    """Return whether `module` is a convolution whose every output channel sees its own input channel only."""
    if not isinstance(module, nn.modules.conv._ConvNd):
        return False
    return module.groups > 1 and module.groups == module.out_channels == module.in_channels


def _out_channels(module: nn.Module) -> int:
    return int(module.out_channels if isinstance(module, nn.modules.conv._ConvNd) else module.out_features)  # type: ignore[arg-type]


def _members_of(graph: Any, shell: nn.Module, root: nn.Module, free: list[int]) -> list[_Driven]:
    pruner = graph.get_pruner_of_module(root)
    order = {channel: filter_ for filter_, channel in enumerate(free)}
    names = {id(module): name for name, module in shell.named_modules()}
    names |= {id(parameter): name for name, parameter in shell.named_parameters()}
    driven = []
    for item in graph.get_pruning_group(root, pruner.prune_out_channels, free):
        node = item.dep.target
        if not node.outputs or isinstance(node.module, _CARRIERS):
            filters = np.array([order[channel] for channel in item.root_idxs], dtype=np.int64)
            driven.append(
                _Driven(
                    layer=names.get(id(node.module), ""),
                    side=_side(graph, item.dep),
                    filters=filters,
                    channels=np.asarray(item.idxs, dtype=np.int64),
                    is_output=not node.outputs and _side(graph, item.dep) == "out",
                )
            )
    return driven


@dataclass(frozen=True)
class _Driven:
    """One entry of a torch-pruning group: channel `channels[i]` of a layer goes with filter `filters[i]`."""

    layer: str
    side: Side
    filters: IntArray
    channels: IntArray
    is_output: bool


def _side(graph: Any, dependency: Any) -> Side:
    module = dependency.target.module
    two_sided = isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and not is_depthwise(module)
    return "in" if two_sided and not graph.is_out_channel_pruning_fn(dependency.handler) else "out"


def _split(driven: list[_Driven], width: int) -> Iterator[tuple[tuple[Member, ...], bool]]:
    """Yield sets of filters that drive the same layers equally often; only these have affine channel counts."""
    counts = np.stack([np.bincount(entry.filters, minlength=width) for entry in driven], axis=1)
    for row in np.unique(counts, axis=0):
        filters = np.flatnonzero((counts == row).all(axis=1))
        reached = [entry for entry, count in zip(driven, row, strict=True) if count]
        members = tuple(_member(entry, filters) for entry in reached if entry.layer)
        yield members, not any(entry.is_output for entry in reached)


def _member(entry: _Driven, filters: IntArray) -> Member:
    wanted = np.isin(entry.filters, filters)
    order = np.lexsort((entry.channels[wanted], entry.filters[wanted]))
    return Member(entry.layer, entry.side, entry.channels[wanted][order].reshape(len(filters), -1))


def _mark(taken: dict[str, set[int]], members: Iterable[Member]) -> None:
    for member in members:
        if member.side == "out":
            taken.setdefault(member.layer, set()).update(member.channels.ravel().tolist())


def _as_group(members: tuple[Member, ...], shell: nn.Module, order: dict[str, int]) -> Group:
    outputs = {member.layer for member in members if member.side == "out"}
    layers = sorted((name for name in outputs & order.keys() if _produces(shell.get_submodule(name))), key=order.__getitem__)
    width = len(members[0].channels)
    return Group(layers[0], width, tuple(layers), 1, members, np.zeros(width, np.int64))
