"""Typed facts: what was found, in which regimes, with which numbers. `popstats.words` puts them into English."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

# One line of kinds per place where they are made; `words` has a template for each, and a test compares the two.
type Kind = Literal[
    # What a reader should know about a table.
    "run unfinished", "blanks removed", "best accuracies", "validation accuracies", "unknown accuracies", "collapsed",
    "most collapsed",
    "better than original", "did not learn", "learned little", "above original", "half the MACs", "other count",
    "techniques unsaid", "copies", "repeated", "theoretical MACs", "equal costs",
    # Why a regime has no curve.
    "few recipes", "few recipes of techniques", "one mCB", "mCB follows cost", "one drop",
    # Why a fit cannot be used, and the ways out.
    "not converged", "fit another way", "few draws", "R-hat", "ESS", "divergent", "E-BFMI", "grid edge",
    # Why a claim cannot be assessed, or is withheld.
    "needs optimum", "no optimum", "optimum undecided", "band not reachable", "original not observed", "few outside band",
    "few for halves", "few regimes with optimum", "few for validation", "few for spaces", "one STD", "no common costs",
    "no widths", "widths incomplete", "law still learns", "no STD", "one technique", "few techniques here",
    "technique rejected", "no optimum of technique",
    "moves with cost", "outliers", "clusters", "groups", "kinds", "order", "one per cost", "lucky",
    # What else the reason of a verdict says.
    "decision", "mixture", "other axis", "outside band", "halves noise", "EDF distance", "unnamed techniques", "observed",
    # What would decide.
    "more recipes", "twice the recipes", "deciding recipes", "too many recipes",
    "name widths", "narrower regimes", "fill the gaps", "down-weight outliers", "add unrelated", "one kind",
    "random order", "all networks",
    # Clauses inside verdicts.
    "flat", "one-sided", "lopsided", "near-optimal", "two regions", "two costs", "technique optimum",
    "widths unknown", "widths explain", "widths explain a part", "widths reach unknown", "interaction", "beyond widths",
    "widths undecided", "reach",
    # Verdicts.
    "not assessable", "C1", "C2", "C3a", "C3b", "C3c", "C3d", "C4", "S1", "S1 overall", "R1", "M1",
    # What a fit's own checks found.
    "heavy tails", "skewed up", "skewed down", "light tails", "far recipe", "wrong coverage", "not uniform", "breaks trend",
    "leans on priors", "robust to priors",
    # What the limit follows over regimes.
    "limit", "limit extrapolated",
    # What several populations say together.
    "pooled quantity", "pooled verdicts", "doubled mCB", "doubled limit",
    # What stands against relying on a best mCB.
    "predicts nothing", "winners elsewhere", "envelope elsewhere", "mix moves", "rests on few", "outliers bend", "pooled",
    "misfit",
    # What a reader must know first.
    "rejected", "not fitted", "extrapolated", "stated among recipes", "failed trainings", "outliers widen",
    "changing spread", "few in regime",
    "no replicates",
    # Words that stand for themselves.
    "text",
]  # fmt: skip


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

    kind: Kind
    regimes: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict, hash=False)


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
