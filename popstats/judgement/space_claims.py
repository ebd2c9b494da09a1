"""S1, R1 and M1: spaces of recipes, retraining techniques, and what the layer widths explain."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from popstats.arrays import BoolArray, FloatArray
from popstats.errors import FitError
from popstats.findings import Finding, Value
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import interval
from popstats.judgement.analysis import (
    Analysis,
    Effect,
    RegimePosterior,
    estimate,
    more_recipes,
    twice_the_recipes,
)
from popstats.judgement.edf import SpaceDifference, compare_spaces
from popstats.judgement.explained import MINIMUM_RECIPES, WHOLE, WidthsBeyond
from popstats.judgement.optimum_claims import interaction, still_learning
from popstats.judgement.verdicts import Verdict
from popstats.population.recipes import ratio_std
from popstats.posterior.fit import fit

#: The low-STD and the high-STD space: the outer thirds of a regime's recipes.
OUTER = 1.0 / 3.0
#: Retraining techniques of a proposed comparison, where the table names fewer than two.
TWO_TECHNIQUES = ("fine-tune", "scratch")


def judge_widths_beyond(analysis: Analysis) -> list[Verdict]:
    """Judge M1 in every regime: mCB explains something that the layer widths do not."""
    if analysis.fit.population.widths is None:
        return [analysis.not_assessable("M1", None, Finding("no widths"), (Finding("name widths"),))]
    return [_widths_beyond(analysis, regime) for regime in analysis.fit.regimes]


def _widths_beyond(analysis: Analysis, regime: RegimeDesign) -> Verdict:
    beyond = analysis.explained.widths_beyond.get(regime.label)
    if beyond is None:
        why = Finding("few for validation", (), {"recipes": regime.n_recipes, "needed": MINIMUM_RECIPES})
        return analysis.not_assessable("M1", regime, why, (more_recipes(regime),))
    if regime.reason is not None:
        # What is left of mCB at equal cost is then a trace of anything that costs parameters, a bias term for example.
        return analysis.not_assessable("M1", regime, regime.reason, (more_recipes(regime),))
    if beyond.of_mcb < WHOLE:
        why = Finding("widths incomplete", (), {"share": max(beyond.of_mcb, 0.0), "needed": WHOLE})
        return analysis.not_assessable("M1", regime, why, (Finding("name widths"),))
    withheld = still_learning(analysis, beyond)
    effect = Effect(beyond.draws > analysis.thresholds.gain, float("nan"), beyond.draws, withheld=withheld)
    told = interaction(analysis, beyond)
    values: dict[str, Value] = {
        "rival": "a law with pairwise interactions of the widths"
        if beyond.pairwise
        else "an additive law of the widths",
        "gain": estimate(beyond.draws),
        "reach": _reach(beyond),
        "interaction": (told,) if told else (),
    }
    return analysis.verdict("M1", regime, effect, Finding("M1", (), values), (), (twice_the_recipes(regime),))


def _reach(beyond: WidthsBeyond) -> tuple[Finding, ...]:
    known = beyond.share_of_ceiling > 0
    return (Finding("reach", (beyond.regime,), {"reach": beyond.share_of_ceiling}),) if known else ()


def judge_std_spaces(analysis: Analysis) -> list[Verdict]:
    """Judge S1 in every regime, and over all: low-STD spaces beat high-STD spaces."""
    spread = ratio_std(analysis.fit.population)
    if spread is None:
        return [analysis.not_assessable("S1", None, Finding("no STD"), (Finding("name widths"),))]
    prepared, macs = analysis.fit.recipes, analysis.fit.population.table["macs"].to_numpy()
    recipes = prepared.at_average_technique.assign(std=spread[prepared.first], cost=macs[prepared.first])
    members = zip(analysis.fit.regimes, prepared.members, strict=True)
    found = [_compare_std(analysis, regime, recipes.iloc[mine]) for regime, mine in members]
    verdicts = [v if isinstance(v, Verdict) else _std_verdict(analysis, v) for v in found]
    compared = [v for v in found if not isinstance(v, Verdict)]
    return [*verdicts, _std_overall(analysis, compared)] if len(compared) > 1 else verdicts


def std_halves(std: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Return the low-STD and the high-STD space: the outer thirds, shape (n,) each."""
    low, high = np.quantile(std, [OUTER, 1.0 - OUTER])
    return std <= low, std >= high


