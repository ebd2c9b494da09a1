r"""Curves of accuracy drop over log mCB: the basis, its scale, its spectral density.

The smooth curve is a Matern Gaussian process of smoothness 7/4 on a fixed Hilbert-space basis,

.. math:: f(u) = \sum_{j=1}^{m} \beta_j \phi_j(u), \quad
          \phi_j(u) = L^{-1/2} \sin\frac{j\pi(u+L)}{2L}, \quad
          \beta_j \sim \mathrm{Normal}(0, S(\omega_j)), \quad \omega_j = \frac{j\pi}{2L},

with u = (log mCB - centre) / half-range: -1 and 1 are the ends of the observed range. A straight line in u with
prior variance 1 (times the amplitude squared) is added to the sines: they are zero at the ends of their
domain and alone would bend steep slopes towards the ends of the range (measured: a linear truth was missed
there by 0.7 standard errors on average).

Smoothness 7/4, not 5/2: the coefficients of a curve whose curvature jumps somewhere fall with frequency as
those of a Matern-5/2 process do, and a prior as smooth as the truth rounds the jump off by more than its own
standard error. A prior that is somewhat rougher is one whose intervals cover (Knapik et al.), and costs no power
(DECISIONS.md has the figures).

References
----------
Solin and Sarkka (2020), doi:10.1007/s11222-019-09886-w; Riutort-Mayol et al. (2023),
doi:10.1007/s11222-022-10167-2; Knapik, van der Vaart and van Zanten (2011), doi:10.1214/11-AOS924.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import lgamma
from numbers import Integral
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.population.regimes import Axis

#: Smoothness of the Matern process, nu: its paths are once differentiable, and rougher than a curve whose
#: curvature jumps.
SMOOTHNESS = 1.75
#: Number of sines: the highest frequency, m * pi / (2 L) = 21, follows a curve that falls to a third within
#: a tenth of the observed range, and the bends that argmins hang on (with 16, intervals of the argmin of a truth
#: whose curvature jumps there held it in 75 % of 102 regimes of 3,000, with 21 in 84 %; at smoothness 2).
SINES = 20
#: All functions of the curve: the sines and the straight line.
BASIS_SIZE = SINES + 1
#: Half-width L of the basis's domain in units of the half-range; outside the kept rows, as
#: Riutort-Mayol et al. ask, so that the forced zeros at the ends do not bend the curve. With level and line beside
#: the sines 1.5 is far enough: 94 to 99 % of the process's variance beyond those two, as with 1.8 and more sines.
BOUNDARY = 1.5
#: Angular frequencies of the sines, per half-range.
FREQUENCIES = np.arange(1.0, SINES + 1.0) * np.pi / (2.0 * BOUNDARY)
#: Rows further than this from the centre (half-ranges) are left out of the fit, and counted: a few far
#: rows would otherwise decide the basis's domain.
KEPT_RANGE = 1.4
#: The observed range: where anything may be claimed.
OBSERVED_QUANTILES = (0.025, 0.975)
#: Reach in log cost (a factor of 1.35 from the centre) from which log mCB is regressed on its square too.
_WIDE = 0.3
#: Share of log mCB's variance left at equal cost from which the two count as unrelated.
_UNRELATED = 0.5
#: Columns of the design matrix before the basis: level, c and c^2 (c: log cost offset over the regime's reach).
#: Where a population holds several retraining techniques, their columns follow these, before the basis.
FIXED_TERMS = 3
#: All columns of the design matrix of one technique.
COLUMNS = FIXED_TERMS + BASIS_SIZE


@dataclass(frozen=True)
class CurveScale:
    """Where u = -1 and u = 1 lie on the log mCB axis of one regime, and what of it was observed at equal cost."""

    # centre, half_range: of 95 % of the recipes, log mCB.
    centre: float
    half_range: float
    at_equal_cost: tuple[float, float] | None = None  # log mCB; None: the same range

    @classmethod
    def of(cls, log_mcb: FloatArray, offset: FloatArray) -> CurveScale:
        """Scale by the 2.5 to 97.5 % range of `log_mcb` (n,); `offset` (n,) is the log cost offset."""
        # Where mCB follows the cost, recipes are brought to the regime's centre by a polynomial in the offset, and the
        # observed range is that of what they then are.
        low, high = (float(q) for q in np.quantile(log_mcb, OBSERVED_QUANTILES))
        centre, half_range, reach = (low + high) / 2.0, (high - low) / 2.0, float(np.abs(offset).max())
        degree = 2 if reach > _WIDE else 1
        freedom = log_mcb.size - degree - 1.0
        if min(reach, half_range) <= 0.0 or freedom < 3.0:
            return cls(centre, half_range)
        columns = np.vander(offset / reach, degree + 1, increasing=True)
        found = np.linalg.lstsq(columns, log_mcb, rcond=1e-8)[0]
        rest = log_mcb - columns @ found
        if float(rest @ rest) / freedom > _UNRELATED * float(log_mcb.var(ddof=1)):
            return cls(centre, half_range)
        ends = found[0] + np.quantile(rest, OBSERVED_QUANTILES) * np.sqrt((log_mcb.size - 1.0) / freedom)
        lowest = max(float(ends[0]), low)
        return cls(centre, half_range, (lowest, max(min(float(ends[1]), high), lowest)))

    @property
    def observed(self) -> tuple[float, float]:
        """The observed range, log mCB: nothing is claimed outside it."""
        return self.at_equal_cost or (self.centre - self.half_range, self.centre + self.half_range)

    def to_unit(self, log_mcb: npt.ArrayLike) -> FloatArray:
        """Return u for log mCB."""
        return np.asarray((np.asarray(log_mcb, dtype=np.float64) - self.centre) / self.half_range)

    def grid(self, size: int) -> FloatArray:
        """Return `size` equally spaced values of log mCB over the observed range."""
        return np.linspace(*self.observed, size, dtype=np.float64)


def basis(unit: npt.ArrayLike) -> FloatArray:
    """Return the sines and the line at u, shape (n, BASIS_SIZE)."""
    u = np.asarray(unit, dtype=np.float64)
    return _fill_basis(np.empty((BASIS_SIZE, u.size)), u).T


def _fill_basis(values: FloatArray, u: FloatArray) -> FloatArray:
    """Write the basis to `values`, shape (BASIS_SIZE, n), and return them."""
    # sin(j t) by the recurrence sin((j+1)t) = 2 cos(t) sin(j t) - sin((j-1)t): two transcendental
    # calls per row instead of SINES, which is most of the time at a million rows.
    angle = np.pi * (u + BOUNDARY) / (2.0 * BOUNDARY)
    values[0] = np.sin(angle) / np.sqrt(BOUNDARY)
    twice_cosine = 2.0 * np.cos(angle)
    values[1] = twice_cosine * values[0]
    for j in range(2, SINES):
        np.multiply(twice_cosine, values[j - 1], out=values[j])
        values[j] -= values[j - 2]
    values[SINES] = u
    return values


def design_matrix(unit: FloatArray, offset: FloatArray, technique: FloatArray | None = None) -> FloatArray:
    """Return level, c, c^2, techniques and the basis side by side, shape (n, FIXED_TERMS + T + BASIS_SIZE)."""
    # unit (n,); offset (n,): log cost offset over the regime's reach; technique (n, T)
    others = 0 if technique is None else technique.shape[1]
    columns = np.empty((COLUMNS + others, unit.size))
    columns[0], columns[1] = 1.0, offset
    np.multiply(offset, offset, out=columns[2])
    if technique is not None:
        columns[FIXED_TERMS : FIXED_TERMS + others] = technique.T
    _fill_basis(columns[FIXED_TERMS + others :], unit)
    return columns.T


def log_spectral_density(length_scale: Any, log: Callable[[Any], Any] = np.log) -> Any:
    r"""Return the log spectral density of a Matern process of unit variance and smoothness :math:`\nu`.

    .. math:: S(\omega) = 2 \sqrt\pi \frac{\Gamma(\nu + 1/2)}{\Gamma(\nu)} (2 \nu)^\nu l^{-2 \nu}
              \Bigl(\frac{2 \nu}{l^2} + \omega^2\Bigr)^{-(\nu + 1/2)}
    """
    # length_scale (..., 1), an array or, with its own logarithm, a tensor -> (..., SINES)
    constant = np.log(2.0 * np.sqrt(np.pi)) + lgamma(SMOOTHNESS + 0.5) - lgamma(SMOOTHNESS)
    constant += SMOOTHNESS * np.log(2.0 * SMOOTHNESS)
    squares = 2.0 * SMOOTHNESS / length_scale**2 + FREQUENCIES**2
    return constant - 2.0 * SMOOTHNESS * log(length_scale) - (SMOOTHNESS + 0.5) * log(squares)


def log_basis_variance(length_scale: npt.ArrayLike) -> FloatArray:
    """Return the log prior variance of all coefficients of the curve at amplitude 1, (...) -> (..., BASIS_SIZE)."""
    sines = log_spectral_density(np.asarray(length_scale, dtype=np.float64)[..., None])
    # The line's slope per half-range has variance 1.
    return np.concatenate([sines, np.zeros((*sines.shape[:-1], 1))], axis=-1)


class Hyper(NamedTuple):
    """Hyperparameters of a regime, or of several along the last axis, in units of the regime's scale."""

    length_scale: FloatArray  # half-ranges of log mCB
    # amplitude, noise: standard deviations of the curve, and of one training about it
    amplitude: FloatArray
    noise: FloatArray
    seed_share: FloatArray  # share of one training's variance that is seed noise; 0 without replicates
    # degrees of freedom ("student"), mean of the exponential ("exgaussian"); None: normal noise
    shape: FloatArray | None = None


