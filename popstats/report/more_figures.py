"""What explains the drop, the spaces' EDFs, and what each group's width buys."""

from __future__ import annotations

import numpy as np
import pandas as pd

from popstats.errors import FitError
from popstats.inference.optimum import INTERVAL_MASS
from popstats.inference.width_law import POOLED
from popstats.judgement.edf import compare_spaces, cost_weights, edf
from popstats.judgement.explained import CEILING, MODELS
from popstats.report.content import Figure, Panel, Table
from popstats.report.evidence import Evidence
from popstats.report.figures import INTERVALS, MASS_WORDS
from popstats.report.words import count, interval_words, number, percent, plural, regime_name

__all__ = ["edf_figure", "elasticity_figure", "explained_figure"]

#: Points of an EDF that are drawn.
EDF_POINTS = 61
#: Share of the networks, by STD, in the low and in the high space.
STD_SHARE = 1 / 3
#: Fewer networks than this and a space has no EDF.
MINIMUM_NETWORKS = 10


def explained_figure(evidence: Evidence) -> Figure | None:
    """What explains the drop; None where no regime has enough networks."""
    frame = evidence.explained.frame
    if frame.empty:
        return None
    shares = frame.assign(regime=frame["regime"].map(regime_name))[["regime", "model", "r2", "lower", "upper"]]
    sentence = _explained_sentence(frame)
    wide = frame.pivot(index="regime", columns="model", values="r2")
    order = [m for m in [*MODELS, CEILING] if m in wide.columns]
    rows = tuple((regime_name(str(r)), *(number(v, 3) for v in wide.loc[r, order])) for r in wide.index)
    n = sum(r.n for r in evidence.fit.regimes if r.label in set(frame["regime"]))
    return Figure(
        key="explained",
        heading="What explains the drop",
        sentence=sentence,
        caption=(
            f"By {evidence.axis_words} removed: the share of the variance of single trainings, beyond what {evidence.axis_words} "
            "explain, that each description of a network predicts for networks it has not seen (tenfold cross-validation by "
            "network). “log-widths” is an additive law in the layers' widths. The ceiling is what a model that knew every "
            f"network's true mean would reach; it needs networks trained with several seeds. {INTERVALS}"
        ),
        n=n,
        interval_mass=INTERVAL_MASS,
        legend=(),
        panels=(Panel("", "", "", "what_explains", sentence, {"shares": Table.of(shares)}),),
        table=Table(("removed", *order), rows),
    )  # fmt: skip


def _explained_sentence(frame: pd.DataFrame) -> str:
    most = frame.groupby("model")["r2"].agg(["min", "max"])
    mcb = f"mCB alone predicts {_range(most.loc['mCB'])} of what {'' if len(frame) else ''}the regime leaves open".replace("  ", " ")
    if "log-widths" not in most.index:
        return f"{mcb}; the table has no widths to compare it with."
    wide = frame.pivot(index="regime", columns="model", values="r2")
    gain = (wide["log-widths + mCB"] - wide["log-widths"]).abs().max()
    widths = f"an additive law in the layers' widths predicts {_range(most.loc['log-widths'])}"
    adds = f"adding mCB to it changes that by at most {number(float(gain), 3)}"
    return f"{mcb}; {widths}, and {adds} in any regime."


def _range(ends: pd.Series) -> str:
    low, high = max(float(ends["min"]), 0.0), max(float(ends["max"]), 0.0)
    return percent(low, 0) if round(low, 2) == round(high, 2) else f"{percent(low, 0)} to {percent(high, 0)}"


def edf_figure(evidence: Evidence) -> Figure | None:
    """EDFs of low-STD and high-STD networks by regime, or of the regimes where the table has no STD."""
    has_std = evidence.networks["ratio_std"].notna().all()
    return _std_edfs(evidence) if has_std else _regime_edfs(evidence)


