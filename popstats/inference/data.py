"""From rows to cross-products: all that a fit with normal noise needs to know of the data.

The model is linear in its coefficients. With r replicates, the mean drop of a recipe has variance
sigma_recipe^2 + sigma_run^2 / r, so recipes with equal r share one weight and can be summed: per regime and
number of replicates ("stratum") the data are X'X, X'y, y'y and the count. Computed once, they make the cost
of every later step independent of the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray, IntArray
from popstats.findings import Finding, fact
from popstats.inference.model import COLUMNS, FIXED_TERMS, KEPT_RANGE, CurveScale, design_matrix
from popstats.population.recipes import Recipes
from popstats.population.regimes import log_cost_offset
from popstats.population.table import Population

#: Fewer recipes than this and a regime is not fitted: three fixed terms and a curve would have
#: next to nothing left to estimate their noise from.
MINIMUM_RECIPES = 10
#: Narrower ranges of log mCB than this (a factor of 1.02) hold no curve ...
MINIMUM_RANGE = float(np.log(1.02))
#: ... and where recipes of equal cost vary over less than this share of the whole range, MACs and mCB are one.
LEAST_SHARE = 0.25
#: A fixed term whose share of variance left after the earlier ones is below this is dropped.
_DEGENERATE = 1e-8
#: Replicates whose variance is below this share of the regime's are identical.
_IDENTICAL = 1e-9
#: Rows whose design matrix is made, and multiplied, at a time: it stays in the processor's cache, and BLAS does not
#: wake its threads, which spin for longer than the product takes.
_BLOCK = 1024


def replicate_variance(
    seed_share: npt.ArrayLike, runs: npt.ArrayLike, weight: npt.ArrayLike = 1.0
) -> FloatArray:
    """Return the variance of a recipe's mean over that of one training: 1 - s + s / r, over its weight."""
    share = np.asarray(seed_share)
    return np.asarray((1.0 - share + share / np.asarray(runs)) / np.asarray(weight))


@dataclass(frozen=True, eq=False)
class RegimeDesign:
    """What the model sees of one regime; without cross-products where it is not fitted."""

    label: str
    target: float  # fraction of the original removed
    axis: str  # "macs" or "params"
    # n, n_recipes: trainings and recipes in the fit
    n: int
    n_recipes: int
    curve_scale: CurveScale
    reach: float  # largest absolute log cost offset of a recipe
    # centre, scale: mean and standard deviation of the recipes' mean drops, percentage points
    centre: float
    scale: float
    fixed: tuple[bool, ...]  # which of level, c, c^2 and the techniques after the first can be told apart
    reason: Finding | None = None  # why it is not fitted
    # Reduction at which drops are stated: the centre, or the middle of the recipes where all lie on one side of it.
    reference: float = float("nan")
    # Share of each of the population's retraining techniques among the recipes: the curve is the average over them.
    mix: tuple[float, ...] = (1.0,)
    # By stratum: replicates per recipe, ascending, and recipes, (S,) each; sums over recipes of x x', x y, y y, with y the
    # mean drop, centred, in units of the scale.
    replicates: FloatArray = field(default_factory=lambda: np.ones(1))
    count: FloatArray = field(default_factory=lambda: np.zeros(1))
    xx: FloatArray = field(default_factory=lambda: np.zeros((1, COLUMNS, COLUMNS)))
    xy: FloatArray = field(default_factory=lambda: np.zeros((1, COLUMNS)))
    yy: FloatArray = field(default_factory=lambda: np.zeros(1))
    # Squared deviations of runs from their recipe's mean, in units of scale^2, and their degrees of freedom.
    within: float = 0.0
    within_df: int = 0

    @property
    def observed(self) -> tuple[float, float]:
        """Observed range, log mCB, at equal cost."""
        return self.curve_scale.observed

    @property
    def fitted(self) -> bool:
        """Whether the regime has enough to fit a curve to."""
        return self.reason is None

    @property
    def has_replicates(self) -> bool:
        """Whether seed noise can be told from the recipes' own spread."""
        return self.within_df > 0

    def variance(self, noise: FloatArray, seed_share: FloatArray) -> FloatArray:
        """Return the variance of a recipe's mean in each stratum, (D,) -> (D, S)."""
        return noise[:, None] ** 2 * replicate_variance(seed_share[:, None], self.replicates)

    def offset(self, reduction: npt.ArrayLike) -> FloatArray:
        """Return c of reductions: the log cost offset over the regime's reach."""
        return log_cost_offset(reduction, self.reference) / (self.reach or 1.0)


def prepared_regimes(population: Population, recipes: Recipes) -> tuple[RegimeDesign, ...]:
    """Go through the recipes of a population, each with the same weight, the first time that their regimes are used."""
    return population.derived((__name__, id(recipes)), lambda: prepare_regimes(recipes))


