r"""The log density of recipes about their curves for noise that is not normal, with its gradient.

With residual e, noise scale s (the recipe's, after its replicates and weight), z = e / s and
h(x) = phi(x) / Phi(x):

* ``student``: Student-t with nu degrees of freedom and scale s;
* ``frontier``: normal plus exponential with mean tau,

  .. math:: \log p(e) = -\log(2\tau) - \frac{z^2}{2} + \log\mathrm{erfcx}\Bigl(-\frac{x}{\sqrt2}\Bigr),
            \qquad x = z - \frac{s}{\tau},

  in this scaled form because the textbook one, exp(s^2 / (2 tau^2) - e / tau) Phi(x), overflows where tau is
  small, and its logarithm loses all digits there.

Every row enters every evaluation, so rows are taken in blocks that stay in the processor's cache, and no inner
loop holds a branch or a library call that would keep it out of vector registers: logarithms are taken of products,
and erfcx is one polynomial. The sines of a block are made anew each time, by the recurrence of `curves`: to read
twenty columns from memory takes longer.

All compiled functions stand in this one file because numba's cache on disk does not see changes in another one.

References
----------
Aigner, Lovell and Schmidt (1977), doi:10.1016/0304-4076(77)90052-5 (the stochastic frontier); Shepherd and
Laframboise (1981), doi:10.1090/S0025-5718-1981-0595058-X (erfcx on the whole half-line as one polynomial).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numba import carray  # type: ignore[attr-defined]
from scipy.special import erfcx

from popstats.arrays import FloatArray
from popstats.inference.data import RegimeData, StandardRows
from popstats.inference.model import fill_design
from popstats.inference.sampling import DENSITY

#: Noise distributions by name, in the code of the compiled function.
NOISES = {"student": 0, "frontier": 1}
#: Rows taken at a time: the sines of a block fit the first-level cache.
_BLOCK = 128
#: What is kept of a row besides its techniques: drop, precision, c, first sine, twice its cosine, u.
_KEPT = 6
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
#: Its two halves: loops short enough to be unrolled stay in vector registers.
_SPLIT = 11
_LOWER, _UPPER = _POLYNOMIAL[:_SPLIT].copy(), _POLYNOMIAL[_SPLIT:].copy()
#: exp(-s) = p(s / 128)^128 with the first terms of its series; 0 in double precision's company from s = 40 on.
_EXPONENTIAL = np.array([(-1.0) ** k / math.factorial(k) for k in range(12)])
_LARGEST = 40.0


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
def _residuals(
    e: Any, sines: Any, twice_cosine: Any, unit: Any, distance: Any, beta: Any, fixed: int
) -> None:
    """Subtract the curve from the drops `e`, in place; complete the block's `sines`, whose first is given."""
    level, slope, bend, line = beta[0], beta[1], beta[2], beta[-1]
    first, second = beta[fixed], beta[fixed + 1]
    for i in range(e.size):
        sines[1, i] = twice_cosine[i] * sines[0, i]
    for i in range(e.size):
        c = distance[i]
        e[i] -= level + c * (slope + c * bend) + line * unit[i] + first * sines[0, i] + second * sines[1, i]
    last = beta.size - fixed - 1
    # Three at a time: fewer of them travel between registers and memory.
    for j in range(2, last - 2, 3):
        w, v, u = beta[fixed + j], beta[fixed + j + 1], beta[fixed + j + 2]
        for i in range(e.size):
            twice, before, one = twice_cosine[i], sines[j - 2, i], sines[j - 1, i]
            two = twice * one - before
            three = twice * two - one
            four = twice * three - two
            sines[j, i], sines[j + 1, i], sines[j + 2, i] = two, three, four
            e[i] -= w * two + v * three + u * four
    for j in range(last - (last - 2) % 3, last):
        for i in range(e.size):
            sines[j, i] = twice_cosine[i] * sines[j - 1, i] - sines[j - 2, i]
            e[i] -= beta[fixed + j] * sines[j, i]


