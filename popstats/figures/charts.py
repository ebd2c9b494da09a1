"""Tidy frames in, Altair charts out; nothing is computed here.

A chart names its tables; what its axes need of them (ends, ticks, titles) stands in it as a place, "@x_lower",
so that one drawing serves every panel of its kind: building a chart costs far more than filling one in. `draw`
fills in places and rows. Widths follow the page ("container").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import altair as alt
import pandas as pd
from altair.utils.schemapi import debug_mode

from popstats.figures.theme import LIGHT, SPACE_MARKS, altair_config

PANEL_HEIGHT = 200
ROW_HEIGHT = 30
#: Tick labels of shares, written as the page writes them.
PERCENT = "round(100 * datum.value) + '\\u00a0%'"
#: Areas of a point: where few are drawn, each must be seen, on paper too.
FEW_POINTS, FEW_SIZE, MANY_SIZE = 70, 26, 12
#: Opacity of a near-optimal range that is no target.
PALE = 0.4
#: Ratios that are round on a log scale; those inside the range become ticks.
FEW_TICKS = (0.125, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)
MANY_TICKS = (
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
    1.2,
    1.4,
    1.6,
    1.8,
    2.0,
    2.5,
    3.0,
    4.0,
    5.0,
    8.0,
)
TICKS = {"few_ticks": FEW_TICKS, "many_ticks": MANY_TICKS}
MCB_TITLE = "mCB (original = 1)"
DROP_TITLE = "accuracy drop, points"
_C = LIGHT
_DASHES = [5, 4]


def draw(chart: str, frames: dict[str, pd.DataFrame], alt_text: str) -> dict[str, Any]:
    """Return the Vega-Lite specification of one panel."""
    edge: dict[str, Any] = {str(n): v.item() for n, v in frames["frame"].items()} if "frame" in frames else {}
    if "x_lower" in edge:
        edge |= {name: _inside(ticks, edge) for name, ticks in TICKS.items()}
    specification: dict[str, Any] = _filled(CHARTS[chart](frames), edge)
    specification |= {"description": alt_text, "config": altair_config()}
    specification["datasets"] = {
        name: frame.to_dict("records") for name, frame in frames.items() if name != "frame"
    }
    return specification


def _inside(ticks: tuple[float, ...], edge: dict[str, Any]) -> list[float]:
    return [tick for tick in ticks if edge["x_lower"] <= tick <= edge["x_upper"]]


def _filled(node: Any, edge: dict[str, Any]) -> Any:
    """Copy a specification with its places filled in."""
    if isinstance(node, dict):
        return {key: _filled(value, edge) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, edge) for value in node]
    return edge[node[1:]] if isinstance(node, str) and node.startswith("@") else node


def _template(build: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Build a chart once for each kind of it."""

    @wraps(build)
    def built(*kind: Any) -> dict[str, Any]:
        # Checking every node against the schema takes most of the time of a chart; the tests do it instead.
        with debug_mode(False):
            specification: dict[str, Any] = build(*kind).to_dict(validate=False)
        return specification

    return cache(built)


def _rows(name: str) -> Any:
    return alt.Chart(alt.NamedData(name=name))


def _mcb(ticks: str) -> alt.X:
    axis = alt.Axis(values=f"@{ticks}", format="~g")
    scale = alt.Scale(type="log", domain=["@x_lower", "@x_upper"], nice=False)
    return alt.X("mcb:Q", title=MCB_TITLE, scale=scale, axis=axis)


def _at_original(x: alt.X) -> Any:
    return (
        _rows("original")
        .mark_rule(color=_C.original, strokeDash=_DASHES, strokeWidth=1.2, clip=True)
        .encode(x=x)
    )


def _tips(*names: tuple[str, str], digits: int = 2) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=f".{digits}f", title=title) for name, title in names]


_OPTIMUM_TIPS = (("mcb", "lowest at mCB"), ("lower", "90 % from"), ("upper", "to"), ("near_lower", "near-optimal from"),
                 ("near_upper", "to mCB"), ("limit", "smallest drop, points"))  # fmt: skip
_INTERVAL_TIPS = (("lower", "90 % from"), ("upper", "to"))


