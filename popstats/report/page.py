"""`popstats.write_report`: one HTML file that opens offline, and its content as JSON beside it."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from popstats.figures.charts import draw
from popstats.figures.content import Cell, ReportContent, Table, VerdictRow
from popstats.figures.theme import DARK, LEGEND_MARKS, LIGHT, OUTCOME_GLYPHS, Palette, color_rules
from popstats.judgement.verdicts import Verdicts
from popstats.population.table import folder_for
from popstats.posterior.fit import Fit, require_fit
from popstats.report.comparison_page import comparison_content
from popstats.report.compose import report_content
from popstats.words import (
    MISSING,
    count,
    interval_words,
    number,
    percent,
    probability,
    regime_names,
    same_but_numbers,
    spanned,
    typeset,
)

#: Longest cell of a table that is never broken: an interval.
SHORT_CELL = 14
#: Between the labels of regimes that share a row of verdicts.
_JOINT = "; "
_COUNT = re.compile(r"count = (\d+)")
_REGIMES = re.compile(r"regimes = \[[\d., ]*\]")
#: Decimals of a verdict's smallest numbers.
MOST_DECIMALS = 4
_NUMBER_LIKE = re.compile(r"^[−–<>]? ?[\d.,]*( ?%|-fold.*)?( to [−\d.,]+| \(.*\))*( %)?$")


def write_report(
    fit: Fit,
    path: str | Path,
    *,
    verdicts: Verdicts | None = None,
    command: str | None = None,
) -> Path:
    """Write the report of a fit: one HTML file, and its content as JSON beside it.

    Parameters
    ----------
    fit : Fit
        From `popstats.fit`.
    path : str or Path
        Where the page goes; PATH.json goes beside it.
    verdicts : Verdicts, optional
        From `popstats.judge`; judged here unless given.
    command : str, optional
        The command line that made it, for the reader to repeat.

    Returns
    -------
    Path
        The page. Nothing half-written is left if anything fails.

    Raises
    ------
    FitError
        If it is not given a fit, or one whose curve is a companion, from which no verdict comes.
    PopstatsError
        If the page's folder does not exist and cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> import popstats
    >>> fit = popstats.fit(popstats.simulate_population(regimes=[0.6], n=100, rise=1.0), method="exact")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = popstats.write_report(fit, f"{folder}/report.html")
    ...     page.name, sorted(path.name for path in page.parent.iterdir())
    ('report.html', ['report.html', 'report.html.json'])
    """
    require_fit(fit, "write_report")
    return write_content(report_content(fit, verdicts, command=command), path)


def write_comparison(fits: Sequence[Fit], path: str | Path, *, command: str | None = None) -> Path:
    """Write the comparison of two or more fits, in the same two files."""
    return write_content(comparison_content(fits, command=command), path)


def write_content(content: ReportContent, path: str | Path) -> Path:
    """Write a report whose content is already known: the page at `path`, the content at PATH.json."""
    target = Path(path)
    folder_for(target)
    sidecar = target.with_name(f"{target.name}.json")
    page = render(content, sidecar=sidecar.name)
    _write(sidecar, content.to_json())
    _write(target, page)
    return target


def _write(path: Path, text: str) -> None:
    """Write to a temporary file of the same folder and rename it, so that `path` is always whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def render(content: ReportContent, *, sidecar: str = "") -> str:
    """Return the page of a report's content as HTML."""
    environment = _environment()
    return environment.get_template("report.html.j2").render(
        content=content,
        sidecar=sidecar,
        specifications=_inside_script(
            json.dumps(_specifications(content), separators=(",", ":"), allow_nan=False)
        ),
        bundle=vega_bundle(),
        style=_style(environment),
        script=_source(environment, "report.js"),
        glyphs=OUTCOME_GLYPHS,
        marks=LEGEND_MARKS,
    )


def _specifications(content: ReportContent) -> dict[str, dict[str, Any]]:
    return {
        f"{i}-{j}": draw(panel.chart, {name: table.frame for name, table in panel.data.items()}, panel.alt)
        for i, figure in enumerate(content.figures)
        for j, panel in enumerate(figure.panels)
    }


