"""What posterior predictive checks amount to, in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["alerts_of"]

#: A p-value this near to 0 or 1, counted over all regimes, is a misfit ... (Posterior predictive p-values are
#: cautious: of 160 simulated populations with normal noise, 30 to 2,000 recipes a regime, none had an alert; with
#: heavy or skewed noise all had one from 100 recipes a regime on, one in ten with 30.)
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
#: population "student" predicts better than "frontier", although the skewness is large).
_REMEDIES_OF_SKEW = {
    "normal": "; try noise='frontier' and noise='student', and compare them",
    "student": "; try noise='frontier'",
    "frontier": "",
}


def alerts_of(frame: pd.DataFrame, limits: pd.DataFrame, noise: str, method: str = "nuts") -> tuple[str, ...]:
    """Return one sentence for each misfit that is both clear and large enough to matter.

    Parameters
    ----------
    frame, limits : pandas.DataFrame
        Of `PredictiveChecks`.
    noise : {"normal", "student", "frontier"}
        The fit's; sets what to try instead.
    method : {"nuts", "exact"}
        The fit's: other noise than normal needs "nuts".
    """
    threshold = P_VALUE / max(len(frame), 1)
    said = []
    row: Any
    for row in frame.itertuples():
        said += [f"regime {row.regime}: {text}" for text in _regime_alerts(row, noise, threshold)]
    for row in limits.itertuples():
        if row.surprise < P_VALUE / len(limits):
            said.append(
                f"regime {row.regime}: its limit, {row.limit:.2f} points, breaks the trend of the other regimes "
                f"({row.predicted_lower:.2f} to {row.predicted_upper:.2f})"
            )
    return tuple(map(_with_nuts, said) if method == "exact" else said)


def _with_nuts(sentence: str) -> str:
    return re.sub(r"^(.*noise='\w+')", r"\1 (with method='nuts')", sentence)


def _regime_alerts(row: Any, noise: str, threshold: float) -> Iterator[str]:
    shape = _shape(row, noise, threshold)
    if shape:
        yield shape
    elif row.largest_p < threshold and row.largest > row.largest_model + LARGEST:
        remedy = "; try noise='student'" if noise == "normal" else ""
        yield (
            f"one recipe lies {row.largest:.1f} standard deviations from the curve, the model expects at most "
            f"about {row.largest_model:.1f}: look at it{remedy}"
        )
    error = STANDARD_ERRORS * np.sqrt(0.09 / row.recipes)
    if abs(row.inside_90 - 0.9) > max(COVERAGE, error):
        kind = "narrow" if row.inside_90 < 0.9 else "wide"
        yield f"{row.inside_90:.0%} of the recipes lie inside their 90 % intervals: these are too {kind}"
    elif row.pit_p < threshold and row.pit_distance > PIT_DISTANCE and not shape:
        yield (
            f"the recipes are not spread about the curve as predicted (LOO-PIT values {row.pit_distance:.2f} away "
            "from uniform)"
        )


def _shape(row: Any, noise: str, threshold: float) -> str:
    skewed = row.skewness - row.skewness_model
    tails = row.kurtosis - row.kurtosis_model
    clear_skew = min(row.skewness_p, 1.0 - row.skewness_p) < threshold and abs(skewed) > SKEWNESS
    if row.kurtosis_p < threshold and tails > max(KURTOSIS, TAILS_PER_SKEW * skewed**2):
        remedy = (
            "try noise='student'" if noise != "student" else "look at the recipes farthest from the curve"
        )
        return f"heavier tails than the model's (excess kurtosis {row.kurtosis:.1f}); {remedy}"
    if clear_skew and skewed > 0:
        remedy = _REMEDIES_OF_SKEW[noise]
        return f"more recipes far above the curve than far below it (skewness {row.skewness:.1f}){remedy}"
    if clear_skew:
        return (
            f"more recipes far below the curve than far above it (skewness {row.skewness:.1f}): some do much better "
            "than their mCB says"
        )
    if 1.0 - row.kurtosis_p < threshold and tails < -KURTOSIS:
        return (
            f"lighter tails than the model's (excess kurtosis {row.kurtosis:.1f}): intervals for single trainings "
            "are too wide"
        )
    return ""
