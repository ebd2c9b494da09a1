"""Checks a table must pass before it may be called a population.

Each check says what was expected, what came, where (column, first rows) and what to do. All run before
the first draw; nothing is repaired silently.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from popstats.arrays import FloatArray
from popstats.errors import PopulationError
from popstats.population.columns import COLUMNS, REQUIRED, Column, column

#: Columns that must hold one value in a population: two values are two populations.
ONE_VALUE = (
    "population", "original_id", "network", "dataset", "pruning", "original_macs", "original_params", "original_accuracy",
)  # fmt: skip
_SHOWN_ROWS = 5
#: In the only column's name, these are separators that a reader of commas did not see.
_SEPARATORS = (";", "\t", "|")
#: A row that costs this share more than the original is kept: rounding and other ways of counting explain as much.
TOLERATED = 0.01
#: Where no row reaches this share of the original's cost, or one is under the second, units are mixed.
_OTHER_UNIT, _NOTHING_LEFT = 1e-3, 1e-9
#: What people call the columns that are needed, in small letters and digits.
_LIKELY = {
    "macs": ("macs", "mac", "flops", "flop", "gmacs", "mmacs", "gflops", "mflops", "multadds", "madds"),
    "params": ("params", "param", "parameters", "nparams", "numparams", "paramcount", "mparams", "weights"),
    "accuracy": ("accuracy", "acc", "top1", "top1acc", "top1accuracy", "testacc", "testaccuracy", "valacc"),
}
#: Names of quantities of which lower is better.
_LOSSES = re.compile(
    r"(?<![a-z])(perplexity|ppl|loss|nll|ce|cross_?entropy|error|err|wer|cer|drop|rank|mse|rmse|mae|fid|bpc|bpb)(?![a-z])"
)
#: Names of costs that are no count of operations.
_TIMES = re.compile(r"(?<![a-z])(latency|time|ms|seconds|fps|throughput|energy|memory|mb)(?![a-z])")
#: Names of what counts the passes of one training.
_PASSES = re.compile(r"^(global)?_?(epoch|step|iter|iteration|checkpoint)$")
_DOUBTFUL = (
    ("accuracy", _LOSSES, "where lower is better; popstats expects the percentage of correct answers. Convert error rates "
     "to 100 - error, drops to original - drop; losses, perplexities and ranks cannot be converted: name the column of "
     "accuracies"),
    ("macs", _TIMES, "which by its name is not a count of operations; mCB compares MACs with parameters. Name the column of "
     "MACs or FLOPs, or rename this one if it holds them"),
)  # fmt: skip
#: From this rank correlation on, accuracy falls as networks grow (of the widths: they shrink as costs grow) ...
_FALLS = -0.5
#: ... and from this one also where the numbers are like the original's.
_SURELY = -0.8
#: Where this share of at least so many networks is under half of the original's accuracy, or that share above it, the
#: column may hold something else than accuracies.
_MOST, _ALL, _ENOUGH = 0.5, 0.9, 20
#: Rows per group, at least, that tell in which direction the parameters follow the widths.
_ROWS_PER_GROUP = 3
#: Factor by which what a regime's rows keep in the middle may differ from what its target says.
_NEAR_TARGET = 1.25


def check_table(frame: pd.DataFrame, where: str, own: Iterable[Hashable] | None = None) -> None:
    """Raise PopulationError unless `frame` is one population with the needed columns and legal values."""
    if len(frame) == 0:
        raise PopulationError(f"{where} has no rows")
    _has_needed(frame, where, frame.columns if own is None else own)
    failed = failed_rows(frame)
    done = frame[~failed] if failed.any() else frame
    for declared in (c for c in COLUMNS if c.name in frame):
        _check_kind(declared, frame[declared.name], where)
        _check_values(declared, done[declared.name], where)
    _widths_are_numbers(done, where)
    for name in ONE_VALUE:
        if name in frame and (held := frame[name].nunique()) > 1:
            values = frame[name].dropna().unique()[:_SHOWN_ROWS].tolist()
            said = (
                f"{where} holds more than one population: column {name} has {held} values "
                f"({', '.join(map(str, values))}); keep one, e.g. "
            )
            option = f"--where {name}={shlex.quote(str(values[0]))}"
            raise PopulationError(
                f"{said}frame[frame['{name}'] == {values[0]!r}]", on_command_line=f"{said}{option}"
            )
    if len(done):
        _is_in_its_unit(done, where)
        _rises_with_cost(done, where)
        _targets_are_reductions(done, where)


def _refuse(
    values: pd.Series, bad: npt.ArrayLike, where: str, must: str, hint: str = "", option: str = ""
) -> None:
    """Raise PopulationError where cells of a column are bad, with the first of them."""
    cells = values[np.asarray(bad, dtype=bool)]
    if len(cells):
        got = f"got {cells.tolist()[0]!r} in {_rows(cells.index)}"
        said = f"{where}: column {values.name} must {must}; {got}"
        raise PopulationError(f"{said}{hint}", on_command_line=f"{said}{option or hint}")


def check_widths(
    frame: pd.DataFrame, names: Sequence[str], where: str, own: Iterable[Hashable] | None = None
) -> None:
    """Raise PopulationError unless each named column holds a number from 0 on in every row, and not 0 in all."""
    if isinstance(names, str):
        raise PopulationError(
            f"widths: expected a list of columns, one per group, e.g. [{names!r}]; got {names!r}"
        )
    if absent := [name for name in names if name not in frame.columns]:
        has = _names(frame.columns if own is None else own)
        raise PopulationError(f"widths: {where} has no column {absent}; it has: {has}")
    for name in names:
        widths = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        legal = (widths >= 0) & np.isfinite(widths)
        mapped = "; a column that holds whole lists is mapped instead: "
        hints = [f"{mapped}columns={{'widths': {name!r}}}", f"{mapped}--column widths={name}"]
        hints *= not pd.api.types.is_numeric_dtype(frame[name])
        _refuse(frame[name], ~legal, where, "hold widths, numbers >= 0 (0: the block is skipped)", *hints)
        if not widths.any():
            raise PopulationError(
                f"{where}: column {name} holds width 0 in every row; leave it out of widths"
            )


def check_accuracy_kind(kind: str | None) -> None:
    """Raise PopulationError unless a given kind of accuracy is one that popstats knows."""
    legal = column("accuracy_kind").choices
    if kind is not None and kind not in legal:
        said = f"expected one of {', '.join(legal)}, got {kind!r}"
        raise PopulationError(f"accuracy_kind: {said}", on_command_line=f"--accuracy-kind: {said}")


def check_direction(frame: pd.DataFrame, widths: FloatArray | None, where: str) -> None:
    """Raise PopulationError where the parameters fall as the widths, shape (n, G), grow: what was removed is no width."""
    if widths is None or len(widths) < _ROWS_PER_GROUP * (widths.shape[1] + 1):
        return
    scaled = widths / widths.max(axis=0)
    columns = np.column_stack([scaled - scaled.mean(axis=0), np.ones(len(widths))])
    params = np.log(frame["params"].to_numpy(dtype=np.float64))
    slopes = np.linalg.lstsq(columns, params, rcond=None)[0]
    explained = np.corrcoef(columns @ slopes, params)[0, 1] if np.ptp(params) > 0 else 0.0
    if slopes[:-1].sum() < 0 and explained > -_FALLS:
        raise PopulationError(
            f"{where}: the larger the widths, the fewer parameters the networks have, so the columns hold what was removed, "
            "not what was kept. Give channels kept, or 1 - the pruning ratio"
        )


def check_recipes(frame: pd.DataFrame, recipe: npt.NDArray[np.int64], where: str) -> None:
    """Raise PopulationError if rows of one recipe, numbered by `recipe` (shape (n,)), differ in cost, or are its epochs."""
    for name in ("macs", "params"):
        spread = frame.groupby(recipe)[name].agg(["min", "max"])
        bad = spread["min"] != spread["max"]
        if bad.any():
            first = spread[bad].iloc[0]
            raise PopulationError(
                f"{where}: {name} differs between rows of one recipe, in {int(bad.sum())} recipes; the first, "
                f"{_rows(frame.index[recipe == bad.idxmax()])}, runs from {first['min']:,.10g} to {first['max']:,.10g}. "
                "Rows that share a recipe_id, or all their widths and settings, are replicates of one subnetwork "
                "and must cost the same. If they are different networks, name all columns of widths, or map the column "
                "that tells the networks apart to recipe_id"
            )
    for name in (str(c) for c in frame if _PASSES.match(str(c).lower())):
        passes, most = frame.groupby(recipe)[name], int(np.bincount(recipe).max())
        # The best epoch of each seed is another number for each recipe; a curve has the same ones for all.
        if most > 1 and (passes.nunique() == passes.size()).all() and frame[name].nunique() <= 1.5 * most:
            said = (
                f"{where} holds learning curves: up to {most} rows per network, which differ in column {name}. popstats "
                "reads one row per training; keep the last, "
            )
            last = frame[name].max()
            raise PopulationError(
                f"{said}frame[frame[{name!r}] == {last}]", on_command_line=f"{said}--where {name}={last}"
            )


def failed_rows(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which rows are trainings that failed, shape (n,)."""
    if "status" not in frame:
        return np.zeros(len(frame), dtype=bool)
    return (frame["status"] == "failed").to_numpy(dtype=bool, na_value=False)


