"""The PyMC models: of the hyperparameters over all regimes under normal noise, and of the rows under other noise.

They are the definitions, for reading and for PyMC's own tools. `nuts` and `row_models` sample the same densities
through functions that need no compiling in each process; tests hold each pair equal.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_and_cache_key

from popstats.arrays import FloatArray
from popstats.inference import robust_density as row_density
from popstats.inference.data import RegimeData
from popstats.inference.model import Priors
from popstats.inference.nuts import log_density, pack
from popstats.inference.robust import RowCoordinates


class DensityOp(Op):  # type: ignore[misc]
    """Inputs: arrays to differentiate by, then the packed data; outputs: value (), then the gradients.

    Subclasses set `density`, a function in numba's subset of Python that calls nothing outside its own module, and
    `differentiable`, how many of its leading inputs it returns gradients for.
    """

    __props__ = ()
    density: ClassVar[Callable[..., Any]]
    differentiable: ClassVar[int]

    def make_node(self, *inputs: Any) -> Apply:
        """Return the node."""
        tensors = [pt.as_tensor_variable(x) for x in inputs]
        return Apply(self, tensors, [pt.dscalar(), *(x.type() for x in tensors[: self.differentiable])])

    def perform(self, node: Apply, inputs: list[Any], output_storage: list[Any]) -> None:
        """Evaluate in plain Python; for debugging."""
        for storage, result in zip(output_storage, type(self).density(*inputs), strict=True):
            storage[0] = np.asarray(result)

    def infer_shape(self, node: Apply, shapes: list[Any]) -> list[Any]:
        """Gradients have the shapes of what they are taken by."""
        return [(), *shapes[: self.differentiable]]

    def pullback(self, inputs: list[Any], outputs: list[Any], cotangents: list[Any]) -> list[Any]:
        """Chain rule for the value; the gradients' own derivatives are not defined."""
        if not all(isinstance(c.type, DisconnectedType) for c in cotangents[1:]):
            raise NotImplementedError("second derivatives of this log density are not available")
        through = [cotangents[0] * gradient for gradient in outputs[1:]]
        return [*through, *(disconnected_type() for _ in inputs[self.differentiable :])]

    L_op = pullback

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Only the leading inputs are differentiated."""
        return [[i < self.differentiable] * len(node.outputs) for i in range(len(node.inputs))]


@register_funcify_and_cache_key(DensityOp)  # type: ignore[untyped-decorator]
def _compiled(op: DensityOp, **kwargs: Any) -> Any:
    # PyTensor keeps the compiled function on disk under this key. The source is part of it, with all that the
    # function may call: a key made of the operation's properties alone would keep serving an earlier version.
    source = inspect.getsource(sys.modules[type(op).density.__module__])
    return numba_njit(type(op).density), sha256(source.encode()).hexdigest()


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


class RowLogDensity(DensityOp):
    """`row_density.log_density` in a PyTensor graph."""

    density = staticmethod(row_density.log_density)
    differentiable = 3


def build_row_model(noise: str, coordinates: RowCoordinates, packed: FloatArray, priors: Priors) -> pm.Model:
    """Return the PyMC model.

    Free variables: `common`, the scales (`log_noise` and `log_beyond_one`, or `log_total` and `log_odds`; (K,) each)
    and `z`, whitened coefficients (K, p).
    """
    size = len(coordinates.centre)
    with pm.Model() as model:
        common = pm.Normal("common", np.log(priors.noise[0]), priors.noise[1] * np.sqrt(priors.pooling))
        own = priors.noise[1] * np.sqrt(1.0 - priors.pooling)
        scales = _frontier_scales if noise == "frontier" else _student_scales
        log_noise, log_shape, lowered = scales(size, common, own, priors)
        # The likelihood places the coefficients; this wide prior only keeps the density proper.
        z = pm.Normal("z", 0.0, coordinates.wide**-0.5, shape=coordinates.wide.shape)
        coefficients = coordinates.centre + (coordinates.root * z[:, None, :]).sum(axis=2)
        coefficients = pm.Deterministic("coefficients", pt.inc_subtensor(coefficients[:, 0], -lowered))
        curve = coefficients[:, -coordinates.precision.shape[1] :]
        pm.Potential("curve", -0.5 * (coordinates.precision * curve**2).sum())
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
