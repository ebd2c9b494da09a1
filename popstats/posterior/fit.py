"""`popstats.fit`: from a population to joint draws of its curves, and the object that carries them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from popstats.errors import FitError
from popstats.findings import Finding, Span, fact
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import Convergence, Draws, check_draws
from popstats.inference.exact import sample_pooled
from popstats.inference.model import CHAINS, LEAST_TUNE, NOISES, PARAMETRIC, Method, Priors, Settings
from popstats.inference.parametric import flat_priors, sample_parametric
from popstats.inference.spread import Changes, weighted_regimes, weighted_rows
from popstats.population.recipes import Recipes, prepared_recipes
from popstats.population.regimes import Axis, Given
from popstats.population.table import Population, require_population
from popstats.posterior.curves import FittedCurves
from popstats.posterior.limit_law import LimitLaw, LimitPrediction, limit_law, predict_limit
from popstats.posterior.predictive import PredictiveChecks, check_predictions
from popstats.posterior.sensitivity import Sensitivity, power_scale
from popstats.posterior.storage import read_parts, save_fit
from popstats.posterior.tree import posterior_tree
from popstats.words import INTERVAL_WORDS, html_of, place

if TYPE_CHECKING:
    import altair as alt
    import xarray as xr

#: Noise that is not normal is sampled again, with so many times the draws of which every such one is kept, where the
#: diagnostics reject the first draws.
THINNING = (1, 4)
#: Columns of `Fit.optima()` that a notebook shows.
_SHOWN = (
    "regime", "n", "near_lower", "near_upper", "near_height", "mcb", "mcb_lower", "mcb_upper", "limit", "limit_lower",
    "limit_upper", "p_interior",
)  # fmt: skip


def fit(
    population: Population,
    regime_axis: Axis | None = None,
    regimes: Sequence[float] | Mapping[float, float] | float | None = None,
    curve: str = "smooth",
    noise: str = "normal",
    method: Method = "exact",
    random_seed: int = 0,
    *,
    draws: int = 1000,
    tune: int = 500,
    priors: Priors | None = None,
    progress: bool | None = None,
) -> Fit:
    r"""Fit curves of accuracy drop over mCB, one per pruning regime.

    .. math:: \mathrm{drop}_{ij} = \mathrm{level}_k + b_k m + d_k m^2 + t_k + f_k(\log \mathrm{mCB}_i)
              + \mathrm{recipe}_i + \mathrm{run}_{ij}

    for recipe i of regime k and seed j, with m the log of the recipe's remaining cost over that of the regime's centre,
    t_k the difference between the recipe's retraining technique and the regime's average over techniques (where the
    table's column `retraining` holds several) and f_k a Matern Gaussian process of smoothness 7/4 on a fixed basis.

    Parameters
    ----------
    population : Population
        From `load_population` or `Population.from_frame`.
    regime_axis : {"macs", "params"}, optional
        The reduction that defines a regime; default: the axis of the population's plan, else "macs".
    regimes : sequence of float, mapping or float, optional
        Centres (fractions removed), or centre -> half-width; a single number is one regime.
        Default: the plan's regimes where the table has them, else cells in which the
        remaining cost falls by a factor of 1.25, named by their geometric centre.
    curve : {"smooth", "quadratic", "asymmetric"}
        "smooth": the curve whose minimum the verdicts read. The others are companions, to be compared with it: a
        parabola, and two half-parabolas that bend differently. They have flat priors and a closed form, so
        `method` is "exact" whatever is passed, and `judge` refuses them.
    noise : {"normal", "student", "exgaussian"}
        Distribution of recipes and runs about the curve. "student": heavy tails, for collapsed networks; the
        curve is then the centre of a regime's recipes, which collapses do not pull.
        "exgaussian": normal plus exponential, the curve's lower edge as what is attainable; the expected drop,
        which verdicts read, includes the mean of the exponential. The last two see every row and take longer.
    method : {"exact", "nuts"}
        "exact": hyperparameters on a grid, partially pooled over regimes, everything else in closed form: independent
        draws, well under a second. "nuts": the same model in public PyMC (`popstats.pymc_model`), sampled by nutpie.
        Noise that is not normal has neither, and is sampled by Hamiltonian Monte Carlo, with four times the draws (and
        every fourth kept) where the diagnostics reject the first ones.
    random_seed : int
        Same seed, same draws.
    draws, tune : int
        Kept draws of each of the four chains, and those before them that only adapt a sampler (at least 400 for "student"
        and 1,000 for "exgaussian" noise).
    priors : Priors, optional
        See `popstats.inference.model.Priors`.
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
        If it is not given a population, or no row falls into the requested regimes.

    Notes
    -----
    How to read it: `Fit.convergence` first (may it be believed), `Fit.predictive_checks` (does the noise fit), then
    `Fit.optima`: recipes are chosen by `near_lower` to `near_upper` in regimes where `popstats.judge` supports C3a.
    Drops and limits are percentage points; every interval is 90 %, equal-tailed.

    References
    ----------
    Riutort-Mayol et al. (2023), doi:10.1007/s11222-022-10167-2 (the basis); what differs is in ``inference/model.py``.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population(regimes=[0.6], n=300, rise=1.0)
    >>> fit = popstats.fit(population)
    >>> fit.convergence.ok
    True
    >>> fit.optima()[["regime", "near_lower", "near_upper", "limit"]].round(1)
      regime  near_lower  near_upper  limit
    0   0.60         0.9         1.1    1.7
    """
    require_population(population)
    started = time.perf_counter()
    axis = regime_axis or population.regime_axis
    if method in ("exact", "nuts") and noise in NOISES[1:]:
        method = "hmc"
    if curve in PARAMETRIC and noise == "normal":
        method = "exact"
    centres = _frozen(regimes)
    seed = int(random_seed) if isinstance(random_seed, Integral) else random_seed
    settings = Settings(axis, centres, curve, noise, method, seed, draws, tune)
    settings = replace(settings, tune=max(tune, LEAST_TUNE.get(noise, 1)))
    priors = priors or Priors()
    recipes = prepared_recipes(population, axis, centres)
    data, changes = weighted_regimes(population, recipes, priors, seed)
    for thin in THINNING:
        result = _draw(recipes, data, changes, settings, priors, progress, thin)
        found = Fit(population, data, settings, priors, result, changes, time.perf_counter() - started)
        if settings.method != "hmc" or found.convergence.ok:
            break
    return found


def _frozen(regimes: Given | float) -> tuple[float, ...] | dict[float, float] | None:
    if regimes is None:
        return None
    try:
        if isinstance(regimes, Mapping):
            return {float(centre): float(half) for centre, half in regimes.items()}
        return tuple(float(r) for r in np.atleast_1d(np.asarray(regimes, dtype=np.float64)))
    except (TypeError, ValueError) as error:
        raise FitError(
            f"regimes: expected fractions removed, e.g. [0.5, 0.7], or {{0.5: 0.02}} with half-widths, got {regimes!r}"
        ) from error


def _draw(
    recipes: Recipes,
    data: tuple[RegimeDesign, ...],
    changes: Changes,
    settings: Settings,
    priors: Priors,
    progress: bool | None,
    thin: int,
) -> Draws:
    fitted, size, seed = [r for r in data if r.fitted], CHAINS * settings.draws, settings.random_seed
    if settings.curve in PARAMETRIC:
        return sample_parametric(settings.curve, fitted, priors, size, seed)
    if settings.method == "exact" or not fitted:
        return sample_pooled(fitted, priors, size, seed)
    if settings.method == "nuts":
        from popstats.inference.pymc_model import sample_nuts

        return sample_nuts(fitted, priors, settings, progress)
    from popstats.inference.robust import sample_rows

    normal = sample_pooled(fitted, priors, size, seed)
    return sample_rows(settings, tuple(weighted_rows(recipes, data, changes)), normal, priors, thin)


def require_fit(value: object, who: str) -> None:
    """Raise FitError unless `value` is a Fit; `who` is the function that was given it."""
    if isinstance(value, Fit):
        return
    remedy = (
        f"fit it first: popstats.{who}(popstats.fit(population))"
        if isinstance(value, Population)
        else "popstats.fit makes one, popstats.Fit.load reads one"
    )
    raise FitError(f"{who}: expected a Fit, got a {type(value).__name__}; {remedy}")


@dataclass(frozen=True, eq=False, repr=False)
class Fit(FittedCurves):
    """Posterior draws of the curves of one population, and what can be read off them.

    Attributes
    ----------
    population : Population
    regimes : tuple of RegimeDesign
        All regimes, those too small to fit included (`regime.fitted`, `regime.reason`).
    settings : Settings
        The arguments of `popstats.fit`.
    prior_settings : Priors
    draws : Draws
        Over the fitted regimes, in the order of `fitted`.
    spread_changes : tuple of SpreadChange
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
    >>> fit = popstats.fit(popstats.simulate_population(regimes=[0.6, 0.8], n=100))
    >>> fit.expected_drop.shape, [regime.label for regime in fit.fitted]
    ((4000, 2, 161), ['0.60', '0.80'])
    >>> fit.predict([0.9, 1.0], regime=0.6)[["mcb", "drop"]].round(1)["drop"].tolist()
    [1.7, 1.7]
    """

    @property
    def priors(self) -> pd.DataFrame:
        """The priors: name, distribution, unit, reason. What they give each claim: `Verdict.prior_probability`."""
        return flat_priors() if self.settings.curve in PARAMETRIC else self.prior_settings.describe()

    @cached_property
    def convergence(self) -> Convergence:
        """Whether the fit may be believed: `.ok`, `.reasons`, `.table`."""
        sampled = self.fitted and self.draws.edge_probability is None
        outcomes = {"optimum": "log_mcb", "limit": "limit"} if sampled else {}
        return check_draws(self.draws, self.fitted, {n: self.stacked(field) for n, field in outcomes.items()})

    @cached_property
    def limit_law(self) -> LimitLaw:
        """The laws of the limit over regimes, compared by predicting each regime from the others: `.frame`, `.best`."""
        return limit_law(self)

    def predict_limit(self, reduction: float) -> LimitPrediction:
        """Predict the limit, the smallest expected drop, at a reduction that was not trained.

        A power law, an exponential, a logarithm and a broken line (in the logarithm) of the remaining cost are fitted to
        the regimes' limits with their uncertainty, and compared by predicting each regime from the others. The best one
        predicts.

        Parameters
        ----------
        reduction : float
            Fraction removed on the fit's axis, in (0, 1). A reduction beyond the regimes is an extrapolation: the result
            says so, and its interval spans all laws that are not told apart from the best.

        Returns
        -------
        LimitPrediction
            `.limit`, `.lower`, `.upper` (percentage points, 90 %), `.law`, `.extrapolated`, and `.frame`, the four laws with
            their errors and predictions.

        Raises
        ------
        FitError
            If fewer than five regimes were fitted, or the remaining cost lies further than a factor of 1.5 beyond them.

        Examples
        --------
        >>> import popstats
        >>> population = popstats.simulate_population(regimes=[0.3, 0.5, 0.6, 0.7, 0.8, 0.85], n=150)
        >>> found = popstats.fit(population).predict_limit(reduction=0.75)
        >>> found.law, found.extrapolated, round(found.limit, 1)  # the truth is 0.3 - 1.5 log 0.25
        ('logarithm', False, 2.4)
        """
        return predict_limit(self.limit_law, reduction)

    @cached_property
    def predictive_checks(self) -> PredictiveChecks:
        """Posterior predictive checks and LOO-PIT values of each regime: `.frame`, `.alerts`."""
        self._require_smooth("predictive_checks: expected a fit with the smooth curve")
        return check_predictions(self)

    @cached_property
    def extrapolated(self) -> tuple[Finding, ...]:
        """The fitted regimes whose recipes all lie on one side of the given centre: drops there are extrapolated."""
        found = []
        for regime, mine in zip(self.regimes, self.recipes.members, strict=True):
            held = self.recipes.table["reduction"].to_numpy()[mine]
            if regime.fitted and not held.min() <= regime.reference <= held.max():
                found.append(fact("extrapolated", regime.label, reductions=Span(held.min(), held.max())))
        return tuple(found)

    @property
    def stated_elsewhere(self) -> tuple[Finding, ...]:
        """The fitted regimes whose drops are stated where their recipes lie, on one side of the centre."""
        moved = [r for r in self.fitted if r.reference != r.target]
        return tuple(fact("stated among recipes", r.label, reference=r.reference) for r in moved)

    @cached_property
    def prior_sensitivity(self) -> Sensitivity:
        """How much each regime's results lean on the priors, by power scaling: `.frame`, `.sentence`."""
        self._require_smooth("prior_sensitivity: this fit has no priors")
        return power_scale(self)

    def _require_smooth(self, problem: str) -> None:
        if self.settings.curve in PARAMETRIC:
            raise FitError(
                f"{problem}, got curve={self.settings.curve!r}, a companion; fit again with curve='smooth', and "
                "compare the two with popstats.compare"
            )

    @cached_property
    def posterior(self) -> xr.DataTree:
        """The draws as an ArviZ-style DataTree: groups posterior, sample_stats, constant_data."""
        return posterior_tree(self)

    def plot(self, regime: float | str | None = None) -> alt.LayerChart | alt.ConcatChart:
        """Plot the accuracy drop against mCB; see `popstats.plot_drop`."""
        from popstats.plots import plot_drop

        return plot_drop(self, regime)

    def save(self, path: str | Path) -> Path:
        """Write the fit, its population included, as one netCDF file; `Fit.load` gives it back exactly."""
        return save_fit(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Fit:
        """Read a fit that `save` wrote.

        Raises
        ------
        FitError
            If the file is not such a fit, or another version wrote it.
        """
        return cls(**read_parts(Path(path)))

    def __repr__(self) -> str:
        if not self.fitted:
            state = "nothing was fitted: fit.optima() gives each regime's reason"
        elif not self.convergence.ok:
            state = f"REJECTED by its diagnostics: {self.convergence.sentence}"
        else:
            far = [r for f in self.extrapolated for r in f.regimes]
            held = f" for the {len(self.fitted)} that were fitted" * (len(self.fitted) < len(self.regimes))
            state = f"diagnostics ok{held}{f'; drops extrapolated {place(far)}' if far else ''}"
        return (
            f"<Fit of {self.population.name!r}: {len(self.fitted)} of {len(self.regimes)} regimes on the "
            f"{self.regime_axis} axis, {sum(r.n for r in self.fitted):,} trainings, method {self.settings.method}, "
            f"{self.seconds:.2f} s, {state}>"
        )

    def _repr_html_(self) -> str:
        return html_of(f"{repr(self)[1:-1]}; {INTERVAL_WORDS}s", self.optima()[list(_SHOWN)])