def is_single_value(value: object) -> bool:
    """Return whether a cell holds one value, which can be compared and counted, and not a list or the like."""
    return isinstance(value, Hashable) and not isinstance(value, tuple)


def plain_columns(frame: pd.DataFrame, mapped: Iterable[str] = ()) -> pd.DataFrame:
    """Return the frame with its named index as columns, and with names free of blanks around them, unless `mapped`."""
    levels = [name for name in frame.index.names if name is not None and name not in frame.columns]
    frame = (frame.reset_index(level=levels) if levels else frame).reset_index(drop=True)
    kept = set(mapped)
    loose = {name: name.strip() for name in frame.columns if isinstance(name, str) and name not in kept}
    return frame.rename(columns=loose)


def unboxed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with categories, and numbers stored as objects or decimals, as plain values."""

    def plain(values: pd.Series) -> pd.Series:
        if isinstance(values.dtype, pd.CategoricalDtype):
            return pd.Series(np.asarray(values), index=values.index)
        if isinstance(values.dtype, pd.ArrowDtype) and pa.types.is_decimal(values.dtype.pyarrow_dtype):
            return values.astype(np.float64)
        return values.infer_objects()

    arrow = {name: kind for name, kind in frame.dtypes.items() if isinstance(kind, pd.ArrowDtype)}
    # Lists and the like, which pandas neither groups nor compares.
    nested = [name for name, kind in arrow.items() if pa.types.is_nested(kind.pyarrow_dtype)]
    frame = frame.astype(dict.fromkeys(nested, object))
    declared = [c.name for c in COLUMNS if c.name in frame and not pa.types.is_list(c.type)]
    return frame.assign(**{name: plain(frame[name]) for name in declared})


def lists_from_text(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the frame with lists that were written as text, or as groups with their names, as lists."""
    for name in (c.name for c in COLUMNS if c.name in frame and pa.types.is_list(c.type)):
        if not {str, dict} & set(map(type, frame[name])):
            continue
        cells = frame[name].map(_parsed, na_action="ignore")
        named = cells[cells.map(lambda cell: isinstance(cell, dict))]
        if len(named):
            groups = pd.DataFrame(named.tolist(), index=named.index)
            _refuse(named, groups.isna().any(axis=1), where, f"name each of the groups {list(groups)}")
            cells[named.index] = pd.Series(groups.to_numpy().tolist(), named.index)
            if name == "widths" and "group_names" not in frame:
                frame = frame.assign(group_names=pd.Series([[*map(str, groups)]] * len(frame), frame.index))
        frame = frame.assign(**{name: cells})
    return frame


