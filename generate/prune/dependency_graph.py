"""Which channels hang together: torch-pruning's dependency graph, read into plain index arrays.

torch-pruning ("DepGraph", arXiv 2301.12900) finds which channels depend on which. Here its answer is turned into
arrays, once per network: filter f drives these channels of these layers. Costs are counted from the arrays and
networks are cut with them; the network is never traced again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
import torch_pruning as tp
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from popstats.errors import PlanError

IntArray = NDArray[np.int64]
Side = Literal["in", "out"]
Convolution = nn.modules.conv._ConvNd

ATTENTION = "it has attention, whose heads tie channels together in other ways than filters do"
SHUFFLE = "it reorders channels by reshaping them (channel shuffle)"

_CHANNEL_CARRIERS = (
    Convolution,
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
    """The channels of one layer that a group drives."""

    layer: str  # Name of the module (or, for a parameter held by no standard layer, of the parameter).
    # Which channels. Layers that pass channels through (norms, depthwise convolutions) have "out" only.
    side: Side
    channels: IntArray  # (width, multiplicity); Row f lists the channels that go when filter f goes.

    @property
    def multiplicity(self) -> int:
        """Channels of this layer for each filter of the group: 49 behind VGG's flatten, usually 1."""
        return int(self.channels.shape[1])


@dataclass(frozen=True)
class Bundle:
    """Filters that drive the same layers, each of them equally often."""

    members: tuple[Member, ...]  # Every place where the filters' channels live.
    # The members that produce channels (not those that pass them on), in `named_modules()` order.
    layers: tuple[str, ...]
    is_output: bool  # Whether the channels are the network's output.


def find_bundles(network: nn.Module, input_shape: tuple[int, int, int]) -> list[Bundle]:
    """Return all bundles of filters, ordered by their first producing layer."""
    shell = on_meta_device(network)
    _refuse_what_has_no_filters(shell, input_shape)
    graph = _trace(shell, input_shape)
    return list(_bundles(graph, shell))


def on_meta_device(network: nn.Module) -> nn.Module:
    """Return a copy of `network` that has shapes but no values: no memory, no arithmetic."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, memo).eval()


def blank_input(network: nn.Module, input_shape: tuple[int, int, int]) -> Tensor:
    """Return one input without values, of the type of the network's parameters, shape (1, *input_shape)."""
    kind = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    return torch.zeros(1, *input_shape, device="meta", dtype=kind)


def is_depthwise(module: nn.Module) -> bool:
    """Return whether `module` is a convolution whose every output channel sees its own input channel only."""
    if not isinstance(module, Convolution):
        return False
    return module.groups > 1 and module.groups == module.out_channels == module.in_channels


def produces_channels(module: nn.Module) -> bool:
    """Return whether the output channels of `module` are its own, not its inputs passed on."""
    return isinstance(module, nn.Linear | Convolution) and not is_depthwise(module)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the reason why a forward pass is beyond groups of filters, if it is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reason = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("bmm", "baddbmm") or "attention" in name:
            self.reason = ATTENTION
        elif not self.reason and (name == "native_channel_shuffle" or _splits_channels(name, args, result)):
            self.reason = SHUFFLE
        return result


def _splits_channels(name: str, args: tuple[Any, ...], result: Any) -> bool:
    if name not in ("view", "reshape", "_unsafe_view"):
        return False
    return bool(args[0].dim() == 4 and result.dim() > 4 and args[0].shape[1] != result.shape[1])


def _refuse_what_has_no_filters(shell: nn.Module, input_shape: tuple[int, int, int]) -> None:
    name = type(shell).__name__
    operations = _Operations()
    try:
        with torch.no_grad(), operations:
            output = shell(blank_input(shell, input_shape))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        shape = "x".join(map(str, input_shape))
        raise PlanError(f"network {name} cannot take one input of {shape}: {error}") from error
    if not isinstance(output, Tensor):
        raise PlanError(
            f"network {name}: expected one tensor of class scores, got {type(output).__name__}; "
            "build it without auxiliary outputs."
        )
    if operations.reason:
        raise PlanError(f"network {name} cannot be pruned by groups of filters: {operations.reason}.")


class _SettledNodes(dict[Any, Any]):
    """The graph's nodes, once no index mapping can change any more.

    torch-pruning works out all index mappings again for every group, because a pruning may lie in between. Here
    nothing is pruned on the graph, and on networks with many concatenations this is four fifths of the time.
    """

    def items(self) -> Any:
        return {}.items()


