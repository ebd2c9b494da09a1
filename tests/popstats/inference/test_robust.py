"""Noise that is not normal: its slopes against finite differences, and what the sampler recovers."""

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.inference.model import Hyper, Priors
from popstats.inference.noise import log_density, log_density_slopes
from popstats.inference.robust import _Posterior
from popstats.population.simulate import simulate_population

NOISES = ("student", "exgaussian")


@pytest.mark.parametrize("noise", NOISES)
def test_slopes_of_the_density_equal_finite_differences(noise):
    e, scale, shape = np.array([-3.0, -0.2, 1e-9, 0.4, 5.0, 40.0]), np.array(0.7), np.array(1.8)
    value, by_e, by_scale, by_shape = log_density_slopes(noise, e, scale, shape)
    np.testing.assert_allclose(value, log_density(noise, e, scale, shape), rtol=1e-12)
    up, down = 1.0 + 1e-6, 1.0 - 1e-6
    for found, ahead, behind in (
        (by_e * np.abs(e), (e + 1e-6 * np.abs(e), scale, shape), (e - 1e-6 * np.abs(e), scale, shape)),
        (by_scale, (e, scale * up, shape), (e, scale * down, shape)),
        (by_shape, (e, scale, shape * up), (e, scale, shape * down)),
    ):
        expected = (log_density(noise, *ahead) - log_density(noise, *behind)) / 2e-6
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("e", [-30.0, 30.0, 300.0])
def test_slopes_stay_finite_far_out_and_where_the_exponential_vanishes(e):
    for shape in (1e-6, 1.0, 1e6):
        found = log_density_slopes("exgaussian", np.array([e]), np.array(0.1), np.array(shape))
        assert all(np.isfinite(values).all() for values in found)


@pytest.mark.parametrize("noise", NOISES)
def test_the_gradient_of_the_posterior_is_that_of_its_value(noise):
    """Replicates, two techniques and a term that the regime cannot tell apart included."""
    population = simulate_population(regimes=[0.5], n=40, seeds=2, seed_noise=0.1, seed=1)
    fit = popstats.fit(population, regimes={0.5: 0.05}, draws=50)
    ((design,), (points,)) = fit.fitted, fit.rows
    hyper = Hyper(*(np.array([v]) for v in (0.7, 0.5, 0.8, 0.3)))
    target = _Posterior(noise, points, hyper, Priors(excess=(0.3, 0.8)))
    rng, common = np.random.default_rng(0), np.array([-0.3, 0.1])
    position = 0.3 * rng.standard_normal((design.xy.shape[1] + 2, 2))
    _, gradient = target.slopes(position, common)
    for i in range(len(position)):
        step = np.zeros_like(position)
        step[i] = 1e-6
        ahead, behind = (target.slopes(position + sign * step, common)[0] for sign in (1, -1))
        np.testing.assert_allclose(gradient[i], (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-5)


def test_regimes_of_constant_macs_are_sampled_as_easily_as_others():
    """Terms that a regime cannot tell apart keep out of the other coefficients' way."""
    rng, n = np.random.default_rng(0), 100
    log_mcb = rng.uniform(-0.5, 0.5, n)
    frame = pd.DataFrame(
        {
            "macs": np.full(n, 50_000_000),
            "params": np.rint(0.5e6 / np.exp(log_mcb)),
            "accuracy": 92.0 - 2.0 * log_mcb**2 + 0.1 * rng.standard_t(3, n),
        }
    )
    original = popstats.Original(macs=100_000_000, params=1_000_000, accuracy=93.0)
    population = popstats.Population.from_frame(frame, original=original)
    fit = popstats.fit(population, noise="student", draws=500)
    assert fit.convergence.ok, fit.convergence
    assert fit.fitted[0].fixed == (True, False, False)
    assert fit.optima()["mcb"].iloc[0] == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("noise", "kind"), [("student", "heavy"), ("exgaussian", "skewed")])
def test_fits_the_noise_it_is_made_for_and_narrows_the_intervals(noise, kind):
    population = simulate_population("quadratic", regimes=[0.5, 0.7], n=300, noise_kind=kind, seed=1)
    regimes = {0.5: 0.05, 0.7: 0.05}
    robust = popstats.fit(population, regimes=regimes, noise=noise, random_seed=2)
    normal = popstats.fit(population, regimes=regimes, random_seed=2)
    assert robust.convergence.ok, robust.convergence.reasons
    assert robust.settings.method == "hmc"
    width = [(f.optima()["limit_upper"] - f.optima()["limit_lower"]).to_numpy() for f in (robust, normal)]
    assert (width[0] < width[1]).all()
    for row, answer in zip(
        robust.optima().itertuples(), population.metadata["truth"]["regimes"].values(), strict=True
    ):
        assert row.limit == pytest.approx(answer["limit"], abs=0.05)
        assert row.mcb == pytest.approx(answer["mcb"], abs=0.08)


def test_same_seed_same_draws():
    population = simulate_population(regimes=[0.5], n=30, noise_kind="heavy", seed=3)
    one, two, other = (
        popstats.fit(population, noise="student", draws=20, random_seed=seed).draws.noise
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).all()
