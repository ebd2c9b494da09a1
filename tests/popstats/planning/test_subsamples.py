"""Subsamples judged against their population: what must hold whatever the table."""

import json

import pytest

from popstats.errors import FitError
from popstats.planning.subsamples import judge_subsamples
from popstats.population.simulate import simulate_population


@pytest.fixture(scope="module")
def population():
    return simulate_population(
        "quadratic", regimes=[0.55, 0.75], n=1200, noise=0.1, seeds=2, seed_noise=0.1, seed=3
    )


@pytest.fixture(scope="module")
def found(population):
    return judge_subsamples(population, sizes=(30, 400), repetitions=12, seed=1)


def test_more_recipes_decide_more_and_contradict_nothing(found):
    table = found.table.set_index(["regime", "n"])
    assert set(table["whole"]) == {"supported"}
    assert (table["contradicted"] == 0.0).all()
    for regime in ("0.55", "0.75"):
        assert table.loc[(regime, 400), "supported"] > table.loc[(regime, 30), "supported"]
    assert table[["supported", "refuted", "undecided"]].sum(axis=1).tolist() == pytest.approx([1.0] * 4)
    assert (table["coverage_near_lower"] >= 0.6).all()


def test_json_holds_shares_and_no_rows_of_the_table(found, tmp_path):
    content = json.loads(found.to_json(tmp_path / "plasmode.json").read_text())
    assert content["trainings"] == 4800
    assert len(content["rows"]) == 4
    assert content["rows"][0]["subsamples"] == 12
    assert "accuracy" not in json.dumps(content)


def test_same_seed_same_table(population):
    one, two = (judge_subsamples(population, sizes=(30,), repetitions=2, seed=5).table for _ in range(2))
    assert one.equals(two)


def test_sizes_that_no_regime_holds_are_refused(population):
    with pytest.raises(FitError, match=r"no regime of .* holds 5000 recipes; the largest has 1200"):
        judge_subsamples(population, sizes=(5000,), repetitions=1)
    with pytest.raises(FitError, match="at least one size"):
        judge_subsamples(population, sizes=())
