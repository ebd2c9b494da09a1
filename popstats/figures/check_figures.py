"""Whether the model fits what it was fitted to, and what the priors did: a figure, sentences and tables."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import stats

from popstats.arrays import FloatArray
from popstats.figures.content import Figure, Panel, Table
from popstats.figures.curve_figures import INTERVALS, MASS_WORDS
from popstats.inference.draws import INTERVAL_MASS
from popstats.judgement.analysis import Analysis, rows_of
from popstats.posterior.predictive import PIT_DISTANCE
from popstats.posterior.sensitivity import MATTERS, THRESHOLD
from popstats.words import (
    MISSING,
    count,
    number,
    p_value,
    percent,
    regime_name,
    regime_names,
    with_interval,
)

#: Points at which the distribution of the LOO-PIT values is drawn.
PIT_POINTS = 101

#: Results of the fit as the sensitivity table calls them, in the report's words.
_RESULTS = {
    "optimum": "best mCB",
    "near_lower": "near-optimal from",
    "near_upper": "near-optimal to",
    "limit": "limit",
}


def predicted_figure(analysis: Analysis) -> Figure | None:
    """Return how well each network is predicted from the others (LOO-PIT); None where no regime was fitted.

    The band is that of Kolmogorov and Smirnov: it holds the whole curve with the interval's mass if the model is
    right, so a curve inside it and a statistic below its quantile are the same thing.
    """
    pits = analysis.fit.predictive_checks.loo_pit
    if not pits:
        return None
    return Figure(
        key="predicted",
        heading="Does the model predict its recipes?",
        sentence=_predicted_sentence(analysis),
        caption=(
            "Each recipe's drop is predicted from the other recipes. Its place in that prediction (LOO-PIT; 0: below all "
            "that was predicted, 1: above) is uniform if the model is right: observed minus expected share stays at 0. "
            "Above 0 at the left and below it at the right: predicted intervals are too narrow; the other way round: too "
            f"wide. The band holds the whole curve with {MASS_WORDS} probability if the model is right. {INTERVALS}"
        ),
        n=analysis.n_fitted,
        interval_mass=INTERVAL_MASS,
        legend=(
            ("curve", f"observed minus expected share; band: {MASS_WORDS} if the model is right"),
            ("original", "predicted exactly"),
        ),
        panels=tuple(_pit_panel(label, pit) for label, pit in pits.items()),
        table=_predicted_networks(analysis),
        folded=True,
    )


@cache
def _pit_band(n: int) -> float:
    """Return the half width of the band that holds the whole curve of n uniform values."""
    return float(stats.kstwo.ppf(INTERVAL_MASS, n))


def _leaves_band(pit: FloatArray) -> bool:
    return _distance(pit) > _pit_band(pit.size)


def _distance(pit: FloatArray) -> float:
    """Return the largest distance between the values' distribution and the uniform one (Kolmogorov-Smirnov)."""
    ordered, steps = np.sort(pit), np.arange(pit.size + 1) / pit.size
    return float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))


def _predicted_sentence(analysis: Analysis) -> str:
    pits = analysis.fit.predictive_checks.loo_pit
    outside = [label for label, pit in pits.items() if _leaves_band(pit)]
    if not outside:
        return "In every regime the recipes lie about the curve as the model predicts."
    named = {r for alert in analysis.fit.predictive_checks.alerts for r in alert.regimes}
    clear = [label for label in outside if label in named]
    how = f"clearly so at {regime_names(clear)}" if clear else "which one regime in ten does by chance alone"
    return f"At {regime_names(outside)} removed the curve leaves its band, {how}."


def _pit_panel(label: str, pit: FloatArray) -> Panel:
    at = np.linspace(0.0, 1.0, PIT_POINTS)
    difference = np.searchsorted(np.sort(pit), at, side="right") / pit.size - at
    band, leaves = _pit_band(pit.size), _leaves_band(pit)
    largest = _distance(pit)
    words = f"{'leaves' if leaves else 'stays inside'} the band of ±{number(band)}"
    rows = tuple(
        (round(float(u), 3), round(float(d), 4), -round(band, 4), round(band, 4))
        for u, d in zip(at, difference, strict=True)
    )
    reach = max(largest, band) * 1.1
    return Panel(
        title=f"{regime_name(label)} removed",
        note=words,
        outcome="",
        chart="uniform_difference",
        alt=(
            f"Distribution of the recipes' places in their predictions at {regime_name(label)} removed, minus the "
            f"uniform: at most {number(largest)} away, {words}."
        ),
        data={
            "places": Table(("place", "difference", "lower", "upper"), rows),
            "original": Table(("difference",), ((0.0,),)),
            "frame": Table(("y_lower", "y_upper"), ((-reach, reach),)),
        },
    )


