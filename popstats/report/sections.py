"""The parts of the report that need no picture: alerts and diagnostics."""

from __future__ import annotations

import numpy as np
import pandas as pd

from popstats.inference.cross_products import RegimeData
from popstats.report.content import Alert, Section, Table
from popstats.report.doubts import doubts, heavy_tails
from popstats.report.evidence import Evidence, rows_of
from popstats.report.figures import INTERVALS
from popstats.report.model_checks import check_paragraphs, check_tables, misfits
from popstats.report.words import (
    MISSING,
    count,
    number,
    p_value,
    percent,
    plural,
    probability,
    regime_name,
    regime_names,
    same_but_numbers,
    spanned,
)

__all__ = ["alerts", "diagnostic_section"]

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
        *_outliers(evidence),
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


def _outliers(evidence: Evidence) -> list[str]:
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


def diagnostic_section(evidence: Evidence) -> Section:
    """Return whether the fit may be believed, its noise, its priors."""
    fit = evidence.fit
    method = (
        "Method: NUTS (PyMC and nutpie) over the curves' scales and noise, pooled over regimes; coefficients are drawn "
        "exactly."
        if fit.settings.method == "nuts"
        else "Method: exact (closed form on a grid, regimes independent); there is nothing to converge, only a grid that "
        "must hold the posterior."
    )
    tables = (
        ("Checks of the draws", _checks(fit.convergence.table)),
        ("What is left over about the curve", _noise(evidence)),
        *check_tables(evidence),
        ("What the priors held of each claim before the data", _prior_probabilities(evidence)),
        ("Prior distributions", Table.of(fit.priors)),
    )
    return Section(
        key="diagnostics",
        heading="Diagnostics",
        sentence=_diagnosis(evidence),
        paragraphs=(f"{method} {INTERVALS}", *check_paragraphs(evidence)),
        tables=tuple((caption, table) for caption, table in tables if table.rows),
        folded=True,
    )


def _diagnosis(evidence: Evidence) -> str:
    if not evidence.fit.fitted:
        return "No regime was fitted, so there is nothing to diagnose."
    return (
        "The fit passes its own diagnostics."
        if evidence.fit.convergence.ok
        else "The fit's own diagnostics reject it."
    )


def _checks(table: pd.DataFrame) -> Table:
    if "edge_probability" in table:
        masses = [(regime_name(r.regime), p_value(float(r.edge_probability))) for r in rows_of(table)]
        return Table(("removed", "posterior mass at the grid's edge (must be under 0.01)"), tuple(masses))
    grouped = table.groupby("regime", sort=False)
    worst = grouped.agg(
        r_hat=("r_hat", "max"), bulk=("ess_bulk", "min"), tail=("ess_tail", "min")
    ).reset_index()
    rows = [(regime_name(r.regime), number(r.r_hat, 3), count(r.bulk), count(r.tail)) for r in rows_of(worst)]
    columns = (
        "removed",
        "largest R-hat (under 1.01)",
        "smallest bulk ESS (over 400)",
        "smallest tail ESS (over 400)",
    )
    return Table(columns, tuple(rows))


def _noise(evidence: Evidence) -> Table:
    changes = {r.label: c for r, c in zip(evidence.fit.regimes, evidence.fit.spread_changes, strict=True)}
    rows = []
    for r in evidence.fitted_optima:
        change = changes[r.regime]
        ratio = (
            MISSING if change is None else f"{number(change.ratio)}{' (weighted)' if change.matters else ''}"
        )
        rows.append(
            (
                regime_name(r.regime),
                number(r.residual_sd),
                number(r.recipe_sd),
                number(r.seed_sd),
                percent(r.seed_share, 0),
                ratio,
            )
        )
    columns = (
        "removed",
        "sd of one training, points",
        "recipes' own sd",
        "seed sd",
        "seeds' share of the variance",
        "larger over smaller sd at the range's ends",
    )
    return Table(columns, tuple(rows))


def _prior_probabilities(evidence: Evidence) -> Table:
    shown = [v for v in evidence.verdicts if np.isfinite(v.prior_probability)]
    rows = [
        (v.conjecture, regime_name(v.regime), probability(v.prior_probability), probability(v.probability))
        for v in shown
    ]
    return Table(("claim", "removed", "probability before the data", "after"), tuple(rows))
