"""Real tables of other people, as a newcomer would bring them; skipped where the tables are not at hand."""

from pathlib import Path

import build_page
import pytest

import popstats

ROOT = Path(__file__).resolve().parents[1]
TABLES = build_page.SHARED
MOBILENET = TABLES / "channel_bench_mobilenet.parquet"
NNI = TABLES / "nni_pruner_comparison.csv"

mobilenet = pytest.mark.skipif(not MOBILENET.is_file(), reason=f"{MOBILENET.name} is not at hand")
nni = pytest.mark.skipif(not NNI.is_file(), reason=f"{NNI.name} is not at hand")


@pytest.fixture(scope="module")
def channel_bench():
    return build_page.channel_bench()


@pytest.fixture(scope="module")
def channel_bench_fit(channel_bench):
    return popstats.fit(channel_bench, method="exact")


@mobilenet
def test_channel_bench_is_read_as_what_it_is(channel_bench):
    assert (len(channel_bench), channel_bench.recipe.max() + 1) == (3 * 16_384, 16_384)
    assert channel_bench.original.params == 1_804_170
    assert "Selecting on the test set" in channel_bench.notes[0]
    original = channel_bench.frame[channel_bench.frame["recipe_id"] == "4444444"]
    assert (original["mcb"] == 1.0).all()
    assert original["accuracy_drop"].mean() == pytest.approx(0.0, abs=1e-4)


@mobilenet
def test_channel_bench_has_an_optimal_mcb_where_pruning_is_aggressive(channel_bench_fit):
    optima = channel_bench_fit.optima().set_index("regime")
    for regime in ("0.77", "0.812", "0.85"):
        assert 0.85 < optima.loc[regime, "mcb"] < 1.15
        assert optima.loc[regime, "near_lower"] < optima.loc[regime, "mcb"] < optima.loc[regime, "near_upper"]
    verdicts = popstats.judge(channel_bench_fit).frame
    outcome = verdicts[verdicts["conjecture"] == "C3a"].set_index("regime")["outcome"]
    assert (outcome[["0.77", "0.812", "0.85"]] == "supported").all()
    assert "supported" not in set(outcome[["0.11", "0.28", "0.43"]])
    # Three runs each: seeds explain a third to all of what is left beside the curve.
    assert optima["seed_share"].dropna().between(0.3, 0.95).all()
    widths_beyond = verdicts[(verdicts["conjecture"] == "M1") & (verdicts["outcome"] != "not assessable")]
    assert (widths_beyond["outcome"] == "refuted").all()


@nni
def test_nni_resnet18_goes_through_with_its_collapsed_network(tmp_path):
    population = build_page.pruned_by_nni("resnet18")
    assert len(population) == 63
    fit = popstats.fit(population, method="exact")
    verdicts = popstats.judge(fit).frame
    assert set(verdicts["conjecture"]) >= {"C1", "C3a", "C3c", "M1"}
    assert (verdicts.loc[verdicts["conjecture"] == "M1", "outcome"] == "not assessable").all()
    page = popstats.write_report(fit, tmp_path / "report.html")
    assert "six pruners (resnet18" in page.read_text()


@nni
def test_several_networks_in_one_table_are_refused():
    with pytest.raises(popstats.PopulationError, match="more than one population: column network"):
        popstats.load_population(
            NNI,
            original=popstats.Original(macs=1_304_694_794, params=23_520_842, accuracy=94.88),
            columns={"macs": "flops", "network": "model"},
        )
