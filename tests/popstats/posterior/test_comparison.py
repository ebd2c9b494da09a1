"""Leave-one-out comparison: against refits, against arviz, and refusing what cannot be compared."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import popstats
from popstats.errors import FitError
from popstats.inference.model import Priors, design_matrix
from popstats.population.simulate import simulate_population
from popstats.posterior.comparison import _leave_one_out
from popstats.posterior.pointwise import sample_of, thinned

REGIMES = {0.5: 0.05, 0.7: 0.05}
STRAIGHT = Priors(length_scale=(50.0, 0.1), amplitude=(1e-3, 0.1))


def exact(population, **arguments):
    return popstats.fit(population, regimes=REGIMES, method="exact", **arguments)


@pytest.fixture(scope="module")
def population():
    return simulate_population("quadratic", regimes=[0.5, 0.7], n=60, noise=0.1, seed=2)


@pytest.fixture(scope="module")
def fit(population):
    return exact(population)


def test_a_curve_beats_no_curve_where_there_is_one(population, fit):
    found = popstats.compare({"curve": fit, "level": exact(population, priors=STRAIGHT)})
    assert found.frame["fit"].tolist() == ["curve", "level"]
    assert found.difference > 4 * found.dse > 0
    assert found.sentence.startswith("'curve' predicts left-out recipes better than 'level'")
    assert found.frame["recipes"].eq(120).all()
    assert "weight" not in found.frame


def test_two_draws_of_one_posterior_are_not_told_apart(population, fit):
    found = popstats.compare(fit, exact(population, random_seed=9))
    assert "cannot be told apart" in found.sentence
    assert 0.0 <= found.difference < 2.0
    assert "curve" not in repr(found)
    assert "cannot be told apart" in found._repr_html_()


def test_density_is_of_the_mean_drops_in_points(fit):
    points, sample = fit.rows[1], sample_of(fit, 1, thinned(fit, 7))
    blocks = [density for _, density in sample.log_density(points)]
    regime, design = points.regime, points.design
    expected = regime.centre + regime.scale * design @ sample.coefficients.T
    drop = regime.centre + regime.scale * points.drop
    by_hand = stats.norm.logpdf(drop[:, None], expected, regime.scale * sample.hyper.noise)
    np.testing.assert_allclose(np.concatenate(blocks), by_hand, rtol=1e-9)


def refitted_log_density(population, row):
    """Log density of one recipe's drop under a fit that has not seen it."""
    without = exact(popstats.Population.from_frame(population.table.drop(index=row)))
    at, regime = population.frame.loc[row], without.fitted[0]
    offset = regime.offset([at["macs_reduction"]])
    design = design_matrix(regime.curve_scale.to_unit([at["log_mcb"]]), offset)[0]
    design[:3] *= regime.fixed
    expected = regime.centre + regime.scale * without.draws.flat_coefficients[:, 0] @ design
    scale = regime.scale * without.draws.noise[:, :, 0].ravel()
    return np.log(stats.norm.pdf(at["accuracy_drop"], expected, scale).mean())


def test_elpd_equals_that_of_refits_without_the_recipe(population, fit):
    points, (elpd, _, p_loo) = fit.rows[0], _leave_one_out(fit, fit.rows)
    drops = points.regime.centre + points.regime.scale * points.drop
    for row in (3, 40):
        position = int(np.abs(drops - population.frame.loc[row, "accuracy_drop"]).argmin())
        assert elpd[position] == pytest.approx(refitted_log_density(population, row), abs=0.08)
    assert p_loo.sum() == pytest.approx(16, abs=7)


def test_replicates_narrow_the_noise_of_a_mean():
    few = simulate_population(regimes=[0.5], n=40, seeds=1, seed_noise=0.2, seed=1)
    many = simulate_population(regimes=[0.5], n=40, seeds=4, seed_noise=0.2, seed=1)
    scales = []
    for population in (few, many):
        fit = popstats.fit(population, regimes={0.5: 0.05}, method="exact")
        (points,) = fit.rows
        sample = sample_of(fit, 0, thinned(fit, 50))
        scales.append(points.regime.scale * np.median(next(sample.residuals(points))[2]))
    assert scales[1] < 0.85 * scales[0]


def test_refuses_what_cannot_be_compared(population, fit):
    other = simulate_population("quadratic", regimes=[0.5, 0.7], n=60, noise=0.1, seed=3)
    with pytest.raises(FitError, match=r"different recipes in regime 0\.50 .*one population"):
        popstats.compare(fit, exact(other))
    with pytest.raises(FitError, match=r"different regimes: macs 0\.50, 0\.70 against macs 0\.50"):
        popstats.compare(fit, popstats.fit(population, regimes=[0.5], method="exact"))
    with pytest.raises(FitError, match="at least two fits; got first: Fit"):
        popstats.compare(fit)
    with pytest.raises(FitError, match="it needs at least 100"):
        popstats.compare(fit, exact(population, draws=10))


def test_names_come_from_what_differs(fit):
    draws = replace(fit.draws, shape=np.full(fit.draws.noise.shape, 1e6))
    student = replace(fit, draws=draws, settings=replace(fit.settings, method="hmc", noise="student"))
    found = popstats.compare(fit, student)
    assert set(found.frame["fit"]) == {"normal", "student"}
    assert found.difference == pytest.approx(0.0, abs=1e-2)


@pytest.mark.parametrize(
    ("noise", "kind"),
    [("student", "heavy"), pytest.param("exgaussian", "skewed", marks=pytest.mark.slow)],
)
def test_the_noise_that_made_the_data_predicts_best(noise, kind):
    population = simulate_population(regimes=[0.5, 0.7], n=300, noise_kind=kind, seed=1)
    fits = {
        name: popstats.fit(population, regimes=REGIMES, noise=name, random_seed=2)
        for name in ("normal", noise)
    }
    found = popstats.compare(fits)
    assert found.frame["fit"].iloc[0] == noise
    assert found.difference > 2 * found.dse
    assert found.frame["share_bad_k"].max() < 0.02
    assert f"noise='{noise}'" in repr(popstats.check(fits["normal"]))
    assert "try noise=" not in repr(popstats.check(fits[noise]))
