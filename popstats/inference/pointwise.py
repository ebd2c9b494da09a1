"""The recipes behind a fit, one by one: their residuals, noise scales and log densities under its draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from popstats.inference.cross_products import RegimeData, StandardRows, recipe_table, standard_rows
from popstats.inference.noise import log_density
from popstats.inference.variance import precision_weights
from popstats.spaces import assign_regimes

if TYPE_CHECKING:
    from popstats.inference.fit import Fit

__all__ = ["BLOCK", "RegimePoints", "RegimeSample", "fitted_points", "sample_of", "thinned"]

FloatArray = npt.NDArray[np.float64]

#: Recipes handled at once: with 500 draws, arrays of 4 MB each.
BLOCK = 1024


@dataclass(frozen=True)
class RegimePoints:
    """One fitted regime's recipes, in units of its scale.

    Attributes
    ----------
    regime : RegimeData
    rows : StandardRows
        Of the n recipes that are in the fit.
    design : numpy.ndarray, shape (n, p)
        Level, c, c^2, techniques and basis; columns that the regime cannot tell apart are zero.
    """

    regime: RegimeData
    rows: StandardRows
    design: FloatArray

    def relative_scale(self, seed_share: npt.ArrayLike) -> FloatArray:
        """Scale of a recipe's noise over that of one training, shape (n,) or (n, S) for S seed shares."""
        share = np.asarray(seed_share, dtype=np.float64)
        runs, weight = self.rows.runs, self.rows.weight
        if share.ndim:
            runs, weight = runs[:, None], weight[:, None]
        return np.asarray(np.sqrt((1.0 - share + share / runs) / weight))


@dataclass(frozen=True)
class RegimeSample:
    """Some posterior draws of one regime, in units of its scale; S of them.

    Attributes
    ----------
    noise : str
        Name of the noise.
    coefficients : numpy.ndarray, shape (S, p)
    scale, seed_share : numpy.ndarray, shape (S,)
    shape : numpy.ndarray, shape (S,), or None
        Degrees of freedom, or mean of the exponential.
    """

    noise: str
    coefficients: FloatArray
    scale: FloatArray
    seed_share: FloatArray
    shape: FloatArray | None

    def log_density(self, points: RegimePoints) -> Iterator[tuple[slice, FloatArray]]:
        """Yield blocks of recipes with their log densities per percentage point, shape (block, S)."""
        offset = float(np.log(points.regime.scale))
        for block, e, scale in self.residuals(points):
            yield block, log_density(self.noise, e, scale, self.shape) - offset

    def residuals(self, points: RegimePoints) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """Yield blocks of recipes with residuals and noise scales, both (block, S)."""
        for start in range(0, points.rows.drop.size, BLOCK):
            block = slice(start, start + BLOCK)
            e = points.rows.drop[block, None] - points.design[block] @ self.coefficients.T
            runs, weight = points.rows.runs[block, None], points.rows.weight[block, None]
            relative = (1.0 - self.seed_share + self.seed_share / runs) / weight
            yield block, e, self.scale * np.sqrt(relative)


def fitted_points(fit: Fit) -> tuple[RegimePoints, ...]:
    """Return the recipes of each fitted regime, in the order of `fit.fitted`."""
    assigned = assign_regimes(fit.population.frame, fit.regime_axis, fit.settings.regimes)
    recipes = recipe_table(fit.population, assigned)
    members, found = recipes["regime"].to_numpy(), []
    for k, (regime, change) in enumerate(zip(fit.regimes, fit.spread_changes, strict=True)):
        if regime.fitted:
            mine = recipes[members == k]
            weight = None if change is None else precision_weights(mine, regime, change)
            rows = standard_rows(mine, regime, weight)
            design = rows.design()
            design[:, : len(regime.fixed)] *= regime.fixed
            found.append(RegimePoints(regime, rows, design))
    return tuple(found)


def thinned(fit: Fit, most: int) -> npt.NDArray[np.intp]:
    """Return the positions of at most `most` evenly spaced draws, chains joined."""
    size = fit.draws.flat_coefficients.shape[0]
    return np.linspace(0, size - 1, min(most, size)).astype(np.intp)


def sample_of(fit: Fit, k: int, picked: npt.NDArray[np.intp]) -> RegimeSample:
    """Return the draws at `picked` of the k-th fitted regime."""
    draws = fit.draws
    return RegimeSample(
        noise=fit.settings.noise,
        coefficients=draws.flat_coefficients[picked, k],
        scale=draws.noise[:, :, k].reshape(-1)[picked],
        seed_share=draws.seed_share[:, :, k].reshape(-1)[picked],
        shape=None if draws.shape is None else draws.shape[:, :, k].reshape(-1)[picked],
    )
