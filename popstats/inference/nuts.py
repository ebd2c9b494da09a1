"""`method="nuts"` with normal noise: hyperparameters of all regimes by NUTS, then exact draws of the coefficients.

The posterior is the one of the PyMC model in `models`. The sampler walks in coordinates that are nearly
independent and of unit scale: each regime's exact posterior (`exact`) gives their centre and scale, so that
tuning has little left to learn and a draw takes seven steps of the integrator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gamma
from typing import Any

import numba
import numpy as np
from numba import carray  # type: ignore[attr-defined]

from popstats.arrays import FloatArray
from popstats.inference.data import CrossProducts, RegimeData
from popstats.inference.draws import Draws
from popstats.inference.exact import draw_coefficients, draw_regime
from popstats.inference.model import Priors, frequencies
from popstats.inference.sampling import DENSITY, Chains, sample_compiled, say

#: Exact draws a regime from which the coordinates are made: their covariance is off by some 5 %.
_PILOT_DRAWS = 800


#: Steps of the exact method's grid over log length scale and log amplitude: draws on a grid are at least as
#: uncertain as its cells are wide.
_GRID_STEPS = (0.19, 0.27)


@dataclass(frozen=True)
class Coordinates:
    """Where the sampler walks: walked[:, k] = centre[:, k] + root[k] @ z of regime k.

    Walked are log length scale, log amplitude and log noise; with replicates log sd of seeds and log sd of recipes in
    the place of the noise: the data know these two apart, however well they know one of them, while noise and seed
    share then lie on a curved ridge.
    """

    centre: FloatArray  # (4, K)
    root: FloatArray  # (K, 4, 4); Lower triangular.
    sizes: tuple[int, ...]  # Coordinates of each regime: 4, or 3 without replicates.

    @property
    def dimension(self) -> int:
        """Coordinates in all."""
        return sum(self.sizes)

    @classmethod
    def of(cls, regimes: Sequence[RegimeData], priors: Priors) -> Coordinates:
        """Standardise by each regime's exact posterior."""
        sizes = tuple(4 if r.products.has_replicates else 3 for r in regimes)
        centre, root = np.zeros((4, len(regimes))), np.zeros((len(regimes), 4, 4))
        for k, (regime, size) in enumerate(zip(regimes, sizes, strict=True)):
            drawn = draw_regime(regime, priors, _PILOT_DRAWS, np.random.default_rng([k, 6]))
            columns = [np.log(drawn.length_scale), np.log(drawn.amplitude), np.log(drawn.noise)]
            if size == len(PARAMETERS):
                columns.append(columns[2] + 0.5 * np.log1p(-drawn.seed_share))
                columns[2] = columns[2] + 0.5 * np.log(drawn.seed_share)
            covariance = np.cov(columns) + 1e-9 * np.eye(size)
            covariance[[0, 1], [0, 1]] += np.square(_GRID_STEPS) / 12.0
            centre[:size, k] = np.mean(columns, axis=1)
            root[k, :size, :size] = np.linalg.cholesky(covariance)
        return cls(centre, root, sizes)

    def to_parameters(self, z: FloatArray) -> FloatArray:
        """Return the hyperparameters (`PARAMETERS`), (..., dimension) -> (..., 4, K)."""
        padded = np.zeros((*z.shape[:-1], len(self.sizes), len(PARAMETERS)))
        start = 0
        for k, size in enumerate(self.sizes):
            padded[..., k, :size] = z[..., start : start + size]
            start += size
        found = self.centre + np.einsum("kij,...kj->...ik", self.root, padded)
        apart = np.array(self.sizes) == len(PARAMETERS)
        seeds, recipes = found[..., 2, apart], found[..., 3, apart]
        found[..., 2, apart] = 0.5 * np.logaddexp(2.0 * seeds, 2.0 * recipes)
        found[..., 3, apart] = 2.0 * (seeds - recipes)
        return np.asarray(found)


