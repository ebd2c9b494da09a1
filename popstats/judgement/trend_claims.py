"""C3d and C4: what the optima say when the regimes are read together."""

from __future__ import annotations

import numpy as np

from popstats.arrays import FloatArray
from popstats.inference.draws import interval
from popstats.judgement.analysis import PROPOSED_COUNT, Case, Effect, Reading, number, percent, span
from popstats.judgement.verdicts import Verdict
from popstats.posterior.optimum import SHUFFLES, TIE

#: Simulations of C4's prior probability: what a predictor that knows nothing would reach by luck.
LUCK = 4000


#: Regimes that the proposed plan lines ask for: one more than C4 needs.
PROPOSED_REGIMES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def judge_trend(case: Case) -> Verdict:
    """Judge C3d over all regimes: the optimal mCB rises with more aggressive pruning."""
    if not case.usable:
        return case.rejected("C3d", None)
    limits, readings = case.thresholds, case.with_optimum
    if len(readings) < limits.trend_regimes:
        labels = ", ".join(f"{100 * r.data.target:.4g} %" for r in readings)
        held = (
            f"there {'is' if len(readings) == 1 else 'are'} {len(readings)} ({labels})"
            if readings
            else "there is none"
        )
        reason = f"it needs {limits.trend_regimes} regimes with C3a supported, and {held}"
        return case.not_assessable(
            "C3d", None, reason, f"more recipes in more regimes, e.g.\n{_more_regimes(case)}"
        )
    steps = aggressiveness(readings)
    change = optimum_trend(np.stack([r.optimum.log_mcb for r in readings], axis=1), steps)
    prior = optimum_trend(np.stack([r.prior.log_mcb for r in readings], axis=1), steps)
    least = float(np.log(limits.trend))
    lower, upper = interval(change)
    effect = Effect(
        holds=change > least,
        prior_probability=float((prior > least).mean()),
        size=np.exp(change),
        quantity="change of the best mCB",
        unit="factor",
        negligible=f"the optimal mCB changes by no more than a factor of {limits.trend:g}",
        inside_negligible=bool(-least <= lower and upper <= least),
    )
    over = f"from {100 * readings[0].data.target:.4g} to {100 * readings[-1].data.target:.4g} % reduction"
    by = f"{over} it changes by a factor of {span(np.exp(change))} ({len(readings)} regimes)"
    words = {
        "supported": f"The best mCB rises with more aggressive pruning: {by}.",
        "refuted": f"The best mCB does not rise with more aggressive pruning: {by}.",
        "undecided": f"It is undecided whether the best mCB rises with more aggressive pruning: {by}.",
        "remedy": f"more recipes in these regimes: {', '.join(f'{100 * r.data.target:.4g} %' for r in readings)}",
    }
    return case.verdict("C3d", None, effect, words)


def judge_limit(case: Case) -> Verdict:
    """Judge C4 over all regimes: the limit is predictable from the optimal mCB."""
    if not case.usable:
        return case.rejected("C4", None)
    limits, readings = case.thresholds, case.readings
    if len(readings) < limits.limit_regimes:
        held = f"there {'is' if len(readings) == 1 else 'are'} {len(readings)}"
        reason = f"it needs {limits.limit_regimes} fitted regimes, and {held}"
        return case.not_assessable("C4", None, reason, _more_regimes(case))
    steps = -aggressiveness(readings)
    limit = np.stack([r.optimum.limit for r in readings], axis=1)
    log_mcb = np.stack([r.optimum.log_mcb for r in readings], axis=1)
    gain = leave_one_out_gain(limit, log_mcb, steps)
    lucky = lucky_share(
        np.median(limit, axis=0),
        np.median(log_mcb, axis=0),
        steps,
        np.random.default_rng([case.fit.settings.random_seed, 42]),
    )
    by_luck = f"best mCBs dealt out to the regimes at random do as well in {percent(lucky)} of shuffles"
    effect = Effect(
        holds=gain > 0,
        prior_probability=luck(steps, case.fit.settings.random_seed),
        size=gain,
        quantity="fall of the error",
        unit="percentage points",
        negligible="nothing: any lower error counts",
        withheld=by_luck if lucky > 1.0 - limits.supported else "",
    )
    constant = _constant_error(limit)
    error = (
        f"with it beside log(1 - reduction), the error of predicting a left-out regime's limit {_falls(gain)} points "
        f"({len(readings)} regimes); a constant alone errs by {number(constant, 3)} points, "
        f"and {by_luck}"
    )
    words = {
        "supported": f"The best mCB predicts the limit: {error}.",
        "refuted": f"The best mCB does not help to predict the limit: {error}.",
        "undecided": f"It is undecided whether the best mCB predicts the limit: {error}.",
        "remedy": f"more regimes:\n{_more_regimes(case)}",
    }
    return case.verdict("C4", None, effect, words)


