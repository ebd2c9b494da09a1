r"""Linear models with a shrinkage that the data choose, from cross-products alone.

.. math:: y_i = f_i'\alpha + x_i'\beta + e_i, \quad e_i \sim \mathrm{Normal}(0, \sigma^2 / w_i), \quad
          \beta_j \sim \mathrm{Normal}(0, \sigma^2 / (n \lambda s_j^2)),

with flat priors on alpha and log sigma, s_j the spread of column j after the free columns f are taken out, and
lambda on a grid with equal prior weight on the logarithm. Everything is closed form in the cross-products of
(f, x, y), so cross-validation costs one small eigenvalue problem a fold.

References
----------
MacKay (1992), doi:10.1162/neco.1992.4.3.415 (the evidence as a guide to the size of the shrinkage).
"""

from __future__ import annotations

import numpy as np

from popstats.arrays import FloatArray, IntArray

#: Folds of every cross-validation; recipes, never single trainings, are assigned to them.
FOLDS = 10
#: Grid of lambda: from no shrinkage at all to all of it.
_LAMBDAS = np.logspace(-8, 2, 41)
#: Eigenvalues below this share of the largest are directions the table does not contain.
_RANK = 1e-10
#: Knots of the spline, which has as many columns, its constant included; beyond the outermost it is straight.
KNOTS, OUTER = 6, (0.02, 0.98)


def weighted_cross_products(columns: FloatArray, y: FloatArray, weight: FloatArray) -> FloatArray:
    """Return Z'WZ with Z = (columns, y), shape (c + 1, c + 1)."""
    z = np.column_stack([columns, y])
    return np.asarray((z * weight[:, None]).T @ z)


def fit_ridge(products: FloatArray, n: int, free: int) -> FloatArray:
    """Return the posterior mean of the coefficients, averaged over the shrinkage, from cross-products."""
    # products (free + p + 1, free + p + 1) -> (free + p,); the first columns are not shrunk
    df = n - free
    block, cross = products[:free, :free], products[:free, free:]
    schur = products[free:, free:] - cross.T @ np.linalg.solve(block, cross)
    variances = np.clip(np.diag(schur)[:-1], 0.0, None)
    usable = variances > _RANK * np.maximum(np.diag(products)[free:-1], 1e-300)
    scale = np.where(usable, np.sqrt(variances / n), np.inf)
    values, vectors = np.linalg.eigh(schur[:-1, :-1] / np.outer(scale, scale))
    values = np.clip(values, 0.0, None)
    projected = vectors.T @ (schur[:-1, -1] / scale)
    # A direction without variance can only carry rounding errors.
    projected = np.where(values > _RANK * max(values.max(initial=0.0), 1e-300), projected, 0.0)
    kappa = n * _LAMBDAS
    precision = values[None, :] + kappa[:, None]
    floor = max(schur[-1, -1], 0.0) * 1e-12 + 1e-300
    residual = np.maximum(schur[-1, -1] - (projected**2 / precision).sum(axis=1), floor)
    evidence = 0.5 * (np.log(kappa[:, None]) - np.log(precision)).sum(axis=1) - 0.5 * df * np.log(residual)
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    beta = (vectors @ (weights @ (projected / precision))) / scale
    alpha = np.linalg.solve(block, products[:free, -1] - products[:free, free:-1] @ beta)
    return np.concatenate([alpha, beta])


def assign_folds(n: int, seed: int, folds: int = FOLDS) -> IntArray:
    """Return the fold of each of n recipes: random, and as equal in size as n allows."""
    order = np.random.default_rng(seed).permutation(n)
    return np.asarray(order % min(folds, n), dtype=np.int64)


def held_out_losses(
    columns: FloatArray, y: FloatArray, weight: FloatArray, fold: IntArray, free: int
) -> FloatArray:
    """Return each recipe's squared error when its fold is left out of the fit, shape (n,)."""
    # columns (n, free + p); y, weight (n,); fold (n,)
    parts = [
        weighted_cross_products(columns[fold == k], y[fold == k], weight[fold == k])
        for k in range(fold.max() + 1)
    ]
    total = np.sum(parts, axis=0)
    sizes = np.bincount(fold)
    losses = np.empty(y.size)
    for k, part in enumerate(parts):
        mean = fit_ridge(total - part, int(y.size - sizes[k]), free)
        losses[fold == k] = (y[fold == k] - columns[fold == k] @ mean) ** 2
    return losses


def natural_spline(at: FloatArray, data: FloatArray, knots: int = KNOTS) -> FloatArray:
    """Return the basis of a natural cubic spline, constant first."""
    # Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, equations 5.4 and 5.5.
    # at (m,); data (n,) -> (m, at most knots)
    places = np.unique(np.quantile(data, np.linspace(*OUTER, knots)))
    centre, scale = places.mean(), np.ptp(places) or 1.0
    t, k = (at - centre) / scale, (places - centre) / scale
    if k.size < 3:
        return np.column_stack([np.ones_like(t), t])
    cubes = np.clip(t[:, None] - k[None, :], 0.0, None) ** 3
    last = (cubes[:, -2] - cubes[:, -1]) / (k[-1] - k[-2])
    bends = [(cubes[:, j] - cubes[:, -1]) / (k[-1] - k[j]) - last for j in range(k.size - 2)]
    return np.column_stack([np.ones_like(t), t, *bends])


def distance_terms(reduction: FloatArray) -> FloatArray:
    """Return level, c and c^2 of the reductions in one regime, centred and scaled, as far as they differ, (n, 1 to 3)."""
    spread = reduction.std()
    if spread < 1e-9:
        return np.ones((reduction.size, 1))
    c = (reduction - reduction.mean()) / spread
    return np.vander(c, min(np.unique(reduction).size, 3), increasing=True)
