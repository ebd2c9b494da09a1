"""Every conjecture with its verdicts, as a reader meets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from popstats.figures.content import Claim, VerdictRow, plain
from popstats.findings import likeness
from popstats.judgement.analysis import Analysis
from popstats.judgement.optimum_claims import COST_CONJECTURE
from popstats.judgement.verdicts import CLAIMS, Outcome, Thresholds, Verdict
from popstats.words import ALL, AXIS_WORDS, points, regime_names, sentences, uncapitalized

_OUTCOMES: tuple[Outcome, ...] = ("supported", "refuted", "undecided", "not assessable")
#: Conjectures whose regimes fix parameters whatever the axis of the fit, and the reverse.
_OWN_AXIS = {"C1": "macs", "C2": "params"}
#: The optimal mCB first, then whether it is more than the widths, then the rest; C1 and C2 repeat C3a in other units.
_FIRST, _LAST = ("C3a", "C3c", "C3b", "C3d", "M1"), ("C1", "C2")
_ORDER = (*_FIRST, *(c for c in CLAIMS if c not in _FIRST + _LAST), *_LAST)


def claims(analysis: Analysis) -> tuple[Claim, ...]:
    """Return every conjecture that was judged: the optimal mCB and what there is to it first, its twins in costs last."""
    judged = [(c, [v for v in analysis.verdicts if v.conjecture == c]) for c in _ORDER]
    return tuple(_claim(analysis, c, verdicts) for c, verdicts in judged if verdicts)


def _claim(analysis: Analysis, conjecture: str, verdicts: list[Verdict]) -> Claim:
    axis = AXIS_WORDS[_OWN_AXIS.get(conjecture, analysis.fit.regime_axis)]
    return Claim(
        conjecture=conjecture,
        claim=CLAIMS[conjecture],
        summary=_summary(verdicts, axis),
        negligible_region=next((v.negligible_region for v in verdicts if v.negligible_region), ""),
        quantity=next((v.quantity for v in verdicts if v.quantity), ""),
        rows=tuple(_row(v) for v in verdicts),
        merged=merged_rows(verdicts),
        folded=conjecture == COST_CONJECTURE[analysis.fit.regime_axis],
    )


def _summary(verdicts: list[Verdict], axis: str) -> str:
    if len(verdicts) == 1:
        return verdicts[0].sentence
    over_all = [f" Over all regimes: {v.outcome}." for v in verdicts if v.regime == ALL]
    each = [v for v in verdicts if v.regime != ALL]
    parts = []
    for outcome in _OUTCOMES:
        regimes = [v.regime for v in each if v.outcome == outcome]
        if len(regimes) == len(each):
            where = {1: "the one regime", 2: "both regimes"}.get(len(each), f"all {len(each)} regimes")
            return f"{outcome.capitalize()} in {where}.{''.join(over_all)}"
        if regimes:
            parts.append(f"{outcome} at {regime_names(regimes)}")
    return f"By {axis} removed: {'; '.join(parts)}.{''.join(over_all)}"


def _row(verdict: Verdict) -> VerdictRow:
    own = [field.name for field in fields(VerdictRow) if hasattr(verdict, field.name)]
    told: dict[str, Any] = {name: plain(getattr(verdict, name)) for name in own}
    return VerdictRow(place=regime_names([verdict.regime]), **told)


def merged_rows(verdicts: Sequence[Verdict]) -> tuple[VerdictRow, ...]:
    """Return the rows of a table: those that cannot be assessed for one reason share one, where the first stood."""
    groups: dict[object, list[Verdict]] = {}
    for i, verdict in enumerate(verdicts):
        alike = tuple(map(likeness, verdict.basis)) if verdict.outcome == "not assessable" else i
        groups.setdefault(alike, []).append(verdict)
    return tuple(_joint(found) if len(found) > 1 else _row(found[0]) for found in groups.values())


def _joint(verdicts: Sequence[Verdict]) -> VerdictRow:
    reason = " ".join(sentences([f for v in verdicts for f in v.basis]))
    return replace(
        _row(verdicts[0]),
        place=regime_names([v.regime for v in verdicts]),
        sentence=f"Cannot be assessed: {uncapitalized(reason)}",
        reason=reason,
        remedy="\n".join(sentences([f for v in verdicts for f in v.remedies])),
    )


def threshold_words(limits: Thresholds) -> str:
    """Return what the verdicts were made with."""
    return (
        f"Supported: posterior probability ≥ {limits.supported:g}. Refuted: ≤ {limits.refuted:g}, also under even prior "
        f"odds, or the whole interval is negligible. At an optimal mCB the expected drop is more than {points(limits.rise)} "
        f"below that at both ends of the observed range; “practically” means that it costs under {points(limits.regret)}. "
        "How often these rules err on known truths: docs/error-rates.md."
    )
