"""Checks a table must pass before it may be called a population.

Each check says what was expected, what came, where (column, first rows) and what to do. All run before
the first draw; nothing is repaired silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from popstats.columns import COLUMNS, REQUIRED, Column
from popstats.errors import PopulationError

__all__ = ["check_table", "rename_columns"]

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


def check_table(frame: pd.DataFrame, where: str) -> None:
    """Raise PopulationError unless `frame` is one population with the needed columns and legal values.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns already under popstats's names.
    where : str
        What to call the table in messages: a file name, or "the frame".
    """
    for check in _CHECKS:
        check(frame, where)


def rename_columns(frame: pd.DataFrame, columns: Mapping[str, str], where: str) -> pd.DataFrame:
    """Return the frame with foreign names replaced: `columns` maps popstats's name to the table's own.

    Raises
    ------
    PopulationError
        If a name on the right is not in the table, or one on the left is no column that popstats reads.
    """
    known = {c.name for c in COLUMNS}
    if unknown := sorted(set(columns) - known):
        raise PopulationError(
            f"columns: {unknown} are not columns that popstats reads; the mapping goes from popstats's name "
            f"to the table's own, e.g. {{'macs': 'flops'}}. Legal names: {', '.join(sorted(known))}"
        )
    if absent := sorted(set(columns.values()) - set(frame.columns)):
        raise PopulationError(f"columns: {where} has no column {absent}; it has: {_names(frame)}")
    # A second column of the target name would be shadowed silently: the user's mapping wins, the old one goes.
    clash = [k for k, v in columns.items() if k != v and k in frame.columns and k not in columns.values()]
    return frame.drop(columns=clash).rename(columns={v: k for k, v in columns.items()})


def _names(frame: pd.DataFrame) -> str:
    return ", ".join(map(str, frame.columns))


def _rows(frame: pd.DataFrame, bad: pd.Series | np.ndarray) -> str:  # type: ignore[type-arg]
    labels = frame.index[np.asarray(bad)]
    shown = ", ".join(map(str, labels[:_SHOWN_ROWS]))
    return f"row {shown}" if len(labels) == 1 else f"{len(labels)} rows, the first: {shown}"


def _has_needed(frame: pd.DataFrame, where: str) -> None:
    absent = [name for name in REQUIRED if name not in frame.columns]
    if not absent:
        return
    originals = [name for name in absent if name.startswith("original_")]
    own = [name for name in absent if name not in originals]
    remedies = []
    if own:
        remedies.append("name them with columns={" + ", ".join(f"'{n}': '<your column>'" for n in own) + "}")
    if originals:
        remedies.append("pass original=popstats.Original(macs=..., params=..., accuracy=...)")
    raise PopulationError(
        f"{where} lacks {', '.join(absent)}; it has: {_names(frame)}. To mend it, {' and '.join(remedies)}"
    )


def _has_rows(frame: pd.DataFrame, where: str) -> None:
    if len(frame) == 0:
        raise PopulationError(f"{where} has no rows")


def _is_numeric(frame: pd.DataFrame, where: str) -> None:
    for name in REQUIRED:
        if not pd.api.types.is_numeric_dtype(frame[name]) or pd.api.types.is_bool_dtype(frame[name]):
            raise PopulationError(
                f"{where}: column {name} must hold numbers, got {frame[name].dtype}; first values: "
                f"{frame[name].head(3).tolist()}"
            )


def _done(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["status"] != "failed"] if "status" in frame else frame


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
        bad = values.notna() & ~values.isin(list(declared.choices))
    elif declared.above is not None or declared.minimum is not None:
        bad = _outside(declared, values, where)
    else:
        return
    if bad.any():
        first = values[bad].iloc[0]
        raise PopulationError(
            f"{where}: column {declared.name} must be {declared.legal}"
            f"{' ' + declared.unit if declared.unit else ''}; got {first!r} in {_rows(frame, bad)}"
        )


def _outside(declared: Column, values: pd.Series, where: str) -> pd.Series:  # type: ignore[type-arg]
    if not pd.api.types.is_numeric_dtype(values):
        if values.isna().all():
            return values.notna()
        raise PopulationError(f"{where}: column {declared.name} must hold numbers, got {values.dtype}")
    bad = pd.Series(False, index=values.index)
    if declared.above is not None:
        bad |= values <= declared.above
    if declared.minimum is not None:
        bad |= values < declared.minimum
    if declared.maximum is not None:
        bad |= values > declared.maximum
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
                f"({row[name]:,.0f} against {row[f'original_{name}']:,.0f}); a subnetwork cannot cost more than the "
                "network it was cut from: check original= and the unit of the column"
            )


def _costs_agree_in_recipes(frame: pd.DataFrame, where: str) -> None:
    if "recipe_id" not in frame.columns:
        return
    done = _done(frame)
    for name in ("macs", "params"):
        spread = done.groupby("recipe_id", sort=False, dropna=False)[name].agg(["min", "max"])
        bad = spread["min"] != spread["max"]
        if bad.any():
            recipe = spread.index[bad][0]
            raise PopulationError(
                f"{where}: {name} differs between rows of one recipe ({int(bad.sum())} recipes, the first: {recipe}: "
                f"{spread['min'][bad].iloc[0]:,.0f} to {spread['max'][bad].iloc[0]:,.0f}); rows that share a "
                "recipe_id are replicates of one subnetwork and must cost the same"
            )


_CHECKS: Iterable[Callable[[pd.DataFrame, str], None]] = (
    _has_rows,
    _has_needed,
    _is_numeric,
    _is_finite,
    _is_percent,
    _is_legal,
    _is_one_population,
    _is_smaller_than_original,
    _costs_agree_in_recipes,
)
