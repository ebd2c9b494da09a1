r"""How sensitive the results are to the priors: power scaling.

The priors of the hyperparameters, or the likelihood, are raised to a power alpha near 1; draws are re-weighted
by :math:`p^{\alpha - 1}` instead of refitting (weights near 1: nothing is extrapolated), and the change of each
result is measured by the cumulative Jensen-Shannon distance between its distributions.

References
----------
Kallioinen, Paananen, Buerkner and Vehtari (2023), doi:10.1007/s11222-023-10366-5.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.inference.draws import TAIL
from popstats.inference.exact import log_likelihood
from popstats.inference.model import Hyper
from popstats.posterior.pointwise import fitted_points, sample_of, smooth_log_weights, thinned

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
#: Result by name: attribute of `OptimumDraws`, how it is called.
_QUANTITIES = {
    "optimum": ("log_mcb", "optimum"),
    "near_lower": ("near_lower", "lower end of the near-optimal range"),
    "near_upper": ("near_upper", "upper end of the near-optimal range"),
    "limit": ("limit", "limit"),
}
_COLUMNS = [
    "regime", "quantity", "prior", "likelihood", "median_change", "lower_change", "upper_change", "diagnosis",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How much each result changes when the priors, or the data, count for more or less."""

    # One row a fitted regime and result: regime; quantity ("optimum", "near_lower", "near_upper", "limit");
    # prior and likelihood (power-scaling sensitivity: distance per doubling of the power; above 0.05 is
    # noticeable; the data should matter, the priors should not); median_change, lower_change, upper_change
    # (median and ends of the 90 % interval with the priors to the power 1.25 minus those with 0.8, in posterior
    # standard deviations); diagnosis ("", "prior-data conflict" where priors and data matter, "weak data" where
    # only the priors do; priors matter if noticeable and one of the changes exceeds 0.25).
    frame: pd.DataFrame
    alerts: tuple[str, ...]  # One sentence for each regime with a diagnosis.

    @property
    def ok(self) -> bool:
        """Whether no result leans noticeably on the priors."""
        return not self.alerts

    @cached_property
    def sentence(self) -> str:
        """What may be concluded."""
        if self.alerts:
            return " ".join(self.alerts)
        if self.frame.empty:
            return "No regime was fitted."
        largest = float(self.frame["median_change"].abs().max())
        return (
            "No optimum, near-optimal range or limit leans on the priors: between the priors to the power "
            f"{POWERS[0]:g} and {POWERS[1]:g} no median moves by more than {largest:.2f} standard deviations."
        )

    def __repr__(self) -> str:
        return f"<Sensitivity: {self.sentence}>"

    def _repr_html_(self) -> str:
        table = self.frame.to_html(index=False, float_format=lambda v: f"{v:.3g}")
        return f"<p>{html.escape(self.sentence)}</p>{table}"


def power_scale(fit: FittedCurves) -> Sensitivity:
    """Measure how much optimum, near-optimal range and limit of each regime lean on the priors.

    This is a local measure: a prior so strong that the data cannot move it at all does not move by being scaled
    either, and goes unnoticed. `fit.priors` shows what was assumed.
    """
    if not fit.fitted:
        return Sensitivity(pd.DataFrame(columns=_COLUMNS), ())
    rows_matter = fit.settings.noise != "normal"
    picked = thinned(fit, DRAWS_OF_ROWS if rows_matter else DRAWS)
    density, rows = log_prior(fit, picked), []
    points = fitted_points(fit) if rows_matter else ()
    for k, regime in enumerate(fit.fitted):
        sample = sample_of(fit, k, picked)
        if rows_matter:
            likelihood = np.sum([d.sum(axis=0) for _, d in sample.log_density(points[k])], axis=0)
        else:
            likelihood = log_likelihood(regime, sample.hyper, sample.coefficients)
        for name, (attribute, _) in _QUANTITIES.items():
            values = getattr(fit.optimum_draws[k], attribute)[picked]
            rows.append({"regime": regime.label, "quantity": name, **_measure(values, density, likelihood)})
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    return Sensitivity(frame, tuple(_alerts(frame)))


