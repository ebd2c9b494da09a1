"""What is read off the draws of a fit: expected drops, optima, predictions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.inference.data import RegimeDesign, RegimeRows
from popstats.inference.draws import PRIOR_DRAWS, Draws, interval
from popstats.inference.exact import shrinkage
from popstats.inference.model import Hyper, Priors, Settings, basis, design_matrix, prior_precision
from popstats.inference.noise import draw_noise
from popstats.inference.spread import Changes, weighted_rows
from popstats.population.recipes import Recipes, prepared_recipes
from popstats.population.regimes import Axis
from popstats.population.table import Population
from popstats.posterior.optimum import GRID_SIZE, NEAR_OPTIMAL_POINTS, OptimumDraws, read_optimum
from popstats.words import sentence

#: Columns of `FittedCurves.optima` that a regime without a curve leaves blank.
_READ = (
    *(f"{n}{end}" for n in ("mcb", "near_lower", "near_upper") for end in ("", "_lower", "_upper")),
    *(f"{n}{end}" for n in ("limit", "regret_at_original") for end in ("", "_lower", "_upper")),
    "near_height", "near_probability", "p_interior", "observed_lower", "observed_upper", "recipe_sd", "seed_sd",
    "residual_sd", "seed_share",
)  # fmt: skip
#: Ends of ranges are printed with three decimals: whoever types one must not be refused.
_PRINTED = 0.0005


def curve_in_points(
    regime: RegimeDesign,
    coefficients: FloatArray,
    log_mcb: FloatArray,
    reduction: float | None = None,
    technique: int | None = None,
) -> FloatArray:
    """Return the expected drop in points, (S, G), by default at the regime's centre and the average technique."""
    # coefficients (S, p); log_mcb (G,); technique: position in the regime's mix
    offset = np.full(log_mcb.shape, 0.0 if reduction is None else regime.offset(reduction))
    others = np.zeros((log_mcb.size, len(regime.mix) - 1))
    if technique is not None:
        others += (np.arange(1, len(regime.mix)) == technique) - np.array(regime.mix[1:])
    design = design_matrix(regime.curve_scale.to_unit(log_mcb), offset, others)
    # Of a term that the regime cannot tell apart the draws are noise.
    design[:, : len(regime.fixed)] *= regime.fixed
    # In place: draws of a curve are megabytes, and fresh ones cost more than the arithmetic.
    curve: FloatArray = coefficients @ design.T
    curve *= regime.scale
    curve += regime.centre
    return curve