def _parsed(cell: object) -> object:
    """Return the list that a text writes, as Python and JSON do or as numbers between marks; else the cell itself."""
    if not isinstance(cell, str):
        return cell
    # What is no literal is split at its marks.
    with suppress(ValueError, SyntaxError):
        if isinstance(found := ast.literal_eval(cell), list | tuple | dict):
            return found
    try:
        return [float(part) for part in re.split(r"[\s,;:/x_-]+", cell.strip(" []()"))]
    except ValueError:
        return cell


def chosen(frame: pd.DataFrame, conditions: Mapping[str, Any], where: str) -> npt.NDArray[np.bool_]:
    """Return which rows have these values in these columns, shape (n,); a text stands for the number it says."""
    keep = np.ones(len(frame), dtype=bool)
    for name, value in conditions.items():
        if name not in frame:
            raise PopulationError(f"where: no column {name!r}; there are: {', '.join(map(str, frame))}")
        keep &= _equal(frame[name], value)
        if not keep.any():
            found = ", ".join(map(str, frame[name].dropna().unique()[:_SHOWN_ROWS]))
            raise PopulationError(
                f"where: no subnetwork of {where} has {name} = {value!r}"
                f"{' beside the other conditions' if len(conditions) > 1 else ''}; {name} holds: {found}"
            )
    return keep


def _equal(values: pd.Series, wanted: object) -> npt.NDArray[np.bool_]:
    if isinstance(wanted, str):
        if pd.api.types.is_numeric_dtype(values) and values.dtype != bool:
            with suppress(ValueError):
                wanted = float(wanted)
        else:
            values = values.map(str)
    return (values == wanted).to_numpy(dtype=bool, na_value=False)


