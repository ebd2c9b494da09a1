"""Two or more fits side by side: the same conjectures across populations, differences with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from popstats.errors import PopstatsError
from popstats.figures.content import Alert, Claim, Figure, Panel, ReportContent, Section, Table
from popstats.figures.curve_figures import (
    INTERVALS,
    MASS_WORDS,
    ORIGINAL,
    measured,
    near_words,
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

type _Named = Mapping[str, Analysis]


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
        _curves_figure(named),
        _difference_figure(named, compared),
        compared_edfs(list(named.items())),
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


def _named(fits: Sequence[Fit]) -> _Named:
    """Return the analyses by the populations' names, numbered where these are alike."""
    names = [fit.population.name for fit in fits]
    alike = len(set(names)) < len(names)
    return {
        f"{name} ({i})" if alike else name: analyse(fit)
        for i, (name, fit) in enumerate(zip(names, fits, strict=True), 1)
    }


def _answer(named: _Named, compared: pd.DataFrame, doubled: list[str]) -> Section:
    found = doubled
    for name, analysis in named.items():
        best = [f"{near_words(analysis, r.label)} at {regime_name(r.label)}" for r in analysis.with_optimum]
        found.append(
            f"{name}: {f'near-optimal mCB {join_words(best)}' if best else 'no optimal mCB could be established'}."
        )
    return Section("what-to-do", "In short", _difference_words(named, compared), tuple(found))


def _difference_words(named: _Named, compared: pd.DataFrame) -> str:
    if compared.empty:
        return "The populations share no fitted regime, so nothing can be compared."
    compared_ones = [(q, compared[compared["quantity"] == q.name]) for q in (QUANTITIES[0], QUANTITIES[-1])]
    return " ".join(_quantity_words(named, quantity, rows) for quantity, rows in compared_ones)


def _quantity_words(named: _Named, quantity: Quantity, rows: pd.DataFrame) -> str:
    """Say where a quantity clearly differs from the first population's, and which way."""
    if rows.empty:
        return f"No {quantity.name} can be compared: C3a is refuted or not assessable in each regime of one of them."
    larger, smaller = rows["lower"] > quantity.none, rows["upper"] < quantity.none
    apart = rows[larger | smaller]["regime"].tolist()
    how = {(True, False): "is clearly larger than", (False, True): "is clearly smaller than"}.get(
        (bool(larger.any()), bool(smaller.any())), "clearly differs from"
    )
    of = f"{len(apart) or 'none'} of {plural(len(rows), 'comparison')}"
    where = f" (at {regime_names(apart)})" if len(named) == 2 and apart else ""
    return f"The {quantity.name} {how} that of {next(iter(named))} in {of}{where}."


def _claims(named: _Named) -> tuple[Claim, ...]:
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


def _curves_figure(named: _Named) -> Figure | None:
    """Return the populations' curves, one panel per regime that at least one of them has."""
    shown = dict(itertools.islice(named.items(), len(SPACE_MARKS)))
    pairs = [(name, row) for name, analysis in shown.items() for row in analysis.fitted_optima]
    pairs.sort(key=lambda pair: float(pair[1].target))
    if not pairs:
        return None
    return Figure(
        key="curves",
        heading="The curves overlaid",
        sentence=_overlap_words(named),
        caption=(
            f"Expected drop over mCB at each regime's centre, by {next(iter(named.values())).axis_words} removed. Drops are "
            f"measured from each population's own original. {INTERVALS}"
        ),
        n=sum(analysis.n_fitted for analysis in shown.values()),
        legend=tuple((f"space {i}", name) for i, name in enumerate(shown)),
        panels=tuple(_curves_panel(shown, label) for label in dict.fromkeys(row.regime for _, row in pairs)),
        table=Table.by_column(pairs, {
            "regime": lambda pair: f"{regime_name(pair[1].regime)}, {pair[0]}",
            "recipes": lambda pair: recipes_words(pair[1].n_recipes),
            "near-optimal mCB": lambda pair: near_words(named[pair[0]], pair[1].regime),
            f"lowest at mCB ({MASS_WORDS})": lambda pair: measured(pair[1], "mcb"),
            f"drop there, points ({MASS_WORDS})": lambda pair: measured(pair[1], "limit"),
        }),
    )  # fmt: skip


def _curves_panel(named: _Named, label: str) -> Panel:
    rows = pd.concat([a.curve[a.curve["regime"] == label].assign(space=name) for name, a in named.items()])
    low, high = float(rows["lower"].min()), float(rows["upper"].max())
    where = f"{regime_name(label)} removed"
    return Panel(
        title=where,
        chart="overlaid_curves",
        alt=f"Expected drop over mCB at {where}, from {number(low)} to {number(high)} points.",
        data={
            "curves": Table.of(rows[["space", "mcb", "drop", "lower", "upper"]]),
            "names": Table(("space",), tuple((name,) for name in named)),
            "original": ORIGINAL,
            "frame": Table.one(
                x_lower=rows["mcb"].min(), x_upper=rows["mcb"].max(), y_lower=low, y_upper=high
            ),
        },
    )


def _overlap_words(named: _Named) -> str:
    """Say in which regimes several populations have a supported optimal mCB, and whether one choice serves them."""
    ranges: dict[str, list[tuple[Span, ...]]] = {}
    for regime in (r for analysis in named.values() for r in analysis.with_optimum):
        ranges.setdefault(regime.label, []).append(regime.stretches)
    shared = {label: found for label, found in ranges.items() if len(found) > 1}
    if not shared:
        return "In no regime is an optimal mCB supported in more than one of the populations."
    together = [
        label for label, (first, *rest) in shared.items() if all(_overlap(first, other) for other in rest)
    ]
    where = "there" if together == list(shared) else f"at {regime_names(together)}" if together else "nowhere"
    return (
        f"At {regime_names(list(shared))} removed, more than one population has an optimal mCB; the near-optimal ranges "
        f"overlap {where}."
    )


def _overlap(first: Sequence[Span], other: Sequence[Span]) -> bool:
    return any(a.low <= b.high and b.low <= a.high for a in first for b in other)


def _difference_figure(named: _Named, compared: pd.DataFrame) -> Figure | None:
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
        heading=f"Differences from {next(iter(named))}",
        sentence=_difference_words(named, compared),
        caption=(
            "The optimal mCB and the ends of the near-optimal range, where C3a is supported or undecided in both "
            "populations, as multiples of the first population's (1: the same); the limit minus the first population's, "
            f"points (0: the same; negative: a smaller drop). {INTERVALS}"
        ),
        n=sum(analysis.n_fitted for analysis in named.values()),
        panels=tuple(
            dot_panel(
                capitalized(q.name),
                "times the first's" if q.factor else "points more than the first's",
                rows,
                Table.one(points=q.none),
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


def _sections(named: _Named, command: str | None) -> tuple[Section, ...]:
    cards = []
    for i, (name, analysis) in enumerate(named.items(), 1):
        card, origin = card_section(analysis), provenance_section(analysis, command)
        tables, code = (*card.tables, *origin.tables), origin.code[:1] if i == 1 else ()
        cards.append(replace(card, key=f"population-{i}", heading=name, tables=tables, code=code))
    return tuple(cards)
