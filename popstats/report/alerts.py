"""What a supported best mCB hangs on that its verdict does not say: rounding, mix, retraining, misfit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from popstats.figures.check_figures import misfits, misfitting
from popstats.figures.content import Alert
from popstats.figures.curve_figures import TOO_FEW
from popstats.inference.data import RegimeData
from popstats.judgement.classical import MINIMUM_POINTS
from popstats.judgement.evidence import Evidence
from popstats.population.regimes import BUCKET_WIDTH
from popstats.words import (
    interval_words,
    join_words,
    percent,
    plural,
    regime_name,
    regime_names,
    same_but_numbers,
    spanned,
)

#: Share of the observed range (log mCB) over which the best mCB may move with the mix of recipes without being named.
MOVES = 0.5


#: Spread over robust spread from which a few recipes count as outliers: a normal sample of 20 hardly reaches it.
HEAVY_TAILS = 2.0


@dataclass(frozen=True)
class Doubt:
    """Something that speaks against relying on a supported best mCB."""

    regimes: tuple[str, ...]  # Labels of the regimes it concerns.
    clause: str  # For the paragraph at the top.
    alert: str  # For the list below it; empty where another alert says it already.


def doubts(evidence: Evidence) -> tuple[Doubt, ...]:
    """Return what speaks against relying on the supported best mCBs, the gravest first."""
    if not evidence.fit.convergence.ok:
        return ()
    supported = evidence.regimes_where("C3a", "supported")
    found = (
        (test(evidence, supported) for test in (_few, _outliers, _rounding, _mix, _pooled, _misfit))
        if supported
        else ()
    )
    return tuple(doubt for doubt in found if doubt.regimes)


def _at(regimes: list[str]) -> str:
    return f"at {regime_names(regimes)}"


def _few(evidence: Evidence, supported: list[str]) -> Doubt:
    sizes = {r: evidence.optima[r].n_recipes for r in supported if evidence.optima[r].n_recipes < TOO_FEW}
    held = join_words([f"{n} recipes only {_at([r])}" for r, n in sizes.items()])
    return Doubt(
        tuple(sizes),
        f"it rests on {held}",
        f"A best mCB rests on {held}: with so few, the priors and single recipes decide much of the curve.",
    )


def _outliers(evidence: Evidence, supported: list[str]) -> Doubt:
    heavy = [r for r in heavy_tails(evidence) if r in supported]
    return Doubt(
        tuple(heavy),
        f"a few recipes {_at(heavy)} drop far more than the others and bend the curve under normal noise",
        f"A few recipes {_at(heavy)} drop far more than the others. Under normal noise they bend the curve and widen its "
        "intervals: look at them, and fit with noise='student' before relying on the best mCB there.",
    )


def heavy_tails(evidence: Evidence) -> list[str]:
    """Return the regimes whose spread is made by a few far recipes, where the noise model is the normal one."""
    if evidence.fit.settings.noise != "normal":
        return []
    found = {r.label: _tail_ratio(evidence, r) for r in evidence.fit.fitted if r.n_recipes >= MINIMUM_POINTS}
    return [label for label, ratio in found.items() if ratio > HEAVY_TAILS]


def _tail_ratio(evidence: Evidence, regime: RegimeData) -> float:
    """Return the standard deviation about the curve over its robust estimate; 1 for normal noise."""
    networks, curve = (
        evidence.of_regime(regime.label),
        evidence.curve[evidence.curve["regime"] == regime.label],
    )
    residual = networks["adjusted"] - np.interp(networks["mcb"], curve["mcb"], curve["drop"])
    robust = stats.median_abs_deviation(residual, scale="normal")
    return float(residual.std() / robust) if robust > 0 else 1.0


def _rounding(evidence: Evidence, supported: list[str]) -> Doubt:
    pairs = {r: evidence.bucketed[r] for r in supported if r in evidence.bucketed}
    # Both are judged under normal noise, which may support less than the fit's own noise does.
    changed = {r: after for r, (before, after) in pairs.items() if before != after and after != "supported"}
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
        "The best mCB depends on the mix of recipes, which no interval allows for: leaving out the recipes with the "
        f"narrowest, or widest, quarter of one layer group moves it over {ranges}, more than half of the observed range.",
    )


def _share_moved(evidence: Evidence, regime: str) -> float:
    """Return the share of the observed range, on the log scale, over which other mixes move the best mCB."""
    row = evidence.optima[regime]
    low, high = np.log(evidence.mixes[regime])
    return float((high - low) / np.log(row.observed_upper / row.observed_lower))


def _pooled(evidence: Evidence, supported: list[str]) -> Doubt:
    techniques = evidence.techniques
    pooled = {r: techniques[r] for r in supported if len(techniques.get(r, ())) > 1}
    ways = {names: [r for r in pooled if pooled[r] == names] for names in dict.fromkeys(pooled.values())}
    how = join_words([f"{_at(where)} by {join_words(list(names))}" for names, where in ways.items()])
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


#: A regime with fewer recipes than this gets an alert: most of its claims stay open.
FEW_RECIPES = 50


def alerts(evidence: Evidence) -> tuple[Alert, ...]:
    """Return what a reader must know first, gravest first."""
    fit = evidence.fit
    rejections = [
        Alert(
            "reject",
            f"Diagnostics reject the fit: {reason}. Use none of its ranges; the first paragraph says what to do.",
        )
        for reason in fit.convergence.reasons
    ]
    warnings = [
        *(doubt.alert for doubt in doubts(evidence) if doubt.alert),
        *_unfitted(evidence),
        *_extrapolated(evidence),
        *fit.population.notes,
        *_failed(evidence),
        *misfits(evidence),
    ]
    notes = [
        *_other_outliers(evidence),
        *_changing_spread(evidence),
        *_few_recipes(evidence),
        *_no_replicates(evidence),
    ]
    return (
        *rejections,
        *(Alert("warn", text) for text in warnings),
        *(Alert("note", text) for text in notes),
    )


def _unfitted(evidence: Evidence) -> list[str]:
    """Name the regimes without a curve; those with one reason share a sentence."""
    groups: dict[str, list[RegimeData]] = {}
    for regime in evidence.fit.regimes:
        if not regime.fitted:
            groups.setdefault(same_but_numbers(regime.reason), []).append(regime)
    return [
        f"Not fitted: {regime_names([r.label for r in members])} removed ({spanned([r.reason for r in members])}; "
        f"{plural(sum(r.n for r in members), 'training')})."
        for members in groups.values()
    ]


def _extrapolated(evidence: Evidence) -> list[str]:
    ends = {label: [percent(v, 1) for v in evidence.reductions[label]] for label in evidence.extrapolated}
    return [
        f"At {regime_name(label)} removed the regime's centre lies outside its recipes ({low} to {high}): its drops "
        "are extrapolated."
        for label, (low, high) in ends.items()
    ]


def _failed(evidence: Evidence) -> list[str]:
    failed = len(evidence.fit.population.failed)
    return (
        [f"{plural(failed, 'training')} failed and {'is' if failed == 1 else 'are'} not in the fit."]
        if failed
        else []
    )


def _other_outliers(evidence: Evidence) -> list[str]:
    """Name the regimes with outliers that no doubt names already."""
    supported = evidence.regimes_where("C3a", "supported")
    heavy = [label for label in heavy_tails(evidence) if label not in supported]
    if not heavy:
        return []
    return [
        f"A few recipes drop far more than the others at {regime_names(heavy)}, which widens every interval there; "
        "noise='student' lets them count less."
    ]


def _changing_spread(evidence: Evidence) -> list[str]:
    pairs = zip(evidence.fit.regimes, evidence.fit.spread_changes, strict=True)
    where = [regime.label for regime, change in pairs if change is not None and change.matters]
    return (
        [
            "The spread about the curve changes more than 1.5-fold over the observed range at "
            f"{regime_names(where)}; recipes are weighted accordingly."
        ]
        if where
        else []
    )


def _few_recipes(evidence: Evidence) -> list[str]:
    few = [r.label for r in evidence.fit.fitted if r.n_recipes < FEW_RECIPES]
    if not few:
        return []
    where = "in every regime" if 1 < len(few) == len(evidence.fit.fitted) else f"at {regime_names(few)}"
    return [f"Fewer than {FEW_RECIPES} recipes {where}: many claims stay open there."]


def _no_replicates(evidence: Evidence) -> list[str]:
    if evidence.fit.population.has_replicates:
        return []
    return [
        "No recipe was trained with a second seed, so seed noise cannot be told from the recipes' own differences."
    ]
