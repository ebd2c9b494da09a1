"""S1, R1 and M1: spaces of recipes, retraining techniques, and what the layers' widths explain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from popstats.arrays import BoolArray, FloatArray
from popstats.errors import FitError
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import interval
from popstats.judgement.analysis import (
    PROPOSED_COUNT,
    Case,
    Effect,
    Reading,
    more_recipes,
    number,
    percent,
    span,
    twice_the_recipes,
)
from popstats.judgement.edf import SpaceDifference, compare_spaces
from popstats.judgement.explained import MINIMUM_RECIPES, WidthsBeyond
from popstats.judgement.verdicts import Verdict
from popstats.population.recipes import ratio_std
from popstats.posterior.fit import Fit, fit

#: The low-STD and the high-STD space: the outer thirds of a regime's recipes.
OUTER = 1.0 / 3.0


def judge_widths_beyond(case: Case) -> list[Verdict]:
    """Judge M1 in every regime: mCB explains something that the layers' widths do not."""
    if case.fit.population.widths is None:
        reason = "the table has no widths"
        remedy = "name the columns that hold them: Population.from_frame(..., widths=[...])"
        return [case.not_assessable("M1", None, reason, remedy)]
    return [_widths_beyond(case, regime) for regime in case.fit.regimes]


def _widths_beyond(case: Case, regime: RegimeDesign) -> Verdict:
    beyond = case.explained.widths_beyond.get(regime.label)
    if beyond is None:
        reason = f"{regime.n_recipes} recipes; cross-validation needs {MINIMUM_RECIPES}"
        return case.not_assessable("M1", regime, reason, more_recipes(regime))
    gain = case.thresholds.gain
    effect = Effect(
        holds=beyond.draws > gain,
        prior_probability=float("nan"),
        size=beyond.draws,
        quantity="added by mCB",
        unit="R^2 beyond MACs",
        negligible=f"adding mCB raises R^2 by at most {gain:g}",
    )
    at, rise = (
        case.at(regime),
        f"the share of variance predicted (cross-validated R^2) changes by {span(beyond.draws, 4)}",
    )
    law = "an additive law in the layers' widths"
    words = {
        "supported": f"{at} mCB explains something that {law} does not: {rise}{_reach(beyond)}.",
        "refuted": f"{at} mCB explains nothing that {law} does not: {rise}{_reach(beyond)}.",
        "undecided": f"{at} it is undecided whether mCB explains something that {law} does not: {rise}.",
        "remedy": twice_the_recipes(regime),
    }
    return case.verdict("M1", regime, effect, words)


def _reach(beyond: WidthsBeyond) -> str:
    if not beyond.share_of_ceiling > 0:
        return ""
    only = "only " if beyond.reach == "part" else ""
    reached = f"{only}{percent(beyond.share_of_ceiling)}"
    return f"; the widths alone reach {reached} of what the seeds' noise leaves to be predicted"


def judge_std_spaces(case: Case) -> list[Verdict]:
    """Judge S1 in every regime: low-STD spaces beat high-STD spaces."""
    spread = ratio_std(case.fit.population)
    if spread is None:
        reason = "the table has neither widths nor the column ratio_std"
        return [
            case.not_assessable(
                "S1", None, reason, "name the width columns: Population.from_frame(..., widths=[...])"
            )
        ]
    prepared, macs = case.fit.recipes, case.fit.population.table["macs"].to_numpy()
    recipes = prepared.at_average_technique.assign(std=spread[prepared.first], cost=macs[prepared.first])
    members = zip(case.fit.regimes, prepared.members, strict=True)
    found = [_compare_std(case, regime, recipes.iloc[mine]) for regime, mine in members]
    verdicts = [v if isinstance(v, Verdict) else _std_verdict(case, v) for v in found]
    compared = [v for v in found if not isinstance(v, Verdict)]
    return [*verdicts, _std_overall(case, compared)] if len(compared) > 1 else verdicts


