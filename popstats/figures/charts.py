"""Tables in, Vega-Lite out; nothing is computed here. Widths follow the page ("container").

Specifications are plain dictionaries, since building them with Altair takes a hundred times as long; the tests check each
against Altair's schema. A layer names its table; a table "frame" holds the ends of the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from popstats.figures.content import Panel, Table
from popstats.figures.theme import LIGHT, SPACE_MARKS, altair_config

type Spec = dict[str, Any]
type Tables = Mapping[str, Table]

PANEL_HEIGHT = 200
ROW_HEIGHT = 30
#: Tick labels of shares, written as the page writes them.
QUARTERS = [0.0, 0.25, 0.5, 0.75, 1.0]
PERCENT: Spec = {"labelExpr": "round(100 * datum.value) + '\\u00a0%'"}
#: Areas of a point: where few are drawn, each must be seen, on paper too.
FEW_POINTS, FEW_SIZE, MANY_SIZE = 70, 26, 12
#: Opacity of a near-optimal range that is no target.
PALE = 0.4
#: Ratios that are round on a log scale; those inside the range become ticks.
FEW_TICKS = (0.125, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)
MANY_TICKS = (
    0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0,
)  # fmt: skip
FINE_TICKS = tuple(round(0.02 * i, 2) for i in range(35, 76))
LEAST_TICKS = 3
MCB_TITLE = "mCB (original = 1)"
DROP_TITLE = "accuracy drop, points"
_C = LIGHT
_DASHED: Spec = {"strokeDash": [5, 4]}


def draw(panel: Panel) -> Spec:
    """Return the Vega-Lite specification of one panel."""
    drawn: Spec = {"width": "container", "height": PANEL_HEIGHT, **CHARTS[panel.chart](panel.data)}
    drawn |= {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": altair_config()}
    rows = {name: table.records for name, table in panel.data.items() if name != "frame"}
    return drawn | {"description": panel.alt, "datasets": rows}


def _layer(rows: str, mark: str, encoding: Spec, where: str = "", **style: Any) -> Spec:
    """Return one layer: a mark per row of a table, or per row for which `where` holds."""
    drawn = {"data": {"name": rows}, "mark": {"type": mark, **style}, "encoding": encoding}
    return drawn | {"transform": [{"filter": where}]} if where else drawn


def _between(axis: str, channel: Spec, low: str = "lower", high: str = "upper") -> Spec:
    """Return the encoding of a stretch between two columns, along the axis of a channel."""
    return {axis: {**channel, "field": low}, f"{axis}2": {"field": high}}


def _number(field: str, title: str, ends: Sequence[float] = (), **axis: Any) -> Spec:
    scale: Spec = {"domain": list(ends), "nice": False} if ends else {"zero": False}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def _name(field: str) -> Spec:
    return {"field": field, "type": "nominal", "sort": None, "title": None, "axis": {"grid": False}}


def _ends(tables: Tables, axis: str) -> tuple[float, float]:
    frame = tables["frame"].records[0]
    return frame[f"{axis}_lower"], frame[f"{axis}_upper"]


def _mcb(tables: Tables, *ticks: tuple[float, ...]) -> Spec:
    """Return the axis of mCB, with the first choice of ticks of which enough lie on it."""
    low, high = _ends(tables, "x")
    inside = [[tick for tick in choice if low <= tick <= high] for choice in ticks]
    chosen = next((found for found in inside if len(found) >= LEAST_TICKS), inside[0])
    axis = _number("mcb", MCB_TITLE, (low, high), values=chosen, format="~g")
    axis["scale"]["type"] = "log"
    return axis


def _drop(tables: Tables) -> Spec:
    return _number("drop", DROP_TITLE, _ends(tables, "y"), tickCount=5)


def _at_original(encoding: Spec, width: float = 1.2) -> Spec:
    return _layer("original", "rule", encoding, color=_C.original, strokeWidth=width, clip=True, **_DASHED)


def _diamond(rows: str, encoding: Spec, clear: bool, where: str = "") -> Spec:
    """Return diamonds: filled where what they mark is supported, or sure."""
    fill = _C.ink if clear else "white"
    style: Spec = {"shape": "diamond", "size": 80, "filled": True, "strokeWidth": 1.5, "opacity": 1}
    return _layer(rows, "point", encoding, where, fill=fill, stroke=_C.ink, clip=True, **style)


def _tips(*names: tuple[str, str], digits: int = 2) -> list[Spec]:
    form: Spec = {"type": "quantitative", "format": f".{digits}f"}
    return [{"field": name, "title": title, **form} for name, title in names]


def _told(*names: str, title: str = "") -> list[Spec]:
    return [{"field": name, "type": "nominal", "title": title or name} for name in names]


_INTERVAL_TIPS = (("lower", "90 % from"), ("upper", "to"))
_OPTIMUM_TIPS = _tips(
    ("mcb", "lowest at mCB"), *_INTERVAL_TIPS, ("near_lower", "near-optimal from"), ("near_upper", "to mCB"),
    ("limit", "smallest drop, points"),
)  # fmt: skip


def drop_over_mcb(tables: Tables) -> Spec:
    """One regime: networks, expected drop with its band, near-optimal range, optimum, the original's ratio."""
    points, clear = tables["points"], tables["optimum"].records[0]["clear"]
    x, y = _mcb(tables, FEW_TICKS, MANY_TICKS, FINE_TICKS), _drop(tables)
    tips, size = _tips(("mcb", "mCB"), ("drop", "drop, points")), MANY_SIZE
    if len(points.rows) <= FEW_POINTS:
        size = FEW_SIZE
    recipe = {"x": x, "y": y, "tooltip": [*tips, *_told(*points.columns[3:])]}
    curve = {"x": x, "y": y, "tooltip": [*tips, *_tips(*_INTERVAL_TIPS)]}
    near: Spec = {"color": _C.near, "opacity": 0.3 if clear else 0.14, "clip": True}
    dot: Spec = {"size": size, "color": _C.points, "opacity": 0.5, "clip": True}
    best = {"shape": "triangle-up", "size": 2 * size, "filled": True, "color": _C.winner, "opacity": 0.8}
    interval: Spec = {"color": _C.ink, "strokeWidth": 2 if clear else 1.2, "clip": True}
    return {"layer": [
        _layer("near", "rect", _between("x", x, "near_lower", "near_upper"), **near),
        _at_original({"x": x}),
        _layer("points", "circle", recipe, "!datum.winner", **dot),
        _layer("points", "point", recipe, "datum.winner", clip=True, **best),
        _layer("curve", "area", {"x": x, **_between("y", y)}, color=_C.band, opacity=0.4, clip=True),
        _layer("curve", "line", curve, color=_C.curve, strokeWidth=2.4, clip=True),
        _layer("optimum", "rule", {**_between("x", x), "y": y}, **interval),
        _diamond("optimum", {"x": x, "y": y, "tooltip": _OPTIMUM_TIPS}, clear),
    ]}  # fmt: skip