def prepare_regimes(recipes: Recipes, weights: FloatArray | float = 1.0) -> tuple[RegimeDesign, ...]:
    """Return each regime's data, ready to fit."""
    # weights (recipes,): relative precision, mean 1, where the spread changes over the range
    table, found = recipes.table.assign(weight=weights), []
    techniques = int(table["technique"].max()) + 1
    for k, mine in enumerate(recipes.members):
        # Where none is missing in between, a slice copies nothing.
        whole = mine.size and mine[-1] - mine[0] == mine.size - 1
        members = table.iloc[slice(int(mine[0]), int(mine[-1]) + 1) if whole else mine]
        found.append(_regime(members, recipes, k, techniques))
    return tuple(found)


def _regime(members: pd.DataFrame, recipes: Recipes, k: int, techniques: int) -> RegimeDesign:
    regimes = recipes.assigned
    scale = CurveScale(0.0, 0.0)
    if len(members):
        scale = CurveScale.of(members["log_mcb"].to_numpy(), members["offset"].to_numpy())
    near = _kept(members, scale) if scale.half_range > 0.0 else members
    # Of those that would be in the fit: a few far ones may be all that differs.
    spread = _spread(near)
    reason = _why_not(near["technique"].to_numpy(), spread, scale, regimes.labels[k])
    inside = near if reason is None else members
    n, counts = int(inside["runs"].sum()), np.bincount(inside["technique"], minlength=techniques)
    design = RegimeDesign(
        label=regimes.labels[k],
        target=float(regimes.targets[k]),
        reference=float(recipes.references[k]),
        axis=regimes.axis,
        n=n,
        n_recipes=len(inside),
        curve_scale=scale,
        reach=float(np.abs(inside["offset"].to_numpy()).max(initial=0.0)),
        centre=float(inside["drop"].to_numpy().mean()) if len(inside) else float("nan"),
        scale=spread if inside is near else _spread(inside),
        fixed=(True, *[False] * (FIXED_TERMS + techniques - 2)),
        reason=reason,
        mix=tuple((counts / max(len(inside), 1)).tolist()),
    )
    return with_sums(regime_rows(inside, design)) if design.fitted else design


def _kept(recipes: pd.DataFrame, scale: CurveScale) -> pd.DataFrame:
    """Return the recipes that are not further out than `KEPT_RANGE`."""
    kept = np.abs(scale.to_unit(recipes["log_mcb"])) <= KEPT_RANGE
    return recipes if kept.all() else recipes[kept]


def _spread(recipes: pd.DataFrame) -> float:
    """Return the drops' standard deviation, within techniques where there are several: levels apart are no spread."""
    drop, technique = recipes["drop"].to_numpy(), recipes["technique"].to_numpy()
    if not drop.size:
        return float("nan")
    if technique.min() < technique.max():
        counts = np.maximum(np.bincount(technique), 1)
        drop = drop - (np.bincount(technique, weights=drop) / counts)[technique]
    return float(drop.std())


def _why_not(technique: IntArray, spread: float, scale: CurveScale, label: str) -> Finding | None:
    present = int(np.count_nonzero(np.bincount(technique)))
    needed, low_high = MINIMUM_RECIPES + max(present - 1, 0), scale.observed
    # Clipped to the plain range, the range at equal cost can be empty.
    width, mixed = max(low_high[1] - low_high[0], 0.0), {"techniques": present} if present > 1 else {}
    if technique.size < needed:
        kind = "few recipes of techniques" if mixed else "few recipes"
        return fact(kind, label, recipes=technique.size, needed=needed, **mixed)
    if 2.0 * scale.half_range < MINIMUM_RANGE:
        return fact("one mCB", label)
    if width < MINIMUM_RANGE or width / (2.0 * scale.half_range) < LEAST_SHARE:
        share, least = width / (2.0 * scale.half_range), float(np.exp(MINIMUM_RANGE))
        needs = {"needed_factor": least, "needed_share": LEAST_SHARE}
        return fact("mCB follows cost", label, factor=float(np.exp(width)), share=share, **needs)
    return fact("one drop", label, **mixed) if spread < 1e-9 else None


