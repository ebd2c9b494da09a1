"""C1, C2, C3a and C3c: is there an optimum, where, and is it the original's ratio."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from popstats.inference.data import RegimeDesign
from popstats.judgement.analysis import (
    Case,
    Effect,
    Reading,
    Words,
    more_recipes,
    number,
    percent,
    span,
    twice_the_recipes,
)
from popstats.judgement.explained import WidthsBeyond
from popstats.judgement.verdicts import Verdict, decide
from popstats.posterior.optimum import has_optimum, is_flat, least_rise

#: Conjecture that speaks of an optimal cost on the axis that the regime leaves free.
COST_CONJECTURE = {"macs": "C1", "params": "C2"}
#: Probability of a second good region from which the wording changes.
SECOND_REGION = 0.5
#: Reductions and ends of ranges are sums of decimal fractions.
_ROUNDING = 1e-9


def judge_optimum(case: Case) -> list[Verdict]:
    """Judge C3a in every regime: there is an optimal mCB."""
    return _per_regime(case, "C3a", _optimum)


def judge_cost_optimum(case: Case) -> list[Verdict]:
    """Judge C1 (regimes of equal MACs) or C2 (regimes of equal parameters) in every regime.

    At equal MACs the parameter bucket and mCB are one quantity in two units, so C1 stands or falls with C3a
    (and C2 with C3a at equal parameters).
    """
    return _per_regime(case, COST_CONJECTURE[case.fit.regime_axis], _cost_optimum)


def judge_original_ratio(case: Case) -> list[Verdict]:
    """Judge C3c in every regime: the optimum is practically the original's ratio."""
    return _per_regime(case, "C3c", _original_ratio)


def _per_regime(case: Case, conjecture: str, judge_one: Callable[[Case, Reading], Verdict]) -> list[Verdict]:
    if not case.usable:
        return [case.rejected(conjecture, r) for r in case.fit.regimes]
    fitted = {r.label: r for r in case.readings}
    return [
        judge_one(case, fitted[r.label])
        if r.fitted
        else case.not_assessable(conjecture, r, r.reason, more_recipes(r))
        for r in case.fit.regimes
    ]


def _optimum_effect(case: Case, reading: Reading) -> Effect:
    rise = case.thresholds.rise
    return Effect(
        holds=has_optimum(reading.optimum, rise),
        prior_probability=float(has_optimum(reading.prior, rise).mean()),
        size=least_rise(reading.optimum),
        quantity="smaller rise to an end",
        unit="percentage points",
        negligible=f"the curve rises and falls by no more than {rise:g} points over the observed range",
        inside_negligible=is_flat(reading.height, rise),
    )


def _optimum(case: Case, reading: Reading) -> Verdict:
    effect = _optimum_effect(case, reading)
    at, low_high = case.at(reading.data), _range_words(reading)
    words: dict[str, Words] = {
        "supported": lambda: f"{at} {_good_regions(case, reading)}{widths_clause(case, reading.data)}.",
        "refuted": lambda: (
            f"{at} there is no best mCB between {low_high}, the observed range: {_shape(case, reading)}."
        ),
        "undecided": (
            f"{at} it is undecided whether there is a best mCB between {low_high}, the observed range: from its lowest "
            f"point the expected drop rises to either end by at least {span(least_rise(reading.optimum))} points, and more "
            f"than {case.thresholds.rise:g} is asked for."
        ),
        "because": case.mixture(reading.data),
        "remedy": twice_the_recipes(reading.data),
    }
    return case.verdict("C3a", reading.data, effect, words)


def _good_regions(case: Case, reading: Reading) -> str:
    best = span(np.exp(reading.optimum.log_mcb))
    rise = number(np.median(least_rise(reading.optimum)))
    second = reading.second(case.thresholds.rise)
    if second.probability > SECOND_REGION:
        places = " and ".join(_region_words(*region) for region in second.regions)
        return (
            f"there is more than one good region of mCB: {places} (each within {case.thresholds.near:g} points of its own "
            f"lowest, and the two within {case.thresholds.rise:g} of each other); the lowest of all is at {best}, and both "
            f"ends of the observed range, {_range_words(reading)}, lie at least {rise} points above it"
        )
    stretches = reading.optimum.near.stretches
    near = " or ".join(f"{number(np.exp(low))} to {number(np.exp(high))}" for low, high in stretches)
    return (
        f"there is a best mCB: {best}; anything from {near} is within {case.thresholds.near:g} points of it, and "
        f"both ends of the observed range, {_range_words(reading)}, lie at least {rise} points above it"
    )


