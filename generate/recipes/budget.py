"""Where a regime's recipes lie: cost surfaces over kept fractions, how to walk onto them, and rounding to whole filters.

A point holds the kept fraction of every group. Both costs are quadratic in it, so many recipes at once can be
moved onto a budget by a few Newton steps. Single precision is enough here: only whole widths have exact costs,
and those are counted as integers after rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from generate.prune.cost_forms import CostModel, QuadraticForm
from popstats.arrays import BoolArray, FloatArray, IntArray

Axis = Literal["macs", "params"]
SingleArray = NDArray[np.float32]

# Enough for all but a few recipes in a thousand, which are drawn again.
NEWTON_STEPS = 14
# Damping: no coordinate of a step moves a kept fraction by more than this.
LONGEST_STEP = 0.5
# From this distance to the budget, one more step leaves about its square: less than rounding will move it.
LAST_STEP_FROM = 0.01
# Below this the two directions change both costs alike, and the step is damped instead of divided by zero.
SMALLEST_DETERMINANT = np.float32(1e-3)
REPAIR_STEPS = 48


@dataclass(frozen=True)
class Budget:
    """A cost that every recipe of a regime must have."""

    axis: Axis  # Which cost.
    share: float  # Its target as a share of the original's: 1 - reduction.


@dataclass(frozen=True)
class Surface:
    """One cost as a share of the original's, over kept fractions x: constant + linear @ x + x @ pairs @ x."""

    constant: np.float32  # Share that no group touches.
    linear: SingleArray  # (G,); Share that is linear in each kept fraction.
    doubled_pairs: SingleArray  # (G, G); Symmetric: twice the share that is a product of two kept fractions.

    @classmethod
    def from_form(cls, form: QuadraticForm, units: IntArray, original: int) -> Surface:
        """Return the surface of `form`, which costs `original` at `units`."""
        pairs = form.pairs * np.outer(units, units) / original
        return cls(
            np.float32(form.constant / original),
            (form.linear * units / original).astype(np.float32),
            (pairs + pairs.T).astype(np.float32),
        )

    def value_and_slope(self, kept: SingleArray) -> tuple[SingleArray, SingleArray]:
        """Return the share, shape (n,), and its gradient, shape (n, G), at kept fractions of shape (n, G)."""
        slope = kept @ self.doubled_pairs
        slope += self.linear
        value = np.einsum("ng,ng->n", kept, slope)
        value += kept @ self.linear
        value *= np.float32(0.5)
        value += self.constant
        return value, slope


