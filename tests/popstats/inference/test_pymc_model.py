"""Sampling by NUTS: its density is the PyMC model's, its draws agree with the exact method and reproduce."""

import subprocess
import sys

import numpy as np
import pytest
from popstats.inference.nuts import Coordinates, log_posterior, pack_posterior

import popstats
from popstats.inference.data import prepare_regimes
from popstats.inference.model import Priors
from popstats.population.recipes import prepared_recipes
from popstats.population.simulate import simulate_population


@pytest.fixture(scope="module")
def population():
    full = simulate_population(regimes=[0.5, 0.8], n=80, seeds=2, seed_noise=0.1, seed=7)
    keep = np.ones(len(full), dtype=bool)
    keep[:10] = [True, False] * 5 if full.recipe[0] == full.recipe[1] else True
    return full.select(keep)


def test_the_sampled_density_is_that_of_the_pymc_model(population):
    """Value up to a constant, and gradient, through the sampler's coordinates."""
    from popstats.inference.pymc_model import build_model

    recipes = prepared_recipes(population, "macs", {0.5: 0.05, 0.8: 0.05})
    regimes, priors = prepare_regimes(recipes), Priors(pooling=0.4)
    coordinates = Coordinates.of(regimes, priors)
    data = pack_posterior(regimes, priors, coordinates)
    model = build_model(regimes, priors)
    value, gradient = (f(mode="FAST_COMPILE") for f in (model.compile_logp, model.compile_dlogp))
    offsets = []
    for z in np.random.default_rng(3).normal(size=(4, coordinates.dimension)):
        point = dict(zip((v.name for v in model.value_vars), coordinates.to_parameters(z), strict=True))
        by_z = np.empty_like(z)
        offsets.append(log_posterior(z, data, by_z) - value(point))
        step = 1e-5 * np.eye(z.size)
        slopes = (coordinates.to_parameters(z + step) - coordinates.to_parameters(z - step)) / 2e-5
        expected = np.tensordot(slopes, gradient(point).reshape(4, 2), 2)
        np.testing.assert_allclose(by_z, expected, rtol=1e-7, atol=1e-8)
    assert np.ptp(offsets) < 1e-9


@pytest.fixture(scope="module")
def nuts(population):
    return popstats.fit(population, regimes={0.5: 0.05, 0.8: 0.05}, method="nuts", seed=1)


def test_nuts_agrees_with_the_exact_method(population, nuts):
    exact = popstats.fit(population, regimes={0.5: 0.05, 0.8: 0.05}, method="exact", seed=1)
    assert nuts.convergence.ok, nuts.convergence.reasons
    distance = np.abs(nuts.expected_drop.mean(axis=0) - exact.expected_drop.mean(axis=0))
    spread = exact.expected_drop.std(axis=0)
    # Pooling moves the hyperparameters a little; the curves must stay within a third of their own sd.
    assert (distance < 0.35 * spread).all()
    np.testing.assert_allclose(nuts.expected_drop.std(axis=0), spread, rtol=0.35)


def test_same_seed_same_draws_and_another_seed_others(population, nuts):
    again = popstats.fit(population, regimes={0.5: 0.05, 0.8: 0.05}, method="nuts", seed=1)
    other = popstats.fit(population, regimes={0.5: 0.05, 0.8: 0.05}, method="nuts", seed=2)
    assert np.array_equal(nuts.expected_drop, again.expected_drop)
    assert not np.array_equal(nuts.expected_drop, other.expected_drop)


@pytest.mark.slow
def test_same_draws_in_another_process(nuts):
    code = (
        "import numpy as np, popstats, hashlib; from popstats.population.simulate import simulate_population as s;"
        "p = s(regimes=[0.5, 0.8], n=80, seed=7); f = popstats.fit(p, method='nuts', seed=1);"
        "print(hashlib.sha256(f.expected_drop.tobytes()).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
