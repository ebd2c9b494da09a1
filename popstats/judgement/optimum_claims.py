"""C1, C2, C3a, C3b and C3c: is there an optimum, where, do winners lie near it, and is it the original's ratio."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from popstats.arrays import FloatArray, IntArray
from popstats.findings import Finding, Span, Value, fact
from popstats.judgement.analysis import (
    Analysis,
    RegimePosterior,
    all_within,
    estimate,
    exponentials,
    more_recipes,
    twice_the_recipes,
)
from popstats.judgement.explained import WHOLE, WidthsBeyond
from popstats.judgement.verdicts import Thresholds, Verdict, decide
from popstats.posterior.mean_curve import MeanCurve
from popstats.posterior.optimum import has_optimum, least_rise

#: Conjecture that speaks of an optimal cost on the axis that the regime leaves free.
COST_CONJECTURE = {"macs": "C1", "params": "C2"}
#: Reductions and ends of ranges are sums of decimal fractions.
_ROUNDING = 1e-9
#: Random halvings of a regime; the counts are averaged over them.
SPLITS = 4
#: Fewer recipes than this hold too few winners in either half.
MINIMUM_RECIPES = 60
#: Weight of the prior for the share of winners near the optimum, in winners; its mean is the nearest's share.
PRIOR_WINNERS = 2.0
#: Simulated populations behind the lift that the curve alone implies.
SIMULATIONS = 100
_DRAWS = 4000
#: The fit's noise, for the reason.
_NOISES = {"normal": "normal", "student": "Student-t", "exgaussian": "exponentially modified normal"}


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
        else analysis.not_assessable(conjecture, r, r.reason, more_recipes(r))
        for r in analysis.fit.regimes
    ]


def optimum(analysis: Analysis, regime: RegimePosterior) -> Verdict:
    """Judge C3a in a regime: there is an optimal mCB."""
    values: dict[str, Value] = {"observed": regime.observed}
    if regime.outcome == "supported":
        values["near"] = _near(regime)
        values["rise"] = float(np.median(least_rise(regime.optimum)))
        values["widths"] = widths_clause(analysis, regime.label)
    else:
        values["shape"] = regime.shape
    return _there_is(analysis, regime, Finding("C3a", (), values), analysis.mixture(regime.data))


def _there_is(
    analysis: Analysis, regime: RegimePosterior, said: Finding, facts: tuple[Finding, ...] = ()
) -> Verdict:
    """Return the verdict on there being an optimum, in the unit of what is said."""
    return analysis.verdict(
        said.kind, regime.data, said, regime.holds, least_rise(regime.optimum), *regime.remedies,
        prior=regime.prior_probability, negligible=regime.flat, withheld=regime.withheld, facts=facts,
    )  # fmt: skip


def _near(regime: RegimePosterior) -> Finding:
    """Return the optimal mCB with its near-optimal range, or both ranges where there are two."""
    best = estimate(np.exp(regime.optimum.log_mcb))
    if len(regime.regions) == 2:
        first, second = regime.stretches
        return fact("two regions", regime.label, best=best, first=first, second=second)
    height = regime.optimum.near.height
    return fact("near-optimal", regime.label, best=best, ranges=regime.stretches, height=height)


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
        return fact("beyond widths", label, gain=beyond.gain)
    # An effect of the widths makes the optimal mCB only if their law tells most.
    kinds = {"most": "widths explain", "part": "widths explain a part", "unknown": "widths reach unknown"}
    reach = {"reach": max(beyond.share_of_ceiling, 0.0)}
    return interaction(analysis, beyond) or Finding(kinds[beyond.reach], (label,), reach)


def still_learning(analysis: Analysis, beyond: WidthsBeyond) -> Finding | None:
    """Return that more recipes alone would raise the R² of the widths as much as mCB does, where they would."""
    if beyond.gain - analysis.thresholds.gain > beyond.to_learn:
        return None
    return fact("law still learns", beyond.regime, gain=beyond.gain, to_learn=beyond.to_learn)


def interaction(analysis: Analysis, beyond: WidthsBeyond) -> Finding | None:
    """Return the share of an interaction of the widths that mCB carries, where mCB helps the additive law only."""
    limits, added = analysis.thresholds, beyond.additive_draws
    if added is None or (added > limits.gain).mean() < limits.supported:
        return None
    return fact("interaction", beyond.regime, share=min(beyond.share_of_interaction, 1.0))


def cost_optimum(analysis: Analysis, regime: RegimePosterior) -> Verdict:
    """Judge C1 (in a regime of equal MACs) or C2 (of equal parameters): C3a in another unit."""
    on_macs, original = analysis.fit.regime_axis == "macs", analysis.fit.population.original
    kept, sign = 1.0 - regime.data.reference, -1.0 if on_macs else 1.0
    values: dict[str, Value] = {
        "cost": "parameter bucket" if on_macs else "MACs count",
        "equal": analysis.axis_words,
    }
    if regime.outcome == "supported":
        share = kept * np.exp(regime.optimum.log_mcb * sign)
        values["share"] = estimate(share)
        values["count"] = float(np.median(share)) * (original.params if on_macs else original.macs)
        both = sorted(kept * float(np.exp(sign * best)) for _, best, _ in regime.regions)
        pair = dict(zip(("first", "second"), both, strict=False))
        values["others"] = (Finding("two costs", (regime.label,), pair),) if both else ()
    else:
        values["shape"] = regime.shape
    return _there_is(analysis, regime, Finding(COST_CONJECTURE[analysis.fit.regime_axis], (), values))


def original_ratio(analysis: Analysis, regime: RegimePosterior) -> Verdict:
    """Judge C3c in a regime: the optimum is practically the original's ratio."""
    limits, data, curve = analysis.thresholds, regime.data, regime.mean_curve
    band, far = Span(1.0 / limits.band, limits.band), np.abs(curve.log_mcb) > np.log(limits.band)
    outside = float(np.average(far, weights=curve.rows.runs))
    if regime.outcome == "refuted":
        return analysis.not_assessable("C3c", data, Finding("no optimum"))
    if why := _out_of_reach(band, _feasible(analysis, regime)):
        return analysis.not_assessable("C3c", data, why)
    if not regime.observed.low <= 1.0 <= regime.observed.high:
        unseen = fact("original not observed", observed=regime.observed)
        return analysis.not_assessable("C3c", data, unseen, more_recipes(data))
    if outside < limits.outside_band:
        few = fact("few outside band", outside=outside, band=band, needed=limits.outside_band)
        return analysis.not_assessable("C3c", data, few, more_recipes(data))
    regret, prior = regime.optimum.regret_at_original, regime.prior.regret_at_original
    given = has_optimum(regime.prior, limits.rise)
    return analysis.verdict(
        "C3c",
        data,
        fact("C3c", cost=estimate(regret), limit=limits.regret),
        regret < limits.regret,
        regret,
        twice_the_recipes(data),
        prior=float((prior[given] < limits.regret).mean()) if given.any() else np.nan,
        rests_on=regime,
        facts=(fact("outside band", regime.label, outside=outside, band=band),),
    )


