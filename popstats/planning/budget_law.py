r"""The width law near one budget: the expected drop of any recipe of about that cost, and how far recipes lie from it.

.. math:: z_i = \alpha_{t(i)} + \sum_g (b_g d_{ig} + q_g d_{ig}^2) + s \sum_g d_{ig} + c_1 m_i + c_2 m_i^2
          + \kappa \sum_{g < h} p_{gh} d_{ig} d_{ih} + u_i + e_{ij}, \qquad b, q, s, c, p \sim \mathrm{Normal}(0, \lambda v),

z the log-odds of an error, d the log-width about the mean, m the log cost offset from the budget, t the retraining
technique. On the log-odds, what a width buys hardly depends on how much is pruned: on the digits the median error of a
prediction was a quarter of that on the drop itself, elsewhere no larger. Pairwise products come in where the data ask
for them (kappa, lambda: largest marginal likelihood): without them, the best recipe of 600 was predicted 0.8 to 1.5
points too good on NATS-Bench's CIFAR-100. Rows far from the budget come in where they help to predict the recipes near it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from popstats.arrays import BoolArray, FloatArray, IntArray
from popstats.errors import PopulationError
from popstats.population.recipes import original_widths, positive_widths, prepared_recipes
from popstats.population.regimes import Axis
from popstats.population.table import Population

#: Recipes within this factor of the budget are what the law has to predict, and at least this many of the nearest on either side.
INNER, LEAST_INNER = 1.15, 15
#: Factors of the budget within which recipes are fitted: the one of smallest error on the inner recipes is taken.
WINDOWS = (1.15, 1.5, 2.5, np.inf)
#: A wider window has to lower that error by this share.
WORTHWHILE = 0.02
#: A budget is supported where this many recipes (of few, this share) cost it within this factor, some less, some more.
SUPPORTED_FACTOR, SUPPORTED_RECIPES, SUPPORTED_SHARE = 1.5, 20, 0.15
#: Fewest recipes of similar cost, and narrowest range of reductions that is worth naming.
FEWEST_RECIPES, NARROWEST = 10, 0.005
#: Share of the recipes that lies outside the supported costs on either side, before these are widened by a factor.
OUTSIDE, WIDENED = 0.01, 1.02
#: Most recipes of a fit, the nearest in cost: more would add time, not certainty.
MOST = 600
#: Most columns of the law: above, the pairwise products are left out.
MOST_COLUMNS = 6000
LAMBDAS = 2.0 ** np.arange(-10, 11)
#: Prior degrees of freedom of the residual variance, and its prior guess as a share of the outcomes' variance: where
#: there are hardly more recipes than terms, the data alone would allow a law without any residuals.
PRIOR_DF, PRIOR_SHARE = 4.0, 0.05
KAPPAS = (0.0, 0.3, 1.0)
#: Residuals above this many robust standard deviations are cut back: collapsed recipes say where not to look.
CUT = 3.0
#: Recipes' worth of the common residual variance in the variance near one predicted drop.
COMMON = 10.0
#: Least share of the residual variance that recipes make, and seeds' degrees of freedom that tell the two apart.
LEAST_RECIPE_SHARE, LEAST_SEED_DF = 0.05, 5
#: Errors in percent are kept so far from 0 and 100.
LEAST_ERROR = 0.05


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
        reach, ascending = np.log(SUPPORTED_FACTOR), np.sort(self.log_cost)
        near = np.searchsorted(ascending, grid + reach, "right") - np.searchsorted(ascending, grid - reach)
        needed = max(FEWEST_RECIPES, min(SUPPORTED_RECIPES, int(SUPPORTED_SHARE * self.log_cost.size)))
        fine = near >= needed
        edges = np.flatnonzero(np.diff(np.r_[False, fine, False]))
        ranges = [
            (-np.expm1(grid[a]), -np.expm1(grid[b - 1])) for a, b in zip(edges[::2], edges[1::2], strict=True)
        ]
        return [(float(a), float(b)) for a, b in ranges if b - a >= NARROWEST]


def width_table(population: Population, axis: Axis) -> WidthTable:
    """Return the recipes of a population, the same object every time.

    Raises
    ------
    PopulationError
        If the table has no widths, or none of them varies.
    """
    return population.derived((__name__, axis), lambda: _width_table(population, axis))


def _width_table(population: Population, axis: Axis) -> WidthTable:
    widths = population.widths
    if widths is None:
        raise PopulationError(
            f"{population.name}: the table has no widths, which a recommendation needs; name the columns that hold "
            "them: Population.from_frame(..., widths=[...])"
        )
    recipes = prepared_recipes(population, axis)
    table, own = recipes.table, widths[recipes.first].astype(np.float64)
    if (own == own[0]).all():
        raise PopulationError(
            f"{population.name}: all {len(own):,} recipes have the same widths, so nothing can be said about other ones"
        )
    own = np.where(own.any(axis=0), own, 1.0)  # a group that no recipe has
    full = np.maximum(original_widths(population), own.max(axis=0))
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
class BudgetLaw:
    """Posterior of the law near one budget; outcomes are log-odds of an error, for the technique that is predicted."""

    centre: FloatArray  # (G,)
    kappa: float
    ratio: float  # lambda
    variance: float  # v
    axes: FloatArray  # (p, k) directions of the features that the recipes vary in
    spread: FloatArray  # (k,) singular values along them
    slopes: FloatArray  # (k,) posterior mean along them
    levels: FloatArray  # (f,) posterior mean of the intercept, and of what other techniques add
    level_covariance: FloatArray  # (f, f), in units of v
    tilt: FloatArray  # (f, k): -d levels / d slopes
    fitted: FloatArray  # (n,) of the recipes
    left_out: FloatArray  # (n,) their residuals from the law of the others
    inner: BoolArray = field(
        default_factory=lambda: np.zeros(0, dtype=bool)
    )  # (n,) whether a recipe lies near the budget
    rows: IntArray = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64)
    )  # (n,) numbers of the recipes in the width table
    offset: FloatArray = field(default_factory=lambda: np.zeros(0))  # (n,) of the recipes
    technique: int = 0  # that is predicted
    seed_variance: float = 0.0  # of one training; 0 where seeds cannot be told from recipes
    mean_inverse_runs: float = 1.0

    def expected(self, log_shares: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """Return the posterior mean of recipes of these log cost offsets from the budget, (n, G), (n,) -> (n,)."""
        return np.asarray(self.levels[0] + self._features(log_shares, offset) @ (self.axes @ self.slopes))

    def covariance(self, log_shares: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """Return the posterior covariance of the expected outcomes, (n, G), (n,) -> (n, n)."""
        x = self._features(log_shares, offset)
        along = x @ self.axes
        beyond = x - along @ self.axes.T
        level = self._first - along @ self.tilt.T
        shrunk = along * (self.ratio / (1.0 + self.ratio * self.spread**2))
        parts = shrunk @ along.T + self.ratio * (beyond @ beyond.T) + level @ self.level_covariance @ level.T
        return np.asarray(self.variance * parts)

    def uncertainty(self, log_shares: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """Return the posterior standard deviation of the expected outcome, (n, G), (n,) -> (n,)."""
        x = self._features(log_shares, offset)
        along = x @ self.axes
        beyond = np.maximum((x**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        level = self._first - along @ self.tilt.T
        share = along**2 @ (self.ratio / (1.0 + self.ratio * self.spread**2)) + self.ratio * beyond
        share += np.einsum("ni,ij,nj->n", level, self.level_covariance, level, optimize=True)
        return np.asarray(np.sqrt(self.variance * share))

    def recipe_variance(self, outcome: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the variance of recipes around the law near expected outcomes, and its degrees of freedom, (n,)."""
        # Left-out residuals hold the error of the law too, as if once more: what is not known of lambda and kappa.
        squares = self.left_out[self.inner] ** 2
        fitted = self.fitted[self.inner]
        near = np.exp(-0.5 * ((outcome[:, None] - fitted) / (fitted.std() + 1e-9)) ** 2)
        weight = near.sum(axis=1) + COMMON
        total = (near @ squares + COMMON * squares.mean()) / weight
        own = np.maximum(total - self.seed_variance * self.mean_inverse_runs, LEAST_RECIPE_SHARE * total)
        return own, np.clip(weight - 1.0, 3.0, max(squares.size - 1.0, 3.0))

    @property
    def _first(self) -> FloatArray:
        """Return the intercepts' columns of a recipe of the predicted technique, (f,)."""
        return np.asarray(np.eye(1, self.levels.size)[0])

    def _features(self, log_shares: FloatArray, offset: FloatArray | float) -> FloatArray:
        return _features(log_shares - self.centre, np.broadcast_to(offset, len(log_shares)), self.kappa)


