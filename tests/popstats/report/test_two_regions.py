"""Where an optimal mCB has a rival behind a bump, every place names the same two good regions."""

import pandas as pd
import pytest

import popstats
from popstats.figures.curve_figures import near_figure
from popstats.judgement.analysis import Analysis
from popstats.judgement.judge import analyse
from popstats.posterior.fit import Fit
from popstats.report.advice import advice
from popstats.report.terminal import fit_text, near_optimal
from popstats.words import interval_words


@pytest.fixture(scope="module")
def evidence() -> Analysis:
    population = popstats.simulate_population("w", regimes=(0.6,), n=1500, rise=0.35)
    fit = popstats.fit(population, method="exact")
    found = analyse(fit, popstats.judge(fit))
    found.__dict__.update({"mixes": {}})
    return found


@pytest.fixture(scope="module")
def regions(evidence: Analysis) -> list[str]:
    """The two regions as C3a's sentence names them."""
    (verdict,) = evidence.verdicts.of("C3a")
    assert verdict.outcome == "supported"
    near = verdict.finding.values["near"].values
    told = [interval_words(*near[name]) for name in ("first", "second")]
    assert f"two near-optimal ranges of mCB, {' and '.join(told)}, with" in verdict.sentence
    return told


def test_the_terminal_shows_both(evidence: Analysis, regions: list[str]) -> None:
    fit: Fit = evidence.fit
    first, second = fit_text(fit, checked=False, width=80).splitlines()[-6:-4]
    assert regions[0] in first
    assert second.strip() == f"or {regions[1]}"
    assert [f"{low:.2f} to {high:.2f}" for low, high in near_optimal(fit)["0.60"]] == regions


def test_the_table_of_ranges_has_one_in_each_column(evidence: Analysis, regions: list[str]) -> None:
    row = pd.DataFrame(near_figure(evidence).table.records).iloc[0]
    assert f"{row['near-optimal from (90 %)']} to {row['to (90 %)']}" == regions[0]
    assert row["also near-optimal"] == regions[1]


def test_the_box_names_both(evidence: Analysis, regions: list[str]) -> None:
    box = advice(evidence, (), "mine")
    both = " or ".join(regions)
    assert f"aim for {both} (two near-optimal ranges, with worse values in between)" in box.sentence
    assert box.tables[0][1].rows[0][1] == both