@dataclass(frozen=True, eq=False)
class RegimeRows:
    """The recipes in the fit of one regime, in the units of the model; shapes (n,) but for `technique`."""

    regime: RegimeDesign
    numbers: IntArray  # of the recipes
    unit: FloatArray  # log mCB in half-ranges from the centre
    offset: FloatArray  # log cost offset over the regime's reach
    drop: FloatArray  # mean drop, centred, in units of the regime's scale
    runs: FloatArray  # replicates
    within: FloatArray  # squared deviations of the runs from their mean, in units of scale^2
    weight: FloatArray  # relative precision
    # (n, T): indicators of all of the population's retraining techniques but the first, minus their shares in the regime;
    # T is 0 with one technique.
    technique: FloatArray

    @property
    def log_mcb(self) -> FloatArray:
        """Log mCB of the recipes, (n,)."""
        scale = self.regime.curve_scale
        return np.asarray(scale.centre + scale.half_range * self.unit)

    @cached_property
    def design(self) -> FloatArray:
        """The design matrix, (n, FIXED_TERMS + T + BASIS_SIZE); columns that the regime cannot tell apart are zero."""
        columns = design_matrix(self.unit, self.offset, self.technique)
        columns[:, : len(self.regime.fixed)] *= self.regime.fixed
        return columns

    def relative_scale(self, seed_share: npt.ArrayLike, rows: slice = slice(None)) -> FloatArray:
        """Return the scale of a recipe's noise over that of one training, (n,), or (n, S) for S seed shares."""
        runs, weight = self.runs[rows], self.weight[rows]
        if np.ndim(seed_share):
            runs, weight = runs[:, None], weight[:, None]
        return np.sqrt(replicate_variance(seed_share, runs, weight))


def regime_rows(recipes: pd.DataFrame, regime: RegimeDesign) -> RegimeRows:
    """Return the recipes that are in the fit of `regime`: row i is the i-th of its sums."""
    inside = _kept(recipes, regime.curve_scale)
    technique = inside["technique"].to_numpy()[:, None] == np.arange(1, len(regime.mix))
    return RegimeRows(
        regime=regime,
        numbers=inside.index.to_numpy(),
        unit=regime.curve_scale.to_unit(inside["log_mcb"]),
        offset=inside["offset"].to_numpy() / (regime.reach or 1.0),
        drop=(inside["drop"].to_numpy() - regime.centre) / regime.scale,
        runs=inside["runs"].to_numpy(),
        within=inside["within"].to_numpy() / regime.scale**2,
        weight=inside["weight"].to_numpy() if "weight" in inside else np.ones(len(inside)),
        technique=technique - np.array(regime.mix[1:]),
    )


def with_sums(rows: RegimeRows) -> RegimeDesign:
    """Return the regime of these rows with their cross-products."""
    within_df = int(rows.runs.sum() - rows.runs.size)
    within = float((rows.weight * rows.within).sum()) if within_df else 0.0
    # Replicates that agree to the last digit are copies: they say nothing about seed noise, whose likelihood
    # would have no maximum, and each recipe counts once.
    copies = within <= _IDENTICAL * within_df
    runs = np.ones_like(rows.runs) if copies else rows.runs
    replicates = runs[:1] if runs.min() == runs.max() else np.unique(runs)
    parts = [np.flatnonzero(runs == r) for r in replicates]
    sums = np.array([_second_moments(rows, part) for part in parts])
    terms = FIXED_TERMS + rows.technique.shape[1]
    fixed = _distinguishable(sums.sum(axis=0)[:terms, :terms])
    mask = np.ones(sums.shape[1] - 1)
    mask[:terms] = fixed
    return replace(
        rows.regime,
        fixed=fixed,
        replicates=replicates,
        count=np.array([float(part.size) for part in parts]),
        xx=sums[:, :-1, :-1] * np.outer(mask, mask),
        xy=sums[:, :-1, -1] * mask,
        yy=sums[:, -1, -1],
        within=0.0 if copies else within,
        within_df=0 if copies else within_df,
    )


def _second_moments(rows: RegimeRows, members: IntArray) -> FloatArray:
    """Return the sums over some rows of w z z' with z = (design row, drop), shape (p + 1, p + 1)."""
    total = np.zeros((COLUMNS + rows.technique.shape[1] + 1,) * 2)
    for start in range(0, members.size, _BLOCK):
        block = members[start : start + _BLOCK]
        design = design_matrix(rows.unit[block], rows.offset[block], rows.technique[block])
        z = np.column_stack([design, rows.drop[block]])
        total += z.T @ (z * rows.weight[block, None])
    return total


def _distinguishable(moments: FloatArray) -> tuple[bool, ...]:
    """Return which fixed terms say something that the earlier ones do not, from their cross-products (f, f)."""
    kept = [True, *[False] * (len(moments) - 1)]
    for j in range(1, len(moments)):
        others = [i for i in range(j) if kept[i]]
        along = moments[others, j]
        left = moments[j, j] - along @ np.linalg.solve(moments[np.ix_(others, others)], along)
        kept[j] = bool(left > _DEGENERATE * max(moments[j, j], 1e-300))
    return tuple(kept)
