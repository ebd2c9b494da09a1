"""Two or more fits side by side: the same conjectures across populations, differences with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.errors import PopstatsError
from popstats.inference.fit import Fit
from popstats.inference.optimum import INTERVAL_MASS, OptimumDraws, interval
from popstats.report.answer import claims, threshold_words
from popstats.report.card import card_section, provenance_section
from popstats.report.compared_edfs import compared_edfs
from popstats.report.content import FORMAT, Alert, Claim, Figure, Panel, ReportContent, Section, Table
from popstats.report.evidence import Evidence, rows_of
from popstats.report.figures import INTERVALS, MASS_WORDS, ranges_panel
from popstats.report.sections import alerts
from popstats.report.words import count, join_words, number, plural, regime_name, regime_names, with_interval

__all__ = ["comparison_content"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Named:
    """One of the compared populations."""

    name: str
    evidence: Evidence


@dataclass(frozen=True)
class _Quantity:
    """What is compared draw by draw: how to read it, how two are set against each other, what means no difference."""

    heading: str
    unit: str
    read: Callable[[OptimumDraws], FloatArray]
    against: Callable[[FloatArray, FloatArray], FloatArray]
    none: float


_QUANTITIES = (
    _Quantity("Best mCB", "ratio", lambda o: np.exp(o.log_mcb), lambda new, old: new / old, 1.0),
    _Quantity("Limit", "points", lambda o: o.limit, lambda new, old: new - old, 0.0),
)


def comparison_content(
    fits: Sequence[Fit], *, command: str | None = None, created: str | None = None
) -> ReportContent:
    """Compute everything that the comparison of two or more fits says.

    Parameters
    ----------
    fits : sequence of Fit
        All on the same regime axis; the first is the one that the others are compared with.
    command : str, optional
        The command line that the reader can repeat.
    created : str, optional
        When; default now (UTC).

    Raises
    ------
    PopstatsError
        With fewer than two fits, or fits on different axes.
    """
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
            (n.name, f"{count(len(n.evidence.fit.population))} trainings at {_accuracy(n)}") for n in named
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
        _Named(f"{name} ({i})" if alike else name, Evidence(fit))
        for i, (name, fit) in enumerate(zip(names, fits, strict=True), 1)
    ]


def _compared(named: list[_Named]) -> pd.DataFrame:
    """Return one row a regime, later population and quantity: the difference from the first population."""
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
                draws = _differences(quantity, new, old[regime.label])
                lower, upper = interval(draws)
                middle = float(np.median(draws))
                rows.append((regime.label, other.name, quantity.heading, middle, float(lower), float(upper)))
    return pd.DataFrame(rows, columns=["regime", "population", "quantity", "points", "lower", "upper"])


def _differences(quantity: _Quantity, new: OptimumDraws, old: OptimumDraws) -> FloatArray:
    """Set draws of two independent fits against each other; the order of the draws of each means nothing."""
    a, b = quantity.read(new), quantity.read(old)
    size = min(a.size, b.size)
    return quantity.against(a[:size], b[:size])


def _answer(named: list[_Named], compared: pd.DataFrame) -> tuple[str, ...]:
    found = []
    for n in named:
        supported = n.evidence.regimes_where("C3a", "supported")
        where = (
            f"at {regime_names(supported)} of {n.evidence.axis_words} removed"
            if supported
            else "nowhere beyond doubt"
        )
        found.append(f"In {n.name} there is a best mCB {where}.")
    return (*found, _difference_words(named, compared))


def _difference_words(named: list[_Named], compared: pd.DataFrame) -> str:
    if compared.empty:
        return "The populations share no fitted regime, so nothing can be set against each other."
    parts = []
    for quantity in _QUANTITIES:
        rows = compared[compared["quantity"] == quantity.heading]
        apart = rows[(rows["lower"] > quantity.none) | (rows["upper"] < quantity.none)]
        of = f"{len(apart) or 'none'} of {plural(len(rows), 'comparison')}"
        parts.append(f"the {quantity.heading[0].lower()}{quantity.heading[1:]} differs beyond doubt in {of}")
    text = join_words(parts)
    return f"Against {named[0].name}, {text}."


def _claims(named: list[_Named]) -> tuple[Claim, ...]:
    """Merge the populations' claims: one conjecture, all populations' verdicts."""
    told = [(n.name, claims(n.evidence)) for n in named]
    merged = []
    for claim in told[0][1]:
        same = [(name, c) for name, list_ in told for c in list_ if c.conjecture == claim.conjecture]
        rows = tuple(replace(row, population=name) for name, c in same for row in c.rows)
        summary = " ".join(f"{name}: {c.summary}" for name, c in same)
        merged.append(replace(claim, summary=summary, rows=rows))
    return tuple(merged)


def _ranges_figure(named: list[_Named]) -> Figure | None:
    fitted = [n for n in named if n.evidence.fit.fitted]
    if not fitted:
        return None
    pairs = [(n, row) for n in fitted for row in n.evidence.fitted_optima]
    pairs.sort(key=lambda pair: float(pair[1].target))
    labels = [f"{regime_name(row.regime)}, {n.name}" for n, row in pairs]
    clear = [n.evidence.outcome("C3a", row.regime) == "supported" for n, row in pairs]
    rows = [row for _, row in pairs]
    stretches = [n.evidence.stretches[row.regime] for n, row in pairs]
    table = [
        (
            label,
            with_interval(row.mcb, row.mcb_lower, row.mcb_upper),
            with_interval(row.limit, row.limit_lower, row.limit_upper),
        )
        for label, row in zip(labels, rows, strict=True)
    ]
    return Figure(
        key="near",
        heading="Near-optimal ranges side by side",
        sentence="Where the ranges of one regime overlap, one choice of mCB serves both populations.",
        caption=f"By {named[0].evidence.axis_words} removed. {INTERVALS}",
        n=sum(n.evidence.n_fitted for n in fitted),
        interval_mass=INTERVAL_MASS,
        legend=(
            ("near bar", "near-optimal range"),
            ("observed", "observed range"),
            ("optimum", "best mCB, with its interval"),
            ("open", "lowest point where none is supported"),
            ("original", "the original network's ratio"),
        ),
        panels=(ranges_panel(rows, labels, clear, stretches),),
        table=Table(
            ("regime", f"lowest at mCB ({MASS_WORDS})", f"drop there, points ({MASS_WORDS})"), tuple(table)
        ),
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
            "Left: the best mCB as a multiple of the first population's (1: the same). Right: the limit minus the first "
            f"population's, points (0: the same; negative: a smaller drop). {INTERVALS}"
        ),
        n=sum(n.evidence.n_fitted for n in named),
        interval_mass=INTERVAL_MASS,
        legend=(),
        panels=tuple(_difference_panel(q, labelled[labelled["quantity"] == q.heading]) for q in _QUANTITIES),
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
