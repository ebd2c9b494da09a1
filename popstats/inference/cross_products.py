"""From rows to cross-products: all that a fit with normal noise needs to know of the data.

The model is linear in its coefficients. With r replicates, the mean drop of a recipe has variance
sigma_recipe^2 + sigma_run^2 / r, so recipes with equal r share one weight and can be summed: per regime and
number of replicates ("stratum") the data are X'X, X'y, y'y and the count. Computed once, they make the cost
of every later step independent of the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.inference.curves import FIXED_TERMS, KEPT_RANGE, CurveScale, design_matrix
from popstats.population import Population
from popstats.spaces import Regimes

__all__ = ["MINIMUM_RECIPES", "CrossProducts", "RegimeData", "prepare_regimes", "recipe_table"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Fewer recipes than this and a regime is not fitted: three fixed terms and a curve would have
#: next to nothing left to estimate their noise from.
MINIMUM_RECIPES = 10
#: Narrower observed ranges of log mCB than this (a factor of 1.02) hold no curve.
MINIMUM_RANGE = np.log(1.02)
#: A fixed term whose share of variance left after the earlier ones is below this is dropped.
_DEGENERATE = 1e-8
_BLOCK = 65_536


@dataclass(frozen=True)
class CrossProducts:
    """Sufficient statistics of one regime, by stratum (number of replicates).

    Attributes
    ----------
    replicates : numpy.ndarray, shape (S,)
        Replicates a recipe in each stratum, ascending.
    count : numpy.ndarray, shape (S,)
        Recipes in each stratum.
    xx, xy, yy : numpy.ndarray, shapes (S, p, p), (S, p), (S,)
        Sums over recipes of x x', x y, y y, with y the recipe's mean drop, centred and divided by `scale`.
    within : float
        Sum of squared deviations of runs from their recipe's mean, in units of scale^2.
    within_df : int
        Its degrees of freedom: runs minus recipes.
    """

    replicates: FloatArray
    count: FloatArray
    xx: FloatArray
    xy: FloatArray
    yy: FloatArray
    within: float
    within_df: int

    @property
    def has_replicates(self) -> bool:
        """Whether seed noise can be told from the recipes' own spread."""
        return self.within_df > 0


@dataclass(frozen=True)
class RegimeData:
    """What the model sees of one regime.

    Attributes
    ----------
    label : str
        Name of the regime: its centre.
    target : float
        Its centre, fraction of the original removed.
    axis : str
        "macs" or "params".
    n, n_recipes : int
        Trainings and recipes in the fit.
    n_left_out : int
        Trainings of the regime that lie too far outside the observed range to be in the fit.
    curve_scale : CurveScale
        The observed range.
    half_width : float
        Largest distance of a recipe's reduction from the centre.
    centre, scale : float
        Mean and standard deviation of the recipes' mean drops, percentage points.
    fixed : tuple of bool
        Which of level, c, c^2 can be told apart in this regime.
    cross_products : CrossProducts or None
        None where the regime is not fitted.
    reason : str
        Why it is not fitted; empty otherwise.
    """

    label: str
    target: float
    axis: str
    n: int
    n_recipes: int
    n_left_out: int
    curve_scale: CurveScale
    half_width: float
    centre: float
    scale: float
    fixed: tuple[bool, ...]
    cross_products: CrossProducts | None
    reason: str = ""

    @property
    def observed(self) -> tuple[float, float]:
        """Observed range, log mCB."""
        return self.curve_scale.observed

    @property
    def fitted(self) -> bool:
        """Whether the regime has enough to fit a curve to."""
        return self.cross_products is not None


def recipe_table(population: Population, regimes: Regimes) -> pd.DataFrame:
    """Return one row a recipe: regime, log_mcb, reduction, mean drop, runs, squared deviations of its runs.

    Returns
    -------
    pandas.DataFrame
        Columns regime (int, -1: none), log_mcb, reduction, drop (points), runs, within (points^2).
    """
    frame, code = population.frame, population.recipe
    drop = frame["accuracy_drop"].to_numpy()
    runs = np.bincount(code).astype(np.float64)
    mean = np.bincount(code, weights=drop) / runs
    within = np.bincount(code, weights=(drop - mean[code]) ** 2)
    first = np.empty(runs.size, dtype=np.int64)
    first[code[::-1]] = np.arange(code.size)[::-1]
    return pd.DataFrame(
        {
            "regime": regimes.index[first],
            "log_mcb": frame["log_mcb"].to_numpy()[first],
            "reduction": frame[f"{regimes.axis}_reduction"].to_numpy()[first],
            "drop": mean,
            "runs": runs,
            "within": within,
        }
    )


