"""The draws of a fit as the DataTree that ArviZ's functions accept, in users' units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from popstats.arrays import FloatArray, IntArray
from popstats.inference.data import RegimeRows
from popstats.inference.model import CHAINS, FIXED_TERMS, SINES
from popstats.inference.noise import draw_noise
from popstats.posterior.optimum import GRID_SIZE, value_at
from popstats.posterior.pointwise import RegimeSample, sample_of, total_density
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

    made = _Groups(fit, fit.rows)
    if not fit.fitted:
        return xr.DataTree.from_dict({"posterior": made.posterior()})
    groups = {
        "posterior": made.posterior(),
        "coefficients": made.coefficients(),
        "sample_stats": made.sample_stats(),
        "constant_data": made.constant_data(),
        "observed_data": made.by_recipe(drop=lambda mine: _in_points(mine, mine.drop)),
        "log_likelihood": made.pointwise(made.log_likelihood),
        "posterior_predictive": made.pointwise(made.replicated),
        "predictions": made.predictions(),
    }
    if fit.settings.curve == "smooth":
        density = {"hyperparameters": (_SAMPLE, log_prior(fit, made.every).reshape(made.sample))}
        groups |= {"prior": made.prior(), "log_prior": made.dataset(density)}
    return xr.DataTree.from_dict(groups)


def _in_points(rows: RegimeRows, standard: FloatArray) -> FloatArray:
    return np.asarray(rows.regime.centre + rows.regime.scale * standard)


@dataclass(frozen=True)
class _Groups:
    fit: FittedCurves
    rows: tuple[RegimeRows, ...]

    @property
    def sample(self) -> tuple[int, int]:
        """Chains and draws."""
        chains, draws = self.fit.draws.noise.shape[:2]
        return chains, draws

    @property
    def every(self) -> npt.NDArray[np.intp]:
        """Positions of all draws, chains joined."""
        return np.arange(np.prod(self.sample))

    def dataset(self, variables: dict[str, Any], **coordinates: Any) -> xr.Dataset:
        import xarray as xr

        if any("regime" in v[0] for v in variables.values()):
            coordinates["regime"] = [r.target for r in self.fit.fitted]
        found, draws = xr.Dataset(variables, coords=coordinates), self.sample[1]
        if "draw" in coordinates and found.sizes["draw"] < draws:
            found.attrs["thinned"] = f"{found.sizes['draw']} of {draws} draws per chain, evenly spaced"
        return found

    def posterior(self) -> xr.Dataset:
        draws, scale = self.fit.draws, np.array([r.scale for r in self.fit.fitted])
        half_range = np.array([r.curve_scale.half_range for r in self.fit.fitted])
        variables = {
            "optimum": (_REGIMES, np.exp(self.fit.stacked("log_mcb")), _RELATIVE),
            "limit": (_REGIMES, self.fit.stacked("limit"), _POINTS),
            "regret": (_REGIMES, self.fit.stacked("regret_at_original"), _POINTS),
            "noise": (_REGIMES, draws.noise * scale, _POINTS),
        }
        if self.fit.settings.curve == "smooth":
            variables["length_scale"] = (_REGIMES, draws.length_scale * half_range, {"units": "log mCB"})
            variables["amplitude"] = (_REGIMES, draws.amplitude * scale, _POINTS)
        return self.dataset(variables)

    def prior(self) -> xr.Dataset:
        """Return joint draws of the hyperparameters, and what their curves have: no limit, since levels are flat."""
        (hyper, drop), grid = self.fit.prior_draws, self.fit.grid
        best = [np.exp(at[drop[:, k].argmin(axis=1)]) for k, at in enumerate(grid)]
        regret = [value_at(at, drop[:, k], 0.0) - drop[:, k].min(axis=1) for k, at in enumerate(grid)]
        scale = np.array([r.scale for r in self.fit.fitted])
        values = {
            "optimum": np.stack(best, axis=1),
            "regret": np.stack(regret, axis=1),
            "length_scale": hyper.length_scale * [r.curve_scale.half_range for r in self.fit.fitted],
            "amplitude": hyper.amplitude * scale,
            "noise": hyper.noise * scale,
        }
        return self.dataset({n: (_REGIMES, v.reshape(CHAINS, -1, scale.size)) for n, v in values.items()})

    def coefficients(self) -> xr.Dataset:
        """Return what else was drawn; apart, so that the posterior's plots stay within ArviZ's default number of panels."""
        draws = self.fit.draws
        techniques = draws.coefficients.shape[-1] - FIXED_TERMS - SINES - 1
        names = ["level", "offset", "offset_squared", *(f"technique_{t + 1}" for t in range(techniques))]
        names += [*(f"sine_{j + 1}" for j in range(SINES)), "line"]
        spread = {"units": "standard deviations of the regime's drops"}
        variables: dict[str, Any] = {
            "coefficients": ((*_REGIMES, "column"), draws.coefficients, spread),
            "seed_share": (_REGIMES, draws.seed_share, {"units": "share of one training's variance"}),
        }
        if draws.shape is not None:
            student = self.fit.settings.noise == "student"
            shape = (_REGIMES, draws.shape, {} if student else spread)
            variables["degrees_of_freedom" if student else "excess"] = shape
        return self.dataset(variables, column=names)

    def sample_stats(self) -> xr.Dataset:
        """Return what the sampler said, and the log posterior density of each draw up to a constant."""
        total = np.zeros(self.every.size)
        if self.fit.settings.curve == "smooth":
            total += log_prior(self.fit, self.every)
        for k, mine in enumerate(self.rows):
            total += total_density(mine, sample_of(self.fit, k, self.every))
        said: dict[str, Any] = {name: (_SAMPLE, values) for name, values in self.fit.draws.statistics.items()}
        if "diverging" in said:
            said["diverging"] = (_SAMPLE, said["diverging"][1] > 0.0)
        return self.dataset({**said, "lp": (_SAMPLE, total.reshape(self.sample))})

    def by_recipe(self, **values: Callable[[RegimeRows], FloatArray]) -> xr.Dataset:
        """Return variables of one value per recipe, regime by regime."""
        joined = {n: ("recipe", np.concatenate([v(r) for r in self.rows])) for n, v in values.items()}
        return self.dataset(joined, recipe=self.numbers)

    @property
    def numbers(self) -> IntArray:
        """The recipes' numbers."""
        return np.concatenate([mine.numbers for mine in self.rows])

    def constant_data(self) -> xr.Dataset:
        return self.by_recipe(
            target=lambda r: np.full(r.drop.size, r.regime.target),
            mcb=lambda r: np.exp(r.log_mcb),
            offset=lambda r: r.offset * r.regime.reach,
            runs=lambda r: r.runs,
            weight=lambda r: r.weight,
        )

    def picked(self, values: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the draws of each chain, evenly spaced, few enough for `LARGEST_GROUP`; and those with chains joined."""
        chains, draws = self.sample
        most = max(1, min(draws, LARGEST_GROUP // (8 * chains * values)))
        picked = np.linspace(0, draws - 1, most).astype(np.intp)
        return picked, (np.arange(chains)[:, None] * draws + picked).ravel()

    def pointwise(self, values: Callable[[int, RegimeRows, RegimeSample], FloatArray]) -> xr.Dataset:
        """Return a value per draw and recipe."""
        picked, flat = self.picked(self.numbers.size)
        parts = [values(k, mine, sample_of(self.fit, k, flat)) for k, mine in enumerate(self.rows)]
        drop = np.concatenate(parts).T.reshape(self.sample[0], picked.size, -1)
        variables = {"drop": ((*_SAMPLE, "recipe"), drop, _POINTS)}
        return self.dataset(variables, recipe=self.numbers, draw=picked)

    def log_likelihood(self, k: int, rows: RegimeRows, sample: RegimeSample) -> FloatArray:
        return np.concatenate([density for _, density in sample.log_density(rows)])

    def replicated(self, k: int, rows: RegimeRows, sample: RegimeSample) -> FloatArray:
        rng = np.random.default_rng([self.fit.settings.random_seed, k, 8])
        found = np.empty((rows.drop.size, sample.hyper.noise.size))
        for block, e, scale in sample.residuals(rows):
            noise = draw_noise(sample.noise, scale, sample.hyper.shape, rng)
            found[block] = _in_points(rows, rows.drop[block, None] - e + noise)
        return found

    def predictions(self) -> xr.Dataset:
        """Return the expected drop on one axis of mCB for all regimes, NaN outside each one's observed range."""
        ends = np.array([r.observed for r in self.fit.fitted])
        at = np.linspace(ends[:, 0].min(), ends[:, 1].max(), GRID_SIZE)
        picked, flat = self.picked(len(ends) * at.size)
        curve = np.full((flat.size, len(ends), at.size), np.nan)
        for k, (low, high) in enumerate(ends):
            inside = (at >= low) & (at <= high)
            curve[:, k, inside] = self.fit.expected_at(k, at[inside])[flat]
        shaped = curve.reshape(self.sample[0], picked.size, *curve.shape[1:])
        return self.dataset({"curve": ((*_REGIMES, "mcb"), shaped, _POINTS)}, mcb=np.exp(at), draw=picked)
