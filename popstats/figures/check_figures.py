"""Whether the model fits what it was fitted to, and what the priors did: a figure, sentences and tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from popstats.arrays import FloatArray
from popstats.figures.content import Cell, Figure, Panel, Table
from popstats.figures.curve_figures import INTERVALS, MASS_WORDS, measured
from popstats.inference.draws import INTERVAL_MASS
from popstats.judgement.analysis import Analysis, rows_of
from popstats.posterior.predictive import PIT_DISTANCE
from popstats.posterior.sensitivity import MATTERS, THRESHOLD
from popstats.words import MISSING, count, number, p_value, percent, regime_name, regime_names, span_words

#: Points at which the distribution of the LOO-PIT values is drawn.
PIT_POINTS = 101

#: Results of the fit as the sensitivity table calls them, in the report's words.
_RESULTS = {
    "optimum": "optimal mCB", "near_lower": "near-optimal from", "near_upper": "near-optimal to", "limit": "limit",
}  # fmt: skip


def predicted_figure(analysis: Analysis) -> Figure | None:
    """Return how well each network is predicted from the others (LOO-PIT); None where no regime was fitted."""
    pits = analysis.fit.predictive_checks.loo_pit
    if not pits:
        return None
    return Figure(
        key="predicted",
        heading="Does the model predict its recipes?",
        sentence=_predicted_sentence(analysis),
        caption=(
            "Each recipe's drop is predicted from the other recipes. Its quantile in that prediction (LOO-PIT) is uniform "
            "if the model is right, so that the observed minus the expected share stays near 0. A curve above 0 on the left "
            "and below it on the right means that predicted intervals are too narrow; the reverse, that they are too "
            f"wide. The band holds the whole curve with {MASS_WORDS} probability if the model is right. {INTERVALS}"
        ),
        n=analysis.n_fitted,
        legend=(
            ("curve", f"observed minus expected share; band: {MASS_WORDS} if the model is right"),
            ("original", "predicted exactly"),
        ),
        panels=tuple(_pit_panel(label, pit) for label, pit in pits.items()),
        table=Table.by_column(rows_of(analysis.fit.predictive_checks.frame), {
            "removed": lambda r: regime_name(r.regime),
            "recipes": lambda r: count(r.recipes),
            "inside their 50 % interval": lambda r: percent(r.inside_50, 0),
            "inside their 90 % interval": lambda r: percent(r.inside_90, 0),
            f"largest distance from uniform (under {PIT_DISTANCE:g} is harmless)": lambda r: (
                f"{number(r.pit_distance)} (band {number(_pit_band(r.recipes))})"
            ),
            "p": lambda r: p_value(r.pit_p),
        }),
        folded=True,
    )  # fmt: skip


@cache
def _pit_band(n: int) -> float:
    """Return the half width of the band that holds the whole curve of n uniform values (Kolmogorov-Smirnov)."""
    return float(stats.kstwo.ppf(INTERVAL_MASS, n))


def _distance(pit: FloatArray) -> float:
    """Return the largest distance between the values' distribution and the uniform one."""
    return float(stats.ks_1samp(pit, stats.uniform.cdf).statistic)


def _predicted_sentence(analysis: Analysis) -> str:
    pits = analysis.fit.predictive_checks.loo_pit
    outside = [label for label, pit in pits.items() if _distance(pit) > _pit_band(pit.size)]
    if not outside:
        return "In every regime, the recipes scatter about the curve as the model predicts."
    named = {r for alert in analysis.fit.predictive_checks.alerts for r in alert.regimes}
    clear = [label for label in outside if label in named]
    how = f"clearly so at {regime_names(clear)}" if clear else "which one regime in ten does by chance alone"
    return f"At {regime_names(outside)} removed, the curve leaves its band, {how}."