def good_stretches(case: Case, reading: Reading) -> tuple[tuple[float, float], ...]:
    """Return the stretches of log mCB to choose from: the near-optimal ones, or two good regions where C3a has them."""
    if case.has_optimum(reading) == "supported":
        second = reading.second(case.thresholds.rise)
        if second.probability > SECOND_REGION:
            return tuple((low, high) for low, _, high in second.regions)
    return reading.optimum.near.stretches


def _region_words(low: float, best: float, high: float) -> str:
    """Return a region, given in log mCB: "0.72 to 0.84 around 0.78"."""
    return f"{number(np.exp(low))} to {number(np.exp(high))} around {number(np.exp(best))}"


def widths_clause(case: Case, regime: RegimeDesign) -> str:
    """Return the clause that M1 adds to a supported optimum, starting with a comma or semicolon."""
    beyond = case.explained.widths_beyond.get(regime.label)
    if beyond is None:
        return (
            "; whether it is more than an additive effect of the layers' widths cannot be told without widths"
        )
    gain = case.thresholds.gain
    outcome = decide(float((beyond.draws > gain).mean()), float("nan"), False, case.thresholds)
    if outcome == "refuted":
        return _no_more_than_widths(beyond)
    if outcome == "supported":
        return (
            f"; this is more than an additive effect of the layers' widths: mCB adds {number(beyond.gain, 3)} "
            "of R^2 to it"
        )
    return "; whether it is more than an additive effect of the layers' widths is undecided"


def _no_more_than_widths(beyond: WidthsBeyond) -> str:
    """Return the clause for a refuted M1: an effect of the widths makes the best mCB only if their law tells most."""
    if beyond.reach == "most":
        return ", as any additive effect of the layers' widths would produce"
    nothing = "; mCB adds nothing to an additive law in the layers' widths"
    if beyond.reach == "unknown":
        return f"{nothing}, but how far that law reaches is not known without a second seed"
    reached = f"{number(100.0 * max(beyond.share_of_ceiling, 0.0), 0)} % of what the seeds' noise leaves to be predicted"
    return f"{nothing}, but that law reaches only {reached}: what lies behind it is open"


def _shape(case: Case, reading: Reading) -> str:
    if is_flat(reading.height, case.thresholds.rise):
        return f"the expected drop changes by only {span(reading.height)} points over it"
    lower, upper = np.median(reading.optimum.rise_lower), np.median(reading.optimum.rise_upper)
    end, other = ("low", "high") if lower < upper else ("high", "low")
    least = number(min(lower, upper))
    return (
        f"towards the {end} end the expected drop rises by only {least} points, towards the {other} end by "
        f"{number(max(lower, upper))}"
    )


def _cost_optimum(case: Case, reading: Reading) -> Verdict:
    kept = 1.0 - reading.data.target
    mcb = np.exp(reading.optimum.log_mcb)
    on_macs = case.fit.regime_axis == "macs"
    share = 100.0 * (kept / mcb if on_macs else kept * mcb)
    what, equal = ("parameters", "MACs") if on_macs else ("MACs", "parameters")
    effect = _optimum_effect(case, reading)
    at, twin = case.at(reading.data), f"; at equal {equal} this is C3a in another unit"
    whole = case.fit.population.original.params if on_macs else case.fit.population.original.macs
    count = f"{np.median(share) / 100.0 * whole:,.0f}"
    name = "an optimal parameter bucket" if on_macs else "an optimal MACs count"
    words: dict[str, Words] = {
        "supported": lambda: (
            f"{at} there is {name}: {span(share, 1)} % of the original's {what}, about {count}"
            f"{_other_shares(case, reading)}{twin}."
        ),
        "refuted": f"{at} there is no {name[3:]} inside the observed range: {_shape(case, reading)}{twin}.",
        "undecided": f"{at} it is undecided whether there is {name}{twin}.",
        "remedy": twice_the_recipes(reading.data),
    }
    return case.verdict(COST_CONJECTURE[case.fit.regime_axis], reading.data, effect, words)


