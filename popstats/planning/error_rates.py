"""How often the rules are right: coverage of intervals and rates of false verdicts on populations with known truth.

It stands after the verdicts because it counts them.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.inference.draws import INTERVAL_MASS, interval
from popstats.inference.model import CHAINS, Method
from popstats.judgement.analysis import Analysis
from popstats.judgement.verdicts import Thresholds
from popstats.population.simulate import simulate_population
from popstats.population.table import Original, Population
from popstats.posterior.fit import Fit, fit
from popstats.posterior.optimum import NEAR_OPTIMAL_POINTS, OptimumDraws
from popstats.words import percent

#: Regimes of each simulated population; each is one repetition of the experiment.
REGIMES = (0.5, 0.7, 0.85)
#: Truths without an optimum as C3a words it, and with one.
NULLS = (
    "flat", "linear", "saturating-8", "saturating-12", "plateau-then-rise", "edge", "beyond-edge", "negligible",
)  # fmt: skip
OPTIMA = ("quadratic", "asymmetric", "narrow", "w")
#: What the calibration scores, and where the truth's answer keeps it.
SCORED = ("mcb", "near_lower", "near_upper", "limit")
#: Draws of each fit: the ends of an interval are then known to half a percentile, and errors of this kind average
#: out over repetitions.
DRAWS = 1000
#: Of populations without an optimum that look like published tables: half-width of the regimes, and original network.
HALF_WIDTH, ORIGINAL = 0.05, Original(macs=10**11, params=10**9, accuracy=95.0)
#: Spread of log mCB, points by which the drop falls or rises over its range, and noise of the recipes, points.
SPREAD, RISE, NOISE = 0.25, 0.4, 0.15
#: The wide regime: its centre, and the factor in MACs that it spans.
WIDE, FACTOR = 0.99, 100.0

type Rows = tuple[FloatArray, FloatArray, FloatArray]  # Remaining MACs (a share), log mCB, drop (points).
#: Draws the recipes of one regime, given its centre, their number, and a generator.
type _Null = Callable[[float, int, np.random.Generator], Rows]


def _tied(correlation: float, drop: Callable[[FloatArray, FloatArray], FloatArray]) -> _Null:
    """Return regimes whose log mCB follows log MACs; the drop depends on both, in standard deviations."""

    def draw(target: float, n: int, rng: np.random.Generator) -> Rows:
        macs, cost = _costs(target, n, rng)
        log_mcb = correlation * cost + np.sqrt(1.0 - correlation**2) * rng.standard_normal(n)
        return macs, SPREAD * log_mcb, drop(cost, log_mcb)

    return draw


def _saturating(cost: FloatArray, log_mcb: FloatArray) -> FloatArray:
    """Return a drop that saturates in mCB and bends in MACs."""
    return 0.3 * cost + 0.15 * cost**2 + RISE * np.exp(-2.0 * (log_mcb + 2.0))


def _clusters(number: int, rise: float, within: Callable[[np.random.Generator, int], FloatArray]) -> _Null:
    """Return regimes of evenly spaced clusters in mCB, whose levels differ by anything."""

    def draw(target: float, n: int, rng: np.random.Generator) -> Rows:
        macs, cost = _costs(target, n, rng)
        kind = rng.integers(0, number, n)
        log_mcb = np.linspace(-2.0, 2.0, number)[kind] + within(rng, n)
        return macs, SPREAD * log_mcb, 0.3 * cost + rng.normal(0.0, rise, number)[kind]

    return draw


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


#: Null by name. The drop of the kink depends on MACs alone; the wide clusters cover most of the range.
HARD_NULLS: Mapping[str, _Null] = {
    "correlated-0.90": _tied(0.90, _saturating),
    "correlated-0.97": _tied(0.97, _saturating),
    "kink-in-macs": _tied(0.70, lambda cost, _: RISE * np.abs(cost)),
    "six-clusters": _clusters(6, RISE, lambda rng, n: 0.01 * rng.standard_normal(n)),
    "eight-wide-clusters": _clusters(8, RISE / 2.0, lambda rng, n: rng.uniform(-0.15, 0.15, n)),
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


@dataclass(frozen=True)
class Setting:
    """One kind of population to simulate."""

    truth: str  # See `simulate_population`.
    n: int  # Recipes a regime.
    rise: float = 0.4  # Points.
    noise: float = 0.15  # Standard deviation between recipes, points.
    noise_kind: str = "normal"  # normal, heavy, skewed or growing.
    seeds: int = 1  # Trainings per recipe.
    seed_noise: float = 0.0  # Standard deviation between trainings of a recipe, points.


def settings(sizes: Iterable[int] = (30, 100, 500, 3000)) -> tuple[Setting, ...]:
    """Return the settings of the full calibration: truths x sizes, rises for power, kinds of noise."""
    found, pair = [], ("quadratic", "saturating-8")
    for n in sizes:
        found += [Setting(truth, n) for truth in (*NULLS, *HARD_NULLS, *OPTIMA)]
        found += [Setting("quadratic", n, rise=rise) for rise in (0.15, 0.2)]
        found += [Setting(t, n, noise_kind=kind) for kind in ("heavy", "skewed", "growing") for t in pair]
        found += [Setting(truth, n, noise=0.08, seeds=2, seed_noise=0.15) for truth in pair]
        found += [Setting("additive-widths", n)]
    return tuple(found)


#: Repetitions (simulated regimes) per setting, and settings, of the two sizes of calibration.
QUICK: dict[str, Any] = {
    "repetitions": 30,
    "settings": (
        *(Setting(truth, 100) for truth in ("flat", "saturating-8", "quadratic", "asymmetric")),
        Setting("quadratic", 100, rise=0.2),
    ),
}
FULL: dict[str, Any] = {"repetitions": 201, "settings": settings()}


@dataclass(frozen=True)
class Calibration:
    """The outcome of a calibration."""

    # One row per setting: the setting's fields; `regimes` (repetitions); `claim_true` (share in which C3a is
    # true: the observed range varies); `coverage_mcb`, `coverage_near_lower`, `coverage_near_upper`,
    # `coverage_limit` (share of 90 % intervals that hold the truth; NaN where the truth has no optimum);
    # `supported`, `refuted`, `undecided` (shares of verdicts on C3a); `false_supported` (among regimes in which
    # the claim is false) and `false_refuted` (among those in which it is true).
    table: pd.DataFrame
    method: str  # Of the fits.

    def to_json(self, path: str | Path) -> Path:
        """Write the table as JSON; the report reads it."""
        content = {
            "interval_mass": INTERVAL_MASS,
            "method": self.method,
            "thresholds": asdict(Thresholds()),
            "rows": json.loads(self.table.to_json(orient="records")),
        }
        Path(path).write_text(json.dumps(content, indent=1) + "\n")
        return Path(path)

    def __repr__(self) -> str:
        worst = self.table[["false_supported", "false_refuted"]].max()
        return (
            f"<Calibration: {len(self.table)} settings, method {self.method}; worst false supported "
            f"{percent(worst.false_supported)}, worst false refuted {percent(worst.false_refuted)}>"
        )


def calibrate(
    chosen: Sequence[Setting] = FULL["settings"],
    repetitions: int = FULL["repetitions"],
    method: Method = "exact",
    seed: int = 0,
    workers: int = 1,
) -> Calibration:
    """Simulate populations with known truth, fit and judge each, and count."""
    if repetitions < 1 or not chosen:
        raise FitError(
            f"calibrate: expected at least one setting and repetition, got {len(chosen)}, {repetitions}"
        )
    score = partial(_score_setting, repetitions=repetitions, method=method, seed=seed)
    if workers > 1:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            rows = pool.map(score, chosen, chunksize=1)
    else:
        rows = [score(setting) for setting in chosen]
    return Calibration(pd.DataFrame(rows), method)


def _score_setting(setting: Setting, *, repetitions: int, method: Method, seed: int) -> dict[str, Any]:
    scores: list[dict[str, Any]] = []
    for i in itertools.count(seed):
        fitted = _fit(setting, method, i)
        answers = fitted.population.metadata.get("truth", {}).get("regimes", {})
        optima = dict(zip((r.label for r in fitted.fitted), fitted.optimum_draws, strict=True))
        outcomes = Analysis(fitted).outcomes
        scores += [_score_regime(answers.get(r), optima.get(r), outcomes[r]) for r in outcomes]
        if len(scores) >= repetitions:
            break
    frame = pd.DataFrame(scores[:repetitions])
    true, outcome = frame["claim"].to_numpy(dtype=bool), frame["outcome"]
    row = {**asdict(setting), "regimes": len(frame), "claim_true": float(true.mean())}
    row |= {f"coverage_{name}": float(frame[name].astype(float).mean()) for name in SCORED}
    row |= {word: float((outcome == word).mean()) for word in ("supported", "refuted", "undecided")}
    row["false_supported"] = float((outcome[~true] == "supported").mean())
    row["false_refuted"] = float((outcome[true] == "refuted").mean())
    return row


def _fit(setting: Setting, method: Method, seed: int) -> Fit:
    # Independent draws count fully; NUTS needs more of them for its own diagnostics.
    draws = DRAWS // CHAINS if method == "exact" else DRAWS
    if setting.truth in HARD_NULLS:
        population, half_widths = simulate_null(setting.truth, setting.n, seed)
    else:
        population = simulate_population(regimes=REGIMES, seed=seed, **asdict(setting))
        half_widths = dict.fromkeys(REGIMES, 0.05)
    return fit(population, regimes=half_widths, method=method, random_seed=seed, draws=draws)


def _score_regime(truth: dict[str, Any] | None, optimum: OptimumDraws | None, outcome: str) -> dict[str, Any]:
    """Score a regime against the true answer; None: it has no optimum."""
    rise = min(truth["rise_lower"], truth["rise_upper"]) if truth else 0.0
    claim = bool(truth and truth["interior"] and rise > Thresholds().rise)
    covered: dict[str, Any] = dict.fromkeys(SCORED, np.nan)
    # Where the truth is flat, an optimum is a convention (the first grid point), not something to cover.
    if claim and truth and optimum:
        logs = (optimum.log_mcb, optimum.near_lower, optimum.near_upper)
        ends = (interval(draws) for draws in (*map(np.exp, logs), optimum.limit))
        covered = {name: low <= truth[name] <= high for name, (low, high) in zip(SCORED, ends, strict=True)}
        if optimum.near.height != NEAR_OPTIMAL_POINTS:
            # The true ends are those at the usual height.
            covered |= {"near_lower": np.nan, "near_upper": np.nan}
    return {**covered, "claim": claim, "outcome": outcome}
