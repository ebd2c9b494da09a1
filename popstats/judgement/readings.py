"""What verdicts need of draws: pure functions, one number (or truth value) a draw, testable by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from popstats.inference.optimum import NEAR_OPTIMAL_POINTS, OptimumDraws, interval

__all__ = [
    "SecondRegion",
    "curve_height",
    "has_optimum",
    "is_flat",
    "least_rise",
    "leave_one_out_gain",
    "lucky_share",
    "near_stretches",
    "optimum_trend",
    "second_region",
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Grid points (of 161 over the observed range) below which a stretch is a speck.
SHORTEST_STRETCH = 3
#: Shuffles behind the p value of C4, and the difference in points below which two of them are one.
SHUFFLES, _TIE = 2000, 1e-12


def least_rise(optimum: OptimumDraws) -> FloatArray:
    """Return how far the lower of the two ends lies above the minimum, points, shape (S,)."""
    return np.minimum(optimum.rise_lower, optimum.rise_upper)


def has_optimum(optimum: OptimumDraws, rise: float) -> BoolArray:
    """Return whether the minimum is interior and both ends lie more than `rise` points above it, (S,)."""
    return np.asarray(optimum.interior & (least_rise(optimum) > rise))


def curve_height(drop: FloatArray) -> FloatArray:
    """Return each curve's highest minus lowest value over the observed range, points, (S, G) -> (S,)."""
    return np.asarray(np.ptp(drop, axis=1))


def is_flat(height: FloatArray, rise: float) -> bool:
    """Return whether the whole interval of the curve's height, shape (S,), lies below `rise` points."""
    return bool(interval(height)[1] < rise)


@dataclass(frozen=True, eq=False)
class SecondRegion:
    """A second good region beside the optimum.

    Attributes
    ----------
    probability : float
        Share of draws that have one.
    log_mcb : float
        Where it lies (median over those draws); NaN if none has one.
    regions : tuple of (float, float, float), length 2
        Lower end, argmin and upper end of the left and of the right region, log mCB, medians over the draws that
        have both, whichever of the two is the lower one in a draw; empty if none has. The ends are where the curve
        has risen by `near` above the region's own minimum.
    """

    probability: float
    log_mcb: float
    regions: tuple[tuple[float, float, float], ...] = ()


def second_region(
    grid: FloatArray, drop: FloatArray, bump: float, near: float = NEAR_OPTIMAL_POINTS
) -> SecondRegion:
    """Look for a second minimum, as good within `bump` points, behind a bump of more than `bump` points.

    Parameters
    ----------
    grid : numpy.ndarray, shape (G,)
        log mCB.
    drop : numpy.ndarray, shape (S, G)
        Draws of the expected drop, points.
    bump : float
        Least height above both minima, and largest difference between them.
    near : float
        Height of a region above its own minimum, points.
    """
    position = drop.argmin(axis=1)
    limit = drop.min(axis=1)
    found = np.full(drop.shape[0], np.nan)
    best = np.full(drop.shape[0], np.inf)
    for side in (1, -1):
        values, start = (drop, position) if side > 0 else (drop[:, ::-1], grid.size - 1 - position)
        after = np.arange(grid.size)[None, :] >= start[:, None]
        wall = np.maximum.accumulate(np.where(after, values, -np.inf), axis=1)
        good = after & (wall - values > bump) & (values - limit[:, None] <= bump)
        lowest = np.where(good, values, np.inf)
        where = lowest.argmin(axis=1)
        least = lowest[np.arange(drop.shape[0]), where]
        better = least < best
        best = np.where(better, least, best)
        found = np.where(better, grid[where if side > 0 else grid.size - 1 - where], found)
    have = np.isfinite(best)
    if not have.any():
        return SecondRegion(0.0, float("nan"))
    other = np.searchsorted(grid, found[have] - 0.5 * (grid[1] - grid[0]))
    ends = np.sort(np.stack([position[have], other], axis=1), axis=1)
    return SecondRegion(
        float(have.mean()), float(np.median(found[have])), _two_regions(grid, drop[have], ends, near)
    )


def _two_regions(
    grid: FloatArray, drop: FloatArray, minima: npt.NDArray[np.int64], near: float
) -> tuple[tuple[float, float, float], ...]:
    """Return lower end, argmin and upper end of both regions, medians over the draws."""
    rows, steps = np.arange(drop.shape[0]), np.arange(grid.size)
    regions = []
    for position in minima.T:
        high = drop > (drop[rows, position] + near)[:, None]
        before = np.where(high & (steps < position[:, None]), steps, -1).max(axis=1) + 1
        after = np.where(high & (steps > position[:, None]), steps, grid.size).min(axis=1) - 1
        low, middle, up = (float(np.median(grid[index])) for index in (before, position, after))
        regions.append((low, middle, up))
    return tuple(regions)


