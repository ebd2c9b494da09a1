"""What a supported best mCB depends on that its verdict does not say, and what a reader must know first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from popstats.figures.content import Alert
from popstats.figures.curve_figures import TOO_FEW
from popstats.findings import Finding, Span, merge
from popstats.inference.data import RegimeDesign
from popstats.judgement.analysis import Analysis, rows_of
from popstats.judgement.classical import MINIMUM_POINTS
from popstats.report.other_methods import envelope_elsewhere
from popstats.words import clause, join_words, place, sentence

#: Share of the observed range (log mCB) over which the best mCB may move with the mix of recipes without being named.
MOVES = 0.5
#: Spread over robust spread from which a few recipes count as outliers: a normal sample of 20 hardly reaches it.
HEAVY_TAILS = 2.0
#: A cross-validated R² of mCB up to this is none: it lies within what other folds would change.
NO_R2 = 0.02
#: A regime with fewer recipes than this gets an alert: most of its claims stay open.
FEW_RECIPES = 50
#: Caveats that leave nothing to aim for: the lead starts with them.
WEAK = ("predicts nothing", "winners elsewhere", "envelope elsewhere", "mix moves")


def caveats(analysis: Analysis) -> tuple[Finding, ...]:
    """Return what stands against relying on the supported best mCBs, one per kind, the gravest first."""
    if not analysis.fit.convergence.ok:
        return ()
    supported = analysis.verdicts.regimes_where("C3a", "supported")
    tests = (_no_prediction, _winners, _envelope, _mix, _few, _outliers, _pooled, _misfit)
    return merge(found for test in tests for found in test(analysis, supported)) if supported else ()


def weak_words(known: Sequence[Finding], command_line: bool = False) -> str:
    """Return in which regimes mCB is no guide, and why; "" if in none."""
    why = [f"{place(f.regimes)} ({clause(f, command_line)})" for f in known if f.kind in WEAK]
    return f"mCB is a weak guide {join_words(why)}." if why else ""


def _no_prediction(analysis: Analysis, supported: list[str]) -> Iterator[Finding]:
    frame = analysis.explained.frame
    for row in rows_of(frame[frame["model"] == "mCB"]):
        if row.regime in supported and row.r2 <= NO_R2:
            yield Finding("predicts nothing", (str(row.regime),), {"r2": float(row.r2)})


def _winners(analysis: Analysis, supported: list[str]) -> Iterator[Finding]:
    refuted = analysis.verdicts.regimes_where("C3b", "refuted")
    return (Finding("winners elsewhere", (r,)) for r in supported if r in refuted)


def _envelope(analysis: Analysis, supported: list[str]) -> Iterator[Finding]:
    for regime in supported:
        lowest = envelope_elsewhere(analysis, regime)
        if lowest is not None:
            yield Finding("envelope elsewhere", (regime,), {"envelope": lowest})


def _mix(analysis: Analysis, supported: list[str]) -> Iterator[Finding]:
    for regime in supported:
        if regime in analysis.mixes and _share_moved(analysis, regime) > MOVES:
            yield Finding("mix moves", (regime,), {"range": Span(*analysis.mixes[regime])})


def _share_moved(analysis: Analysis, regime: str) -> float:
    """Return the share of the observed range, on the log scale, over which other mixes move the best mCB."""
    row = analysis.optima[regime]
    low, high = np.log(analysis.mixes[regime])
    return float((high - low) / np.log(row.observed_upper / row.observed_lower))


def _few(analysis: Analysis, supported: list[str]) -> Iterator[Finding]:
    sizes = {r: analysis.optima[r].n_recipes for r in supported}
    return (Finding("rests on few", (r,), {"recipes": n}) for r, n in sizes.items() if n < TOO_FEW)


def _outliers(analysis: Analysis, supported: list[str]) -> Iterator[Finding]:
    return (Finding("outliers bend", (r,)) for r in heavy_tails(analysis) if r in supported)


def heavy_tails(analysis: Analysis) -> list[str]:
    """Return the regimes whose spread is made by a few far recipes, where the noise model is the normal one."""
    if analysis.fit.settings.noise != "normal":
        return []
    found = {r.label: _tail_ratio(analysis, r) for r in analysis.fit.fitted if r.n_recipes >= MINIMUM_POINTS}
    return [label for label, ratio in found.items() if ratio > HEAVY_TAILS]


def _tail_ratio(analysis: Analysis, regime: RegimeDesign) -> float:
    """Return the standard deviation about the curve over its robust estimate; 1 for normal noise."""
    networks = analysis.of_regime(regime.label)
    curve = analysis.curve[analysis.curve["regime"] == regime.label]
    residual = networks["adjusted"] - np.interp(networks["mcb"], curve["mcb"], curve["drop"])
    robust = stats.median_abs_deviation(residual, scale="normal")
    return float(residual.std() / robust) if robust > 0 else 1.0


def _pooled(analysis: Analysis, supported: list[str]) -> Iterator[Finding]:
    pooled = {r: analysis.techniques.get(r, ()) for r in supported}
    return (Finding("pooled", (r,), {"techniques": t}) for r, t in pooled.items() if len(t) > 1)


def _misfit(analysis: Analysis, supported: list[str]) -> Iterator[Finding]:
    wrong = {r for alert in analysis.fit.predictive_checks.alerts for r in alert.regimes}
    return (Finding("misfit", (r,)) for r in supported if r in wrong)


def alerts(analysis: Analysis, known: Sequence[Finding], command_line: bool = False) -> tuple[Alert, ...]:
    """Return what a reader must know first, gravest first; `known`: the caveats, of which the lead names the weak ones."""
    fit = analysis.fit
    rejections = [Finding("rejected", (), {"why": reason}) for reason in fit.convergence.reasons]
    warnings = [
        *(found for found in known if found.kind not in (*WEAK, "misfit")),
        *_unfitted(analysis),
        *_extrapolated(analysis),
        *fit.population.findings,
        *_failed(analysis),
        *fit.predictive_checks.alerts,
    ]
    notes = [
        *_other_outliers(analysis),
        *_changing_spread(analysis),
        *_few_recipes(analysis),
        *_no_replicates(analysis),
    ]
    graded = (("reject", rejections), ("warn", warnings), ("note", notes))
    return tuple(Alert(level, sentence(f, command_line)) for level, found in graded for f in merge(found))


def _unfitted(analysis: Analysis) -> Iterator[Finding]:
    for r in analysis.fit.regimes:
        if r.reason is not None:
            yield Finding("not fitted", (r.label,), {"why": r.reason, "trainings": r.n})


def _extrapolated(analysis: Analysis) -> Iterator[Finding]:
    return (
        Finding("extrapolated", (label,), {"reductions": Span(*analysis.reductions[label])})
        for label in analysis.extrapolated
    )


def _failed(analysis: Analysis) -> Iterator[Finding]:
    population = analysis.fit.population
    if failed := len(population.failed):
        yield Finding("failed trainings", (), {"failed": failed, "whole": failed + len(population)})


def _other_outliers(analysis: Analysis) -> Iterator[Finding]:
    """Name the regimes with outliers that no caveat names already."""
    supported = analysis.verdicts.regimes_where("C3a", "supported")
    return (Finding("outliers widen", (r,)) for r in heavy_tails(analysis) if r not in supported)


def _changing_spread(analysis: Analysis) -> Iterator[Finding]:
    pairs = zip(analysis.fit.regimes, analysis.fit.spread_changes, strict=True)
    return (
        Finding("changing spread", (r.label,)) for r, change in pairs if change is not None and change.matters
    )


def _few_recipes(analysis: Analysis) -> Iterator[Finding]:
    few = (r.label for r in analysis.fit.fitted if r.n_recipes < FEW_RECIPES)
    return (Finding("few in regime", (label,), {"needed": FEW_RECIPES}) for label in few)


def _no_replicates(analysis: Analysis) -> Iterator[Finding]:
    if not analysis.fit.population.has_replicates:
        yield Finding("no replicates")
