"""One look: colours that colour-blind readers can tell apart, and how they change in the dark and on paper.

Charts are drawn with the light palette. The page's style sheet maps each of its colours to a custom property,
so one drawing serves light and dark screens and print; no colour carries a meaning that a shape, a dash or a
word does not carry too.

References
----------
Okabe and Ito (2008), "Color Universal Design": the hues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["DARK", "LIGHT", "OUTCOME_GLYPHS", "Palette", "altair_config", "color_rules"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Palette:
    """The colours by what they stand for, as hex; no two alike, so that a style sheet can tell them apart.

    Attributes
    ----------
    ink, muted, line : str
        Text, secondary text, grid lines.
    points : str
        Single networks.
    curve, band : str
        The expected drop and its interval.
    near : str
        The near-optimal range.
    winner : str
        Winning subnetworks.
    original : str
        The original network's ratio.
    second, third, fourth : str
        Further series.
    """

    ink: str
    muted: str
    line: str
    points: str
    curve: str
    band: str
    near: str
    winner: str
    original: str
    second: str
    third: str
    fourth: str


LIGHT = Palette(
    ink="#1c2430",
    muted="#5b6675",
    line="#e3e7ec",
    points="#8c98a8",
    curve="#0b5fa5",
    band="#7fb2dc",
    near="#f2c14e",
    winner="#b3470b",
    original="#3d4653",
    second="#c2570c",
    third="#0a7d5c",
    fourth="#8f4f86",
)
DARK = Palette(
    ink="#e8ecf1",
    muted="#9aa6b5",
    line="#2c3643",
    points="#75818f",
    curve="#6db7f2",
    band="#3f7fb5",
    near="#b98a1b",
    winner="#ff9a5c",
    original="#c5ced9",
    second="#f59b55",
    third="#4cc9a0",
    fourth="#d69fcd",
)

#: A sign beside each verdict's word, so that no verdict is told by colour alone.
OUTCOME_GLYPHS = {"supported": "✓", "refuted": "✕", "undecided": "?", "not assessable": "–"}


def color_rules(palette: Palette = LIGHT) -> str:
    """Return CSS that draws each of the charts' colours with the custom property of the same name.

    >>> ".chart [fill=" in color_rules()
    True
    """
    return "\n".join(
        f'.chart [{place}="{value}"] {{ {place}: var(--chart-{name}); }}'
        for name, value in vars(palette).items()
        for place in ("fill", "stroke")
    )


def altair_config(palette: Palette = LIGHT) -> dict[str, Any]:
    """Return the Vega-Lite `config` of every chart."""
    label = {"labelColor": palette.muted, "labelFontSize": 11.5, "labelFont": FONT}
    title = {
        "titleColor": palette.muted,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titleFont": FONT,
    }
    return {
        "background": "transparent",
        "font": FONT,
        # The figure says in words what it shows; a screen reader should not read hundreds of dots.
        "aria": False,
        "padding": 2,
        "view": {"stroke": None, "continuousHeight": 210},
        "axis": {
            **label,
            **title,
            "gridColor": palette.line,
            "gridWidth": 1,
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
            "titlePadding": 8,
            "labelOverlap": "greedy",
        },
        "legend": {
            **label,
            **title,
            "orient": "bottom",
            "symbolSize": 70,
            "labelLimit": 220,
            "columnPadding": 18,
            "title": None,
        },
    }
