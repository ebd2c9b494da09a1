"""From draws of a curve to what users ask of it: optimum, near-optimal range, limit, regret.

All functions take the grid and draws of one regime and return one number a draw, so that any probability
or interval is a mean or a quantile over draws, and every function can be tested with hand-made curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "GRID_SIZE",
    "INTERVAL_MASS",
    "NEAR_OPTIMAL_POINTS",
    "OptimumDraws",
    "interval",
    "read_optimum",
    "value_at",
]

FloatArray = npt.NDArray[np.float64]

#: Mass of every interval of the package; equal-tailed.
INTERVAL_MASS = 0.90
#: The near-optimal range: expected drop within this many points of the minimum.
NEAR_OPTIMAL_POINTS = 0.05
#: Points of the grid over the observed range.
GRID_SIZE = 161


def interval(draws: npt.ArrayLike, mass: float = INTERVAL_MASS) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the equal-tailed interval over the first axis of `draws`.

    >>> low, high = interval(np.arange(101.0))
    >>> round(float(low), 6), round(float(high), 6)
    (5.0, 95.0)
    """
    tail = (1.0 - mass) / 2.0
    low, high = np.quantile(np.asarray(draws, dtype=np.float64), [tail, 1.0 - tail], axis=0)
    return low, high


@dataclass(frozen=True)
class OptimumDraws:
    """One regime's optimum, one number a draw; all shapes (S,).

    Attributes
    ----------
    log_mcb : numpy.ndarray
        Argmin of the expected drop over the observed range, log mCB.
    limit : numpy.ndarray
        The smallest expected drop, percentage points, corrected for two biases (see `read_optimum`).
    near_lower, near_upper : numpy.ndarray
        Ends of the near-optimal range around the argmin, log mCB.
    rise_lower, rise_upper : numpy.ndarray
        How far the two ends of the observed range lie above the minimum, points.
    interior : numpy.ndarray of bool
        Whether the argmin lies inside the observed range, not on its edge.
    regret_at_original : numpy.ndarray
        Expected drop at mCB = 1 minus the minimum, points; NaN where 1 is outside the observed range.
    """

    log_mcb: FloatArray
    limit: FloatArray
    near_lower: FloatArray
    near_upper: FloatArray
    rise_lower: FloatArray
    rise_upper: FloatArray
    interior: npt.NDArray[np.bool_]
    regret_at_original: FloatArray


def read_optimum(
    grid: FloatArray,
    drop: FloatArray,
    near: float = NEAR_OPTIMAL_POINTS,
    bias: FloatArray | None = None,
) -> OptimumDraws:
    """Read the optimum off each draw of a curve.

    Parameters
    ----------
    grid : numpy.ndarray, shape (G,)
        log mCB, equally spaced over the observed range.
    drop : numpy.ndarray, shape (S, G)
        Draws of the expected accuracy drop, points.
    near : float
        Height of the near-optimal range above the minimum, points.
    bias : numpy.ndarray, shape (G,), optional
        How far the prior has pulled the mean curve from the truth, points (`shrinkage`): positive in a
        valley that comes out too shallow. Default: not at all.

    Notes
    -----
    The minimum of an estimated curve lies below the minimum of the true one, and the minimum of a draw lies
    below that again: each draw finds its own favourable wiggle. With a draw's value at the posterior mean
    curve's argmin, v, and its own minimum, m, 2 v - m removes the bias to first order. Measured on 60 simulated
    regimes of 500: on a saturating truth 90 % intervals of m held the true limit in 35 %, of 2 v - m in 95 %.
    What the prior fills in of a narrow valley is taken off as well, at the same place: without it, intervals held
    the limit of a valley a fifth of the range wide in 70, 78 and 90 % of 102 regimes of 100, 500 and 3,000, with it
    in 86, 89 and 86 % of 201. Near-optimal range, rises and regret refer to each draw's own minimum.
    """
    position = drop.argmin(axis=1)
    argmin, limit = _parabolic_minimum(grid, drop, position)
    level = limit + near
    near_best, weights = _best_of_mean(grid, drop)
    at_best = drop[:, near_best] @ weights
    filled = 0.0 if bias is None else float(bias[near_best] @ weights)
    return OptimumDraws(
        log_mcb=argmin,
        limit=2.0 * at_best - limit - filled,
        near_lower=_crossing(grid, drop, position, level, side=-1),
        near_upper=_crossing(grid, drop, position, level, side=1),
        rise_lower=drop[:, 0] - limit,
        rise_upper=drop[:, -1] - limit,
        interior=(position > 0) & (position < grid.size - 1),
        regret_at_original=value_at(grid, drop, 0.0) - limit,
    )


