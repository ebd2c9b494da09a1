r"""How optimum, near-optimal range and limit move between original networks, and per doubling of their width and depth.

Of originals that differ in width or in depth alone, each quantity follows a line in the size d,

.. math:: q_j = a + b \log_2 d_j,

fitted to each draw of the posteriors, with weights 1/s_j^2 (s_j: the posterior standard deviation of q_j). Where the
originals scatter about the line more than that, the draws of b are spread by the Birge ratio, sqrt(chi^2/(J - 2)).

References
----------
Birge (1932), doi:10.1103/PhysRev.40.207.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.findings import Estimate, Finding, fact
from popstats.judgement.analysis import Analysis, RegimePosterior, estimate, rows_of
from popstats.population.table import Population

#: What original networks of one family differ in.
SIZES = ("width", "depth")
COLUMNS = [
    "quantity", "regime", "population", "against", "width", "depth", "outcome", "estimate", "lower", "upper",
]  # fmt: skip
#: What stands before the size in `against` where a row is a change per doubling.
DOUBLING = "doubling of "
#: An optimal mCB is compared where C3a is neither refuted nor not assessable; wide posteriors say little by themselves.
ENTERING = ("supported", "undecided")
#: Smallest standard deviation: all draws may share an end of the observed range.
LEAST = 0.01
#: Architectures whose number is their depth: a stem, the depth, a variant.
_WITH_DEPTH = re.compile(r"(cifar_resnet|resnet|resnext|wide_resnet|vgg|densenet)(\d+)(.*)")


class Quantity(NamedTuple):
    """What is compared between populations."""

    name: str
    attribute: str  # of `OptimumDraws`
    factor: bool  # Whether it is a logarithm, compared as a factor.
    none: float  # The difference that means none.


QUANTITIES = (
    Quantity("optimal mCB", "log_mcb", True, 1.0),
    Quantity("near-optimal lower end", "near_lower", True, 1.0),
    Quantity("near-optimal upper end", "near_upper", True, 1.0),
    Quantity("limit", "limit", False, 0.0),
)


def sizes(populations: Mapping[str, Population]) -> dict[str, dict[str, float]]:
    """Return by width and depth the sizes of the originals that differ from the first in it alone."""
    designs = {name: _design(population) for name, population in populations.items()}
    found, first = {}, next(iter(designs.values()))
    for size in SIZES:
        rest = first | {size: None}
        alike = {n: d[size] for n, d in designs.items() if d.get(size) and d | {size: None} == rest}
        if len(set(alike.values())) > 1:
            found[size] = alike
    return found


def _design(population: Population) -> dict[str, Any]:
    """Return what an original is, as its plan has it; empty where there is none."""
    plan = population.metadata.get("plan") or {}
    plan = (plan.get("merged") or [plan])[0]
    if "network" not in plan:
        return {}
    network, images = plan["network"], plan.get("images", {}).get("name")
    stem, depth, variant = network["name"], None, ""
    if match := _WITH_DEPTH.fullmatch(network["name"]):
        stem, depth, variant = match[1], float(match[2]), match[3]
    kind = plan.get("pruning", {}).get("kind", "filters")
    return {"is": (stem, variant, images, kind), "width": network.get("width") or 1.0, "depth": depth}


def moves(analyses: Mapping[str, Analysis]) -> pd.DataFrame:
    """Return what `Summary.moves` describes; empty where no two populations share a fitted regime of one axis."""
    axis = next(iter(analyses.values())).fit.regime_axis
    analyses = {name: analysis for name, analysis in analyses.items() if analysis.fit.regime_axis == axis}
    targets = {r.label: r.data.target for analysis in analyses.values() for r in analysis.regimes}
    rows = [row for label in sorted(targets, key=targets.__getitem__) for row in _of_regime(analyses, label)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_regime(analyses: Mapping[str, Analysis], label: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of one regime: each population's values, differences from the first, changes per doubling."""
    held = {name: a.by_label[label] for name, a in analyses.items() if label in a.by_label}
    if len(held) < 2:
        return
    known, reference = sizes({name: a.fit.population for name, a in analyses.items()}), next(iter(analyses))
    for quantity in QUANTITIES:
        draws, of = _draws(quantity, held), (quantity.name, label)
        for name, own in draws.items():
            place = *(known.get(size, {}).get(name, np.nan) for size in SIZES), held[name].outcome
            yield *of, name, "", *place, *_told(quantity, own)
            if name != reference and reference in draws:
                yield *of, name, reference, *place, *_told(quantity, own - draws[reference])
        for size, values in known.items():
            members = [name for name in draws if name in values]
            if len({values[name] for name in members}) > 1:
                x = np.log2([values[name] for name in members])
                slope = per_doubling(x, np.array([draws[name] for name in members]))
                yield *of, "", f"{DOUBLING}{size}", np.nan, np.nan, "", *_told(quantity, slope)


def _draws(quantity: Quantity, held: Mapping[str, RegimePosterior]) -> dict[str, FloatArray]:
    """Return equally many draws of each population that has the quantity, in random order."""
    size = min(regime.optimum.limit.size for regime in held.values())
    # Fits of one seed share their random numbers, so that draws paired as they come are correlated.
    return {
        name: getattr(regime.optimum, quantity.attribute)[np.random.default_rng(place).permutation(size)]
        for place, (name, regime) in enumerate(held.items())
        if not quantity.factor or regime.outcome in ENTERING
    }


def _told(quantity: Quantity, draws: FloatArray) -> Estimate:
    return estimate(np.exp(draws) if quantity.factor else draws)


def per_doubling(x: FloatArray, draws: FloatArray) -> FloatArray:
    """Return the slope of each draw's weighted line through the originals, shape (S,)."""
    # x (J,): log2 of the sizes; draws (J, S)
    weight = 1.0 / np.maximum(draws.var(axis=1), LEAST**2)
    centred = x - weight @ x / weight.sum()
    slopes = (weight * centred) @ draws / (weight @ centred**2)
    middle, mean = draws.mean(axis=1), slopes.mean()
    misfit = middle - weight @ middle / weight.sum() - mean * centred
    birge = float(np.sqrt(weight @ misfit**2 / max(len(x) - 2, 1)))
    return np.asarray(mean + max(birge, 1.0) * (slopes - mean))


def doublings(moved: pd.DataFrame) -> Iterator[Finding]:
    """Yield what a doubling of the original's width or depth does to optimum and limit, regime by regime."""
    changes = moved[moved["against"].str.startswith(DOUBLING)]
    for (against, regime), rows in changes.groupby(["against", "regime"], sort=False):
        told = {row.quantity: Estimate(row.estimate, row.lower, row.upper) for row in rows_of(rows)}
        size = str(against).removeprefix(DOUBLING)
        if "optimal mCB" in told:
            best, low, high = (told[quantity.name] for quantity in QUANTITIES if quantity.factor)
            yield fact("doubled mCB", str(regime), size=size, best=best, low=low, high=high)
        yield fact("doubled limit", str(regime), size=size, limit=told["limit"])
