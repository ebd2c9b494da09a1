"""The figures of a comparison: overlaid curves, differences, spread of the drops, and the effect of the original's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.figures.content import ORIGINAL, Figure, Panel, Table
from popstats.figures.curve_figures import INTERVALS, MASS_WORDS, measured, near_words, recipes_words
from popstats.figures.space_figures import MINIMUM_NETWORKS, dot_panel, edf_panel
from popstats.figures.theme import SPACE_MARKS
from popstats.findings import Span
from popstats.judgement.analysis import Analysis, rows_of
from popstats.judgement.edf import compare_spaces, cost_weights
from popstats.judgement.family import DOUBLING, QUANTITIES, SIZES, Quantity, doublings
from popstats.words import (
    capitalized,
    count,
    join_words,
    number,
    p_value,
    plural,
    regime_name,
    regime_names,
    sentence,
    with_interval,
)

#: The populations' analyses by name, the first being what the others are compared with.
type Named = Mapping[str, Analysis]
#: Of one population in one regime: its recipes.
type Networks = pd.DataFrame

#: Share of a size by which the marks of one regime stand beside those of the next.
APART = 0.06
#: By which factor the axis of sizes reaches beyond them.
MARGIN = 1.3
#: What is drawn over the originals' size, with its axis title.
_OVER_SIZE = ((QUANTITIES[0], "mCB (original = 1)"), (QUANTITIES[-1], "smallest expected drop, points"))


def drawn_together(named: Named) -> dict[str, Analysis]:
    """Return the populations that one panel has marks for, the first ones."""
    return dict(list(named.items())[: len(SPACE_MARKS)])


def _legend(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((f"space {i}", name) for i, name in enumerate(names))


def _listed(names: Sequence[str]) -> Table:
    """Return the table that tells a panel the order of the marks, as it may lack some of the populations."""
    return Table(("space",), tuple((name,) for name in names))


def family_figure(named: Named, moved: pd.DataFrame) -> Figure | None:
    """Return optimum and limit over the originals' width and depth; None where they differ in neither alone."""
    told = " ".join(sentence(found) for found in doublings(moved))
    if not told:
        return None
    regimes = moved["regime"].unique().tolist()[: len(SPACE_MARKS)]
    own = moved[(moved["against"] == "") & moved["regime"].isin(regimes)]
    changes = moved[moved["against"].str.startswith(DOUBLING)]
    by = join_words([size for size in SIZES if own[size].notna().any()])
    places = [f"{regime_name(regime)} removed" for regime in regimes]
    return Figure(
        key="family",
        heading=f"Optimum and limit by the original's {by}",
        sentence=told,
        caption=(
            "Each mark is one original: the optimal mCB, the near-optimal range behind it (filled where C3a is supported), "
            "and the limit. A change per doubling is the slope of a line through the originals, weighted by their "
            "precision; where they scatter more than their intervals allow, the interval is widened accordingly. Each "
            f"original was trained once: what another training of it would change is not in the intervals. {INTERVALS}"
        ),
        n=sum(analysis.n_fitted for analysis in named.values()),
        legend=(*_legend(places), ("near bar", "near-optimal range")),
        panels=tuple(
            _size_panel(named, rows, quantity, size, title)
            for size in SIZES
            for quantity, title in _OVER_SIZE
            if len(rows := own[(own["quantity"] == quantity.name) & own[size].notna()])
        ),
        table=Table.by_column(rows_of(changes), {
            "regime": lambda r: regime_name(r.regime),
            "per": lambda r: r.against,
            "quantity": lambda r: f"{r.quantity}, {'points' if r.quantity == 'limit' else 'factor'}",
            f"change ({MASS_WORDS})": lambda r: with_interval(r.estimate, r.lower, r.upper),
        }),
    )  # fmt: skip


def _size_panel(named: Named, rows: pd.DataFrame, quantity: Quantity, size: str, title: str) -> Panel:
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
        for span in named[row.population].by_label[row.regime].stretches
    ]
    described = ", ".join(f"{r.original} at {r.space}: {number(r.value)}" for r in rows_of(drawn))
    ends = {"x_lower": values[0] / MARGIN, "x_upper": values[-1] * MARGIN}
    return Panel(
        title=f"{capitalized(quantity.name)} by {size}",
        chart="over_size",
        alt=f"{capitalized(quantity.name)} by the original's {size}: {described}.",
        data={
            "places": Table.of(drawn),
            "near": Table(("size", "lower", "upper"), tuple(ranges) if quantity.factor else ()),
            "original": ORIGINAL,
            "sizes": Table(("size",), tuple((value,) for value in values)),
            "frame": Table.one(size=f"{size} of the original", value=title, **ends),
        },
    )


