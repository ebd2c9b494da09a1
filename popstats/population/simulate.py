"""Populations with a known truth, for tests, teaching and calibration.

Recipes scatter over log mCB inside regimes of (almost) constant MACs, as those of `generate` do; their drop
follows a named curve, or an additive law in the layers' widths that knows nothing of mCB. What a fit should
find is kept in the population's metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray, IntArray
from popstats.errors import PopulationError
from popstats.population.regimes import mean_computation_budget, reduction, regime_label
from popstats.population.table import Original, Population
from popstats.population.truths import TRUTHS, LayerChain, additive_curve, additive_drop, answer, draw_widths

#: log mCB and the regime's target -> expected drop, points.
TrueCurve = Callable[[FloatArray, float], FloatArray]

#: CIFAR ResNet-56 with 1x1 shortcuts: its costs make simulated tables look like real ones.
ORIGINAL = Original(macs=125_747_840, params=855_770, accuracy=93.0)
#: Name of the truth without any mCB mechanism.
ADDITIVE = "additive-widths"
NOISE_KINDS = ("normal", "heavy", "skewed", "growing")
#: Standard positions u = -1 and 1 lie this far from the centre in log mCB ...
HALF_RANGE = 0.5
#: ... and recipes reach a little further, thinning out, so that 95 % of them lie within about +-1.
REACH = 1.2
#: MACs of a regime's recipes scatter by this share of the target around it.
MACS_JITTER = 0.005
#: Recipes stay this far (log mCB) above the feasible end, log(1 - reduction), where every parameter is kept.
MARGIN = 0.01
#: The observed range of log mCB: its central 95 %.
OBSERVED = (0.025, 0.975)
#: Name in the column `network`: of costs alone, and of the chain of layers.
NETWORKS = ("simulated", "simulated-chain")
#: Expected drop at the optimum, points: grows with -log(1 - reduction), and with the reduction inside a regime.
LEVEL, LEVEL_PER_LOG, DROP_PER_REDUCTION = 0.3, 1.5, 10.0
#: Degrees of freedom of the heavy-tailed noise: the fewest whose variance exists.
HEAVY_FREEDOM = 3
#: The "growing" noise rises threefold over the range.
GROWTH = 3.0


@dataclass(frozen=True)
class _Recipes:
    """Subnetworks before training: costs (n,) int, truth (n,) points, position (n,) in standard units."""

    macs: IntArray
    params: IntArray
    expected: FloatArray
    position: FloatArray
    curve: Callable[[FloatArray], FloatArray]
    widths: IntArray | None = None


def simulate_population(
    truth: str | TrueCurve = "quadratic",
    regimes: Sequence[float] = (0.5, 0.7, 0.85),
    n: int = 100,
    rise: float = 0.4,
    noise: float = 0.15,
    noise_kind: str = "normal",
    seeds: int = 1,
    seed_noise: float = 0.0,
    seed: int = 0,
    centre: float = 0.0,
) -> Population:
    """Simulate a population whose truth is known.

    Parameters
    ----------
    truth : str or callable
        One of `popstats.population.truths.TRUTHS`, "additive-widths" (concave terms in the log widths of six layers and
        no mCB mechanism), or a function of log mCB (shape (m,)) and the regime's target (fraction removed)
        that returns the expected drop in percentage points at the regime's centre.
    regimes : sequence of float
        Targets on the MACs axis, fractions removed, each in (0, 1).
    n : int
        Recipes per regime.
    rise : float
        Height of the named curve at the ends of the range above its minimum, points (the scale of the widths'
        effect for "additive-widths"; not used by "flat", "negligible" and callables).
    noise : float
        Standard deviation of what separates recipes of equal mCB, points.
    noise_kind : {"normal", "heavy", "skewed", "growing"}
        Its shape: normal, Student-t with 3 degrees of freedom, exponential to the right, or normal with a
        spread that grows threefold over the range. All have mean 0; the first three have the given deviation,
        the last has it in the middle of the range.
    seeds : int
        Trainings per recipe.
    seed_noise : float
        Standard deviation between trainings of one recipe, points; normal.
    seed : int
        The same arguments and seed give the same population.
    centre : float
        log mCB around which the recipes of each regime scatter (by about +-0.5); for "additive-widths" it
        follows from the widths.

    Returns
    -------
    Population
        With `metadata["truth"]`: "name", "mechanism" ("mcb", "widths" or "none") and "regimes", which maps a
        regime's label to what `popstats.population.truths.answer` returns.

    Raises
    ------
    PopulationError
        If the truth or the kind of noise is unknown, a size is not positive, or a regime leaves no room for
        recipes around `centre`.

    Examples
    --------
    >>> population = simulate_population("quadratic", regimes=[0.5], n=50)
    >>> len(population), round(population.metadata["truth"]["regimes"]["0.50"]["mcb"], 2)
    (50, 1.0)
    """
    legal, counts, spreads = (*TRUTHS, ADDITIVE), min(n, seeds), min(noise, seed_noise)
    inside = len(regimes) > 0 and all(0.0 < target < 1.0 for target in regimes)
    checks = {
        f"truth: expected one of {', '.join(legal)}, or a function; got {truth!r}": callable(truth) or truth in legal,
        f"noise_kind: expected one of {', '.join(NOISE_KINDS)}; got {noise_kind!r}": noise_kind in NOISE_KINDS,
        f"regimes: expected fractions removed, each in (0, 1), got {list(regimes)}": inside,
        f"expected at least one recipe per regime and one seed per recipe, got n={n}, seeds={seeds}": counts > 0,
        f"expected noise and seed_noise >= 0 points, got {noise} and {seed_noise}": spreads >= 0.0,
        f"seed: expected a whole number from 0 on, got {seed!r}": isinstance(seed, Integral) and seed >= 0,
    }  # fmt: skip
    for problem in (said for said, right in checks.items() if not right):
        raise PopulationError(problem)
    chain, name = LayerChain(), truth if isinstance(truth, str) else getattr(truth, "__name__", "callable")
    original = Original(*chain.original, ORIGINAL.accuracy) if truth == ADDITIVE else ORIGINAL
    streams = np.random.default_rng(seed).spawn(len(regimes))
    frames, answers = [], {}
    for target, rng in zip(sorted(regimes), streams, strict=True):
        if truth == ADDITIVE:
            recipes = _additive_recipes(chain, target, n, rise, rng)
        else:
            recipes = _scattered_recipes(truth, target, n, rise, centre, rng)
        drop = recipes.expected + _noise(noise_kind, noise, recipes.position, rng)
        frame = _table(recipes, target, drop[:, None] + seed_noise * rng.normal(size=(n, seeds)))
        frames.append(frame)
        mcb = mean_computation_budget(frame["macs"], frame["params"], original.macs, original.params)
        low, high = np.quantile(np.log(mcb), OBSERVED)
        answers[regime_label(target)] = answer(recipes.curve, target, (float(low), float(high)))
    mechanism = {ADDITIVE: "widths", "flat": "none"}.get(name, "mcb")
    metadata = {"truth": {"name": name, "mechanism": mechanism, "regimes": answers}}
    table = pd.concat(frames, ignore_index=True)
    made = f"simulated-{name}"
    return Population.from_frame(table, original=original, accuracy_kind="last", name=made, metadata=metadata)


def _additive_recipes(
    chain: LayerChain, target: float, n: int, rise: float, rng: np.random.Generator
) -> _Recipes:
    widths = draw_widths(chain, target, n, rng)
    return _Recipes(
        macs=chain.macs(widths).astype(np.int64),
        params=chain.params(widths).astype(np.int64),
        expected=additive_drop(chain, widths, rise),
        position=chain.log_mcb(widths) / HALF_RANGE,
        curve=rise * additive_curve(chain, target),
        widths=widths,
    )


def _scattered_recipes(
    truth: str | TrueCurve, target: float, n: int, rise: float, centre: float, rng: np.random.Generator
) -> _Recipes:
    low = max(centre - REACH * HALF_RANGE, float(np.log1p(-target)) + MARGIN)
    high = centre + REACH * HALF_RANGE
    if high - low < HALF_RANGE:
        raise PopulationError(
            f"centre: at a MACs reduction of {target:g} no log mCB lies below {np.log1p(-target):.2f} "
            f"(it would need more parameters than the original); {centre:g} leaves no room"
        )
    middle, half = (low + high) / 2.0, (high - low) / 2.0 / REACH
    level = LEVEL - LEVEL_PER_LOG * float(np.log1p(-target))

    def curve(log_mcb: FloatArray) -> FloatArray:
        if not isinstance(truth, str):
            return np.asarray(truth(log_mcb, target), dtype=np.float64)
        return level + TRUTHS[truth]((log_mcb - middle) / half, rise)

    macs = np.rint(ORIGINAL.macs * ((1.0 - target) * (1.0 + MACS_JITTER * rng.uniform(-1.0, 1.0, n))))
    wanted = middle + half * REACH * (2.0 * rng.beta(2.0, 2.0, n) - 1.0)
    params = np.rint(ORIGINAL.params * macs / ORIGINAL.macs / np.exp(wanted))
    # The truth is read at the ratio of the whole-numbered costs, so that table and truth agree exactly.
    log_mcb = np.log(mean_computation_budget(macs, params, ORIGINAL.macs, ORIGINAL.params))
    offset = reduction(macs, ORIGINAL.macs) - target
    return _Recipes(
        macs=macs.astype(np.int64),
        params=params.astype(np.int64),
        expected=curve(log_mcb) + DROP_PER_REDUCTION * offset,
        position=(log_mcb - middle) / half,
        curve=curve,
    )


def _noise(kind: str, deviation: float, position: FloatArray, rng: np.random.Generator) -> FloatArray:
    size = position.shape
    if kind == "heavy":
        spread = float(np.sqrt(HEAVY_FREEDOM / (HEAVY_FREEDOM - 2.0)))
        return rng.standard_t(HEAVY_FREEDOM, size) * (deviation / spread)
    if kind == "skewed":
        return (rng.exponential(1.0, size) - 1.0) * deviation
    shape = rng.normal(size=size)
    if kind == "growing":
        shape *= 1.0 + (GROWTH - 1.0) / (GROWTH + 1.0) * np.clip(position, -1.0, 1.0)
    return shape * deviation


def _table(recipes: _Recipes, target: float, drops: FloatArray) -> pd.DataFrame:
    """Return one row per training, in the order of `drops` (recipes, seeds)."""
    recipe, seed = (places.ravel() for places in np.indices(drops.shape))
    columns = {
        "recipe_id": [f"{regime_label(target)}-{number:05d}" for number in recipe],
        "network": NETWORKS[recipes.widths is not None],
        "regime_axis": "macs",
        "regime_target": target,
        "macs": recipes.macs[recipe],
        "params": recipes.params[recipe],
        "seed": seed,
        "accuracy": ORIGINAL.accuracy - drops.ravel(),
        "status": "done",
    }
    frame = pd.DataFrame(columns)
    if recipes.widths is None:
        return frame
    names = [f"conv{layer}" for layer in range(1, recipes.widths.shape[1] + 1)]
    widths = pd.Series(recipes.widths[recipe].tolist(), index=frame.index)
    return frame.assign(widths=widths, group_names=pd.Series([names] * len(frame), index=frame.index))
