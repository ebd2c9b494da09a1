"""Power scaling: against refits with scaled priors, against arviz, and on priors that ought to be noticed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import popstats
from popstats.inference.exact import log_likelihood
from popstats.inference.model import Priors
from popstats.population.simulate import simulate_population
from popstats.posterior.pointwise import sample_of, thinned
from popstats.posterior.sensitivity import POWERS, log_prior, power_weights

REGIMES = {0.6: 0.05}


def exact(truth="quadratic", priors=None, n=200, draws=1000, **settings):
    population = simulate_population(truth, regimes=[0.6], n=n, seed=4, **settings)
    return popstats.fit(population, regimes=REGIMES, method="exact", priors=priors, draws=draws)


def test_clear_data_do_not_lean_on_the_priors():
    found = exact().prior_sensitivity
    assert not found.findings
    assert found.frame["quantity"].tolist() == ["optimum", "near_lower", "near_upper", "limit"]
    assert (found.frame["prior"] < 0.05).all()
    assert (found.frame["likelihood"] > found.frame["prior"]).all()
    assert "near-optimal range or limit is sensitive to the priors" in found.sentence


@pytest.mark.parametrize("stubborn", [Priors(amplitude=(0.05, 0.3)), Priors(noise=(0.1, 0.15))])
def test_priors_that_fight_the_data_are_noticed(stubborn):
    found = exact(priors=stubborn, n=60).prior_sensitivity
    assert set(found.frame["diagnosis"]) >= {"prior-data conflict"}
    assert (found.findings[0].kind, found.findings[0].regimes) == ("leans on priors", ("0.60",))
    assert found.sentence.startswith("At 60 %, the priors influence the ")
    assert "Fit again with other priors" in found.sentence


@pytest.mark.parametrize(("power", "which"), [(POWERS[0], 0), (POWERS[1], 1)])
def test_weights_stand_for_a_refit_with_scaled_priors(power, which):
    fit = exact(n=40, draws=4000)
    picked = thinned(fit, 16_000)
    weights = power_weights(log_prior(fit, picked))[which]
    priors = fit.prior_settings
    scaled = {
        name: (median, spread / np.sqrt(power))
        for name, (median, spread) in (
            ("length_scale", priors.length_scale),
            ("amplitude", priors.amplitude),
            ("noise", priors.noise),
        )
    }
    refit = exact(n=40, draws=4000, priors=replace(priors, **scaled))
    for name in scaled:
        values = np.log(getattr(fit.draws, name)).ravel()
        moved = values - weights @ values
        wanted = np.log(getattr(refit.draws, name))
        assert weights @ values == pytest.approx(wanted.mean(), abs=0.06 * values.std())
        assert np.sqrt(weights @ moved**2) == pytest.approx(wanted.std(), rel=0.06)


@pytest.mark.parametrize("settings", [{}, {"seeds": 3, "seed_noise": 0.1}])
def test_likelihood_from_cross_products_is_that_of_the_rows(settings):
    fit = exact(n=50, draws=20, **settings)
    (points,), sample = fit.rows, sample_of(fit, 0, thinned(fit, 80))
    by_rows = np.sum([d.sum(axis=0) for _, d in sample.log_density(points)], axis=0)
    run = sample.hyper.seed_share * sample.hyper.noise**2
    within, df = points.within.sum(), (points.runs - 1).sum()
    if df:
        by_rows -= 0.5 * (df * np.log(run) + within / run)
    np.testing.assert_allclose(
        np.ptp(log_likelihood(fit.fitted[0], sample.hyper, sample.coefficients) - by_rows), 0.0, atol=1e-7
    )


def test_noise_that_sees_every_row():
    fit = exact(n=60, draws=200)
    shape = np.exp(np.random.default_rng(0).normal(2.0, 0.3, fit.draws.noise.shape))
    student = replace(
        fit,
        draws=replace(fit.draws, shape=shape),
        settings=replace(fit.settings, noise="student", method="hmc"),
    )
    frame = student.prior_sensitivity.frame
    assert np.isfinite(frame[["prior", "likelihood", "median_change"]]).all(axis=None)
    assert (frame["likelihood"] > 0).all()


def test_the_prior_of_the_degrees_of_freedom_is_that_of_the_model():
    """1 + Gamma(2, 0.1), as a density of log(nu - 1)."""
    fit, nu = exact(draws=50), np.linspace(1.2, 60.0, 50)
    fit = replace(fit, settings=replace(fit.settings, method="hmc", noise="student"))
    with_shape = replace(fit, draws=replace(fit.draws, shape=np.resize(nu, fit.draws.noise.shape)))
    picked = np.arange(nu.size)
    prior = log_prior(with_shape, picked) - log_prior(fit, picked)
    expected = stats.gamma(2.0, scale=10.0).logpdf(nu - 1.0) + np.log(nu - 1.0)
    np.testing.assert_allclose(prior - prior[0], expected - expected[0])
