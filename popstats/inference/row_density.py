r"""The log density of recipes about their curves for noise that is not normal, with its gradient.

With residual e, noise scale s (the recipe's, after its replicates and weight), z = e / s and
h(x) = phi(x) / Phi(x):

* ``student``: Student-t with nu degrees of freedom and scale s;
* ``frontier``: normal plus exponential with mean tau,

  .. math:: \log p(e) = -\log(2\tau) - \frac{z^2}{2} + \log\mathrm{erfcx}\Bigl(-\frac{x}{\sqrt2}\Bigr),
            \qquad x = z - \frac{s}{\tau},

  in this scaled form because the textbook one, exp(s^2 / (2 tau^2) - e / tau) Phi(x), overflows where tau is
  small, and its logarithm loses all digits there.

Every row enters every evaluation, so rows are taken in blocks that stay in the processor's cache, column by
column, and no inner loop holds a branch or a library call that would keep it out of vector registers:
logarithms are taken of products, and erfcx is one polynomial.

References
----------
Aigner, Lovell and Schmidt (1977), doi:10.1016/0304-4076(77)90052-5 (the stochastic frontier); Shepherd and
Laframboise (1981), doi:10.1090/S0025-5718-1981-0595058-X (erfcx on the whole half-line as one polynomial).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from scipy.special import erfcx

from popstats.inference.density_op import DensityOp

__all__ = ["NOISES", "RowLogDensity", "log_density", "pack_rows"]

FloatArray = npt.NDArray[np.float64]

#: Noise distributions by name, in the code of the compiled function.
NOISES = {"student": 0, "frontier": 1}
#: Rows taken at a time: a block of all columns fits the second-level cache, one of a few vectors the first.
_BLOCK = 256
#: Factors multiplied before a logarithm is taken: with each below 1e38 the product stays finite.
_FACTORS = 8
#: Shepherd and Laframboise's map of [0, inf) to [-1, 1), u = (t - 3.75) / (t + 3.75), and the degree from which
#: the polynomial has 14 digits.
_FOLD = 3.75
_DEGREE = 20
_ROOT_HALF = math.sqrt(0.5)
_ROOT_TWO_OVER_PI = math.sqrt(2.0 / math.pi)
#: Sums may be reordered, so that they run in vector registers; nothing else of the arithmetic is loosened.
_SIMD = {"reassoc", "contract"}


def _erfcx_polynomial() -> FloatArray:
    """Return the coefficients, lowest first, of (1 + 2 t) erfcx(t) in u."""

    def folded(u: Any) -> Any:
        t = _FOLD * (1.0 + u) / (1.0 - np.minimum(u, 1.0 - 1e-16))
        return (1.0 + 2.0 * t) * erfcx(t)

    chebyshev = np.polynomial.chebyshev.chebinterpolate(folded, _DEGREE)
    return np.asarray(np.polynomial.chebyshev.cheb2poly(chebyshev))


_POLYNOMIAL = _erfcx_polynomial()


@numba.njit(cache=True)
def _sum_of_logs(values: Any) -> float:
    """Return the sum of the logs of positive `values`, one logarithm for every eight of them."""
    total = 0.0
    for start in range(0, values.size, _FACTORS):
        product = 1.0
        for i in range(start, min(start + _FACTORS, values.size)):
            product *= values[i]
        total += math.log(product)
    return total


@numba.njit(cache=True, fastmath=_SIMD)
def _residuals(e: Any, columns: Any, coefficients: Any) -> None:
    """Subtract the curve from the drops `e`, in place."""
    for j in range(coefficients.size):
        for i in range(e.size):
            e[i] -= columns[j, i] * coefficients[j]


@numba.njit(cache=True, fastmath=_SIMD)
def _project(by_coefficients: Any, columns: Any, by_e: Any) -> None:
    """Add the chain rule's part of one block to the gradient by the coefficients."""
    for j in range(by_coefficients.size):
        total = 0.0
        for i in range(by_e.size):
            total += columns[j, i] * by_e[i]
        by_coefficients[j] -= total


@numba.njit(cache=True, fastmath=_SIMD)
def _frontier(e: Any, precision: Any, tau: float) -> tuple[float, float, float]:
    """Return a block's log density and its derivatives by log scale and log tau; `e` becomes that by e.

    `precision` is 1 / s. What tau alone decides is left to the caller.
    """
    t, decay, tail = np.empty(e.size), np.empty(e.size), np.empty(e.size)
    for i in range(e.size):
        t[i] = -_ROOT_HALF * (e[i] * precision[i] - 1.0 / (precision[i] * tau))
    for i in range(e.size):
        decay[i] = math.exp(-(min(t[i], 0.0) ** 2))
    _scaled_tail(t, tail)
    value, by_scale, by_tau = 0.0, 0.0, 0.0
    for i in range(e.size):
        z, ratio, left = e[i] * precision[i], 1.0 / (precision[i] * tau), min(t[i], 0.0)
        # erfcx(-t) = 2 exp(t^2) - erfcx(t): left of zero exp(t^2), which overflows, is taken out.
        tail[i] = tail[i] if t[i] >= 0.0 else 2.0 - tail[i] * decay[i]
        mills = _ROOT_TWO_OVER_PI * decay[i] / tail[i]
        value += left * left - 0.5 * z * z
        by_scale += ratio * ratio - mills * (z + ratio)
        by_tau += e[i] / tau - ratio * ratio + mills * ratio
        e[i] = mills * precision[i] - 1.0 / tau
    return value + _sum_of_logs(tail), by_scale, by_tau


