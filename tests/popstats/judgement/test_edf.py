"""EDFs, their bands, and comparisons of spaces at equal cost."""

import numpy as np
import pytest

from popstats.errors import FitError
from popstats.judgement.edf import compare_spaces, cost_weights, edf


def test_an_edf_counts() -> None:
    share, _, _ = edf([1.0, 2.0, 3.0, 4.0], grid=[0.5, 1.0, 2.5, 4.0])
    np.testing.assert_allclose(share, [0.0, 0.25, 0.5, 1.0])


def test_the_band_covers_the_true_distribution() -> None:
    inside = []
    for seed in range(60):
        drop = np.random.default_rng(seed).uniform(0, 1, 80)
        _, lower, upper = edf(drop, grid=[0.3, 0.5, 0.7], seed=seed)
        inside.append((lower <= [0.3, 0.5, 0.7]) & (upper >= [0.3, 0.5, 0.7]))
    assert 0.8 < np.mean(inside) < 0.97


def test_weights_give_both_spaces_one_histogram_of_costs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(100, 5, 500), rng.normal(103, 5, 400)
    w_a, w_b = cost_weights(a, b)
    edges = np.quantile(np.concatenate([a, b]), np.linspace(0, 1, 9))
    share_a = np.histogram(a, edges, weights=w_a)[0]
    share_b = np.histogram(b, edges, weights=w_b)[0]
    np.testing.assert_allclose(share_a, share_b, atol=1e-9)
    assert w_a.sum() == pytest.approx(1.0)


def test_a_difference_that_is_only_cost_vanishes_at_equal_cost() -> None:
    rng = np.random.default_rng(2)
    cost_a, cost_b = rng.uniform(0, 1, 2000), rng.beta(2, 1, 2000)
    drop_a, drop_b = -cost_a + 0.1 * rng.normal(size=2000), -cost_b + 0.1 * rng.normal(size=2000)
    raw = compare_spaces(drop_a, drop_b)
    fair = compare_spaces(drop_a, drop_b, costs=(cost_a, cost_b))
    assert raw.upper < -0.1
    assert abs(fair.points) < 0.03


def test_a_true_difference_is_found_with_its_size() -> None:
    rng = np.random.default_rng(3)
    found = compare_spaces(rng.normal(0.0, 0.2, 300), rng.normal(0.1, 0.2, 300))
    assert found.lower < 0.1 < found.upper
    assert (found.draws > 0).mean() > 0.99
    assert found.ks_p_value < 0.001


def test_spaces_without_common_cost_are_refused() -> None:
    with pytest.raises(FitError, match="share no cost"):
        cost_weights(np.arange(100.0), np.arange(1000.0, 1100.0))