def _std_edfs(evidence: Evidence) -> Figure | None:
    drawn = [p for r in evidence.fit.fitted if (p := _std_panel(evidence, r.label)) is not None]
    if not drawn:
        return _regime_edfs(evidence)
    better = [row for _, row in drawn if row[5] == "low STD"]
    worse = [row for _, row in drawn if row[5] == "high STD"]
    sentence = (
        f"Pruned evenly (low STD), networks of equal MACs drop less in {len(better)} of {plural(len(drawn), 'regime')} "
        f"and more in {len(worse)}"
    )  # fmt: skip
    columns = ("removed", "networks, low STD", "networks, high STD", "low STD better by, points", MASS_WORDS, "better beyond doubt", "KS")
    return Figure(
        key="edfs",
        heading="Even or uneven pruning",
        sentence=sentence + ".",
        caption=(
            "Share of networks whose drop (points, across) is at most the value: further left is better. Low and high STD "
            "are the third of each regime's networks whose pruning ratios differ least and most between groups; both are weighted to one histogram of "
            f"MACs. Bands: Bayesian bootstrap over networks. {INTERVALS}"
        ),
        n=sum(r.n for r in evidence.fit.fitted),
        interval_mass=INTERVAL_MASS,
        legend=(("first", "low STD: pruned evenly"), ("second", "high STD: pruned unevenly")),
        panels=tuple(panel for panel, _ in drawn),
        table=Table(columns, tuple(row for _, row in drawn)),
    )  # fmt: skip


def _std_panel(evidence: Evidence, label: str) -> tuple[Panel, tuple[str, ...]] | None:
    networks = evidence.of_regime(label)
    low_end, high_end = networks["ratio_std"].quantile([STD_SHARE, 1 - STD_SHARE])
    low, high = networks[networks["ratio_std"] <= low_end], networks[networks["ratio_std"] >= high_end]
    if min(len(low), len(high)) < MINIMUM_NETWORKS or low_end == high_end:
        return None
    try:
        weights = cost_weights(low["macs"], high["macs"])
    except FitError:  # the two spaces cost so different amounts that nothing can be compared
        return None
    grid = _drop_grid(networks["drop"])
    parts = [
        _edf_rows(name, space["drop"], grid, weight, evidence.fit.settings.seed)
        for name, space, weight in (("low STD", low, weights[0]), ("high STD", high, weights[1]))
    ]
    gap = compare_spaces(low["drop"], high["drop"], costs=(low["macs"], high["macs"]), seed=evidence.fit.settings.seed)
    verdict = "low STD" if gap.lower > 0 else "high STD" if gap.upper < 0 else "neither"
    row = (regime_name(label), count(len(low)), count(len(high)), number(gap.points), interval_words(gap.lower, gap.upper), verdict, number(gap.ks))  # fmt: skip
    words = f"low STD {'better' if gap.points > 0 else 'worse'} by {number(abs(gap.points))} points"
    panel = Panel(
        title=f"{regime_name(label)} removed",
        note=f"{words} ({interval_words(gap.lower, gap.upper)})",
        outcome=evidence.outcome("S1", label),
        chart="edfs",
        alt=f"Shares of networks by drop at {regime_name(label)} of {evidence.axis_words} removed: {words}.",
        data={"shares": Table.of(pd.concat(parts)), "frame": _edge(grid)},
    )
    return panel, row


def _regime_edfs(evidence: Evidence) -> Figure | None:
    networks = evidence.networks
    panels, rows = [], []
    for regime in evidence.fit.regimes:
        drops = networks.loc[networks["regime"] == regime.label, "drop"]
        if len(drops) < MINIMUM_NETWORKS:
            continue
        grid = _drop_grid(drops)
        shares = _edf_rows("all networks", drops, grid, None, evidence.fit.settings.seed)
        low, middle, high = drops.quantile([0.05, 0.5, 0.95])
        rows.append((regime_name(regime.label), count(len(drops)), number(low), number(middle), number(high)))
        panels.append(
            Panel(
                title=f"{regime_name(regime.label)} removed",
                note=f"median drop {number(middle)} points",
                outcome="",
                chart="edfs",
                alt=f"Shares of networks by drop at {regime_name(regime.label)} removed: median {number(middle)} points.",
                data={"shares": Table.of(shares), "frame": _edge(grid)},
            )
        )
    if not panels:
        return None
    return Figure(
        key="edfs",
        heading="How the drops are spread",
        sentence=f"The median drop runs from {rows[0][3]} points at {rows[0][0]} removed to {rows[-1][3]} at {rows[-1][0]}.",
        caption=(
            "Share of networks whose drop (points, across) is at most the value: further left is better. The table has no widths, so "
            f"evenly and unevenly pruned networks cannot be told apart. {INTERVALS}"
        ),
        n=len(evidence.fit.population),
        interval_mass=INTERVAL_MASS,
        legend=(("first", "all networks of the regime"),),
        panels=tuple(panels),
        table=Table(("removed", "networks", "best 5 %, points", "median", "worst 5 %"), tuple(rows)),
    )  # fmt: skip


