"""From kept fractions to whole filters, repaired by single steps until the budget is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from generate.recipes.budget import Budget, CostSurfaces, SingleArray
from popstats.arrays import BoolArray, FloatArray, IntArray

REPAIR_STEPS = 48


@dataclass(frozen=True)
class Rounded:
    """Whole widths with their exact costs."""

    widths: IntArray  # (n, G); Channels kept in each group.
    # macs, params: (n,); Exact costs.
    macs: IntArray
    params: IntArray
    miss: FloatArray  # (n,); Largest distance from a budget, as a share of the original's cost.


def round_widths(
    surfaces: CostSurfaces,
    budgets: Sequence[Budget],
    kept: SingleArray,
    solved: BoolArray,
    tolerance: float,
    rng: np.random.Generator,
) -> Rounded:
    """Return whole widths near the kept fractions, repaired unit by unit where rounding left `solved` rows off a budget."""
    whole = kept * (surfaces.costs.full_widths / surfaces.units).astype(np.float32)
    widths = np.rint(whole, out=whole).astype(np.int64)
    if not surfaces.is_plain:
        widths = np.clip(widths * surfaces.units, surfaces.smallest, surfaces.largest, out=widths)
    macs, params = surfaces.costs.both(widths)
    misses = _misses(surfaces, budgets, macs, params)
    active = np.flatnonzero((np.abs(misses) > tolerance).any(axis=1) & solved)
    for _ in range(REPAIR_STEPS if len(active) else 0):
        widths[active] = _one_step(surfaces, budgets, widths[active], misses[active], tolerance, rng)
        macs[active], params[active] = surfaces.costs.both(widths[active])
        misses[active] = _misses(surfaces, budgets, macs[active], params[active])
        active = active[(np.abs(misses[active]) > tolerance).any(axis=1)]
        if not len(active):
            break
    return Rounded(widths, macs, params, np.abs(misses).max(axis=1))


def _misses(
    surfaces: CostSurfaces, budgets: Sequence[Budget], macs: IntArray, params: IntArray
) -> FloatArray:
    """Return cost minus target as a share of the original's cost, shape (n, budgets)."""
    shares = {"macs": macs / surfaces.costs.original_macs, "params": params / surfaces.costs.original_params}
    return np.stack([shares[budget.axis] - budget.share for budget in budgets], axis=1)


def _one_step(
    surfaces: CostSurfaces,
    budgets: Sequence[Budget],
    widths: IntArray,
    misses: FloatArray,
    tolerance: float,
    rng: np.random.Generator,
) -> IntArray:
    units = surfaces.units
    up = np.minimum(widths // units * units + units, surfaces.largest) - widths
    down = np.maximum((widths - 1) // units * units, surfaces.smallest) - widths
    changes = np.concatenate(
        [np.maximum(up, 0), np.minimum(down, 0)], axis=1
    )  # (n, 2 G); 0 where there is no room
    distance = np.zeros(changes.shape)
    costs = surfaces.costs
    steps = changes / np.tile(costs.steps, 2)
    for place, budget in enumerate(budgets):
        of_macs = (costs.macs_form, costs.original_macs)
        form, original = of_macs if budget.axis == "macs" else (costs.params_form, costs.original_params)
        slope = form.linear + (widths / costs.steps) @ (form.pairs + form.pairs.T).astype(np.float64)
        # What each single change adds to the cost.
        added = steps * np.tile(slope, 2) + steps**2 * np.tile(np.diag(form.pairs), 2)
        after = misses[:, place, None] + added / original
        distance = np.maximum(distance, np.abs(after))
    distance[changes == 0] = np.inf
    # Of the steps that meet the budgets any, so that no group is favoured; else the one that comes nearest.
    good = distance <= tolerance
    distance[good] = -rng.random(int(good.sum()))
    best = distance.argmin(axis=1)
    rows = np.arange(len(widths))
    stepped = widths.copy()
    stepped[rows, best % widths.shape[1]] += changes[rows, best]
    return stepped
