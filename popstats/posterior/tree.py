"""The draws of a fit as the DataTree that ArviZ's functions accept, in users' units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from popstats.arrays import FloatArray
from popstats.inference.model import CHAINS, FIXED_TERMS, PARAMETRIC, SINES
from popstats.inference.noise import draw_noise
from popstats.posterior.optimum import GRID_SIZE, value_at
from popstats.posterior.pointwise import RegimePoints, fitted_points, sample_of, total_density
from popstats.posterior.sensitivity import log_prior

if TYPE_CHECKING:
    import xarray as xr

    from popstats.posterior.curves import FittedCurves

#: Bytes that a group with one value per draw and recipe, or grid point, may take.
LARGEST_GROUP = 256 * 10**6
_SAMPLE = ("chain", "draw")
_REGIMES = (*_SAMPLE, "regime")
_POINTS, _RELATIVE = {"units": "percentage points"}, {"units": "relative to the original"}


def posterior_tree(fit: FittedCurves) -> xr.DataTree:
    """Return all groups that ArviZ's functions read; `regime` is the fraction removed, `recipe` the recipe's number."""
    import xarray as xr

    if not fit.fitted:
        return xr.DataTree.from_dict({"posterior": _posterior(fit)})
    points = fitted_points(fit)
    picked = _picked(fit, sum(p.rows.drop.size for p in points))
    groups = {
        "posterior": _posterior(fit),
        "coefficients": _coefficients(fit),
        "sample_stats": _sample_stats(fit, points),
        "constant_data": _constant_data(fit, points),
        "observed_data": _by_recipe(fit, points, {"drop": [_in_points(p, p.rows.drop) for p in points]}),
        "log_likelihood": _pointwise(fit, points, picked, _log_likelihood),
        "posterior_predictive": _pointwise(fit, points, picked, _replicated),
        "predictions": _predictions(fit),
    }
    if fit.settings.curve not in PARAMETRIC:
        values = log_prior(fit, _every(fit)).reshape(fit.draws.noise.shape[:2])
        groups |= {"prior": _prior(fit), "log_prior": _dataset(fit, {"hyperparameters": (_SAMPLE, values)})}
    return xr.DataTree.from_dict(groups)


def _dataset(fit: FittedCurves, variables: dict[str, Any], **coordinates: Any) -> xr.Dataset:
    import xarray as xr

    if any("regime" in v[0] for v in variables.values()):
        coordinates["regime"] = [r.target for r in fit.fitted]
    found, draws = xr.Dataset(variables, coords=coordinates), fit.draws.noise.shape[1]
    if "draw" in coordinates and found.sizes["draw"] < draws:
        found.attrs["thinned"] = f"{found.sizes['draw']} of {draws} draws per chain, evenly spaced"
    return found


def _posterior(fit: FittedCurves) -> xr.Dataset:
    draws, scale = fit.draws, np.array([r.scale for r in fit.fitted])
    half_range = np.array([r.curve_scale.half_range for r in fit.fitted])

    def read(name: str) -> FloatArray:
        values = [getattr(o, name) for o in fit.optimum_draws]
        return np.stack(values, axis=1).reshape(draws.noise.shape) if values else draws.noise

    variables = {
        "optimum": (_REGIMES, np.exp(read("log_mcb")), _RELATIVE),
        "limit": (_REGIMES, read("limit"), _POINTS),
        "regret": (_REGIMES, read("regret_at_original"), _POINTS),
        "noise": (_REGIMES, draws.noise * scale, _POINTS),
    }
    if fit.settings.curve not in PARAMETRIC:
        variables["length_scale"] = (_REGIMES, draws.length_scale * half_range, {"units": "log mCB"})
        variables["amplitude"] = (_REGIMES, draws.amplitude * scale, _POINTS)
    return _dataset(fit, variables)


def _prior(fit: FittedCurves) -> xr.Dataset:
    """Return joint draws of the hyperparameters, and what curves drawn with them have: no limit, since levels are flat."""
    hyper, drop = fit.prior_draws
    best = [np.exp(fit.grid[k][drop[:, k].argmin(axis=1)]) for k in range(len(fit.fitted))]
    regret = [value_at(fit.grid[k], drop[:, k], 0.0) - drop[:, k].min(axis=1) for k in range(len(fit.fitted))]
    scale = np.array([r.scale for r in fit.fitted])
    values = {
        "optimum": np.stack(best, axis=1),
        "regret": np.stack(regret, axis=1),
        "length_scale": hyper.length_scale * [r.curve_scale.half_range for r in fit.fitted],
        "amplitude": hyper.amplitude * scale,
        "noise": hyper.noise * scale,
    }
    return _dataset(fit, {name: (_REGIMES, v.reshape(CHAINS, -1, scale.size)) for name, v in values.items()})


def _coefficients(fit: FittedCurves) -> xr.Dataset:
    """Return what else was drawn; apart, so that the posterior's plots stay within ArviZ's default number of panels."""
    draws = fit.draws
    techniques = draws.coefficients.shape[-1] - FIXED_TERMS - SINES - 1
    names = ["level", "offset", "offset_squared", *(f"technique_{t + 1}" for t in range(techniques))]
    names += [*(f"sine_{j + 1}" for j in range(SINES)), "line"]
    spread = {"units": "standard deviations of the regime's drops"}
    variables: dict[str, Any] = {
        "coefficients": ((*_REGIMES, "column"), draws.coefficients, spread),
        "seed_share": (_REGIMES, draws.seed_share, {"units": "share of one training's variance"}),
    }
    if draws.shape is not None:
        name = "degrees_of_freedom" if fit.settings.noise == "student" else "excess"
        variables[name] = (_REGIMES, draws.shape, {} if fit.settings.noise == "student" else spread)
    return _dataset(fit, variables, column=names)


def _every(fit: FittedCurves) -> npt.NDArray[np.intp]:
    return np.arange(fit.draws.flat_coefficients.shape[0])


def _sample_stats(fit: FittedCurves, points: tuple[RegimePoints, ...]) -> xr.Dataset:
    """Return what the sampler said, and the log posterior density of each draw up to a constant."""
    draws, total = fit.draws, np.zeros(fit.draws.flat_coefficients.shape[0])
    if fit.settings.curve not in PARAMETRIC:
        total += log_prior(fit, _every(fit))
    for k, mine in enumerate(points):
        total += total_density(fit, k, sample_of(fit, k, _every(fit)), mine)
    statistics: dict[str, Any] = {name: (_SAMPLE, values) for name, values in draws.statistics.items()}
    if "diverging" in statistics:
        statistics["diverging"] = (_SAMPLE, draws.statistics["diverging"] > 0.0)
    return _dataset(fit, {**statistics, "lp": (_SAMPLE, total.reshape(draws.noise.shape[:2]))})


def _in_points(points: RegimePoints, standard: FloatArray) -> FloatArray:
    return np.asarray(points.regime.centre + points.regime.scale * standard)


def _by_recipe(
    fit: FittedCurves, points: tuple[RegimePoints, ...], variables: dict[str, list[FloatArray]]
) -> xr.Dataset:
    joined = {name: ("recipe", np.concatenate(v)) for name, v in variables.items()}
    return _dataset(fit, joined, recipe=_numbers(points))


def _numbers(points: tuple[RegimePoints, ...]) -> npt.NDArray[np.int64]:
    return np.concatenate([p.rows.numbers for p in points])


def _constant_data(fit: FittedCurves, points: tuple[RegimePoints, ...]) -> xr.Dataset:
    variables = {
        "target": [np.full(p.rows.drop.size, p.regime.target) for p in points],
        "mcb": [
            np.exp(p.regime.curve_scale.centre + p.regime.curve_scale.half_range * p.rows.unit)
            for p in points
        ],
        "offset": [p.rows.offset * p.regime.reach for p in points],
        "runs": [p.rows.runs for p in points],
        "weight": [p.rows.weight for p in points],
    }
    return _by_recipe(fit, points, variables)


def _picked(fit: FittedCurves, values: int) -> npt.NDArray[np.intp]:
    """Return the draws of each chain, evenly spaced, few enough that the values take no more than `LARGEST_GROUP`."""
    chains, draws = fit.draws.noise.shape[:2]
    most = max(1, min(draws, LARGEST_GROUP // (8 * chains * values)))
    return np.linspace(0, draws - 1, most).astype(np.intp)


def _pointwise(
    fit: FittedCurves, points: tuple[RegimePoints, ...], picked: npt.NDArray[np.intp], values: Any
) -> xr.Dataset:
    """Return a value per draw and recipe."""
    chains, draws = fit.draws.noise.shape[:2]
    flat = (np.arange(chains)[:, None] * draws + picked).ravel()
    parts = [values(fit, k, p, flat) for k, p in enumerate(points)]
    joined = np.concatenate(parts).T.reshape(chains, picked.size, -1)
    drop = {"drop": ((*_SAMPLE, "recipe"), joined, _POINTS)}
    return _dataset(fit, drop, recipe=_numbers(points), draw=picked)


def _log_likelihood(
    fit: FittedCurves, k: int, points: RegimePoints, flat: npt.NDArray[np.intp]
) -> FloatArray:
    return np.concatenate([density for _, density in sample_of(fit, k, flat).log_density(points)])


def _replicated(fit: FittedCurves, k: int, points: RegimePoints, flat: npt.NDArray[np.intp]) -> FloatArray:
    sample, rng = sample_of(fit, k, flat), np.random.default_rng([fit.settings.random_seed, k, 8])
    found = np.empty((points.rows.drop.size, flat.size))
    for block, e, scale in sample.residuals(points):
        expected = points.rows.drop[block, None] - e
        found[block] = _in_points(points, expected + draw_noise(sample.noise, scale, sample.shape, rng))
    return found


def _predictions(fit: FittedCurves) -> xr.Dataset:
    """Return the expected drop on one axis of mCB for all regimes, NaN outside each one's observed range."""
    chains, draws = fit.draws.noise.shape[:2]
    ends = np.array([r.observed for r in fit.fitted])
    at = np.linspace(ends[:, 0].min(), ends[:, 1].max(), GRID_SIZE)
    picked = _picked(fit, len(ends) * at.size)
    flat = (np.arange(chains)[:, None] * draws + picked).ravel()
    curve = np.full((flat.size, len(ends), at.size), np.nan)
    for k, (low, high) in enumerate(ends):
        inside = (at >= low) & (at <= high)
        curve[:, k, inside] = fit.expected_at(k, at[inside])[flat]
    shaped = curve.reshape(chains, picked.size, *curve.shape[1:])
    return _dataset(fit, {"curve": ((*_REGIMES, "mcb"), shaped, _POINTS)}, mcb=np.exp(at), draw=picked)
