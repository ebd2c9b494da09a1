r"""Noise that is not normal, Student-t or exponentially modified normal: Hamiltonian Monte Carlo in NumPy.

The likelihood does not reduce to cross-products, so every recipe enters every step. Given the value common to the
regimes' log noises, regimes are independent: each is moved by its own trajectories, in coordinates in which its
posterior is about standard normal, so that four steps lead to a nearly independent draw. All chains move side by side.

The coordinates z of the curve follow the noise: with the curve's prior whitened, the columns rotated so that their
cross-products are diagonal, :math:`\lambda`, and the drops' products with them c, a curve is

.. math:: \gamma_j = s_j z_j + s_j^2 c_j / \sigma^2, \qquad s_j = (1 + \lambda_j / \sigma^2)^{-1/2},

which under normal noise makes z standard normal whatever the noise is. Few recipes otherwise make a funnel: the less
noise, the narrower the curves.

The curve's length scale and amplitude are set to their posterior medians under normal noise (empirical
Bayes): sampled together with the coefficients they form funnels in twenty dimensions. Reported are draws of the two
given each draw of the coefficients. Replicates decide the seeds' share whatever the tails, so it is held too.

References
----------
Neal (2011), MCMC using Hamiltonian dynamics; Hoffman and Gelman (2014), JMLR 15, section 3.2 (the step size).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from popstats.arrays import FloatArray
from popstats.inference.data import RegimeRows
from popstats.inference.draws import Draws
from popstats.inference.model import (
    BASIS_SIZE,
    CHAINS,
    Hyper,
    Priors,
    Settings,
    log_basis_variance,
    prior_precision,
)
from popstats.inference.noise import log_density_slopes

#: Steps of a trajectory, and the largest step: together a little over a quarter of the standard normal's orbit. The
#: edge of an exponential is sharp, and needs short ones.
_STEPS = {"student": 4, "exgaussian": 8}
_ORBIT = 2.2
#: Steps are shortened at random by up to this share, so that no orbit closes.
_JITTER = 0.3
#: Share of proposals to be accepted, and shares of the tuning draws after which the coordinates are made anew.
_TARGET_ACCEPT = 0.9
_STAGES = (0.15, 0.45, 0.9)
#: An error of the energy beyond this is a divergence.
_DIVERGENCE = 1000.0
#: Where degrees of freedom less one, or odds of the exponential and the normal part, start; how far apart, in logs.
_START = {"student": 5.0, "exgaussian": 1.0}
_APART = 0.3
#: Prior precision of the terms whose prior is flat, so that it can be whitened like the others'.
_FLAT = 1e-8
#: Under Student-t noise outlying recipes count less in the coordinates: rounds of reweighting, and its degrees of freedom.
_ROUNDS, _FREEDOM = 10, 3.0
#: Median of the absolute value of a standard normal variable.
_NORMAL_MEDIAN = 0.6745


def sample_rows(
    settings: Settings, rows: Sequence[RegimeRows], normal: Draws, priors: Priors, thin: int = 1
) -> Draws:
    """Sample curves, scales and the shape of the noise, from draws under normal noise; keep every `thin`-th draw."""
    rng, tune = np.random.default_rng([settings.random_seed, 6]), thin * settings.tune
    hypers = [normal.median_hyper(k) for k in range(len(rows))]
    walkers = [
        _Walker(_Posterior(settings.noise, r, h, priors), h.noise, rng)
        for r, h in zip(rows, hypers, strict=True)
    ]
    stages = {round(share * tune) for share in _STAGES}
    positions, diverging = [], []
    for i in range(tune + thin * settings.draws):
        common = _draw_common(walkers, priors, rng)
        for walker in walkers:
            walker.move(common, tuning=i < tune)
            if i in stages:
                walker.adapt()
        if i >= tune and (i - tune) % thin == thin - 1:
            found = [w.target.rotation @ w.target.curve(w.position)[0] for w in walkers]
            positions.append([np.vstack([c, w.position[-2:]]) for c, w in zip(found, walkers, strict=True)])
            diverging.append(np.any([w.diverged for w in walkers], axis=0))
    drawn = np.array(positions).transpose(3, 0, 1, 2)  # (chains, draws, K, p + 2)
    log_noise, log_shape = _scales(settings.noise, drawn[..., -2], drawn[..., -1])
    coefficients, shape = drawn[..., :-2].copy(), np.exp(log_shape)
    if settings.noise == "exgaussian":
        coefficients[..., 0] -= shape
    held = (np.broadcast_to(h.seed_share, shape.shape[:2]) for h in hypers)
    curves = coefficients.reshape(-1, *coefficients.shape[2:])[:, :, -BASIS_SIZE:]
    scales = [_curve_scales(curves[:, k], priors, rng) for k in range(len(rows))]
    length_scale, amplitude = (np.stack(v, axis=1).reshape(shape.shape) for v in zip(*scales, strict=True))
    return Draws(
        length_scale=length_scale,
        amplitude=amplitude,
        noise=np.exp(log_noise),
        seed_share=np.stack(list(held), axis=2),
        coefficients=coefficients,
        shape=shape,
        statistics={"diverging": np.array(diverging, dtype=np.float64).T},
    )


def _curve_scales(curve: FloatArray, priors: Priors, rng: Generator) -> tuple[FloatArray, FloatArray]:
    """Draw length scale and amplitude given each draw of a curve's coefficients (S, m), on a grid: one Gibbs step."""
    x, y = np.linspace(-2.4, 2.4, 16), np.linspace(-3.0, 3.0, 48)
    length_scale = priors.length_scale[0] * np.exp(priors.length_scale[1] * x)
    amplitude = priors.amplitude[0] * np.exp(priors.amplitude[1] * y)
    log_variance = log_basis_variance(length_scale)
    squares = curve**2 @ np.exp(-log_variance).T
    log_weight = squares[:, :, None] / amplitude**2 + log_variance.sum(axis=1)[:, None]
    log_weight = -0.5 * (log_weight + x[:, None] ** 2 + y**2)
    log_weight -= BASIS_SIZE * np.log(amplitude)
    # The largest of the weights after standard Gumbel noise is a draw.
    cell = (log_weight + rng.gumbel(size=log_weight.shape)).reshape(len(curve), -1).argmax(axis=1)
    return length_scale[cell // y.size], amplitude[cell % y.size]


def _scales(noise: str, a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return log noise and log shape of the walked pair."""
    # "student": log noise and log(degrees of freedom - 1). "exgaussian": logs of the total spread and of the odds of its
    # exponential and normal parts, which trade off against each other.
    if noise == "student":
        return a, np.logaddexp(0.0, b)
    return a - 0.5 * np.logaddexp(0.0, b), a - 0.5 * np.logaddexp(0.0, -b)


class _Posterior:
    """Log posterior density of one regime given the common noise, at positions (coefficients, a, b) side by side.

    Under exponentially modified noise the first coefficient is the mean's level, not the curve's: the curve's trades off
    against the mean of the exponential.
    """

    def __init__(self, noise: str, rows: RegimeRows, hyper: Hyper, priors: Priors) -> None:
        self.noise, self.priors = noise, priors
        relative = rows.relative_scale(hyper.seed_share[0])
        precision = prior_precision(rows.regime.fixed, hyper.length_scale, hyper.amplitude)[0]
        whitened = rows.design / np.sqrt(precision + _FLAT)
        weight = relative**-2.0
        for _ in range(_ROUNDS if noise == "student" else 0):
            squares = (whitened * weight[:, None]).T @ whitened / hyper.noise**2 + np.eye(precision.size)
            products = whitened.T @ (weight * rows.drop) / hyper.noise**2
            e = rows.drop - whitened @ np.linalg.solve(squares, products)
            spread = max(np.median(np.abs(e) / relative) / _NORMAL_MEDIAN, 0.01 * hyper.noise[0])
            weight = (_FREEDOM + 1.0) / (_FREEDOM * relative**2 + (e / spread) ** 2)
        values, vectors = np.linalg.eigh((whitened * weight[:, None]).T @ whitened)
        self.values = np.maximum(values, 0.0)[:, None]
        self.columns = whitened @ vectors
        self.rotation = vectors / np.sqrt(precision + _FLAT)[:, None]
        self.products = (self.columns.T @ (weight * rows.drop))[:, None]
        self.drop, self.relative = rows.drop[:, None], relative[:, None]
        self.own = priors.noise[1] * np.sqrt(1.0 - priors.pooling)

    def curve(self, position: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the curve in rotated columns, its slopes by z and by a, (p, C) each."""
        z, precision = position[:-2], np.exp(-2.0 * position[-2])
        shrunk = 1.0 / (1.0 + self.values * precision)
        scale = np.sqrt(shrunk)
        mean = shrunk * self.products * precision
        return scale * z + mean, scale, (1.0 - shrunk) * scale * z - 2.0 * shrunk * mean

    def slopes(self, position: FloatArray, common: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return value (C,) and gradient (p + 2, C) at positions (p + 2, C), given the common log noise (C,)."""
        a, b = position[-2:]
        curve, by_z, by_a = self.curve(position)
        log_noise, log_shape = _scales(self.noise, a, b)
        shape, odds = np.exp(log_shape), 1.0 / (1.0 + np.exp(-b))
        shift = shape if self.noise == "exgaussian" else 0.0
        e = self.drop - self.columns @ curve + shift
        scale = np.exp(log_noise) * self.relative
        rows, by_e, by_noise, by_shape = log_density_slopes(self.noise, e, scale, shape)
        away = (log_noise - common) / self.own
        to_noise = by_noise.sum(axis=0) - away / self.own
        to_shape = (by_shape + by_e * shift).sum(axis=0)
        # The last term is the Jacobian's.
        value = rows.sum(axis=0) - 0.5 * (curve**2).sum(axis=0) - 0.5 * away**2 + np.log(by_z).sum(axis=0)
        value += self.priors.log_shape_density(self.noise, shape)
        gradient = np.empty_like(position)
        to_curve = -self.columns.T @ by_e - curve
        gradient[:-2] = by_z * to_curve
        if self.noise == "student":
            gradient[-2], gradient[-1] = to_noise, odds * to_shape + 2.0 - 0.1 * np.exp(b)
        else:
            median, spread = self.priors.excess
            to_shape -= (log_shape - np.log(median)) / spread**2
            gradient[-2] = to_noise + to_shape
            gradient[-1] = 0.5 * ((1.0 - odds) * to_shape - odds * to_noise)
        gradient[-2] += (to_curve * by_a + 1.0 - by_z**2).sum(axis=0)
        return value, gradient


class _Walker:
    """The chains of one regime, side by side."""

    def __init__(self, target: _Posterior, noise: FloatArray, rng: Generator) -> None:
        self.target, self.rng = target, rng
        size = target.values.size
        self.root = np.diag([*np.ones(size), _APART, _APART])
        centre = np.concatenate([np.zeros(size), np.log(noise), [np.log(_START[target.noise])]])
        self.position = centre[:, None] + self.root @ rng.standard_normal((centre.size, CHAINS))
        self.diverged = np.zeros(CHAINS, dtype=bool)
        self.steps = _STEPS[target.noise]
        self._restart(0.1)

    @property
    def log_noise(self) -> FloatArray:
        """Of each chain, (C,)."""
        return _scales(self.target.noise, self.position[-2], self.position[-1])[0]

    def move(self, common: FloatArray, tuning: bool) -> None:
        """Follow a trajectory from each chain's position, and accept its end or stay."""
        step = (self.step if tuning else self.mean_step) * (1.0 - _JITTER * self.rng.random())
        position, momentum = self.position, self.rng.standard_normal(self.position.shape)
        value, gradient = self.target.slopes(position, common)
        energy = 0.5 * (momentum**2).sum(axis=0) - value
        with np.errstate(all="ignore"):  # a step too far is not accepted
            for _ in range(self.steps):
                momentum = momentum + 0.5 * step * (self.root.T @ gradient)
                position = position + step * (self.root @ momentum)
                value, gradient = self.target.slopes(position, common)
                momentum = momentum + 0.5 * step * (self.root.T @ gradient)
            error = np.nan_to_num(0.5 * (momentum**2).sum(axis=0) - value - energy, nan=np.inf)
            chance = np.minimum(1.0, np.exp(-error))
        self.diverged = error > _DIVERGENCE
        self.position = np.where(self.rng.random(CHAINS) < chance, position, self.position)
        if tuning:
            self.seen.append(self.position)
            self._tune(float(chance.mean()))

    def adapt(self) -> None:
        """Recompute the coordinates from the chains' history, shrunk towards the last ones where that is short."""
        seen = np.concatenate(self.seen[len(self.seen) // 3 :], axis=1)
        share = seen.shape[1] / (seen.shape[1] + 2.0 * len(seen))
        covariance = share * np.cov(seen) + (1.0 - share) * self.root @ self.root.T
        self.root = np.linalg.cholesky(covariance)
        self._restart(self.mean_step)

    def _restart(self, step: float) -> None:
        self.step = self.mean_step = step
        self.seen: list[FloatArray] = []
        self.shortfall, self.anchor = 0.0, np.log(10.0 * step)

    def _tune(self, accepted: float) -> None:
        """Dual averaging (Hoffman and Gelman 2014, algorithm 5)."""
        m = len(self.seen)
        self.shortfall += (_TARGET_ACCEPT - accepted - self.shortfall) / (m + 10.0)
        self.step = min(float(np.exp(self.anchor - np.sqrt(m) / 0.05 * self.shortfall)), _ORBIT / self.steps)
        self.mean_step *= (self.step / self.mean_step) ** (m**-0.75)


def _draw_common(walkers: Sequence[_Walker], priors: Priors, rng: Generator) -> FloatArray:
    """Draw the value common to the regimes' log noises given them, (C,)."""
    (median, spread), pooling = priors.noise, priors.pooling
    own, shared = 1.0 / (spread**2 * (1.0 - pooling)), 1.0 / (spread**2 * pooling)
    precision = shared + own * len(walkers)
    mean = (shared * np.log(median) + own * np.sum([w.log_noise for w in walkers], axis=0)) / precision
    return np.asarray(mean + rng.standard_normal(CHAINS) / np.sqrt(precision))
