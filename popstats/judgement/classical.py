"""Classical tests and curves shown beside the Bayesian answer, never instead of it.

All act on plain arrays: `x` is log mCB, `y` the accuracy drop in percentage points, so a U shape is an optimum.
None of them decides a verdict: the quadratic of the U-test calls steep-then-flat curves U-shaped, and the
two-lines test, which assumes no form, still finds 7 to 32 % false U shapes on saturating truths.

References
----------
Lind and Mehlum (2010), doi:10.1111/j.1468-0084.2009.00569.x; Sasabuchi (1980), doi:10.1093/biomet/67.2.429;
Fieller (1954), doi:10.1111/j.2517-6161.1954.tb00159.x; Simonsohn (2018), doi:10.1177/2515245918805755;
MacKinnon and White (1985), doi:10.1016/0304-4076(85)90158-7; Koenker and Bassett (1978), doi:10.2307/1913643.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.findings import Estimate
from popstats.inference.draws import INTERVAL_MASS
from popstats.inference.model import CHAINS
from popstats.inference.parametric import sample_parametric
from popstats.inference.regression import natural_spline
from popstats.judgement.analysis import estimate
from popstats.posterior.fit import Fit

#: Fewest points for any of the companions.
MINIMUM_POINTS = 10


#: The two-lines test looks for its break point in the middle of the data (Simonsohn 2018).
MIDDLE = (0.10, 0.90)


#: Share of networks below the lower envelope: the design's winning subnetworks.
ENVELOPE = 0.05


#: More points than this are thinned before a quantile regression, which is iterative.
ENVELOPE_POINTS = 2000


#: Draws per chain of a companion curve, which is shown with two digits and decides nothing.
COMPANION_DRAWS = 250


@dataclass(frozen=True)
class UTest:
    """Lind-Mehlum test of a U shape on [low, high]."""

    extreme: float  # Argmin of the quadratic.
    # extreme_lower, extreme_upper: Fieller's interval of the extreme point; infinite ends where it is
    # unbounded.
    extreme_lower: float
    extreme_upper: float
    # slope_low, slope_high: Slopes at the ends of the range.
    slope_low: float
    slope_high: float
    # t_low, t_high: Their t values.
    t_low: float
    t_high: float
    # One-sided: the larger of the two p values (intersection-union). Small: a U shape, *if* the curve is a
    # quadratic.
    p_value: float


@dataclass(frozen=True)
class TwoLines:
    """Simonsohn's two-lines test of a U shape."""

    break_point: float  # Set by the Robin Hood algorithm.
    # slope_left, slope_right: Average slopes on the two sides.
    slope_left: float
    slope_right: float
    # z_left, z_right: With HC3 standard errors.
    z_left: float
    z_right: float
    # p_left, p_right: Two-sided p values.
    p_left: float
    p_right: float
    u_shaped: bool  # Left slope negative, right slope positive, both with p < 0.05.


@dataclass(frozen=True, eq=False)
class LowerEnvelope:
    """Quantile regression of the best networks' drop over log mCB."""

    quantile: float  # Share of networks below the curve.
    # log_mcb, drop: (G,); The curve.
    log_mcb: FloatArray
    drop: FloatArray
    optimum: float  # Its argmin, log mCB.


def u_test(x: npt.ArrayLike, y: npt.ArrayLike, low: float | None = None, high: float | None = None) -> UTest:
    """Test for a U shape with a quadratic (Lind and Mehlum 2010)."""
    # x, y (n,)
    x, y = _checked(x, y)
    centre = float(x.mean())
    design = np.column_stack([np.ones_like(x), x - centre, (x - centre) ** 2])
    beta, covariance = _least_squares(design, y)
    lowest, highest = (x.min() if low is None else low), (x.max() if high is None else high)
    found = u_test_from_estimates(
        beta[1], beta[2], covariance[1:, 1:], float(lowest) - centre, float(highest) - centre, x.size - 3
    )
    moved = {name: getattr(found, name) + centre for name in ("extreme", "extreme_lower", "extreme_upper")}
    return UTest(**{**vars(found), **moved})


def u_test_from_estimates(
    linear: float, quadratic: float, covariance: npt.ArrayLike, low: float, high: float, df: float
) -> UTest:
    """Test for a U shape given the coefficients of x and x^2 alone."""
    # covariance (2, 2)
    covariance = np.asarray(covariance, dtype=np.float64)
    slopes, errors = zip(*(_slope(linear, quadratic, covariance, at) for at in (low, high)), strict=True)
    t_low, t_high = slopes[0] / errors[0], slopes[1] / errors[1]
    p_value = max(stats.t.cdf(t_low, df), stats.t.sf(t_high, df))
    lower, upper = _fieller(linear, quadratic, covariance, df)
    return UTest(
        extreme=-linear / (2.0 * quadratic),
        extreme_lower=lower,
        extreme_upper=upper,
        slope_low=slopes[0],
        slope_high=slopes[1],
        t_low=t_low,
        t_high=t_high,
        p_value=float(p_value),
    )


