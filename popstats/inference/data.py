"""From rows to cross-products: all that a fit with normal noise needs to know of the data.

The model is linear in its coefficients. With r replicates, the mean drop of a recipe has variance
sigma_recipe^2 + sigma_run^2 / r, so recipes with equal r share one weight and can be summed: per regime and
number of replicates ("stratum") the data are X'X, X'y, y'y and the count. Computed once, they make the cost
of every later step independent of the number of rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray, IntArray
from popstats.inference.model import FIXED_TERMS, KEPT_RANGE, CurveScale, design_matrix
from popstats.inference.moments import second_moments
from popstats.population.recipes import Recipes, prepared_recipes
from popstats.population.regimes import Axis, Regimes
from popstats.population.table import Population

#: Fewer recipes than this and a regime is not fitted: three fixed terms and a curve would have
#: next to nothing left to estimate their noise from.
MINIMUM_RECIPES = 10


#: Narrower observed ranges of log mCB than this (a factor of 1.02) hold no curve.
MINIMUM_RANGE = np.log(1.02)


#: A fixed term whose share of variance left after the earlier ones is below this is dropped.
_DEGENERATE = 1e-8


#: From so many recipes on, regimes are prepared side by side: fewer are done before threads have started.
_THREADED = 200_000


#: Replicates whose variance is below this share of the regime's are identical.
_IDENTICAL = 1e-9


@dataclass(frozen=True)
class CrossProducts:
    """Sufficient statistics of one regime, by stratum (number of replicates)."""

    replicates: FloatArray  # (S,); Replicates a recipe in each stratum, ascending.
    count: FloatArray  # (S,); Recipes in each stratum.
    # xx, xy, yy: (S, p, p), (S, p), (S,); Sums over recipes of x x', x y, y y, with y the recipe's mean drop,
    # centred and divided by `scale`.
    xx: FloatArray
    xy: FloatArray
    yy: FloatArray
    within: float  # Sum of squared deviations of runs from their recipe's mean, in units of scale^2.
    within_df: int  # Its degrees of freedom: runs minus recipes.

    @property
    def has_replicates(self) -> bool:
        """Whether seed noise can be told from the recipes' own spread."""
        return self.within_df > 0


@dataclass(frozen=True)
class RegimeData:
    """What the model sees of one regime."""

    label: str  # Name of the regime: its centre.
    target: float  # Its centre, fraction of the original removed.
    axis: str  # "macs" or "params".
    # n, n_recipes: Trainings and recipes in the fit.
    n: int
    n_recipes: int
    n_left_out: int  # Trainings of the regime that lie too far outside the observed range to be in the fit.
    curve_scale: CurveScale  # The observed range.
    half_width: float  # Largest distance of a recipe's reduction from the centre.
    # centre, scale: Mean and standard deviation of the recipes' mean drops, percentage points.
    centre: float
    scale: float
    # Which of level, c, c^2 and the techniques after the first can be told apart in this regime.
    fixed: tuple[bool, ...]
    cross_products: CrossProducts | None  # None where the regime is not fitted.
    reason: str = ""  # Why it is not fitted; empty otherwise.
    # Share of each of the population's retraining techniques among the regime's recipes: the curve is the
    # average over them. (1.0,) with one technique.
    mix: tuple[float, ...] = (1.0,)

    @property
    def observed(self) -> tuple[float, float]:
        """Observed range, log mCB."""
        return self.curve_scale.observed

    @property
    def fitted(self) -> bool:
        """Whether the regime has enough to fit a curve to."""
        return self.cross_products is not None

    @property
    def products(self) -> CrossProducts:
        """The cross-products of a fitted regime."""
        if self.cross_products is None:
            raise ValueError(f"regime {self.label} was not fitted: {self.reason}")
        return self.cross_products


@dataclass(frozen=True)
class PreparedPopulation:
    """What fits of one population with the same regimes share."""

    recipes: Recipes
    regimes: tuple[RegimeData, ...]  # Every recipe with the same weight.


def prepare_population(
    population: Population,
    axis: Axis,
    regimes: Sequence[float] | Mapping[float, float] | None = None,
) -> PreparedPopulation:
    """Go through the rows of a population, the first time that these regimes are asked for."""
    recipes = prepared_recipes(population, axis, regimes)
    # The recipes are one object per axis and regimes, and the population keeps them.
    key = (__name__, id(recipes))
    return population.derived(key, lambda: PreparedPopulation(recipes, prepare_regimes(recipes)))