def near_stretches(
    grid: FloatArray, drop: FloatArray, optimum: OptimumDraws, near: float
) -> tuple[tuple[float, float], ...]:
    """Return the near-optimal range and every other stretch of mCB that is as good, log mCB.

    Parameters
    ----------
    grid : numpy.ndarray, shape (G,)
        log mCB.
    drop : numpy.ndarray, shape (S, G)
        Draws of the expected drop, points.
    optimum : OptimumDraws
        Read off the same draws.
    near : float
        Height of the near-optimal range, points.

    Returns
    -------
    tuple of (float, float)
        First the range around the optimum, its ends medians over the draws; then, in ascending order, the
        stretches beside it where the expected drop is within `near` points of the minimum with a probability of
        one half or more.
    """
    main = float(np.median(optimum.near_lower)), float(np.median(optimum.near_upper))
    inside = (drop <= drop.min(axis=1, keepdims=True) + near).mean(axis=0) >= 0.5
    steps = np.diff(np.concatenate([[0], inside.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1
    long = stops - starts + 1 >= SHORTEST_STRETCH
    found = [(float(grid[a]), float(grid[b])) for a, b in zip(starts[long], stops[long], strict=True)]
    return main, *((low, high) for low, high in found if high < main[0] or low > main[1])


def optimum_trend(log_mcb: FloatArray, aggressiveness: FloatArray) -> FloatArray:
    """Return the change of the optimum from the mildest to the most aggressive regime, log mCB, (S,).

    A line through the regimes' optima in each draw; regimes count by the inverse of their variance over draws.

    Parameters
    ----------
    log_mcb : numpy.ndarray, shape (S, K)
        Draws of the optima.
    aggressiveness : numpy.ndarray, shape (K,)
        -log(1 - reduction) of the regimes.
    """
    weight = 1.0 / np.maximum(log_mcb.var(axis=0), 1e-8)
    weight = weight / weight.sum()
    distance = aggressiveness - weight @ aggressiveness
    slope = (log_mcb * (weight * distance)).sum(axis=1) / (weight @ distance**2)
    return np.asarray(slope * np.ptp(aggressiveness))


def leave_one_out_gain(limit: FloatArray, log_mcb: FloatArray, aggressiveness: FloatArray) -> FloatArray:
    """Return how much knowing the optimal mCB lowers the error of a left-out regime's limit, points, (S,).

    Root mean squared leave-one-regime-out error of limit ~ 1 + a, minus that of limit ~ 1 + a + log mCB.

    Parameters
    ----------
    limit, log_mcb : numpy.ndarray, shape (S, K)
        Joint draws of the limits (points) and the optima.
    aggressiveness : numpy.ndarray, shape (K,)
        log(1 - reduction) of the regimes.
    """
    base = np.broadcast_to(
        np.stack([np.ones_like(aggressiveness), aggressiveness], axis=-1), (*limit.shape, 2)
    )
    full = np.concatenate([base, log_mcb[..., None]], axis=-1)
    return _leave_one_out_error(base, limit) - _leave_one_out_error(full, limit)


def lucky_share(
    limit: FloatArray, log_mcb: FloatArray, aggressiveness: FloatArray, rng: np.random.Generator
) -> float:
    """Return how often optimal mCBs dealt out to the regimes at random lower the error as much.

    What log(1 - reduction) says of the optimal mCB stays with the regime; the rest of it is shuffled, so that
    nothing but its relation to the limit is lost.

    Parameters
    ----------
    limit, log_mcb : numpy.ndarray, shape (K,)
        The regimes' limits (points) and optima.
    aggressiveness : numpy.ndarray, shape (K,)
        log(1 - reduction) of the regimes.
    rng : numpy.random.Generator

    Returns
    -------
    float
        A p value: share of shuffles, the order as it is among them, that lower the leave-one-out error by as much
        or more.

    References
    ----------
    Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060, table 2 (Smith's method: what other regressors leave
    of the one that is tested is shuffled).
    """
    base = np.stack([np.ones_like(aggressiveness), aggressiveness], axis=-1)
    rest = log_mcb - base @ np.linalg.lstsq(base, log_mcb, rcond=None)[0]
    shuffled = np.vstack([rest, rng.permuted(np.tile(rest, (SHUFFLES, 1)), axis=1)])
    gain = leave_one_out_gain(np.tile(limit, (len(shuffled), 1)), shuffled, aggressiveness)
    return float((gain >= gain[0] - _TIE).mean())


def _leave_one_out_error(design: FloatArray, y: FloatArray) -> FloatArray:
    inverse = np.linalg.pinv(np.einsum("ski,skj->sij", design, design))
    beta = np.einsum("sij,skj,sk->si", inverse, design, y)
    leverage = np.einsum("ski,sij,skj->sk", design, inverse, design)
    residual = y - np.einsum("ski,si->sk", design, beta)
    # Leave-one-out residuals of least squares; a regime with leverage 1 cannot be predicted from the others.
    left_out = residual / np.clip(1.0 - leverage, 1e-6, None)
    return np.asarray(np.sqrt((left_out**2).mean(axis=1)))
