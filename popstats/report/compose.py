"""From a fit to the frozen content of its report, its conjectures as a reader meets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from popstats.figures.check_figures import predicted_figure
from popstats.figures.content import Claim, Figure, ReportContent, Section, VerdictRow, plain
from popstats.figures.curve_figures import drop_figure, limit_figure, near_figure
from popstats.figures.space_figures import edf_figure, elasticity_figure, explained_figure
from popstats.findings import likeness
from popstats.judgement.analysis import Analysis
from popstats.judgement.judge import analyse
from popstats.judgement.optimum_claims import COST_CONJECTURE
from popstats.judgement.verdicts import CLAIMS, Outcome, Thresholds, Verdict, Verdicts
from popstats.population.files import populations
from popstats.posterior.fit import Fit
from popstats.report.advice import advice
from popstats.report.alerts import alerts, caveats
from popstats.report.other_methods import companion_section
from popstats.report.sections import (
    baseline_section,
    best_section,
    card_section,
    diagnostic_section,
    provenance_section,
)
from popstats.words import ALL, AXIS_WORDS, count, number, points, regime_names, sentences, uncapitalized

#: What stands before the verdicts; without any of it, the first figure.
_LEADING = ("family", "drop", "curves", "best")
_OUTCOMES: tuple[Outcome, ...] = ("supported", "refuted", "undecided", "not assessable")
#: Conjectures whose regimes fix parameters whatever the axis of the fit, and the reverse.
_OWN_AXIS = {"C1": "macs", "C2": "params"}
#: The best mCB first, then whether it is more than the widths, then the rest; C1 and C2 repeat C3a in other units.
_FIRST, _LAST = ("C3a", "C3c", "C3b", "C3d", "M1"), ("C1", "C2")
_ORDER = (*_FIRST, *(c for c in CLAIMS if c not in _FIRST + _LAST), *_LAST)


def report_content(
    fit: Fit, verdicts: Verdicts | None = None, *, command: str | None = None, source: str | None = None
) -> ReportContent:
    """Compute everything that the report of a fit says."""
    analysis = analyse(fit, verdicts)
    judged, known, named = analysis.verdicts, caveats(analysis), source or loaded_by(fit)
    sections = (
        best_section(analysis, named),
        baseline_section(analysis),
        companion_section(analysis),
        diagnostic_section(analysis),
        card_section(analysis),
        provenance_section(analysis, command, named),
    )
    figures = (
        *((drop_figure(analysis), near_figure(analysis)) if fit.fitted else ()),
        explained_figure(analysis),
        limit_figure(analysis) if fit.fitted else None,
        edf_figure(analysis),
        elasticity_figure(analysis),
        predicted_figure(analysis),
    )
    kept = tuple(section for section in sections if section is not None)
    drawn = tuple(figure for figure in figures if figure is not None)
    return ReportContent(
        title=fit.population.name,
        advice=advice(analysis, known, named),
        facts=facts(analysis),
        axis_words=analysis.axis_words,
        thresholds=threshold_words(judged[0].thresholds) if len(judged) else "",
        alerts=alerts(analysis, known),
        claims=claims(analysis),
        figures=drawn,
        order=page_order(drawn, kept),
        sections=kept,
    )


def loaded_by(fit: Fit) -> str:
    """Return what a reader may load the population by: its name if it is shipped, else a word to replace."""
    name = fit.population.name
    return name if name in populations() else "RUN" if "plan" in fit.population.metadata else "TABLE"


def page_order(figures: Sequence[Figure], sections: Sequence[Section]) -> tuple[str, ...]:
    """Return the parts' keys: main figure, best networks, verdicts, the rest; what is folded comes last."""
    parts: list[Figure | Section] = [*figures, *sections]
    first = [part.key for part in parts if part.key in _LEADING or part in figures[:1]]
    rest = sorted((part for part in parts if part.key not in first), key=lambda part: part.folded)
    return (*first, "verdicts", *(part.key for part in rest))


