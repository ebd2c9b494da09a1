"""How the drops of two or more populations are spread, regime by regime, at equal cost where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.errors import FitError
from popstats.inference.optimum import INTERVAL_MASS
from popstats.judgement.edf import SpaceDifference, compare_spaces, cost_weights, edf
from popstats.report.content import Figure, Panel, Table
from popstats.report.evidence import Evidence
from popstats.report.figures import INTERVALS, MASS_WORDS, drop_ends
from popstats.report.theme import SPACE_MARKS
from popstats.report.words import count, join_words, number, p_value, regime_name, regime_names, with_interval

__all__ = ["compared_edfs"]

FloatArray = npt.NDArray[np.float64]

#: Fewer networks than this and a population has no EDF in a regime.
MINIMUM_NETWORKS = 10
#: Points of an EDF that are drawn.
POINTS = 61


@dataclass(frozen=True, eq=False)
class _Spread:
    """The networks of one population in one regime."""

    place: int
    name: str
    drop: FloatArray
    macs: FloatArray


def compared_edfs(named: Sequence[tuple[str, Evidence]]) -> Figure | None:
    """Return the EDFs of the populations by regime, and by how much each differs from the first; None if alone.

    Parameters
    ----------
    named : sequence of (str, Evidence)
        The populations; as many are drawn as there are distinguishable marks.
    """
    shown = list(named)[: len(SPACE_MARKS)]
    together = [s for label in _labels(shown) if len(s := _spreads(shown, label)) > 1]
    labels = [label for label in _labels(shown) if len(_spreads(shown, label)) > 1]
    if not labels:
        return None
    alike = len({(e.fit.population.original.macs, e.fit.population.original.params) for _, e in shown}) == 1
    found = [_differences(spreads, alike) for spreads in together]
    rows = [
        (
            regime_name(label),
            other.name,
            f"{count(spreads[0].drop.size)} and {count(other.drop.size)}",
            with_interval(-d.points, -d.upper, -d.lower),
            p_value(d.ks_p_value),
        )
        for label, spreads, differences in zip(labels, together, found, strict=True)
        for other, d in zip(spreads[1:], differences, strict=True)
    ]
    equal = (
        "Populations of one original network are compared at equal cost: recipes are weighted to one histogram of MACs "
        "inside the regime."
        if alike
        else "The originals differ, so costs are equal only as far as the regime is narrow."
    )
    first = shown[0][0]
    return Figure(
        key="edfs",
        heading="How the drops are spread",
        sentence=_sentence(first, labels, together, found),
        caption=(
            "Share of recipes whose drop is at most the value: further left is better. "
            f"{equal} Bands and differences: Bayesian bootstrap over recipes. {INTERVALS}"
        ),
        n=sum(evidence.n_fitted for _, evidence in shown),
        interval_mass=INTERVAL_MASS,
        legend=tuple((f"space {i}", name) for i, (name, _) in enumerate(shown)),
        panels=tuple(
            _panel(label, spreads, [n for n, _ in shown], alike)
            for label, spreads in zip(labels, together, strict=True)
        ),
        table=Table(
            (
                "removed",
                "population",
                "recipes",
                f"mean drop more than {first}'s, points ({MASS_WORDS})",
                "KS p",
            ),
            tuple(rows),
        ),
    )


def _labels(named: Sequence[tuple[str, Evidence]]) -> list[str]:
    targets = {r.label: r.target for _, evidence in named for r in evidence.fit.regimes}
    return sorted(targets, key=lambda label: targets[label])


def _spreads(named: Sequence[tuple[str, Evidence]], label: str) -> list[_Spread]:
    """Return the populations with enough networks in a regime; none if the first has too few to compare with."""
    found = []
    for place, (name, evidence) in enumerate(named):
        rows = evidence.networks[evidence.networks["regime"] == label]
        if len(rows) >= MINIMUM_NETWORKS:
            found.append(
                _Spread(place, name, rows["drop"].to_numpy(), rows["macs"].to_numpy(dtype=np.float64))
            )
    return found if found and found[0].place == 0 else []


def _weights(first: _Spread, other: _Spread, alike: bool) -> tuple[FloatArray, FloatArray] | None:
    """Return weights to one histogram of MACs; None where costs cannot be made equal."""
    if not alike:
        return None
    try:
        return cost_weights(first.macs, other.macs)
    except FitError:
        # No cost in common: the drops are compared as they are, and the panel says so.
        return None


def _differences(spreads: Sequence[_Spread], alike: bool) -> list[SpaceDifference]:
    first = spreads[0]
    return [
        compare_spaces(
            first.drop,
            other.drop,
            costs=(first.macs, other.macs) if _weights(first, other, alike) is not None else None,
        )
        for other in spreads[1:]
    ]


def _sentence(
    first: str,
    labels: Sequence[str],
    together: Sequence[list[_Spread]],
    found: Sequence[list[SpaceDifference]],
) -> str:
    told = []
    for name in dict.fromkeys(s.name for spreads in together for s in spreads[1:]):
        at = [
            (label, d)
            for label, spreads, differences in zip(labels, together, found, strict=True)
            for s, d in zip(spreads[1:], differences, strict=True)
            if s.name == name
        ]
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
            else f"{name} and {first} do not differ in their mean drop beyond doubt"
        )
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]}."


def _panel(label: str, spreads: Sequence[_Spread], names: Sequence[str], alike: bool) -> Panel:
    low, high = drop_ends(pd.Series(np.concatenate([s.drop for s in spreads])))
    grid = np.linspace(low, max(high, low + 1e-3), POINTS)
    # More than two populations have no one histogram of costs: each of the others would need its own.
    weights = _weights(spreads[0], spreads[1], alike) if len(spreads) == 2 else None
    parts = []
    for i, spread in enumerate(spreads):
        found = edf(spread.drop, weights=None if weights is None else weights[i], grid=grid)
        values = {"drop": grid, "share": found.share, "lower": found.lower, "upper": found.upper}
        parts.append(pd.DataFrame({"space": spread.name, **{k: np.round(v, 4) for k, v in values.items()}}))
    medians = ", ".join(f"{s.name} {number(float(np.median(s.drop)))}" for s in spreads)
    return Panel(
        title=f"{regime_name(label)} removed",
        note=f"recipes: {join_words([count(s.drop.size) for s in spreads])}{'' if weights else '; costs as they are'}",
        outcome="",
        chart="edfs",
        alt=f"Shares of recipes by drop at {regime_name(label)} removed. Median drops: {medians}.",
        data={
            "shares": Table.of(pd.concat(parts)),
            "names": Table(("space",), tuple((name,) for name in names)),
            "frame": Table(("x_lower", "x_upper"), ((float(grid[0]), float(grid[-1])),)),
        },
    )
