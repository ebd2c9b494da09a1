"""How sensitive the results are to the priors: power scaling.

The priors of the hyperparameters, or the likelihood, are raised to a power near 1; draws are re-weighted instead of
refitting, and the change of each result is the cumulative Jensen-Shannon distance between its distributions.

References
----------
Kallioinen, Paananen, Buerkner and Vehtari (2023), doi:10.1007/s11222-023-10366-5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.findings import Finding, fact
from popstats.inference.draws import TAIL
from popstats.posterior.pointwise import sample_of, thinned, total_density
from popstats.words import sentences

if TYPE_CHECKING:
    from popstats.posterior.curves import FittedCurves

#: Powers on both sides of 1, as in Kallioinen et al.
POWERS = (0.8, 1.25)
#: A distance per doubling of the power above this is a noticeable sensitivity (their threshold; as much as moving
#: a normal distribution by about 0.3 standard deviations) ...
THRESHOLD = 0.05
#: ... and matters if median or interval move by this many posterior standard deviations between the two powers.
#: The distance alone is misled where draws pile up at an edge of the observed range: the pile changes its share
#: a little, the distribution function all along the range, and nothing that is reported moves.
MATTERS = 0.25
#: Draws that enter; where every row counts (student, exgaussian), fewer.
DRAWS, DRAWS_OF_ROWS = 2000, 500
#: Result by name: attribute of `OptimumDraws`, and what it is called.
_QUANTITIES = {
    "optimum": ("log_mcb", "optimum"),
    "near_lower": ("near_lower", "lower end of the near-optimal range"),
    "near_upper": ("near_upper", "upper end of the near-optimal range"),
    "limit": ("limit", "limit"),
}
_CHANGES = ["lower_change", "median_change", "upper_change"]


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How much each result changes when the priors, or the data, count for more or less."""

    # One row per fitted regime and result: regime; quantity ("optimum", "near_lower", "near_upper", "limit");
    # prior and likelihood (power-scaling sensitivity: distance per doubling of the power; above 0.05 is
    # noticeable; the data should matter, the priors should not); lower_change, median_change, upper_change
    # (median and ends of the 90 % interval with the priors to the power 1.25 minus those with 0.8, in posterior
    # standard deviations); diagnosis ("", "prior-data conflict" where priors and data matter, "weak data" where
    # only the priors do; priors matter if noticeable and one of the changes exceeds 0.25).
    frame: pd.DataFrame

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """One finding per regime with results that lean on the priors."""
        found = []
        for regime, rows in self.frame[self.frame["diagnosis"] != ""].groupby("regime", sort=False):
            weak = bool((rows["diagnosis"] == "weak data").any())
            why = "the data say little" if weak else "priors and data disagree"
            results = tuple(_QUANTITIES[name][1] for name in rows["quantity"])
            shifts = {"sensitivity": rows["prior"].max(), "moved": rows[_CHANGES].abs().to_numpy().max()}
            found.append(fact("leans on priors", str(regime), results=results, why=why, **shifts))
        return tuple(found)

    @cached_property
    def sentence(self) -> str:
        """What may be concluded."""
        robust = fact("robust to priors", moved=float(self.frame["median_change"].abs().max()))
        return " ".join(sentences(self.findings or (robust,))) if len(self.frame) else ""


def power_scale(fit: FittedCurves) -> Sensitivity:
    """Measure how much optimum, near-optimal range and limit of each regime lean on the priors."""
    # A local measure: a prior so strong that the data cannot move it at all does not move by being scaled either.
    picked = thinned(fit, DRAWS if fit.settings.noise == "normal" else DRAWS_OF_ROWS)
    prior = power_weights(log_prior(fit, picked)) if fit.fitted else []
    rows = []
    for k, mine in enumerate(fit.rows):
        data = power_weights(total_density(mine, sample_of(fit, k, picked)))
        for name, (attribute, _) in _QUANTITIES.items():
            values = getattr(fit.optimum_draws[k], attribute)[picked]
            rows.append({"regime": mine.regime.label, "quantity": name, **_measure(values, prior, data)})
    columns = ["regime", "quantity", "prior", "likelihood", *_CHANGES, "diagnosis"]
    return Sensitivity(pd.DataFrame(rows, columns=columns))


def log_prior(fit: FittedCurves, picked: npt.NDArray[np.intp]) -> FloatArray:
    """Return the joint log prior density of the parameters that were sampled at the picked draws, shape (S,)."""
    priors, hyper = fit.prior_settings, fit.draws.hyper(slice(None), picked)
    if hyper.shape is None:
        return priors.log_density(hyper)
    return priors.log_density(hyper) + priors.log_shape_density(fit.settings.noise, hyper.shape).sum(axis=1)


def power_weights(log_density: FloatArray) -> list[FloatArray]:
    """Return weights of the draws for a density to each of the two powers, each summing to 1."""
    from arviz_stats.base import array_stats

    logs = [array_stats.power_scale_lw(log_density, alpha=power) for power in POWERS]
    weights = [np.exp(log - log.max()) for log in logs]
    return [weight / weight.sum() for weight in weights]


def _measure(values: FloatArray, prior: list[FloatArray], data: list[FloatArray]) -> dict[str, Any]:
    from arviz_stats.base import array_stats

    spread, order = float(values.std()), values.argsort()
    if np.ptp(values) == 0.0:
        return {"prior": 0.0, "likelihood": 0.0, **dict.fromkeys(_CHANGES, 0.0), "diagnosis": ""}
    by_prior, by_data = (
        float(array_stats.power_scale_sense(values[None], low[None], high[None], *POWERS))
        for low, high in (prior, data)
    )
    sums = (np.cumsum(w[order]) - 0.5 * w[order] for w in prior)
    low, high = (np.interp([TAIL, 0.5, 1.0 - TAIL], share, values[order]) for share in sums)
    change = (high - low) / spread
    leans = by_prior >= THRESHOLD and float(np.abs(change).max()) >= MATTERS
    conflict = "prior-data conflict" if by_data >= THRESHOLD else "weak data"
    return {
        "prior": by_prior,
        "likelihood": by_data,
        **dict(zip(_CHANGES, change.tolist(), strict=True)),
        "diagnosis": conflict if leans else "",
    }
