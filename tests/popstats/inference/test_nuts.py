"""The PyMC model: its compiled density, its agreement with the exact method, its reproducibility."""

import subprocess
import sys

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import popstats
from popstats.inference.cross_products import prepare_regimes, recipe_table
from popstats.inference.marginal import MarginalLogDensity, log_density, pack
from popstats.simulate import simulate_population
from popstats.spaces import assign_regimes


@pytest.fixture(scope="module")
def population():
    full = simulate_population(regimes=[0.5, 0.8], n=80, seeds=2, seed_noise=0.1, seed=7)
    keep = np.ones(len(full), dtype=bool)
    keep[:10] = [True, False] * 5 if full.recipe[0] == full.recipe[1] else True
    return full.select(keep)


@pytest.fixture(scope="module")
def density_inputs(population):
    assigned = assign_regimes(population.frame, "macs", {0.5: 0.05, 0.8: 0.05})
    regimes = prepare_regimes(recipe_table(population, assigned), assigned)
    rng = np.random.default_rng(0)
    return 0.3 * rng.normal(size=(3, 2)), rng.normal(size=2), pack(regimes)


@pytest.mark.parametrize(("which", "index"), [(0, (0, 1)), (0, (1, 0)), (0, (2, 1)), (1, (0,)), (1, (1,))])
def test_gradient_equals_finite_differences(density_inputs, which, index):
    value_and_gradients = log_density(*density_inputs)
    step = 1e-5
    ends = []
    for sign in (1, -1):
        moved = [array.copy() for array in density_inputs]
        moved[which][index] += sign * step
        ends.append(float(log_density(*moved)[0]))
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
        value_and_gradients[1 + which][index], rel=1e-4, abs=1e-6
    )


def test_compiled_density_equals_the_plain_one(density_inputs):
    symbols = [pt.dmatrix(), pt.dvector(), pt.dvector()]
    compiled = pytensor.function(symbols, MarginalLogDensity()(*symbols), mode="NUMBA")
    for got, expected in zip(compiled(*density_inputs), log_density(*density_inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-8)


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
        "import numpy as np, popstats, hashlib; from popstats.simulate import simulate_population as s;"
        "p = s(regimes=[0.5, 0.8], n=80, seed=7); f = popstats.fit(p, method='nuts', seed=1);"
        "print(hashlib.sha256(f.expected_drop.tobytes()).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
