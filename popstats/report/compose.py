"""From a fit, or several, to the frozen content of a page, its conjectures as a reader meets them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import pandas as pd

from popstats.errors import PopstatsError
from popstats.figures.check_figures import predicted_figure
from popstats.figures.comparison_figures import (
    Named,
    compared_edfs,
    curves_figure,
    difference_figure,
    difference_words,
    family_figure,
)
from popstats.figures.content import Alert, Claim, Figure, ReportContent, Section, VerdictRow, plain
from popstats.figures.curve_figures import drop_figure, limit_figure, near_figure, near_words
from popstats.figures.space_figures import edf_figure, elasticity_figure, explained_figure
from popstats.findings import likeness
from popstats.judgement.analysis import Analysis
from popstats.judgement.family import doublings, moves
from popstats.judgement.judge import analyse
from popstats.judgement.optimum_claims import COST_CONJECTURE
from popstats.judgement.verdicts import CLAIMS, Outcome, Thresholds, Verdict, Verdicts
from popstats.population.files import populations
from popstats.posterior.fit import Fit
from popstats.report.advice import advice
from popstats.report.alerts import alerts, caveats, companion_section, weak_words
from popstats.report.sections import (
    baseline_section,
    best_section,
    card_section,
    diagnostic_section,
    provenance_section,
)
from popstats.words import (
    ALL,
    AXIS_WORDS,
    count,
    join_words,
    number,
    points,
    regime_name,
    regime_names,
    sentence,
    sentences,
    uncapitalized,
)

#: What stands before the verdicts; without any of it, the first figure.
_LEADING = ("family", "drop", "curves", "best")
_OUTCOMES: tuple[Outcome, ...] = ("supported", "refuted", "undecided", "not assessable")
#: Conjectures whose regimes fix parameters whatever the axis of the fit, and the reverse.
_OWN_AXIS = {"C1": "macs", "C2": "params"}
#: The optimal mCB first, then whether it is more than the widths, then the rest; C1 and C2 repeat C3a in other units.
_FIRST, _LAST = ("C3a", "C3c", "C3b", "C3d", "M1"), ("C1", "C2")
_ORDER = (*_FIRST, *(c for c in CLAIMS if c not in _FIRST + _LAST), *_LAST)


def report_content(
    fit: Fit, verdicts: Verdicts | None = None, *, command: str | None = None, source: str | None = None
) -> ReportContent:
    """Compute everything that the report of a fit says."""
    analysis = analyse(fit, verdicts)
    judged, known, named = analysis.verdicts, caveats(analysis), source or loaded_by(fit)
    figures = (
        *((drop_figure(analysis), near_figure(analysis)) if fit.fitted else ()),
        explained_figure(analysis),
        limit_figure(analysis) if fit.fitted else None,
        edf_figure(analysis),
        elasticity_figure(analysis),
        predicted_figure(analysis),
    )
    sections = (
        best_section(analysis, named),
        baseline_section(analysis),
        companion_section(analysis),
        diagnostic_section(analysis),
        card_section(analysis),
        provenance_section(analysis, command, named),
    )
    return _in_order(
        figures,
        sections,
        title=fit.population.name,
        advice=advice(analysis, known, named),
        facts=facts(analysis),
        axis_words=analysis.axis_words,
        thresholds=threshold_words(judged[0].thresholds) if len(judged) else "",
        alerts=alerts(analysis, known),
        claims=claims(analysis),
    )


def loaded_by(fit: Fit) -> str:
    """Return what a reader may load the population by: its name if it is shipped, else a word to replace."""
    name = fit.population.name
    return name if name in populations() else "RUN" if "plan" in fit.population.metadata else "TABLE"


def _in_order(
    figures: Sequence[Figure | None], sections: Sequence[Section | None], **told: Any
) -> ReportContent:
    """Return the content of a page: main figure, best networks, verdicts, the rest; what is folded comes last."""
    drawn = tuple(figure for figure in figures if figure is not None)
    kept = tuple(section for section in sections if section is not None)
    parts: list[Figure | Section] = [*drawn, *kept]
    first = [part.key for part in parts if part.key in _LEADING or part in drawn[:1]]
    rest = sorted((part for part in parts if part.key not in first), key=lambda part: part.folded)
    order = (*first, "verdicts", *(part.key for part in rest))
    return ReportContent(figures=drawn, sections=kept, order=order, **told)


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
    """Return every conjecture that was judged: the optimal mCB and what there is to it first, its twins in costs last."""
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
        f"odds, or the whole interval is negligible. At an optimal mCB the expected drop is more than {points(limits.rise)} "
        f"below that at both ends of the observed range; “practically” means that it costs under {points(limits.regret)}. "
        "How often these rules err on known truths: docs/error-rates.md."
    )


def comparison_content(fits: Sequence[Fit], *, command: str | None = None) -> ReportContent:
    """Compute everything that the comparison of two or more fits says."""
    if len(fits) < 2 or len({fit.regime_axis for fit in fits}) > 1:
        axes = ", ".join(fit.regime_axis for fit in fits)
        raise PopstatsError(
            f"comparison: expected two or more fits on one regime axis, got {len(fits)} on: {axes}"
        )
    names = [fit.population.name for fit in fits]
    if len(set(names)) < len(names):
        names = [f"{name} ({i})" for i, name in enumerate(names, 1)]
    named = dict(zip(names, map(analyse, fits), strict=True))
    moved, first = moves(named), next(iter(named.values()))
    compared = moved[moved["against"] == next(iter(named))]
    figures = (
        family_figure(named, moved),
        curves_figure(named),
        difference_figure(named, compared),
        compared_edfs(named),
    )
    return _in_order(
        figures,
        _cards(named, command),
        kind="Comparison of populations",
        title=join_words(list(named)),
        advice=_answer(named, compared, [sentence(found) for found in doublings(moved)]),
        facts=tuple(
            (f"trainings of {name}, original {number(p.original.accuracy)} %", count(len(p)))
            for name, analysis in named.items()
            for p in [analysis.fit.population]
        ),
        axis_words=first.axis_words,
        thresholds=threshold_words(first.verdicts[0].thresholds),
        alerts=tuple(alert for name, analysis in named.items() for alert in _named_alerts(name, analysis)),
        claims=_merged_claims(named),
    )


def _named_alerts(name: str, analysis: Analysis) -> Iterator[Alert]:
    known = caveats(analysis)
    if weak := weak_words(known):
        yield Alert("warn", f"{name}: {weak}")
    yield from (replace(a, text=f"{name}: {a.text}") for a in alerts(analysis, known))


def _answer(named: Named, compared: pd.DataFrame, doubled: list[str]) -> Section:
    found = doubled
    for name, analysis in named.items():
        best = [f"{near_words(analysis, r.label)} at {regime_name(r.label)}" for r in analysis.with_optimum]
        told = f"near-optimal mCB {join_words(best)}" if best else "no optimal mCB could be established"
        found.append(f"{name}: {told}.")
    return Section("what-to-do", "In short", difference_words(named, compared), tuple(found))


def _merged_claims(named: Named) -> tuple[Claim, ...]:
    """Merge the populations' claims: one conjecture, all populations' verdicts."""
    told = [(name, claims(analysis)) for name, analysis in named.items()]
    merged = []
    for claim in told[0][1]:
        same = [(name, c) for name, list_ in told for c in list_ if c.conjecture == claim.conjecture]
        rows, table = (
            tuple(replace(row, population=name) for name, c in same for row in getattr(c, of))
            for of in ("rows", "merged")
        )
        # The first population may have nothing that could be assessed.
        telling = next((c for _, c in same if c.quantity), claim)
        # Each population's strip of verdicts says at a glance what a summary would.
        merged.append(replace(telling, summary="", rows=rows, merged=table))
    return tuple(merged)


def _cards(named: Named, command: str | None) -> tuple[Section, ...]:
    cards = []
    for i, (name, analysis) in enumerate(named.items(), 1):
        card, origin = card_section(analysis), provenance_section(analysis, command)
        told = replace(card, key=f"population-{i}", heading=name, tables=(*card.tables, *origin.tables))
        cards.append(told if i > 1 else replace(told, code=origin.code[:1]))
    return tuple(cards)
