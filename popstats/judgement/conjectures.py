"""`popstats.judge`: every conjecture of Network Pruning Spaces, judged on one fit."""

from __future__ import annotations

from popstats.errors import FitError
from popstats.inference.fit import Fit, fit, require_fit
from popstats.judgement.case import Case
from popstats.judgement.explained import Explained
from popstats.judgement.optimum_claims import judge_cost_optimum, judge_optimum, judge_original_ratio
from popstats.judgement.space_claims import judge_retraining, judge_std_spaces, judge_widths_beyond
from popstats.judgement.trend_claims import judge_limit, judge_trend
from popstats.judgement.verdicts import CLAIMS, Thresholds, Verdict, Verdicts
from popstats.judgement.winners import judge_winners

__all__ = ["judge"]

#: Draws of the second fit, on the other axis: a probability of 0.95 is then known to 0.005.
DRAWS, CHAINS = 2000, 4
_COSTS = {"macs": "MACs", "params": "parameters"}


def judge(fitted: Fit, *, explained: Explained | None = None, **thresholds: float) -> Verdicts:
    """Judge the conjectures.

    Parameters
    ----------
    fitted : Fit
        From `popstats.fit`.
    explained : Explained, optional
        From `popstats.judgement.explained.what_explains` on the same regimes, to save computing it again.
    **thresholds : float
        Any field of `Thresholds`, e.g. ``rise=0.2``; the defaults are the design's.

    Returns
    -------
    Verdicts
        In the order C1, C2, C3a, ... M1, and inside a conjecture by regime. What the data cannot answer is
        "not assessable", with the reason and what would answer it; nothing is raised for want of data.

    Raises
    ------
    FitError
        If the fit's curve is a companion (quadratic, asymmetric).
    PopstatsError
        If a threshold is unknown or not positive.

    Notes
    -----
    C1 speaks of regimes of equal MACs, C2 of equal parameters. The one that the fit is not about is judged on
    a second fit of the same table on the other axis (method "exact", normal noise).

    How to read them: C3a first (is there a best mCB), M1 beside it (is it more than the layers' widths), C3c last
    (is it the original's own). "Undecided" says that the data are too few, "refuted" that the claim is improbable
    whatever the prior held; `remedy` has the plan lines that would tell.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population(regimes=[0.6], n=300, rise=1.0)
    >>> verdicts = popstats.judge(popstats.fit(population, method="exact"))
    >>> verdicts.of("C3a")[0].outcome, verdicts.of("M1")[0].outcome
    ('supported', 'not assessable')
    """
    require_fit(fitted, "judge")
    if fitted.settings.curve != "smooth":
        raise FitError(
            f"judge: expected a fit with curve='smooth', got curve={fitted.settings.curve!r}: a curve of fixed form finds "
            "its optimum wherever its form puts it, so it is never the source of a verdict; fit again with "
            "curve='smooth', the report shows both"
        )
    limits = Thresholds.of(thresholds)
    case = Case(fitted, limits, explained)
    verdicts: list[Verdict] = [
        *judge_cost_optimum(case),
        *judge_cost_optimum(_on_the_other_axis(case)),
        *judge_optimum(case),
        *judge_winners(case),
        *judge_original_ratio(case),
        judge_trend(case),
        judge_limit(case),
        *judge_std_spaces(case),
        *judge_retraining(case),
        *judge_widths_beyond(case),
    ]
    order = list(CLAIMS)
    return Verdicts(sorted(verdicts, key=lambda v: order.index(v.conjecture)), case.explained_so_far)


def _on_the_other_axis(case: Case) -> Case:
    other = fit(
        case.fit.population,
        regime_axis="params" if case.fit.regime_axis == "macs" else "macs",
        method="exact",
        draws=DRAWS // CHAINS,
        chains=CHAINS,
        seed=case.fit.settings.seed,
        priors=case.fit.prior_settings,
    )
    note = f"; by a second fit, of regimes of equal {_COSTS[other.regime_axis]} and with normal noise"
    return Case(other, case.thresholds, note=note)
