"""Known truths for simulated populations: curves of drop against log mCB, the answers they imply, and a chain of layers.

A curve is drawn over the *standard* range: u = -1 and u = 1 are about the ends of the observed range of
log mCB, whatever the regime. Every named curve is zero at its minimum (or everywhere) there.

The chain of convolutions is the null for every claim about mCB: its costs are exact (quadratic in the widths, as real
networks' are) and its drop is a sum of concave terms, one per layer, so any relation of drop to mCB is a shadow of the
widths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from popstats.arrays import FloatArray, IntArray
from popstats.population.regimes import mean_computation_budget, reduction

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


#: What every network of the chain reads and tells apart, and the weights of one 3 x 3 kernel.
IMAGE_CHANNELS, CLASSES, KERNEL = 3, 10, 9
#: Spread of the recipes' log widths around their common shift: log mCB then spreads by about +-0.5.
WIDTH_SPREAD = 0.6
#: Recipes drawn for each one kept: those nearest to the regime's MACs after rounding to whole channels.
DRAWN_PER_KEPT = 2
#: Halvings of the interval in which the common shift is sought; 15 * 2^-24 of a log width is below rounding.
_BISECTIONS = 24
#: Reference recipes behind the expected drop given mCB, and the degree of the polynomial through them.
_REFERENCE, _DEGREE = 20_000, 8


class Layer(NamedTuple):
    """One convolution: output channels, output pixels, and the weight of its width in the accuracy (relative)."""

    width: int
    positions: int
    importance: float


#: Six 3x3 convolutions on 32 x 32 images, halving the image twice; importances average one.
LAYERS = tuple(map(Layer._make, zip(
    (64, 96, 128, 192, 256, 384), (1024, 1024, 256, 256, 64, 64), (0.8, 1.2, 1.4, 0.6, 1.1, 0.9), strict=True,
)))  # fmt: skip


@dataclass(frozen=True)
class LayerChain:
    """Costs of the chain with any widths (n, G): whole or, between them, interpolated."""

    layers: tuple[Layer, ...] = LAYERS

    @property
    def full_widths(self) -> IntArray:
        """The original's widths, shape (G,)."""
        return np.array([layer.width for layer in self.layers], dtype=np.int64)

    @property
    def original(self) -> tuple[int, int]:
        """The original's MACs and parameters (weights)."""
        full = self.full_widths[None, :]
        return int(self.macs(full)[0]), int(self.params(full)[0])

    def macs(self, widths: npt.NDArray[np.number]) -> FloatArray:
        """Return the MACs of one input, shape (n,)."""
        return self._cost(widths, np.array([*(layer.positions for layer in self.layers), 1.0]))

    def params(self, widths: npt.NDArray[np.number]) -> FloatArray:
        """Return the number of weights, shape (n,)."""
        return self._cost(widths, np.ones(len(self.layers) + 1))

    def _cost(self, widths: npt.NDArray[np.number], factor: FloatArray) -> FloatArray:
        ends = ((0, 0), (1, 1))
        channels = np.pad(widths, ends, constant_values=((0, 0), (IMAGE_CHANNELS, CLASSES)))
        kernels = np.array([*[KERNEL] * len(self.layers), 1], dtype=np.float64)
        return np.asarray((channels[:, :-1] * channels[:, 1:]) @ (kernels * factor))

    def log_mcb(self, widths: npt.NDArray[np.number]) -> FloatArray:
        """Return the log mCB, shape (n,)."""
        return np.log(mean_computation_budget(self.macs(widths), self.params(widths), *self.original))


def draw_widths(chain: LayerChain, target: float, n: int, rng: np.random.Generator) -> IntArray:
    """Draw recipes at one MACs reduction, shape (n, G)."""
    direction = rng.normal(0.0, WIDTH_SPREAD, size=(DRAWN_PER_KEPT * n, len(chain.layers)))
    budget = (1.0 - target) * chain.original[0]

    def shifted(shift: FloatArray) -> FloatArray:
        return np.asarray(chain.full_widths * np.exp(np.minimum(direction + shift[:, None], 0.0)))

    low, high = np.full(len(direction), -10.0), np.full(len(direction), 5.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        over = chain.macs(shifted(middle)) > budget
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    widths = np.maximum(np.rint(shifted(low)), 1.0).astype(np.int64)
    nearest = np.argsort(np.abs(chain.macs(widths) - budget), kind="stable")[:n]
    return widths[np.sort(nearest)]


def additive_drop(chain: LayerChain, widths: IntArray, rise: float) -> FloatArray:
    """Return the expected drop of each recipe: rise x importance x (l + l^2), l = -log(width / full width), (n,)."""
    narrowing: FloatArray = -np.log(widths / chain.full_widths)
    importance = np.array([layer.importance for layer in chain.layers])
    return np.asarray((narrowing + narrowing**2) @ (rise * importance))


@lru_cache(maxsize=64)
def additive_curve(chain: LayerChain, target: float) -> np.polynomial.Polynomial:
    """Return the expected drop over log mCB of the recipes of one regime, at its centre, for a rise of one."""
    # Found from many recipes, because it follows from the recipes' distribution and not from a formula.
    widths = draw_widths(chain, target, _REFERENCE, np.random.default_rng(0))
    log_mcb, drop = chain.log_mcb(widths), additive_drop(chain, widths, 1.0)
    # One pass for the slope over MACs inside the regime, then the curve through what is left at its centre.
    first = np.polynomial.Polynomial.fit(log_mcb, drop, _DEGREE)
    offset = reduction(chain.macs(widths), chain.original[0]) - target
    slope = np.polyfit(offset, drop - first(log_mcb), 1)[0]
    return np.polynomial.Polynomial.fit(log_mcb, drop - slope * offset, _DEGREE)
