"""What the prior takes off a curve: against the posterior mean of data without noise, and in simulated valleys."""

import numpy as np
import pytest

import popstats
from popstats.inference.data import prepare_regimes
from popstats.inference.exact import shrinkage
from popstats.inference.model import Hyper, log_basis_variance
from popstats.population.recipes import prepared_recipes
from popstats.population.simulate import simulate_population
from popstats.posterior.optimum import read_optimum


def regime_of(**settings):
    population = simulate_population(regimes=[0.7], **settings)
    return prepare_regimes(prepared_recipes(population, "macs", {0.7: 0.05}))[0]


def hyper(*values):
    return Hyper(*(np.array([value]) for value in values))


@pytest.mark.parametrize("seeds", [1, 3])
def test_bias_is_that_of_the_posterior_mean_given_data_without_noise(seeds):
    regime = regime_of(n=60, seeds=seeds, seed_noise=0.1 * (seeds - 1), seed=2)
    length, amplitude, noise, share = 0.8, 0.5, 0.4, 0.3
    data, terms = regime, len(regime.fixed)
    truth = np.random.default_rng(2).normal(size=data.xy.shape[1])
    truth[:terms] *= regime.fixed
    information = data.xx.sum(axis=0) / (noise**2 * (1.0 - share + share / seeds))
    prior = np.exp(-log_basis_variance(length)) / amplitude**2
    precision = information + np.diag([*(1.0 - np.array(regime.fixed)), *prior])
    mean = np.linalg.solve(precision, information @ truth)
    found = shrinkage(regime, truth, hyper(length, amplitude, noise, share))
    np.testing.assert_allclose(found, mean - truth, atol=1e-9)


def test_nothing_is_pulled_where_the_data_are_sharp_or_the_prior_is_wide():
    regime = regime_of(n=300, seed=1)
    mean = np.ones(regime.xy.shape[1])
    pulled = np.abs(shrinkage(regime, mean, hyper(0.7, 0.5, 0.8, 0.0))).max()
    assert np.abs(shrinkage(regime, mean, hyper(0.7, 0.5, 1e-6, 0.0))).max() < 1e-3 * pulled
    assert np.abs(shrinkage(regime, mean, hyper(0.7, 1e5, 0.8, 0.0))).max() < 1e-3 * pulled


def test_the_limit_of_a_narrow_valley_is_not_filled_in():
    """Valleys a fifth of the range wide, 100 recipes each: one mean over 24 regimes, whose error is 0.01 points."""
    errors, uncorrected = [], []
    for seed in range(8):
        population = simulate_population("narrow", n=100, seed=seed)
        regimes = dict.fromkeys((0.5, 0.7, 0.85), 0.05)
        fit = popstats.fit(population, regimes=regimes, method="exact", random_seed=seed)
        answers = population.metadata["truth"]["regimes"]
        for k, regime in enumerate(fit.fitted):
            limit, truth = np.median(fit.optimum_draws[k].limit), answers[regime.label]["limit"]
            plain = read_optimum(fit.grid[k], fit.expected_drop[:, k]).limit
            errors.append(limit - truth)
            uncorrected.append(np.median(plain) - truth)
    assert np.mean(uncorrected) > 0.035
    assert abs(np.mean(errors)) < 0.6 * np.mean(uncorrected)


def test_a_parametric_curve_has_no_prior_to_pull_it():
    population = simulate_population("quadratic", regimes=[0.7], n=60, seed=1)
    fit = popstats.fit(population, regimes={0.7: 0.05}, curve="quadratic")
    assert np.isfinite(fit.optimum_draws[0].limit).all()
