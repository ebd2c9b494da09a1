"""`popstats.write_report`: one HTML file that opens offline, and its content as JSON beside it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape

from popstats.errors import PopstatsError
from popstats.figures.charts import draw
from popstats.figures.content import Cell, ReportContent, Table, VerdictRow
from popstats.figures.theme import DARK, LEGEND_MARKS, LIGHT, OUTCOME_GLYPHS, color_rules
from popstats.judgement.verdicts import Verdicts
from popstats.population.table import folder_for, written_whole
from popstats.posterior.fit import Fit, require_fit
from popstats.report.compose import report_content
from popstats.words import MISSING, count, interval_words, number, percent, probability, typeset

#: What a report may be called.
ENDINGS = (".html", ".htm", ".pdf")
#: Browsers that print a PDF, how they do, and seconds that they may take.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PRINTING = "--headless --disable-gpu --no-first-run --no-pdf-header-footer --virtual-time-budget=10000"
PATIENCE = 120
#: Longest cell of a table that is never broken: an interval.
SHORT_CELL = 14
#: Decimals of a verdict's smallest numbers.
MOST_DECIMALS = 4


def write_report(
    fit: Fit,
    path: str | Path,
    *,
    verdicts: Verdicts | None = None,
    command: str | None = None,
    source: str | None = None,
) -> Path:
    """Write the report of a fit: one HTML file (or PDF), and its content as JSON beside it.

    Parameters
    ----------
    fit : Fit
        From `popstats.fit`.
    path : str or Path
        Where the page goes; PATH.json goes beside it. A name that ends in .pdf is printed with an installed Chromium.
    verdicts : Verdicts, optional
        From `popstats.judge`; judged here unless given.
    command : str, optional
        The command line that made it, for the reader to repeat.
    source : str, optional
        What `popstats.load_population` takes for this population, for the commands on the page; default: its name.

    Returns
    -------
    Path
        The page. Nothing half-written is left if anything fails.

    Raises
    ------
    FitError
        If it is not given a fit, or one whose curve is a companion, from which no verdict comes.
    PopstatsError
        If the page's folder does not exist and cannot be made, or a PDF is to be printed without a browser.

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
    return write_content(report_content(fit, verdicts, command=command, source=source), path)


def write_content(content: ReportContent, path: str | Path) -> Path:
    """Write a report whose content is already known: the page at `path`, the content at PATH.json."""
    target = Path(path)
    if target.suffix.lower() not in ENDINGS:
        raise PopstatsError(f"{path}: expected a name that ends in {' or '.join(ENDINGS)}")
    browser = _browser(target) if target.suffix.lower() == ".pdf" else ""
    folder_for(target)
    sidecar = target.with_name(f"{target.name}.json")
    page = render(content, sidecar=sidecar.name)
    printed = _printed(page, browser) if browser else page.encode()
    for place, written in ((sidecar, content.to_json().encode()), (target, printed)):
        with written_whole(place) as unfinished:
            unfinished.write_bytes(written)
    return target


def _browser(path: Path) -> str:
    found = next((full for name in BROWSERS if (full := shutil.which(name))), None)
    if found is None:
        raise PopstatsError(
            f"{path}: printing a PDF needs Chromium or Chrome, and none was found; write "
            f"{path.with_suffix('.html')} and print it from a browser"
        )
    return found


