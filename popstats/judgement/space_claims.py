"""S1, R1 and M1: spaces of recipes, retraining techniques, and what the layer widths explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from popstats.arrays import BoolArray, FloatArray
from popstats.errors import FitError
from popstats.findings import Finding, fact
from popstats.inference.data import RegimeDesign
from popstats.judgement.analysis import (
    Analysis,
    all_within,
    estimate,
    more_recipes,
    twice_the_recipes,
)
from popstats.judgement.edf import compare_spaces
from popstats.judgement.explained import MINIMUM_RECIPES, WHOLE
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
        return [analysis.not_assessable("M1", None, Finding("no widths"), Finding("name widths"))]
    return [_widths_beyond(analysis, regime) for regime in analysis.fit.regimes]


def _widths_beyond(analysis: Analysis, regime: RegimeDesign) -> Verdict:
    beyond = analysis.explained.widths_beyond.get(regime.label)
    if beyond is None:
        why = fact("few for validation", recipes=regime.n_recipes, needed=MINIMUM_RECIPES)
        return analysis.not_assessable("M1", regime, why, more_recipes(regime))
    if regime.reason is not None:
        # What is left of mCB at equal cost is then a trace of anything that costs parameters, a bias term for example.
        return analysis.not_assessable("M1", regime, regime.reason, more_recipes(regime))
    if beyond.of_mcb < WHOLE:
        why = fact("widths incomplete", share=max(beyond.of_mcb, 0.0), needed=WHOLE)
        return analysis.not_assessable("M1", regime, why, Finding("name widths"))
    told, reach = interaction(analysis, beyond), beyond.share_of_ceiling
    law = "a law with pairwise interactions" if beyond.pairwise else "an additive law"
    said = fact(
        "M1",
        rival=f"{law} of the widths",
        gain=estimate(beyond.draws),
        reach=(fact("reach", regime.label, reach=reach),) if reach > 0 else (),
        interaction=(told,) if told else (),
    )
    return analysis.verdict(
        "M1", regime, said, beyond.draws > analysis.thresholds.gain, beyond.draws,
        twice_the_recipes(regime), withheld=still_learning(analysis, beyond),
    )  # fmt: skip


def judge_std_spaces(analysis: Analysis) -> list[Verdict]:
    """Judge S1 in every regime, and over all: low-STD spaces beat high-STD spaces."""
    spread = ratio_std(analysis.fit.population)
    if spread is None:
        return [analysis.not_assessable("S1", None, Finding("no STD"), Finding("name widths"))]
    prepared, macs = analysis.fit.recipes, analysis.fit.population.table["macs"].to_numpy()
    recipes = prepared.at_average_technique.assign(std=spread[prepared.first], cost=macs[prepared.first])
    verdicts, draws = [], {}
    for regime, mine in zip(analysis.fit.regimes, prepared.members, strict=True):
        verdict, drawn = _compare_std(analysis, regime, recipes.iloc[mine])
        verdicts.append(verdict)
        if drawn is not None:
            draws[regime.target] = drawn
    return [*verdicts, _std_overall(analysis, draws)] if len(draws) > 1 else verdicts


def std_halves(std: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Return the low-STD and the high-STD space: the outer thirds, shape (n,) each."""
    low, high = np.quantile(std, [OUTER, 1.0 - OUTER])
    return std <= low, std >= high


def _compare_std(
    analysis: Analysis, regime: RegimeDesign, recipes: pd.DataFrame
) -> tuple[Verdict, FloatArray | None]:
    """Judge S1 in a regime; returns the draws of the advantage too, None where there are none."""
    if len(recipes) < MINIMUM_RECIPES:
        few = fact("few for spaces", recipes=len(recipes), needed=MINIMUM_RECIPES)
        return analysis.not_assessable("S1", regime, few, more_recipes(regime)), None
    std, drop, cost = (recipes[name].to_numpy() for name in ("std", "drop", "cost"))
    low, high = std_halves(std)
    if std[low].max() >= std[high].min():
        return analysis.not_assessable("S1", regime, Finding("one STD"), more_recipes(regime)), None
    seed, medians = analysis.fit.settings.random_seed, float(np.median(drop[high]) - np.median(drop[low]))
    try:
        found = compare_spaces(drop[low], drop[high], costs=(cost[low], cost[high]), seed=seed)
    except FitError as error:
        why = fact("no common costs", text=str(error))
        return analysis.not_assessable("S1", regime, why, more_recipes(regime)), None
    ends = {"low": float(std[low].max()), "high": float(std[high].min())}
    said = fact("S1", **ends, median=abs(medians), size="smaller" if medians >= 0 else "larger")
    distance = fact("EDF distance", ks=found.ks, p=found.ks_p_value)
    return _low_std_beats(analysis, regime, said, found.draws, distance), found.draws


