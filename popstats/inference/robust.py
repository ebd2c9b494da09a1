"""Noise that is not normal: Student-t, or a frontier (normal plus exponential).

The likelihood does not reduce to cross-products, so every row enters every step. Coefficients are sampled
too, whitened by the exact posterior under normal noise: in those coordinates NUTS needs few steps.

The curve's length scale and amplitude are set to their posterior medians under normal noise (empirical
Bayes). Sampled together with the coefficients they form funnels in twenty dimensions: centred, non-centred
and partially centred versions all gave fewer than 150 effective draws out of 2,000.

The posterior is the one of the PyMC model `models.build_row_model`; sampled is the same density through a function
that needs no compiling in each process (`row_density`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from popstats.arrays import FloatArray
from popstats.inference.data import RegimeData, StandardRows
from popstats.inference.draws import Draws
from popstats.inference.model import Priors, log_basis_variance
from popstats.inference.robust_density import compiled_row_posterior, pack_rows
from popstats.inference.sampling import Chains, sample_compiled, say

#: At 0.9 one transition in some thousand diverged under frontier noise: five of six fits of a population with collapses.
_TARGET_ACCEPT = 0.95
#: At least so many draws adapt the sampler: with 500, effective sample sizes differed fivefold between seeds.
_LEAST_TUNE = 1000
#: Prior precision of a whitened coefficient: the likelihood places it.
_WIDE = 1e-4
#: Where the degrees of freedom less one start, and the odds of exponential and normal part; and how far apart chains
#: start, in logs.
_START = {"student": 5.0, "frontier": 1.0}
_APART = 0.5


@dataclass(frozen=True)
class RowCoordinates:
    """Where the sampler walks: the noises' common value, two scales a regime, whitened coefficients.

    The two scales a regime are log noise and log(degrees of freedom - 1), or the logs of the total spread and of the
    odds of its exponential and normal parts.
    """

    # start, spread: (1 + 2 K,); The scales are start + spread * x.
    start: FloatArray
    spread: FloatArray
    centre: FloatArray  # (K, p); Coefficients are centre + root @ z: the exact posterior under normal noise.
    root: FloatArray  # (K, p, p); Lower triangular.
    # (K, p); Prior precision of z: next to nothing, but 1 for terms that a regime cannot tell apart.
    wide: FloatArray
    precision: FloatArray  # (K, m); Prior precision of the curve's coefficients.

    @classmethod
    def of(
        cls,
        noise: str,
        regimes: Sequence[RegimeData],
        normal: Draws,
        length_scale: FloatArray,
        amplitude: FloatArray,
    ) -> RowCoordinates:
        """Standardise by the exact draws under normal noise; length scale and amplitude, (K,) each, are held."""
        flat, log_noise = normal.flat_coefficients, np.log(normal.noise).reshape(-1, len(regimes))
        centre, wide = flat.mean(axis=0), np.full(flat.shape[1:], _WIDE)
        root = np.zeros((*flat.shape[1:], flat.shape[2]))
        for k, regime in enumerate(regimes):
            kept = np.ones(flat.shape[2], dtype=bool)
            kept[: len(regime.fixed)] = regime.fixed
            covariance = np.cov(flat[:, k].T) * np.outer(kept, kept) + np.diag(np.where(kept, 1e-9, 1.0))
            root[k], centre[k, ~kept], wide[k, ~kept] = np.linalg.cholesky(covariance), 0.0, 1.0
        first = log_noise.mean(axis=0)
        apart = np.full(len(regimes), _APART)
        return cls(
            start=np.concatenate([[first.mean()], first, np.full(len(regimes), np.log(_START[noise]))]),
            spread=np.concatenate([[_APART], 2.0 * log_noise.std(axis=0), apart]),
            centre=centre,
            root=root,
            wide=wide,
            precision=np.exp(-log_basis_variance(length_scale)) / amplitude[:, None] ** 2,
        )

    @property
    def dimension(self) -> int:
        """Coordinates in all."""
        return int(self.start.size + self.centre.size)

    def to_parameters(self, noise: str, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return log noise and log shape, (..., K) each, and coefficients (..., K, p) of coordinates (..., dimension)."""
        walked = self.start + self.spread * x[..., : self.start.size]
        a, b = np.split(walked[..., 1:], 2, axis=-1)
        z = x[..., self.start.size :].reshape(*x.shape[:-1], *self.centre.shape)
        coefficients = self.centre + np.einsum("kij,...kj->...ki", self.root, z)
        if noise == "student":
            return a, np.logaddexp(0.0, b), coefficients
        log_shape = a - 0.5 * np.logaddexp(0.0, -b)
        coefficients[..., 0] -= np.exp(log_shape)
        return a - 0.5 * np.logaddexp(0.0, b), log_shape, coefficients


