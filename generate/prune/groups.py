"""Dependency groups: the channels that can only be removed together, by name. The unit of pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from generate.prune.dependency_graph import Bundle, Convolution, IntArray, Member, find_bundles, is_depthwise
from popstats.errors import PlanError


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together: the unit of pruning."""

    name: str  # The group's first producing layer in `named_modules()` order.
    width: int  # Filters before pruning.
    layers: tuple[str, ...]  # All producing layers that it ties together, in `named_modules()` order.
    step: int = 1  # Widths must be multiples of it (more than 1 at grouped convolutions).
    # Every place where its channels live.
    members: tuple[Member, ...] = field(default=(), repr=False, compare=False)
    # (width,); Block of each filter, 0 .. step - 1; the same number of filters stays in every block.
    blocks: IntArray = field(default_factory=lambda: np.zeros(0, np.int64), repr=False, compare=False)


def find_groups(
    network: nn.Module, input_shape: tuple[int, int, int], keep: Sequence[str] = ()
) -> tuple[Group, ...]:
    """Return the prunable groups of `network`, ordered by their first producing layer.

    The input and the classifier's output are never prunable, nor are channels that grouped convolutions tie
    together in such a way that no part of them can go. The network itself is not touched: a copy without values
    is traced.

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
    _check_keep(keep, [name for name, _ in network.named_modules()])
    bundles = [b for b in find_bundles(network, input_shape) if not b.is_output and not _is_kept(b, keep)]
    groups = tuple(_unique_names(list(_prunable(bundles, network))))
    if not groups:
        raise PlanError(f"network {type(network).__name__}: no group of filters can be pruned.")
    return groups


def _check_keep(keep: Sequence[str], names: Iterable[str]) -> None:
    legal = set(names) - {""}
    unknown = [name for name in keep if name not in legal]
    if unknown:
        shown = ", ".join(sorted(legal))
        raise PlanError(f"keep: no layer is called {', '.join(unknown)}; the network has {shown}.")


def _is_kept(bundle: Bundle, keep: Sequence[str]) -> bool:
    return any(layer == name or layer.startswith(f"{name}.") for layer in bundle.layers for name in keep)


def _prunable(bundles: Iterable[Bundle], network: nn.Module) -> Iterator[Group]:
    for bundle in bundles:
        width = len(bundle.members[0].channels)
        blocks = _blocks(bundle, network, width)
        if blocks is not None and int(blocks.max()) + 1 < width:
            yield Group(bundle.layers[0], width, bundle.layers, int(blocks.max()) + 1, bundle.members, blocks)


def _blocks(bundle: Bundle, network: nn.Module, width: int) -> IntArray | None:
    """Return the block of each filter, or None where no equal number can be taken from every block.

    A grouped convolution (or group norm) sees its channels in consecutive blocks of equal size, and they must
    stay equal. Where several of them share the filters, a block is what none of them tells apart.
    """
    labels = [np.zeros(width, dtype=np.int64)]
    for member in bundle.members:
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
    parent, _, attribute = member.layer.rpartition(".")
    layer = getattr(network.get_submodule(parent), attribute)
    if isinstance(layer, Convolution) and layer.groups > 1 and not is_depthwise(layer):
        channels = layer.in_channels if member.side == "in" else layer.out_channels
        return layer.groups, channels // layer.groups
    if isinstance(layer, nn.GroupNorm) and layer.num_groups > 1:
        return layer.num_groups, layer.num_channels // layer.num_groups
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
