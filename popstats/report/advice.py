"""The box at the top: what to do, how sure that is and the next command; where nothing is decided, what is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from popstats.errors import PopstatsError
from popstats.figures.content import Section, Table
from popstats.figures.curve_figures import MASS_WORDS, limit_sentence, measured, near_words
from popstats.figures.space_figures import even_sentence
from popstats.findings import Finding, Span, merge
from popstats.judgement.analysis import Analysis, RegimePosterior
from popstats.planning.recommend import Recommendation, recommend
from popstats.population.recipes import original_widths
from popstats.report.alerts import WEAK, weak_words
from popstats.words import (
    INTERVAL_WORDS,
    capitalized,
    clause,
    count,
    interval_words,
    join_words,
    number,
    place,
    points,
    regime_name,
    regime_names,
    sentence,
    sentences,
    span_words,
)

#: What the reader is told that mCB is.
_RATIO = "FLOPs-to-parameters ratio (mCB; 1 is the original's)"
#: Where the optimal mCB's interval is this many times wider than its near-optimal range, the range is no target.
LOOSE = 3.0
#: This many aims, and regimes, are named in the sentence; more stand in the table alone.
_NAMED, _LISTED = 2, 4
#: Narrower stretches of mCB (as a factor) that are ruled out are not worth a word.
_NARROWEST = 1.05

#: By regime: what `popstats.recommend` returns for its budget.
type Recommendations = Mapping[str, Recommendation]


def advice(analysis: Analysis, known: Sequence[Finding], source: str, command_line: bool = False) -> Section:
    """Return the box at the top; `known`: the caveats, `source`: what the population is loaded by."""
    if not analysis.fit.convergence.ok:
        why = f"Do not use these results: {clause(analysis.rejection)}. {sentence(analysis.way_out)}"
        figures = "The figures below show the rejected draws; their ranges cannot be used."
        return Section("what-to-do", "What to do", why, (figures,))
    advised, refusal = _recommended(analysis)
    weak = [f for f in known if f.kind in WEAK]
    weakened = {r for f in weak for r in f.regimes}
    sure = [r for r in analysis.verdicts.regimes_where("C3a", "supported") if r not in weakened]
    even, by_mcb = even_sentence(analysis), _by_mcb(analysis, sure)
    by_widths = _by_widths(analysis, advised)
    lead = [weak_words(known, command_line)]
    if advised:
        lead += [by_widths] if _clear(advised) or not sure else [by_mcb, by_widths]
    else:
        lead += [by_mcb] if sure else [by_mcb, even]
    paragraphs = (
        refusal,
        *dict.fromkeys(a.note for a in advised.values()),
        by_mcb,
        _original_ratio(analysis),
        _widths(analysis),
        even,
        limit_sentence(analysis, reliable=True),
    )
    return Section(
        key="what-to-do",
        heading="What to do",
        sentence=" ".join(text for text in lead if text),
        paragraphs=tuple(text for text in paragraphs if text and text not in lead),
        tables=_tables(analysis, advised, sure),
        code=_next(analysis, advised, sure, source),
    )


def _recommended(analysis: Analysis) -> tuple[Recommendations, str]:
    """Return the recommended recipe of each regime, and why there is none where there is none at all."""
    population, axis = analysis.fit.population, analysis.fit.regime_axis
    found: dict[str, Recommendation] = {}
    refusal = ""
    if population.widths is None:
        return found, ""
    for regime in analysis.fit.regimes:
        try:
            found[regime.label] = recommend(population, reduction=regime.target, axis=axis)
        except PopstatsError as error:
            refusal = f"No widths can be recommended: {str(error).rstrip('.')}."
    return found, "" if found else refusal


def _clear(advised: Recommendations) -> list[str]:
    """Return the regimes in which the recommended widths clearly gain over uniform pruning."""
    return [regime for regime, found in advised.items() if found.gain_lower > 0]


def _by_widths(analysis: Analysis, advised: Recommendations) -> str:
    """Return what the recommended widths gain over uniform pruning; "" without any."""
    if not advised:
        return ""
    clear = _clear(advised)
    if not clear:
        return "No gain over uniform pruning is clear: train the recommended widths and uniform pruning, and compare."
    most = max(clear, key=lambda r: float(advised[r].gain))
    interval = f"{INTERVAL_WORDS} {interval_words(advised[most].gain_lower, advised[most].gain_upper)}"
    largest = f"{place([most])}: {number(advised[most].gain)}, {interval}" if len(clear) > 1 else interval
    rest = "" if len(clear) == len(advised) else " Elsewhere, no gain over uniform pruning is clear."
    return (
        f"Use the recommended widths {_where(analysis, clear)}: they are predicted to drop "
        f"{span_words([advised[r].gain for r in clear])} points less than uniform pruning ({largest}).{rest}"
    )


def _by_mcb(analysis: Analysis, sure: Sequence[str]) -> str:
    """Return whether there is an optimal mCB and where, or that this is not decided."""
    if not analysis.fit.fitted:
        reasons = [replace(r.reason, regimes=(r.label,)) for r in analysis.fit.regimes if r.reason]
        told = [f"{capitalized(place(f.regimes))}: {clause(f)}." for f in merge(reasons)]
        return f"No claim is made about the optimal {_RATIO}. {' '.join(told)}"
    if not any(v.conjecture == "C3a" for v in analysis.verdicts):
        return f"Whether there is an optimal {_RATIO} was not judged."
    supported, refuted, open_ = (
        analysis.verdicts.regimes_where("C3a", outcome) for outcome in ("supported", "refuted", "undecided")
    )
    if sure:
        aims = "aim for the ranges in the table"
        if len(sure) <= _NAMED:
            aims = f"aim for {join_words([_aim(analysis, r, len(sure) > 1) for r in sure])}"
        return f"There is an optimal {_RATIO} {_where(analysis, sure)}: {aims}."
    if supported:
        return f"Do not aim for the fitted optimum {_where(analysis, supported)}."
    if refuted and not open_:
        return f"There is no optimal {_RATIO} {_where(analysis, refuted, 'in any regime')}{_instead(analysis, refuted)}."
    return f"No optimal {_RATIO} could be established at any pruning level."


def _where(analysis: Analysis, labels: Sequence[str], all_of_them: str = "in every regime") -> str:
    if len(labels) == len(analysis.fit.regimes) > 1:
        return all_of_them
    if len(labels) > _LISTED:
        return f"in {len(labels)} of {len(analysis.fit.regimes)} regimes"
    return f"with {regime_names(labels)} of the {analysis.axis_words} removed"


def _instead(analysis: Analysis, refuted: Sequence[str]) -> str:
    """Return what a reader may do where there is no optimal mCB, in brackets after a space; "" where nothing is clear."""
    told: dict[str, list[str]] = {}
    for regime in refuted:
        told.setdefault(_as_good(analysis.by_label[regime]), []).append(regime)
    clauses = [f"{what} at {regime_names(where)}" for what, where in told.items() if what]
    return f" ({'; '.join(clauses)})" if clauses else ""


def _as_good(regime: RegimePosterior) -> str:
    """Return which mCB values do as well as any inside the observed range; "" where that is not clear."""
    if regime.flat:
        return "mCB hardly matters"
    return clause(regime.one_sided).partition(";")[0] if regime.one_sided else ""


def _aim(analysis: Analysis, regime: str, named: bool = False) -> str:
    """Return every stretch of mCB that is near-optimal, and the optimal mCB with its interval."""
    row, regions = analysis.optima[regime], analysis.by_label[regime].stretches
    where = f" at {regime_name(regime)}" if named else ""
    # Where the interval is far wider than the stretches, these would promise what is not known.
    loose = math.log(row.mcb_upper / row.mcb_lower) > LOOSE * sum(math.log(b / a) for a, b in regions)
    interval = f"{INTERVAL_WORDS} {interval_words(row.mcb_lower, row.mcb_upper)}"
    if analysis.by_label[regime].regions:
        return (
            f"{near_words(analysis, regime)}{where} (two near-optimal ranges, with worse values in between)"
        )
    if loose:
        return f"{number(row.mcb)}{where} (uncertain: {interval})"
    near, _, wider = near_words(analysis, regime).partition(" (")
    return f"{near}{where} ({wider.replace(')', '; ')}optimum {number(row.mcb)}, {interval})"


def _ruled_out(regime: RegimePosterior) -> tuple[Span, ...]:
    """Return the stretches of mCB that cost more than the required rise, wherever the optimum is."""
    above = regime.drop > regime.drop.min(axis=1, keepdims=True) + regime.thresholds.rise
    chosen = above.mean(axis=0) >= regime.thresholds.supported
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(int)))
    ends = np.exp(regime.grid[np.stack([edges[::2], edges[1::2] - 1], axis=1)])
    return tuple(Span(float(low), float(high)) for low, high in ends if high > _NARROWEST * low)


def _original_ratio(analysis: Analysis) -> str:
    supported, refuted = (analysis.verdicts.regimes_where("C3c", o) for o in ("supported", "refuted"))
    parts = []
    if supported:
        worst = max(analysis.optima[r].regret_at_original for r in supported)
        parts.append(
            f"keeping the original's ratio is practically the best {place(supported)} "
            f"(it costs {number(worst)} points or less)"
        )
    if refuted:
        costs = [measured(analysis.optima[r], "regret_at_original") for r in refuted]
        subject = "it" if supported else "keeping the original's ratio"
        parts.append(
            f"{subject} is not the best {place(refuted)}: it costs {join_words(costs)} points ({INTERVAL_WORDS})"
        )
    return f"{capitalized('; '.join(parts))}." if parts else ""


def _widths(analysis: Analysis) -> str:
    """Return what M1 says about supported optimal mCBs, or about mCB where there is none."""
    best = analysis.verdicts.regimes_where("C3a", "supported")
    refuted, supported = (analysis.verdicts.regimes_where("M1", o) for o in ("refuted", "supported"))
    parts = []
    if alike := [r for r in best or refuted if r in refuted]:
        parts.append(
            f"Once the layer widths are known, mCB adds no predictive power {place(alike)}"
            f"{_reach(analysis, alike, bool(best))}."
        )
    if more := [r for r in best or supported if r in supported]:
        parts.append(f"mCB explains something that the layer widths do not {place(more)}.")
    return " ".join(parts)


def _reach(analysis: Analysis, regimes: Sequence[str], optimal: bool) -> str:
    """Return how far the widths themselves explain the drop, and what follows for an optimal mCB, where there is one."""
    beyond = [analysis.explained.widths_beyond[r] for r in regimes]
    known = [min(max(b.share_of_ceiling, 0.0), 1.0) for b in beyond if math.isfinite(b.share_of_ceiling)]
    if not known:
        return ""
    ends = "–".join(dict.fromkeys(number(100 * s, 0) for s in (min(known), max(known))))
    told = f"; they explain {ends} % of the noise ceiling"
    if not optimal:
        return told
    if all(b.reach == "most" for b in beyond):
        return f"{told}, so any additive effect of the widths would produce such an optimum"
    return f"{told}, so the cause of the optimum is unresolved"


def _tables(
    analysis: Analysis, advised: Recommendations, sure: Sequence[str]
) -> tuple[tuple[str, Table], ...]:
    shown = [r.label for r in analysis.fit.regimes if r.fitted or r.label in advised]
    optima, limits = analysis.optima, analysis.thresholds
    removed: dict[str, Callable[[str], str]] = {"removed": regime_name}
    by_widths, by_mcb = [], []
    if advised:
        gains = removed | {
            "predicted drop": lambda r: measured(advised[r], "drop"),
            "uniform's drop": lambda r: measured(advised[r].uniform, "drop"),
            "gain over uniform": lambda r: (
                measured(advised[r], "gain")
                if math.isfinite(advised[r].gain_lower)
                else f"{number(advised[r].gain)} (no interval)"
            ),
        }
        caption = f"Predicted drop by {analysis.axis_words} removed, in points ({INTERVAL_WORDS})"
        by_widths = [(caption, Table.by_column(advised, gains)), _kept(analysis, advised)]
    aims = removed.copy()
    if analysis.fit.fitted:
        aims["mCB to aim for"] = lambda r: near_words(analysis, r) if r in sure else _no_aim(analysis, r)
        aims[f"smallest expected drop, points ({MASS_WORDS})"] = lambda r: measured(optima[r], "limit")
    if any(math.isfinite(optima[r].regret_at_original) for r in shown):
        aims["at the original's ratio"] = lambda r: number(optima[r].limit + optima[r].regret_at_original)
    if len(aims) > 1:
        caption = (
            f"mCB by {analysis.axis_words} removed (ruled out: over {points(limits.rise)} worse than the best, probability "
            f"≥ {limits.supported:g})"
        )
        by_mcb = [(caption, Table.by_column(shown, aims))]
    return (*by_widths, *by_mcb) if _clear(advised) else (*by_mcb, *by_widths)


def _kept(analysis: Analysis, advised: Recommendations) -> tuple[str, Table]:
    """Return the recommended widths, one row per layer group, one column per regime."""
    population = analysis.fit.population
    widths = [[f"{w:,.10g}" for w in found.widths.values()] for found in advised.values()]
    original = [f"{w:,.10g}" for w in original_widths(population)]
    columns = ("group", "original", *map(regime_name, advised))
    rows = tuple(zip(population.group_names, original, *widths, strict=True))
    caption = f"Recommended widths: {population.width_unit} kept, by {analysis.axis_words} removed"
    return caption, Table(columns, rows)


def _no_aim(analysis: Analysis, regime: str) -> str:
    """Return what is known of a regime without a supported optimal mCB."""
    if regime not in analysis.by_label:
        return "not fitted"
    outcome = analysis.verdicts.outcome("C3a", regime)
    as_good = _as_good(analysis.by_label[regime])
    if outcome == "supported":
        return "none: mCB is a weak guide"
    if outcome != "undecided":
        return as_good or ("no optimal mCB" if outcome == "refuted" else outcome)
    if broken := analysis.by_label[regime].withheld:
        return f"undecided: {clause(broken).partition(':')[0]}"
    told = [as_good or "undecided"]
    if bad := _ruled_out(analysis.by_label[regime]):
        told.append(f"{' and '.join(interval_words(*span) for span in bad)} ruled out")
    if recipes := analysis.by_label[regime].recipes_to_decide:
        told.append(
            f"about {count(recipes)} recipes would decide at this estimate ({count(analysis.optima[regime].n_recipes)} now)"
        )
    return "; ".join(told)


def _next(
    analysis: Analysis, advised: Recommendations, sure: Sequence[str], source: str
) -> tuple[tuple[str, str], ...]:
    """Return the command to paste next: the widths as a file, the space around an optimal mCB, or more recipes."""
    own = analysis.fit.regime_axis
    axis = "" if own == analysis.fit.population.regime_axis else f" --axis {own}"
    clear = _clear(advised)
    if clear or (advised and not sure):
        last = [*advised, *clear][-1]
        target = next(r.target for r in analysis.fit.regimes if r.label == last)
        command = f"python -m popstats recommend {source} --reduction {target:g}{axis} -o recipe.json"
        return (("Next: save these widths for training", command),)
    if sure:
        command = f"python -m popstats refine {source} --regime {float(sure[-1]):g}{axis} -o refined.toml"
        return (("Next: a recipe space around the optimal mCB, for the next plan", command),)
    return _more_recipes(analysis, f"{source}{axis}")


def _more_recipes(analysis: Analysis, source: str) -> tuple[tuple[str, str], ...]:
    """Return the plan lines of as many recipes as would decide, for the undecided regime that needs fewest."""
    undecided = analysis.verdicts.regimes_where("C3a", "undecided")
    known = {r: analysis.by_label[r].recipes_to_decide for r in undecided}
    needed = {regime: n for regime, n in known.items() if n is not None}
    if not needed:
        remedies = "\n".join(sentences([f for v in analysis.verdicts.of("C3a") for f in v.remedies]))
        return (("Plan lines that would help", remedies),) if remedies and not analysis.fit.fitted else ()
    first = min(needed, key=lambda r: needed[r] - analysis.optima[r].n_recipes)
    if "plan" not in analysis.fit.population.metadata:
        command = f"python -m popstats plan-size {source} --regime {float(first):g}"
        return ((f"Next: plan more recipes at {regime_name(first)}", command),)
    values = {"axis": analysis.fit.regime_axis, "space": "stratified", "count": needed[first]}
    lines = sentence(Finding("more recipes", (first,), values))
    return ((f"Next: plan lines that would decide the regime at {regime_name(first)}", lines),)
