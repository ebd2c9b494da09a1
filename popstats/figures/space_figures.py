"""The figures about everything but mCB: what explains the drop, the spaces' EDFs, what each group's width buys."""

from __future__ import annotations

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.figures.content import Figure, Panel, Table
from popstats.figures.curve_figures import INTERVALS, MASS_WORDS, drop_ends
from popstats.figures.theme import MODEL_MARKS
from popstats.inference.draws import INTERVAL_MASS
from popstats.judgement.edf import cost_weights, edf
from popstats.judgement.evidence import Evidence, rows_of
from popstats.judgement.explained import CEILING, MODELS
from popstats.judgement.space_claims import std_halves
from popstats.judgement.verdicts import Verdict
from popstats.planning.law import MINIMUM_RECIPES, POOLED, WidthLaw, width_law
from popstats.words import (
    ALL,
    count,
    interval_words,
    number,
    percent,
    probability,
    regime_name,
    regime_names,
    with_interval,
)

#: Points of an EDF that are drawn.
EDF_POINTS = 61
#: Shares of variance below this are cut off in the picture.
LOWEST_R2 = -0.2
#: Fewer networks than this and a regime has no EDF.
MINIMUM_NETWORKS = 10


def explained_figure(evidence: Evidence) -> Figure | None:
    """Return what explains the drop; None where no regime has enough networks."""
    frame = evidence.explained.frame
    if frame.empty:
        return None
    models, regimes = set(frame["model"]), list(dict.fromkeys(frame["regime"]))
    shares = frame.assign(regime=frame["regime"].map(regime_name))[
        ["regime", "model", "r2", "lower", "upper"]
    ]
    r2 = {(row.regime, row.model): float(row.r2) for row in rows_of(frame)}
    order = [m for m in [*MODELS, CEILING] if m in models]
    sentence = _explained_sentence(r2, regimes, models)
    return Figure(
        key="explained",
        heading="What explains the drop",
        sentence=sentence,
        caption=(
            f"By {evidence.axis_words} removed: the share of single trainings' variance, beyond what {evidence.axis_words} "
            "explain, that each description of a recipe predicts for recipes it has not seen (tenfold "
            "cross-validation by recipe). “log-widths” is an additive law in the layers' widths. The ceiling is what "
            "a model that knew every recipe's true mean would reach; it needs recipes trained with several seeds. "
            f"{INTERVALS}"
        ),
        n=sum(r.n for r in evidence.fit.regimes if r.label in regimes),
        interval_mass=INTERVAL_MASS,
        legend=tuple((name, name) for name in MODEL_MARKS if name in models),
        panels=(Panel("", "", "", "what_explains", sentence, _explained_data(shares)),),
        table=Table(
            ("removed", *order),
            tuple((regime_name(r), *(number(r2[r, m], 3) for m in order)) for r in regimes),
        ),
    )


def _explained_data(shares: pd.DataFrame) -> dict[str, Table]:
    """Return the chart's tables; intervals that reach far below 0 (worse than nothing) are cut."""
    low = max(min(0.0, float(shares["lower"].min())), LOWEST_R2, min(0.0, 1.1 * float(shares["r2"].min())))
    frame = Table(("y_lower", "y_upper"), ((low, float(shares["upper"].max())),))
    return {"shares": Table.of(shares), "frame": frame}


def _explained_sentence(r2: dict[tuple[str, str], float], regimes: list[str], models: set[str]) -> str:
    def reach(model: str) -> str:
        values = [max(r2[r, model], 0.0) for r in regimes]
        low, high = (number(100 * v, 0) for v in (min(values), max(values)))
        return f"{low} %" if low == high else f"{low} to {high} %"

    mcb = f"mCB alone predicts {reach('mCB')} of the variance between trainings of a regime"
    if "log-widths" not in models:
        return f"{mcb}; the table has no widths to compare it with."
    gains = [r2[r, "log-widths + mCB"] - r2[r, "log-widths"] for r in regimes]
    ends = list(dict.fromkeys([number(min(gains), 3), number(max(gains), 3)]))
    return (
        f"{mcb}; an additive law in the layers' widths predicts {reach('log-widths')}, and adding mCB to it changes "
        f"R² by {' to '.join(ends)}{', by regime' if len(regimes) > 1 else ''}."
    )


def edf_figure(evidence: Evidence) -> Figure | None:
    """Return EDFs of low-STD and high-STD networks by regime, or of whole regimes where the STD is unknown."""
    panels = [p for r in evidence.fit.regimes if (p := _std_panel(evidence, r.label)) is not None]
    return _std_edfs(evidence, panels) if panels else _regime_edfs(evidence)


