"""Pareto-smoothed importance sampling for all observations at once.

The largest importance ratios of each observation are replaced by quantiles of a generalised Pareto
distribution fitted to them; its shape k says whether leaving that observation out can be trusted. The
arithmetic is that of `arviz_stats` (a test compares them), over blocks of observations instead of one after
the other, which takes a tenth of the time.

References
----------
Vehtari, Simpson, Gelman, Yao and Gabry (2024), Journal of Machine Learning Research 25(72);
Zhang and Stephens (2009), doi:10.1198/tech.2009.08017 (the fit of the Pareto tail).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

__all__ = ["smooth_log_weights"]

FloatArray = npt.NDArray[np.float64]

#: Prior of the Pareto shape: so many tail draws' worth of 0.5 (Vehtari et al., appendix C).
PRIOR_DRAWS, PRIOR_SHAPE = 10.0, 0.5
#: Zhang and Stephens' constants: the grid's size beyond sqrt(n), and its reach.
GRID_POINTS, GRID_REACH = 30, 3.0
#: Fewer tail draws than this are left as they are.
MINIMUM_TAIL = 5


def smooth_log_weights(log_ratios: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Smooth the importance weights of each observation.

    Parameters
    ----------
    log_ratios : numpy.ndarray, shape (n, S)
        Log importance ratios of S draws for n observations; for leave-one-out, minus the log density.

    Returns
    -------
    log_weights : numpy.ndarray, shape (n, S)
        Normalised: their exponentials sum to 1 over the draws.
    pareto_k : numpy.ndarray, shape (n,)
        Under 0.7: reliable. NaN where the ratios have no tail to speak of (all practically equal).
    """
    weights = log_ratios - log_ratios.max(axis=1, keepdims=True)
    draws = weights.shape[1]
    tail = int(3.0 * np.sqrt(draws)) if draws > 225 else draws // 5
    k = np.full(weights.shape[0], np.nan)
    if tail >= MINIMUM_TAIL:
        position = np.argpartition(weights, draws - tail - 1, axis=1)[:, draws - tail - 1 :]
        largest = np.take_along_axis(weights, position, axis=1)
        order = largest.argsort(axis=1)
        largest = np.take_along_axis(largest, order, axis=1)
        smoothed, k = _smooth_tail(largest)
        np.put_along_axis(weights, np.take_along_axis(position, order, axis=1)[:, 1:], smoothed, axis=1)
    return np.asarray(weights - logsumexp(weights, axis=1, keepdims=True)), k


def _smooth_tail(largest: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Smooth all but the first column (the cut-off) of sorted log ratios, shape (n, tail + 1)."""
    smoothed, k = largest[:, 1:].copy(), np.full(largest.shape[0], np.nan)
    excess = np.exp(largest[:, 1:]) - np.exp(largest[:, :1])
    quartile = excess[:, int(excess.shape[1] / 4 + 0.5) - 1]
    usable = np.flatnonzero((quartile > excess[:, 0]) & (excess[:, 0] > 0.0))
    if usable.size:
        shape, scale = _fit_pareto(excess[usable], quartile[usable])
        p = (np.arange(excess.shape[1]) + 0.5) / excess.shape[1]
        # A shape of exactly 0 (the exponential tail) has probability 0 after adding the prior.
        quantile = scale[:, None] * np.expm1(-shape[:, None] * np.log1p(-p)) / shape[:, None]
        fitted = np.log(np.exp(largest[usable, :1]) + quantile)
        smoothed[usable] = np.minimum(fitted, largest[usable, -1:])
        k[usable] = shape
    return smoothed, k


def _fit_pareto(excess: FloatArray, quartile: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return shape and scale of a generalised Pareto distribution for each row of sorted excesses."""
    n = excess.shape[1]
    points = GRID_POINTS + int(np.sqrt(n))
    grid = 1.0 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
    b = grid / (GRID_REACH * quartile[:, None]) + 1.0 / excess[:, -1:]
    shapes = np.empty_like(b)
    for j in range(points):
        shapes[:, j] = np.log1p(-b[:, j, None] * excess).mean(axis=1)
    profile = n * (np.log(-b / shapes) - shapes - 1.0)
    weight = np.exp(profile - logsumexp(profile, axis=1, keepdims=True))
    weight[weight < 10.0 * np.finfo(np.float64).eps] = 0.0
    best = (weight * b).sum(axis=1) / weight.sum(axis=1)
    shape = np.log1p(-best[:, None] * excess).mean(axis=1)
    scale = -shape / best
    return (n * shape + PRIOR_DRAWS * PRIOR_SHAPE) / (n + PRIOR_DRAWS), scale