def pack_row_posterior(coordinates: RowCoordinates, packed: FloatArray, priors: Priors) -> FloatArray:
    """Return all that the compiled density of the coordinates needs, as one vector.

    Layout: its size, regimes K, coefficients p, those of the curve m; medians and deviations of the log priors
    (common noise, a regime's own about it, excess); start and spread of the scales, centre, prior precisions and
    root of the coefficients, the curve's prior precisions, then `pack_rows`.
    """
    c, (median, spread) = coordinates, priors.noise
    common, own = spread * np.sqrt(priors.pooling), spread * np.sqrt(1.0 - priors.pooling)
    vector = np.concatenate([
        [0.0, *c.centre.shape, c.precision.shape[1]],
        [np.log(median), common, own, np.log(priors.excess[0]), priors.excess[1]],
        c.start, c.spread, c.centre.ravel(), c.wide.ravel(), c.root.ravel(), c.precision.ravel(), packed,
    ])  # fmt: skip
    vector[0] = vector.size
    return vector


def sample_rows(
    noise: str,
    regimes: Sequence[RegimeData],
    rows: Sequence[StandardRows],
    normal: Draws,
    priors: Priors,
    chains: Chains,
    progress: bool | None = None,
) -> Draws:
    """Sample curves, scales and the shape of the noise, every recipe seen one by one."""
    share = np.median(normal.seed_share, axis=(0, 1))
    length_scale, amplitude = np.median(normal.length_scale, (0, 1)), np.median(normal.amplitude, (0, 1))
    coordinates = RowCoordinates.of(noise, regimes, normal, length_scale, amplitude)
    say(progress, "loading the compiled model (compiling it, for some seconds, the first time on a machine)")
    density = compiled_row_posterior()
    say(progress, f"sampling {chains.number} chains over {sum(r.drop.size for r in rows):,} recipes")
    data = pack_row_posterior(coordinates, _pack(noise, regimes, rows, share), priors)
    chains = replace(chains, tune=max(chains.tune, _LEAST_TUNE))
    raw = sample_compiled(density, data, coordinates.dimension, chains, target_accept=_TARGET_ACCEPT)
    log_noise, log_shape, coefficients = coordinates.to_parameters(noise, raw.positions)
    return Draws(
        length_scale=np.broadcast_to(length_scale, log_noise.shape).copy(),
        amplitude=np.broadcast_to(amplitude, log_noise.shape).copy(),
        noise=np.exp(log_noise),
        seed_share=np.broadcast_to(share, log_noise.shape).copy(),
        coefficients=coefficients,
        statistics=raw.statistics,
        edge_probability=np.zeros(len(regimes)),
        shape=np.exp(log_shape),
    )


def _pack(
    noise: str, regimes: Sequence[RegimeData], rows: Sequence[StandardRows], share: FloatArray
) -> FloatArray:
    relative = [np.sqrt((1.0 - s + s / r.runs) / r.weight) for r, s in zip(rows, share.tolist(), strict=True)]
    return pack_rows(noise, regimes, rows, relative)
