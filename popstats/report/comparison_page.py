"""Two or more fits side by side: the same conjectures across populations, differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from popstats.errors import PopstatsError
from popstats.figures.content import Alert, Claim, Figure, Panel, ReportContent, Section, Table
from popstats.figures.curve_figures import (
    INTERVALS,
    MASS_WORDS,
    ORIGINAL,
    RANGES_LEGEND,
    measured,
    near_words,
    ranges_panel,
    recipes_words,
)
from popstats.figures.edf_figures import compared_edfs
from popstats.figures.family_figures import family_figure
from popstats.figures.space_figures import dot_panel
from popstats.figures.theme import SPACE_MARKS
from popstats.findings import Span
from popstats.judgement.analysis import Analysis, rows_of
from popstats.judgement.family import QUANTITIES, Quantity, doublings, moves
from popstats.judgement.judge import analyse
from popstats.posterior.fit import Fit
from popstats.report.alerts import alerts, caveats, weak_words
from popstats.report.claims import claims, threshold_words
from popstats.report.compose import page_order
from popstats.report.sections import card_section, provenance_section
from popstats.words import (
    capitalized,
    count,
    join_words,
    number,
    plural,
    regime_name,
    regime_names,
    sentence,
    with_interval,
)


@dataclass(frozen=True, eq=False)
class _Named:
    """One of the compared populations; the letter stands for it where a name would take too much room."""

    name: str
    letter: str
    analysis: Analysis


def comparison_content(fits: Sequence[Fit], *, command: str | None = None) -> ReportContent:
    """Compute everything that the comparison of two or more fits says."""
    if len(fits) < 2 or len({fit.regime_axis for fit in fits}) > 1:
        axes = ", ".join(fit.regime_axis for fit in fits)
        raise PopstatsError(
            f"comparison: expected two or more fits on one regime axis, got {len(fits)} on: {axes}"
        )
    named = _named(fits)
    analyses = {n.name: n.analysis for n in named}
    moved = moves(analyses)
    compared = moved[moved["against"] == named[0].name]
    figures = (
        family_figure(analyses, moved),
        _curves_figure(named),
        _ranges_figure(named),
        _difference_figure(named, compared),
        compared_edfs([(n.name, n.analysis) for n in named]),
    )
    drawn, sections = tuple(f for f in figures if f is not None), _sections(named, command)
    return ReportContent(
        kind="Comparison of populations",
        title=join_words([n.name for n in named]),
        advice=_answer(named, compared, [sentence(found) for found in doublings(moved)]),
        facts=tuple(
            (f"trainings of {n.name}, original {number(p.original.accuracy)} %", count(len(p)))
            for n in named
            for p in [n.analysis.fit.population]
        ),
        axis_words=named[0].analysis.axis_words,
        thresholds=threshold_words(named[0].analysis.verdicts[0].thresholds),
        alerts=tuple(Alert(a.level, f"{n.name}: {a.text}") for n in named for a in _alerts(n.analysis)),
        claims=_claims(named),
        figures=drawn,
        order=page_order(drawn, sections),
        sections=sections,
    )


def _alerts(analysis: Analysis) -> tuple[Alert, ...]:
    known = caveats(analysis)
    weak = weak_words(known)
    return (*((Alert("warn", weak),) if weak else ()), *alerts(analysis, known))


def _named(fits: Sequence[Fit]) -> list[_Named]:
    names = [fit.population.name for fit in fits]
    alike = len(set(names)) < len(names)
    return [
        _Named(f"{name} ({i})" if alike else name, chr(ord("A") + i - 1), analyse(fit))
        for i, (name, fit) in enumerate(zip(names, fits, strict=True), 1)
    ]


def _answer(named: list[_Named], compared: pd.DataFrame, doubled: list[str]) -> Section:
    found = doubled
    for n in named:
        supported = n.analysis.verdicts.regimes_where("C3a", "supported")
        where = f"there is a best mCB at {regime_names(supported)} of {n.analysis.axis_words} removed"
        found.append(f"In {n.name} {where if supported else 'no best mCB could be established'}.")
    return Section("what-to-do", "In short", _difference_words(named, compared), tuple(found))


def _difference_words(named: list[_Named], compared: pd.DataFrame) -> str:
    if compared.empty:
        return "The populations share no fitted regime, so nothing can be compared."
    told = [
        _quantity_words(q, compared[compared["quantity"] == q.name], alone=len(named) == 2)
        for q in (QUANTITIES[0], QUANTITIES[-1])
    ]
    return f"Against {named[0].name}, {'; '.join(told)}."


def _quantity_words(quantity: Quantity, rows: pd.DataFrame, *, alone: bool) -> str:
    """Say where a quantity clearly differs, and which way; `alone`: only one is compared with the first."""
    if rows.empty:
        return f"no {quantity.name} can be compared, as C3a is refuted or not assessable in each regime of one of them"
    larger, smaller = rows["lower"] > quantity.none, rows["upper"] < quantity.none
    apart = rows[larger | smaller]
    both = larger.any() == smaller.any()
    how = "clearly differs" if both else "is clearly larger" if larger.any() else "is clearly smaller"
    of = f"{len(apart) or 'none'} of {plural(len(rows), 'comparison')}"
    where = f" (at {regime_names(apart['regime'].tolist())})" if alone and len(apart) else ""
    return f"the {quantity.name} {how} in {of}{where}"


def _claims(named: list[_Named]) -> tuple[Claim, ...]:
    """Merge the populations' claims: one conjecture, all populations' verdicts."""
    told = [(n.name, claims(n.analysis)) for n in named]
    merged = []
    for claim in told[0][1]:
        same = [(name, c) for name, list_ in told for c in list_ if c.conjecture == claim.conjecture]
        rows, table = (
            tuple(replace(row, population=name) for name, c in same for row in getattr(c, of))
            for of in ("rows", "merged")
        )
        summary = "\n".join(f"{name}: {c.summary}" for name, c in same)
        # The first population may have nothing that could be assessed.
        telling = next((c for _, c in same if c.quantity), claim)
        merged.append(replace(telling, summary=summary, rows=rows, merged=table))
    return tuple(merged)


def _curves_figure(named: list[_Named]) -> Figure | None:
    """Return the populations' curves, one panel per regime that at least one of them has."""
    shown = named[: len(SPACE_MARKS)]
    labels = dict.fromkeys(row.regime for _, row in _by_target(shown))
    if not labels:
        return None
    return Figure(
        key="curves",
        heading="The curves overlaid",
        sentence=_overlap_words(named),
        caption=(
            "Expected drop over mCB at each regime's centre. Drops are measured from each population's own original. "
            f"{INTERVALS}"
        ),
        n=sum(n.analysis.n_fitted for n in shown),
        legend=tuple((f"space {i}", n.name) for i, n in enumerate(shown)),
        panels=tuple(_curves_panel(shown, label) for label in labels),
        table=_ranges_table(_by_target(shown)),
    )