def _out_of_reach(band: Span, feasible: Span) -> Finding | None:
    """Return on which side recipes of the regime cannot pass the band around the original's ratio."""
    for side, short, bound in (
        ("below", feasible.low > band.low - _ROUNDING, feasible.low),
        ("above", feasible.high < band.high + _ROUNDING, feasible.high),
    ):
        if short:
            return fact("band not reachable", side=side, bound=bound, band=band)
    return None


def _feasible(analysis: Analysis, regime: RegimePosterior) -> Span:
    """Return the mCB that recipes of the regime can have: generate's own range where the table has it."""
    axis, target = analysis.fit.regime_axis, regime.data.target
    for known in (analysis.fit.population.metadata.get("costs") or {}).get("feasible", ()):
        if known["axis"] == axis and abs(known["target"] - target) < _ROUNDING:
            return exponentials(known["log_mcb"])
    # At equal MACs mCB = F / P cannot fall below F (P is at most 1); at equal parameters not rise above 1 / P.
    return Span(1.0 - target, math.inf) if axis == "macs" else Span(0.0, 1.0 / (1.0 - target))


def winners(analysis: Analysis, regime: RegimePosterior) -> Verdict:
    """Judge C3b in a regime: winners lie near the optimum. Halves keep the fit's noise, scales and weights."""
    limits, seed, data = analysis.thresholds, analysis.fit.settings.random_seed, regime.data
    if data.n_recipes < MINIMUM_RECIPES:
        few = fact("few for halves", recipes=data.n_recipes, needed=MINIMUM_RECIPES)
        return analysis.not_assessable("C3b", data, few, more_recipes(data))
    if regime.outcome == "refuted":
        return analysis.not_assessable("C3b", data, Finding("no optimum"))
    near, whole = cross_fit(regime.mean_curve, limits, np.random.default_rng([seed, 31]))
    lift = lift_draws(near, whole, limits.nearest, np.random.default_rng([seed, 32]))
    prior = lift_draws(0.0, 0.0, limits.nearest, np.random.default_rng([seed, 33]))
    shares = {"nearest": limits.nearest, "winners": limits.winners}
    return analysis.verdict(
        "C3b",
        data,
        fact("C3b", lift=estimate(lift), implied=_implied(regime, seed), **shares),
        lift > limits.lift,
        lift,
        twice_the_recipes(data),
        prior=float((prior > limits.lift).mean()),
        # Neither more nor fewer winners than elsewhere.
        negligible=all_within(lift, 1.0 / limits.lift, limits.lift),
        rests_on=regime,
        facts=(fact("halves noise", noise=_NOISES[analysis.fit.settings.noise]),),
    )


