r"""The log marginal likelihood of the hyperparameters, with its gradient, as one PyTensor operation.

With coefficients integrated out (fixed terms under flat priors), regime k contributes

.. math:: -\tfrac12\bigl[\log|A| + \textstyle\sum_j\log d_j + \sum_s n_s\log v_s + \sum_s q_s/v_s
          - b^\top A^{-1} b\bigr] - \tfrac12\bigl[\nu\log(\rho\sigma^2) + W/(\rho\sigma^2)\bigr],

.. math:: A = D^{-1} + \sum_s G_s/v_s, \quad b = \sum_s h_s/v_s, \quad v_s = \sigma^2(1-\rho+\rho/r_s),

over strata s of recipes with r_s replicates (cross-products G, h, q, count n), W and nu the squared
deviations of runs about their recipes. Written as one operation because a graph of batched Cholesky
decompositions takes numba many seconds to compile, and this one is cached on disk by PyTensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from popstats.inference.density_op import DensityOp

__all__ = ["MarginalLogDensity", "marginal_log_density", "pack"]


def pack(*arrays: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the data of all regimes as one vector, after the number of strata.

    Parameters
    ----------
    *arrays : numpy.ndarray
        replicates (K, S), count (K, S), xx (K, S, p, p), xy (K, S, p), yy (K, S), within (K,), within_df (K,),
        fixed (K, 3). One vector, because every shared array costs nutpie a second of compiling.
    """
    strata = np.array([arrays[0].shape[1]], dtype=np.float64)
    return np.concatenate([strata, *(a.ravel() for a in arrays)])


def _density(log_variance: Any, log_noise: Any, share: Any, packed: Any) -> Any:
    """Value and gradients; plain loops, because numba compiles them once and fast."""
    regimes, m = log_variance.shape
    f = 3
    p = f + m
    strata = int(packed[0])
    start = 1
    replicates = packed[start : start + regimes * strata].reshape((regimes, strata))
    start += regimes * strata
    count = packed[start : start + regimes * strata].reshape((regimes, strata))
    start += regimes * strata
    xx = packed[start : start + regimes * strata * p * p].reshape((regimes, strata, p, p))
    start += regimes * strata * p * p
    xy = packed[start : start + regimes * strata * p].reshape((regimes, strata, p))
    start += regimes * strata * p
    yy = packed[start : start + regimes * strata].reshape((regimes, strata))
    start += regimes * strata
    within = packed[start : start + regimes]
    start += regimes
    within_df = packed[start : start + regimes]
    start += regimes
    fixed = packed[start : start + regimes * f].reshape((regimes, f))
    value = 0.0
    grad_variance = np.zeros((regimes, m))
    grad_noise = np.zeros(regimes)
    grad_share = np.zeros(regimes)
    a, root, inverse, covariance = np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p))
    b, beta = np.zeros(p), np.zeros(p)
    for k in range(regimes):
        squared = np.exp(2.0 * log_noise[k])
        total = 0.0
        a[:, :] = 0.0
        b[:] = 0.0
        for s in range(strata):
            if count[k, s] > 0:
                v = squared * (1.0 - share[k] + share[k] / replicates[k, s])
                total += count[k, s] * np.log(v) + yy[k, s] / v
                for i in range(p):
                    b[i] += xy[k, s, i] / v
                    for j in range(i + 1):
                        a[i, j] += xx[k, s, i, j] / v
        for i in range(f):
            if fixed[k, i] == 0.0:
                a[i, i] += 1.0
        for j in range(m):
            a[f + j, f + j] += np.exp(-log_variance[k, j])
            total += log_variance[k, j]
        # Cholesky A = L L', and L^-1.
        for i in range(p):
            for j in range(i + 1):
                t = a[i, j]
                for q in range(j):
                    t -= root[i, q] * root[j, q]
                if i == j:
                    root[i, i] = np.sqrt(t)
                else:
                    root[i, j] = t / root[j, j]
        for j in range(p):
            inverse[j, j] = 1.0 / root[j, j]
            for i in range(j + 1, p):
                t = 0.0
                for q in range(j, i):
                    t -= root[i, q] * inverse[q, j]
                inverse[i, j] = t / root[i, i]
        for i in range(p):
            for j in range(i + 1):
                t = 0.0
                for q in range(i, p):
                    t += inverse[q, i] * inverse[q, j]
                covariance[i, j] = t
                covariance[j, i] = t
        for i in range(p):
            t = 0.0
            for j in range(p):
                t += covariance[i, j] * b[j]
            beta[i] = t
            total += 2.0 * np.log(root[i, i]) - t * b[i]
        for j in range(m):
            second_moment = covariance[f + j, f + j] + beta[f + j] ** 2
            grad_variance[k, j] = -0.5 * (1.0 - second_moment * np.exp(-log_variance[k, j]))
        for s in range(strata):
            if count[k, s] > 0:
                relative = 1.0 - share[k] + share[k] / replicates[k, s]
                v = squared * relative
                misfit = yy[k, s]
                for i in range(p):
                    misfit -= 2.0 * beta[i] * xy[k, s, i]
                    t = 0.0
                    for j in range(p):
                        t += (covariance[i, j] + beta[i] * beta[j]) * xx[k, s, i, j]
                    misfit += t
                slope = -0.5 * (count[k, s] - misfit / v)
                grad_noise[k] += 2.0 * slope
                grad_share[k] += slope * (1.0 / replicates[k, s] - 1.0) / relative
        if within_df[k] > 0:
            run = share[k] * squared
            total += within_df[k] * np.log(run) + within[k] / run
            slope = -0.5 * (within_df[k] - within[k] / run)
            grad_noise[k] += 2.0 * slope
            grad_share[k] += slope / share[k]
        value -= 0.5 * total
    return np.asarray(value), grad_variance, grad_noise, grad_share


class MarginalLogDensity(DensityOp):
    """Inputs: log prior variances (K, m), log noise (K,), seed share (K,), packed data; see `pack`."""

    density = staticmethod(_density)


def marginal_log_density(*inputs: Any) -> Any:
    """Return the log marginal likelihood as a PyTensor scalar; inputs as in `MarginalLogDensity`."""
    return MarginalLogDensity()(*inputs)[0]
