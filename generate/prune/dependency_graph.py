"""Which channels depend on each other: found by labelling every value of a real forward pass.

"DepGraph" (arXiv 2301.12900) finds the same from the autograd graph. Labels say it for every single channel, so that
concatenations with constants, flattened maps in any order and parts of layers come out right. The answer is plain index
arrays: filter f drives these channels of these layers. Costs are counted from them and networks are cut with them.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from generate.inputs.networks import NETWORK_ERRORS, TRACED_IMAGES, class_scores, first_line
from generate.prune.attention import open_attention
from generate.prune.labels import STAYS
from generate.prune.operations import LabelledNetwork, Operations, SkippedProducts, produces_channels
from popstats.arrays import IntArray as IntArray
from popstats.errors import PlanError

Side = Literal["in", "out", "heads"]


@dataclass(frozen=True)
class Member:
    """The channels of one layer that a group drives; layers that pass channels on have "out" only."""

    layer: str  # of the module or, where no standard layer holds it, of the parameter or buffer
    side: Side
    channels: IntArray  # (width, multiplicity): row f lists what goes with filter f
    axis: int = 0  # of a loose parameter: the axis along which its channels lie
    macs: int = (
        0  # of an attention module, whose heads are its channels here: products of each, for one input
    )

    @property
    def multiplicity(self) -> int:
        """Channels of this layer for each filter of the group: 49 behind VGG's flatten, usually 1."""
        return int(self.channels.shape[1])


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