def _more_regimes(case: Case) -> str:
    """Return the plan lines of a population with enough regimes."""
    return f'[[recipes]]\naxis = "{case.fit.regime_axis}"\nregimes = {list(PROPOSED_REGIMES)}\ncount = {PROPOSED_COUNT}'


def _falls(gain: FloatArray) -> str:
    """Return "falls by ..." or "rises by ..." of an error, without a minus sign to puzzle over."""
    worse = np.median(gain) < 0
    return f"{'rises' if worse else 'falls'} by {span(-gain if worse else gain, 3)}"


def aggressiveness(readings: tuple[Reading, ...]) -> FloatArray:
    """Return -log(1 - reduction) of each regime, shape (K,)."""
    return -np.log1p(-np.array([r.data.target for r in readings]))


def luck(steps: FloatArray, seed: int) -> float:
    """Return how often a predictor without information lowers the error: the prior probability of the claim."""
    rng = np.random.default_rng([seed, 41])
    shape = (LUCK, steps.size)
    return float(
        (leave_one_out_gain(rng.standard_normal(shape), rng.standard_normal(shape), steps) > 0).mean()
    )


def _constant_error(limit: FloatArray) -> float:
    """Return the leave-one-out error of predicting each regime's limit by the others' mean, points."""
    middle = np.median(limit, axis=0)
    left_out = (middle - middle.mean()) * middle.size / (middle.size - 1)
    return float(np.sqrt((left_out**2).mean()))


def optimum_trend(log_mcb: FloatArray, aggressiveness: FloatArray) -> FloatArray:
    """Return the change of the optimum from the mildest to the most aggressive regime, log mCB, (S,).

    A line through the regimes' optima in each draw; regimes count by the inverse of their variance over draws.
    """
    # log_mcb (S, K); aggressiveness (K,)
    weight = 1.0 / np.maximum(log_mcb.var(axis=0), 1e-8)
    weight = weight / weight.sum()
    distance = aggressiveness - weight @ aggressiveness
    slope = (log_mcb * (weight * distance)).sum(axis=1) / (weight @ distance**2)
    return np.asarray(slope * np.ptp(aggressiveness))


def leave_one_out_gain(limit: FloatArray, log_mcb: FloatArray, aggressiveness: FloatArray) -> FloatArray:
    """Return how much knowing the optimal mCB lowers the error of a left-out regime's limit, points, (S,).

    Root mean squared leave-one-regime-out error of limit ~ 1 + a, minus that of limit ~ 1 + a + log mCB.
    """
    # limit, log_mcb (S, K); aggressiveness (K,)
    base = np.broadcast_to(
        np.stack([np.ones_like(aggressiveness), aggressiveness], axis=-1), (*limit.shape, 2)
    )
    full = np.concatenate([base, log_mcb[..., None]], axis=-1)
    return _leave_one_out_error(base, limit) - _leave_one_out_error(full, limit)


def lucky_share(
    limit: FloatArray, log_mcb: FloatArray, aggressiveness: FloatArray, rng: np.random.Generator
) -> float:
    """Return how often optimal mCBs dealt out to the regimes at random lower the error as much.

    What log(1 - reduction) says of the optimal mCB stays with the regime; the rest of it is shuffled, so that
    nothing but its relation to the limit is lost.

    Source: Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060, table 2 (Smith's method: what other
    regressors leave of the one that is tested is shuffled).
    """
    # limit, log_mcb (K,); aggressiveness (K,)
    base = np.stack([np.ones_like(aggressiveness), aggressiveness], axis=-1)
    rest = log_mcb - base @ np.linalg.lstsq(base, log_mcb, rcond=None)[0]
    shuffled = np.vstack([rest, rng.permuted(np.tile(rest, (SHUFFLES, 1)), axis=1)])
    gain = leave_one_out_gain(np.tile(limit, (len(shuffled), 1)), shuffled, aggressiveness)
    return float((gain >= gain[0] - TIE).mean())


def _leave_one_out_error(design: FloatArray, y: FloatArray) -> FloatArray:
    inverse = np.linalg.pinv(np.einsum("ski,skj->sij", design, design))
    beta = np.einsum("sij,skj,sk->si", inverse, design, y)
    leverage = np.einsum("ski,sij,skj->sk", design, inverse, design)
    residual = y - np.einsum("ski,si->sk", design, beta)
    # Leave-one-out residuals of least squares; a regime with leverage 1 cannot be predicted from the others.
    left_out = residual / np.clip(1.0 - leverage, 1e-6, None)
    return np.asarray(np.sqrt((left_out**2).mean(axis=1)))
