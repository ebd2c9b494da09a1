"""From a fit to the frozen content of its report."""

from __future__ import annotations

from collections.abc import Sequence

from popstats.figures.check_figures import predicted_figure
from popstats.figures.content import Figure, ReportContent, Section
from popstats.figures.curve_figures import drop_figure, limit_figure, near_figure
from popstats.figures.space_figures import edf_figure, elasticity_figure, explained_figure
from popstats.judgement.analysis import Analysis
from popstats.judgement.judge import analyse
from popstats.judgement.verdicts import Verdicts
from popstats.population.files import populations
from popstats.posterior.fit import Fit
from popstats.report.advice import advice
from popstats.report.alerts import alerts, caveats
from popstats.report.claims import claims, threshold_words
from popstats.report.other_methods import companion_section
from popstats.report.sections import (
    baseline_section,
    best_section,
    card_section,
    diagnostic_section,
    provenance_section,
)
from popstats.words import count, number

#: What stands before the verdicts; without any of it, the first figure.
_FIRST = ("family", "drop", "curves", "best")


def report_content(
    fit: Fit, verdicts: Verdicts | None = None, *, command: str | None = None, source: str | None = None
) -> ReportContent:
    """Compute everything that the report of a fit says."""
    analysis = analyse(fit, verdicts)
    judged, known, named = analysis.verdicts, caveats(analysis), source or loaded_by(fit)
    sections = (
        best_section(analysis, named),
        baseline_section(analysis),
        companion_section(analysis),
        diagnostic_section(analysis),
        card_section(analysis),
        provenance_section(analysis, command, named),
    )
    drawn = _figures(analysis)
    kept = tuple(section for section in sections if section is not None)
    return ReportContent(
        title=fit.population.name,
        advice=advice(analysis, known, named),
        facts=facts(analysis),
        axis_words=analysis.axis_words,
        thresholds=threshold_words(judged[0].thresholds) if len(judged) else "",
        alerts=alerts(analysis, known),
        claims=claims(analysis),
        figures=drawn,
        order=page_order(drawn, kept),
        sections=kept,
    )


def loaded_by(fit: Fit) -> str:
    """Return what a reader may load the population by: its name if it is shipped, else a word to replace."""
    name = fit.population.name
    return name if name in populations() else "RUN" if "plan" in fit.population.metadata else "TABLE"


def page_order(figures: Sequence[Figure], sections: Sequence[Section]) -> tuple[str, ...]:
    """Return the parts' keys: main figure, best networks, verdicts, the rest; what is folded comes last."""
    parts: list[Figure | Section] = [*figures, *sections]
    first = [part.key for part in parts if part.key in _FIRST or part in figures[:1]]
    rest = sorted((part for part in parts if part.key not in first), key=lambda part: part.folded)
    return (*first, "verdicts", *(part.key for part in rest))


def facts(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Return the population's sizes, for the line under the title."""
    population = analysis.fit.population
    original = population.original
    run = population.metadata.get("run")
    of_planned = f" of {count(run['planned'])} planned, so far" if run else ""
    return (
        (f"trainings{of_planned}", count(len(population))),
        ("recipes", count(int(population.recipe.max()) + 1)),
        ("regimes fitted", f"{len(analysis.fit.fitted)} of {len(analysis.fit.regimes)}"),
        ("original accuracy", f"{number(original.accuracy)} %"),
        ("original MACs", _short(original.macs)),
        ("original parameters", _short(original.params)),
    )


def _short(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _figures(analysis: Analysis) -> tuple[Figure, ...]:
    """Return the figures in the report's order; those that need a curve only where one was fitted."""
    fitted = bool(analysis.fit.fitted)
    drawn = (
        drop_figure(analysis) if fitted else None,
        near_figure(analysis) if fitted else None,
        explained_figure(analysis),
        limit_figure(analysis) if fitted else None,
        edf_figure(analysis),
        elasticity_figure(analysis),
        predicted_figure(analysis),
    )
    return tuple(figure for figure in drawn if figure is not None)