def prepare_regimes(recipes: Recipes, weights: FloatArray | None = None) -> tuple[RegimeData, ...]:
    """Return each regime's data, ready to fit."""
    # weights (recipes,): relative precision, mean 1, where the spread changes over the range
    table, assigned, members = recipes.table, recipes.assigned, recipes.members
    columns = {str(name): table[name].to_numpy() for name in table.columns}
    columns["weight"] = np.ones(len(table)) if weights is None else weights
    techniques = int(columns["technique"].max()) + 1

    def prepare(k: int) -> RegimeData:
        return _regime(columns, members[k], assigned, k, techniques)

    numbers = range(len(members))
    if len(table) < _THREADED:
        return tuple(map(prepare, numbers))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return tuple(threads.map(prepare, numbers))


def _regime(
    columns: Mapping[str, npt.NDArray[Any]],
    mine: npt.NDArray[np.intp],
    regimes: Regimes,
    k: int,
    techniques: int,
) -> RegimeData:
    target, label = float(regimes.targets[k]), regimes.labels[k]
    members = {name: values[_in_order(mine)] for name, values in columns.items()}
    log_mcb = members["log_mcb"]
    scale = CurveScale.from_log_mcb(log_mcb) if mine.size else CurveScale(0.0, 0.0)
    n_all = int(members["runs"].sum())
    near = _only(members, np.abs(scale.to_unit(log_mcb)) <= KEPT_RANGE) if scale.half_range > 0.0 else members
    # Of those that would be in the fit: a few far ones may be all that differs.
    spread = _spread(near)
    reason = _why_not(near["technique"], spread, scale)
    inside = members if reason else near
    distance = inside["reduction"] - target
    drop, n = inside["drop"], int(inside["runs"].sum())
    half_width = float(np.abs(distance).max()) if drop.size else 0.0
    regime = RegimeData(
        label=label,
        target=target,
        axis=regimes.axis,
        n=n,
        n_recipes=drop.size,
        n_left_out=n_all - n,
        curve_scale=scale,
        half_width=half_width,
        centre=float(drop.mean()) if drop.size else float("nan"),
        scale=spread if inside is near else _spread(inside),
        fixed=(True, *[False] * (FIXED_TERMS + techniques - 2)),
        cross_products=None,
        reason=reason,
        mix=_mix(inside["technique"], techniques),
    )
    if reason:
        return regime
    products, fixed = _accumulate(_standardise(inside, regime))
    return replace(regime, cross_products=products, fixed=fixed)


