r"""Closed-form inference for one regime: coefficients and noise integrated analytically on a grid.

With noise sd :math:`\sigma`, amplitude :math:`r\sigma` and spectral density D(l), the projected data
(fixed terms removed) have

.. math:: \log p(y) = -\tfrac{n-p_f}{2}\log\sigma^2 - \tfrac12\sum_j\log(1+r^2\lambda_j)
          - \frac{1}{2\sigma^2}\Bigl(y'y - \sum_j \frac{r^2 z_j^2}{1+r^2\lambda_j}\Bigr),

where lambda and z come from one eigendecomposition of D^{1/2} X'X D^{1/2} per length scale. Amplitude and
noise are then scalars: a dense grid over all hyperparameters costs milliseconds.

References
----------
Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, sections 2.7 and 5.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from popstats.arrays import FloatArray
from popstats.inference.data import CrossProducts, RegimeData
from popstats.inference.model import Priors, log_basis_variance

_LENGTHS = 16


_RATIOS = np.exp(np.linspace(np.log(0.01), np.log(3000.0), 48))


_NOISES = np.linspace(-4.0, 4.0, 11)


_SHARES = 9


_SHARE_LIMIT = 7.0  # logit; shares from 0.1 % to 99.9 % ...


_SHARE_MARGIN = 2.0  # ... or from a seventh of the least that the replicates allow,


_SHARE_LEAST = 1e-9  # which is more than this: less is identical replicates


_ZOOMS = 7


@dataclass(frozen=True)
class HyperDraws:
    """Joint posterior draws of one regime, in units of the regime's scale."""

    length_scale: FloatArray  # (S,); Half-ranges of log mCB.
    # amplitude, noise: (S,); Standard deviations of the curve and of one training about it.
    amplitude: FloatArray
    noise: FloatArray
    seed_share: FloatArray  # (S,); Share of one training's variance that is seed noise; 0 without replicates.
    coefficients: FloatArray  # (S, p); Level, c, c^2, techniques, basis.
    # Posterior probability on the outermost length scales and amplitudes of the grid: near 0 unless the grid
    # cuts the posterior off.
    edge_probability: float


@dataclass(frozen=True)
class _Projected:
    """Cross-products at given seed shares with the fixed terms projected out, and their eigensystems."""

    fixed: FloatArray  # (R, f, f)
    fixed_basis: FloatArray  # (R, f, m)
    fixed_y: FloatArray  # (R, f)
    residual: FloatArray  # (R,) y'y
    log_determinant: FloatArray  # (R,)
    root_density: FloatArray  # (L, m)
    eigenvalues: FloatArray  # (R, L, m)
    eigenvectors: FloatArray  # (R, L, m, m)
    rotated: FloatArray  # (R, L, m) z


def draw_regime(regime: RegimeData, priors: Priors, size: int, rng: np.random.Generator) -> HyperDraws:
    """Draw from the exact posterior of one regime."""
    products = regime.products
    lengths = _length_grid(priors)
    shares = _share_grid(products, regime.fixed, lengths, priors)
    projected = _project(products, regime.fixed, lengths, shares)
    log_weight, log_noise = _grid(products, projected, lengths, shares, priors, sum(regime.fixed))
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    cells = np.unravel_index(rng.choice(weight.size, size=size, p=weight.ravel()), weight.shape)
    r, length, ratio, _ = cells
    noise = np.exp(log_noise[cells])
    return HyperDraws(
        length_scale=lengths[length],
        amplitude=_RATIOS[ratio] * noise,
        noise=noise,
        seed_share=shares[r],
        coefficients=_coefficients(projected, r, length, _RATIOS[ratio], noise, rng),
        edge_probability=_edge_probability(weight),
    )


def _length_grid(priors: Priors) -> FloatArray:
    median, spread = priors.length_scale
    return np.asarray(np.exp(np.log(median) + spread * np.linspace(-2.4, 2.4, _LENGTHS)))


def _edge_probability(weight: FloatArray) -> float:
    # The length scale's grid ends where its prior does (2.4 sd), so mass there is no sign of a cut-off.
    return float(weight[:, :, -1].sum())


