"""What a reader must know before relying on an optimal mCB: caveats, alerts, and the classical methods beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.figures.content import Alert, Section, Table
from popstats.figures.curve_figures import MASS_WORDS, TOO_FEW, measured
from popstats.findings import Estimate, Finding, Span, merge
from popstats.judgement.analysis import Analysis
from popstats.judgement.classical import (
    ENVELOPE,
    MINIMUM_POINTS,
    lower_envelope,
    parametric_optima,
    two_lines,
    u_test,
)
from popstats.posterior.optimum import GRID_SIZE
from popstats.words import (
    MISSING,
    clause,
    number,
    p_value,
    percent,
    place,
    plural,
    points,
    regime_name,
    regime_names,
    sentence,
    with_interval,
)

#: Share of the observed range (log mCB) over which the optimal mCB may move with the mix of recipes without being named.
MOVES = 0.5
#: A cross-validated R² of mCB up to this is none: it lies within what other folds would change.
NO_R2 = 0.02
#: A regime with fewer recipes than this gets an alert: most of its claims stay open.
FEW_RECIPES = 50
#: Caveats that leave nothing to aim for, the gravest first: the lead starts with them.
WEAK = ("predicts nothing", "winners elsewhere", "envelope elsewhere", "mix moves")
_ORDER = (*WEAK, "rests on few", "outliers bend", "pooled", "misfit")
#: Where a regime is too small for the envelope of its best 5 %, a larger share is taken, up to this one.
WIDEST_ENVELOPE = 0.20
#: What stands in place of a parabola's optimum where it has none, or not the smooth curve's.
_MISSPECIFIED, _NONE_INSIDE = "(misspecified)", "none inside"
_NO_CONTRADICTION = "no contradiction"


def caveats(analysis: Analysis) -> tuple[Finding, ...]:
    """Return what stands against relying on the supported optimal mCBs, one per kind, the gravest first."""
    if not analysis.fit.convergence.ok:
        return ()
    supported = analysis.verdicts.regimes_where("C3a", "supported")
    found = [f for label in supported for f in _caveats(analysis, label)]
    return merge(sorted(found, key=lambda f: _ORDER.index(f.kind)))


def _caveats(analysis: Analysis, label: str) -> Iterator[Finding]:
    """Yield what stands against relying on the optimal mCB of one regime."""
    frame, where, optimum = analysis.explained.frame, (label,), analysis.optima[label]
    of_mcb = frame[(frame["model"] == "mCB") & (frame["regime"] == label)]
    envelope, techniques = _envelope(analysis, label), analysis.techniques.get(label, ())
    for r2 in of_mcb["r2"][of_mcb["r2"] <= NO_R2]:
        yield Finding("predicts nothing", where, {"r2": float(r2)})
    if analysis.verdicts.outcome("C3b", label) == "refuted":
        yield Finding("winners elsewhere", where)
    if envelope is not None and envelope.elsewhere:
        yield Finding("envelope elsewhere", where, {"envelope": envelope.lowest})
    if mix := analysis.mixes.get(label):
        observed = math.log(optimum.observed_upper / optimum.observed_lower)
        if math.log(mix[1] / mix[0]) > MOVES * observed:
            yield Finding("mix moves", where, {"range": Span(*mix)})
    if optimum.n_recipes < TOO_FEW:
        yield Finding("rests on few", where, {"recipes": optimum.n_recipes})
    if analysis.by_label[label].heavy_tailed:
        yield Finding("outliers bend", where)
    if len(techniques) > 1:
        yield Finding("pooled", where, {"techniques": techniques})
    if label in {r for alert in analysis.fit.predictive_checks.alerts for r in alert.regimes}:
        yield Finding("misfit", where)


def weak_words(known: Sequence[Finding], command_line: bool = False) -> str:
    """Return in which regimes mCB is no guide, and why; "" if in none."""
    weak = [f for f in known if f.kind in WEAK]
    why: dict[str, list[str]] = {}
    for regime in sorted({r for f in weak for r in f.regimes}):
        found = (replace(f, regimes=()) for f in weak if regime in f.regimes)
        why.setdefault("; ".join(clause(f, command_line) for f in found), []).append(regime)
    return " ".join(f"mCB is a weak guide {place(regimes)}: {words}." for words, regimes in why.items())


def alerts(analysis: Analysis, known: Sequence[Finding], command_line: bool = False) -> tuple[Alert, ...]:
    """Return what a reader must know first, gravest first; `known`: the caveats, of which the lead names the weak ones."""
    graded = (
        ("reject", [Finding("rejected", (), {"why": r}) for r in analysis.fit.convergence.reasons]),
        ("warn", [*(f for f in known if f.kind not in (*WEAK, "misfit")), *_warnings(analysis)]),
        ("note", list(_notes(analysis))),
    )
    return tuple(Alert(level, sentence(f, command_line)) for level, found in graded for f in merge(found))


def _warnings(analysis: Analysis) -> Iterator[Finding]:
    fit, population = analysis.fit, analysis.fit.population
    for r in fit.regimes:
        if r.reason is not None:
            yield Finding("not fitted", (r.label,), {"why": r.reason, "trainings": r.n})
    yield from fit.extrapolated
    # Other noise than normal already down-weights collapsed trainings.
    yield from (f for f in population.findings if f.kind != "collapsed" or fit.settings.noise == "normal")
    if failed := len(population.failed):
        yield Finding("failed trainings", (), {"failed": failed, "whole": failed + len(population)})
    yield from fit.predictive_checks.alerts


def _notes(analysis: Analysis) -> Iterator[Finding]:
    fit, supported = analysis.fit, analysis.verdicts.regimes_where("C3a", "supported")
    yield from fit.stated_elsewhere
    for regime in analysis.regimes:
        if regime.heavy_tailed and regime.label not in supported:  # There a caveat names it.
            yield Finding("outliers widen", (regime.label,))
    for r, change in zip(fit.regimes, fit.spread_changes, strict=True):
        if change.matters:
            yield Finding("changing spread", (r.label,))
    for r in fit.fitted:
        if r.n_recipes < FEW_RECIPES:
            yield Finding("few in regime", (r.label,), {"needed": FEW_RECIPES})
    if not fit.population.has_replicates:
        yield Finding("no replicates")


def companion_section(analysis: Analysis) -> Section | None:
    """Return classical tests and curves beside the smooth curve's optimum; None where no regime has enough."""
    regimes = [r.label for r in analysis.fit.fitted if r.n_recipes >= MINIMUM_POINTS]
    if not regimes:
        return None
    parabolas = [parametric_optima(analysis.fit, curve) for curve in ("quadratic", "asymmetric")]
    table = pd.DataFrame([_answers(analysis, r, *(optima[r] for optima in parabolas)) for r in regimes])
    differing = [r for r, said in zip(regimes, table["answers"], strict=True) if said != _NO_CONTRADICTION]
    return Section(
        key="companions",
        heading="Classical methods",
        sentence=(
            f"The answers disagree at {regime_names(differing)}; the verdicts follow the smooth curve."
            if differing
            else f"No classical answer contradicts a verdict{elsewhere_words(table.iloc[:, 2].tolist())}."
        ),
        paragraphs=(
            "Shown for comparison only; no verdict depends on them. Where the smooth and the quadratic optimum differ by "
            "more than the quadratic's own interval, a quadratic is the wrong curve and its interval is not printed. "
            "The U-test (Lind and Mehlum) presumes a quadratic; the two-lines test (Simonsohn) requires a falling line "
            "followed by a rising one. The envelope is a quantile regression on a spline: the stated share of recipes lies "
            "below it, so it describes the best recipes and not the average one. It disagrees where it lies more than "
            f"{points(analysis.thresholds.rise)} above its minimum all over the optimal mCB's interval.",
        ),
        tables=(("Minimum (mCB) by method", Table.of(table)),),
        folded=True,
    )


