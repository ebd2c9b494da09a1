"""What classical methods say of each regime's optimum, and whether the paper's parameter buckets change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from popstats.arrays import FloatArray
from popstats.figures.content import Section, Table
from popstats.figures.curve_figures import MASS_WORDS
from popstats.findings import Estimate
from popstats.inference.data import RegimeData
from popstats.judgement.classical import (
    ENVELOPE,
    MINIMUM_POINTS,
    TwoLines,
    lower_envelope,
    parametric_optima,
    two_lines,
    u_test,
)
from popstats.judgement.evidence import Evidence
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


def companion_section(evidence: Evidence) -> Section | None:
    """Return classical tests and curves beside the smooth curve's optimum; None where no regime has enough."""
    optima = parametric_optima(evidence.fit, "quadratic"), parametric_optima(evidence.fit, "asymmetric")
    found = [_companions(evidence, r, *optima) for r in evidence.fit.fitted if r.n_recipes >= MINIMUM_POINTS]
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
        heading="What classical methods say",
        sentence=(
            f"The answers disagree at {regime_names(differing)}; the verdicts follow the smooth curve."
            if differing
            else f"No classical answer contradicts a verdict{_elsewhere_words(found)}."
        ),
        paragraphs=(
            "Shown beside the verdicts, never instead of them. Where the smooth and the quadratic optimum differ by "
            "more than the quadratic's own interval, a quadratic is the wrong curve and its interval is not printed. "
            "The U-test (Lind and Mehlum) presumes a quadratic; the two-lines test (Simonsohn) asks for a falling line, "
            "then a rising one. The envelope is a quantile regression on a spline: under it lies the stated share of "
            "recipes, so it asks what the best recipes do and not the average one. It disagrees "
            f"where it lies more than {evidence.rise:g} points above its minimum all over the best mCB's interval.",
        ),
        tables=(
            (
                "Lowest point, mCB, by method",
                Table(columns, tuple((regime_name(row[0]), *row[1:]) for row in found)),
            ),
        ),
    )


def _elsewhere_words(found: list[tuple[str, ...]]) -> str:
    """Count the regimes in which a parabola has no lowest point inside, or another one."""
    elsewhere = [row for row in found if any(c == _NONE_INSIDE or c.endswith(_MISSPECIFIED) for c in row)]
    if not elsewhere:
        return ""
    return f", but in {len(elsewhere)} of {plural(len(found), 'regime')} a parabola finds no lowest point, or another"


def _companions(evidence: Evidence, regime: RegimeData, quadratic: Optima, halves: Optima) -> tuple[str, ...]:
    networks, row = evidence.of_regime(regime.label), evidence.optima[regime.label]
    x, y = np.log(networks["mcb"].to_numpy()), networks["adjusted"].to_numpy()
    lines, parabola, tip = two_lines(x, y), quadratic[regime.label], halves[regime.label]
    wrong = parabola is None or not parabola.lower <= row.mcb <= parabola.upper
    vertex = _NONE_INSIDE if parabola is None else _shown(parabola)
    if parabola is not None and wrong:
        vertex = f"{_shown(parabola).partition(' ')[0]} {_MISSPECIFIED}"
    supported = evidence.outcome("C3a", regime.label) == "supported"
    envelope, elsewhere = _envelope(x, y, row, evidence)
    return (
        regime.label,
        with_interval(row.mcb, row.mcb_lower, row.mcb_upper),
        vertex,
        _NONE_INSIDE if tip is None else _shown(tip),
        p_value(u_test(x, y).p_value),
        "U" if lines.u_shaped else "no U",
        envelope,
        _remarks(lines, supported, wrong, elsewhere),
    )


def _shown(optimum: Estimate) -> str:
    """Return a parametric curve's optimum with its interval."""
    value, lower, upper = optimum
    assert isinstance(value, float)
    return with_interval(value, lower, upper)


def _envelope(x: FloatArray, y: FloatArray, row: Any, evidence: Evidence) -> tuple[str, bool]:
    """Return the envelope's lowest point in words, and whether it contradicts the smooth curve's."""
    share = max(ENVELOPE, MINIMUM_POINTS / x.size)
    if share > WIDEST_ENVELOPE:
        return MISSING, False
    found = lower_envelope(x, y, share, evidence.fit.settings.seed)
    lowest = float(np.exp(found.optimum))
    inside = np.linspace(np.log(row.mcb_lower), np.log(row.mcb_upper), GRID_SIZE)
    least = float(np.interp(inside, found.log_mcb, found.drop).min())
    elsewhere = least > float(found.drop.min()) + evidence.rise
    return f"{number(lowest)} (best {percent(share, 0)})", elsewhere


def _remarks(lines: TwoLines, supported: bool, quadratic_wrong: bool, envelope_elsewhere: bool) -> str:
    remarks = []
    if lines.u_shaped and not supported:
        remarks.append("two lines see a U, the smooth curve not beyond doubt")
    if supported and not lines.u_shaped:
        remarks.append("two lines see no U")
    if supported and quadratic_wrong:
        remarks.append("quadratic misspecified")
    if supported and envelope_elsewhere:
        remarks.append("the best recipes lie elsewhere than the average")
    return "; ".join(remarks) or _NO_CONTRADICTION
