"""Recipes of a regime: drawn from a space, moved onto the budget, rounded to whole filters, never twice.

Spaces
------
``random``
    Random ratios, all shifted together until the budget is met (the space of the paper).
``stratified``
    Even over the feasible log mCB inside +-`mcb_range`, and at each log mCB over the STD reachable there.
``std:LOW-HIGH``
    The standard deviation of the ratios over groups lies in a band.
``refined:FILE``
    A band of mCB, or of widths, from `popstats.refine`; the file's format is described in `generate.recipes.refined`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from generate.plan import Space
from generate.prune.cost_forms import CostModel
from generate.recipes.budget import Budget, CostSurfaces, SingleArray
from generate.recipes.feasible import check_budgets, range_on_budget, regime_budgets
from generate.recipes.refined import read_refined
from generate.recipes.rounding import round_widths
from generate.recipes.spaces import REDRAW_EVERY, RandomSpace, RecipeSpace, StdSpace, StratifiedSpace
from popstats.arrays import BoolArray, FloatArray, IntArray
from popstats.errors import PlanError

TOLERANCE = 0.005
"""How far from its target a recipe's cost may be, as a share of the original's cost."""

LOOSEST_TOLERANCE = 0.08
"""Where integer widths allow nothing within the tolerance, it is doubled up to this, and the recipes are marked."""

MCB_RANGE = math.log(2)
"""Stratified recipes stay inside this distance from log mCB = 0; beyond it lies junk (design 4)."""

ROWS_AT_ONCE = 2048
REDRAWS = 100
FRUITLESS_REDRAWS, HOPELESS_REDRAWS = 10, 2
"""This many places in a row without one new recipe mean that there is none; fewer if there has never been any."""


@dataclass(frozen=True)
class Recipes:
    """Recipes of one regime, in the order in which they are to be trained; no two have the same widths."""

    widths: IntArray  # (n, G); Channels kept in each group.
    ratios_requested: FloatArray  # (n, G); Pruning ratio (fraction removed) before rounding to whole widths.
    # macs, params: (n,); Exact costs.
    macs: IntArray
    params: IntArray
    # (n,); True where integer widths allowed no recipe within the tolerance, and the nearest were taken.
    off_target: BoolArray

    def __len__(self) -> int:
        return len(self.widths)


def sample_recipes(
    space: Space,
    costs: CostModel,
    *,
    axis: str,
    target: float,
    count: int,
    rng: np.random.Generator,
    mcb_range: float = MCB_RANGE,
    round_to: int = 1,
    tolerance: float = TOLERANCE,
) -> Recipes:
    """Draw `count` different recipes of one regime."""
    drawn = _space(space, costs, axis=axis, target=target, mcb_range=mcb_range, round_to=round_to)
    allowed = tolerance
    while True:
        collected = _Collected(drawn, count, allowed, rng)
        found = collected.fill()
        if found == count:
            return collected.recipes(tolerance)
        if found or allowed >= LOOSEST_TOLERANCE:
            raise PlanError(
                f"space {space}: expected {count} different recipes, found {found} within {allowed:.1%} of the budget. "
                f"Ask for fewer, widen the space or choose another target; feasible are "
                f"{range_on_budget(drawn.surfaces, drawn.budgets)}."
            )
        allowed *= 2


def mcb_correlations(widths: IntArray, costs: CostModel) -> tuple[tuple[str, float], ...]:
    """Return each group's name and the correlation of its width with log mCB, strongest first."""
    # mCB is confounded with single groups, late ones above all: what looks like an effect of mCB among these
    # recipes may be an effect of those widths.
    macs, params = costs.both(widths)
    with np.errstate(invalid="ignore"):  # a width that never changes has no correlation
        table = np.corrcoef(np.vstack([np.log(macs / params), widths.T]))
    correlations = np.nan_to_num(table[0, 1:])
    order = np.argsort(-np.abs(correlations), kind="stable")
    return tuple((costs.groups[i].name, float(correlations[i])) for i in order)


def _space(
    space: Space, costs: CostModel, *, axis: str, target: float, mcb_range: float, round_to: int
) -> RecipeSpace:
    surfaces, budgets = CostSurfaces(costs, round_to), regime_budgets(axis, target)
    if space.file is not None:
        return _refined_space(space, surfaces, budgets, axis, target)
    check_budgets(surfaces, budgets)
    if space.std is not None:
        return StdSpace(surfaces, budgets, space.std)
    if space.kind == "random":
        return RandomSpace(surfaces, budgets)
    return StratifiedSpace(surfaces, budgets, (-mcb_range, mcb_range))


