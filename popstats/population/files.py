"""Reads populations from files, run folders and the shipped tables."""

from __future__ import annotations

import ast
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from popstats.errors import PopulationError
from popstats.population.columns import COLUMNS, SCHEMA_VERSION, read_footer
from popstats.population.table import Population


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
        The name of a shipped population (see `populations()`), a .parquet or .csv file, or a run folder of
        `generate` (which holds population.parquet).
    **from_frame
        Passed on to `Population.from_frame`: `original`, `columns`, `widths`, `accuracy_kind`, `name`.

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
    frame, metadata = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    settings = {
        "name": metadata.get("population") or path.stem,
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
        table = path / "population.parquet"
        if not table.is_file():
            raise PopulationError(
                f"{path}: a folder without population.parquet; expected a run folder of generate "
                "(`python -m generate.population --out FOLDER` makes one)"
            )
        return table
    if path.is_file():
        if path.suffix not in (".parquet", ".csv"):
            saved = "; a saved fit is read by popstats.Fit.load" if path.suffix == ".nc" else ""
            raise PopulationError(
                f"{path}: expected a .parquet or .csv file, or a run folder{saved}",
                on_command_line=f"{path}: expected a .parquet or .csv file, or a run folder"
                f"{'; a saved fit is read by fit, judge, report, refine and compare' if saved else ''}",
            )
        return path
    shipped = _shipped_folder() / f"{source}.parquet"
    if shipped.is_file():
        return shipped
    names = populations()
    near = get_close_matches(str(source), names, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise PopulationError(
        f"{source}: no such file or folder, and no shipped population of that name{meant}; shipped: "
        f"{', '.join(names) or 'none'}"
    )


def _read_csv(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    try:
        frame = pd.read_csv(path, low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise PopulationError(f"{path}: cannot be read as CSV ({error})") from error
    lists = [c.name for c in COLUMNS if pa.types.is_list(c.type) and c.name in frame]
    return frame.assign(**{name: _parse_lists(frame[name], path) for name in lists}), {}


def _parse_lists(texts: pd.Series, path: Path) -> pd.Series:
    try:
        return texts.map(ast.literal_eval, na_action="ignore")
    except (ValueError, SyntaxError) as error:
        raise PopulationError(
            f"{path}: column {texts.name} must hold lists such as [16, 32], got {texts.dropna().iloc[0]!r} first"
        ) from error


def _read_parquet(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise PopulationError(
            f"{path}: cannot be read as Parquet ({error}); the file is damaged or was cut short. If a run folder "
            "made it, run the same generate command again: it rebuilds the table from the finished trainings"
        ) from error
    metadata = read_footer(table.schema)
    version = metadata.get("schema_version", SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise PopulationError(
            f"{path}: written in version {version} of the table, and this popstats reads up to {SCHEMA_VERSION}; "
            "update popstats"
        )
    return table.replace_schema_metadata(None).to_pandas(), metadata
