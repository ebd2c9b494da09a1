"""The PyMC model for noise that is not normal: Student-t, or a frontier (normal plus exponential).

The likelihood does not reduce to cross-products, so every row enters every step. Coefficients are sampled
too, whitened by the exact posterior under normal noise: in those coordinates NUTS needs few steps.

The curve's length scale and amplitude are set to their posterior medians under normal noise (empirical
Bayes). Sampled together with the coefficients they form funnels in twenty dimensions: centred, non-centred
and partially centred versions all gave fewer than 150 effective draws out of 2,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import nutpie
import pymc as pm
import pytensor.tensor as pt

from popstats.inference.cross_products import RegimeData, StandardRows
from popstats.inference.curves import log_basis_variance
from popstats.inference.draws import Draws
from popstats.inference.priors import Priors
from popstats.inference.row_density import RowLogDensity, pack_rows
from popstats.inference.sampling import Chains, run_chains, sampler_statistics, say

__all__ = ["sample_rows"]

FloatArray = npt.NDArray[np.float64]

#: In a few hundred dimensions trajectories take 15 steps at 0.8 and at 0.9; at 0.8 one in some thousand diverged.
_TARGET_ACCEPT = 0.9


@dataclass(frozen=True)
class _Whitening:
    """Coefficients = centre + root @ z, regime by regime: the exact posterior under normal noise."""

    centre: FloatArray  # (K, p)
    root: FloatArray  # (K, p, p)
    precision: FloatArray  # (K, m) prior precision of the basis coefficients

    @classmethod
    def of(cls, normal: Draws, length_scale: FloatArray, amplitude: FloatArray) -> _Whitening:
        flat = normal.flat_coefficients
        jitter = 1e-9 * np.eye(flat.shape[2])
        roots = [np.linalg.cholesky(np.cov(flat[:, k].T) + jitter) for k in range(flat.shape[1])]
        precision = np.exp(-log_basis_variance(length_scale)) / amplitude[:, None] ** 2
        return cls(flat.mean(axis=0), np.array(roots), precision)


def sample_rows(
    noise: str,
    regimes: Sequence[RegimeData],
    rows: Sequence[StandardRows],
    normal: Draws,
    priors: Priors,
    chains: Chains,
    progress: bool | None = None,
) -> Draws:
    """Sample curves, scales and the shape of the noise, every recipe seen one by one.

    Parameters
    ----------
    noise : {"student", "frontier"}
        What recipes and runs scatter like.
    regimes, rows : sequence of RegimeData, of StandardRows
        What was fitted, and the recipes in it, regime by regime in the same order.
    normal : Draws
        Exact draws under normal noise: they whiten the coefficients, and their median seed share (which
        replicates decide, whatever the tails) sets how much a recipe's replicates narrow its noise.
    priors : Priors
        Of noise and excess; length scale and amplitude have had theirs in `normal`.
    chains : Chains
    progress : bool, optional
        Whether to say on standard error that it compiles, then that it samples; default: on a terminal.

    Returns
    -------
    Draws
        With `shape`: degrees of freedom, or mean of the exponential in units of the regime's scale.
    """
    share = np.median(normal.seed_share, axis=(0, 1))
    length_scale, amplitude = np.median(normal.length_scale, (0, 1)), np.median(normal.amplitude, (0, 1))
    whitening = _Whitening.of(normal, length_scale, amplitude)
    packed = _pack(noise, regimes, rows, share)
    say(progress, f"compiling the {noise} model (seconds)")
    compiled = nutpie.compile_pymc_model(_build(noise, len(regimes), whitening, packed, priors))
    say(progress, f"sampling {chains.number} chains over {sum(r.drop.size for r in rows):,} recipes")
    trace = run_chains(compiled, chains, target_accept=_TARGET_ACCEPT)
    coefficients, log_noise, log_shape = (
        trace["posterior"][name].to_numpy() for name in ("coefficients", "log_noise", "log_shape")
    )
    return Draws(
        length_scale=np.broadcast_to(length_scale, log_noise.shape).copy(),
        amplitude=np.broadcast_to(amplitude, log_noise.shape).copy(),
        noise=np.exp(log_noise),
        seed_share=np.broadcast_to(share, log_noise.shape).copy(),
        coefficients=coefficients,
        statistics=sampler_statistics(trace),
        edge_probability=np.zeros(len(regimes)),
        shape=np.exp(log_shape),
    )


def _pack(
    noise: str, regimes: Sequence[RegimeData], rows: Sequence[StandardRows], share: FloatArray
) -> FloatArray:
    designs = [r.design() for r in rows]
    for regime, design in zip(regimes, designs, strict=True):
        design[:, : len(regime.fixed)] *= regime.fixed
    starts = np.cumsum([0, *(r.drop.size for r in rows)]).astype(np.float64)
    relative = [np.sqrt((1.0 - s + s / r.runs) / r.weight) for r, s in zip(rows, share.tolist(), strict=True)]
    drop = np.concatenate([r.drop for r in rows])
    return pack_rows(noise, starts, np.concatenate(designs), drop, np.concatenate(relative))


def _build(noise: str, size: int, whitening: _Whitening, packed: FloatArray, priors: Priors) -> pm.Model:
    with pm.Model() as model:
        common = pm.Normal("common", np.log(priors.noise[0]), priors.noise[1] * np.sqrt(priors.pooling))
        own = priors.noise[1] * np.sqrt(1.0 - priors.pooling)
        scales = _frontier_scales if noise == "frontier" else _student_scales
        log_noise, log_shape, lowered = scales(size, common, own, priors)
        # The likelihood places the coefficients; this wide prior only keeps terms proper that a regime lacks.
        z = pm.Normal("z", 0.0, 100.0, shape=whitening.centre.shape)
        centre, root = pm.Data("centre", whitening.centre), pm.Data("root", whitening.root)
        coefficients = centre + (root * z[:, None, :]).sum(axis=2)
        coefficients = pm.Deterministic("coefficients", pt.inc_subtensor(coefficients[:, 0], -lowered))
        precision = pm.Data("precision", whitening.precision)
        curve = coefficients[:, -whitening.precision.shape[1] :]
        pm.Potential("curve", -0.5 * (precision * curve**2).sum())
        rows = pm.Data("rows", packed)
        pm.Potential("data", RowLogDensity()(coefficients, log_noise, log_shape, rows)[0])
    return model


def _student_scales(size: int, common: Any, own: float, priors: Priors) -> tuple[Any, Any, Any]:
    """Return log noise, log degrees of freedom, and 0: the curve is where trainings centre."""
    log_noise = pm.Normal("log_noise", common, own, shape=size)
    # Degrees of freedom nu = 1 + Gamma(2, 0.1) (Juarez and Steel 2010, doi:10.1198/jbes.2009.07145, above 1:
    # without a mean there would be no expected drop), sampled as log(nu - 1).
    beyond = pm.Flat("log_beyond_one", shape=size, initval=np.full(size, np.log(5.0)))
    pm.Potential("degrees_of_freedom", (2.0 * beyond - 0.1 * pt.exp(beyond)).sum())
    return log_noise, pm.Deterministic("log_shape", pt.softplus(beyond)), np.zeros(size)


def _frontier_scales(size: int, common: Any, own: float, priors: Priors) -> tuple[Any, Any, Any]:
    """Return log noise, log excess, and how far the curve lies below the trainings' mean: the excess.

    Noise and excess trade off along a circle of constant variance, and level and excess along a line. Sampled are
    the total and the odds of its two parts instead (the Jacobian is constant), and the mean's level.
    """
    log_total = pm.Flat("log_total", shape=size, initval=np.zeros(size))
    log_odds = pm.Flat("log_odds", shape=size, initval=np.zeros(size))
    log_noise = pm.Deterministic("log_noise", log_total - 0.5 * pt.softplus(log_odds))
    log_shape = pm.Deterministic("log_shape", log_total - 0.5 * pt.softplus(-log_odds))
    pm.Potential("noise", pm.logp(pm.Normal.dist(common, own), log_noise).sum())
    excess = pm.Normal.dist(np.log(priors.excess[0]), priors.excess[1])
    pm.Potential("excess", pm.logp(excess, log_shape).sum())
    return log_noise, log_shape, pt.exp(log_shape)
