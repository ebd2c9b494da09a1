"""C3b: whether the winning subnetworks lie near the optimum.

Cross-fitted: the optimum comes from one half of a regime's recipes, the winners from the other, so that no
network can win by being the one that the curve bent towards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popstats.arrays import FloatArray
from popstats.inference.draws import interval
from popstats.judgement.analysis import (
    Case,
    Effect,
    Reading,
    more_recipes,
    number,
    percent,
    span,
    twice_the_recipes,
)
from popstats.judgement.verdicts import Thresholds, Verdict
from popstats.posterior.mean_curve import MeanCurve

#: Random halvings of a regime; the counts are averaged over them.
SPLITS = 4
#: Fewer recipes than this hold too few winners in either half.
MINIMUM_RECIPES = 60
#: Weight of the prior for the share of winners near the optimum, in winners; its mean is the nearest's share.
PRIOR_WINNERS = 2.0
#: Simulated populations behind the lift that the curve alone implies.
SIMULATIONS = 100
_DRAWS = 4000
#: The fit's noise in words.
_NOISES = {"normal": "normal", "student": "Student-t", "exgaussian": "exponentially modified normal"}


@dataclass(frozen=True)
class CrossFit:
    """Winners counted on the other half, averaged over halvings and both directions."""

    winners: float  # Winners a halving, both directions together.
    near: float  # How many of them are among the nearest to the optimum of the other half.


def judge_winners(case: Case) -> list[Verdict]:
    """Judge C3b in every regime: winners lie near the optimum.

    The halves are fitted under the noise, the curve's scales and the weights of the fit on trial.
    """
    if not case.usable:
        return [case.rejected("C3b", regime) for regime in case.fit.regimes]
    readings = {r.label: (r, curve) for r, curve in zip(case.readings, case.mean_curves, strict=True)}
    verdicts = []
    for regime in case.fit.regimes:
        if not regime.fitted or regime.n_recipes < MINIMUM_RECIPES:
            few = f"{regime.n_recipes} recipes; two halves with winners in each need {MINIMUM_RECIPES}"
            verdicts.append(case.not_assessable("C3b", regime, regime.reason or few, more_recipes(regime)))
        else:
            verdicts.append(_winners(case, *readings[regime.label]))
    return verdicts


def _winners(case: Case, reading: Reading, curve: MeanCurve) -> Verdict:
    limits, seed = case.thresholds, case.fit.settings.random_seed
    counted = cross_fit(curve, limits, np.random.default_rng([seed, 31]))
    lift = lift_draws(counted, limits.nearest, np.random.default_rng([seed, 32]))
    prior = lift_draws(CrossFit(0.0, 0.0), limits.nearest, np.random.default_rng([seed, 33]))
    implied = _implied(case, reading, curve)
    effect = Effect(
        holds=lift > limits.lift,
        prior_probability=float((prior > limits.lift).mean()),
        size=lift,
        quantity="winners near the best mCB",
        unit="times their share",
        negligible=f"the nearest hold at most {limits.lift:g} times their share of the winners",
        inside_negligible=_inside(lift, limits.lift),
    )
    at, near = case.at(reading.data), f"the {percent(limits.nearest)} of recipes nearest to the optimum"
    held = (
        f"{near} (fitted on the other half) hold {span(lift)} times their share of the winners (the best "
        f"{percent(limits.winners)}); by the curve alone it would be {number(implied)}"
    )
    words = {
        "supported": f"{at} winners lie near the best mCB: {held}.",
        "refuted": f"{at} winners do not lie near the best mCB: {held}.",
        "undecided": f"{at} it is undecided whether winners lie near the best mCB: {held}.",
        "because": f"; halves fitted under {_NOISES[curve.noise]} noise, as the whole",
        "remedy": twice_the_recipes(reading.data),
    }
    return case.verdict("C3b", reading.data, effect, words)


def _inside(lift: FloatArray, least: float) -> bool:
    """Return whether the whole interval of the lift is near 1, neither more nor fewer winners than elsewhere."""
    lower, upper = interval(lift)
    return bool(1.0 / least <= lower and upper <= least)


def cross_fit(curve: MeanCurve, limits: Thresholds, rng: np.random.Generator) -> CrossFit:
    """Count winners near the optimum of the other half, in one regime."""
    log_mcb, adjusted = curve.log_mcb, curve.adjusted
    near, winners = 0, 0
    for _ in range(SPLITS):
        first = rng.permutation(log_mcb.size) < log_mcb.size // 2
        for fitted, judged in ((first, ~first), (~first, first)):
            optimum = curve.optimum(fitted)
            if optimum is not None:
                found, of = count_near(
                    log_mcb[judged], adjusted[judged], optimum, limits.winners, limits.nearest
                )
                near, winners = near + found, winners + of
    return CrossFit(winners / SPLITS, near / SPLITS)


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
    noise: FloatArray,
    optimum: float,
    winners: float,
    nearest: float,
) -> float:
    """Return the lift if networks differed by this curve and independent noise alone."""
    # log_mcb, expected (n,); noise (simulations, n)
    n = log_mcb.size
    near = np.zeros(n, dtype=bool)
    near[np.argsort(np.abs(log_mcb - optimum), kind="stable")[: max(1, round(nearest * n))]] = True
    count = max(1, round(winners * n))
    best = np.argpartition(expected + noise, count - 1, axis=1)[:, :count]
    return float(near[best].mean() / near.mean())


def _implied(case: Case, reading: Reading, curve: MeanCurve) -> float:
    """Let networks keep their curve and swap what lies between it and them: no noise model has a say."""
    limits, rng = case.thresholds, np.random.default_rng([case.fit.settings.random_seed, 34])
    expected = np.interp(curve.log_mcb, reading.grid, np.median(reading.drop, axis=0))
    noise = rng.choice(curve.adjusted - expected, size=(SIMULATIONS, expected.size))
    optimum = float(np.median(reading.optimum.log_mcb))
    return implied_lift(curve.log_mcb, expected, noise, optimum, limits.winners, limits.nearest)
