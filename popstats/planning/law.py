r"""The width law: an outcome of recipes as a sum of one curve per dependency group, in its log-width.

.. math:: y_i = \alpha + \sum_g (b_g d_{ig} + q_g d_{ig}^2) + s \sum_g d_{ig} + c_1 m_i + c_2 m_i^2
          + \kappa \sum_{g < h} p_{gh} d_{ig} d_{ih} + e_i, \qquad b, q, s, c, p \sim \mathrm{Normal}(0, \lambda v),

d the log-width about the mean and v the residual variance. `popstats.width_law` fits it to the drop, per pruning regime
and over all regimes together; `popstats.planning.budget_law` to the log-odds of an error near one budget, with the log cost
offset m and, where the data ask for them, pairwise products (kappa, lambda: largest marginal likelihood).

The quadratic term is the diminishing return: without it a group could be widened for ever at the same gain. The common
slope s is there because recipes of equal cost leave out just what the groups have in common, as their widths never grow
together. Shrunk one by one, slopes of one sign come out too small: of 60 simulated regimes of 100 recipes at half of the
MACs, 90 % intervals of such slopes held the truth in 69 %, with the common part in 96 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.inference.draws import INTERVAL_MASS
from popstats.judgement.explained import MOST_PAIRS
from popstats.planning.propose import Ridge
from popstats.population.recipes import cost_form, original_widths, positive_widths, prepared_recipes
from popstats.population.regimes import Axis
from popstats.population.table import Population
from popstats.words import html_of, percent

#: Label of the law over all regimes together.
POOLED = "all"
#: Elasticities are given for a group that is wider by this share.
WIDER = 0.10
#: Fewer recipes than this in a regime and the regime has no law.
MINIMUM_RECIPES = 20
#: Prior variance of a coefficient, in units of the residual variance.
LAMBDAS: FloatArray = 2.0 ** np.arange(-10.0, 11.0)
#: Prior degrees of freedom of the residual variance, and its prior guess as a share of the outcomes' variance: where
#: there are hardly more recipes than terms, the data alone would allow a law without any residuals.
PRIOR_DF, PRIOR_SHARE = 4.0, 0.05


@dataclass(frozen=True, eq=False)
class Law:
    """Posterior of one law; predictions are for the first of its levels."""

    centre: FloatArray  # (G,)
    kappa: float
    mean: FloatArray  # (f + p,) of the levels and the coefficients
    root: FloatArray  # (f + p, f + p): root @ root.T is their covariance
    fitted: FloatArray  # (n,) of the recipes that it was fitted to
    left_out: FloatArray  # (n,) their residuals from the law of the others
    own: FloatArray  # (n,) share of those residuals that is left where the recipe takes part in the fit

    def expected(self, log_shares: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """Return the posterior mean of recipes of these log cost offsets from the budget, (n, G), (n,) -> (n,)."""
        return self._columns(log_shares, offset) @ self.mean

    def deviations(self, log_shares: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """Return a square root of the posterior covariance of the expected outcomes, (n, G), (n,) -> (n, f + p)."""
        return self._columns(log_shares, offset) @ self.root

    def uncertainty(self, log_shares: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """Return the posterior standard deviation of the expected outcome, (n, G), (n,) -> (n,)."""
        return np.asarray(np.linalg.norm(self.deviations(log_shares, offset), axis=1))

    def _columns(self, log_shares: FloatArray, offset: FloatArray | float) -> FloatArray:
        n = len(log_shares)
        features = _features(log_shares - self.centre, np.broadcast_to(offset, n), self.kappa)
        levels = np.zeros((n, self.mean.size - features.shape[1]))
        levels[:, 0] = 1.0
        return np.hstack([levels, features])


def _features(distance: FloatArray, offset: FloatArray, kappa: float) -> FloatArray:
    """Return the law's features, (n, G), (n,) -> (n, 2 G + 3) or with the pairwise products."""
    terms = [distance, distance**2, np.column_stack([distance.sum(axis=1), offset, offset**2])]
    if kappa > 0.0:
        i, j = np.triu_indices(distance.shape[1], 1)
        terms.append(kappa * distance[:, i] * distance[:, j])
    return np.hstack(terms)