def pack_posterior(regimes: Sequence[RegimeData], priors: Priors, coordinates: Coordinates) -> FloatArray:
    """Return all that the compiled density of the coordinates needs, as one vector.

    Layout: size of the vector, regimes K, pooling, medians and spreads of the log priors (3 each), sizes (K),
    centre (4, K), root (K, 4, 4), then `pack`.
    """
    pairs = np.array([priors.length_scale, priors.amplitude, priors.noise])
    vector = np.concatenate([
        [0.0, len(regimes), priors.pooling], np.log(pairs[:, 0]), pairs[:, 1],
        np.array(coordinates.sizes, dtype=np.float64), coordinates.centre.ravel(), coordinates.root.ravel(),
        pack(regimes),
    ])  # fmt: skip
    vector[0] = vector.size
    return vector


def sample_nuts(
    regimes: Sequence[RegimeData],
    priors: Priors,
    chains: Chains,
    progress: bool | None = None,
) -> Draws:
    """Sample the hyperparameters by NUTS and draw the coefficients exactly given them."""
    say(progress, "loading the compiled model (compiling it, for some seconds, the first time on a machine)")
    density = compiled_posterior()
    coordinates = Coordinates.of(regimes, priors)
    say(progress, f"sampling {chains.number} chains")
    data = pack_posterior(regimes, priors, coordinates)
    raw = sample_compiled(density, data, coordinates.dimension, chains)
    parameters = coordinates.to_parameters(raw.positions)
    length_scale, amplitude, noise = np.exp(np.moveaxis(parameters[:, :, :3], 2, 0))
    share = 1.0 / (1.0 + np.exp(-parameters[:, :, 3]))
    share[:, :, np.array(coordinates.sizes) < len(PARAMETERS)] = 0.0
    rng = np.random.default_rng([chains.seed, 5])
    coefficients = [
        draw_coefficients(r, length_scale[:, :, k], amplitude[:, :, k], noise[:, :, k], share[:, :, k], rng)
        for k, r in enumerate(regimes)
    ]
    return Draws(
        length_scale=length_scale,
        amplitude=amplitude,
        noise=noise,
        seed_share=share,
        coefficients=np.stack(coefficients, axis=2),
        statistics=raw.statistics,
        edge_probability=np.zeros(len(regimes)),
    )


#: Hyperparameters of a regime, the rows of `parameters` everywhere: log length scale (half-ranges), log
#: amplitude, log noise (units of the regime's scale), logit of the seed share.
PARAMETERS = ("log_length_scale", "log_amplitude", "log_noise", "logit_seed_share")


#: Sums may be reordered, so that they run in vector registers; nothing else of the arithmetic is loosened.
_SIMD = {"reassoc", "contract"}


#: Matern process of smoothness 7/4: S(w) = _MATERN l^-7/2 (7 / (2 l^2) + w^2)^-9/4, see `curves`.
_MATERN = 2.0 * np.sqrt(np.pi) * 3.5**1.75 * gamma(2.25) / gamma(1.75)


def pack(regimes: Sequence[RegimeData]) -> FloatArray:
    """Return the data of all regimes as one vector, which a C function can be handed.

    Layout: strata S, regimes K, fixed columns f (0 where they are projected out), sines and their frequencies;
    then replicates, count, y'y (S, K each), X'y (S, p, K), X'X (S, p, p, K), within, its degrees of freedom
    (K each), which fixed columns are missing (f, K). Strata that a regime lacks have count 0.
    """
    products = [(r.cross_products, r.fixed) for r in regimes if r.cross_products is not None]
    strata = max(c.count.size for c, _ in products)
    single = strata == 1
    parts = [_without_fixed(c, fixed) if single else c for c, fixed in products]

    def side_by_side(name: str, fill: float = 0.0) -> FloatArray:
        arrays = [getattr(c, name) for c in parts]
        out = np.full((strata, *arrays[0].shape[1:], len(arrays)), fill)
        for k, array in enumerate(arrays):
            out[: array.shape[0], ..., k] = array
        return out.ravel()

    omega = frequencies()
    missing = 1.0 - np.array([fixed for _, fixed in products], dtype=np.float64).T
    terms = 0 if single else len(missing)
    head = [strata, len(parts), terms, omega.size, *omega]
    return np.concatenate([
        np.array(head, dtype=np.float64), side_by_side("replicates", 1.0),
        *(side_by_side(name) for name in ("count", "yy", "xy", "xx")),
        np.array([c.within for c in parts]), np.array([c.within_df for c in parts], dtype=np.float64),
        missing[:terms].ravel(),
    ])  # fmt: skip


