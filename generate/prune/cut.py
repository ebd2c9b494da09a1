"""Cutting: a new network from which the filters that a recipe does not keep are actually removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from generate.prune.attention import at, attention_modules, set_heads, set_shape, set_width
from generate.prune.dependency_graph import Group, IntArray, Member, Side, copy_network
from generate.prune.operations import Convolution, channel_count, is_depthwise
from popstats.errors import PlanError

_CHANNEL_COUNTS = ("num_features", "num_channels", "num_parameters")


def choose_filters(
    scores: Mapping[str, Tensor], groups: Sequence[Group], widths: ArrayLike
) -> dict[str, IntArray]:
    """Return the sorted filters that a recipe keeps of each group: the highest scores, of equal ones the lower index."""
    kept = {}
    for group, width in zip(groups, np.asarray(widths).tolist(), strict=True):
        check_width(group, width)
        values = scores[group.name].detach().to("cpu", torch.float64).numpy()
        ranking = np.argsort(-values, kind="stable")
        ranked = [ranking[group.blocks[ranking] == block] for block in range(group.step)]
        kept[group.name] = np.sort(np.concatenate([best[: width // group.step] for best in ranked]))
    return kept


def cut(network: nn.Module, groups: Sequence[Group], kept: Mapping[str, IntArray]) -> nn.Module:
    """Return a copy of `network` with only the kept filters, in the same mode and on the same device."""
    for group in groups:
        _check_kept(group, kept)
    smaller = copy_network(network)
    knife = _Knife(smaller, groups)
    for member, gone in gone_channels(groups, kept):
        knife.remove(member, gone)
    modes = {module: module.training for module in smaller.modules()}
    smaller.train(smaller.training)  # modules that compute something in advance do so here, or drop it
    for module, training in modes.items():
        module.training = training
    return smaller


def check_width(group: Group, width: float) -> None:
    """Refuse a width that no cut of the group can have."""
    if not 1 <= width <= group.width or width % group.step:
        raise PlanError(
            f"group {group.name!r}: expected a width of 1 to {group.width} that is a multiple of "
            f"{group.step}, got {width}."
        )


def _check_kept(group: Group, kept: Mapping[str, ArrayLike]) -> None:
    if group.name not in kept:
        raise PlanError(
            f"kept: expected filters of group {group.name!r}, got those of {', '.join(map(str, kept)) or 'none'}."
        )
    filters = np.asarray(kept[group.name])
    if (
        filters.ndim != 1
        or filters.dtype.kind not in "iu"
        or not filters.size
        or filters.min() < 0
        or filters.max() >= group.width
    ):
        raise PlanError(
            f"kept: group {group.name!r} has filters 0 to {group.width - 1}, of which at least one must be kept; expected "
            f"their indices, got {filters.tolist()}."
        )
    if len(set(np.bincount(group.blocks[np.unique(filters)], minlength=group.step))) > 1:
        raise PlanError(
            f"kept: expected equally many filters of each of the {group.step} blocks of {group.name!r}."
        )


def gone_channels(groups: Sequence[Group], kept: Mapping[str, IntArray]) -> list[tuple[Member, IntArray]]:
    """Return all channels to remove, once for each side of each layer."""
    gone: dict[tuple[str, Side], tuple[Member, list[IntArray]]] = {}
    for group in groups:
        dropped = np.setdiff1d(np.arange(group.width), kept[group.name])
        for member in group.members if len(dropped) else ():
            held = gone.setdefault((member.layer, member.side), (member, []))
            held[1].append(member.channels[dropped].ravel())
    merged = [(member, np.concatenate(parts)) for member, parts in gone.values()]
    return sorted(merged, key=lambda item: item[0].side, reverse=True)  # outputs first, in every layer


class _Knife:
    """Removes channels from a network's layers, in place; a parameter of two layers is cut once and stays one."""

    def __init__(self, network: nn.Module, groups: Sequence[Group]) -> None:
        self._network = network
        self._attention = attention_modules(network)
        self._sizes = {
            heads.layer: {member.multiplicity for member in group.members if member.side != "heads"}
            for group in groups
            for heads in group.members
            if heads.side == "heads"
        }
        self._done: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}  # by old tensor and axis: (old, new)

    def remove(self, member: Member, gone: IntArray) -> None:
        """Remove the channels `gone` from one side of one layer."""
        layer = at(self._network, member.layer)
        owner, _, attribute = member.layer.rpartition(".")
        parent = self._network.get_submodule(owner)
        if isinstance(layer, Tensor):
            stay = _stay(layer.shape[member.axis], gone)
            self._select(parent, attribute, member.axis, stay)
            set_shape(parent, layer.shape[member.axis], len(stay))
        elif member.side == "heads":
            set_heads(
                layer, len(member.channels), len(member.channels) - len(gone), self._sizes[member.layer]
            )
        elif isinstance(layer, nn.Linear):
            self._cut_linear(layer, member.side, gone)
        elif isinstance(layer, Convolution):
            self._cut_convolution(layer, member.side, gone)
        else:
            self._cut_channelwise(layer, gone)
        if self._attention and member.side == "out" and owner not in self._attention:
            set_width(parent, member.channels.size, member.channels.size - len(gone))

    def _select(self, module: nn.Module, name: str, axis: int, stay: Tensor, blocks: int = 1) -> None:
        """Keep `stay` of one axis; with several blocks (rows of the weight), each keeps its own."""
        old = {**module._parameters, **module._buffers}.get(name)
        if old is None:  # absent, or computed from parameters that are cut themselves
            return
        if (id(old), axis) not in self._done:
            parts = old.detach().chunk(blocks)
            places = stay.to(old.device).reshape(blocks, -1)
            new = torch.cat(
                [part.index_select(axis, place) for part, place in zip(parts, places, strict=True)]
            )
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, requires_grad=old.requires_grad)
            self._done[id(old), axis] = old, new
        setattr(module, name, self._done[id(old), axis][1])

    def _cut_linear(self, layer: nn.Linear, side: Side, gone: IntArray) -> None:
        if side == "in":
            self._select(layer, "weight", 1, _stay(layer.in_features, gone))
            layer.in_features = layer.weight.shape[1]
            return
        stay = _stay(layer.out_features, gone)
        self._select(layer, "weight", 0, stay)
        self._select(layer, "bias", 0, stay)
        layer.out_features = len(stay)

    def _cut_convolution(self, layer: Convolution, side: Side, gone: IntArray) -> None:
        channels = layer.in_channels if side == "in" else layer.out_channels
        stay = _stay(channels, gone)
        multiplier = layer.out_channels // layer.in_channels
        if is_depthwise(layer):
            rows = stay if not layer.transposed else stay[::multiplier] // multiplier
            self._select(layer, "weight", 0, rows)
            layer.in_channels = layer.groups = len(stay) // multiplier
        elif (side == "out") != layer.transposed:
            self._select(layer, "weight", 0, stay)
        else:  # each group of a grouped convolution has its own columns
            self._select(layer, "weight", 1, stay % (channels // layer.groups), layer.groups)
        if side == "in":
            layer.in_channels = len(stay)
        else:
            self._select(layer, "bias", 0, stay)
            layer.out_channels = len(stay)

    def _cut_channelwise(self, layer: nn.Module, gone: IntArray) -> None:
        channels = cast(int, channel_count(layer))
        stay = _stay(channels, gone)
        for name, held in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if held.shape == (channels,):
                self._select(layer, name, 0, stay)
        set_channels(layer, channels, len(stay))


def set_channels(layer: nn.Module, before: int, now: int) -> None:
    """Tell a normalisation (or PReLU) how many channels it has."""
    if isinstance(layer, nn.GroupNorm):
        layer.num_groups = layer.num_groups * now // before if layer.num_groups > 1 else 1
    for name in _CHANNEL_COUNTS:
        if hasattr(layer, name):
            setattr(layer, name, now)
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        layer.normalized_shape = (now,)


def _stay(channels: int, gone: IntArray) -> Tensor:
    if gone.max() >= channels:
        raise PlanError(
            f"groups: channel {gone.max()} of a layer of {channels} is to be removed; expected groups of this network."
        )
    return torch.from_numpy(np.setdiff1d(np.arange(channels), gone))
