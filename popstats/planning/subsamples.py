"""How small populations answer what a large real one answered: subsamples judged against the whole.

Simulated truths have the shapes that somebody thought of; a large real table has its own. Its full-population fit
stands in for the truth, so that errors of the fit itself (a form that no curve of the model follows) stay unseen:
read these figures beside the calibration on simulated truths, not instead of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from popstats.errors import FitError
from popstats.inference.draws import INTERVAL_MASS
from popstats.inference.model import CHAINS
from popstats.planning.error_rates import DRAWS, SCORED, covers, optimum_outcomes, optimum_values
from popstats.population.table import Population
from popstats.posterior.fit import Fit, fit
from popstats.words import percent

#: Recipes a regime of the subsamples.
SIZES = (30, 100, 500, 3000)
_OUTCOMES = ("supported", "refuted", "undecided")
_OPPOSITE = {"supported": "refuted", "refuted": "supported"}


@dataclass(frozen=True, eq=False)
class Plasmode:
    """What subsamples of a population say against what the whole says."""

    # One row a regime and size: regime; n (recipes of a subsample, one training each); share_of_population (of
    # the regime's recipes: near 1, subsamples are nearly the whole and coverage is too high); subsamples; whole
    # (the full population's verdict on C3a); supported, refuted, undecided (shares of the subsamples'
    # verdicts); contradicted (share that says the opposite of the whole, supported against refuted);
    # coverage_mcb, coverage_near_lower, coverage_near_upper, coverage_limit (share of 90 % intervals that hold
    # the whole's posterior median; NaN but for the limit where the whole refutes C3a, as an optimum is then a
    # convention).
    table: pd.DataFrame
    population: str  # Name of the population.
    trainings: int  # Its size.

    def to_json(self, path: str | Path) -> Path:
        """Write the aggregated table as JSON; no row of the population is in it."""
        content = {
            "interval_mass": INTERVAL_MASS,
            "population": self.population,
            "trainings": self.trainings,
            "rows": json.loads(self.table.to_json(orient="records")),
        }
        target = Path(path)
        target.write_text(json.dumps(content, indent=1) + "\n")
        return target

    def __repr__(self) -> str:
        most = float(self.table["contradicted"].max())
        covered = float(
            np.nanmean(self.table[["coverage_near_lower", "coverage_near_upper"]].to_numpy(dtype=np.float64))
        )
        return (
            f"<Plasmode of {self.population!r}: {len(self.table)} regimes and sizes; contradicted at most "
            f"{percent(most)}, near-optimal bounds covered {percent(covered)} on average>"
        )


def judge_subsamples(
    population: Population,
    sizes: Sequence[int] = SIZES,
    repetitions: int = 50,
    *,
    regimes: Sequence[float] | None = None,
    seed: int = 0,
) -> Plasmode:
    """Fit and judge random subsamples of a population, and compare them with the whole."""
    if repetitions < 1 or not sizes:
        raise FitError(
            f"plasmode: expected at least one size and repetition, got {list(sizes)}, {repetitions}"
        )
    whole = fit(population, regimes=regimes, random_seed=seed)
    targets = {r.label: r for r in whole.fitted}
    rows: list[dict[str, Any]] = []
    for size in sorted(set(sizes)):
        labels = [label for label, r in targets.items() if r.n_recipes >= size]
        for i in range(repetitions if labels else 0):
            rng = np.random.default_rng([seed, size, i])
            rows += _score(whole, _subsample(whole, labels, size, rng), labels, size)
    if not rows:
        most = max((r.n_recipes for r in targets.values()), default=0)
        raise FitError(
            f"plasmode: no regime of {population.name} holds {min(sizes)} recipes; the largest has {most}"
        )
    return Plasmode(_aggregate(pd.DataFrame(rows), whole), population.name, len(population))


def _subsample(whole: Fit, labels: list[str], size: int, rng: np.random.Generator) -> Fit:
    """Fit one training each of `size` recipes of every regime named."""
    population, assigned = whole.population, whole.recipes.assigned
    # In random order, the first row of a recipe is a random one of its trainings.
    order = rng.permutation(len(population))
    _, first = np.unique(population.recipe[order], return_index=True)
    rows = order[np.sort(first)]
    member = assigned.index[rows]
    places = [assigned.labels.index(label) for label in labels]
    picked = [rows[member == k][:size] for k in places]
    return fit(
        population.in_regimes(assigned).select(np.sort(np.concatenate(picked))),
        whole.regime_axis,
        draws=DRAWS // CHAINS,
        random_seed=int(rng.integers(2**31)),
    )


def _score(whole: Fit, part: Fit, labels: list[str], size: int) -> list[dict[str, Any]]:
    medians = {
        r.label: {name: float(np.median(v)) for name, v in optimum_values(o).items()}
        for r, o in zip(whole.fitted, whole.optimum_draws, strict=True)
    }
    return [
        {
            "regime": regime.label,
            "n": size,
            "outcome": outcome,
            **{name: covers(v, medians[regime.label][name]) for name, v in optimum_values(optimum).items()},
        }
        for regime, optimum, outcome in zip(
            part.fitted, part.optimum_draws, optimum_outcomes(part), strict=True
        )
        if regime.label in labels
    ]


def _aggregate(scores: pd.DataFrame, whole: Fit) -> pd.DataFrame:
    words = dict(zip((r.label for r in whole.fitted), optimum_outcomes(whole), strict=True))
    held = {r.label: r.n_recipes for r in whole.fitted}
    rows = []
    for label, recipes in held.items():
        for n in sorted(set(scores["n"])):
            group = scores[(scores["regime"] == label) & (scores["n"] == n)]
            if len(group):
                place = {"regime": label, "n": int(n), "share_of_population": float(n / recipes)}
                rows.append({**place, "whole": words[label], **_shares(group, words[label])})
    return pd.DataFrame(rows)


def _shares(group: pd.DataFrame, whole: str) -> dict[str, float]:
    shares = {word: float((group["outcome"] == word).mean()) for word in _OUTCOMES}
    return {
        "subsamples": len(group),
        **shares,
        "contradicted": shares.get(_OPPOSITE.get(whole, ""), 0.0),
        **{f"coverage_{name}": _coverage(group, name, whole) for name in SCORED},
    }


def _coverage(group: pd.DataFrame, name: str, whole: str) -> float:
    # Without an optimum its place is a convention (the end of the observed range), not something to cover.
    return float("nan") if whole == "refuted" and name != "limit" else float(group[name].mean())
