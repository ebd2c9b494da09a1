"""Several retraining techniques in one regime: a fixed term of the model, not noise."""

import numpy as np
import pytest

import popstats
from popstats import FitError, Population
from popstats.inference.data import prepare_regimes
from popstats.judgement.explained import what_explains
from popstats.population.recipes import prepared_recipes
from popstats.population.simulate import simulate_population
from popstats.posterior.mean_curve import MeanCurve
from popstats.posterior.pointwise import sample_of, thinned
from popstats.words import sentence

#: Columns of `optima()` that a shift of one technique must leave alone.
PLACES = ["mcb", "mcb_lower", "mcb_upper", "near_lower", "near_upper", "residual_sd", "p_interior"]


def mixed(points, *, seeds=1, share=0.3, n=150, regimes=(0.5, 0.75), seed=3):
    """Return a population in which a share of the recipes is trained from scratch, `points` worse."""
    base = simulate_population(
        "quadratic", regimes=list(regimes), n=n, seeds=seeds, seed_noise=0.1 * (seeds > 1), seed=seed
    )
    scratch = np.random.default_rng(seed).random(base.recipe.max() + 1)[base.recipe] < share
    return Population.from_frame(
        base.table.assign(
            retraining=np.where(scratch, "scratch", "fine-tune"),
            accuracy=base.table["accuracy"] - points * scratch,
        )
    )


def unbalanced(population):
    """Return a population in which every third recipe has one training only."""
    later = population.table.groupby(population.recipe).cumcount().to_numpy() > 0
    return population.select(~(later & (population.recipe % 3 == 0)))