def value_at(grid: FloatArray, drop: FloatArray, log_mcb: float) -> FloatArray:
    """Return each draw's expected drop at `log_mcb` (linear between grid points), NaN outside the grid."""
    if not grid[0] <= log_mcb <= grid[-1]:
        return np.full(drop.shape[0], np.nan)
    right = int(np.clip(np.searchsorted(grid, log_mcb), 1, grid.size - 1))
    share = (log_mcb - grid[right - 1]) / (grid[right] - grid[right - 1])
    return np.asarray((1.0 - share) * drop[:, right - 1] + share * drop[:, right])


def _parabolic_minimum(
    grid: FloatArray, drop: FloatArray, position: npt.NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Refine the grid minimum by the parabola through it and its neighbours; edges stay edges."""
    rows, last = np.arange(drop.shape[0]), grid.size - 1
    middle = np.clip(position, 1, last - 1)
    left, centre, right = drop[rows, middle - 1], drop[rows, middle], drop[rows, middle + 1]
    bend = left - 2.0 * centre + right
    inside = (position == middle) & (bend > 0)
    safe = np.where(inside, bend, 1.0)
    shift = np.where(inside, 0.5 * (left - right) / safe, 0.0)
    step = grid[1] - grid[0]
    argmin = np.where(inside, grid[middle] + shift * step, grid[position])
    lowest = np.where(inside, centre - 0.25 * (left - right) * shift, drop[rows, position])
    return argmin, lowest


def _best_of_mean(grid: FloatArray, drop: FloatArray) -> tuple[slice, FloatArray]:
    """Return three grid points about the mean curve's argmin, and the weights that read a parabola off there."""
    mean = drop.mean(axis=0, keepdims=True)
    position = mean.argmin(axis=1)
    argmin, _ = _parabolic_minimum(grid, mean, position)
    middle = int(np.clip(position[0], 1, grid.size - 2))
    t = float((argmin[0] - grid[middle]) / (grid[1] - grid[0]))
    weights = np.array([0.5 * t * (t - 1.0), 1.0 - t**2, 0.5 * t * (t + 1.0)])
    return slice(middle - 1, middle + 2), weights


def _crossing(
    grid: FloatArray, drop: FloatArray, position: npt.NDArray[np.intp], level: FloatArray, side: int
) -> FloatArray:
    """Where the curve first rises above `level` on one side of the minimum; the edge if it never does."""
    index = np.arange(grid.size)
    beyond = (index[None, :] - position[:, None]) * side > 0
    above = beyond & (drop > level[:, None])
    found = above.any(axis=1)
    first = above.argmax(axis=1) if side > 0 else grid.size - 1 - above[:, ::-1].argmax(axis=1)
    edge = grid.size - 1 if side > 0 else 0
    outer = np.where(found, first, edge)
    inner = np.where(found, outer - side, edge)
    rows = np.arange(drop.shape[0])
    high, low = drop[rows, outer], drop[rows, inner]
    climb = np.where(found & (high > low), high - low, 1.0)
    share = np.where(found, np.clip((level - low) / climb, 0.0, 1.0), 0.0)
    return grid[inner] + share * (grid[outer] - grid[inner])