@dataclass(frozen=True, eq=False)
class _Compared:
    """The two STD spaces of one regime."""

    regime: RegimeDesign
    difference: SpaceDifference
    bounds: tuple[float, float]  # STD at which the low one ends and the high one begins.
    medians: float  # How much smaller the low-STD space's median drop is, points.


def _compare_std(analysis: Analysis, regime: RegimeDesign, recipes: pd.DataFrame) -> Verdict | _Compared:
    if len(recipes) < MINIMUM_RECIPES:
        few = Finding("few for spaces", (), {"recipes": len(recipes), "needed": MINIMUM_RECIPES})
        return analysis.not_assessable("S1", regime, few, (more_recipes(regime),))
    low, high = std_halves(recipes["std"].to_numpy())
    bounds = float(recipes["std"][low].max()), float(recipes["std"][high].min())
    if bounds[0] >= bounds[1]:
        return analysis.not_assessable("S1", regime, Finding("one STD"), (more_recipes(regime),))
    drop, cost, seed = (
        recipes["drop"].to_numpy(),
        recipes["cost"].to_numpy(),
        analysis.fit.settings.random_seed,
    )
    try:
        found = compare_spaces(drop[low], drop[high], costs=(cost[low], cost[high]), seed=seed)
    except FitError as error:
        why = Finding("no common costs", (), {"text": str(error)})
        return analysis.not_assessable("S1", regime, why, (more_recipes(regime),))
    return _Compared(regime, found, bounds, float(np.median(drop[high]) - np.median(drop[low])))


def _std_verdict(analysis: Analysis, compared: _Compared) -> Verdict:
    found, (low, high) = compared.difference, compared.bounds
    values: dict[str, Value] = {
        **_better(found.draws),
        "low": low,
        "high": high,
        "median": abs(compared.medians),
        "size": "smaller" if compared.medians >= 0 else "larger",
    }
    facts = (Finding("EDF distance", (), {"ks": found.ks, "p": found.ks_p_value}),)
    remedies = (twice_the_recipes(compared.regime),)
    effect = _std_effect(analysis, found.draws)
    return analysis.verdict("S1", compared.regime, effect, Finding("S1", (), values), facts, remedies)


def _std_overall(analysis: Analysis, compared: list[_Compared]) -> Verdict:
    """Judge S1 over all regimes: the mean advantage, and how it changes from the mildest to the hardest regime."""
    draws = np.stack([c.difference.draws for c in compared], axis=1)
    values: dict[str, Value] = {
        **_better(draws.mean(axis=1)),
        "count": len(compared),
        "first": compared[0].regime.target,
        "last": compared[-1].regime.target,
        "start": float(np.median(draws[:, 0])),
        "end": float(np.median(draws[:, -1])),
        "trend": estimate(draws[:, -1] - draws[:, 0]),
    }
    return analysis.verdict(
        "S1", None, _std_effect(analysis, draws.mean(axis=1)), Finding("S1 overall", (), values)
    )


def _better(draws: FloatArray) -> dict[str, Value]:
    """Return an advantage as "better" or "worse" by a positive amount: no minus sign to puzzle over."""
    worse = np.median(draws) < 0
    return {"direction": "worse" if worse else "better", "change": estimate(-draws if worse else draws)}


def _std_effect(analysis: Analysis, draws: FloatArray) -> Effect:
    least = analysis.thresholds.std_points
    lower, upper = interval(draws)
    return Effect(
        draws > least, float("nan"), draws, inside_negligible=bool(-least <= lower and upper <= least)
    )


def judge_retraining(analysis: Analysis) -> list[Verdict]:
    """Judge R1 in every regime that was retrained in more than one way: the optimum does not move."""
    population = analysis.fit.population
    named = [name for name in population.techniques if name]
    if len(named) < 2:
        held = f"only {named[0]!r}" if named else "no column retraining"
        why = Finding("one technique", (), {"held": held, "unnamed": _unnamed(analysis) if named else ()})
        return [
            analysis.not_assessable(
                "R1", None, why, (more_recipes(*analysis.fit.regimes, techniques=TWO_TECHNIQUES),)
            )
        ]
    member = analysis.fit.recipes.assigned.index >= 0
    present = population.table["retraining"][member].dropna().unique()
    alone = {str(name): _technique(analysis, str(name)) for name in present}
    return [_moved(analysis, alone, regime) for regime in analysis.fit.regimes]


