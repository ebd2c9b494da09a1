r"""The additive width law: the accuracy drop as a sum of one curve per dependency group, in its log-width.

.. math:: \mathrm{drop}_i = \alpha + \sum_g b_g (\ell_{ig} - \bar\ell_g) + q_g (\ell_{ig} - \bar\ell_g)^2 + e_i,
          \qquad \ell_{ig} = \log(w_{ig} / w_g^{\mathrm{original}})

per pruning regime and over all regimes together. The quadratic term is the diminishing return: without it a
group could be widened for ever at the same gain. An elasticity, -b_g, is the accuracy that a wider group buys
on average over the recipes it was fitted to.

Slopes are a part common to all groups and each group's own, both shrunk: where recipes cost the same, the groups'
widths never grow together, so the data leave out just what the groups have in common. Shrunk one by one, slopes of one
sign come out too small. Of 60 simulated regimes of 100 recipes at half of the MACs, 90 % intervals of such slopes held
the truth in 69 %, with the common part in 96 %; with one slope alone in 89 and 92 %, with slopes of either sign in
94 and 91 %.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.inference.draws import interval
from popstats.inference.model import require_seed
from popstats.inference.regression import (
    Ridge,
    assign_folds,
    fit_ridge,
    held_out_losses,
    log_width_terms,
    weighted_cross_products,
)
from popstats.planning.recovered_costs import CostForm, cost_form
from popstats.population.recipes import original_widths, positive_widths, prepared_recipes
from popstats.population.regimes import Axis, Regimes
from popstats.population.table import Population

#: Label of the law over all regimes together.
POOLED = "all"


#: Elasticities are given for a group that is wider by this share.
WIDER = 0.10


#: A regime with fewer recipes than this has no law.
MINIMUM_RECIPES = 20


_DRAWS = 2000


def _law_columns(log_shares: FloatArray, centre: FloatArray) -> FloatArray:
    """Return level, distances from the centre, their squares and sum, (n, G) -> (n, 2 + 2 G)."""
    terms = log_width_terms(log_shares, centre)
    return np.column_stack([np.ones(len(terms)), terms, terms[:, : centre.size].sum(axis=1)])


@dataclass(frozen=True)
class _Law:
    """The law of one regime: where it is centred, its posterior, and how well it predicts."""

    label: str
    n_recipes: int
    widths: FloatArray
    centre: FloatArray  # (G,); Mean log kept share of each group.
    posterior: Ridge  # Of level, own slopes, bends and common slope.
    r2: float
    ceiling: float

    def slopes(self, coefficients: FloatArray) -> FloatArray:
        """Return each group's slope, own and common part together, (..., 2 + 2 G) -> (..., G)."""
        return np.asarray(coefficients[..., 1 : self.centre.size + 1] + coefficients[..., -1:])


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
    full_widths: FloatArray
    macs: CostForm | None
    seed: int
    _laws: Mapping[str, _Law]

    def predict(self, widths: npt.ArrayLike, regime: str = POOLED) -> pd.DataFrame:
        """Predict the accuracy drop of any recipes."""
        # widths (n, G)
        law = self._law(regime)
        columns = self._columns(law, widths)
        drawn, sigma = law.posterior.draw(_DRAWS, np.random.default_rng(self.seed))
        expected = columns @ drawn.T
        single = expected + sigma * np.random.default_rng(self.seed + 1).standard_normal(expected.shape)
        low, high = interval(expected.T)
        single_low, single_high = interval(single.T)
        return pd.DataFrame(
            {
                "drop": columns @ law.posterior.mean,
                "lower": low,
                "upper": high,
                "recipe_lower": single_low,
                "recipe_upper": single_high,
            }
        )

    def _law(self, regime: str) -> _Law:
        if regime not in self._laws:
            raise FitError(f"width law: no regime {regime!r}; there are: {', '.join(self.labels)}")
        return self._laws[regime]

    def _columns(self, law: _Law, widths: npt.ArrayLike) -> FloatArray:
        given = np.atleast_2d(np.asarray(widths, dtype=np.float64))
        if given.shape[1] != len(self.groups):
            raise FitError(f"width law: expected {len(self.groups)} widths per recipe, got {given.shape[1]}")
        if (given <= 0).any():
            raise FitError("width law: expected positive widths (every group keeps at least one channel)")
        return _law_columns(np.log(given / self.full_widths), law.centre)

    def __repr__(self) -> str:
        best = self.fit.iloc[-1]
        return (
            f"<WidthLaw of {len(self.groups)} groups in {len(self.labels) - 1} regimes and over all; over all it "
            f"predicts {best.r2:.0%} of the variance of single trainings"
            f"{'' if np.isnan(best.ceiling) else f' ({best.share_of_ceiling:.0%} of the noise ceiling)'}>"
        )

    def _repr_html_(self) -> str:
        shown = self.elasticities[self.elasticities["regime"] == POOLED].drop(columns="regime")
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{shown.to_html(index=False, float_format=lambda v: f'{v:.3g}')}"


