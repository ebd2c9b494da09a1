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
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.inference.data import RegimeDesign, prepare_regimes
from popstats.inference.draws import INTERVAL_MASS, interval
from popstats.inference.exact import draw_regime
from popstats.inference.regression import natural_spline
from popstats.inference.spread import precision_weights
from popstats.judgement.analysis import decide_optimum
from popstats.judgement.verdicts import Thresholds
from popstats.population.regimes import mean_computation_budget
from popstats.posterior.curves import curve_in_points
from popstats.posterior.fit import Fit
from popstats.posterior.optimum import GRID_SIZE, curve_height, has_optimum, read_optimum

#: Fewest points for any of the companions.
MINIMUM_POINTS = 10


#: The two-lines test looks for its break point in the middle of the data (Simonsohn 2018).
MIDDLE = (0.10, 0.90)


#: Share of networks below the lower envelope: the design's winning subnetworks.
ENVELOPE = 0.05


#: More points than this are thinned before a quantile regression, which is iterative.
ENVELOPE_POINTS = 4000


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


@dataclass(frozen=True)
class QuadraticOptimum:
    """Vertex of a quadratic with its delta-method interval (90 %); NaN where the parabola opens downwards."""

    log_mcb: float
    lower: float
    upper: float


@dataclass(frozen=True)
class AsymmetricOptimum:
    """Vertex of a parabola whose two sides bend differently."""

    log_mcb: float  # Argmin; NaN where the fitted curve has none.
    # lower, upper: 90 % profile interval.
    lower: float
    upper: float
    # bend_left, bend_right: Points per squared unit of log mCB on either side.
    bend_left: float
    bend_right: float


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
    """Fit one line a side. The point at the break belongs to the side whose slope is being estimated."""
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


def quadratic_optimum(x: npt.ArrayLike, y: npt.ArrayLike) -> QuadraticOptimum:
    """Return the vertex of a quadratic fitted by least squares, with its delta-method interval.

    Where the two sides of the truth bend differently the vertex is off by many of its own standard errors:
    compare with the smooth curve's optimum before using it.
    """
    x, y = _checked(x, y)
    centre = x.mean()
    d = x - centre
    beta, covariance = _least_squares(np.column_stack([np.ones_like(d), d, d**2]), y)
    if beta[2] <= 0:
        return QuadraticOptimum(float("nan"), float("nan"), float("nan"))
    vertex = -beta[1] / (2.0 * beta[2])
    gradient = np.array([-1.0 / (2.0 * beta[2]), beta[1] / (2.0 * beta[2] ** 2)])
    half = stats.norm.ppf((1.0 + INTERVAL_MASS) / 2.0) * np.sqrt(gradient @ covariance[1:, 1:] @ gradient)
    return QuadraticOptimum(
        float(centre + vertex), float(centre + vertex - half), float(centre + vertex + half)
    )


def asymmetric_optimum(x: npt.ArrayLike, y: npt.ArrayLike) -> AsymmetricOptimum:
    """Return the vertex of two half-parabolas that meet at it, by profile least squares.

    y = level + bend_left (x - v)^2 left of v, level + bend_right (x - v)^2 right of it.
    """
    x, y = _checked(x, y)
    low, high = np.quantile(x, (0.025, 0.975))
    sides = _HalfParabolas.of(x, y)
    grid = np.linspace(low, high, 101)
    errors = sides.fit(grid)[1]
    best = int(errors.argmin())
    fine = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)], 201)
    vertex = float(fine[sides.fit(fine)[1].argmin()])
    found, error = sides.fit(np.array([vertex]))
    (_, left, right), least = found[0].tolist(), float(error[0])
    if left <= 0 or right <= 0:
        nan = float("nan")
        return AsymmetricOptimum(nan, nan, nan, left, right)
    level = least * (1.0 + stats.f.ppf(INTERVAL_MASS, 1, x.size - 4) / (x.size - 4))
    outside = grid[errors > level]

    def above(v: float) -> float:
        return float(sides.fit(np.array([v]))[1][0]) - level

    lower = max(outside[outside < vertex], default=None)
    upper = min(outside[outside > vertex], default=None)
    return AsymmetricOptimum(
        log_mcb=vertex,
        lower=float(low) if lower is None else float(optimize.brentq(above, lower, vertex)),
        upper=float(high) if upper is None else float(optimize.brentq(above, vertex, upper)),
        bend_left=left,
        bend_right=right,
    )