def _without_fixed(c: CrossProducts, fixed: tuple[bool, ...]) -> CrossProducts:
    """Project the fixed terms out: cross-products of the curve's columns alone, fewer degrees of freedom."""
    f = len(fixed)
    xx, xy = c.xx[0], c.xy[0]
    design = np.concatenate([xx[:f, f:], xy[:f, None]], axis=1)
    solved = np.linalg.solve(xx[:f, :f] + np.diag(1.0 - np.array(fixed)), design)
    return CrossProducts(
        replicates=c.replicates,
        count=c.count - sum(fixed),
        xx=(xx[f:, f:] - xx[f:, :f] @ solved[:, :-1])[None],
        xy=(xy[f:] - xx[f:, :f] @ solved[:, -1])[None],
        yy=c.yy - xy[:f] @ solved[:, -1],
        within=c.within,
        within_df=c.within_df,
    )


@numba.njit(cache=True, fastmath=_SIMD, error_model="numpy")
def _factor(a: Any, inverse: Any) -> None:
    """Turn each `a[:, :, k]` into its Cholesky factor, reciprocals on the diagonal; write the factor's inverse.

    Lower triangles only.
    """
    p, _, regimes = a.shape
    for q in range(p):
        for k in range(regimes):
            a[q, q, k] = 1.0 / np.sqrt(a[q, q, k])
        for i in range(q + 1, p):
            for k in range(regimes):
                a[i, q, k] *= a[q, q, k]
        for i in range(q + 1, p):
            for j in range(q + 1, i + 1):
                for k in range(regimes):
                    a[i, j, k] -= a[i, q, k] * a[j, q, k]
    for i in range(p):
        for j in range(i):
            for k in range(regimes):
                inverse[i, j, k] = 0.0
        for q in range(i):
            for j in range(q + 1):
                for k in range(regimes):
                    inverse[i, j, k] -= a[i, q, k] * inverse[q, j, k]
        for j in range(i):
            for k in range(regimes):
                inverse[i, j, k] *= a[i, i, k]
        for k in range(regimes):
            inverse[i, i, k] = a[i, i, k]


@numba.njit(cache=True, fastmath=_SIMD, error_model="numpy")
def _precision(prior: Any, weight: Any, xx: Any, xy: Any, a: Any, b: Any) -> None:
    """Write A (lower triangles) and b of the module's formula; `weight` is 1 / v, shape (S, K)."""
    strata, p, regimes = xy.shape
    for i in range(p):
        for k in range(regimes):
            b[i, k] = weight[0, k] * xy[0, i, k]
        for j in range(i + 1):
            for k in range(regimes):
                a[i, j, k] = weight[0, k] * xx[0, i, j, k]
        for s in range(1, strata):
            for k in range(regimes):
                b[i, k] += weight[s, k] * xy[s, i, k]
            for j in range(i + 1):
                for k in range(regimes):
                    a[i, j, k] += weight[s, k] * xx[s, i, j, k]
        for k in range(regimes):
            a[i, i, k] += prior[i, k]


@numba.njit(cache=True, fastmath=_SIMD, error_model="numpy")
def _solve(inverse: Any, b: Any, beta: Any, variance: Any) -> None:
    """Write the coefficients' posterior means and variances, (p, K) each, from the factor's inverse."""
    p, regimes = b.shape
    half = np.zeros((p, regimes))
    beta[:, :] = 0.0
    variance[:, :] = 0.0
    for i in range(p):
        for j in range(i + 1):
            for k in range(regimes):
                half[i, k] += inverse[i, j, k] * b[j, k]
    for i in range(p):
        for j in range(i + 1):
            for k in range(regimes):
                beta[j, k] += inverse[i, j, k] * half[i, k]
                variance[j, k] += inverse[i, j, k] * inverse[i, j, k]


