"""Foreign real tables, as a newcomer brings them; skipped where they are not at hand."""

from pathlib import Path

import pandas as pd
import pytest

import popstats

SHARED = Path(__file__).parents[4] / "shared" / "data"
BENCH, PRUNERS = SHARED / "channel_bench_mobilenet.parquet", SHARED / "nni_pruner_comparison.csv"


def channel_bench():
    table = pd.read_parquet(BENCH)
    whole = table[table["recipe"] == "4444444"].iloc[0]
    widths = [f"keep{i}" for i in range(1, 8)]
    runs = table.drop(columns="accuracy").melt(
        id_vars=["recipe", "flops", "params", *widths],
        value_vars=["acc_run1", "acc_run2", "acc_run3"],
        var_name="run",
        value_name="accuracy",
    )
    return popstats.Population.from_frame(
        runs,
        original=popstats.Original(macs=int(whole.flops), params=int(whole.params), accuracy=whole.accuracy),
        columns={"macs": "flops"},
        widths=widths,
        accuracy_kind="best_test",
        name="channel-bench-mobilenet",
    )


@pytest.mark.skipif(not BENCH.exists(), reason="the shared table is not here")
def test_channel_bench_has_an_optimum_where_pruning_is_aggressive_and_none_where_it_is_not():
    population = channel_bench()
    assert len(population) == 3 * 16_384
    assert population.recipe.max() + 1 == 16_384
    fit = popstats.fit(population, method="exact")
    verdicts = popstats.judge(fit)
    outcome = {v.regime: v.outcome for v in verdicts.of("C3a")}
    optima = fit.optima().set_index("regime")
    for regime in ("0.75", "0.85"):
        assert outcome[regime] == "supported"
        assert 0.85 < optima.loc[regime, "mcb"] < 1.15
    for regime in ("0.05", "0.15", "0.25", "0.35", "0.45"):
        assert outcome[regime] != "supported"
    # Three runs each: seeds explain a third to all of what is left beside the curve.
    assert optima["seed_share"].between(0.3, 0.95).all()
    assert any("best over epochs" in note for note in population.notes)


@pytest.mark.skipif(not PRUNERS.exists(), reason="the shared table is not here")
def test_networks_of_six_pruners_go_all_the_way_to_a_report(tmp_path):
    table = pd.read_csv(PRUNERS)
    population = popstats.Population.from_frame(
        table[table["model"] == "resnet18"],
        original=popstats.Original(macs=556_651_530, params=11_173_962, accuracy=94.33),
        columns={"macs": "flops"},
        name="nni-resnet18",
    )
    fit = popstats.fit(population, method="exact")
    verdicts = popstats.judge(fit)
    assert {v.outcome for v in verdicts.of("C3a")} <= {"not assessable", "undecided"}
    report = popstats.write_report(fit, tmp_path / "report.html", verdicts=verdicts)
    assert report.stat().st_size < 3_000_000
