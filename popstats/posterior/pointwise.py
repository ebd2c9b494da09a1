"""The recipes behind a fit, one by one: their residuals, noise scales and log densities under its draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.special import logsumexp

from popstats.arrays import FloatArray
from popstats.inference.data import RegimeRows
from popstats.inference.exact import coefficient_posterior, log_likelihood
from popstats.inference.model import Hyper
from popstats.inference.noise import distribution, log_density

if TYPE_CHECKING:
    from popstats.posterior.curves import FittedCurves

#: Recipes handled at once: with 500 draws, arrays of 4 MB each.
BLOCK = 1024


@dataclass(frozen=True)
class RegimeSample:
    """Some posterior draws of one regime, in units of its scale; S of them."""

    noise: str  # Name of the noise.
    hyper: Hyper  # (S,) each
    coefficients: FloatArray  # (S, p)

    def log_density(self, rows: RegimeRows) -> Iterator[tuple[slice, FloatArray]]:
        """Yield blocks of recipes with their log densities per percentage point, shape (block, S)."""
        offset = float(np.log(rows.regime.scale))
        for block, e, scale in self.residuals(rows):
            yield block, log_density(self.noise, e, scale, self.hyper.shape) - offset

    def residuals(self, rows: RegimeRows) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """Yield blocks of recipes with residuals and noise scales, both (block, S)."""
        for start in range(0, rows.drop.size, BLOCK):
            block = slice(start, start + BLOCK)
            e = rows.drop[block, None] - rows.design[block] @ self.coefficients.T
            yield block, e, self.hyper.noise * rows.relative_scale(self.hyper.seed_share, block)


def thinned(fit: FittedCurves, most: int) -> npt.NDArray[np.intp]:
    """Return the positions of at most `most` evenly spaced draws, chains joined."""
    size = fit.draws.flat_coefficients.shape[0]
    return np.linspace(0, size - 1, min(most, size)).astype(np.intp)


def sample_of(fit: FittedCurves, k: int, picked: npt.NDArray[np.intp]) -> RegimeSample:
    """Return the draws at `picked` of the k-th fitted regime."""
    draws = fit.draws
    return RegimeSample(fit.settings.noise, draws.hyper(k, picked), draws.flat_coefficients[picked, k])


def total_density(rows: RegimeRows, sample: RegimeSample) -> FloatArray:
    """Return the log likelihood of all recipes of a regime, up to a constant, shape (S,)."""
    if sample.noise == "normal":
        return log_likelihood(rows.regime, sample.hyper, sample.coefficients)
    return np.asarray(np.sum([d.sum(axis=0) for _, d in sample.log_density(rows)], axis=0))


def leave_one_out_pit(rows: RegimeRows, sample: RegimeSample) -> FloatArray:
    """Return the LOO-PIT value of each recipe of a regime, shape (n,)."""
    if sample.noise != "normal":
        return weighted(rows, sample)
    z, density = closed_form(rows, sample)
    return _average(special.ndtr(z), -density)


def closed_form(rows: RegimeRows, sample: RegimeSample) -> tuple[FloatArray, FloatArray]:
    """Leave each recipe out under normal noise: its standardised residual and log density, both (n, S)."""
    mean, root = coefficient_posterior(rows.regime, sample.hyper)
    draws, p = mean.shape
    side_by_side = root.transpose(1, 0, 2).reshape(p, draws * p)
    z = np.empty((rows.drop.size, draws))
    density = np.empty_like(z)
    for start in range(0, z.shape[0], BLOCK):
        block = slice(start, start + BLOCK)
        design = rows.design[block]
        variance = (sample.hyper.noise * rows.relative_scale(sample.hyper.seed_share, block)) ** 2
        reached = ((design @ side_by_side) ** 2).reshape(-1, draws, p).sum(axis=2)
        rest = np.maximum(1.0 - reached / variance, 1e-12)
        z[block] = (rows.drop[block, None] - design @ mean.T) / np.sqrt(variance * rest)
        density[block] = -0.5 * (z[block] ** 2 + np.log(2.0 * np.pi * variance / rest))
    return z, density


def weighted(rows: RegimeRows, sample: RegimeSample) -> FloatArray:
    """Return LOO-PIT values for any noise, by truncated importance weights (Ionides 2008, doi:10.1198/106186008X320456)."""
    pit = np.empty(rows.drop.size)
    for block, e, scale in sample.residuals(rows):
        log_ratios = -log_density(sample.noise, e, scale, sample.hyper.shape)
        mean = logsumexp(log_ratios, axis=1, keepdims=True) - np.log(log_ratios.shape[1])
        largest = mean + 0.5 * np.log(log_ratios.shape[1])
        below = distribution(sample.noise, e, scale, sample.hyper.shape)
        pit[block] = _average(below, np.minimum(log_ratios, largest))
    return pit


def _average(values: FloatArray, log_weights: FloatArray) -> FloatArray:
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return np.asarray((weights * values).sum(axis=1) / weights.sum(axis=1))
