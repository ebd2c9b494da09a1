"""Tables in text, as people have them: any separator and encoding, decimal commas, thousands separators."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections.abc import Collection, Sequence

import pandas as pd

from popstats.errors import PopulationError

#: What may stand between two values: the one that finds the most names in the header is the table's.
SEPARATORS = (",", ";", "\t", "|")
#: The line by which spreadsheets name the separator, and lines that tables begin with to explain themselves.
_DECLARED, _COMMENT = re.compile(r"sep=(.)\s*$"), "#"
#: What may stand between groups of three digits, beside the mark that is not the decimal one.
_BLANKS = r"\s'’_"


def read_delimited(
    content: bytes, where: str, texts: Collection[str], numbers: Collection[str]
) -> pd.DataFrame:
    """Return a table of delimited text; columns named in `texts` stay text, those in `numbers` hold numbers."""
    stream = io.StringIO(_decoded(content), newline=None)
    names, separator, lines = _header(stream)
    # Empty lines in the header's place: messages then count lines as the file does.
    rows = "\n" * lines + stream.read()
    places = {name.strip(): place for place, name in enumerate(names)}
    kept = [places[name] for name in texts if name in places]
    frame = _parsed(rows, separator, names, kept, where)
    numeric = [places[name] for name in numbers if name in places]
    if not all(pd.api.types.is_numeric_dtype(frame[place]) for place in numeric):
        cells = _parsed(rows, separator, names, numeric, where)[numeric]
        frame[numeric] = as_numbers(cells, where, ";" in separator)
    return without_nameless(frame.set_axis(names, axis=1))


def as_numbers(cells: pd.DataFrame, where: str, comma: bool = False) -> pd.DataFrame:
    """Return columns of text as numbers, those with other cells as they are; `comma`: decimal, where no cell tells."""
    mark = _decimal_mark(pd.concat([cells[name] for name in cells]), where, comma)
    between = rf"[{'.' if mark == ',' else ','}%{_BLANKS}]"

    def convert(column: pd.Series) -> pd.Series:
        if not column.dropna().str.fullmatch(_number(mark)).all():
            return column
        return pd.to_numeric(column.str.replace(between, "", regex=True).str.replace(mark, "."))

    return cells.apply(convert)


def _number(mark: str) -> str:
    """Return the pattern of a number with this decimal mark, with or without separators of thousands."""
    whole = rf"\d{{1,3}}(?:[{'.' if mark == ',' else ','}{_BLANKS}]\d{{3}})+|\d+"
    return rf"\s*[+-]?(?:{whole})?(?:[{mark}]\d*)?(?:[eE][+-]?\d+)?\s*%?\s*"


def _decimal_mark(cells: pd.Series, where: str, comma: bool) -> str:
    """Return the mark that some number can only be read with."""
    with_comma, with_point = (cells.str.fullmatch(_number(mark)) for mark in ",.")
    only_comma, only_point = cells[with_comma & ~with_point], cells[with_point & ~with_comma]
    if len(only_comma) and len(only_point):
        raise PopulationError(
            f"{where} has decimal commas ({only_comma.iloc[0]!r}) and decimal points ({only_point.iloc[0]!r}); "
            "write all numbers with one of them"
        )
    return "," if len(only_comma) or (comma and not len(only_point)) else "."


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")  # spreadsheets on Windows


def _header(stream: io.StringIO) -> tuple[list[str], str, int]:
    """Return the names, their separator and how many lines they end; the stream stands behind them."""
    start, lines, declared = 0, 0, None
    for line in iter(stream.readline, ""):
        declared = declared or _DECLARED.match(line)
        if line.strip() and not line.startswith(_COMMENT) and not _DECLARED.match(line):
            break
        start, lines = stream.tell(), lines + 1
    found: dict[str, tuple[list[str], int]] = {}
    for separator in [declared[1]] if declared else SEPARATORS:
        stream.seek(start)
        reader = csv.reader(iter(stream.readline, ""), delimiter=separator)
        found[separator] = next(reader, []), lines + reader.line_num
    best = max(found, key=lambda separator: len(found[separator][0]))
    names, lines = found[best]
    words = names[0].split() if len(names) == 1 else []
    return (words, r"\s+", lines) if len(words) > 1 else (names, best, lines)


def _parsed(rows: str, sep: str, names: Sequence[str], texts: Sequence[int], where: str) -> pd.DataFrame:
    """Return the rows under the numbers of their columns, those in `texts` as text."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                io.StringIO(rows),
                sep=sep,
                header=None,
                names=range(len(names)),
                index_col=False,  # else rows longer than the header would give their first values to the index
                skipinitialspace=True,
                dtype=dict.fromkeys(texts, str),
                low_memory=False,
            )
        except (pd.errors.ParserWarning, ValueError) as error:
            # Of rows that are too long the parser complains, of the first one it warns; else there are no columns, no rows.
            known = isinstance(error, pd.errors.ParserError) and "Expected" in str(error)
            if not known and not isinstance(error, pd.errors.ParserWarning):
                raise PopulationError(f"{where}: cannot be read as delimited text ({error})") from error
            place = f" ({str(error).rpartition(': ')[2].strip()})" * known
            raise PopulationError(
                f"{where}: rows hold more values than the header has names{place}; its names: "
                f"{', '.join(map(repr, names))}. Name every column, or remove what has no name"
            ) from error


def without_nameless(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame without columns that have no name and are empty or number the rows, as programs leave them."""
    running = pd.RangeIndex(len(frame))

    def says_nothing(values: pd.Series) -> bool:
        return bool(values.isna().all() or any((values == running + first).all() for first in (0, 1)))

    named = [bool(str(name).strip()) for name in frame.columns]
    return frame.loc[:, [named[i] or not says_nothing(frame.iloc[:, i]) for i in range(len(named))]]