@dataclass(frozen=True)
class CostSurfaces:
    """The kept fractions that a space allows, and the two cost surfaces over them."""

    costs: CostModel  # The network's costs.
    round_to: int = 1  # Widths are multiples of this, or the full width.
    # Kept fractions between which each group must stay; by default anything from one unit to all.
    bands: tuple[tuple[float, float], ...] | None = None

    @cached_property
    def units(self) -> IntArray:
        """Channels in which each width changes, shape (G,); never more than the width itself."""
        steps = np.lcm(self.costs.steps, self.round_to)
        return np.where(steps <= self.costs.full_widths, steps, self.costs.full_widths)

    @cached_property
    def smallest(self) -> IntArray:
        """Smallest width of each group, shape (G,)."""
        lowest = [0.0] * len(self.units) if self.bands is None else [low for low, _ in self.bands]
        wanted = np.maximum(np.array(lowest) * self.costs.full_widths - 1e-9, self.costs.least)
        whole = np.maximum(np.ceil(wanted / self.units), 1) * self.units
        return np.asarray(np.minimum(whole, self.costs.full_widths), dtype=np.int64)

    @cached_property
    def largest(self) -> IntArray:
        """Largest width of each group, shape (G,)."""
        if self.bands is None:
            return self.costs.full_widths
        high = np.array([high for _, high in self.bands])
        floor = np.floor(high * self.costs.full_widths / self.units + 1e-9) * self.units
        whole = np.where(high >= 1, self.costs.full_widths, floor).astype(np.int64)
        return np.maximum(whole, self.smallest)

    @cached_property
    def lowest(self) -> SingleArray:
        """Smallest kept fraction of each group, shape (G,)."""
        return (self.smallest / self.costs.full_widths).astype(np.float32)

    @cached_property
    def highest(self) -> SingleArray:
        """Largest kept fraction of each group, shape (G,)."""
        return (self.largest / self.costs.full_widths).astype(np.float32)

    @cached_property
    def surface(self) -> dict[Axis, Surface]:
        """Each cost as a share of the original's."""
        costs, full = self.costs, self.costs.full_widths // self.costs.steps
        return {
            "macs": Surface.from_form(costs.macs_form, full, costs.original_macs),
            "params": Surface.from_form(costs.params_form, full, costs.original_params),
        }

    @cached_property
    def tilt(self) -> SingleArray:
        """Direction that trades MACs for parameters, shape (G,): -1 .. 1, groups ranked by the exchange rate."""
        half = np.full((1, len(self.lowest)), 0.5, dtype=np.float32)
        macs, params = (self.surface[axis].value_and_slope(half)[1][0] for axis in ("macs", "params"))
        rate = params / macs
        ranks = np.argsort(np.argsort(rate, kind="stable"))
        return (2 * ranks / max(len(rate) - 1, 1) - 1).astype(np.float32)

    def clip(self, kept: SingleArray) -> SingleArray:
        """Return `kept` inside the bounds of every group; `kept` itself is overwritten."""
        np.maximum(kept, self.lowest, out=kept)
        return np.minimum(kept, self.highest, out=kept)

    def shift_onto(self, budget: Budget, start: SingleArray) -> SingleArray:
        """Return `start` with each row shifted as a whole until it meets the budget."""
        # By Newton's method on the square root, which is almost linear along the shift.
        surface, root = self.surface[budget.axis], np.float32(np.sqrt(budget.share))
        shift = np.full((len(start), 1), self._typical_shift(surface, root, start), dtype=np.float32)
        kept = self.clip(start + shift)
        for _ in range(NEWTON_STEPS):
            value, slope = surface.value_and_slope(kept)
            shift[:, 0] += self._root_step(kept, value, slope, root)
            np.add(start, shift, out=kept)
            self.clip(kept)
            if np.abs(value - np.float32(budget.share)).max() < LAST_STEP_FROM:
                break
        return kept

    def _typical_shift(self, surface: Surface, root: np.float32, start: SingleArray) -> float:
        """Return the shift that a few rows need: a good first guess for all of them."""
        few, shift = start[:16], np.zeros((min(16, len(start)), 1), dtype=np.float32)
        for _ in range(3):
            kept = self.clip(few + shift)
            shift[:, 0] += self._root_step(kept, *surface.value_and_slope(kept), root)
        return float(np.median(shift))

    def _root_step(
        self, kept: SingleArray, value: SingleArray, slope: SingleArray, root: np.float32
    ) -> SingleArray:
        root_now = np.sqrt(value)
        slope *= self._free(kept)
        along = slope @ np.ones(kept.shape[1], dtype=np.float32)
        step = (root - root_now) * 2 * root_now / np.maximum(along, np.float32(0.05))
        return cast(SingleArray, np.clip(step, -LONGEST_STEP, LONGEST_STEP))

    def _free(self, kept: SingleArray) -> BoolArray:
        free = kept > self.lowest
        free &= kept < self.highest
        return free

    def solve_both(
        self,
        macs: SingleArray,
        params: SingleArray,
        start: SingleArray,
        tolerance: tuple[float, float],
        guess: SingleArray | None = None,
    ) -> tuple[SingleArray, BoolArray, SingleArray]:
        """Move `start` along a common shift and the tilt until both surfaces meet their targets."""
        # macs, params (n,); start (n, G); guess (n, 2) -> kept (n, G), solved (n,), place (n, 2)
        goal = np.log(np.stack([macs, params], axis=1))
        place = np.zeros((len(start), 2), dtype=np.float32) if guess is None else guess.copy()
        kept = self.clip(start + place @ self._directions.T)
        solved, active = np.zeros(len(start), dtype=bool), np.arange(len(start))
        for _ in range(NEWTON_STEPS):
            step, miss = self._newton_step(kept[active], goal[active])
            solved[active] = (np.abs(miss) <= np.array(tolerance, dtype=np.float32)).all(axis=1)
            open_rows = ~solved[active]
            active = active[open_rows]
            if not len(active):
                break
            place[active] += step[open_rows]
            kept[active] = self.clip(start[active] + place[active] @ self._directions.T)
        return kept, solved, place

    @cached_property
    def _directions(self) -> SingleArray:
        return np.stack([np.ones_like(self.tilt), self.tilt], axis=1)

    def _newton_step(self, kept: SingleArray, goal: SingleArray) -> tuple[SingleArray, SingleArray]:
        """Return the damped step along both directions, and the misses, each of shape (n, 2)."""
        free = self._free(kept)
        macs, a, b = self._along_directions(self.surface["macs"], kept, free)
        params, c, d = self._along_directions(self.surface["params"], kept, free)
        miss_macs, miss_params = goal[:, 0] - np.log(macs), goal[:, 1] - np.log(params)
        determinant = a * d - b * c
        tiny = np.abs(determinant) < SMALLEST_DETERMINANT
        determinant[tiny] = np.copysign(SMALLEST_DETERMINANT, determinant[tiny])
        step = np.stack([d * miss_macs - b * miss_params, a * miss_params - c * miss_macs], axis=1)
        step /= determinant[:, None]
        longest = np.abs(step).max(axis=1, keepdims=True)
        step *= np.minimum(1, LONGEST_STEP / np.maximum(longest, np.float32(1e-6)))
        return step, np.stack([miss_macs, miss_params], axis=1)

    def _along_directions(
        self, surface: Surface, kept: SingleArray, free: BoolArray
    ) -> tuple[SingleArray, SingleArray, SingleArray]:
        """Return a cost and the derivatives of its logarithm along shift and tilt, each of shape (n,)."""
        value, slope = surface.value_and_slope(kept)
        slope *= free
        derivatives = slope @ self._directions
        derivatives /= value[:, None]
        return value, derivatives[:, 0], derivatives[:, 1]


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
    if surfaces.bands is not None or (surfaces.smallest != 1).any():
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
