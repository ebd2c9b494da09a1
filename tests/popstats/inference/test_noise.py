"""Noise against scipy's distributions, into the corners where the textbook forms overflow."""

import numpy as np
import pytest
from scipy import stats

from popstats.inference.noise import distribution, draw_noise, log_density

RESIDUALS = np.array([-6.0, -1.0, -0.1, 0.0, 0.4, 2.0, 9.0])
CASES = [
    ("normal", 0.5, None, stats.norm(scale=0.5)),
    ("student", 0.5, 3.5, stats.t(3.5, scale=0.5)),
    ("exgaussian", 0.5, 0.4, stats.exponnorm(0.4 / 0.5, scale=0.5)),
    ("exgaussian", 0.5, 5.0, stats.exponnorm(5.0 / 0.5, scale=0.5)),
    ("exgaussian", 1.0, 0.02, stats.exponnorm(0.02, scale=1.0)),
]


@pytest.mark.parametrize(("noise", "scale", "shape", "expected"), CASES)
def test_density_and_distribution(noise, scale, shape, expected):
    shape = None if shape is None else np.array(shape)
    np.testing.assert_allclose(
        log_density(noise, RESIDUALS, np.array(scale), shape), expected.logpdf(RESIDUALS), rtol=1e-8
    )
    found = distribution(noise, RESIDUALS, np.array(scale), shape)
    np.testing.assert_allclose(found, expected.cdf(RESIDUALS), rtol=1e-8, atol=1e-12)


def test_exponential_noise_of_next_to_no_mean_is_normal():
    found = log_density("exgaussian", RESIDUALS, np.array(1.0), np.array(1e-6))
    np.testing.assert_allclose(found, stats.norm.logpdf(RESIDUALS), atol=1e-4)
    assert np.isfinite(distribution("exgaussian", RESIDUALS, np.array(1.0), np.array(1e-6))).all()


@pytest.mark.parametrize(("noise", "scale", "shape", "expected"), CASES)
def test_draws_follow_the_distribution(noise, scale, shape, expected):
    draws = draw_noise(
        noise, np.full(4000, scale), None if shape is None else np.array(shape), np.random.default_rng(0)
    )
    assert stats.kstest(draws, expected.cdf).pvalue > 0.001