@pytest.mark.parametrize("method", ["exact", pytest.param("nuts", marks=pytest.mark.slow)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_technique_that_is_ten_points_worse_moves_no_optimum(method, seeds):
    level, shifted = (unbalanced(mixed(points, seeds=seeds)) for points in (0.0, 10.0))
    fits = [popstats.fit(p, method=method, draws=400, tune=400) for p in (level, shifted)]
    plain, moved = (f.optima() for f in fits)
    # Rounding errors turn the sign of an eigenvector of the exact method, and chains part ways over them.
    tolerance = {"rtol": 0.005} if method == "exact" else {"rtol": 0.02, "atol": 0.02}
    np.testing.assert_allclose(moved[PLACES], plain[PLACES], **tolerance)
    share = [regime.mix[1] for regime in fits[1].fitted]
    np.testing.assert_allclose(moved["limit"], plain["limit"] + 10.0 * np.array(share), atol=0.02)


@pytest.mark.slow
def test_methods_agree_on_unbalanced_replicates_of_two_techniques():
    population = unbalanced(mixed(3.0, seeds=3, regimes=[0.6]))
    exact, nuts = (popstats.fit(population, method=m, draws=500, tune=500) for m in ("exact", "nuts"))
    assert nuts.convergence.ok
    np.testing.assert_allclose(nuts.expected_drop.mean(0), exact.expected_drop.mean(0), atol=0.02)
    np.testing.assert_allclose(nuts.expected_drop.std(0), exact.expected_drop.std(0), rtol=0.25)


@pytest.mark.parametrize("noise", ["student", "exgaussian"])
def test_row_models_hold_the_technique_apart_too(noise):
    fits = [popstats.fit(mixed(p, regimes=[0.6]), noise=noise, draws=500) for p in (0.0, 10.0)]
    (plain, moved) = (f.optima().iloc[0] for f in fits)
    assert all(f.convergence.ok for f in fits)
    assert moved["near_lower"] == pytest.approx(plain["near_lower"], abs=0.03)
    assert moved["near_upper"] == pytest.approx(plain["near_upper"], abs=0.03)
    assert moved["residual_sd"] == pytest.approx(plain["residual_sd"], rel=0.1)


def test_one_technique_by_name_is_the_fit_without_the_column():
    base = simulate_population("asymmetric", regimes=[0.5, 0.7], n=80, seeds=2, seed_noise=0.1, seed=1)
    named = Population.from_frame(base.table.assign(retraining="scratch"))
    plain, same = (popstats.fit(p, method="exact") for p in (base, named))
    np.testing.assert_array_equal(plain.expected_drop, same.expected_drop)
    np.testing.assert_array_equal(plain.draws.coefficients, same.draws.coefficients)


def test_a_regime_of_one_technique_in_a_mixed_population_lacks_the_term():
    population = mixed(5.0)
    table = population.table
    population = population.select(
        ((table["retraining"] == "scratch") | (table["regime_target"] < 0.6)).to_numpy()
    )
    first, second = popstats.fit(population, method="exact").fitted
    assert first.fixed == (True, True, True, True)
    assert second.fixed == (True, True, True, False)
    assert second.mix == (0.0, 1.0)


def test_drops_are_adjusted_by_the_difference_between_techniques():
    population = mixed(10.0, regimes=[0.6])
    fit = popstats.fit(population, method="exact")
    (points,) = fit.rows
    adjusted = MeanCurve.of(fit, 0).adjusted
    scratch = points.technique[:, 0] > 0
    assert abs(adjusted[scratch].mean() - adjusted[~scratch].mean()) < 0.3
    assert points.drop[scratch].mean() > points.drop[~scratch].mean() + 5.0
    sample = sample_of(fit, 0, thinned(fit, 50))
    residual = np.concatenate([e for _, e, _ in sample.residuals(points)])
    assert abs(residual[scratch].mean()) < 0.1


def test_leave_one_out_and_predictive_checks_see_no_misfit():
    checks = popstats.fit(mixed(10.0), method="exact").predictive_checks
    assert checks.alerts == ()


def test_predictions_are_of_the_mix_unless_a_technique_is_named():
    population = mixed(10.0, regimes=[0.6])
    fit = popstats.fit(population, method="exact")
    share = fit.fitted[0].mix[1]
    whole, scratch, tuned = (
        fit.predict(1.0, 0.6, retraining=r)["drop"].iloc[0] for r in (None, "scratch", "fine-tune")
    )
    assert scratch - tuned == pytest.approx(10.0, abs=0.2)
    assert whole == pytest.approx(share * scratch + (1 - share) * tuned, abs=0.02)
    with pytest.raises(FitError, match=r"'lr-rewind' was not observed.*fine-tune, scratch"):
        fit.predict(1.0, 0.6, retraining="lr-rewind")


def test_companions_hold_the_technique_apart_too():
    plain, moved = (
        popstats.fit(mixed(p, regimes=[0.6]), curve="quadratic").optima().iloc[0] for p in (0.0, 10.0)
    )
    assert moved["mcb"] == pytest.approx(plain["mcb"], rel=1e-6)


def test_rows_that_do_not_say_are_a_technique_of_their_own():
    table = mixed(10.0, regimes=[0.6]).table
    population = Population.from_frame(
        table.assign(retraining=table["retraining"].where(table["retraining"] == "scratch"))
    )
    assert population.techniques == ("scratch", "")
    fit = popstats.fit(population, method="exact")
    assert fit.fitted[0].fixed == (True, True, True, True)
    with pytest.raises(FitError, match="it holds: scratch"):
        fit.predict(1.0, 0.6, retraining="")


def test_same_recipe_retrained_in_two_ways_is_two_recipes():
    base = simulate_population("quadratic", regimes=[0.5], n=40, seeds=2, seed_noise=0.1, seed=1)
    both = Population.from_frame(
        base.table.assign(retraining=np.where(base.table["seed"] % 2, "scratch", "fine-tune"))
    )
    assert base.has_replicates
    assert not both.has_replicates


def test_too_few_recipes_for_a_term_more_are_not_fitted():
    population = mixed(10.0, n=30, regimes=[0.6])
    ten = population.select(
        np.sort(np.argsort(population.technique, kind="stable")[[*range(5), *range(-5, 0)]])
    )
    (regime,) = prepare_regimes(prepared_recipes(ten, "macs"))
    told = sentence(regime.reason)
    assert told == "10 recipes; a curve through 2 retraining techniques needs at least 11."


def test_saved_and_loaded_exactly(tmp_path):
    fit = popstats.fit(mixed(4.0), method="exact")
    loaded = popstats.Fit.load(fit.save(tmp_path / "fit.nc"))
    np.testing.assert_array_equal(loaded.expected_drop, fit.expected_drop)
    assert loaded.fitted[0].mix == fit.fitted[0].mix


def test_drops_at_the_average_technique_lose_the_difference_and_keep_the_mean():
    plain, moved = (prepared_recipes(p, "macs") for p in (mixed(0.0, seeds=2), mixed(10.0, seeds=2)))
    for mine in moved.members:
        before, after = (t["drop"].iloc[mine] for t in (moved.table, moved.at_average_technique))
        np.testing.assert_allclose(after.mean(), before.mean())
        apart = after - plain.at_average_technique["drop"].iloc[mine]
        np.testing.assert_allclose(apart, apart.mean())
    alone = prepared_recipes(mixed(0.0, share=0.0), "macs")
    assert alone.at_average_technique is alone.table


def test_recipes_are_one_object_and_know_where_they_lie_in_their_regime():
    population = mixed(0.0)
    recipes = prepared_recipes(population, "macs", [0.5])
    assert prepared_recipes(population, "macs", (0.5,)) is recipes
    assert prepared_recipes(population, "macs", [0.75]) is not recipes
    (inside,) = recipes.members
    kept = 1 - recipes.table["reduction"].iloc[inside]
    np.testing.assert_allclose(0.5 * np.exp(recipes.table["offset"].iloc[inside]), kept)
    assert recipes.table["offset"].isna().sum() == len(recipes.table) - inside.size > 0


def test_what_explains_the_drop_and_the_width_law_do_not_see_the_shift():
    base = popstats.load_population("digits-resnet8").where(retraining="fine-tune")
    scratch = np.random.default_rng(0).random(base.recipe.max() + 1)[base.recipe] < 0.4
    table = base.table.assign(retraining=np.where(scratch, "scratch", "fine-tune"))
    level, moved = (
        Population.from_frame(table.assign(accuracy=table["accuracy"] - points * scratch))
        for points in (0.0, 2.0)
    )
    laws = [popstats.width_law(p).elasticities for p in (level, moved)]
    # The law over all regimes compares regimes, each at its own mix.
    laws = [law.loc[law["regime"] != "all", "points"] for law in laws]
    np.testing.assert_allclose(laws[1], laws[0], atol=1e-6)
    found = [what_explains(p, prepared_recipes(p, "macs")).frame["r2"] for p in (level, moved)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


def test_predictions_stay_sharp_where_the_populations_first_technique_is_absent():
    table = mixed(4.0).table
    upper = (table["regime_target"] > 0.6) & (table["retraining"] == "fine-tune")
    fit = popstats.fit(
        Population.from_frame(table.assign(retraining=table["retraining"].mask(upper, "lr-rewind"))),
        method="exact",
    )
    # Of the two techniques that the upper regime holds, the first determines the second.
    assert fit.fitted[1].fixed == (True, True, True, True, False)
    rewound, scratch = (fit.predict(1.0, 0.75, retraining=name) for name in ("lr-rewind", "scratch"))
    assert scratch["drop"][0] - rewound["drop"][0] == pytest.approx(4.0, abs=0.2)
    whole = fit.predict(1.0, 0.75)
    for part in (rewound, scratch):
        assert part["upper"][0] - part["lower"][0] < 2.5 * (whole["upper"][0] - whole["lower"][0])


def test_a_fit_of_several_techniques_survives_saving(tmp_path):
    fit = popstats.fit(mixed(5.0, regimes=[0.6]), method="exact", draws=50)
    loaded = popstats.Fit.load(fit.save(tmp_path / "mixed.nc"))
    assert loaded.fitted[0].mix == fit.fitted[0].mix
    one, same = (f.predict(1.0, 0.6, retraining="scratch") for f in (fit, loaded))
    np.testing.assert_allclose(one, same, rtol=1e-12)
