"""C1, C2, C3a and C3c: is there an optimum, where, and is it the original's ratio."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from popstats.findings import Finding, Span, Value
from popstats.judgement.analysis import (
    MORE_RECIPES_HELP,
    Analysis,
    Effect,
    RegimePosterior,
    deciding_recipes,
    estimate,
    exponentials,
    more_recipes,
    twice_the_recipes,
)
from popstats.judgement.explained import WHOLE, WidthsBeyond
from popstats.judgement.verdicts import Verdict, decide
from popstats.posterior.optimum import has_optimum, least_rise

#: Conjecture that speaks of an optimal cost on the axis that the regime leaves free.
COST_CONJECTURE = {"macs": "C1", "params": "C2"}
#: Reductions and ends of ranges are sums of decimal fractions.
_ROUNDING = 1e-9


def judge_optimum(analysis: Analysis) -> list[Verdict]:
    """Judge C3a in every regime: there is an optimal mCB."""
    return per_regime(analysis, "C3a", _optimum)


def judge_cost_optimum(analysis: Analysis) -> list[Verdict]:
    """Judge C1 (regimes of equal MACs) or C2 (of equal parameters) in every regime: C3a in another unit."""
    return per_regime(analysis, COST_CONJECTURE[analysis.fit.regime_axis], _cost_optimum)


def judge_original_ratio(analysis: Analysis) -> list[Verdict]:
    """Judge C3c in every regime: the optimum is practically the original's ratio."""
    return per_regime(analysis, "C3c", _original_ratio)


def per_regime(
    analysis: Analysis, conjecture: str, judge_one: Callable[[Analysis, RegimePosterior], Verdict]
) -> list[Verdict]:
    """Judge a conjecture in every fitted regime, and say why it cannot be assessed in the others."""
    if not analysis.usable:
        return [analysis.rejected(conjecture, r) for r in analysis.fit.regimes]
    fitted = analysis.by_label
    return [
        judge_one(analysis, fitted[r.label])
        if r.reason is None
        else analysis.not_assessable(conjecture, r, r.reason, (more_recipes(r),))
        for r in analysis.fit.regimes
    ]


def needs_optimum(analysis: Analysis, conjecture: str, regime: RegimePosterior) -> Verdict | None:
    """Return the verdict on a claim about an optimum where C3a is refuted; None where there may be one."""
    if regime.outcome != "refuted":
        return None
    return analysis.not_assessable(conjecture, regime.data, Finding("no optimum"))


def optimum_undecided(regime: RegimePosterior) -> Finding | None:
    """Return what keeps a claim about an optimum undecided."""
    return None if regime.outcome == "supported" else Finding("optimum undecided", (regime.label,))


def remedies(regime: RegimePosterior) -> tuple[Finding, ...]:
    """Return what would decide whether there is an optimum: where a premise is broken, other recipes; else more."""
    data, broken = regime.data, regime.withheld
    if broken is None:
        return (deciding_recipes(regime),)
    kept = 1.0 - data.target
    half = kept - kept * float(np.exp(-data.reach / 2.0))
    told = {
        "moves with cost": Finding("narrower regimes", (), {"target": data.target, "half_width": half}),
        "outliers": Finding("down-weight outliers"),
        "clusters": Finding("fill the gaps"),
        "groups": Finding("add unrelated"),
        "kinds": Finding("one kind", (), {"column": broken.values.get("column", "")}),
        "order": Finding("random order"),
        "one per cost": Finding("all networks"),
    }
    more = (deciding_recipes(regime),) if broken.kind in MORE_RECIPES_HELP else ()
    return (replace(told[broken.kind], regimes=(regime.label,)), *more)


def _effect(regime: RegimePosterior) -> Effect:
    return Effect(
        holds=regime.holds,
        prior_probability=regime.prior_probability,
        size=least_rise(regime.optimum),
        inside_negligible=regime.flat,
        withheld=regime.withheld,
    )