def curves_figure(named: Named) -> Figure | None:
    """Return the populations' curves, one panel per regime that at least one of them has."""
    shown = drawn_together(named)
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
        legend=_legend(list(shown)),
        panels=tuple(_curves_panel(shown, label) for label in dict.fromkeys(row.regime for _, row in pairs)),
        table=Table.by_column(pairs, {
            "regime": lambda pair: f"{regime_name(pair[1].regime)}, {pair[0]}",
            "recipes": lambda pair: recipes_words(pair[1].n_recipes),
            "near-optimal mCB": lambda pair: near_words(named[pair[0]], pair[1].regime),
            f"lowest at mCB ({MASS_WORDS})": lambda pair: measured(pair[1], "mcb"),
            f"drop there, points ({MASS_WORDS})": lambda pair: measured(pair[1], "limit"),
        }),
    )  # fmt: skip


def _curves_panel(named: Named, label: str) -> Panel:
    rows = pd.concat([a.curve[a.curve["regime"] == label].assign(space=name) for name, a in named.items()])
    low, high = float(rows["lower"].min()), float(rows["upper"].max())
    where = f"{regime_name(label)} removed"
    ends = {"x_lower": rows["mcb"].min(), "x_upper": rows["mcb"].max(), "y_lower": low, "y_upper": high}
    return Panel(
        title=where,
        chart="overlaid_curves",
        alt=f"Expected drop over mCB at {where}, from {number(low)} to {number(high)} points.",
        data={
            "curves": Table.of(rows[["space", "mcb", "drop", "lower", "upper"]]),
            "names": _listed(list(named)),
            "original": ORIGINAL,
            "frame": Table.one(**ends),
        },
    )


def _overlap_words(named: Named) -> str:
    """Say in which regimes several populations have a supported optimal mCB, and whether one choice serves them."""
    ranges: dict[str, list[tuple[Span, ...]]] = {}
    for regime in (r for analysis in named.values() for r in analysis.with_optimum):
        ranges.setdefault(regime.label, []).append(regime.stretches)
    shared = {label: found for label, found in ranges.items() if len(found) > 1}
    if not shared:
        return "In no regime is an optimal mCB supported in more than one of the populations."
    together = [
        label
        for label, (first, *rest) in shared.items()
        if all(any(a.low <= b.high and b.low <= a.high for a in first for b in other) for other in rest)
    ]
    where = "there" if together == list(shared) else f"at {regime_names(together)}" if together else "nowhere"
    return (
        f"At {regime_names(list(shared))} removed, more than one population has an optimal mCB; the near-optimal ranges "
        f"overlap {where}."
    )


def difference_figure(named: Named, compared: pd.DataFrame) -> Figure | None:
    """Return how optimum and limit differ from the first population's; None where nothing can be compared."""
    if compared.empty:
        return None
    regimes = compared["regime"].map(regime_name)
    group = regimes if len(named) == 2 else regimes + ", " + compared["population"]
    labelled = compared.assign(group=group, points=compared["estimate"])
    return Figure(
        key="differences",
        heading=f"Differences from {next(iter(named))}",
        sentence=difference_words(named, compared),
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
            if len(rows := labelled[labelled["quantity"] == q.name])
        ),
        table=Table.by_column(rows_of(labelled), {
            "regime": lambda r: r.group,
            "quantity": lambda r: capitalized(r.quantity),
            f"difference ({MASS_WORDS})": lambda r: with_interval(r.points, r.lower, r.upper),
        }),
    )  # fmt: skip


def difference_words(named: Named, compared: pd.DataFrame) -> str:
    """Say where optimal mCB and limit clearly differ from the first population's, and which way."""
    if compared.empty:
        return "The populations share no fitted regime, so nothing can be compared."
    told = []
    for quantity in (QUANTITIES[0], QUANTITIES[-1]):
        rows = compared[compared["quantity"] == quantity.name]
        larger, smaller = rows["lower"] > quantity.none, rows["upper"] < quantity.none
        apart = rows[larger | smaller]["regime"].tolist()
        how = {(True, False): "is clearly larger than", (False, True): "is clearly smaller than"}.get(
            (bool(larger.any()), bool(smaller.any())), "clearly differs from"
        )
        of = f"{len(apart) or 'none'} of {plural(len(rows), 'comparison')}"
        where = f" (at {regime_names(apart)})" if len(named) == 2 and apart else ""
        told.append(
            f"The {quantity.name} {how} that of {next(iter(named))} in {of}{where}."
            if len(rows)
            else f"No {quantity.name} can be compared: C3a is refuted or not assessable in each regime of one of them."
        )
    return " ".join(told)


