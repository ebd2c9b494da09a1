"""Exact draws of a regime's coefficients, given draws of its hyperparameters."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from popstats.inference.cross_products import RegimeData
from popstats.inference.curves import log_basis_variance

__all__ = ["draw_coefficients"]

FloatArray = npt.NDArray[np.float64]


def draw_coefficients(
    regime: RegimeData,
    length_scale: FloatArray,
    amplitude: FloatArray,
    noise: FloatArray,
    share: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Return exact conditional draws of one regime's coefficients, shape (chains, draws, p).

    Parameters
    ----------
    regime : RegimeData
        A fitted regime.
    length_scale, amplitude, noise, share : numpy.ndarray, shape (chains, draws)
        Its hyperparameters.
    rng : numpy.random.Generator
    """
    data = regime.products
    rho = share.ravel()[:, None]
    weight = 1.0 / (noise.ravel()[:, None] ** 2 * (1.0 - rho + rho / data.replicates))
    prior = np.empty((weight.shape[0], data.xy.shape[1]))
    terms = len(regime.fixed)
    prior[:, :terms] = 1.0 - np.array(regime.fixed)
    variance = log_basis_variance(length_scale.ravel())
    prior[:, terms:] = np.exp(-variance) / amplitude.ravel()[:, None] ** 2
    drawn = rng.standard_normal(prior.shape)
    _colour(weight, prior, data.xx, data.xy, drawn)
    return drawn.reshape(*share.shape, -1)


@numba.njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _factor(weight: Any, prior: Any, xx: Any, root: Any) -> None:
    """Write the Cholesky factor of one draw's precision."""
    p = prior.size
    for i in range(p):
        for j in range(i + 1):
            t = prior[i] if i == j else 0.0
            for s in range(weight.size):
                t += weight[s] * xx[s, i, j]
            for q in range(j):
                t -= root[i, q] * root[j, q]
            root[i, j] = np.sqrt(t) if i == j else t / root[j, j]


@numba.njit(cache=True, error_model="numpy")
def _colour(weight: Any, prior: Any, xx: Any, xy: Any, drawn: Any) -> None:
    """Turn standard normal rows of `drawn` into coefficients with each draw's posterior precision and mean."""
    draws, p = drawn.shape
    root, half = np.empty((p, p)), np.empty(p)
    for d in range(draws):
        _factor(weight[d], prior[d], xx, root)
        for i in range(p):
            half[i] = 0.0
            for s in range(weight.shape[1]):
                half[i] += weight[d, s] * xy[s, i]
            for j in range(i):
                half[i] -= root[i, j] * half[j]
            half[i] /= root[i, i]
            drawn[d, i] += half[i]
        for i in range(p - 1, -1, -1):
            drawn[d, i] /= root[i, i]
            for j in range(i):
                drawn[d, j] -= root[i, j] * drawn[d, i]