def fit_law(
    shares: FloatArray,
    outcome: FloatArray,
    levels: FloatArray,
    offset: FloatArray | float = 0.0,
    kappas: Sequence[float] = (0.0,),
    runs: FloatArray | float = 1.0,
) -> Law:
    """Return the law of largest marginal likelihood over lambda and kappa."""
    # shares (n, G) log kept shares; outcome (n,), means over runs (n,); levels (n, f) unshrunk columns; offset (n,)
    n, groups = shares.shape
    centre, root_runs = shares.mean(axis=0), np.sqrt(np.broadcast_to(runs, n))
    free, y = levels * root_runs[:, None], outcome * root_runs
    df = n - levels.shape[1] + PRIOR_DF
    basis = np.linalg.qr(free)[0]
    scale = float(y @ y - ((basis.T @ y) ** 2).sum())
    prior = PRIOR_DF * PRIOR_SHARE * max(scale, 0.0) / df + 1e-12
    best: tuple[Ridge, float, FloatArray] | None = None
    for kappa in kappas if groups * (groups - 1) / 2 <= MOST_PAIRS else kappas[:1]:
        features = _features(shares - centre, np.broadcast_to(offset, n), kappa) * root_runs[:, None]
        found = Ridge.of(free, features, y, LAMBDAS, df, prior)
        if best is None or found.evidence > best[0].evidence:
            best = (found, kappa, features)
    assert best is not None
    ridge, kappa, x = best
    kept = 1.0 / (1.0 + ridge.ratio * ridge.spread**2)  # share of the prior variance that the data leave
    slopes = (ridge.ratio * ridge.spread * kept * ridge.along) @ ridge.axes
    root = np.sqrt(ridge.ratio) * (np.eye(x.shape[1]) + (ridge.axes.T * (np.sqrt(kept) - 1.0)) @ ridge.axes)
    inverse = np.linalg.inv(free.T @ free)
    tilt = inverse @ free.T @ x  # minus the derivative of the levels by the slopes
    level_root = np.linalg.cholesky(inverse)
    mean = np.r_[inverse @ (free.T @ y) - tilt @ slopes, slopes]
    fitted = np.hstack([free, x]) @ mean
    leverage = (basis**2).sum(axis=1) + (ridge.left**2 * (1.0 - kept)).sum(axis=1)
    own = np.maximum(1.0 - leverage, 0.01)
    return Law(
        centre, kappa, mean,
        root=np.sqrt(ridge.squares / df) * np.block([[level_root, -tilt @ root], [np.zeros_like(tilt.T), root]]),
        fitted=fitted / root_runs, left_out=(y - fitted) / own / root_runs, own=own,
    )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class WidthLaw:
    """What each group's width buys."""

    groups: tuple[str, ...]  # Dependency groups.
    labels: tuple[str, ...]  # Regimes that have a law, and "all" for the law over all of them.
    # One row per regime and group: `regime`, `group`, `points` (accuracy points that a 10 % wider group buys,
    # with `lower`, `upper`: 90 % equal-tailed interval), `macs_percent` (what those 10 % cost, in percent of
    # the original's MACs; NaN where the costs cannot be recovered from the table), `points_per_percent_macs`
    # with `per_macs_lower`, `per_macs_upper`.
    elasticities: pd.DataFrame
    # One row per regime: `regime`, `n_recipes`, `r2` (cross-validated share of the variance between single
    # trainings of the regime that the law predicts), `ceiling` (what is left after the seeds' own noise; NaN
    # without replicates) and `share_of_ceiling`.
    fit: pd.DataFrame

    def __repr__(self) -> str:
        best = self.fit.iloc[-1]
        return (
            f"<WidthLaw of {len(self.groups)} groups in {len(self.labels) - 1} regimes and over all; over all it "
            f"predicts {percent(best.r2, 0)} of the variance of single trainings"
            f"{'' if np.isnan(best.ceiling) else f' ({percent(best.share_of_ceiling, 0)} of the noise ceiling)'}>"
        )

    def _repr_html_(self) -> str:
        shown = self.elasticities[self.elasticities["regime"] == POOLED].drop(columns="regime")
        return html_of(repr(self)[1:-1], shown)


