"""What each figure shows: tidy tables for the charts, the sentence they support, how to read them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from popstats.inference.cross_products import RegimeData
from popstats.inference.optimum import INTERVAL_MASS, NEAR_OPTIMAL_POINTS
from popstats.report.content import Figure, Panel, Table
from popstats.report.evidence import Evidence
from popstats.report.words import count, interval_words, join_words, number, percent, plural, regime_name

__all__ = ["drop_figure", "limit_figure", "limit_sentence", "near_figure"]

#: Most networks drawn in a panel; of them at most this many winners.
MOST_POINTS, MOST_WINNERS = 250, 50
#: Share of the networks of a regime that count as winners.
WINNERS = 0.05
#: Every how many grid points the curve is drawn.
CURVE_STEP = 4
#: Share of the drawn networks at either end that may lie outside the drawn drops.
CLIPPED = 0.01
#: Where the original network stands on the mCB axis.
ORIGINAL = Table(("mcb",), ((1.0,),))
MASS_WORDS = f"{INTERVAL_MASS:.0%}".replace("%", " %")
INTERVALS = f"Intervals hold {MASS_WORDS} of the probability, with equal tails."


def drop_figure(evidence: Evidence) -> Figure:
    """Accuracy drop against mCB, one panel a regime."""
    span = _mcb_span(evidence)
    panels = tuple(_drop_panel(evidence, regime, span) for regime in evidence.fit.fitted)
    return Figure(
        key="drop",
        heading="Accuracy drop against mCB",
        sentence=_optimum_sentence(evidence),
        caption=(
            f"One panel a pruning regime; mCB on a log scale, drops on each regime's own scale. Drops are those at the "
            f"regime's centre: the effect of pruning a little more or less inside a regime is taken out. The curve spans "
            f"the observed range, 2.5 to 97.5 % of the networks; nothing is claimed outside it. {INTERVALS}"
        ),
        n=sum(r.n for r in evidence.fit.fitted),
        interval_mass=INTERVAL_MASS,
        legend=(
            ("curve", f"expected drop, with its {MASS_WORDS} band"),
            ("near", f"near-optimal range: within {NEAR_OPTIMAL_POINTS:g} points of the minimum"),
            ("optimum", "best mCB, with its interval"),
            ("open", "lowest point where none is supported"),
            ("winner", "among the best 5 % of its regime"),
            ("point", "another network (mean of its trainings)"),
            ("original", "the original network's ratio"),
        ),
        panels=panels,
        table=_optima_table(evidence),
    )  # fmt: skip


def _drop_panel(evidence: Evidence, regime: RegimeData, span: tuple[float, float]) -> Panel:
    row = evidence.optima.loc[regime.label]
    networks = evidence.of_regime(regime.label)
    points = _thinned(networks, seed=evidence.fit.settings.seed)
    curve = evidence.curve
    curve = curve[curve["regime"] == regime.label].iloc[::CURVE_STEP].drop(columns="regime")
    optimum = pd.DataFrame([{
        "mcb": row.mcb, "lower": row.mcb_lower, "upper": row.mcb_upper, "drop": row.limit,
        "near_lower": row.near_lower, "near_upper": row.near_upper, "clear": evidence.outcome("C3a", regime.label) == "supported",
    }])  # fmt: skip
    low, high = _drop_span(points["drop"], curve)
    frame = pd.DataFrame([{"x_lower": span[0], "x_upper": span[1], "y_lower": low, "y_upper": high}])
    return Panel(
        title=f"{regime_name(regime.label)} of {evidence.axis_words} removed",
        note=f"{count(len(points))} of {plural(regime.n_recipes, 'network')} shown, {plural(regime.n, 'training')}",
        outcome=evidence.outcome("C3a", regime.label),
        chart="drop_over_mcb",
        alt=(
            f"Accuracy drop against mCB at {regime_name(regime.label)} of {evidence.axis_words} removed: smallest near mCB "
            f"{number(row.mcb)}, {number(row.limit)} points; near-optimal from {number(row.near_lower)} to "
            f"{number(row.near_upper)}; observed from {number(row.observed_lower)} to {number(row.observed_upper)}."
        ),
        data={
            "points": Table.of(points),
            "curve": Table.of(curve),
            "optimum": Table.of(optimum),
            "original": ORIGINAL,
            "frame": Table.of(frame),
        },
    )


def _thinned(networks: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw networks and winners at random, each up to its number."""
    cut = networks["adjusted"].quantile(WINNERS)
    winner = (networks["adjusted"] <= cut).to_numpy() & (len(networks) * WINNERS >= 1)
    rng = np.random.default_rng([seed, 31])
    best = rng.permutation(np.flatnonzero(winner))[:MOST_WINNERS]
    rest = rng.permutation(np.flatnonzero(~winner))[: MOST_POINTS - best.size]
    rows = np.sort(np.concatenate([best, rest]))
    shown = networks.iloc[rows]
    return pd.DataFrame({
        "mcb": shown["mcb"].round(4), "drop": shown["adjusted"].round(3), "winner": winner[rows],
    })  # fmt: skip


