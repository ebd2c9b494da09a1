"""C3b: whether the winning subnetworks lie near the optimum.

Cross-fitted: the optimum comes from one half of a regime's recipes, the winners from the other, so that no
network can win by being the one that the curve bent towards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.inference.cross_products import recipe_table
from popstats.inference.width_law import distance_terms
from popstats.judgement.case import Case, Effect, Reading, more_recipes, number, percent, span
from popstats.judgement.mix_sensitivity import mean_optimum
from popstats.judgement.verdicts import Verdict
from popstats.spaces import Regimes, assign_regimes

__all__ = ["CrossFit", "count_near", "cross_fit", "implied_lift", "judge_winners", "lift_draws"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Random halvings of a regime; the counts are averaged over them.
SPLITS = 4
#: Fewer recipes than this hold too few winners in either half.
MINIMUM_RECIPES = 60
#: Weight of the prior for the share of winners near the optimum, in winners; its mean is the nearest's share.
PRIOR_WINNERS = 2.0
#: Simulated populations behind the lift that the curve alone implies.
SIMULATIONS = 200
_DRAWS = 4000


@dataclass(frozen=True)
class CrossFit:
    """Winners counted on the other half, averaged over halvings and both directions.

    Attributes
    ----------
    winners : float
        Winners a halving, both directions together.
    near : float
        How many of them are among the nearest to the optimum of the other half.
    """

    winners: float
    near: float


def judge_winners(case: Case) -> list[Verdict]:
    """Judge C3b in every regime: winners lie near the optimum."""
    settings = case.fit.settings
    assigned = assign_regimes(case.fit.population.frame, settings.regime_axis, settings.regimes)
    recipes = recipe_table(case.fit.population, assigned)
    readings = {r.label: r for r in case.readings}
    verdicts = []
    for k, regime in enumerate(case.fit.regimes):
        members = recipes[recipes["regime"] == k]
        if not regime.fitted or len(members) < MINIMUM_RECIPES:
            reason = (
                regime.reason
                or f"{len(members)} recipes; two halves with winners in each need {MINIMUM_RECIPES}"
            )
            verdicts.append(case.not_assessable("C3b", regime, reason, more_recipes(regime)))
        else:
            verdicts.append(_winners(case, readings[regime.label], members, assigned))
    return verdicts


def _winners(case: Case, reading: Reading, recipes: pd.DataFrame, assigned: Regimes) -> Verdict:
    limits, seed = case.thresholds, case.fit.settings.seed
    counted = cross_fit(case, recipes, assigned, np.random.default_rng([seed, 31]))
    lift = lift_draws(counted, limits.nearest, np.random.default_rng([seed, 32]))
    prior = lift_draws(CrossFit(0.0, 0.0), limits.nearest, np.random.default_rng([seed, 33]))
    implied = _implied(case, reading, recipes)
    effect = Effect(
        holds=lift > limits.lift,
        prior_probability=float((prior > limits.lift).mean()),
        size=lift,
        unit="times their share",
        negligible=f"the nearest hold at most {limits.lift:g} times their share of the winners",
    )
    at, near = case.at(reading.data), f"the {percent(limits.nearest)} of networks nearest to the optimum"
    held = (
        f"{near} (fitted on the other half) hold {span(lift)} times their share of the winners (the best "
        f"{percent(limits.winners)}); the curve alone implies {number(implied)}"
    )
    words = {
        "supported": f"{at} winners lie near the best mCB: {held}.",
        "refuted": f"{at} winners do not lie near the best mCB: {held}.",
        "undecided": f"{at} it is undecided whether winners lie near the best mCB: {held}.",
        "remedy": more_recipes(reading.data, 2 * reading.data.n_recipes),
    }
    return case.verdict("C3b", reading.data, effect, words)


def cross_fit(case: Case, recipes: pd.DataFrame, assigned: Regimes, rng: np.random.Generator) -> CrossFit:
    """Count winners near the optimum of the other half.

    Parameters
    ----------
    recipes : pandas.DataFrame
        One regime's rows of `recipe_table`.
    """
    log_mcb, adjusted = recipes["log_mcb"].to_numpy(), adjusted_drop(recipes)
    # A half's optimum is read off its mean curve, for which means of recipes are enough.
    plain = recipes.assign(runs=1.0, within=0.0)
    shares = case.thresholds.winners, case.thresholds.nearest
    near, winners = 0, 0
    for _ in range(SPLITS):
        first = rng.permutation(len(recipes)) < len(recipes) // 2
        for fitted, judged in ((first, ~first), (~first, first)):
            optimum = mean_optimum(case.fit, plain[fitted], assigned)
            if optimum is not None:
                found, of = count_near(log_mcb[judged], adjusted[judged], optimum, *shares)
                near, winners = near + found, winners + of
    return CrossFit(winners / SPLITS, near / SPLITS)


def adjusted_drop(recipes: pd.DataFrame) -> FloatArray:
    """Return the recipes' mean drops, adjusted to equal MACs inside their regime, points."""
    terms, drop = distance_terms(recipes["reduction"].to_numpy()), recipes["drop"].to_numpy()
    return np.asarray(drop - terms @ np.linalg.lstsq(terms, drop, rcond=None)[0])


