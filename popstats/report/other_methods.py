"""What classical methods say about each regime's optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from popstats.figures.content import Section, Table
from popstats.figures.curve_figures import MASS_WORDS
from popstats.findings import Estimate, Span
from popstats.inference.data import RegimeDesign
from popstats.judgement.analysis import Analysis
from popstats.judgement.classical import (
    ENVELOPE,
    MINIMUM_POINTS,
    TwoLines,
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
    regime_name,
    regime_names,
    with_interval,
)

#: Where a regime is too small for the envelope of its best 5 %, a larger share is taken, up to this one.
WIDEST_ENVELOPE = 0.20
_NO_CONTRADICTION = "no contradiction"
#: A parametric curve's optimum by regime; None where it has none inside the observed range.
type Optima = Mapping[str, Estimate | None]
#: What stands in place of a parabola's optimum where it has none, or not the smooth curve's.
_MISSPECIFIED, _NONE_INSIDE = "(misspecified)", "none inside"


def companion_section(analysis: Analysis) -> Section | None:
    """Return classical tests and curves beside the smooth curve's optimum; None where no regime has enough."""
    optima = parametric_optima(analysis.fit, "quadratic"), parametric_optima(analysis.fit, "asymmetric")
    found = [_companions(analysis, r, *optima) for r in analysis.fit.fitted if r.n_recipes >= MINIMUM_POINTS]
    if not found:
        return None
    differing = [row[0] for row in found if row[-1] != _NO_CONTRADICTION]
    columns = (
        "removed",
        f"smooth curve ({MASS_WORDS})",
        f"quadratic ({MASS_WORDS})",
        f"two half-parabolas ({MASS_WORDS})",
        "U-test p",
        "two lines",
        "envelope of the best recipes",
        "answers",
    )
    return Section(
        key="companions",
        heading="Classical methods",
        sentence=(
            f"The answers disagree at {regime_names(differing)}; the verdicts follow the smooth curve."
            if differing
            else f"No classical answer contradicts a verdict{_elsewhere_words(found)}."
        ),
        paragraphs=(
            "Shown beside the verdicts, never instead of them. Where the smooth and the quadratic optimum differ by "
            "more than the quadratic's own interval, a quadratic is the wrong curve and its interval is not printed. "
            "The U-test (Lind and Mehlum) presumes a quadratic; the two-lines test (Simonsohn) requires a falling line "
            "followed by a rising one. The envelope is a quantile regression on a spline: the stated share of recipes lies "
            "below it, so it describes the best recipes and not the average one. It disagrees where it lies more than "
            f"{analysis.thresholds.rise:g} points above its minimum all over the best mCB's interval.",
        ),
        tables=(
            (
                "Minimum (mCB) by method",
                Table(columns, tuple((regime_name(row[0]), *row[1:]) for row in found)),
            ),
        ),
    )


def _elsewhere_words(found: list[tuple[str, ...]]) -> str:
    """Count the regimes in which a parabola has no lowest point inside, or another one."""
    elsewhere = [row for row in found if any(c == _NONE_INSIDE or c.endswith(_MISSPECIFIED) for c in row)]
    if not elsewhere:
        return ""
    return f", but in {len(elsewhere)} of {plural(len(found), 'regime')} a parabola has no minimum, or a different one"


def _companions(
    analysis: Analysis, regime: RegimeDesign, quadratic: Optima, halves: Optima
) -> tuple[str, ...]:
    networks, row = analysis.of_regime(regime.label), analysis.optima[regime.label]
    x, y = np.log(networks["mcb"].to_numpy()), networks["adjusted"].to_numpy()
    lines, parabola, tip = two_lines(x, y), quadratic[regime.label], halves[regime.label]
    wrong = parabola is None or not parabola.lower <= row.mcb <= parabola.upper
    vertex = _NONE_INSIDE if parabola is None else _in_words(parabola)
    if parabola is not None and wrong:
        vertex = f"{_in_words(parabola).partition(' ')[0]} {_MISSPECIFIED}"
    supported = analysis.verdicts.outcome("C3a", regime.label) == "supported"
    envelope = _envelope(analysis, regime.label)
    return (
        regime.label,
        with_interval(row.mcb, row.mcb_lower, row.mcb_upper),
        vertex,
        _NONE_INSIDE if tip is None else _in_words(tip),
        p_value(u_test(x, y).p_value),
        "U" if lines.u_shaped else "no U",
        MISSING if envelope is None else f"{number(envelope.lowest)} (best {percent(envelope.share, 0)})",
        _remarks(lines, supported, wrong, envelope is not None and envelope.elsewhere),
    )


def _in_words(found: Estimate) -> str:
    assert not isinstance(found.value, Span)
    return with_interval(found.value, found.lower, found.upper)


@dataclass(frozen=True)
class _Envelope:
    """The quantile regression through the best recipes of a regime."""

    share: float  # Share of recipes under it.
    lowest: float  # mCB where it is lowest.
    elsewhere: bool  # Whether it lies too high all over the best mCB's interval.


def _envelope(analysis: Analysis, regime: str) -> _Envelope | None:
    """Return the lower envelope of a regime; None where it has too few recipes for one."""
    networks, row = analysis.of_regime(regime), analysis.optima[regime]
    share = max(ENVELOPE, MINIMUM_POINTS / len(networks))
    if share > WIDEST_ENVELOPE:
        return None
    x, y = np.log(networks["mcb"].to_numpy()), networks["adjusted"].to_numpy()
    found = lower_envelope(x, y, share, analysis.fit.settings.random_seed)
    inside = np.linspace(np.log(row.mcb_lower), np.log(row.mcb_upper), GRID_SIZE)
    least = float(np.interp(inside, found.log_mcb, found.drop).min())
    return _Envelope(
        share, float(np.exp(found.optimum)), least > float(found.drop.min()) + analysis.thresholds.rise
    )


def envelope_elsewhere(analysis: Analysis, regime: str) -> float | None:
    """Return the mCB where the best recipes lie, if the average ones' best mCB is another; None if it is not."""
    found = _envelope(analysis, regime)
    return found.lowest if found is not None and found.elsewhere else None


def _remarks(lines: TwoLines, supported: bool, quadratic_wrong: bool, envelope_elsewhere: bool) -> str:
    remarks = []
    if lines.u_shaped and not supported:
        remarks.append("two lines find a U, the smooth curve does not")
    if supported and not lines.u_shaped:
        remarks.append("two lines find no U")
    if supported and quadratic_wrong:
        remarks.append("quadratic misspecified")
    if supported and envelope_elsewhere:
        remarks.append("the best recipes lie elsewhere")
    return "; ".join(remarks) or _NO_CONTRADICTION