@numba.njit(cache=True, fastmath=_SIMD)
def _project(by_beta: Any, by_e: Any, sines: Any, unit: Any, distance: Any, fixed: int) -> None:
    """Add the chain rule's part of one block to the gradient by the coefficients."""
    level, slope, bend, line = 0.0, 0.0, 0.0, 0.0
    for i in range(by_e.size):
        along = by_e[i] * distance[i]
        level += by_e[i]
        slope += along
        bend += along * distance[i]
        line += by_e[i] * unit[i]
    by_beta[0] -= level
    by_beta[1] -= slope
    by_beta[2] -= bend
    by_beta[by_beta.size - 1] -= line
    for j in range(by_beta.size - fixed - 1):
        total = 0.0
        for i in range(by_e.size):
            total += sines[j, i] * by_e[i]
        by_beta[fixed + j] -= total


@numba.njit(cache=True, fastmath=_SIMD)
def _scaled(out: Any, values: Any, factor: float) -> None:
    for i in range(out.size):
        out[i] = factor * values[i]


@numba.njit(cache=True, fastmath=_SIMD)
def _subtract(out: Any, values: Any, factor: float) -> None:
    for i in range(out.size):
        out[i] -= factor * values[i]


@numba.njit(cache=True, fastmath=_SIMD)
def _dot(a: Any, b: Any) -> float:
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@numba.njit(cache=True, fastmath=_SIMD)
def _frontier(e: Any, precision: Any, tau: float) -> tuple[float, float, float]:
    """Return a block's log density and its derivatives by log scale and log tau; `e` becomes that by e.

    `precision` is 1 / s. What tau alone decides is left to the caller.
    """
    t, ratio, decay, tail = np.empty(e.size), np.empty(e.size), np.empty(e.size), np.empty(e.size)
    inverse = 1.0 / tau
    for i in range(e.size):
        ratio[i] = inverse / precision[i]
        t[i] = -_ROOT_HALF * (e[i] * precision[i] - ratio[i])
    _decay(t, decay)
    _scaled_tail(t, tail)
    value, by_scale, by_tau = 0.0, 0.0, 0.0
    for i in range(e.size):
        z, left = e[i] * precision[i], min(t[i], 0.0)
        # erfcx(-t) = 2 exp(t^2) - erfcx(t): left of zero exp(t^2), which overflows, is taken out.
        tail[i] = tail[i] if t[i] >= 0.0 else 2.0 - tail[i] * decay[i]
        mills = _ROOT_TWO_OVER_PI * decay[i] / tail[i]
        value += left * left - 0.5 * z * z
        by_scale += ratio[i] * ratio[i] - mills * (z + ratio[i])
        by_tau += e[i] * inverse - ratio[i] * ratio[i] + mills * ratio[i]
        e[i] = mills * precision[i] - inverse
    return value + _sum_of_logs(tail), by_scale, by_tau


@numba.njit(cache=True, fastmath=_SIMD)
def _decay(t: Any, out: Any) -> None:
    """Write exp(-t^2) for negative t, else 1, to `out`: the library's function would be called once a row."""
    for i in range(t.size):
        left = min(t[i], 0.0)
        s = min(left * left, _LARGEST) / 128.0
        value = _EXPONENTIAL[11]
        for d in range(10, -1, -1):
            value = value * s + _EXPONENTIAL[d]
        for _ in range(7):
            value *= value
        out[i] = value


@numba.njit(cache=True, fastmath=_SIMD)
def _scaled_tail(t: Any, out: Any) -> None:
    """Write erfcx(|t|) to `out`."""
    u = np.empty(t.size)
    for i in range(t.size):
        right, slope = abs(t[i]) + _FOLD, 1.0 + 2.0 * abs(t[i])
        inverse = 1.0 / (right * slope)
        u[i], out[i] = (abs(t[i]) - _FOLD) * slope * inverse, right * inverse
    for i in range(t.size):
        lower, upper, square = _LOWER[_SPLIT - 1], _UPPER[_DEGREE - _SPLIT], u[i] * u[i]
        for d in range(_SPLIT - 2, -1, -1):
            lower = lower * u[i] + _LOWER[d]
        for d in range(_DEGREE - _SPLIT - 1, -1, -1):
            upper = upper * u[i] + _UPPER[d]
        out[i] *= lower + square * square * square * square * square * u[i] * upper


