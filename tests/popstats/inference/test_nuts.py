"""The marginal density of the hyperparameters: known answers from the rows' joint normal density, gradients."""

import ctypes

import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.stats import multivariate_normal

from popstats.inference.data import RegimeData, StandardRows, _accumulate
from popstats.inference.exact import draw_coefficients
from popstats.inference.model import CurveScale, Priors, design_matrix, log_basis_variance
from popstats.inference.nuts import (
    Coordinates,
    compiled_posterior,
    log_density,
    log_posterior,
    pack,
    pack_posterior,
)

RUNS = {
    "one run a recipe": np.ones(30),
    "three runs each": np.full(30, 3.0),
    "one to three runs": np.resize([1.0, 3.0, 2.0], 30),
}
POINTS = np.array([[[0.1], [-0.6], [-0.4], [0.3]], [[-0.9], [0.7], [0.2], [-1.5]]])


class Rows:
    """Thirty recipes of one regime, run by run, and the same as the fit sees them."""

    def __init__(self, runs, varied_reduction, seed=0, techniques=1):
        rng = np.random.default_rng(seed)
        n = runs.size
        unit = rng.uniform(-1.2, 1.2, n)
        distance = rng.uniform(-1.0, 1.0, n) if varied_reduction else np.zeros(n)
        self.recipe = np.repeat(np.arange(n), runs.astype(int))
        self.drop = (np.cos(2 * unit) + 0.3 * rng.normal(size=n))[self.recipe]
        self.drop += 0.2 * rng.normal(size=self.recipe.size)
        mean = np.bincount(self.recipe, self.drop) / runs
        within = np.bincount(self.recipe, (self.drop - mean[self.recipe]) ** 2)
        code = rng.integers(techniques, size=n) if techniques > 1 else np.zeros(n, dtype=int)
        mix = np.bincount(code) / n
        technique = (code[:, None] == np.arange(1, techniques)) - mix[1:]
        rows = StandardRows(unit, distance, mean, runs, within, np.ones(n), technique)
        products, fixed = _accumulate(rows)
        self.design = design_matrix(unit, distance, technique)
        self.fixed = np.flatnonzero([*fixed])
        self.regime = RegimeData(
            "0.50", 0.5, "macs", self.recipe.size, n, 0, CurveScale(0.0, 1.0), 1.0, 0.0, 1.0, fixed, products,
            mix=tuple(mix.tolist()),
        )  # fmt: skip

    def log_density(self, parameters):
        """Joint normal density of the runs, in the directions that the fixed terms do not reach."""
        log_length, log_amplitude, log_noise, logit_share = parameters[:, 0]
        share = 1 / (1 + np.exp(-logit_share))
        basis = self.design[self.recipe, len(self.regime.fixed) :]
        prior = np.exp(log_basis_variance(np.exp(log_length)) + 2 * log_amplitude)
        same_recipe, same_run = self.recipe[:, None] == self.recipe, np.eye(self.recipe.size)
        noise = np.exp(2 * log_noise) * ((1 - share) * same_recipe + share * same_run)
        free = null_space(self.design[self.recipe][:, self.fixed].T)
        covariance = free.T @ (basis * prior @ basis.T + noise) @ free
        return multivariate_normal(cov=covariance).logpdf(free.T @ self.drop)


#: Whether reductions vary, and how many retraining techniques there are.
TERMS = [(True, 1), (False, 1), (True, 3)]


@pytest.fixture(scope="module", params=[(r, *t) for r in RUNS for t in TERMS], ids=str)
def rows(request):
    runs, varied_reduction, techniques = request.param
    return Rows(RUNS[runs], varied_reduction, techniques=techniques)


def test_density_is_that_of_the_rows(rows):
    packed = pack([rows.regime])
    got = [float(log_density(point, packed)[0]) for point in POINTS]
    expected = [rows.log_density(point) for point in POINTS]
    assert got[1] - got[0] == pytest.approx(expected[1] - expected[0], rel=1e-7)


@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_gradient_equals_finite_differences(runs):
    """Two regimes side by side, of which the second has no replicates."""
    packed = pack([Rows(runs, True, 1).regime, Rows(np.ones(30), False, 2).regime])
    parameters = np.concatenate(POINTS, axis=1)
    gradient = log_density(parameters, packed)[1]
    step = 1e-5
    for index in np.ndindex(4, 2):
        moved = [parameters.copy(), parameters.copy()]
        moved[0][index] -= step
        moved[1][index] += step
        low, high = (float(log_density(m, packed)[0]) for m in moved)
        assert (high - low) / (2 * step) == pytest.approx(gradient[index], rel=1e-5, abs=1e-6)


def test_regimes_add_up(rows):
    other = Rows(RUNS["one to three runs"], True, 5, techniques=len(rows.regime.mix))
    parameters = np.concatenate(POINTS, axis=1)
    differences = [
        float(log_density(p, pack([rows.regime, other.regime]))[0]) for p in (parameters, parameters[:, ::-1])
    ]
    alone = [[float(log_density(p, pack([r.regime]))[0]) for p in POINTS] for r in (rows, other)]
    expected = alone[0][1] - alone[0][0] + alone[1][0] - alone[1][1]
    assert differences[1] - differences[0] == pytest.approx(expected, rel=1e-9)


def test_the_c_function_gives_the_same_and_says_where_the_density_ends():
    regimes = [Rows(runs, True).regime for runs in RUNS.values()]
    coordinates = Coordinates.of(regimes, Priors())
    assert coordinates.sizes == (3, 4, 4)
    data = pack_posterior(regimes, Priors(), coordinates)
    z = np.random.default_rng(0).normal(size=coordinates.dimension)
    by_z, by_z_c, value = np.empty_like(z), np.empty_like(z), np.empty(1)
    double = ctypes.POINTER(ctypes.c_double)

    def call(position):
        arrays = (a.ctypes.data_as(double) for a in (position, by_z_c, value))
        return compiled_posterior().ctypes(position.size, *arrays, data.ctypes.data_as(ctypes.c_void_p))

    assert call(z) == 0
    assert value[0] == pytest.approx(log_posterior(z, data, by_z), rel=1e-12)
    np.testing.assert_allclose(by_z_c, by_z, rtol=1e-10)
    assert call(z + 1e6) > 0


@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_coefficients_are_drawn_from_their_posterior(runs):
    """Generalised least squares on the runs themselves."""
    rows = Rows(runs, True)
    length, amplitude, noise, share = 0.8, 0.5, 0.4, 0.3
    same_recipe, same_run = rows.recipe[:, None] == rows.recipe, np.eye(rows.recipe.size)
    inverse = np.linalg.inv(noise**2 * ((1 - share) * same_recipe + share * same_run))
    x = rows.design[rows.recipe]
    prior = np.concatenate([np.zeros(3), np.exp(-log_basis_variance(length)) / amplitude**2])
    covariance = np.linalg.inv(x.T @ inverse @ x + np.diag(prior))
    full = [np.full((2, 2000), v) for v in (length, amplitude, noise, share)]
    drawn = draw_coefficients(rows.regime, *full, np.random.default_rng(1)).reshape(4000, -1)
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(drawn.mean(0) - covariance @ (x.T @ inverse @ rows.drop)) < 4.5 * spread / 63).all()
    np.testing.assert_allclose(drawn.std(0), spread, rtol=0.06)
    np.testing.assert_allclose(np.corrcoef(drawn[:, 3:6].T), _correlation(covariance[3:6, 3:6]), atol=0.08)


def _correlation(covariance):
    spread = np.sqrt(np.diag(covariance))
    return covariance / np.outer(spread, spread)