@_template
def drop_over_mcb(clear: bool, few: bool, told: tuple[str, ...]) -> Any:
    """One regime: networks, expected drop with its band, near-optimal range, optimum, the original's ratio."""
    x = _mcb("few_ticks")
    scale = alt.Scale(domain=["@y_lower", "@y_upper"], nice=False)
    y = alt.Y("drop:Q", title=DROP_TITLE, scale=scale, axis=alt.Axis(tickCount=5))
    tips, size = _tips(("mcb", "mCB"), ("drop", "drop, points")), FEW_SIZE if few else MANY_SIZE
    described = [*tips, *(alt.Tooltip(f"{name}:N") for name in told)]
    near = _rows("near").mark_rect(color=_C.near, opacity=0.3 if clear else 0.14, clip=True).encode(
        x=alt.X("near_lower:Q", title=MCB_TITLE), x2="near_upper:Q")  # fmt: skip
    others = (
        _rows("points")
        .transform_filter("!datum.winner")
        .mark_circle(size=size, color=_C.points, opacity=0.5, clip=True)
    )
    winners = _rows("points").transform_filter("datum.winner").mark_point(
        shape="triangle-up", size=2 * size, filled=True, color=_C.winner, opacity=0.8, clip=True)  # fmt: skip
    band = _rows("curve").mark_area(color=_C.band, opacity=0.4, clip=True).encode(
        x=x, y=alt.Y("lower:Q", title=DROP_TITLE, scale=scale), y2="upper:Q")  # fmt: skip
    line = _rows("curve").mark_line(color=_C.curve, strokeWidth=2.4, clip=True)
    span = _rows("optimum").mark_rule(color=_C.ink, strokeWidth=2 if clear else 1.2, clip=True).encode(
        x=alt.X("lower:Q", title=MCB_TITLE), x2="upper:Q", y=y)  # fmt: skip
    spot = _rows("optimum").mark_point(
        shape="diamond", size=80, filled=True, fill=_C.ink if clear else "white", stroke=_C.ink, strokeWidth=1.4,
        opacity=1, clip=True)  # fmt: skip
    return alt.layer(
        near,
        _at_original(x),
        others.encode(x=x, y=y, tooltip=described),
        winners.encode(x=x, y=y, tooltip=described),
        band,
        line.encode(x=x, y=y, tooltip=[*tips, *_tips(*_INTERVAL_TIPS)]),
        span,
        spot.encode(x=x, y=y, tooltip=_tips(*_OPTIMUM_TIPS)),
        width="container",
        height=PANEL_HEIGHT,
    )


@_template
def near_optimal_ranges(regimes: int) -> Any:
    """All regimes: observed range, near-optimal range, optimum with its interval."""
    x = _mcb("many_ticks")
    y = alt.Y("regime:N", sort=None, title=None, axis=alt.Axis(grid=False))
    tips = [alt.Tooltip("regime:N", title="removed"), *_tips(*_OPTIMUM_TIPS)]
    wide: dict[str, Any] = {"strokeWidth": 9, "strokeCap": "round"}
    faint = alt.condition("datum.clear", alt.value(1.0), alt.value(PALE))
    ranges = _rows("ranges").encode(y=y, tooltip=tips)
    near = _bar(_rows("near").encode(y=y), "near_lower", "near_upper", color=_C.near, **wide)
    return alt.layer(
        _bar(ranges, "observed_lower", "observed_upper", color=_C.line, **wide),
        near.encode(opacity=faint),
        _at_original(x),
        _bar(ranges, "lower", "upper", color=_C.ink, strokeWidth=1.6),
        _lowest_points(ranges.encode(x=x), clear=True),
        _lowest_points(ranges.encode(x=x), clear=False),
        width="container",
        height=ROW_HEIGHT * regimes,
    )


def _bar(rows: Any, low: str, high: str, **mark: Any) -> Any:
    """Each row's stretch of mCB."""
    return rows.mark_rule(**mark).encode(x=alt.X(f"{low}:Q", title=MCB_TITLE), x2=f"{high}:Q")


def _lowest_points(rows: Any, clear: bool) -> Any:
    """Where each row's curve is lowest: filled where a best mCB is supported."""
    chosen = rows.transform_filter("datum.clear" if clear else "!datum.clear")
    fill = _C.ink if clear else "white"
    return chosen.mark_point(
        shape="diamond", size=85, filled=True, fill=fill, stroke=_C.ink, strokeWidth=1.6, opacity=1
    )


@_template
def what_explains(models: int, ceiling: bool) -> Any:
    """One regime: share of the drop's variance that each description of a recipe predicts, and the noise ceiling."""
    title, scale = "share of variance predicted (R²)", alt.Scale(domain=["@x_lower", "@x_upper"], nice=False)
    axis = alt.Axis(labelExpr=PERCENT, values=[0.0, 0.25, 0.5, 0.75, 1.0])
    x = alt.X("r2:Q", title=title, scale=scale, axis=axis)
    y = alt.Y("model:N", sort=None, title=None, axis=alt.Axis(grid=False))
    tips = [alt.Tooltip("model:N"), *_tips(("r2", "R²"), *_INTERVAL_TIPS, digits=3)]
    base = _rows("shares").encode(y=y)
    top = [_rows("ceiling").mark_rule(color=_C.muted, strokeDash=_DASHES, strokeWidth=1.6).encode(x=x)]
    return alt.layer(
        *(top if ceiling else []),
        _rows("original").mark_rule(color=_C.line, strokeWidth=1.4).encode(x=x),
        base.mark_rule(color=_C.curve, strokeWidth=2.4, clip=True).encode(
            x=alt.X("lower:Q", title=title, scale=scale, axis=axis), x2="upper:Q"),
        base.mark_point(shape="diamond", size=60, filled=True, color=_C.ink, opacity=1, clip=True).encode(
            x=x, tooltip=tips),
        width="container",
        height=24 * models,
    )  # fmt: skip


