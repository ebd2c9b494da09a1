"""The exact method against brute force and against the truth."""

import numpy as np
import pytest

from popstats.inference.data import prepare_regimes
from popstats.inference.exact import _RATIOS, _tabulate, draw_regime
from popstats.inference.model import FIXED_TERMS, Priors, basis, log_basis_variance
from popstats.population.recipes import prepared_recipes
from popstats.population.simulate import simulate_population

PRIORS = Priors()


def regime_of(**settings):
    population = simulate_population(regimes=[0.7], **settings)
    recipes = prepared_recipes(population, "macs", {0.7: 0.05})
    (regime,) = prepare_regimes(recipes)
    return recipes, regime


def direct_log_likelihood(recipes, regime, length, amplitude, noise, share):
    """Log density of the recipe means and within-recipe deviations, with a huge instead of a flat prior."""
    recipes = recipes.table
    unit = regime.curve_scale.to_unit(recipes["log_mcb"])
    kept = np.abs(unit) <= 1.4
    recipes, unit = recipes[kept], unit[kept]
    c = recipes["offset"].to_numpy() / regime.reach
    y = (recipes["drop"].to_numpy() - regime.centre) / regime.scale
    fixed = np.column_stack([np.ones_like(c), c, c**2]) * 1e3
    curve = basis(unit) * np.exp(0.5 * log_basis_variance(length)) * amplitude
    runs = recipes["runs"].to_numpy()
    variance = noise**2 * (1 - share + share / runs)
    covariance = np.diag(variance) + curve @ curve.T + fixed @ fixed.T
    _, log_determinant = np.linalg.slogdet(covariance)
    value = -0.5 * (log_determinant + y @ np.linalg.solve(covariance, y))
    within, df = recipes["within"].sum() / regime.scale**2, (runs - 1).sum()
    return value - (0.5 * (df * np.log(share * noise**2) + within / (share * noise**2)) if df else 0.0)


@pytest.mark.parametrize("seeds", [1, 3])
def test_grid_likelihood_differs_from_the_direct_one_by_a_constant(seeds):
    recipes, regime = regime_of(n=40, seeds=seeds, seed_noise=0.1 if seeds > 1 else 0.0, seed=3)
    shares = np.array([0.2, 0.6]) if seeds > 1 else np.zeros(1)
    lengths = np.array([0.3, 0.9])
    weight, log_noise = _tabulate(regime, lengths, shares, PRIORS)
    differences = []
    for cell in [(0, 0, 10, 2), (0, 1, 25, 5), (shares.size - 1, 0, 30, 8), (shares.size - 1, 1, 15, 5)]:
        r, length, ratio, _ = cell
        noise = np.exp(log_noise[cell])
        amplitude = _RATIOS[ratio] * noise
        settings = (
            (noise, PRIORS.noise),
            (amplitude, PRIORS.amplitude),
            (lengths[length], PRIORS.length_scale),
        )
        prior = sum(-0.5 * ((np.log(v) - np.log(m)) / s) ** 2 for v, (m, s) in settings)
        prior += np.log(shares[r] * (1 - shares[r])) if seeds > 1 else 0.0
        direct = direct_log_likelihood(recipes, regime, lengths[length], amplitude, noise, shares[r])
        differences.append(weight[cell] - prior - direct)
    np.testing.assert_allclose(differences, differences[0], atol=1e-3)


def test_coefficients_given_one_cell_have_the_regression_posterior():
    _, regime = regime_of(n=300, noise=0.1, seed=4)
    draws = draw_regime(regime, PRIORS, 4000, np.random.default_rng(0))
    # Posterior mean of the coefficients at the average hyperparameters, by ridge regression.
    noise, amplitude, length = (np.median(v) for v in (draws.noise, draws.amplitude, draws.length_scale))
    diagonal = np.zeros(regime.xy.shape[1])
    diagonal[FIXED_TERMS:] = noise**2 / (amplitude**2 * np.exp(log_basis_variance(length)))
    mean = np.linalg.solve(regime.xx[0] + np.diag(diagonal), regime.xy[0])
    unit = np.linspace(-0.9, 0.9, 9)
    design = np.column_stack([np.ones(9), np.zeros((9, 2)), basis(unit)])
    spread = (draws.flat_coefficients[:, 0] @ design.T).std(axis=0)
    assert (
        np.abs(draws.flat_coefficients[:, 0].mean(axis=0) @ design.T - design @ mean) < 0.5 * spread
    ).all()


def test_seed_noise_is_told_from_the_recipes_own():
    _, regime = regime_of(n=400, seeds=3, noise=0.10, seed_noise=0.20, seed=5)
    draws = draw_regime(regime, PRIORS, 2000, np.random.default_rng(1))
    low, high = np.quantile(draws.seed_share, [0.005, 0.995])
    assert low < 0.2**2 / (0.1**2 + 0.2**2) < high
    assert high - low < 0.2


@pytest.mark.parametrize("noise", [0.01, 1e-4, 0.0])
def test_amplitude_grid_does_not_cut_the_posterior_off(noise):
    _, regime = regime_of(n=500, noise=noise, rise=5.0, seed=6)
    drawn = draw_regime(regime, PRIORS, 500, np.random.default_rng(0))
    assert drawn.edge_probability[0] < 0.01
    if noise:
        assert np.median(regime.scale * drawn.noise) == pytest.approx(noise, rel=0.1)


@pytest.mark.parametrize("seed_noise", [0.3, 0.01, 3e-4])
def test_noise_of_recipes_is_found_however_small_that_of_seeds_is(seed_noise):
    """A grid of shares that ends too early makes the noise of recipes too small: by 0.6 here."""
    _, regime = regime_of(n=300, noise=0.5, seeds=3, seed_noise=seed_noise, seed=1)
    drawn = draw_regime(regime, PRIORS, 500, np.random.default_rng(0))
    seeds, recipes = np.sqrt(drawn.seed_share), np.sqrt(1.0 - drawn.seed_share)
    assert np.median(regime.scale * drawn.noise * seeds) == pytest.approx(seed_noise, rel=0.1)
    assert np.median(regime.scale * drawn.noise * recipes) == pytest.approx(0.5, rel=0.1)
