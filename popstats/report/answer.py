"""The verdicts as a reader meets them, and the paragraph at the top."""

from __future__ import annotations

import math

import numpy as np

from popstats.figures.content import Claim, VerdictRow
from popstats.figures.curve_figures import limit_sentence, near_words
from popstats.figures.space_figures import even_sentence
from popstats.inference.draws import INTERVAL_MASS
from popstats.judgement.analysis import Analysis, RegimePosterior
from popstats.judgement.evidence import AXIS_WORDS, Evidence
from popstats.judgement.verdicts import CLAIMS, Outcome, Thresholds, Verdict
from popstats.posterior.optimum import is_flat
from popstats.report.alerts import doubts
from popstats.words import (
    ALL,
    clause,
    count,
    interval_words,
    join_words,
    number,
    percent,
    regime_name,
    regime_names,
)

_OUTCOMES: tuple[Outcome, ...] = ("supported", "refuted", "undecided", "not assessable")
#: Conjectures whose regimes fix parameters whatever the axis of the fit, and the reverse.
_OWN_AXIS = {"C1": "macs", "C2": "params"}
#: What the reader is told that mCB is.
_RATIO = "ratio of MACs to parameters (mCB; 1 is the original network's)"
#: Where the best mCB's interval is this many times wider than its near-optimal range, the range is no target.
LOOSE = 3.0
#: The best mCB first, then whether it is more than the widths, then the rest; C1 and C2 repeat C3a in other units.
_FIRST, _LAST = ("C3a", "C3c", "C3b", "C3d", "M1"), ("C1", "C2")
_ORDER = (*_FIRST, *(c for c in CLAIMS if c not in _FIRST + _LAST), *_LAST)


def claims(evidence: Evidence) -> tuple[Claim, ...]:
    """Return every conjecture that was judged: the best mCB and what there is to it first, its twins in costs last."""
    judged = [(c, [v for v in evidence.verdicts if v.conjecture == c]) for c in _ORDER]
    return tuple(_claim(evidence, c, verdicts) for c, verdicts in judged if verdicts)


def _claim(evidence: Evidence, conjecture: str, verdicts: list[Verdict]) -> Claim:
    axis = AXIS_WORDS[_OWN_AXIS.get(conjecture, evidence.fit.regime_axis)]
    return Claim(
        conjecture=conjecture,
        claim=CLAIMS[conjecture],
        summary=_summary(verdicts, axis),
        negligible_region=next((v.negligible_region for v in verdicts if v.negligible_region), ""),
        quantity=next((v.quantity for v in verdicts if v.quantity), ""),
        rows=tuple(_row(v) for v in verdicts),
    )


def _summary(verdicts: list[Verdict], axis: str) -> str:
    if len(verdicts) == 1:
        return verdicts[0].sentence
    over_all = [f" Over all regimes: {v.outcome}." for v in verdicts if v.regime == ALL]
    each = [v for v in verdicts if v.regime != ALL]
    parts = []
    for outcome in _OUTCOMES:
        regimes = [v.regime for v in each if v.outcome == outcome]
        if len(regimes) == len(each):
            return f"{outcome.capitalize()} in {_every(len(regimes))}.{''.join(over_all)}"
        if regimes:
            parts.append(f"{outcome} at {regime_names(regimes)}")
    return f"By {axis} removed: {'; '.join(parts)}.{''.join(over_all)}"


def _every(count: int) -> str:
    return "the one regime" if count == 1 else f"all {count} regimes"


def _row(verdict: Verdict) -> VerdictRow:
    def finite(value: float) -> float | None:
        return float(f"{value:.6g}") if math.isfinite(value) else None

    return VerdictRow(
        regime=verdict.regime,
        target=finite(verdict.target),
        outcome=verdict.outcome,
        probability=finite(verdict.probability),
        prior_probability=finite(verdict.prior_probability),
        estimate=finite(verdict.estimate),
        lower=finite(verdict.lower),
        upper=finite(verdict.upper),
        unit=verdict.unit,
        sentence=verdict.sentence,
        reason=verdict.reason,
        remedy=verdict.remedy,
    )


def answer(evidence: Evidence) -> tuple[str, ...]:
    """Return the paragraph at the top, a sentence an entry."""
    if not evidence.fit.convergence.ok:
        reasons = "; ".join(evidence.fit.convergence.reasons)
        return (
            f"The fit's own diagnostics reject it, so no verdict that hangs on it is given: {reasons}.",
            f"What to do: {clause(Analysis(evidence.fit).way_out)}.",
            "The pictures below show the rejected draws; do not use their ranges.",
        )
    sentences = _is_there_one(evidence)
    if evidence.fit.fitted:
        sentences += [
            _doubts(evidence),
            _original_ratio(evidence),
            _widths(evidence),
            even_sentence(evidence),
            limit_sentence(evidence, reliable=True),
        ]
    return tuple(s for s in sentences if s)