@numba.njit(cache=True, fastmath=_SIMD)
def _student(e: Any, precision: Any, nu: float) -> tuple[float, float]:
    """Return a block's sums of log(1 + z^2 / nu) and of its pull, (nu + 1) z^2 / (nu + z^2).

    `e` becomes the derivative by e.
    """
    growth = np.empty(e.size)
    total, inverse = 0.0, 1.0 / nu
    for i in range(e.size):
        z = e[i] * precision[i]
        growth[i] = 1.0 + z * z * inverse
        pull = z / growth[i]
        total += pull * z
        e[i] = pull * precision[i]
    strength = (nu + 1.0) * inverse
    for i in range(e.size):
        e[i] *= -strength
    return _sum_of_logs(growth), strength * total


@numba.njit(cache=True)
def _student_shape(nu: float) -> tuple[float, float]:
    """Return the part of the Student-t log density that depends on nu alone, and its derivative by nu."""
    value = math.lgamma(0.5 * (nu + 1.0)) - math.lgamma(0.5 * nu) - 0.5 * math.log(nu * math.pi)
    step = 1e-4 * nu
    above = math.lgamma(0.5 * (nu + step + 1.0)) - math.lgamma(0.5 * (nu + step)) - 0.5 * math.log(nu + step)
    below = math.lgamma(0.5 * (nu - step + 1.0)) - math.lgamma(0.5 * (nu - step)) - 0.5 * math.log(nu - step)
    return value, (above - below) / (2.0 * step)


def pack_rows(
    kind: str, regimes: Sequence[RegimeData], rows: Sequence[StandardRows], relative: Sequence[FloatArray]
) -> FloatArray:
    """Return all rows as one vector.

    Layout: kind, rows n, regimes K, fixed terms f; where each regime starts (K + 1); sums of its log precisions (K);
    which fixed terms it can tell apart (K, f); then drops, precisions, c, first sines, twice their cosines, u and
    techniques, n each.
    """
    # relative (n_k,)
    fixed = len(regimes[0].fixed)
    starts = np.cumsum([0, *(r.drop.size for r in rows)])
    kept = np.concatenate([_kept(r, fixed) for r in rows], axis=1)
    kept[1] = 1.0 / np.concatenate(relative)
    head = np.array([NOISES[kind], kept.shape[1], len(regimes), fixed], dtype=np.float64)
    logs = [-np.log(values).sum() for values in relative]
    present = np.array([r.fixed for r in regimes], dtype=np.float64)
    return np.concatenate([head, starts, logs, present.ravel(), kept.ravel()])


def _kept(rows: StandardRows, fixed: int) -> FloatArray:
    """Return what the compiled function needs of the rows, precisions left open, shape (_KEPT + T, n)."""
    columns = np.empty((rows.design(slice(0)).shape[1], rows.drop.size))
    twice_cosine = fill_design(columns, rows.unit, rows.distance, rows.technique)
    sine, empty = columns[fixed], np.empty_like(rows.drop)
    return np.stack([rows.drop, empty, rows.distance, sine, twice_cosine, rows.unit, *rows.technique.T])


@numba.njit(cache=True)
def _regime(
    kept: Any, n: int, start: int, end: int, present: Any, coefficients: Any, noise: float, shape: float,
    frontier: bool, by_beta: Any,
) -> Any:  # fmt: skip
    """Write one regime's gradient by the coefficients; return log density and derivatives by log noise, log shape."""
    fixed, techniques = present.size, present.size - 3
    beta = coefficients.copy()
    beta[:fixed] *= present
    by_beta[:] = 0.0
    sines = np.empty((beta.size - fixed - 1, _BLOCK))
    precision, e = np.empty(_BLOCK), np.empty(_BLOCK)
    value, by_noise, by_shape, logs = 0.0, 0.0, 0.0, 0.0
    for a in range(start, end, _BLOCK):
        z = min(a + _BLOCK, end)
        size, distance, unit = z - a, kept[2 * n + a : 2 * n + z], kept[5 * n + a : 5 * n + z]
        twice_cosine = kept[4 * n + a : 4 * n + z]
        _scaled(e[:size], kept[a:z], 1.0)
        _scaled(precision[:size], kept[n + a : n + z], 1.0 / noise)
        _scaled(sines[0, :size], kept[3 * n + a : 3 * n + z], 1.0)
        for t in range(techniques):
            first = (_KEPT + t) * n
            _subtract(e[:size], kept[first + a : first + z], beta[3 + t])
        _residuals(e[:size], sines, twice_cosine, unit, distance, beta, fixed)
        if frontier:
            v, s, by_tau = _frontier(e[:size], precision[:size], shape)
            value, by_noise, by_shape = value + v, by_noise + s, by_shape + by_tau
        else:
            g, s = _student(e[:size], precision[:size], shape)
            logs, by_noise = logs + g, by_noise + s
        _project(by_beta, e[:size], sines, unit, distance, fixed)
        for t in range(techniques):
            first = (_KEPT + t) * n
            by_beta[3 + t] -= _dot(e[:size], kept[first + a : first + z])
    by_beta[:fixed] *= present
    n_regime = end - start
    if frontier:
        return value - n_regime * math.log(2.0 * shape), by_noise, by_shape - n_regime
    constant, slope = _student_shape(shape)
    value = n_regime * (constant - math.log(noise)) - 0.5 * (shape + 1.0) * logs
    by_shape = shape * (n_regime * slope - 0.5 * logs) + 0.5 * by_noise
    return value, by_noise - n_regime, by_shape


