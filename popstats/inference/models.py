"""The PyMC model of the hyperparameters over all regimes, sampled by NUTS, and exact draws of the coefficients."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import nutpie
import pymc as pm
import pytensor.tensor as pt

from popstats.inference.cross_products import RegimeData
from popstats.inference.curves import COLUMNS, FIXED_TERMS, frequencies, log_basis_variance
from popstats.inference.draws import Draws
from popstats.inference.marginal import marginal_log_density, pack
from popstats.inference.priors import Priors

__all__ = ["build_model", "hyperparameters", "log_prior_variance", "sample_nuts", "sampler_statistics", "say"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Padded:
    """Cross-products of all regimes in common arrays; strata that a regime lacks have count 0."""

    replicates: FloatArray  # (K, S)
    count: FloatArray  # (K, S)
    xx: FloatArray  # (K, S, p, p)
    xy: FloatArray  # (K, S, p)
    yy: FloatArray  # (K, S)
    within: FloatArray  # (K,)
    within_df: FloatArray  # (K,)
    fixed: FloatArray  # (K, FIXED_TERMS)

    def arrays(self) -> tuple[FloatArray, ...]:
        """In the order of `marginal.pack`."""
        return (
            self.replicates,
            self.count,
            self.xx,
            self.xy,
            self.yy,
            self.within,
            self.within_df,
            self.fixed,
        )


def _pad(regimes: Sequence[RegimeData]) -> _Padded:
    products = [r.cross_products for r in regimes if r.cross_products is not None]
    strata = max(p.count.size for p in products)

    def padded(name: str, fill: float = 0.0) -> FloatArray:
        arrays = [getattr(p, name) for p in products]
        out = np.full((len(arrays), strata, *arrays[0].shape[1:]), fill)
        for k, array in enumerate(arrays):
            out[k, : array.shape[0]] = array
        return out

    return _Padded(
        replicates=padded("replicates", 1.0),
        count=padded("count"),
        xx=padded("xx"),
        xy=padded("xy"),
        yy=padded("yy"),
        within=np.array([p.within for p in products]),
        within_df=np.array([float(p.within_df) for p in products]),
        fixed=np.array([r.fixed for r in regimes], dtype=np.float64),
    )


def build_model(size: int, replicated: tuple[int, ...], priors: Priors) -> pm.Model:
    """Return the PyMC model of the hyperparameters, coefficients integrated out.

    Free variables, all on the log scale and in units of the regime's scale: `log_length_scale`,
    `log_amplitude`, `log_noise` (K,), drawn around a `common` value each (3,), and `logit_seed_share` for the
    regimes with replicates. Partial pooling: `priors.pooling` is the share of each prior variance that is
    common to the regimes.

    Parameters
    ----------
    size : int
        Number of regimes K, at least one.
    replicated : tuple of int
        The regimes with replicates.
    priors : Priors

    Returns
    -------
    pymc.Model
        With the data container `packed` (see `marginal.pack`), empty: the same graph, compiled once, serves
        any number of rows.
    """
    with pm.Model() as model:
        packed = pm.Data("packed", np.zeros(1))
        log_length, log_amplitude, log_noise = hyperparameters(size, priors)
        share: Any = pt.zeros(size)
        if replicated:
            logit = pm.Logistic("logit_seed_share", 0.0, 1.0, shape=len(replicated))
            share = pt.set_subtensor(share[list(replicated)], pm.math.sigmoid(logit))
        log_variance = log_prior_variance(log_length, log_amplitude)
        pm.Potential("data", marginal_log_density(log_variance, log_noise, share, packed))
    return model


@lru_cache(maxsize=8)
def _compile(size: int, replicated: tuple[int, ...], priors: Priors) -> Any:
    # Keyed by all that the graph depends on; the data arrive afterwards, through the container.
    return nutpie.compile_pymc_model(build_model(size, replicated, priors))


def hyperparameters(size: int, priors: Priors) -> tuple[Any, Any, Any]:
    """Add log length scales, amplitudes and noises of `size` regimes to the model in context, each (K,)."""
    medians = np.log([priors.length_scale[0], priors.amplitude[0], priors.noise[0]])
    spreads = np.array([priors.length_scale[1], priors.amplitude[1], priors.noise[1]])
    common = pm.Normal("common", medians, spreads * np.sqrt(priors.pooling), shape=3)
    own = spreads * np.sqrt(1.0 - priors.pooling)
    names = ("log_length_scale", "log_amplitude", "log_noise")
    return tuple(pm.Normal(name, common[i], own[i], shape=size) for i, name in enumerate(names))


def log_prior_variance(log_length: Any, log_amplitude: Any) -> Any:
    """Log prior variance of each basis coefficient, (K, m); `curves.log_basis_variance` in PyTensor."""
    constant = np.log(400.0 * np.sqrt(5.0) / 3.0)
    inverse_squared = 5.0 * pt.exp(-2.0 * log_length)[:, None]
    density = (
        constant - 5.0 * log_length[:, None] - 3.0 * pt.log(inverse_squared + frequencies()[None, :] ** 2)
    )
    line = pt.zeros_like(log_length)[:, None]
    return 2.0 * log_amplitude[:, None] + pt.concatenate([density, line], axis=1)


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
    data = _pad(regimes)
    replicated = tuple(int(k) for k in np.flatnonzero(data.within_df > 0))
    say(progress, "compiling the model (seconds; once per number of regimes)")
    compiled = _compile(len(regimes), replicated, priors).with_data(packed=pack(*data.arrays()))
    say(progress, f"sampling {chains} chains")
    trace = nutpie.sample(compiled, draws=draws, tune=tune, chains=chains, seed=seed, progress_bar=False)
    posterior = trace["posterior"]
    share = np.zeros((chains, draws, len(regimes)))
    if replicated:
        share[:, :, list(replicated)] = 1.0 / (1.0 + np.exp(-posterior["logit_seed_share"].to_numpy()))
    hyper = {
        name: np.exp(posterior[f"log_{name}"].to_numpy()) for name in ("length_scale", "amplitude", "noise")
    }
    return Draws(
        **hyper,
        seed_share=share,
        coefficients=_draw_coefficients(data, hyper, share, np.random.default_rng([seed, 5])),
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


def _draw_coefficients(
    data: _Padded, hyper: dict[str, FloatArray], share: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Return exact conditional draws of the coefficients, shape (chains, draws, K, p)."""
    shape = share.shape
    out = np.empty((*shape, COLUMNS))
    for k in range(shape[2]):
        length, amplitude = hyper["length_scale"][:, :, k].ravel(), hyper["amplitude"][:, :, k].ravel()
        noise, rho = hyper["noise"][:, :, k].ravel(), share[:, :, k].ravel()
        variance = (noise**2)[:, None] * (1.0 - rho[:, None] + rho[:, None] / data.replicates[k])
        precision = np.einsum("ds,sij->dij", 1.0 / variance, data.xx[k])
        target = np.einsum("ds,si->di", 1.0 / variance, data.xy[k])
        diagonal = np.zeros_like(target)
        diagonal[:, :FIXED_TERMS] = 1.0 - data.fixed[k]
        diagonal[:, FIXED_TERMS:] = np.exp(-log_basis_variance(length)) / amplitude[:, None] ** 2
        index = np.arange(diagonal.shape[1])
        precision[:, index, index] += diagonal
        root = np.linalg.cholesky(precision)
        normal = rng.standard_normal(target.shape)
        half = np.linalg.solve(root, target[..., None])[..., 0] + normal
        out[:, :, k] = np.linalg.solve(root.transpose(0, 2, 1), half[..., None])[..., 0].reshape(
            *shape[:2], -1
        )
    return out