def width_law(
    population: Population,
    *,
    regime_axis: Axis = "macs",
    regimes: Sequence[float] | Mapping[float, float] | None = None,
) -> WidthLaw:
    """Fit the additive law in log-widths, per regime and over all regimes.

    Parameters
    ----------
    population : Population
        With widths.
    regime_axis, regimes
        As in `popstats.fit`.

    Returns
    -------
    WidthLaw

    Raises
    ------
    FitError
        If the table has no widths, or no regime has 20 recipes.

    Notes
    -----
    Where a regime is narrow, its recipes cost the same and their log-widths cannot all grow together: each
    elasticity is then partly the prior's, its interval says so, and the law over all regimes is the one to use.

    How to read it: `elasticities` has the accuracy points that a 10 % wider group buys and what they cost; width is best
    spent where `points_per_percent_macs` is largest. `fit` says how much of the variance the law predicts.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population("additive-widths", regimes=[0.6], n=120, rise=1.0)
    >>> law = popstats.width_law(population)
    >>> law.groups[:2], law.fit["r2"].round(1).tolist()
    (('conv1', 'conv2'), [1.0, 1.0])
    >>> bool((law.elasticities["points"] > 0).all())
    True
    """
    if population.widths is None:
        raise FitError(
            f"{population.name}: the table has no widths, which the width law needs; name the columns that hold "
            "them: Population.from_frame(..., widths=[...])"
        )
    prepared = prepared_recipes(population, regime_axis, regimes)
    recipes = prepared.at_average_technique
    widths = positive_widths(population.widths[prepared.first])
    sets = dict(zip(prepared.assigned.labels, prepared.members, strict=True))
    sets[POOLED] = np.sort(np.concatenate(prepared.members))
    sets = {label: rows for label, rows in sets.items() if len(rows) >= MINIMUM_RECIPES}
    if not sets:
        raise FitError(
            f"width law: no regime has {MINIMUM_RECIPES} recipes (the population has {len(recipes)} in all)"
        )
    parts = [_of_regime(population, recipes.iloc[rows], widths[rows]) for rows in sets.values()]
    tables = [part.assign(regime=label) for label, (part, _) in zip(sets, parts, strict=True)]
    fit = pd.DataFrame([{"regime": label, **row} for label, (_, row) in zip(sets, parts, strict=True)])
    return WidthLaw(population.group_names, tuple(sets), pd.concat(tables, ignore_index=True), fit)


def _of_regime(
    population: Population, recipes: pd.DataFrame, widths: FloatArray
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return elasticities by group, and how well the law predicts."""
    drop, runs = recipes["drop"].to_numpy(), recipes["runs"].to_numpy()
    shares = np.log(widths / original_widths(population))
    law = fit_law(shares, drop, np.ones((len(drop), 1)), runs=runs)
    within, df = recipes["within"].sum(), runs.sum() - runs.size
    total = float((runs * (drop - np.average(drop, weights=runs)) ** 2).sum() + within)
    r2, ceiling = np.nan, np.nan
    if total > 0:
        r2 = 1.0 - float((runs * law.left_out**2).sum() + within) / total
        ceiling = 1.0 - float(within / df * runs.sum()) / total if df > 0 else np.nan
    quality = {"n_recipes": len(drop), "r2": r2, "ceiling": ceiling}
    quality["share_of_ceiling"] = r2 / ceiling if ceiling > 0 else np.nan
    return _elasticities(law, population, widths), quality


def _elasticities(law: Law, population: Population, widths: FloatArray) -> pd.DataFrame:
    """Return what 10 % more of each group buys at the mean log-widths, and what it costs."""
    groups, n = law.centre.size, law.fitted.size
    # A group's own slope and the common one; the level is the first column.
    slope = np.zeros((groups, law.mean.size))
    slope[:, 1 : groups + 1] = np.eye(groups)
    slope[:, 2 * groups + 1] = 1.0
    points = -slope @ law.mean * np.log1p(WIDER)
    half = stats.t.ppf((1.0 + INTERVAL_MASS) / 2.0, n - 1.0 + PRIOR_DF) * np.log1p(WIDER)
    half = half * np.linalg.norm(slope @ law.root, axis=1)
    cost = np.full(groups, np.nan)
    if (macs := cost_form(population, "macs")) is not None:
        middle = np.exp(np.log(widths).mean(axis=0))
        cost = 100.0 * macs.log_width_slope(middle)[0] * np.log1p(WIDER) / population.original.macs
    lower, upper = points - half, points + half
    return pd.DataFrame({
        "group": population.group_names, "points": points, "lower": lower, "upper": upper, "macs_percent": cost,
        "points_per_percent_macs": points / cost, "per_macs_lower": lower / cost, "per_macs_upper": upper / cost,
    })  # fmt: skip
