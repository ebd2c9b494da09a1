r"""Regimes that have not been trained yet: cross-products drawn directly, without any rows.

With second moments M of a recipe's design row, n recipes and noise v of a mean drop, the exact method needs
:math:`X'X = nM`, :math:`X'y = X'X\beta + X'\varepsilon` and :math:`y'y`, where
:math:`X'\varepsilon \sim \mathrm{Normal}(0, v X'X)` and the rest of the noise is :math:`v \chi^2_{n - p}`: the
cost does not depend on n.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from popstats.arrays import FloatArray
from popstats.inference.data import RegimeDesign, replicate_variance
from popstats.inference.model import CurveScale, design_matrix
from popstats.inference.noise import log_density
from popstats.posterior.fit import Fit

#: Observed range of a stratified recipe space: the central 95 % of log mCB within +-log 2.
GUESSED_HALF_RANGE = 0.95 * float(np.log(2.0))
#: Points of the grid on which a guessed recipe distribution is averaged.
_GRID = 400
#: Directions of the design with less than this share of the largest second moment hold no information.
_EMPTY = 1e-10
#: Reach, in standard deviations and means, and points of the integral over a density.
_REACH, _QUADRATURE = 12.0, 4001


@dataclass(frozen=True)
class Scenario:
    """What the regime to be planned is taken to be like; T equally likely truths."""

    template: RegimeDesign  # Label, observed range and units of the regime; its cross-products are replaced.
    moments: FloatArray  # (p, p); Mean of x x' over the recipe distribution.
    coefficients: FloatArray  # (T, p); True curves, in units of the template's scale.
    # recipe_sd, seed_sd: (T,); Spread of recipes about the curve and of trainings about their recipe, in the
    # same units.
    recipe_sd: FloatArray
    seed_sd: FloatArray
    knows_seeds: bool  # Whether the two can be told apart, so that a number of seeds above 1 can be planned.


def pilot_scenario(pilot: Fit, k: int, truths: int, seed_share: float | None) -> Scenario:
    """Take the curve and the noise from the k-th fitted regime of a pilot fit, its uncertainty included."""
    # Noise that is not normal is replaced by the normal noise that tells as much about the curve: a fit with the
    # pilot's own noise will be as precise (Lehmann and Casella 1998, Theory of Point Estimation, section 6.3).
    regime, flat = pilot.fitted[k], pilot.draws.flat_coefficients[:, k]
    picked = np.linspace(0, flat.shape[0] - 1, truths).astype(np.intp)
    _, _, noise, share, shape = pilot.draws.hyper(k, picked)
    if shape is not None:
        noise = noise * equivalent_noise(pilot.settings.noise, noise, shape)
    if not regime.has_replicates:
        share = np.full(truths, seed_share or 0.0)
        # Without replicates the noise is that of one training only if every recipe had one.
        noise = noise / np.sqrt(replicate_variance(share, regime.replicates.mean()))
    return Scenario(
        template=regime,
        moments=regime.xx.sum(axis=0) / regime.count.sum(),
        coefficients=flat[picked],
        recipe_sd=noise * np.sqrt(1.0 - share),
        seed_sd=noise * np.sqrt(share),
        knows_seeds=regime.has_replicates or seed_share is not None,
    )


def equivalent_noise(kind: str, scale: FloatArray, shape: FloatArray) -> FloatArray:
    """Return the sd of the normal noise with the same information about location, in units of the scale."""
    # scale (T,); shape (T,)
    if kind == "student":
        return np.asarray(np.sqrt((shape + 3.0) / (shape + 1.0)))
    # A unit normal plus an exponential of mean tau: the expected squared slope of the log density.
    information = []
    for tau in (shape / scale).tolist():
        e = np.linspace(-_REACH, _REACH * (1.0 + tau), _QUADRATURE)
        log_p = log_density(kind, e, np.ones_like(e), np.full_like(e, tau))
        information.append(np.trapezoid(np.gradient(log_p, e) ** 2 * np.exp(log_p), e))
    return 1.0 / np.sqrt(np.array(information))


def guessed_scenario(truths: int, noise: float, rise: float, seed_share: float) -> Scenario:
    """Guess a parabola with its minimum in the middle of recipes spread evenly over log mCB."""
    unit = np.linspace(-1.0 / 0.95, 1.0 / 0.95, _GRID)
    # Golden-ratio steps spread the costs evenly and unrelated to log mCB.
    offset = 2.0 * np.mod(np.arange(_GRID) * 0.6180339887, 1.0) - 1.0
    design = design_matrix(unit, offset)
    truth = np.linalg.lstsq(design_matrix(unit, np.zeros(_GRID)), rise * unit**2, rcond=None)[0]
    template = RegimeDesign(
        label="", target=0.5, axis="macs", n=0, n_recipes=0, reach=1.0, centre=0.0, scale=1.0,
        curve_scale=CurveScale(0.0, GUESSED_HALF_RANGE), fixed=(True, True, True),
    )  # fmt: skip
    return Scenario(
        template=template,
        moments=design.T @ design / _GRID,
        coefficients=np.tile(truth, (truths, 1)),
        recipe_sd=np.full(truths, noise * np.sqrt(1.0 - seed_share)),
        seed_sd=np.full(truths, noise * np.sqrt(seed_share)),
        knows_seeds=True,
    )


def simulate_regime(
    scenario: Scenario, truth: int, recipes: int, seeds: int, rng: np.random.Generator
) -> RegimeDesign:
    """Draw the data of a regime as the exact method would see them."""
    # With the same number of seeds for each recipe the mean drops say all about the curve, so replicates enter
    # through the noise of the means alone.
    values, vectors = np.linalg.eigh(scenario.moments)
    kept = values > _EMPTY * values[-1]
    xx, beta = recipes * scenario.moments, scenario.coefficients[truth]
    variance = float(scenario.recipe_sd[truth] ** 2 + scenario.seed_sd[truth] ** 2 / seeds)
    z = rng.standard_normal(values.size)[kept]
    x_noise = np.sqrt(variance * recipes) * vectors[:, kept] @ (np.sqrt(values[kept]) * z)
    noise_noise = variance * (z @ z + rng.chisquare(recipes - z.size))
    xy = xx @ beta + x_noise
    yy = float(beta @ xx @ beta + 2.0 * beta @ x_noise + noise_noise)
    mean = float(xy[0] / xx[0, 0])
    xy, yy = xy - mean * xx[:, 0], yy - mean**2 * float(xx[0, 0])
    spread = float(np.sqrt(yy / recipes))
    return replace(
        scenario.template, n=recipes * seeds, n_recipes=recipes, scale=scenario.template.scale * spread,
        replicates=np.ones(1), count=np.array([float(recipes)]), xx=xx[None], xy=xy[None] / spread,
        yy=np.array([yy]) / spread**2, within=0.0, within_df=0,
    )  # fmt: skip
