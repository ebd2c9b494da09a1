import numpy as np
import pytest

from popstats.inference.draws import interval
from popstats.posterior.optimum import read_optimum, value_at

GRID = np.linspace(-1.0, 1.0, 161)


def test_reads_a_parabola_exactly():
    found = read_optimum(GRID, (1.0 + 0.8 * (GRID - 0.123) ** 2)[None])
    assert found.log_mcb[0] == pytest.approx(0.123, abs=1e-9)
    assert found.limit[0] == pytest.approx(1.0, abs=1e-9)
    reach = np.sqrt(0.05 / 0.8)
    assert found.near_lower[0] == pytest.approx(0.123 - reach, abs=1e-3)
    assert found.near_upper[0] == pytest.approx(0.123 + reach, abs=1e-3)
    assert found.rise_lower[0] == pytest.approx(0.8 * 1.123**2)
    assert found.regret_at_original[0] == pytest.approx(0.8 * 0.123**2, abs=1e-4)
    assert found.interior[0]


def test_monotone_curve_has_its_optimum_on_the_edge():
    found = read_optimum(GRID, np.stack([GRID, -GRID]))
    assert found.log_mcb.tolist() == [-1.0, 1.0]
    assert not found.interior.any()
    assert found.near_lower[0] == -1.0
    assert found.near_upper[0] == pytest.approx(-0.95)
    assert found.near_upper[1] == 1.0


def test_flat_curve_is_near_optimal_everywhere():
    found = read_optimum(GRID, np.zeros((1, GRID.size)))
    assert (found.near_lower[0], found.near_upper[0]) == (-1.0, 1.0)


def test_near_optimal_range_stops_at_the_first_crossing():
    drop = np.minimum((GRID + 0.6) ** 2, (GRID - 0.6) ** 2 + 0.01)[None]
    found = read_optimum(GRID, drop)
    assert found.near_upper[0] < 0.0
    assert found.log_mcb[0] == pytest.approx(-0.6, abs=1e-6)


def test_regret_outside_the_observed_range_is_nan():
    grid = np.linspace(0.2, 1.0, 50)
    assert np.isnan(read_optimum(grid, (grid**2)[None]).regret_at_original).all()


def test_value_between_grid_points_is_linear():
    assert value_at(np.array([0.0, 1.0]), np.array([[2.0, 4.0]]), 0.25).tolist() == [2.5]


def test_interval_holds_its_mass():
    low, high = interval(np.arange(1001.0))
    assert (low, high) == pytest.approx((50.0, 950.0))


def wiggles(rng, size):
    return 0.06 * np.cos(np.outer(rng.uniform(5, 15, size), GRID) + rng.uniform(0, 6.3, (size, 1)))


def test_limit_is_corrected_for_the_bias_of_a_minimum():
    # An estimate is the truth plus a wiggle, a draw the estimate plus another: both look for their own dip.
    rng = np.random.default_rng(0)
    truth = 1.0 + GRID**2
    estimates = truth + wiggles(rng, 300)
    draws = [estimate + wiggles(rng, 200) for estimate in estimates]
    plain = np.mean([d.min(axis=1).mean() for d in draws])
    corrected = np.mean([read_optimum(GRID, d).limit.mean() for d in draws])
    assert plain < 0.95
    assert abs(corrected - 1.0) < 0.6 * abs(plain - 1.0), (plain, corrected)


def test_limit_is_corrected_for_what_the_prior_fills_in():
    draws = 1.0 + (GRID - 0.2) ** 2 + np.array([[0.0], [0.1]])
    bias = 0.05 - 0.1 * (GRID - 0.2) ** 2
    plain, corrected = read_optimum(GRID, draws), read_optimum(GRID, draws, bias=bias)
    np.testing.assert_allclose(corrected.limit, plain.limit - 0.05, atol=1e-9)
    for name in ("log_mcb", "near_lower", "near_upper", "rise_lower", "regret_at_original"):
        assert getattr(corrected, name).tolist() == getattr(plain, name).tolist()