@numba.njit(cache=True, fastmath=_SIMD)
def _scaled_tail(t: Any, out: Any) -> None:
    """Write erfcx(|t|) to `out`."""
    u = np.empty(t.size)
    for i in range(t.size):
        u[i] = (abs(t[i]) - _FOLD) / (abs(t[i]) + _FOLD)
        out[i] = _POLYNOMIAL[_DEGREE]
    for d in range(_DEGREE - 1, -1, -1):
        for i in range(t.size):
            out[i] = out[i] * u[i] + _POLYNOMIAL[d]
    for i in range(t.size):
        out[i] /= 1.0 + 2.0 * abs(t[i])


@numba.njit(cache=True, fastmath=_SIMD)
def _student(e: Any, precision: Any, nu: float) -> tuple[float, float]:
    """Return a block's sums of log(1 + z^2 / nu) and of its pull, (nu + 1) z^2 / (nu + z^2).

    `e` becomes the derivative by e.
    """
    growth = np.empty(e.size)
    pulls = 0.0
    for i in range(e.size):
        z = e[i] * precision[i]
        growth[i] = 1.0 + z * z / nu
        pull = (nu + 1.0) / (nu * growth[i])
        pulls += pull * z * z
        e[i] = -pull * z * precision[i]
    return _sum_of_logs(growth), pulls


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
    """Return all rows as one vector: kind, sizes, where each regime starts, drops, precisions, columns.

    Parameters
    ----------
    kind : {"student", "frontier"}
    starts : numpy.ndarray, shape (K + 1,)
        First row of each regime; rows are sorted by regime.
    design, drop, relative : numpy.ndarray, shapes (n, p), (n,), (n,)
        Design matrix, drops and relative standard deviations, in units of each regime's scale.
    """
    head = np.array([NOISES[kind], drop.size, design.shape[1]], dtype=np.float64)
    ends = starts.astype(np.intp).tolist()
    blocks = [
        design[a : min(a + _BLOCK, end)].T.ravel()
        for start, end in pairwise(ends)
        for a in range(start, end, _BLOCK)
    ]
    return np.concatenate([head, starts, drop, 1.0 / relative, *blocks])


@numba.njit(cache=True)
def _regime(drop: Any, precision: Any, blocks: Any, coefficients: Any, shape: float, frontier: bool) -> Any:
    """Return one regime's log density and its derivatives by the coefficients, log noise and log shape."""
    n, p = drop.size, coefficients.size
    by_coefficients = np.zeros(p)
    value, by_noise, by_shape, logs = 0.0, 0.0, 0.0, 0.0
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        columns = blocks[start * p : end * p].reshape((p, end - start))
        e = drop[start:end].copy()
        _residuals(e, columns, coefficients)
        if frontier:
            v, s, t = _frontier(e, precision[start:end], shape)
            value, by_noise, by_shape = value + v, by_noise + s, by_shape + t
        else:
            g, s = _student(e, precision[start:end], shape)
            logs, by_noise = logs + g, by_noise + s
        _project(by_coefficients, columns, e)
    if frontier:
        return value - n * math.log(2.0 * shape), by_coefficients, by_noise, by_shape - n
    constant, slope = _student_shape(shape)
    value = n * constant - 0.5 * (shape + 1.0) * logs + _sum_of_logs(precision)
    by_shape = shape * (n * slope - 0.5 * logs) + 0.5 * by_noise
    return value, by_coefficients, by_noise - n, by_shape


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
    frontier, n = packed[0] == 1.0, int(packed[1])
    first = 3 + regimes + 1
    value = 0.0
    by_coefficients = np.zeros((regimes, p))
    by_noise, by_shape = np.zeros(regimes), np.zeros(regimes)
    for k in range(regimes):
        start, end = int(packed[3 + k]), int(packed[4 + k])
        precision = packed[first + n + start : first + n + end] / math.exp(log_noise[k])
        blocks = packed[first + 2 * n + start * p : first + 2 * n + end * p]
        v, by_coefficients[k], by_noise[k], by_shape[k] = _regime(
            packed[first + start : first + end],
            precision,
            blocks,
            coefficients[k],
            math.exp(log_shape[k]),
            frontier,
        )
        value += v
    return np.asarray(value), by_coefficients, by_noise, by_shape


class RowLogDensity(DensityOp):
    """Inputs: coefficients (K, p), log noise (K,), log shape (K,), packed rows; see `log_density`."""

    density = staticmethod(log_density)
    differentiable = 3
