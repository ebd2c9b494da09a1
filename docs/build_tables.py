"""Writes the tables of the documentation that repeat what the repository holds: columns, modules, error rates.

`make docs` rewrites them; a test fails while they are out of date. Each table stands between the comments
`<!-- NAME: begin -->` and `<!-- NAME: end -->` and is never edited by hand.
"""

from __future__ import annotations

import ast
import json
import math
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from popstats.population.columns import COLUMNS

ROOT = Path(__file__).resolve().parents[1]
RATES = ROOT / "popstats" / "planning"
NEAR_OPTIMAL = ("coverage_near_lower", "coverage_near_upper")
#: A truth under which the claim holds in at most this share of regimes, by the chance of their range, is a null.
NEVER = 0.01


def column_table() -> str:
    """Return the population table's columns as Markdown, in their order."""
    lines = ["| column | type | unit | legal values | meaning |", "|---|---|---|---|---|"]
    for column in COLUMNS:
        name = f"**`{column.name}`**" if column.required else f"`{column.name}`"
        legal = column.legal.replace("|", "\\|")
        kind = str(column.type).replace("element", "item").replace("<item: ", " of ").removesuffix(">")
        lines.append(f"| {name} | {kind} | {column.unit} | {legal} | {column.meaning} |")
    return "\n".join(lines)


def module_table() -> str:
    """Return every module, in the order of `stations.toml`, with the first line of its docstring, as Markdown."""
    lines = ["| module | what it does |", "|---|---|"]
    lines += [f"| `{path.relative_to(ROOT)}` | {_summary(path)} |" for path in modules()]
    return "\n".join(lines)


def modules() -> list[Path]:
    """Return the modules of both packages in the order of the data flow; stations name some that are still to come."""
    stations = tomllib.loads((ROOT / "stations.toml").read_text())
    found = [
        ROOT / package / station / f"{file}.py" if files else ROOT / package / f"{station}.py"
        for package in ("generate", "popstats")
        for station, files in stations[package].items()
        for file in files or [""]
    ]
    return [path for path in found if path.exists()]


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.split("\n\n")[0].replace("\n", " ").replace("|", "\\|").removesuffix(".")


def simulated_table() -> str:
    """Return error rates of C3a on simulated truths by number of recipes, as Markdown."""
    rows = _stored("calibration")
    plain = [r for r in rows if (r["truth"], r["noise_kind"], r["seeds"]) == ("quadratic", "normal", 1)]
    rises = sorted({row["rise"] for row in plain})
    found = [f"found: a rise of {rise:g} points" for rise in rises]
    head = [
        "recipes per regime",
        "false refuted, worst truth",
        *found,
        "near-optimal bounds",
        "limit",
        "argmin",
    ]
    lines = []
    for n, own in _by(rows, "n").items():
        powers = [
            _range([row for row in plain if (row["n"], row["rise"]) == (n, rise)], "supported")
            for rise in rises
        ]
        covered = [_range(own, *NEAR_OPTIMAL), _range(own, "coverage_limit"), _range(own, "coverage_mcb")]
        worst = max(row["false_refuted"] or 0.0 for row in own)
        lines.append([f"{n:,}", f"{100 * worst:.1f} %", *powers, *covered])
    return _markdown(head, lines)


def null_table() -> str:
    """Return the share of regimes in which C3a was supported although it is false, by truth, as Markdown."""
    false = [row for row in _stored("calibration") if row["claim_true"] <= NEVER]
    sizes = sorted({row["n"] for row in false})
    lines = [
        [
            truth,
            *(
                f"{100 * max((r['false_supported'] for r in own if r['n'] == n), default=math.nan):.1f} %"
                for n in sizes
            ),
        ]
        for truth, own in _by(false, "truth").items()
    ]
    return _markdown(["truth", *(f"{n:,} recipes" for n in sizes)], lines)


def _stored(name: str) -> list[dict[str, Any]]:
    return list(json.loads((RATES / f"{name}.json").read_text())["rows"])


def _by(rows: list[dict[str, Any]], key: str) -> dict[Any, list[dict[str, Any]]]:
    return {
        value: [row for row in rows if row[key] == value] for value in dict.fromkeys(row[key] for row in rows)
    }


def _range(rows: list[dict[str, Any]], *columns: str) -> str:
    """Return the smallest and the largest share, in percent."""
    values = [row[column] for row in rows for column in columns if row[column] is not None]
    ends = [f"{100 * value:.0f}" for value in (min(values), max(values))] if values else []
    return f"{' to '.join(dict.fromkeys(ends))} %" if ends else ""


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/columns.md": {"columns": column_table},
    "docs/modules.md": {"modules": module_table},
    "docs/error-rates.md": {"simulated": simulated_table, "nulls": null_table},
}


def up_to_date(page: str) -> tuple[str, str]:
    """Return a page's text as it is and as it should be.

    Raises
    ------
    ValueError
        If the page lacks the comments around a table.
    """
    text = wanted = (ROOT / page).read_text()
    for name, table in TABLES[page].items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if wanted.count(begin) != 1 or wanted.count(end) != 1:
            raise ValueError(
                f"{page}: expected {begin} and {end} once each; restore them where the table belongs"
            )
        before, rest = wanted.split(begin)
        wanted = f"{before}{begin}\n{table()}\n{end}{rest.split(end)[1]}"
    return text, wanted


def main() -> int:
    """Rewrite the tables that are out of date; exit status 1 if there were any, as pre-commit expects."""
    changed = 0
    for page in TABLES:
        text, wanted = up_to_date(page)
        if text != wanted:
            (ROOT / page).write_text(wanted)
            print(f"{page}: tables rewritten")
            changed = 1
    return changed


if __name__ == "__main__":
    sys.exit(main())
