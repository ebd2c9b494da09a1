"""Whether the width of the parameter bucket changes the answer.

The models use exact parameter counts; the paper rounds them to buckets. The optimum is refitted with the mCB
of rounded counts, so that a reader sees that the verdict does not hang on the rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from popstats.inference.cost_form import first_rows
from popstats.inference.cross_products import RegimeData, prepare_regimes, recipe_table
from popstats.inference.draws import curve_in_points
from popstats.inference.exact import draw_regime
from popstats.inference.fit import Fit
from popstats.inference.optimum import GRID_SIZE, interval, read_optimum
from popstats.inference.variance import precision_weights
from popstats.judgement.case import decide_optimum
from popstats.judgement.readings import curve_height, has_optimum
from popstats.judgement.verdicts import Thresholds
from popstats.spaces import assign_regimes, mean_computation_budget

__all__ = ["BUCKET_WIDTHS", "bucket_sensitivity"]

#: None: the exact count; then shares of the original's parameters, the paper's rounding among them.
BUCKET_WIDTHS: tuple[float | None, ...] = (None, 0.01, 0.02, 0.05)
_DRAWS = 1000


def bucket_sensitivity(
    fit: Fit, widths: Sequence[float | None] = BUCKET_WIDTHS, thresholds: Thresholds | None = None
) -> pd.DataFrame:
    """Judge C3a (and with it C1) for several widths of the parameter bucket, by the exact method.

    Parameters
    ----------
    fit : Fit
        Its population, regimes and priors are used.
    widths : sequence of float or None
        Bucket widths as shares of the original's parameters; None is the exact count.
    thresholds : Thresholds, optional

    Returns
    -------
    pandas.DataFrame
        One row a width and regime: `bucket_width` (NaN: exact), `regime`, `outcome`, `probability`, `mcb`,
        `mcb_lower`, `mcb_upper` (90 %). Regimes that cannot be fitted are left out.
    """
    limits = thresholds or Thresholds()
    priors = _prior_probabilities(fit, limits)
    rows = [row for width in widths for row in _one_width(fit, width, limits, priors)]
    columns = ["bucket_width", "regime", "outcome", "probability", "mcb", "mcb_lower", "mcb_upper"]
    return pd.DataFrame(rows, columns=columns)


def _prior_probabilities(fit: Fit, limits: Thresholds) -> dict[str, float]:
    """Return C3a's probability before the data by regime: buckets move networks, not the prior."""
    read = (read_optimum(grid, fit.prior_drop[:, k], limits.near) for k, grid in enumerate(fit.grid))
    shares = (float(has_optimum(optimum, limits.rise).mean()) for optimum in read)
    return dict(zip((r.label for r in fit.fitted), shares, strict=True))


def _one_width(
    fit: Fit, width: float | None, limits: Thresholds, priors: dict[str, float]
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for k, regime in enumerate(_bucketed_regimes(fit, width)):
        if not regime.fitted or regime.label not in priors:
            continue
        grid = regime.curve_scale.grid(GRID_SIZE)
        rng = np.random.default_rng([fit.settings.seed, k, 61])
        drawn = draw_regime(regime, fit.prior_settings, _DRAWS, rng)
        drop = curve_in_points(regime, drawn.coefficients, grid)
        optimum = read_optimum(grid, drop, limits.near)
        outcome, probability = decide_optimum(optimum, curve_height(drop), priors[regime.label], limits)
        low, high = np.exp(interval(optimum.log_mcb))
        at = np.nan if width is None else width
        middle = float(np.exp(np.median(optimum.log_mcb)))
        rows.append((at, regime.label, outcome, probability, middle, float(low), float(high)))
    return rows


def _bucketed_regimes(fit: Fit, width: float | None) -> tuple[RegimeData, ...]:
    """Return the fit's regimes with mCB from rounded counts; all else, the weights included, as in the fit."""
    population, settings = fit.population, fit.settings
    assigned = assign_regimes(population.frame, settings.regime_axis, settings.regimes)
    table, whole, first = population.table, population.original, first_rows(population)
    mcb = mean_computation_budget(
        table["macs"].to_numpy()[first],
        table["params"].to_numpy()[first],
        whole.macs,
        whole.params,
        bucket_width=width,
    )
    recipes = recipe_table(population, assigned)
    members, weights = recipes["regime"].to_numpy(), np.ones(len(recipes))
    for k, (regime, change) in enumerate(zip(fit.regimes, fit.spread_changes, strict=True)):
        if change is not None:
            weights[members == k] = precision_weights(recipes[members == k], regime, change)
    return prepare_regimes(recipes.assign(log_mcb=np.log(mcb)), assigned, weights)