def _optimum(analysis: Analysis, regime: RegimePosterior) -> Verdict:
    values: dict[str, Value] = {"observed": regime.observed}
    if regime.outcome == "supported":
        values["near"] = _near(regime)
        values["rise"] = float(np.median(least_rise(regime.optimum)))
        values["widths"] = widths_clause(analysis, regime.label)
    else:
        values["shape"] = regime.shape
    said, facts = Finding("C3a", (), values), analysis.mixture(regime.data)
    return analysis.verdict("C3a", regime.data, _effect(regime), said, facts, remedies(regime))


def _near(regime: RegimePosterior) -> Finding:
    """Return the best mCB with its near-optimal range, or both ranges where there are two."""
    best = estimate(np.exp(regime.optimum.log_mcb))
    if len(regime.regions) == 2:
        first, second = regime.stretches
        return Finding("two regions", (regime.label,), {"best": best, "first": first, "second": second})
    values: dict[str, Value] = {
        "best": best,
        "ranges": regime.stretches,
        "height": regime.optimum.near.height,
    }
    return Finding("near-optimal", (regime.label,), values)


def widths_clause(analysis: Analysis, label: str) -> Finding:
    """Return what M1 says about a supported optimum."""
    beyond = analysis.explained.widths_beyond.get(label)
    if beyond is None or beyond.of_mcb < WHOLE:
        return Finding("widths unknown", (label,))
    gain = analysis.thresholds.gain
    outcome = decide(float((beyond.draws > gain).mean()), float("nan"), False, analysis.thresholds)
    if outcome == "undecided" or (outcome == "supported" and still_learning(analysis, beyond)):
        return Finding("widths undecided", (label,))
    if outcome == "supported":
        return Finding("beyond widths", (label,), {"gain": beyond.gain})
    return interaction(analysis, beyond) or _no_more_than_widths(beyond)


def still_learning(analysis: Analysis, beyond: WidthsBeyond) -> Finding | None:
    """Return that more recipes alone would raise the R² of the widths as much as mCB does, where they would."""
    if beyond.gain - analysis.thresholds.gain > beyond.to_learn:
        return None
    return Finding("law still learns", (beyond.regime,), {"gain": beyond.gain, "to_learn": beyond.to_learn})


def interaction(analysis: Analysis, beyond: WidthsBeyond) -> Finding | None:
    """Return the share of an interaction of the widths that mCB carries, where mCB helps the additive law only."""
    limits, added = analysis.thresholds, beyond.additive_draws
    if added is None or (added > limits.gain).mean() < limits.supported:
        return None
    return Finding("interaction", (beyond.regime,), {"share": min(beyond.share_of_interaction, 1.0)})


def _no_more_than_widths(beyond: WidthsBeyond) -> Finding:
    """Return the clause for a refuted M1: an effect of the widths makes the best mCB only if their law tells most."""
    where = (beyond.regime,)
    if beyond.reach == "most":
        return Finding("widths explain", where)
    if beyond.reach == "unknown":
        return Finding("widths reach unknown", where)
    return Finding("widths explain a part", where, {"reach": max(beyond.share_of_ceiling, 0.0)})


def _cost_optimum(analysis: Analysis, regime: RegimePosterior) -> Verdict:
    on_macs = analysis.fit.regime_axis == "macs"
    kept, original = 1.0 - regime.data.reference, analysis.fit.population.original
    values: dict[str, Value] = {
        "cost": "parameter bucket" if on_macs else "MACs count",
        "equal": "MACs" if on_macs else "parameters",
    }
    if regime.outcome == "supported":
        share = kept * np.exp(regime.optimum.log_mcb * (-1.0 if on_macs else 1.0))
        values["share"] = estimate(share)
        values["count"] = float(np.median(share)) * (original.params if on_macs else original.macs)
        values["others"] = _two_costs(regime, kept, -1.0 if on_macs else 1.0)
    else:
        values["shape"] = regime.shape
    conjecture = COST_CONJECTURE[analysis.fit.regime_axis]
    said = Finding("C1" if on_macs else "C2", (), values)
    return analysis.verdict(conjecture, regime.data, _effect(regime), said, (), remedies(regime))