@numba.njit(cache=True)
def _log_density(
    coefficients: Any,
    log_noise: Any,
    log_shape: Any,
    packed: Any,
    by_coefficients: Any,
    by_noise: Any,
    by_shape: Any,
) -> float:
    """Write the gradients and return the log density; see `log_density`."""
    frontier, n, regimes, fixed = packed[0] == 1.0, int(packed[1]), int(packed[2]), int(packed[3])
    first = 5 + 2 * regimes
    kept = packed[first + regimes * fixed :]
    value = 0.0
    for k in range(regimes):
        present = packed[first + k * fixed : first + (k + 1) * fixed]
        start, end = int(packed[4 + k]), int(packed[5 + k])
        noise, shape = math.exp(log_noise[k]), math.exp(log_shape[k])
        v, by_noise[k], by_shape[k] = _regime(
            kept, n, start, end, present, coefficients[k], noise, shape, frontier, by_coefficients[k]
        )
        value += v if frontier else v + packed[5 + regimes + k]
    return value


def log_density(coefficients: Any, log_noise: Any, log_shape: Any, packed: Any) -> Any:
    """Return the log density of all rows and its gradients."""
    # coefficients (K, p); log_noise (K,); log_shape (K,)
    by_coefficients = np.empty(coefficients.shape)
    by_noise, by_shape = np.empty(log_noise.size), np.empty(log_noise.size)
    value = _log_density(coefficients, log_noise, log_shape, packed, by_coefficients, by_noise, by_shape)
    return np.asarray(value), by_coefficients, by_noise, by_shape


@numba.njit(cache=True, error_model="numpy")
def _softplus(x: float) -> tuple[float, float]:
    """Return log(1 + exp(x)) and its derivative."""
    decay = math.exp(-abs(x))
    return max(x, 0.0) + math.log1p(decay), (1.0 if x > 0.0 else decay) / (1.0 + decay)


@numba.njit(cache=True, error_model="numpy")
def _scales(frontier: bool, a: Any, b: Any, log_noise: Any, log_shape: Any) -> float:
    """Write log noise and log shape from the walked pairs; return what student's degrees of freedom add."""
    value = 0.0
    for k in range(a.size):
        if frontier:
            log_noise[k], log_shape[k] = a[k] - 0.5 * _softplus(b[k])[0], a[k] - 0.5 * _softplus(-b[k])[0]
        else:
            log_noise[k], log_shape[k] = a[k], _softplus(b[k])[0]
            value += 2.0 * b[k] - 0.1 * math.exp(b[k])
    return value


@numba.njit(cache=True, error_model="numpy")
def _by_pairs(frontier: bool, b: Any, by_noise: Any, by_shape: Any) -> None:
    """Turn the gradient by log noise and log shape, in place, into that by `_scales`'s walked pairs."""
    for k in range(b.size):
        share = _softplus(b[k])[1]
        if frontier:
            to_a = by_noise[k] + by_shape[k]
            to_b = 0.5 * ((1.0 - share) * by_shape[k] - share * by_noise[k])
            by_noise[k], by_shape[k] = to_a, to_b
        else:
            by_shape[k] = share * by_shape[k] + 2.0 - 0.1 * math.exp(b[k])


