"""Dependency groups: the channels that can only be removed together, by name. The unit of pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from generate.prune.attention import at
from generate.prune.dependency_graph import ChannelGroup, IntArray, Member, find_dependencies, with_values
from generate.prune.operations import Convolution, is_depthwise
from popstats.errors import PlanError

REASONS_SHOWN = 4


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together: the unit of pruning."""

    name: str  # The group's first producing layer in `named_modules()` order.
    width: int  # Filters before pruning.
    layers: tuple[str, ...]  # All producing layers that it ties together, in `named_modules()` order.
    step: int = 1  # Widths must be multiples of it (more than 1 at grouped convolutions).
    least: int = 1  # Smallest width; where it is no multiple of the step, the next one.
    # Every place where its channels live.
    members: tuple[Member, ...] = field(default=(), repr=False, compare=False)
    # (width,); Block of each filter, 0 .. step - 1; the same number of filters stays in every block.
    blocks: IntArray = field(default_factory=lambda: np.zeros(0, np.int64), repr=False, compare=False)


def find_groups(
    network: nn.Module, input_shape: tuple[int, ...], keep: Sequence[str] = ()
) -> tuple[Group, ...]:
    """Return the prunable groups of a copy of `network`, ordered by their first producing layer, without a proof."""
    shell = with_values(network)
    check_keep(keep, [name for name, _ in shell.named_modules()])
    found = find_dependencies(shell, input_shape)
    free = [channels for channels in found.channel_groups if not _is_kept(channels, keep)]
    groups = tuple(_unique_names(list(_prunable(free, shell))))
    if not groups:
        tied = {channels.layers[0]: "its filters can only go together" for channels in free}
        shown = list((tied | found.kept).items())[:REASONS_SHOWN]
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in shown)
        raise PlanError(
            f"network {type(network).__name__}: no group of filters can be pruned ({reasons or 'all are kept'})."
        )
    return groups


def check_keep(keep: Sequence[str], names: Iterable[str]) -> None:
    """Refuse names of layers that the network does not have."""
    legal = set(names) - {""}
    unknown = [name for name in keep if name not in legal]
    if unknown:
        shown = ", ".join(sorted(legal))
        raise PlanError(f"keep: no layer is called {', '.join(unknown)}; the network has {shown}.")


def _is_kept(channels: ChannelGroup, keep: Sequence[str]) -> bool:
    places = [member.layer for member in channels.members if member.side == "out"]
    return any(is_inside(place, keep) for place in places)


def is_inside(layer: str, keep: Sequence[str]) -> bool:
    """Return whether a layer is one of the modules in `keep`, or inside one."""
    return any(layer == name or layer.startswith(f"{name}.") for name in keep)


def _prunable(found: Iterable[ChannelGroup], network: nn.Module) -> Iterator[Group]:
    for channels in found:
        width = len(channels.members[0].channels)
        blocks = _blocks(channels, network, width)
        if blocks is not None and int(blocks.max()) + 1 < width:
            step = int(blocks.max()) + 1
            yield Group(
                channels.layers[0], width, channels.layers, step, members=channels.members, blocks=blocks
            )


def _blocks(channel_group: ChannelGroup, network: nn.Module, width: int) -> IntArray | None:
    """Return the block of each filter, or None where no equal number can be taken from every block.

    A grouped convolution sees its channels in consecutive blocks of equal size, and they must
    stay equal. Where several of them share the filters, a block is what none of them tells apart.
    """
    labels = [np.zeros(width, dtype=np.int64)]
    for member in channel_group.members:
        divisions = _divisions(network, member)
        if divisions is None:
            continue
        count, size = divisions
        label = member.channels // size
        if (label != label[:, :1]).any() or len(set(np.bincount(label[:, 0], minlength=count))) > 1:
            return None
        labels.append(label[:, 0])
    _, blocks = np.unique(np.stack(labels, axis=1), axis=0, return_inverse=True)
    return blocks.ravel().astype(np.int64) if len(set(np.bincount(blocks.ravel()))) == 1 else None


def _divisions(network: nn.Module, member: Member) -> tuple[int, int] | None:
    """Return into how many blocks, of how many channels, the member's layer divides this side; None if not."""
    layer = at(network, member.layer)
    if isinstance(layer, Convolution) and layer.groups > 1 and not is_depthwise(layer):
        channels = layer.in_channels if member.side == "in" else layer.out_channels
        return layer.groups, channels // layer.groups
    return None


def _unique_names(groups: list[Group]) -> Iterator[Group]:
    # Parts of one layer's channels can belong to different groups; only then is a name not enough.
    counts = Counter(group.name for group in groups)
    for group in groups:
        if counts[group.name] == 1:
            yield group
        else:
            first = next(m for m in group.members if m.layer == group.name and m.side == "out")
            yield replace(group, name=f"{group.name}[{first.channels.min()}:{first.channels.max() + 1}]")