@_template
def limits(inside: bool, outside: bool) -> Any:
    """Draw the smallest expected drop over regimes, with its interval; regimes with and without networks around."""
    title = "smallest expected drop, points"
    x = alt.X(
        "target:Q",
        title="removed",
        axis=alt.Axis(labelExpr=PERCENT, tickCount=6),
        scale=alt.Scale(domain=[0, 1]),
    )
    y = alt.Y("limit:Q", title=title, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=6))
    tips = [alt.Tooltip("regime:N", title="removed"), *_tips(("limit", "drop, points"), *_INTERVAL_TIPS)]
    base = _rows("limits").encode(x=x)
    return alt.layer(
        _rows("original").mark_rule(color=_C.original, strokeDash=_DASHES).encode(y=y),
        base.mark_line(color=_C.curve, strokeWidth=1.4, opacity=0.5).encode(y=y),
        base.mark_rule(color=_C.curve, strokeWidth=2.4).encode(y=alt.Y("lower:Q", title=title), y2="upper:Q"),
        *(
            base.transform_filter(chosen)
            .mark_point(
                shape="diamond", size=70, filled=True, fill=fill, stroke=_C.ink, strokeWidth=1.4, opacity=1
            )
            .encode(y=y, tooltip=tips)
            # A layer without rows would have no extent, which Vega warns of.
            for chosen, fill, has in (("datum.inside", _C.ink, inside), ("!datum.inside", "white", outside))
            if has
        ),
        width="container",
        height=260,
    )


@_template
def edfs(spaces: tuple[str, ...]) -> Any:
    """Share of networks at or below each drop, one line a space, with bands."""
    color, dash = _by_space(spaces)
    x = alt.X(
        "drop:Q",
        title=DROP_TITLE,
        scale=alt.Scale(domain=["@x_lower", "@x_upper"], nice=False),
        axis=alt.Axis(tickCount=5),
    )
    scale = alt.Scale(domain=[0, 1])
    y = alt.Y("share:Q", title="share of recipes", scale=scale, axis=alt.Axis(labelExpr=PERCENT, tickCount=5))
    base = _rows("shares").encode(x=x)
    tips = [
        alt.Tooltip("space:N"),
        *_tips(("drop", "drop, points")),
        alt.Tooltip("share:Q", format=".0%", title="at or below it"),
    ]
    return alt.layer(
        base.mark_area(opacity=0.22, clip=True).encode(
            y=alt.Y("lower:Q", title="share of recipes", scale=scale), y2="upper:Q", color=color),
        base.mark_line(strokeWidth=2, clip=True).encode(y=y, color=color, strokeDash=dash, tooltip=tips),
        width="container",
        height=PANEL_HEIGHT - 20,
    )  # fmt: skip


@_template
def overlaid_curves(spaces: tuple[str, ...]) -> Any:
    """Draw the expected drop of several populations over mCB, with bands."""
    color, dash = _by_space(spaces)
    x, scale = _mcb("few_ticks"), alt.Scale(domain=["@y_lower", "@y_upper"], nice=False)
    y = alt.Y("drop:Q", title=DROP_TITLE, scale=scale, axis=alt.Axis(tickCount=5))
    base = _rows("curves").encode(x=x)
    tips = [alt.Tooltip("space:N"), *_tips(("mcb", "mCB"), ("drop", "drop, points"), *_INTERVAL_TIPS)]
    return alt.layer(
        _at_original(x),
        base.mark_area(opacity=0.2, clip=True).encode(
            y=alt.Y("lower:Q", title=DROP_TITLE, scale=scale), y2="upper:Q", color=color),
        base.mark_line(strokeWidth=2, clip=True).encode(y=y, color=color, strokeDash=dash, tooltip=tips),
        width="container",
        height=PANEL_HEIGHT,
    )  # fmt: skip


