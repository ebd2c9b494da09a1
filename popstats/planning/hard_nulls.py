"""Populations without an optimum that look like published tables: mCB tied to cost, clusters, families, wide regimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.population.table import Original, Population

#: Centres of the regimes, and their half-width (fractions removed).
REGIMES, HALF_WIDTH = (0.5, 0.7, 0.85), 0.05
#: The original network.
ORIGINAL = Original(macs=10**11, params=10**9, accuracy=95.0)
#: Spread of log mCB, points by which the drop falls or rises over its range, and noise of the recipes, points.
SPREAD, RISE, NOISE = 0.25, 0.4, 0.15
#: The wide regime: its centre, and the factor in MACs that it spans.
WIDE, FACTOR = 0.99, 100.0

Rows = tuple[FloatArray, FloatArray, FloatArray]  # Remaining MACs (a share), log mCB, drop (points).


def _tied(correlation: float) -> Callable[[float, int, np.random.Generator], Rows]:
    """Return regimes whose log mCB follows log MACs; the drop saturates in mCB and bends in MACs."""

    def draw(target: float, n: int, rng: np.random.Generator) -> Rows:
        macs, cost = _costs(target, n, rng)
        own = rng.standard_normal(n)
        log_mcb = SPREAD * (correlation * cost + np.sqrt(1.0 - correlation**2) * own)
        drop = 0.3 * cost + 0.15 * cost**2 + RISE * np.exp(-2.0 * (log_mcb / SPREAD + 2.0))
        return macs, log_mcb, drop

    return draw


def _kink(target: float, n: int, rng: np.random.Generator) -> Rows:
    """Draw recipes whose drop has a kink in MACs at the centre, which mCB follows in part, and none in mCB."""
    macs, cost = _costs(target, n, rng)
    log_mcb = SPREAD * (0.7 * cost + np.sqrt(0.51) * rng.standard_normal(n))
    return macs, log_mcb, RISE * np.abs(cost)


def _clusters(target: float, n: int, rng: np.random.Generator) -> Rows:
    """Draw six clusters of recipes in mCB, whose levels differ by anything."""
    macs, cost = _costs(target, n, rng)
    kind = rng.integers(0, 6, n)
    log_mcb = np.linspace(-2.0, 2.0, 6)[kind] * SPREAD + 0.01 * SPREAD * rng.standard_normal(n)
    return macs, log_mcb, 0.3 * cost + rng.normal(0.0, RISE, 6)[kind]


def _wide_clusters(target: float, n: int, rng: np.random.Generator) -> Rows:
    """Draw eight clusters that cover most of the range, whose levels differ by anything."""
    macs, cost = _costs(target, n, rng)
    kind = rng.integers(0, 8, n)
    log_mcb = (np.linspace(-2.0, 2.0, 8)[kind] + rng.uniform(-0.15, 0.15, n)) * SPREAD
    return macs, log_mcb, 0.3 * cost + rng.normal(0.0, RISE / 2.0, 8)[kind]


def _families(target: float, n: int, rng: np.random.Generator) -> Rows:
    """Draw families of four networks of nearly the same costs, whose levels differ by anything."""
    family = rng.integers(0, max(n // 4, 2), n)
    macs, _ = _costs(target, int(family.max()) + 1, rng)
    centre = 2.0 * SPREAD * rng.uniform(-1.0, 1.0, macs.size)
    log_mcb = centre[family] + 0.02 * SPREAD * rng.standard_normal(n)
    return macs[family], log_mcb, rng.normal(0.0, 2.0 * NOISE, macs.size)[family]


def _wide(target: float, n: int, rng: np.random.Generator) -> Rows:
    """Draw a regime that spans a factor of 100 in MACs; the drop rises with mCB at equal MACs."""
    cost = rng.uniform(-0.5, 0.5, n) * np.log(FACTOR)
    macs = (1.0 - target) * np.exp(cost)
    log_mcb = 0.4 * cost + rng.normal(0.0, 0.35, n) - 0.7
    return macs, log_mcb, 1.5 * macs**-0.4 + 2.5 * log_mcb


def _costs(target: float, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return remaining MACs inside a regime, and their logarithm in standard deviations."""
    macs = 1.0 - target + rng.uniform(-HALF_WIDTH, HALF_WIDTH, n)
    cost = np.log(macs)
    return macs, (cost - cost.mean()) / cost.std()


#: Null by name: draws the recipes of one regime, given its centre, their number, and a generator.
HARD_NULLS: Mapping[str, Callable[[float, int, np.random.Generator], Rows]] = {
    "correlated-0.90": _tied(0.90),
    "correlated-0.97": _tied(0.97),
    "kink-in-macs": _kink,
    "six-clusters": _clusters,
    "eight-wide-clusters": _wide_clusters,
    "families": _families,
    "wide-regime": _wide,
}


def simulate_null(name: str, n: int, seed: int) -> tuple[Population, dict[float, float]]:
    """Return a population without an optimum, n recipes per regime, and its regimes with their half-widths."""
    rng = np.random.default_rng([seed, sorted(HARD_NULLS).index(name)])
    wide = name == "wide-regime"
    parts = [HARD_NULLS[name](target, n, rng) for target in ((WIDE,) if wide else REGIMES)]
    macs, log_mcb, drop = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    params = macs / np.exp(log_mcb)
    noisy = drop + (0.8 if wide else NOISE) * rng.standard_normal(drop.size)
    columns = {"macs": np.rint(macs * ORIGINAL.macs), "params": np.rint(params * ORIGINAL.params)}
    table = pd.DataFrame(columns).astype(np.int64).assign(accuracy=ORIGINAL.accuracy - noisy)
    kept = table[(table["params"] <= ORIGINAL.params) & table["accuracy"].between(0.0, 100.0)]
    regimes = {WIDE: 0.5} if wide else dict.fromkeys(REGIMES, HALF_WIDTH + 1e-6)
    return Population.from_frame(kept.reset_index(drop=True), original=ORIGINAL), regimes
