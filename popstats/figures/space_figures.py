"""The figures about everything but mCB: what explains the drop, the spaces' EDFs, what each group's width buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.figures.content import Figure, Panel, Table
from popstats.figures.curve_figures import INTERVALS, MASS_WORDS, drop_ends
from popstats.judgement.analysis import Analysis, rows_of
from popstats.judgement.edf import cost_weights, edf
from popstats.judgement.explained import CEILING, MODELS, TOTALS
from popstats.judgement.space_claims import std_halves
from popstats.judgement.verdicts import Verdict
from popstats.planning.law import MINIMUM_RECIPES, POOLED, width_law
from popstats.words import (
    ALL,
    count,
    interval_words,
    number,
    percent,
    probability,
    regime_name,
    regime_names,
    span_words,
    with_interval,
)

#: Points of an EDF that are drawn.
EDF_POINTS = 61
#: Shares of variance below this are cut off in the picture.
LOWEST_R2 = -0.2
#: A regime with fewer networks has no EDF.
MINIMUM_NETWORKS = 10


def explained_figure(analysis: Analysis) -> Figure | None:
    """Return what explains the drop, one panel per regime; None where no regime has enough networks."""
    frame = analysis.explained.frame
    if frame.empty:
        return None
    models, regimes = set(frame["model"]), list(dict.fromkeys(frame["regime"]))
    r2 = {(row.regime, row.model): float(row.r2) for row in rows_of(frame)}
    order = [m for m in [*MODELS, CEILING] if m in models]
    low = max(min(0.0, float(frame["lower"].min())), LOWEST_R2)
    cells = ((regime_name(r), *(number(r2.get((r, m), np.nan), 3) for m in order)) for r in regimes)
    return Figure(
        key="explained",
        heading="What explains the drop",
        sentence=_explained_sentence(r2, regimes, models),
        caption=(
            f"By {analysis.axis_words} removed: the share of single trainings' variance, beyond what {analysis.axis_words} "
            "explain, that each description of a recipe predicts for recipes it has not seen (tenfold "
            "cross-validation by recipe). “log-widths” is an additive law in the layer widths. The noise ceiling is what a "
            f"model that knew every recipe's true mean would reach; it needs recipes with several seeds. {INTERVALS}"
        ),
        n=sum(r.n for r in analysis.fit.regimes if r.label in regimes),
        legend=(
            ("limit", "share predicted, with its interval"),
            *((("ceiling", "noise ceiling"),) if CEILING in models else ()),
        ),
        panels=tuple(_explained_panel(frame[frame["regime"] == r], low) for r in regimes),
        table=Table(("removed", *order), tuple(cells)),
    )


def _explained_panel(rows: pd.DataFrame, low: float) -> Panel:
    """Draw one regime beside its noise ceiling; intervals that reach far below 0 (worse than nothing) are cut."""
    where = f"{regime_name(str(rows['regime'].iloc[0]))} removed"
    named = rows.rename(columns={"model": "group", "r2": "points"})
    ceiling = named[named["group"] == CEILING][["points"]]
    shares, told = named.drop(index=ceiling.index).iloc[::-1], "Share of the drop's variance predicted."
    title, ends = "share of variance predicted (R²)", {"x_lower": low, "x_upper": 1.0}
    return dot_panel(where, title, shares, Table.of(ceiling), told, **ends)


def _explained_sentence(r2: dict[tuple[str, str], float], regimes: list[str], models: set[str]) -> str:
    def reach(model: str) -> str:
        return span_words([max(r2[r, model], 0.0) for r in regimes], lambda v: percent(v, 0))

    mcb = f"mCB alone predicts {reach('mCB')} of the variance between trainings of a regime"
    if "log-widths" not in models:
        return f"{mcb}; the table has no widths to compare it with."
    gains = [r2[r, "log-widths + mCB"] - r2[r, "log-widths"] for r in regimes]
    if TOTALS in models:
        mcb += f", embedding, total heads and total MLP width {reach(TOTALS)}"
    return (
        f"{mcb}; an additive law in the layer widths predicts {reach('log-widths')}, and adding mCB to it changes "
        f"R² by {span_words(gains, lambda v: number(v, 3))}{', by regime' if len(regimes) > 1 else ''}."
    )


def edf_figure(analysis: Analysis) -> Figure | None:
    """Return EDFs of low-STD and high-STD networks by regime, or of whole regimes where the STD is unknown."""
    panels = [p for r in analysis.fit.regimes if (p := _std_panel(analysis, r.label)) is not None]
    return _std_edfs(analysis, panels) if panels else _regime_edfs(analysis)


def _std_edfs(analysis: Analysis, panels: list[Panel]) -> Figure:
    judged = [v for v in analysis.verdicts.of("S1") if v.outcome != "not assessable"]
    return Figure(
        key="edfs",
        heading="Even or uneven pruning",
        sentence=_std_sentence(judged),
        caption=(
            "Share of recipes whose drop is at most the value: further left is better. Low and high STD are the "
            "thirds of each regime's recipes whose pruning ratios differ least and most between layer groups; both "
            "are weighted to one histogram of MACs. “Better by” compares mean drops, far outliers beyond the picture "
            f"included. Bands: Bayesian bootstrap over recipes. {INTERVALS}"
        ),
        n=analysis.n_fitted,
        legend=(("space 0", "low STD: pruned evenly"), ("space 1", "high STD: pruned unevenly")),
        panels=tuple(panels),
        table=Table.by_column(judged, {
            "removed": lambda v: regime_name(v.regime),
            f"low STD better by, points ({MASS_WORDS})": lambda v: with_interval(v.estimate, v.lower, v.upper),
            "probability": lambda v: probability(v.probability),
            "verdict on S1": lambda v: v.outcome,
        }),
    )  # fmt: skip


def even_sentence(analysis: Analysis) -> str:
    """Return where even pruning pays and how much; empty where S1 is supported in no regime."""
    each = [v for v in analysis.verdicts.of("S1") if v.regime != ALL]
    better = [v for v in each if v.outcome == "supported"]
    if not better:
        return ""
    by = span_words([v.estimate for v in better])
    worse = [v.regime for v in each if v.outcome != "not assessable" and v.upper < 0]
    but = f", but more at {regime_names(worse)}" if worse else ""
    where = regime_names([v.regime for v in better])
    return (
        f"Even pruning pays at {where}: at equal MACs, recipes of low STD (layers pruned alike) drop {by} points less on "
        f"average than those of high STD{but}."
    )


def _std_sentence(judged: list[Verdict]) -> str:
    regimes = [v for v in judged if v.regime != ALL]
    better = [v.regime for v in regimes if v.lower > 0]
    worse = [v.regime for v in regimes if v.upper < 0]
    if not better and not worse:
        return (
            "At equal MACs, evenly pruned recipes (low STD) and unevenly pruned ones do not clearly differ."
        )
    parts = [f"{how} at {regime_names(where)}" for how, where in (("less", better), ("more", worse)) if where]
    return f"At equal MACs, evenly pruned recipes (low STD) drop {' and '.join(parts)} removed than unevenly pruned ones."


def _std_panel(analysis: Analysis, label: str) -> Panel | None:
    """Draw a regime's two spaces; None where S1 could not compare them."""
    verdict = next(iter(analysis.verdicts.of("S1", label)), None)
    if verdict is None or verdict.outcome == "not assessable":
        return None
    networks = analysis.networks[analysis.networks["regime"] == label]
    low, high = (networks[mask] for mask in std_halves(networks["ratio_std"].to_numpy()))
    better = "better" if verdict.estimate > 0 else "worse"
    return edf_panel(
        label,
        {"low STD": low["drop_at_mix"], "high STD": high["drop_at_mix"]},
        f"low STD {better} by {number(abs(verdict.estimate))} points",
        weights=cost_weights(low["macs"], high["macs"]),
        over=networks["drop_at_mix"],
        outcome=verdict.outcome,
        seed=analysis.fit.settings.random_seed,
    )