@numba.njit(cache=True, fastmath=_SIMD, error_model="numpy")
def _misfits(inverse: Any, beta: Any, weight: Any, xx: Any, xy: Any, yy: Any) -> Any:
    """Return each stratum's squared residuals over their variance, expected under the coefficients, (S, K)."""
    strata, p, regimes = xy.shape
    moments = np.zeros((p, p, regimes))
    for q in range(p):
        for i in range(q + 1):
            for j in range(i + 1):
                for k in range(regimes):
                    moments[i, j, k] += inverse[q, i, k] * inverse[q, j, k]
    misfit = weight * yy
    for s in range(strata):
        for i in range(p):
            for j in range(i + 1):
                twice = 1.0 if i == j else 2.0
                for k in range(regimes):
                    moment = moments[i, j, k] + beta[i, k] * beta[j, k]
                    misfit[s, k] += weight[s, k] * twice * moment * xx[s, i, j, k]
            for k in range(regimes):
                misfit[s, k] -= 2.0 * weight[s, k] * beta[i, k] * xy[s, i, k]
    return misfit


@numba.njit(cache=True, error_model="numpy")
def _scales(parameters: Any, replicates: Any) -> Any:
    """Return noise variances and seed shares, (K,) each, and the strata's precisions 1 / v, (S, K)."""
    strata, regimes = replicates.shape
    squared, share, weight = np.empty(regimes), np.empty(regimes), np.empty((strata, regimes))
    for k in range(regimes):
        squared[k] = np.exp(2.0 * parameters[2, k])
        share[k] = 1.0 / (1.0 + np.exp(-parameters[3, k]))
        for s in range(strata):
            weight[s, k] = 1.0 / (squared[k] * (1.0 - share[k] + share[k] / replicates[s, k]))
    return squared, share, weight


@numba.njit(cache=True, error_model="numpy")
def _prior_precision(parameters: Any, squared_frequency: Any, missing: Any) -> Any:
    """Return the coefficients' prior precisions (p, K), and 7 / (2 l^2) (K,)."""
    fixed, sines, regimes = missing.shape[0], squared_frequency.size, parameters.shape[1]
    prior, bend = np.empty((fixed + sines + 1, regimes)), np.empty(regimes)
    for k in range(regimes):
        bend[k] = 3.5 * np.exp(-2.0 * parameters[0, k])
        line = np.exp(-2.0 * parameters[1, k])
        scale = line * np.exp(3.5 * parameters[0, k]) / _MATERN
        for i in range(fixed):
            prior[i, k] = missing[i, k]
        for j in range(sines):
            sum_of_squares = bend[k] + squared_frequency[j]
            prior[fixed + j, k] = scale * sum_of_squares**2 * np.sqrt(np.sqrt(sum_of_squares))
        prior[fixed + sines, k] = line
    return prior, bend


@numba.njit(cache=True, fastmath=_SIMD, error_model="numpy")
def _curve_terms(
    prior: Any, bend: Any, squared_frequency: Any, root: Any, beta: Any, variance: Any, gradient: Any
) -> Any:
    """Write the gradient by length scale and amplitude; return log |D A| and the prior's pulls, (K,) each."""
    p, regimes = prior.shape
    fixed = p - squared_frequency.size - 1
    ratio, pulls = np.ones(regimes), np.zeros(regimes)
    gradient[:2] = 0.0
    for i in range(p):
        for k in range(regimes):
            pull = prior[i, k] * (variance[i, k] + beta[i, k] ** 2)
            pulls[k] += pull
            ratio[k] *= root[i, i, k] ** 2
            if i >= fixed:  # A exceeds the prior precision: no factor exceeds one
                ratio[k] *= prior[i, k]
                gradient[1, k] -= 1.0 - pull
            if fixed <= i < p - 1:
                bending = 4.5 * bend[k] / (bend[k] + squared_frequency[i - fixed]) - 3.5
                gradient[0, k] -= 0.5 * (1.0 - pull) * bending
    return -np.log(ratio), pulls


