"""What a supported optimal mCB depends on that its verdict does not say, and what a reader must know first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from popstats.figures.content import Alert
from popstats.figures.curve_figures import TOO_FEW
from popstats.findings import Finding, Span, merge
from popstats.judgement.analysis import Analysis
from popstats.report.other_methods import envelope_elsewhere
from popstats.words import clause, place, sentence

#: Share of the observed range (log mCB) over which the optimal mCB may move with the mix of recipes without being named.
MOVES = 0.5
#: A cross-validated R² of mCB up to this is none: it lies within what other folds would change.
NO_R2 = 0.02
#: A regime with fewer recipes than this gets an alert: most of its claims stay open.
FEW_RECIPES = 50
#: Caveats that leave nothing to aim for, the gravest first: the lead starts with them.
WEAK = ("predicts nothing", "winners elsewhere", "envelope elsewhere", "mix moves")
_ORDER = (*WEAK, "rests on few", "outliers bend", "pooled", "misfit")


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
    lowest, techniques = envelope_elsewhere(analysis, label), analysis.techniques.get(label, ())
    for r2 in of_mcb["r2"][of_mcb["r2"] <= NO_R2]:
        yield Finding("predicts nothing", where, {"r2": float(r2)})
    if analysis.verdicts.outcome("C3b", label) == "refuted":
        yield Finding("winners elsewhere", where)
    if lowest is not None:
        yield Finding("envelope elsewhere", where, {"envelope": lowest})
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