def std_halves(std: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Return the low-STD and the high-STD space: the outer thirds, shape (n,) each."""
    low, high = np.quantile(std, [OUTER, 1.0 - OUTER])
    return std <= low, std >= high


@dataclass(frozen=True, eq=False)
class _Compared:
    """The two STD spaces of one regime: their difference, and the STD at which they end and begin.

    `medians`: how much smaller the low-STD space's median drop is, points.
    """

    regime: RegimeDesign
    difference: SpaceDifference
    bounds: tuple[float, float]
    medians: float


def _compare_std(case: Case, regime: RegimeDesign, recipes: pd.DataFrame) -> Verdict | _Compared:
    if len(recipes) < MINIMUM_RECIPES:
        reason = f"{len(recipes)} recipes; two spaces to compare need {MINIMUM_RECIPES}"
        return case.not_assessable("S1", regime, reason, more_recipes(regime))
    low, high = std_halves(recipes["std"].to_numpy())
    bounds = float(recipes["std"][low].max()), float(recipes["std"][high].min())
    if bounds[0] >= bounds[1]:
        return case.not_assessable(
            "S1", regime, "all recipes have practically the same STD", more_recipes(regime)
        )
    drop, cost = recipes["drop"].to_numpy(), recipes["cost"].to_numpy()
    try:
        found = compare_spaces(
            drop[low], drop[high], costs=(cost[low], cost[high]), seed=case.fit.settings.random_seed
        )
    except FitError as error:
        return case.not_assessable("S1", regime, str(error), more_recipes(regime))
    return _Compared(regime, found, bounds, float(np.median(drop[high]) - np.median(drop[low])))


def _std_verdict(case: Case, compared: _Compared) -> Verdict:
    found, (low, high) = compared.difference, compared.bounds
    effect = _std_effect(case, found.draws)
    apart = f"{number(abs(compared.medians))} points {'smaller' if compared.medians >= 0 else 'larger'}"
    by = (
        f"at equal MACs evenly pruned recipes (STD of the pruning ratios up to {low:.2f}) are {_better(found.draws)} than "
        f"uneven ones (from {high:.2f}) in their mean drop; their median, which a few collapsed networks do not move, is "
        f"{apart}"
    )
    words = _std_words(case.at(compared.regime), by)
    words["because"] = f"; EDFs: Kolmogorov-Smirnov {found.ks:.2f}, p = {found.ks_p_value:.2g}"
    words["remedy"] = twice_the_recipes(compared.regime)
    return case.verdict("S1", compared.regime, effect, words)


def _std_overall(case: Case, compared: list[_Compared]) -> Verdict:
    """Judge S1 over all regimes: the mean advantage, and how it changes from the mildest to the hardest regime."""
    draws = np.stack([c.difference.draws for c in compared], axis=1)
    first, last = (f"{100 * c.regime.target:.4g} %" for c in (compared[0], compared[-1]))
    by = (
        f"on average over {len(compared)} regimes their mean drop is {_better(draws.mean(axis=1))}; "
        f"from {first} to {last} reduction the advantage goes from {number(np.median(draws[:, 0]))} to "
        f"{number(np.median(draws[:, -1]))} points, a change of {span(draws[:, -1] - draws[:, 0])}"
    )
    words = _std_words("Over all regimes", by)
    return case.verdict("S1", None, _std_effect(case, draws.mean(axis=1)), words)


def _better(draws: FloatArray) -> str:
    """Return "better by ... points" or "worse by ... points", without a minus sign to puzzle over."""
    worse = np.median(draws) < 0
    return f"{'worse' if worse else 'better'} by {span(-draws if worse else draws)} points"


def _std_effect(case: Case, draws: FloatArray) -> Effect:
    least = case.thresholds.std_points
    lower, upper = interval(draws)
    return Effect(
        holds=draws > least,
        prior_probability=float("nan"),
        size=draws,
        quantity="low STD better by",
        unit="percentage points",
        negligible=f"the mean drops differ by at most {least:g} points",
        inside_negligible=bool(-least <= lower and upper <= least),
    )


def _std_words(place: str, by: str) -> dict[str, str]:
    return {
        "supported": f"{place} low-STD spaces beat high-STD spaces: {by}.",
        "refuted": f"{place} low-STD spaces do not beat high-STD spaces: {by}.",
        "undecided": f"{place} it is undecided whether low-STD spaces beat high-STD spaces: {by}.",
    }


def judge_retraining(case: Case) -> list[Verdict]:
    """Judge R1 in every regime that was retrained in more than one way: the optimum does not move."""
    population = case.fit.population
    counts = (
        population.table["retraining"].value_counts()
        if "retraining" in population.table
        else pd.Series(dtype=int)
    )
    if len(counts) < 2:
        had = (
            f"only {counts.index[0]!r}{_unsaid(case, beside='beside ')}"
            if len(counts)
            else "no column retraining"
        )
        remedy = _with_techniques(case.fit.regimes, ("fine-tune", "scratch"))
        return [
            case.not_assessable(
                "R1", None, f"it needs two retraining techniques, and the table has {had}", remedy
            )
        ]
    member = case.fit.recipes.assigned.index >= 0
    present = population.table["retraining"][member].dropna().unique()
    cases = {str(name): _technique(case, str(name)) for name in present}
    return [_moved(case, cases, regime) for regime in case.fit.regimes]


def _unsaid(case: Case, beside: str = "") -> str:
    """Return how many trainings do not say how they were retrained, after a space; "" where all do."""
    table = case.fit.population.table
    missing = int(table["retraining"].isna().sum())
    return (
        f" {beside}{missing:,} of {len(table):,} trainings that do not say how they were retrained"
        if missing
        else ""
    )


def _with_techniques(
    regimes: Sequence[RegimeDesign], techniques: tuple[str, ...], count: int = PROPOSED_COUNT
) -> str:
    """Return the plan lines of a population retrained in several ways; of one technique known, two are asked for."""
    named = techniques if len(techniques) > 1 else ("fine-tune", "scratch")
    targets = ", ".join(f"{r.target:g}" for r in regimes)
    return (
        f'[[recipes]]\naxis = "{regimes[0].axis}"\nregimes = [{targets}]\ncount = {count}\n'
        f"retraining = [{', '.join(json.dumps(n) for n in named)}]"
    )


def _technique(case: Case, name: str) -> Case:
    settings = case.fit.settings
    fitted: Fit = fit(
        case.fit.population.where(retraining=name),
        regime_axis=settings.regime_axis,
        regimes=settings.regimes,
        noise=settings.noise,
        random_seed=settings.random_seed,
        priors=case.fit.prior_settings,
    )
    return Case(fitted, case.thresholds)


def _moved(case: Case, cases: dict[str, Case], regime: RegimeDesign) -> Verdict:
    found = {name: _reading(c, regime) for name, c in cases.items()}
    if rejected := {name: c for name, c in cases.items() if not c.usable}:
        name, worst = next(iter(rejected.items()))
        return case.not_assessable(
            "R1", regime, f"of networks retrained by {name} alone, {worst.rejection}", worst.way_out
        )
    both = {name: r for name, r in found.items() if r is not None}
    if len(both) < 2:
        reason = f"fewer than two techniques have enough recipes here ({', '.join(both) or 'none'})"
        return case.not_assessable("R1", regime, reason, _with_techniques([regime], tuple(cases)))
    if not any(cases[name].has_optimum(r) == "supported" for name, r in both.items()):
        return case.not_assessable(
            "R1",
            regime,
            "C3a is not supported for any of the techniques alone, so there is no optimum to move",
            _with_techniques([regime], tuple(both), 2 * regime.n_recipes),
        )
    posterior = [exchange_regret(a.grid, a.drop, b.grid, b.drop) for a, b in combinations(both.values(), 2)]
    prior = [
        exchange_regret(a.grid, a.prior_drop, b.grid, b.prior_drop) for a, b in combinations(both.values(), 2)
    ]
    return _moved_verdict(case, regime, both, np.max(posterior, axis=0), np.max(prior, axis=0))


def _moved_verdict(
    case: Case, regime: RegimeDesign, both: dict[str, Reading], regret: FloatArray, prior: FloatArray
) -> Verdict:
    limit = case.thresholds.regret
    effect = Effect(
        holds=regret < limit,
        prior_probability=float((prior < limit).mean()),
        size=regret,
        quantity="cost of exchanging best mCBs",
        unit="percentage points",
        negligible=f"using one technique's optimum for another costs under {limit:g} points",
    )
    where = "; ".join(f"{name}: {span(np.exp(r.optimum.log_mcb))}" for name, r in both.items())
    at, cost = case.at(regime), f"using one's best mCB for the other costs {span(regret)} points ({where})"
    words = {
        "supported": f"{at} the retraining technique does not move the optimum: {cost}.",
        "refuted": f"{at} the retraining technique moves the optimum: {cost}.",
        "undecided": f"{at} it is undecided whether the retraining technique moves the optimum: {cost}.",
        "because": f"; without{unsaid}" if (unsaid := _unsaid(case)) else "",
        "remedy": _with_techniques([regime], tuple(both)),
    }
    return case.verdict("R1", regime, effect, words)


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


def _reading(case: Case, regime: RegimeDesign) -> Reading | None:
    if not case.usable:
        return None
    return next((r for r in case.readings if abs(r.data.target - regime.target) < 1e-9), None)
