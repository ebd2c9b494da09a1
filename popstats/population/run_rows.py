"""Rows of a run folder of `generate` as they lie on the disk: while it goes, after it was killed, or when it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from popstats.errors import PopulationError
from popstats.population.columns import footer, schema

#: What `generate` keeps in a run folder: its table, a file per finished training, what it plans, and the network.
TABLE, ROWS = "population.parquet", "rows"
_WORKLIST, _PLAN, _ORIGINAL = "worklist.json", "plan.json", "original/numbers.json"
_COSTS = "original/costs.json"


def finished(folder: Path) -> list[Path]:
    """Return the files of the finished trainings, in the plan's order; those that are being written do not count."""
    return sorted(path for path in (folder / ROWS).glob("*.json") if path.stem.isdecimal())


def planned(folder: Path) -> int:
    """Return how many trainings the folder will hold, as far as they are drawn."""
    return len((_read(folder / _WORKLIST) or {}).get("trainings", ()))


def table_of_rows(folder: Path) -> pa.Table:
    """Return the finished rows as `generate` will compact them, with what is known of the plan in the footer."""
    rows = [_read(path) for path in finished(folder)]
    if not rows:
        raise PopulationError(
            f"{folder}: no training has finished yet ({planned(folder)} are planned). Wait for the first, or rerun "
            "the command that made this folder to resume it"
        )
    plan, original, costs = (_read(folder / name) for name in (_PLAN, _ORIGINAL, _COSTS))
    known = {"population": (plan or {}).get("name"), "plan": plan, "original": original, "costs": costs}
    metadata = footer({name: value for name, value in known.items() if value is not None})
    try:
        return pa.Table.from_pylist(rows, schema=schema()).replace_schema_metadata(metadata)
    except (pa.ArrowException, TypeError, AttributeError) as error:
        raise PopulationError(f"{folder / ROWS}: not the rows of a run ({error})") from error


def _read(path: Path) -> Any:
    """Return what a JSON file holds; None where there is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PopulationError(
            f"{path} cannot be read ({error}). Delete it and rerun the command that made this folder: only what "
            "is missing is made again"
        ) from error
