r"""The log marginal likelihood of the hyperparameters, with its gradient, as one PyTensor operation.

With coefficients integrated out (fixed terms under flat priors), regime k contributes

.. math:: -\tfrac12\bigl[\log|A| + \textstyle\sum_j\log d_j + \sum_s n_s\log v_s + \sum_s q_s/v_s
          - b^\top A^{-1} b\bigr] - \tfrac12\bigl[\nu\log(\rho\sigma^2) + W/(\rho\sigma^2)\bigr],

.. math:: A = D^{-1} + \sum_s G_s/v_s, \quad b = \sum_s h_s/v_s, \quad v_s = \sigma^2(1-\rho+\rho/r_s),

over strata s of recipes with r_s replicates (cross-products G, h, q, count n), W and nu the squared
deviations of runs about their recipes; D follows from length scale and amplitude (`curves`). It is one
operation because a graph of batched Cholesky decompositions takes numba many seconds to compile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from popstats.inference.cross_products import RegimeData
from popstats.inference.curves import FIXED_TERMS, frequencies
from popstats.inference.density_op import DensityOp

__all__ = ["MarginalLogDensity", "log_density", "pack"]

FloatArray = npt.NDArray[np.float64]

#: Sums may be reordered, so that they run in vector registers; nothing else of the arithmetic is loosened.
_SIMD = {"reassoc", "contract"}


def pack(regimes: Sequence[RegimeData]) -> FloatArray:
    """Return the data of all regimes as one vector: every shared array costs nutpie a second of compiling.

    Layout: number of strata, number of sines, their frequencies; then for each regime replicates, count, y'y
    (S each), X'y (S, p), X'X (S, p, p), within, its degrees of freedom, which fixed terms are there (3).
    Strata that a regime lacks have count 0.

    Parameters
    ----------
    regimes : sequence of RegimeData
        Fitted regimes.
    """
    products = [r.cross_products for r in regimes if r.cross_products is not None]
    strata = max(c.count.size for c in products)

    def padded(array: FloatArray, fill: float = 0.0) -> FloatArray:
        out = np.full((strata, *array.shape[1:]), fill)
        out[: array.shape[0]] = array
        return out.ravel()

    omega = frequencies()
    parts = [np.array([strata, omega.size], dtype=np.float64), omega]
    for regime, c in zip(regimes, products, strict=True):
        parts += [padded(c.replicates, 1.0), padded(c.count), padded(c.yy), padded(c.xy), padded(c.xx)]
        parts += [np.array([c.within, c.within_df, *regime.fixed], dtype=np.float64)]
    return np.concatenate(parts)


@numba.njit(cache=True, fastmath=_SIMD)
def _invert(a: Any, covariance: Any) -> float:
    """Write the inverse of the symmetric positive definite `a` (lower triangle) and return log |a|.

    All inner loops run along rows, which the compiler turns into vector instructions.
    """
    p = a.shape[0]
    root, inverse = np.zeros((p, p)), np.zeros((p, p))
    log_determinant = 0.0
    for i in range(p):
        for j in range(i + 1):
            t = a[i, j]
            for q in range(j):
                t -= root[i, q] * root[j, q]
            root[i, j] = np.sqrt(t) if i == j else t / root[j, j]
        log_determinant += 2.0 * np.log(root[i, i])
    for i in range(p):
        for q in range(i):
            for j in range(q + 1):
                inverse[i, j] -= root[i, q] * inverse[q, j]
        for j in range(i):
            inverse[i, j] /= root[i, i]
        inverse[i, i] = 1.0 / root[i, i]
    covariance[:, :] = 0.0
    for q in range(p):
        for i in range(q + 1):
            for j in range(i + 1):
                covariance[i, j] += inverse[q, i] * inverse[q, j]
    for i in range(p):
        for j in range(i):
            covariance[j, i] = covariance[i, j]
    return log_determinant


@numba.njit(cache=True, fastmath=_SIMD)
def _misfit(beta: Any, covariance: Any, xx: Any, xy: Any, yy: float) -> float:
    """Return the expected sum of squared residuals of one stratum under the coefficients' posterior."""
    total = yy
    for i in range(beta.size):
        total -= 2.0 * beta[i] * xy[i]
        for j in range(beta.size):
            total += (covariance[i, j] + beta[i] * beta[j]) * xx[i, j]
    return total


