"""The PyMC model of the hyperparameters over all regimes, sampled by NUTS, and exact draws of the coefficients."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import nutpie
import pymc as pm

from popstats.inference.cross_products import CrossProducts, RegimeData
from popstats.inference.curves import FIXED_TERMS, log_basis_variance
from popstats.inference.draws import Draws
from popstats.inference.marginal import MarginalLogDensity, pack
from popstats.inference.priors import Priors

__all__ = ["build_model", "sample_nuts", "sampler_statistics", "say"]

FloatArray = npt.NDArray[np.float64]


def build_model(size: int, priors: Priors) -> pm.Model:
    """Return the PyMC model of the hyperparameters, coefficients integrated out.

    Free variables: `log_hyper` (3, K), log length scale, amplitude and noise in units of the regime's scale,
    around a `common` value each (3,); `logit_seed_share` (K,), which the data inform where a regime has
    replicates. Partial pooling: `priors.pooling` is the share of each prior variance that is common.

    Parameters
    ----------
    size : int
        Number of regimes K, at least one.
    priors : Priors

    Returns
    -------
    pymc.Model
        With the data container `packed` (see `marginal.pack`), empty: the same graph, compiled once, serves
        any number of rows.
    """
    medians = np.log([priors.length_scale[0], priors.amplitude[0], priors.noise[0]])
    spreads = np.array([priors.length_scale[1], priors.amplitude[1], priors.noise[1]])
    with pm.Model() as model:
        packed = pm.Data("packed", np.zeros(1))
        common = pm.Normal("common", medians, spreads * np.sqrt(priors.pooling), shape=3)
        own = spreads * np.sqrt(1.0 - priors.pooling)
        log_hyper = pm.Normal("log_hyper", common[:, None], own[:, None], shape=(3, size))
        logit_share = pm.Logistic("logit_seed_share", 0.0, 1.0, shape=size)
        pm.Potential("data", MarginalLogDensity()(log_hyper, logit_share, packed)[0])
    return model


@lru_cache(maxsize=8)
def _compile(size: int, priors: Priors) -> Any:
    # Keyed by all that the graph depends on; the data arrive afterwards, through the container.
    return nutpie.compile_pymc_model(build_model(size, priors))


def sample_nuts(
    regimes: Sequence[RegimeData],
    priors: Priors,
    *,
    seed: int,
    draws: int,
    tune: int,
    chains: int,
    progress: bool | None = None,
) -> Draws:
    """Sample the hyperparameters by NUTS and draw the coefficients exactly given them.

    Parameters
    ----------
    regimes : sequence of RegimeData
        Fitted regimes.
    priors : Priors
    seed, draws, tune, chains : int
        The same values give the same draws.
    progress : bool, optional
        Say "compiling" and "sampling" on standard error; default: only on a terminal.

    Returns
    -------
    Draws
    """
    say(progress, "compiling the model (seconds; once per number of regimes)")
    compiled = _compile(len(regimes), priors).with_data(packed=pack(regimes))
    say(progress, f"sampling {chains} chains")
    trace = nutpie.sample(compiled, draws=draws, tune=tune, chains=chains, seed=seed, progress_bar=False)
    length_scale, amplitude, noise = np.exp(np.moveaxis(trace["posterior"]["log_hyper"].to_numpy(), 2, 0))
    share = 1.0 / (1.0 + np.exp(-trace["posterior"]["logit_seed_share"].to_numpy()))
    for k, regime in enumerate(regimes):
        if not _products(regime).has_replicates:
            share[:, :, k] = 0.0
    rng = np.random.default_rng([seed, 5])
    coefficients = [
        _draw_coefficients(r, length_scale[:, :, k], amplitude[:, :, k], noise[:, :, k], share[:, :, k], rng)
        for k, r in enumerate(regimes)
    ]
    return Draws(
        length_scale=length_scale,
        amplitude=amplitude,
        noise=noise,
        seed_share=share,
        coefficients=np.stack(coefficients, axis=2),
        statistics=sampler_statistics(trace),
        edge_probability=np.zeros(len(regimes)),
    )


def sampler_statistics(trace: Any) -> dict[str, FloatArray]:
    """Return what the diagnostics need of nutpie's statistics, each (chains, draws)."""
    statistics = trace["sample_stats"]
    return {name: statistics[name].to_numpy().astype(np.float64) for name in ("diverging", "energy")}


def say(progress: bool | None, what: str) -> None:
    """Say on standard error what is being done; by default only on a terminal."""
    if sys.stderr.isatty() if progress is None else progress:
        print(f"popstats: {what} ...", file=sys.stderr, flush=True)


def _products(regime: RegimeData) -> CrossProducts:
    if regime.cross_products is None:
        raise ValueError(f"regime {regime.label} has nothing to sample: {regime.reason}")
    return regime.cross_products


def _draw_coefficients(
    regime: RegimeData,
    length_scale: FloatArray,
    amplitude: FloatArray,
    noise: FloatArray,
    share: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Return exact conditional draws of one regime's coefficients, shape (chains, draws, p)."""
    data = _products(regime)
    rho = share.ravel()[:, None]
    variance = noise.ravel()[:, None] ** 2 * (1.0 - rho + rho / data.replicates)
    precision = np.einsum("ds,sij->dij", 1.0 / variance, data.xx)
    target = np.einsum("ds,si->di", 1.0 / variance, data.xy)
    diagonal = np.zeros_like(target)
    diagonal[:, :FIXED_TERMS] = 1.0 - np.array(regime.fixed)
    diagonal[:, FIXED_TERMS:] = (
        np.exp(-log_basis_variance(length_scale.ravel())) / amplitude.ravel()[:, None] ** 2
    )
    index = np.arange(diagonal.shape[1])
    precision[:, index, index] += diagonal
    root = np.linalg.cholesky(precision)
    half = np.linalg.solve(root, target[..., None])[..., 0] + rng.standard_normal(target.shape)
    drawn = np.linalg.solve(root.transpose(0, 2, 1), half[..., None])[..., 0]
    return np.asarray(drawn.reshape(*share.shape, -1))