def near_optimal_ranges(tables: Tables) -> Spec:
    """All regimes: observed range, near-optimal range, optimum with its interval."""
    x, y = _mcb(tables, MANY_TICKS, FINE_TICKS), _name("regime")
    row = {"y": y, "tooltip": [*_told("regime", title="removed"), *_OPTIMUM_TIPS]}
    wide: Spec = {"strokeWidth": 9, "strokeCap": "round"}
    faint = {"condition": {"test": "datum.clear", "value": 1.0}, "value": PALE}
    near: Spec = {"y": y, "opacity": faint, **_between("x", x, "near_lower", "near_upper")}
    observed = {**row, **_between("x", x, "observed_lower", "observed_upper")}
    return {"height": ROW_HEIGHT * len(tables["ranges"].rows), "layer": [
        _layer("ranges", "rule", observed, color=_C.line, **wide),
        _layer("near", "rule", near, color=_C.near, **wide),
        _at_original({"x": x}),
        _layer("ranges", "rule", {**row, **_between("x", x)}, color=_C.ink, strokeWidth=1.6),
        _diamond("ranges", {**row, "x": x}, True, "datum.clear"),
        _diamond("ranges", {**row, "x": x}, False, "!datum.clear"),
    ]}  # fmt: skip


def limits(tables: Tables) -> Spec:
    """Draw the smallest expected drop over regimes, with its interval; regimes with and without networks around."""
    inside = {row["inside"] for row in tables["limits"].records}
    x = _number("target", "removed", (0, 1), tickCount=6, **PERCENT)
    y = _number("limit", "smallest expected drop, points", tickCount=6)
    y["scale"]["nice"] = True
    tips = [*_told("regime", title="removed"), *_tips(("limit", "drop, points"), *_INTERVAL_TIPS)]
    place = {"x": x, "y": y, "tooltip": tips}
    return {"height": 260, "layer": [
        _at_original({"y": y}),
        _layer("limits", "line", {"x": x, "y": y}, color=_C.curve, strokeWidth=1.4, opacity=0.5),
        _layer("limits", "rule", {"x": x, **_between("y", y)}, color=_C.curve, strokeWidth=2.4),
        *([_diamond("limits", place, True, "datum.inside")] if True in inside else []),
        *([_diamond("limits", place, False, "!datum.inside")] if False in inside else []),
    ]}  # fmt: skip


