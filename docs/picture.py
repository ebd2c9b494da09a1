"""Draw README's picture, `reports/drop-against-mcb.png`: panels of a shipped report's first figure, side by side.

From the content saved beside the report, so that it shows what the report says. Run: `python docs/picture.py`.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import vl_convert

from popstats.figures.charts import draw
from popstats.figures.content import Panel, Table
from popstats.figures.theme import LIGHT

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "reports" / "digits-resnet8" / "report.html.json"
PICTURE = ROOT / "reports" / "drop-against-mcb.png"
FIGURE = "drop"
# A regime without a best mCB, one that does not decide, one that has it.
REGIMES = ("35 %", "65 %", "92 %")

PANEL_WIDTH, PANEL_HEIGHT = 310, 220
GAP, MARGIN, TITLE_HEIGHT = 16, 14, 42
FONT = "Liberation Sans, Arial, sans-serif"
PIXELS_A_POINT = 1.6


def stored(panel: dict[str, Any]) -> Panel:
    """Return a panel from the content saved beside a report."""
    data = {
        name: Table(tuple(t["columns"]), tuple(map(tuple, t["rows"]))) for name, t in panel["data"].items()
    }
    return Panel(**{**panel, "data": data})


def placed(panel: Panel, left: int) -> str:
    """Return one panel as SVG at its place, under its title and verdict."""
    specification: dict[str, Any] = draw(panel)
    specification |= {"width": PANEL_WIDTH, "height": PANEL_HEIGHT}
    specification["autosize"] = {"type": "fit", "contains": "padding"}
    chart = vl_convert.vegalite_to_svg(specification).replace(
        "<svg ", f'<svg x="{left}" y="{MARGIN + TITLE_HEIGHT}" ', 1
    )
    title = f'<text x="{left}" y="{MARGIN + 14}" font-size="15" font-weight="bold" fill="{LIGHT.ink}">'
    verdict = f'<text x="{left}" y="{MARGIN + 33}" font-size="12.5" fill="{LIGHT.muted}">'
    recipes = panel.note.partition(",")[0].partition(";")[0]
    words = f"a best mCB: {panel.outcome} ({recipes})"
    return f"{title}{escape(panel.title)}</text>{verdict}{escape(words)}</text>{chart}"


def picture(panels: list[Panel]) -> str:
    """Return the panels in a row, as SVG on white: it is looked at on dark pages too."""
    width = 2 * MARGIN + len(panels) * (PANEL_WIDTH + GAP) - GAP
    height = 2 * MARGIN + TITLE_HEIGHT + PANEL_HEIGHT
    row = "".join(placed(panel, MARGIN + i * (PANEL_WIDTH + GAP)) for i, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="{FONT}">'
        f'<rect width="100%" height="100%" fill="white"/>{row}</svg>'
    )


def main() -> None:
    """Write the picture."""
    figures = {figure["key"]: figure for figure in json.loads(REPORT.read_text())["figures"]}
    chosen = [stored(panel) for panel in figures[FIGURE]["panels"] if panel["title"].startswith(REGIMES)]
    PICTURE.write_bytes(vl_convert.svg_to_png(picture(chosen), scale=PIXELS_A_POINT))


if __name__ == "__main__":
    main()