@dataclass(frozen=True, eq=False, repr=False)
class FittedCurves:
    """The draws of one population's curves, on the axes that users read; `Fit` adds checks and files."""

    population: Population
    regimes: tuple[RegimeDesign, ...]
    settings: Settings
    prior_settings: Priors
    draws: Draws
    spread_changes: Changes
    seconds: float

    @property
    def regime_axis(self) -> Axis:
        """The reduction that defines a regime."""
        return self.settings.regime_axis

    @property
    def recipes(self) -> Recipes:
        """The recipes behind the fit, as everything that reads the same regimes shares them."""
        return prepared_recipes(self.population, self.regime_axis, self.settings.regimes)

    @cached_property
    def fitted(self) -> tuple[RegimeDesign, ...]:
        """The regimes that were fitted."""
        return tuple(r for r in self.regimes if r.fitted)

    @cached_property
    def rows(self) -> tuple[RegimeRows, ...]:
        """The recipes in the fit of each fitted regime."""
        return tuple(weighted_rows(self.recipes, self.regimes, self.spread_changes))

    @cached_property
    def grid(self) -> FloatArray:
        """Values of log mCB over each fitted regime's observed range, shape (K, GRID_SIZE)."""
        return np.array([r.curve_scale.grid(GRID_SIZE) for r in self.fitted]).reshape(-1, GRID_SIZE)

    @cached_property
    def expected_drop(self) -> FloatArray:
        """Draws of the expected drop at the regime's centre, percentage points, shape (S, K, GRID_SIZE)."""
        # Regime by regime in memory, as they are read.
        drop = np.empty((len(self.fitted), self.draws.flat_coefficients.shape[0], GRID_SIZE))
        for k, grid in enumerate(self.grid):
            drop[k] = self.expected_at(k, grid)
        return drop.transpose(1, 0, 2)

    def expected_at(self, k: int, log_mcb: FloatArray) -> FloatArray:
        """Draws of the k-th regime's expected drop at its centre, at values of log mCB (m,), points, shape (S, m)."""
        curve = curve_in_points(self.fitted[k], self.draws.flat_coefficients[:, k], log_mcb)
        curve += self._excess(k)
        return curve

    def _excess(self, k: int) -> FloatArray | float:
        """Mean distance of trainings from the curve, points, shape (S, 1) under "exgaussian" noise; otherwise 0."""
        mean = self.draws.hyper(k).shape if self.settings.noise == "exgaussian" else None
        return 0.0 if mean is None else self.fitted[k].scale * mean[:, None]

    @cached_property
    def optimum_draws(self) -> tuple[OptimumDraws, ...]:
        """Optimum, limit, near-optimal range and regret of each fitted regime, draw by draw."""
        return tuple(self.read_optimum(k) for k in range(len(self.fitted)))

    def stacked(self, name: str) -> FloatArray:
        """Return one of the fields of `OptimumDraws` over the fitted regimes, shape (chains, draws, K)."""
        values = [getattr(optimum, name) for optimum in self.optimum_draws]
        return np.stack(values, axis=1).reshape(self.draws.noise.shape) if values else self.draws.noise

    def read_optimum(self, k: int, near: float = NEAR_OPTIMAL_POINTS) -> OptimumDraws:
        """Read the k-th fitted regime's optimum off its draws; `near`: height of the near-optimal range, points."""
        regime, draws, bias = self.fitted[k], self.draws, None
        if self.settings.curve == "smooth":
            # How far the prior has pulled the mean curve from the truth, points.
            mean = draws.coefficients[:, :, k].mean(axis=(0, 1))
            pulled = shrinkage(regime, mean, draws.median_hyper(k))[None]
            bias = curve_in_points(regime, pulled, self.grid[k])[0] - regime.centre
        return read_optimum(self.grid[k], self.expected_drop[:, k], near, bias)

    @cached_property
    def prior_draws(self) -> tuple[Hyper, FloatArray]:
        """Joint draws from the prior: hyperparameters (D, K), and curves about an arbitrary level, points, (D, K, G)."""
        rng = np.random.default_rng([self.settings.random_seed, 977])
        hyper = self.prior_settings.draw(PRIOR_DRAWS, len(self.fitted), rng)
        drop = np.empty((len(self.fitted), PRIOR_DRAWS, GRID_SIZE))
        for k, regime in enumerate(self.fitted):
            precision = prior_precision((), hyper.length_scale[:, k], hyper.amplitude[:, k])
            weights = rng.standard_normal(precision.shape) / np.sqrt(precision)
            drop[k] = regime.scale * (weights @ basis(regime.curve_scale.to_unit(self.grid[k])).T)
        return hyper, drop.transpose(1, 0, 2)

    def optima(self) -> pd.DataFrame:
        """Return what was found in each regime; all intervals 90 %, equal-tailed.

        Returns
        -------
        pandas.DataFrame
            One row per regime: regime, target (fraction removed), n (trainings), n_recipes; mcb (median of the
            argmin) with mcb_lower, mcb_upper; near_lower and near_upper, the near-optimal range: mCB values whose
            expected drop is within near_height points of the minimum with probability one half, each end with its own
            interval (near_lower_lower, ...); near_height (0.05, unless no mCB value is that near with that probability)
            and near_probability (the largest probability of being within 0.05 points); limit (points) with limit_lower,
            limit_upper; regret_at_original (points; NaN where mCB = 1 was not observed) with its interval; p_interior
            (probability that the minimum lies inside the observed range); observed_lower, observed_upper (mCB at equal
            cost); recipe_sd and seed_sd (points; NaN without replicates), residual_sd (points, one training), seed_share;
            reason (why a regime has none).
        """
        return pd.DataFrame([self._optimum_row(r) for r in self.regimes])

    def _optimum_row(self, regime: RegimeDesign) -> dict[str, Any]:
        row = {"regime": regime.label, **{n: getattr(regime, n) for n in ("target", "n", "n_recipes")}}
        if regime.reason is not None:
            return {**row, **dict.fromkeys(_READ, np.nan), "reason": sentence(regime.reason)}
        k = self.fitted.index(regime)
        optimum = self.optimum_draws[k]
        near, ends = optimum.near, ("near_lower", "near_upper")
        values = {"mcb": np.exp(optimum.log_mcb), **{end: np.exp(getattr(optimum, end)) for end in ends}}
        values |= {"limit": optimum.limit, "regret_at_original": optimum.regret_at_original}
        points = {name: float(np.median(draws)) for name, draws in values.items()}
        points |= zip(ends, np.exp(near.stretches[0]).tolist(), strict=True)
        for name, draws in values.items():
            low, high = interval(draws)
            row |= {name: points[name], f"{name}_lower": float(low), f"{name}_upper": float(high)}
        row |= {"near_height": near.height, "near_probability": near.probability}
        row |= {"p_interior": float(optimum.interior.mean())}
        row |= zip(("observed_lower", "observed_upper"), np.exp(regime.observed).tolist(), strict=True)
        hyper = self.draws.hyper(k)
        noise, share = regime.scale * hyper.noise, hyper.seed_share
        spread = {"recipe_sd": noise * np.sqrt(1 - share), "seed_sd": noise * np.sqrt(share)}
        spread |= {"residual_sd": noise, "seed_share": share}
        told = regime.has_replicates
        row |= {n: float(np.median(v)) if told or v is noise else np.nan for n, v in spread.items()}
        return {**row, "reason": ""}

    def curve(self) -> pd.DataFrame:
        """Return the expected drop over mCB: regime, mcb, drop (median, points), lower, upper (90 %)."""
        parts = [pd.DataFrame(columns=["regime", "mcb", "drop", "lower", "upper"])] * (not self.fitted)
        for k, regime in enumerate(self.fitted):
            low, high = interval(self.expected_drop[:, k])
            drop = {"drop": np.median(self.expected_drop[:, k], axis=0), "lower": low, "upper": high}
            parts.append(pd.DataFrame({"regime": regime.label, "mcb": np.exp(self.grid[k]), **drop}))
        return pd.concat(parts, ignore_index=True)

    def predict(
        self,
        mcb: npt.ArrayLike,
        regime: float | str,
        reduction: float | None = None,
        *,
        retraining: str | None = None,
    ) -> pd.DataFrame:
        """Predict the accuracy drop of subnetworks with the given mCB.

        Parameters
        ----------
        mcb : array_like, shape (m,)
            Inside the regime's observed range.
        regime : float or str
            Centre or label of a fitted regime.
        reduction : float, optional
            The subnetworks' reduction on the fit's axis, inside the regime; default: the regime's centre.
        retraining : str, optional
            How they are retrained; default: the average over the regime's recipes.

        Returns
        -------
        pandas.DataFrame
            mcb; drop, lower, upper: expected drop with its 90 % interval, points; training_lower,
            training_upper: 90 % interval for one new training (recipe and seed noise included).

        Raises
        ------
        FitError
            If the regime was not fitted, or a value lies outside what was observed.
        """
        k = self.position_of(regime, "predict")
        data = self.fitted[k]
        low, high = np.exp(data.observed)
        try:
            asked = np.atleast_1d(np.asarray(mcb, dtype=np.float64))
        except (TypeError, ValueError):
            asked = np.zeros(1)
        if not (asked > 0.0).all():
            raise FitError(f"predict: mcb: expected positive numbers, got {mcb!r}")
        if not ((asked >= low - _PRINTED) & (asked <= high + _PRINTED)).all():
            raise FitError(
                f"predict: mCB outside the observed range of regime {data.label} ({low:.3f} to {high:.3f}); "
                "nothing may be claimed there"
            )
        log_mcb = np.log(asked)
        first, last = 1.0 - (1.0 - data.reference) * np.exp([data.reach, -data.reach])
        if reduction is not None and not first - _PRINTED <= reduction <= last + _PRINTED:
            raise FitError(
                f"predict: reduction {reduction} lies outside regime {data.label} ({first:.3f} to {last:.3f})"
            )
        technique = self._technique_of(data, retraining)
        curve = curve_in_points(data, self.draws.flat_coefficients[:, k], log_mcb, reduction, technique)
        drop = curve + self._excess(k)
        ends = *interval(drop), *interval(drop + self._training_noise(k, log_mcb))
        names = ("mcb", "drop", "lower", "upper", "training_lower", "training_upper")
        columns = (np.exp(log_mcb), np.median(drop, axis=0), *ends)
        return pd.DataFrame(dict(zip(names, columns, strict=True)))

    def _technique_of(self, regime: RegimeDesign, retraining: str | None) -> int | None:
        """Position of a technique that the regime holds; None for the average over them."""
        named = zip(self.population.techniques, regime.mix, strict=True)
        held = {name: i for i, (name, share) in enumerate(named) if share > 0.0 and name}
        if retraining not in (None, *held):
            raise FitError(
                f"predict: retraining {retraining!r} was not observed in regime {regime.label}; it holds: "
                f"{', '.join(held) or 'no names of techniques'}"
            )
        return held.get(retraining or "")

    def _training_noise(self, k: int, log_mcb: FloatArray) -> FloatArray:
        """Draw deviations of single trainings at `log_mcb`, shape (m,), from their expected drop, points, (S, m)."""
        rng, hyper = np.random.default_rng([self.settings.random_seed, k, 2]), self.draws.hyper(k)
        position = self.regimes.index(self.fitted[k])
        change, relative = self.spread_changes[position], np.ones_like(log_mcb)
        if change.matters:
            held = self.recipes.table["log_mcb"].to_numpy()[self.recipes.members[position]]
            mean = change.precision(held, self.fitted[k]).mean()
            relative = np.sqrt(mean / change.precision(log_mcb, self.fitted[k]))
        scale = hyper.noise[:, None] * relative
        shape = None if hyper.shape is None else hyper.shape[:, None]
        noise = draw_noise(self.settings.noise, scale, shape, rng)
        return np.asarray(self.fitted[k].scale * noise - self._excess(k))

    def position_of(self, regime: float | str, who: str) -> int:
        """Return the position in `fitted` of a regime, given by its centre or label; FitError, naming `who`, if absent."""
        names = f"fitted: {', '.join(r.label for r in self.fitted) or 'none'}"
        if not isinstance(regime, str | Real):
            raise FitError(
                f"{who}: regime: expected the centre or label of a fitted regime, got {regime!r}; {names}"
            )
        for k, data in enumerate(self.fitted):
            if regime == data.label or (isinstance(regime, Real) and abs(regime - data.target) < 1e-6):
                return k
        raise FitError(f"{who}: regime {regime!r} was not fitted; {names}")