def elsewhere_words(quadratics: Sequence[str]) -> str:
    """Count the regimes in which a parabola has no lowest point inside, or another one."""
    elsewhere = [q for q in quadratics if q == _NONE_INSIDE or q.endswith(_MISSPECIFIED)]
    of = plural(len(quadratics), "regime")
    told = f", but in {len(elsewhere)} of {of} a parabola has no minimum, or a different one"
    return told if elsewhere else ""


def _answers(
    analysis: Analysis, regime: str, parabola: Estimate | None, tip: Estimate | None
) -> dict[str, str]:
    """Return a row of the table: where each method finds the minimum, and what contradicts the verdict."""
    row, (x, y) = analysis.optima[regime], _points(analysis, regime)
    u_shaped, envelope = two_lines(x, y), _envelope(analysis, regime)
    wrong = parabola is None or not parabola.lower <= row.mcb <= parabola.upper
    vertex = _in_words(parabola)
    supported = analysis.verdicts.outcome("C3a", regime) == "supported"
    remarks = {
        "two lines find a U, the smooth curve does not": u_shaped and not supported,
        "two lines find no U": supported and not u_shaped,
        "quadratic misspecified": supported and wrong,
        "the best recipes lie elsewhere": supported and envelope is not None and envelope.elsewhere,
    }
    return {
        "removed": regime_name(regime),
        f"smooth curve ({MASS_WORDS})": measured(row, "mcb"),
        f"quadratic ({MASS_WORDS})": (
            f"{vertex.partition(' ')[0]} {_MISSPECIFIED}" if parabola is not None and wrong else vertex
        ),
        f"two half-parabolas ({MASS_WORDS})": _in_words(tip),
        "U-test p": p_value(u_test(x, y)),
        "two lines": "U" if u_shaped else "no U",
        "envelope of the best recipes": (
            f"{number(envelope.lowest)} (best {percent(envelope.share, 0)})" if envelope else MISSING
        ),
        "answers": "; ".join(words for words, holds in remarks.items() if holds) or _NO_CONTRADICTION,
    }