def cross_fit(curve: MeanCurve, limits: Thresholds, rng: np.random.Generator) -> tuple[float, float]:
    """Return how many winners per halving lie near the optimum of the other half, and how many there are."""
    log_mcb, adjusted = curve.log_mcb, curve.adjusted
    near, winners = 0, 0
    for _ in range(SPLITS):
        first = rng.permutation(log_mcb.size) < log_mcb.size // 2
        for fitted, judged in ((first, ~first), (~first, first)):
            optimum = curve.optimum(fitted)
            if optimum is not None:
                found, of = count_near(log_mcb[judged], adjusted[judged], optimum, limits)
                near, winners = near + found, winners + of
    return near / SPLITS, winners / SPLITS


def count_near(
    log_mcb: FloatArray, adjusted: FloatArray, optimum: float, limits: Thresholds
) -> tuple[int, int]:
    """Return how many winners are among the nearest to the optimum, and how many winners there are.

    >>> drops, limits = np.array([1.0, 5.0, 6.0, 7.0]), Thresholds(winners=0.25, nearest=0.5)
    >>> count_near(np.array([0.0, 0.1, 1.0, 2.0]), drops, 0.0, limits)
    (1, 1)
    """
    best, near = _smallest(adjusted, limits.winners), _smallest(np.abs(log_mcb - optimum), limits.nearest)
    return int(np.intersect1d(best, near).size), int(best.size)


def _smallest(values: FloatArray, share: float) -> IntArray:
    """Return the positions of the smallest values, this share of all."""
    return np.argsort(values, kind="stable")[: max(1, round(share * values.size))]


def lift_draws(near: float, winners: float, nearest: float, rng: np.random.Generator) -> FloatArray:
    """Return posterior draws of the lift, shape (S,): a beta posterior for the winners' share near the optimum."""
    far = PRIOR_WINNERS * (1.0 - nearest) + winners - near
    return np.asarray(rng.beta(PRIOR_WINNERS * nearest + near, far, size=_DRAWS) / nearest)


def implied_lift(
    log_mcb: FloatArray, expected: FloatArray, noise: FloatArray, optimum: float, limits: Thresholds
) -> float:
    """Return the lift if networks differed by this curve and independent noise alone."""
    # log_mcb, expected (n,); noise (simulations, n)
    near = np.zeros(log_mcb.size, dtype=bool)
    near[_smallest(np.abs(log_mcb - optimum), limits.nearest)] = True
    count = max(1, round(limits.winners * log_mcb.size))
    best = np.argpartition(expected + noise, count - 1, axis=1)[:, :count]
    return float(near[best].mean() / near.mean())


def _implied(regime: RegimePosterior, seed: int) -> float:
    """Let networks keep their curve and swap what lies between it and them: no noise model has a say."""
    curve, rng = regime.mean_curve, np.random.default_rng([seed, 34])
    expected = np.interp(curve.log_mcb, regime.grid, np.median(regime.drop, axis=0))
    noise = rng.choice(curve.adjusted - expected, size=(SIMULATIONS, expected.size))
    optimum = float(np.median(regime.optimum.log_mcb))
    return implied_lift(curve.log_mcb, expected, noise, optimum, regime.thresholds)
