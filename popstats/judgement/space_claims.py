"""S1, R1 and M1: spaces of recipes, retraining techniques, and what the layers' widths explain."""

from __future__ import annotations

from popstats.inference.cross_products import RegimeData
from popstats.judgement.case import Case, Effect, more_recipes, percent, span
from popstats.judgement.explained import MINIMUM_RECIPES, WidthsBeyond
from popstats.judgement.verdicts import Verdict

__all__ = ["judge_widths_beyond"]


def judge_widths_beyond(case: Case) -> list[Verdict]:
    """Judge M1 in every regime: mCB explains something that the layers' widths do not."""
    if case.fit.population.widths is None:
        reason = "the table has no widths"
        remedy = "name the columns that hold them: Population.from_frame(..., widths=[...])"
        return [case.not_assessable("M1", None, reason, remedy)]
    return [_widths_beyond(case, regime) for regime in case.fit.regimes]


def _widths_beyond(case: Case, regime: RegimeData) -> Verdict:
    beyond = case.explained.widths_beyond.get(regime.label)
    if beyond is None:
        reason = f"{regime.n_recipes} recipes; cross-validation needs {MINIMUM_RECIPES}"
        return case.not_assessable("M1", regime, reason, more_recipes(regime))
    gain = case.thresholds.gain
    effect = Effect(
        holds=beyond.draws > gain,
        prior_probability=float("nan"),
        size=beyond.draws,
        unit="R^2 beyond MACs",
        negligible=f"adding mCB raises R^2 by at most {gain:g}",
    )
    at, rise = case.at(regime), f"cross-validated R^2 changes by {span(beyond.draws, 4)}"
    words = {
        "supported": f"{at} mCB explains something that an additive law in the layers' widths does not: {rise}.",
        "refuted": f"{at} mCB explains nothing that an additive law in the layers' widths does not: {rise}{_reach(beyond)}.",
        "undecided": f"{at} it is undecided whether mCB explains more than an additive law in the widths: {rise}.",
        "remedy": more_recipes(regime, 2 * regime.n_recipes),
    }
    return case.verdict("M1", regime, effect, words)


def _reach(beyond: WidthsBeyond) -> str:
    if not beyond.share_of_ceiling > 0:
        return ""
    return f"; the widths alone reach {percent(beyond.share_of_ceiling)} of what the seeds' own noise allows"
