import numpy as np
import pytest

from popstats.inference.curves import (
    BOUNDARY,
    SINES,
    CurveScale,
    basis,
    design_matrix,
    frequencies,
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


def matern52(distance, length):
    scaled = np.sqrt(5) * np.abs(distance) / length
    return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


@pytest.mark.parametrize(("length", "error"), [(0.3, 0.02), (0.5, 0.04), (0.8, 0.15)])
def test_basis_approximates_the_matern_covariance(length, error):
    u = np.linspace(-1, 1, 21)
    sines = basis(u)[:, :-1]
    approximate = sines * np.exp(log_spectral_density(length)) @ sines.T
    np.testing.assert_allclose(approximate, matern52(u[:, None] - u[None, :], length), atol=error)


def test_spectral_density_integrates_to_the_variance():
    grid = np.linspace(0, 400, 400_001)
    step = frequencies()[0]
    scaled = np.interp(grid, frequencies(), np.exp(log_spectral_density(0.5)))
    assert step > 0
    # By the definition of the density, its integral over all frequencies is 2 pi times the variance.
    density = 400 * np.sqrt(5) / 3 / 0.5**5 * (5 / 0.25 + grid**2) ** -3.0
    np.testing.assert_allclose(2 * np.trapezoid(density, grid) / (2 * np.pi), 1.0, rtol=1e-4)
    inside = (grid > step) & (grid < frequencies()[-1])
    np.testing.assert_allclose(scaled[inside], density[inside], rtol=0.25)


def test_scale_puts_the_observed_range_on_minus_one_to_one():
    log_mcb = np.linspace(-0.4, 0.8, 1001)
    scale = CurveScale.from_log_mcb(log_mcb)
    np.testing.assert_allclose(scale.to_unit(np.quantile(log_mcb, [0.025, 0.975])), [-1, 1])
    np.testing.assert_allclose(scale.grid(3), [scale.observed[0], scale.centre, scale.observed[1]])


def test_design_matrix_has_level_distance_square_and_basis():
    u, c = np.array([0.0, 0.5]), np.array([1.0, -0.5])
    design = design_matrix(u, c)
    np.testing.assert_allclose(design[:, :3], [[1, 1, 1], [1, -0.5, 0.25]])
    np.testing.assert_allclose(design[:, 3:], basis(u))