def _features(distance: FloatArray, offset: FloatArray, kappa: float) -> FloatArray:
    """Return the law's features, (n, G), (n,) -> (n, 2 G + 3) or with the pairwise products."""
    terms = [distance, distance**2, np.column_stack([distance.sum(axis=1), offset, offset**2])]
    if kappa > 0.0:
        i, j = np.triu_indices(distance.shape[1], 1)
        terms.append(kappa * distance[:, i] * distance[:, j])
    return np.hstack(terms)


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
    laws = [_fitted(table, rows, inner[rows], log_cost) for rows in _windows(distance, order, inner)]
    best = laws[0]
    for law in laws[1:]:
        if _inner_error(law) < (1.0 - WORTHWHILE) * _inner_error(best):
            best = law
    return best


def _windows(distance: FloatArray, order: IntArray, inner: BoolArray) -> Iterator[IntArray]:
    """Yield the recipes of each window, none twice."""
    size = 0
    for factor in WINDOWS:
        rows = np.sort(order[(distance[order] <= np.log(factor)) | inner[order]])
        if rows.size > size:
            size = rows.size
            yield rows


def _inner_error(law: BudgetLaw) -> float:
    return float((law.left_out[law.inner] ** 2).mean())


def _fitted(table: WidthTable, rows: IntArray, inner: BoolArray, log_cost: float) -> BudgetLaw:
    """Fit the law to some recipes, then again with collapsed ones cut back."""
    technique, offset = table.technique[rows], table.log_cost[rows] - log_cost
    first = int(np.bincount(technique[inner]).argmax())
    others = [technique == t for t in np.unique(technique) if t != first]
    levels = np.column_stack([np.ones(rows.size), *others]).astype(np.float64)
    outcome, shares = table.outcome[rows], table.log_shares[rows]
    law = _ridge(shares, offset, outcome, levels)
    residual = outcome - law.fitted
    cut = np.minimum(outcome, law.fitted + CUT * 1.4826 * np.median(np.abs(residual)))
    if (cut < outcome).any():
        law = _ridge(shares, offset, cut, levels, kappas=(law.kappa,))
    df = (table.runs[rows] - 1)[inner].sum()
    seeds = float(table.within[rows][inner].sum() / df) if df >= LEAST_SEED_DF else 0.0
    return replace(
        law, inner=inner, rows=rows, offset=offset, technique=first, seed_variance=seeds,
        mean_inverse_runs=float((1.0 / table.runs[rows][inner]).mean()),
    )  # fmt: skip