def _marked(spaces: Sequence[str]) -> tuple[Spec, Spec]:
    """Return the encodings of colour and dashes, which are those of a space's place."""
    marks, names = SPACE_MARKS[: len(spaces)], list(spaces)
    space: Spec = {"field": "space", "type": "nominal", "legend": None}
    color = {**space, "scale": {"domain": names, "range": [m.color for m in marks]}}
    return color, {**space, "scale": {"domain": names, "range": [list(m.dash) for m in marks]}}


def _banded(rows: str, x: Spec, y: Spec, spaces: Sequence[str], tips: Sequence[Spec]) -> list[Spec]:
    """Return one line per space with its band."""
    color, dash = _marked(spaces)
    line = {"x": x, "y": y, "color": color, "strokeDash": dash, "tooltip": [*_told("space"), *tips]}
    band = {"x": x, "color": color, **_between("y", y)}
    return [
        _layer(rows, "area", band, opacity=0.2, clip=True),
        _layer(rows, "line", line, strokeWidth=2, clip=True),
    ]


def _spaces(tables: Tables, rows: str) -> tuple[str, ...]:
    """Return the spaces in the order of their marks; a table "names" holds those that a panel may lack."""
    return tuple(dict.fromkeys(row["space"] for row in tables.get("names", tables[rows]).records))


def edfs(tables: Tables) -> Spec:
    """Share of networks at or below each drop, one line per space, with bands."""
    x = _number("drop", DROP_TITLE, _ends(tables, "x"), tickCount=5)
    y = _number("share", "share of recipes", (0, 1), tickCount=5, **PERCENT)
    share = {"field": "share", "type": "quantitative", "format": ".0%", "title": "at or below it"}
    tips = [*_tips(("drop", "drop, points")), share]
    return {"layer": _banded("shares", x, y, _spaces(tables, "shares"), tips)}


def overlaid_curves(tables: Tables) -> Spec:
    """Draw the expected drop of several populations over mCB, with bands."""
    x, tips = _mcb(tables, FEW_TICKS, MANY_TICKS, FINE_TICKS), (("mcb", "mCB"), ("drop", "drop, points"))
    lines = _banded("curves", x, _drop(tables), _spaces(tables, "curves"), _tips(*tips, *_INTERVAL_TIPS))
    return {"layer": [_at_original({"x": x}), *lines]}


