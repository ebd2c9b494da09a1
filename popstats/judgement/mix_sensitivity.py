"""How much the optimum depends on the mix of recipes it was read from.

Intervals treat recipes as exchangeable draws from the recorded recipes. Another mix, with one group kept
wider or narrower, moves the optimum more than the interval says; this is by how much.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.inference.cost_form import first_rows
from popstats.inference.cross_products import prepare_regimes, recipe_table
from popstats.inference.draws import curve_in_points
from popstats.inference.exact import draw_regime
from popstats.inference.fit import Fit
from popstats.inference.optimum import GRID_SIZE
from popstats.spaces import Regimes, assign_regimes

__all__ = ["MixSensitivity", "mean_optimum", "mix_sensitivity"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Share of recipes left out: one group's narrowest, or widest, quarter.
QUARTER = 0.25
#: Draws behind a mean curve.
_DRAWS = 100


@dataclass(frozen=True, eq=False)
class MixSensitivity:
    """Where the optimum goes when the mix of recipes changes.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row a regime, group and side: `regime`, `group`, `left_out` ("narrowest" or "widest" quarter), `mcb`.
    ranges : pandas.DataFrame
        One row a regime: `regime`, `mcb` (all recipes), `lower`, `upper` (over all the mixes).
    """

    frame: pd.DataFrame
    ranges: pd.DataFrame


def mix_sensitivity(fit: Fit, regimes: Collection[str] | None = None) -> MixSensitivity | None:
    """Refit each regime with one group's narrowest, or widest, quarter left out; None without widths.

    The optima are those of posterior mean curves (method "exact"), inside the observed range that is left.

    Parameters
    ----------
    fit : Fit
    regimes : collection of str, optional
        Labels of the regimes to refit; default all.
    """
    population, settings = fit.population, fit.settings
    if population.widths is None:
        return None
    assigned = assign_regimes(population.frame, settings.regime_axis, settings.regimes)
    # Means of recipes are all a mean curve needs; without replicates there is no seed share to integrate out.
    recipes = recipe_table(population, assigned).assign(runs=1.0, within=0.0)
    widths = population.widths[first_rows(population)]
    rows, ranges = [], []
    for k, regime in enumerate(fit.regimes):
        if regimes is not None and regime.label not in regimes:
            continue
        members = np.flatnonzero(recipes["regime"].to_numpy() == k)
        whole = mean_optimum(fit, recipes.iloc[members], assigned) if regime.fitted else None
        if whole is None:
            continue
        mixes = list(_mixes(fit, recipes.iloc[members], widths[members], assigned))
        rows += [(regime.label, *mix) for mix in mixes]
        optima = [mix[2] for mix in mixes] + [whole]
        ranges.append((regime.label, np.exp(whole), np.exp(min(optima)), np.exp(max(optima))))
    frame = pd.DataFrame(rows, columns=["regime", "group", "left_out", "mcb"])
    return MixSensitivity(
        frame.assign(mcb=np.exp(frame["mcb"].to_numpy(dtype=np.float64))),
        pd.DataFrame(ranges, columns=["regime", "mcb", "lower", "upper"]),
    )


def _mixes(
    fit: Fit, recipes: pd.DataFrame, widths: FloatArray, assigned: Regimes
) -> Iterator[tuple[str, str, float]]:
    for g, group in enumerate(fit.population.group_names):
        low, high = np.quantile(widths[:, g], [QUARTER, 1.0 - QUARTER])
        for name, keep in (("narrowest", widths[:, g] > low), ("widest", widths[:, g] < high)):
            optimum = mean_optimum(fit, recipes[keep], assigned)
            if optimum is not None:
                yield group, name, optimum


def mean_optimum(fit: Fit, recipes: pd.DataFrame, assigned: Regimes) -> float | None:
    """Return the argmin of the posterior mean curve through one regime's recipes, log mCB; None if too few.

    Parameters
    ----------
    fit : Fit
        Whose priors and seed are used.
    recipes : pandas.DataFrame
        Rows of `recipe_table` that belong to one regime.
    """
    if recipes.empty:
        return None
    k = int(recipes["regime"].iloc[0])
    alone = Regimes(assigned.axis, assigned.targets[[k]], np.zeros(0, dtype=np.int64), assigned.source)
    (data,) = prepare_regimes(recipes.assign(regime=0), alone)
    if not data.fitted:
        return None
    grid = data.curve_scale.grid(GRID_SIZE)
    rng = np.random.default_rng([fit.settings.seed, 51])
    drawn = draw_regime(data, fit.prior_settings, _DRAWS, rng)
    return float(grid[curve_in_points(data, drawn.coefficients, grid).mean(axis=0).argmin()])
