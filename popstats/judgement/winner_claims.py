"""C3b: whether the winning subnetworks lie near the optimum.

Cross-fitted: the optimum comes from one half of a regime's recipes, the winners from the other, so that no
network can win by being the one that the curve bent towards.
"""

from __future__ import annotations

import numpy as np

from popstats.arrays import FloatArray, IntArray
from popstats.findings import Finding, fact
from popstats.judgement.analysis import (
    Analysis,
    RegimePosterior,
    all_within,
    estimate,
    more_recipes,
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
#: The fit's noise, for the reason.
_NOISES = {"normal": "normal", "student": "Student-t", "exgaussian": "exponentially modified normal"}


def winners(analysis: Analysis, regime: RegimePosterior) -> Verdict:
    """Judge C3b in a regime: winners lie near the optimum. Halves keep the fit's noise, scales and weights."""
    limits, seed, data = analysis.thresholds, analysis.fit.settings.random_seed, regime.data
    if data.n_recipes < MINIMUM_RECIPES:
        few = fact("few for halves", recipes=data.n_recipes, needed=MINIMUM_RECIPES)
        return analysis.not_assessable("C3b", data, few, more_recipes(data))
    if regime.outcome == "refuted":
        return analysis.not_assessable("C3b", data, Finding("no optimum"))
    near, whole = cross_fit(regime.mean_curve, limits, np.random.default_rng([seed, 31]))
    lift = lift_draws(near, whole, limits.nearest, np.random.default_rng([seed, 32]))
    prior = lift_draws(0.0, 0.0, limits.nearest, np.random.default_rng([seed, 33]))
    shares = {"nearest": limits.nearest, "winners": limits.winners}
    return analysis.verdict(
        "C3b",
        data,
        fact("C3b", lift=estimate(lift), implied=_implied(regime, seed), **shares),
        lift > limits.lift,
        lift,
        twice_the_recipes(data),
        prior=float((prior > limits.lift).mean()),
        # Neither more nor fewer winners than elsewhere.
        negligible=all_within(lift, 1.0 / limits.lift, limits.lift),
        rests_on=regime,
        facts=(fact("halves noise", noise=_NOISES[analysis.fit.settings.noise]),),
    )


def cross_fit(curve: MeanCurve, limits: Thresholds, rng: np.random.Generator) -> tuple[float, float]:
    """Return how many winners per halving lie near the optimum of the other half, and how many there are."""
    log_mcb, adjusted = curve.log_mcb, curve.adjusted
    near, winners = 0, 0
    for _ in range(SPLITS):
        first = rng.permutation(log_mcb.size) < log_mcb.size // 2
        for fitted, judged in ((first, ~first), (~first, first)):
            optimum = curve.optimum(fitted)
            if optimum is not None:
                found, of = count_near(log_mcb[judged], adjusted[judged], optimum, limits)
                near, winners = near + found, winners + of
    return near / SPLITS, winners / SPLITS


def count_near(
    log_mcb: FloatArray, adjusted: FloatArray, optimum: float, limits: Thresholds
) -> tuple[int, int]:
    """Return how many winners are among the nearest to the optimum, and how many winners there are.

    >>> drops, limits = np.array([1.0, 5.0, 6.0, 7.0]), Thresholds(winners=0.25, nearest=0.5)
    >>> count_near(np.array([0.0, 0.1, 1.0, 2.0]), drops, 0.0, limits)
    (1, 1)
    """
    best, near = _smallest(adjusted, limits.winners), _smallest(np.abs(log_mcb - optimum), limits.nearest)
    return int(np.intersect1d(best, near).size), int(best.size)


def _smallest(values: FloatArray, share: float) -> IntArray:
    """Return the positions of the smallest values, this share of all."""
    return np.argsort(values, kind="stable")[: max(1, round(share * values.size))]


def lift_draws(near: float, winners: float, nearest: float, rng: np.random.Generator) -> FloatArray:
    """Return posterior draws of the lift, shape (S,): a beta posterior for the winners' share near the optimum."""
    far = PRIOR_WINNERS * (1.0 - nearest) + winners - near
    return np.asarray(rng.beta(PRIOR_WINNERS * nearest + near, far, size=_DRAWS) / nearest)


def implied_lift(
    log_mcb: FloatArray, expected: FloatArray, noise: FloatArray, optimum: float, limits: Thresholds
) -> float:
    """Return the lift if networks differed by this curve and independent noise alone."""
    # log_mcb, expected (n,); noise (simulations, n)
    near = np.zeros(log_mcb.size, dtype=bool)
    near[_smallest(np.abs(log_mcb - optimum), limits.nearest)] = True
    count = max(1, round(limits.winners * log_mcb.size))
    best = np.argpartition(expected + noise, count - 1, axis=1)[:, :count]
    return float(near[best].mean() / near.mean())


def _implied(regime: RegimePosterior, seed: int) -> float:
    """Let networks keep their curve and swap what lies between it and them: no noise model has a say."""
    curve, rng = regime.mean_curve, np.random.default_rng([seed, 34])
    expected = np.interp(curve.log_mcb, regime.grid, np.median(regime.drop, axis=0))
    noise = rng.choice(curve.adjusted - expected, size=(SIMULATIONS, expected.size))
    optimum = float(np.median(regime.optimum.log_mcb))
    return implied_lift(curve.log_mcb, expected, noise, optimum, regime.thresholds)
