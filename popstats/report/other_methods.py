"""What classical methods say about each regime's optimum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.figures.content import Section, Table
from popstats.figures.curve_figures import MASS_WORDS, measured
from popstats.findings import Estimate
from popstats.judgement.analysis import Analysis
from popstats.judgement.classical import (
    ENVELOPE,
    MINIMUM_POINTS,
    lower_envelope,
    parametric_optima,
    two_lines,
    u_test,
)
from popstats.posterior.optimum import GRID_SIZE
from popstats.words import (
    MISSING,
    number,
    p_value,
    percent,
    plural,
    points,
    regime_name,
    regime_names,
    with_interval,
)

#: Where a regime is too small for the envelope of its best 5 %, a larger share is taken, up to this one.
WIDEST_ENVELOPE = 0.20
#: What stands in place of a parabola's optimum where it has none, or not the smooth curve's.
_MISSPECIFIED, _NONE_INSIDE = "(misspecified)", "none inside"
_NO_CONTRADICTION = "no contradiction"


def companion_section(analysis: Analysis) -> Section | None:
    """Return classical tests and curves beside the smooth curve's optimum; None where no regime has enough."""
    regimes = [r.label for r in analysis.fit.fitted if r.n_recipes >= MINIMUM_POINTS]
    if not regimes:
        return None
    parabolas = [parametric_optima(analysis.fit, curve) for curve in ("quadratic", "asymmetric")]
    table = pd.DataFrame([_answers(analysis, r, *(optima[r] for optima in parabolas)) for r in regimes])
    differing = [
        r for r, answer in zip(regimes, table["answers"], strict=True) if answer != _NO_CONTRADICTION
    ]
    return Section(
        key="companions",
        heading="Classical methods",
        sentence=(
            f"The answers disagree at {regime_names(differing)}; the verdicts follow the smooth curve."
            if differing
            else f"No classical answer contradicts a verdict{elsewhere_words(table.iloc[:, 2].tolist())}."
        ),
        paragraphs=(
            "Shown beside the verdicts, never instead of them. Where the smooth and the quadratic optimum differ by "
            "more than the quadratic's own interval, a quadratic is the wrong curve and its interval is not printed. "
            "The U-test (Lind and Mehlum) presumes a quadratic; the two-lines test (Simonsohn) requires a falling line "
            "followed by a rising one. The envelope is a quantile regression on a spline: the stated share of recipes lies "
            "below it, so it describes the best recipes and not the average one. It disagrees where it lies more than "
            f"{points(analysis.thresholds.rise)} above its minimum all over the optimal mCB's interval.",
        ),
        tables=(("Minimum (mCB) by method", Table.of(table)),),
        folded=True,
    )


def elsewhere_words(quadratics: Sequence[str]) -> str:
    """Count the regimes in which a parabola has no lowest point inside, or another one."""
    elsewhere = [q for q in quadratics if q == _NONE_INSIDE or q.endswith(_MISSPECIFIED)]
    of = plural(len(quadratics), "regime")
    return (
        f", but in {len(elsewhere)} of {of} a parabola has no minimum, or a different one"
        if elsewhere
        else ""
    )


def _answers(
    analysis: Analysis, regime: str, parabola: Estimate | None, tip: Estimate | None
) -> dict[str, str]:
    """Return a row of the table: where each method finds the minimum, and what contradicts the verdict."""
    row, (x, y) = analysis.optima[regime], _points(analysis, regime)
    u_shaped, envelope = two_lines(x, y), _envelope(analysis, regime)
    wrong = parabola is None or not parabola.lower <= row.mcb <= parabola.upper
    vertex = _in_words(parabola)
    supported = analysis.verdicts.outcome("C3a", regime) == "supported"
    remarks = {
        "two lines find a U, the smooth curve does not": u_shaped and not supported,
        "two lines find no U": supported and not u_shaped,
        "quadratic misspecified": supported and wrong,
        "the best recipes lie elsewhere": supported and envelope is not None and envelope.elsewhere,
    }
    return {
        "removed": regime_name(regime),
        f"smooth curve ({MASS_WORDS})": measured(row, "mcb"),
        f"quadratic ({MASS_WORDS})": (
            f"{vertex.partition(' ')[0]} {_MISSPECIFIED}" if parabola is not None and wrong else vertex
        ),
        f"two half-parabolas ({MASS_WORDS})": _in_words(tip),
        "U-test p": p_value(u_test(x, y)),
        "two lines": "U" if u_shaped else "no U",
        "envelope of the best recipes": (
            f"{number(envelope.lowest)} (best {percent(envelope.share, 0)})" if envelope else MISSING
        ),
        "answers": "; ".join(words for words, holds in remarks.items() if holds) or _NO_CONTRADICTION,
    }


def _points(analysis: Analysis, regime: str) -> tuple[FloatArray, FloatArray]:
    networks = analysis.of_regime(regime)
    return np.log(networks["mcb"].to_numpy()), networks["adjusted"].to_numpy()


def _in_words(found: Estimate | None) -> str:
    return _NONE_INSIDE if found is None else with_interval(*found)  # type: ignore[arg-type]


class _Envelope(NamedTuple):
    """The quantile regression through the best recipes of a regime."""

    share: float  # Share of recipes under it.
    lowest: float  # mCB where it is lowest.
    elsewhere: bool  # Whether it lies too high all over the optimal mCB's interval.


#: Both the caveats and the table of classical methods need each envelope, which takes many iterations.
_ENVELOPES: WeakKeyDictionary[Analysis, dict[str, _Envelope | None]] = WeakKeyDictionary()


def _envelope(analysis: Analysis, regime: str) -> _Envelope | None:
    """Return the lower envelope of a regime; None where it has too few recipes for one."""
    known = _ENVELOPES.setdefault(analysis, {})
    if regime not in known:
        known[regime] = _fitted_envelope(analysis, regime)
    return known[regime]


def _fitted_envelope(analysis: Analysis, regime: str) -> _Envelope | None:
    row, (x, y) = analysis.optima[regime], _points(analysis, regime)
    share = max(ENVELOPE, MINIMUM_POINTS / len(x))
    if share > WIDEST_ENVELOPE:
        return None
    log_mcb, drop = lower_envelope(x, y, share, analysis.fit.settings.random_seed)
    inside = np.linspace(np.log(row.mcb_lower), np.log(row.mcb_upper), GRID_SIZE)
    least = float(np.interp(inside, log_mcb, drop).min())
    elsewhere = least > float(drop.min()) + analysis.thresholds.rise
    return _Envelope(share, float(np.exp(log_mcb[drop.argmin()])), elsewhere)


def envelope_elsewhere(analysis: Analysis, regime: str) -> float | None:
    """Return the mCB where the best recipes lie, if the average ones' optimal mCB is another; None if it is not."""
    found = _envelope(analysis, regime)
    return found.lowest if found is not None and found.elsewhere else None
