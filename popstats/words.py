"""Numbers as a reader wants them: percent, points, intervals, counts, lists."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

#: Printed where there is no number.
MISSING = "–"
_MINUS = "−"
_NUMBER = re.compile(r"(?<![\w-])-?\d+(?:,\d{3})*(?:\.\d+)?")
_NUMBER_OR_RANGE = re.compile(rf"{_NUMBER.pattern}(?: to {_NUMBER.pattern})?")


def number(value: float, decimals: int = 2) -> str:
    """Return a number with a true minus sign; a dash where it is missing.

    >>> number(1.2345), number(-0.5, 1), number(float("nan"))
    ('1.23', '−0.5', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{abs(value):,.{decimals}f}"
    negative = value < 0 and any(digit in text for digit in "123456789")
    return f"{_MINUS}{text}" if negative else text


def interval_words(lower: float, upper: float, decimals: int = 2) -> str:
    """Return an interval in words.

    >>> interval_words(-0.1, 0.25)
    '−0.10 to 0.25'
    """
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return MISSING
    return f"{number(lower, decimals)} to {number(upper, decimals)}"


def with_interval(value: float, lower: float, upper: float, decimals: int = 2) -> str:
    """Return a number with its interval.

    >>> with_interval(1.0, 0.9, 1.25)
    '1.00 (0.90 to 1.25)'
    """
    if not math.isfinite(value):
        return MISSING
    return f"{number(value, decimals)} ({interval_words(lower, upper, decimals)})"


def percent(fraction: float, decimals: int | None = None) -> str:
    """Return a fraction in percent, with as many decimals as it needs (at most one) unless told.

    >>> percent(0.75), percent(0.875), percent(0.1234, 2)
    ('75 %', '87.5 %', '12.34 %')
    """
    if not math.isfinite(fraction):
        return MISSING
    places = decimals if decimals is not None else int(abs(100 * fraction - round(100 * fraction)) > 0.01)
    return f"{number(100 * fraction, places)} %"


def probability(value: float) -> str:
    """Return a probability with two decimals that never rounds to certainty.

    >>> probability(0.97), probability(0.9999), probability(0.0)
    ('0.97', '> 0.99', '< 0.01')
    """
    if not math.isfinite(value):
        return MISSING
    if value > 0.99:
        return "> 0.99"
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def p_value(value: float) -> str:
    """Return a p-value with three decimals that never rounds to zero.

    >>> p_value(0.0004), p_value(0.25)
    ('< 0.001', '0.250')
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float) -> str:
    """Return a whole number with thousands separators.

    >>> count(49152)
    '49,152'
    """
    return f"{int(value):,}"


def plural(value: int, singular: str, several: str | None = None) -> str:
    """Return a count with its noun.

    >>> plural(1, "regime"), plural(3, "regime")
    ('1 regime', '3 regimes')
    """
    return f"{count(value)} {singular if value == 1 else several or singular + 's'}"


def join_words(items: Sequence[str], last: str = "and") -> str:
    """Return a list in words.

    >>> join_words(["a", "b", "c"])
    'a, b and c'
    """
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def same_but_numbers(text: str) -> str:
    """Return a text without its numbers: equal for texts that `spanned` merges.

    >>> same_but_numbers("9 recipes; at least 10")
    '# recipes; at least #'
    """
    return _NUMBER.sub("#", text)


def spanned(texts: Sequence[str]) -> str:
    """Merge texts that differ in their numbers only: "smallest to largest" where they do.

    >>> spanned(["skewness 3.0, n 5", "skewness 2.4, n 5"])
    'skewness 2.4 to 3.0, n 5'
    >>> spanned(["skewness -0.8 (-1.5 to 0.2)", "skewness -1.4 (-2.2 to -0.3)"])
    'skewness -1.4 to -0.8 (-2.2 to 0.2)'
    """
    columns = iter(zip(*(_NUMBER_OR_RANGE.findall(text) for text in texts), strict=True))

    def span(_: re.Match[str]) -> str:
        ends = sorted(_NUMBER.findall(" ".join(next(columns))), key=_value)
        return ends[0] if _value(ends[0]) == _value(ends[-1]) else f"{ends[0]} to {ends[-1]}"

    return _NUMBER_OR_RANGE.sub(span, texts[0])


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def typeset(text: str) -> str:
    """Return text with a true minus sign before numbers, R², quotes of prose, and whole percentages and intervals.

    >>> typeset("-0.5 at 75 %").replace(chr(160), "~"), typeset("1.0 (0.9 to 1.1)").replace(chr(160), "~")
    ('−0.5 at 75~%', '1.0 (0.9~to~1.1)')
    >>> typeset("try noise='student'")
    'try noise=“student”'
    """
    signed = re.sub(r"(?<![\w-])-(?=\d)", _MINUS, text).replace("R^2", "R²")
    quoted = re.sub(r"(?<==)'(\w+)'", r"“\1”", signed)
    whole = re.sub(r"\(([−\d.,]+) to ([−\d.,]+)\)", "(\\1\u00a0to\u00a0\\2)", quoted)
    return re.sub(r"(?<=\d) %", "\u00a0%", whole)


def regime_name(label: str) -> str:
    """Return a regime's label as a percentage removed; other labels stay.

    >>> regime_name("0.75"), regime_name("0.875"), regime_name("all")
    ('75 %', '87.5 %', 'all')
    """
    try:
        return percent(float(label))
    except ValueError:
        return label


def regime_names(labels: Sequence[str], last: str = "and") -> str:
    """Return regimes' labels as a list in words with one percent sign.

    >>> regime_names(["0.65", "0.75", "0.875"]), regime_names(["0.65"]), regime_names(["0.65", "all"])
    ('65, 75 and 87.5 %', '65 %', '65 % and all')
    """
    names = [regime_name(label) for label in labels]
    if not all(name.endswith(" %") for name in names):
        return join_words(names, last)
    return join_words([*(name.removesuffix(" %") for name in names[:-1]), *names[-1:]], last)
