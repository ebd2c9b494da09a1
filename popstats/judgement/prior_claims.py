"""`popstats.prior_claims`: how probable each claim is before the data, under the fit's priors.

A table of its own and not part of `Fit.priors`, because what a claim says is decided here, after inference.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from popstats.errors import FitError
from popstats.inference.fit import Fit, require_fit
from popstats.judgement.case import ALL, Case, Reading
from popstats.judgement.optimum_claims import COST_CONJECTURE
from popstats.judgement.readings import has_optimum, optimum_trend
from popstats.judgement.trend_claims import aggressiveness, luck
from popstats.judgement.verdicts import CLAIMS, Thresholds
from popstats.judgement.winners import CrossFit, lift_draws

__all__ = ["prior_claims"]

Row = tuple[str, str, float]


def prior_claims(fitted: Fit, **thresholds: float) -> pd.DataFrame:
    """Return the prior probability of each claim, by simulation from the fit's priors.

    A verdict "refuted" must hold with these odds reset to 1:1, so that no prior refutes a claim; a claim that is
    improbable here needs clearer data to be supported.

    Parameters
    ----------
    fitted : Fit
        With the smooth curve; its data are not used, beyond the observed range and the spread of the drops, which
        set the priors' units.
    **thresholds : float
        Any field of `Thresholds`, as for `judge`.

    Returns
    -------
    pandas.DataFrame
        conjecture; regime ("all" for claims over all regimes); prior_probability; claim. C3c is conditional on C3a,
        C3d takes all fitted regimes as if each had an optimum. S1 and M1 are judged by a bootstrap, R1 by pairs of
        fits: they have no row.

    Raises
    ------
    FitError
        If the fit's curve is a companion, whose priors are flat.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population(regimes=[0.5], n=30)
    >>> fit = popstats.fit(population, regimes=[0.5], method="exact")
    >>> popstats.prior_claims(fit)["conjecture"].tolist()
    ['C1', 'C3a', 'C3b', 'C3c']
    """
    require_fit(fitted, "prior_claims")
    if fitted.settings.curve != "smooth":
        raise FitError(
            f"prior_claims: expected a fit with curve='smooth', got curve={fitted.settings.curve!r}, whose flat priors "
            "give a claim no probability"
        )
    case = Case(fitted, Thresholds.of(thresholds))
    rows = [row for reading in case.readings for row in _of_regime(case, reading)]
    rows += _of_all(case)
    order = list(CLAIMS)
    rows.sort(key=lambda row: (order.index(row[0]), row[1]))
    frame = pd.DataFrame(rows, columns=["conjecture", "regime", "prior_probability"])
    return frame.assign(claim=frame["conjecture"].map(CLAIMS))


def _of_regime(case: Case, reading: Reading) -> Iterator[Row]:
    limits, prior = case.thresholds, reading.prior
    given = has_optimum(prior, limits.rise)
    for conjecture in (COST_CONJECTURE[case.fit.regime_axis], "C3a"):
        yield conjecture, reading.label, float(given.mean())
    lift = lift_draws(CrossFit(0.0, 0.0), limits.nearest, np.random.default_rng([case.fit.settings.seed, 33]))
    yield "C3b", reading.label, float((lift > limits.lift).mean())
    regret = prior.regret_at_original[given]
    if regret.size and np.isfinite(regret).all():
        yield "C3c", reading.label, float((regret < limits.regret).mean())


def _of_all(case: Case) -> list[Row]:
    limits, readings = case.thresholds, case.readings
    steps = aggressiveness(readings)
    rows = []
    if len(readings) >= limits.trend_regimes:
        change = optimum_trend(np.stack([r.prior.log_mcb for r in readings], axis=1), steps)
        rows.append(("C3d", ALL, float((change > np.log(limits.trend)).mean())))
    if len(readings) >= limits.limit_regimes:
        rows.append(("C4", ALL, luck(-steps, case.fit.settings.seed)))
    return rows
