r"""The mean curve through some of a regime's recipes, under the very noise that the whole fit has.

Half of the recipes, or all but one group's narrowest quarter: the coefficients maximise their posterior given
the fit's own length scale, amplitude, noise and shape (posterior medians), so that what is left out changes the
curve and nothing else. With normal noise that is one linear system. Heavy tails and skewed noise are mixtures of
normal noise, and a few rounds of expectation and maximisation lead there:

.. math:: \text{student: } w_i = \frac{\nu + 1}{\nu + (e_i / s_i)^2}, \qquad
          \text{exgaussian: } \mathrm{E}[x_i \mid e_i] = m_i + s_i \frac{\phi(m_i / s_i)}{\Phi(m_i / s_i)}, \quad
          m_i = e_i - s_i^2 / \tau,

with residual e, scale s, and x the exponential part of the recipe's residual.

References
----------
Dempster, Laird and Rubin (1977), doi:10.1111/j.2517-6161.1977.tb01600.x; Lange, Little and Taylor (1989),
doi:10.1080/01621459.1989.10478852 (the weights of Student-t noise).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import log_ndtr

from popstats.arrays import BoolArray, FloatArray
from popstats.inference.data import MINIMUM_RECIPES, RegimeRows
from popstats.inference.exact import coefficient_posterior
from popstats.inference.model import OBSERVED_QUANTILES, Hyper, basis, prior_precision
from popstats.inference.regression import weighted_cross_products
from popstats.posterior.curves import FittedCurves
from popstats.posterior.optimum import GRID_SIZE

#: Most rounds of expectation and maximisation, and the change of a coefficient (in units of the regime's scale)
#: that ends them: a hundredth of what moves an optimum by a step of the grid.
ROUNDS = 60
SMALL = 1e-4
#: Share of recipes left out to see how the optimum depends on the mix: those with the narrowest, or widest, of a group.
QUARTER = 0.25


@dataclass(frozen=True, eq=False)
class MeanCurve:
    """One fitted regime, ready for curves through some of its recipes."""

    rows: RegimeRows  # The n recipes in the fit.
    noise: str  # Name of the fit's noise.
    hyper: Hyper  # Posterior medians, (1,) each.
    # (2 + T,); Posterior means of the MACs terms, c and c^2, and of the retraining techniques after the first.
    terms: FloatArray

    @classmethod
    def of(cls, fit: FittedCurves, k: int) -> MeanCurve:
        """Take the k-th fitted regime."""
        rows = fit.rows[k]
        terms = fit.draws.flat_coefficients[:, k, 1 : len(rows.regime.fixed)].mean(axis=0)
        return cls(rows, fit.settings.noise, fit.draws.median_hyper(k), terms)

    @cached_property
    def scale(self) -> FloatArray:
        """Scale of each recipe's noise, in units of the regime's scale, (n,)."""
        return np.asarray(self.hyper.noise[0] * self.rows.relative_scale(self.hyper.seed_share[0]))

    @property
    def log_mcb(self) -> FloatArray:
        """Each recipe's log mCB, shape (n,)."""
        return self.rows.log_mcb

    @property
    def adjusted(self) -> FloatArray:
        """Each recipe's drop at the regime's centre and mix of techniques, by the fit's own terms, points, (n,)."""
        regime = self.rows.regime
        effect = self.rows.design[:, 1 : 1 + self.terms.size] @ self.terms
        return np.asarray(regime.centre + regime.scale * (self.rows.drop - effect))

    def optimum(self, members: BoolArray) -> float | None:
        """Return the argmin of the mean curve through these recipes, log mCB; None if too few."""
        # members (n,)
        if members.sum() < MINIMUM_RECIPES:
            return None
        scale = self.rows.regime.curve_scale
        ends = scale.to_unit(scale.observed)
        low, high = np.clip(np.quantile(self.rows.unit[members], OBSERVED_QUANTILES), *ends)
        unit = np.linspace(low, high, GRID_SIZE)
        curve = basis(unit) @ self.coefficients(members)[1 + self.terms.size :]
        return float(scale.centre + scale.half_range * unit[curve.argmin()])

    def mix_range(self, widths: FloatArray) -> tuple[float, float]:
        """Return the range of the optimal mCB without the narrowest, or widest, quarter of each column of widths (n, G)."""
        low, high = np.quantile(widths, [QUARTER, 1.0 - QUARTER], axis=0)
        mixes = [np.ones(len(widths), dtype=bool), *(widths > low).T, *(widths < high).T]
        optima = [log for keep in mixes if (log := self.optimum(keep)) is not None]
        return float(np.exp(min(optima))), float(np.exp(max(optima)))

    @cached_property
    def residual(self) -> FloatArray:
        """How far each recipe lies from the curve through all of them, (n,)."""
        return np.asarray(self.rows.drop - self.rows.design @ self.coefficients())

    @property
    def penalty(self) -> FloatArray:
        """Prior precision of the coefficients, (p,)."""
        fixed, hyper = self.rows.regime.fixed, self.hyper
        return np.asarray(prior_precision(fixed, hyper.length_scale, hyper.amplitude)[0])

    def weighed(self) -> tuple[FloatArray, FloatArray]:
        """Return each recipe's precision in units of one training's, and the expected exponential part, (n,) each."""
        weight, excess = self.expected(self.residual, self.scale)
        return np.asarray(weight * (self.hyper.noise[0] / self.scale) ** 2), excess

    def coefficients(
        self, members: BoolArray | slice = slice(None), residual: FloatArray | None = None
    ) -> FloatArray:
        """Return the coefficients of the mean curve through these recipes, shape (p,)."""
        # residual (n,): what outliers are first told by; by default residuals of normal noise
        design, drop, scale = self.rows.design[members], self.rows.drop[members], self.scale[members]
        found = self._solve(design, drop, 1.0 / scale**2)
        if self.noise == "normal":
            return found
        away = drop - design @ found if residual is None else residual[members]
        for _ in range(ROUNDS):
            weight, excess = self.expected(away, scale)
            last, found = found, self._solve(design, drop - excess, weight / scale**2)
            if np.abs(found - last).max() < SMALL:
                break
            away = drop - design @ found
        return found

    def _solve(self, design: FloatArray, drop: FloatArray, precision: FloatArray) -> FloatArray:
        sums = weighted_cross_products(design, drop, precision * self.hyper.noise[0] ** 2)[None]
        rows = replace(self.rows.regime, replicates=np.ones(1), xx=sums[:, :-1, :-1], xy=sums[:, :-1, -1])
        return np.asarray(coefficient_posterior(rows, self.hyper)[0][0])

    def expected(self, residual: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return each recipe's weight and expected exponential part under the noise, given its residual, (n,) each."""
        shape = self.hyper.shape
        if self.noise == "normal" or shape is None:
            return np.ones_like(residual), np.zeros_like(residual)
        if self.noise == "student":
            weight = (shape + 1.0) / (shape + (residual / scale) ** 2)
            return weight, np.zeros_like(residual)
        middle = residual - scale**2 / shape
        t = middle / scale
        hazard = np.exp(-0.5 * t**2 - 0.5 * np.log(2.0 * np.pi) - log_ndtr(t))
        return np.ones_like(residual), middle + scale * hazard
