"""The width law near one budget: the expected drop of any recipe of about that cost, and how far recipes lie from it.

It is fitted to the log-odds of an error: on these, what a width buys hardly depends on how much is pruned. On the digits
the median error of a prediction was a quarter of that on the drop itself, elsewhere no larger. Pairwise products come in
where the data ask for them: without them, the best recipe of 600 was predicted 0.8 to 1.5 points too good on NATS-Bench's
CIFAR-100. Rows far from the budget come in where they help to predict the recipes near it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from popstats.arrays import BoolArray, FloatArray, IntArray
from popstats.errors import PopulationError
from popstats.inference.model import OBSERVED_QUANTILES
from popstats.planning.law import Law, fit_law
from popstats.population.recipes import original_widths, positive_widths, prepared_recipes
from popstats.population.regimes import Axis
from popstats.population.table import Population
from popstats.words import AXIS_WORDS, join_words

#: The law has to predict recipes within this factor of the budget, and at least this many of the nearest on either side.
INNER, LEAST_INNER = 1.15, 15
#: Factors of the budget within which recipes are fitted: the one of smallest error on the inner recipes is taken.
WINDOWS = (1.15, 1.5, 2.5, np.inf)
#: A wider window has to lower that error by this share.
WORTHWHILE = 0.02
#: A budget is supported where this many recipes (of few, this share) cost it within this factor, a quarter of them no less
#: or hardly less, a quarter no more or hardly more.
SUPPORTED_FACTOR, SUPPORTED_RECIPES, SUPPORTED_SHARE = 1.5, 20, 0.15
#: Fewest recipes of similar cost, and narrowest range of reductions that is worth naming.
FEWEST_RECIPES, NARROWEST = 10, 0.005
#: A reduction may miss a supported range by so much: ranges are shown with three decimals.
SLACK = 1e-3
#: Share of the recipes that lies outside the supported costs on either side, before these are widened by a factor.
OUTSIDE, WIDENED = 0.01, 1.02
#: Most recipes of a fit, the nearest in cost: more would add time, not certainty.
MOST = 600
#: Scales of the pairwise products that are tried; 0 leaves them out.
KAPPAS = (0.0, 0.3, 1.0)
#: Residuals above this many robust standard deviations are cut back: collapsed recipes say where not to look.
CUT = 3.0
#: Weight, in recipes, of the common residual variance in the variance near one predicted drop.
COMMON = 10.0
#: Least share of the residual variance that recipes make, and seeds' degrees of freedom that tell the two apart.
LEAST_RECIPE_SHARE, LEAST_SEED_DF = 0.05, 5
#: Points at which the variance is computed, at most.
FINE = 500
#: Drops that differ by less, in points, are one.
SAME_DROP = 1e-9
#: Errors in percent are kept so far from 0 and 100.
LEAST_ERROR = 0.05
#: The law may be used where it is as certain as of this share of the recipes that it was fitted to; of listed recipes,
#: where at least this share of the groups lies in the trained range.
SUPPORT, GROUPS_INSIDE = 0.95, 0.95
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class WidthTable:
    """The recipes of a population as the law sees them."""

    population: Population
    axis: Axis
    full: FloatArray  # (G,) the original's widths
    log_shares: FloatArray  # (R, G) log kept shares
    log_cost: FloatArray  # (R,) log share of the original's cost on the axis
    outcome: FloatArray  # (R,) log-odds of an error, of the mean over runs
    runs: FloatArray  # (R,)
    within: FloatArray  # (R,) squared deviations of the runs, in the unit of the outcome
    technique: IntArray  # (R,) position in population.techniques

    def logs(self, widths: FloatArray) -> FloatArray:
        """Return log kept shares of recipes, (n, G) -> (n, G)."""
        skipped = self.log_shares.min(axis=0)
        return np.asarray(np.log(np.where(widths > 0, widths, np.exp(skipped) * self.full) / self.full))

    def drop(self, outcome: FloatArray) -> FloatArray:
        """Return the drop in points behind an outcome."""
        return np.asarray(self.population.original.accuracy - 100.0 / (1.0 + np.exp(outcome)))

    def slope(self, outcome: FloatArray) -> FloatArray:
        """Return how fast the drop in points rises with the outcome."""
        share = 1.0 / (1.0 + np.exp(-outcome))
        return np.asarray(100.0 * share * (1.0 - share))

    def supported(self) -> list[tuple[float, float]]:
        """Return the ranges of reductions that the recipes support, mildest first."""
        low, high = np.quantile(self.log_cost, [OUTSIDE, 1.0 - OUTSIDE])
        grid = np.minimum(np.linspace(high + np.log(WIDENED), low - np.log(WIDENED), 201), -1e-6)
        ascending = np.sort(self.log_cost)

        def within(below: float, above: float) -> IntArray:
            """Count the recipes within these factors of each cost of the grid."""
            least, most = grid - np.log(below), grid + np.log(above)
            return np.asarray(np.searchsorted(ascending, most, "right") - np.searchsorted(ascending, least))

        needed = max(FEWEST_RECIPES, min(SUPPORTED_RECIPES, int(SUPPORTED_SHARE * self.log_cost.size)))
        sides = within(SUPPORTED_FACTOR, INNER), within(INNER, SUPPORTED_FACTOR)
        fine = (within(SUPPORTED_FACTOR, SUPPORTED_FACTOR) >= needed) & (np.minimum(*sides) >= needed / 4)
        edges = np.flatnonzero(np.diff(np.r_[False, fine, False]))
        reductions = -np.expm1(grid)
        ranges = zip(reductions[edges[::2]].tolist(), reductions[edges[1::2] - 1].tolist(), strict=True)
        return [(low, high) for low, high in ranges if high - low >= NARROWEST]

    def require_support(self, reduction: float) -> None:
        """Raise PopulationError, with the supported ranges, where the recipes do not support a reduction."""
        ranges = self.supported()
        if not any(low - SLACK <= reduction <= high + SLACK for low, high in ranges):
            shown = [f"{np.ceil(1e3 * a) / 1e3:.3g} to {np.floor(1e3 * b) / 1e3:.3g}" for a, b in ranges]
            held = f"reductions from {join_words(shown)}" if shown else "no reduction"
            raise PopulationError(
                f"{self.population.name}: {reduction:g} of the {AXIS_WORDS[self.axis]} removed lies outside what its "
                f"recipes support. The table supports {held}; train recipes near {reduction:g} to go further"
            )


def width_table(population: Population, axis: Axis) -> WidthTable:
    """Return the recipes of a population, the same object every time; refuse one without widths that vary."""
    return population.derived((__name__, axis), lambda: _width_table(population, axis))


def _width_table(population: Population, axis: Axis) -> WidthTable:
    widths = population.widths
    if widths is None:
        said = f"{population.name}: the table has no widths, which a recommendation needs; name the columns that hold them: "
        raise PopulationError(
            f"{said}Population.from_frame(..., widths=[...])", on_command_line=f"{said}--widths A,B,..."
        )
    recipes = prepared_recipes(population, axis)
    table, own = recipes.table, widths[recipes.first].astype(np.float64)
    if (own == own[0]).all():
        raise PopulationError(
            f"{population.name}: its recipes ({len(own):,}) all have the same widths, so nothing is known of others"
        )
    own = np.where(own.any(axis=0), own, 1.0)  # a group that no recipe has
    full = np.maximum(original_widths(population), own.max(axis=0))
    if np.ptp(table["drop"].to_numpy()) < SAME_DROP:
        raise PopulationError(
            f"{population.name}: all {len(own):,} recipes have the same accuracy, so no widths are better than others"
        )
    error = 100.0 - population.original.accuracy + table["drop"].to_numpy()
    error = np.clip(error, LEAST_ERROR, 100.0 - LEAST_ERROR)
    slope = 1.0 / error + 1.0 / (100.0 - error)
    return WidthTable(
        population, axis, full,
        log_shares=np.log(positive_widths(own) / full),
        log_cost=np.log1p(-np.minimum(table["reduction"].to_numpy(), 1.0 - 1e-9)),
        outcome=np.log(error / (100.0 - error)), runs=table["runs"].to_numpy(),
        within=table["within"].to_numpy() * slope**2,
        technique=table["technique"].to_numpy(),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class BudgetLaw(Law):
    """The law near one budget; outcomes are log-odds of an error, for the technique that is predicted."""

    table: WidthTable
    rows: IntArray  # (n,) numbers of the recipes in the table
    inner: BoolArray  # (n,) whether a recipe lies near the budget
    technique: int  # that is predicted
    seed_variance: float  # of one training; 0 where seeds cannot be told from recipes
    mean_inverse_runs: float
    best_fitted: float  # the best expected outcome of the trained recipes near the budget, moved onto it

    @cached_property
    def seen(self) -> FloatArray:
        """Log kept shares of the trained recipes near the budget, shape (k, G)."""
        return self.table.log_shares[self.rows[self.inner]]

    @cached_property
    def box(self) -> tuple[FloatArray, FloatArray]:
        """Their observed range, 2.5 to 97.5 % of each group, shape (G,) each: the law is used inside it."""
        low, high = np.quantile(self.seen, OBSERVED_QUANTILES, axis=0)
        return low, high

    @cached_property
    def sure(self) -> float:
        """The law's uncertainty of 95 % of them, moved to the budget: it is used where it is as certain."""
        # A maximum over thousands of candidates lies where the law errs the most in its favour.
        return float(np.quantile(self.uncertainty(self.seen), SUPPORT))

    def supports(self, log_shares: FloatArray, offset: FloatArray) -> BoolArray:
        """Return which listed recipes the law may be used for, (n, G), (n,) -> (n,)."""
        (low, high), own = self.box, self.own[self.inner]
        inside = (log_shares >= low - ROUNDING) & (log_shares <= high + ROUNDING)
        # Of a recipe that it was not fitted to, a law is far less certain where there are many groups.
        sure = np.quantile(self.uncertainty(self.seen) / np.sqrt(own), SUPPORT)
        known = self.uncertainty(log_shares, offset) <= sure * (1.0 + ROUNDING)
        return np.asarray((inside.mean(axis=1) >= GROUPS_INSIDE) & known)

    @property
    def slope(self) -> float:
        """How fast the drop in points rises with the outcome at the best recipes."""
        return float(self.table.slope(np.asarray(np.quantile(self.fitted[self.inner], 0.05))))

    def predicted(self, log_shares: FloatArray, offset: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the predicted outcome of recipes, and the variance that extrapolation adds to it, (n,)."""
        # A sum of curves errs most where all are at their best. Of the improvement beyond the best fitted value, the share
        # that is realised is taken as uniform between 0 and 1.
        expected = self.expected(log_shares, offset)
        beyond = np.maximum(self.best_fitted - expected, 0.0)
        return expected + beyond / 2.0, beyond**2 / 12.0

    def recipe_variance(self, outcome: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the variance of recipes around the law near expected outcomes, and its degrees of freedom, (n,)."""
        # Left-out residuals hold the error of the law too, as if once more: what is not known of lambda and kappa.
        squares = self.left_out[self.inner] ** 2
        fitted = self.fitted[self.inner]
        if outcome.size > FINE:  # Both are smooth: of thousands of listed recipes they are read off a grid.
            grid = np.linspace(outcome.min(), outcome.max(), FINE)
            variance, df = (np.interp(outcome, grid, values) for values in self.recipe_variance(grid))
            return variance, df
        near = np.exp(-0.5 * ((outcome[:, None] - fitted) / (fitted.std() + 1e-9)) ** 2)
        weight = near.sum(axis=1) + COMMON
        total = (near @ squares + COMMON * squares.mean()) / weight
        own = np.maximum(total - self.seed_variance * self.mean_inverse_runs, LEAST_RECIPE_SHARE * total)
        return own, np.clip(weight - 1.0, 3.0, max(squares.size - 1.0, 3.0))


def law_at(table: WidthTable, log_cost: float, among: BoolArray | None = None) -> BudgetLaw:
    """Return the law near one budget (log share of the original's cost), from all recipes or from those `among`."""
    distance = np.abs(table.log_cost - log_cost)
    if among is not None:
        distance = np.where(among, distance, np.inf)
    order = np.argsort(distance, kind="stable")[: min(MOST, int(np.isfinite(distance).sum()))]
    near = order[distance[order] <= np.log(SUPPORTED_FACTOR)]
    dearer = table.log_cost[near] > log_cost
    inner = distance <= np.log(INNER)
    inner[near[dearer][:LEAST_INNER]] = inner[near[~dearer][:LEAST_INNER]] = True
    windows = [order[(distance[order] <= np.log(factor)) | inner[order]] for factor in WINDOWS]
    best, least, size = None, np.inf, 0
    for rows in map(np.sort, windows):
        if rows.size > size:
            law, size = _fitted(table, rows, inner[rows], log_cost), rows.size
            error = float((law.left_out[law.inner] ** 2).mean())
            if error < (1.0 - WORTHWHILE) * least:
                best, least = law, error
    assert best is not None
    return best


def _fitted(table: WidthTable, rows: IntArray, inner: BoolArray, log_cost: float) -> BudgetLaw:
    """Fit the law to some recipes, then again with collapsed ones cut back."""
    technique, offset = table.technique[rows], table.log_cost[rows] - log_cost
    first = int(np.bincount(technique[inner]).argmax())
    others = [technique == t for t in np.unique(technique) if t != first]
    levels = np.column_stack([np.ones(rows.size), *others]).astype(np.float64)
    outcome, shares = table.outcome[rows], table.log_shares[rows]
    law = fit_law(shares, outcome, levels, offset, KAPPAS)
    residual = outcome - law.fitted
    cut = np.minimum(outcome, law.fitted + CUT * 1.4826 * np.median(np.abs(residual)))
    if (cut < outcome).any():
        law = fit_law(shares, cut, levels, offset, (law.kappa,))
    df = (table.runs[rows] - 1)[inner].sum()
    seeds = float(table.within[rows][inner].sum() / df) if df >= LEAST_SEED_DF else 0.0
    return BudgetLaw(
        **vars(law), table=table, rows=rows, inner=inner, technique=first, seed_variance=seeds,
        mean_inverse_runs=float((1.0 / table.runs[rows][inner]).mean()),
        best_fitted=float(law.expected(shares[inner]).min()),
    )  # fmt: skip
