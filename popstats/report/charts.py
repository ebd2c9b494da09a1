"""Tidy frames in, Altair charts out; nothing is computed here.

Every function takes the tables of a `Panel` as frames. Widths follow the page ("container").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt
import pandas as pd

from popstats.report.theme import LIGHT, altair_config

__all__ = ["CHARTS", "draw"]

PANEL_HEIGHT = 210
ROW_HEIGHT = 30
#: Ratios that are round on a log scale; those inside the range become ticks.
MCB_TICKS = [0.125, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0]
MCB_TITLE = "mCB, FLOPs-to-parameters ratio (original = 1)"
DROP_TITLE = "accuracy drop, points"
_C = LIGHT


def draw(chart: str, frames: dict[str, pd.DataFrame], alt_text: str) -> dict[str, Any]:
    """Return the Vega-Lite specification of one panel.

    Parameters
    ----------
    chart : str
        A name in `CHARTS`.
    frames : dict of pandas.DataFrame
        Its arguments.
    alt_text : str
        The chart's description.
    """
    drawn = CHARTS[chart](**frames).properties(description=alt_text).configure(**altair_config())
    specification: dict[str, Any] = drawn.to_dict()
    return specification


def _mcb_axis(low: float, high: float, title: str | None = MCB_TITLE) -> alt.X:
    ticks = [t for t in MCB_TICKS if low <= t <= high]
    return alt.X("mcb:Q", title=title, scale=alt.Scale(type="log", domain=[low, high], nice=False),
                 axis=alt.Axis(values=ticks, format="~g", grid=True))  # fmt: skip


def drop_over_mcb(points: pd.DataFrame, curve: pd.DataFrame, optimum: pd.DataFrame, frame: pd.DataFrame) -> alt.LayerChart:
    """One regime: networks, expected drop with its band, near-optimal range, optimum, the original's ratio."""
    edge = frame.iloc[0]
    x = _mcb_axis(edge.x_lower, edge.x_upper, title=None)
    scale = alt.Scale(domain=[edge.y_lower, edge.y_upper], nice=False)
    y = alt.Y("drop:Q", title=None, scale=scale, axis=alt.Axis(tickCount=5))
    tips = [alt.Tooltip("mcb:Q", format=".3f", title="mCB"), alt.Tooltip("drop:Q", format=".2f", title="drop, points")]
    base = alt.Chart(curve)
    near = alt.Chart(optimum).mark_rect(color=_C.near, opacity=0.28, clip=True).encode(
        x=alt.X("near_lower:Q", title=None), x2="near_upper:Q")  # fmt: skip
    original = alt.Chart(pd.DataFrame({"mcb": [1.0]})).mark_rule(color=_C.original, strokeDash=[5, 4], strokeWidth=1.2, clip=True).encode(x=x)  # fmt: skip
    dots = alt.Chart(points).transform_filter("datum.winner == 'no'").mark_circle(size=11, color=_C.points, opacity=0.5, clip=True).encode(
        x=x, y=y, tooltip=tips)  # fmt: skip
    winners = alt.Chart(points).transform_filter("datum.winner == 'yes'").mark_point(
        shape="triangle-up", size=26, filled=True, color=_C.winner, opacity=0.85, clip=True).encode(
        x=x, y=y, tooltip=[alt.Tooltip("winner:N", title="among the best 5 %"), *tips])  # fmt: skip
    band = base.mark_area(color=_C.band, opacity=0.4, clip=True).encode(x=x, y=alt.Y("lower:Q", title=None, scale=scale), y2="upper:Q")
    line = base.mark_line(color=_C.curve, strokeWidth=2.4, clip=True).encode(
        x=x, y=y, tooltip=[*tips, alt.Tooltip("lower:Q", format=".2f"), alt.Tooltip("upper:Q", format=".2f")])  # fmt: skip
    best = alt.Chart(optimum)
    span = best.mark_rule(color=_C.ink, strokeWidth=2, clip=True).encode(x=alt.X("lower:Q", title=None), x2="upper:Q", y=y)
    spot = best.mark_point(shape="diamond", size=90, filled=True, color=_C.ink, stroke="white", strokeWidth=1, clip=True).encode(
        x=x, y=y, tooltip=_optimum_tips())  # fmt: skip
    return alt.layer(near, original, dots, winners, band, line, span, spot).properties(width="container", height=PANEL_HEIGHT)