def _in_order(mine: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
    """Return ascending numbers as a slice where none is missing in between, so that taking them copies nothing."""
    if mine.size and mine[-1] - mine[0] == mine.size - 1:
        return slice(int(mine[0]), int(mine[-1]) + 1)
    return mine


def _only(
    columns: Mapping[str, npt.NDArray[Any]], kept: npt.NDArray[np.bool_]
) -> Mapping[str, npt.NDArray[Any]]:
    return columns if kept.all() else {name: values[kept] for name, values in columns.items()}


def _mix(technique: IntArray, techniques: int) -> tuple[float, ...]:
    if techniques == 1:
        return (1.0,)
    counts = np.bincount(technique, minlength=techniques)
    return tuple((counts / max(technique.size, 1)).tolist())


def _spread(columns: Mapping[str, npt.NDArray[Any]]) -> float:
    """Return the drops' standard deviation, within techniques where there are several: levels apart are no spread."""
    drop, technique = columns["drop"], columns["technique"]
    if not drop.size:
        return float("nan")
    if technique.min() < technique.max():
        counts = np.maximum(np.bincount(technique), 1)
        drop = drop - (np.bincount(technique, weights=drop) / counts)[technique]
    return float(drop.std())


def _why_not(technique: IntArray, spread: float, scale: CurveScale) -> str:
    present = int(np.count_nonzero(np.bincount(technique)))
    needed, mixed = MINIMUM_RECIPES + max(present - 1, 0), ""
    if present > 1:
        mixed = f" through {present} retraining techniques"
    if technique.size < needed:
        return f"{technique.size} recipes; a curve{mixed} needs at least {needed}"
    if 2.0 * scale.half_range < MINIMUM_RANGE:
        return "all recipes have practically the same mCB; a curve needs a range of it"
    if spread < 1e-9:
        apart = " within each retraining technique" if mixed else ""
        return f"all recipes have the same accuracy drop{apart}; there is nothing to explain"
    return ""


@dataclass(frozen=True)
class StandardRows:
    """The recipes of one regime in the units of the model; shapes (n,) but for `technique`."""

    unit: FloatArray  # log mCB in half-ranges from the centre.
    distance: FloatArray  # Reduction minus the regime's centre, in half-widths of the regime.
    drop: FloatArray  # Mean drop, centred, in units of the regime's scale.
    runs: FloatArray  # Replicates.
    within: FloatArray  # Squared deviations of the runs from their mean, in units of scale^2.
    weight: FloatArray  # Relative precision.
    # (n, T); Indicators of all of the population's retraining techniques but the first, minus their shares in
    # the regime; T is 0 with one technique.
    technique: FloatArray

    def design(self, rows: slice = slice(None)) -> FloatArray:
        """Return the design matrix, all its columns, shape (n, FIXED_TERMS + T + BASIS_SIZE)."""
        return design_matrix(self.unit[rows], self.distance[rows], self.technique[rows])

    def only(self, kept: npt.NDArray[np.bool_]) -> StandardRows:
        """Return the recipes that the mask keeps."""
        return StandardRows(**{name: values[kept] for name, values in vars(self).items()})


def standard_rows(
    recipes: pd.DataFrame, regime: RegimeData, weight: FloatArray | None = None
) -> StandardRows:
    """Return the recipes that are in the fit of `regime`, in the model's units.

    Those further out than `KEPT_RANGE` are left out, as when the regime was prepared, so that row i here is the
    i-th recipe behind the cross-products.
    """
    # weight (len(recipes),)
    kept = np.abs(regime.curve_scale.to_unit(recipes["log_mcb"])) <= KEPT_RANGE
    inside = {str(name): recipes[name].to_numpy()[kept] for name in recipes.columns}
    inside["weight"] = np.ones(inside["drop"].size) if weight is None else weight[kept]
    return _standardise(inside, regime)


def _standardise(inside: Mapping[str, npt.NDArray[Any]], regime: RegimeData) -> StandardRows:
    distance = inside["reduction"] - regime.target
    others = np.arange(1, len(regime.mix))
    return StandardRows(
        unit=regime.curve_scale.to_unit(inside["log_mcb"]),
        distance=distance / (regime.half_width or 1.0),
        drop=(inside["drop"] - regime.centre) / regime.scale,
        runs=inside["runs"],
        within=inside["within"] / regime.scale**2,
        weight=inside["weight"],
        technique=(inside["technique"][:, None] == others) - np.array(regime.mix[1:]),
    )


def _accumulate(rows: StandardRows) -> tuple[CrossProducts, tuple[bool, ...]]:
    within_df = int(rows.runs.sum() - rows.runs.size)
    # By einsum: BLAS would wake its threads for a sum of products, and they spin on for longer than it takes.
    within = float(np.einsum("i,i", rows.weight, rows.within)) if within_df else 0.0
    # Replicates that agree to the last digit are copies: they say nothing about seed noise, whose likelihood
    # would have no maximum, and each recipe counts once.
    copies = within <= _IDENTICAL * within_df
    runs = np.ones_like(rows.runs) if copies else rows.runs
    replicates = runs[:1] if runs.min() == runs.max() else np.unique(runs)
    sums = [_sums(rows if replicates.size == 1 else rows.only(runs == r)) for r in replicates]
    xx, xy, yy, count = (np.array(values) for values in zip(*sums, strict=True))
    terms = FIXED_TERMS + rows.technique.shape[1]
    fixed = _distinguishable(xx.sum(axis=0)[:terms, :terms])
    mask = np.ones(xy.shape[1])
    mask[:terms] = fixed
    products = CrossProducts(
        replicates=replicates,
        count=count,
        xx=xx * np.outer(mask, mask),
        xy=xy * mask,
        yy=yy,
        within=0.0 if copies else within,
        within_df=0 if copies else within_df,
    )
    return products, fixed


def _sums(rows: StandardRows) -> tuple[FloatArray, FloatArray, float, float]:
    sums = second_moments(rows.unit, rows.distance, rows.technique, rows.drop, rows.weight)
    return sums[:-1, :-1], sums[:-1, -1], float(sums[-1, -1]), float(rows.drop.size)


def _distinguishable(moments: FloatArray) -> tuple[bool, ...]:
    """Return which fixed terms say something that the earlier ones do not, from their cross-products (f, f)."""
    kept = [True, *[False] * (len(moments) - 1)]
    for j in range(1, len(moments)):
        others = [i for i in range(j) if kept[i]]
        along = moments[others, j]
        left = moments[j, j] - along @ np.linalg.solve(moments[np.ix_(others, others)], along)
        kept[j] = bool(left > _DEGENERATE * max(moments[j, j], 1e-300))
    return tuple(kept)