def prior_precision(fixed: tuple[bool, ...], length_scale: FloatArray, amplitude: FloatArray) -> FloatArray:
    """Return the prior precision of each column's coefficient, (S,) -> (S, p)."""
    # 0 for fixed terms, whose priors are flat; 1 for those that the regime cannot tell apart, whose columns are zero.
    absent = np.broadcast_to(1.0 - np.array(fixed), (length_scale.size, len(fixed)))
    curve = np.exp(-log_basis_variance(length_scale)) / amplitude[:, None] ** 2
    return np.concatenate([absent, curve], axis=1)


#: How draws are made; other noise than normal is always drawn by "hmc".
Method = Literal["exact", "nuts", "hmc"]
#: Every method's draws come as this many chains.
CHAINS = 4
#: Seeds that the sampler can tell apart.
_SEEDS = 2**64
#: Names of the curves beside "smooth", and of the noises, with the draws that a sampler of theirs needs at least to adapt.
PARAMETRIC, NOISES = ("quadratic", "asymmetric"), ("normal", "student", "exgaussian")
LEAST_TUNE = {"student": 400, "exgaussian": 1000}


@dataclass(frozen=True)
class Settings:
    """How a fit was requested: the arguments of `popstats.fit`, saved with it."""

    regime_axis: Axis = "macs"
    regimes: tuple[float, ...] | dict[float, float] | None = None
    curve: str = "smooth"
    noise: str = "normal"
    method: Method = "exact"
    random_seed: int = 0
    draws: int = 1000
    tune: int = 500

    def __post_init__(self) -> None:
        legal = {
            "regime_axis": ("macs", "params"),
            "curve": ("smooth", *PARAMETRIC),
            "noise": NOISES,
            "method": ("exact", "nuts") if self.noise == "normal" else ("hmc",),
        }
        for name, choices in legal.items():
            if (got := getattr(self, name)) not in choices:
                raise FitError(f"{name}: expected {' or '.join(map(repr, choices))}, got {got!r}")
        if self.noise != "normal" and self.curve in PARAMETRIC:
            raise FitError(
                f"curve={self.curve!r} has normal noise only, got noise={self.noise!r}: use curve='smooth' with it"
            )
        for name in ("draws", "tune"):
            if not isinstance(got := getattr(self, name), int) or got < 1:
                raise FitError(f"{name}: expected a positive whole number, got {got!r}")
        require_seed(self.random_seed, "fit", "random_seed")


