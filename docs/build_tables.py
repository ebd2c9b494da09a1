"""Writes the tables of the documentation that repeat what the code declares: columns and modules.

`make docs` rewrites them; a test fails while they are out of date. Each table stands between the comments
`<!-- NAME: begin -->` and `<!-- NAME: end -->` and is never edited by hand.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from popstats.population.columns import COLUMNS

ROOT = Path(__file__).resolve().parents[1]


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


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/columns.md": {"columns": column_table},
    "docs/modules.md": {"modules": module_table},
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
