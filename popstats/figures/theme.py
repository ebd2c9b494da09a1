"""One look: colours that colour-blind readers can tell apart, and how they change in the dark and on paper.

Charts are drawn with the light palette. The page's style sheet maps each of its colours to a custom property,
so one drawing serves light and dark screens and print; no colour carries a meaning that a shape, a dash or a
word does not carry too.

References
----------
Okabe and Ito (2008), "Color Universal Design": the hues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', sans-serif"


class Palette(NamedTuple):
    """The colours by what they stand for, as hex; no two alike, so that a style sheet can tell them apart."""

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


#: On light screens and paper, and in the dark.
LIGHT, DARK = map(Palette._make, zip(
    ("#1c2430", "#e8ecf1"),  # Text.
    ("#5b6675", "#9aa6b5"),  # Secondary text.
    ("#e3e7ec", "#2c3643"),  # Grid lines.
    ("#8c98a8", "#75818f"),  # Single networks.
    ("#0b5fa5", "#6db7f2"),  # The expected drop,
    ("#7fb2dc", "#3f7fb5"),  # and its interval.
    ("#f2c14e", "#b98a1b"),  # The near-optimal range.
    ("#b3470b", "#ff9a5c"),  # Winning subnetworks.
    ("#3d4653", "#c5ced9"),  # The original network's ratio.
    ("#c2570c", "#f59b55"),  # Further series.
    ("#0a7d5c", "#4cc9a0"),
    ("#8f4f86", "#d69fcd"),
    strict=True,
))  # fmt: skip

#: A sign beside each verdict's word, so that no verdict is told by colour alone.
OUTCOME_GLYPHS = {"supported": "✓", "refuted": "✕", "undecided": "?", "not assessable": "–"}


class Mark(NamedTuple):
    """How a series is drawn: colour and dashes, so that each alone tells it from the others."""

    color: str  # A colour of `LIGHT`.
    dash: tuple[int, ...]  # Lengths of dashes and gaps; (1, 0) is solid.


#: The spaces of an EDF, in order.
_DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))
SPACE_MARKS = tuple(map(Mark, (LIGHT.curve, LIGHT.second, LIGHT.third, LIGHT.fourth), _DASHES))


def color_rules(palette: Palette = LIGHT) -> str:
    """Return CSS that draws each of the charts' colours with the custom property of the same name."""
    return "\n".join(
        f'.inked [{place}="{value}"] {{ {place}: var(--chart-{name}); }}'
        for name, value in palette._asdict().items()
        for place in ("fill", "stroke")
    )


def altair_config(palette: Palette = LIGHT) -> dict[str, Any]:
    """Return the Vega-Lite `config` of every chart."""
    return {
        "background": "transparent",
        "font": FONT,
        # The figure says in words what it shows; a screen reader should not read hundreds of dots.
        "aria": False,
        "padding": 2,
        "view": {"stroke": None, "continuousHeight": 210},
        "axis": {
            "labelColor": palette.muted,
            "labelFontSize": 11.5,
            "labelFont": FONT,
            "titleColor": palette.muted,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titleFont": FONT,
            "gridColor": palette.line,
            "gridWidth": 1,
            "domain": False,
            "ticks": False,
            "labelPadding": 6,
            "titlePadding": 8,
            "labelLimit": 0,  # No label is cut: what does not fit takes room from the picture.
            "labelOverlap": "greedy",
            "labelSeparation": 6,
        },
    }


def _small(*shapes: str) -> str:
    """Return a mark of a legend on the page, as SVG."""
    return f'<svg width="28" height="14" viewBox="0 0 28 14" aria-hidden="true">{"".join(shapes)}</svg>'


def _line(
    color: str, width: float, path: str = "M0 7h28", dash: Sequence[int] = (), cap: str = "butt"
) -> str:
    dashes = f' stroke-dasharray="{" ".join(map(str, dash))}"' if dash else ""
    return f'<path d="{path}" stroke="{color}" stroke-width="{width}" stroke-linecap="{cap}" fill="none"{dashes}/>'


def _block(color: str, top: int, opacity: float) -> str:
    return f'<rect y="{top}" width="28" height="{14 - 2 * top}" fill="{color}" opacity="{opacity}"/>'


def _diamond(fill: str) -> str:
    return f'<path d="M14 2l4.5 5-4.5 5-4.5-5z" fill="{fill}" stroke="{LIGHT.ink}" stroke-width="1.4"/>'


_ACROSS, _UPRIGHT = _line(LIGHT.ink, 1.8, "M3 7h22"), _line(LIGHT.curve, 2.2, "M14 0v14")
#: The charts' marks, drawn small for the legends on the page.
LEGEND_MARKS = {
    "curve": _small(_block(LIGHT.band, 3, 0.4), _line(LIGHT.curve, 2.4)),
    "near": _small(_block(LIGHT.near, 1, 0.5)),
    "near bar": _small(_line(LIGHT.near, 9, "M5 7h18", cap="round")),
    "observed": _small(_line(LIGHT.line, 9, "M5 7h18", cap="round")),
    "optimum": _small(_ACROSS, _diamond(LIGHT.ink)),
    "open": _small(_ACROSS, _diamond("white")),
    "limit": _small(_UPRIGHT, _diamond(LIGHT.ink)),
    "limit open": _small(_UPRIGHT, _diamond("white")),
    "winner": _small(f'<path d="M14 2l5 9H9z" fill="{LIGHT.winner}"/>'),
    "point": _small(f'<circle cx="14" cy="7" r="2.6" fill="{LIGHT.points}"/>'),
    "ceiling": _small(_line(LIGHT.muted, 1.6, "M14 0v14", (4, 3))),
    "original": _small(_line(LIGHT.original, 1.4, dash=(5, 4))),
    **{f"space {i}": _small(_line(mark.color, 1.8, dash=mark.dash)) for i, mark in enumerate(SPACE_MARKS)},
}