def find_dependencies(
    network: nn.Module, input_shape: tuple[int, ...], tied: Collection[str] = ()
) -> tuple[tuple[Group, ...], dict[str, str]]:
    """Return which channels of a copy (from `with_values`) go together, and why the other layers' channels stay.

    The heads of `tied` attention modules go with the channels that these modules read.
    """
    labelled = LabelledNetwork(network)
    operations = Operations(labelled)
    macs: dict[str, int] = {}  # of evaluation, by attention module
    for training in (False, True):
        with SkippedProducts(), operations:
            output = class_scores(network.train(training), input_shape)
        macs = macs or {name: count // TRACED_IMAGES for name, count in labelled.head_macs.items()}
        scores = labelled.of(output)
        if scores is not None:
            labelled.labels.pin(scores, "it holds the class scores")
    for layer in set(labelled.weights.values()) - operations.called:
        labelled.labels.pin(labelled.rows[layer], "it is never used")
    for name in tied:
        _tie_heads(labelled, name)
    heads = _heads(labelled, macs)
    places = [*_places(labelled, _axes(labelled)), *heads]
    producers = {
        name: place
        for place, (name, module) in enumerate(network.named_modules())
        if produces_channels(module)
    }
    rows, labels = labelled.rows, labelled.labels
    kept = [name for name in producers if name in rows and not labels.find(rows[name]).any()]
    reasons = {name: labels.reason(rows[name]) for name in kept}
    return _groups(places, producers), reasons


def copy_network(network: nn.Module) -> nn.Module:
    """Return a copy with open attention, also where hooks of torch.nn.utils have left computed weights on its layers."""
    computed = [
        held for module in network.modules() for held in vars(module).values() if isinstance(held, Tensor)
    ]
    memo = {id(held): held.detach().clone() for held in computed if not held.is_leaf}
    try:
        return open_attention(copy.deepcopy(network, memo))
    except NETWORK_ERRORS as error:
        hooked = [
            name or "the network itself"
            for name, module in network.named_modules()
            if module._forward_hooks or module._forward_pre_hooks
        ]
        advice = (
            f"Remove the hooks of {', '.join(hooked)}, or let them store detached tensors." if hooked else ""
        )
        raise PlanError(
            f"network {type(network).__name__} cannot be copied: {first_line(error).partition('. ')[0].rstrip('.')}.{advice}"
        ) from error


def with_values(network: nn.Module) -> nn.Module:
    """Return a copy on the CPU with open attention; what lies on the meta device gets values."""
    unfit = [
        f"{name} is lazy; run the network once on an image first"
        for name, held in _held(network)
        if isinstance(held, nn.UninitializedParameter | nn.UninitializedBuffer)
    ] + [
        f"{name or 'all of it'} is compiled by TorchScript; build it from Python modules"
        for name, module in network.named_modules()
        if isinstance(module, torch.jit.ScriptModule)
    ]
    if unfit:
        raise PlanError(f"network {type(network).__name__}: {unfit[0]}.")
    meta = {id(held): _filled(held) for _, held in _held(network) if held.is_meta}
    return open_attention(copy.deepcopy(network, meta)) if meta else copy_network(network).cpu()


def _held(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]


def _filled(held: Tensor) -> Tensor:
    values = torch.ones_like(held, device="cpu", requires_grad=False)
    return nn.Parameter(values, held.requires_grad) if isinstance(held, nn.Parameter) else values


def _axes(labelled: LabelledNetwork) -> dict[str, int]:
    """Return the axis of each loose parameter along which its channels lie; pin those that have none."""
    axes = {}
    for name, labels in labelled.loose.items():
        found = labelled.labels.axes(labels)
        if len(found) == 1:
            axes[name] = found[0]
        else:
            labelled.labels.pin(labels, f"{name} does not follow its channels")
    return axes


def _tie_heads(labelled: LabelledNetwork, name: str) -> None:
    """Let each head of an attention module go with its share of the channels that the module reads.

    Layers inside that make as many channels for another purpose, such as to read fewer places, go with them too.
    """
    read, labels = labelled.read[name], labelled.labels
    heads = labelled.heads.get(name, [torch.tensor([STAYS])])
    axes = labels.axes(read)
    channels = labels.along(read, axes[-1]) if axes else read.reshape(-1)[:1]
    for rows in heads:
        if len(axes) > 1 or len(channels) % len(rows):
            labels.pin(channels, f"{name} takes the size of a head from its input")
            labels.pin(rows, f"{name} takes the size of a head from its input")
        else:
            labels.tie(channels.reshape(len(rows), -1), rows[:, None])
    for layer, rows in labelled.rows.items():
        known = torch.isin(labels.find(rows), labels.find(channels)).any()
        if layer.startswith(f"{name}.") and len(rows) == len(channels) and not known:
            labels.tie(rows, channels)


def _heads(labelled: LabelledNetwork, macs: Mapping[str, int]) -> list[Member]:
    """Return each attention module's heads, by label; pin those that its products do not agree about."""
    found = []
    for name, heads in labelled.heads.items():
        products = [list(dict.fromkeys(labelled.labels.find(rows).tolist())) for rows in heads]
        if STAYS in products[0] or any(rows != products[0] for rows in products):
            for rows in heads:
                labelled.labels.pin(rows, f"the heads of {name} are not its own")
        else:
            labels = np.array(products[0])
            found.append(Member(name, "heads", labels, macs=macs[name] // len(labels)))
    return found


def _places(labelled: LabelledNetwork, axes: dict[str, int]) -> Iterator[Member]:
    """Yield every place where channels live, with the label of each channel."""
    find = labelled.labels.find
    for name, rows in labelled.rows.items():
        yield Member(name, "out", find(rows).numpy())
        if name in labelled.columns:
            yield Member(name, "in", find(labelled.columns[name]).numpy())
    for name, axis in axes.items():
        labels = labelled.loose[name]
        along = labels.movedim(axis, 0).reshape(labels.shape[axis], -1)[:, 0]
        yield Member(name, "out", find(along).numpy(), axis)


def _groups(places: Sequence[Member], producers: dict[str, int]) -> tuple[Group, ...]:
    """Return sets of filters that drive the same layers equally often, ordered by their first producing layer."""
    filters: dict[int, list[tuple[int, int]]] = defaultdict(list)  # by label: (place, channel)
    for place, member in enumerate(places):
        for channel, label in enumerate(member.channels.tolist()):
            if label != STAYS:
                filters[label].append((place, channel))
    alike: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)  # by places: each filter's channels
    for held in filters.values():
        if any(places[place].layer in producers for place, _ in held if places[place].side == "out"):
            alike[tuple(place for place, _ in held)].append([channel for _, channel in held])
    found = [_group([places[p] for p in key], np.array(rows), producers) for key, rows in alike.items()]
    return tuple(group for _, group in sorted(found, key=lambda item: item[0]))


def _group(
    places: Sequence[Member], channels: IntArray, producers: dict[str, int]
) -> tuple[tuple[int, int], Group]:
    """Return filters as a group, and where it stands: its first producing layer, its first channel there."""
    columns: dict[tuple[str, Side], list[int]] = defaultdict(list)
    for column, member in enumerate(places):
        columns[member.layer, member.side].append(column)
    made = (name for name, side in columns if side == "out" and name in producers)
    layers = tuple(sorted(made, key=producers.__getitem__))
    own = channels[:, columns[layers[0], "out"]]
    channels = channels[np.argsort(own[:, 0], kind="stable")]
    members = tuple(replace(places[at[0]], channels=channels[:, at]) for at in columns.values())
    return (producers[layers[0]], int(own.min())), Group(layers[0], len(channels), layers, members=members)