def count_near(
    log_mcb: FloatArray, adjusted: FloatArray, optimum: float, winners: float, nearest: float
) -> tuple[int, int]:
    """Return how many winners are among the nearest to the optimum, and how many winners there are.

    >>> count_near(np.array([0.0, 0.1, 1.0, 2.0]), np.array([1.0, 5.0, 6.0, 7.0]), 0.0, 0.25, 0.5)
    (1, 1)
    """
    best = np.argsort(adjusted, kind="stable")[: max(1, round(winners * adjusted.size))]
    near = np.argsort(np.abs(log_mcb - optimum), kind="stable")[: max(1, round(nearest * log_mcb.size))]
    return int(np.intersect1d(best, near).size), int(best.size)


def lift_draws(counted: CrossFit, nearest: float, rng: np.random.Generator) -> FloatArray:
    """Return posterior draws of the lift, shape (S,): a beta posterior for the winners' share near the optimum."""
    near = PRIOR_WINNERS * nearest + counted.near
    far = PRIOR_WINNERS * (1.0 - nearest) + counted.winners - counted.near
    return np.asarray(rng.beta(near, far, size=_DRAWS) / nearest)


def implied_lift(
    log_mcb: FloatArray,
    expected: FloatArray,
    spread: FloatArray,
    optimum: float,
    winners: float,
    nearest: float,
    rng: np.random.Generator,
) -> float:
    """Return the lift if networks differed by this curve and independent normal noise alone.

    Parameters
    ----------
    log_mcb, expected, spread : numpy.ndarray, shape (n,)
        Each recipe's place, expected drop and standard deviation about it (points).
    """
    n = log_mcb.size
    near = np.zeros(n, dtype=bool)
    near[np.argsort(np.abs(log_mcb - optimum), kind="stable")[: max(1, round(nearest * n))]] = True
    count = max(1, round(winners * n))
    simulated = expected + spread * rng.standard_normal((SIMULATIONS, n))
    best = np.argpartition(simulated, count - 1, axis=1)[:, :count]
    return float(near[best].mean() / near.mean())


def _implied(case: Case, reading: Reading, recipes: pd.DataFrame) -> float:
    k = case.fit.fitted.index(reading.data)
    draws, limits = case.fit.draws, case.thresholds
    noise = float(np.median(draws.noise[:, :, k])) * reading.data.scale
    share = float(np.median(draws.seed_share[:, :, k]))
    spread = noise * np.sqrt(1.0 - share + share / recipes["runs"].to_numpy())
    log_mcb = recipes["log_mcb"].to_numpy()
    expected = np.interp(log_mcb, reading.grid, np.median(reading.drop, axis=0))
    optimum, rng = (
        float(np.median(reading.optimum.log_mcb)),
        np.random.default_rng([case.fit.settings.seed, 34]),
    )
    return implied_lift(log_mcb, expected, spread, optimum, limits.winners, limits.nearest, rng)
