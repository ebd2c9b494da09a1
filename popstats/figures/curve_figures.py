"""The figures about mCB: tidy tables for the charts, the sentence they support, how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray, IntArray
from popstats.figures.content import ORIGINAL, Figure, Panel, Table
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import INTERVAL_MASS
from popstats.judgement.analysis import Analysis
from popstats.words import (
    MISSING,
    count,
    interval_words,
    join_words,
    number,
    percent,
    plural,
    points,
    regime_name,
    with_interval,
)

#: Most recipes drawn in a panel.
MOST_POINTS = 250
#: Share of the networks of a regime that count as winners.
WINNERS = 0.05
#: Drops further than this many interquartile ranges beyond the quartiles lie outside the picture.
OUTER_FENCE = 3.0
#: Tables mark regimes of fewer networks.
TOO_FEW = 30
#: Characters shown of an id.
SHORT_ID = 12
#: The marks of `ranges_panel`.
RANGES_LEGEND = (
    ("near bar", "near-optimal range"),
    ("observed", "observed range"),
    ("optimum", "optimal mCB, with its interval"),
    ("open", "lowest point where none is supported"),
    ("original", "the original's ratio"),
)
MASS_WORDS = percent(INTERVAL_MASS)
INTERVALS = f"Intervals hold {MASS_WORDS} of the probability, with equal tails."


def measured(row: Any, name: str, decimals: int = 2) -> str:
    """Return an attribute of a row with its interval, `name`_lower to `name`_upper."""
    value, lower, upper = (getattr(row, f"{name}{end}") for end in ("", "_lower", "_upper"))
    return with_interval(value, lower, upper, decimals)


def drop_figure(analysis: Analysis) -> Figure:
    """Return accuracy drop against mCB, one panel per regime."""
    span = _mcb_span(np.array([r.observed for r in analysis.fit.fitted]))
    several = " and to the average retraining technique" * (len(analysis.fit.population.techniques) > 1)
    return Figure(
        key="drop",
        heading="Accuracy drop against mCB",
        sentence=_optimum_sentence(analysis),
        caption=(
            f"One panel per pruning regime, by {analysis.axis_words} removed. mCB is on a log scale; above 1, a network "
            f"spends more MACs per parameter than the original. Drops are adjusted to the regime's centre{several}; each "
            f"panel has its own scale. At most {MOST_POINTS} recipes per panel, drawn at random; far outliers lie above it. "
            f"{near_definition(analysis)} The curve spans the observed range (2.5 to 97.5 % of recipes, at equal "
            f"{analysis.axis_words}); nothing is claimed outside it. {INTERVALS}{_left_out_words(analysis)}"
        ),
        n=analysis.n_fitted,
        legend=(
            ("curve", f"expected drop ({MASS_WORDS} band)"),
            ("near", "near-optimal range (pale: C3a not supported)"),
            ("optimum", "optimal mCB, with its interval"),
            ("open", "lowest point where none is supported"),
            ("winner", f"best {percent(WINNERS)} of recipes"),
            ("point", "other recipes (mean of their trainings)"),
            ("original", "the original's ratio"),
        ),
        panels=tuple(_drop_panel(analysis, regime, span) for regime in analysis.fit.fitted),
        table=_optima_table(analysis),
    )


def _left_out_words(analysis: Analysis) -> str:
    """Say where the trainings are that the fit leaves out; nothing where it has them all."""
    missing = len(analysis.fit.population) - analysis.n_fitted
    if not missing:
        return ""
    return (
        f" Of {plural(len(analysis.fit.population), 'training')}, {count(missing)} {'is' if missing == 1 else 'are'} not "
        "in the fit: outside every fitted regime, or far beyond the observed range of mCB."
    )


def _drop_panel(analysis: Analysis, regime: RegimeDesign, span: tuple[float, float]) -> Panel:
    row, where = (analysis.optima[regime.label], f"{regime_name(regime.label)} removed")
    points = _thinned(analysis, regime.label)
    curve = analysis.curve[analysis.curve["regime"] == regime.label].drop(columns="regime")
    outcome = analysis.verdicts.outcome("C3a", regime.label)
    low, high = drop_ends(points["drop"])
    low, high = min(low, float(curve["lower"].min())), max(high, float(curve["upper"].max()))
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin
    above = int((points["drop"] > high).sum())
    outside = f", {above} above the picture" if above else ""
    some = f"{count(len(points))} of " if len(points) < regime.n_recipes else ""
    return Panel(
        title=where,
        note=f"{some}{plural(regime.n_recipes, 'recipe')}{outside}",
        outcome=outcome,
        chart="drop_over_mcb",
        alt=(
            f"Accuracy drop against mCB at {where}: smallest near mCB {number(row.mcb)}, {number(row.limit)} points; "
            f"near-optimal {near_words(analysis, regime.label)}; observed "
            f"{interval_words(row.observed_lower, row.observed_upper)}."
        ),
        data={
            "points": Table.of(points),
            "curve": Table.of(curve),
            "optimum": Table.one(
                mcb=row.mcb,
                lower=row.mcb_lower,
                upper=row.mcb_upper,
                drop=float(np.interp(row.mcb, curve["mcb"], curve["drop"])),
                limit=row.limit,
                near_lower=row.near_lower,
                near_upper=row.near_upper,
                clear=outcome == "supported",
            ),
            "near": Table(("near_lower", "near_upper"), analysis.by_label[regime.label].stretches),
            "original": ORIGINAL,
            "frame": Table.one(x_lower=span[0], x_upper=span[1], y_lower=low, y_upper=high),
        },
    )


def _thinned(analysis: Analysis, regime: str) -> pd.DataFrame:
    """Draw recipes at random, winners no more often than others, with what a tooltip says about each."""
    networks = analysis.of_regime(regime)
    cut = networks["adjusted"].quantile(WINNERS)
    winner = (networks["adjusted"] <= cut) & (len(networks) * WINNERS >= 1)
    rng = np.random.default_rng([analysis.fit.settings.random_seed, 31])
    rows = np.sort(rng.permutation(len(networks))[:MOST_POINTS])
    shown = networks.iloc[rows]
    told = {"mcb": shown["mcb"].round(4), "drop": shown["adjusted"].round(3), "winner": winner.iloc[rows]}
    return pd.DataFrame(told | _described(analysis, shown.index.to_numpy(), shown["ratio_std"]))


def _described(analysis: Analysis, recipes: IntArray, std: pd.Series) -> dict[str, Any]:
    """Return the columns of a tooltip that the table has: id, widths, STD and retraining technique of each recipe."""
    population, first = analysis.fit.population, analysis.fit.recipes.first[recipes]
    rows, found = population.frame.iloc[first], dict[str, Any]()
    if named := next((c for c in ("subnetwork_id", "recipe_id") if c in rows), None):
        found["id"] = rows[named].astype(str).str[:SHORT_ID].to_numpy()
    if population.widths is not None:
        found["widths"] = [" ".join(f"{w:g}" for w in kept) for kept in population.widths[first]]
    if std.notna().any():
        found["STD"] = std.round(2).to_numpy()
    if "retraining" in rows and rows["retraining"].notna().any():
        found["retraining"] = rows["retraining"].fillna("").astype(str).to_numpy()
    return found


def drop_ends(drops: pd.Series) -> tuple[float, float]:
    """Return the drops between which a picture is drawn: all networks, but no far outliers."""
    # A few collapsed networks would otherwise press all others into a line (Tukey's outer fence, doi:10.2307/2683468).
    low, first, third, high = np.quantile(drops, (0.0, 0.25, 0.75, 1.0)).tolist()
    reach = OUTER_FENCE * (third - first)
    return max(low, first - reach), min(high, third + reach)


def _mcb_span(observed: FloatArray) -> tuple[float, float]:
    """Return the mCB values that every panel shows: all observed ranges (log mCB) and 1, with a margin."""
    low, high = min(float(observed.min()), 0.0), max(float(observed.max()), 0.0)
    margin = 0.08 * max(high - low, 0.1)
    return float(np.exp(low - margin)), float(np.exp(high + margin))


def _optimum_sentence(analysis: Analysis) -> str:
    supported, fitted = analysis.verdicts.regimes_where("C3a", "supported"), len(analysis.fit.fitted)
    if not supported:
        return (
            f"No optimal mCB could be established in {plural(fitted, 'fitted regime')}: the curve is flat, falls towards an "
            "end of the observed range, or is too uncertain."
        )
    where = "the one fitted regime" if fitted == 1 else f"{len(supported)} of {fitted} regimes"
    places = []
    for r in supported:
        two = analysis.by_label[r].regions
        best = f"{near_words(analysis, r)} (two ranges)" if two else number(analysis.optima[r].mcb)
        places.append(f"{best} at {regime_name(r)}")
    return f"An optimal mCB is supported in {where}: {join_words(places)}."


def _optima_table(analysis: Analysis) -> Table:
    rows = analysis.optima.values()
    observed = "observed mCB, or why there is no curve" if any(r.reason for r in rows) else "observed mCB"
    return Table.by_column(rows, {
        "removed": lambda r: regime_name(r.regime),
        "recipes": lambda r: recipes_words(r.n_recipes),
        "near-optimal mCB": lambda r: MISSING if r.reason else near_words(analysis, r.regime),
        f"lowest at mCB ({MASS_WORDS})": lambda r: measured(r, "mcb"),
        f"drop there, points ({MASS_WORDS})": lambda r: measured(r, "limit"),
        f"cost of mCB = 1, points ({MASS_WORDS})": lambda r: measured(r, "regret_at_original"),
        observed: lambda r: r.reason or interval_words(r.observed_lower, r.observed_upper),
    })  # fmt: skip


def near_words(analysis: Analysis, regime: str) -> str:
    """Return the near-optimal range of a regime, other stretches that are as good, and their height if it is larger."""
    posterior = analysis.by_label[regime]
    height = posterior.optimum.near.height
    wider = f" (within {points(height)})" if height > analysis.thresholds.near else ""
    return f"{' or '.join(interval_words(*ends) for ends in posterior.stretches)}{wider}"


def recipes_words(n: int) -> str:
    """Return a regime's number of networks, marked where its intervals are about the priors more than the data."""
    return f"{count(n)} (few recipes)" if n < TOO_FEW else count(n)