def edf_panel(
    label: str,
    spaces: Mapping[str, pd.Series],
    words: str,
    *,
    note: str = "",
    weights: Sequence[FloatArray] | None = None,
    over: pd.Series | None = None,
    outcome: str = "",
    seed: int = 0,
) -> Panel:
    """Draw the EDFs of a regime's spaces with their bands, over the drops (by default theirs) without far outliers."""
    low, high = drop_ends(pd.concat(spaces.values()) if over is None else over)
    grid = np.linspace(low, max(high, low + 1e-3), EDF_POINTS)
    parts, no_weights = [], [None] * len(spaces)
    for (name, values), weight in zip(spaces.items(), weights or no_weights, strict=True):
        share, lower, upper = edf(values, grid, weights=weight, seed=seed)
        columns = {"drop": grid, "share": share, "lower": lower, "upper": upper}
        parts.append(pd.DataFrame({"space": name, **{k: np.round(v, 4) for k, v in columns.items()}}))
    where, ends = f"{regime_name(label)} removed", {"x_lower": float(grid[0]), "x_upper": float(grid[-1])}
    return Panel(
        title=where,
        note=note or words,
        outcome=outcome,
        chart="edfs",
        alt=f"Shares of recipes by drop at {where}: {words}.",
        data={"shares": Table.of(pd.concat(parts)), "frame": Table.one(**ends)},
    )


