"""The rules on simulated truths, in small: the full table is made by `make calibrate`."""

import json

import pytest

from popstats.planning.error_rates import QUICK, Setting, calibrate


@pytest.fixture(scope="module")
def quick():
    return calibrate(QUICK["settings"], repetitions=18)


def test_no_false_support_where_there_is_no_optimum(quick):
    nulls = quick.table[quick.table["truth"].isin(["flat", "saturating-8"])]
    # At the 5 % that the rules promise, three or more of 36 would come up once in twenty times.
    assert (nulls["false_supported"] * nulls["regimes"]).sum() < 3


def test_no_false_refutation_of_a_small_rise(quick):
    small = quick.table[quick.table["rise"] == 0.2]
    assert (small["false_refuted"].fillna(0.0) * small["regimes"]).sum() < 3


def test_a_clear_optimum_is_found_and_covered(quick):
    clear = quick.table[quick.table["truth"].isin(["quadratic", "asymmetric"]) & (quick.table["rise"] == 0.4)]
    assert (clear["supported"] > 0.6).all()
    assert (clear["coverage_near_lower"] > 0.7).all()
    assert (clear["coverage_limit"] > 0.7).all()


def test_same_seed_same_table_and_json_for_the_report(quick, tmp_path):
    one = calibrate([Setting("quadratic", 30)], repetitions=3, seed=4)
    two = calibrate([Setting("quadratic", 30)], repetitions=3, seed=4)
    assert one.table.equals(two.table)
    content = json.loads(one.to_json(tmp_path / "calibration.json").read_text())
    assert content["rows"][0]["truth"] == "quadratic"
    assert "worst false supported" in repr(one)
