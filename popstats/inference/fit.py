"""`popstats.fit`: from a population to joint draws of its curves, and the object that carries them."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.errors import FitError
from popstats.inference.convergence import Convergence, check_draws
from popstats.inference.cross_products import (
    PreparedPopulation,
    RegimeData,
    StandardRows,
    prepare_population,
    prepare_regimes,
    standard_rows,
)
from popstats.inference.draws import PRIOR_DRAWS, Draws, curve_in_points, from_regimes, prior_curves
from popstats.inference.exact import draw_regime
from popstats.inference.optimum import (
    GRID_SIZE,
    INTERVAL_MASS,
    NEAR_OPTIMAL_POINTS,
    OptimumDraws,
    interval,
    read_optimum,
)
from popstats.inference.parametric import PARAMETRIC, draw_parametric, flat_priors
from popstats.inference.priors import Priors
from popstats.inference.shrinkage import shrinkage
from popstats.inference.variance import (
    SpreadChange,
    estimate_spread_change,
    precision_weights,
    relative_spread,
)
from popstats.population import Population, require_population
from popstats.spaces import Axis

if TYPE_CHECKING:
    import xarray as xr

    from popstats.inference.predictive import PredictiveChecks
    from popstats.inference.sampling import Chains
    from popstats.inference.sensitivity import Sensitivity

__all__ = ["Fit", "Settings", "fit", "require_fit", "require_seed"]

FloatArray = npt.NDArray[np.float64]
Method = Literal["nuts", "exact"]

#: Columns of `Fit.optima()` that a notebook shows.
_SHOWN = (
    "regime", "n", "near_lower", "near_upper", "mcb", "mcb_lower", "mcb_upper", "limit", "limit_lower",
    "limit_upper", "p_interior",
)  # fmt: skip
#: Draws that the weights for a changing spread are estimated with, before the fit proper.
_PILOT_DRAWS = 200
#: ... and the most recipes a regime that it is estimated from.
_PILOT_RECIPES = 10_000
#: Ends of ranges are printed with three decimals: whoever types one must not be refused.
_PRINTED = 0.0005
#: Seeds that the sampler can tell apart.
_SEEDS = 2**64


@dataclass(frozen=True)
class Settings:
    """How a fit was asked for; saved with it.

    Attributes
    ----------
    regime_axis, regimes, curve, noise, method, seed, draws, tune, chains
        The arguments of `popstats.fit`.
    """

    regime_axis: Axis = "macs"
    regimes: tuple[float, ...] | dict[float, float] | None = None
    curve: str = "smooth"
    noise: str = "normal"
    method: Method = "nuts"
    seed: int = 0
    draws: int = 1000
    tune: int = 500
    chains: int = 4

    def __post_init__(self) -> None:
        legal = {
            "regime_axis": ("macs", "params"),
            "curve": ("smooth", *PARAMETRIC),
            "noise": ("normal", "student", "frontier"),
            "method": ("nuts", "exact"),
        }
        for name, choices in legal.items():
            if getattr(self, name) not in choices:
                raise FitError(
                    f"{name}: expected {' or '.join(map(repr, choices))}, got {getattr(self, name)!r}"
                )
        if self.noise != "normal" and self.curve in PARAMETRIC:
            raise FitError(
                f"curve={self.curve!r} has normal noise only, got noise={self.noise!r}: use curve='smooth' with it"
            )
        if self.noise != "normal" and self.method == "exact":
            raise FitError(f"noise={self.noise!r} has no closed form: use method='nuts'")
        for name in ("draws", "tune", "chains"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise FitError(f"{name}: expected a positive whole number, got {getattr(self, name)!r}")
        require_seed(self.seed, "fit")


def fit(
    population: Population,
    regime_axis: Axis | None = None,
    regimes: Sequence[float] | Mapping[float, float] | float | None = None,
    *,
    curve: str = "smooth",
    noise: str = "normal",
    method: Method = "nuts",
    seed: int = 0,
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    priors: Priors | None = None,
    progress: bool | None = None,
) -> Fit:
    r"""Fit curves of accuracy drop over mCB, one a pruning regime.

    .. math:: \mathrm{drop}_{ij} = \mathrm{level}_k + b_k c + d_k c^2 + t_k + f_k(\log \mathrm{mCB}_i)
              + \mathrm{recipe}_i + \mathrm{run}_{ij}

    for recipe i of regime k and seed j, with c the reduction minus the regime's centre, t_k what the recipe's
    retraining technique lies above the regime's average over techniques (where the table's column `retraining` holds
    several) and f_k a Matern Gaussian process of smoothness 7/4 on a fixed basis.

    Parameters
    ----------
    population : Population
        From `load_population` or `Population.from_frame`.
    regime_axis : {"macs", "params"}, optional
        The reduction that defines a regime; default: the axis of the population's plan, else "macs".
    regimes : sequence of float, mapping or float, optional
        Centres (fractions removed), or centre -> half-width; a single number is one regime.
        Default: the plan's regimes where the table has them, else bins of ten points of reduction.
    curve : {"smooth", "quadratic", "asymmetric"}
        "smooth": the curve whose minimum the verdicts read. The others are companions, to be compared with it: a
        parabola, and two half-parabolas that bend differently. They have flat priors and a closed form, so
        `method` is "exact" whatever was asked for, and `judge` refuses them.
    noise : {"normal", "student", "frontier"}
        Distribution of recipes and runs about the curve. "student": heavy tails, for collapsed networks; the
        curve is then the centre of a regime's recipes, which collapses do not pull.
        "frontier": normal plus exponential, the curve's lower edge as what is attainable; the expected drop,
        which verdicts read, includes the mean excess. The last two see every row and take longer.
    method : {"nuts", "exact"}
        "nuts": PyMC and nutpie, hyperparameters partially pooled over regimes. "exact": regimes
        independent, hyperparameters on a grid, everything else in closed form; well under a second.
    seed : int
        Same seed, same draws.
    draws, tune, chains : int
        Of NUTS, whose `tune` is at least 1,000 where every row is seen; the exact method gives chains x draws independent
        draws.
    priors : Priors, optional
        See `popstats.inference.priors.Priors`.
    progress : bool, optional
        Say what is being done; default: only on a terminal or in a notebook.

    Returns
    -------
    Fit

    Raises
    ------
    FitError
        If an argument is not legal.
    PopulationError
        If it is not given a population, or no row falls into the regimes asked for.

    Notes
    -----
    How to read it: `Fit.convergence` first (may it be believed), `Fit.predictive_checks` (does the noise fit), then
    `Fit.optima`: recipes are chosen by `near_lower` to `near_upper` in regimes where `popstats.judge` supports C3a.
    Drops and limits are percentage points; every interval is 90 %, equal-tailed.

    References
    ----------
    Riutort-Mayol et al. (2023), doi:10.1007/s11222-022-10167-2 (the basis); what differs is in ``inference/curves.py``.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population(regimes=[0.6], n=300, rise=1.0)
    >>> fit = popstats.fit(population, method="exact")
    >>> fit.convergence.ok
    True
    >>> fit.optima()[["regime", "near_lower", "near_upper", "limit"]].round(1)
      regime  near_lower  near_upper  limit
    0   0.60         0.9         1.1    1.7
    """
    require_population(population)
    started = time.perf_counter()
    axis = regime_axis or population.regime_axis
    if curve in PARAMETRIC and noise == "normal":
        method = "exact"
    centres = _frozen(regimes)
    seed = int(seed) if isinstance(seed, Integral) else seed
    settings = Settings(axis, centres, curve, noise, method, seed, draws, tune, chains)
    priors = priors or Priors()
    prepared = prepare_population(population, axis, centres)
    data, changes = weighted_regimes(prepared, priors, seed)
    result = _draw(prepared.recipes, data, changes, settings, priors, progress)
    return Fit(population, data, settings, priors, result, changes, time.perf_counter() - started)


def _frozen(
    regimes: Sequence[float] | Mapping[float, float] | float | None,
) -> tuple[float, ...] | dict[float, float] | None:
    if regimes is None:
        return None
    try:
        if isinstance(regimes, Mapping):
            return {float(centre): float(half) for centre, half in regimes.items()}
        if isinstance(regimes, str):
            return (float(regimes),)
        return tuple(float(r) for r in np.atleast_1d(np.asarray(regimes, dtype=np.float64)))
    except (TypeError, ValueError) as error:
        raise FitError(
            f"regimes: expected fractions removed, e.g. [0.5, 0.7], or {{0.5: 0.02}} with half-widths, got {regimes!r}"
        ) from error


def weighted_regimes(
    prepared: PreparedPopulation, priors: Priors, seed: int
) -> tuple[tuple[RegimeData, ...], tuple[SpreadChange | None, ...]]:
    """Weight the recipes of regimes where the spread about a pilot fit changes over the range."""
    recipes, data = prepared.recipes, prepared.regimes
    weights = np.ones(len(recipes))
    changes: list[SpreadChange | None] = []
    for k, (regime, mine) in enumerate(zip(data, prepared.members, strict=True)):
        change = None
        if regime.fitted:
            # Thinned where there are more: the slope is then known to 0.02, a tenth of the smallest that matters.
            some = recipes.iloc[mine[:: max(1, mine.size // _PILOT_RECIPES)]]
            pilot = draw_regime(regime, priors, _PILOT_DRAWS, np.random.default_rng([seed, k, 1]))
            change = estimate_spread_change(some, regime, pilot.coefficients.mean(axis=0))
            if change.matters:
                weights[mine] = precision_weights(recipes.iloc[mine], regime, change)
        changes.append(change)
    if any(c is not None and c.matters for c in changes):
        data = prepare_regimes(recipes, prepared.assigned, weights)
    return data, tuple(changes)


def _draw(
    recipes: pd.DataFrame,
    data: tuple[RegimeData, ...],
    changes: tuple[SpreadChange | None, ...],
    settings: Settings,
    priors: Priors,
    progress: bool | None,
) -> Draws:
    fitted = [r for r in data if r.fitted]
    if settings.method == "exact" or not fitted:
        return _draw_exact(fitted, settings, priors)
    if settings.noise == "normal":
        from popstats.inference.nuts import sample_nuts

        return sample_nuts(fitted, priors, _chains(settings), progress)
    from popstats.inference.row_models import sample_rows

    rows = _rows(recipes, data, changes)
    normal = _draw_exact(fitted, settings, priors)
    return sample_rows(settings.noise, fitted, rows, normal, priors, _chains(settings), progress)


def _chains(settings: Settings) -> Chains:
    from popstats.inference.sampling import Chains

    return Chains(number=settings.chains, draws=settings.draws, tune=settings.tune, seed=settings.seed)


def _draw_exact(fitted: list[RegimeData], settings: Settings, priors: Priors) -> Draws:
    size = settings.draws * settings.chains
    streams = [np.random.default_rng([settings.seed, k]) for k in range(len(fitted))]
    curve = settings.curve
    drawn = [
        draw_parametric(curve, r, priors, size, rng)
        if curve in PARAMETRIC
        else draw_regime(r, priors, size, rng)
        for r, rng in zip(fitted, streams, strict=True)
    ]
    return from_regimes(drawn)


def _rows(
    recipes: pd.DataFrame, data: tuple[RegimeData, ...], changes: tuple[SpreadChange | None, ...]
) -> list[StandardRows]:
    members = recipes["regime"].to_numpy()
    found = []
    for k, (regime, change) in enumerate(zip(data, changes, strict=True)):
        if regime.fitted and change is not None:
            mine = recipes[members == k]
            found.append(standard_rows(mine, regime, precision_weights(mine, regime, change)))
    return found


def _positive(mcb: npt.ArrayLike) -> FloatArray:
    """Return values of mCB as an array, shape (m,); FitError unless they are positive numbers."""
    try:
        values = np.atleast_1d(np.asarray(mcb, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise FitError(f"predict: mcb: expected positive numbers, got {mcb!r}") from error
    if not (values > 0.0).all():
        raise FitError(f"predict: mcb: expected positive numbers, got {mcb!r}")
    return values


def require_seed(seed: object, who: str) -> None:
    """Raise FitError unless random numbers can be drawn from `seed`; `who` is the function that was given it.

    Parameters
    ----------
    seed : object
        What came as the argument.
    who : str
        The function's name.
    """
    if not isinstance(seed, Integral) or not 0 <= int(seed) < _SEEDS:
        raise FitError(f"{who}: seed: expected a whole number from 0 on, below 2^64, got {seed!r}")


def require_fit(value: object, who: str) -> None:
    """Raise FitError unless `value` is a Fit; `who` is the function that was given it.

    Parameters
    ----------
    value : object
        What came as the function's first argument.
    who : str
        The function's name.
    """
    if isinstance(value, Fit):
        return
    remedy = (
        f"fit it first: popstats.{who}(popstats.fit(population))"
        if isinstance(value, Population)
        else "popstats.fit makes one, popstats.Fit.load reads one"
    )
    raise FitError(f"{who}: expected a Fit, got a {type(value).__name__}; {remedy}")


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """Posterior draws of the curves of one population, and what can be read off them.

    Attributes
    ----------
    population : Population
    regimes : tuple of RegimeData
        All regimes, those too small to fit included (`regime.fitted`, `regime.reason`).
    settings : Settings
        The arguments of `popstats.fit`.
    prior_settings : Priors
    draws : Draws
        Over the fitted regimes, in the order of `fitted`.
    spread_changes : tuple of SpreadChange or None
        Per regime: how the residual spread changes over the range (weighted where it `matters`).
    seconds : float
        Wall time of the fit.

    Notes
    -----
    S draws, K fitted regimes: every result is read off the same joint draws, so that results of several regimes may be
    combined draw by draw. Where shapes are given, mCB is log mCB and drops are percentage points.

    Examples
    --------
    >>> import popstats
    >>> fit = popstats.fit(popstats.simulate_population(regimes=[0.6, 0.8], n=100), method="exact")
    >>> fit.expected_drop.shape, [regime.label for regime in fit.fitted]
    ((4000, 2, 161), ['0.60', '0.80'])
    >>> fit.predict([0.9, 1.0], regime=0.6)[["mcb", "drop"]].round(1)["drop"].tolist()
    [1.7, 1.7]
    """

    population: Population
    regimes: tuple[RegimeData, ...]
    settings: Settings
    prior_settings: Priors
    draws: Draws
    spread_changes: tuple[SpreadChange | None, ...]
    seconds: float

    @property
    def regime_axis(self) -> Axis:
        """The reduction that defines a regime."""
        return self.settings.regime_axis

    @cached_property
    def fitted(self) -> tuple[RegimeData, ...]:
        """The regimes that were fitted."""
        return tuple(r for r in self.regimes if r.fitted)

    @cached_property
    def grid(self) -> FloatArray:
        """Values of log mCB over each fitted regime's observed range, shape (K, GRID_SIZE)."""
        return np.array([r.curve_scale.grid(GRID_SIZE) for r in self.fitted]).reshape(
            len(self.fitted), GRID_SIZE
        )

    @cached_property
    def expected_drop(self) -> FloatArray:
        """Draws of the expected drop at the regime's centre, percentage points, shape (S, K, GRID_SIZE)."""
        flat = self.draws.flat_coefficients
        # Regime by regime in memory, as they are read.
        drop = np.empty((len(self.fitted), flat.shape[0], GRID_SIZE))
        for k, regime in enumerate(self.fitted):
            drop[k] = curve_in_points(regime, flat[:, k], self.grid[k])
            if self.settings.noise == "frontier":
                drop[k] += self._excess(k)
        return drop.transpose(1, 0, 2)

    def _excess(self, k: int) -> FloatArray:
        """Mean distance of trainings from the curve, points, shape (S, 1): 0 unless the curve is a frontier."""
        if self.settings.noise != "frontier" or self.draws.shape is None:
            return np.zeros((self.draws.flat_coefficients.shape[0], 1))
        return np.asarray(self.fitted[k].scale * self.draws.shape[:, :, k].reshape(-1, 1))

    @cached_property
    def optimum_draws(self) -> tuple[OptimumDraws, ...]:
        """Optimum, limit, near-optimal range and regret of each fitted regime, draw by draw."""
        return tuple(self.read_optimum(k) for k in range(len(self.fitted)))

    def read_optimum(self, k: int, near: float = NEAR_OPTIMAL_POINTS) -> OptimumDraws:
        """Read the k-th fitted regime's optimum off its draws; `near`: height of the near-optimal range, points."""
        return read_optimum(self.grid[k], self.expected_drop[:, k], near, self._bias(k))

    def _bias(self, k: int) -> FloatArray | None:
        """How far the prior has pulled a regime's mean curve from the truth, points, shape (GRID_SIZE,)."""
        if self.settings.curve in PARAMETRIC:
            return None
        regime, draws = self.fitted[k], self.draws
        length, amplitude, noise, share = (
            float(np.median(values[:, :, k]))
            for values in (draws.length_scale, draws.amplitude, draws.noise, draws.seed_share)
        )
        mean = draws.coefficients[:, :, k].mean(axis=(0, 1))
        bias = shrinkage(regime, mean, length, amplitude, noise, share)
        return np.asarray(curve_in_points(regime, bias[None], self.grid[k])[0] - regime.centre)

    @cached_property
    def prior_drop(self) -> FloatArray:
        """Curves drawn from the prior around an arbitrary level, points, shape (draws, K, GRID_SIZE)."""
        drop = np.empty((len(self.fitted), PRIOR_DRAWS, GRID_SIZE))
        for k, regime in enumerate(self.fitted):
            drop[k] = prior_curves(regime, self.prior_settings, self.grid[k], self.settings.seed)
        return drop.transpose(1, 0, 2)

    @property
    def priors(self) -> pd.DataFrame:
        """The priors: name, distribution, unit, reason. What they give each claim: `popstats.prior_claims`."""
        return flat_priors() if self.settings.curve in PARAMETRIC else self.prior_settings.describe()

    @cached_property
    def convergence(self) -> Convergence:
        """Whether the fit may be believed: `.ok`, `.reasons`, `.table`."""
        shape = self.draws.noise.shape
        outcomes = {
            name: np.stack([getattr(o, field) for o in self.optimum_draws], axis=1).reshape(shape)
            for name, field in (("optimum", "log_mcb"), ("limit", "limit"))
        } if self.fitted else {}  # fmt: skip
        return check_draws(self.draws, self.fitted, outcomes)

    @cached_property
    def predictive_checks(self) -> PredictiveChecks:
        """Posterior predictive checks and LOO-PIT values of each regime: `.frame`, `.alerts`."""
        from popstats.inference.predictive import check_predictions

        self._require_smooth("predictive_checks: expected a fit with the smooth curve")
        return check_predictions(self)

    @cached_property
    def prior_sensitivity(self) -> Sensitivity:
        """How much each regime's results lean on the priors, by power scaling: `.frame`, `.sentence`."""
        from popstats.inference.sensitivity import power_scale

        self._require_smooth("prior_sensitivity: this fit has no priors to lean on")
        return power_scale(self)

    def _require_smooth(self, problem: str) -> None:
        if self.settings.curve in PARAMETRIC:
            raise FitError(
                f"{problem}, got curve={self.settings.curve!r}, a companion; fit again with curve='smooth', and "
                "compare the two with popstats.compare"
            )

    def optima(self) -> pd.DataFrame:
        """Return what was found in each regime; all intervals 90 %, equal-tailed.

        Returns
        -------
        pandas.DataFrame
            One row a regime: regime, target (fraction removed), n (trainings), n_recipes; mcb (median of the
            argmin) with mcb_lower, mcb_upper; near_lower and near_upper, the near-optimal range (medians of its
            ends: mCB values within 0.05 points of the minimum), each with its own interval
            (near_lower_lower, ...); limit (points) with limit_lower, limit_upper; regret_at_original (points;
            NaN where mCB = 1 was not observed) with its interval; p_interior (probability that the minimum lies
            inside the observed range); observed_lower, observed_upper (mCB); recipe_sd and seed_sd (points; NaN
            without replicates), residual_sd (points, one training), seed_share; reason (why a regime has none).
        """
        rows = [self._optimum_row(r) for r in self.regimes]
        return pd.DataFrame(rows)

    def _optimum_row(self, regime: RegimeData) -> dict[str, Any]:
        row: dict[str, Any] = {
            "regime": regime.label,
            "target": regime.target,
            "n": regime.n,
            "n_recipes": regime.n_recipes,
        }
        names = ("mcb", "near_lower", "near_upper", "limit", "regret_at_original")
        if not regime.fitted:
            blank = {f"{n}{e}": np.nan for n in names for e in ("", "_lower", "_upper")}
            rest = dict.fromkeys(
                (
                    "p_interior",
                    "observed_lower",
                    "observed_upper",
                    "recipe_sd",
                    "seed_sd",
                    "residual_sd",
                    "seed_share",
                ),
                np.nan,
            )
            return {**row, **blank, **rest, "reason": regime.reason}
        optimum = self.optimum_draws[self.fitted.index(regime)]
        values = (
            np.exp(optimum.log_mcb), np.exp(optimum.near_lower), np.exp(optimum.near_upper), optimum.limit,
            optimum.regret_at_original,
        )  # fmt: skip
        for name, draws in zip(names, values, strict=True):
            low, high = interval(draws)
            row |= {name: float(np.median(draws)), f"{name}_lower": float(low), f"{name}_upper": float(high)}
        return {**row, "p_interior": float(optimum.interior.mean()), **self._spread(regime), "reason": ""}

    def _spread(self, regime: RegimeData) -> dict[str, float]:
        k = self.fitted.index(regime)
        low, high = np.exp(regime.observed)
        noise = regime.scale * self.draws.noise[:, :, k]
        share = self.draws.seed_share[:, :, k]
        replicated = regime.cross_products is not None and regime.cross_products.has_replicates
        return {
            "observed_lower": float(low),
            "observed_upper": float(high),
            "recipe_sd": float(np.median(noise * np.sqrt(1 - share))) if replicated else np.nan,
            "seed_sd": float(np.median(noise * np.sqrt(share))) if replicated else np.nan,
            "residual_sd": float(np.median(noise)),
            "seed_share": float(np.median(share)) if replicated else np.nan,
        }

    def curve(self) -> pd.DataFrame:
        """Return the expected drop over mCB: regime, mcb, drop (median, points), lower, upper (90 %)."""
        parts = []
        for k, regime in enumerate(self.fitted):
            low, high = interval(self.expected_drop[:, k])
            parts.append(
                pd.DataFrame(
                    {
                        "regime": regime.label,
                        "mcb": np.exp(self.grid[k]),
                        "drop": np.median(self.expected_drop[:, k], axis=0),
                        "lower": low,
                        "upper": high,
                    }
                )
            )
        columns = ["regime", "mcb", "drop", "lower", "upper"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

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
        asked, (low, high) = _positive(mcb), np.exp(data.observed)
        if not ((asked >= low - _PRINTED) & (asked <= high + _PRINTED)).all():
            raise FitError(
                f"predict: mCB outside the observed range of regime {data.label} ({low:.3f} to {high:.3f}); "
                "nothing may be claimed there"
            )
        log_mcb = np.log(asked)
        distance = 0.0 if reduction is None else reduction - data.target
        if not abs(distance) <= data.half_width + _PRINTED:
            raise FitError(
                f"predict: reduction {reduction} lies outside regime {data.label} "
                f"({data.target - data.half_width:.3f} to {data.target + data.half_width:.3f})"
            )
        technique = self._technique_of(data, retraining)
        curve = curve_in_points(data, self.draws.flat_coefficients[:, k], log_mcb, distance, technique)
        drop = curve + self._excess(k)
        lower, upper = interval(drop)
        t_lower, t_upper = interval(drop + self._training_noise(k, log_mcb))
        return pd.DataFrame(
            {
                "mcb": np.exp(log_mcb),
                "drop": np.median(drop, axis=0),
                "lower": lower,
                "upper": upper,
                "training_lower": t_lower,
                "training_upper": t_upper,
            }
        )

    def _technique_of(self, regime: RegimeData, retraining: str | None) -> int | None:
        """Position of a technique that the regime holds; None for the average over them."""
        if retraining is None:
            return None
        named = zip(self.population.techniques, regime.mix, strict=True)
        held = {name: i for i, (name, share) in enumerate(named) if share > 0.0 and name}
        if retraining not in held:
            raise FitError(
                f"predict: retraining {retraining!r} was not observed in regime {regime.label}; it holds: "
                f"{', '.join(held) or 'no names of techniques'}"
            )
        return held[retraining]

    def _relative_spread(self, k: int, log_mcb: FloatArray) -> FloatArray:
        """Scale of a training's noise at `log_mcb` over the regime's, shape (m,): 1 unless it changes over the range."""
        position = self.regimes.index(self.fitted[k])
        change = self.spread_changes[position]
        if change is None or not change.matters:
            return np.ones_like(log_mcb)
        prepared = prepare_population(self.population, self.regime_axis, self.settings.regimes)
        held = prepared.recipes["log_mcb"].to_numpy()[prepared.members[position]]
        return relative_spread(log_mcb, held, self.fitted[k], change)

    def _training_noise(self, k: int, log_mcb: FloatArray) -> FloatArray:
        """Draw deviations of single trainings at `log_mcb`, shape (m,), from their expected drop, points, (S, m)."""
        rng = np.random.default_rng([self.settings.seed, k, 2])
        noise = self.fitted[k].scale * self.draws.noise[:, :, k].reshape(-1, 1)
        scale = noise * self._relative_spread(k, log_mcb)
        shape = scale.shape
        if self.draws.shape is None:
            return np.asarray(scale * rng.standard_normal(shape))
        extra = self.draws.shape[:, :, k].reshape(-1, 1)
        if self.settings.noise == "student":
            return np.asarray(scale * rng.standard_t(extra, shape))
        excess = self.fitted[k].scale * extra
        return np.asarray(
            scale * rng.standard_normal(shape) + excess * (rng.standard_exponential(shape) - 1.0)
        )

    def position_of(self, regime: float | str, who: str) -> int:
        """Return the position in `fitted` of a regime, given by its centre or label.

        Parameters
        ----------
        regime : float or str
        who : str
            The function that asks, for the message.

        Raises
        ------
        FitError
            If it was not fitted.
        """
        names = f"fitted: {', '.join(r.label for r in self.fitted) or 'none'}"
        if not isinstance(regime, str | Real):
            raise FitError(
                f"{who}: regime: expected the centre or label of a fitted regime, got {regime!r}; {names}"
            )
        for k, data in enumerate(self.fitted):
            if regime == data.label or (isinstance(regime, Real) and abs(regime - data.target) < 1e-6):
                return k
        raise FitError(f"{who}: regime {regime!r} was not fitted; {names}")

    @cached_property
    def posterior(self) -> xr.DataTree:
        """The draws as an ArviZ-style DataTree: groups posterior, sample_stats, constant_data."""
        from popstats.inference.storage import posterior_tree

        return posterior_tree(self)

    def save(self, path: str | Path) -> Path:
        """Write the fit, its population included, as one netCDF file; `Fit.load` gives it back exactly."""
        from popstats.inference.storage import save_fit

        return save_fit(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Fit:
        """Read a fit that `save` wrote.

        Raises
        ------
        FitError
            If the file is not such a fit, or another version wrote it.
        """
        from popstats.inference.storage import load_fit

        return load_fit(Path(path))

    def summary(self) -> pd.DataFrame:
        """Return the hyperparameters of each fitted regime: medians and 90 % intervals in users' units."""
        rows = []
        for k, regime in enumerate(self.fitted):
            low, high = regime.observed
            for name, values, unit in (
                ("length_scale", self.draws.length_scale[:, :, k] * (high - low) / 2, "log mCB"),
                ("amplitude", self.draws.amplitude[:, :, k] * regime.scale, "points"),
                ("noise", self.draws.noise[:, :, k] * regime.scale, "points"),
                ("seed_share", self.draws.seed_share[:, :, k], "fraction of variance"),
            ):
                lower, upper = interval(values.ravel())
                rows.append((regime.label, name, float(np.median(values)), float(lower), float(upper), unit))
        # A parametric curve has neither length scale nor amplitude.
        return pd.DataFrame(rows, columns=["regime", "parameter", "median", "lower", "upper", "unit"]).dropna(
            ignore_index=True
        )

    def __repr__(self) -> str:
        checks = self.convergence
        held = (
            "" if len(self.fitted) == len(self.regimes) else f" for the {len(self.fitted)} that were fitted"
        )
        if not self.fitted:
            state = "nothing was fitted: fit.optima() gives each regime's reason"
        elif checks.ok:
            state = f"diagnostics ok{held}"
        else:
            state = f"REJECTED by its diagnostics: {'; '.join(checks.reasons)}"
        return (
            f"<Fit of {self.population.name!r}: {len(self.fitted)} of {len(self.regimes)} regimes on the "
            f"{self.regime_axis} axis, {sum(r.n for r in self.fitted):,} trainings, method {self.settings.method}, "
            f"{self.seconds:.2f} s, {state}>"
        )

    def _repr_html_(self) -> str:
        table = self.optima()[list(_SHOWN)].to_html(index=False, float_format=lambda v: f"{v:.3g}")
        return f"<p>{html.escape(repr(self)[1:-1])}; {INTERVAL_MASS:.0%} equal-tailed intervals</p>{table}"
