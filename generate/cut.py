"""Cutting: a new network from which the filters that a recipe does not keep are really gone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from generate.groups import Group, IntArray, Member, Side, is_depthwise
from popstats.errors import PlanError

__all__ = ["choose_filters", "cut"]


def choose_filters(
    scores: Mapping[str, Tensor], groups: Sequence[Group], widths: ArrayLike
) -> dict[str, IntArray]:
    """Return which filters a recipe keeps: the highest scores of each group.

    Where a group's step is above 1 (grouped convolutions), the same number is kept in each of its blocks.
    Equal scores are decided by the lower index, so the choice is the same everywhere.

    Parameters
    ----------
    scores : mapping of str to torch.Tensor, shape (width,)
        By group name; higher is kept longer.
    groups : sequence of Group
        The prunable groups.
    widths : array_like of int, shape (G,)
        Filters to keep in each group.

    Returns
    -------
    dict of str to numpy.ndarray of int
        By group name: sorted indices of the kept filters.

    Raises
    ------
    PlanError
        If a width is no multiple of its group's step, or outside 1 .. the group's width.
    """
    kept = {}
    for group, width in zip(groups, np.asarray(widths).tolist(), strict=True):
        _check_width(group, width)
        values = scores[group.name].detach().to("cpu", torch.float64).numpy()
        kept[group.name] = _best(values, group, width)
    return kept


def cut(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    groups: Sequence[Group],
    kept: Mapping[str, IntArray],
) -> nn.Module:
    """Return a copy of `network` with only the kept filters; `network` itself is not touched.

    Parameters
    ----------
    network : torch.nn.Module
        The network that `groups` were found in, or one of the same architecture.
    input_shape : tuple of int
        Channels, height and width of one input; the cut does not depend on it.
    groups : sequence of Group
        Its prunable groups.
    kept : mapping of str to numpy.ndarray of int
        By group name: sorted indices of the filters that stay, as from `choose_filters`.

    Returns
    -------
    torch.nn.Module
        In the same training mode, on the same device.
    """
    smaller = copy.deepcopy(network)
    for (layer, side), gone in _gone_channels(groups, kept).items():
        _slice(smaller, layer, side, gone)
    return smaller


def _check_width(group: Group, width: int) -> None:
    if not 1 <= width <= group.width or width % group.step:
        raise PlanError(
            f"group {group.name!r}: expected a width of 1 to {group.width} that is a multiple of {group.step}, "
            f"got {width}."
        )


def _best(values: np.ndarray[tuple[int], np.dtype[np.float64]], group: Group, width: int) -> IntArray:
    ranking = np.argsort(-values, kind="stable")
    quota = width // group.step
    best = [ranking[group.blocks[ranking] == block][:quota] for block in range(group.step)]
    return np.sort(np.concatenate(best))


def _gone_channels(
    groups: Sequence[Group], kept: Mapping[str, IntArray]
) -> dict[tuple[str, Side], IntArray]:
    gone: dict[tuple[str, Side], list[IntArray]] = {}
    for group in groups:
        dropped = np.setdiff1d(np.arange(group.width), kept[group.name])
        for member in group.members if len(dropped) else ():
            gone.setdefault((member.layer, member.side), []).append(_channels(member, dropped))
    return {place: np.concatenate(parts) for place, parts in gone.items()}


def _channels(member: Member, filters: IntArray) -> IntArray:
    return member.channels[filters].ravel()


def _slice(network: nn.Module, layer: str, side: Side, gone: IntArray) -> None:
    parent_name, _, attribute = layer.rpartition(".")
    target = getattr(network.get_submodule(parent_name), attribute)
    if isinstance(target, nn.Parameter):
        setattr(network.get_submodule(parent_name), attribute, _slice_loose(target, gone))
    elif isinstance(target, nn.Linear):
        _slice_linear(target, side, gone)
    elif isinstance(target, nn.modules.conv._ConvNd):
        _slice_convolution(target, side, gone)
    else:
        _slice_channelwise(cast(nn.Module, target), gone)


def _stay(channels: int, gone: IntArray) -> Tensor:
    return torch.from_numpy(np.setdiff1d(np.arange(channels), gone))


def _select(parameter: Tensor, axis: int, stay: Tensor) -> Tensor:
    return parameter.detach().index_select(axis, stay.to(parameter.device))


def _replace(module: nn.Module, name: str, axis: int, stay: Tensor) -> None:
    old = getattr(module, name)
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(_select(old, axis, stay), requires_grad=old.requires_grad))
    elif old is not None:
        setattr(module, name, _select(old, axis, stay))


def _slice_loose(parameter: nn.Parameter, gone: IntArray) -> nn.Parameter:
    axis = int(np.argmax(parameter.shape))
    stay = _stay(parameter.shape[axis], gone)
    return nn.Parameter(_select(parameter, axis, stay), requires_grad=parameter.requires_grad)


def _slice_linear(layer: nn.Linear, side: Side, gone: IntArray) -> None:
    if side == "in":
        _replace(layer, "weight", 1, _stay(layer.in_features, gone))
        layer.in_features = layer.weight.shape[1]
        return
    stay = _stay(layer.out_features, gone)
    _replace(layer, "weight", 0, stay)
    _replace(layer, "bias", 0, stay)
    layer.out_features = len(stay)


def _slice_convolution(layer: nn.modules.conv._ConvNd, side: Side, gone: IntArray) -> None:
    if side == "in":
        _slice_convolution_inputs(layer, gone)
        return
    stay = _stay(layer.out_channels, gone)
    depthwise = is_depthwise(layer)
    _replace(layer, "weight", 1 if layer.transposed and not depthwise else 0, stay)
    _replace(layer, "bias", 0, stay)
    layer.out_channels = len(stay)
    if depthwise:
        layer.in_channels = layer.groups = len(stay)


def _slice_convolution_inputs(layer: nn.modules.conv._ConvNd, gone: IntArray) -> None:
    stay = _stay(layer.in_channels, gone)
    if layer.groups == 1:
        _replace(layer, "weight", 0 if layer.transposed else 1, stay)
    else:
        local = (stay % (layer.in_channels // layer.groups)).reshape(layer.groups, -1)
        layer.weight = nn.Parameter(_select_by_group(layer.weight, local), layer.weight.requires_grad)
    layer.in_channels = len(stay)


def _select_by_group(weight: Tensor, local: Tensor) -> Tensor:
    # Each group of a grouped convolution sees its own inputs: its filters keep its own columns.
    parts = weight.detach().chunk(len(local))
    return torch.cat([_select(part, 1, columns) for part, columns in zip(parts, local, strict=True)])


def _slice_channelwise(module: nn.Module, gone: IntArray) -> None:
    channels = _channel_count(module)
    stay = _stay(channels, gone)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(module, name, None) is not None:
            _replace(module, name, 0, stay)
    for name in ("num_features", "num_channels", "num_parameters"):
        if hasattr(module, name):
            setattr(module, name, len(stay))
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = (len(stay),)


def _channel_count(module: nn.Module) -> int:
    for name in ("num_features", "num_channels", "num_parameters"):
        if hasattr(module, name):
            return int(getattr(module, name))
    assert isinstance(module, nn.LayerNorm)
    return int(module.normalized_shape[0])