def _drop_span(drops: pd.Series, curve: pd.DataFrame) -> tuple[float, float]:
    low = min(float(drops.quantile(CLIPPED)), float(curve["lower"].min()))
    high = max(float(drops.quantile(1.0 - CLIPPED)), float(curve["upper"].max()))
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _mcb_span(evidence: Evidence) -> tuple[float, float]:
    """Return the mCB values that every panel shows: all observed ranges and 1, with a margin."""
    if not evidence.fit.fitted:
        return 0.5, 2.0
    ends = np.array([r.observed for r in evidence.fit.fitted])
    low, high = min(ends.min(), 0.0), max(ends.max(), 0.0)
    margin = 0.08 * max(high - low, 0.1)
    return float(np.exp(low - margin)), float(np.exp(high + margin))


def _optimum_sentence(evidence: Evidence) -> str:
    supported = evidence.regimes_where("C3a", "supported")
    fitted = len(evidence.fit.fitted)
    if not supported:
        return (
            f"In none of {plural(fitted, 'fitted regime')} is there a best mCB beyond doubt: either the curve is "
            "flat, falls to an end of the observed range, or too little is known."
        )
    places = [f"{number(evidence.optima.loc[r].mcb)} at {regime_name(r)}" for r in supported if r in evidence.optima.index]
    where = "the one fitted regime" if fitted == 1 else f"{len(supported)} of {fitted} regimes"
    return f"In {where} the drop has a clear minimum inside the observed range: {join_words(places)}."


def _optima_table(evidence: Evidence) -> Table:
    rows = []
    for row in evidence.optima.itertuples():
        if row.reason:
            rows.append((regime_name(row.regime), count(row.n_recipes), *("–",) * 4, row.reason))
            continue
        rows.append((
            regime_name(row.regime),
            count(row.n_recipes),
            interval_words(row.near_lower, row.near_upper),
            f"{number(row.mcb)} ({interval_words(row.mcb_lower, row.mcb_upper)})",
            f"{number(row.limit)} ({interval_words(row.limit_lower, row.limit_upper)})",
            f"{number(row.regret_at_original)} ({interval_words(row.regret_at_original_lower, row.regret_at_original_upper)})",
            interval_words(row.observed_lower, row.observed_upper),
        ))  # fmt: skip
    columns = (
        "removed", "networks", "near-optimal mCB", f"optimum ({MASS_WORDS})", f"drop there, points ({MASS_WORDS})",
        f"cost of mCB = 1, points ({MASS_WORDS})", "observed mCB",
    )  # fmt: skip
    return Table(columns, tuple(rows))


def near_figure(evidence: Evidence) -> Figure:
    """Near-optimal ranges over regimes."""
    fitted = [r.label for r in evidence.fit.fitted]
    optima = evidence.optima.loc[fitted]
    ranges = pd.DataFrame({
        "regime": [regime_name(r) for r in fitted],
        "mcb": optima["mcb"], "lower": optima["mcb_lower"], "upper": optima["mcb_upper"], "drop": optima["limit"],
        "near_lower": optima["near_lower"], "near_upper": optima["near_upper"],
        "observed_lower": optima["observed_lower"], "observed_upper": optima["observed_upper"],
        "clear": [evidence.outcome("C3a", r) == "supported" for r in fitted],
    })  # fmt: skip
    low, high = _mcb_span(evidence)
    panel = Panel(
        title="", note="", outcome="", chart="near_optimal_ranges",
        alt="Near-optimal mCB by regime: " + "; ".join(
            f"{regime_name(r.regime)} removed, {interval_words(r.near_lower, r.near_upper)}" for r in optima.itertuples()
        ) + ".",
        data={"ranges": Table.of(ranges), "original": ORIGINAL, "frame": Table.of(pd.DataFrame([{"x_lower": low, "x_upper": high}]))},
    )  # fmt: skip
    return Figure(
        key="near",
        heading="How much room there is around the best mCB",
        sentence=_near_sentence(evidence, optima),
        caption=(
            f"By {evidence.axis_words} removed. The near-optimal range holds every mCB whose expected drop is within "
            f"{NEAR_OPTIMAL_POINTS:g} points of the minimum; it is known more reliably than the optimum itself. {INTERVALS}"
        ),
        n=sum(r.n for r in evidence.fit.fitted),
        interval_mass=INTERVAL_MASS,
        legend=(
            ("near bar", "near-optimal range"),
            ("observed", "observed range"),
            ("optimum", "best mCB, with its interval"),
            ("open", "lowest point where none is supported"),
            ("original", "the original network's ratio"),
        ),
        panels=(panel,),
        table=_near_table(optima),
    )  # fmt: skip


