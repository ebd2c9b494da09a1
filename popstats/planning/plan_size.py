r"""`popstats.plan_size`: how many recipes and seeds a regime needs for a near-optimal range that is narrow enough.

Regimes that have not been trained yet are cross-products drawn directly, without any rows: with second moments M of a
recipe's design row, n recipes and noise v of a mean drop, the exact method needs :math:`X'X = nM`,
:math:`X'y = X'X\beta + X'\varepsilon` and :math:`y'y`, where :math:`X'\varepsilon \sim \mathrm{Normal}(0, v X'X)` and the
rest of the noise is :math:`v \chi^2_{n - p}`: the cost does not depend on n.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.inference.data import RegimeDesign, replicate_variance
from popstats.inference.draws import interval
from popstats.inference.exact import draw_regime
from popstats.inference.model import COLUMNS, CurveScale, Priors, design_matrix, require_seed
from popstats.inference.noise import log_density
from popstats.judgement.analysis import Analysis
from popstats.posterior.curves import curve_in_points
from popstats.posterior.fit import Fit, require_fit
from popstats.posterior.optimum import GRID_SIZE, OptimumDraws, read_optimum
from popstats.words import INTERVAL_WORDS, html_of, percent, plural

#: Numbers that are tried unless others are given.
RECIPES = (30, 50, 100, 200, 500, 1000, 2000, 5000)
SEEDS = (1, 2, 3, 5)
#: Simulated populations for each number of recipes and seeds, and draws of each fit.
POPULATIONS, DRAWS = 24, 300
#: Share of them that must be narrow enough, as the customary power of 80 %.
CHANCE = 0.8
#: Guess where nothing is known: rise over the observed range and noise of a training, points, and the share of
#: the noise's variance that the seed makes.
GUESSED_RISE, GUESSED_NOISE, GUESSED_SEED_SHARE = 0.4, 0.3, 0.5
#: Observed range of a stratified recipe space: the central 95 % of log mCB within +-log 2.
GUESSED_HALF_RANGE = 0.95 * float(np.log(2.0))
#: Points of the grid on which a guessed recipe distribution is averaged.
_GRID = 400
#: Directions of the design with less than this share of the largest second moment hold no information.
_EMPTY = 1e-10
#: Reach, in standard deviations and means, and points of the integral over a density.
_REACH, _QUADRATURE = 12.0, 4001
_COLUMNS = ["recipes", "seeds", "trainings", "lower_width", "upper_width", "chance"]


@dataclass(frozen=True, eq=False)
class Plan:
    """How precise a regime's near-optimal range would become."""

    # One row per number of recipes and seeds: recipes, seeds, trainings (their product); lower_width, upper_width
    # (width in mCB of the 90 % intervals of the range's two ends, medians over simulated populations); chance
    # (share of these in which both are narrower than `width`).
    frame: pd.DataFrame
    regime: str  # Label of the regime, "" for a guess.
    width: float  # Target width of the intervals, in mCB.
    # recipes, seeds: The fewest trainings with a chance of at least 0.8; None where nothing tried suffices.
    recipes: int | None
    seeds: int | None
    sentence: str  # What to do.

    @property
    def trainings(self) -> int | None:
        """Trainings that are needed: recipes times seeds."""
        return None if self.recipes is None or self.seeds is None else self.recipes * self.seeds

    def to_dict(self) -> dict[str, object]:
        """Return the plan as plain values, for JSON."""
        names = ("regime", "width", "recipes", "seeds", "trainings", "sentence")
        return {name: getattr(self, name) for name in names} | {"sizes": self.frame.to_dict("records")}

    def __repr__(self) -> str:
        return f"<Plan: {self.sentence}>"

    def _repr_html_(self) -> str:
        return html_of(self.sentence, self.frame)