def _std_overall(analysis: Analysis, by_target: Mapping[float, FloatArray]) -> Verdict:
    """Judge S1 over all regimes: the mean advantage, and how it changes from the mildest to the hardest regime."""
    targets, draws = list(by_target), np.stack(list(by_target.values()), axis=1)
    start, end = (float(np.median(draws[:, k])) for k in (0, -1))
    trend = estimate(draws[:, -1] - draws[:, 0])
    places = {"count": len(targets), "first": targets[0], "last": targets[-1]}
    said = fact("S1 overall", **places, start=start, end=end, trend=trend)
    return _low_std_beats(analysis, None, said, draws.mean(axis=1))


def _low_std_beats(
    analysis: Analysis, regime: RegimeDesign | None, said: Finding, draws: FloatArray, *facts: Finding
) -> Verdict:
    """Return the verdict on draws of the low-STD space's advantage in mean drop, points."""
    least, worse = analysis.thresholds.std_points, np.median(draws) < 0
    # "better" or "worse" by a positive amount: no minus sign to puzzle over.
    better = {"direction": "worse" if worse else "better", "change": estimate(-draws if worse else draws)}
    return analysis.verdict(
        "S1", regime, replace(said, values={**better, **said.values}), draws > least, draws,
        *((twice_the_recipes(regime),) if regime else ()),
        negligible=all_within(draws, -least, least), facts=facts,
    )  # fmt: skip


def judge_retraining(analysis: Analysis) -> list[Verdict]:
    """Judge R1 in every regime that was retrained in more than one way: the optimum does not move."""
    population = analysis.fit.population
    named = [name for name in population.techniques if name]
    if len(named) < 2:
        held = f"only {named[0]!r}" if named else "no column retraining"
        why = fact("one technique", held=held, unnamed=_unnamed(analysis) if named else ())
        remedy = more_recipes(*analysis.fit.regimes, techniques=TWO_TECHNIQUES)
        return [analysis.not_assessable("R1", None, why, remedy)]
    member = analysis.fit.recipes.assigned.index >= 0
    present = population.table["retraining"][member].dropna().unique()
    alone = {str(name): _technique(analysis, str(name)) for name in present}
    return [_moved(analysis, alone, regime) for regime in analysis.fit.regimes]


def _unnamed(analysis: Analysis) -> tuple[Finding, ...]:
    """Return how many trainings do not name their retraining technique, where any do not."""
    table = analysis.fit.population.table
    missing = int(table["retraining"].isna().sum())
    return (fact("unnamed techniques", missing=missing, whole=len(table)),) if missing else ()


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
        why = fact("technique rejected", technique=name, why=worst.rejection)
        return analysis.not_assessable("R1", regime, why, worst.way_out)
    both = {
        name: r for name, a in alone.items() for r in a.regimes if abs(r.data.target - regime.target) < 1e-9
    }
    if len(both) < 2:
        why = fact("few techniques here", held=", ".join(both) or "none")
        named = tuple(alone) if len(alone) > 1 else TWO_TECHNIQUES
        return analysis.not_assessable("R1", regime, why, more_recipes(regime, techniques=named))
    if not any(r.outcome == "supported" for r in both.values()):
        remedy = more_recipes(regime, count=2 * regime.n_recipes, techniques=tuple(both))
        return analysis.not_assessable("R1", regime, Finding("no optimum of technique"), remedy)
    pairs, limit = list(combinations(both.values(), 2)), analysis.thresholds.regret
    regret = np.array([exchange_regret(a.grid, a.drop, b.grid, b.drop[::-1]) for a, b in pairs])
    prior = np.array([exchange_regret(a.grid, a.prior_drop, b.grid, b.prior_drop[::-1]) for a, b in pairs])
    regret, prior = regret.max(axis=0), prior.max(axis=0)
    optima = tuple(
        fact("technique optimum", technique=name, best=estimate(np.exp(r.optimum.log_mcb)))
        for name, r in both.items()
    )
    said = fact("R1", cost=estimate(regret), optima=optima)
    return analysis.verdict(
        "R1", regime, said, regret < limit, regret, more_recipes(regime, techniques=tuple(both)),
        prior=float((prior < limit).mean()), facts=_unnamed(analysis),
    )  # fmt: skip


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