def _std_edfs(evidence: Evidence, panels: list[Panel]) -> Figure:
    judged = _judged_spaces(evidence)
    rows = [
        (
            regime_name(v.regime),
            with_interval(v.estimate, v.lower, v.upper),
            probability(v.probability),
            v.outcome,
        )
        for v in judged
    ]
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
        n=evidence.n_fitted,
        interval_mass=INTERVAL_MASS,
        legend=(("space 0", "low STD: pruned evenly"), ("space 1", "high STD: pruned unevenly")),
        panels=tuple(panels),
        table=Table(
            ("removed", f"low STD better by, points ({MASS_WORDS})", "probability", "verdict on S1"),
            tuple(rows),
        ),
    )


def _judged_spaces(evidence: Evidence) -> list[Verdict]:
    return [v for v in evidence.verdicts if v.conjecture == "S1" and v.outcome != "not assessable"]


def even_sentence(evidence: Evidence) -> str:
    """Return where even pruning pays and how much; empty where S1 is supported in no regime."""
    each = [v for v in _judged_spaces(evidence) if v.regime != ALL]
    better = [v for v in each if v.outcome == "supported"]
    if not better:
        return ""
    gains = [v.estimate for v in better]
    by = " to ".join(dict.fromkeys([number(min(gains)), number(max(gains))]))
    worse = [v.regime for v in each if v.upper < 0]
    but = f", but more at {regime_names(worse)}" if worse else ""
    where = regime_names([v.regime for v in better])
    return (
        f"Even pruning pays at {where}: at equal MACs recipes of low STD (layers pruned alike) drop {by} points less in "
        f"the mean than those of high STD{but}."
    )


def _std_sentence(judged: list[Verdict]) -> str:
    regimes = [v for v in judged if v.regime != ALL]
    better = [v.regime for v in regimes if v.lower > 0]
    worse = [v.regime for v in regimes if v.upper < 0]
    if not better and not worse:
        return "At equal MACs, evenly pruned recipes (low STD) and unevenly pruned ones do not differ beyond doubt."
    parts = [f"{how} at {regime_names(where)}" for how, where in (("less", better), ("more", worse)) if where]
    return f"At equal MACs, evenly pruned recipes (low STD) drop {' and '.join(parts)} removed than unevenly pruned ones."


def _std_panel(evidence: Evidence, label: str) -> Panel | None:
    """Draw a regime's two spaces; None where S1 could not compare them."""
    verdict = evidence.verdict("S1", label)
    if verdict is None or verdict.outcome == "not assessable":
        return None
    networks = evidence.networks[evidence.networks["regime"] == label]
    low, high = (networks[mask] for mask in std_halves(networks["ratio_std"].to_numpy()))
    grid, weights = _drop_grid(networks["drop_at_mix"]), cost_weights(low["macs"], high["macs"])
    seed = evidence.fit.settings.seed
    shares = [
        _edf_rows("low STD", low["drop_at_mix"], grid, weights[0], seed),
        _edf_rows("high STD", high["drop_at_mix"], grid, weights[1], seed),
    ]
    words = (
        f"low STD {'better' if verdict.estimate > 0 else 'worse'} by {number(abs(verdict.estimate))} points"
    )
    return Panel(
        title=f"{regime_name(label)} removed",
        note=words,
        outcome=verdict.outcome,
        chart="edfs",
        alt=f"Shares of recipes by drop at {regime_name(label)} of {evidence.axis_words} removed: {words}.",
        data={"shares": Table.of(pd.concat(shares)), "frame": _edge(grid)},
    )


def _regime_edfs(evidence: Evidence) -> Figure | None:
    networks = evidence.networks
    members = {r.label: networks.loc[networks["regime"] == r.label, "drop"] for r in evidence.fit.regimes}
    drops = {label: values for label, values in members.items() if len(values) >= MINIMUM_NETWORKS}
    if not drops:
        return None
    rows = []
    for label, values in drops.items():
        ends = [number(float(values.quantile(q))) for q in (0.05, 0.5, 0.95)]
        rows.append((regime_name(label), count(len(values)), *ends))
    return Figure(
        key="edfs",
        heading="How the drops are spread",
        sentence=f"The median drop runs from {rows[0][3]} points at {rows[0][0]} removed to {rows[-1][3]} at {rows[-1][0]}.",
        caption=(
            "Share of recipes whose drop is at most the value: further left is better. Evenly and unevenly pruned "
            f"recipes (low and high STD) could not be compared here. {INTERVALS}"
        ),
        n=evidence.n_fitted,
        interval_mass=INTERVAL_MASS,
        legend=(("space 0", "all recipes of the regime"),),
        panels=tuple(
            _regime_panel(evidence, label, values, row[3])
            for (label, values), row in zip(drops.items(), rows, strict=True)
        ),
        table=Table(("removed", "recipes", "best 5 %, points", "median", "worst 5 %"), tuple(rows)),
    )


