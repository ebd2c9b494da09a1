r"""Where each recipe falls in what the fit predicts of it from the others: LOO-PIT values.

With normal noise the coefficients are integrated out: given hyperparameters phi, leaving recipe i out has a
closed form (residual and variance divided by 1 - leverage), and

.. math:: p(\phi \mid y_{-i}) \propto p(\phi \mid y) / p(y_i \mid y_{-i}, \phi)

turns draws of phi into draws without recipe i. Other noise goes through Pareto-smoothed weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from popstats.inference.curves import log_basis_variance
from popstats.inference.noise import distribution
from popstats.inference.noise import log_density as noise_log_density
from popstats.inference.pointwise import BLOCK, RegimePoints, RegimeSample
from popstats.inference.psis import smooth_log_weights

__all__ = ["closed_form", "leave_one_out_pit", "weighted"]

FloatArray = npt.NDArray[np.float64]


def leave_one_out_pit(
    points: RegimePoints, sample: RegimeSample, length_scale: FloatArray, amplitude: FloatArray
) -> FloatArray:
    """Return the LOO-PIT value of each recipe of a regime, shape (n,).

    Parameters
    ----------
    points : RegimePoints
    sample : RegimeSample
        S draws; a few dozen do for normal noise, a few hundred are needed for other noise.
    length_scale, amplitude : numpy.ndarray, shape (S,)
        Of the same draws.

    Returns
    -------
    numpy.ndarray
        Probability, predicted from the other recipes, of a smaller drop than the observed. Uniform on (0, 1)
        where the model is right.
    """
    if sample.noise != "normal":
        return weighted(points, sample)
    z, log_density = closed_form(points, sample, length_scale, amplitude)
    return _average(special.ndtr(z), -log_density)


def closed_form(
    points: RegimePoints, sample: RegimeSample, length_scale: FloatArray, amplitude: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Leave each recipe out under normal noise; arguments as for `leave_one_out_pit`.

    Returns
    -------
    z : numpy.ndarray, shape (n, S)
        Standardised residual of each recipe from its prediction by the others, given each draw.
    log_density : numpy.ndarray, shape (n, S)
        Its predictive log density, in units of the regime's scale.
    """
    mean, root = _coefficient_posterior(points, sample, length_scale, amplitude)
    draws, p = mean.shape
    side_by_side = root.transpose(1, 0, 2).reshape(p, draws * p)
    z = np.empty((points.rows.drop.size, draws))
    log_density = np.empty_like(z)
    for start in range(0, z.shape[0], BLOCK):
        block = slice(start, start + BLOCK)
        design = points.design[block]
        variance = (sample.scale * points.relative_scale(sample.seed_share)[block]) ** 2
        reached = ((design @ side_by_side) ** 2).reshape(-1, draws, p).sum(axis=2)
        rest = np.maximum(1.0 - reached / variance, 1e-12)
        z[block] = (points.rows.drop[block, None] - design @ mean.T) / np.sqrt(variance * rest)
        log_density[block] = -0.5 * (z[block] ** 2 + np.log(2.0 * np.pi * variance / rest))
    return z, log_density


def weighted(points: RegimePoints, sample: RegimeSample) -> FloatArray:
    """Return LOO-PIT values for any noise, by Pareto-smoothed importance weights, shape (n,)."""
    pit = np.empty(points.rows.drop.size)
    for block, e, scale in sample.residuals(points):
        log_weights, _ = smooth_log_weights(-noise_log_density(sample.noise, e, scale, sample.shape))
        below = distribution(sample.noise, e, scale, sample.shape)
        pit[block] = (np.exp(log_weights) * below).sum(axis=1)
    return pit


def _average(values: FloatArray, log_weights: FloatArray) -> FloatArray:
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return np.asarray((weights * values).sum(axis=1) / weights.sum(axis=1))


def _coefficient_posterior(
    points: RegimePoints, sample: RegimeSample, length_scale: FloatArray, amplitude: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return mean (S, p) and a root of the covariance (S, p, p) of the coefficients given each draw."""
    products = points.regime.products
    share = sample.seed_share[:, None]
    variance = sample.scale[:, None] ** 2 * (1.0 - share + share / products.replicates)
    precision = np.einsum("ds,sij->dij", 1.0 / variance, products.xx)
    diagonal = np.empty(precision.shape[:2])
    terms = len(points.regime.fixed)
    diagonal[:, :terms] = 1.0 - np.array(points.regime.fixed)
    diagonal[:, terms:] = np.exp(-log_basis_variance(length_scale)) / amplitude[:, None] ** 2
    index = np.arange(diagonal.shape[1])
    precision[:, index, index] += diagonal
    root = np.linalg.inv(np.linalg.cholesky(precision)).transpose(0, 2, 1)
    target = np.einsum("ds,si->di", 1.0 / variance, products.xy)
    return np.einsum("dij,dkj,dk->di", root, root, target, optimize=True), root