def _printed(page: str, browser: str) -> bytes:
    """Print a page as PDF, in a fresh profile that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        source, printed = Path(folder, "report.html"), Path(folder, "report.pdf")
        source.write_text(page, encoding="utf-8")
        profile = f"--user-data-dir={folder}/profile"
        flags = [*PRINTING.split(), profile, f"--print-to-pdf={printed}", source.as_uri()]
        # A container's root has no sandbox to run in.
        rootless = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
        try:
            subprocess.run([browser, *rootless, *flags], capture_output=True, timeout=PATIENCE, check=True)
            return printed.read_bytes()
        except (subprocess.SubprocessError, OSError) as error:
            raise PopstatsError(
                f"{browser} could not print the report ({error}); write an .html file and print it from a browser"
            ) from error


def render(content: ReportContent, *, sidecar: str = "") -> str:
    """Return the page of a report's content as HTML."""
    environment = _environment()
    style = _source(environment, "report.css").replace("CHART_RULES", color_rules())
    for name, palette in (("CHART_LIGHT", LIGHT), ("CHART_DARK", DARK)):
        properties = (f"--chart-{part}: {value};" for part, value in palette._asdict().items())
        style = style.replace(name, " ".join(properties))
    drawn = {f"{i}-{j}": draw(p) for i, f in enumerate(content.figures) for j, p in enumerate(f.panels)}
    return environment.get_template("report.html.j2").render(
        content=content,
        figures={figure.key: figure for figure in content.figures},
        numbers_of={figure.key: i for i, figure in enumerate(content.figures)},
        sections={section.key: section for section in content.sections},
        sidecar=sidecar,
        specifications=htmlsafe_json_dumps(drawn, separators=(",", ":"), allow_nan=False),
        bundle=vega_bundle(),
        style=style,
        script=_source(environment, "report.js"),
        glyphs=OUTCOME_GLYPHS,
        marks=LEGEND_MARKS,
    )


def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script; bundling takes seconds, so it is kept in the user's cache."""
    name = f"{version('vl-convert-python')}-{vl_convert.get_vegalite_versions()[-1]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    cached = cache / "popstats" / f"vega-bundle-{name}.js"
    if cached.is_file():
        return cached.read_text(encoding="utf-8")
    bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    # Without a place for it, the next report bundles again.
    with contextlib.suppress(OSError, PopstatsError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(cached) as unfinished:
            unfinished.write_text(bundle, encoding="utf-8")
    return bundle


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("popstats.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        # Plain text is set in type; what is marked safe, code included, stays as it is.
        finalize=lambda value: typeset(value) if type(value) is str else value,
    )
    environment.filters |= {
        # The verdicts of each population, in their order; of one population under an empty name.
        "by_population": lambda rows: [(name, list(own)) for name, own in groupby(rows, attrgetter("population"))],
        "cell": _cell,
        "verbatim": escape,
        "count": count,
        "estimate": lambda row: number(row.estimate, _decimals(row)),
        "numeric": _numeric_columns,
        "percentage": percent,
        "probability": probability,
        "span": _span,
        "stacked": _stacked,
    }  # fmt: skip
    return environment


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _cell(value: Cell) -> str:
    if value is None:
        return MISSING
    text = number(value, 3) if isinstance(value, float) else str(value)
    return text.replace(" ", "\u00a0") if len(text) <= SHORT_CELL else text


def _stacked(cell: str) -> str:
    """Return a cell whose interval narrow screens set below its number."""
    number_, _, interval = typeset(cell).partition(" (")
    if "\u00a0to" not in interval:
        return cell
    ends = interval.replace("\u00a0to\u00a0", "\u00a0to ")
    return Markup('{} <span class="interval">({}</span>').format(number_, ends)


def _numeric_columns(table: Table) -> list[bool]:
    """Return for each column whether all its cells start with a number or lack one; the first holds the row's name."""
    columns = list(zip(*table.rows, strict=True)) if table.rows else [()] * len(table.columns)

    def is_number(cell: str) -> bool:
        start = cell.lstrip("<>− \u00a0").replace("\u00a0", " ").partition(" ")[0].replace(",", "")
        return start == MISSING or start.replace(".", "", 1).isdigit()

    return [i > 0 and all(is_number(_cell(v)) for v in cells) for i, cells in enumerate(columns)]


def _span(row: VerdictRow) -> str:
    if row.lower is None or row.upper is None:
        return MISSING
    return interval_words(row.lower, row.upper, _decimals(row))


def _decimals(row: VerdictRow) -> int:
    """Return how many decimals an estimate needs for its interval to be seen."""
    if row.lower is None or row.upper is None:
        return 2
    width = row.upper - row.lower
    enough = 4 if width < 0.01 else 1 if width >= 2 else 2
    # A bound below zero must not look like zero: that is what an interval is for.
    below = [-v for v in (row.lower, row.upper, row.estimate) if v is not None and v < 0]
    fine = (d for d in range(enough, MOST_DECIMALS) if all(round(v, d) > 0 for v in below))
    return next(fine, MOST_DECIMALS)
