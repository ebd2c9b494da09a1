import numpy as np
import pandas as pd
import pytest

from popstats import Original, Population
from popstats.inference import data as cross_products
from popstats.inference.data import MINIMUM_RECIPES, prepare_population, prepare_regimes
from popstats.inference.model import KEPT_RANGE, design_matrix
from popstats.population.recipes import prepared_recipes
from popstats.population.simulate import simulate_population


def prepared(population, regimes=None):
    recipes = prepared_recipes(population, "macs", regimes)
    return recipes.table, prepare_regimes(recipes)


def test_cross_products_equal_the_sums_over_rows():
    population = simulate_population(regimes=[0.5, 0.8], n=200, seeds=3, seed_noise=0.2, seed=1)
    recipes, regimes = prepared(population)
    for k, regime in enumerate(regimes):
        rows = recipes[recipes["regime"] == k]
        unit = regime.curve_scale.to_unit(rows["log_mcb"])
        rows, unit = rows[np.abs(unit) <= KEPT_RANGE], unit[np.abs(unit) <= KEPT_RANGE]
        x = design_matrix(unit, (rows["reduction"].to_numpy() - regime.target) / regime.half_width)
        y = (rows["drop"].to_numpy() - regime.centre) / regime.scale
        products = regime.cross_products
        assert products.replicates.tolist() == [3.0]
        np.testing.assert_allclose(products.xx[0], x.T @ x, rtol=1e-10, atol=1e-8)
        np.testing.assert_allclose(products.xy[0], x.T @ y, atol=1e-8)
        np.testing.assert_allclose(products.yy[0], y @ y)
        assert products.within_df == 2 * len(rows)


def test_recipe_table_averages_replicates_and_keeps_their_spread():
    frame = pd.DataFrame(
        {
            "macs": [50, 50, 40], "params": [40, 40, 60], "accuracy": [90.0, 92.0, 88.0],
            "recipe_id": ["a", "a", "b"], "seed": [0, 1, 0],
        }
    )  # fmt: skip
    population = Population.from_frame(frame, original=Original(macs=100, params=100, accuracy=93.0))
    recipes = prepared_recipes(population, "macs")
    table = recipes.table
    assert recipes.first.tolist() == [0, 2]
    assert table["drop"].tolist() == [2.0, 5.0]
    assert table["runs"].tolist() == [2.0, 1.0]
    assert table["within"].tolist() == [2.0, 0.0]


def test_unbalanced_replicates_make_one_stratum_each():
    population = simulate_population(regimes=[0.5], n=60, seeds=3, seed_noise=0.2, seed=2)
    keep = np.ones(len(population), dtype=bool)
    keep[population.recipe % 3 == 0] = np.arange((population.recipe % 3 == 0).sum()) % 3 == 0
    _, (regime,) = prepared(population.select(keep))
    assert regime.cross_products.replicates.tolist() == [1.0, 3.0]
    assert regime.cross_products.count.sum() == regime.n_recipes


def test_drops_that_differ_only_far_outside_the_observed_range_are_nothing_to_explain():
    rng = np.random.default_rng(0)
    log_mcb, far = rng.uniform(-0.5, 0.5, 100), np.arange(100) < 2
    log_mcb[far] = 1.5
    frame = pd.DataFrame(
        {"macs": 50.0, "params": 50.0 / np.exp(log_mcb), "accuracy": np.where(far, 85.0, 91.0)}
    )
    population = Population.from_frame(frame, original=Original(macs=100, params=100, accuracy=93.0))
    _, (regime,) = prepared(population)
    assert regime.reason == "all recipes have the same accuracy drop; there is nothing to explain"
    assert (regime.n, regime.n_left_out) == (100, 0)


def test_constant_macs_drop_the_macs_terms_instead_of_dividing_by_zero():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"macs": 50_000, "params": rng.integers(30_000, 70_000, 50), "accuracy": 90 + rng.normal(size=50)}
    )
    population = Population.from_frame(frame, original=Original(macs=100_000, params=100_000, accuracy=93.0))
    _, (regime,) = prepared(population)
    assert regime.fixed == (True, False, False)
    assert np.isfinite(regime.cross_products.xx).all()


def test_small_constant_and_narrow_regimes_say_why_they_are_not_fitted():
    original = Original(macs=100_000, params=100_000, accuracy=93.0)
    rng = np.random.default_rng(0)
    few = pd.DataFrame(
        {"macs": 50_000, "params": [40_000, 50_000, 60_000, 55_000], "accuracy": [90.0, 91, 90, 92]}
    )
    many = {"macs": 50_000, "accuracy": 90 + rng.normal(size=30)}
    narrow = pd.DataFrame({**many, "params": 50_000})
    constant = pd.DataFrame({**many, "params": rng.integers(30_000, 70_000, 30), "accuracy": 90.0})
    reasons = []
    for frame in (few, narrow, constant):
        _, (regime,) = prepared(Population.from_frame(frame, original=original))
        assert not regime.fitted
        reasons.append(regime.reason)
    assert str(MINIMUM_RECIPES) in reasons[0]
    assert "mCB" in reasons[1]
    assert "drop" in reasons[2]


def test_identical_replicates_say_nothing_about_seed_noise():
    population = simulate_population(regimes=[0.5], n=40, seeds=2, seed_noise=0.0, seed=2)
    _, (regime,) = prepared(population)
    assert not regime.cross_products.has_replicates
    assert regime.cross_products.replicates.tolist() == [1.0]
    assert regime.n == 80


def test_rows_are_gone_through_once_for_the_same_regimes_and_again_for_others():
    population = simulate_population(regimes=[0.5, 0.8], n=40, seed=3)
    first = prepare_population(population, "macs", [0.5, 0.8])
    assert prepare_population(population, "macs", (0.5, 0.8)).regimes[0] is first.regimes[0]
    for axis, regimes in (("params", [0.5, 0.8]), ("macs", [0.5]), ("macs", {0.5: 0.05, 0.8: 0.01})):
        assert prepare_population(population, axis, regimes) is not first
    wide, narrow = (prepare_population(population, "macs", {0.5: half}) for half in (0.05, 0.001))
    assert narrow.regimes[0].n < wide.regimes[0].n


@pytest.mark.parametrize("in_order", [True, False])
def test_regimes_prepared_side_by_side_and_from_slices_are_those_prepared_one_by_one(monkeypatch, in_order):
    population = simulate_population(regimes=[0.5, 0.7, 0.8], n=100, seeds=2, seed_noise=0.2, seed=3)
    if not in_order:
        population = population.select(np.random.default_rng(0).permutation(len(population)))
    alone = prepared(population)[1]
    monkeypatch.setattr(cross_products, "_THREADED", 0)
    monkeypatch.setattr(cross_products, "_in_order", lambda mine: mine)
    for one, other in zip(alone, prepared(population)[1], strict=True):
        assert (one.label, one.centre, one.scale) == (other.label, other.centre, other.scale)
        np.testing.assert_array_equal(one.products.xx, other.products.xx)
        assert one.products.within == other.products.within