@numba.njit(cache=True, fastmath=_SIMD)
def _precision(log_variance: Any, fixed: Any, variance: Any, count: Any, xx: Any, xy: Any) -> Any:
    """Return A and b of the module's formula."""
    m, p = log_variance.size, xx.shape[1]
    a, b = np.zeros((p, p)), np.zeros(p)
    for s in range(count.size):
        if count[s] > 0:
            for i in range(p):
                b[i] += xy[s, i] / variance[s]
                for j in range(i + 1):
                    a[i, j] += xx[s, i, j] / variance[s]
    for i in range(p - m):
        if fixed[i] == 0.0:
            a[i, i] += 1.0
    for j in range(m):
        a[p - m + j, p - m + j] += np.exp(-log_variance[j])
    return a, b


@numba.njit(cache=True)
def _regime(log_variance: Any, log_noise: float, share: float, block: Any, strata: int) -> Any:
    """Return one regime's log density and its derivatives by log_variance (m,), log noise and seed share."""
    m = log_variance.size
    p = m + FIXED_TERMS
    replicates, count, yy = block[:strata], block[strata : 2 * strata], block[2 * strata : 3 * strata]
    start = 3 * strata
    xy = block[start : start + strata * p].reshape((strata, p))
    start += strata * p
    xx = block[start : start + strata * p * p].reshape((strata, p, p))
    within, within_df = block[start + strata * p * p], block[start + strata * p * p + 1]
    fixed = block[start + strata * p * p + 2 :]
    squared = np.exp(2.0 * log_noise)
    relative = 1.0 - share + share / replicates
    a, b = _precision(log_variance, fixed, squared * relative, count, xx, xy)
    covariance = np.zeros((p, p))
    total = _invert(a, covariance)
    beta = covariance @ b
    total += log_variance.sum() - b @ beta
    moments = np.diag(covariance)[FIXED_TERMS:] + beta[FIXED_TERMS:] ** 2
    by_variance = -0.5 * (1.0 - moments * np.exp(-log_variance))
    by_noise, by_share = 0.0, 0.0
    for s in range(strata):
        if count[s] > 0:
            v = squared * relative[s]
            total += count[s] * np.log(v) + yy[s] / v
            slope = -0.5 * (count[s] - _misfit(beta, covariance, xx[s], xy[s], yy[s]) / v)
            by_noise += 2.0 * slope
            by_share += slope * (1.0 / replicates[s] - 1.0) / relative[s]
    if within_df > 0:
        run = share * squared
        total += within_df * np.log(run) + within / run
        slope = -0.5 * (within_df - within / run)
        by_noise += 2.0 * slope
        by_share += slope / share
    return -0.5 * total, by_variance, by_noise, by_share


def log_density(log_hyper: Any, logit_share: Any, packed: Any) -> Any:
    """Return the log marginal likelihood of all regimes and its gradients.

    Parameters
    ----------
    log_hyper : numpy.ndarray, shape (3, K)
        Log length scale (half-ranges), log amplitude and log noise (units of each regime's scale).
    logit_share : numpy.ndarray, shape (K,)
        Logit of the seed share; without effect where a regime has no replicates.
    packed : numpy.ndarray
        From `pack`.
    """
    regimes = log_hyper.shape[1]
    strata, sines = int(packed[0]), int(packed[1])
    squared_frequency = packed[2 : 2 + sines] ** 2
    size = (packed.size - 2 - sines) // regimes
    log_variance = np.zeros(sines + 1)
    value = 0.0
    by_hyper, by_share = np.zeros((3, regimes)), np.zeros(regimes)
    for k in range(regimes):
        bend = 5.0 * np.exp(-2.0 * log_hyper[0, k])
        log_variance[:sines] = np.log(400.0 * np.sqrt(5.0) / 3.0) - 5.0 * log_hyper[0, k]
        log_variance[:sines] -= 3.0 * np.log(bend + squared_frequency)
        log_variance[sines] = 0.0
        log_variance += 2.0 * log_hyper[1, k]
        share = 1.0 / (1.0 + np.exp(-logit_share[k]))
        start = 2 + sines + k * size
        v, by_variance, by_noise, s = _regime(
            log_variance, log_hyper[2, k], share, packed[start : start + size], strata
        )
        value += v
        by_length = -5.0 + 6.0 * bend / (bend + squared_frequency)
        by_hyper[0, k] = (by_variance[:sines] * by_length).sum()
        by_hyper[1, k] = 2.0 * by_variance.sum()
        by_hyper[2, k] = by_noise
        by_share[k] = s * share * (1.0 - share)
    return np.asarray(value), by_hyper, by_share


class MarginalLogDensity(DensityOp):
    """`log_density` in a PyTensor graph."""

    density = staticmethod(log_density)
    parts = (_regime, _precision, _misfit, _invert)
    differentiable = 2