def near_figure(analysis: Analysis) -> Figure:
    """Return the near-optimal ranges over regimes."""
    mixes = (
        " The last column of the table shows how far a supported optimum moves when the recipes with the narrowest, or "
        "widest, quarter of any one layer group are left out; the intervals do not include this."
    )
    return Figure(
        key="near",
        heading="Near-optimal ranges",
        sentence=_near_sentence(analysis),
        caption=(
            f"By {analysis.axis_words} removed. {near_definition(analysis)} The {MASS_WORDS} intervals of its ends, often "
            "wider than the range, are in the table. Pale ranges, where C3a is not supported, are not targets. "
            f"{INTERVALS}{mixes if analysis.mixes else ''}"
        ),
        n=analysis.n_fitted,
        legend=RANGES_LEGEND,
        panels=(ranges_panel([(regime_name(r.regime), analysis, r) for r in analysis.fitted_optima]),),
        table=_near_table(analysis),
    )


def ranges_panel(named: Sequence[tuple[str, Analysis, Any]]) -> Panel:
    """Return the picture of near-optimal ranges: a row per label, analysis and row of its optima."""
    ranges, near = [], []
    for label, analysis, row in named:
        clear = analysis.verdicts.outcome("C3a", row.regime) == "supported"
        near += [(label, clear, *ends) for ends in analysis.by_label[row.regime].stretches]
        ranges.append({
            "lower": row.mcb_lower, "upper": row.mcb_upper, "limit": row.limit, "mcb": row.mcb,
            "near_lower": row.near_lower, "near_upper": row.near_upper, "observed_lower": row.observed_lower,
            "observed_upper": row.observed_upper, "regime": label, "clear": clear,
        })  # fmt: skip
    told = [f"{label}, {near_words(analysis, row.regime)}" for label, analysis, row in named]
    low, high = _mcb_span(np.log([(row.observed_lower, row.observed_upper) for *_, row in named]))
    return Panel(
        chart="near_optimal_ranges",
        alt=f"Near-optimal mCB by regime: {'; '.join(told)}.",
        data={
            "ranges": Table.of(pd.DataFrame(ranges)),
            "near": Table(("regime", "clear", "near_lower", "near_upper"), tuple(near)),
            "original": ORIGINAL,
            "frame": Table.one(x_lower=low, x_upper=high),
        },
    )