@numba.njit(cache=True, fastmath=_SIMD, error_model="numpy")
def _noise_terms(
    count: Any, replicates: Any, misfit: Any, runs: Any, squared: Any, share: Any, gradient: Any
) -> float:
    """Write the gradient by noise and share; return the part of the density that is theirs alone."""
    strata, regimes = count.shape
    value = 0.0
    gradient[2:] = 0.0
    for k in range(regimes):
        for s in range(strata):
            relative = 1.0 - share[k] + share[k] / replicates[s, k]
            surplus = count[s, k] - misfit[s, k]
            value -= 0.5 * count[s, k] * np.log(squared[k] * relative)
            gradient[2, k] -= surplus
            slope = (1.0 / replicates[s, k] - 1.0) / relative
            gradient[3, k] -= 0.5 * surplus * slope * share[k] * (1.0 - share[k])
        within, freedom = runs[0, k], runs[1, k]
        if freedom > 0.0:
            variance = share[k] * squared[k]
            surplus = freedom - within / variance
            value -= 0.5 * (freedom * np.log(variance) + within / variance)
            gradient[2, k] -= surplus
            gradient[3, k] -= 0.5 * surplus * (1.0 - share[k])
    return value


@numba.njit(cache=True, error_model="numpy")
def _unpack(packed: Any) -> Any:
    """Return the parts of `pack`'s vector as arrays: squared frequencies, then the order of its layout."""
    strata, regimes, fixed, sines = int(packed[0]), int(packed[1]), int(packed[2]), int(packed[3])
    p, start, size = fixed + sines + 1, 4 + sines, strata * regimes
    squared_frequency = packed[4:start] ** 2
    replicates = packed[start : start + size].reshape((strata, regimes))
    count = packed[start + size : start + 2 * size].reshape((strata, regimes))
    yy = packed[start + 2 * size : start + 3 * size].reshape((strata, regimes))
    start += 3 * size
    xy = packed[start : start + size * p].reshape((strata, p, regimes))
    start += size * p
    xx = packed[start : start + size * p * p].reshape((strata, p, p, regimes))
    start += size * p * p
    runs = packed[start : start + 2 * regimes].reshape((2, regimes))
    missing = packed[start + 2 * regimes :].reshape((fixed, regimes))
    return squared_frequency, replicates, count, yy, xy, xx, runs, missing


@numba.njit(cache=True, error_model="numpy", inline="always")
def _log_density(parameters: Any, packed: Any, gradient: Any) -> float:
    """Write the gradient (4, K) and return the log density; see `log_density`."""
    squared_frequency, replicates, count, yy, xy, xx, runs, missing = _unpack(packed)
    strata, p, regimes = xy.shape
    squared, share, weight = _scales(parameters, replicates)
    prior, bend = _prior_precision(parameters, squared_frequency, missing)
    a, inverse = np.empty((p, p, regimes)), np.empty((p, p, regimes))
    b, beta, variance = np.empty((p, regimes)), np.empty((p, regimes)), np.empty((p, regimes))
    _precision(prior, weight, xx, xy, a, b)
    _factor(a, inverse)
    _solve(inverse, b, beta, variance)
    log_determinant, pulls = _curve_terms(prior, bend, squared_frequency, a, beta, variance, gradient)
    misfit = weight * yy
    value = 0.0
    for k in range(regimes):
        explained = 0.0
        for i in range(p):
            explained += b[i, k] * beta[i, k]
        for s in range(strata):
            value -= 0.5 * misfit[s, k]
        value += 0.5 * (explained - log_determinant[k])
        # One stratum: its expected misfit follows from the trace of A^-1 A.
        misfit[0, k] += p - explained - pulls[k]
    if strata > 1:
        misfit = _misfits(inverse, beta, weight, xx, xy, yy)
    return value + _noise_terms(count, replicates, misfit, runs, squared, share, gradient)


def log_density(parameters: Any, packed: Any) -> Any:
    """Return the log marginal likelihood of all regimes, up to a constant, and its gradient (4, K)."""
    # parameters (4, K)
    gradient = np.empty(parameters.shape)
    value = _log_density(parameters, packed, gradient)
    return np.asarray(value), gradient


