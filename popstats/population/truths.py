"""Known truths for simulated populations: curves of drop against log mCB, and the answers they imply.

A truth is drawn over the *standard* range: u = -1 and u = 1 are about the ends of the observed range of
log mCB, whatever the regime. Every named curve is zero at its minimum (or everywhere) there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

import numpy as np

from popstats.arrays import FloatArray

Curve = Callable[[FloatArray, float], FloatArray]

#: Height of the near-optimal range above the minimum, percentage points.
NEAR_OPTIMAL = 0.05
#: Rise of the truth "negligible", points: just under the 0.1 that a claim of an optimum asks for.
NEGLIGIBLE_RISE = 0.09
#: Grid points on which a truth is read off; 0.0005 in log mCB over a range of one.
_GRID = 2001


def _quadratic(u: FloatArray, rise: float) -> FloatArray:
    return rise * u**2


def _asymmetric(u: FloatArray, rise: float) -> FloatArray:
    return rise * u**2 * np.where(u < 0, 5.0, 1.0)


def _narrow(u: FloatArray, rise: float) -> FloatArray:
    return rise * (1.0 - np.exp(-((u / 0.25) ** 2)))


def _w(u: FloatArray, rise: float) -> FloatArray:
    # Valleys at u = -0.7 and 0.7, a bump of height `rise` between; the tilt makes the left one deeper.
    tilted: FloatArray = 4.0 * (u**2 - 0.5) ** 2 + 0.15 * (u + np.sqrt(0.5))
    return rise * tilted


def _flat(u: FloatArray, rise: float) -> FloatArray:
    return np.zeros_like(u)


def _linear(u: FloatArray, rise: float) -> FloatArray:
    return rise * (u + 1.0) / 2.0


def _saturating(rate: float) -> Curve:
    return lambda u, rise: rise * np.exp(-rate * (u + 1.0) / 2.0)


def _plateau_then_rise(u: FloatArray, rise: float) -> FloatArray:
    return rise * np.maximum(u, 0.0) ** 2


def _edge(u: FloatArray, rise: float) -> FloatArray:
    return rise * ((u - 1.0) / 2.0) ** 2


def _beyond_edge(u: FloatArray, rise: float) -> FloatArray:
    # The vertex lies half a half-range outside; scaled so that the curve falls by `rise` over the range.
    return rise * ((u - 1.5) ** 2 - 0.25) / 6.0


def _negligible(u: FloatArray, rise: float) -> FloatArray:
    return NEGLIGIBLE_RISE * u**2


#: Truth by name: function of the standard position u and of the rise in points.
TRUTHS: Mapping[str, Curve] = MappingProxyType(
    {
        "quadratic": _quadratic,
        "asymmetric": _asymmetric,
        "narrow": _narrow,
        "w": _w,
        "flat": _flat,
        "linear": _linear,
        "saturating-8": _saturating(8.0),
        "saturating-12": _saturating(12.0),
        "plateau-then-rise": _plateau_then_rise,
        "edge": _edge,
        "beyond-edge": _beyond_edge,
        "negligible": _negligible,
    }
)


@dataclass(frozen=True)
class Answer:
    """What a fit of one simulated regime should find; mCB as ratios, drops in percentage points."""

    target: float  # Centre of the regime, fraction removed.
    # observed_lower, observed_upper: Central 95 % of the rows' mCB.
    observed_lower: float
    observed_upper: float
    mcb: float  # Argmin of the expected drop inside the observed range.
    limit: float  # The expected drop there, at the regime's centre.
    # near_lower, near_upper: mCB around the argmin up to which the expected drop stays within 0.05 points of
    # the limit.
    near_lower: float
    near_upper: float
    # rise_lower, rise_upper: How far the two ends of the observed range lie above the limit.
    rise_lower: float
    rise_upper: float
    interior: bool  # Whether the argmin lies inside the observed range, not on its edge.
    # Expected drop at mCB = 1 minus the limit; None where 1 was not observed.
    regret_at_original: float | None

    def as_dict(self) -> dict[str, float | bool | None]:
        """Return the answer as plain values, ready for JSON."""
        return asdict(self)


def answer(
    expected_drop: Callable[[FloatArray], FloatArray], target: float, observed: tuple[float, float]
) -> Answer:
    """Read the answer off a true curve."""
    grid = np.linspace(*observed, _GRID)
    drop = np.asarray(expected_drop(grid), dtype=np.float64)
    best = int(drop.argmin())
    limit = float(drop[best])
    above = np.flatnonzero(drop > limit + NEAR_OPTIMAL)
    left, right = above[above < best], above[above > best]
    lower = grid[left[-1] + 1] if left.size else grid[0]
    upper = grid[right[0] - 1] if right.size else grid[-1]
    original = float(expected_drop(np.zeros(1))[0]) if observed[0] <= 0.0 <= observed[1] else None
    return Answer(
        target=target,
        observed_lower=float(np.exp(observed[0])),
        observed_upper=float(np.exp(observed[1])),
        mcb=float(np.exp(grid[best])),
        limit=limit,
        near_lower=float(np.exp(lower)),
        near_upper=float(np.exp(upper)),
        rise_lower=float(drop[0]) - limit,
        rise_upper=float(drop[-1]) - limit,
        interior=0 < best < _GRID - 1,
        regret_at_original=None if original is None else max(original - limit, 0.0),
    )
