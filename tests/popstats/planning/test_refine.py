"""Refined spaces: read off known truths, written in the format that plans read, and really better."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.errors import FitError, PopulationError
from popstats.judgement.analysis import Analysis
from popstats.planning.budget_law import law_at, width_table
from popstats.planning.refine import Kind, _curve_gain
from popstats.planning.search import LEAST_SHARE, Search, inside_bands
from popstats.population.recipes import cost_form
from popstats.population.truths import LayerChain, additive_drop
from popstats.posterior.fit import Fit


@pytest.fixture(scope="module")
def by_mcb() -> Fit:
    population = popstats.simulate_population("quadratic", regimes=(0.6,), n=800, rise=0.8)
    return popstats.fit(population, method="exact")


@pytest.fixture(scope="module")
def chain() -> Fit:
    population = popstats.simulate_population(
        "additive-widths", regimes=(0.6, 0.8), n=500, rise=0.5, noise=0.05
    )
    return popstats.fit(population, method="exact")


def test_the_mcb_range_is_the_true_near_optimal_one(by_mcb: Fit) -> None:
    space = popstats.refine(by_mcb, 0.6)
    answer = by_mcb.population.metadata["truth"]["regimes"]["0.60"]
    assert space.mcb is not None
    assert space.mcb == pytest.approx((answer["near_lower"], answer["near_upper"]), rel=0.06)
    log_mcb = by_mcb.population.frame["log_mcb"]
    assert space.share_kept == pytest.approx(np.mean(np.abs(log_mcb) < np.log(space.mcb[1])), abs=0.05)


def test_of_two_good_regions_the_better_one_is_taken() -> None:
    def two_valleys(log_mcb: np.ndarray, target: float) -> np.ndarray:
        return 30.0 * (log_mcb**2 - 0.09) ** 2 + 0.02 * log_mcb

    population = popstats.simulate_population(two_valleys, regimes=(0.7,), n=1500, noise=0.05)
    space = popstats.refine(popstats.fit(population, method="exact"), 0.7)
    assert space.mcb is not None
    low, high = np.log(space.mcb)
    assert -0.40 < low < -0.3 < high < -0.15


def test_the_gain_is_the_true_difference_of_means(by_mcb: Fit) -> None:
    space = popstats.refine(by_mcb, 0.6)
    log_mcb = by_mcb.population.frame["log_mcb"].to_numpy()
    assert space.mcb is not None
    truth = 0.8 * (log_mcb / 0.5) ** 2
    inside = (log_mcb > np.log(space.mcb[0])) & (log_mcb < np.log(space.mcb[1]))
    expected = truth.mean() - truth[inside].mean()
    assert space.gain_lower - 0.02 < expected < space.gain_upper + 0.02


def test_the_low_std_band_gains_what_evenness_is_worth() -> None:
    made = popstats.simulate_population("quadratic", regimes=(0.6,), n=300, rise=0.8, noise=0.1, seed=4)
    std = np.random.default_rng(4).uniform(0.0, 0.3, len(made))
    table = made.table.assign(ratio_std=std, accuracy=made.table["accuracy"] - 5.0 * std)
    population = popstats.Population.from_frame(table)
    space = popstats.refine(popstats.fit(population, method="exact"), 0.6)
    assert space.std is not None
    assert space.std == pytest.approx((0.0, 0.1), abs=0.03)
    assert space.mcb is not None
    frame = population.frame
    inside = (frame["mcb"].between(*space.mcb) & frame["ratio_std"].between(*space.std)).to_numpy()
    truth = 0.8 * (frame["log_mcb"].to_numpy() / 0.5) ** 2 + 5.0 * std
    expected = truth.mean() - truth[inside].mean()
    assert space.gain_lower < expected < space.gain_upper
    assert space.gain_upper - space.gain_lower < 0.3


def test_the_toml_round_trip(by_mcb: Fit, chain: Fit, tmp_path: Path) -> None:
    space = popstats.refine(by_mcb, "0.60")
    read = tomllib.loads(space.to_toml(tmp_path / "mcb.toml").read_text())["refined"]
    assert (read["axis"], read["target"], read["kind"]) == ("macs", 0.6, "mcb")
    assert tuple(read["mcb"]) == pytest.approx(space.mcb, rel=1e-5)
    widths = popstats.refine(chain, 0.6, by="widths")
    read = tomllib.loads(widths.to_toml(tmp_path / "widths.toml").read_text())["refined"]
    assert list(read["widths"]) == list(chain.population.group_names)
    assert all(0.0 < low <= high <= 1.0 for low, high in read["widths"].values())


def test_widths_bands_hold_recipes_that_are_really_better(chain: Fit) -> None:
    space = popstats.refine(chain, 0.6, by="widths")
    layers, rng = LayerChain(), np.random.default_rng(0)
    full = np.array([layer.width for layer in layers.layers], dtype=float)
    low, high = np.array(list(space.widths.values())).T
    inside = np.rint(rng.uniform(low, high, size=(4000, full.size)) * full)
    # Recipes of the bands at the regime's own budget, within two percent of it.
    inside = inside[np.abs(layers.macs(inside) / layers.original[0] / 0.4 - 1.0) < 0.02]
    assert len(inside) > 50
    table = chain.population.frame
    random = np.array(table.loc[table["regime"] == "0.60", "widths"].tolist())
    gained = additive_drop(layers, random, 0.5).mean() - additive_drop(layers, inside, 0.5).mean()
    assert gained > 0
    assert space.gain_lower < gained < space.gain_upper
    assert space.share_kept >= LEAST_SHARE


def test_widths_promise_nothing_where_they_explain_nothing() -> None:
    made = popstats.simulate_population("additive-widths", regimes=(0.6,), n=80, rise=0.5)
    luck = np.random.default_rng(3).normal(90.0, 1.0, len(made))
    noise = popstats.Population.from_frame(made.table.assign(accuracy=luck))
    space = popstats.refine(popstats.fit(noise, method="exact", draws=100), 0.6, by="widths")
    # The best of thousands of predictions lies far below the mean; a law that did not choose it knows better.
    assert space.gain_lower < 0 < space.gain_upper
    assert abs(space.gain) < 0.3


def test_bands_stay_where_the_law_has_seen_recipes(chain: Fit) -> None:
    search = search_at(chain.population, 0.4)
    low, high, examples = search.near_best_bands(near=0.01)
    seen, law = search.law.seen, search.law
    observed = np.quantile(seen, (0.025, 0.975), axis=0)
    assert (low >= observed[0] - 1e-9).all()
    assert (high <= observed[1] + 1e-9).all()
    assert inside_bands(seen, low, high).mean() >= LEAST_SHARE
    assert inside_bands(examples, low, high).all()
    known = np.quantile(law.uncertainty(seen), 0.95)
    assert law.uncertainty(search.best(np.random.default_rng(0))[None])[0] <= 1.01 * known


def search_at(population: popstats.Population, share: float) -> Search:
    table, cost = width_table(population, "macs"), cost_form(population)
    assert cost is not None
    return Search(law_at(table, float(np.log(share))), cost, share * population.original.macs)


def test_shifting_onto_the_budget_meets_it() -> None:
    search = search_at(popstats.simulate_population("additive-widths", regimes=(0.6,), n=100), 0.4)
    shares = np.random.default_rng(1).normal(-0.5, 0.4, size=(50, 6))
    moved = search.meet(shares, np.full(6, -3.0), np.zeros(6))
    np.testing.assert_allclose(search.cost.cost(np.exp(moved) * search.full), search.amount, rtol=1e-6)


def test_it_says_what_it_cannot_do(by_mcb: Fit) -> None:
    with pytest.raises(FitError, match=r"not fitted; fitted: 0\.60"):
        popstats.refine(by_mcb, "0.70")
    with pytest.raises(PopulationError, match=r"run from 0\.598 to 0\.602"):
        popstats.refine(by_mcb, 0.9)
    whole = by_mcb.population
    few = whole.table.head(5).assign(macs=lambda t: t["macs"] // 4, params=lambda t: t["params"] // 4)
    table = pd.concat([whole.table, few], ignore_index=True).drop(
        columns=["recipe_id", "subnetwork_id"], errors="ignore"
    )
    odd = popstats.fit(
        popstats.Population.from_frame(table, original=whole.original), regimes=[0.6], method="exact"
    )
    with pytest.raises(FitError, match=r"too few recipes .* fitted regimes: 0\.60"):
        popstats.refine(odd, 0.9)
    with pytest.raises(FitError, match=r"for a curve; add recipes there"):
        popstats.refine(popstats.fit(whole.select(np.arange(4))), 0.6)
    with pytest.raises(FitError, match="between 0 and 1"):
        popstats.refine(by_mcb, 60)
    with pytest.raises(PopulationError, match="no widths"):
        popstats.refine(by_mcb, 0.6, by="widths")
    with pytest.raises(FitError, match="'mcb' or 'widths'"):
        popstats.refine(by_mcb, 0.6, by="luck")  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["mcb", "widths"])
def test_any_budget_between_the_recipes_is_refined(by: Kind) -> None:
    made = popstats.simulate_population(
        "additive-widths", regimes=(0.55, 0.6, 0.65), n=200, rise=0.5, noise=0.05
    )
    space = popstats.refine(popstats.fit(made, regimes=[0.55], method="exact"), 0.62, by=by)
    assert (space.target, space.regime) == (0.62, "0.62")
    assert space.gain > 0.0
    assert 0.0 < space.share_kept < 0.9


def test_a_range_without_recipes_gains_what_the_curve_says(by_mcb: Fit) -> None:
    analysis = Analysis(by_mcb)
    (posterior,) = analysis.regimes
    ends = float(np.log(1.19)), float(np.log(1.21))
    log_mcb = by_mcb.population.frame["log_mcb"].to_numpy()
    far = log_mcb[(log_mcb < ends[0]) | (log_mcb > ends[1])]
    gain = _curve_gain(posterior, far, *ends, np.random.default_rng(0))
    expected = 0.8 * ((far / 0.5) ** 2).mean() - 0.8 * (np.log(1.2) / 0.5) ** 2
    assert np.median(gain) == pytest.approx(expected, abs=0.05)


def test_a_budget_with_recipes_on_one_side_only_has_no_curve() -> None:
    made = popstats.simulate_population("quadratic", regimes=(0.6, 0.8), n=60)
    with pytest.raises(FitError, match="lie on one side of it"):
        popstats.refine(popstats.fit(made, draws=100), 0.65)


def test_it_displays_itself(chain: Fit) -> None:
    space = popstats.refine(chain, 0.8, by="widths")
    assert isinstance(space, popstats.RefinedSpace)
    assert "90 % interval" in repr(space)
    assert "<table" in space._repr_html_()


def test_bands_that_keep_everything_promise_nothing(by_mcb: Fit) -> None:
    space = popstats.refine(by_mcb, 0.6)
    assert "Expected gain" in repr(space)
    whole = replace(space, share_kept=0.97)
    assert "This refines nothing: it keeps 97 % of" in repr(whole)
    assert "Expected gain" not in repr(whole)


def test_the_mix_of_recipes_spans_the_optimum(chain: Fit, by_mcb: Fit) -> None:
    found = Analysis(chain).mixes
    assert list(found) == ["0.60", "0.80"]
    for optimum, (low, high) in zip(chain.optima()["mcb"], found.values(), strict=True):
        assert low <= optimum * 1.05
        assert high >= optimum / 1.05
    assert Analysis(by_mcb).mixes == {}
