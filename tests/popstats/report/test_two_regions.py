"""Where a best mCB has a rival behind a bump, every place names the same two good regions."""

import pytest

import popstats
from popstats.figures.curve_figures import near_figure
from popstats.judgement.evidence import Evidence
from popstats.posterior.fit import Fit
from popstats.report.answer import answer
from popstats.report.terminal import fit_text, near_optimal
from popstats.words import interval_words


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    population = popstats.simulate_population("w", regimes=(0.6,), n=1500, rise=0.35)
    fit = popstats.fit(population, method="exact")
    found = Evidence(fit, popstats.judge(fit))
    found.__dict__.update({"bucketed": {}, "mixes": {}})
    return found


@pytest.fixture(scope="module")
def regions(evidence: Evidence) -> list[str]:
    """The two regions as C3a's sentence names them."""
    (verdict,) = evidence.verdicts.of("C3a")
    assert verdict.outcome == "supported"
    near = verdict.finding.values["near"].values
    told = [interval_words(*near[name]) for name in ("first", "second")]
    assert f"two near-optimal ranges of mCB, {' and '.join(told)}, with" in verdict.sentence
    return told


def test_the_terminal_shows_both(evidence: Evidence, regions: list[str]) -> None:
    fit: Fit = evidence.fit
    first, second = fit_text(fit, checked=False, width=80).splitlines()[-6:-4]
    assert regions[0] in first
    assert second.strip() == f"or {regions[1]}"
    assert [f"{low:.2f} to {high:.2f}" for low, high in near_optimal(fit)["0.60"]] == regions


def test_the_table_of_ranges_has_one_in_each_column(evidence: Evidence, regions: list[str]) -> None:
    row = near_figure(evidence).table.frame.iloc[0]
    assert f"{row['near-optimal from (90 %)']} to {row['to (90 %)']}" == regions[0]
    assert row["also near-optimal"] == regions[1]


def test_the_lead_says_that_the_worse_one_may_cost_more(evidence: Evidence, regions: list[str]) -> None:
    lead = answer(evidence)[0]
    assert " or ".join(regions) in lead
    assert (
        "about 0.05 points or less against the best there, and in one of two good regions about 0.15 or less."
        in lead
    )