def facts(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Return the population's sizes, for the line under the title."""
    population = analysis.fit.population
    original = population.original
    run = population.metadata.get("run")
    of_planned = f" of {count(run['planned'])} planned, so far" if run else ""
    return (
        (f"trainings{of_planned}", count(len(population))),
        ("recipes", count(int(population.recipe.max()) + 1)),
        ("regimes fitted", f"{len(analysis.fit.fitted)} of {len(analysis.fit.regimes)}"),
        ("original accuracy", f"{number(original.accuracy)} %"),
        ("original MACs", _short(original.macs)),
        ("original parameters", _short(original.params)),
    )


def _short(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def claims(analysis: Analysis) -> tuple[Claim, ...]:
    """Return every conjecture that was judged: the best mCB and what there is to it first, its twins in costs last."""
    judged = [(c, [v for v in analysis.verdicts if v.conjecture == c]) for c in _ORDER]
    return tuple(_claim(analysis, c, verdicts) for c, verdicts in judged if verdicts)


def _claim(analysis: Analysis, conjecture: str, verdicts: list[Verdict]) -> Claim:
    axis = AXIS_WORDS[_OWN_AXIS.get(conjecture, analysis.fit.regime_axis)]
    return Claim(
        conjecture=conjecture,
        claim=CLAIMS[conjecture],
        summary=_summary(verdicts, axis),
        negligible_region=next((v.negligible_region for v in verdicts if v.negligible_region), ""),
        quantity=next((v.quantity for v in verdicts if v.quantity), ""),
        rows=tuple(_row(v) for v in verdicts),
        merged=merged_rows(verdicts),
        folded=conjecture == COST_CONJECTURE[analysis.fit.regime_axis],
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
            where = {1: "the one regime", 2: "both regimes"}.get(len(each), f"all {len(each)} regimes")
            return f"{outcome.capitalize()} in {where}.{''.join(over_all)}"
        if regimes:
            parts.append(f"{outcome} at {regime_names(regimes)}")
    return f"By {axis} removed: {'; '.join(parts)}.{''.join(over_all)}"


def _row(verdict: Verdict) -> VerdictRow:
    own = [field.name for field in fields(VerdictRow) if hasattr(verdict, field.name)]
    told: dict[str, Any] = {name: plain(getattr(verdict, name)) for name in own}
    return VerdictRow(place=regime_names([verdict.regime]), **told)


def merged_rows(verdicts: Sequence[Verdict]) -> tuple[VerdictRow, ...]:
    """Return the rows of a table: those that cannot be assessed for one reason share one, where the first stood."""
    groups: dict[object, list[Verdict]] = {}
    for i, verdict in enumerate(verdicts):
        alike = tuple(map(likeness, verdict.basis)) if verdict.outcome == "not assessable" else i
        groups.setdefault(alike, []).append(verdict)
    return tuple(_joint(found) if len(found) > 1 else _row(found[0]) for found in groups.values())


def _joint(verdicts: Sequence[Verdict]) -> VerdictRow:
    reason = " ".join(sentences([f for v in verdicts for f in v.basis]))
    return replace(
        _row(verdicts[0]),
        place=regime_names([v.regime for v in verdicts]),
        sentence=f"Cannot be assessed: {uncapitalized(reason)}",
        reason=reason,
        remedy="\n".join(sentences([f for v in verdicts for f in v.remedies])),
    )


def threshold_words(limits: Thresholds) -> str:
    """Return what the verdicts were made with."""
    return (
        f"Supported: posterior probability ≥ {limits.supported:g}. Refuted: ≤ {limits.refuted:g}, also under even prior "
        f"odds, or the whole interval is negligible. At a best mCB the expected drop is more than {points(limits.rise)} "
        f"below that at both ends of the observed range; “practically” means that it costs under {points(limits.regret)}. "
        "How often these rules err on known truths: docs/error-rates.md."
    )
