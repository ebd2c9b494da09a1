"""`popstats.check`: whether a fit may be believed. `popstats.compare`: which of several predicts recipes left out better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.findings import Finding
from popstats.inference.data import RegimeRows
from popstats.posterior.fit import Fit, require_fit
from popstats.posterior.pointwise import sample_of, thinned
from popstats.words import html_of, percent, plural, sentence, sentences

#: Draws that enter. Two sets of 500 draws of one posterior differ by about 1 in elpd over 16,384 recipes, far
#: below what counts as a difference.
DRAWS = 500
#: Fewer draws than this leave no tail to smooth.
MINIMUM_DRAWS = 100
#: Pareto k above this: leaving that recipe out is unreliable (Vehtari et al. 2024).
RELIABLE_K = 0.7
#: A smaller elpd difference is small whatever its standard error (Sivula et al. 2020, arXiv:2008.10296).
SMALL_DIFFERENCE = 4.0
#: Standard errors that tell two fits apart.
CLEAR = 2.0
#: With fewer recipes than this the standard error itself is too small (Sivula et al. 2020).
FEW_RECIPES = 100


@dataclass(frozen=True, eq=False)
class Comparison:
    """Fits compared by the expected log density of a recipe left out."""

    # One row per fit, best first: fit (name), elpd (sum over recipes of the log density, per percentage point, of
    # their mean drops), se (its standard error), p_loo (effective number of parameters), share_bad_k (share of
    # recipes with Pareto k above 0.7: should be 0, under 0.01 is harmless), difference (elpd minus the best's,
    # 0 or negative), dse.
    frame: pd.DataFrame
    # difference, dse: elpd of the best minus that of the runner-up, and its standard error.
    difference: float
    dse: float
    sentence: str  # What may be concluded.

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.frame)} fits: {self.sentence}>"

    def _repr_html_(self) -> str:
        return html_of(self.sentence, self.frame)


def compare(first: Fit | Mapping[str, Fit], second: Fit | None = None) -> Comparison:
    """Compare fits of the same recipes by PSIS-LOO.

    One point is one recipe's mean drop; each fit is scored by the log density that it gives to a recipe
    without having seen it. The difference comes with its standard error over recipes; there are no weights,
    which are read as probabilities and are none.

    Parameters
    ----------
    first : Fit or mapping of str to Fit
        A fit, or names and fits.
    second : Fit, optional
        The other fit, where `first` is one.

    Returns
    -------
    Comparison
        How to read it: a difference under 4, or under twice its standard error, tells nothing apart.

    Raises
    ------
    FitError
        If the fits are fewer than two, or not of the same recipes in the same regimes.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), doi:10.1007/s11222-016-9696-4; Sivula, Magnusson and Vehtari (2020),
    arXiv:2008.10296.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population("linear", regimes=[0.6], n=120, rise=1.0, noise=0.05)
    >>> smooth, parabola = (popstats.fit(population, curve=c, method="exact") for c in ("smooth", "quadratic"))
    >>> found = popstats.compare({"smooth": smooth, "quadratic": parabola})
    >>> sorted(found.frame["fit"]), found.difference >= 0.0
    (['quadratic', 'smooth'], True)
    """
    fits = _named(first, second)
    rows: dict[str, Sequence[RegimeRows]] = {name: fit.rows for name, fit in fits.items()}
    for a, b in pairwise(fits):
        _require_same_recipes(a, b, fits, rows)
    for name, fit in fits.items():
        if (size := fit.draws.flat_coefficients.shape[0]) < MINIMUM_DRAWS:
            raise FitError(f"compare: fit {name!r} has {size} draws, it needs at least {MINIMUM_DRAWS}")
    scores = {name: _leave_one_out(fit, rows[name]) for name, fit in fits.items()}
    ordered = sorted(scores.items(), key=lambda item: -item[1][0].sum())
    best = ordered[0][1][0]
    scored = [
        {
            "fit": name,
            "elpd": float(elpd.sum()),
            "se": _standard_error(elpd),
            "p_loo": float(p_loo.sum()),
            "share_bad_k": float((pareto_k > RELIABLE_K).mean()),
            "difference": float((elpd - best).sum()),
            "dse": _standard_error(elpd - best),
            "recipes": elpd.size,
        }
        for name, (elpd, pareto_k, p_loo) in ordered
    ]
    frame = pd.DataFrame(scored)
    sentence = " ".join(_sentence(frame, i) for i in range(1, len(frame)))
    return Comparison(frame, -float(frame["difference"][1]), float(frame["dse"][1]), sentence)


def _named(first: Fit | Mapping[str, Fit], second: Fit | None) -> dict[str, Fit]:
    if isinstance(first, Mapping):
        fits = dict(first)
    elif isinstance(second, Fit):
        a, b = vars(first.settings), vars(second.settings)
        pairs = ((a[name], b[name]) for name in ("curve", "noise", "method"))
        names = next((pair for pair in pairs if pair[0] != pair[1]), ("first", "second"))
        fits = dict(zip(names, (first, second), strict=True))
    else:
        fits = {"first": first}
    if len(fits) < 2 or not all(isinstance(fit, Fit) for fit in fits.values()):
        raise FitError(
            "compare: expected two fits, or a mapping of names to at least two fits; "
            f"got {', '.join(f'{name}: {type(fit).__name__}' for name, fit in fits.items()) or 'nothing'}"
        )
    return fits


def _require_same_recipes(
    a: str, b: str, fits: dict[str, Fit], rows: dict[str, Sequence[RegimeRows]]
) -> None:
    remedy = "Compare fits of one population, with the same regimes"
    labels = {n: ", ".join(r.regime.label for r in rows[n]) or "none" for n in (a, b)}
    first, second = (f"{fits[n].regime_axis} {labels[n]}" for n in (a, b))
    if first != second:
        raise FitError(f"compare: {a!r} and {b!r} have different regimes: {first} against {second}. {remedy}")
    if not rows[a]:
        raise FitError(f"compare: neither {a!r} nor {b!r} has a fitted regime")
    if other := next((p for p, q in zip(rows[a], rows[b], strict=True) if not _same(p, q)), None):
        raise FitError(
            f"compare: fits {a!r} and {b!r} saw different recipes in regime {other.regime.label} (populations "
            f"{fits[a].population.name!r} and {fits[b].population.name!r}). {remedy}"
        )


def _same(p: RegimeRows, q: RegimeRows) -> bool:
    # The weights may differ: they belong to the model, not to the data.
    pairs = [(getattr(p, name), getattr(q, name)) for name in ("unit", "offset", "drop", "runs")]
    units = np.allclose((p.regime.centre, p.regime.scale), (q.regime.centre, q.regime.scale))
    return units and all(x.shape == y.shape and np.allclose(x, y) for x, y in pairs)


def _leave_one_out(fit: Fit, rows: Sequence[RegimeRows]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return log density, Pareto k and effective parameters of each recipe left out, (n,) each."""
    from arviz_stats.base import array_stats

    picked = thinned(fit, DRAWS)
    blocks = [d for k, p in enumerate(rows) for _, d in sample_of(fit, k, picked).log_density(p)]
    elpd, pareto_k, p_loo = array_stats.loo(np.concatenate(blocks), chain_axis=None, draw_axis=-1)
    return elpd, pareto_k, p_loo


def _standard_error(values: FloatArray) -> float:
    return float(np.sqrt(values.size * values.var(ddof=1)))


def _sentence(frame: pd.DataFrame, position: int) -> str:
    best, other = frame.iloc[0], frame.iloc[position]
    gap, error = -float(other["difference"]), float(other["dse"])
    numbers = f"elpd difference {gap:.1f}, standard error {error:.1f}, {int(best['recipes']):,} recipes"
    if gap > max(SMALL_DIFFERENCE, CLEAR * error):
        text = f"{best['fit']!r} predicts left-out recipes better than {other['fit']!r} ({numbers})"
    else:
        text = f"{best['fit']!r} and {other['fit']!r} cannot be told apart ({numbers})"
    said, bad = [text], max(best["share_bad_k"], other["share_bad_k"])
    if best["recipes"] < FEW_RECIPES:
        said.append("with so few recipes the standard error is itself too small")
    if bad > 0.0:
        said.append(f"Pareto k above {RELIABLE_K:g} for up to {percent(bad)} of the recipes")
    return f"{'; '.join(said)}."


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