def _inside_script(text: str) -> str:
    """Escape JSON so that no text of a table can end the script element that holds it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script.

    Bundling takes seconds, so it is kept in the user's cache folder, a file a version.
    """
    name = f"{version('vl-convert-python')}-{vl_convert.get_vegalite_versions()[-1]}"
    cached = _cache_folder() / f"vega-bundle-{name}.js"
    if cached.is_file():
        return cached.read_text(encoding="utf-8")
    bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    if os.access(_existing_parent(cached), os.W_OK):
        cached.parent.mkdir(parents=True, exist_ok=True)
        _write(cached, bundle)
    return bundle


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "popstats"


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.exists())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("popstats.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_typeset,
    )
    environment.filters |= {
        "by_population": _by_population,
        "cell": _cell,
        "verbatim": escape,
        "count": count,
        "estimate": lambda row: number(row.estimate, _decimals(row)),
        "merged": _merged,
        "numeric": _numeric_columns,
        "percentage": percent,
        "probability": probability,
        "regime": lambda label: regime_names(label.split(_JOINT)),
        "span": _span,
    }  # fmt: skip
    return environment


def _typeset(value: Any) -> Any:
    """Set plain text in type; what is marked safe, code included, stays as it is."""
    return typeset(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _style(environment: Environment) -> str:
    def properties(palette: Palette) -> str:
        return " ".join(f"--chart-{name}: {value};" for name, value in vars(palette).items())

    source = _source(environment, "report.css")
    parts = {"CHART_LIGHT": properties(LIGHT), "CHART_DARK": properties(DARK), "CHART_RULES": color_rules()}
    for name, text in parts.items():
        source = source.replace(name, text)
    return source


def _cell(value: Cell) -> str:
    if value is None:
        return MISSING
    text = number(value, 3) if isinstance(value, float) else str(value)
    return text.replace(" ", "\u00a0") if len(text) <= SHORT_CELL else text


def _numeric_columns(table: Table) -> list[bool]:
    """Return for each column whether all its cells read as numbers; the first holds the row's name."""
    columns = list(zip(*table.rows, strict=True)) if table.rows else [()] * len(table.columns)
    return [
        i > 0 and all(_NUMBER_LIKE.match(_cell(v).replace("\u00a0", " ")) for v in cells)
        for i, cells in enumerate(columns)
    ]


def _span(row: VerdictRow) -> str:
    if row.lower is None or row.upper is None:
        return MISSING
    return interval_words(row.lower, row.upper, _decimals(row))


def _merged(rows: Sequence[VerdictRow]) -> list[VerdictRow]:
    """Merge the rows of one population that could not be assessed for one reason, where the first of them stood."""
    groups: dict[tuple[str, ...], list[VerdictRow]] = {}
    for i, row in enumerate(rows):
        shared = (
            (row.population, same_but_numbers(row.reason)) if row.outcome == "not assessable" else (str(i),)
        )
        groups.setdefault(shared, []).append(row)
    return [_joint(alike) if len(alike) > 1 else alike[0] for alike in groups.values()]


def _joint(rows: Sequence[VerdictRow]) -> VerdictRow:
    reason = spanned([row.reason for row in rows])
    return replace(
        rows[0],
        regime=_JOINT.join(row.regime for row in rows),
        target=None,
        sentence=f"Cannot be assessed: {reason}.",
        reason=reason,
        remedy=_joint_remedy([row for row in rows if row.remedy]),
    )


def _joint_remedy(rows: Sequence[VerdictRow]) -> str:
    """Return the plan lines for all regimes that have any, with the largest of their counts; "" if they differ more."""
    if len({same_but_numbers(row.remedy) for row in rows}) != 1:
        return ""
    targets = ", ".join(f"{row.target:g}" for row in rows if row.target is not None)
    remedy = _REGIMES.sub(f"regimes = [{targets}]", rows[0].remedy)
    counts = [int(n) for row in rows for n in _COUNT.findall(row.remedy)]
    return _COUNT.sub(lambda _: f"count = {max(counts)}", remedy)


def _by_population(rows: Sequence[VerdictRow]) -> list[tuple[str, list[VerdictRow]]]:
    """Return the verdicts of each population, in their order; of one population under an empty name."""
    names = dict.fromkeys(row.population for row in rows)
    return [(name, [row for row in rows if row.population == name]) for name in names]


def _decimals(row: VerdictRow) -> int:
    """Return how many decimals an estimate needs for its interval to be seen."""
    if row.lower is None or row.upper is None:
        return 2
    width = row.upper - row.lower
    enough = 4 if width < 0.01 else 1 if width >= 2 else 2
    # What lies below zero must not look like zero: that is what the interval is there to tell.
    below = [-v for v in (row.lower, row.upper, row.estimate) if v is not None and v < 0]
    return next(
        (d for d in range(enough, MOST_DECIMALS) if all(round(v, d) > 0 for v in below)), MOST_DECIMALS
    )
