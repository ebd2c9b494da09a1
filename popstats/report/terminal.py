"""What a fit and its verdicts say on a terminal: what to do and what to know first, then one line per regime."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import get_args

import pandas as pd

from popstats.figures.content import Section, VerdictRow
from popstats.judgement.analysis import Analysis
from popstats.judgement.judge import analyse
from popstats.judgement.verdicts import CLAIMS, Outcome, Thresholds, Verdicts
from popstats.posterior.fit import Fit
from popstats.posterior.optimum import NEAR_OPTIMAL_POINTS
from popstats.report.advice import advice
from popstats.report.alerts import alerts, caveats
from popstats.report.compose import claims, loaded_by, threshold_words
from popstats.words import ALL, MISSING, interval_words, probability, regime_name, sentences, with_interval

#: Lines are broken at spaces; the indent of what belongs to a regime's line.
_INDENT = " " * 4


def verdicts_text(fit: Fit, verdicts: Verdicts, width: int | None = None, source: str | None = None) -> str:
    """Return the verdicts as a reader needs them: what to do, what stands against it, then each conjecture."""
    analysis = analyse(fit, verdicts)
    known = caveats(analysis)
    lines = _wrapped([repr(fit)[1:-1], ""], width)
    lines += _box_lines(advice(analysis, known, source or loaded_by(fit), command_line=True), width)
    if listed := [alert.text for alert in alerts(analysis, known, command_line=True)]:
        lines += ["", "Read first:", *_wrapped(listed, width, "  ! ", _INDENT)]
    for claim in claims(analysis):
        lines += ["", f"{claim.conjecture:<4} {CLAIMS[claim.conjecture]}"]
        lines += _wrapped(_lines(claim.merged, verdicts[0].thresholds), width, "  ", _INDENT)
    footer = [threshold_words(verdicts[0].thresholds)] if len(verdicts) else []
    if open_ := sum(bool(v.remedy) for v in verdicts):
        footer.append(f"--json tells what would decide {open_} of these (key “remedy”).")
    lines += ["", *_wrapped(footer, width)]
    return "\n".join(lines)


def _box_lines(box: Section, width: int | None) -> list[str]:
    """Return the box What to do, its tables about regimes as one line per regime."""
    told: dict[object, list[str]] = {}
    for table in (table for _, table in box.tables if table.columns[0] == "removed"):
        for first, *cells in table.rows:
            pairs = zip(table.columns[1:], map(str, cells), strict=True)
            told.setdefault(first, []).extend(map(": ".join, pairs))
    lines = _wrapped([f"{box.heading}: {box.sentence}"], width)
    lines += _wrapped([f"{at} removed; {'; '.join(of)}" for at, of in told.items()], width, "  ", _INDENT)
    lines += _wrapped(box.paragraphs, width, "  - ", _INDENT)
    for label, code in box.code:
        lines += ["", f"{label}:", *(f"  {line}" for line in code.splitlines())]
    return lines


def _lines(rows: Sequence[VerdictRow], limits: Thresholds) -> list[str]:
    """Return the lines of one conjecture, by outcome and then by regime."""
    return [_line(row, limits) for outcome in get_args(Outcome) for row in rows if row.outcome == outcome]


def _line(row: VerdictRow, limits: Thresholds) -> str:
    place = f"{row.outcome}, {'over all regimes' if row.regime == ALL else row.place}"
    if row.outcome == "not assessable":
        return f"{place}: {row.reason}"
    if row.outcome != "undecided" or row.regime == ALL or row.probability is None:
        return f"{place}: {row.sentence}"
    held = f"{place}: posterior probability {probability(row.probability)}"
    if row.probability >= limits.supported:  # Withheld: why.
        return f"{place}: {row.reason}"
    if row.prior_probability is None:
        return held
    weak = "; the evidence is too weak to refute it" if row.probability <= limits.refuted else ""
    return f"{held} (prior {probability(row.prior_probability)}){weak}"


def fit_text(fit: Fit, checked: bool, width: int | None = None) -> str:
    """Return a fit as a reader needs it: whether it may be believed, what to look at first, then the optima."""
    lines = _wrapped([repr(fit)[1:-1]], width)
    if fit.settings.curve == "smooth":
        lines += [] if checked else ["", *_wrapped(["Predictive checks are left to the report."], width)]
        known = [*fit.extrapolated, *(fit.predictive_checks.alerts if checked else ())]
        if found := sentences(known, command_line=True):
            lines += ["", "Read first:", *_wrapped(found, width, "  ! ", _INDENT)]
    lines += ["", _optima_table(fit)]
    if words := _reading(fit):
        lines += ["", *_wrapped([words], width)]
    return "\n".join(lines)


def _reading(fit: Fit) -> str:
    """Return how to read the table of optima; nothing of a rejected fit, whose reasons stand above it."""
    if fit.settings.curve != "smooth":
        return (
            f"The {fit.settings.curve} curve has its minimum wherever its form puts it. It is meant for comparison with the "
            "smooth one: no verdict comes from it, and no range here is a target. Intervals are 90 %."
        )
    if not fit.convergence.ok:
        return ""
    stated = " ".join(sentences(fit.stated_elsewhere))
    if (fit.optima()["near_height"] > NEAR_OPTIMAL_POINTS).any():
        stated += " within, points: the height of a range, where it had to rise above 0.05 points."
    return f"{stated.strip()}\n\n" * bool(stated) + (
        "C3a: whether there is an optimal mCB. Choose recipes by the near-optimal range where C3a is supported; elsewhere "
        "the range only shows where the fitted curve is lowest. n counts trainings. Intervals are 90 %."
    )


def optimum_outcomes(fit: Fit) -> dict[str, str]:
    """Return the verdict on C3a by regime; "" for a companion curve, from which no verdict comes."""
    labels = [r.label for r in fit.regimes]
    if fit.settings.curve != "smooth":
        return dict.fromkeys(labels, "")
    return dict(Analysis(fit).outcomes)


def near_optimal(fit: Fit) -> dict[str, tuple[tuple[float, float], ...]]:
    """Return by fitted regime every stretch of mCB to choose from; of a companion curve, the range about its minimum."""
    if fit.settings.curve != "smooth":
        ends = fit.optima().set_index("regime")[["near_lower", "near_upper"]].dropna()
        pairs = zip(ends.index, ends.to_numpy().tolist(), strict=True)
        return {str(label): (tuple(pair),) for label, pair in pairs}
    return {r.label: tuple((s.low, s.high) for s in r.stretches) for r in Analysis(fit).regimes}


def _optima_table(fit: Fit) -> str:
    optima, outcomes, near = fit.optima(), optimum_outcomes(fit), near_optimal(fit)
    stretches = [near.get(r, ()) for r in optima["regime"]]
    table = pd.DataFrame({
        "removed": [regime_name(r) for r in optima["regime"]],
        "n": optima["n"].astype(str),
        "C3a": [outcomes[r] for r in optima["regime"]],
        "near-optimal": [interval_words(*ends[0]) if ends else MISSING for ends in stretches],
        "within, points": [f"{h:g}" if h > NEAR_OPTIMAL_POINTS else "" for h in optima["near_height"]],
        "lowest at": [with_interval(*v) for v in optima[["mcb", "mcb_lower", "mcb_upper"]].to_numpy()],
        "drop, points": [with_interval(*v) for v in optima[["limit", "limit_lower", "limit_upper"]].to_numpy()],
        "": optima["reason"],
    })  # fmt: skip
    empty = [name for name in ("C3a", "within, points", "") if not table[name].any()]
    # Further stretches stand in rows of their own, so that the table keeps its width.
    further = [(k, f"or {interval_words(*ends)}") for k, found in enumerate(stretches) for ends in found[1:]]
    more = pd.DataFrame({"near-optimal": [words for _, words in further]}, index=[k for k, _ in further])
    whole = pd.concat([table, more]).sort_index(kind="stable").fillna("")
    return str(whole.drop(columns=empty).to_string(index=False))


def _wrapped(texts: Iterable[str], width: int | None, first: str = "", rest: str = "") -> list[str]:
    if width is None:
        return [f"{first}{text}" for text in texts]
    wrap = textwrap.TextWrapper(
        width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    # Only a plain space may be broken at: a number keeps its percent sign.
    whole = (text.replace(" %", "\u00a0%") for text in texts)
    return [line.replace("\u00a0", " ") for text in whole for line in wrap.wrap(text) or [""]]
