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
from popstats.inference.cross_products import recipe_table
from popstats.inference.curves import KEPT_RANGE
from popstats.inference.fit import Fit
from popstats.inference.pointwise import fitted_points
from popstats.judgement.mean_curve import MeanCurve
from popstats.spaces import assign_regimes

__all__ = ["MixSensitivity", "mix_sensitivity"]

FloatArray = npt.NDArray[np.float64]

#: Share of recipes left out: one group's narrowest, or widest, quarter.
QUARTER = 0.25


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

    The optima are those of mean curves under the fit's own noise (`MeanCurve`), where the recipes that are left
    were observed.

    Parameters
    ----------
    fit : Fit
    regimes : collection of str, optional
        Labels of the regimes to refit; default all.
    """
    population = fit.population
    if population.widths is None:
        return None
    chosen = [k for k, r in enumerate(fit.fitted) if regimes is None or r.label in regimes]
    widths, points = population.widths[first_rows(population)], fitted_points(fit)
    members = _members(fit)
    rows: list[tuple[str, str, str, float]] = []
    ranges: list[tuple[str, float, float, float]] = []
    for k in chosen:
        label, curve = fit.fitted[k].label, MeanCurve.of(fit, k, points[k])
        whole = curve.optimum(np.ones(members[label].size, dtype=bool))
        if whole is None:
            continue
        mixes = list(_mixes(curve, widths[members[label]], population.group_names))
        rows += [(label, *mix) for mix in mixes]
        optima = [mix[2] for mix in mixes] + [whole]
        ranges.append((label, np.exp(whole), np.exp(min(optima)), np.exp(max(optima))))
    frame = pd.DataFrame(rows, columns=["regime", "group", "left_out", "mcb"])
    return MixSensitivity(
        frame.assign(mcb=np.exp(frame["mcb"].to_numpy(dtype=np.float64))),
        pd.DataFrame(ranges, columns=["regime", "mcb", "lower", "upper"]),
    )


def _members(fit: Fit) -> dict[str, npt.NDArray[np.int64]]:
    """Return the numbers of the recipes in each regime's fit, in the order of `fitted_points`."""
    assigned = assign_regimes(fit.population.frame, fit.regime_axis, fit.settings.regimes)
    recipes = recipe_table(fit.population, assigned)
    member, log_mcb = recipes["regime"].to_numpy(), recipes["log_mcb"].to_numpy()
    found = {}
    for k, regime in enumerate(fit.regimes):
        near = np.abs(regime.curve_scale.to_unit(log_mcb)) <= KEPT_RANGE if regime.fitted else False
        found[regime.label] = np.flatnonzero((member == k) & near)
    return found


def _mixes(curve: MeanCurve, widths: FloatArray, groups: tuple[str, ...]) -> Iterator[tuple[str, str, float]]:
    for g, group in enumerate(groups):
        low, high = np.quantile(widths[:, g], [QUARTER, 1.0 - QUARTER])
        for name, keep in (("narrowest", widths[:, g] > low), ("widest", widths[:, g] < high)):
            optimum = curve.optimum(keep)
            if optimum is not None:
                yield group, name, optimum
