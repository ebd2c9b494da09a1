"""Two or more fits side by side: the same conjectures across populations, differences with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import PopstatsError
from popstats.figures.content import FORMAT, Alert, Claim, Figure, Panel, ReportContent, Section, Table
from popstats.figures.curve_figures import (
    INTERVALS,
    MASS_WORDS,
    ORIGINAL,
    RANGES_LEGEND,
    near_words,
    ranges_panel,
    recipes_words,
)
from popstats.figures.edf_figures import compared_edfs
from popstats.figures.theme import SPACE_MARKS
from popstats.inference.draws import INTERVAL_MASS, interval
from popstats.judgement.analysis import Analysis, rows_of
from popstats.judgement.judge import analyse
from popstats.posterior.fit import Fit
from popstats.posterior.optimum import OptimumDraws
from popstats.report.alerts import alerts, caveats, weak_words
from popstats.report.claims import claims, threshold_words
from popstats.report.compose import page_order
from popstats.report.sections import card_section, provenance_section
from popstats.words import (
    count,
    join_words,
    number,
    plural,
    regime_name,
    regime_names,
    with_interval,
)


@dataclass(frozen=True, eq=False)
class _Named:
    """One of the compared populations; the letter stands for it where a name would take too much room."""

    name: str
    letter: str
    analysis: Analysis


@dataclass(frozen=True)
class _Quantity:
    """What is compared draw by draw: how to read it, how two are set against each other, what means no difference."""

    heading: str
    unit: str
    read: Callable[[OptimumDraws], FloatArray]
    against: Callable[[FloatArray, FloatArray], FloatArray]
    none: float
    needs_optimum: bool


_QUANTITIES = (
    _Quantity("Best mCB", "ratio", lambda o: np.exp(o.log_mcb), lambda new, old: new / old, 1.0, True),
    _Quantity("Limit", "points", lambda o: o.limit, lambda new, old: new - old, 0.0, False),
)


def comparison_content(
    fits: Sequence[Fit], *, command: str | None = None, created: str | None = None
) -> ReportContent:
    """Compute everything that the comparison of two or more fits says."""
    if len(fits) < 2 or len({fit.regime_axis for fit in fits}) > 1:
        axes = ", ".join(fit.regime_axis for fit in fits)
        raise PopstatsError(
            f"comparison: expected two or more fits on one regime axis, got {len(fits)} on: {axes}"
        )
    named = _named(fits)
    compared = _compared(named)
    figures = (
        _curves_figure(named),
        _ranges_figure(named),
        _difference_figure(named, compared),
        compared_edfs([(n.name, n.analysis) for n in named]),
    )
    drawn, sections = tuple(f for f in figures if f is not None), _sections(named, command)
    return ReportContent(
        format=FORMAT,
        kind="Comparison of populations",
        title=join_words([n.name for n in named]),
        advice=_answer(named, compared),
        facts=tuple(
            (f"trainings of {n.name}, original {_accuracy(n)}", count(len(n.analysis.fit.population)))
            for n in named
        ),
        axis_words=named[0].analysis.axis_words,
        interval_mass=INTERVAL_MASS,
        thresholds=threshold_words(named[0].analysis.verdicts[0].thresholds),
        alerts=tuple(Alert(a.level, f"{n.name}: {a.text}") for n in named for a in _alerts(n.analysis)),
        claims=_claims(named),
        figures=drawn,
        order=page_order(drawn, sections),
        sections=sections,
        created=created or datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _alerts(analysis: Analysis) -> tuple[Alert, ...]:
    known = caveats(analysis)
    weak = weak_words(known)
    return (*((Alert("warn", weak),) if weak else ()), *alerts(analysis, known))


def _accuracy(named: _Named) -> str:
    return f"{number(named.analysis.fit.population.original.accuracy)} %"


def _named(fits: Sequence[Fit]) -> list[_Named]:
    names = [fit.population.name for fit in fits]
    alike = len(set(names)) < len(names)
    return [
        _Named(f"{name} ({i})" if alike else name, chr(ord("A") + i - 1), analyse(fit))
        for i, (name, fit) in enumerate(zip(names, fits, strict=True), 1)
    ]


def _compared(named: list[_Named]) -> pd.DataFrame:
    """Return one row per regime, later population and quantity: the difference from the first population.

    Best mCBs are set against each other only where both populations have one.
    """
    first, rows = named[0], []
    old = dict(
        zip((r.label for r in first.analysis.fit.fitted), first.analysis.fit.optimum_draws, strict=True)
    )
    for other in named[1:]:
        fit = other.analysis.fit
        for regime, new in zip(fit.fitted, fit.optimum_draws, strict=True):
            if regime.label not in old:
                continue
            for quantity in _QUANTITIES:
                if quantity.needs_optimum and not _both_have_one(first, other, regime.label):
                    continue
                draws = _differences(quantity, new, old[regime.label])
                lower, upper = interval(draws)
                middle = float(np.median(draws))
                rows.append((regime.label, other.name, quantity.heading, middle, float(lower), float(upper)))
    return pd.DataFrame(rows, columns=["regime", "population", "quantity", "points", "lower", "upper"])


def _both_have_one(first: _Named, other: _Named, regime: str) -> bool:
    return all(n.analysis.verdicts.outcome("C3a", regime) == "supported" for n in (first, other))


def _differences(quantity: _Quantity, new: OptimumDraws, old: OptimumDraws) -> FloatArray:
    """Set draws of two independent fits against each other; the order of the draws of each means nothing."""
    a, b = quantity.read(new), quantity.read(old)
    size = min(a.size, b.size)
    return quantity.against(a[:size], b[:size])


def _answer(named: list[_Named], compared: pd.DataFrame) -> Section:
    found = []
    for n in named:
        supported = n.analysis.verdicts.regimes_where("C3a", "supported")
        where = f"there is a best mCB at {regime_names(supported)} of {n.analysis.axis_words} removed"
        found.append(f"In {n.name} {where if supported else 'no best mCB could be established'}.")
    return Section("what-to-do", "In short", _difference_words(named, compared), tuple(found), ())


def _difference_words(named: list[_Named], compared: pd.DataFrame) -> str:
    if compared.empty:
        return "The populations share no fitted regime, so nothing can be compared."
    told = [
        _quantity_words(q, compared[compared["quantity"] == q.heading], alone=len(named) == 2)
        for q in _QUANTITIES
    ]
    return f"Against {named[0].name}, {'; '.join(told)}."


def _quantity_words(quantity: _Quantity, rows: pd.DataFrame, *, alone: bool) -> str:
    """Say where a quantity clearly differs, and which way; `alone`: only one is set against the first."""
    name = f"{quantity.heading[0].lower()}{quantity.heading[1:]}"
    if rows.empty:
        return f"no {name} can be compared, as no regime has a supported one in both"
    larger, smaller = rows["lower"] > quantity.none, rows["upper"] < quantity.none
    apart = rows[larger | smaller]
    both = larger.any() == smaller.any()
    how = "clearly differs" if both else "is clearly larger" if larger.any() else "is clearly smaller"
    of = f"{len(apart) or 'none'} of {plural(len(rows), 'comparison')}"
    where = f" (at {regime_names(apart['regime'].tolist())})" if alone and len(apart) else ""
    return f"the {name} {how} in {of}{where}"


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
    targets = {r.label: r.target for n in shown for r in n.analysis.fit.fitted}
    if not targets:
        return None
    labels = sorted(targets, key=lambda label: targets[label])
    return Figure(
        key="curves",
        heading="The curves overlaid",
        sentence=_overlap_words(named),
        caption=(
            "Expected drop over mCB at each regime's centre. Drops are measured from each population's own original. "
            f"{INTERVALS}"
        ),
        n=sum(n.analysis.n_fitted for n in shown),
        interval_mass=INTERVAL_MASS,
        legend=tuple((f"space {i}", n.name) for i, n in enumerate(shown)),
        panels=tuple(_curves_panel(shown, label) for label in labels),
        table=_ranges_table(_by_target(shown)),
    )


def _curves_panel(named: list[_Named], label: str) -> Panel:
    curves = [n.analysis.curve[n.analysis.curve["regime"] == label].assign(space=n.name) for n in named]
    rows = pd.concat(curves, ignore_index=True)
    low, high = float(rows["lower"].min()), float(rows["upper"].max())
    ends = {"x_lower": rows["mcb"].min(), "x_upper": rows["mcb"].max(), "y_lower": low, "y_upper": high}
    where = f"{regime_name(label)} of {named[0].analysis.axis_words} removed"
    return Panel(
        title=where,
        note="",
        outcome="",
        chart="overlaid_curves",
        alt=f"Expected drop over mCB at {where}, from {number(low)} to {number(high)} points.",
        data={
            "curves": Table.of(rows[["space", "mcb", "drop", "lower", "upper"]]),
            "names": Table(("space",), tuple((n.name,) for n in named)),
            "original": ORIGINAL,
            "frame": Table.of(pd.DataFrame([ends])),
        },
    )


def _by_target(named: list[_Named]) -> list[tuple[_Named, Any]]:
    pairs = [(n, row) for n in named for row in n.analysis.fitted_optima]
    return sorted(pairs, key=lambda pair: float(pair[1].target))


def _ranges_figure(named: list[_Named]) -> Figure | None:
    pairs = _by_target(named)
    if not pairs:
        return None
    panel = ranges_panel(
        [row for _, row in pairs],
        labels=[f"{regime_name(row.regime)} {n.letter}" for n, row in pairs],
        clear=[n.analysis.verdicts.outcome("C3a", row.regime) == "supported" for n, row in pairs],
        stretches=[n.analysis.by_label[row.regime].stretches for n, row in pairs],
    )
    return Figure(
        key="near",
        heading="Near-optimal ranges side by side",
        sentence=_overlap_words(named),
        caption=(
            f"By {named[0].analysis.axis_words} removed. {_letters(named)}. Where the "
            "near-optimal ranges of one regime overlap, one choice of mCB serves both populations; where C3a is not "
            f"supported a range is drawn pale and is no target. {INTERVALS}"
        ),
        n=sum(n.analysis.n_fitted for n in named),
        interval_mass=INTERVAL_MASS,
        legend=RANGES_LEGEND,
        panels=(panel,),
        table=_ranges_table(pairs),
    )


def _ranges_table(pairs: list[tuple[_Named, Any]]) -> Table:
    rows = [
        (
            f"{regime_name(row.regime)}, {n.name}",
            recipes_words(row.n_recipes),
            near_words(n.analysis, row.regime),
            with_interval(row.mcb, row.mcb_lower, row.mcb_upper),
            with_interval(row.limit, row.limit_lower, row.limit_upper),
        )
        for n, row in pairs
    ]
    columns = (
        "regime",
        "recipes",
        "near-optimal mCB",
        f"lowest at mCB ({MASS_WORDS})",
        f"drop there, points ({MASS_WORDS})",
    )
    return Table(columns, tuple(rows))


def _letters(named: list[_Named]) -> str:
    return join_words([f"{n.letter} is {n.name}" for n in named])


def _overlap_words(named: list[_Named]) -> str:
    """Say in which regimes several populations have a supported best mCB, and whether one choice serves them."""
    shared = [
        label
        for label in dict.fromkeys(r.label for n in named for r in n.analysis.fit.fitted)
        if sum(n.analysis.verdicts.outcome("C3a", label) == "supported" for n in named) > 1
    ]
    if not shared:
        return "In no regime is a best mCB supported in more than one of the populations."
    together = [label for label in shared if _overlap(named, label)]
    where = f"at {regime_names(together)}" if together else "nowhere"
    return (
        f"At {regime_names(shared)} removed more than one population has a best mCB; the near-optimal ranges overlap "
        f"{'there' if together == shared else where}."
    )


def _overlap(named: list[_Named], label: str) -> bool:
    sets = [
        n.analysis.by_label[label].stretches
        for n in named
        if n.analysis.verdicts.outcome("C3a", label) == "supported"
    ]
    return all(
        any(
            low <= other_high and other_low <= high
            for low, high in sets[0]
            for other_low, other_high in other
        )
        for other in sets[1:]
    )


def _difference_figure(named: list[_Named], compared: pd.DataFrame) -> Figure | None:
    if compared.empty:
        return None
    labels = [
        regime_name(r.regime) if len(named) == 2 else f"{regime_name(r.regime)}, {r.population}"
        for r in rows_of(compared)
    ]
    labelled = compared.assign(group=labels)
    table = [
        (row.group, row.quantity, with_interval(row.points, row.lower, row.upper))
        for row in rows_of(labelled)
    ]
    return Figure(
        key="differences",
        heading=f"Differences from {named[0].name}",
        sentence=_difference_words(named, compared),
        caption=(
            "The best mCB, where both populations have one, as a multiple of the first population's (1: the same); the "
            f"limit minus the first population's, points (0: the same; negative: a smaller drop). {INTERVALS}"
        ),
        n=sum(n.analysis.n_fitted for n in named),
        interval_mass=INTERVAL_MASS,
        legend=(),
        panels=tuple(
            _difference_panel(q, rows)
            for q in _QUANTITIES
            if len(rows := labelled[labelled["quantity"] == q.heading])
        ),
        table=Table(("regime", "quantity", f"difference ({MASS_WORDS})"), tuple(table)),
    )


def _difference_panel(quantity: _Quantity, rows: pd.DataFrame) -> Panel:
    title = "times the first's" if quantity.unit == "ratio" else "points more than the first's"
    return Panel(
        title=quantity.heading,
        note="",
        outcome="",
        chart="dot_intervals",
        alt=f"{quantity.heading}, {title}: "
        + ", ".join(f"{row.group} {number(row.points)}" for row in rows_of(rows))
        + ".",
        data={
            "groups": Table.of(rows[["group", "points", "lower", "upper"]]),
            "original": Table(("points",), ((quantity.none,),)),
            "frame": Table(("title",), ((title,),)),
        },
    )


def _sections(named: list[_Named], command: str | None) -> tuple[Section, ...]:
    cards = []
    for i, n in enumerate(named, 1):
        card, origin = card_section(n.analysis), provenance_section(n.analysis, command)
        tables = (*card.tables, *origin.tables)
        cards.append(
            replace(
                card,
                key=f"population-{i}",
                heading=n.name,
                tables=tables,
                code=origin.code[:1] if i == 1 else (),
            )
        )
    return tuple(cards)
