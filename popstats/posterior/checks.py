"""`popstats.check`: whether a fit may be believed, in one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from popstats.arrays import FloatArray
from popstats.findings import Finding
from popstats.posterior.fit import Fit, require_fit
from popstats.words import html_of, plural, sentence, sentences


@dataclass(frozen=True, eq=False)
class Checks:
    """What a fit's own checks found.

    Attributes
    ----------
    findings : tuple of Finding
        What stands out, as typed facts (`kind`, `regimes`, `values`); empty if nothing does.
    frame : pandas.DataFrame
        One row per finding: check ("convergence", "prediction" or "prior"), kind, regimes (labels), finding (a sentence).
    predictive : pandas.DataFrame
        One row per regime: shares of recipes inside the intervals predicted from the others (inside_50, inside_90),
        distance of the LOO-PIT values from uniform (pit_distance, pit_p), and the residuals' skewness, kurtosis and
        largest value, each with its mean and p-value over data simulated from the fit (`*_model`, `*_p`).
    sensitivity : pandas.DataFrame
        One row per regime and result: power-scaling sensitivity to the priors and to the data (`prior`, `likelihood`), how
        far median and interval move (standard deviations), and the diagnosis.
    loo_pit : mapping of str to numpy.ndarray
        Each regime's LOO-PIT values, one per recipe; uniform where the model is right.
    """

    findings: tuple[Finding, ...]
    frame: pd.DataFrame
    predictive: pd.DataFrame
    sensitivity: pd.DataFrame
    loo_pit: Mapping[str, FloatArray]

    @property
    def ok(self) -> bool:
        """Whether nothing stands out."""
        return not self.findings

    def __repr__(self) -> str:
        said = " ".join(sentences(self.findings)) or "nothing stands out"
        return f"<Checks of {plural(len(self.predictive), 'regime')}: {said}>"

    def _repr_html_(self) -> str:
        return html_of(" ".join(sentences(self.findings)) or "Nothing stands out.", self.predictive)


def check(fit: Fit) -> Checks:
    """Check a fit: convergence, posterior predictions, LOO-PIT values and prior sensitivity.

    Parameters
    ----------
    fit : Fit
        With the smooth curve.

    Returns
    -------
    Checks
        Read `findings` first. The report repeats them, and `popstats.plot_drop` shows the curves they are about.

    Raises
    ------
    FitError
        If it is not given a fit, or one of a companion curve, which has no priors.

    References
    ----------
    Gelman, Meng and Stern (1996), Statistica Sinica 6, 733-760; Kallioinen et al. (2023),
    doi:10.1007/s11222-023-10366-5; Vehtari, Gelman and Gabry (2017), doi:10.1007/s11222-016-9696-4.

    Examples
    --------
    >>> import popstats
    >>> fit = popstats.fit(popstats.simulate_population(regimes=[0.6, 0.8], n=100, noise_kind="heavy", seed=0))
    >>> "heavy tails" in set(popstats.check(fit).frame["kind"])
    True
    """
    require_fit(fit, "check")
    predictive, sensitivity = fit.predictive_checks, fit.prior_sensitivity
    found = {
        "convergence": fit.convergence.reasons,
        "prediction": (*fit.extrapolated, *predictive.alerts),
        "prior": sensitivity.findings,
    }
    rows = [(name, f.kind, ", ".join(f.regimes), sentence(f)) for name, held in found.items() for f in held]
    return Checks(
        findings=tuple(f for held in found.values() for f in held),
        frame=pd.DataFrame(rows, columns=["check", "kind", "regimes", "finding"]),
        predictive=predictive.frame,
        sensitivity=sensitivity.frame,
        loo_pit=predictive.loo_pit,
    )
