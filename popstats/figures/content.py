"""What a report says, computed once, frozen, and identical in JSON and on the page.

Numbers stay numbers here; templates and charts only place them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from popstats.inference.draws import INTERVAL_MASS

#: Version of the JSON layout.
FORMAT = 4
#: Significant digits kept of every number: more than any picture or sentence shows.
DIGITS = 6

Cell = str | float | int | bool | None


@dataclass(frozen=True)
class Table:
    """A small table: what a chart draws, or what a reader reads."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]  # Cells; None where there is no value.

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Table:
        """Make a table of a frame; numbers keep six significant digits, NaN becomes None."""
        cells = [[plain(v) for v in frame[name].tolist()] for name in frame.columns]
        return cls(tuple(map(str, frame.columns)), tuple(zip(*cells, strict=True)))

    @classmethod
    def by_column(cls, items: Iterable[Any], columns: Mapping[str, Callable[[Any], Cell]]) -> Table:
        """Make a table with one row per item, from each column's name and what stands in it."""
        rows = (tuple(plain(cell(item)) for cell in columns.values()) for item in items)
        return cls(tuple(columns), tuple(rows))

    @classmethod
    def one(cls, **cells: Any) -> Table:
        """Make a table of one row."""
        return cls(tuple(cells), (tuple(plain(cell) for cell in cells.values()),))

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows, each by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Panel:
    """One picture."""

    chart: str  # Which of `popstats.figures.charts.CHARTS` draws it.
    alt: str  # What it shows, for who cannot see it.
    data: Mapping[str, Table]  # Arguments of the chart.
    title: str = ""  # What it is of ("75 % of MACs removed"); empty where the figure has one picture only.
    note: str = ""  # How much is in it.
    outcome: str = ""  # The verdict that it belongs to; empty if none.


@dataclass(frozen=True)
class Figure:
    """A figure: its panels, what they support, how to read them, and the numbers in a table."""

    key: str  # Anchor on the page.
    heading: str
    sentence: str  # What the figure supports, with numbers.
    caption: str  # How to read it: marks, n, mass of the intervals.
    n: int  # Trainings behind it.
    panels: tuple[Panel, ...]
    table: Table  # The same numbers to read.
    # Kind of mark and its meaning, where the panels carry no legend of their own.
    legend: tuple[tuple[str, str], ...] = ()
    folded: bool = False  # Whether the panels wait behind a click.
    interval_mass: float = INTERVAL_MASS


@dataclass(frozen=True)
class VerdictRow:
    """One verdict, in plain values; None where there is no number. `population` only in comparisons."""

    regime: str  # Label; of several that share a row, the first's.
    place: str  # The regimes in words.
    outcome: str
    probability: float | None
    prior_probability: float | None
    estimate: float | None
    lower: float | None
    upper: float | None
    unit: str
    sentence: str
    reason: str
    remedy: str
    population: str = ""


@dataclass(frozen=True)
class Claim:
    """One conjecture with its verdicts."""

    conjecture: str  # C1, C3a, ...
    claim: str  # What it says, in a line.
    summary: str  # Its verdicts in a sentence.
    negligible_region: str  # What counts as no effect.
    quantity: str  # What the rows' estimates are estimates of; empty where nothing could be assessed.
    rows: tuple[VerdictRow, ...]  # One per regime.
    # The same for a table: those that cannot be assessed for one reason share a row.
    merged: tuple[VerdictRow, ...]
    folded: bool = False  # Whether it repeats another conjecture in another unit.


@dataclass(frozen=True)
class Alert:
    """Something a reader must know before believing the rest."""

    level: str
    text: str


@dataclass(frozen=True)
class Section:
    """Text and tables without a picture."""

    key: str
    heading: str
    sentence: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[tuple[str, Table], ...] = ()
    code: tuple[tuple[str, str], ...] = ()  # Label and what to copy.
    folded: bool = False  # Whether all of it waits behind its heading.


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report says."""

    title: str  # The population's name.
    advice: Section  # The box at the top: what to do.
    facts: tuple[tuple[str, str], ...]  # Label and value, for the line under the title.
    axis_words: str  # What a regime removes: "MACs" or "parameters".
    thresholds: str  # What the verdicts were made with.
    alerts: tuple[Alert, ...]
    claims: tuple[Claim, ...]
    figures: tuple[Figure, ...]
    order: tuple[str, ...]  # Keys of figures and sections, "verdicts" among them, as the page has them.
    sections: tuple[Section, ...]  # Companions, diagnostics, population card, provenance.
    # When, UTC.
    created: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    kind: str = "Population report"  # What it is, above the title.
    interval_mass: float = INTERVAL_MASS
    format: int = FORMAT  # Version of this layout.

    def to_json(self) -> str:
        """Return the content as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def plain(value: Any) -> Cell:
    """Return a value as JSON can hold it: numbers with six significant digits, None where there is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


#: Where the original network stands on the mCB axis.
ORIGINAL = Table.one(mcb=1.0)
