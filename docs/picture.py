"""Draw README's picture, `reports/drop-against-mcb.png`: panels of a shipped report's first figure, side by side.

From the content saved beside the report, so that it shows what the report says. Run: `python docs/picture.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import vl_convert

from popstats.figures.charts import draw
from popstats.figures.content import Panel, Table
from popstats.figures.theme import LIGHT, altair_config

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "reports" / "digits-resnet8" / "report.html.json"
PICTURE = ROOT / "reports" / "drop-against-mcb.png"
FIGURE = "drop"
# A regime without a best mCB, one that does not decide, one that has it.
REGIMES = ("35 %", "65 %", "92 %")
WIDTH, HEIGHT, PIXELS_A_POINT = 270, 180, 1.6


def stored(panel: dict[str, Any]) -> Panel:
    """Return a panel from the content saved beside a report."""
    data = {
        name: Table(tuple(t["columns"]), tuple(map(tuple, t["rows"]))) for name, t in panel["data"].items()
    }
    return Panel(**{**panel, "data": data})


def placed(panel: Panel) -> dict[str, Any]:
    """Return one panel under its title and verdict, with its rows in the layers that draw them."""
    chart: dict[str, Any] = draw(panel)
    rows = chart["datasets"]
    layers = [{**layer, "data": {"values": rows[layer["data"]["name"]]}} for layer in chart["layer"]]
    recipes = panel.note.partition(",")[0].partition(";")[0]
    told = f"a best mCB: {panel.outcome} ({recipes})"
    title = {
        "text": panel.title,
        "subtitle": told,
        "anchor": "start",
        "color": LIGHT.ink,
        "subtitleColor": LIGHT.muted,
    }
    return {"layer": layers, "width": WIDTH, "height": HEIGHT, "title": title}


def main() -> None:
    """Write the picture, on white: it is looked at on dark pages too."""
    figures = {figure["key"]: figure for figure in json.loads(REPORT.read_text())["figures"]}
    chosen = [stored(panel) for panel in figures[FIGURE]["panels"] if panel["title"].startswith(REGIMES)]
    config = altair_config() | {"background": "white", "padding": 14}
    row = {
        "hconcat": [placed(panel) for panel in chosen],
        "resolve": {"scale": {"x": "independent"}},
        "config": config,
    }
    PICTURE.write_bytes(vl_convert.vegalite_to_png(row, scale=PIXELS_A_POINT))


if __name__ == "__main__":
    main()