def _pit_panel(label: str, pit: FloatArray) -> Panel:
    at = np.linspace(0.0, 1.0, PIT_POINTS)
    difference = np.searchsorted(np.sort(pit), at, side="right") / pit.size - at
    band, largest, where = _pit_band(pit.size), _distance(pit), f"{regime_name(label)} removed"
    words = f"{'leaves' if largest > band else 'stays inside'} the band of ±{number(band)}"
    places = pd.DataFrame({"place": at, "difference": difference, "lower": -band, "upper": band}).round(4)
    reach = max(largest, band) * 1.1
    frame = Table.one(y_lower=-reach, y_upper=reach)
    return Panel(
        title=where,
        note=words,
        chart="uniform_difference",
        alt=(
            f"Distribution of the recipes' places in their predictions at {where}, minus the uniform: at most "
            f"{number(largest)} away, {words}."
        ),
        data={"places": Table.of(places), "original": Table.one(difference=0.0), "frame": frame},
    )


def check_paragraphs(analysis: Analysis) -> tuple[str, ...]:
    """Return what the checks found and how to read their tables; nothing where no regime was fitted."""
    if not analysis.fit.fitted:
        return ()
    return (
        _predictive_words(analysis),
        analysis.fit.prior_sensitivity.sentence,
        "In the table of priors, sensitivity measures how far a result's distribution moves when the weight of the priors "
        f"(or the data) is doubled. A result is sensitive to the priors if that exceeds {THRESHOLD:g} and its median or an "
        f"end of its interval moves by more than {MATTERS:g} standard deviations.",
    )


def _predictive_words(analysis: Analysis) -> str:
    checks = analysis.fit.predictive_checks
    inside = checks.frame["inside_90"]
    shares = span_words(inside.tolist(), lambda v: percent(v, 0))
    verdict = (
        "The data look like what the model expects."
        if not checks.alerts
        else "The data do not look like what the model expects, as the alerts at the top of the page say. "
        "Another noise model (“student” or “exgaussian”) may fit better; popstats.compare tells which of two fits does."
    )
    return (
        f"{verdict} Of a regime's recipes, {shares} lie inside the {MASS_WORDS} interval that is predicted from the "
        f"others (should be about {MASS_WORDS})."
    )


def check_tables(analysis: Analysis) -> tuple[tuple[str, Table], ...]:
    """Return the tables behind `check_paragraphs`, each with a caption that says how to read it."""
    if not analysis.fit.fitted:
        return ()
    checks, removed = analysis.fit.predictive_checks, {"removed": lambda r: regime_name(r.regime)}
    limits = Table.by_column(rows_of(checks.limits), {
        **removed,
        "limit, points": lambda r: number(r.limit),
        f"predicted ({MASS_WORDS})": lambda r: measured(r, "predicted"),
        "surprise (probability)": lambda r: p_value(r.surprise),
        "the regime lies": lambda r: "beyond the others" if r.beyond else "between the others",
    })  # fmt: skip
    priors = Table.by_column(rows_of(analysis.fit.prior_sensitivity.frame), {
        **removed,
        "result": lambda r: _RESULTS[r.quantity],
        "sensitivity to the priors": lambda r: number(r.prior),
        "to the data": lambda r: number(r.likelihood),
        "median moves, in sd": lambda r: number(r.median_change),
        "lower end": lambda r: number(r.lower_change),
        "upper end": lambda r: number(r.upper_change),
        "diagnosis": lambda r: r.diagnosis or MISSING,
    })  # fmt: skip
    return (
        (
            "Shape of the residuals, against data simulated from the fit: a p near 0 or 1 is a misfit",
            Table.by_column(rows_of(checks.frame), {**removed, **_shapes()}),
        ),
        (
            "Each regime's limit, predicted by the best law through the other regimes: a surprise near 0 breaks the trend",
            limits,
        ),
        ("Prior sensitivity of each result", priors),
    )


def _shapes() -> dict[str, Callable[[Any], Cell]]:
    """Return the columns about the shape of the residuals: observed, expected and p of each quantity."""

    def column(name: str, form: Callable[[float], str]) -> Callable[[Any], Cell]:
        return lambda row: form(getattr(row, name))

    columns: dict[str, Callable[[Any], Cell]] = {}
    names = {"skewness": "skewness", "kurtosis": "excess kurtosis", "largest": "largest residual, sd"}
    for name, words in names.items():
        columns[words] = column(name, lambda v: number(v, 1))
        columns[f"{words}: expected"] = column(f"{name}_model", lambda v: number(v, 1))
        columns[f"{words}: p"] = column(f"{name}_p", p_value)
    return columns
