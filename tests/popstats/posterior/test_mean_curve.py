"""Curves through some of a regime's recipes: the noise of the fit, and nothing of the recipes left out."""

from dataclasses import replace

import numpy as np
import pytest

import popstats
from popstats.inference.model import prior_precision
from popstats.inference.noise import log_density
from popstats.posterior.fit import Fit
from popstats.posterior.mean_curve import MeanCurve


@pytest.fixture(scope="module")
def fitted() -> Fit:
    population = popstats.simulate_population("quadratic", regimes=(0.7,), n=400, rise=1.0, noise=0.1)
    return popstats.fit(population, method="exact")


@pytest.fixture(scope="module")
def normal(fitted: Fit) -> MeanCurve:
    return MeanCurve.of(fitted, 0)


def _with_noise(curve: MeanCurve, noise: str, shape: float, scale: float, drop: np.ndarray) -> MeanCurve:
    hyper = curve.hyper._replace(noise=np.array([scale]), shape=np.array([shape]))
    return replace(curve, rows=replace(curve.rows, drop=drop), noise=noise, hyper=hyper)


def _all(curve: MeanCurve) -> np.ndarray:
    return np.ones(curve.log_mcb.size, dtype=bool)


def test_through_all_recipes_it_is_the_fits_own_curve(fitted: Fit, normal: MeanCurve) -> None:
    mean = fitted.draws.flat_coefficients[:, 0].mean(axis=0)
    design = normal.rows.design
    np.testing.assert_allclose(design @ normal.coefficients(_all(normal)), design @ mean, atol=0.02)
    found = normal.optimum(_all(normal))
    assert found == pytest.approx(float(np.median(fitted.optimum_draws[0].log_mcb)), abs=0.02)


def test_a_half_knows_nothing_of_the_other(normal: MeanCurve) -> None:
    half = np.arange(normal.log_mcb.size) % 2 == 0
    moved = np.where(half, normal.rows.drop, 50.0)
    elsewhere = replace(normal, rows=replace(normal.rows, drop=moved))
    np.testing.assert_array_equal(normal.coefficients(half), elsewhere.coefficients(half))


@pytest.mark.parametrize(("noise", "shape"), [("student", 3.0), ("exgaussian", 0.8)])
def test_other_noises_reach_the_top_of_their_posterior(normal: MeanCurve, noise: str, shape: float) -> None:
    rng = np.random.default_rng(5)
    drop = normal.rows.design @ normal.coefficients(_all(normal)) + 0.2 * rng.standard_t(3, _all(normal).size)
    curve = _with_noise(normal, noise, shape, 0.3, drop)
    found, hyper = curve.coefficients(_all(curve)), curve.hyper
    (penalty,) = prior_precision(curve.rows.regime.fixed, hyper.length_scale, hyper.amplitude)

    def objective(beta: np.ndarray) -> float:
        fit = log_density(noise, drop - curve.rows.design @ beta, curve.scale, np.array(shape)).sum()
        return float(fit - 0.5 * penalty @ beta**2)

    best = objective(found)
    for direction in np.eye(found.size):
        assert objective(found + 0.02 * direction) < best + 0.02
        assert objective(found - 0.02 * direction) < best + 0.02


def test_collapsed_networks_pull_the_normal_curve_and_not_the_student_one(normal: MeanCurve) -> None:
    place, drop = normal.rows.unit, normal.rows.drop.copy()
    clean = normal.optimum(_all(normal))
    assert clean is not None
    middle = np.abs(place) < 0.35
    drop[np.flatnonzero(middle)[::4]] += 30.0
    student = _with_noise(normal, "student", 2.0, float(normal.scale.mean()), drop)
    pulled = replace(student, noise="normal")
    assert student.optimum(_all(student)) == pytest.approx(clean, abs=0.05)
    far = pulled.optimum(_all(pulled))
    assert far is not None
    assert abs(far - clean) > 0.2


def test_too_few_recipes_have_no_optimum(normal: MeanCurve) -> None:
    assert normal.optimum(np.arange(normal.log_mcb.size) < 9) is None
