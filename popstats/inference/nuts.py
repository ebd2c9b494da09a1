"""`method="nuts"` with normal noise: hyperparameters of all regimes by NUTS, then exact draws of the coefficients.

The posterior is the one of the PyMC model in `models`. The sampler walks in coordinates that are nearly
independent and of unit scale: each regime's exact posterior (`exact`) gives their centre and scale, so that
tuning has little left to learn and a draw takes seven steps of the integrator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from popstats.inference.coefficients import draw_coefficients
from popstats.inference.cross_products import RegimeData
from popstats.inference.draws import Draws
from popstats.inference.exact import draw_regime
from popstats.inference.marginal import PARAMETERS, compiled_posterior, pack
from popstats.inference.priors import Priors
from popstats.inference.sampling import Chains, sample_compiled, say

__all__ = ["Coordinates", "pack_posterior", "sample_nuts"]

FloatArray = npt.NDArray[np.float64]

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

    Attributes
    ----------
    centre : numpy.ndarray, shape (4, K)
    root : numpy.ndarray, shape (K, 4, 4)
        Lower triangular.
    sizes : tuple of int
        Coordinates of each regime: 4, or 3 without replicates.
    """

    centre: FloatArray
    root: FloatArray
    sizes: tuple[int, ...]

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
    """Sample the hyperparameters by NUTS and draw the coefficients exactly given them.

    Parameters
    ----------
    regimes : sequence of RegimeData
        Fitted regimes.
    priors : Priors
    chains : Chains
    progress : bool, optional
        Say what is being done on standard error; default: only on a terminal.

    Returns
    -------
    Draws
    """
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
