"""One small population with widths and seeds, fitted once, whose report has every part."""

from dataclasses import replace

import pytest

import popstats
from popstats.figures.content import ReportContent
from popstats.posterior.fit import Fit
from popstats.report.compose import report_content

CREATED = "2026-01-01 00:00 UTC"


@pytest.fixture(scope="session")
def fitted() -> Fit:
    population = popstats.simulate_population(
        "additive-widths", regimes=(0.4, 0.6, 0.8), n=120, seeds=2, seed_noise=0.1, seed=3
    )
    return popstats.fit(population, method="exact", draws=200, random_seed=3)


@pytest.fixture(scope="session")
def content(fitted: Fit) -> ReportContent:
    return replace(report_content(fitted), created=CREATED)
