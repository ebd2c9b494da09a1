"""Readings of hand-made draws."""

import numpy as np
import pytest

from popstats.judgement.optimum_claims import count_near, implied_lift, lift_draws
from popstats.judgement.space_claims import exchange_regret, std_halves
from popstats.judgement.trend_claims import leave_one_out_gain, lucky_share, optimum_trend
from popstats.judgement.verdicts import Thresholds
from popstats.posterior.optimum import (
    has_optimum,
    least_rise,
    near_optimal,
    read_optimum,
    second_region,
)

GRID = np.linspace(-1.0, 1.0, 201)


def _line(steps: np.ndarray) -> np.ndarray:
    return np.vander(steps, 2, increasing=True)


def _draws(*curves: np.ndarray) -> np.ndarray:
    return np.stack(curves)


def test_an_optimum_needs_to_be_interior_with_both_ends_above() -> None:
    drop = _draws(
        0.11 * GRID**2, 0.09 * GRID**2, 0.5 * GRID, 0.05 * (GRID - 0.5) ** 2 + 0.4 * np.maximum(-GRID, 0)
    )
    optimum = read_optimum(GRID, drop)
    assert has_optimum(optimum, rise=0.1).tolist() == [True, False, False, False]
    np.testing.assert_allclose(least_rise(optimum), [0.11, 0.09, 0.0, 0.0125], atol=1e-6)


def test_a_w_has_a_second_region_where_it_is() -> None:
    w = 4.0 * (GRID**2 - 0.25) ** 2 + 0.02 * GRID
    probability, regions = second_region(GRID, _draws(w, w), bump=0.1)
    assert probability == 1.0
    assert regions[1][1] == pytest.approx(0.5, abs=0.02)
    _, mirrored = second_region(GRID, _draws(w[::-1]), bump=0.1)
    assert mirrored[0][1] == pytest.approx(-0.5, abs=0.02)


def test_both_good_regions_have_their_place_whichever_is_the_lower() -> None:
    left_lower, right_lower = (4.0 * (GRID**2 - 0.25) ** 2 + tilt * GRID for tilt in (0.02, -0.02))
    _, regions = second_region(GRID, _draws(left_lower, right_lower, right_lower), bump=0.1, near=0.05)
    # 4 (x^2 - 1/4)^2 = 0.05 at x^2 = 0.25 -+ sqrt(0.05 / 4): 0.37 and 0.60.
    inner, outer = np.sqrt(0.25 - np.sqrt(0.0125)), np.sqrt(0.25 + np.sqrt(0.0125))
    (a, left, b), (c, right, d) = regions
    assert [a, left, b] == pytest.approx([-outer, -0.5, -inner], abs=0.03)
    assert [c, right, d] == pytest.approx([inner, 0.5, outer], abs=0.03)
    assert second_region(GRID, _draws(GRID**2), bump=0.1) == (0.0, ())


def test_the_near_optimal_range_is_all_that_is_as_good() -> None:
    w = 4.0 * (GRID**2 - 0.25) ** 2 + 0.02 * GRID
    found = near_optimal(GRID, _draws(w, w))
    assert (found.height, found.probability) == (0.05, 1.0)
    # The left valley is lower by 0.02: its stretch comes first, the other's is as high as 0.03 above its own minimum.
    (low, high), (left, right) = found.stretches
    assert low == pytest.approx(-np.sqrt(0.25 + np.sqrt(0.0125)), abs=0.03)
    assert low < -0.5 < high < 0.0 < left < 0.5 < right
    assert len(near_optimal(GRID, _draws(0.3 * GRID**2)).stretches) == 1


def test_where_no_value_is_near_with_probability_one_half_the_height_rises() -> None:
    places = np.linspace(-0.9, 0.9, 19)
    found = near_optimal(GRID, _draws(*(2.0 * (GRID - place) ** 2 for place in places)))
    assert found.height == 0.5
    # Within 0.05 points: valleys less than sqrt(0.025) = 0.16 away, four of them halfway between two.
    assert found.probability == pytest.approx(4 / 19)
    # Within half a point: valleys at most 0.5 away, ten or more of the nineteen.
    lower, upper = found.stretches[0]
    assert upper == pytest.approx(-lower, abs=1e-9)
    assert 0.35 < upper < 0.6
    steep = near_optimal(GRID, _draws(*(100.0 * (GRID - place) ** 2 for place in places)))
    assert steep.height > 5.0


def test_optima_that_know_nothing_are_as_lucky_as_any() -> None:
    steps = np.log1p(-np.array([0.2, 0.35, 0.5, 0.65, 0.75, 0.85, 0.9]))
    limit = 1.0 - 2.0 * steps + 0.5 * steps**2
    shares, lowered = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        mcb = 0.1 * steps + 0.1 * rng.normal(size=7)
        shares.append(lucky_share(limit, mcb, _line(steps), rng))
        lowered.append(leave_one_out_gain(limit[None], mcb[None], _line(steps))[0] > 0)
    # The error falls by luck alone in a quarter of cases, and every one would be called certain with exact limits.
    assert np.mean(lowered) > 0.12
    assert np.mean(np.array(shares) <= 0.05) <= 0.10
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)