def _singular(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the singular vectors and values of a matrix, without its null space."""
    if x.shape[1] <= x.shape[0]:
        left, spread, right = np.linalg.svd(x, full_matrices=False)
        kept = spread > 1e-9 * max(float(spread[0]), 1e-300)
        return left[:, kept], spread[kept], right[kept]
    # Several times faster where there are more columns than rows; half of the digits are enough.
    values, left = np.linalg.eigh(x @ x.T)
    kept = values > 1e-12 * max(float(values[-1]), 1e-300)
    left, spread = left[:, kept], np.sqrt(values[kept])
    return left, spread, (left.T @ x) / spread[:, None]


def _ridge(
    shares: FloatArray,
    offset: FloatArray,
    outcome: FloatArray,
    levels: FloatArray,
    kappas: tuple[float, ...] = KAPPAS,
) -> BudgetLaw:
    """Return the law of largest marginal likelihood over lambda and kappa."""
    centre, groups = shares.mean(axis=0), shares.shape[1]
    basis = np.linalg.qr(levels)[0]
    free, df = (basis**2).sum(axis=1), len(outcome) - levels.shape[1] + PRIOR_DF
    y = outcome - basis @ (basis.T @ outcome)
    best = None
    for kappa in kappas if groups * (groups - 1) / 2 <= MOST_COLUMNS else KAPPAS[:1]:
        x = _features(shares - centre, offset, kappa)
        left, spread, right = _singular(x - basis @ (basis.T @ x))
        along = left.T @ y
        gain = 1.0 + LAMBDAS[:, None] * spread**2
        rest = max(float(y @ y - along @ along), 0.0) + PRIOR_DF * PRIOR_SHARE * float(y @ y) / df + 1e-12
        squares = (along**2 / gain).sum(axis=1) + rest
        evidence = -0.5 * np.log(gain).sum(axis=1) - 0.5 * df * np.log(squares)
        top = int(evidence.argmax())
        if best is None or evidence[top] > best[0]:
            best = (evidence[top], kappa, LAMBDAS[top], squares[top] / df, x, left, spread, right, along)
    assert best is not None
    _, kappa, ratio, variance, x, left, spread, right, along = best
    slopes = ratio * spread / (1.0 + ratio * spread**2) * along
    inverse = np.linalg.inv(levels.T @ levels)
    tilt = inverse @ levels.T @ (x @ right.T)
    means = inverse @ (levels.T @ outcome) - tilt @ slopes
    fitted = levels @ means + x @ (right.T @ slopes)
    leverage = free + (left**2 * (1.0 - 1.0 / (1.0 + ratio * spread**2))).sum(axis=1)
    left_out = (outcome - fitted) / np.maximum(1.0 - leverage, 0.01)
    return BudgetLaw(
        centre, kappa, float(ratio), float(variance), right.T, spread, slopes, means, inverse, tilt, fitted,
        left_out,
    )  # fmt: skip
