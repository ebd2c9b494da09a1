"""The named truths have the shapes that their names promise, and answers are read off them correctly."""

import numpy as np
import pytest

from popstats.population.truths import NEAR_OPTIMAL, NEGLIGIBLE_RISE, TRUTHS, answer

STANDARD = np.linspace(-1.0, 1.0, 401)


def shape_of(name, rise=0.4):
    return TRUTHS[name](STANDARD, rise)


def test_answer_of_a_parabola_is_the_textbook_one():
    found = answer(lambda x: 2.0 + 0.8 * (x - 0.1) ** 2, target=0.7, observed=(-0.5, 0.5))
    half = np.sqrt(NEAR_OPTIMAL / 0.8)
    assert found["mcb"] == pytest.approx(np.exp(0.1), abs=1e-3)
    assert found["limit"] == pytest.approx(2.0, abs=1e-6)
    assert found["near_lower"] == pytest.approx(np.exp(0.1 - half), rel=1e-3)
    assert found["near_upper"] == pytest.approx(np.exp(0.1 + half), rel=1e-3)
    assert found["rise_lower"] == pytest.approx(0.8 * 0.36, abs=1e-5)
    assert found["rise_upper"] == pytest.approx(0.8 * 0.16, abs=1e-5)
    assert found["regret_at_original"] == pytest.approx(0.008, abs=1e-5)
    assert found["interior"]


def test_answer_at_an_edge_is_not_interior_and_has_no_regret_where_one_was_not_observed():
    found = answer(lambda x: x, target=0.5, observed=(0.2, 0.6))
    assert not found["interior"]
    assert found["mcb"] == pytest.approx(np.exp(0.2))
    assert found["near_lower"] == found["mcb"]
    assert found["regret_at_original"] is None


@pytest.mark.parametrize("name", ["quadratic", "asymmetric", "narrow", "w", "negligible"])
def test_truths_with_an_interior_optimum_have_one(name):
    assert answer(lambda u: TRUTHS[name](u, 0.4), 0.5, (-1.0, 1.0))["interior"]


@pytest.mark.parametrize(
    "name", ["flat", "linear", "saturating-8", "saturating-12", "plateau-then-rise", "edge", "beyond-edge"]
)
def test_truths_without_an_interior_optimum_have_none(name):
    found = answer(lambda u: TRUTHS[name](u, 0.4), 0.5, (-1.0, 1.0))
    assert min(found["rise_lower"], found["rise_upper"]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ["quadratic", "narrow", "linear", "edge", "beyond-edge", "saturating-12"])
def test_rise_is_the_height_over_the_standard_range(name):
    drop = shape_of(name, rise=0.4)
    assert np.ptp(drop) == pytest.approx(0.4, abs=1e-5)


def test_asymmetric_bends_five_times_as_much_on_the_left():
    drop = shape_of("asymmetric")
    assert drop[0] == pytest.approx(5.0 * drop[-1])


def test_w_has_two_minima_with_a_bump_above_the_negligible_between():
    drop = shape_of("w")
    minima = np.flatnonzero((drop[1:-1] < drop[:-2]) & (drop[1:-1] < drop[2:])) + 1
    assert minima.size == 2
    assert drop[minima[0] : minima[1]].max() - drop[minima].max() > 0.1


def test_negligible_stays_under_a_tenth_of_a_point_whatever_the_rise():
    assert shape_of("negligible", rise=5.0).max() == pytest.approx(NEGLIGIBLE_RISE)
    assert NEGLIGIBLE_RISE < 0.1


def test_saturating_falls_by_the_rate_over_the_range():
    drop = shape_of("saturating-8")
    assert drop[0] / drop[-1] == pytest.approx(np.exp(8.0))
