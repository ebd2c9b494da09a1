"""Planning: cross-products without rows against rows, and plans against populations of the planned size."""

import json
from dataclasses import replace

import numpy as np
import pytest

import popstats
from popstats.errors import FitError
from popstats.inference.model import COLUMNS, design_matrix
from popstats.planning.plan_size import (
    _widths,
    equivalent_noise,
    guessed_scenario,
    pilot_scenario,
    simulate_regime,
)
from popstats.population.simulate import simulate_population

REGIMES = {0.7: 0.05}


def fit_of(n=150, seed=1, **settings):
    settings = {"seeds": 2, "seed_noise": 0.15, "noise": 0.1, **settings}
    population = simulate_population("asymmetric", regimes=[0.7], n=n, seed=seed, **settings)
    return popstats.fit(population, regimes=REGIMES, method="exact", draws=100)


@pytest.fixture(scope="module")
def pilot():
    return fit_of()


def test_cross_products_are_those_of_simulated_rows(pilot):
    (points,) = pilot.rows
    design, n = points.design, points.design.shape[0]
    scenario = pilot_scenario(pilot, 0, 3, None)
    moments = design.T @ design / n
    np.testing.assert_allclose(scenario.moments, moments, atol=1e-10)
    deviation = np.sqrt(scenario.recipe_sd[1] ** 2 + scenario.seed_sd[1] ** 2 / 4)
    rng, found, wanted = np.random.default_rng(0), [], []
    for _ in range(400):
        y = design @ scenario.coefficients[1] + deviation * rng.standard_normal(n)
        y -= y.mean()
        wanted.append([y @ y, *(design.T @ y)[3:8]])
        regime = simulate_regime(scenario, 1, n, 4, rng)
        unit = regime.scale / pilot.fitted[0].scale
        found.append([regime.yy[0] * unit**2, *(regime.xy[0, 3:8] * unit)])
    error = np.std(wanted, axis=0) / 20.0
    assert (np.abs(np.mean(found, axis=0) - np.mean(wanted, axis=0)) < 5 * error).all()
    np.testing.assert_allclose(np.std(found, axis=0), np.std(wanted, axis=0), rtol=0.25)


def test_a_pilots_plan_holds_for_populations_of_the_planned_size(pilot):
    frame = popstats.plan_size(pilot, recipes=[500], seeds=[1]).frame
    planned = frame[["lower_width", "upper_width"]].to_numpy()[0]
    real = [_widths(fit_of(n=500, seed=s, seeds=1).optimum_draws[0]) for s in range(20, 28)]
    ratio = planned / np.median(real, axis=0)
    assert ((ratio > 0.6) & (ratio < 1.7)).all()


def test_more_recipes_seeds_and_tolerance_need_less():
    guess = {"noise": 0.15, "rise": 0.8, "recipes": [50, 200, 800], "seeds": [1, 4]}
    plan = popstats.plan_size(width=0.25, **guess)
    table = plan.frame.pivot(index="recipes", columns="seeds", values="lower_width")
    assert (table.diff().dropna() < 0).all(axis=None)
    assert (table[4] < table[1]).all()
    assert plan.trainings == plan.recipes * plan.seeds
    assert f"{plan.recipes:,} recipes with {plan.seeds} seed" in plan.sentence
    suffices = plan.frame[plan.frame["chance"] >= 0.8]
    assert plan.trainings == suffices["trainings"].min()
    wide = popstats.plan_size(width=0.6, **guess)
    assert wide.trainings < plan.trainings
    again = popstats.plan_size(width=0.25, **guess)
    assert again.frame.equals(plan.frame)


def test_what_cannot_be_reached_is_said():
    plan = popstats.plan_size(width=0.01, noise=0.5, rise=0.1, recipes=[30], seeds=[1])
    assert plan.recipes is None
    assert plan.trainings is None
    assert "no size tried gives" in repr(plan)
    assert "no size tried gives" in plan._repr_html_()


def test_seeds_are_planned_only_where_seed_noise_is_known():
    single = fit_of(seeds=1)
    alone = popstats.plan_size(single, recipes=[100])
    assert alone.frame["seeds"].tolist() == [1]
    assert "the pilot has no replicates" in alone.sentence
    told = popstats.plan_size(single, recipes=[100], seeds=[1, 3], seed_share=0.6)
    widths = told.frame.set_index("seeds")["lower_width"]
    assert widths[3] < widths[1]
    assert widths[1] == pytest.approx(alone.frame["lower_width"].iloc[0])


