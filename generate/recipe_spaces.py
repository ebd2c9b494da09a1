"""Recipe spaces: where recipes are drawn before they are rounded. Nothing is sampled and rejected on its cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from generate.geometry import Geometry, SingleArray
from generate.rounding import Budget
from popstats.errors import PlanError

__all__ = ["RandomSpace", "RecipeSpace", "StratifiedSpace", "make_space"]

MCB_MISS = 0.01
"""Largest distance of a stratified recipe's log mCB from the one asked for, before rounding."""

AMPLITUDES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
"""Spreads of the random direction tried by the pilot; 8 sends nearly every group to one of its ends."""

PILOT_BINS = 16
PILOT_ROWS = 64

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class RecipeSpace(ABC):
    """A set of recipes that meet a budget.

    A request is a row of numbers that says where in the space a recipe should lie; drawing the same request
    again gives another recipe at that place.
    """

    geometry: Geometry
    budgets: tuple[Budget, ...]

    @abstractmethod
    def requests(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return `count` requests, shape (count, k)."""

    @abstractmethod
    def draw(
        self, requests: SingleArray, attempt: int, rng: np.random.Generator
    ) -> tuple[SingleArray, BoolArray]:
        """Return kept fractions, shape (n, G), and which rows lie where they were asked to, shape (n,)."""

    def uniform(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return uniform numbers in [0, 1), shape (count, G)."""
        return rng.random((count, len(self.geometry.lowest)), dtype=np.float32)


@dataclass(frozen=True)
class RandomSpace(RecipeSpace):
    """Random ratios, all shifted together until the budget is met."""

    def requests(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return empty requests: every recipe of the space is as good as another."""
        return np.zeros((count, 0), dtype=np.float32)

    def draw(
        self, requests: SingleArray, attempt: int, rng: np.random.Generator
    ) -> tuple[SingleArray, BoolArray]:
        """Return shifted random kept fractions; all of them meet the budget."""
        (budget,) = self.budgets
        start = self.uniform(len(requests), rng)
        shares = np.full(len(requests), budget.share, dtype=np.float32)
        kept = self.geometry.shift_onto(self.geometry.surface(budget.axis), shares, start)
        return kept, np.ones(len(requests), dtype=bool)


@dataclass(frozen=True)
class StratifiedSpace(RecipeSpace):
    """Even over log mCB, and at each log mCB over the STD that can be reached there."""

    mcb_range: float

    @cached_property
    def log_mcb(self) -> tuple[float, float]:
        """The feasible log mCB, cut to +-`mcb_range`."""
        (budget,) = self.budgets
        lower, upper = self.geometry.log_mcb_range(budget.axis, budget.share)
        if lower >= self.mcb_range or upper <= -self.mcb_range:
            raise PlanError(
                f"space stratified: mcb_range = {self.mcb_range:.3f} leaves nothing; at this target log mCB can be "
                f"{lower:.3f} to {upper:.3f}. Widen mcb_range or choose another target."
            )
        return max(lower, -self.mcb_range), min(upper, self.mcb_range)

    def requests(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return (log mCB, place in the reachable STD) of each recipe, both evenly spread."""
        lower, upper = self.log_mcb
        grid = (np.arange(count) + rng.random(count)) / count
        log_mcb = lower + (upper - lower) * grid
        place = (rng.permutation(count) + rng.random(count)) / count
        return np.stack([log_mcb, place], axis=1).astype(np.float32)

    def draw(
        self, requests: SingleArray, attempt: int, rng: np.random.Generator
    ) -> tuple[SingleArray, BoolArray]:
        """Return kept fractions at the requested log mCB, their spread set by the requested place."""
        # Later attempts draw closer to the middle, where a solution always exists.
        amplitude = self._amplitude(requests) * np.float32(0.8 ** (attempt % 8))
        return self._solve(requests[:, 0], amplitude, rng)

    def _solve(
        self, log_mcb: SingleArray, amplitude: SingleArray, rng: np.random.Generator
    ) -> tuple[SingleArray, BoolArray]:
        (budget,) = self.budgets
        fixed = np.full(len(log_mcb), budget.share, dtype=np.float32)
        macs = fixed if budget.axis == "macs" else fixed * np.exp(log_mcb)
        params = fixed if budget.axis == "params" else fixed / np.exp(log_mcb)
        start = np.float32(0.5) + amplitude[:, None] * (self.uniform(len(log_mcb), rng) - np.float32(0.5))
        return self.geometry.solve_both(macs, params, start, MCB_MISS)

    def _amplitude(self, requests: SingleArray) -> SingleArray:
        """Return the amplitude that, by the pilot, gives the STD at the requested place of the reachable range."""
        lower, upper = self.log_mcb
        bins = np.clip((requests[:, 0] - lower) / (upper - lower) * PILOT_BINS, 0, PILOT_BINS - 1).astype(int)
        amplitude = np.empty(len(requests), dtype=np.float32)
        for place, spreads in enumerate(self._pilot):
            here = bins == place
            wanted = spreads[0] + requests[here, 1] * (spreads[-1] - spreads[0])
            amplitude[here] = np.interp(wanted, spreads, AMPLITUDES)
        return amplitude

    @cached_property
    def _pilot(self) -> NDArray[np.float64]:
        """Median STD reached at each amplitude, by bin of log mCB, shape (bins, amplitudes), never falling."""
        rng = np.random.default_rng(0)
        lower, upper = self.log_mcb
        centres = lower + (upper - lower) * (np.arange(PILOT_BINS) + 0.5) / PILOT_BINS
        log_mcb, amplitude = np.meshgrid(np.repeat(centres, PILOT_ROWS), AMPLITUDES, indexing="ij")
        kept, solved = self._solve(log_mcb.ravel().astype(np.float32), amplitude.ravel().astype(np.float32), rng)
        std = np.where(solved, kept.std(axis=1), np.nan).reshape(PILOT_BINS, PILOT_ROWS, len(AMPLITUDES))
        return _never_falling(std)


def _never_falling(std: NDArray[np.float32]) -> NDArray[np.float64]:
    counts = np.isfinite(std).sum(axis=1)
    filled = np.where(np.isfinite(std), std, np.inf)
    ordered = np.sort(filled, axis=1)
    median = np.take_along_axis(ordered, np.maximum(counts - 1, 0)[:, None, :] // 2, axis=1)[:, 0, :]
    rising = np.maximum.accumulate(np.where(np.isfinite(median), median, 0), axis=1)
    return rising + np.arange(std.shape[2]) * 1e-6


def make_space(
    space: str, geometry: Geometry, *, axis: str, target: float, mcb_range: float
) -> RecipeSpace:
    """Return the space that a plan names.

    Raises
    ------
    PlanError
        If there is no such space or it holds no recipe.
    """
    if axis not in ("macs", "params"):
        raise PlanError(f"regime axis: expected macs or params, got {axis!r}.")
    if not 0 < target < 1:
        raise PlanError(f"regime target: expected a reduction between 0 and 1, got {target!r}.")
    budget = Budget(axis, 1 - target)  # type: ignore[arg-type]
    geometry.check_share(axis, budget.share)
    if space == "random":
        return RandomSpace(geometry, (budget,))
    if space == "stratified":
        return StratifiedSpace(geometry, (budget,), mcb_range)
    raise PlanError(f"space {space!r} is unknown: expected random or stratified.")
