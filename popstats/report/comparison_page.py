"""Two or more fits side by side: the same conjectures across populations, differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from popstats.errors import PopstatsError
from popstats.figures.comparison_figures import (
    Named,
    compared_edfs,
    curves_figure,
    difference_figure,
    difference_words,
    family_figure,
)
from popstats.figures.content import Alert, Claim, ReportContent, Section
from popstats.figures.curve_figures import near_words
from popstats.judgement.analysis import Analysis
from popstats.judgement.family import doublings, moves
from popstats.judgement.judge import analyse
from popstats.posterior.fit import Fit
from popstats.report.alerts import alerts, caveats, weak_words
from popstats.report.compose import claims, page_order, threshold_words
from popstats.report.sections import card_section, provenance_section
from popstats.words import count, join_words, number, regime_name, sentence


def comparison_content(fits: Sequence[Fit], *, command: str | None = None) -> ReportContent:
    """Compute everything that the comparison of two or more fits says."""
    if len(fits) < 2 or len({fit.regime_axis for fit in fits}) > 1:
        axes = ", ".join(fit.regime_axis for fit in fits)
        raise PopstatsError(
            f"comparison: expected two or more fits on one regime axis, got {len(fits)} on: {axes}"
        )
    named = _named(fits)
    moved, first = moves(named), next(iter(named.values()))
    compared = moved[moved["against"] == next(iter(named))]
    figures = (
        family_figure(named, moved),
        curves_figure(named),
        difference_figure(named, compared),
        compared_edfs(named),
    )
    drawn, sections = tuple(f for f in figures if f is not None), _sections(named, command)
    return ReportContent(
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
        alerts=tuple(Alert(a.level, f"{name}: {a.text}") for name, of in named.items() for a in _alerts(of)),
        claims=_claims(named),
        figures=drawn,
        order=page_order(drawn, sections),
        sections=sections,
    )


def _alerts(analysis: Analysis) -> tuple[Alert, ...]:
    known = caveats(analysis)
    weak = weak_words(known)
    return (*((Alert("warn", weak),) if weak else ()), *alerts(analysis, known))


def _named(fits: Sequence[Fit]) -> Named:
    """Return the analyses by the populations' names, numbered where these are alike."""
    names = [fit.population.name for fit in fits]
    alike = len(set(names)) < len(names)
    return {
        f"{name} ({i})" if alike else name: analyse(fit)
        for i, (name, fit) in enumerate(zip(names, fits, strict=True), 1)
    }


def _answer(named: Named, compared: pd.DataFrame, doubled: list[str]) -> Section:
    found = doubled
    for name, analysis in named.items():
        best = [f"{near_words(analysis, r.label)} at {regime_name(r.label)}" for r in analysis.with_optimum]
        found.append(
            f"{name}: {f'near-optimal mCB {join_words(best)}' if best else 'no best mCB could be established'}."
        )
    return Section("what-to-do", "In short", difference_words(named, compared), tuple(found))


def _claims(named: Named) -> tuple[Claim, ...]:
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


def _sections(named: Named, command: str | None) -> tuple[Section, ...]:
    cards = []
    for i, (name, analysis) in enumerate(named.items(), 1):
        card, origin = card_section(analysis), provenance_section(analysis, command)
        tables, code = (*card.tables, *origin.tables), origin.code[:1] if i == 1 else ()
        cards.append(replace(card, key=f"population-{i}", heading=name, tables=tables, code=code))
    return tuple(cards)
