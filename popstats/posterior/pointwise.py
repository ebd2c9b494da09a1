"""The recipes behind a fit, one by one: their residuals, noise scales and log densities under its draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.special import logsumexp

from popstats.arrays import FloatArray, IntArray
from popstats.inference.data import RegimeDesign, StandardRows, replicate_variance, standard_rows
from popstats.inference.exact import coefficient_posterior
from popstats.inference.model import KEPT_RANGE, Hyper
from popstats.inference.noise import distribution, log_density
from popstats.inference.spread import precision_weights

if TYPE_CHECKING:
    from popstats.posterior.curves import FittedCurves

#: Recipes handled at once: with 500 draws, arrays of 4 MB each.
BLOCK = 1024


@dataclass(frozen=True)
class RegimePoints:
    """One fitted regime's recipes, in units of its scale."""

    regime: RegimeDesign
    rows: StandardRows  # Of the n recipes that are in the fit.
    numbers: IntArray  # (n,), of the recipes
    # (n, p); Level, c, c^2, techniques and basis; columns that the regime cannot tell apart are zero.
    design: FloatArray

    def relative_scale(self, seed_share: npt.ArrayLike) -> FloatArray:
        """Scale of a recipe's noise over that of one training, shape (n,) or (n, S) for S seed shares."""
        runs, weight = self.rows.runs, self.rows.weight
        if np.ndim(seed_share):
            runs, weight = runs[:, None], weight[:, None]
        return np.sqrt(replicate_variance(seed_share, runs, weight))


@dataclass(frozen=True)
class RegimeSample:
    """Some posterior draws of one regime, in units of its scale; S of them."""

    noise: str  # Name of the noise.
    hyper: Hyper  # (S,) each
    coefficients: FloatArray  # (S, p)
    shape: FloatArray | None  # (S,); Degrees of freedom, or mean of the exponential.

    def log_density(self, points: RegimePoints) -> Iterator[tuple[slice, FloatArray]]:
        """Yield blocks of recipes with their log densities per percentage point, shape (block, S)."""
        offset = float(np.log(points.regime.scale))
        for block, e, scale in self.residuals(points):
            yield block, log_density(self.noise, e, scale, self.shape) - offset

    def residuals(self, points: RegimePoints) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """Yield blocks of recipes with residuals and noise scales, both (block, S)."""
        for start in range(0, points.rows.drop.size, BLOCK):
            block = slice(start, start + BLOCK)
            e = points.rows.drop[block, None] - points.design[block] @ self.coefficients.T
            runs, weight = points.rows.runs[block, None], points.rows.weight[block, None]
            relative = replicate_variance(self.hyper.seed_share, runs, weight)
            yield block, e, self.hyper.noise * np.sqrt(relative)


def fitted_points(fit: FittedCurves) -> tuple[RegimePoints, ...]:
    """Return the recipes of each fitted regime, in the order of `fit.fitted`."""
    found = []
    for k, (regime, change) in enumerate(zip(fit.regimes, fit.spread_changes, strict=True)):
        if regime.fitted:
            members = fit.recipes.members[k]
            mine = fit.recipes.table.iloc[members]
            weight = None if change is None else precision_weights(mine, regime, change)
            rows = standard_rows(mine, regime, weight)
            design = rows.design()
            design[:, : len(regime.fixed)] *= regime.fixed
            kept = np.abs(regime.curve_scale.to_unit(mine["log_mcb"])) <= KEPT_RANGE
            found.append(RegimePoints(regime, rows, members[kept], design))
    return tuple(found)


def thinned(fit: FittedCurves, most: int) -> npt.NDArray[np.intp]:
    """Return the positions of at most `most` evenly spaced draws, chains joined."""
    size = fit.draws.flat_coefficients.shape[0]
    return np.linspace(0, size - 1, min(most, size)).astype(np.intp)


def sample_of(fit: FittedCurves, k: int, picked: npt.NDArray[np.intp]) -> RegimeSample:
    """Return the draws at `picked` of the k-th fitted regime."""
    draws = fit.draws
    return RegimeSample(
        noise=fit.settings.noise,
        hyper=draws.hyper(k, picked),
        coefficients=draws.flat_coefficients[picked, k],
        shape=None if draws.shape is None else draws.shape[:, :, k].reshape(-1)[picked],
    )


def leave_one_out_pit(points: RegimePoints, sample: RegimeSample) -> FloatArray:
    """Return the LOO-PIT value of each recipe of a regime, shape (n,)."""
    if sample.noise != "normal":
        return weighted(points, sample)
    z, density = closed_form(points, sample)
    return _average(special.ndtr(z), -density)


def closed_form(points: RegimePoints, sample: RegimeSample) -> tuple[FloatArray, FloatArray]:
    """Leave each recipe out under normal noise: its standardised residual and log density, both (n, S)."""
    mean, root = coefficient_posterior(points.regime, sample.hyper)
    draws, p = mean.shape
    side_by_side = root.transpose(1, 0, 2).reshape(p, draws * p)
    z = np.empty((points.rows.drop.size, draws))
    density = np.empty_like(z)
    for start in range(0, z.shape[0], BLOCK):
        block = slice(start, start + BLOCK)
        design = points.design[block]
        variance = (sample.hyper.noise * points.relative_scale(sample.hyper.seed_share)[block]) ** 2
        reached = ((design @ side_by_side) ** 2).reshape(-1, draws, p).sum(axis=2)
        rest = np.maximum(1.0 - reached / variance, 1e-12)
        z[block] = (points.rows.drop[block, None] - design @ mean.T) / np.sqrt(variance * rest)
        density[block] = -0.5 * (z[block] ** 2 + np.log(2.0 * np.pi * variance / rest))
    return z, density


def weighted(points: RegimePoints, sample: RegimeSample) -> FloatArray:
    """Return LOO-PIT values for any noise, by Pareto-smoothed importance weights, shape (n,)."""
    pit = np.empty(points.rows.drop.size)
    for block, e, scale in sample.residuals(points):
        log_weights, _ = smooth_log_weights(-log_density(sample.noise, e, scale, sample.shape))
        below = distribution(sample.noise, e, scale, sample.shape)
        pit[block] = (np.exp(log_weights) * below).sum(axis=1)
    return pit


def _average(values: FloatArray, log_weights: FloatArray) -> FloatArray:
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return np.asarray((weights * values).sum(axis=1) / weights.sum(axis=1))


#: Prior of the Pareto shape: this many tail draws' worth of 0.5 (Vehtari et al., appendix C).
PRIOR_DRAWS, PRIOR_SHAPE = 10.0, 0.5

#: Zhang and Stephens' constants: the grid's size beyond sqrt(n), and its reach.
GRID_POINTS, GRID_REACH = 30, 3.0

#: Fewer tail draws than this are left as they are.
MINIMUM_TAIL = 5


def smooth_log_weights(log_ratios: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Smooth the importance weights of each observation."""
    # log_ratios (n, S) -> log_weights (n, S), pareto_k (n,)
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
