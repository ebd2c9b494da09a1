"""Known truths for simulated populations: curves of drop against log mCB, and the answers they imply.

A truth is drawn over the *standard* range: u = -1 and u = 1 are about the ends of the observed range of
log mCB, whatever the regime. Every named curve is zero at its minimum (or everywhere) there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from popstats.arrays import FloatArray

Curve = Callable[[FloatArray, float], FloatArray]

#: Height of the near-optimal range above the minimum, percentage points.
NEAR_OPTIMAL = 0.05
#: Rise of the truth "negligible", points: just under the 0.1 that a claim of an optimum requires.
NEGLIGIBLE_RISE = 0.09
#: Grid points on which a truth is read off; 0.0005 in log mCB over a range of one.
_GRID = 2001


#: Truth by name: function of the standard position u and of the rise in points.
TRUTHS: Mapping[str, Curve] = MappingProxyType(
    {
        "quadratic": lambda u, rise: rise * u**2,
        "asymmetric": lambda u, rise: rise * u**2 * np.where(u < 0, 5.0, 1.0),
        "narrow": lambda u, rise: rise * (1.0 - np.exp(-((u / 0.25) ** 2))),
        # Valleys at u = -0.7 and 0.7, a bump of height `rise` between; the tilt makes the left one deeper.
        "w": lambda u, rise: rise * (4.0 * (u**2 - 0.5) ** 2 + 0.15 * (u + np.sqrt(0.5))),
        "flat": lambda u, rise: np.zeros_like(u),
        "linear": lambda u, rise: rise * (u + 1.0) / 2.0,
        "saturating-8": lambda u, rise: rise * np.exp(-8.0 * (u + 1.0) / 2.0),
        "saturating-12": lambda u, rise: rise * np.exp(-12.0 * (u + 1.0) / 2.0),
        "plateau-then-rise": lambda u, rise: rise * np.maximum(u, 0.0) ** 2,
        "edge": lambda u, rise: rise * ((u - 1.0) / 2.0) ** 2,
        # The vertex lies half a half-range outside; scaled so that the curve falls by `rise` over the range.
        "beyond-edge": lambda u, rise: rise * ((u - 1.5) ** 2 - 0.25) / 6.0,
        "negligible": lambda u, rise: NEGLIGIBLE_RISE * u**2,
    }
)


def answer(
    expected_drop: Callable[[FloatArray], FloatArray], target: float, observed: tuple[float, float]
) -> dict[str, float | bool | None]:
    """Return what a fit of a regime should find, from the true curve; mCB as ratios, drops in points."""
    grid = np.linspace(*observed, _GRID)
    drop = np.asarray(expected_drop(grid), dtype=np.float64)
    best = int(drop.argmin())
    limit = float(drop[best])
    above = np.flatnonzero(drop > limit + NEAR_OPTIMAL)
    left, right = above[above < best], above[above > best]
    original = float(expected_drop(np.zeros(1))[0]) if observed[0] <= 0.0 <= observed[1] else None
    return {
        "target": target,
        "observed_lower": float(np.exp(observed[0])),
        "observed_upper": float(np.exp(observed[1])),
        "mcb": float(np.exp(grid[best])),
        "limit": limit,  # at the regime's centre
        # mCB around the argmin up to which the expected drop stays within 0.05 points of the limit
        "near_lower": float(np.exp(grid[left[-1] + 1 if left.size else 0])),
        "near_upper": float(np.exp(grid[right[0] - 1 if right.size else -1])),
        # how far the two ends of the observed range lie above the limit
        "rise_lower": float(drop[0]) - limit,
        "rise_upper": float(drop[-1]) - limit,
        "interior": 0 < best < _GRID - 1,
        # None where mCB = 1 was not observed
        "regret_at_original": None if original is None else max(original - limit, 0.0),
    }