def _drop_grid(drops: pd.Series) -> np.ndarray:
    low, high = drops.quantile([0.002, 0.99])
    return np.linspace(float(low), max(float(high), float(low) + 1e-3), EDF_POINTS)


def _edge(grid: np.ndarray) -> Table:
    return Table.of(pd.DataFrame([{"x_lower": grid[0], "x_upper": grid[-1]}]))


def _edf_rows(name: str, drops: pd.Series, grid: np.ndarray, weights: np.ndarray | None, seed: int) -> pd.DataFrame:
    found = edf(drops, weights=weights, grid=grid, seed=seed)
    values = {"drop": grid, "share": found.share, "lower": found.lower, "upper": found.upper}
    return pd.DataFrame({"space": name, **{k: np.round(v, 4) for k, v in values.items()}})


def elasticity_figure(evidence: Evidence) -> Figure | None:
    """What each group's width buys; None without widths."""
    if evidence.law is None:
        return None
    table = evidence.law.elasticities
    pooled = table[table["regime"] == POOLED]
    per_macs = pooled["points_per_percent_macs"].notna().all()
    panels = [_elasticity_panel(pooled, "points", "lower", "upper", "points that a 10 % wider group buys")]
    if per_macs:
        names = ("points_per_percent_macs", "per_macs_lower", "per_macs_upper")
        panels.append(_elasticity_panel(pooled, *names, "points per 1 % of the original's MACs spent"))
    best = pooled.loc[pooled["points_per_percent_macs" if per_macs else "points"].idxmax()]
    least = pooled.loc[pooled["points_per_percent_macs" if per_macs else "points"].idxmin()]
    fitted = evidence.law.fit[evidence.law.fit["regime"] == POOLED].iloc[0]
    unit = "points per 1 % of the original's MACs" if per_macs else "points for 10 % more width"
    column = "points_per_percent_macs" if per_macs else "points"
    sentence = (
        f"Width is best spent on {best.group} ({number(best[column], 3)} {unit}) and worst on {least.group} "
        f"({number(least[column], 3)})."
    )  # fmt: skip
    rows = tuple(
        (r.group, number(r.points, 3), interval_words(r.lower, r.upper, 3), number(r.macs_percent, 2),
         number(r.points_per_percent_macs, 3), interval_words(r.per_macs_lower, r.per_macs_upper, 3))
        for r in pooled.itertuples()
    )  # fmt: skip
    columns = ("group", "points for 10 % more width", MASS_WORDS, "its cost, % of the original's MACs", "points per 1 % of MACs", MASS_WORDS)
    return Figure(
        key="elasticities",
        heading="What each layer group's width buys",
        sentence=sentence,
        caption=(
            "From an additive law in the log-widths over all regimes, at the average network; it predicts "
            f"{percent(float(fitted.r2), 0)} of the variance between single trainings. {INTERVALS}"
        ),
        n=sum(r.n for r in evidence.fit.regimes),
        interval_mass=INTERVAL_MASS,
        legend=(),
        panels=tuple(panels),
        table=Table(columns, rows),
    )


def _elasticity_panel(pooled: pd.DataFrame, value: str, lower: str, upper: str, title: str) -> Panel:
    data = pd.DataFrame({
        "group": pooled["group"].astype(str), "points": pooled[value], "lower": pooled[lower], "upper": pooled[upper],
    })  # fmt: skip
    described = ", ".join(f"{g} {number(v, 3)}" for g, v in zip(data["group"], data["points"], strict=True))
    return Panel("", "", "", "elasticities", f"{title[0].upper()}{title[1:]}: {described}.", {
        "groups": Table.of(data), "frame": Table.of(pd.DataFrame([{"title": title}])),
    })  # fmt: skip
