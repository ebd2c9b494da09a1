"""C3d and C4: what the optima say when the regimes are read together."""

from __future__ import annotations

import numpy as np

from popstats.arrays import FloatArray
from popstats.findings import Finding, fact, merge
from popstats.judgement.analysis import (
    PROPOSED_COUNT,
    Analysis,
    all_within,
    estimate,
    more_recipes,
)
from popstats.judgement.verdicts import Verdict
from popstats.posterior.limit_law import compare_laws

#: Simulations of C4's prior probability: what a predictor that knows nothing would reach by luck.
LUCK = 4000
#: Shuffles behind the p value of C4, and the difference in points below which two of them are one.
SHUFFLES, _TIE = 2000, 1e-12
#: Regimes that the proposed plan lines ask for: one more than C4 needs.
PROPOSED_REGIMES = ("0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9")


def judge_trend(analysis: Analysis) -> Verdict:
    """Judge C3d over all regimes: the optimal mCB rises with more aggressive pruning."""
    limits, regimes = analysis.thresholds, analysis.with_optimum
    if few := _too_few(analysis, "C3d", limits.trend_regimes):
        return few
    steps = -np.log1p(-np.array([r.data.reference for r in regimes]))
    change = optimum_trend(np.stack([r.optimum.log_mcb for r in regimes], axis=1), steps)
    prior = optimum_trend(np.stack([r.prior.log_mcb for r in regimes], axis=1), steps)
    least = float(np.log(limits.trend))
    said = fact(
        "C3d",
        direction="falls" if (change < -least).mean() >= limits.supported else "does not rise",
        first=regimes[0].data.target,
        last=regimes[-1].data.target,
        change=estimate(np.exp(change)),
        count=len(regimes),
    )
    more = tuple(more_recipes(r.data, count=2 * r.data.n_recipes, space="") for r in regimes)
    return analysis.verdict(
        "C3d", None, said, change > least, np.exp(change), *merge(more),
        prior=float((prior > least).mean()), negligible=all_within(change, -least, least),
    )  # fmt: skip


def judge_limit(analysis: Analysis) -> Verdict:
    """Judge C4 over all regimes: the limit is predictable from the optimal mCB."""
    limits, regimes = analysis.thresholds, analysis.with_optimum
    if few := _too_few(analysis, "C4", limits.limit_regimes):
        return few
    limit = np.stack([r.optimum.limit for r in regimes], axis=1)
    log_mcb = np.stack([r.optimum.log_mcb for r in regimes], axis=1)
    middle, seed = np.median(limit, axis=0), analysis.fit.settings.random_seed
    law = compare_laws(1.0 - np.array([r.data.reference for r in regimes]), limit)
    base = law.fitted[law.best].base
    gain = leave_one_out_gain(limit, log_mcb, base)
    lucky = lucky_share(middle, np.median(log_mcb, axis=0), base, np.random.default_rng([seed, 42]))
    by_chance = fact("lucky", lucky=lucky) if lucky > 1.0 - limits.supported else None
    worse = np.median(gain) < 0
    said = fact(
        "C4",
        direction="raises" if worse else "lowers",
        law=law.best,
        change=estimate(-gain if worse else gain),
        count=len(regimes),
        lucky=lucky,
        # A constant predicts a left-out regime by the mean of the others.
        constant=float((middle - middle.mean()).std() * middle.size / (middle.size - 1)),
    )
    remedy, prior = _more_regimes(analysis), luck(base, seed)
    return analysis.verdict("C4", None, said, gain > 0, gain, remedy, prior=prior, withheld=by_chance)


def _too_few(analysis: Analysis, conjecture: str, needed: int) -> Verdict | None:
    """Return the verdict where too few regimes have an optimum, or the fit cannot be used."""
    if not analysis.usable:
        return analysis.rejected(conjecture, None)
    held = analysis.with_optimum
    if len(held) >= needed:
        return None
    where = tuple(r.label for r in held)
    why = Finding("few regimes with optimum", where, {"held": len(held), "needed": needed})
    return analysis.not_assessable(conjecture, None, why, _more_regimes(analysis))


def _more_regimes(analysis: Analysis) -> Finding:
    return fact("more recipes", *PROPOSED_REGIMES, axis=analysis.fit.regime_axis, count=PROPOSED_COUNT)


def luck(base: FloatArray, seed: int) -> float:
    """Return how often a predictor without information lowers the error: the prior probability of the claim."""
    rng, shape = np.random.default_rng([seed, 41]), (LUCK, len(base))
    return float(
        (leave_one_out_gain(rng.standard_normal(shape), rng.standard_normal(shape), base) > 0).mean()
    )


def optimum_trend(log_mcb: FloatArray, aggressiveness: FloatArray) -> FloatArray:
    """Return the change of the optimum from the mildest to the most aggressive regime, log mCB, (S,)."""
    # log_mcb (S, K); aggressiveness (K,): -log(1 - reduction). A line through the regimes' optima in each draw; regimes
    # count by the inverse of their variance over draws.
    weight = 1.0 / np.maximum(log_mcb.var(axis=0), 1e-8)
    weight = weight / weight.sum()
    distance = aggressiveness - weight @ aggressiveness
    slope = (log_mcb * (weight * distance)).sum(axis=1) / (weight @ distance**2)
    return np.asarray(slope * np.ptp(aggressiveness))


def leave_one_out_gain(limit: FloatArray, log_mcb: FloatArray, base: FloatArray) -> FloatArray:
    """Return how much the optimal mCB beside the `base` columns (K, b) lowers a left-out limit's error, points, (S,)."""
    # limit, log_mcb (S, K)
    alone = np.broadcast_to(base, (*limit.shape, base.shape[1]))
    full = np.concatenate([alone, log_mcb[..., None]], axis=-1)
    return _leave_one_out_error(alone, limit) - _leave_one_out_error(full, limit)


def lucky_share(limit: FloatArray, log_mcb: FloatArray, base: FloatArray, rng: np.random.Generator) -> float:
    """Return the permutation p value: how often optima shuffled over the regimes lower the error as much.

    What the base columns explain of the optimal mCB stays with the regime; the rest of it is shuffled, so that nothing but
    its relation to the limit is lost.

    Source: Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060, table 2 (Smith's method).
    """
    # limit, log_mcb (K,); base (K, b)
    rest = log_mcb - base @ np.linalg.lstsq(base, log_mcb, rcond=None)[0]
    shuffled = np.vstack([rest, rng.permuted(np.tile(rest, (SHUFFLES, 1)), axis=1)])
    gain = leave_one_out_gain(np.tile(limit, (len(shuffled), 1)), shuffled, base)
    return float((gain >= gain[0] - _TIE).mean())


def _leave_one_out_error(design: FloatArray, y: FloatArray) -> FloatArray:
    inverse = np.linalg.pinv(np.einsum("ski,skj->sij", design, design))
    beta = np.einsum("sij,skj,sk->si", inverse, design, y)
    leverage = np.einsum("ski,sij,skj->sk", design, inverse, design)
    residual = y - np.einsum("ski,si->sk", design, beta)
    # Leave-one-out residuals of least squares; a regime with leverage 1 cannot be predicted from the others.
    left_out = residual / np.clip(1.0 - leverage, 1e-6, None)
    return np.asarray(np.sqrt((left_out**2).mean(axis=1)))
