"""Reads populations from files, run folders and the shipped tables."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from popstats.errors import PopulationError
from popstats.population.columns import COLUMNS, SCHEMA_VERSION, footer, read_footer, schema
from popstats.population.delimited import as_numbers, read_delimited, without_nameless
from popstats.population.table import Population

#: What files of tables end in, beside what they are packed with.
ENDINGS = (".parquet", ".feather", ".csv", ".tsv", ".txt", ".jsonl", ".json", ".xlsx")
#: What `generate` keeps in a run folder: its table, a file per finished training, what it plans, and the network.
TABLE, ROWS, WORKLIST = "population.parquet", "rows", "worklist.json"
PARTS = {"plan": "plan.json", "original": "original/numbers.json", "costs": "original/costs.json"}
_UNPACK: Mapping[str, Any] = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
_LISTS = [c.name for c in COLUMNS if pa.types.is_list(c.type)]
_TEXTS = [c.name for c in COLUMNS if c.type == pa.string()]
_NUMBERS = [c.name for c in COLUMNS if c.name not in {*_LISTS, *_TEXTS}]


def populations() -> list[str]:
    """Return the names of the populations shipped with the package.

    >>> isinstance(populations(), list)
    True
    """
    return sorted(path.stem for path in _shipped_folder().glob("*.parquet"))


def load_population(source: str | Path, **from_frame: Any) -> Population:
    """Load a population.

    Parameters
    ----------
    source : str or Path
        The name of a shipped population (see `populations()`); a table (.parquet, .feather, .csv, .tsv, .txt, .jsonl,
        .json, .xlsx; text also packed as .gz, .bz2, .xz or .zip); or a run folder of `generate`, finished or not.
        Text may have any separator, decimal commas and thousands separators.
    **from_frame
        Passed on to `Population.from_frame`: `original`, `columns`, `widths`, `only`, `accuracy_kind`, `name`.

    Returns
    -------
    Population

    Raises
    ------
    PopulationError
        If nothing is there, the file is damaged, or the table fails a check.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.load_population("digits-resnet8")
    >>> population.frame[["mcb", "accuracy_drop"]].shape == (len(population), 2)
    True
    """
    path = _resolve(source)
    if path.is_dir():
        frame, metadata = _read_run(path)
    else:
        columns = from_frame.get("columns") or {}
        frame, metadata = read_table(path, columns, from_frame.get("widths") or ())
    settings = {
        "name": metadata.get("population") or path.name.partition(".")[0],
        "widths": metadata.get("width_columns", ()),
        "metadata": metadata,
        "where": path.name,
    }
    return Population.from_frame(frame, **{**settings, **from_frame})


def _shipped_folder() -> Path:
    installed = Path(__file__).parents[1] / "shipped"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "data"


def _resolve(source: str | Path) -> Path:
    if not isinstance(source, str | Path):
        raise PopulationError(
            f"load_population: expected a shipped name or a path, got a {type(source).__name__}; a DataFrame goes to "
            "popstats.Population.from_frame"
        )
    path = Path(source)
    if path.is_dir():
        if not (path / TABLE).is_file() and not (path / ROWS).is_dir():
            below = ", ".join(str(rows.parent) for rows in sorted(path.glob(f"*/{ROWS}")))
            raise PopulationError(
                f"{path}: a folder without {TABLE} or {ROWS}/; expected a run folder of generate "
                f"({f'below it: {below}' if below else '`python -m generate.population --out FOLDER` makes one'})"
            )
        return path
    if path.is_file():
        return path
    shipped = _shipped_folder() / f"{source}.parquet"
    if shipped.is_file():
        return shipped
    names = populations()
    meant = "".join(f" (did you mean {near}?)" for near in get_close_matches(str(source), names, n=1))
    raise PopulationError(
        f"{source}: no such file or folder, and no shipped population of that name{meant}; shipped: "
        f"{', '.join(names) or 'none'}"
    )


def _read_run(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a run's rows: its table, or the files of its trainings where these are ahead of it."""
    compacted, planned = folder / TABLE, len((_part(folder / WORKLIST) or {}).get("trainings", ()))
    table = _arrow_table(compacted, compacted.read_bytes(), pq.read_table) if compacted.is_file() else None
    if table is None or len(_finished(folder)) > table.num_rows:
        table = _table_of_rows(folder, planned)
    metadata = read_footer(table.schema)
    if planned > table.num_rows:
        metadata["run"] = {"finished": table.num_rows, "planned": planned}
    return table.replace_schema_metadata(None).to_pandas(), metadata


def _finished(folder: Path) -> list[Path]:
    """Return the files of the finished trainings, in the plan's order; those that are being written do not count."""
    return sorted(path for path in (folder / ROWS).glob("*.json") if path.stem.isdecimal())


def _table_of_rows(folder: Path, planned: int) -> pa.Table:
    """Return the finished rows as `generate` will compact them, with what is known of the plan in the footer."""
    rows = [_part(path) for path in _finished(folder)]
    if not rows:
        raise PopulationError(
            f"{folder}: no training has finished yet ({planned} are planned). Wait for the first, or rerun "
            "the command that made this folder to resume it"
        )
    known = {name: _part(folder / file) for name, file in PARTS.items()}
    known["population"] = (known["plan"] or {}).get("name")
    metadata = footer({name: value for name, value in known.items() if value is not None})
    try:
        return pa.Table.from_pylist(rows, schema=schema()).replace_schema_metadata(metadata)
    except (pa.ArrowException, TypeError, AttributeError) as error:
        raise PopulationError(f"{folder / ROWS}: not the rows of a run ({error})") from error


