"""Filter scores: how much each filter of a group matters, by the usual criteria.

The scores themselves are torch-pruning's importance classes; a higher score is kept longer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from generate.groups import Group
from popstats.errors import PlanError

__all__ = ["CRITERIA", "score_filters"]

CRITERIA: tuple[str, ...] = ("l1",)


def score_filters(
    network: nn.Module, input_shape: tuple[int, int, int], groups: Sequence[Group], criterion: str = "l1"
) -> dict[str, Tensor]:
    """Return the score of every filter, by group name, shape (width,); higher is kept longer."""
    if criterion not in CRITERIA:
        raise PlanError(f"criterion {criterion!r} is unknown: expected one of {', '.join(CRITERIA)}.")
    return {group.name: _l1(network, group) for group in groups}


def _l1(network: nn.Module, group: Group) -> Tensor:
    total = torch.zeros(group.width, dtype=torch.float64)
    for member in group.members:
        if member.layer in group.layers and member.side == "out":
            weight = network.get_submodule(member.layer).weight.detach().to("cpu", torch.float64)  # type: ignore[union-attr]
            norms = weight.abs().flatten(1).sum(1)
            total += norms[torch.from_numpy(member.channels)].sum(1)
    return total