def test_guess_has_the_rise_and_the_noise_that_were_asked_for():
    scenario = guessed_scenario(2, noise=0.3, rise=0.5, seed_share=0.36)
    unit = np.linspace(-1, 1, 5)
    drop = design_matrix(unit, np.zeros(5)) @ scenario.coefficients[0]
    np.testing.assert_allclose(drop - drop[2], 0.5 * unit**2, atol=0.01)
    assert scenario.seed_sd[0] == pytest.approx(0.18)
    assert np.hypot(scenario.seed_sd[0], scenario.recipe_sd[0]) == pytest.approx(0.3)
    assert scenario.moments.shape == (COLUMNS, COLUMNS)


def test_the_hardest_regime_is_planned_unless_one_is_named():
    population = simulate_population("quadratic", regimes=[0.5, 0.7], n=60, seed=2)
    table = population.table.copy()
    hard = np.isclose(population.frame["regime_target"], 0.7)
    table.loc[hard, "accuracy"] += np.random.default_rng(0).normal(0, 0.5, hard.sum())
    fit = popstats.fit(popstats.Population.from_frame(table), regimes={0.5: 0.05, 0.7: 0.05}, method="exact")
    assert popstats.plan_size(fit, recipes=[50]).regime == "0.70"
    assert popstats.plan_size(fit, regime=0.5, recipes=[50]).regime == "0.50"
    with pytest.raises(FitError, match=r"regime 0\.6 was not fitted; fitted: 0\.50, 0\.70"):
        popstats.plan_size(fit, regime=0.6)
    with pytest.raises(FitError, match="plan_size: seed: expected a whole number from 0 on"):
        popstats.plan_size(noise=0.1, rise=0.3, seed=-1)
    with pytest.raises(FitError, match=r"plan_size: expected a Fit, got a Population; fit it first"):
        popstats.plan_size(population)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0.0}, "width in mCB above 0"),
        ({"width": "0.2"}, "width: expected a width in mCB above 0, got '0.2'"),
        ({"recipes": 100}, "recipes: expected a list of whole numbers above 24, got 100"),
        ({"recipes": [30.5]}, "recipes: expected a list of whole numbers"),
        ({"noise": -1.0}, "noise: expected points above 0"),
        ({"seed_share": 1.0}, r"share in \[0, 1\)"),
        ({"recipes": [5]}, "numbers above"),
        ({"seeds": []}, "positive whole numbers"),
    ],
)
def test_illegal_arguments_are_named(arguments, message):
    with pytest.raises(FitError, match=message):
        popstats.plan_size(**arguments)


def test_a_pilot_and_a_guess_exclude_each_other(pilot):
    with pytest.raises(FitError, match="got both"):
        popstats.plan_size(pilot, noise=0.2)


def test_information_of_noise_that_is_not_normal():
    nearly_normal = equivalent_noise("student", np.ones(1), np.array([1e6]))
    assert nearly_normal == pytest.approx(1.0, abs=1e-5)
    assert equivalent_noise("student", np.ones(1), np.array([3.0])) == pytest.approx(np.sqrt(1.5))
    frontier = equivalent_noise("exgaussian", np.ones(3), np.array([1e-3, 0.5, 20.0]))
    assert frontier[0] == pytest.approx(1.0, abs=1e-4)
    # Never less information than a normal of the same variance, 1 + tau^2, has; nor more than the normal alone.
    assert 1.0 < frontier[1] < np.sqrt(1.25)
    # A long exponential tail tells little; what is left sits at its edge.
    assert frontier[2] < 0.5 * np.sqrt(401.0)


def test_a_pilot_with_heavy_tails_plans_with_the_information_it_has(pilot):
    draws = replace(pilot.draws, shape=np.full_like(pilot.draws.noise, 3.0))
    student = replace(pilot, settings=replace(pilot.settings, noise="student", method="hmc"), draws=draws)
    heavy, normal = (popstats.plan_size(p, recipes=[200], seeds=[1]).frame.iloc[0] for p in (student, pilot))
    assert heavy["lower_width"] > normal["lower_width"]
    scenario, plain = pilot_scenario(student, 0, 3, None), pilot_scenario(pilot, 0, 3, None)
    np.testing.assert_allclose(scenario.recipe_sd, plain.recipe_sd * np.sqrt(1.5))


def test_a_plan_as_plain_values_is_json(pilot):
    plan = popstats.plan_size(pilot, recipes=[100, 200], seeds=[1])
    content = json.loads(json.dumps(plan.to_dict()))
    assert content["sentence"] == plan.sentence
    assert [size["recipes"] for size in content["sizes"]] == [100, 200]