def _regimes(evidence: Evidence, labels: list[str], all_of_them: str = "in every pruning regime") -> str:
    if len(labels) == len(evidence.fit.regimes) > 1:
        return all_of_them
    return f"at {regime_names(labels)}"


def _is_there_one(evidence: Evidence) -> list[str]:
    if not evidence.fit.fitted:
        return [
            f"No regime of this population has enough recipes to fit a curve to ({evidence.fit.regimes[0].reason}); "
            f"nothing is claimed about the best {_RATIO}."
        ]
    if not any(v.conjecture == "C3a" for v in evidence.verdicts):
        return [f"Whether there is a best {_RATIO} was not judged."]
    supported = evidence.regimes_where("C3a", "supported")
    rest = _elsewhere(evidence)
    refuted = evidence.regimes_where("C3a", "refuted")
    if len(refuted) == len(evidence.fit.regimes):
        where = _regimes(evidence, refuted, "in any pruning regime")
        return [f"There is no best {_RATIO} {where}{_instead(evidence, refuted)}."]
    if not supported:
        found = f"At no pruning level do these networks show a best {_RATIO} beyond doubt"
        return [f"{found}: {rest}." if rest else f"{found}."]
    where = _regimes(evidence, supported)
    removed = "" if where.startswith("in") else f" of {evidence.axis_words} removed"
    aims = join_words([_aim(evidence, r, len(supported) > 1) for r in supported])
    found = f"There is a best {_RATIO} {where}{removed}: aim for {aims}."
    if not all(_is_loose(evidence, r) for r in supported):
        found += f" {_cost_of_a_range(evidence)}"
    return [found, *([f"Elsewhere: {rest}."] if rest else [])]


def _cost_of_a_range(evidence: Evidence) -> str:
    """Return what a value in a range costs; the worse one of two good regions may cost more."""
    rival = (
        f", and in one of two good regions about {evidence.thresholds.near + evidence.rise:g} or less"
        if evidence.regions
        else ""
    )
    return (
        f"A value in such a range is expected to cost about {evidence.thresholds.near:g} points or less against the best "
        f"there{rival}."
    )


def _elsewhere(evidence: Evidence) -> str:
    """Return in which regimes there is no best mCB, and in which the data do not decide."""
    refuted, open_ = (evidence.regimes_where("C3a", o) for o in ("refuted", "undecided"))
    denied = "in any pruning regime"
    rest = (
        [f"there is none {_regimes(evidence, refuted, denied)}{_instead(evidence, refuted)}"]
        if refuted
        else []
    )
    rest += [f"the data do not decide {_regimes(evidence, open_, denied)}"] if open_ else []
    return "; ".join(rest)


def _instead(evidence: Evidence, refuted: list[str]) -> str:
    """Return what a reader may do where there is no best mCB, in brackets after a space; "" where nothing is clear."""
    told: dict[str, list[str]] = {}
    for regime in refuted:
        told.setdefault(_as_good(evidence.readings[regime], evidence.rise), []).append(regime)
    clauses = [f"{what} at {regime_names(where)}" for what, where in told.items() if what]
    return f" ({'; '.join(clauses)})" if clauses else ""


def _as_good(reading: RegimePosterior, rise: float) -> str:
    """Return which mCB values do as well as any inside the observed range; "" where that is not clear."""
    if is_flat(reading.height, rise):
        return "mCB hardly matters"
    low, high = np.median(reading.optimum.rise_lower), np.median(reading.optimum.rise_upper)
    if high <= reading.thresholds.near and low > rise:
        return "high mCB is as good as any that was observed"
    if low <= reading.thresholds.near and high > rise:
        return "low mCB is as good as any that was observed"
    return ""


def _aim(evidence: Evidence, regime: str, named: bool) -> str:
    """Return every stretch of mCB that is near-optimal, and the best mCB with its interval.

    Where that interval is far wider than the stretches, they would promise what is not known: the best comes first.
    """
    row = evidence.optima[regime]
    where = f" at {regime_name(regime)}" if named else ""
    interval = f"{percent(INTERVAL_MASS)} interval {interval_words(row.mcb_lower, row.mcb_upper)}"
    if regime in evidence.regions:
        return f"{near_words(evidence, regime)}{where} (two good regions, and what lies between is worse)"
    if _is_loose(evidence, regime):
        return f"{number(row.mcb)}{where} (known roughly: {interval})"
    return f"{near_words(evidence, regime)}{where} (best {number(row.mcb)}, {interval})"


def _is_loose(evidence: Evidence, regime: str) -> bool:
    if regime in evidence.regions:
        return False
    row = evidence.optima[regime]
    near = sum(math.log(high / low) for low, high in evidence.stretches[regime])
    return math.log(row.mcb_upper / row.mcb_lower) > LOOSE * near


def _doubts(evidence: Evidence) -> str:
    clauses = [doubt.clause for doubt in doubts(evidence)]
    return f"Before you rely on it: {'; '.join(clauses)}." if clauses else ""


