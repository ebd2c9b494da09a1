"""What explains the drop, the spaces' EDFs, and what each group's width buys."""

from __future__ import annotations

import numpy as np
import pandas as pd

from popstats.inference.optimum import INTERVAL_MASS
from popstats.inference.width_law import POOLED
from popstats.judgement.edf import cost_weights, edf
from popstats.judgement.explained import CEILING, MODELS
from popstats.judgement.case import ALL
from popstats.judgement.space_claims import std_halves
from popstats.judgement.verdicts import Verdict
from popstats.report.content import Figure, Panel, Table
from popstats.report.evidence import Evidence
from popstats.report.figures import INTERVALS, MASS_WORDS
from popstats.report.theme import MODEL_MARKS
from popstats.report.words import count, interval_words, join_words, number, percent, probability, regime_name

__all__ = ["edf_figure", "elasticity_figure", "explained_figure"]

#: Points of an EDF that are drawn.
EDF_POINTS = 61
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
    most = set(frame["model"])
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
        legend=tuple((name, name) for name in MODEL_MARKS if name in most),
        panels=(Panel("", "", "", "what_explains", sentence, {"shares": Table.of(shares)}),),
        table=Table(("removed", *order), rows),
    )  # fmt: skip


def _explained_sentence(frame: pd.DataFrame) -> str:
    most = frame.groupby("model")["r2"].agg(["min", "max"])
    mcb = f"mCB alone predicts {_range(most.loc['mCB'])} of the variance between trainings of a regime"
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
    panels = [p for r in evidence.fit.regimes if (p := _std_panel(evidence, r.label)) is not None]
    if not panels:
        return _regime_edfs(evidence)
    judged = [v for v in evidence.verdicts if v.conjecture == "S1" and v.outcome != "not assessable"]
    rows = tuple(
        (regime_name(v.regime), number(v.estimate), interval_words(v.lower, v.upper), probability(v.probability), v.outcome)
        for v in judged
    )
    return Figure(
        key="edfs",
        heading="Even or uneven pruning",
        sentence=_std_sentence(judged),
        caption=(
            "Share of networks whose drop is at most the value: further left is better. Low and high STD are the thirds of each "
            "regime's networks whose pruning ratios differ least and most between layer groups; both are weighted to one "
            f"histogram of MACs. Bands: Bayesian bootstrap over networks. {INTERVALS}"
        ),
        n=sum(r.n for r in evidence.fit.fitted),
        interval_mass=INTERVAL_MASS,
        legend=(("space 0", "low STD: pruned evenly"), ("space 1", "high STD: pruned unevenly")),
        panels=tuple(panels),
        table=Table(("removed", "low STD better by, points", MASS_WORDS, "probability", "verdict on S1"), rows),
    )


def _std_sentence(judged: list[Verdict]) -> str:
    regimes = [v for v in judged if v.regime != ALL]
    better = [regime_name(v.regime) for v in regimes if v.lower > 0]
    worse = [regime_name(v.regime) for v in regimes if v.upper < 0]
    if not better and not worse:
        return "At equal MACs, networks pruned evenly over their layers (low STD) and unevenly do not differ beyond doubt."
    parts = [
        f"drop {how} than those pruned unevenly at {join_words(where)}" for how, where in (("less", better), ("more", worse)) if where
    ]
    return f"At equal MACs, networks pruned evenly over their layers (low STD) {' and '.join(parts)} removed."


def _std_panel(evidence: Evidence, label: str) -> Panel | None:
    """Draw a regime's two spaces; None where S1 could not compare them either."""
    networks = evidence.networks[evidence.networks["regime"] == label]
    verdict = next((v for v in evidence.verdicts if (v.conjecture, v.regime) == ("S1", label)), None)
    if verdict is None or verdict.outcome == "not assessable":
        return None
    spaces = [networks[mask] for mask in std_halves(networks["ratio_std"].to_numpy())]
    weights = cost_weights(spaces[0]["macs"], spaces[1]["macs"])
    grid = _drop_grid(networks["drop"])
    parts = [
        _edf_rows(name, space["drop"], grid, weight, evidence.fit.settings.seed)
        for name, space, weight in zip(("low STD", "high STD"), spaces, weights, strict=True)
    ]
    words = f"low STD {'better' if verdict.estimate > 0 else 'worse'} by {number(abs(verdict.estimate))} points"
    return Panel(
        title=f"{regime_name(label)} removed",
        note=words,
        outcome=verdict.outcome,
        chart="edfs",
        alt=f"Shares of networks by drop at {regime_name(label)} of {evidence.axis_words} removed: {words}.",
        data={"shares": Table.of(pd.concat(parts)), "frame": _edge(grid)},
    )


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
            "Share of networks whose drop is at most the value: further left is better. The table has no widths, so "
            f"evenly and unevenly pruned networks cannot be told apart. {INTERVALS}"
        ),
        n=len(evidence.fit.population),
        interval_mass=INTERVAL_MASS,
        legend=(("space 0", "all networks of the regime"),),
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
    panels = [_elasticity_panel(pooled, "points", "lower", "upper", "For 10 % more width", "accuracy points")]
    if per_macs:
        names = ("points_per_percent_macs", "per_macs_lower", "per_macs_upper")
        panels.append(_elasticity_panel(pooled, *names, "For 1 % of the original's MACs", "accuracy points"))
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


def _elasticity_panel(pooled: pd.DataFrame, value: str, lower: str, upper: str, heading: str, title: str) -> Panel:
    data = pd.DataFrame({
        "group": pooled["group"].astype(str), "points": pooled[value], "lower": pooled[lower], "upper": pooled[upper],
    })  # fmt: skip
    described = ", ".join(f"{g} {number(v, 3)}" for g, v in zip(data["group"], data["points"], strict=True))
    return Panel(heading, "", "", "elasticities", f"Accuracy points that a wider group buys. {heading}: {described}.", {
        "groups": Table.of(data), "original": Table(("points",), ((0.0,),)), "frame": Table.of(pd.DataFrame([{"title": title}])),
    })  # fmt: skip
