"""Feasible ranges of MACs, parameters, mCB and STD over the recipes on a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from generate.prune.cost_forms import CostModel
from generate.recipes.budget import Axis, Budget, CostSurfaces, SingleArray
from popstats.errors import PlanError

SEARCH_STARTS = 32
SEARCH_STRIDES = np.geomspace(0.3, 0.003, 60)

Pair = tuple[float, float]
Objective = Callable[[SingleArray], tuple[SingleArray, SingleArray]]


@dataclass(frozen=True)
class FeasibleRange:
    """Smallest and largest value of each quantity over the recipes of a regime."""

    # macs, params: Costs.
    macs: tuple[int, int]
    params: tuple[int, int]
    log_mcb: Pair  # Natural logarithm of the mean computation budget, with exact parameters.
    std: Pair  # Standard deviation of the pruning ratios over groups.

    @property
    def mcb(self) -> Pair:
        """Smallest and largest mean computation budget."""
        return float(np.exp(self.log_mcb[0])), float(np.exp(self.log_mcb[1]))

    def __str__(self) -> str:
        """Return the ranges in words, for dry runs and errors."""
        mcb, std = _span(*self.mcb, ".3f"), _span(*self.std, ".3f")
        factor = f"a factor of {self.mcb[1] / self.mcb[0]:.2f}"
        return f"MACs {_span(*self.macs, ',')}, parameters {_span(*self.params, ',')}, mCB {mcb} ({factor}), STD {std}"


def _span(low: float, high: float, form: str) -> str:
    """Return both ends, or the one number where the regime fixes it."""
    ends = f"{low:{form}}", f"{high:{form}}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def feasible_range(costs: CostModel, axis: str, target: float, round_to: int = 1) -> FeasibleRange:
    """Return what recipes of one regime can reach."""
    surfaces = CostSurfaces(costs, round_to)
    budgets = regime_budgets(axis, target)
    check_budgets(surfaces, budgets)
    return range_on_budget(surfaces, budgets)


def regime_budgets(axis: str, target: float) -> tuple[Budget, ...]:
    """Return the budgets of a regime."""
    axes = ("macs", "params") if axis == "both" else (axis,)
    return tuple(Budget(cast(Axis, one), 1 - target) for one in axes)


def check_budgets(surfaces: CostSurfaces, budgets: Sequence[Budget]) -> None:
    """Refuse budgets that no recipe can meet."""
    for budget in budgets:
        surface = surfaces.surface[budget.axis]
        ends = [
            float(surface.value_and_slope(end[None])[0][0]) for end in (surfaces.lowest, surfaces.highest)
        ]
        if not ends[0] <= budget.share <= ends[1] + 1e-6:
            raise PlanError(
                f"regime: no recipe of this space reduces {budget.axis} by {1 - budget.share:.4f}; reductions of "
                f"{max(1 - ends[1], 0):.4f} to {1 - ends[0]:.4f} are possible."
            )
    if len(budgets) == 1:
        return
    macs, params = budgets
    log_mcb = float(np.log(macs.share / params.share))
    found = range_on_budget(surfaces, (macs,))
    if not found.log_mcb[0] <= log_mcb <= found.log_mcb[1]:
        raise PlanError(
            f"regime: no recipe meets both budgets ({macs.share:.3f} of the MACs, {params.share:.3f} of the "
            f"parameters, log mCB {log_mcb:.3f}); with that share of the MACs: {found}."
        )


def range_on_budget(surfaces: CostSurfaces, budgets: Sequence[Budget]) -> FeasibleRange:
    """Return what recipes on the first budget reach; with two budgets, the second fixes the other cost."""
    first = budgets[0]
    other: Axis = "params" if first.axis == "macs" else "macs"
    if len(budgets) == 2:
        shares = (budgets[1].share, budgets[1].share)
    else:
        objective = surfaces.surface[other].value_and_slope
        shares = (_extreme(surfaces, first, objective, -1), _extreme(surfaces, first, objective, 1))
    level = surfaces.shift_onto(first, np.zeros((1, len(surfaces.lowest)), dtype=np.float32))
    std = (float(level.std()), _extreme(surfaces, first, _spread_and_slope, 1))
    fixed = (first.share, first.share)
    macs, params = (fixed, shares) if first.axis == "macs" else (shares, fixed)
    logs = sorted(float(np.log(m / p)) for m in set(macs) for p in set(params))
    original = surfaces.costs.original_macs, surfaces.costs.original_params
    return FeasibleRange(
        (round(macs[0] * original[0]), round(macs[1] * original[0])),
        (round(params[0] * original[1]), round(params[1] * original[1])),
        (logs[0], logs[-1]),
        std,
    )


def _spread_and_slope(kept: SingleArray) -> tuple[SingleArray, SingleArray]:
    distance = kept - kept.mean(axis=1, keepdims=True)
    std = kept.std(axis=1)
    slope = distance / np.maximum(std[:, None], np.float32(1e-6)) / np.float32(kept.shape[1])
    return std, slope.astype(np.float32)


def _extreme(surfaces: CostSurfaces, budget: Budget, objective: Objective, sign: int) -> float:
    """Return the largest (sign 1) or smallest (sign -1) objective on the budget, by projected gradient."""
    rng = np.random.default_rng(0)
    fixed = surfaces.surface[budget.axis]
    kept = surfaces.shift_onto(budget, rng.random((SEARCH_STARTS, len(surfaces.lowest)), dtype=np.float32))
    best = -np.inf
    for stride in SEARCH_STRIDES:
        value, uphill = objective(kept)
        best = max(best, float((sign * value).max()))
        normal = fixed.value_and_slope(kept)[1]
        # Trading one group against another at the same fixed cost gains by the ratio of the two gradients. Its signed
        # root lets all groups move, not only the one with the largest gain.
        gain = sign * uphill / normal
        gain -= np.median(gain, axis=1, keepdims=True)
        gain /= np.maximum(np.abs(gain).max(axis=1, keepdims=True), np.float32(1e-9))
        step = np.float32(stride) * np.sign(gain) * np.sqrt(np.abs(gain))
        kept = surfaces.shift_onto(budget, kept + step)
    return sign * max(best, float((sign * objective(kept)[0]).max()))
