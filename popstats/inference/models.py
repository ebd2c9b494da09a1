"""The PyMC model of the hyperparameters over all regimes: what `method="nuts"` samples under normal noise.

It is the definition, for reading and for PyMC's own tools. `nuts` samples the same density through a function
that needs no compiling in each process; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from popstats.inference.cross_products import RegimeData
from popstats.inference.density_op import DensityOp
from popstats.inference.marginal import log_density, pack
from popstats.inference.priors import Priors

__all__ = ["MarginalLogDensity", "build_model"]


class MarginalLogDensity(DensityOp):
    """`marginal.log_density` in a PyTensor graph."""

    density = staticmethod(log_density)
    differentiable = 1


def build_model(regimes: Sequence[RegimeData], priors: Priors) -> pm.Model:
    """Return the PyMC model of the hyperparameters, coefficients integrated out.

    Free variables, (K,) each: `log_length_scale`, `log_amplitude`, `log_noise`, in units of the regime's scale;
    `logit_seed_share`, which the data inform where a regime has replicates. Partial pooling:
    `priors.pooling` is the correlation of two regimes' log hyperparameters, a value common to all regimes
    integrated out.

    Parameters
    ----------
    regimes : sequence of RegimeData
        Fitted regimes, at least one.
    priors : Priors
    """
    pairs = np.array([priors.length_scale, priors.amplitude, priors.noise])
    size = len(regimes)
    correlation = (1.0 - priors.pooling) * np.eye(size) + priors.pooling
    with pm.Model() as model:
        rows = [
            pm.MvNormal(f"log_{name}", np.full(size, np.log(median)), spread**2 * correlation)
            for name, (median, spread) in zip(("length_scale", "amplitude", "noise"), pairs, strict=True)
        ]
        logit_share = pm.Logistic("logit_seed_share", 0.0, 1.0, shape=size)
        packed = pm.Data("packed", pack(regimes))
        pm.Potential("data", MarginalLogDensity()(pt.stack([*rows, logit_share]), packed)[0])
    return model
