"""Whether the width of the parameter bucket changes the answer.

The models use exact parameter counts; the paper rounds them to buckets. The optimum is refitted with the mCB
of rounded counts, so that a reader sees that the verdict does not hang on the rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from popstats.inference.cost_form import first_rows
from popstats.inference.cross_products import recipe_table
from popstats.inference.draws import curve_in_points, prior_curves
from popstats.inference.exact import draw_regime
from popstats.inference.fit import Fit, weighted_regimes
from popstats.inference.optimum import GRID_SIZE, interval, read_optimum
from popstats.judgement.readings import has_optimum
from popstats.judgement.verdicts import Thresholds, decide
from popstats.spaces import assign_regimes, mean_computation_budget

__all__ = ["BUCKET_WIDTHS", "bucket_sensitivity"]

#: None: the exact count; then shares of the original's parameters, the paper's rounding among them.
BUCKET_WIDTHS: tuple[float | None, ...] = (None, 0.01, 0.02, 0.05)
_DRAWS = 400


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
    rows = [row for width in widths for row in _one_width(fit, width, thresholds or Thresholds())]
    columns = ["bucket_width", "regime", "outcome", "probability", "mcb", "mcb_lower", "mcb_upper"]
    return pd.DataFrame(rows, columns=columns)


def _one_width(fit: Fit, width: float | None, limits: Thresholds) -> list[tuple[object, ...]]:
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
    recipes = recipe_table(population, assigned).assign(log_mcb=np.log(mcb))
    rows: list[tuple[object, ...]] = []
    for k, regime in enumerate(weighted_regimes(recipes, assigned, fit.prior_settings, settings.seed)[0]):
        if not regime.fitted:
            continue
        grid = regime.curve_scale.grid(GRID_SIZE)
        drawn = draw_regime(regime, fit.prior_settings, _DRAWS, np.random.default_rng([settings.seed, k, 61]))
        optimum = read_optimum(grid, curve_in_points(regime, drawn.coefficients, grid), limits.near)
        prior = read_optimum(grid, prior_curves(regime, fit.prior_settings, grid, settings.seed), limits.near)
        probability = float(has_optimum(optimum, limits.rise).mean())
        outcome = decide(probability, float(has_optimum(prior, limits.rise).mean()), False, limits)
        low, high = np.exp(interval(optimum.log_mcb))
        at = np.nan if width is None else width
        middle = float(np.exp(np.median(optimum.log_mcb)))
        rows.append((at, regime.label, outcome, probability, middle, float(low), float(high)))
    return rows
