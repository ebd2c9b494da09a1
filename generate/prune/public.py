"""The public functions, for scripts that prune by themselves: verified groups, cuts, and networks loaded again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load_file
from torch import Tensor, nn

from generate.prune import cut as cutting
from generate.prune import groups as grouping
from generate.prune.attention import at, attention_modules, set_heads, set_width
from generate.prune.cost_forms import derive_costs
from generate.prune.dependency_graph import Group, copy_network
from generate.prune.operations import Convolution, Normalisation, channel_count, is_depthwise, sides
from popstats.errors import PlanError

FUSED = 3  # queries, keys and values in one layer


def find_groups(
    network: nn.Module, input_shape: tuple[int, ...], keep: Sequence[str] = ()
) -> tuple[Group, ...]:
    """Return the prunable groups of `network`, after a proof on real cuts.

    Parameters
    ----------
    network : torch.nn.Module
        A classifier; it is not touched.
    input_shape : tuple of int
        Of one input: channels, then its sizes, such as (3, 32, 32).
    keep : sequence of str
        Layers (or modules that hold layers) whose output channels must all stay.

    Returns
    -------
    tuple of Group
        With `name`, `width`, `step`, `blocks` and `members` (each with `layer`, `side` and `channels`).

    Raises
    ------
    PlanError
        If the network cannot be pruned or a cut does not compute what it should, with the layers to keep.
    """
    grouping.check_arguments(network, input_shape)
    return derive_costs(network, input_shape, grouping.find_groups(network, input_shape, keep)).groups


def cut(
    network: nn.Module, input_shape: tuple[int, ...], groups: Sequence[Group], kept: Mapping[str, ArrayLike]
) -> nn.Module:
    """Return a copy of `network` from which all filters but the kept ones are gone.

    Parameters
    ----------
    network : torch.nn.Module
        The network that `groups` were found in, or one of the same architecture; it is not touched.
    input_shape : tuple of int
        Of one input: channels, then its sizes, such as (3, 32, 32).
    groups : sequence of Group
        From `find_groups`, which has proven them.
    kept : mapping of str to array_like of int
        By group name: indices of the filters that stay, equally many in each block.

    Returns
    -------
    torch.nn.Module
        In the same mode, on the same device.

    Raises
    ------
    PlanError
        If `kept` does not fit the groups.
    """
    grouping.check_arguments(network, input_shape, groups)
    names = [group.name for group in groups]
    if not isinstance(kept, Mapping) or set(kept) - set(names):
        raise PlanError(
            f"kept: expected {{group name: indices of filters}} of {', '.join(names)}, got {kept!r}."
        )
    return cutting.cut(network, groups, {name: np.asarray(filters) for name, filters in kept.items()})


def load_subnetwork(recipe_json: str | Path, weights: str | Path, network: nn.Module) -> nn.Module:
    """Return the subnetwork that a recipe and its weights describe.

    Parameters
    ----------
    recipe_json : str or pathlib.Path
        As `generate.winner` writes it.
    weights : str or pathlib.Path
        The safetensors file beside it.
    network : torch.nn.Module
        The original architecture, with any weights; it is not touched.

    Returns
    -------
    torch.nn.Module
        In evaluation mode.

    Raises
    ------
    PlanError
        If a file cannot be read, or they belong to another network.
    """
    try:
        recipe, held = json.loads(Path(recipe_json).read_text()), load_file(weights)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise PlanError(f"{recipe_json}, {weights}: expected a recipe and its weights; {error}") from error
    if not isinstance(recipe, dict) or not isinstance(recipe.get("layers"), dict):
        raise PlanError(f"{recipe_json}: expected a recipe with `layers`, as generate.winner writes it.")
    if not isinstance(network, nn.Module):
        raise PlanError(f"network: expected a torch.nn.Module, got a {type(network).__name__}.")
    layers = recipe["layers"]
    smaller = copy_network(network)
    before, attention = _outputs(smaller), attention_modules(smaller)
    for name, module in smaller.named_modules():
        _take_shapes(module, name, held, layers.get(name, {}))
    now = _outputs(smaller)
    for name in before if attention else ():
        owner = name.rpartition(".")[0]
        if owner not in attention:
            set_width(smaller.get_submodule(owner), before[name], now[name])
    for name, module in attention.items():
        inside = [layer for layer in before if layer.startswith(f"{name}." if name else "")]
        if (
            inside
        ):  # its first layer, of queries or of queries, keys and values, tells how many heads it keeps
            each = math.gcd(before[inside[0]], now[inside[0]])
            set_heads(module, before[inside[0]] // each, now[inside[0]] // each, (each, each // FUSED))
    try:
        smaller.load_state_dict(held)
    except RuntimeError as error:
        raise PlanError(f"{weights}: these weights do not fit {type(network).__name__} ({error}).") from error
    for name, layer in layers.items():
        at(smaller, name)  # refuses layers that the network does not have
        if (found := now.get(name, layer["channels"])) != layer["channels"]:
            raise PlanError(
                f"recipe and weights disagree: {name} has {layer['channels']} channels in one, {found} in the other."
            )
    return smaller.eval()


def _outputs(network: nn.Module) -> dict[str, int]:
    return {
        name: sides(module)[1]
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | Convolution)
    }


def _take_shapes(module: nn.Module, name: str, held: Mapping[str, Tensor], layer: Mapping[str, Any]) -> None:
    """Give a module the shapes of its stored tensors, in place."""
    before = sides(module) if isinstance(module, nn.Linear | Convolution) else None
    channels = channel_count(module) if isinstance(module, Normalisation) else None
    for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        stored = held.get(f"{name}.{own}".lstrip("."))
        if stored is not None and stored.shape != tensor.shape:
            empty = torch.empty(stored.shape, dtype=tensor.dtype, device=tensor.device)
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(module, own, nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, Convolution):
        rows, columns = module.weight.shape[:2]
        if before is not None and is_depthwise(module):
            module.groups = rows if module.transposed else rows * before[0] // before[1]
        grouped = columns * module.groups
        module.in_channels, module.out_channels = (rows, grouped) if module.transposed else (grouped, rows)
    elif channels is not None:
        found = [len(tensor) for tensor in module.state_dict().values() if tensor.dim() == 1]
        cutting.set_channels(module, channels, found[0] if found else int(layer.get("channels", channels)))
