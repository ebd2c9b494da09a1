"""Where a regime's recipes lie: cost surfaces over kept fractions, and how to walk onto them.

A point x holds the kept fraction of every group, between one unit and 1. Both costs are quadratic in x, so many
recipes at once can be moved onto a budget by a few Newton steps. Single precision is enough here: whole widths
are exact only after rounding, and their costs are then counted as integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from generate.costs import CostModel, QuadraticForm
from popstats.errors import PlanError

__all__ = ["Geometry", "SingleArray", "Surface"]

SingleArray = NDArray[np.float32]

NEWTON_STEPS = 14
"""Enough for all but a few recipes in a thousand, which are drawn again."""

LONGEST_STEP = 0.5
"""Damping: no coordinate of a step moves any kept fraction by more than about this."""

SEARCH_STARTS = 32
SEARCH_STEPS = 60


@dataclass(frozen=True)
class Surface:
    """One cost as a share of the original's, over kept fractions: constant + linear @ x + x @ pairs @ x.

    Parameters
    ----------
    constant : float
        Share that no group touches.
    linear : numpy.ndarray, shape (G,)
        Share that is linear in each kept fraction.
    pairs : numpy.ndarray, shape (G, G)
        Symmetric: share that is a product of two kept fractions.
    """

    constant: np.float32
    linear: SingleArray
    pairs: SingleArray

    @classmethod
    def from_form(cls, form: QuadraticForm, units: NDArray[np.int64], original: int) -> Surface:
        """Return the surface of `form`, with `units` at full width costing `original`."""
        pairs = form.pairs * np.outer(units, units) / original
        return cls(
            np.float32(form.constant / original),
            (form.linear * units / original).astype(np.float32),
            ((pairs + pairs.T) / 2).astype(np.float32),
        )

    def value_and_slope(self, kept: SingleArray) -> tuple[SingleArray, SingleArray]:
        """Return the share, shape (n,), and its gradient, shape (n, G), at kept fractions of shape (n, G)."""
        slope = kept @ (2 * self.pairs)
        slope += self.linear
        doubled = np.einsum("ng,ng->n", kept, slope) + kept @ self.linear
        return doubled / 2 + self.constant, slope


@dataclass(frozen=True)
class Geometry:
    """The kept fractions that integer widths allow, and the two cost surfaces over them."""

    costs: CostModel
    round_to: int = 1

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """Channels in which each width changes, shape (G,); never more than the width itself."""
        steps = np.lcm(self.costs.steps, self.round_to)
        return np.where(steps <= self.costs.full_widths, steps, self.costs.full_widths)

    @cached_property
    def lowest(self) -> SingleArray:
        """Smallest kept fraction of each group, shape (G,)."""
        return (self.units / self.costs.full_widths).astype(np.float32)

    @cached_property
    def macs(self) -> Surface:
        """MACs as a share of the original's."""
        units = self.costs.full_widths // self.costs.steps
        return Surface.from_form(self.costs.macs_form, units, self.costs.original_macs)

    @cached_property
    def params(self) -> Surface:
        """Parameters as a share of the original's."""
        units = self.costs.full_widths // self.costs.steps
        return Surface.from_form(self.costs.params_form, units, self.costs.original_params)

    @cached_property
    def tilt(self) -> SingleArray:
        """Direction that trades MACs for parameters, shape (G,): -1 .. 1, groups ranked by that exchange rate."""
        half = np.full((1, len(self.lowest)), 0.5, dtype=np.float32)
        rate = np.log(self.params.value_and_slope(half)[1] / self.macs.value_and_slope(half)[1])[0]
        ranks = np.argsort(np.argsort(rate))
        return (2 * ranks / max(len(rate) - 1, 1) - 1).astype(np.float32)

    def shift_onto(self, surface: Surface, target: SingleArray, start: SingleArray) -> SingleArray:
        """Return `start` with each row shifted as a whole until `surface` is `target` there.

        The square root of a quadratic form is almost linear along the shift, so Newton's method is used on it.
        """
        shift = np.zeros((len(start), 1), dtype=np.float32)
        root = np.sqrt(target)
        kept = np.clip(start, self.lowest, 1)
        for _ in range(NEWTON_STEPS):
            value, slope = surface.value_and_slope(kept)
            miss = root - np.sqrt(value)
            if np.abs(miss).max() < 1e-5:
                break
            free = (kept > self.lowest) & (kept < 1)
            along = np.einsum("ng,ng->n", slope, free)
            step = miss * 2 * np.sqrt(value) / np.maximum(along, 0.05)
            shift[:, 0] += np.clip(step, -LONGEST_STEP, LONGEST_STEP)
            kept = np.clip(start + shift, self.lowest, 1)
        return kept

    def surface(self, axis: str) -> Surface:
        """Return the surface of one axis."""
        return self.macs if axis == "macs" else self.params

    def solve_both(
        self, macs: SingleArray, params: SingleArray, start: SingleArray, tolerance: float
    ) -> tuple[SingleArray, NDArray[np.bool_]]:
        """Move `start` along a common shift and the tilt until both surfaces meet their targets.

        Returns
        -------
        kept : numpy.ndarray, shape (n, G)
            Kept fractions.
        solved : numpy.ndarray of bool, shape (n,)
            Where the logarithms of both costs are within `tolerance` of their targets.
        """
        goal = np.log(np.stack([macs, params], axis=1))
        kept = np.clip(start, self.lowest, 1)
        solved = np.zeros(len(start), dtype=bool)
        place = np.zeros((len(start), 2), dtype=np.float32)
        active = np.arange(len(start))
        for _ in range(NEWTON_STEPS):
            step, miss = self._newton_step(kept[active], goal[active])
            solved[active] = np.abs(miss).max(axis=1) <= tolerance
            active, step = active[~solved[active]], step[~solved[active]]
            if not len(active):
                break
            place[active] += step
            kept[active] = np.clip(start[active] + place[active] @ self._directions, self.lowest, 1)
        return kept, solved

    @cached_property
    def _directions(self) -> SingleArray:
        return np.stack([np.ones_like(self.tilt), self.tilt])

    def _newton_step(self, kept: SingleArray, goal: SingleArray) -> tuple[SingleArray, SingleArray]:
        """Return the damped step along both directions, and the misses, each of shape (n, 2)."""
        free = (kept > self.lowest) & (kept < 1)
        macs, macs_slope = self.macs.value_and_slope(kept)
        params, params_slope = self.params.value_and_slope(kept)
        miss = goal - np.log(np.stack([macs, params], axis=1))
        a, b = ((macs_slope * free) @ self._directions.T / macs[:, None]).T
        c, d = ((params_slope * free) @ self._directions.T / params[:, None]).T
        determinant = a * d - b * c
        tiny = np.float32(1e-3)
        determinant = np.where(np.abs(determinant) < tiny, np.copysign(tiny, determinant), determinant)
        step = np.stack([d * miss[:, 0] - b * miss[:, 1], a * miss[:, 1] - c * miss[:, 0]], axis=1)
        step /= determinant[:, None]
        longest = np.abs(step).max(axis=1, keepdims=True)
        return step * np.minimum(1, LONGEST_STEP / np.maximum(longest, 1e-6)), miss

    def check_share(self, axis: str, share: float) -> None:
        """Refuse a budget that no recipe can have.

        Raises
        ------
        PlanError
            With the shares that can be had.
        """
        smallest = float(self.surface(axis).value_and_slope(self.lowest[None])[0][0])
        if not smallest <= share <= 1:
            raise PlanError(
                f"regime: no recipe has {share:.1%} of the original's {axis}; with at least one filter in every "
                f"group it can be {smallest:.2%} to 100 %, a reduction of 0 to {1 - smallest:.4f}."
            )

    def log_mcb_range(self, axis: str, share: float) -> tuple[float, float]:
        """Return the smallest and the largest log mCB of recipes whose cost on `axis` is `share`."""
        fixed = self.surface(axis)
        other = self.surface("params" if axis == "macs" else "macs")
        ends = sorted(self._extreme(fixed, share, other, sign) for sign in (-1, 1))
        logs = [math.log(share / end) if axis == "macs" else math.log(end / share) for end in ends]
        return min(logs), max(logs)

    def _extreme(self, fixed: Surface, share: float, other: Surface, sign: int) -> float:
        """Return the largest (sign 1) or smallest value of `other` where `fixed` is `share`: projected gradient."""
        rng = np.random.default_rng(0)
        shares = np.full(SEARCH_STARTS, share, dtype=np.float32)
        kept = self.shift_onto(fixed, shares, rng.random((SEARCH_STARTS, len(self.lowest)), dtype=np.float32))
        best = -math.inf
        for stride in np.geomspace(0.3, 0.003, SEARCH_STEPS):
            _, normal = fixed.value_and_slope(kept)
            value, uphill = other.value_and_slope(kept)
            best = max(best, float((sign * value).max()))
            # Where a costly group is traded against a cheap one at the same fixed cost, the gain is this ratio.
            gain = sign * uphill / normal
            centred = gain - np.median(gain, axis=1, keepdims=True)
            move = centred / np.abs(centred).max(axis=1, keepdims=True)
            kept = self.shift_onto(fixed, shares, kept + np.float32(stride) * np.sign(move) * np.sqrt(np.abs(move)))
        return sign * best