def rename_columns(frame: pd.DataFrame, columns: Mapping[str, str], where: str) -> pd.DataFrame:
    """Return the frame with foreign names replaced: `columns` maps popstats's name to the table's own."""
    if (levels := frame.columns.nlevels) > 1:
        raise PopulationError(f"{where} has column names of {levels} levels; popstats reads one")
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise PopulationError(f"{where} has more than one column named {twice}; rename or drop the others")
    for name, doubtful, why in _DOUBTFUL:
        if doubtful.search(str(columns.get(name, "")).lower()):
            raise PopulationError(f"columns: {name} is mapped to {columns[name]!r}, {why}")
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
            f"{names[0]!r}, one column: is the separator {mark!r}? popstats.load_population reads files with any "
            f"separator, as pandas.read_csv(file, sep={mark!r}) does"
        )
    return ", ".join(map(repr, names))


def _rows(labels: pd.Index) -> str:
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
        bare = {re.sub("[^a-z0-9]", "", str(c).lower()): str(c) for c in own}
        yours = {n: next((bare[c] for c in _LIKELY.get(n, ()) if c in bare), "<your column>") for n in others}
        remedies.append(f"map them with columns={yours!r}")
        options.append("map them with " + " ".join(f"--column {n}={c}" for n, c in yours.items()))
    if originals:
        remedies.append("pass original=popstats.Original(macs=..., params=..., accuracy=...)")
        options.append("pass --original-macs N --original-params N --original-accuracy PERCENT")
    said = f"{where} lacks {', '.join(absent)}; it has: {_names(own)}. To fix this, "
    raise PopulationError(said + " and ".join(remedies), on_command_line=said + " and ".join(options))


def _no_numbers(values: pd.Series) -> str:
    """Return which values of a column are no numbers, with their rows."""
    if values.dtype != object and not pd.api.types.is_string_dtype(values):
        return f"{values.dtype}; first values: {values.head(3).tolist()}"
    bad = values[values.notna() & pd.to_numeric(values, errors="coerce").isna()]
    if bad.empty:
        return f"numbers stored as {values.dtype} ({values.head(3).tolist()}); .astype(float) converts them"
    plain = "; write plain numbers, such as 69900000 or 93.25, without unit, percent sign or separators of thousands"
    shown = ", ".join(f"{value!r} in row {row}" for row, value in bad.head(_SHOWN_ROWS).items())
    return f"{shown}{f' and {len(bad) - _SHOWN_ROWS} more' if len(bad) > _SHOWN_ROWS else ''}{plain}"


def _check_kind(declared: Column, values: pd.Series, where: str) -> None:
    """Raise PopulationError unless the cells are lists, texts or numbers, as the column is declared."""
    cells, kind = values.dropna(), values.dtype
    if pa.types.is_list(declared.type):
        lists = cells.map(lambda v: isinstance(v, list | tuple | np.ndarray))
        _refuse(cells, ~lists.to_numpy(dtype=bool), where, "hold lists, one entry per group")
    elif declared.type == pa.string():
        single = cells.map(is_single_value) if cells.dtype == object else cells.notna()
        _refuse(cells, ~single.to_numpy(dtype=bool), where, "hold text")
    elif declared.required or len(cells):
        real = pd.api.types.is_integer_dtype(kind) or pd.api.types.is_float_dtype(kind)
        if real and not isinstance(kind, pd.SparseDtype):
            return
        raise PopulationError(f"{where}: column {declared.name} must hold numbers, got {_no_numbers(values)}")


def _check_values(declared: Column, values: pd.Series, where: str) -> None:
    """Raise PopulationError unless the values of finished trainings are there where needed, and legal."""
    bad: npt.ArrayLike
    if declared.choices:
        bad = values.notna() & ~values.isin(list(declared.choices))
    elif pa.types.is_list(declared.type) or declared.type == pa.string():
        return
    elif declared.required or not values.isna().all():
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        if declared.required and not np.isfinite(numbers).all():
            raise PopulationError(
                f"{where}: column {declared.name} is missing or not finite in {_rows(values.index[~np.isfinite(numbers)])}; "
                "drop those rows, or give them status='failed' with the reason in the column error"
            )
        # Missing values compare as legal: a column that is not required may have gaps.
        ends = (declared.minimum, -np.inf), (declared.above, -np.inf), (declared.maximum, np.inf)
        low, above, high = (default if end is None else end for end, default in ends)
        bad = (numbers < low) | (numbers <= above) | (numbers > high)
    else:
        return
    legal = f"{declared.legal} {declared.unit}".rstrip()
    said = f"a fraction, {declared.legal}" if declared.unit == "fraction" else legal
    hint = ". Losses and perplexities are not accuracies" if "accuracy" in declared.name else ""
    if declared.choices:
        hint = "; rename the column if it holds something else"
    _refuse(values, bad, where, f"be {said}", hint)


