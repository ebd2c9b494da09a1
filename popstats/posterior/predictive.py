"""Posterior predictive checks: what the model says of the data that it was fitted to, regime by regime."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from popstats.arrays import FloatArray
from popstats.findings import Finding, Kind, Span
from popstats.inference.draws import interval
from popstats.inference.noise import draw_standard
from popstats.posterior.pointwise import (
    RegimePoints,
    RegimeSample,
    fitted_points,
    leave_one_out_pit,
    sample_of,
    thinned,
)
from popstats.words import sentences

if TYPE_CHECKING:
    from popstats.posterior.curves import FittedCurves


#: Draws times recipes that the closed form of LOO-PIT may look at in one regime, and the draws' range.
PIT_BUDGET, PIT_DRAWS = 50_000, (20, 200)


#: Draws for noise without a closed form, which needs a tail to smooth.
WEIGHTED_DRAWS = 400


#: The same for replicated data: p-values have a resolution of one over the draws.
REPLICATE_BUDGET, REPLICATES = 250_000, (100, 800)


@dataclass(frozen=True, eq=False)
class PredictiveChecks:
    """How the data look to the model that was fitted to them."""

    # One row a fitted regime: regime, recipes; inside_50, inside_90 (share of recipes within the 50 and 90 %
    # intervals predicted from the others: should be 0.5 and 0.9); pit_distance (largest distance of the LOO-PIT
    # values' distribution from the uniform: under 0.05 is harmless) and pit_p; then skewness, kurtosis (excess
    # over the normal's) and largest (residual, in standard deviations), each as observed, `*_model` (mean over
    # replicated data) and `*_p` (posterior predictive p-value: share of replicated data with at least as large
    # a value; near 0 or 1 is a misfit).
    frame: pd.DataFrame
    # Each regime's limit as predicted from the other regimes; see `limit_forecast.forecast_limits`.
    limits: pd.DataFrame
    alerts: tuple[Finding, ...]  # What does not fit, one per regime and kind; empty if nothing.
    # (n,); The LOO-PIT values of each regime's recipes; uniform where the model is right.
    loo_pit: Mapping[str, FloatArray]

    @property
    def ok(self) -> bool:
        """Whether there is no alert."""
        return not self.alerts

    def __repr__(self) -> str:
        return f"<PredictiveChecks of {len(self.frame)} regimes: {self._said or 'nothing stands out'}>"

    @property
    def _said(self) -> str:
        return " ".join(sentences(self.alerts))

    def _repr_html_(self) -> str:
        said = (
            "".join(f"<li>{html.escape(alert)}</li>" for alert in sentences(self.alerts))
            or "<li>Nothing stands out.</li>"
        )
        return f"<ul>{said}</ul>{self.frame.to_html(index=False, float_format=lambda v: f'{v:.3g}')}"


def check_predictions(fit: FittedCurves) -> PredictiveChecks:
    """Check each fitted regime's recipes against the fit.

    Source: Gelman, Meng and Stern (1996), Statistica Sinica 6, 733-760 (discrepancies that depend on
    parameters); Gelman et al. (2013), Bayesian Data Analysis, sections 6.3 and 7.1.
    """
    rows, pits = [], {}
    for k, points in enumerate(fitted_points(fit)):
        pit = _pit(fit, k, points)
        pits[points.regime.label] = pit
        picked = thinned(fit, _within(REPLICATE_BUDGET // pit.size, REPLICATES))
        rng = np.random.default_rng([fit.settings.random_seed, k, 3])
        shapes = _shapes(points, sample_of(fit, k, picked), rng)
        rows.append({"regime": points.regime.label, "recipes": pit.size, **_coverage(pit), **shapes})
    frame, limits = pd.DataFrame(rows), forecast_limits(fit)
    return PredictiveChecks(frame, limits, alerts_of(frame, limits, fit.settings.noise), pits)


def _within(value: int, ends: tuple[int, int]) -> int:
    return min(max(value, ends[0]), ends[1])


def _pit(fit: FittedCurves, k: int, points: RegimePoints) -> FloatArray:
    closed = _within(PIT_BUDGET // points.rows.drop.size, PIT_DRAWS)
    picked = thinned(fit, closed if fit.settings.noise == "normal" else WEIGHTED_DRAWS)
    return leave_one_out_pit(points, sample_of(fit, k, picked))


def _coverage(pit: FloatArray) -> dict[str, float]:
    test = stats.kstest(pit, "uniform")
    return {
        "inside_50": float((np.abs(pit - 0.5) <= 0.25).mean()),
        "inside_90": float((np.abs(pit - 0.5) <= 0.45).mean()),
        "pit_distance": float(test.statistic),
        "pit_p": float(test.pvalue),
    }


class _Moments:
    """Sums of powers over blocks of residuals, and their extremes, one per draw."""

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
    observed, replicated = _Moments(sample.hyper.noise.size), _Moments(sample.hyper.noise.size)
    for _, e, scale in sample.residuals(points):
        shape = (
            sample.shape / scale
            if sample.noise == "exgaussian" and sample.shape is not None
            else sample.shape
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


#: Fewer regimes than this: a line through the others would have next to no residual to judge itself by.
MINIMUM_REGIMES = 5


_COLUMNS = ["regime", "limit", "predicted", "predicted_lower", "predicted_upper", "surprise", "beyond"]


def forecast_limits(fit: FittedCurves) -> pd.DataFrame:
    """Predict each fitted regime's limit by a line in -log(1 - reduction) through the other regimes' limits.

    The line is fitted draw by draw, and its predictions include its residual spread (Student-t), so that a
    line that does not hold predicts wide intervals, not wrong ones.
    """
    if len(fit.fitted) < MINIMUM_REGIMES:
        return pd.DataFrame(columns=_COLUMNS)
    x = -np.log1p(-np.array([r.target for r in fit.fitted]))
    limits = np.stack([o.limit for o in fit.optimum_draws], axis=1)
    rng = np.random.default_rng([fit.settings.random_seed, 4])
    rows = []
    for k, regime in enumerate(fit.fitted):
        others = np.arange(x.size) != k
        predicted = _predict(x[others], limits[:, others], float(x[k]), rng)
        low, high = interval(predicted)
        above = float((predicted > limits[:, k]).mean())
        rows.append(
            {
                "regime": regime.label,
                "limit": float(np.median(limits[:, k])),
                "predicted": float(np.median(predicted)),
                "predicted_lower": float(low),
                "predicted_upper": float(high),
                "surprise": 2.0 * min(above, 1.0 - above),
                "beyond": not x[others].min() <= x[k] <= x[others].max(),
            }
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


def _predict(x: FloatArray, y: FloatArray, at: float, rng: np.random.Generator) -> FloatArray:
    """Draw from the predictive distribution of a line through (x, y[s]) at `at`, for each row s of y."""
    centred = x - x.mean()
    total = float(centred @ centred)
    slope = y @ centred / total
    mean = y.mean(axis=1)
    residual = y - mean[:, None] - slope[:, None] * centred
    freedom = x.size - 2
    spread = np.sqrt(
        (residual**2).sum(axis=1) / freedom * (1.0 + 1.0 / x.size + (at - x.mean()) ** 2 / total)
    )
    return np.asarray(mean + slope * (at - x.mean()) + spread * rng.standard_t(freedom, size=mean.size))


#: A p-value this near to 0 or 1, counted over all regimes, is a misfit ... (Posterior predictive p-values are
#: cautious: of 160 simulated populations with normal noise, 30 to 2,000 recipes per regime, none had an alert; with
#: heavy or skewed noise all had one from 100 recipes per regime on, one in ten with 30.)
P_VALUE = 0.05


#: ... if it also matters: skewness and excess kurtosis off by this much,
SKEWNESS, KURTOSIS = 0.5, 1.0


#: the largest residual this many standard deviations beyond the expected one,
LARGEST = 1.5


#: the share inside the 90 % intervals off by this much (and by this many standard errors),
COVERAGE, STANDARD_ERRORS = 0.03, 3.0


#: or the LOO-PIT values' distribution off by this much.
PIT_DISTANCE = 0.05


#: Tails count as heavy on their own from this multiple of the squared skewness on (a gamma
#: distribution, skewed alone, has 1.5).
TAILS_PER_SKEW = 3.0


#: A long upper tail is skewed noise or a few networks that failed: which, only a comparison says (on the shipped
#: population "student" predicts better than "exgaussian", although the skewness is large).
_TRIED_FOR_SKEW = {"normal": ("exgaussian", "student"), "student": ("exgaussian",), "exgaussian": ()}


def alerts_of(frame: pd.DataFrame, limits: pd.DataFrame, noise: str) -> tuple[Finding, ...]:
    """Return one finding for each misfit that is both clear and large enough to matter."""
    threshold = P_VALUE / max(len(frame), 1)
    found: list[Finding] = []
    row: Any
    for row in frame.itertuples():
        found += _regime_alerts(row, noise, threshold)
    for row in limits.itertuples():
        if row.surprise < P_VALUE / len(limits):
            predicted = Span(row.predicted_lower, row.predicted_upper)
            found.append(_finding("breaks trend", row, limit=row.limit, predicted=predicted))
    return tuple(found)


def _finding(kind: Kind, row: Any, **values: Any) -> Finding:
    return Finding(kind, (row.regime,), values)


def _regime_alerts(row: Any, noise: str, threshold: float) -> Iterator[Finding]:
    shape = _shape(row, noise, threshold)
    if shape:
        yield shape
    elif row.largest_p < threshold and row.largest > row.largest_model + LARGEST:
        tried = ("student",) if noise == "normal" else ()
        yield _finding("far recipe", row, largest=row.largest, expected=row.largest_model, tried=tried)
    error = STANDARD_ERRORS * np.sqrt(0.09 / row.recipes)
    if abs(row.inside_90 - 0.9) > max(COVERAGE, error):
        too = "narrow" if row.inside_90 < 0.9 else "wide"
        yield _finding("wrong coverage", row, inside=row.inside_90, too=too)
    elif row.pit_p < threshold and row.pit_distance > PIT_DISTANCE and not shape:
        yield _finding("not uniform", row, distance=row.pit_distance)


def _shape(row: Any, noise: str, threshold: float) -> Finding | None:
    skewed = row.skewness - row.skewness_model
    tails = row.kurtosis - row.kurtosis_model
    clear_skew = min(row.skewness_p, 1.0 - row.skewness_p) < threshold and abs(skewed) > SKEWNESS
    if row.kurtosis_p < threshold and tails > max(KURTOSIS, TAILS_PER_SKEW * skewed**2):
        tried = ("student",) if noise != "student" else ()
        return _finding("heavy tails", row, kurtosis=row.kurtosis, tried=tried)
    if clear_skew and skewed > 0:
        found = {"skewness": row.skewness, "tried": _TRIED_FOR_SKEW[noise]}
        return _finding("skewed up", row, **found)
    if clear_skew:
        return _finding("skewed down", row, skewness=row.skewness)
    if 1.0 - row.kurtosis_p < threshold and tails < -KURTOSIS:
        return _finding("light tails", row, kurtosis=row.kurtosis)
    return None
