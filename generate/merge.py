"""Join populations of one original network: `python -m generate.merge A B -o C`.

A run folder is read as far as it has come, so that a run still going can be looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from generate.population import reported
from generate.run.folder import POPULATION, RunFolder, write_table
from popstats.errors import PopulationError
from popstats.population import columns

# The original's fields that must agree: everything that accuracy drops are measured against.
SAME = ("original_id", "network", "dataset", "input_size", "macs", "params", "accuracy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m generate.merge",
        description="Join populations of one original network into one table.",
    )
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="run folders or population.parquet files"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="where to write; a .parquet file"
    )
    parser.add_argument("--name", help="name of the joined population; default: the names joined by +")
    return reported(_merge, parser.parse_args(arguments))


def merge_populations(sources: Sequence[Path], name: str | None = None) -> pa.Table:
    """Return the rows of all sources, each subnetwork once, with a footer that holds all plans."""
    tables = [RunFolder(source).table() if source.is_dir() else _read_table(source) for source in sources]
    footers = [columns.read_footer(table.schema) for table in tables]
    first = footers[0]["original"]
    for source, footer in zip(sources[1:], footers[1:], strict=True):
        differing = [key for key in SAME if footer["original"].get(key) != first.get(key)]
        if differing:
            key = differing[0]
            raise PopulationError(
                f"{source} belongs to a different original network than {sources[0]}: {key} is "
                f"{footer['original'].get(key)!r}, "
                f"not {first.get(key)!r}. Accuracy drops are measured against one original; merge only "
                "populations that share it."
            )
    name = name or "+".join(dict.fromkeys(str(footer["population"]) for footer in footers))
    chosen: dict[str, dict[str, Any]] = {}  # each subnetwork once, the first one that is done
    for row in (row for table in tables for row in table.to_pylist()):
        present = chosen.get(row["subnetwork_id"])
        if present is None or (present["status"] == "failed" and row["status"] == "done"):
            chosen[row["subnetwork_id"]] = row
    rows = list(chosen.values())
    kinds = sorted({row.get("pruning") or "filters" for row in rows})
    if len(kinds) > 1:
        raise PopulationError(
            f"the sources prune {' and '.join(kinds)}, whose widths and costs differ in kind; merge populations of one kind."
        )
    footer = {
        "population": name,
        "plan": _joined([footer["plan"] for footer in footers]),
        "original": footers[0]["original"],
        "provenance": _joined([footer["provenance"] for footer in footers]),
        **({"costs": footers[0]["costs"]} if "costs" in footers[0] else {}),
    }
    return pa.Table.from_pylist([row | {"population": name} for row in rows], schema=columns.schema(footer))


def _joined(parts: list[Any]) -> Any:
    """Return the one part, or all of them in a list; what was merged before is taken apart again."""
    flat = [one for part in parts for one in part.get("merged", [part])]
    return flat[0] if len(flat) == 1 else {"merged": flat}


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise PopulationError(
            f"{path} cannot be read as a population ({error}). Expected a run folder or a .parquet file."
        ) from error
    footer = columns.read_footer(table.schema)
    if footer.get("schema_version", 0) > columns.SCHEMA_VERSION:
        raise PopulationError(
            f"{path} was written by a newer version (table format {footer['schema_version']}, this one knows "
            f"{columns.SCHEMA_VERSION}): columns would be lost. Update this package."
        )
    missing = [key for key in ("population", "plan", "original", "provenance") if key not in footer]
    if missing:
        raise PopulationError(
            f"{path}: its footer has no {', '.join(missing)}. Only tables written by generate can be merged."
        )
    return table


def _merge(options: argparse.Namespace) -> int:
    table, out = merge_populations(options.sources, name=options.name), options.out
    path = out / POPULATION if out.suffix != ".parquet" else out
    if (path.parent / "worklist.json").exists() and path.name == POPULATION:
        raise PopulationError(
            f"{path} is the table of a run, which is rewritten when the run resumes. Choose another -o."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PopulationError(
            f"{path.parent} cannot be made ({error.strerror}). Choose another -o."
        ) from error
    write_table(path, table)
    print(f"{table.num_rows} rows of {len(options.sources)} populations: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