def _optimum_tips() -> list[alt.Tooltip]:
    names = {"mcb": "optimal mCB", "lower": "90 % from", "upper": "to", "near_lower": "near-optimal from",
             "near_upper": "to mCB", "drop": "drop there, points"}  # fmt: skip
    return [alt.Tooltip(f"{name}:Q", format=".2f", title=title) for name, title in names.items()]


def near_optimal_ranges(ranges: pd.DataFrame, frame: pd.DataFrame) -> alt.LayerChart:
    """All regimes: observed range, near-optimal range, optimum with its interval."""
    edge = frame.iloc[0]
    x = _mcb_axis(edge.x_lower, edge.x_upper)
    y = alt.Y("regime:N", sort=None, title=None, axis=alt.Axis(grid=False))
    base = alt.Chart(ranges)
    observed = base.mark_rule(color=_C.line, strokeWidth=9, strokeCap="round").encode(
        x=alt.X("observed_lower:Q", title=None), x2="observed_upper:Q", y=y)  # fmt: skip
    near = base.mark_rule(color=_C.near, strokeWidth=9, strokeCap="round").encode(
        x=alt.X("near_lower:Q", title=None), x2="near_upper:Q", y=y, tooltip=["regime:N", *_optimum_tips()])  # fmt: skip
    original = alt.Chart(pd.DataFrame({"mcb": [1.0]})).mark_rule(color=_C.original, strokeDash=[5, 4], strokeWidth=1.2).encode(x=x)
    span = base.mark_rule(color=_C.ink, strokeWidth=1.6).encode(x=alt.X("lower:Q", title=None), x2="upper:Q", y=y)
    spot = base.mark_point(shape="diamond", size=85, strokeWidth=1.6, opacity=1).encode(
        x=x, y=y, stroke=alt.value(_C.ink),
        fill=alt.condition("datum.clear == 'yes'", alt.value(_C.ink), alt.value("white")),
        tooltip=["regime:N", *_optimum_tips()])  # fmt: skip
    return alt.layer(observed, near, original, span, spot).properties(width="container", height=ROW_HEIGHT * len(ranges))


_MODEL_MARKS = (
    ("retraining-noise ceiling", _C.muted, [2, 3], "cross"),
    ("log-widths + mCB", _C.second, [1, 0], "triangle-up"),
    ("log-widths", _C.curve, [6, 3], "circle"),
    ("mCB + STD", _C.fourth, [8, 3, 2, 3], "square"),
    ("mCB", _C.third, [1, 0], "diamond"),
    ("STD", _C.winner, [3, 3], "triangle-down"),
    ("parameters", _C.points, [4, 2], "stroke"),
)


def what_explains(shares: pd.DataFrame) -> alt.LayerChart:
    """Share of the drop's variance that each description of a network predicts, over regimes."""
    known = [m for m in _MODEL_MARKS if m[0] in set(shares["model"])]
    names = [m[0] for m in known]
    legend = alt.Legend(columns=3, labelLimit=170)
    color = alt.Color("model:N", scale=alt.Scale(domain=names, range=[m[1] for m in known]), legend=legend)
    shape = alt.Shape("model:N", scale=alt.Scale(domain=names, range=[m[3] for m in known]), legend=legend)
    dash = alt.StrokeDash("model:N", scale=alt.Scale(domain=names, range=[m[2] for m in known]), legend=legend)
    x = alt.X("regime:N", sort=None, title="removed", axis=alt.Axis(labelAngle=0), scale=alt.Scale(type="point", padding=0.4))
    y = alt.Y("r2:Q", title="share of variance predicted (R²)", axis=alt.Axis(format=".0%", tickCount=5),
              scale=alt.Scale(domainMin=min(0.0, float(shares["r2"].min())), nice=True))  # fmt: skip
    tips = ["model:N", "regime:N", *(alt.Tooltip(f"{c}:Q", format=".3f", title=t) for c, t in (("r2", "R²"), ("lower", "90 % from"), ("upper", "to")))]  # fmt: skip
    base = alt.Chart(shares).encode(x=x)
    return alt.layer(
        base.mark_rule(strokeWidth=1, opacity=0.5).encode(y=alt.Y("lower:Q", title=None), y2="upper:Q", color=color),
        base.mark_line(strokeWidth=1.8).encode(y=y, color=color, strokeDash=dash),
        base.mark_point(size=46, strokeWidth=1.6, fill="white", opacity=1).encode(y=y, color=color, shape=shape, tooltip=tips),
    ).properties(width="container", height=300)