def compared_edfs(named: Named) -> Figure | None:
    """Return the EDFs of the populations by regime, and by how much each differs from the first; None if alone."""
    shown = drawn_together(named)
    first, originals = next(iter(shown)), [a.fit.population.original for a in shown.values()]
    alike = len({(original.macs, original.params) for original in originals}) == 1
    targets = {r.label: r.target for analysis in shown.values() for r in analysis.fit.regimes}
    regimes = {label: _networks(shown, label) for label in sorted(targets, key=targets.__getitem__)}
    regimes = {label: found for label, found in regimes.items() if first in found and len(found) > 1}
    if not regimes:
        return None
    differences = pd.DataFrame([row for label, own in regimes.items() for row in _moved(label, own, alike)])
    costs = "The originals differ, so costs are equal only as far as the regime is narrow."
    if alike:
        costs = (
            "Populations of one original network are compared at equal cost: recipes are weighted to one histogram of MACs "
            "inside the regime."
        )
    return Figure(
        key="edfs",
        heading="Distribution of the drops",
        sentence=_spread_sentence(first, differences),
        caption=(
            f"Share of recipes whose drop is at most the value: further left is better. {costs} Bands and differences: "
            f"Bayesian bootstrap over recipes. {INTERVALS}"
        ),
        n=sum(analysis.n_fitted for analysis in shown.values()),
        legend=_legend(list(shown)),
        panels=tuple(_spread_panel(label, found, alike, list(shown)) for label, found in regimes.items()),
        table=Table.by_column(rows_of(differences), {
            "removed": lambda d: regime_name(d.regime),
            "population": lambda d: d.name,
            "recipes": lambda d: d.recipes,
            f"mean drop more than {first}'s, points ({MASS_WORDS})": lambda d: with_interval(d.more, d.lower, d.upper),
            "KS p": lambda d: p_value(d.p),
        }),
    )  # fmt: skip


def _networks(shown: Named, label: str) -> dict[str, Networks]:
    """Return the networks of a regime by population, of those that have enough."""
    rows = {name: a.networks[a.networks["regime"] == label] for name, a in shown.items()}
    return {name: found for name, found in rows.items() if len(found) >= MINIMUM_NETWORKS}


def _moved(label: str, found: Mapping[str, Networks], alike: bool) -> list[dict[str, object]]:
    """Return by how much each population's mean drop exceeds the first's in one regime, points."""
    (_, first), *others = found.items()
    rows: list[dict[str, object]] = []
    for name, other in others:
        costs = (first["macs"], other["macs"]) if _weights(first, other, alike) else None
        better = compare_spaces(first["drop"], other["drop"], costs=costs)
        rows.append({
            "name": name, "regime": label, "recipes": f"{count(len(first))} and {count(len(other))}",
            "more": better.points, "lower": better.lower, "upper": better.upper, "p": better.ks_p_value,
        })  # fmt: skip
    return rows


def _weights(first: Networks, other: Networks, alike: bool) -> tuple[FloatArray, FloatArray] | None:
    """Return weights to one histogram of MACs; None where costs cannot be made equal."""
    try:
        return cost_weights(first["macs"], other["macs"]) if alike else None
    except FitError:
        # No cost in common: the drops are compared as they are, and the panel says so.
        return None


def _spread_sentence(first: str, differences: pd.DataFrame) -> str:
    told = []
    for name, at in differences.groupby("name", sort=False):
        clear = {"less": at["upper"] < 0, "more": at["lower"] > 0}
        regimes = {how: at["regime"][where].tolist() for how, where in clear.items()}
        parts = [f"{how} than {first}'s at {regime_names(r)}" for how, r in regimes.items() if r]
        told.append(
            f"on average {name}'s recipes drop {' and '.join(parts)} removed"
            if parts
            else f"the mean drops of {name} and {first} do not clearly differ"
        )
    return f"{capitalized('; '.join(told))}."


def _spread_panel(label: str, found: Mapping[str, Networks], alike: bool, names: Sequence[str]) -> Panel:
    # More than two populations have no one histogram of costs: each of the others would need its own.
    first, second, *more = found.values()
    weights = None if more else _weights(first, second, alike)
    sizes = join_words([count(len(rows)) for rows in found.values()])
    panel = edf_panel(
        label,
        {name: rows["drop"] for name, rows in found.items()},
        f"median drops {', '.join(f'{name} {number(rows["drop"].median())}' for name, rows in found.items())}",
        note=f"recipes: {sizes}{'' if weights else '; costs as they are'}",
        weights=weights,
    )
    return replace(panel, data={**panel.data, "names": _listed(names)})