def _points(analysis: Analysis, regime: str) -> tuple[FloatArray, FloatArray]:
    networks = analysis.of_regime(regime)
    return np.log(networks["mcb"].to_numpy()), networks["adjusted"].to_numpy()


def _in_words(found: Estimate | None) -> str:
    return _NONE_INSIDE if found is None else with_interval(*found)  # type: ignore[arg-type]


class _Envelope(NamedTuple):
    """The quantile regression through the best recipes of a regime."""

    share: float  # Share of recipes under it.
    lowest: float  # mCB where it is lowest.
    elsewhere: bool  # Whether it lies too high all over the optimal mCB's interval.


#: Both the caveats and the table of classical methods need each envelope, which takes many iterations.
_ENVELOPES: WeakKeyDictionary[Analysis, dict[str, _Envelope]] = WeakKeyDictionary()


def _envelope(analysis: Analysis, regime: str) -> _Envelope | None:
    """Return the lower envelope of a regime; None where it has too few recipes for one."""
    known = _ENVELOPES.setdefault(analysis, {})
    row, (x, y) = analysis.optima[regime], _points(analysis, regime)
    share = max(ENVELOPE, MINIMUM_POINTS / len(x))
    if regime in known or share > WIDEST_ENVELOPE:
        return known.get(regime)
    log_mcb, drop = lower_envelope(x, y, share, analysis.fit.settings.random_seed)
    inside = np.linspace(np.log(row.mcb_lower), np.log(row.mcb_upper), GRID_SIZE)
    least = float(np.interp(inside, log_mcb, drop).min())
    elsewhere = least > float(drop.min()) + analysis.thresholds.rise
    known[regime] = _Envelope(share, float(np.exp(log_mcb[drop.argmin()])), elsewhere)
    return known[regime]