@dataclass(frozen=True, eq=False)
class _HalfParabolas:
    """Two half-parabolas through sorted points: sums of powers up to each point give any vertex's fit at once."""

    x: FloatArray
    powers: FloatArray  # (n + 1, 5): sums of x^0 to x^4 over the first points
    products: FloatArray  # (n + 1, 3): sums of y x^0 to y x^2
    centre: float
    scale: float
    level: float
    total: float

    @classmethod
    def of(cls, x: FloatArray, y: FloatArray) -> _HalfParabolas:
        order = np.argsort(x, kind="stable")
        # Centred and scaled, so that fourth powers keep their digits.
        centre, scale, level = float(x.mean()), float(x.std()), float(y.mean())
        t, d = (x[order] - centre) / scale, y[order] - level
        powers = np.vstack([np.zeros(5), np.cumsum(t[:, None] ** np.arange(5), axis=0)])
        products = np.vstack([np.zeros(3), np.cumsum(d[:, None] * t[:, None] ** np.arange(3), axis=0)])
        return cls(t, powers, products, centre, scale, level, float(d @ d))

    def fit(self, vertex: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return level, left and right bend, shape (V, 3), and the sums of squared errors, (V,)."""
        v = (vertex - self.centre) / self.scale
        before = np.searchsorted(self.x, v, side="left")
        matrix = np.zeros((v.size, 3, 3))
        target = np.zeros((v.size, 3))
        matrix[:, 0, 0], target[:, 0] = self.powers[-1, 0], self.products[-1, 0]
        left = self.powers[before], self.products[before]
        right = self.powers[-1] - left[0], self.products[-1] - left[1]
        for side, (power, product) in ((1, left), (2, right)):
            s0, s1, s2, s3, s4 = power.T
            second = s2 - 2.0 * v * s1 + v**2 * s0
            matrix[:, 0, side] = matrix[:, side, 0] = second
            matrix[:, side, side] = s4 - 4.0 * v * s3 + 6.0 * v**2 * s2 - 4.0 * v**3 * s1 + v**4 * s0
            target[:, side] = product[:, 2] - 2.0 * v * product[:, 1] + v**2 * product[:, 0]
        beta = (np.linalg.pinv(matrix, hermitian=True) @ target[:, :, None])[:, :, 0]
        errors = self.total - (beta * target).sum(axis=1)
        return beta * [1.0, self.scale**-2, self.scale**-2] + [self.level, 0.0, 0.0], errors


def lower_envelope(
    x: npt.ArrayLike, y: npt.ArrayLike, quantile: float = ENVELOPE, seed: int = 0
) -> LowerEnvelope:
    """Return the quantile regression of the best networks on a cubic spline in log mCB (statsmodels).

    More than 4,000 points are thinned at random first.
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


#: None: the exact count; then shares of the original's parameters, the paper's rounding among them.
BUCKET_WIDTHS: tuple[float | None, ...] = (None, 0.01, 0.02, 0.05)


_DRAWS = 1000


def bucket_sensitivity(
    fit: Fit, widths: Sequence[float | None] = BUCKET_WIDTHS, thresholds: Thresholds | None = None
) -> pd.DataFrame:
    """Judge C3a (and with it C1) for several widths of the parameter bucket, by the exact method."""
    limits = thresholds or Thresholds()
    priors = _prior_probabilities(fit, limits)
    rows = [row for width in widths for row in _one_width(fit, width, limits, priors)]
    columns = ["bucket_width", "regime", "outcome", "probability", "mcb", "mcb_lower", "mcb_upper"]
    return pd.DataFrame(rows, columns=columns)


def _prior_probabilities(fit: Fit, limits: Thresholds) -> dict[str, float]:
    """Return C3a's probability before the data by regime: buckets move networks, not the prior."""
    read = (read_optimum(grid, fit.prior_drop[:, k], limits.near) for k, grid in enumerate(fit.grid))
    shares = (float(has_optimum(optimum, limits.rise).mean()) for optimum in read)
    return dict(zip((r.label for r in fit.fitted), shares, strict=True))


def _one_width(
    fit: Fit, width: float | None, limits: Thresholds, priors: dict[str, float]
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for k, regime in enumerate(_bucketed_regimes(fit, width)):
        if not regime.fitted or regime.label not in priors:
            continue
        grid = regime.curve_scale.grid(GRID_SIZE)
        rng = np.random.default_rng([fit.settings.random_seed, k, 61])
        drawn = draw_regime(regime, fit.prior_settings, _DRAWS, rng)
        drop = curve_in_points(regime, drawn.flat_coefficients[:, 0], grid)
        optimum = read_optimum(grid, drop, limits.near)
        outcome, probability = decide_optimum(optimum, curve_height(drop), priors[regime.label], limits)
        low, high = np.exp(interval(optimum.log_mcb))
        at = np.nan if width is None else width
        middle = float(np.exp(np.median(optimum.log_mcb)))
        rows.append((at, regime.label, outcome, probability, middle, float(low), float(high)))
    return rows


def _bucketed_regimes(fit: Fit, width: float | None) -> tuple[RegimeDesign, ...]:
    """Return the fit's regimes with mCB from rounded counts; all else, the weights included, as in the fit."""
    table, whole, first = fit.population.table, fit.population.original, fit.recipes.first
    mcb = mean_computation_budget(
        table["macs"].to_numpy()[first],
        table["params"].to_numpy()[first],
        whole.macs,
        whole.params,
        bucket_width=width,
    )
    recipes, weights = fit.recipes.table, np.ones(first.size)
    parts = zip(fit.regimes, fit.spread_changes, fit.recipes.members, strict=True)
    for regime, change, mine in parts:
        if change is not None:
            weights[mine] = precision_weights(recipes.iloc[mine], regime, change)
    return prepare_regimes(replace(fit.recipes, table=recipes.assign(log_mcb=np.log(mcb))), weights)