def _slope(linear: float, quadratic: float, covariance: FloatArray, at: float) -> tuple[float, float]:
    direction = np.array([1.0, 2.0 * at])
    return linear + 2.0 * quadratic * at, float(np.sqrt(direction @ covariance @ direction))


def _fieller(linear: float, quadratic: float, covariance: FloatArray, df: float) -> tuple[float, float]:
    """Return the values at which the slope's t is within the quantile: roots of a quadratic in the argmin."""
    t2 = stats.t.ppf((1.0 + INTERVAL_MASS) / 2.0, df) ** 2
    a = 4.0 * (quadratic**2 - t2 * covariance[1, 1])
    b = 4.0 * (linear * quadratic - t2 * covariance[0, 1])
    c = linear**2 - t2 * covariance[0, 0]
    discriminant = b**2 - 4.0 * a * c
    if a <= 0 or discriminant <= 0:
        return -np.inf, np.inf
    root = np.sqrt(discriminant)
    return float((-b - root) / (2.0 * a)), float((-b + root) / (2.0 * a))


def two_lines(x: npt.ArrayLike, y: npt.ArrayLike) -> TwoLines:
    """Test for a U shape with two lines (Simonsohn 2018).

    The break point is first put in the middle of the flat bottom of a smooth curve (where the curve's lower
    band reaches its minimum), then moved by the Robin Hood algorithm: towards the side whose line is the more
    significant, so that the weaker side gets more of the data.
    """
    # x, y (n,)
    x, y = _checked(x, y)
    flat = _flat_bottom(x, y)
    first = _interrupted(x, y, float(np.median(flat)))
    left, right = abs(first.z_left), abs(first.z_right)
    share = right / (left + right) if left + right > 0 else 0.5
    return _interrupted(x, y, float(np.quantile(flat, share)))


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


def _interrupted(x: FloatArray, y: FloatArray, at: float) -> TwoLines:
    """Fit one line per side. The point at the break belongs to the side whose slope is being estimated."""
    slopes, scores = [], []
    for side, after in ((0, x > at), (1, x >= at)):
        left, right = np.where(after, 0.0, x - at), np.where(after, x - at, 0.0)
        design = np.column_stack([np.ones_like(x), left, right, after.astype(np.float64)])
        beta, covariance = _least_squares(design, y, robust=True)
        slopes.append(float(beta[1 + side]))
        scores.append(float(beta[1 + side] / np.sqrt(max(covariance[1 + side, 1 + side], 1e-300))))
    p_left, p_right = (float(2.0 * stats.norm.sf(abs(z))) for z in scores)
    u_shaped = slopes[0] < 0 < slopes[1] and max(p_left, p_right) < 0.05
    return TwoLines(at, slopes[0], slopes[1], scores[0], scores[1], p_left, p_right, u_shaped)


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
    x: npt.ArrayLike, y: npt.ArrayLike, quantile: float = ENVELOPE, seed: int = 0
) -> LowerEnvelope:
    """Return the quantile regression of the best networks on a cubic spline in log mCB (statsmodels).

    More than 2,000 points are thinned at random first.
    """
    x, y = _checked(x, y)
    if x.size * quantile < MINIMUM_POINTS:
        raise FitError(
            f"lower envelope: expected at least {int(np.ceil(MINIMUM_POINTS / quantile))} networks for the "
            f"{100 * quantile:.0f} % quantile, got {x.size}; ask for a larger quantile"
        )
    keep = np.random.default_rng(seed).permutation(x.size)[:ENVELOPE_POINTS]
    grid = np.linspace(float(np.quantile(x, 0.025)), float(np.quantile(x, 0.975)), 101)
    beta = _quantile_regression(natural_spline(x[keep], x), y[keep], quantile)
    curve = natural_spline(grid, x) @ beta
    return LowerEnvelope(quantile, grid, curve, float(grid[curve.argmin()]))


def _quantile_regression(design: FloatArray, y: FloatArray, quantile: float) -> FloatArray:
    from statsmodels.regression.quantile_regression import QuantReg
    from statsmodels.tools.sm_exceptions import IterationLimitWarning

    with warnings.catch_warnings():
        # The last digits of the iteration do not matter for a picture; its result is a descent step away.
        warnings.simplefilter("ignore", IterationLimitWarning)
        return np.asarray(QuantReg(y, design).fit(q=quantile, p_tol=1e-4).params)


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


def _checked(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise FitError(f"companions: expected two equally long arrays, got shapes {a.shape} and {b.shape}")
    if a.size < MINIMUM_POINTS or np.ptp(a) == 0.0:
        raise FitError(
            f"companions: expected at least {MINIMUM_POINTS} networks with different mCB, got {a.size} "
            f"over a range of {np.ptp(a) if a.size else 0:g}"
        )
    return a, b
