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

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Palette:
    """The colours by what they stand for, as hex; no two alike, so that a style sheet can tell them apart."""

    # ink, muted, line: Text, secondary text, grid lines.
    ink: str
    muted: str
    line: str
    points: str  # Single networks.
    # curve, band: The expected drop and its interval.
    curve: str
    band: str
    near: str  # The near-optimal range.
    winner: str  # Winning subnetworks.
    original: str  # The original network's ratio.
    # second, third, fourth: Further series.
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


@dataclass(frozen=True)
class Mark:
    """How a series is drawn: colour and dashes, so that each alone tells it from the others."""

    color: str  # A colour of `LIGHT`.
    dash: tuple[int, ...] = (1, 0)  # Lengths of dashes and gaps; (1, 0) is solid.


#: The spaces of an EDF, in order.
SPACE_MARKS = (
    Mark(LIGHT.curve),
    Mark(LIGHT.second, (6, 3)),
    Mark(LIGHT.third, (2, 2)),
    Mark(LIGHT.fourth, (8, 3, 2, 3)),
)


def legend_mark(mark: Mark) -> str:
    """Return a series' mark as a small SVG for a legend on the page."""
    dash = ",".join(map(str, mark.dash))
    line = (
        f'<path d="M0 7h28" stroke="{mark.color}" stroke-width="1.8" stroke-dasharray="{dash}" fill="none"/>'
    )
    return f'<svg width="28" height="14" viewBox="0 0 28 14" aria-hidden="true">{line}</svg>'


def color_rules(palette: Palette = LIGHT) -> str:
    """Return CSS that draws each of the charts' colours with the custom property of the same name.

    >>> ".inked [fill=" in color_rules()
    True
    """
    return "\n".join(
        f'.inked [{place}="{value}"] {{ {place}: var(--chart-{name}); }}'
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
            "labelLimit": 0,  # No label is cut: what does not fit takes room from the picture.
            "labelOverlap": "greedy",
            "labelSeparation": 6,
        },
    }


def _small(inner: str) -> str:
    return f'<svg width="28" height="14" viewBox="0 0 28 14" aria-hidden="true">{inner}</svg>'


_ACROSS = f'<path d="M3 7h22" stroke="{LIGHT.ink}" stroke-width="1.8"/>'
_UPRIGHT = f'<path d="M14 0v14" stroke="{LIGHT.curve}" stroke-width="2.2"/>'


def _diamond(fill: str, interval: str) -> str:
    return _small(
        f'{interval}<path d="M14 2l4.5 5-4.5 5-4.5-5z" fill="{fill}" stroke="{LIGHT.ink}" stroke-width="1.4"/>'
    )


#: The charts' marks, drawn small for the legends on the page.
LEGEND_MARKS = {
    "curve": _small(
        f'<rect y="3" width="28" height="8" fill="{LIGHT.band}" opacity=".4"/>'
        f'<path d="M0 7h28" stroke="{LIGHT.curve}" stroke-width="2.4"/>'
    ),
    "near": _small(f'<rect y="1" width="28" height="12" fill="{LIGHT.near}" opacity=".5"/>'),
    "near bar": _small(f'<path d="M5 7h18" stroke="{LIGHT.near}" stroke-width="9" stroke-linecap="round"/>'),
    "observed": _small(f'<path d="M5 7h18" stroke="{LIGHT.line}" stroke-width="9" stroke-linecap="round"/>'),
    "optimum": _diamond(LIGHT.ink, _ACROSS),
    "open": _diamond("white", _ACROSS),
    "limit": _diamond(LIGHT.ink, _UPRIGHT),
    "limit open": _diamond("white", _UPRIGHT),
    "winner": _small(f'<path d="M14 2l5 9H9z" fill="{LIGHT.winner}"/>'),
    "point": _small(f'<circle cx="14" cy="7" r="2.6" fill="{LIGHT.points}"/>'),
    "ceiling": _small(
        f'<path d="M14 0v14" stroke="{LIGHT.muted}" stroke-width="1.6" stroke-dasharray="4 3"/>'
    ),
    "original": _small(
        f'<path d="M0 7h28" stroke="{LIGHT.original}" stroke-width="1.4" stroke-dasharray="5 4"/>'
    ),
    **{f"space {i}": legend_mark(mark) for i, mark in enumerate(SPACE_MARKS)},
}
