"""Recipe spaces: where recipes are drawn before they are rounded. None is sampled and rejected on its cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from generate.recipes.budget import Budget, CostSurfaces, Rounded, SingleArray
from generate.recipes.feasible import range_on_budget
from popstats.arrays import BoolArray, FloatArray
from popstats.errors import PlanError

# Largest distance of the logarithm of a cost from its target before rounding: of a budget, of any other.
COST_MISS, OTHER_MISS = 0.002, 0.004
# How far rounding may move log mCB, as a share of its range: a stratum of a tenth must keep its recipes.
MCB_DRIFT = 0.005
# Spreads of the random direction tried by the pilot; 8 sends nearly every group to one of its ends.
AMPLITUDES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
_BETWEEN_AMPLITUDES = [(low + high) / 2 for low, high in pairwise(AMPLITUDES)]

PILOT_BINS, PILOT_ROWS = 12, 48
# Factor on the amplitude between attempts, once the bold ones are used up: near the middle there is always a solution.
CALMER = 0.8
BOLD_ATTEMPTS = 6
# Attempts at one request before it is exchanged: an attempt fails on rounding, or because the recipe exists already.
REDRAW_EVERY = 16
SAME_MCB_REDRAWS = 6
# From this attempt on log mCB may drift: near the ends of its range integer widths leave few recipes.
STRICT_ATTEMPTS = 48
# Bisection steps for an STD: the bracket shrinks from `AMPLITUDES[-1]` to 0.002.
HALVINGS = 12


@dataclass(frozen=True)
class RecipeSpace(ABC):
    """Recipes that meet one or two budgets; a request, a row of numbers, says where in the space one should lie."""

    surfaces: CostSurfaces  # Bounds and cost surfaces.
    budgets: tuple[Budget, ...]  # What every recipe must cost.

    @abstractmethod
    def requests(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return `count` requests in random order, shape (count, k)."""

    def again(self, requests: SingleArray, redraw: int, rng: np.random.Generator) -> SingleArray:
        """Return requests in place of those that found no recipe."""
        return self.requests(len(requests), rng)

    @abstractmethod
    def draw(
        self, requests: SingleArray, attempt: int, rng: np.random.Generator
    ) -> tuple[SingleArray, BoolArray]:
        """Return kept fractions, shape (n, G), and which rows lie where requested, shape (n,)."""

    def holds(self, requests: SingleArray, rounded: Rounded, attempt: int) -> BoolArray:
        """Return which rows still lie where requested after rounding, whatever they cost."""
        return np.ones(len(requests), dtype=bool)

    def achieved_std(self, rounded: Rounded) -> FloatArray:
        """Return the STD of the achieved ratios over groups, shape (n,)."""
        return (rounded.widths / self.surfaces.costs.full_widths).std(axis=1)

    def uniform(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return uniform numbers in [0, 1), shape (count, G)."""
        return rng.random((count, len(self.surfaces.lowest)), dtype=np.float32)

    def directions(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return random directions, shape (count, G): all groups differ, or a few stand out, up or down."""
        # With even directions alone, the STD that a few heavily pruned groups make is hardly ever reached.
        direction = self.uniform(count, rng)
        for kind, rows in zip(rng.permutation(3), np.array_split(direction, 3), strict=True):
            if kind > 0:
                rows *= rows * rows
            rows -= np.float32(0.5)
            if kind == 2:
                np.negative(rows, out=rows)
        return direction

    def onto_budgets(self, start: SingleArray) -> tuple[SingleArray, BoolArray]:
        """Move rows onto the budget, or onto both; return them and which of them got there."""
        if len(self.budgets) == 1:
            return self.surfaces.shift_onto(self.budgets[0], start), np.ones(len(start), dtype=bool)
        shares = [np.full(len(start), budget.share, dtype=np.float32) for budget in self.budgets]
        kept, solved, _ = self.surfaces.solve_both(shares[0], shares[1], start, (COST_MISS, COST_MISS))
        return kept, solved


@dataclass(frozen=True)
class RandomSpace(RecipeSpace):
    """Random ratios, all shifted together until the budget is met: the space of the paper."""

    def requests(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return empty requests: every recipe of the space is as good as another."""
        return np.zeros((count, 0), dtype=np.float32)

    def draw(
        self, requests: SingleArray, attempt: int, rng: np.random.Generator
    ) -> tuple[SingleArray, BoolArray]:
        """Return random kept fractions, shifted."""
        low, high = self.surfaces.lowest, self.surfaces.highest
        start = self.uniform(len(requests), rng)
        if self.surfaces.bands is not None:
            start = low + (high - low) * start
        return self.onto_budgets(start)


@dataclass(frozen=True)
class StdSpace(RecipeSpace):
    """Recipes whose STD (of the achieved ratios over groups) lies in a band, evenly spread over it."""

    std: tuple[float, float]  # The band.

    @cached_property
    def reachable(self) -> tuple[float, float]:
        """The part of the band that recipes on the budget reach."""
        found = range_on_budget(self.surfaces, self.budgets)
        low, high = max(self.std[0], found.std[0]), min(self.std[1], found.std[1])
        if low >= high:
            raise PlanError(
                f"space std:{self.std[0]:g}-{self.std[1]:g}: no recipe of this regime has such an STD; feasible "
                f"are {found}."
            )
        return low, high

    def requests(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return the STD of each recipe."""
        low, high = self.reachable
        wanted = low + (high - low) * (rng.permutation(count) + rng.random(count)) / count
        return wanted[:, None].astype(np.float32)

    def draw(
        self, requests: SingleArray, attempt: int, rng: np.random.Generator
    ) -> tuple[SingleArray, BoolArray]:
        """Return kept fractions along random directions, as far out as their STD requires (bisection)."""
        direction = self.directions(len(requests), rng)
        low = np.zeros(len(requests), dtype=np.float32)
        high = np.full(len(requests), AMPLITUDES[-1], dtype=np.float32)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            start = (np.float32(0.5) + middle[:, None] * direction).astype(np.float32)
            kept, solved = self.onto_budgets(start)
            too_even = kept.std(axis=1) < requests[:, 0]
            low, high = np.where(too_even, middle, low), np.where(too_even, high, middle)
        return kept, solved

    def holds(self, requests: SingleArray, rounded: Rounded, attempt: int) -> BoolArray:
        """Return where the STD of the achieved ratios lies in the band."""
        std = self.achieved_std(rounded)
        return (std >= self.std[0]) & (std <= self.std[1])


@dataclass(frozen=True)
class StratifiedSpace(RecipeSpace):
    """Even over log mCB, and at each log mCB over the STD that can be reached there."""

    log_mcb_band: tuple[float, float]  # Where log mCB may lie, if it is feasible.
    std: tuple[float, float] | None = None  # Where the STD may lie.

    @cached_property
    def log_mcb(self) -> tuple[float, float]:
        """The feasible part of the band; two budgets leave one value."""
        found = range_on_budget(self.surfaces, self.budgets)
        low, high = max(found.log_mcb[0], self.log_mcb_band[0]), min(found.log_mcb[1], self.log_mcb_band[1])
        if low > high:
            raise PlanError(
                f"space: no recipe of this regime has a log mCB of {self.log_mcb_band[0]:.3f} to "
                f"{self.log_mcb_band[1]:.3f}; feasible are {found}."
            )
        return low, high

    def requests(self, count: int, rng: np.random.Generator) -> SingleArray:
        """Return (log mCB, place in the reachable STD) of each recipe, both evenly spread."""
        low, high = self.log_mcb
        strata = (np.stack([rng.permutation(count), rng.permutation(count)]) + rng.random((2, count))) / count
        return np.stack([low + (high - low) * strata[0], strata[1]], axis=1).astype(np.float32)

    def again(self, requests: SingleArray, redraw: int, rng: np.random.Generator) -> SingleArray:
        """Return requests nearer to the smallest STD at the same log mCB; in the end, entirely new ones."""
        if redraw >= SAME_MCB_REDRAWS:
            return self.requests(len(requests), rng)
        return requests * np.array([1.0, 0.5], dtype=np.float32)

    def draw(
        self, requests: SingleArray, attempt: int, rng: np.random.Generator
    ) -> tuple[SingleArray, BoolArray]:
        """Return kept fractions at the requested log mCB, their spread set by the requested place."""
        calmer = np.float32(CALMER ** max(attempt % REDRAW_EVERY - BOLD_ATTEMPTS, 0))
        low, high = self.log_mcb
        places = (requests[:, 0] - low) / max(high - low, 1e-6) * PILOT_BINS
        bins = np.clip(places.astype(np.int64), 0, PILOT_BINS - 1)
        # The one that, by the pilot, gives the STD at the requested place of what is reachable.
        amplitude = np.empty(len(bins), dtype=np.float32)
        for number, spreads in enumerate(self._pilot.std):
            here = np.flatnonzero(bins == number)
            ends = np.clip(self.std or (0, 1), spreads[0], spreads[-1])
            wanted = ends[0] + requests[here, 1] * (ends[1] - ends[0])
            amplitude[here] = np.interp(wanted, spreads, AMPLITUDES)
        amplitude *= calmer
        guess = self._pilot.places[bins, np.searchsorted(_BETWEEN_AMPLITUDES, amplitude)]
        kept, solved, _ = self._solve(requests[:, 0], amplitude, rng, guess)
        return kept, solved

    def holds(self, requests: SingleArray, rounded: Rounded, attempt: int) -> BoolArray:
        """Return where log mCB is still near the requested value, and the STD in its band, if there is one."""
        near = np.ones(len(requests), dtype=bool)
        if len(self.budgets) == 1 and attempt < STRICT_ATTEMPTS:
            costs, (low, high) = self.surfaces.costs, self.log_mcb
            log_mcb = np.log(rounded.macs * (costs.original_params / costs.original_macs) / rounded.params)
            near &= np.abs(log_mcb - requests[:, 0]) <= OTHER_MISS + MCB_DRIFT * (high - low)
        if self.std is not None:
            std = self.achieved_std(rounded)
            near &= (std >= self.std[0]) & (std <= self.std[1])
        return near

    def _solve(
        self,
        log_mcb: SingleArray,
        amplitude: SingleArray,
        rng: np.random.Generator,
        guess: SingleArray | None = None,
    ) -> tuple[SingleArray, BoolArray, SingleArray]:
        start = self.directions(len(log_mcb), rng)
        start *= amplitude[:, None]
        start += np.float32(0.5)
        shares = [np.full(len(log_mcb), budget.share, dtype=np.float32) for budget in self.budgets]
        solve = self.surfaces.solve_both
        if len(shares) == 2:
            return solve(shares[0], shares[1], start, (COST_MISS, COST_MISS), guess)
        if self.budgets[0].axis == "macs":
            return solve(shares[0], shares[0] * np.exp(-log_mcb), start, (COST_MISS, OTHER_MISS), guess)
        return solve(shares[0] * np.exp(log_mcb), shares[0], start, (OTHER_MISS, COST_MISS), guess)

    @cached_property
    def _pilot(self) -> _Pilot:
        """What a few thousand recipes show about this space; its random numbers are always the same."""
        low, high = self.log_mcb
        centres = low + (high - low) * (np.arange(PILOT_BINS) + 0.5) / PILOT_BINS
        log_mcb, amplitude = np.meshgrid(np.repeat(centres, PILOT_ROWS), AMPLITUDES, indexing="ij")
        rows = log_mcb.ravel().astype(np.float32), amplitude.ravel().astype(np.float32)
        kept, solved, place = self._solve(*rows, np.random.default_rng(0))
        shape = (PILOT_BINS, PILOT_ROWS, len(AMPLITUDES))
        std = np.where(solved, kept.std(axis=1), np.nan).reshape(shape)
        return _Pilot(_never_falling(std), np.median(place.reshape(*shape, 2), axis=1))


@dataclass(frozen=True)
class _Pilot:
    """Medians of trial recipes, by bin of log mCB and amplitude of the random direction."""

    std: FloatArray  # (bins, amplitudes); STD reached; it never falls with the amplitude.
    # (bins, amplitudes, 2); How far along shift and tilt the budget lay: the first guess for the next ones.
    places: SingleArray


def _never_falling(std: SingleArray) -> FloatArray:
    """Return the medians over rows that reached their place, made to rise, shape (bins, amplitudes)."""
    reached = np.isfinite(std).sum(axis=1)
    ordered = np.sort(np.nan_to_num(std, nan=np.inf), axis=1)
    middle = np.maximum(reached - 1, 0)[:, None, :] // 2
    median = np.take_along_axis(ordered, middle, axis=1)[:, 0, :]
    rising: FloatArray = np.maximum.accumulate(np.where(np.isfinite(median), median, 0.0), axis=1)
    return rising + np.arange(std.shape[2]) * 1e-6