def _near_sentence(analysis: Analysis) -> str:
    supported = [analysis.optima[regime] for regime in analysis.verdicts.regimes_where("C3a", "supported")]
    if not supported:
        return "No regime has a supported optimal mCB, so none of these ranges is a target."
    holds = [r for r in supported if any(a <= 1.0 <= b for a, b in analysis.by_label[r.regime].stretches)]
    where = (
        f"is {'' if holds else 'not '}near-optimal in the one regime"
        if len(supported) == 1
        else f"is near-optimal in {len(holds) or 'none'} of the {plural(len(supported), 'regime')}"
    )
    first = f"The original's ratio {where} with an optimal mCB"
    known = [r for r in supported if np.isfinite(r.regret_at_original)]
    if not known:
        return f"{first}."
    worst = max(known, key=lambda row: float(row.regret_at_original))
    ends = interval_words(worst.regret_at_original_lower, worst.regret_at_original_upper)
    cost = f"{number(worst.regret_at_original)} points ({MASS_WORDS} interval {ends})"
    where = regime_name(worst.regime)
    most = f"{cost} at {where}" if len(known) == 1 else f"most at {where}: {cost}"
    return f"{first}; keeping it costs {most}."


def near_definition(analysis: Analysis) -> str:
    """Return what near-optimal means, on the whole page."""
    return (
        "Near-optimal mCB values have an expected drop within "
        f"{points(analysis.thresholds.near)} of the minimum with probability one half; where there is none, a larger height "
        "is used and stated."
    )


