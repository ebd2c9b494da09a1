"""What a supported best mCB hangs on that its verdict does not say: rounding, mix, retraining, misfit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popstats.judgement.case import retraining_techniques
from popstats.report.evidence import Evidence
from popstats.report.model_checks import misfitting
from popstats.report.words import interval_words, join_words, percent, regime_names
from popstats.spaces import BUCKET_WIDTH

__all__ = ["Doubt", "doubts"]

#: Share of the observed range (log mCB) over which the best mCB may move with the mix of recipes without being named.
MOVES = 0.5


@dataclass(frozen=True)
class Doubt:
    """Something that speaks against relying on a supported best mCB.

    Attributes
    ----------
    regimes : tuple of str
        Labels of the regimes it concerns.
    clause : str
        For the paragraph at the top.
    alert : str
        For the list below it; empty where another alert says it already.
    """

    regimes: tuple[str, ...]
    clause: str
    alert: str


def doubts(evidence: Evidence) -> tuple[Doubt, ...]:
    """Return what speaks against relying on the supported best mCBs, the gravest first."""
    if not evidence.fit.convergence.ok:
        return ()
    supported = evidence.regimes_where("C3a", "supported")
    found = (test(evidence, supported) for test in (_rounding, _mix, _pooled, _misfit)) if supported else ()
    return tuple(doubt for doubt in found if doubt.regimes)


def _at(regimes: list[str]) -> str:
    return f"at {regime_names(regimes)}"


def _rounding(evidence: Evidence, supported: list[str]) -> Doubt:
    pairs = {r: evidence.bucketed[r] for r in supported if r in evidence.bucketed}
    changed = {r: after for r, (before, after) in pairs.items() if before != after}
    becomes = join_words([f"{after} {_at([r])}" for r, after in changed.items()])
    return Doubt(
        tuple(changed),
        f"the verdict changes {_at(list(changed))} when parameters are counted in the paper's buckets",
        f"The verdict on the best mCB hangs on how parameters are counted: with counts rounded to buckets of "
        f"{percent(BUCKET_WIDTH)} of the original's, as the paper defines mCB, it is {becomes}.",
    )


def _mix(evidence: Evidence, supported: list[str]) -> Doubt:
    moved = [r for r in supported if r in evidence.mixes and _share_moved(evidence, r) > MOVES]
    ranges = join_words([f"{interval_words(*evidence.mixes[r])} {_at([r])}" for r in moved])
    return Doubt(
        tuple(moved),
        f"with another mix of recipes the best mCB moves over more than half of the observed range {_at(moved)}",
        "The best mCB depends on the mix of recipes more than its interval says: leaving out the recipes with the "
        f"narrowest, or widest, quarter of one layer group moves it over {ranges}, more than half of the observed range.",
    )


def _share_moved(evidence: Evidence, regime: str) -> float:
    """Return the share of the observed range, on the log scale, over which other mixes move the best mCB."""
    row = evidence.optima[regime]
    low, high = np.log(evidence.mixes[regime])
    return float((high - low) / np.log(row.observed_upper / row.observed_lower))


def _pooled(evidence: Evidence, supported: list[str]) -> Doubt:
    techniques = retraining_techniques(evidence.fit)
    pooled = {r: techniques[r] for r in supported if len(techniques.get(r, ())) > 1}
    how = join_words([f"{_at([r])} by {join_words(list(names))}" for r, names in pooled.items()])
    return Doubt(
        tuple(pooled),
        f"networks retrained in different ways share one curve {_at(list(pooled))}",
        f"Networks retrained in different ways share one curve, their difference in level taken out: {how}. R1 compares "
        "their best mCBs; population.where(retraining=…) fits one alone.",
    )


def _misfit(evidence: Evidence, supported: list[str]) -> Doubt:
    wrong = misfitting(evidence)
    regimes = [r for r in supported if r in wrong]
    return Doubt(
        tuple(regimes),
        f"the model's noise does not fit the recipes {_at(regimes)}",
        "",
    )
