"""Whether the spread about the curve changes over the range, and the weights that allow for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from popstats.arrays import FloatArray
from popstats.inference.data import RegimeDesign, RegimeRows, prepare_regimes, prepared_regimes, regime_rows
from popstats.inference.exact import draw_regime
from popstats.inference.model import KEPT_RANGE, Priors
from popstats.population.recipes import Recipes
from popstats.population.table import Population

#: From this ratio of residual standard deviations between the ends of the observed range on, rows are weighted.
SPREAD_CHANGE = 1.5
#: ... if the change is also this many standard errors away from none.
SIGNIFICANCE = 2.5
#: Draws that the weights for a changing spread are estimated with, before the fit proper, and the most recipes per regime.
_PILOT_DRAWS, _PILOT_RECIPES = 200, 10_000
# Mean and standard deviation of the log of a chi-square variable with one degree of freedom.
_LOG_CHI2_MEAN, _LOG_CHI2_SD = -1.2704, 2.2214
# Residuals are cut off here (in units of the regime's scale): a single one of 0 must not decide the slope.
_SMALLEST = 1e-3


@dataclass(frozen=True)
class SpreadChange:
    """How the residual spread changes over one regime's observed range."""

    slope: float  # Change of the log standard deviation per half-range of log mCB.
    standard_error: float  # Of the slope.

    @property
    def ratio(self) -> float:
        """Larger over smaller residual standard deviation at the ends of the observed range."""
        return float(np.exp(2.0 * abs(self.slope)))

    @property
    def matters(self) -> bool:
        """Whether rows should be weighted."""
        return self.ratio > SPREAD_CHANGE and abs(self.slope) > SIGNIFICANCE * self.standard_error

    def precision(self, log_mcb: FloatArray, regime: RegimeDesign) -> FloatArray:
        """Return the relative precision of recipes at log mCB, shape (n,)."""
        unit = np.clip(regime.curve_scale.to_unit(log_mcb), -KEPT_RANGE, KEPT_RANGE)
        return np.asarray(np.exp(-2.0 * self.slope * unit))


#: How the spread changes in each regime of a fit; not at all in those that are not fitted.
Changes = tuple[SpreadChange, ...]


def estimate_spread_change(rows: RegimeRows, priors: Priors, rng: np.random.Generator) -> SpreadChange:
    """Regress a regime's log squared residuals about a pilot fit on u (Harvey 1976, doi:10.2307/1913974)."""
    pilot = draw_regime(rows.regime, priors, _PILOT_DRAWS, rng).flat_coefficients[:, 0].mean(axis=0)
    residual = rows.drop - np.einsum("ij,j", rows.design, pilot)
    squared = np.log(np.maximum(residual**2, _SMALLEST**2)) - _LOG_CHI2_MEAN
    u = rows.unit - rows.unit.mean()
    total = float((u**2).sum())
    return SpreadChange(float((u * squared).sum()) / total / 2.0, _LOG_CHI2_SD / np.sqrt(total) / 2.0)


def _weights(recipes: Recipes, designs: Sequence[RegimeDesign], changes: Changes) -> FloatArray:
    """Return each recipe's relative precision, mean 1 over its regime; all ones where the change is small."""
    weights, log_mcb = np.ones(len(recipes.table)), recipes.table["log_mcb"].to_numpy()
    for design, mine, change in zip(designs, recipes.members, changes, strict=True):
        if change.matters:
            precision = change.precision(log_mcb[mine], design)
            weights[mine] = precision / precision.mean()
    return weights


def weighted_rows(
    recipes: Recipes, designs: Sequence[RegimeDesign], changes: Changes
) -> Iterator[RegimeRows]:
    """Yield the recipes in the fit of each fitted regime."""
    table = recipes.table.assign(weight=_weights(recipes, designs, changes))
    for design, mine in zip(designs, recipes.members, strict=True):
        if design.fitted:
            yield regime_rows(table.iloc[mine], design)


def weighted_regimes(
    population: Population, recipes: Recipes, priors: Priors, seed: int
) -> tuple[tuple[RegimeDesign, ...], Changes]:
    """Weight the recipes of regimes where the spread about a pilot fit changes over the range."""
    data, found = prepared_regimes(population, recipes), []
    for k, (regime, mine) in enumerate(zip(data, recipes.members, strict=True)):
        change = SpreadChange(0.0, np.inf)
        if regime.fitted:
            # Thinned where there are more: the slope is then known to 0.02, a tenth of the smallest that matters.
            some = recipes.table.iloc[mine[:: max(1, mine.size // _PILOT_RECIPES)]]
            rng = np.random.default_rng([seed, k, 1])
            change = estimate_spread_change(regime_rows(some, regime), priors, rng)
        found.append(change)
    changes = tuple(found)
    if any(c.matters for c in changes):
        data = prepare_regimes(recipes, _weights(recipes, data, changes))
    return data, changes
