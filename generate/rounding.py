"""From kept fractions to whole filters, repaired by single steps until the budget is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from generate.costs import QuadraticForm
from generate.geometry import Geometry, SingleArray
from generate.wiring import IntArray

__all__ = ["Budget", "round_widths"]

REPAIR_STEPS = 48

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Budget:
    """A cost that every recipe of a regime must have.

    Parameters
    ----------
    axis : {"macs", "params"}
        Which cost.
    share : float
        Its target as a share of the original's: 1 - reduction.
    """

    axis: Literal["macs", "params"]
    share: float


def round_widths(
    geometry: Geometry,
    budgets: Sequence[Budget],
    kept: SingleArray,
    tolerance: float,
    rng: np.random.Generator,
) -> tuple[IntArray, BoolArray]:
    """Return whole widths near the kept fractions, shape (n, G), and which rows meet every budget, shape (n,).

    Rows that rounding pushed off a budget are moved one unit of one group at a time: any step that meets the
    budgets, chosen at random so that no group is favoured, else the step that comes nearest.
    """
    full, units = geometry.costs.full_widths, geometry.units
    whole = np.rint(kept * (full / units).astype(np.float32)).astype(np.int64) * units
    widths = np.clip(whole, units, full)
    misses = _misses(geometry, budgets, widths)
    active = np.flatnonzero((np.abs(misses) > tolerance).any(axis=1))
    for _ in range(REPAIR_STEPS):
        if not len(active):
            break
        widths[active] = _one_step(geometry, budgets, widths[active], misses[active], tolerance, rng)
        misses[active] = _misses(geometry, budgets, widths[active])
        active = active[(np.abs(misses[active]) > tolerance).any(axis=1)]
    return widths, (np.abs(misses) <= tolerance).all(axis=1)


def _misses(geometry: Geometry, budgets: Sequence[Budget], widths: IntArray) -> NDArray[np.float64]:
    """Return cost minus target as a share of the original's cost, shape (n, budgets)."""
    counted = [_cost(geometry, budget, widths) for budget in budgets]
    return np.stack(counted, axis=1)


def _cost(geometry: Geometry, budget: Budget, widths: IntArray) -> NDArray[np.float64]:
    costs = geometry.costs
    if budget.axis == "macs":
        return costs.macs(widths) / costs.original_macs - budget.share
    return costs.params(widths) / costs.original_params - budget.share


def _one_step(
    geometry: Geometry,
    budgets: Sequence[Budget],
    widths: IntArray,
    misses: NDArray[np.float64],
    tolerance: float,
    rng: np.random.Generator,
) -> IntArray:
    full, units = geometry.costs.full_widths, geometry.units
    up = np.minimum(widths + units, full) - widths
    down = np.maximum((widths - 1) // units * units, units) - widths
    changes = np.concatenate([up, down], axis=1)
    distance = np.zeros(changes.shape)
    for place, budget in enumerate(budgets):
        after = misses[:, place, None] + _change(geometry, budget, widths, up, down)
        distance = np.maximum(distance, np.abs(after))
    distance[changes == 0] = np.inf
    good = distance <= tolerance
    distance[good] = -rng.random(int(good.sum()))
    best = distance.argmin(axis=1)
    rows = np.arange(len(widths))
    stepped = widths.copy()
    stepped[rows, best % len(full)] += changes[rows, best]
    return stepped


def _change(
    geometry: Geometry, budget: Budget, widths: IntArray, up: IntArray, down: IntArray
) -> NDArray[np.float64]:
    """Return how much each single step changes a cost, as a share of the original's, shape (n, 2 G)."""
    costs = geometry.costs
    form: QuadraticForm = costs.macs_form if budget.axis == "macs" else costs.params_form
    original = costs.original_macs if budget.axis == "macs" else costs.original_params
    slope = form.linear + (widths / costs.steps) @ (form.pairs + form.pairs.T).astype(np.float64)
    parts = [step / costs.steps * slope + (step / costs.steps) ** 2 * np.diag(form.pairs) for step in (up, down)]
    return np.concatenate(parts, axis=1) / original
