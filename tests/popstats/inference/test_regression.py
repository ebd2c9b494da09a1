"""The shrinkage model against ordinary least squares, its own posterior, and held-out truth."""

import numpy as np

from popstats.inference.regression import assign_folds, fit_ridge, held_out_losses, weighted_cross_products


def _data(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    beta = np.array([1.0, -2.0, 0.5, 0.0])
    return np.column_stack([np.ones(n), x]), 3.0 + x @ beta + noise * rng.normal(size=n), np.ones(n)


def test_without_noise_it_is_least_squares() -> None:
    x, y, w = _data(200, 1e-6)
    fitted = fit_ridge(weighted_cross_products(x, y, w), 200, free=1)
    np.testing.assert_allclose(fitted, [3.0, 1.0, -2.0, 0.5, 0.0], atol=1e-5)


def test_weights_are_replicates() -> None:
    x, y, _ = _data(60, 0.5)
    twice = fit_ridge(weighted_cross_products(x, y, np.full(60, 2.0)), 60, free=1)
    once = fit_ridge(weighted_cross_products(x, y, np.ones(60)), 60, free=1)
    np.testing.assert_allclose(twice, once, rtol=1e-8)


def test_pure_noise_is_shrunk_to_nothing() -> None:
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(40), rng.normal(size=(40, 15))])
    y = rng.normal(size=40)
    fitted = fit_ridge(weighted_cross_products(x, y, np.ones(40)), 40, free=1)
    plain = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.abs(fitted[1:]).sum() < 0.3 * np.abs(plain[1:]).sum()


def test_a_constant_column_changes_nothing() -> None:
    x, y, w = _data(80, 0.3)
    alone = fit_ridge(weighted_cross_products(x, y, w), 80, free=1)
    with_constant = fit_ridge(
        weighted_cross_products(np.column_stack([x, np.full(80, 7.0)]), y, w), 80, free=1
    )
    np.testing.assert_allclose(with_constant[:5], alone, atol=1e-6)
    assert with_constant[5] == 0.0


def test_held_out_losses_are_those_of_leaving_the_fold_out() -> None:
    x, y, w = _data(50, 0.5)
    fold = assign_folds(50, seed=3)
    losses = held_out_losses(x, y, w, fold, free=1)
    keep = fold != 4
    mean = fit_ridge(weighted_cross_products(x[keep], y[keep], w[keep]), int(keep.sum()), free=1)
    np.testing.assert_allclose(losses[~keep], (y[~keep] - x[~keep] @ mean) ** 2, rtol=1e-6)


def test_folds_are_balanced() -> None:
    sizes = np.bincount(assign_folds(104, seed=0))
    assert sizes.size == 10
    assert set(sizes) == {10, 11}
