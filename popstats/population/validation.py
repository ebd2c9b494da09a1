"""Checks a table must pass before it may be called a population.

Each check says what was expected, what came, where (column, first rows) and what to do. All run before
the first draw; nothing is repaired silently.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from popstats.errors import PopulationError
from popstats.population.columns import COLUMNS, REQUIRED, Column

#: Columns that must hold one value in a population: two values are two populations.
ONE_VALUE = (
    "population",
    "original_id",
    "network",
    "dataset",
    "original_macs",
    "original_params",
    "original_accuracy",
)
_SHOWN_ROWS = 5
#: In the only column's name, these are separators that a reader of commas did not see.
_SEPARATORS = (";", "\t", "|")


def check_table(frame: pd.DataFrame, where: str, own: Iterable[Hashable] | None = None) -> None:
    """Raise PopulationError unless `frame` is one population with the needed columns and legal values."""
    _has_rows(frame, where)
    _has_needed(frame, where, frame.columns if own is None else own)
    for check in _CHECKS:
        check(frame, where)


def check_widths(
    frame: pd.DataFrame, names: Sequence[str], where: str, own: Iterable[Hashable] | None = None
) -> None:
    """Raise PopulationError unless each named column holds a positive number in every row."""
    if isinstance(names, str):
        raise PopulationError(
            f"widths: expected a list of columns, one a group, e.g. [{names!r}]; got {names!r}"
        )
    if absent := [name for name in names if name not in frame.columns]:
        has = _names(frame.columns if own is None else own)
        raise PopulationError(f"widths: {where} has no column {absent}; it has: {has}")
    for name in names:
        bad = ~(pd.to_numeric(frame[name], errors="coerce") > 0).to_numpy(dtype=bool, na_value=False)
        if bad.any():
            raise PopulationError(
                f"{where}: column {name} must hold widths, numbers > 0; got {frame[name][bad].tolist()[0]!r} in "
                f"{_rows(frame, bad)}"
            )


def check_recipes(frame: pd.DataFrame, recipe: npt.NDArray[np.int64], where: str) -> None:
    """Raise PopulationError if rows of one recipe, numbered by `recipe` (shape (n,)), differ in cost."""
    for name in ("macs", "params"):
        spread = frame.groupby(recipe)[name].agg(["min", "max"])
        bad = spread["min"] != spread["max"]
        if bad.any():
            first = spread[bad].iloc[0]
            raise PopulationError(
                f"{where}: {name} differs between rows of one recipe, in {int(bad.sum())} recipes; the first, "
                f"{_rows(frame, recipe == bad.idxmax())}, runs from {first['min']:,.10g} to {first['max']:,.10g}. "
                "Rows that share a recipe_id, or all their widths and settings, are replicates of one subnetwork "
                "and must cost the same"
            )


def failed_rows(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which rows are trainings that failed, shape (n,)."""
    if "status" not in frame:
        return np.zeros(len(frame), dtype=bool)
    return (frame["status"] == "failed").to_numpy(dtype=bool, na_value=False)


def is_single_value(value: object) -> bool:
    """Return whether a cell holds one value, which can be compared and counted, and not a list or the like."""
    return isinstance(value, Hashable) and not isinstance(value, tuple)


def rename_columns(frame: pd.DataFrame, columns: Mapping[str, str], where: str) -> pd.DataFrame:
    """Return the frame with foreign names replaced: `columns` maps popstats's name to the table's own."""
    _names_are_unique(frame, where)
    known = {c.name for c in COLUMNS}
    if unknown := sorted(set(columns) - known):
        raise _unknown_names(unknown, columns, known)
    if absent := sorted(set(columns.values()) - set(frame.columns)):
        said = f"{where} has no column {absent}; it has: {_names(frame.columns)}"
        raise PopulationError(f"columns: {said}", on_command_line=f"--column: {said}")
    if len(set(columns.values())) < len(columns):
        raise PopulationError(f"columns: two names are given one column of {where}: {dict(columns)}")
    # A second column of the target name would be shadowed silently: the user's mapping wins, the old one goes.
    clash = [k for k, v in columns.items() if k != v and k in frame.columns and k not in columns.values()]
    return frame.drop(columns=clash).rename(columns={v: k for k, v in columns.items()})


def _unknown_names(unknown: Sequence[str], columns: Mapping[str, str], known: Set[str]) -> PopulationError:
    first = unknown[0]
    turned = columns[first] in known
    ours, theirs = (columns[first], first) if turned else ("macs", "flops")
    hint = "the other way round: " if turned else "e.g. "
    legal = f"Legal names: {', '.join(sorted(known))}"
    return PopulationError(
        f"columns: {unknown} are not columns that popstats reads; the mapping goes from popstats's name to the "
        f"table's own, {hint}{{{ours!r}: {theirs!r}}}. {legal}",
        on_command_line=f"--column: {unknown} are not columns that popstats reads; write popstats's name first, "
        f"then the table's own, {hint}--column {ours}={theirs}. {legal}",
    )