def _original_ratio(evidence: Evidence) -> str:
    supported, refuted = (evidence.regimes_where("C3c", o) for o in ("supported", "refuted"))
    parts = []
    if supported:
        worst = max(evidence.optima[r].regret_at_original for r in supported)
        parts.append(
            f"keeping the original's ratio is practically the best {_regimes(evidence, supported)} "
            f"(it costs {number(worst)} points or less)"
        )
    if refuted:
        costs = [_cost(evidence, r) for r in refuted]
        subject = "it" if supported else "keeping the original's ratio"
        parts.append(f"{subject} is not the best {_regimes(evidence, refuted)}: it costs {join_words(costs)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _cost(evidence: Evidence, regime: str) -> str:
    """Return what mCB = 1 costs in a regime, with its interval."""
    row = evidence.optima[regime]
    low, high = row.regret_at_original_lower, row.regret_at_original_upper
    return f"{number(row.regret_at_original)} points ({percent(INTERVAL_MASS)} interval {interval_words(low, high)})"


def _widths(evidence: Evidence) -> str:
    best = evidence.regimes_where("C3a", "supported")
    refuted, supported = (evidence.regimes_where("M1", o) for o in ("refuted", "supported"))
    if not best:
        return _widths_alone(evidence, supported, refuted)
    parts = _no_more_than_widths(evidence, best, [r for r in best if r in refuted])
    if more := [r for r in best if r in supported]:
        where = _regimes(evidence, more)
        parts.append(
            f"{where[0].upper()}{where[1:]} the best mCB is more than an additive effect of the layers' widths: mCB adds to "
            "what an additive law in them predicts."
        )
    return " ".join(parts)


def _no_more_than_widths(evidence: Evidence, best: list[str], refuted: list[str]) -> list[str]:
    """Return what a refuted M1 says of supported best mCBs, by how much the law in the widths itself explains."""
    reach = {r: evidence.explained.widths_beyond[r].reach for r in refuted}
    most, part, unknown = ([r for r in refuted if reach[r] == how] for how in ("most", "part", "unknown"))
    no_better = "adding mCB to an additive law in the layers' widths predicts the drop no better"
    told = []
    if most:
        where = "" if most == best else f", {_regimes(evidence, most)}"
        told.append(
            f"Such a best mCB is what any additive effect of the layers' widths would produce{where}: "
            f"{no_better}{f' (the law reaches {how_far})' if (how_far := _reached(evidence, most)) else ''}."
        )
    start = f"{no_better[0].upper()}{no_better[1:]}"
    if part:
        told.append(
            f"{start} {_regimes(evidence, part)}, but that law reaches only {_reached(evidence, part)}: what lies behind "
            "such a best mCB is open."
        )
    if unknown:
        told.append(
            f"{start} {_regimes(evidence, unknown)}; how much that law itself explains is not known without a second seed."
        )
    return told


def _reached(evidence: Evidence, regimes: list[str]) -> str:
    """Return how much of what can be predicted the widths alone predict; "" where seeds do not tell."""
    shares = [evidence.explained.widths_beyond[r].share_of_ceiling for r in regimes]
    known = [min(max(s, 0.0), 1.0) for s in shares if math.isfinite(s)]
    if not known:
        return ""
    ends = dict.fromkeys(number(100 * s, 0) for s in (min(known), max(known)))
    return f"{' to '.join(ends)} % of what the seeds' noise leaves to be predicted"


def _widths_alone(evidence: Evidence, supported: list[str], refuted: list[str]) -> str:
    if supported:
        nothing = f", and nothing {_regimes(evidence, refuted)}" if refuted else ""
        return (
            f"mCB explains something that the layers' widths do not {_regimes(evidence, supported)}{nothing}."
        )
    if refuted:
        where = _regimes(evidence, refuted)
        return f"Adding mCB to an additive law in the layers' widths predicts the drop no better {where}."
    return ""


def facts(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """Return the population's sizes, for the line under the title."""
    population = evidence.fit.population
    original = population.original
    return (
        ("trainings", count(len(population))),
        ("recipes", count(int(population.recipe.max()) + 1)),
        ("regimes fitted", f"{len(evidence.fit.fitted)} of {len(evidence.fit.regimes)}"),
        ("original accuracy", f"{number(original.accuracy)} %"),
        ("original MACs", _short(original.macs)),
        ("original parameters", _short(original.params)),
    )


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return count(value)


def threshold_words(limits: Thresholds) -> str:
    """Return what the verdicts were made with."""
    return (
        f"Supported: probability of the claim at least {limits.supported:g}. Refuted: at most {limits.refuted:g}, also "
        "after its odds before the data are set to 1:1, or the whole interval is negligible. At a best mCB the expected "
        f"drop lies more than {limits.rise:g} points below that at both ends of the observed range; “practically” means "
        f"that it costs under {limits.regret:g} points, near-optimal at most {limits.near:g} points."
    )