def _refined_space(
    space: Space, surfaces: CostSurfaces, budgets: tuple[Budget, ...], axis: str, target: float
) -> RecipeSpace:
    where, spec = f"space {space}", read_refined(str(space.file))
    spec.check_regime(axis, target, where)
    names = [group.name for group in surfaces.costs.groups]
    bounded = replace(surfaces, bands=spec.bands(names, where))
    check_budgets(bounded, budgets)
    if spec.mcb is not None:
        low, high = (math.log(max(end, 1e-9)) for end in spec.mcb)
        return StratifiedSpace(bounded, budgets, (low, high), spec.std)
    return RandomSpace(bounded, budgets) if spec.std is None else StdSpace(bounded, budgets, spec.std)


class _Collected:
    """Recipes found so far, each in the row of the request that it answers."""

    def __init__(self, space: RecipeSpace, count: int, tolerance: float, rng: np.random.Generator) -> None:
        groups = len(space.surfaces.lowest)
        self.space, self.count, self.tolerance, self.rng = space, count, tolerance, rng
        self.widths = np.empty((count, groups), dtype=np.int64)
        self.ratios = np.empty((count, groups))
        self.macs, self.params = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        self.miss, self.keys = np.empty(count), np.empty(count, dtype=np.uint64)
        self.known = _KnownRows(groups)

    def fill(self) -> int:
        """Draw until every request is answered or none of the rest can be; return how many are."""
        requests = self.space.requests(self.count, self.rng)
        open_rows, fruitless = np.arange(self.count), 0
        for redraw in range(REDRAWS):
            before = len(open_rows)
            for attempt in range(REDRAW_EVERY):
                open_rows = self._answer(requests, open_rows, redraw * REDRAW_EVERY + attempt)
                if not len(open_rows):
                    return self.count
            fruitless = fruitless + 1 if len(open_rows) == before else 0
            if fruitless == (FRUITLESS_REDRAWS if before < self.count else HOPELESS_REDRAWS):
                break
            requests[open_rows] = self.space.again(requests[open_rows], redraw, self.rng)
        return self.count - len(open_rows)

    def _answer(self, requests: SingleArray, open_rows: IntArray, attempt: int) -> IntArray:
        """Draw once for every open request; return those that are still open."""
        blocks = [open_rows[i : i + ROWS_AT_ONCE] for i in range(0, len(open_rows), ROWS_AT_ONCE)]
        usable = [self._draw(requests[rows], rows, attempt) for rows in blocks]
        candidates = open_rows[np.concatenate(usable)]
        answered = candidates[self.known.add_new(self.keys[candidates])]
        return np.setdiff1d(open_rows, answered, assume_unique=True)

    def _draw(self, requests: SingleArray, rows: IntArray, attempt: int) -> BoolArray:
        kept, solved = self.space.draw(requests, attempt, self.rng)
        surfaces, budgets = self.space.surfaces, self.space.budgets
        rounded = round_widths(surfaces, budgets, kept, solved, self.tolerance, self.rng)
        # Consecutive rows, as in the first attempt, are copied several times faster as a slice.
        whole = rows[-1] - rows[0] + 1 == len(rows)
        place = slice(int(rows[0]), int(rows[-1]) + 1) if whole else rows
        self.widths[place], self.macs[place] = rounded.widths, rounded.macs
        self.params[place] = rounded.params
        self.miss[place], self.keys[place] = rounded.miss, self.known.keys(rounded.widths)
        self.ratios[place] = np.subtract(1, kept, out=kept)
        return solved & (rounded.miss <= self.tolerance) & self.space.holds(requests, rounded, attempt)

    def recipes(self, tolerance: float) -> Recipes:
        """Return all of them; those further than `tolerance` from a budget are marked."""
        return Recipes(self.widths, self.ratios, self.macs, self.params, self.miss > tolerance)


class _KnownRows:
    """Rows of widths seen so far, known by a 64-bit hash: equal rows always collide, others practically never."""

    def __init__(self, groups: int) -> None:
        # The seed is fixed on purpose: the hash is no part of the sample. A collision only costs a redraw.
        drawn = np.random.default_rng(0).integers(0, 2**63, size=groups, dtype=np.uint64)
        self.multipliers = drawn * np.uint64(2) + np.uint64(1)
        self.sorted_runs: list[NDArray[np.uint64]] = []

    def keys(self, rows: IntArray) -> NDArray[np.uint64]:
        """Return the hash of each row, shape (n,)."""
        return cast(NDArray[np.uint64], rows.view(np.uint64) @ self.multipliers)

    def add_new(self, keys: NDArray[np.uint64]) -> BoolArray:
        """Return which keys are new (the first of equal ones is), and remember them."""
        first = np.zeros(len(keys), dtype=bool)
        first[np.unique(keys, return_index=True)[1]] = True
        for run in self.sorted_runs:
            first &= run[np.minimum(np.searchsorted(run, keys), len(run) - 1)] != keys
        if first.any():
            self.sorted_runs.append(np.sort(keys[first]))
        return first
