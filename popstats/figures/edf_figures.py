"""How the drops of two or more populations are spread, regime by regime, at equal cost where that is possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.figures.content import Figure, Panel, Table
from popstats.figures.curve_figures import INTERVALS, MASS_WORDS
from popstats.figures.space_figures import MINIMUM_NETWORKS, edf_panel
from popstats.figures.theme import SPACE_MARKS
from popstats.judgement.analysis import Analysis
from popstats.judgement.edf import SpaceDifference, compare_spaces, cost_weights
from popstats.words import (
    capitalized,
    count,
    join_words,
    number,
    p_value,
    regime_name,
    regime_names,
    with_interval,
)

#: One population's networks in a regime: their drops and MACs.
type Networks = pd.DataFrame
type Weights = tuple[FloatArray, FloatArray] | None


class _Difference(NamedTuple):
    """How the drops of a population differ from the first population's in one regime."""

    name: str
    regime: str
    sizes: str  # Recipes of both, in words.
    found: SpaceDifference


def compared_edfs(named: Sequence[tuple[str, Analysis]]) -> Figure | None:
    """Return the EDFs of the populations by regime, and by how much each differs from the first; None if alone."""
    shown = dict(named[: len(SPACE_MARKS)])
    first = next(iter(shown))
    alike = (
        len({(a.fit.population.original.macs, a.fit.population.original.params) for a in shown.values()}) == 1
    )
    targets = {r.label: r.target for analysis in shown.values() for r in analysis.fit.regimes}
    each = {label: _networks(shown, label) for label in sorted(targets, key=lambda label: targets[label])}
    regimes = {label: found for label, found in each.items() if first in found and len(found) > 1}
    if not regimes:
        return None
    differences = [d for label, found in regimes.items() for d in _differences(label, found, alike)]
    costs = "The originals differ, so costs are equal only as far as the regime is narrow."
    if alike:
        costs = (
            "Populations of one original network are compared at equal cost: recipes are weighted to one histogram of MACs "
            "inside the regime."
        )
    return Figure(
        key="edfs",
        heading="Distribution of the drops",
        sentence=_sentence(first, differences),
        caption=(
            f"Share of recipes whose drop is at most the value: further left is better. {costs} Bands and differences: "
            f"Bayesian bootstrap over recipes. {INTERVALS}"
        ),
        n=sum(analysis.n_fitted for analysis in shown.values()),
        legend=tuple((f"space {i}", name) for i, name in enumerate(shown)),
        panels=tuple(_panel(label, found, alike, list(shown)) for label, found in regimes.items()),
        table=Table.by_column(differences, {
            "removed": lambda d: regime_name(d.regime),
            "population": lambda d: d.name,
            "recipes": lambda d: d.sizes,
            f"mean drop more than {first}'s, points ({MASS_WORDS})": lambda d: (
                with_interval(-d.found.points, -d.found.upper, -d.found.lower)
            ),
            "KS p": lambda d: p_value(d.found.ks_p_value),
        }),
    )  # fmt: skip


def _networks(shown: Mapping[str, Analysis], label: str) -> dict[str, Networks]:
    """Return the networks of a regime by population, of those that have enough."""
    rows = {name: a.networks[a.networks["regime"] == label] for name, a in shown.items()}
    return {name: found for name, found in rows.items() if len(found) >= MINIMUM_NETWORKS}


def _differences(label: str, found: Mapping[str, Networks], alike: bool) -> list[_Difference]:
    (_, first), *others = found.items()
    told = []
    for name, other in others:
        costs = (first["macs"], other["macs"]) if _weights(first, other, alike) else None
        difference = compare_spaces(first["drop"], other["drop"], costs=costs)
        told.append(_Difference(name, label, f"{count(len(first))} and {count(len(other))}", difference))
    return told


def _weights(first: Networks, other: Networks, alike: bool) -> Weights:
    """Return weights to one histogram of MACs; None where costs cannot be made equal."""
    try:
        return cost_weights(first["macs"], other["macs"]) if alike else None
    except FitError:
        # No cost in common: the drops are compared as they are, and the panel says so.
        return None


def _sentence(first: str, differences: Sequence[_Difference]) -> str:
    told = []
    for name in dict.fromkeys(d.name for d in differences):
        at = [d for d in differences if d.name == name]
        less, more = [d.regime for d in at if d.found.upper < 0], [d.regime for d in at if d.found.lower > 0]
        parts = [
            f"{how} than {first}'s at {regime_names(where)}"
            for how, where in (("less", less), ("more", more))
            if where
        ]
        told.append(
            f"on average {name}'s recipes drop {' and '.join(parts)} removed"
            if parts
            else f"the mean drops of {name} and {first} do not clearly differ"
        )
    return f"{capitalized('; '.join(told))}."


def _panel(label: str, found: Mapping[str, Networks], alike: bool, names: Sequence[str]) -> Panel:
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
    listed = Table(("space",), tuple((name,) for name in names))
    return replace(panel, data={**panel.data, "names": listed})
