import numpy as np
import pytest
from scipy.special import gamma, kv

from popstats.inference.model import (
    BOUNDARY,
    FREQUENCIES,
    SINES,
    SMOOTHNESS,
    CurveScale,
    basis,
    design_matrix,
    log_spectral_density,
)


def test_basis_is_the_sine_basis_of_its_docstring():
    u = np.linspace(-1.3, 1.3, 7)
    j = np.arange(1, SINES + 1)
    expected = np.sin(np.outer(u + BOUNDARY, j) * np.pi / (2 * BOUNDARY)) / np.sqrt(BOUNDARY)
    np.testing.assert_allclose(basis(u)[:, :-1], expected, atol=1e-12)
    assert basis(u)[:, -1].tolist() == u.tolist()


def test_basis_is_orthonormal_on_its_domain():
    u = np.linspace(-BOUNDARY, BOUNDARY, 20_001)
    sines = basis(u)[:, :-1]
    gram = sines.T @ sines * (u[1] - u[0])
    np.testing.assert_allclose(gram, np.eye(SINES), atol=1e-8)


def matern(distance, length):
    """2^(1 - nu) / Gamma(nu) s^nu K_nu(s) with s = sqrt(2 nu) r / l."""
    scaled = np.sqrt(2.0 * SMOOTHNESS) * np.maximum(np.abs(distance) / length, 1e-6)
    return 2.0 ** (1.0 - SMOOTHNESS) / gamma(SMOOTHNESS) * scaled**SMOOTHNESS * kv(SMOOTHNESS, scaled)


@pytest.mark.parametrize("length", [0.3, 0.5, 0.8, 1.5])
def test_basis_approximates_the_matern_covariance_beyond_level_and_line(length):
    """Level and line have columns of their own: what they can take over, the sines need not hold."""
    u = np.linspace(-1, 1, 21)
    straight = np.column_stack([np.ones_like(u), u])
    beyond = np.eye(21) - straight @ np.linalg.pinv(straight)
    sines = basis(u)[:, :-1]
    approximate = beyond @ (sines * np.exp(log_spectral_density(np.array([length]))) @ sines.T) @ beyond
    exact = beyond @ matern(u[:, None] - u[None, :], length) @ beyond
    np.testing.assert_allclose(approximate, exact, atol=0.035)
    assert np.trace(approximate) == pytest.approx(np.trace(exact), rel=0.07)


def test_spectral_density_integrates_to_the_variance():
    grid = np.linspace(0, 400, 400_001)
    step = FREQUENCIES[0]
    scaled = np.interp(grid, FREQUENCIES, np.exp(log_spectral_density(np.array([0.5]))))
    assert step > 0
    constant = 2 * np.sqrt(np.pi) * 3.5**1.75 * gamma(2.25) / gamma(1.75)
    # By the definition of the density, its integral over all frequencies is 2 pi times the variance.
    density = constant / 0.5**3.5 * (3.5 / 0.25 + grid**2) ** -2.25
    np.testing.assert_allclose(2 * np.trapezoid(density, grid) / (2 * np.pi), 1.0, rtol=1e-4)
    inside = (grid > step) & (grid < FREQUENCIES[-1])
    np.testing.assert_allclose(scaled[inside], density[inside], rtol=0.25)


def test_scale_puts_the_observed_range_on_minus_one_to_one():
    log_mcb = np.linspace(-0.4, 0.8, 1001)
    scale = CurveScale.of(log_mcb, np.zeros(1001))
    np.testing.assert_allclose(scale.to_unit(np.quantile(log_mcb, [0.025, 0.975])), [-1, 1])
    np.testing.assert_allclose(scale.grid(3), [scale.observed[0], scale.centre, scale.observed[1]])


def test_design_matrix_has_level_distance_square_and_basis():
    u, c = np.array([0.0, 0.5]), np.array([1.0, -0.5])
    design = design_matrix(u, c)
    np.testing.assert_allclose(design[:, :3], [[1, 1, 1], [1, -0.5, 0.25]])
    np.testing.assert_allclose(design[:, 3:], basis(u))