def limits(limits: pd.DataFrame) -> alt.LayerChart:
    """The smallest expected drop over regimes, with its interval."""
    x = alt.X("target:Q", title="removed", axis=alt.Axis(format=".0%", tickCount=8),
              scale=alt.Scale(domain=[0, 1]))  # fmt: skip
    y = alt.Y("limit:Q", title="smallest expected drop, points", scale=alt.Scale(zero=False, nice=True))
    base = alt.Chart(limits).encode(x=x)
    tips = ["regime:N", *(alt.Tooltip(f"{c}:Q", format=".2f", title=t) for c, t in (("limit", "drop, points"), ("lower", "90 % from"), ("upper", "to")))]  # fmt: skip
    zero = alt.Chart(pd.DataFrame({"limit": [0.0]})).mark_rule(color=_C.original, strokeDash=[5, 4]).encode(y=y)
    return alt.layer(
        zero,
        base.mark_line(color=_C.curve, strokeWidth=1.4, opacity=0.5).encode(y=y),
        base.mark_rule(color=_C.curve, strokeWidth=2.4).encode(y=alt.Y("lower:Q", title=None), y2="upper:Q"),
        base.mark_point(shape="diamond", size=70, filled=True, color=_C.ink, opacity=1).encode(y=y, tooltip=tips),
    ).properties(width="container", height=260)


def edfs(shares: pd.DataFrame, frame: pd.DataFrame) -> alt.LayerChart:
    """Share of networks at or below each drop, one line a space, with bands."""
    edge = frame.iloc[0]
    spaces = list(dict.fromkeys(shares["space"]))
    colors = [_C.curve, _C.second, _C.third, _C.fourth][: len(spaces)]
    color = alt.Color("space:N", scale=alt.Scale(domain=spaces, range=colors), legend=None)
    dash = alt.StrokeDash("space:N", scale=alt.Scale(domain=spaces, range=[[1, 0], [6, 3], [2, 2], [8, 3, 2, 3]][: len(spaces)]), legend=None)  # fmt: skip
    x = alt.X("drop:Q", title=None, scale=alt.Scale(domain=[edge.x_lower, edge.x_upper], nice=False), axis=alt.Axis(tickCount=5))
    y = alt.Y("share:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%", tickCount=5))
    base = alt.Chart(shares).encode(x=x)
    tips = ["space:N", alt.Tooltip("drop:Q", format=".2f", title="drop, points"), alt.Tooltip("share:Q", format=".0%", title="at or below it")]  # fmt: skip
    return alt.layer(
        base.mark_area(opacity=0.22, clip=True).encode(y=alt.Y("lower:Q", title=None), y2="upper:Q", color=color),
        base.mark_line(strokeWidth=2, clip=True).encode(y=y, color=color, strokeDash=dash, tooltip=tips),
    ).properties(width="container", height=PANEL_HEIGHT - 30)


def elasticities(groups: pd.DataFrame, frame: pd.DataFrame) -> alt.LayerChart:
    """What widening each group buys, with intervals."""
    title = str(frame.iloc[0].title)
    y = alt.Y("group:N", sort=None, title=None, axis=alt.Axis(grid=False, labelLimit=160))
    x = alt.X("points:Q", title=title, axis=alt.Axis(tickCount=5, format="~g"))
    tips = ["group:N", *(alt.Tooltip(f"{c}:Q", format=".3f", title=t) for c, t in (("points", "points"), ("lower", "90 % from"), ("upper", "to")))]  # fmt: skip
    base = alt.Chart(groups).encode(y=y)
    zero = alt.Chart(pd.DataFrame({"points": [0.0]})).mark_rule(color=_C.original, strokeDash=[5, 4]).encode(x=x)
    return alt.layer(
        zero,
        base.mark_rule(color=_C.curve, strokeWidth=2.4).encode(x=alt.X("lower:Q", title=None), x2="upper:Q"),
        base.mark_point(shape="diamond", size=60, filled=True, color=_C.ink, opacity=1).encode(x=x, tooltip=tips),
    ).properties(width="container", height=max(120, 26 * len(groups)))


#: What a panel may ask for.
CHARTS: dict[str, Callable[..., alt.LayerChart]] = {
    "drop_over_mcb": drop_over_mcb,
    "near_optimal_ranges": near_optimal_ranges,
    "what_explains": what_explains,
    "limits": limits,
    "edfs": edfs,
    "elasticities": elasticities,
}
