"""How the drops of two or more populations are spread, regime by regime, at equal cost where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.figures.content import Figure, Panel, Table
from popstats.figures.curve_figures import INTERVALS, MASS_WORDS, drop_ends
from popstats.figures.theme import SPACE_MARKS
from popstats.inference.draws import INTERVAL_MASS
from popstats.judgement.analysis import Analysis
from popstats.judgement.edf import SpaceDifference, compare_spaces, cost_weights, edf
from popstats.words import count, join_words, number, p_value, regime_name, regime_names, with_interval

#: Fewer networks than this and a population has no EDF in a regime.
MINIMUM_NETWORKS = 10
#: Points of an EDF that are drawn.
POINTS = 61


@dataclass(frozen=True, eq=False)
class _Spread:
    """The networks of one population in one regime."""

    name: str
    drop: FloatArray
    macs: FloatArray


@dataclass(frozen=True, eq=False)
class _Together:
    """The populations that have networks in one regime.

    `differences`: of each but the first from the first. `weights`: to one histogram of MACs, where two are drawn and
    have costs in common.
    """

    label: str
    spreads: tuple[_Spread, ...]
    differences: tuple[SpaceDifference, ...]
    weights: tuple[FloatArray, FloatArray] | None

    @property
    def others(self) -> list[tuple[_Spread, SpaceDifference]]:
        """Each population but the first, with its difference from it."""
        return list(zip(self.spreads[1:], self.differences, strict=True))


def compared_edfs(named: Sequence[tuple[str, Analysis]]) -> Figure | None:
    """Return the EDFs of the populations by regime, and by how much each differs from the first; None if alone."""
    shown = list(named)[: len(SPACE_MARKS)]
    alike = len({(e.fit.population.original.macs, e.fit.population.original.params) for _, e in shown}) == 1
    regimes = [found for label in _labels(shown) if (found := _together(shown, label, alike)) is not None]
    if not regimes:
        return None
    names = [name for name, _ in shown]
    return Figure(
        key="edfs",
        heading="How the drops are spread",
        sentence=_sentence(names[0], regimes),
        caption=(
            "Share of recipes whose drop is at most the value: further left is better. "
            f"{_cost_words(alike)} Bands and differences: Bayesian bootstrap over recipes. {INTERVALS}"
        ),
        n=sum(analysis.n_fitted for _, analysis in shown),
        interval_mass=INTERVAL_MASS,
        legend=tuple((f"space {i}", name) for i, name in enumerate(names)),
        panels=tuple(_panel(regime, names) for regime in regimes),
        table=_table(names[0], regimes),
    )


def _labels(named: Sequence[tuple[str, Analysis]]) -> list[str]:
    targets = {r.label: r.target for _, analysis in named for r in analysis.fit.regimes}
    return sorted(targets, key=lambda label: targets[label])


def _together(named: Sequence[tuple[str, Analysis]], label: str, alike: bool) -> _Together | None:
    """Compare the populations in a regime; None where the first, or all others, have too few networks."""
    first, *rest = (_spread(name, analysis, label) for name, analysis in named)
    others = [other for other in rest if other is not None]
    if first is None or not others:
        return None
    differences = tuple(_difference(first, other, alike) for other in others)
    # More than two populations have no one histogram of costs: each of the others would need its own.
    weights = _weights(first, others[0], alike) if len(others) == 1 else None
    return _Together(label, (first, *others), differences, weights)


def _spread(name: str, analysis: Analysis, label: str) -> _Spread | None:
    rows = analysis.networks[analysis.networks["regime"] == label]
    if len(rows) < MINIMUM_NETWORKS:
        return None
    return _Spread(name, rows["drop"].to_numpy(), rows["macs"].to_numpy(dtype=np.float64))


def _difference(first: _Spread, other: _Spread, alike: bool) -> SpaceDifference:
    costs = (first.macs, other.macs) if _weights(first, other, alike) is not None else None
    return compare_spaces(first.drop, other.drop, costs=costs)


def _weights(first: _Spread, other: _Spread, alike: bool) -> tuple[FloatArray, FloatArray] | None:
    """Return weights to one histogram of MACs; None where costs cannot be made equal."""
    if not alike:
        return None
    try:
        return cost_weights(first.macs, other.macs)
    except FitError:
        # No cost in common: the drops are compared as they are, and the panel says so.
        return None


def _cost_words(alike: bool) -> str:
    if not alike:
        return "The originals differ, so costs are equal only as far as the regime is narrow."
    return (
        "Populations of one original network are compared at equal cost: recipes are weighted to one histogram of MACs "
        "inside the regime."
    )


def _sentence(first: str, regimes: Sequence[_Together]) -> str:
    told = []
    for name in dict.fromkeys(other.name for regime in regimes for other, _ in regime.others):
        at = [(regime.label, d) for regime in regimes for other, d in regime.others if other.name == name]
        less = [label for label, d in at if d.upper < 0]
        more = [label for label, d in at if d.lower > 0]
        parts = [
            f"{how} than {first}'s at {regime_names(where)}"
            for how, where in (("less", less), ("more", more))
            if where
        ]
        told.append(
            f"on average {name}'s recipes drop {' and '.join(parts)} removed"
            if parts
            else f"the mean drops of {name} and {first} do not differ beyond doubt"
        )
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]}."


def _table(first: str, regimes: Sequence[_Together]) -> Table:
    rows = [
        (
            regime_name(regime.label),
            other.name,
            f"{count(regime.spreads[0].drop.size)} and {count(other.drop.size)}",
            with_interval(-d.points, -d.upper, -d.lower),
            p_value(d.ks_p_value),
        )
        for regime in regimes
        for other, d in regime.others
    ]
    columns = (
        "removed",
        "population",
        "recipes",
        f"mean drop more than {first}'s, points ({MASS_WORDS})",
        "KS p",
    )
    return Table(columns, tuple(rows))


def _panel(regime: _Together, names: Sequence[str]) -> Panel:
    spreads, where = regime.spreads, f"{regime_name(regime.label)} removed"
    low, high = drop_ends(pd.Series(np.concatenate([s.drop for s in spreads])))
    grid = np.linspace(low, max(high, low + 1e-3), POINTS)
    weights = regime.weights or [None] * len(spreads)
    shares = pd.concat([_share_rows(s, grid, w) for s, w in zip(spreads, weights, strict=True)])
    medians = ", ".join(f"{s.name} {number(float(np.median(s.drop)))}" for s in spreads)
    sizes = join_words([count(s.drop.size) for s in spreads])
    return Panel(
        title=where,
        note=f"recipes: {sizes}{'' if regime.weights else '; costs as they are'}",
        outcome="",
        chart="edfs",
        alt=f"Shares of recipes by drop at {where}. Median drops: {medians}.",
        data={
            "shares": Table.of(shares),
            "names": Table(("space",), tuple((name,) for name in names)),
            "frame": Table(("x_lower", "x_upper"), ((float(grid[0]), float(grid[-1])),)),
        },
    )


def _share_rows(spread: _Spread, grid: FloatArray, weights: FloatArray | None) -> pd.DataFrame:
    found = edf(spread.drop, weights=weights, grid=grid)
    values = {"drop": grid, "share": found.share, "lower": found.lower, "upper": found.upper}
    return pd.DataFrame({"space": spread.name, **{k: np.round(v, 4) for k, v in values.items()}})