def require_seed(seed: object, who: str, argument: str = "seed") -> None:
    """Raise FitError unless random numbers can be drawn from `seed`; `who` is the function that was given it."""
    if not isinstance(seed, Integral) or not 0 <= int(seed) < _SEEDS:
        raise FitError(f"{who}: {argument}: expected a whole number from 0 on, below 2^64, got {seed!r}")


@dataclass(frozen=True)
class Priors:
    """Priors of the smooth-curve model; every pair is (median, standard deviation of the log).

    Parameters
    ----------
    length_scale : (float, float)
        Length scale of the curve, in halves of the observed range. 0.7 lets a curve turn once or twice
        within the range; its 95 % interval, 0.2 to 2.3, spans steep bends and near-straight lines.
    amplitude : (float, float)
        Standard deviation of the curve, in units of s. From a twelfth of the spread of the drops (nothing
        to see) to three times as much.
    noise : (float, float)
        Standard deviation of one training about the curve, in units of s. Near s when the curve explains
        little, a small part of it when it explains nearly all.
    excess : (float, float)
        Mean of the exponential part of `noise="exgaussian"`, in units of s.
    pooling : float
        Share of each log parameter's prior variance that is common to the regimes, in (0, 1): regimes of one
        population resemble each other but need not.

    Notes
    -----
    The level of each regime, its two MACs terms and the differences between its retraining techniques have flat
    priors: they are integrated out. The share of the variance of one training that is seed noise is uniform on (0, 1).
    """

    length_scale: tuple[float, float] = (0.7, 0.6)
    amplitude: tuple[float, float] = (0.5, 0.9)
    noise: tuple[float, float] = (0.8, 0.7)
    excess: tuple[float, float] = (0.5, 1.0)
    pooling: float = 0.3

    def __post_init__(self) -> None:
        for item in fields(self):
            values = getattr(self, item.name)
            if min(values if isinstance(values, tuple) else (values,)) <= 0:
                raise FitError(f"priors: {item.name} must be positive, got {values!r}")
        if self.pooling >= 1.0:
            raise FitError(f"priors: pooling is a share, expected a value in (0, 1), got {self.pooling!r}")

    def standardised(self, hyper: Hyper) -> list[FloatArray]:
        """Return the logs of length scale, amplitude and noise in prior standard deviations from their medians."""
        pairs = zip(hyper[:3], (self.length_scale, self.amplitude, self.noise), strict=True)
        return [(np.log(value) - np.log(median)) / spread for value, (median, spread) in pairs]

    def log_density(self, hyper: Hyper) -> FloatArray:
        """Return the joint log density of regimes' length scales, amplitudes and noises, (..., K) -> (...)."""
        # Up to a constant; the common value of each, which makes the regimes correlated by `pooling`, is integrated out.
        x = np.array(self.standardised(hyper))
        rest = 1.0 - self.pooling
        common = self.pooling / (rest + self.pooling * x.shape[-1])
        quadratic = (x**2).sum(axis=-1) - common * x.sum(axis=-1) ** 2
        return np.asarray(-0.5 * quadratic.sum(axis=0) / rest)

    def log_shape_density(self, noise: str, shape: FloatArray) -> FloatArray:
        """Return the log density of log(degrees of freedom - 1) or of the log mean of the exponential, up to a constant."""
        if noise == "student":
            beyond = np.maximum(shape - 1.0, np.finfo(np.float64).tiny)
            return np.asarray(2.0 * np.log(beyond) - 0.1 * beyond)
        return np.asarray(-0.5 * ((np.log(shape) - np.log(self.excess[0])) / self.excess[1]) ** 2)

    def draw(self, size: int, regimes: int, rng: np.random.Generator) -> Hyper:
        """Draw joint hyperparameters of this many regimes, shapes (size, regimes)."""
        pairs = np.array([self.length_scale, self.amplitude, self.noise])
        common, own = rng.standard_normal((3, size, 1)), rng.standard_normal((3, size, regimes))
        x = np.sqrt(self.pooling) * common + np.sqrt(1.0 - self.pooling) * own
        logs = np.log(pairs[:, 0, None, None]) + pairs[:, 1, None, None] * x
        length_scale, amplitude, noise = np.exp(logs)
        return Hyper(length_scale, amplitude, noise, rng.uniform(size=(size, regimes)))

    def describe(self) -> pd.DataFrame:
        """Return one row per prior: name, distribution, unit, reason."""
        normal = "LogNormal(log {0[0]:g}, {0[1]:g})".format
        rows = [
            ("length_scale", normal(self.length_scale), "half of the observed range of log mCB",
             "a curve may turn once or twice inside the range"),
            ("amplitude", normal(self.amplitude), "s, the spread of the recipes' drops in the regime",
             "from negligible to the whole spread"),
            ("noise", normal(self.noise), "s", "the residual spread, seeds included"),
            ("excess", normal(self.excess), "s", "mean of the exponential part (noise='exgaussian')"),
            ("degrees of freedom", "1 + Gamma(2, 0.1)", "", "from heavy tails to nearly normal (noise='student')"),
            ("seed_share", "Uniform(0, 1)", "share of one training's variance", "replicates decide"),
            ("level, MACs terms, techniques", "flat", "percentage points", "integrated out exactly"),
            ("pooling", f"{self.pooling:g} of the variance common", "log", "regimes resemble each other"),
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["prior", "distribution", "unit", "reason"])