def _other_shares(case: Case, reading: Reading) -> str:
    """Return both optimal costs where there are two good regions of mCB, in percent of the original's."""
    second = reading.second(case.thresholds.rise)
    if second.probability <= SECOND_REGION:
        return ""
    kept, sign = 1.0 - reading.data.target, -1 if case.fit.regime_axis == "macs" else 1
    shares = sorted(100.0 * kept * np.exp(sign * best) for _, best, _ in second.regions)
    return f", in one of two good regions, around {number(shares[0], 1)} and {number(shares[1], 1)} %"


def _original_ratio(case: Case, reading: Reading) -> Verdict:
    if reason := _why_not_ratio(case, reading):
        return case.not_assessable("C3c", reading.data, *reason)
    limit = case.thresholds.regret
    regret, prior = reading.optimum.regret_at_original, reading.prior.regret_at_original
    given = has_optimum(reading.prior, case.thresholds.rise)
    effect = Effect(
        holds=regret < limit,
        prior_probability=float((prior[given] < limit).mean()) if given.any() else float("nan"),
        size=regret,
        quantity="cost of mCB = 1",
        unit="percentage points",
        negligible=f"the regret of mCB = 1 is under {limit:g} points",
    )
    at, cost = case.at(reading.data), f"{span(regret)} points against the best mCB"
    words = {
        "supported": f"{at} the original's ratio (mCB = 1) is practically the best: it costs {cost}.",
        "refuted": f"{at} the original's ratio (mCB = 1) is not the best: it costs {cost}.",
        "undecided": (
            f"{at} it is undecided whether the original's ratio (mCB = 1) is practically the best: it costs "
            f"{cost}, and under {limit:g} is asked for."
        ),
        "because": f"; {percent(_outside(case, reading))} of the trainings lie outside the band {_band(case)}",
        "remedy": twice_the_recipes(reading.data),
    }
    return case.verdict("C3c", reading.data, effect, words)


def _why_not_ratio(case: Case, reading: Reading) -> tuple[str, str] | None:
    """Return why the original's ratio cannot be judged, and what would change that; None where it can."""
    limits = case.thresholds
    if case.has_optimum(reading) != "supported":
        undecided = case.has_optimum(reading) == "undecided"
        return (
            "it needs a supported C3a, an optimum to compare with the original's ratio",
            twice_the_recipes(reading.data) if undecided else "",
        )
    # At equal MACs mCB = F / P cannot fall below F (P is at most 1); at equal parameters not rise above 1 / P.
    if 1.0 - reading.data.target > 1.0 / limits.band - _ROUNDING:
        side = "below" if case.fit.regime_axis == "macs" else "above"
        bound = 1.0 - reading.data.target if side == "below" else 1.0 / (1.0 - reading.data.target)
        why = f"no network {side} mCB {bound:.2f} exists at this reduction, so the band {_band(case)} is not passed"
        return why, ""
    if not reading.observed[0] <= 1.0 <= reading.observed[1]:
        why = f"mCB = 1 lies outside the observed range, between {_range_words(reading)}"
        return why, more_recipes(reading.data)
    outside = _outside(case, reading)
    if outside < limits.outside_band:
        why = (
            f"only {percent(outside)} of the trainings lie outside the band {_band(case)}, and "
            f"{percent(limits.outside_band)} are needed to tell it from the rest"
        )
        return why, more_recipes(reading.data)
    return None


def _outside(case: Case, reading: Reading) -> float:
    """Share of the regime's networks outside the band around the original's ratio."""
    assigned = case.fit.recipes.assigned
    member = assigned.index == assigned.labels.index(reading.data.label)
    log_mcb = case.fit.population.frame["log_mcb"].to_numpy()[member]
    return float((np.abs(log_mcb) > np.log(case.thresholds.band)).mean())


def _band(case: Case) -> str:
    return f"{number(1.0 / case.thresholds.band)} to {number(case.thresholds.band)}"


def _range_words(reading: Reading) -> str:
    return f"{number(reading.observed[0])} and {number(reading.observed[1])}"
