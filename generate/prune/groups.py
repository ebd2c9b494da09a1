"""Dependency groups: the channels that can only be removed together, by name. The unit of pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from generate.inputs.networks import NETWORK_ERRORS, class_scores
from generate.prune.attention import HeadAttention, at, attention_modules, is_inside
from generate.prune.cut import cut
from generate.prune.dependency_graph import Group, IntArray, Member, find_dependencies, with_values
from generate.prune.operations import Convolution, SkippedProducts, is_depthwise
from popstats.errors import PlanError

REASONS_SHOWN = 4


def find_groups(
    network: nn.Module, input_shape: tuple[int, ...], keep: Sequence[str] = ()
) -> tuple[Group, ...]:
    """Return the prunable groups of a copy of `network`, ordered by their first producing layer, without a proof."""
    shell = with_values(network)
    check_keep(keep, [name for name, _ in shell.named_modules()])
    found, stays = find_dependencies(shell, input_shape)
    tied = _tied_to_input(with_values(network), input_shape, tuple(_prunable(found, shell)))
    if tied:
        found, stays = find_dependencies(with_values(network), input_shape, tied)
    free = [
        group
        for group in found
        if not any(is_inside(m.layer, keep) for m in group.members if m.side == "out")
    ]
    groups = tuple(_unique_names(list(_prunable(free, shell))))
    if not groups:
        together = {group.name: "its filters can only go together" for group in free}
        shown = list((together | stays).items())[:REASONS_SHOWN]
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in shown)
        raise PlanError(
            f"network {type(network).__name__}: no group of filters can be pruned ({reasons or 'all are kept'})."
        )
    return groups


def _tied_to_input(network: nn.Module, input_shape: tuple[int, ...], groups: Sequence[Group]) -> list[str]:
    """Return the attention modules that take a head's size from their input, so that heads cannot go without channels.

    `C // num_heads` of `B, N, C = x.shape` leaves no trace in the values. What shows it is a cut of one filter that the
    module reads or makes: it does not run. Modules of one class are alike.
    """
    by_class: dict[type, list[str]] = {}
    for name, module in attention_modules(network).items():
        if not isinstance(module, HeadAttention):
            by_class.setdefault(type(module), []).append(name)
    return [
        name
        for names in by_class.values()
        if any(
            not _runs_without_one(network, input_shape, group)
            for group in groups
            if any(member.side == "in" and is_inside(member.layer, names[:1]) for member in group.members)
        )
        for name in names
    ]


def _runs_without_one(network: nn.Module, input_shape: tuple[int, ...], group: Group) -> bool:
    first = np.unique(group.blocks, return_index=True)[1]
    try:
        with SkippedProducts():
            smaller = cut(network, (group,), {group.name: np.delete(np.arange(group.width), first)})
            class_scores(smaller.eval(), input_shape)
    except (*NETWORK_ERRORS, PlanError):
        return False
    return True


def check_arguments(network: nn.Module, input_shape: Sequence[int], groups: Sequence[Group] = ()) -> None:
    """Refuse what is no network, no shape of an input, or no group."""
    if not isinstance(network, nn.Module):
        raise PlanError(f"network: expected a torch.nn.Module, got a {type(network).__name__}.")
    sizes = input_shape if isinstance(input_shape, tuple | list) else ()
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise PlanError(
            f"input_shape: expected the shape of one input, such as (3, 32, 32), got {input_shape!r}."
        )
    if isinstance(groups, str | Group) or any(not isinstance(group, Group) for group in groups):
        raise PlanError(f"groups: expected what generate.find_groups returned, got {groups!r}.")


def check_keep(keep: Sequence[str], names: Iterable[str]) -> None:
    """Refuse names of layers that the network does not have."""
    if isinstance(keep, str):
        raise PlanError(f"keep: expected a list of names, such as [{keep!r}], got {keep!r}.")
    legal = set(names) - {""}
    unknown = [name for name in keep if name not in legal]
    if unknown:
        shown = ", ".join(sorted(legal))
        raise PlanError(f"keep: no layer is called {', '.join(map(str, unknown))}; the network has {shown}.")


def _prunable(found: Iterable[Group], network: nn.Module) -> Iterator[Group]:
    for group in found:
        blocks = _blocks(group, network)
        if blocks is not None and int(blocks.max()) + 1 < group.width:
            yield replace(group, step=int(blocks.max()) + 1, blocks=blocks)


def _blocks(group: Group, network: nn.Module) -> IntArray | None:
    """Return the block of each filter, or None where no equal number can be taken from every block.

    A grouped convolution sees its channels in consecutive blocks of equal size, and they must
    stay equal. Where several of them share the filters, a block is what none of them tells apart.
    """
    labels = [np.zeros(group.width, dtype=np.int64)]
    for member in group.members:
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
