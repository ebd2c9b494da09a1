"""Posterior predictive checks: what the model says of the data that it was fitted to, regime by regime.

Sources: Gelman, Meng and Stern (1996), Statistica Sinica 6, 733-760 (discrepancies that depend on parameters);
Gelman et al. (2013), Bayesian Data Analysis, sections 6.3 and 7.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.findings import Finding, Span, fact
from popstats.inference.data import RegimeRows
from popstats.inference.noise import draw_noise
from popstats.posterior.limit_law import LEFT_OUT, MINIMUM_REGIMES, limit_law
from popstats.posterior.pointwise import RegimeSample, leave_one_out_pit, sample_of, thinned

if TYPE_CHECKING:
    from popstats.posterior.curves import FittedCurves

#: Draws times recipes that the closed form of LOO-PIT may look at in one regime, and the draws' range.
PIT_BUDGET, PIT_DRAWS = 50_000, (20, 200)
#: Draws for noise without a closed form, which needs a tail to smooth.
WEIGHTED_DRAWS = 400
#: The same for replicated data: p-values have a resolution of one over the draws.
REPLICATE_BUDGET, REPLICATES = 1_000_000, (40, 800)


@dataclass(frozen=True, eq=False)
class PredictiveChecks:
    """How the data look to the model that was fitted to them."""

    # One row per fitted regime: regime, recipes; inside_50, inside_90 (share of recipes within the 50 and 90 %
    # intervals predicted from the others: should be 0.5 and 0.9); pit_distance (largest distance of the LOO-PIT
    # values' distribution from the uniform: under 0.05 is harmless) and pit_p; then skewness, kurtosis (excess
    # over the normal's) and largest (residual, in standard deviations), each as observed, `*_model` (mean over
    # replicated data) and `*_p` (posterior predictive p-value: share of replicated data with at least as large
    # a value; near 0 or 1 is a misfit).
    frame: pd.DataFrame
    limits: pd.DataFrame  # Each regime's limit as predicted from the other regimes; see `LimitLaw.left_out`.
    alerts: tuple[Finding, ...]  # What does not fit, one per regime and kind; empty if nothing.
    # (n,); The LOO-PIT values of each regime's recipes; uniform where the model is right.
    loo_pit: Mapping[str, FloatArray]


def check_predictions(fit: FittedCurves) -> PredictiveChecks:
    """Check each fitted regime's recipes against the fit."""
    # Imported here: scipy.stats takes longer to import than most fits take to run.
    from scipy.stats import kstest

    rows, pits = [], {}
    for k, mine in enumerate(fit.rows):
        size, closed = mine.drop.size, fit.settings.noise == "normal"
        most = int(np.clip(PIT_BUDGET // size, *PIT_DRAWS)) if closed else WEIGHTED_DRAWS
        pit = leave_one_out_pit(mine, sample_of(fit, k, thinned(fit, most)))
        pits[mine.regime.label] = pit
        picked = thinned(fit, int(np.clip(REPLICATE_BUDGET // size, *REPLICATES)))
        rng = np.random.default_rng([fit.settings.random_seed, k, 3])
        shapes = _shapes(mine, sample_of(fit, k, picked), rng)
        test = kstest(pit, "uniform")
        coverage = {f"inside_{mass}": float((np.abs(pit - 0.5) <= mass / 200).mean()) for mass in (50, 90)}
        distance = {"pit_distance": float(test.statistic), "pit_p": float(test.pvalue)}
        rows.append({"regime": mine.regime.label, "recipes": pit.size, **coverage, **distance, **shapes})
    frame = pd.DataFrame(rows)
    limits = limit_law(fit).left_out if len(rows) >= MINIMUM_REGIMES else pd.DataFrame(columns=LEFT_OUT)
    # Misfits that are both clear and large enough to matter.
    threshold, noise = P_VALUE / max(len(frame), 1), fit.settings.noise
    alerts = [alert for row in frame.itertuples() for alert in _regime_alerts(row, noise, threshold)]
    row: Any
    for row in limits[limits["surprise"] < P_VALUE / max(len(limits), 1)].itertuples():
        predicted = Span(row.predicted_lower, row.predicted_upper)
        alerts.append(fact("breaks trend", row.regime, limit=row.limit, predicted=predicted))
    return PredictiveChecks(frame, limits, tuple(alerts), pits)


def _shapes(rows: RegimeRows, sample: RegimeSample, rng: np.random.Generator) -> dict[str, float]:
    """Compare the residuals' shape with that of replicated data under the same draws."""
    observed, replicated = [], []
    for _, e, scale in sample.residuals(rows):
        observed.append(e / scale)
        replicated.append(draw_noise(sample.noise, scale, sample.hyper.shape, rng) / scale)
    found = {}
    model = _summaries(np.concatenate(replicated))
    for name, values in _summaries(np.concatenate(observed)).items():
        found[name] = float(np.median(values))
        found[f"{name}_model"] = float(model[name].mean())
        found[f"{name}_p"] = float((model[name] >= values).mean())
    return found


def _summaries(z: FloatArray) -> dict[str, FloatArray]:
    """Return skewness, excess kurtosis and largest residual in standard deviations of each draw, (n, S) -> (S,)."""
    centred = z - z.mean(axis=0)
    # Products: powers of large arrays, as scipy.stats takes them, were a sixth of a report's time.
    squares = centred * centred
    variance, third, fourth = (
        squares.mean(axis=0),
        (squares * centred).mean(axis=0),
        (squares * squares).mean(axis=0),
    )
    extreme = np.maximum(centred.max(axis=0), -centred.min(axis=0))
    return {
        "skewness": third / variance**1.5,
        "kurtosis": fourth / variance**2 - 3.0,
        "largest": extreme / np.sqrt(variance),
    }


#: A p-value this near to 0 or 1, counted over all regimes, is a misfit ... (Posterior predictive p-values are
#: cautious: of 160 simulated populations with normal noise, 30 to 2,000 recipes per regime, none had an alert; with
#: heavy or skewed noise all had one from 100 recipes per regime on, one in ten with 30.)
P_VALUE = 0.05
#: ... if it also matters: skewness and excess kurtosis off by this much,
SKEWNESS, KURTOSIS = 0.5, 1.0
#: the largest residual this many standard deviations beyond the expected one,
LARGEST = 1.5
#: the share inside the 90 % intervals off by this much (and by so many standard errors),
COVERAGE, STANDARD_ERRORS = 0.03, 3.0
#: or the LOO-PIT values' distribution off by this much.
PIT_DISTANCE = 0.05
#: Tails count as heavy on their own from this multiple of the squared skewness on (a gamma
#: distribution, skewed alone, has 1.5).
TAILS_PER_SKEW = 3.0
#: A long upper tail is skewed noise or a few networks that failed: which, only a comparison says (on the shipped
#: population "student" predicts better than "exgaussian", although the skewness is large).
_TRIED_FOR_SKEW = {"normal": ("exgaussian", "student"), "student": ("exgaussian",), "exgaussian": ()}


def _regime_alerts(row: Any, noise: str, threshold: float) -> Iterator[Finding]:
    skewed, tails = row.skewness - row.skewness_model, row.kurtosis - row.kurtosis_model
    clear_skew = min(row.skewness_p, 1.0 - row.skewness_p) < threshold and abs(skewed) > SKEWNESS
    bell = False
    if row.kurtosis_p < threshold and tails > max(KURTOSIS, TAILS_PER_SKEW * skewed**2):
        tried = ("student",) if noise != "student" else ()
        yield fact("heavy tails", row.regime, kurtosis=row.kurtosis, tried=tried)
    elif clear_skew and skewed > 0:
        yield fact("skewed up", row.regime, skewness=row.skewness, tried=_TRIED_FOR_SKEW[noise])
    elif clear_skew:
        yield fact("skewed down", row.regime, skewness=row.skewness)
    elif 1.0 - row.kurtosis_p < threshold and tails < -KURTOSIS:
        yield fact("light tails", row.regime, kurtosis=row.kurtosis)
    else:
        bell = True
    if bell and row.largest_p < threshold and row.largest > row.largest_model + LARGEST:
        tried = ("student",) if noise == "normal" else ()
        yield fact("far recipe", row.regime, largest=row.largest, expected=row.largest_model, tried=tried)
    if abs(row.inside_90 - 0.9) > max(COVERAGE, STANDARD_ERRORS * np.sqrt(0.09 / row.recipes)):
        too = "narrow" if row.inside_90 < 0.9 else "wide"
        yield fact("wrong coverage", row.regime, inside=row.inside_90, too=too)
    elif bell and row.pit_p < threshold and row.pit_distance > PIT_DISTANCE:
        yield fact("not uniform", row.regime, distance=row.pit_distance)