def over_size(tables: Tables) -> Spec:
    """Draw a quantity over the originals' width or depth, a line per regime, near-optimal ranges behind it."""
    titles, ticks = tables["frame"].records[0], [row["size"] for row in tables["sizes"].records]
    x = _number("size", titles["size"], _ends(tables, "x"), values=ticks, format="~g")
    x["scale"]["type"] = "log"
    y = _number("value", titles["value"], tickCount=5)
    color, dash = _marked(_spaces(tables, "places"))
    removed, value = _told("space", title="removed"), _tips(("value", titles["value"]), *_INTERVAL_TIPS)
    one = {"x": x, "y": y, "tooltip": [*_told("original"), *removed, *value]}
    near: Spec = {"color": _C.near, "strokeWidth": 9, "strokeCap": "round", "opacity": PALE}
    ranges = _layer("near", "rule", {"x": x, **_between("y", y)}, **near)
    return {"layer": [
        *([ranges, _at_original({"y": {**y, "field": "mcb"}})] if tables["near"].rows else []),
        _layer("places", "line", {"x": x, "y": y, "color": color, "strokeDash": dash}, strokeWidth=1.4, opacity=0.6),
        _layer("places", "rule", {"x": x, "color": color, **_between("y", y)}, strokeWidth=2),
        _diamond("places", one, True, "datum.clear"),
        _diamond("places", one, False, "!datum.clear"),
    ]}  # fmt: skip


def frontier(tables: Tables) -> Spec:
    """Draw the drop of the best recipe and of uniform pruning over reductions."""
    x, y = _number("reduction", "removed", **PERCENT), _number("drop", DROP_TITLE)
    tips = _tips(("reduction", "removed"), ("drop", "drop, points"), *_INTERVAL_TIPS)
    return {"layer": _banded("frontier", x, y, _spaces(tables, "frontier"), tips)}


def dot_intervals(tables: Tables) -> Spec:
    """Draw one quantity of several groups: shares, where its axis has ends; a value to compare with, where there is one."""
    title = tables["frame"].records[0]["title"]
    x = _number("points", title, tickCount=4, format="~f")
    if "x_lower" in tables["frame"].columns:
        x = _number("points", title, _ends(tables, "x"), values=QUARTERS, **PERCENT)
    tips = [*_told("group"), *_tips(("points", title), *_INTERVAL_TIPS, digits=3)]
    row = {"y": _name("group"), "tooltip": tips}
    return {"height": max(80, 25 * len(tables["groups"].rows)), "layer": [
        # A layer without rows would have no extent, which Vega warns of.
        *([_at_original({"x": x}, 1)] if tables["original"].rows else []),
        _layer("groups", "rule", {**row, **_between("x", x)}, color=_C.curve, strokeWidth=2.4, clip=True),
        _diamond("groups", {**row, "x": x}, True),
    ]}  # fmt: skip


def uniform_difference(tables: Tables) -> Spec:
    """Draw a distribution minus the uniform one, inside its band."""
    x = _number("place", "place in its prediction (0: lowest drop)", (0, 1), tickCount=5, format="~f")
    y = _number("difference", "observed − expected", _ends(tables, "y"), tickCount=5, format="~f")
    tips = _tips(("place", "place"), ("difference", "observed minus expected"), ("upper", "band, ±"))
    line = {"x": x, "y": y, "tooltip": tips}
    return {"layer": [
        _layer("places", "area", {"x": x, **_between("y", y)}, color=_C.band, opacity=0.4),
        _at_original({"y": y}, 1),
        _layer("places", "line", line, color=_C.curve, strokeWidth=2, clip=True),
    ]}  # fmt: skip


#: What a panel may ask for.
CHARTS: dict[str, Callable[[Tables], Spec]] = {
    chart.__name__: chart
    for chart in (
        drop_over_mcb, near_optimal_ranges, limits, edfs, frontier, overlaid_curves, over_size, dot_intervals,
        uniform_difference,
    )
}  # fmt: skip