def _part(path: Path) -> Any:
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


def read_table(
    path: Path, columns: Mapping[str, str] | None = None, widths: Collection[str] = ()
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a file's table under its own names, and the metadata in its footer; numbers are read in named columns."""
    columns = columns or {}
    ending, content = _unpacked(path)
    if ending in (".parquet", ".feather"):
        table = _arrow_table(path, content, pq.read_table if ending == ".parquet" else feather.read_table)
        return table.replace_schema_metadata(None).to_pandas(), read_footer(table.schema)
    numbers = [*(columns.get(name, name) for name in _NUMBERS), *widths]
    if ending in (".csv", ".tsv", ".txt"):
        texts = [columns.get(name, name) for name in (*_LISTS, *_TEXTS)]
        frame = read_delimited(content, path.name, texts, numbers)
    else:
        found = _spreadsheet(path, content) if ending == ".xlsx" else _json(path, content)
        frame = _with_numbers(found, numbers, path)
    return frame, {}


def _unpacked(path: Path) -> tuple[str, bytes]:
    """Return the ending of the file that is in `path`, in small letters, and its content."""
    name, packed = path.name.lower(), path.suffix.lower()
    try:
        content = path.read_bytes()
        if packed == ".zip":
            name, content = _only_member(path, content)
        elif packed in _UNPACK:
            name, content = name.removesuffix(packed), _UNPACK[packed](content)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise PopulationError(f"{path}: cannot be read ({error}); is the file complete?") from error
    ending = Path(name).suffix
    ending = {".pq": ".parquet", ".arrow": ".feather", ".ndjson": ".jsonl"}.get(ending, ending)
    if ending not in ENDINGS:
        endings = f"{', '.join(ENDINGS)}, or these packed ({', '.join([*_UNPACK, '.zip'])})"
        expected = f"{path}: expected a run folder, or a file that ends in {endings}"
        saved = packed == ".nc"
        raise PopulationError(
            f"{expected}{'; a saved fit is read by popstats.Fit.load' * saved}",
            on_command_line=f"{expected}{'; a saved fit is read by fit, judge, report, refine and compare' * saved}",
        )
    return ending, content


def _only_member(path: Path, content: bytes) -> tuple[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX")]
        if len(names) != 1:
            raise PopulationError(f"{path}: expected one file inside, found {', '.join(names) or 'none'}")
        return names[0].lower(), archive.read(names[0])


def _arrow_table(path: Path, content: bytes, read: Callable[[pa.NativeFile], pa.Table]) -> pa.Table:
    try:
        table = read(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise PopulationError(
            f"{path}: cannot be read ({error}); the file is damaged or was cut short. If a run folder made it, rerun "
            "the command that made the folder: it rebuilds the table from the finished trainings"
        ) from error
    version = read_footer(table.schema).get("schema_version", SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise PopulationError(
            f"{path}: a table of version {version}, and this popstats reads up to {SCHEMA_VERSION}; update popstats"
        )
    return table


def _json(path: Path, content: bytes) -> pd.DataFrame:
    """Return the records of a JSON file, in one list or one per line, or its columns."""
    try:
        text = content.decode("utf-8-sig")
        try:
            found = json.loads(text)
        except ValueError:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        one = isinstance(found, dict) and not any(isinstance(v, list | dict) for v in found.values())
        return pd.DataFrame([found] if one else found)
    except (ValueError, TypeError) as error:
        raise PopulationError(
            f"{path}: cannot be read as JSON records, one per line or in one list ({error})"
        ) from error


def _spreadsheet(path: Path, content: bytes) -> pd.DataFrame:
    try:
        sheets = pd.read_excel(io.BytesIO(content), sheet_name=None, header=None, engine="openpyxl")
    except ImportError as error:
        raise PopulationError(
            f"{path}: spreadsheets are read by the package openpyxl, which is not installed. Install it, or save the "
            "sheet as CSV"
        ) from error
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise PopulationError(f"{path}: cannot be read as a spreadsheet ({error})") from error
    filled = {name: sheet for name, sheet in sheets.items() if not sheet.empty}
    if len(filled) != 1:
        raise PopulationError(
            f"{path}: expected one sheet with a table, found {', '.join(map(repr, filled)) or 'none'}. Save that sheet "
            "alone, or as CSV"
        )
    (sheet,) = filled.values()
    names = ["" if pd.isna(name) else name for name in sheet.iloc[0]]
    rows = sheet.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)
    return without_nameless(rows.infer_objects())


def _with_numbers(frame: pd.DataFrame, numbers: Collection[str], path: Path) -> pd.DataFrame:
    """Return the frame with numbers that were stored as text read as numbers, in the columns that hold numbers."""
    wanted = [i for i, name in enumerate(frame.columns) if str(name).strip() in numbers]
    texts = [i for i in wanted if any(isinstance(value, str) for value in frame.iloc[:, i])]
    if not texts:
        return frame
    cells = frame.iloc[:, texts].map(str, na_action="ignore").set_axis(texts, axis=1)
    names = frame.columns
    frame = frame.set_axis(range(len(names)), axis=1)
    frame[texts] = as_numbers(cells, path.name)
    return frame.set_axis(names, axis=1)
