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
    RANGES_LEGEND,
    near_words,
    ranges_panel,
    recipes_words,
)
from popstats.figures.edf_figures import compared_edfs
from popstats.inference.draws import INTERVAL_MASS, interval
from popstats.judgement.evidence import Evidence, rows_of
from popstats.posterior.fit import Fit
from popstats.posterior.optimum import OptimumDraws
from popstats.report.alerts import alerts
from popstats.report.answer import claims, threshold_words
from popstats.report.sections import card_section, provenance_section
from popstats.words import count, join_words, number, plural, regime_name, regime_names, with_interval


@dataclass(frozen=True, eq=False)
class _Named:
    """One of the compared populations; the letter stands for it where a name would take too much room."""

    name: str
    letter: str
    evidence: Evidence


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
    return ReportContent(
        format=FORMAT,
        kind="Comparison of populations",
        title=join_words([n.name for n in named]),
        answer=_answer(named, compared),
        facts=tuple(
            (n.name, f"{count(len(n.evidence.fit.population))} trainings; original {_accuracy(n)}")
            for n in named
        ),
        axis_words=named[0].evidence.axis_words,
        interval_mass=INTERVAL_MASS,
        thresholds=threshold_words(named[0].evidence.verdicts[0].thresholds),
        alerts=tuple(Alert(a.level, f"{n.name}: {a.text}") for n in named for a in alerts(n.evidence)),
        claims=_claims(named),
        figures=tuple(
            f
            for f in (
                _ranges_figure(named),
                _difference_figure(named, compared),
                compared_edfs([(n.name, n.evidence) for n in named]),
            )
            if f is not None
        ),
        sections=_sections(named, command),
        created=created or datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _accuracy(named: _Named) -> str:
    return f"{number(named.evidence.fit.population.original.accuracy)} %"


def _named(fits: Sequence[Fit]) -> list[_Named]:
    names = [fit.population.name for fit in fits]
    alike = len(set(names)) < len(names)
    return [
        _Named(f"{name} ({i})" if alike else name, chr(ord("A") + i - 1), Evidence(fit))
        for i, (name, fit) in enumerate(zip(names, fits, strict=True), 1)
    ]


def _compared(named: list[_Named]) -> pd.DataFrame:
    """Return one row a regime, later population and quantity: the difference from the first population.

    Best mCBs are set against each other only where both populations have one.
    """
    first, rows = named[0], []
    old = dict(
        zip((r.label for r in first.evidence.fit.fitted), first.evidence.fit.optimum_draws, strict=True)
    )
    for other in named[1:]:
        fit = other.evidence.fit
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
    return all(n.evidence.outcome("C3a", regime) == "supported" for n in (first, other))


def _differences(quantity: _Quantity, new: OptimumDraws, old: OptimumDraws) -> FloatArray:
    """Set draws of two independent fits against each other; the order of the draws of each means nothing."""
    a, b = quantity.read(new), quantity.read(old)
    size = min(a.size, b.size)
    return quantity.against(a[:size], b[:size])


def _answer(named: list[_Named], compared: pd.DataFrame) -> tuple[str, ...]:
    found = []
    for n in named:
        supported = n.evidence.regimes_where("C3a", "supported")
        found.append(
            f"In {n.name} there is a best mCB at {regime_names(supported)} of {n.evidence.axis_words} removed."
            if supported
            else f"In {n.name} no best mCB is beyond doubt."
        )
    return (*found, _difference_words(named, compared))


def _difference_words(named: list[_Named], compared: pd.DataFrame) -> str:
    if compared.empty:
        return "The populations share no fitted regime, so nothing can be set against each other."
    told = [
        _quantity_words(q, compared[compared["quantity"] == q.heading], alone=len(named) == 2)
        for q in _QUANTITIES
    ]
    return f"Against {named[0].name}, {'; '.join(told)}."


def _quantity_words(quantity: _Quantity, rows: pd.DataFrame, *, alone: bool) -> str:
    """Say where a quantity differs beyond doubt, and which way; `alone`: only one is set against the first."""
    name = f"{quantity.heading[0].lower()}{quantity.heading[1:]}"
    if rows.empty:
        return f"no {name} can be compared, as no regime has a supported one in both"
    larger, smaller = rows["lower"] > quantity.none, rows["upper"] < quantity.none
    apart = rows[larger | smaller]
    both = larger.any() == smaller.any()
    how = "differs" if both else "is larger" if larger.any() else "is smaller"
    of = f"{len(apart) or 'none'} of {plural(len(rows), 'comparison')}"
    where = f" (at {regime_names(apart['regime'].tolist())})" if alone and len(apart) else ""
    return f"the {name} {how} beyond doubt in {of}{where}"


def _claims(named: list[_Named]) -> tuple[Claim, ...]:
    """Merge the populations' claims: one conjecture, all populations' verdicts."""
    told = [(n.name, claims(n.evidence)) for n in named]
    merged = []
    for claim in told[0][1]:
        same = [(name, c) for name, list_ in told for c in list_ if c.conjecture == claim.conjecture]
        rows = tuple(replace(row, population=name) for name, c in same for row in c.rows)
        summary = "\n".join(f"{name}: {c.summary}" for name, c in same)
        # The first population may have nothing that could be assessed.
        telling = next((c for _, c in same if c.quantity), claim)
        merged.append(replace(telling, summary=summary, rows=rows))
    return tuple(merged)


def _ranges_figure(named: list[_Named]) -> Figure | None:
    pairs = [(n, row) for n in named for row in n.evidence.fitted_optima]
    if not pairs:
        return None
    pairs.sort(key=lambda pair: float(pair[1].target))
    panel = ranges_panel(
        [row for _, row in pairs],
        labels=[f"{regime_name(row.regime)} {n.letter}" for n, row in pairs],
        clear=[n.evidence.outcome("C3a", row.regime) == "supported" for n, row in pairs],
        stretches=[n.evidence.stretches[row.regime] for n, row in pairs],
    )
    return Figure(
        key="near",
        heading="Near-optimal ranges side by side",
        sentence=_overlap_words(named),
        caption=(
            f"By {named[0].evidence.axis_words} removed. {_letters(named)}. Where the "
            "near-optimal ranges of one regime overlap, one choice of mCB serves both populations; where C3a is not "
            f"supported a range is drawn pale and is no target. {INTERVALS}"
        ),
        n=sum(n.evidence.n_fitted for n in named),
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
            near_words(n.evidence, row.regime),
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
        for label in dict.fromkeys(r.label for n in named for r in n.evidence.fit.fitted)
        if sum(n.evidence.outcome("C3a", label) == "supported" for n in named) > 1
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
    sets = [n.evidence.stretches[label] for n in named if n.evidence.outcome("C3a", label) == "supported"]
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
        n=sum(n.evidence.n_fitted for n in named),
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
        card, origin = card_section(n.evidence), provenance_section(n.evidence, command)
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
