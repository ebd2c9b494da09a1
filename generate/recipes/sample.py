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
    A band of mCB, or of widths, from the file that `popstats.refine` writes.

The file of a refined space
---------------------------
By mean computation budget::

    [refined]
    axis = "macs"            # macs, params or both
    target = 0.5             # reduction
    kind = "mcb"
    mcb = [0.9, 1.2]         # mean computation budget, not its logarithm
    std = [0.05, 0.25]       # optional

By widths::

    [refined]
    axis = "macs"
    target = 0.5
    kind = "widths"

    [refined.widths]         # kept fraction of each group; groups that are not named are free
    "layer1.0.conv1" = [0.4, 0.7]

Other keys and tables are notes for people: they are kept out of the space.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from generate.plan import RecipePlan
from generate.prune.cost_forms import CostModel
from generate.recipes.budget import CostSurfaces, SingleArray, round_widths
from generate.recipes.feasible import check_budgets, range_on_budget, regime_budgets
from generate.recipes.spaces import REDRAW_EVERY, RandomSpace, RecipeSpace, StdSpace, StratifiedSpace
from popstats.arrays import BoolArray, FloatArray, IntArray
from popstats.errors import PlanError

# How far from its target a recipe's cost may be, as a share of the original's cost.
TOLERANCE = 0.005
# Where integer widths allow nothing within the tolerance, it is doubled up to this.
LOOSEST_TOLERANCE = 0.08
ROWS_AT_ONCE = 2048
REDRAWS = 100
# This many places in a row without one new recipe mean that there is none; fewer if there has never been any.
FRUITLESS_REDRAWS, HOPELESS_REDRAWS = 10, 2

Band = tuple[float, float]