def test_optima_that_make_the_limit_are_no_luck() -> None:
    rng = np.random.default_rng(1)
    steps = np.log1p(-np.array([0.2, 0.35, 0.5, 0.65, 0.75, 0.85, 0.9]))
    mcb = 0.1 * steps + 0.1 * rng.normal(size=7)
    limit = 1.0 - 2.0 * steps + 5.0 * mcb
    assert lucky_share(limit, mcb, _line(steps), rng) < 0.01


@pytest.mark.parametrize(
    "curve",
    [
        GRID**2,
        0.05 * np.cos(6 * GRID),  # ripples below the bump that counts
        4.0 * (GRID**2 - 0.25) ** 2 + 0.3 * GRID,  # a second minimum that is no good region
    ],
)
def test_no_second_region_without_a_bump_between_equals(curve: np.ndarray) -> None:
    assert second_region(GRID, _draws(curve), bump=0.1)[0] == 0.0


def test_the_trend_is_the_change_over_the_regimes() -> None:
    steps = np.array([0.5, 1.0, 1.5, 2.0])
    rng = np.random.default_rng(0)
    draws = 0.1 * steps + 0.001 * rng.normal(size=(500, 4))
    np.testing.assert_allclose(optimum_trend(draws, steps).mean(), 0.15, atol=1e-3)


def test_an_uncertain_regime_hardly_counts_in_the_trend() -> None:
    steps = np.array([0.5, 1.0, 1.5, 2.0])
    rng = np.random.default_rng(0)
    spread = np.array([0.01, 0.01, 0.01, 1.0])
    draws = np.array([0.0, 0.0, 0.0, 0.8]) + spread * rng.normal(size=(2000, 4))
    assert abs(optimum_trend(draws, steps).mean()) < 0.02


def test_a_limit_that_follows_the_optimum_is_predicted_better() -> None:
    rng = np.random.default_rng(1)
    steps = np.log1p(-np.array([0.2, 0.35, 0.5, 0.65, 0.75, 0.85, 0.9]))
    mcb = rng.normal(size=7)
    limit = -2.0 * steps + 0.5 * mcb
    gain = leave_one_out_gain(limit + 0.01 * rng.normal(size=(300, 7)), np.tile(mcb, (300, 1)), _line(steps))
    assert (gain > 0).mean() > 0.99
    without = leave_one_out_gain(
        -2.0 * steps + 0.01 * rng.normal(size=(300, 7)), rng.normal(size=(300, 7)), _line(steps)
    )
    assert 0.05 < (without > 0).mean() < 0.5


def test_leave_one_out_errors_are_those_of_leaving_out() -> None:
    rng = np.random.default_rng(2)
    steps, limit, mcb = np.linspace(-2, -0.2, 6), rng.normal(size=6), rng.normal(size=6)

    def error(design: np.ndarray) -> float:
        left_out = []
        for k in range(6):
            keep = np.arange(6) != k
            beta = np.linalg.lstsq(design[keep], limit[keep], rcond=None)[0]
            left_out.append(limit[k] - design[k] @ beta)
        return float(np.sqrt(np.mean(np.square(left_out))))

    base = np.column_stack([np.ones(6), steps])
    expected = error(base) - error(np.column_stack([base, mcb]))
    assert leave_one_out_gain(limit[None], mcb[None], _line(steps))[0] == pytest.approx(expected, rel=1e-6)


def test_exchanging_optima_costs_what_the_curves_say() -> None:
    first, second = _draws((GRID + 0.5) ** 2), _draws(2.0 * (GRID - 0.5) ** 2)
    assert exchange_regret(GRID, first, GRID, second)[0] == pytest.approx(2.0, abs=1e-6)
    assert exchange_regret(GRID, first, GRID, first)[0] == 0.0


def test_std_spaces_are_the_outer_thirds() -> None:
    low, high = std_halves(np.arange(9.0))
    assert low.tolist() == [True] * 3 + [False] * 6
    assert high.tolist() == [False] * 6 + [True] * 3


def test_winners_are_counted_among_the_nearest() -> None:
    log_mcb = np.linspace(-1, 1, 100)
    near, winners = count_near(log_mcb, np.abs(log_mcb), optimum=0.0, limits=Thresholds())
    assert (near, winners) == (5, 5)
    near, winners = count_near(log_mcb, np.abs(log_mcb), optimum=-1.0, limits=Thresholds())
    assert (near, winners) == (0, 5)


def test_the_lift_without_winners_is_its_prior() -> None:
    draws = lift_draws(0.0, 0.0, 0.2, np.random.default_rng(0))
    assert draws.mean() == pytest.approx(1.0, abs=0.1)
    many = lift_draws(50.0, 100.0, 0.2, np.random.default_rng(0))
    assert many.mean() == pytest.approx(2.5, abs=0.1)


def test_a_flat_curve_implies_no_lift_and_a_deep_one_all_of_it() -> None:
    log_mcb, noise = np.linspace(-1, 1, 400), 0.1 * np.random.default_rng(0).standard_normal((200, 400))
    flat = implied_lift(log_mcb, np.zeros(400), noise, 0.0, Thresholds())
    deep = implied_lift(log_mcb, 10.0 * log_mcb**2, noise, 0.0, Thresholds())
    assert flat == pytest.approx(1.0, abs=0.1)
    assert deep == pytest.approx(5.0, abs=0.1)
