"""Pareto smoothing against the implementation of arviz_stats."""

import numpy as np
import pytest

from popstats.posterior.pointwise import smooth_log_weights


def log_ratios(draws, n=20):
    """Tails from light to so heavy that importance sampling fails, one after the other."""
    rng = np.random.default_rng(4)
    return np.linspace(0.05, 4.0, n)[:, None] * np.abs(rng.standard_normal((n, draws)))


@pytest.mark.parametrize("draws", [100, 500, 2000])
def test_equals_arviz(draws):
    from arviz_stats.base import array_stats

    ratios = log_ratios(draws)
    weights, k = smooth_log_weights(ratios)
    expected_weights, expected_k = array_stats.psislw(-ratios)
    np.testing.assert_allclose(k, expected_k, rtol=1e-9)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-8, atol=1e-10)
    assert k.min() < 0.5
    assert k.max() > 0.7


def test_weights_sum_to_one_and_keep_their_order():
    ratios = log_ratios(300)
    weights, _ = smooth_log_weights(ratios)
    np.testing.assert_allclose(np.exp(weights).sum(axis=1), 1.0)
    order = ratios.argsort(axis=1)
    assert (np.diff(np.take_along_axis(weights, order, axis=1), axis=1) >= -1e-12).all()


@pytest.mark.parametrize("draws", [10, 400])
def test_equal_ratios_and_few_draws_have_no_tail(draws):
    weights, k = smooth_log_weights(np.zeros((3, draws)))
    np.testing.assert_allclose(weights, -np.log(draws))
    assert np.isnan(k).all()
