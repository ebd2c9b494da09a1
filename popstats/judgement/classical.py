"""Classical tests and curves shown beside the Bayesian answer, never instead of it.

All act on plain arrays: `x` is log mCB, `y` the accuracy drop in percentage points, so a U shape is an optimum.
None of them decides a verdict: the quadratic of the U-test calls steep-then-flat curves U-shaped, and the
two-lines test, which assumes no form, still finds 7 to 32 % false U shapes on saturating truths.

References
----------
Lind and Mehlum (2010), doi:10.1111/j.1468-0084.2009.00569.x; Sasabuchi (1980), doi:10.1093/biomet/67.2.429;
Simonsohn (2018), doi:10.1177/2515245918805755;
MacKinnon and White (1985), doi:10.1016/0304-4076(85)90158-7; Koenker and Bassett (1978), doi:10.2307/1913643.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from scipy import stats

from popstats.arrays import FloatArray
from popstats.findings import Estimate
from popstats.inference.model import CHAINS
from popstats.inference.parametric import sample_parametric
from popstats.inference.regression import natural_spline
from popstats.judgement.analysis import estimate
from popstats.posterior.fit import Fit

#: Fewest networks for any of these methods, and fewest below an envelope.
MINIMUM_POINTS = 10
#: The two-lines test looks for its break point in the middle of the data (Simonsohn 2018).
MIDDLE = (0.10, 0.90)
#: Both of its slopes need a two-sided p value below this.
SIGNIFICANCE = 0.05
#: Share of networks below the lower envelope: the design's winning subnetworks.
ENVELOPE = 0.05
#: More points than this are thinned before a quantile regression, which is iterative.
ENVELOPE_POINTS = 2000
#: Draws per chain of a companion curve, which is shown with two digits and decides nothing.
COMPANION_DRAWS = 250


def u_test(x: FloatArray, y: FloatArray) -> float:
    """Return the one-sided p value of a U shape over the range of x, if the curve is a quadratic (Lind and Mehlum 2010)."""
    # x, y (n,)
    beta, covariance = _least_squares(np.vander(x - x.mean(), 3, increasing=True), y)
    ends = np.array([[0.0, 1.0, 2.0 * (end - x.mean())] for end in (x.min(), x.max())])
    t = (ends @ beta) / np.sqrt(np.einsum("ei,ij,ej->e", ends, covariance, ends))
    # Intersection-union: it has to fall at the lower end and to rise at the upper one.
    return float(max(stats.t.cdf(t[0], x.size - 3), stats.t.sf(t[1], x.size - 3)))


def two_lines(x: FloatArray, y: FloatArray) -> bool:
    """Return whether two lines find a U shape: one falls and the next one rises, both with p < 0.05 (Simonsohn 2018).

    The break point is first put in the middle of the flat bottom of a smooth curve (where the curve's lower
    band reaches its minimum), then moved by the Robin Hood algorithm: towards the side whose line is the more
    significant, so that the weaker side gets more of the data.
    """
    # x, y (n,)
    flat = _flat_bottom(x, y)
    left, right = np.abs(_side_scores(x, y, float(np.median(flat))))
    share = right / (left + right) if left + right > 0 else 0.5
    left, right = _side_scores(x, y, float(np.quantile(flat, share)))
    least = stats.norm.isf(SIGNIFICANCE / 2.0)
    return bool(left < -least and right > least)


def _flat_bottom(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the x of the points whose smooth curve is within a standard error of its minimum."""
    design = natural_spline(x, x)
    beta, covariance = _least_squares(design, y)
    error = np.sqrt(np.einsum("ij,jk,ik->i", design, covariance, design, optimize=True))
    curve = design @ beta
    low, high = np.quantile(x, MIDDLE)
    middle = (x >= low) & (x <= high)
    flat = middle & (curve - error <= curve[middle].min())
    return np.asarray(x[flat])


def _side_scores(x: FloatArray, y: FloatArray, at: float) -> FloatArray:
    """Return the z value (HC3) of the slope on either side. A point at the break belongs to the side that is estimated."""
    scores = []
    for side, after in ((1, x > at), (2, x >= at)):
        left, right = np.where(after, 0.0, x - at), np.where(after, x - at, 0.0)
        design = np.column_stack([np.ones_like(x), left, right, after])
        beta, covariance = _least_squares(design, y, robust=True)
        scores.append(beta[side] / np.sqrt(max(covariance[side, side], 1e-300)))
    return np.array(scores)


def parametric_optima(fitted: Fit, curve: str) -> dict[str, Estimate | None]:
    """Return by regime the mCB at which a parametric curve is lowest; None where most draws are lowest at an end."""
    settings, size = fitted.settings, CHAINS * COMPANION_DRAWS
    draws = sample_parametric(curve, fitted.fitted, fitted.prior_settings, size, settings.random_seed)
    companion = replace(
        fitted, settings=replace(settings, curve=curve, noise="normal", method="exact"), draws=draws
    )
    pairs = zip(companion.fitted, companion.optimum_draws, strict=True)
    return {r.label: estimate(np.exp(o.log_mcb)) if o.interior.mean() >= 0.5 else None for r, o in pairs}


def lower_envelope(
    x: FloatArray, y: FloatArray, quantile: float = ENVELOPE, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Return a grid of log mCB, and there the quantile regression of the best networks' drops, (G,) each."""
    # On a cubic spline in log mCB; more than 2,000 points are thinned at random first.
    from statsmodels.regression.quantile_regression import QuantReg
    from statsmodels.tools.sm_exceptions import IterationLimitWarning

    keep = np.random.default_rng(seed).permutation(x.size)[:ENVELOPE_POINTS]
    grid = np.linspace(float(np.quantile(x, 0.025)), float(np.quantile(x, 0.975)), 101)
    with warnings.catch_warnings():
        # The last digits of the iteration do not matter for a picture; its result is a descent step away.
        warnings.simplefilter("ignore", IterationLimitWarning)
        found = QuantReg(y[keep], natural_spline(x[keep], x)).fit(q=quantile, p_tol=1e-4)
    return grid, natural_spline(grid, x) @ np.asarray(found.params)


def _least_squares(design: FloatArray, y: FloatArray, robust: bool = False) -> tuple[FloatArray, FloatArray]:
    """Return coefficients and their covariance: classical, or HC3 (MacKinnon and White 1985)."""
    inverse = np.linalg.pinv(design.T @ design)
    beta = inverse @ (design.T @ y)
    residual = y - design @ beta
    if not robust:
        variance = float(residual @ residual) / max(y.size - design.shape[1], 1)
        return beta, inverse * variance
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design, optimize=True)
    # A point that a line passes through whatever its value has no residual to scale up.
    weight = (residual / np.clip(1.0 - leverage, 1e-6, None)) ** 2
    return beta, inverse @ ((design * weight[:, None]).T @ design) @ inverse