def prepare_regimes(
    recipes: pd.DataFrame, regimes: Regimes, weights: FloatArray | None = None
) -> tuple[RegimeData, ...]:
    """Return each regime's data, ready to fit.

    Parameters
    ----------
    recipes : pandas.DataFrame
        From `recipe_table`.
    regimes : Regimes
        Their axis, centres and labels.
    weights : numpy.ndarray, shape (recipes,), optional
        Relative precision of each recipe (mean 1), where the spread changes over the range.
    """
    weight = np.ones(len(recipes)) if weights is None else weights
    members = recipes["regime"].to_numpy()
    return tuple(
        _regime(recipes[members == k], weight[members == k], regimes, k) for k in range(regimes.targets.size)
    )


def _regime(recipes: pd.DataFrame, weight: FloatArray, regimes: Regimes, k: int) -> RegimeData:
    target, label = float(regimes.targets[k]), regimes.labels[k]
    log_mcb = recipes["log_mcb"].to_numpy()
    scale = CurveScale.from_log_mcb(log_mcb) if len(recipes) else CurveScale(0.0, 0.0)
    reason = _why_not(recipes, scale)
    kept = np.ones(len(recipes), dtype=bool) if reason else np.abs(scale.to_unit(log_mcb)) <= KEPT_RANGE
    inside, weight = recipes[kept], weight[kept]
    distance = inside["reduction"].to_numpy() - target
    half_width = float(np.abs(distance).max()) if len(inside) else 0.0
    centre = float(inside["drop"].mean()) if len(inside) else float("nan")
    spread = float(inside["drop"].std(ddof=0)) if len(inside) else float("nan")
    products: CrossProducts | None = None
    fixed: tuple[bool, ...] = (True, False, False)
    if not reason:
        c = distance / half_width if half_width > 0 else distance
        products, fixed = _accumulate(inside, weight, scale.to_unit(inside["log_mcb"]), c, centre, spread)
    return RegimeData(
        label=label,
        target=target,
        axis=regimes.axis,
        n=int(inside["runs"].sum()),
        n_recipes=len(inside),
        n_left_out=int(recipes["runs"].sum() - inside["runs"].sum()),
        curve_scale=scale,
        half_width=half_width,
        centre=centre,
        scale=spread,
        fixed=fixed,
        cross_products=products,
        reason=reason,
    )


def _why_not(recipes: pd.DataFrame, scale: CurveScale) -> str:
    if len(recipes) < MINIMUM_RECIPES:
        return f"{len(recipes)} recipes; a curve needs at least {MINIMUM_RECIPES}"
    if 2.0 * scale.half_range < MINIMUM_RANGE:
        return "all recipes have practically the same mCB; a curve needs a range of it"
    if recipes["drop"].std(ddof=0) < 1e-9:
        return "all recipes have the same accuracy drop; there is nothing to explain"
    return ""


def _accumulate(
    recipes: pd.DataFrame, weight: FloatArray, unit: FloatArray, c: FloatArray, centre: float, spread: float
) -> tuple[CrossProducts, tuple[bool, ...]]:
    fixed = _distinguishable(c)
    y = (recipes["drop"].to_numpy() - centre) / spread
    runs = recipes["runs"].to_numpy()
    replicates, stratum = np.unique(runs, return_inverse=True)
    xx, xy, yy, count = zip(
        *(_sums(unit, c, y, weight, stratum == s, fixed) for s in range(replicates.size)), strict=True
    )
    products = CrossProducts(
        replicates=replicates,
        count=np.array(count),
        xx=np.array(xx),
        xy=np.array(xy),
        yy=np.array(yy),
        within=float((weight * recipes["within"].to_numpy()).sum() / spread**2),
        within_df=int(runs.sum() - runs.size),
    )
    return products, fixed


def _sums(
    unit: FloatArray,
    c: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    keep: npt.NDArray[np.bool_],
    fixed: tuple[bool, ...],
) -> tuple[FloatArray, FloatArray, float, float]:
    rows = np.flatnonzero(keep)
    size = design_matrix(np.zeros(1), np.zeros(1)).shape[1]
    xx, xy = np.zeros((size, size)), np.zeros(size)
    mask = np.ones(size)
    mask[:FIXED_TERMS] = fixed
    for start in range(0, rows.size, _BLOCK):
        block = rows[start : start + _BLOCK]
        x = design_matrix(unit[block], c[block]) * mask
        weighted = x * weight[block, None]
        xx += weighted.T @ x
        xy += weighted.T @ y[block]
    return xx, xy, float((weight[rows] * y[rows] ** 2).sum()), float(rows.size)


def _distinguishable(c: FloatArray) -> tuple[bool, ...]:
    columns = np.column_stack([np.ones_like(c), c, c**2])
    kept = [True, False, False]
    for j in (1, 2):
        others = columns[:, [i for i in range(j) if kept[i]]]
        residual = columns[:, j] - others @ np.linalg.lstsq(others, columns[:, j], rcond=None)[0]
        kept[j] = bool((residual**2).sum() > _DEGENERATE * max((columns[:, j] ** 2).sum(), 1e-300))
    return tuple(kept)
