"""Posterior predictive checks: what the model says of the data that it was fitted to, regime by regime."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from popstats.inference.leave_one_out import leave_one_out_pit
from popstats.inference.limit_forecast import forecast_limits
from popstats.inference.noise import draw_standard
from popstats.inference.pointwise import RegimePoints, RegimeSample, fitted_points, sample_of, thinned
from popstats.inference.predictive_words import alerts_of

if TYPE_CHECKING:
    from popstats.inference.fit import Fit

__all__ = ["PredictiveChecks", "check_predictions"]

FloatArray = npt.NDArray[np.float64]

#: Draws times recipes that the closed form of LOO-PIT may look at in one regime, and the draws' range.
PIT_BUDGET, PIT_DRAWS = 50_000, (20, 200)
#: Draws for noise without a closed form, which needs a tail to smooth.
WEIGHTED_DRAWS = 400
#: The same for replicated data: p-values have a resolution of one over the draws.
REPLICATE_BUDGET, REPLICATES = 250_000, (100, 800)


@dataclass(frozen=True, eq=False)
class PredictiveChecks:
    """How the data look to the model that was fitted to them.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row a fitted regime: regime, recipes; inside_50, inside_90 (share of recipes within the 50 and 90 %
        intervals predicted from the others: should be 0.5 and 0.9); pit_distance (largest distance of the
        LOO-PIT values' distribution from the uniform: under 0.05 is harmless) and pit_p; then skewness,
        kurtosis (excess over the normal's) and largest (residual, in standard deviations), each as observed,
        `*_model` (mean over replicated data) and `*_p` (posterior predictive p-value: share of replicated data
        with at least as large a value; near 0 or 1 is a misfit).
    limits : pandas.DataFrame
        Each regime's limit as predicted from the other regimes; see `limit_forecast.forecast_limits`.
    alerts : tuple of str
        What does not fit, one sentence each; empty if nothing.
    loo_pit : mapping of str to numpy.ndarray, shape (n,)
        The LOO-PIT values of each regime's recipes; uniform where the model is right.
    """

    frame: pd.DataFrame
    limits: pd.DataFrame
    alerts: tuple[str, ...]
    loo_pit: Mapping[str, FloatArray]

    @property
    def ok(self) -> bool:
        """Whether there is no alert."""
        return not self.alerts

    def __repr__(self) -> str:
        return f"<PredictiveChecks of {len(self.frame)} regimes: {'; '.join(self.alerts) or 'nothing stands out'}>"

    def _repr_html_(self) -> str:
        said = (
            "".join(f"<li>{html.escape(alert)}</li>" for alert in self.alerts)
            or "<li>Nothing stands out.</li>"
        )
        return f"<ul>{said}</ul>{self.frame.to_html(index=False, float_format=lambda v: f'{v:.3g}')}"


def check_predictions(fit: Fit) -> PredictiveChecks:
    """Check each fitted regime's recipes against the fit.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    PredictiveChecks

    References
    ----------
    Gelman, Meng and Stern (1996), Statistica Sinica 6, 733-760 (discrepancies that depend on parameters);
    Gelman et al. (2013), Bayesian Data Analysis, sections 6.3 and 7.1.
    """
    rows, pits = [], {}
    for k, points in enumerate(fitted_points(fit)):
        pit = _pit(fit, k, points)
        pits[points.regime.label] = pit
        picked = thinned(fit, _within(REPLICATE_BUDGET // pit.size, REPLICATES))
        rng = np.random.default_rng([fit.settings.seed, k, 3])
        shapes = _shapes(points, sample_of(fit, k, picked), rng)
        rows.append({"regime": points.regime.label, "recipes": pit.size, **_coverage(pit), **shapes})
    frame, limits = pd.DataFrame(rows), forecast_limits(fit)
    return PredictiveChecks(
        frame, limits, alerts_of(frame, limits, fit.settings.noise, fit.settings.method), pits
    )


def _within(value: int, ends: tuple[int, int]) -> int:
    return min(max(value, ends[0]), ends[1])


def _pit(fit: Fit, k: int, points: RegimePoints) -> FloatArray:
    closed = _within(PIT_BUDGET // points.rows.drop.size, PIT_DRAWS)
    picked = thinned(fit, closed if fit.settings.noise == "normal" else WEIGHTED_DRAWS)
    hyper = [getattr(fit.draws, name)[:, :, k].reshape(-1)[picked] for name in ("length_scale", "amplitude")]
    return leave_one_out_pit(points, sample_of(fit, k, picked), hyper[0], hyper[1])


def _coverage(pit: FloatArray) -> dict[str, float]:
    test = stats.kstest(pit, "uniform")
    return {
        "inside_50": float((np.abs(pit - 0.5) <= 0.25).mean()),
        "inside_90": float((np.abs(pit - 0.5) <= 0.45).mean()),
        "pit_distance": float(test.statistic),
        "pit_p": float(test.pvalue),
    }


class _Moments:
    """Sums of powers over blocks of residuals, and their extremes, one a draw."""

    def __init__(self, draws: int) -> None:
        self.n = 0
        self.sums = np.zeros((4, draws))
        self.low, self.high = np.full(draws, np.inf), np.full(draws, -np.inf)

    def add(self, z: FloatArray) -> None:
        self.n += z.shape[0]
        squared = z * z
        # Sums by einsum: no temporary arrays for the third and fourth powers.
        for i, (a, b) in enumerate(((z, None), (z, z), (squared, z), (squared, squared))):
            self.sums[i] += a.sum(axis=0) if b is None else np.einsum("ij,ij->j", a, b)
        np.minimum(self.low, z.min(axis=0), out=self.low)
        np.maximum(self.high, z.max(axis=0), out=self.high)

    def summaries(self) -> dict[str, FloatArray]:
        """Return skewness, excess kurtosis and largest residual in standard deviations, each (draws,)."""
        m1, m2, m3, m4 = self.sums / self.n
        variance = m2 - m1**2
        third = m3 - 3.0 * m1 * m2 + 2.0 * m1**3
        fourth = m4 - 4.0 * m1 * m3 + 6.0 * m1**2 * m2 - 3.0 * m1**4
        extreme = np.maximum(self.high - m1, m1 - self.low)
        return {
            "skewness": third / variance**1.5,
            "kurtosis": fourth / variance**2 - 3.0,
            "largest": extreme / np.sqrt(variance),
        }


def _shapes(points: RegimePoints, sample: RegimeSample, rng: np.random.Generator) -> dict[str, float]:
    """Compare the residuals' shape with that of replicated data under the same draws."""
    observed, replicated = _Moments(sample.scale.size), _Moments(sample.scale.size)
    for _, e, scale in sample.residuals(points):
        shape = (
            sample.shape / scale if sample.noise == "frontier" and sample.shape is not None else sample.shape
        )
        observed.add(e / scale)
        replicated.add(draw_standard(sample.noise, e.shape, shape, rng))
    found = {}
    model = replicated.summaries()
    for name, values in observed.summaries().items():
        found[name] = float(np.median(values))
        found[f"{name}_model"] = float(model[name].mean())
        found[f"{name}_p"] = float((model[name] >= values).mean())
    return found
