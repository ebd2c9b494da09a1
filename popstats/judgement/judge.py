"""`popstats.judge`: every conjecture of Network Pruning Spaces, judged on one fit."""

from __future__ import annotations

from popstats.errors import FitError
from popstats.findings import fact
from popstats.inference.model import CHAINS
from popstats.judgement.analysis import Analysis
from popstats.judgement.optimum_claims import (
    COST_CONJECTURE,
    cost_optimum,
    optimum,
    original_ratio,
    per_regime,
    winners,
)
from popstats.judgement.space_claims import judge_retraining, judge_std_spaces, judge_widths_beyond
from popstats.judgement.trend_claims import judge_limit, judge_trend
from popstats.judgement.verdicts import CLAIMS, Thresholds, Verdicts
from popstats.posterior.fit import Fit, fit, require_fit
from popstats.words import AXIS_WORDS

#: Draws of the second fit, on the other axis: a probability of 0.95 is then known to 0.005.
DRAWS = 2000


def judge(fitted: Fit, **thresholds: float) -> Verdicts:
    """Judge the conjectures.

    Parameters
    ----------
    fitted : Fit
        From `popstats.fit`.
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

    How to read them: C3a first (is there an optimal mCB), M1 beside it (is it more than the layer widths), C3c last
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
    analysis = Analysis(fitted, Thresholds.of(thresholds))
    other = _on_the_other_axis(analysis)
    verdicts = [
        *per_regime(analysis, COST_CONJECTURE[analysis.fit.regime_axis], cost_optimum),
        *per_regime(other, COST_CONJECTURE[other.fit.regime_axis], cost_optimum),
        *per_regime(analysis, "C3a", optimum),
        *per_regime(analysis, "C3b", winners),
        *per_regime(analysis, "C3c", original_ratio),
        judge_trend(analysis),
        judge_limit(analysis),
        *judge_std_spaces(analysis),
        *judge_retraining(analysis),
        *judge_widths_beyond(analysis),
    ]
    order = list(CLAIMS)
    analysis.verdicts = Verdicts(sorted(verdicts, key=lambda v: order.index(v.conjecture)), analysis)
    return analysis.verdicts


def analyse(fitted: Fit, verdicts: Verdicts | None = None) -> Analysis:
    """Return what a report shows: the analysis behind the verdicts, or a new one, judged under the defaults."""
    if verdicts is None:
        verdicts = judge(fitted)
    found = verdicts.analysis
    if isinstance(found, Analysis) and found.fit is fitted:
        return found
    limits = verdicts[0].thresholds if len(verdicts) else Thresholds()
    return Analysis(fitted, limits, verdicts=verdicts)


def _on_the_other_axis(analysis: Analysis) -> Analysis:
    other = fit(
        analysis.fit.population,
        regime_axis="params" if analysis.fit.regime_axis == "macs" else "macs",
        draws=DRAWS // CHAINS,
        random_seed=analysis.fit.settings.random_seed,
        priors=analysis.fit.prior_settings,
    )
    note = fact("other axis", equal=AXIS_WORDS[other.regime_axis])
    return Analysis(other, analysis.thresholds, note=(note,))
