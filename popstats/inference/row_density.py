r"""The log density of recipes about their curves for noise that is not normal, with its gradient.

With residual e, noise scale s (the recipe's, after its replicates and weight) and h(x) = phi(x) / Phi(x):

* ``student``: Student-t with nu degrees of freedom and scale s;
* ``frontier``: normal plus exponential with mean tau,

  .. math:: \log p(e) = -\log(2\tau) - \frac{e^2}{2s^2} + \log\mathrm{erfcx}\Bigl(-\frac{x}{\sqrt2}\Bigr),
            \qquad x = \frac{e}{s} - \frac{s}{\tau},

  in this scaled form because the textbook one, exp(s^2 / (2 tau^2) - e / tau) Phi(x), overflows where tau is
  small, and its logarithm loses all digits there.

References
----------
Aigner, Lovell and Schmidt (1977), doi:10.1016/0304-4076(77)90052-5 (the stochastic frontier).
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from popstats.inference.density_op import DensityOp

__all__ = ["NOISES", "RowLogDensity", "log_density", "pack_rows"]

FloatArray = npt.NDArray[np.float64]

#: Noise distributions by name, in the code of the compiled function.
NOISES = {"student": 0, "frontier": 1}
_ROOT_TWO = math.sqrt(2.0)
_ROOT_PI = math.sqrt(math.pi)
#: From here on the continued fraction has full precision, and exp(t^2) is far from overflow before it.
_FAR = 6.0


@numba.njit(cache=True)
def _log_erfcx(t: float) -> float:
    """Return log(exp(t^2) erfc(t))."""
    if t < _FAR:
        return t * t + math.log(math.erfc(t))
    fraction = t
    for k in range(24, 0, -1):
        fraction = t + 0.5 * k / fraction
    return -math.log(_ROOT_PI * fraction)


@numba.njit(cache=True)
def _frontier(e: float, scale: float, tau: float) -> tuple[float, float, float, float]:
    """Return log density and its derivatives by e, log scale and log tau."""
    x = e / scale - scale / tau
    t = -x / _ROOT_TWO
    log_erfcx = _log_erfcx(t)
    value = -math.log(2.0 * tau) - 0.5 * (e / scale) ** 2 + log_erfcx
    mills = math.exp(0.5 * math.log(2.0 / math.pi) - log_erfcx)
    by_e = -1.0 / tau + mills / scale
    by_scale = (scale / tau) ** 2 - mills * (e / scale + scale / tau)
    by_tau = -1.0 - (scale / tau) ** 2 + e / tau + mills * scale / tau
    return value, by_e, by_scale, by_tau


@numba.njit(cache=True)
def _student(
    e: float, scale: float, nu: float, shape: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return log density and its derivatives by e, log scale and log nu; `shape`: the parts of nu alone."""
    z = (e / scale) ** 2
    growth = 1.0 + z / nu
    value = shape[0] - math.log(scale) - 0.5 * (nu + 1.0) * math.log(growth)
    pull = (nu + 1.0) / (nu + z)
    by_nu = nu * (shape[1] - 0.5 * math.log(growth) + 0.5 * pull * z / nu)
    return value, -pull * e / scale**2, pull * z - 1.0, by_nu


@numba.njit(cache=True)
def _student_shape(nu: float) -> tuple[float, float]:
    """Return the part of the Student-t log density that depends on nu alone, and its derivative by nu."""
    value = math.lgamma(0.5 * (nu + 1.0)) - math.lgamma(0.5 * nu) - 0.5 * math.log(nu * math.pi)
    step = 1e-4 * nu
    above = math.lgamma(0.5 * (nu + step + 1.0)) - math.lgamma(0.5 * (nu + step)) - 0.5 * math.log(nu + step)
    below = math.lgamma(0.5 * (nu - step + 1.0)) - math.lgamma(0.5 * (nu - step)) - 0.5 * math.log(nu - step)
    return value, (above - below) / (2.0 * step)


def pack_rows(
    kind: str, starts: FloatArray, design: FloatArray, drop: FloatArray, relative: FloatArray
) -> FloatArray:
    """Return all rows as one vector: kind, sizes, where each regime starts, drops, relative sds, design.

    Parameters
    ----------
    kind : {"student", "frontier"}
    starts : numpy.ndarray, shape (K + 1,)
        First row of each regime; rows are sorted by regime.
    design, drop, relative : numpy.ndarray, shapes (n, p), (n,), (n,)
        Design matrix, drops and relative standard deviations, in units of each regime's scale.
    """
    head = np.array([NOISES[kind], drop.size, design.shape[1]], dtype=np.float64)
    return np.concatenate([head, starts, drop, relative, design.ravel()])


def log_density(coefficients: Any, log_noise: Any, log_shape: Any, packed: Any) -> Any:
    """Return the log density of all rows and its gradients.

    Parameters
    ----------
    coefficients : numpy.ndarray, shape (K, p)
    log_noise : numpy.ndarray, shape (K,)
        Log standard scale of one training.
    log_shape : numpy.ndarray, shape (K,)
        Log nu, or log tau.
    packed : numpy.ndarray
        From `pack_rows`.
    """
    regimes, p = coefficients.shape
    frontier = packed[0] == 1.0
    n = int(packed[1])
    first = 3 + regimes + 1
    value = 0.0
    by_coefficients = np.zeros((regimes, p))
    by_noise, by_shape = np.zeros(regimes), np.zeros(regimes)
    for k in range(regimes):
        noise, shape = math.exp(log_noise[k]), math.exp(log_shape[k])
        constants = (0.0, 0.0) if frontier else _student_shape(shape)
        for i in range(int(packed[3 + k]), int(packed[4 + k])):
            row = first + 2 * n + i * p
            e = packed[first + i]
            for j in range(p):
                e -= packed[row + j] * coefficients[k, j]
            scale = noise * packed[first + n + i]
            if frontier:
                v, by_e, by_s, by_t = _frontier(e, scale, shape)
            else:
                v, by_e, by_s, by_t = _student(e, scale, shape, constants)
            value += v
            by_noise[k] += by_s
            by_shape[k] += by_t
            for j in range(p):
                by_coefficients[k, j] -= by_e * packed[row + j]
    return np.asarray(value), by_coefficients, by_noise, by_shape


class RowLogDensity(DensityOp):
    """Inputs: coefficients (K, p), log noise (K,), log shape (K,), packed rows; see `log_density`."""

    density = staticmethod(log_density)
    parts = (_frontier, _student, _student_shape, _log_erfcx)
    differentiable = 3
