"""From a fit to the frozen content of its report."""

from __future__ import annotations

from datetime import UTC, datetime

from popstats.figures.check_figures import predicted_figure
from popstats.figures.content import FORMAT, Figure, ReportContent
from popstats.figures.curve_figures import drop_figure, limit_figure, near_figure
from popstats.figures.space_figures import edf_figure, elasticity_figure, explained_figure
from popstats.inference.draws import INTERVAL_MASS
from popstats.judgement.evidence import Evidence
from popstats.judgement.verdicts import Verdicts
from popstats.posterior.fit import Fit
from popstats.report.alerts import alerts
from popstats.report.answer import answer, claims, facts, threshold_words
from popstats.report.error_tables import calibration_section, shipped
from popstats.report.other_methods import companion_section
from popstats.report.sections import best_section, card_section, diagnostic_section, provenance_section


def report_content(
    fit: Fit,
    verdicts: Verdicts | None = None,
    *,
    command: str | None = None,
    created: str | None = None,
) -> ReportContent:
    """Compute everything that the report of a fit says."""
    evidence = Evidence(fit, verdicts)
    judged = evidence.verdicts
    sections = (
        best_section(evidence),
        companion_section(evidence),
        diagnostic_section(evidence),
        calibration_section(shipped("calibration"), shipped("plasmode"), evidence),
        card_section(evidence),
        provenance_section(evidence, command),
    )
    return ReportContent(
        format=FORMAT,
        kind="Population report",
        title=fit.population.name,
        answer=answer(evidence),
        facts=facts(evidence),
        axis_words=evidence.axis_words,
        interval_mass=INTERVAL_MASS,
        thresholds=threshold_words(judged[0].thresholds) if len(judged) else "",
        alerts=alerts(evidence),
        claims=claims(evidence),
        figures=_figures(evidence),
        sections=tuple(section for section in sections if section is not None),
        created=created or datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _figures(evidence: Evidence) -> tuple[Figure, ...]:
    """Return the figures in the report's order; those that need a curve only where one was fitted."""
    fitted = bool(evidence.fit.fitted)
    drawn = (
        drop_figure(evidence) if fitted else None,
        near_figure(evidence) if fitted else None,
        explained_figure(evidence),
        limit_figure(evidence) if fitted else None,
        edf_figure(evidence),
        elasticity_figure(evidence),
        predicted_figure(evidence),
    )
    return tuple(figure for figure in drawn if figure is not None)