def _curves_panel(named: list[_Named], label: str) -> Panel:
    curves = [n.analysis.curve[n.analysis.curve["regime"] == label].assign(space=n.name) for n in named]
    rows = pd.concat(curves, ignore_index=True)
    low, high = float(rows["lower"].min()), float(rows["upper"].max())
    where = f"{regime_name(label)} of {named[0].analysis.axis_words} removed"
    return Panel(
        title=where,
        chart="overlaid_curves",
        alt=f"Expected drop over mCB at {where}, from {number(low)} to {number(high)} points.",
        data={
            "curves": Table.of(rows[["space", "mcb", "drop", "lower", "upper"]]),
            "names": Table(("space",), tuple((n.name,) for n in named)),
            "original": ORIGINAL,
            "frame": Table.one(
                x_lower=rows["mcb"].min(), x_upper=rows["mcb"].max(), y_lower=low, y_upper=high
            ),
        },
    )


def _by_target(named: list[_Named]) -> list[tuple[_Named, Any]]:
    pairs = [(n, row) for n in named for row in n.analysis.fitted_optima]
    return sorted(pairs, key=lambda pair: float(pair[1].target))


def _ranges_figure(named: list[_Named]) -> Figure | None:
    pairs = _by_target(named)
    if not pairs:
        return None
    letters = join_words([f"{n.letter} is {n.name}" for n in named])
    return Figure(
        key="near",
        heading="Near-optimal ranges side by side",
        sentence=_overlap_words(named),
        caption=(
            f"By {named[0].analysis.axis_words} removed. {letters}. Where the near-optimal ranges of one regime overlap, "
            "one choice of mCB serves both populations; where C3a is not supported a range is drawn pale and is no "
            f"target. {INTERVALS}"
        ),
        n=sum(n.analysis.n_fitted for n in named),
        legend=RANGES_LEGEND,
        panels=(ranges_panel([(f"{regime_name(r.regime)} {n.letter}", n.analysis, r) for n, r in pairs]),),
        table=_ranges_table(pairs),
    )