def _regime_edfs(analysis: Analysis) -> Figure | None:
    networks, seed = analysis.networks, analysis.fit.settings.random_seed
    members = {r.label: networks.loc[networks["regime"] == r.label, "drop"] for r in analysis.fit.regimes}
    drops = {label: values for label, values in members.items() if len(values) >= MINIMUM_NETWORKS}
    if not drops:
        return None
    medians = {label: number(float(values.median())) for label, values in drops.items()}
    first, last = next(iter(drops)), list(drops)[-1]
    return Figure(
        key="edfs",
        heading="Distribution of the drops",
        sentence=(
            f"The median drop runs from {medians[first]} points at {regime_name(first)} removed to {medians[last]} at "
            f"{regime_name(last)}."
        ),
        caption=(
            "Share of recipes whose drop is at most the value: further left is better. Evenly and unevenly pruned "
            f"recipes (low and high STD) could not be compared here. {INTERVALS}"
        ),
        n=analysis.n_fitted,
        legend=(("space 0", "all recipes of the regime"),),
        panels=tuple(
            edf_panel(label, {"all recipes": values}, f"median drop {medians[label]} points", seed=seed)
            for label, values in drops.items()
        ),
        table=Table.by_column(drops, {
            "removed": regime_name,
            "recipes": lambda label: count(len(drops[label])),
            "best 5 %, points": lambda label: number(float(drops[label].quantile(0.05))),
            "median": lambda label: medians[label],
            "worst 5 %": lambda label: number(float(drops[label].quantile(0.95))),
        }),
    )  # fmt: skip


def elasticity_figure(analysis: Analysis) -> Figure | None:
    """Return what each group's width buys; None without widths, or with too few recipes for a law."""
    settings, population = analysis.fit.settings, analysis.fit.population
    if population.widths is None or sum(r.n_recipes for r in analysis.fit.regimes) < MINIMUM_RECIPES:
        return None
    law = width_law(population, regime_axis=settings.regime_axis, regimes=settings.regimes)
    pooled = law.elasticities[law.elasticities["regime"] == POOLED]
    r2 = float(law.fit.loc[law.fit["regime"] == POOLED, "r2"].iloc[0])
    return Figure(
        key="elasticities",
        heading="What each layer group's width buys",
        sentence=_elasticity_sentence(pooled),
        caption=(
            "From an additive law in the log-widths over all regimes, at the average recipe; it predicts "
            f"{percent(r2, 0)} of the variance between single trainings, differences between regimes included. {INTERVALS}"
        ),
        n=sum(r.n for r in analysis.fit.regimes),
        panels=elasticity_panels(pooled),
        table=Table.by_column(rows_of(pooled), {
            "group": lambda r: str(r.group),
            f"points for 10 % more width ({MASS_WORDS})": lambda r: with_interval(r.points, r.lower, r.upper, 3),
            "its cost, % of the original's MACs": lambda r: number(r.macs_percent, 2),
            "points per 1 % of MACs": lambda r: number(r.points_per_percent_macs, 3),
            MASS_WORDS: lambda r: interval_words(r.per_macs_lower, r.per_macs_upper, 3),
        }),
    )  # fmt: skip


def _per_macs(pooled: pd.DataFrame) -> bool:
    """Return whether the cost of width is known (it is recovered from the table where possible)."""
    return bool(pooled["points_per_percent_macs"].notna().all())


def _elasticity_sentence(pooled: pd.DataFrame) -> str:
    column, unit = (
        ("points_per_percent_macs", "points per 1 % of the original's MACs")
        if _per_macs(pooled)
        else ("points", "points for 10 % more width")
    )
    rows = sorted(rows_of(pooled), key=lambda row: float(getattr(row, column)))
    worst, best = (f"{row.group} ({number(getattr(row, column), 3)}" for row in (rows[0], rows[-1]))
    return f"Width is best spent on {best} {unit}) and worst on {worst})."


def elasticity_panels(pooled: pd.DataFrame) -> tuple[Panel, ...]:
    """Return what a wider group buys in accuracy, per width and per MACs where costs are known."""
    shown = {"For 10 % more width": ("points", "lower", "upper")}
    if _per_macs(pooled):
        per_macs = ("points_per_percent_macs", "per_macs_lower", "per_macs_upper")
        shown["For 1 % of the original's MACs"] = per_macs
    zero, told = Table.one(points=0.0), "Accuracy points that a wider group buys."
    columns, groups = ["group", "points", "lower", "upper"], pooled.astype({"group": str})
    return tuple(
        dot_panel(heading, "accuracy points", groups[["group", *names]].set_axis(columns, axis=1), zero, told)
        for heading, names in shown.items()
    )


def dot_panel(heading: str, title: str, rows: pd.DataFrame, beside: Table, told: str, **ends: float) -> Panel:
    """Draw one quantity of several groups (group, points, lower, upper) beside a value; `ends`: those of its axis."""
    described = ", ".join(f"{row.group} {row.points:.2g}" for row in rows_of(rows))
    groups = Table.of(rows[["group", "points", "lower", "upper"]])
    return Panel(
        title=heading,
        chart="dot_intervals",
        alt=f"{told} {heading}: {described}.".strip(),
        data={"groups": groups, "original": beside, "frame": Table.one(title=title, **ends)},
    )