def _regime_panel(evidence: Evidence, label: str, drops: pd.Series, median: str) -> Panel:
    grid = _drop_grid(drops)
    shares = _edf_rows("all recipes", drops, grid, None, evidence.fit.settings.seed)
    return Panel(
        title=f"{regime_name(label)} removed",
        note=f"median drop {median} points",
        outcome="",
        chart="edfs",
        alt=f"Shares of recipes by drop at {regime_name(label)} removed: median {median} points.",
        data={"shares": Table.of(shares), "frame": _edge(grid)},
    )


def _drop_grid(drops: pd.Series) -> FloatArray:
    low, high = drop_ends(drops)
    return np.linspace(low, max(high, low + 1e-3), EDF_POINTS)


def _edge(grid: FloatArray) -> Table:
    return Table(("x_lower", "x_upper"), ((float(grid[0]), float(grid[-1])),))


def _edf_rows(
    name: str, drops: pd.Series, grid: FloatArray, weights: FloatArray | None, seed: int
) -> pd.DataFrame:
    found = edf(drops, weights=weights, grid=grid, seed=seed)
    values = {"drop": grid, "share": found.share, "lower": found.lower, "upper": found.upper}
    return pd.DataFrame({"space": name, **{k: np.round(v, 4) for k, v in values.items()}})


def elasticity_figure(evidence: Evidence) -> Figure | None:
    """Return what each group's width buys; None without widths."""
    law = _law(evidence)
    if law is None:
        return None
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
        n=sum(r.n for r in evidence.fit.regimes),
        interval_mass=INTERVAL_MASS,
        legend=(),
        panels=_elasticity_panels(pooled),
        table=_elasticity_table(pooled),
    )


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


def _elasticity_panels(pooled: pd.DataFrame) -> tuple[Panel, ...]:
    first = _elasticity_panel(pooled, ("points", "lower", "upper"), "For 10 % more width")
    if not _per_macs(pooled):
        return (first,)
    names = ("points_per_percent_macs", "per_macs_lower", "per_macs_upper")
    return first, _elasticity_panel(pooled, names, "For 1 % of the original's MACs")


def _elasticity_panel(pooled: pd.DataFrame, names: tuple[str, str, str], heading: str) -> Panel:
    columns = dict(zip(names, ("points", "lower", "upper"), strict=True))
    data = pooled[["group", *names]].rename(columns=columns).astype({"group": str})
    described = ", ".join(f"{row.group} {number(row.points, 3)}" for row in rows_of(data))
    return Panel(
        title=heading,
        note="",
        outcome="",
        chart="dot_intervals",
        alt=f"Accuracy points that a wider group buys. {heading}: {described}.",
        data={
            "groups": Table.of(data),
            "original": Table(("points",), ((0.0,),)),
            "frame": Table(("title",), (("accuracy points",),)),
        },
    )


def _elasticity_table(pooled: pd.DataFrame) -> Table:
    rows = [
        (
            str(r.group),
            with_interval(r.points, r.lower, r.upper, 3),
            number(r.macs_percent, 2),
            number(r.points_per_percent_macs, 3),
            interval_words(r.per_macs_lower, r.per_macs_upper, 3),
        )
        for r in rows_of(pooled)
    ]
    columns = (
        "group",
        f"points for 10 % more width ({MASS_WORDS})",
        "its cost, % of the original's MACs",
        "points per 1 % of MACs",
        MASS_WORDS,
    )
    return Table(columns, tuple(rows))


def _law(evidence: Evidence) -> WidthLaw | None:
    """Return the width law; None where the table has no widths or no regime has enough networks."""
    settings, sizes = evidence.fit.settings, [r.n_recipes for r in evidence.fit.regimes]
    if evidence.fit.population.widths is None or sum(sizes) < MINIMUM_RECIPES:
        return None
    return width_law(
        evidence.fit.population,
        regime_axis=settings.regime_axis,
        regimes=settings.regimes,
        seed=settings.seed,
    )
