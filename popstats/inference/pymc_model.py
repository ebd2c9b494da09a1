r"""The model of normal noise in public PyMC: its definition, the reference of `exact`, and what users extend.

The hyperparameters of all regimes are the free variables; the coefficients, given which the drops are normal, are
integrated out. With :math:`v_s` the variance of a recipe's mean in stratum s, D the prior variances of the curve's
coefficients, and X'X, X'y, y'y the stratum's cross-products,

.. math:: A = D^{-1} + \sum_s X_s'X_s / v_s, \qquad b = \sum_s X_s'y_s / v_s, \qquad
          \log p(y) = -\tfrac12\Bigl(\log|A| + \log|D| + \sum_s n_s\log v_s + \sum_s y_s'y_s / v_s - b'A^{-1}b\Bigr).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.inference.data import RegimeDesign, RegimeRows
from popstats.inference.draws import Draws
from popstats.inference.exact import draw_coefficients
from popstats.inference.model import CHAINS, Hyper, Priors, Settings, log_spectral_density
from popstats.inference.spread import weighted_regimes, weighted_rows
from popstats.population.recipes import prepared_recipes
from popstats.population.regimes import Axis
from popstats.population.table import Population
from popstats.words import clause

if TYPE_CHECKING:
    import pymc as pm

#: What users may add to each recipe's expected drop: a table of the recipes to a tensor of points, one per recipe.
Extra = Callable[[pd.DataFrame], Any]


def pymc_model(
    population: Population,
    regime_axis: Axis | None = None,
    regimes: Sequence[float] | Mapping[float, float] | None = None,
    priors: Priors | None = None,
    extra: Extra | None = None,
) -> pm.Model:
    """Return the PyMC model behind ``popstats.fit(population, method="nuts")``, to sample, read or extend.

    Parameters
    ----------
    population : Population
    regime_axis, regimes, priors
        As for `popstats.fit`.
    extra : callable, optional
        Called inside the model with a table of the recipes in the fit (one row each, in the order of the model, with the
        population's columns and `regime`, the label); returns what to add to their expected drops, percentage points: a
        tensor of shape (recipes,), made of variables that it defines. The curves stay integrated out.

    Returns
    -------
    pymc.Model
        Free variables per regime: `log_length_scale` (half-ranges of log mCB), `log_amplitude` and `log_noise` (units of
        the drops' standard deviation in the regime), and `seed_share`, which is 0 where no recipe has replicates.

    Raises
    ------
    FitError
        If no regime can be fitted.

    Examples
    --------
    >>> import popstats
    >>> model = popstats.pymc_model(popstats.simulate_population(regimes=[0.6], n=100))
    >>> [variable.name for variable in model.free_RVs]
    ['log_length_scale', 'log_amplitude', 'log_noise']
    """
    priors = priors or Priors()
    recipes = prepared_recipes(population, regime_axis or population.regime_axis, regimes)
    designs, changes = weighted_regimes(population, recipes, priors, 0)
    if not any(d.fitted for d in designs):
        reasons = "; ".join(f"{d.label}: {clause(d.reason)}" for d in designs if d.reason is not None)
        raise FitError(f"pymc_model: no regime of {population.name!r} can be fitted ({reasons})")
    rows = tuple(weighted_rows(recipes, designs, changes))
    if extra is None:
        return build_model([r.regime for r in rows], priors)
    numbers = np.concatenate([r.numbers for r in rows])
    frame = population.frame.iloc[recipes.first[numbers]].reset_index(drop=True)
    labels = np.repeat([r.regime.label for r in rows], [r.numbers.size for r in rows])
    return build_model([r.regime for r in rows], priors, rows, lambda: extra(frame.assign(regime=labels)))


def build_model(
    designs: Sequence[RegimeDesign],
    priors: Priors,
    rows: Sequence[RegimeRows] = (),
    extra: Callable[[], Any] | None = None,
) -> pm.Model:
    """Return the model of fitted regimes; `rows` are needed where `extra` is given, which returns the shift of each."""
    import pymc as pm
    import pytensor.tensor as pt

    size = len(designs)
    correlation = (1.0 - priors.pooling) * np.eye(size) + priors.pooling
    pairs = {"length_scale": priors.length_scale, "amplitude": priors.amplitude, "noise": priors.noise}
    replicated = np.array([d.has_replicates for d in designs])
    with pm.Model(coords={"regime": [d.label for d in designs]}) as model:
        log_length, log_amplitude, log_noise = (
            pm.MvNormal(f"log_{name}", np.full(size, np.log(median)), spread**2 * correlation, dims="regime")
            for name, (median, spread) in pairs.items()
        )
        share = pm.Uniform("seed_share", 0.0, 1.0, dims="regime") if replicated.any() else np.zeros(size)
        share = pt.where(replicated, share, 0.0)
        sums = _sums(designs)
        if extra is not None:
            sums |= _shifted(rows, sums, extra())
        hyper = pt.exp(log_length), log_amplitude, log_noise, share
        pm.Potential("drops", _log_likelihood(designs, sums, *hyper).sum())
    return model


def _sums(designs: Sequence[RegimeDesign]) -> dict[str, Any]:
    """Return the cross-products of all regimes, with empty strata where one has fewer, (K, S, ...) each."""
    strata = max(d.count.size for d in designs)

    def padded(values: FloatArray, fill: float) -> FloatArray:
        return np.concatenate([values, np.full((strata - len(values), *values.shape[1:]), fill)])

    fills = {"count": 0.0, "xx": 0.0, "xy": 0.0, "yy": 0.0, "replicates": 1.0}
    return {name: np.stack([padded(getattr(d, name), fill) for d in designs]) for name, fill in fills.items()}


def _shifted(rows: Sequence[RegimeRows], sums: dict[str, Any], shift: Any) -> dict[str, Any]:
    """Return X'y and y'y after the shift of each recipe's drop, points, has been taken off."""
    import pytensor.tensor as pt

    ends = np.cumsum([0, *(r.drop.size for r in rows)])
    xy, yy = pt.as_tensor(sums["xy"]), pt.as_tensor(sums["yy"])
    for k, mine in enumerate(rows):
        design = mine.regime
        moved = shift[ends[k] : ends[k + 1]] / design.scale
        for s, replicates in enumerate(design.replicates):
            members = np.flatnonzero((mine.runs == replicates) | (design.replicates.size == 1))
            weighted, left = mine.weight[members] * moved[members], 2.0 * mine.drop[members] - moved[members]
            xy = xy[k, s].inc(-(mine.design[members].T @ weighted))
            yy = yy[k, s].inc(-(weighted * left).sum())
    return {"xy": xy, "yy": yy}


def _log_likelihood(
    designs: Sequence[RegimeDesign],
    sums: dict[str, Any],
    length: Any,
    log_amplitude: Any,
    log_noise: Any,
    share: Any,
) -> Any:
    """Return each regime's log density of the drops, coefficients integrated out, up to a constant, (K,)."""
    import pytensor.tensor as pt

    sines = log_spectral_density(length[:, None], pt.log)
    log_prior = pt.concatenate([sines, pt.zeros((len(designs), 1))], axis=1) + 2.0 * log_amplitude[:, None]
    absent = 1.0 - np.array([d.fixed for d in designs])
    prior_precision = pt.concatenate([pt.as_tensor(absent), pt.exp(-log_prior)], axis=1)
    variance = pt.exp(2.0 * log_noise)[:, None] * (1.0 - share[:, None] + share[:, None] / sums["replicates"])
    precision = (sums["xx"] / variance[:, :, None, None]).sum(axis=1)
    precision = precision + prior_precision[:, :, None] * np.eye(sums["xx"].shape[-1])
    root = pt.linalg.cholesky(precision)
    target = (sums["xy"] / variance[:, :, None]).sum(axis=1)
    half = pt.linalg.solve_triangular(root, target[:, :, None], lower=True, b_ndim=2)[:, :, 0]
    determinant = 2.0 * pt.log(pt.diagonal(root, axis1=1, axis2=2)).sum(axis=1) + log_prior.sum(axis=1)
    misfit = (sums["count"] * pt.log(variance) + sums["yy"] / variance).sum(axis=1) - (half**2).sum(axis=1)
    freedom, within = np.array([(d.within_df, d.within) for d in designs]).T
    run = pt.where(freedom > 0, share * pt.exp(2.0 * log_noise), 1.0)
    return -0.5 * (determinant + misfit + freedom * pt.log(run) + within / run)


def sample_nuts(
    designs: Sequence[RegimeDesign], priors: Priors, settings: Settings, progress: bool | None = None
) -> Draws:
    """Sample the hyperparameters by NUTS and draw the coefficients exactly given them."""
    import pymc as pm

    with build_model(designs, priors):
        trace = pm.sample(
            draws=settings.draws,
            tune=settings.tune,
            chains=CHAINS,
            nuts_sampler="nutpie",
            random_seed=settings.random_seed % 2**32,
            progressbar=sys.stderr.isatty() if progress is None else progress,
            compute_convergence_checks=False,
        )
    posterior = trace["posterior"]
    logs = [posterior[f"log_{name}"].to_numpy() for name in ("length_scale", "amplitude", "noise")]
    share = posterior["seed_share"].to_numpy() if "seed_share" in posterior else np.zeros_like(logs[0])
    share = np.where([d.has_replicates for d in designs], share, 0.0)
    length_scale, amplitude, noise = np.exp(logs)
    hyper = (length_scale, amplitude, noise, share)
    rng = np.random.default_rng([settings.random_seed, 5])
    coefficients = [
        draw_coefficients(d, Hyper(*(values[:, :, k].ravel() for values in hyper)), rng)
        for k, d in enumerate(designs)
    ]
    return Draws(
        *hyper,
        coefficients=np.stack(coefficients, axis=1).reshape(*share.shape, -1),
        statistics={
            name: trace["sample_stats"][name].to_numpy().astype(np.float64)
            for name in ("diverging", "energy")
        },
    )