@_template
def frontier() -> Any:
    """Draw the drop of the best recipe and of uniform pruning over reductions."""
    color, dash = _by_space(("best recipe", "uniform"))
    x = alt.X("reduction:Q", title="removed", axis=alt.Axis(labelExpr=PERCENT), scale=alt.Scale(zero=False))
    y = alt.Y("drop:Q", title=DROP_TITLE)
    tips = [
        alt.Tooltip("space:N"),
        *_tips(("reduction", "removed"), ("drop", "drop, points"), *_INTERVAL_TIPS),
    ]
    base = _rows("frontier").encode(x=x)
    return alt.layer(
        base.mark_area(opacity=0.2).encode(y=alt.Y("lower:Q", title=DROP_TITLE), y2="upper:Q", color=color),
        base.mark_line(strokeWidth=2).encode(y=y, color=color, strokeDash=dash, tooltip=tips),
        width="container",
        height=PANEL_HEIGHT,
    )


def _by_space(spaces: tuple[str, ...]) -> tuple[alt.Color, alt.StrokeDash]:
    """Return the colour and the dashes of each space."""
    marks, names = SPACE_MARKS[: len(spaces)], list(spaces)
    colors, dashes = [m.color for m in marks], [m.dash for m in marks]
    return (
        alt.Color("space:N", scale=alt.Scale(domain=names, range=colors), legend=None),
        alt.StrokeDash("space:N", scale=alt.Scale(domain=names, range=dashes), legend=None),
    )


@_template
def dot_intervals(title: str, groups: int) -> Any:
    """Draw one quantity of several groups, with intervals and the value that means nothing."""
    y = alt.Y("group:N", sort=None, title=None, axis=alt.Axis(grid=False))
    x = alt.X("points:Q", title=title, axis=alt.Axis(tickCount=4, format="~f"), scale=alt.Scale(zero=False))
    tips = [alt.Tooltip("group:N"), *_tips(("points", title), *_INTERVAL_TIPS, digits=3)]
    base = _rows("groups").encode(y=y)
    return alt.layer(
        _rows("original").mark_rule(color=_C.original, strokeDash=_DASHES).encode(x=x),
        base.mark_rule(color=_C.curve, strokeWidth=2.4).encode(x=alt.X("lower:Q", title=title), x2="upper:Q"),
        base.mark_point(shape="diamond", size=60, filled=True, color=_C.ink, opacity=1).encode(
            x=x, tooltip=tips
        ),
        width="container",
        height=max(120, 26 * groups),
    )


@_template
def uniform_difference() -> Any:
    """Draw a distribution minus the uniform one, inside its band."""
    title = "observed − expected"
    scale = alt.Scale(domain=["@y_lower", "@y_upper"], nice=False)
    y = alt.Y("difference:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5, format="~f"))
    x = alt.X(
        "place:Q",
        title="place in its prediction (0: lowest drop)",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(tickCount=5, format="~f"),
    )
    base = _rows("places").encode(x=x)
    tips = _tips(("place", "place"), ("difference", "observed minus expected"), ("upper", "band, ±"))
    return alt.layer(
        base.mark_area(color=_C.band, opacity=0.4).encode(
            y=alt.Y("lower:Q", title=title, scale=scale), y2="upper:Q"),
        _rows("original").mark_rule(color=_C.original, strokeDash=_DASHES).encode(y=y),
        base.mark_line(color=_C.curve, strokeWidth=2, clip=True).encode(y=y, tooltip=tips),
        width="container",
        height=PANEL_HEIGHT - 20,
    )  # fmt: skip


def _spaces(tables: dict[str, pd.DataFrame]) -> tuple[str, ...]:
    """Return the spaces in the order of their marks; a table "names" holds those that a panel may lack."""
    return tuple(dict.fromkeys((tables["names"] if "names" in tables else tables["shares"])["space"]))


#: What a panel may ask for: its tables decide the kind of chart.
CHARTS: dict[str, Callable[[dict[str, pd.DataFrame]], dict[str, Any]]] = {
    "drop_over_mcb": lambda t: drop_over_mcb(
        bool(t["optimum"]["clear"].iloc[0]), len(t["points"]) <= FEW_POINTS, tuple(t["points"].columns[3:])
    ),
    "near_optimal_ranges": lambda t: near_optimal_ranges(len(t["ranges"])),
    "what_explains": lambda t: what_explains(len(t["shares"]), len(t["ceiling"]) > 0),
    "limits": lambda t: limits(bool(t["limits"]["inside"].any()), bool((~t["limits"]["inside"]).any())),
    "edfs": lambda t: edfs(_spaces(t)),
    "frontier": lambda t: frontier(),
    "overlaid_curves": lambda t: overlaid_curves(_spaces(t)),
    "dot_intervals": lambda t: dot_intervals(str(t["frame"]["title"].iloc[0]), len(t["groups"])),
    "uniform_difference": lambda t: uniform_difference(),
}
