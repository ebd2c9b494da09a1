"""Removing channels from the layers of a network, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from generate.prune.dependency_graph import Convolution, IntArray, Side, is_depthwise
from generate.prune.groups import Group

_CHANNEL_COUNTS = ("num_features", "num_channels", "num_parameters")
_CHANNEL_TENSORS = ("weight", "bias", "running_mean", "running_var")


def remove_filters(network: nn.Module, groups: Sequence[Group], kept: Mapping[str, IntArray]) -> None:
    """Remove from `network`, in place, every filter of `groups` that is not in `kept`."""
    for (layer, side), gone in _gone_channels(groups, kept).items():
        _slice(network, layer, side, gone)


def _gone_channels(groups: Sequence[Group], kept: Mapping[str, IntArray]) -> dict[tuple[str, Side], IntArray]:
    gone: dict[tuple[str, Side], list[IntArray]] = {}
    for group in groups:
        dropped = np.setdiff1d(np.arange(group.width), kept[group.name])
        for member in group.members if len(dropped) else ():
            gone.setdefault((member.layer, member.side), []).append(member.channels[dropped].ravel())
    return {place: np.concatenate(parts) for place, parts in gone.items()}


def _slice(network: nn.Module, layer: str, side: Side, gone: IntArray) -> None:
    parent_name, _, attribute = layer.rpartition(".")
    target = getattr(network.get_submodule(parent_name), attribute)
    if isinstance(target, nn.Parameter):
        setattr(network.get_submodule(parent_name), attribute, _slice_loose(target, gone))
    elif isinstance(target, nn.Linear):
        _slice_linear(target, side, gone)
    elif isinstance(target, Convolution):
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


def _slice_convolution(layer: Convolution, side: Side, gone: IntArray) -> None:
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


def _slice_convolution_inputs(layer: Convolution, gone: IntArray) -> None:
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
    stay = _stay(_channel_count(module), gone)
    for name in _CHANNEL_TENSORS:
        if getattr(module, name, None) is not None:
            _replace(module, name, 0, stay)
    for name in _CHANNEL_COUNTS:
        if hasattr(module, name):
            setattr(module, name, len(stay))
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = (len(stay),)


def _channel_count(module: nn.Module) -> int:
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[0]
    return int(next(getattr(module, name) for name in _CHANNEL_COUNTS if hasattr(module, name)))