def _names(columns: Iterable[Hashable]) -> str:
    names = list(map(str, columns))
    if len(names) == 1 and (mark := next((m for m in _SEPARATORS if m in names[0]), "")):
        return (
            f"{names[0]!r}, one column: is the separator {mark!r}? popstats reads commas; "
            f"pandas.read_csv(file, sep={mark!r}) reads it for Population.from_frame, and .to_csv writes commas"
        )
    return ", ".join(names)


def _rows(frame: pd.DataFrame, bad: npt.ArrayLike) -> str:
    labels = frame.index[np.asarray(bad)]
    shown = ", ".join(map(str, labels[:_SHOWN_ROWS]))
    return f"row {shown}" if len(labels) == 1 else f"{len(labels)} rows, the first: {shown}"


def _has_needed(frame: pd.DataFrame, where: str, own: Iterable[Hashable]) -> None:
    absent = [name for name in REQUIRED if name not in frame.columns]
    if not absent:
        return
    originals = [name for name in absent if name.startswith("original_")]
    others = [name for name in absent if name not in originals]
    remedies, options = [], []
    if others:
        remedies.append(
            "name them with columns={" + ", ".join(f"'{n}': '<your column>'" for n in others) + "}"
        )
        options.append("name them with " + " ".join(f"--column {n}=<your column>" for n in others))
    if originals:
        remedies.append("pass original=popstats.Original(macs=..., params=..., accuracy=...)")
        options.append("pass --original-macs N --original-params N --original-accuracy PERCENT")
    said = f"{where} lacks {', '.join(absent)}; it has: {_names(own)}. To mend it, "
    raise PopulationError(said + " and ".join(remedies), on_command_line=said + " and ".join(options))


def _names_are_unique(frame: pd.DataFrame, where: str) -> None:
    if frame.columns.nlevels > 1:
        raise PopulationError(
            f"{where} has column names of {frame.columns.nlevels} levels; popstats reads one"
        )
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise PopulationError(f"{where} has more than one column named {twice}; rename or drop the others")


def _has_rows(frame: pd.DataFrame, where: str) -> None:
    if len(frame) == 0:
        raise PopulationError(f"{where} has no rows")


def _is_numeric(frame: pd.DataFrame, where: str) -> None:
    for name in REQUIRED:
        values = frame[name]
        if not _holds_numbers(values):
            raise PopulationError(f"{where}: column {name} must hold numbers, got {_no_numbers(values)}")


def _no_numbers(values: pd.Series) -> str:
    """Return which values of a column are no numbers, with their rows."""
    if values.dtype != object and not pd.api.types.is_string_dtype(values):
        return f"{values.dtype}; first values: {values.head(3).tolist()}"
    bad = values[values.notna() & pd.to_numeric(values, errors="coerce").isna()]
    if bad.empty:
        return (
            f"numbers stored as {values.dtype} ({values.head(3).tolist()}); pandas.to_numeric converts them"
        )
    shown = ", ".join(f"{value!r} in row {row}" for row, value in bad.head(_SHOWN_ROWS).items())
    return f"{shown}{f' and {len(bad) - _SHOWN_ROWS} more' if len(bad) > _SHOWN_ROWS else ''}"


def _holds_numbers(values: pd.Series) -> bool:
    kind = values.dtype
    real = pd.api.types.is_integer_dtype(kind) or pd.api.types.is_float_dtype(kind)
    return real and not isinstance(kind, pd.SparseDtype)


def _texts_are_single_values(frame: pd.DataFrame, where: str) -> None:
    for declared in COLUMNS:
        if declared.type != pa.string() or declared.name not in frame:
            continue
        values = frame[declared.name]
        if values.dtype == object and not values.map(is_single_value).all():
            first = values[~values.map(is_single_value)].iloc[0]
            raise PopulationError(f"{where}: column {declared.name} must hold text, got {first!r}")


def _lists_are_lists(frame: pd.DataFrame, where: str) -> None:
    for declared in COLUMNS:
        if not pa.types.is_list(declared.type) or declared.name not in frame:
            continue
        values = frame[declared.name].dropna()
        bad = ~values.map(lambda value: isinstance(value, list | tuple | np.ndarray)).to_numpy(dtype=bool)
        if bad.any():
            raise PopulationError(
                f"{where}: column {declared.name} must hold lists, one entry a group; got {values[bad].iloc[0]!r} in "
                f"{_rows(values.to_frame(), bad)}"
            )