def known_widths(population: Population) -> FloatArray:
    """Return the widths of every row, shape (n, G)."""
    if population.widths is None:
        raise FitError(
            f"{population.name}: the table has no widths, which the width law needs; name the columns that hold "
            "them: Population.from_frame(..., widths=[...])"
        )
    return population.widths


def width_law(
    population: Population,
    *,
    regime_axis: Axis = "macs",
    regimes: Sequence[float] | Mapping[float, float] | None = None,
    seed: int = 0,
) -> WidthLaw:
    """Fit the additive law in log-widths, per regime and over all regimes.

    Parameters
    ----------
    population : Population
        With widths.
    regime_axis, regimes
        As in `popstats.fit`.
    seed : int
        Of the folds and of the draws behind the intervals.

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
    require_seed(seed, "width_law")
    every = known_widths(population)
    full = original_widths(population)
    prepared = prepared_recipes(population, regime_axis, regimes)
    recipes, assigned = prepared.at_average_technique, prepared.assigned
    widths = positive_widths(every[prepared.first])
    laws = _all_laws(recipes, np.log(widths / full), widths, assigned, seed)
    macs = cost_form(population, "macs")
    tables = [_elasticities(law, population, macs, seed) for law in laws]
    return WidthLaw(
        groups=population.group_names,
        labels=tuple(law.label for law in laws),
        elasticities=pd.concat(tables, ignore_index=True),
        fit=pd.DataFrame([_fit_row(law) for law in laws]),
        full_widths=full,
        macs=macs,
        seed=seed,
        _laws={law.label: law for law in laws},
    )


def _all_laws(
    recipes: pd.DataFrame, log_widths: FloatArray, widths: FloatArray, assigned: Regimes, seed: int
) -> list[_Law]:
    member = recipes["regime"].to_numpy()
    sets = [(label, member == k) for k, label in enumerate(assigned.labels)] + [(POOLED, member >= 0)]
    laws = [
        _one_law(label, recipes[keep], log_widths[keep], widths[keep], seed)
        for label, keep in sets
        if keep.sum() >= MINIMUM_RECIPES
    ]
    if not laws:
        raise FitError(
            f"width law: no regime has {MINIMUM_RECIPES} recipes (the population has {len(recipes)} in all)"
        )
    return laws


def _one_law(
    label: str, recipes: pd.DataFrame, log_widths: FloatArray, widths: FloatArray, seed: int
) -> _Law:
    drop, runs = recipes["drop"].to_numpy(), recipes["runs"].to_numpy()
    centre = log_widths.mean(axis=0)
    columns = _law_columns(log_widths, centre)
    losses = held_out_losses(columns, drop, runs, assign_folds(len(recipes), seed), free=1)
    within, df = recipes["within"].sum(), runs.sum() - runs.size
    total = float((runs * (drop - np.average(drop, weights=runs)) ** 2).sum() + within)
    noise = float(within / df * runs.sum()) if df > 0 else float("nan")
    return _Law(
        label=label,
        n_recipes=len(recipes),
        widths=np.exp(np.log(widths).mean(axis=0)),
        centre=centre,
        posterior=fit_ridge(weighted_cross_products(columns, drop, runs), len(drop), free=1),
        r2=1.0 - float((runs * losses).sum() + within) / total if total > 0 else float("nan"),
        ceiling=1.0 - noise / total if total > 0 else float("nan"),
    )


def _fit_row(law: _Law) -> dict[str, object]:
    return {
        "regime": law.label,
        "n_recipes": law.n_recipes,
        "r2": law.r2,
        "ceiling": law.ceiling,
        "share_of_ceiling": law.r2 / law.ceiling if law.ceiling > 0 else float("nan"),
    }


def _elasticities(law: _Law, population: Population, macs: CostForm | None, seed: int) -> pd.DataFrame:
    drawn, _ = law.posterior.draw(_DRAWS, np.random.default_rng(seed))
    lower, upper = interval(-law.slopes(drawn) * np.log1p(WIDER))
    points = -law.slopes(law.posterior.mean) * np.log1p(WIDER)
    cost = _cost_of_wider(law, population, macs)
    return pd.DataFrame(
        {
            "regime": law.label,
            "group": population.group_names,
            "points": points,
            "lower": lower,
            "upper": upper,
            "macs_percent": cost,
            "points_per_percent_macs": points / cost,
            "per_macs_lower": lower / cost,
            "per_macs_upper": upper / cost,
        }
    )


def _cost_of_wider(law: _Law, population: Population, macs: CostForm | None) -> FloatArray:
    if macs is None:
        return np.full(law.centre.size, np.nan)
    slope = macs.log_width_slope(law.widths)[0] * np.log1p(WIDER)
    return np.asarray(100.0 * slope / population.original.macs)
