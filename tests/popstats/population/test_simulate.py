"""Simulated populations hold the truth that their metadata states."""

import json

import numpy as np
import pytest

import popstats
from popstats.population.simulate import NOISE_KINDS, ORIGINAL, simulate_population
from popstats.population.truths import (
    LAYERS,
    TRUTHS,
    LayerChain,
    additive_curve,
    additive_drop,
    draw_widths,
)


def regime(population, label):
    frame = population.frame
    return frame[frame["regime"] == label]


def residuals(kind, n=20_000, **settings):
    """Noise of a flat truth, points, with the known effect of MACs inside the regime removed."""
    population = simulate_population("flat", regimes=[0.5], n=n, noise=0.2, noise_kind=kind, **settings)
    frame = population.frame
    level = population.metadata["truth"]["regimes"]["0.50"]["limit"]
    return frame["accuracy_drop"] - level - 10.0 * (frame["macs_reduction"] - 0.5), frame["log_mcb"]


def test_without_noise_the_drop_is_the_curve_itself():
    population = simulate_population(lambda x, target: target + x**2, regimes=[0.5, 0.7], n=40, noise=0.0)
    frame = population.frame
    offset = frame["macs_reduction"] - frame["regime_target"]
    expected = frame["regime_target"] + frame["log_mcb"] ** 2 + 10.0 * offset
    np.testing.assert_allclose(frame["accuracy_drop"], expected, atol=1e-9)


def test_truth_of_the_quadratic():
    found = simulate_population(n=400).metadata["truth"]
    assert (found["name"], found["mechanism"]) == ("quadratic", "mcb")
    assert list(found["regimes"]) == ["0.50", "0.70", "0.85"]
    for truth in found["regimes"].values():
        assert truth["mcb"] == pytest.approx(1.0, abs=0.002)
        assert truth["regret_at_original"] == pytest.approx(0.0, abs=1e-6)
        assert truth["rise_lower"] == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize("name", [*TRUTHS, "additive-widths"])
def test_every_truth_makes_a_population_whose_costs_fit_its_regimes(name):
    population = simulate_population(name, regimes=(0.3, 0.85), n=30)
    frame = population.frame
    assert (np.abs(frame["macs_reduction"] - frame["regime_target"]) <= 0.006).all()
    assert frame["macs"].dtype == np.int64
    assert (frame["params"] <= population.original.params).all()
    assert frame["regime"].value_counts().to_dict() == {"0.30": 30, "0.85": 30}


def test_recipes_spread_over_about_half_a_log_unit_on_both_sides():
    low, high = np.quantile(simulate_population(regimes=[0.7], n=5000).frame["log_mcb"], [0.025, 0.975])
    assert low == pytest.approx(-0.487, abs=0.03)
    assert high == pytest.approx(0.487, abs=0.03)


def test_observed_range_is_that_of_the_rows():
    population = simulate_population(regimes=[0.5], n=60, seeds=2)
    truth = population.metadata["truth"]["regimes"]["0.50"]
    expected = np.quantile(population.frame["log_mcb"], [0.025, 0.975])
    np.testing.assert_allclose([truth["observed_lower"], truth["observed_upper"]], np.exp(expected))


@pytest.mark.parametrize("kind", ["normal", "skewed", "growing"])
def test_noise_has_mean_zero_and_the_given_spread(kind):
    noise, log_mcb = residuals(kind)
    middle = np.abs(log_mcb) < 0.05
    assert noise.mean() == pytest.approx(0.0, abs=0.006)
    assert noise[middle].std() == pytest.approx(0.2, rel=0.08)


def test_heavy_noise_has_outliers_that_normal_noise_has_not():
    heavy, normal = residuals("heavy")[0], residuals("normal")[0]
    assert np.abs(heavy).max() > 2.0 * np.abs(normal).max()
    assert heavy.abs().median() < normal.abs().median()


def test_skewed_noise_leans_to_large_drops():
    assert residuals("skewed")[0].skew() == pytest.approx(2.0, abs=0.4)


def test_growing_noise_grows_threefold_over_the_range():
    noise, log_mcb = residuals("growing", n=60_000)
    spread = [noise[np.abs(log_mcb - edge) < 0.04].std() for edge in (-0.5, 0.5)]
    assert spread[1] / spread[0] == pytest.approx(3.0, rel=0.15)