def _widths_are_numbers(frame: pd.DataFrame, where: str) -> None:
    done = _done(frame)
    if "widths" not in done or done["widths"].isna().any() or done.empty:
        return
    lengths = sorted(set(done["widths"].map(len)))
    if len(lengths) > 1:
        raise PopulationError(
            f"{where}: column widths must hold lists of one length, got {lengths}; a population has one original "
            "network and so one list of groups"
        )
    try:
        widths = np.array(done["widths"].tolist(), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PopulationError(f"{where}: column widths must hold lists of numbers ({error})") from error
    bad = ~(widths > 0).all(axis=tuple(range(1, widths.ndim)))
    if bad.any() or widths.ndim != 2:
        raise PopulationError(
            f"{where}: column widths must hold lists of numbers > 0; see {_rows(done, bad)}"
        )


def _done(frame: pd.DataFrame) -> pd.DataFrame:
    failed = failed_rows(frame)
    return frame[~failed] if failed.any() else frame


def _is_finite(frame: pd.DataFrame, where: str) -> None:
    done = _done(frame)
    for name in REQUIRED:
        bad = ~np.isfinite(done[name].to_numpy(dtype=np.float64, na_value=np.nan))
        if bad.any():
            raise PopulationError(
                f"{where}: column {name} is missing or not finite in {_rows(done, bad)}; drop those rows, or "
                "give them status='failed' with the reason in the column error"
            )


def _is_legal(frame: pd.DataFrame, where: str) -> None:
    done = _done(frame)
    for declared in COLUMNS:
        if declared.name in done.columns:
            _check_column(declared, done, where)


def _check_column(declared: Column, frame: pd.DataFrame, where: str) -> None:
    values = frame[declared.name]
    if declared.choices:
        bad = (values.notna() & ~values.isin(list(declared.choices))).to_numpy(dtype=bool)
    elif declared.above is not None or declared.minimum is not None:
        bad = _outside(declared, values, where)
    else:
        return
    if bad.any():
        first = values[bad].tolist()[0]
        raise PopulationError(
            f"{where}: column {declared.name} must be {declared.legal}"
            f"{' ' + declared.unit if declared.unit else ''}; got {first!r} in {_rows(frame, bad)}"
        )


def _outside(declared: Column, values: pd.Series, where: str) -> npt.NDArray[np.bool_]:
    if values.isna().all():
        return np.zeros(len(values), dtype=bool)
    if not _holds_numbers(values):
        raise PopulationError(f"{where}: column {declared.name} must hold numbers, got {_no_numbers(values)}")
    # Missing values compare as legal: a column that is not required may have gaps.
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.zeros(len(numbers), dtype=bool)
    if declared.above is not None:
        bad |= numbers <= declared.above
    if declared.minimum is not None:
        bad |= numbers < declared.minimum
    if declared.maximum is not None:
        bad |= numbers > declared.maximum
    return bad


def _is_percent(frame: pd.DataFrame, where: str) -> None:
    done = _done(frame)
    for name in ("accuracy", "original_accuracy"):
        if len(done) and done[name].max() <= 1.0:
            raise PopulationError(
                f"{where}: column {name} looks like a fraction (all values between {done[name].min():g} and "
                f"{done[name].max():g}); popstats reads percent: multiply it by 100"
            )


def _is_one_population(frame: pd.DataFrame, where: str) -> None:
    for name in ONE_VALUE:
        if name in frame.columns and frame[name].nunique(dropna=True) > 1:
            values = frame[name].dropna().unique()[:_SHOWN_ROWS].tolist()
            raise PopulationError(
                f"{where} holds more than one population: column {name} has {frame[name].nunique()} values "
                f"({', '.join(map(str, values))}); keep one, e.g. frame[frame['{name}'] == {values[0]!r}]"
            )


def _is_smaller_than_original(frame: pd.DataFrame, where: str) -> None:
    done = _done(frame)
    for name in ("macs", "params"):
        bad = done[name] > done[f"original_{name}"]
        if bad.any():
            row = done[bad].iloc[0]
            raise PopulationError(
                f"{where}: {name} is larger than the original network's in {_rows(done, bad)} "
                f"({row[name]:,.10g} against {row[f'original_{name}']:,.10g}); a subnetwork cannot cost more than the "
                "network it was cut from: check the original's numbers and the unit of the column"
            )


_CHECKS: Iterable[Callable[[pd.DataFrame, str], None]] = (
    _is_numeric,
    _texts_are_single_values,
    _lists_are_lists,
    _widths_are_numbers,
    _is_finite,
    _is_percent,
    _is_legal,
    _is_one_population,
    _is_smaller_than_original,
)