@numba.njit(cache=True, error_model="numpy")
def _add_log_prior(
    common: float, priors: Any, frontier: bool, log_noise: Any, log_shape: Any, by_noise: Any, by_shape: Any
) -> tuple[float, float]:
    """Add the gradient of the priors of noise and excess; return their log density and its slope by `common`."""
    common_sd, own_sd, excess_sd = priors[1], priors[2], priors[4]
    away = (common - priors[0]) / common_sd
    value, by_common = -0.5 * away * away, -away / common_sd
    for k in range(log_noise.size):
        own = (log_noise[k] - common) / own_sd
        value -= 0.5 * own * own
        by_noise[k] -= own / own_sd
        by_common += own / own_sd
        if frontier:
            excess = (log_shape[k] - priors[3]) / excess_sd
            value -= 0.5 * excess * excess
            by_shape[k] -= excess / excess_sd
    return value, by_common


@numba.njit(cache=True, error_model="numpy", inline="always")
def log_row_posterior(x: Any, data: Any, by_x: Any) -> float:
    """Return the log posterior density of the sampler's coordinates, up to a constant, and write its gradient."""
    # x, by_x (1 + 2 K + K p,)
    regimes, p, basis = int(data[1]), int(data[2]), int(data[3])
    priors, scales, size = data[4:9], 1 + 2 * regimes, regimes * p
    start = 9 + 2 * scales
    centre = data[start : start + size].reshape((regimes, p))
    prior = data[start + size : start + 2 * size].reshape((regimes, p))
    root = data[start + 2 * size : start + (2 + p) * size].reshape((regimes, p, p))
    start += (2 + p) * size
    precision = data[start : start + regimes * basis].reshape((regimes, basis))
    packed = data[start + regimes * basis :]
    frontier = packed[0] == 1.0
    walked = data[9 : 9 + scales] + data[9 + scales : 9 + 2 * scales] * x[:scales]
    a, b, z = walked[1 : 1 + regimes], walked[1 + regimes :], x[scales:].reshape((regimes, p))
    log_noise, log_shape = np.empty(regimes), np.empty(regimes)
    value = _scales(frontier, a, b, log_noise, log_shape)
    beta = centre.copy()
    for k in range(regimes):
        for i in range(p):
            value -= 0.5 * prior[k, i] * z[k, i] ** 2
            for j in range(i + 1):
                beta[k, i] += root[k, i, j] * z[k, j]
        if frontier:
            beta[k, 0] -= math.exp(log_shape[k])
    by_beta, by_noise, by_shape = np.empty((regimes, p)), np.empty(regimes), np.empty(regimes)
    value += _log_density(beta, log_noise, log_shape, packed, by_beta, by_noise, by_shape)
    for k in range(regimes):
        for j in range(basis):
            pull = precision[k, j] * beta[k, p - basis + j]
            value -= 0.5 * pull * beta[k, p - basis + j]
            by_beta[k, p - basis + j] -= pull
        if frontier:
            by_shape[k] -= math.exp(log_shape[k]) * by_beta[k, 0]
    added, by_x[0] = _add_log_prior(walked[0], priors, frontier, log_noise, log_shape, by_noise, by_shape)
    _by_pairs(frontier, b, by_noise, by_shape)
    by_x[1 : 1 + regimes] = by_noise
    by_x[1 + regimes : scales] = by_shape
    by_x[:scales] *= data[9 + scales : 9 + 2 * scales]
    for k in range(regimes):
        for j in range(p):
            total = -prior[k, j] * z[k, j]
            for i in range(j, p):
                total += root[k, i, j] * by_beta[k, i]
            by_x[scales + k * p + j] = total
    return value + added


def _c_log_row_posterior(dimension: Any, x: Any, by_x: Any, value: Any, data: Any) -> int:
    gradient = carray(by_x, (dimension,))
    size = int(carray(data, (1,), np.float64)[0])
    density = log_row_posterior(carray(x, (dimension,)), carray(data, (size,), np.float64), gradient)
    carray(value, (1,))[0] = density
    finite = np.isfinite(density)
    for i in range(dimension):
        finite = finite and np.isfinite(gradient[i])
    return 0 if finite else 1


@lru_cache(maxsize=1)
def compiled_row_posterior() -> Any:
    """Return `log_row_posterior` as the C function that the sampler calls: compiled once a machine, then read back."""
    return numba.cfunc(DENSITY, cache=True)(_c_log_row_posterior)