def _unnamed(analysis: Analysis) -> tuple[Finding, ...]:
    """Return how many trainings do not name their retraining technique, where any do not."""
    table = analysis.fit.population.table
    missing = int(table["retraining"].isna().sum())
    return (Finding("unnamed techniques", (), {"missing": missing, "whole": len(table)}),) if missing else ()


def _technique(analysis: Analysis, name: str) -> Analysis:
    settings = analysis.fit.settings
    fitted = fit(
        analysis.fit.population.in_regimes(analysis.fit.recipes.assigned).where(retraining=name),
        regime_axis=settings.regime_axis,
        noise=settings.noise,
        random_seed=settings.random_seed,
        priors=analysis.fit.prior_settings,
    )
    return Analysis(fitted, analysis.thresholds)


def _moved(analysis: Analysis, alone: dict[str, Analysis], regime: RegimeDesign) -> Verdict:
    if rejected := {name: a for name, a in alone.items() if not a.usable}:
        name, worst = next(iter(rejected.items()))
        why = Finding("technique rejected", (), {"technique": name, "why": worst.rejection})
        return analysis.not_assessable("R1", regime, why, (worst.way_out,))
    found = {name: _of_target(a, regime) for name, a in alone.items()}
    both = {name: r for name, r in found.items() if r is not None}
    if len(both) < 2:
        why = Finding("few techniques here", (), {"held": ", ".join(both) or "none"})
        named = tuple(alone) if len(alone) > 1 else TWO_TECHNIQUES
        return analysis.not_assessable("R1", regime, why, (more_recipes(regime, techniques=named),))
    if not any(r.outcome == "supported" for r in both.values()):
        remedy = more_recipes(regime, count=2 * regime.n_recipes, techniques=tuple(both))
        return analysis.not_assessable("R1", regime, Finding("no optimum of technique"), (remedy,))
    pairs = list(combinations(both.values(), 2))
    regret = np.array([exchange_regret(a.grid, a.drop, b.grid, b.drop[::-1]) for a, b in pairs]).max(axis=0)
    prior = np.array(
        [exchange_regret(a.grid, a.prior_drop, b.grid, b.prior_drop[::-1]) for a, b in pairs]
    ).max(axis=0)
    limit = analysis.thresholds.regret
    effect = Effect(holds=regret < limit, prior_probability=float((prior < limit).mean()), size=regret)
    optima = tuple(
        Finding("technique optimum", (), {"technique": name, "best": estimate(np.exp(r.optimum.log_mcb))})
        for name, r in both.items()
    )
    said = Finding("R1", (), {"cost": estimate(regret), "optima": optima})
    return analysis.verdict(
        "R1", regime, effect, said, _unnamed(analysis), (more_recipes(regime, techniques=tuple(both)),)
    )


def _of_target(analysis: Analysis, regime: RegimeDesign) -> RegimePosterior | None:
    """Return a technique's own regime of this centre, where it was fitted."""
    return next((r for r in analysis.regimes if abs(r.data.target - regime.target) < 1e-9), None)


def exchange_regret(
    grid_a: FloatArray, drop_a: FloatArray, grid_b: FloatArray, drop_b: FloatArray
) -> FloatArray:
    """Return the larger cost of using one curve's optimum on the other, points, shape (S,)."""
    # grid_a, grid_b (G,); drop_a, drop_b (S, G)
    size = min(len(drop_a), len(drop_b))
    return np.maximum(
        _regret(grid_a, drop_a[:size], grid_b[drop_b[:size].argmin(axis=1)]),
        _regret(grid_b, drop_b[:size], grid_a[drop_a[:size].argmin(axis=1)]),
    )


def _regret(grid: FloatArray, drop: FloatArray, at: FloatArray) -> FloatArray:
    index = np.rint(np.interp(at, grid, np.arange(grid.size))).astype(np.int64)
    return np.asarray(drop[np.arange(len(drop)), index] - drop.min(axis=1))
