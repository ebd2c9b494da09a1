r"""The noise of recipes about their curve: log density, its slopes, distribution function and draws, by name.

With residual e, scale s and shape (degrees of freedom of "student", mean tau of the exponential part of "exgaussian"),
those of the exponentially modified normal are written with erfcx(t) = exp(t^2) erfc(t), t = (s / tau - e / s) / sqrt(2),
because the textbook forms overflow where tau is small:

.. math:: p(e) = \frac{1}{2\tau} e^{-e^2/2s^2}\,\mathrm{erfcx}(t), \qquad
          F(e) = \Phi(e/s) - \tfrac12 e^{-e^2/2s^2}\,\mathrm{erfcx}(t).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy import special

from popstats.arrays import FloatArray

_LOG_ROOT_TWO_PI = 0.5 * float(np.log(2.0 * np.pi))
_ROOT_TWO_OVER_PI = float(np.sqrt(2.0 / np.pi))
#: Left of this erfcx(t) is 2 exp(t^2) to the last digit, and soon overflows.
_FAR_LEFT = -25.0


def log_density(noise: str, e: FloatArray, scale: FloatArray, shape: FloatArray | None) -> FloatArray:
    """Return the log density of residuals."""
    z = e / scale
    if noise == "normal" or shape is None:
        return np.asarray(-0.5 * z**2 - np.log(scale) - _LOG_ROOT_TWO_PI)
    return log_density_slopes(noise, e, scale, shape)[0]


def log_density_slopes(
    noise: str, e: FloatArray, scale: FloatArray, shape: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the log density with its slopes by the residual, by log scale and by log shape."""
    z = e / scale
    if noise == "student":
        squares = z**2 / shape
        growth, far = np.log1p(squares), squares / (1.0 + squares)
        constant = special.gammaln(0.5 * (shape + 1.0)) - special.gammaln(0.5 * shape)
        constant = constant - 0.5 * np.log(shape * np.pi)
        by_e = -(shape + 1.0) * far / np.where(e == 0.0, 1.0, e)
        by_constant = 0.5 * shape * (special.psi(0.5 * (shape + 1.0)) - special.psi(0.5 * shape)) - 0.5
        by_shape = by_constant - 0.5 * shape * growth + 0.5 * (shape + 1.0) * far
        value = constant - np.log(scale) - 0.5 * (shape + 1.0) * growth
        return value, by_e, -1.0 - e * by_e, by_shape
    ratio = scale / shape
    t = (ratio - z) / np.sqrt(2.0)
    near = np.maximum(t, _FAR_LEFT)
    tail = special.erfcx(near)
    hazard = _ROOT_TWO_OVER_PI / tail
    by_e = (hazard - ratio) / scale
    by_shape = ratio * (z - ratio + hazard) - 1.0
    value = np.log(tail) + t**2 - near**2 - 0.5 * z**2 - np.log(2.0 * shape)
    # Multiplied by one factor, residual, scale and shape leave the density's shape as it is.
    return value, by_e, -1.0 - e * by_e - by_shape, by_shape


def distribution(noise: str, e: FloatArray, scale: FloatArray, shape: FloatArray | None) -> FloatArray:
    """Return the probability of a residual below `e`; arguments as for `log_density`."""
    z = e / scale
    if noise == "normal" or shape is None:
        return np.asarray(special.ndtr(z))
    if noise == "student":
        return np.asarray(special.stdtr(np.broadcast_to(shape, z.shape), z))
    # F(e) = Phi(e / s) - tau p(e), as the two formulas above have it.
    tail = shape * np.exp(log_density(noise, e, scale, shape))
    return np.asarray(np.clip(special.ndtr(z) - tail, 0.0, 1.0))


def draw_noise(noise: str, scale: FloatArray, shape: FloatArray | None, rng: Generator) -> FloatArray:
    """Draw residuals, one per value of `scale`."""
    normal = rng.standard_normal(scale.shape)
    if noise == "normal" or shape is None:
        return np.asarray(scale * normal)
    if noise == "student":
        squares = rng.chisquare(np.broadcast_to(shape, scale.shape))
        return np.asarray(scale * normal * np.sqrt(shape / squares))
    return np.asarray(scale * normal + shape * rng.standard_exponential(scale.shape))