def sample_recipes(
    block: RecipePlan, costs: CostModel, target: float, count: int, rng: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Draw different recipes of one regime; return their widths and, before rounding, their pruning ratios, each (n, G)."""
    drawn, tolerance = _space(block, costs, target), TOLERANCE
    while True:
        collected = _Collected(drawn, count, tolerance, rng)
        found = collected.fill()
        if found == count:
            return collected.widths, collected.ratios
        if found or tolerance >= LOOSEST_TOLERANCE:
            raise PlanError(
                f"space {block.space}: expected {count} different recipes, found {found} within {tolerance:.1%} of the "
                f"budget. Ask for fewer, widen the space or choose another target; feasible are "
                f"{range_on_budget(drawn.surfaces, drawn.budgets)}."
            )
        tolerance *= 2


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


def _space(block: RecipePlan, costs: CostModel, target: float) -> RecipeSpace:
    surfaces, budgets = CostSurfaces(costs, block.round_to), regime_budgets(block.axis, target)
    half = math.log(block.mcb_range)
    log_mcb, std = (-half, half) if block.space.kind == "stratified" else None, block.space.std
    if block.space.file is not None:
        where, spec = f"space {block.space}", read_refined(str(block.space.file))
        spec.check_regime(block.axis, target, where)
        surfaces = replace(surfaces, bands=spec.bands([group.name for group in costs.groups], where))
        std = spec.std
        if spec.mcb is not None:
            low, high = (math.log(max(end, 1e-9)) for end in spec.mcb)
            log_mcb = low, high
    check_budgets(surfaces, budgets)
    if log_mcb is not None:
        return StratifiedSpace(surfaces, budgets, log_mcb, std)
    return RandomSpace(surfaces, budgets) if std is None else StdSpace(surfaces, budgets, std)


class _Collected:
    """Recipes found so far, each in the row of the request that it answers."""

    def __init__(self, space: RecipeSpace, count: int, tolerance: float, rng: np.random.Generator) -> None:
        groups = len(space.surfaces.lowest)
        self.space, self.count, self.tolerance, self.rng = space, count, tolerance, rng
        self.widths = np.empty((count, groups), dtype=np.int64)
        self.ratios, self.keys = np.empty((count, groups)), np.empty(count, dtype=np.uint64)
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
        usable, surfaces, budgets = [], self.space.surfaces, self.space.budgets
        for start in range(0, len(open_rows), ROWS_AT_ONCE):
            rows = open_rows[start : start + ROWS_AT_ONCE]
            wanted = requests[rows]
            kept, solved = self.space.draw(wanted, attempt, self.rng)
            rounded = round_widths(surfaces, budgets, kept, solved, self.tolerance, self.rng)
            # Consecutive rows, as in the first attempt, are copied several times faster as a slice.
            whole = rows[-1] - rows[0] + 1 == len(rows)
            place = slice(int(rows[0]), int(rows[-1]) + 1) if whole else rows
            self.widths[place], self.keys[place] = rounded.widths, self.known.keys(rounded.widths)
            self.ratios[place] = np.subtract(1, kept, out=kept)
            met = solved & (rounded.miss <= self.tolerance)
            usable.append(met & self.space.holds(wanted, rounded, attempt))
        candidates = open_rows[np.concatenate(usable)]
        answered = candidates[self.known.add_new(self.keys[candidates])]
        return np.setdiff1d(open_rows, answered, assume_unique=True)


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


@dataclass(frozen=True)
class RefinedSpec:
    """A refined space as read from its file."""

    axis: str | None = None  # Axis of the regime it was refined for.
    target: float | None = None  # Reduction of that regime.
    mcb: Band | None = None  # Band of the mean computation budget.
    std: Band | None = None  # Band of the STD.
    widths: Mapping[str, Band] = field(default_factory=dict)  # Band of the kept fraction, by group name.

    def check_regime(self, axis: str, target: float, where: str) -> None:
        """Refuse a regime that the space was not refined for."""
        same_target = self.target is None or math.isclose(self.target, target, abs_tol=1e-6)
        if not same_target or self.axis not in (None, axis):
            raise PlanError(
                f"{where}: refined for a reduction of {self.target} on the axis {self.axis}, got {target} on {axis}. "
                "Plan the regime of the file, or refine again."
            )

    def bands(self, names: Sequence[str], where: str) -> tuple[Band, ...] | None:
        """Return the bands of kept fractions in the order of `names`; None where none is set."""
        if unknown := [name for name in self.widths if name not in names]:
            raise PlanError(
                f"{where}: [refined.widths] names {', '.join(unknown)}; the network's groups are {', '.join(names)}."
            )
        return tuple(self.widths.get(name, (0.0, 1.0)) for name in names) if self.widths else None


def read_refined(path: str) -> RefinedSpec:
    """Return the refined space in the TOML file at `path`."""
    where = f"space refined:{path}"
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{where}: expected a TOML file as `popstats.refine` writes it; {error}.") from error
    table = content.get("refined")
    if not isinstance(table, dict):
        raise PlanError(f"{where}: expected a table [refined], got {', '.join(content) or 'an empty file'}.")
    kind, target = table.get("kind", "widths" if "widths" in table else "mcb"), table.get("target")
    if not isinstance(table.get(kind), {"mcb": list, "widths": dict}.get(str(kind), ())):
        raise PlanError(
            f"{where}: expected kind mcb or widths, which needs `mcb` or [refined.widths]; got {kind!r}."
        )
    if target is not None and not (isinstance(target, int | float) and 0 < target < 1):
        raise PlanError(f"{where}: target: expected a reduction between 0 and 1, got {target!r}.")
    std = _band(table["std"], f"{where}: std", 0, 1) if "std" in table else None
    mcb = _band(table["mcb"], f"{where}: mcb", 0, math.inf) if kind == "mcb" else None
    widths = table["widths"] if kind == "widths" else {}
    bands = {name: _band(band, f"{where}: widths: {name}", 0, 1) for name, band in widths.items()}
    return RefinedSpec(table.get("axis"), target, mcb, std, bands)


def _band(value: object, where: str, lowest: float, highest: float) -> Band:
    numbers = value if isinstance(value, list) else []
    if len(numbers) == 2 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        low, high = float(numbers[0]), float(numbers[1])
        if lowest <= low < high <= highest and high > 0:
            return low, high
    raise PlanError(
        f"{where}: expected [low, high] with {lowest:g} <= low < high <= {highest:g}, got {value!r}."
    )
