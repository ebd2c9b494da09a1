"""Cutting: a new network from which the filters that a recipe does not keep are really gone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from generate.prune.dependency_graph import IntArray
from generate.prune.groups import Group
from generate.prune.slicing import remove_filters
from popstats.errors import PlanError


def choose_filters(
    scores: Mapping[str, Tensor], groups: Sequence[Group], widths: ArrayLike
) -> dict[str, IntArray]:
    """Return which filters a recipe keeps: the highest scores of each group.

    Where a group's step is above 1 (grouped convolutions), the same number is kept in each of its blocks.
    Equal scores are decided by the lower index, so the choice is the same everywhere.
    """
    # scores (width,); widths (G,)
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
    remove_filters(smaller, groups, kept)
    return smaller


def _check_width(group: Group, width: int) -> None:
    if not 1 <= width <= group.width or width % group.step:
        raise PlanError(
            f"group {group.name!r}: expected a width of 1 to {group.width} that is a multiple of "
            f"{group.step}, got {width}."
        )


def _best(values: NDArray[np.float64], group: Group, width: int) -> IntArray:
    ranking = np.argsort(-values, kind="stable")
    quota = width // group.step
    best = [ranking[group.blocks[ranking] == block][:quota] for block in range(group.step)]
    return np.sort(np.concatenate(best))