def _share_grid(
    products: CrossProducts, fixed: tuple[bool, ...], lengths: FloatArray, priors: Priors
) -> FloatArray:
    """Seed shares to integrate over: zoomed in until the posterior spans several grid points."""
    if not products.has_replicates:
        return np.zeros(1)
    # The seeds' variance over that of all drops: their share of the noise is hardly less.
    least = float(np.log(max(products.within / products.within_df, _SHARE_LEAST)))
    lowest = min(-_SHARE_LIMIT, least - _SHARE_MARGIN)
    low, high = lowest, _SHARE_LIMIT
    for _ in range(_ZOOMS):
        logit = np.linspace(low, high, _SHARES)
        shares = 1.0 / (1.0 + np.exp(-logit))
        projected = _project(products, fixed, lengths[::5], shares)
        log_weight, _ = _grid(products, projected, lengths[::5], shares, priors, sum(fixed))
        mass = np.exp(log_weight - log_weight.max()).sum(axis=(1, 2, 3))
        mass /= mass.sum()
        centre = float(mass @ logit)
        spread = float(np.sqrt(mass @ (logit - centre) ** 2))
        step = logit[1] - logit[0]
        if spread > 0.8 * step:
            break
        reach = 4.0 * max(spread, 0.35 * step)
        low, high = max(centre - reach, lowest), min(centre + reach, _SHARE_LIMIT)
    return shares


def _relative_variance(products: CrossProducts, shares: FloatArray) -> FloatArray:
    """Variance of a recipe's mean relative to one training's, shape (R, S)."""
    return 1.0 - shares[:, None] + shares[:, None] / products.replicates[None, :]


def _project(
    products: CrossProducts, fixed: tuple[bool, ...], lengths: FloatArray, shares: FloatArray
) -> _Projected:
    relative = _relative_variance(products, shares)
    xx = np.einsum("rs,sij->rij", 1.0 / relative, products.xx)
    xy = np.einsum("rs,si->ri", 1.0 / relative, products.xy)
    yy = (products.yy / relative).sum(axis=1)
    f = len(fixed)
    absent = np.diag([0.0 if kept else 1.0 for kept in fixed])
    ff, fz = xx[:, :f, :f] + absent, xx[:, :f, f:]
    solved = np.linalg.solve(ff, np.concatenate([fz, xy[:, :f, None]], axis=2))
    zz = xx[:, f:, f:] - np.einsum("rfi,rfj->rij", fz, solved[:, :, :-1])
    zy = xy[:, f:] - np.einsum("rfi,rf->ri", fz, solved[:, :, -1])
    residual = yy - np.einsum("rf,rf->r", xy[:, :f], solved[:, :, -1])
    root = np.exp(0.5 * log_basis_variance(lengths))
    values, vectors = _eigensystems(zz, root, products, relative)
    rotated = np.einsum("rlji,lj,rj->rli", vectors, root, zy)
    log_determinant = (products.count * np.log(relative)).sum(axis=1) + np.linalg.slogdet(ff)[1]
    return _Projected(ff, fz, xy[:, :f], residual, log_determinant, root, values, vectors, rotated)


def _eigensystems(
    zz: FloatArray, root: FloatArray, products: CrossProducts, relative: FloatArray
) -> tuple[FloatArray, FloatArray]:
    # With one stratum every seed share gives the same matrix up to a factor: decompose it once.
    single = products.replicates.size == 1
    matrices = root[None, :, :, None] * (zz[:1] if single else zz)[:, None] * root[None, :, None, :]
    values, vectors = np.linalg.eigh(matrices)
    if single:
        values = values * (relative[0] / relative)[:, :, None]
        vectors = np.broadcast_to(vectors, (relative.shape[0], *vectors.shape[1:]))
    return np.maximum(values, 0.0), vectors