def test_replicates_share_a_recipe_and_differ_by_the_seed_noise():
    population = simulate_population(regimes=[0.5], n=2000, noise=0.1, seeds=3, seed_noise=0.3)
    assert population.has_replicates
    assert population.recipe.max() + 1 == 2000
    within = population.frame.groupby("recipe_id")["accuracy_drop"].var().mean()
    assert np.sqrt(within) == pytest.approx(0.3, rel=0.05)


def test_same_seed_same_population_and_another_seed_another():
    first, again, other = (simulate_population(n=20, seed=seed) for seed in (4, 4, 5))
    assert first.table.equals(again.table)
    assert not first.table["accuracy"].equals(other.table["accuracy"])


def test_a_regime_does_not_depend_on_those_after_it():
    alone = simulate_population(regimes=[0.5], n=20).table
    first = simulate_population(regimes=[0.5, 0.9], n=20).table.head(20)
    assert alone["accuracy"].tolist() == first["accuracy"].tolist()


def test_truth_survives_saving(tmp_path):
    population = simulate_population("additive-widths", regimes=[0.5], n=20)
    again = popstats.load_population(population.save(tmp_path / "population.parquet"))
    assert again.metadata["truth"] == json.loads(json.dumps(population.metadata["truth"]))
    np.testing.assert_array_equal(again.widths, population.widths)
    assert again.group_names == population.group_names


def test_chain_costs_are_those_counted_by_hand():
    chain = LayerChain(LAYERS[:2])
    widths = np.array([[10, 20]])
    assert chain.params(widths).tolist() == [9 * (3 * 10 + 10 * 20) + 20 * 10]
    assert chain.macs(widths).tolist() == [1024 * 9 * (3 * 10 + 10 * 20) + 20 * 10]


def test_chain_recipes_meet_the_budget():
    chain = LayerChain()
    widths = draw_widths(chain, 0.7, 500, np.random.default_rng(1))
    reductions = 1.0 - chain.macs(widths) / chain.original[0]
    assert np.abs(reductions - 0.7).max() < 0.003
    assert (widths >= 1).all()
    assert (widths <= chain.full_widths).all()


def test_wider_is_better_in_every_layer_with_diminishing_returns():
    chain = LayerChain()
    full = chain.full_widths
    assert additive_drop(chain, full[None, :], 0.4).tolist() == [0.0]
    for layer in range(full.size):
        widths = np.repeat(full[None, :], 3, axis=0)
        widths[:, layer] = full[layer] * np.array([0.25, 0.5, 1.0])
        quarter, half, whole = additive_drop(chain, widths, 0.4)
        assert quarter - half > half - whole > 0.0


def test_additive_curve_is_the_mean_drop_of_other_recipes_at_the_same_mcb():
    chain = LayerChain()
    widths = draw_widths(chain, 0.5, 30_000, np.random.default_rng(99))
    log_mcb = chain.log_mcb(widths)
    drop = additive_drop(chain, widths, 0.4)
    for centre in (-0.3, 0.0, 0.3):
        near = np.abs(log_mcb - centre) < 0.02
        expected = 0.4 * additive_curve(chain, 0.5)(centre)
        assert drop[near].mean() == pytest.approx(expected, abs=0.04)


def test_additive_widths_bend_over_mcb_without_any_mechanism():
    found = simulate_population("additive-widths", n=100).metadata["truth"]
    assert found["mechanism"] == "widths"
    for truth in found["regimes"].values():
        assert truth["interior"]
        assert min(truth["rise_lower"], truth["rise_upper"]) > 0.1


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"truth": "cubic"}, "quadratic, asymmetric"),
        ({"noise_kind": "pink"}, "normal, heavy"),
        ({"regimes": []}, "regimes"),
        ({"regimes": [1.0]}, "regimes"),
        ({"n": 0}, "n=0"),
        ({"seeds": 0}, "seeds=0"),
        ({"noise": -0.1}, "noise"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"centre": -2.0, "regimes": [0.5]}, "no room"),
    ],
)
def test_impossible_settings_are_refused_with_what_is_legal(settings, word):
    with pytest.raises(popstats.PopulationError, match=word):
        simulate_population(**settings)


def test_noise_kinds_are_all_accepted():
    for kind in NOISE_KINDS:
        assert len(simulate_population(regimes=[0.5], n=5, noise_kind=kind)) == 5


def test_original_is_the_networks_of_the_design():
    assert (ORIGINAL.macs, ORIGINAL.params) == (125_747_840, 855_770)