def _two_costs(regime: RegimePosterior, kept: float, sign: float) -> tuple[Finding, ...]:
    """Return both optimal costs, shares of the original's, where there are two near-optimal ranges of mCB."""
    if len(regime.regions) != 2:
        return ()
    first, second = sorted(kept * float(np.exp(sign * best)) for _, best, _ in regime.regions)
    return (Finding("two costs", (regime.label,), {"first": first, "second": second}),)


def _original_ratio(analysis: Analysis, regime: RegimePosterior) -> Verdict:
    if found := needs_optimum(analysis, "C3c", regime):
        return found
    if why := _why_not_ratio(analysis, regime):
        return analysis.not_assessable("C3c", regime.data, *why)
    limits = analysis.thresholds
    regret, prior = regime.optimum.regret_at_original, regime.prior.regret_at_original
    given = has_optimum(regime.prior, limits.rise)
    effect = Effect(
        holds=regret < limits.regret,
        prior_probability=float((prior[given] < limits.regret).mean()) if given.any() else float("nan"),
        size=regret,
        withheld=optimum_undecided(regime),
        rests_on=regime.outcome,
    )
    outside: dict[str, Value] = {"outside": _outside(analysis, regime), "band": _band(analysis)}
    said = Finding("C3c", (), {"cost": estimate(regret), "limit": limits.regret})
    facts = (Finding("outside band", (regime.label,), outside),)
    more = (twice_the_recipes(regime.data),) if regime.outcome == "supported" else remedies(regime)
    return analysis.verdict("C3c", regime.data, effect, said, facts, more)


def _why_not_ratio(analysis: Analysis, regime: RegimePosterior) -> tuple[Finding, tuple[Finding, ...]] | None:
    """Return why the original's ratio cannot be judged, and what would change that; None where it can."""
    limits, data, band = analysis.thresholds, regime.data, _band(analysis)
    feasible = _feasible(analysis, regime)
    for side, short, bound in (
        ("below", feasible.low > band.low - _ROUNDING, feasible.low),
        ("above", feasible.high < band.high + _ROUNDING, feasible.high),
    ):
        if short:
            return Finding("band not reachable", (), {"side": side, "bound": float(bound), "band": band}), ()
    if not regime.observed.low <= 1.0 <= regime.observed.high:
        return Finding("original not observed", (), {"observed": regime.observed}), (more_recipes(data),)
    if (outside := _outside(analysis, regime)) < limits.outside_band:
        values: dict[str, Value] = {"outside": outside, "band": band, "needed": limits.outside_band}
        return Finding("few outside band", (), values), (more_recipes(data),)
    return None


def _feasible(analysis: Analysis, regime: RegimePosterior) -> Span:
    """Return the mCB that recipes of the regime can have: generate's own range where the table has it."""
    axis, target = analysis.fit.regime_axis, regime.data.target
    for known in (analysis.fit.population.metadata.get("costs") or {}).get("feasible", ()):
        if known["axis"] == axis and abs(known["target"] - target) < _ROUNDING:
            return exponentials(known["log_mcb"])
    # At equal MACs mCB = F / P cannot fall below F (P is at most 1); at equal parameters not rise above 1 / P.
    return Span(1.0 - target, math.inf) if axis == "macs" else Span(0.0, 1.0 / (1.0 - target))


def _outside(analysis: Analysis, regime: RegimePosterior) -> float:
    """Share of the networks in the regime's fit outside the band around the original's ratio."""
    log_mcb, runs = regime.mean_curve.log_mcb, regime.mean_curve.rows.runs
    return float(np.average(np.abs(log_mcb) > np.log(analysis.thresholds.band), weights=runs))


def _band(analysis: Analysis) -> Span:
    reach = float(np.log(analysis.thresholds.band))
    return exponentials((-reach, reach))
