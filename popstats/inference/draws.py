"""Joint posterior draws over the regimes, and their translation into accuracy points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from popstats.inference.cross_products import RegimeData
from popstats.inference.curves import COLUMNS, basis, design_matrix, log_basis_variance
from popstats.inference.exact import HyperDraws
from popstats.inference.priors import Priors

__all__ = ["Draws", "curve_in_points", "from_regimes", "prior_curves"]

FloatArray = npt.NDArray[np.float64]

#: Draws from the prior with which the prior probability of each claim is computed.
PRIOR_DRAWS = 2000


@dataclass(frozen=True)
class Draws:
    """Draws of all fitted regimes, in units of each regime's scale.

    Attributes
    ----------
    length_scale, amplitude, noise, seed_share : numpy.ndarray, shape (chains, draws, K)
        See `HyperDraws`.
    coefficients : numpy.ndarray, shape (chains, draws, K, p)
        Level, c, c^2, techniques, basis.
    statistics : dict of numpy.ndarray, shape (chains, draws)
        Sampler statistics (diverging, energy); empty for `method="exact"`.
    edge_probability : numpy.ndarray, shape (K,)
        Posterior mass at the edge of the exact method's grid; zeros for `nuts`.
    shape : numpy.ndarray, shape (chains, draws, K), or None
        Degrees of freedom (noise "student") or mean of the exponential (noise "frontier").
    """

    length_scale: FloatArray
    amplitude: FloatArray
    noise: FloatArray
    seed_share: FloatArray
    coefficients: FloatArray
    statistics: dict[str, FloatArray]
    edge_probability: FloatArray
    shape: FloatArray | None = None

    @property
    def flat_coefficients(self) -> FloatArray:
        """Coefficients with chains joined, shape (S, K, p)."""
        chains, draws = self.coefficients.shape[:2]
        return self.coefficients.reshape(chains * draws, *self.coefficients.shape[2:])


def from_regimes(draws: list[HyperDraws]) -> Draws:
    """Stack independent regimes' draws (method "exact"), as one chain."""
    if not draws:
        empty = np.zeros((1, 0, 0))
        return Draws(empty, empty, empty, empty, np.zeros((1, 0, 0, COLUMNS)), {}, np.zeros(0))

    def stack(name: str) -> FloatArray:
        return np.stack([getattr(d, name) for d in draws], axis=1)[None]

    return Draws(
        length_scale=stack("length_scale"),
        amplitude=stack("amplitude"),
        noise=stack("noise"),
        seed_share=stack("seed_share"),
        coefficients=stack("coefficients"),
        statistics={},
        edge_probability=np.array([d.edge_probability for d in draws]),
    )


def curve_in_points(
    regime: RegimeData,
    coefficients: FloatArray,
    log_mcb: FloatArray,
    distance: float = 0.0,
    technique: int | None = None,
) -> FloatArray:
    """Return the expected drop in percentage points, shape (S, G).

    Parameters
    ----------
    regime : RegimeData
        Gives units: centre and scale of the drop, scale of log mCB.
    coefficients : numpy.ndarray, shape (S, p)
        In units of the regime's scale.
    log_mcb : numpy.ndarray, shape (G,)
        Where to evaluate.
    distance : float
        Reduction minus the regime's centre (fraction); 0 is the centre.
    technique : int, optional
        Position of a retraining technique of the regime's mix; default: the average over them.
    """
    c = np.full(log_mcb.shape, distance / regime.half_width if regime.half_width > 0 else 0.0)
    others = np.zeros((log_mcb.size, len(regime.mix) - 1))
    if technique is not None:
        others += (np.arange(1, len(regime.mix)) == technique) - np.array(regime.mix[1:])
    design = design_matrix(regime.curve_scale.to_unit(log_mcb), c, others)
    # Of a term that the regime cannot tell apart the draws are noise.
    design[:, : len(regime.fixed)] *= regime.fixed
    # In place: draws of a curve are megabytes, and fresh ones cost more than the arithmetic.
    curve: FloatArray = coefficients @ design.T
    curve *= regime.scale
    curve += regime.centre
    return curve


def prior_curves(regime: RegimeData, priors: Priors, log_mcb: FloatArray, seed: int) -> FloatArray:
    """Return curves drawn from the prior, points around an arbitrary level, shape (PRIOR_DRAWS, G)."""
    rng = np.random.default_rng([seed, 977])
    length = np.exp(
        np.log(priors.length_scale[0]) + priors.length_scale[1] * rng.standard_normal(PRIOR_DRAWS)
    )
    amplitude = np.exp(np.log(priors.amplitude[0]) + priors.amplitude[1] * rng.standard_normal(PRIOR_DRAWS))
    spread = amplitude[:, None] * np.exp(0.5 * log_basis_variance(length))
    weights = spread * rng.standard_normal(spread.shape)
    return np.asarray(regime.scale * (weights @ basis(regime.curve_scale.to_unit(log_mcb)).T))