def _grid(
    products: CrossProducts,
    projected: _Projected,
    lengths: FloatArray,
    shares: FloatArray,
    priors: Priors,
    fixed_terms: int,
) -> tuple[FloatArray, FloatArray]:
    """Log posterior weight and log noise sd of each cell, shape (R, L, ratios, noises)."""
    squared = (_RATIOS**2)[:, None]
    shrunk = 1.0 + squared * projected.eigenvalues[:, :, None, :]
    log_shrunk = np.log(shrunk).sum(axis=-1)
    misfit = projected.residual[:, None, None] - (
        squared * projected.rotated[:, :, None, :] ** 2 / shrunk
    ).sum(-1)
    misfit = np.maximum(misfit, 1e-12 * projected.residual[:, None, None])
    log_share = np.zeros_like(shares)
    if products.has_replicates:
        misfit = misfit + (products.within / shares)[:, None, None]
        log_share = products.within_df * np.log(shares)
    freedom = products.count.sum() - fixed_terms + products.within_df
    log_noise = 0.5 * np.log(misfit / freedom)[..., None] + _NOISES / np.sqrt(2.0 * freedom)
    likelihood = -freedom * log_noise - 0.5 * misfit[..., None] * np.exp(-2.0 * log_noise)
    likelihood -= 0.5 * (log_shrunk + (log_share + projected.log_determinant)[:, None, None])[..., None]
    prior = _normal(log_noise, priors.noise)
    prior += _normal(np.log(_RATIOS)[:, None] + log_noise, priors.amplitude)
    prior += _normal(np.log(lengths), priors.length_scale)[:, None, None]
    if products.has_replicates:  # uniform share on an equally spaced logit grid
        prior += np.log(shares * (1.0 - shares))[:, None, None, None]
    return likelihood + prior, log_noise


def _normal(log_value: FloatArray, pair: tuple[float, float]) -> FloatArray:
    return np.asarray(-0.5 * ((log_value - np.log(pair[0])) / pair[1]) ** 2)


def _coefficients(
    projected: _Projected, r: npt.NDArray[np.intp], length: npt.NDArray[np.intp], ratio: FloatArray,
    noise: FloatArray, rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Exact conditional draws given each draw's cell, shape (S, p)."""
    gain = ratio[:, None] ** 2 / (1.0 + ratio[:, None] ** 2 * projected.eigenvalues[r, length])
    normal = rng.standard_normal(gain.shape)
    rotated = gain * projected.rotated[r, length] + noise[:, None] * np.sqrt(gain) * normal
    basis = projected.root_density[length] * np.einsum(
        "sij,sj->si", projected.eigenvectors[r, length], rotated
    )
    inverse = np.linalg.inv(projected.fixed)
    root = np.linalg.cholesky(inverse)
    remainder = projected.fixed_y[r] - np.einsum("sfi,si->sf", projected.fixed_basis[r], basis)
    fixed = np.einsum("sfg,sg->sf", inverse[r], remainder)
    fixed += noise[:, None] * np.einsum("sfg,sg->sf", root[r], rng.standard_normal(fixed.shape))
    return np.concatenate([fixed, basis], axis=1)


def draw_coefficients(
    regime: RegimeData,
    length_scale: FloatArray,
    amplitude: FloatArray,
    noise: FloatArray,
    share: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Return exact conditional draws of one regime's coefficients, shape (chains, draws, p)."""
    # length_scale, amplitude, noise, share (chains, draws)
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


def shrinkage(
    regime: RegimeData, mean: FloatArray, length_scale: float, amplitude: float, noise: float, share: float
) -> FloatArray:
    """Return the bias of the coefficients' posterior mean, estimated at that mean itself, shape (p,).

    Under noise that is not normal the information of the rows is taken as if it were, with the same scale.
    """
    # mean (p,)
    data = regime.products
    prior = np.zeros((2, mean.size))
    prior[0, : len(regime.fixed)] = 1.0 - np.array(regime.fixed)
    prior[1, len(regime.fixed) :] = np.exp(-log_basis_variance(length_scale)) / amplitude**2
    weight = 1.0 / (noise**2 * (1.0 - share + share / data.replicates))
    precision = np.tensordot(weight, data.xx, 1) + np.diag(prior.sum(axis=0))
    return np.asarray(-np.linalg.solve(precision, prior[1] * mean))