def check_paragraphs(analysis: Analysis) -> tuple[str, ...]:
    """Return what the checks found and how to read their tables; nothing where no regime was fitted."""
    if not analysis.fit.fitted:
        return ()
    return _predictive_words(analysis), analysis.fit.prior_sensitivity.sentence, _how_to_read_priors()


def _predictive_words(analysis: Analysis) -> str:
    checks = analysis.fit.predictive_checks
    low, high = (
        percent(float(v), 0) for v in (checks.frame["inside_90"].min(), checks.frame["inside_90"].max())
    )
    verdict = (
        "The data look like what the model expects."
        if not checks.alerts
        else "The data do not look like what the model expects, as the alerts at the top of the page say. "
        "Another noise (“student” or “exgaussian”) may fit better; popstats.compare says which of two fits predicts better."
    )
    return (
        f"{verdict} Inside the {MASS_WORDS} interval that is predicted for them from the others lie "
        f"{low if low == high else f'{low} to {high}'} of a regime's recipes (should be about {MASS_WORDS})."
    )


def _how_to_read_priors() -> str:
    return (
        "In the table of priors, the sensitivity is how far a result's distribution moves when the priors (or the data) "
        f"count twice as much. A result leans on the priors if that is above {THRESHOLD:g} and its median or an end of its "
        f"interval moves by more than {MATTERS:g} standard deviations."
    )


def check_tables(analysis: Analysis) -> tuple[tuple[str, Table], ...]:
    """Return the tables behind `check_paragraphs`, each with a caption that says how to read it."""
    if not analysis.fit.fitted:
        return ()
    return (
        (
            "Shape of the residuals, against data simulated from the fit: a p near 0 or 1 is a misfit",
            _shapes(analysis),
        ),
        (
            "Each regime's limit, predicted by the best law through the other regimes: a surprise near 0 breaks the trend",
            _limits(analysis),
        ),
        ("Prior sensitivity of each result", _priors(analysis)),
    )


def _predicted_networks(analysis: Analysis) -> Table:
    rows = [
        (
            regime_name(r.regime),
            count(r.recipes),
            percent(r.inside_50, 0),
            percent(r.inside_90, 0),
            f"{number(r.pit_distance)} (band {number(_pit_band(r.recipes))})",
            p_value(r.pit_p),
        )
        for r in rows_of(analysis.fit.predictive_checks.frame)
    ]
    columns = (
        "removed",
        "recipes",
        "inside their 50 % interval",
        "inside their 90 % interval",
        f"largest distance from uniform (under {PIT_DISTANCE:g} is harmless)",
        "p",
    )
    return Table(columns, tuple(rows))


def _shapes(analysis: Analysis) -> Table:
    names = {"skewness": "skewness", "kurtosis": "excess kurtosis", "largest": "largest residual, sd"}
    rows = []
    for r in rows_of(analysis.fit.predictive_checks.frame):
        pairs = [(getattr(r, name), getattr(r, f"{name}_model"), getattr(r, f"{name}_p")) for name in names]
        cells = [cell for seen, model, p in pairs for cell in (number(seen, 1), number(model, 1), p_value(p))]
        rows.append((regime_name(r.regime), *cells))
    heads = [head for name in names.values() for head in (name, f"{name}: expected", f"{name}: p")]
    return Table(("removed", *heads), tuple(rows))


def _limits(analysis: Analysis) -> Table:
    rows = [
        (
            regime_name(r.regime),
            number(r.limit),
            with_interval(r.predicted, r.predicted_lower, r.predicted_upper),
            p_value(r.surprise),
            "beyond the others" if r.beyond else "between the others",
        )
        for r in rows_of(analysis.fit.predictive_checks.limits)
    ]
    columns = (
        "removed",
        "limit, points",
        f"predicted ({MASS_WORDS})",
        "surprise (probability)",
        "the regime lies",
    )
    return Table(columns, tuple(rows))


def _priors(analysis: Analysis) -> Table:
    rows = [
        (
            regime_name(r.regime),
            _RESULTS[r.quantity],
            number(r.prior),
            number(r.likelihood),
            number(r.median_change),
            number(r.lower_change),
            number(r.upper_change),
            r.diagnosis or MISSING,
        )
        for r in rows_of(analysis.fit.prior_sensitivity.frame)
    ]
    columns = (
        "removed",
        "result",
        "sensitivity to the priors",
        "to the data",
        "median moves, in sd",
        "lower end",
        "upper end",
        "diagnosis",
    )
    return Table(columns, tuple(rows))
