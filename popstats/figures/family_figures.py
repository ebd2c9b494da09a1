"""How optimum and limit move with the width and the depth of the original network."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from popstats.figures.content import Figure, Panel, Table
from popstats.figures.curve_figures import INTERVALS, MASS_WORDS, ORIGINAL
from popstats.figures.theme import SPACE_MARKS
from popstats.judgement.analysis import Analysis, rows_of
from popstats.judgement.family import DOUBLING, QUANTITIES, SIZES, Quantity, doublings
from popstats.words import capitalized, join_words, number, regime_name, sentence, with_interval

#: Share of a size by which the marks of one regime stand beside those of the next.
APART = 0.06
#: By which factor the axis of sizes reaches beyond them.
MARGIN = 1.3
#: What is drawn, with its axis title.
_DRAWN = ((QUANTITIES[0], "mCB (original = 1)"), (QUANTITIES[-1], "smallest expected drop, points"))


def family_figure(analyses: Mapping[str, Analysis], moved: pd.DataFrame) -> Figure | None:
    """Return optimum and limit over the originals' width and depth; None where they differ in neither alone."""
    told = " ".join(sentence(found) for found in doublings(moved))
    if not told:
        return None
    regimes = moved["regime"].unique().tolist()[: len(SPACE_MARKS)]
    own = moved[(moved["against"] == "") & moved["regime"].isin(regimes)]
    changes = moved[moved["against"].str.startswith(DOUBLING)]
    by = join_words([size for size in SIZES if own[size].notna().any()])
    return Figure(
        key="family",
        heading=f"Optimum and limit by the original's {by}",
        sentence=told,
        caption=(
            "Each mark is one original: the optimal mCB, the near-optimal range behind it (filled where C3a is "
            "supported), and the limit. A change per doubling is the slope of a line through the originals, weighted by "
            "precision; where they scatter more than their intervals allow, the interval is widened accordingly. Each "
            f"original was trained once: what another training of it would change is not in the intervals. {INTERVALS}"
        ),
        n=sum(analysis.n_fitted for analysis in analyses.values()),
        legend=(
            *((f"space {i}", f"{regime_name(regime)} removed") for i, regime in enumerate(regimes)),
            ("near bar", "near-optimal range"),
        ),
        panels=tuple(
            _panel(analyses, rows, quantity, size, title)
            for size in SIZES
            for quantity, title in _DRAWN
            if len(rows := own[(own["quantity"] == quantity.name) & own[size].notna()])
        ),
        table=Table.by_column(rows_of(changes), {
            "regime": lambda r: regime_name(r.regime),
            "per": lambda r: r.against,
            "quantity": lambda r: f"{r.quantity}, {'points' if r.quantity == 'limit' else 'factor'}",
            f"change ({MASS_WORDS})": lambda r: with_interval(r.estimate, r.lower, r.upper),
        }),
    )  # fmt: skip


def _panel(
    analyses: Mapping[str, Analysis], rows: pd.DataFrame, quantity: Quantity, size: str, title: str
) -> Panel:
    values = sorted(rows[size].unique().tolist())
    order = {regime: i for i, regime in enumerate(rows["regime"].unique())}
    middle = (len(order) - 1) / 2
    drawn = pd.DataFrame({
        "space": rows["regime"].map(regime_name),
        "size": rows[size] * (1.0 + APART) ** (rows["regime"].map(order) - middle),
        "value": rows["estimate"], "lower": rows["lower"], "upper": rows["upper"],
        "original": rows["population"], "clear": (rows["outcome"] == "supported") | (not quantity.factor),
    })  # fmt: skip
    ranges = [
        (place, *span)
        for place, row in zip(drawn["size"], rows_of(rows), strict=True)
        for span in analyses[row.population].by_label[row.regime].stretches
    ]
    described = ", ".join(f"{r.original} at {r.space}: {number(r.value)}" for r in rows_of(drawn))
    return Panel(
        title=f"{capitalized(quantity.name)} by {size}",
        chart="over_size",
        alt=f"{capitalized(quantity.name)} by the original's {size}: {described}.",
        data={
            "places": Table.of(drawn),
            "near": Table(("size", "lower", "upper"), tuple(ranges) if quantity.factor else ()),
            "original": ORIGINAL,
            "sizes": Table(("size",), tuple((value,) for value in values)),
            "frame": Table.one(
                size=f"{size} of the original",
                value=title,
                x_lower=values[0] / MARGIN,
                x_upper=values[-1] * MARGIN,
            ),
        },
    )