def _near_table(analysis: Analysis) -> Table:
    def end(row: Any, which: str) -> str:
        """Return an end with its interval; of two near-optimal ranges the ends have none, and the left one comes first."""
        posterior = analysis.by_label[row.regime]
        if posterior.regions:
            return number(posterior.stretches[0][which == "near_upper"])
        return measured(row, which)

    def others(row: Any) -> str:
        return " or ".join(interval_words(*ends) for ends in analysis.by_label[row.regime].stretches[1:])

    mixes = analysis.mixes
    return Table.by_column(analysis.fitted_optima, {
        "removed": lambda r: regime_name(r.regime),
        "recipes": lambda r: recipes_words(r.n_recipes),
        f"near-optimal from ({MASS_WORDS})": lambda r: end(r, "near_lower"),
        f"to ({MASS_WORDS})": lambda r: end(r, "near_upper"),
        "also near-optimal": lambda r: others(r) or MISSING,
        "within, points": lambda r: f"{analysis.by_label[r.regime].optimum.near.height:g}",
        f"lowest at mCB ({MASS_WORDS})": lambda r: measured(r, "mcb"),
        "observed mCB": lambda r: interval_words(r.observed_lower, r.observed_upper),
        "optimal mCB over other mixes of recipes": lambda r: (
            interval_words(*mixes[r.regime]) if r.regime in mixes else MISSING
        ),
    })  # fmt: skip


def limit_figure(analysis: Analysis) -> Figure:
    """Return the smallest expected drop over regimes."""
    accuracy, rows = analysis.fit.population.original.accuracy, analysis.fitted_optima
    few, far = "few recipes", "extrapolated"
    remarks = {
        r.regime: ", ".join([far] * (r.regime in analysis.extrapolated) + [few] * (r.n_recipes < TOO_FEW))
        for r in rows
    }
    sentence = "No regime has recipes on both sides of its centre: the limits are extrapolated."
    sentence = limit_sentence(analysis) or sentence
    unsure = ("limit open", f"extrapolated, or from fewer than {TOO_FEW} recipes")
    limits = Table.by_column(rows, {
        "regime": lambda r: regime_name(r.regime),
        "target": lambda r: r.target,
        "inside": lambda r: not remarks[r.regime],
        "limit": lambda r: r.limit,
        "lower": lambda r: r.limit_lower,
        "upper": lambda r: r.limit_upper,
    })  # fmt: skip
    return Figure(
        key="limits",
        heading="The limit: the smallest expected drop",
        sentence=sentence,
        caption=(
            f"The smallest expected drop in each regime, by {analysis.axis_words} removed: the mean of recipes where the "
            "curve is lowest, not the drop of the best single network. The line only joins the regimes. "
            f"The dashed line is the original's accuracy, {percent(accuracy / 100, 2)}, whose own noise is common to all "
            f"drops. {INTERVALS}"
        ),
        n=analysis.n_fitted,
        legend=(
            ("limit", "smallest expected drop, with its interval"),
            *((unsure,) if any(remarks.values()) else ()),
            ("original", "the original network"),
        ),
        panels=(Panel("limits", sentence, {"limits": limits, "original": Table.one(limit=0.0)}),),
        table=Table.by_column(rows, {
            "removed": lambda r: regime_name(r.regime),
            f"smallest drop, points ({MASS_WORDS})": lambda r: measured(r, "limit"),
            "accuracy, %": lambda r: number(accuracy - r.limit),
            "remarks": lambda r: remarks[r.regime],
        }),
    )  # fmt: skip


def limit_sentence(analysis: Analysis, *, reliable: bool = False) -> str:
    """Return how the limit changes over the regimes whose centre was observed; "" if none was."""
    inside = [row for row in analysis.fitted_optima if row.regime not in analysis.extrapolated]
    many = [row for row in inside if row.n_recipes >= TOO_FEW]
    known = many if many or reliable else inside
    if not known:
        return ""
    ends = [known[0], known[-1]] if len(known) > 1 else known
    few = {r.regime: f" ({r.n_recipes} recipes only)" for r in ends if r.n_recipes < TOO_FEW}
    drops = [f"{number(r.limit)} points at {regime_name(r.regime)}{few.get(r.regime, '')}" for r in ends]
    return f"Where the curve is lowest, the expected drop is {join_words(drops)} of {analysis.axis_words} removed."
