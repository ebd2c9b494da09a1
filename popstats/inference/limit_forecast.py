"""Each regime's limit as the other regimes predict it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.inference.optimum import interval

if TYPE_CHECKING:
    from popstats.inference.fit import Fit

__all__ = ["MINIMUM_REGIMES", "forecast_limits"]

FloatArray = npt.NDArray[np.float64]

#: Fewer regimes than this: a line through the others would have next to no residual to judge itself by.
MINIMUM_REGIMES = 5
_COLUMNS = ["regime", "limit", "predicted", "predicted_lower", "predicted_upper", "surprise", "beyond"]


def forecast_limits(fit: Fit) -> pd.DataFrame:
    """Predict each fitted regime's limit by a line in -log(1 - reduction) through the other regimes' limits.

    The line is fitted draw by draw, and its predictions include its residual spread (Student-t), so that a
    line that does not hold predicts wide intervals, not wrong ones.

    Parameters
    ----------
    fit : Fit
        With at least five fitted regimes; the frame is empty otherwise.

    Returns
    -------
    pandas.DataFrame
        One row a regime: regime; limit (median, points); predicted with predicted_lower and predicted_upper
        (90 %); surprise (two-sided probability that prediction and limit are as far apart as they are: near 0
        is a break of the trend); beyond (whether the regime lies outside the others, so that the prediction
        extrapolates).
    """
    if len(fit.fitted) < MINIMUM_REGIMES:
        return pd.DataFrame(columns=_COLUMNS)
    x = -np.log1p(-np.array([r.target for r in fit.fitted]))
    limits = np.stack([o.limit for o in fit.optimum_draws], axis=1)
    rng = np.random.default_rng([fit.settings.seed, 4])
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