def _trace(shell: nn.Module, input_shape: tuple[int, int, int]) -> Any:
    with torch.enable_grad():
        graph = tp.DependencyGraph().build_dependency(
            shell,
            blank_input(shell, input_shape),
            unwrapped_parameters=_loose_parameters(shell),
            verbose=False,
        )
    graph.module2node = _SettledNodes(graph.module2node)
    return graph


def _loose_parameters(shell: nn.Module) -> list[tuple[nn.Parameter, int]]:
    # Parameters outside standard layers, such as ConvNeXt's layer scale: channels lie along the longest axis.
    loose = []
    for module in shell.modules():
        if not isinstance(module, _CHANNEL_CARRIERS):
            loose += [(p, int(np.argmax(p.shape))) for p in module.parameters(recurse=False)]
    return loose


@dataclass(frozen=True)
class _Driven:
    """One entry of a torch-pruning group: channel `channels[i]` of a layer goes with filter `filters[i]`."""

    layer: str
    side: Side
    filters: IntArray
    channels: IntArray
    is_output: bool


def _bundles(graph: Any, shell: nn.Module) -> Iterator[Bundle]:
    taken: dict[str, set[int]] = {}
    names = {id(module): name for name, module in shell.named_modules()}
    names |= {id(parameter): name for name, parameter in shell.named_parameters()}
    producers = [name for name, module in shell.named_modules() if produces_channels(module)]
    for name in producers:
        module = shell.get_submodule(name)
        free = [c for c in range(_out_channels(module)) if c not in taken.get(name, set())]
        if module not in graph.module2node or not free:
            continue
        for bundle in _split(_driven_by(graph, names, module, free), len(free), producers):
            for member in bundle.members:
                if member.side == "out":
                    taken.setdefault(member.layer, set()).update(member.channels.ravel().tolist())
            yield bundle


def _out_channels(module: nn.Module) -> int:
    return module.out_features if isinstance(module, nn.Linear) else cast(Convolution, module).out_channels


def _driven_by(graph: Any, names: dict[int, str], root: nn.Module, free: list[int]) -> list[_Driven]:
    place = {channel: filter_ for filter_, channel in enumerate(free)}
    root_function = graph.get_pruner_of_module(root).prune_out_channels
    driven = []
    for item in graph.get_pruning_group(root, root_function, free):
        node, side = item.dep.target, _side(graph, item.dep)
        if (node.outputs and not isinstance(node.module, _CHANNEL_CARRIERS)) or _is_shared(node.module):
            continue
        filters = np.array([place[channel] for channel in item.root_idxs], dtype=np.int64)
        channels = np.asarray(item.idxs, dtype=np.int64)
        is_output = not node.outputs and side == "out"
        driven.append(_Driven(names.get(id(node.module), ""), side, filters, channels, is_output))
    return driven


def _is_shared(module: Any) -> bool:
    # A PReLU with one parameter for all channels carries none of them.
    return isinstance(module, nn.PReLU) and module.num_parameters == 1


def _side(graph: Any, dependency: Any) -> Side:
    two_sided = produces_channels(dependency.target.module)
    return "in" if two_sided and not graph.is_out_channel_pruning_fn(dependency.handler) else "out"


def _split(driven: list[_Driven], width: int, producers: list[str]) -> Iterator[Bundle]:
    """Yield sets of filters that drive the same layers equally often; only their channel counts are affine."""
    counts = np.stack([np.bincount(entry.filters, minlength=width) for entry in driven], axis=1)
    for row in _distinct_rows(counts):
        filters = np.flatnonzero((counts == row).all(axis=1))
        reached = [entry for entry, count in zip(driven, row, strict=True) if count]
        members = tuple(_member(entry, filters) for entry in reached if entry.layer)
        outputs = {member.layer for member in members if member.side == "out"}
        layers = tuple(name for name in producers if name in outputs)
        yield Bundle(members, layers, any(entry.is_output for entry in reached))


def _distinct_rows(counts: IntArray) -> IntArray:
    _, first = np.unique(counts, axis=0, return_index=True)
    return counts[np.sort(first)]


def _member(entry: _Driven, filters: IntArray) -> Member:
    wanted = np.isin(entry.filters, filters)
    order = np.lexsort((entry.channels[wanted], entry.filters[wanted]))
    return Member(entry.layer, entry.side, entry.channels[wanted][order].reshape(len(filters), -1))