def log_prior(fit: FittedCurves, picked: npt.NDArray[np.intp]) -> FloatArray:
    """Return the joint log prior density of the parameters that were sampled at the picked draws, shape (S,)."""
    priors, draws = fit.prior_settings, fit.draws
    hyper = Hyper(*np.stack([draws.hyper(k, picked) for k in range(len(fit.fitted))], axis=-1))
    if draws.shape is None:
        return priors.log_density(hyper)
    # Length scale and amplitude are held: they add the same to every draw.
    shape = draws.shape.reshape(-1, len(fit.fitted))[picked]
    return priors.log_density(hyper) + priors.log_shape_density(fit.settings.noise, shape).sum(axis=1)


def _measure(values: FloatArray, log_prior: FloatArray, log_likelihood: FloatArray) -> dict[str, Any]:
    order = values.argsort()
    ordered, spread = values[order], float(values.std())
    weights = {name: _weights(log[order]) for name, log in (("prior", log_prior), ("data", log_likelihood))}
    prior, data = (_per_doubling(ordered, weights[name]) for name in ("prior", "data"))
    low, high = (_quantiles(ordered, w, [TAIL, 0.5, 1.0 - TAIL]) for w in weights["prior"])
    change = (high - low) / spread if spread > 0.0 else np.zeros(3)
    leans = prior >= THRESHOLD and float(np.abs(change).max()) >= MATTERS
    conflict = "prior-data conflict" if data >= THRESHOLD else "weak data"
    return {
        "prior": prior,
        "likelihood": data,
        "median_change": float(change[1]),
        "lower_change": float(change[0]),
        "upper_change": float(change[2]),
        "diagnosis": conflict if leans else "",
    }


def _weights(log_density: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights of the draws for each of the two powers, each summing to 1."""
    ratios = np.stack([(power - 1.0) * log_density for power in POWERS])
    low, high = np.exp(smooth_log_weights(ratios)[0])
    return low, high


def _per_doubling(ordered: FloatArray, weights: tuple[FloatArray, FloatArray]) -> float:
    distances = [
        distribution_distance(ordered, w) / abs(np.log2(p)) for p, w in zip(POWERS, weights, strict=True)
    ]
    return float(np.mean(distances))


def distribution_distance(ordered: FloatArray, weights: FloatArray) -> float:
    """Return the cumulative Jensen-Shannon distance between draws and re-weighted draws."""
    # ordered (S,); weights (S,)
    step = np.diff(ordered)
    if step.sum() <= 0.0:
        return 0.0
    plain = np.arange(1, ordered.size) / ordered.size
    moved = np.clip(np.cumsum(weights)[:-1], 0.0, 1.0)
    return float(np.sqrt(max(_divergence(step, plain, moved), _divergence(step, 1.0 - plain, 1.0 - moved))))


def _divergence(step: FloatArray, p: FloatArray, q: FloatArray) -> float:
    """Symmetrised cumulative Jensen-Shannon divergence of two distribution functions over its upper bound."""
    total = float(step @ (_times_log_ratio(p, q) + _times_log_ratio(q, p)))
    # The linear parts of the two directions cancel in the sum.
    return max(total, 0.0) / float(step @ (p + q))


def _times_log_ratio(p: FloatArray, q: FloatArray) -> FloatArray:
    ratio = np.divide(2.0 * p, p + q, out=np.ones_like(p), where=p > 0.0)
    return np.asarray(p * np.log2(ratio))


def _quantiles(ordered: FloatArray, weights: FloatArray, shares: list[float]) -> FloatArray:
    return np.asarray(np.interp(shares, np.cumsum(weights) - 0.5 * weights, ordered))


def _alerts(frame: pd.DataFrame) -> Iterator[str]:
    leaning = frame[frame["diagnosis"] != ""]
    for regime, rows in leaning.groupby("regime", sort=False):
        changes = rows[["median_change", "lower_change", "upper_change"]].abs()
        weak = bool((rows["diagnosis"] == "weak data").any())
        why = "the data say little" if weak else "priors and data pull apart"
        yield (
            f"Regime {regime}: the priors weigh on its {', '.join(_QUANTITIES[name][1] for name in rows['quantity'])} "
            f"({why}; sensitivity {rows['prior'].max():.2f}, noticeable from {THRESHOLD:g} on; between the priors to "
            f"the power {POWERS[0]:g} and {POWERS[1]:g} median or interval move by up to "
            f"{float(changes.to_numpy().max()):.1f} standard deviations): fit again with other priors and report both."
        )
