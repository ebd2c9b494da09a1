"""Empirical distribution functions of the accuracy drop, and comparisons of two spaces.

F(e) is the share of a population with a drop of at most e points: a better space lies further left. Two
spaces are compared at equal cost: their rows are weighted so that both have one histogram of MACs.

References
----------
Radosavovic et al. (2019), arXiv:1905.13214 (EDFs of network populations, normalised by complexity);
Rubin (1981), doi:10.1214/aos/1176345338 (the Bayesian bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.inference.draws import interval

#: Bins of the common histogram of MACs.
COST_BINS = 8
BOOTSTRAP = 500


@dataclass(frozen=True, eq=False)
class SpaceDifference:
    """How much better the first of two spaces is."""

    # Area between the EDFs: mean drop of the second space minus the first's, points; positive: the first space
    # is better. At equal MACs where the costs were given.
    points: float
    # lower, upper: 90 % interval (Bayesian bootstrap over recipes).
    lower: float
    upper: float
    # ks, ks_p_value: Two-sample Kolmogorov-Smirnov statistic of the recipes' mean drops, unweighted, and its p
    # value.
    ks: float
    ks_p_value: float
    draws: FloatArray  # (B,); Bootstrap draws of `points`.


def edf(
    drop: npt.ArrayLike, grid: npt.ArrayLike, *, weights: npt.ArrayLike | None = None, seed: int = 0
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the EDF of accuracy drops on a grid, and the ends of its 90 % bands, (G,) each."""
    # drop, weights (n,), one per recipe; the bands are pointwise, by the Bayesian bootstrap over recipes
    values = np.asarray(drop, dtype=np.float64)
    weight = np.ones(values.size) if weights is None else np.asarray(weights, dtype=np.float64)
    points = np.asarray(grid, dtype=np.float64)
    # Which of the points' steps each row adds to; rows beyond the last point count in the whole only.
    step = np.searchsorted(points, values, side="left")
    # Recipes weigh a unit exponential each; those of one step and one cost weight add up to a gamma variable.
    levels, level = np.unique(weight, return_inverse=True)
    counts = np.bincount(step * levels.size + level, minlength=(points.size + 1) * levels.size)
    gammas, filled = np.zeros((BOOTSTRAP, counts.size)), np.flatnonzero(counts)
    gammas[:, filled] = np.random.default_rng(seed).standard_gamma(counts[filled], (BOOTSTRAP, filled.size))
    draws = gammas.reshape(BOOTSTRAP, points.size + 1, levels.size) @ levels
    share = np.cumsum(np.bincount(step, weights=weight, minlength=points.size + 1)) / weight.sum()
    drawn = np.cumsum(draws, axis=1) / draws.sum(axis=1, keepdims=True)
    lower, upper = interval(drawn[:, :-1])
    return share[:-1], lower, upper


def cost_weights(
    first: npt.ArrayLike, second: npt.ArrayLike, bins: int = COST_BINS
) -> tuple[FloatArray, FloatArray]:
    """Return weights under which two spaces have one histogram of costs."""
    # first, second (n,), (m,) -> (n,), (m,)
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    edges = np.unique(np.quantile(np.concatenate([a, b]), np.linspace(0, 1, bins + 1)))[1:-1]
    in_a, in_b = np.searchsorted(edges, a, side="right"), np.searchsorted(edges, b, side="right")
    count_a, count_b = (np.bincount(i, minlength=edges.size + 1).astype(np.float64) for i in (in_a, in_b))
    shared = np.minimum(count_a, count_b)
    if shared.sum() == 0:
        raise FitError(
            f"cost_weights: the spaces share no cost: {a.min():,.0f} to {a.max():,.0f} against {b.min():,.0f} to "
            f"{b.max():,.0f} MACs; compare spaces inside one pruning regime"
        )
    target = shared / shared.sum()
    return (target / np.maximum(count_a, 1.0))[in_a], (target / np.maximum(count_b, 1.0))[in_b]


def compare_spaces(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    costs: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    seed: int = 0,
) -> SpaceDifference:
    """Compare two spaces by the area between their EDFs, at equal cost."""
    # first, second (n,), (m,)
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    w_a, w_b = (
        (np.full(a.size, 1.0 / a.size), np.full(b.size, 1.0 / b.size))
        if costs is None
        else cost_weights(*costs)
    )
    rng = np.random.default_rng(seed)
    draws = _bootstrap_mean(b, w_b, rng) - _bootstrap_mean(a, w_a, rng)
    lower, upper = interval(draws)
    # Imported here: scipy.stats takes longer to import than most fits take to run.
    from scipy.stats import ks_2samp

    ks = ks_2samp(a, b)
    return SpaceDifference(
        points=float(b @ w_b / w_b.sum() - a @ w_a / w_a.sum()),
        lower=float(lower),
        upper=float(upper),
        ks=float(ks.statistic),
        ks_p_value=float(ks.pvalue),
        draws=draws,
    )


def _bootstrap_mean(values: FloatArray, weight: FloatArray, rng: np.random.Generator) -> FloatArray:
    weights = rng.standard_exponential((BOOTSTRAP, values.size)) * weight
    return np.asarray((weights @ values) / weights.sum(axis=1))