@numba.njit(cache=True, error_model="numpy")
def _add_log_prior(parameters: Any, pooling: float, scales: Any, sizes: Any, gradient: Any) -> float:
    """Add the priors' gradient and return their log density: pooled normals, and uniform seed shares.

    The value common to the regimes is integrated out: variance 1, correlation `pooling`, times spread^2.
    """
    regimes = parameters.shape[1]
    value = 0.0
    for i in range(scales.shape[1]):
        median, spread = scales[0, i], scales[1, i]
        total = 0.0
        for k in range(regimes):
            total += parameters[i, k] - median
        common = pooling / (1.0 - pooling + regimes * pooling) * total
        for k in range(regimes):
            away = parameters[i, k] - median
            pull = (away - common) / (spread**2 * (1.0 - pooling))
            value -= 0.5 * away * pull
            gradient[i, k] -= pull
    for k in range(regimes):
        if sizes[k] == 4.0:
            share = 1.0 / (1.0 + np.exp(-parameters[3, k]))
            value += np.log(share * (1.0 - share))
            gradient[3, k] += 1.0 - 2.0 * share
    return value


@numba.njit(cache=True, error_model="numpy")
def _from_parts(parameters: Any, sizes: Any) -> None:
    """Turn log sd of seeds and of recipes into log noise and logit of the seed share, where there are replicates."""
    for k in range(sizes.size):
        if sizes[k] == 4.0:
            seed, recipe = parameters[2, k], parameters[3, k]
            parameters[2, k] = max(seed, recipe) + 0.5 * np.log1p(np.exp(-2.0 * abs(seed - recipe)))
            parameters[3, k] = 2.0 * (seed - recipe)


@numba.njit(cache=True, error_model="numpy")
def _to_parts(parameters: Any, sizes: Any, gradient: Any) -> None:
    """Turn the gradient by log noise and logit of the seed share into that by `_from_parts`'s arguments."""
    for k in range(sizes.size):
        if sizes[k] == 4.0:
            share = 1.0 / (1.0 + np.exp(-parameters[3, k]))
            by_noise, by_share = gradient[2, k], 2.0 * gradient[3, k]
            gradient[2, k] = share * by_noise + by_share
            gradient[3, k] = (1.0 - share) * by_noise - by_share


@numba.njit(cache=True, error_model="numpy", inline="always")
def log_posterior(z: Any, data: Any, by_z: Any) -> float:
    """Return the log posterior density of the sampler's coordinates, up to a constant, and write its gradient."""
    # z, by_z (dimension,)
    regimes = int(data[1])
    sizes, start = data[9 : 9 + regimes], 9 + regimes
    centre = data[start : start + 4 * regimes].reshape((4, regimes))
    root = data[start + 4 * regimes : start + 20 * regimes].reshape((regimes, 4, 4))
    parameters, gradient = centre.copy(), np.empty((4, regimes))
    first = 0
    for k in range(regimes):
        for i in range(int(sizes[k])):
            for j in range(i + 1):
                parameters[i, k] += root[k, i, j] * z[first + j]
        first += int(sizes[k])
    _from_parts(parameters, sizes)  # its Jacobian is constant
    value = _log_density(parameters, data[start + 20 * regimes :], gradient)
    value += _add_log_prior(parameters, data[2], data[3:9].reshape((2, 3)), sizes, gradient)
    _to_parts(parameters, sizes, gradient)
    first = 0
    for k in range(regimes):
        for j in range(int(sizes[k])):
            by_z[first + j] = 0.0
            for i in range(j, int(sizes[k])):
                by_z[first + j] += root[k, i, j] * gradient[i, k]
        first += int(sizes[k])
    return value


def _c_log_posterior(dimension: Any, z: Any, by_z: Any, value: Any, data: Any) -> int:
    gradient = carray(by_z, (dimension,))
    size = int(carray(data, (1,), np.float64)[0])
    density = log_posterior(carray(z, (dimension,)), carray(data, (size,), np.float64), gradient)
    carray(value, (1,))[0] = density
    finite = np.isfinite(density)
    for i in range(dimension):
        finite = finite and np.isfinite(gradient[i])
    return 0 if finite else 1


@lru_cache(maxsize=1)
def compiled_posterior() -> Any:
    """Return `log_posterior` as the C function that the sampler calls: compiled once a machine, then read back."""
    return numba.cfunc(DENSITY, cache=True)(_c_log_posterior)