def _near_sentence(evidence: Evidence, optima: pd.DataFrame) -> str:
    holds = optima[(optima["near_lower"] <= 1.0) & (optima["near_upper"] >= 1.0)]
    regret = optima["regret_at_original"].dropna()
    first = (
        f"The original's own ratio lies inside the near-optimal range in {len(holds)} of {plural(len(optima), 'regime')}"
    )
    if regret.empty:
        return first + "."
    worst = optima.loc[regret.idxmax()]
    return f"{first}; keeping it costs at most {number(worst.regret_at_original)} points (at {regime_name(worst.regime)})."


def _near_table(optima: pd.DataFrame) -> Table:
    rows = [
        (
            regime_name(r.regime),
            f"{number(r.near_lower)} ({interval_words(r.near_lower_lower, r.near_lower_upper)})",
            f"{number(r.near_upper)} ({interval_words(r.near_upper_lower, r.near_upper_upper)})",
            f"{number(r.mcb)} ({interval_words(r.mcb_lower, r.mcb_upper)})",
            interval_words(r.observed_lower, r.observed_upper),
        )
        for r in optima.itertuples()
    ]
    columns = ("removed", f"near-optimal from ({MASS_WORDS})", f"to ({MASS_WORDS})", f"optimum ({MASS_WORDS})", "observed mCB")
    return Table(columns, tuple(rows))


def limit_figure(evidence: Evidence) -> Figure:
    """The smallest expected drop over regimes."""
    optima = evidence.optima.loc[[r.label for r in evidence.fit.fitted]]
    inside = [r not in evidence.extrapolated for r in optima["regime"]]
    data = pd.DataFrame({
        "regime": [regime_name(r) for r in optima["regime"]], "target": optima["target"], "inside": inside,
        "limit": optima["limit"], "lower": optima["limit_lower"], "upper": optima["limit_upper"],
    })  # fmt: skip
    accuracy = evidence.fit.population.original.accuracy
    sentence = limit_sentence(evidence) or "Every regime's centre lies outside its networks: the limits are extrapolated."
    original = Table(("limit",), ((0.0,),))
    panel = Panel("", "", "", "limits", sentence, {"limits": Table.of(data), "original": original})
    rows = tuple(
        (regime_name(r.regime), number(r.limit), interval_words(r.limit_lower, r.limit_upper), number(accuracy - r.limit),
         "" if r.regime not in evidence.extrapolated else "extrapolated")
        for r in optima.itertuples()
    )  # fmt: skip
    return Figure(
        key="limits",
        heading="The limit: what the best networks keep",
        sentence=sentence,
        caption=(
            f"The smallest expected drop in each regime, by {evidence.axis_words} removed; the line only joins the regimes. "
            f"The dashed line is the original's accuracy, {percent(accuracy / 100, 2)}, whose own noise is common to all drops. "
            f"{INTERVALS}"
        ),
        n=sum(r.n for r in evidence.fit.fitted),
        interval_mass=INTERVAL_MASS,
        legend=(
            ("limit", "smallest expected drop, with its interval"),
            *((("limit open", "extrapolated: no network at the regime's centre"),) if not all(inside) else ()),
            ("original", "the original network"),
        ),
        panels=(panel,),
        table=Table(("removed", "smallest drop, points", MASS_WORDS, "accuracy, %", ""), rows),
    )


def limit_sentence(evidence: Evidence) -> str:
    """Return how the limit changes over the regimes whose centre was observed; "" if none was."""
    labels = [r.label for r in evidence.fit.fitted if r.label not in evidence.extrapolated]
    if not labels:
        return ""
    first, last = evidence.optima.loc[labels[0]], evidence.optima.loc[labels[-1]]
    if len(labels) == 1:
        return f"At {regime_name(first.regime)} removed the smallest expected drop is {number(first.limit)} points."
    return (
        f"The smallest expected drop goes from {number(first.limit)} points at {regime_name(first.regime)} removed to "
        f"{number(last.limit)} points at {regime_name(last.regime)}."
    )