def plan_size(
    pilot: Fit | None = None,
    *,
    regime: float | str | None = None,
    width: float = 0.2,
    noise: float | None = None,
    rise: float | None = None,
    seed_share: float | None = None,
    recipes: Sequence[int] = RECIPES,
    seeds: Sequence[int] = SEEDS,
    seed: int = 0,
) -> Plan:
    """Plan how many recipes and seeds a pruning regime needs.

    For each number of recipes and seeds, populations are simulated from the pilot's posterior (or from a guess),
    fitted by the exact method, and the intervals of their near-optimal range measured. The pilot's recipe
    distribution is taken to stay the same. From pilots of 100 recipes the planned widths were within about a
    third of those that populations of the planned size then had.

    Parameters
    ----------
    pilot : Fit, optional
        A fit of a few dozen recipes; of heavy-tailed or skewed noise counts what it tells about the curve. Without
        it, a guess is planned with: a parabola between mCB 0.5 and 2.
    regime : float or str, optional
        Centre or label of one of the pilot's regimes; default: the regime with the widest interval.
    width : float
        Target width of the 90 % intervals at both ends of the near-optimal range, in mCB.
    noise : float, optional
        Of a guess: standard deviation of one training about the curve, points; default 0.3.
    rise : float, optional
        Of a guess: height of the ends of the observed range above the minimum, points; default 0.4.
    seed_share : float, optional
        Share of one training's variance that is seed noise, in [0, 1); default: what the pilot's replicates
        say, else (without a pilot) 0.5. A pilot without replicates plans one seed unless it is given.
    recipes, seeds : sequence of int
        Numbers to try; at least 30 recipes.
    seed : int
        Same seed, same plan.

    Returns
    -------
    Plan

    Raises
    ------
    FitError
        If an argument is not legal, or the pilot has no such fitted regime.

    Examples
    --------
    >>> plan = plan_size(width=0.3, noise=0.1, rise=0.8, recipes=[30, 300], seeds=[1])
    >>> plan.frame["trainings"].tolist()
    [30, 300]
    """
    if pilot is not None:
        require_fit(pilot, "plan_size")
    require_seed(seed, "plan_size")
    columns = COLUMNS if pilot is None else COLUMNS + len(pilot.population.techniques) - 1
    for name, value, expected, legal in (
        ("width", width, "a width in mCB above 0", lambda v: 0.0 < v < np.inf),
        ("noise", noise, "points above 0", lambda v: v is None or 0.0 < v < np.inf),
        ("rise", rise, "points above 0", lambda v: v is None or 0.0 < v < np.inf),
        ("seed_share", seed_share, "a share in [0, 1)", lambda v: v is None or 0.0 <= v < 1.0),
        ("recipes", recipes, f"a list of whole numbers above {columns}", lambda v: _whole(v, columns + 1)),
        ("seeds", seeds, "a list of positive whole numbers", lambda v: _whole(v, 1)),
    ):
        with suppress(TypeError, ValueError):
            if legal(value):
                continue
        raise FitError(f"plan_size: {name}: expected {expected}, got {value!r}")
    sizes = [(n, each) for each in sorted(set(seeds)) for n in sorted(set(recipes))]
    if pilot is None:
        share = GUESSED_SEED_SHARE if seed_share is None else seed_share
        scenario = guessed_scenario(POPULATIONS, noise or GUESSED_NOISE, rise or GUESSED_RISE, share)
        return _plan(scenario, Priors(), sizes, width, seed, "")
    if noise is not None or rise is not None:
        raise FitError("plan_size: expected a pilot or a guess (noise, rise), got both; leave the guess out")
    if not pilot.fitted:
        raise FitError("plan_size: the pilot has no fitted regime; plan from a guess (noise, rise) instead")
    widest = int(np.argmax([max(_widths(optimum)) for optimum in pilot.optimum_draws]))
    k = widest if regime is None else pilot.position_of(regime, "plan_size")
    scenario = pilot_scenario(pilot, k, POPULATIONS, seed_share)
    return _plan(scenario, pilot.prior_settings, sizes, width, seed, _deciding(pilot, k))


def _whole(values: Sequence[int], least: int) -> bool:
    """Return whether there are numbers, all whole and large enough; a TypeError says that there are none."""
    return min(values, default=0) >= least and all(value == int(value) for value in values)


def _deciding(pilot: Fit, k: int) -> str:
    """Return how many recipes would decide whether there is an optimal mCB, where that is open: as verdicts advise."""
    posterior = Analysis(pilot).regimes[k]
    if posterior.outcome != "undecided" or posterior.recipes_to_decide is None:
        return ""
    return (
        f" Whether there is an optimal mCB (C3a) is undecided there; about {posterior.recipes_to_decide:,} recipes would "
        "decide it at the present estimate."
    )


def _widths(optimum: OptimumDraws) -> tuple[float, float]:
    """Widths in mCB of the intervals of the near-optimal range's ends."""
    lower, upper = (interval(np.exp(ends)) for ends in (optimum.near_lower, optimum.near_upper))
    return float(lower[1] - lower[0]), float(upper[1] - upper[0])


def _plan(
    scenario: Scenario,
    priors: Priors,
    sizes: Sequence[tuple[int, int]],
    width: float,
    seed: int,
    deciding: str,
) -> Plan:
    """Simulate populations of every size and choose the smallest that suffices."""
    rows = []
    for n, each in sizes if scenario.knows_seeds else sorted({(n, 1) for n, _ in sizes}):
        widths = np.array([_simulated_widths(scenario, priors, t, n, each, seed) for t in range(POPULATIONS)])
        lower, upper = np.median(widths, axis=0)
        chance = float((widths.max(axis=1) < width).mean())
        rows.append((n, each, n * each, float(lower), float(upper), chance))
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    label = scenario.template.label
    place = f"Regime {label}" if label else "With this guess"
    goal = f"{INTERVAL_WORDS}s narrower than {width:g} in mCB at both ends of the near-optimal range"
    unknown = "" if scenario.knows_seeds else " (one seed each: the pilot has no replicates)"
    enough = frame[frame["chance"] >= CHANCE].sort_values(["trainings", "recipes"])
    best = enough.iloc[0] if len(enough) else frame.sort_values("chance").iloc[-1]
    n, each = int(best["recipes"]), int(best["seeds"])
    size = f"{n:,} recipes with {plural(each, 'seed')} each"
    reached = percent(float(best["chance"]), 0)
    if len(enough):
        said = f"{size} ({n * each:,} trainings) give {goal} with a chance of {reached}{unknown}."
        return Plan(frame, label, width, n, each, f"{place}: {said}{deciding}")
    said = (
        f"no size tried gives {goal} with a chance of {percent(CHANCE)}; {size} reach {reached}{unknown}. Choose a larger "
        "width, or accept that the curve is too flat for a single optimum."
    )
    return Plan(frame, label, width, None, None, f"{place}: {said}{deciding}")


def _simulated_widths(
    scenario: Scenario, priors: Priors, truth: int, recipes: int, seeds: int, seed: int
) -> tuple[float, float]:
    # The same random numbers for every size: chances then differ by the sizes, not by luck.
    rng = np.random.default_rng([seed, truth, 6])
    regime = simulate_regime(scenario, truth, recipes, seeds, rng)
    grid = regime.curve_scale.grid(GRID_SIZE)
    draws = draw_regime(regime, priors, DRAWS, rng)
    return _widths(read_optimum(grid, curve_in_points(regime, draws.flat_coefficients[:, 0], grid)))


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