def _ranges_table(pairs: list[tuple[_Named, Any]]) -> Table:
    return Table.by_column(pairs, {
        "regime": lambda pair: f"{regime_name(pair[1].regime)}, {pair[0].name}",
        "recipes": lambda pair: recipes_words(pair[1].n_recipes),
        "near-optimal mCB": lambda pair: near_words(pair[0].analysis, pair[1].regime),
        f"lowest at mCB ({MASS_WORDS})": lambda pair: measured(pair[1], "mcb"),
        f"drop there, points ({MASS_WORDS})": lambda pair: measured(pair[1], "limit"),
    })  # fmt: skip


def _overlap_words(named: list[_Named]) -> str:
    """Say in which regimes several populations have a supported best mCB, and whether one choice serves them."""
    ranges: dict[str, list[tuple[Span, ...]]] = {}
    for regime in (r for n in named for r in n.analysis.with_optimum):
        ranges.setdefault(regime.label, []).append(regime.stretches)
    shared = {label: found for label, found in ranges.items() if len(found) > 1}
    if not shared:
        return "In no regime is a best mCB supported in more than one of the populations."
    together = [
        label for label, (first, *rest) in shared.items() if all(_overlap(first, other) for other in rest)
    ]
    where = "there" if together == list(shared) else f"at {regime_names(together)}" if together else "nowhere"
    return (
        f"At {regime_names(list(shared))} removed more than one population has a best mCB; the near-optimal ranges overlap "
        f"{where}."
    )


def _overlap(first: Sequence[Span], other: Sequence[Span]) -> bool:
    return any(a.low <= b.high and b.low <= a.high for a in first for b in other)


def _difference_figure(named: list[_Named], compared: pd.DataFrame) -> Figure | None:
    if compared.empty:
        return None
    regimes = compared["regime"].map(regime_name)
    labelled = compared.assign(
        group=regimes if len(named) == 2 else regimes + ", " + compared["population"],
        points=compared["estimate"],
        quantity=compared["quantity"].map(capitalized),
    )
    return Figure(
        key="differences",
        heading=f"Differences from {named[0].name}",
        sentence=_difference_words(named, compared),
        caption=(
            "The best mCB and the ends of the near-optimal range, where C3a is neither refuted nor not assessable in both "
            "populations, as multiples of the first population's (1: the same); the limit minus the first population's, "
            f"points (0: the same; negative: a smaller drop). {INTERVALS}"
        ),
        n=sum(n.analysis.n_fitted for n in named),
        panels=tuple(
            dot_panel(
                capitalized(q.name),
                "times the first's" if q.factor else "points more than the first's",
                rows,
                q.none,
                "Difference from the first population.",
            )
            for q in QUANTITIES
            if len(rows := labelled[labelled["quantity"] == capitalized(q.name)])
        ),
        table=Table.by_column(rows_of(labelled), {
            "regime": lambda r: r.group,
            "quantity": lambda r: r.quantity,
            f"difference ({MASS_WORDS})": lambda r: with_interval(r.points, r.lower, r.upper),
        }),
    )  # fmt: skip


def _sections(named: list[_Named], command: str | None) -> tuple[Section, ...]:
    cards = []
    for i, n in enumerate(named, 1):
        card, origin = card_section(n.analysis), provenance_section(n.analysis, command)
        tables, code = (*card.tables, *origin.tables), origin.code[:1] if i == 1 else ()
        cards.append(replace(card, key=f"population-{i}", heading=n.name, tables=tables, code=code))
    return tuple(cards)
