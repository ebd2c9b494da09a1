import numpy as np
import pandas as pd
import pytest

from popstats import Original, Population
from popstats.findings import Finding
from popstats.inference.data import MINIMUM_RECIPES, RegimeDesign, prepare_regimes, prepared_regimes
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
        x = design_matrix(unit, rows["offset"].to_numpy() / regime.reach)
        y = (rows["drop"].to_numpy() - regime.centre) / regime.scale
        assert regime.replicates.tolist() == [3.0]
        np.testing.assert_allclose(regime.xx[0], x.T @ x, rtol=1e-10, atol=1e-8)
        np.testing.assert_allclose(regime.xy[0], x.T @ y, atol=1e-8)
        np.testing.assert_allclose(regime.yy[0], y @ y)
        assert regime.within_df == 2 * len(rows)


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
    assert regime.replicates.tolist() == [1.0, 3.0]
    assert regime.count.sum() == regime.n_recipes


def test_drops_that_differ_only_far_outside_the_observed_range_are_nothing_to_explain():
    rng = np.random.default_rng(0)
    log_mcb, far = rng.uniform(-0.5, 0.5, 100), np.arange(100) < 2
    log_mcb[far] = 1.5
    frame = pd.DataFrame(
        {"macs": 50.0, "params": 50.0 / np.exp(log_mcb), "accuracy": np.where(far, 85.0, 91.0)}
    )
    population = Population.from_frame(frame, original=Original(macs=100, params=100, accuracy=93.0))
    _, (regime,) = prepared(population)
    assert regime.reason == Finding("one drop", (regime.label,))
    assert regime.n == 100


def test_constant_macs_drop_the_macs_terms_instead_of_dividing_by_zero():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"macs": 50_000, "params": rng.integers(30_000, 70_000, 50), "accuracy": 90 + rng.normal(size=50)}
    )
    population = Population.from_frame(frame, original=Original(macs=100_000, params=100_000, accuracy=93.0))
    _, (regime,) = prepared(population)
    assert regime.fixed == (True, False, False)
    assert np.isfinite(regime.xx).all()


def test_small_constant_and_narrow_regimes_say_why_they_are_not_fitted():
    original = Original(macs=100_000, params=100_000, accuracy=93.0)
    rng = np.random.default_rng(0)
    few = pd.DataFrame(
        {"macs": 50_000, "params": [40_000, 50_000, 60_000, 55_000], "accuracy": [90.0, 91, 90, 92]}
    )
    many = {"macs": 50_000, "accuracy": 90 + rng.normal(size=30)}
    narrow = pd.DataFrame({**many, "params": 50_000 + np.arange(30)})
    constant = pd.DataFrame({**many, "params": rng.integers(30_000, 70_000, 30), "accuracy": 90.0})
    reasons = []
    for frame in (few, narrow, constant):
        _, (regime,) = prepared(Population.from_frame(frame, original=original))
        assert not regime.fitted
        reasons.append(regime.reason)
    assert [reason.kind for reason in reasons] == ["few recipes", "one mCB", "one drop"]
    assert reasons[0].values == {"recipes": 4, "needed": MINIMUM_RECIPES}


def test_what_follows_from_the_cost_is_no_range_of_mcb():
    """mCB that hardly varies at equal cost has no curve; where it varies freely the range is that of all recipes."""
    rng = np.random.default_rng(0)
    macs, own = rng.uniform(0.12, 0.18, 500), rng.normal(size=500)
    reasons, ranges = [], []
    for follows, spread in ((1.0, 0.001), (1.0, 0.05), (0.0, 0.1)):
        log_mcb = follows * np.log(macs / 0.15) + spread * own
        frame = pd.DataFrame(
            {"macs": macs * 1e9, "params": macs * 1e9 / np.exp(log_mcb), "accuracy": 90.0 + own}
        )
        original = Original(macs=10**9, params=10**9, accuracy=93.0)
        _, (regime,) = prepared(Population.from_frame(frame, original=original), {0.85: 0.05})
        reasons.append(regime.reason)
        ranges.append((regime.observed, regime.curve_scale))
    assert reasons[0].kind == "mCB follows cost"
    assert reasons[0].values["factor"] == pytest.approx(np.exp(2 * 1.96 * 0.001), rel=1e-3)
    assert reasons[1:] == [None, None]
    # 1.96 standard deviations of what the cost leaves, about the value at the regime's centre.
    assert ranges[1][0] == pytest.approx((-0.098, 0.098), abs=0.015)
    assert ranges[1][1].half_range > 1.5 * 0.098
    assert ranges[2][1].at_equal_cost is None


def test_identical_replicates_say_nothing_about_seed_noise():
    population = simulate_population(regimes=[0.5], n=40, seeds=2, seed_noise=0.0, seed=2)
    _, (regime,) = prepared(population)
    assert not regime.has_replicates
    assert regime.replicates.tolist() == [1.0]
    assert regime.n == 80


def test_rows_are_gone_through_once_for_the_same_regimes_and_again_for_others():
    population = simulate_population(regimes=[0.5, 0.8], n=40, seed=3)

    def prepared(axis: str, regimes: object) -> tuple[RegimeDesign, ...]:
        return prepared_regimes(population, prepared_recipes(population, axis, regimes))

    first = prepared("macs", [0.5, 0.8])
    assert prepared("macs", (0.5, 0.8)) is first
    for axis, regimes in (("params", [0.5, 0.8]), ("macs", [0.5]), ("macs", {0.5: 0.05, 0.8: 0.01})):
        assert prepared(axis, regimes) is not first
    wide, narrow = (prepared("macs", {0.5: half}) for half in (0.05, 0.001))
    assert narrow[0].n < wide[0].n
