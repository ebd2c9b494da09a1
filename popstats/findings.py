"""Typed facts: what was found, in which regimes, with which numbers. `popstats.words` puts them into English."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple


class Span(NamedTuple):
    """Two ends of a range."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A number with its 90 % interval; over several regimes, the range of the number and the outermost ends."""

    value: float | Span
    lower: float
    upper: float


type Value = (
    float | str | Span | Estimate | Finding | tuple[Finding, ...] | tuple[str, ...] | tuple[Span, ...]
)


@dataclass(frozen=True)
class Finding:
    """One fact: its kind, the labels of the regimes it holds in (none: in all, or no matter), and its values."""

    kind: str  # one of those that `words` has a template for
    regimes: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict, hash=False)


def fact(kind: str, /, *regimes: str, **values: Value) -> Finding:
    """Return the finding of a kind in these regimes, with its values."""
    return Finding(kind, regimes, values)


def merge(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return one finding per kind and words, in order of appearance; numbers that differ become ranges."""
    alike: dict[object, list[Finding]] = {}
    for finding in findings:
        alike.setdefault(likeness(finding), []).append(finding)
    return tuple(_merged(found) if len(found) > 1 else found[0] for found in alike.values())


def likeness(value: Value) -> object:
    """Return what two values share if only numbers differ between them."""
    if isinstance(value, Finding):
        return value.kind, tuple((name, likeness(v)) for name, v in value.values.items())
    if isinstance(value, tuple) and not isinstance(value, (Span, Estimate)):
        return tuple(likeness(v) for v in value)
    return value if isinstance(value, str) else ""


def _merged(findings: Sequence[Finding]) -> Finding:
    regimes = tuple(dict.fromkeys(r for f in findings for r in f.regimes))
    values = {name: _joined([f.values[name] for f in findings]) for name in findings[0].values}
    return replace(findings[0], regimes=regimes, values=values)


def _joined(values: Sequence[Any]) -> Value:
    first = values[0]
    if isinstance(first, str):
        return first
    if isinstance(first, Finding):
        return _merged(values)
    if isinstance(first, Estimate):
        middle = _span([v.value for v in values])
        return Estimate(middle, min(v.lower for v in values), max(v.upper for v in values))
    if isinstance(first, tuple) and not isinstance(first, Span):
        # Of like findings these tuples have one length: strings are the same, findings are merged one by one.
        return tuple(_joined(column) for column in zip(*values, strict=True))  # type: ignore[return-value]
    return _span(values)


def _span(values: Sequence[float | Span]) -> float | Span:
    """Return the range of numbers and ranges; a single number where they are one."""
    low = min(v.low if isinstance(v, Span) else v for v in values)
    high = max(v.high if isinstance(v, Span) else v for v in values)
    return low if low == high and not isinstance(values[0], Span) else Span(low, high)