def _widths_are_numbers(done: pd.DataFrame, where: str) -> None:
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
    bad = ~((widths >= 0) & np.isfinite(widths)).all(axis=tuple(range(1, widths.ndim)))
    must = "hold lists of numbers >= 0 (0: the block is skipped)"
    _refuse(done["widths"], bad | (widths.ndim != 2), where, must)
    if skipped := np.flatnonzero(~widths.any(axis=0)).tolist():
        raise PopulationError(
            f"{where}: column widths holds the width 0 in every row at position {skipped[0]}; leave that group out"
        )


def _is_in_its_unit(done: pd.DataFrame, where: str) -> None:
    """Raise PopulationError for accuracies as fractions, and for costs above the original's or in another unit."""
    for name in ("accuracy", "original_accuracy"):
        if done[name].max() <= 1.0:
            raise PopulationError(
                f"{where}: column {name} looks like a fraction (all values between {done[name].min():g} and "
                f"{done[name].max():g}); popstats reads percent: multiply it by 100"
            )
    low = done["accuracy"] <= 1.0
    usual, scaled = done["accuracy"][~low], 100.0 * done["accuracy"]
    if (mixed := low & (scaled >= usual.quantile(0.05)) & (scaled <= usual.max())).any():
        _refuse(done["accuracy"], mixed, where, "hold percent in every row", "; multiply fractions by 100")
    for name in ("macs", "params"):
        cost, original = done[name], done[f"original_{name}"].iloc[0]
        share = (cost / done[f"original_{name}"]).to_numpy(dtype=np.float64)
        if (bad := share > 1.0 + TOLERATED).any():
            alike = "; do both count alike (FLOPs often count 2 per MAC)?" if share.max() <= 2.02 else ""
            raise PopulationError(
                f"{where}: {name} is larger than the original network's in {_rows(cost.index[bad])} "
                f"({cost[bad].iloc[0]:,.10g} against {original:,.10g}); a subnetwork cannot cost more than the "
                f"network it was cut from: check the original's numbers and the unit of the column{alike}"
            )
        if (tiny := share < (_OTHER_UNIT if share.max() < _OTHER_UNIT else _NOTHING_LEFT)).any():
            said = (
                f"{where}: {name} is {cost[tiny].iloc[0]:,.10g} in {_rows(cost.index[tiny])}, and the original's is "
                f"{original:,.10g}: are they in the same unit? Give"
            )
            raise PopulationError(
                f"{said} Original(...) in the unit of the table",
                on_command_line=f"{said} --original-{name} in the unit of the table",
            )


def _rises_with_cost(done: pd.DataFrame, where: str) -> None:
    """Raise PopulationError for numbers of which lower is better: they fall as networks grow, far from the original's."""
    accuracy, original = done["accuracy"], done["original_accuracy"].iloc[0]
    unlike = (accuracy < original / 2.0).mean() > _MOST or (accuracy > original).mean() > _ALL
    if len(done) < _ENOUGH or done["accuracy"].nunique() == 1 or done["macs"].nunique() == 1:
        return
    fall = accuracy.corr(done["macs"], method="spearman")
    if fall <= (_FALLS if unlike else _SURELY):
        raise PopulationError(
            f"{where}: column accuracy falls as macs grow (rank correlation {fall:.2f}). If lower is better, these are not "
            "accuracies: popstats expects the percentage of correct answers; convert error rates to 100 - error; losses, "
            "perplexities and ranks cannot be converted. If the costs are what was removed, give what is kept"
        )


def _targets_are_reductions(done: pd.DataFrame, where: str) -> None:
    """Raise PopulationError where planned targets are not what the rows' costs say."""
    if not {"regime_axis", "regime_target"} <= set(done):
        return
    for cost, axes in (("macs", ["macs", "both"]), ("params", ["params"])):
        rows = done[done["regime_axis"].isin(axes) & done["regime_target"].notna()]
        kept = (rows[cost] / rows[f"original_{cost}"]).groupby(rows["regime_target"]).median()
        for target, share in kept.items():
            if not 1.0 / _NEAR_TARGET <= share / max(1.0 - float(str(target)), 1e-9) <= _NEAR_TARGET:
                raise PopulationError(
                    f"{where}: column regime_target is {target:g} where half of the rows remove {1.0 - share:.3f} of the "
                    f"{cost} or more; it must be the fraction removed. Correct it, or leave the column out"
                )
