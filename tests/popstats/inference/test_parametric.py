"""Quadratic and asymmetric curves: against least squares on the rows, and what a fit with them offers."""

import numpy as np
import pytest

import popstats
from popstats.errors import FitError
from popstats.inference.model import design_matrix
from popstats.inference.parametric import _shapes
from popstats.population.simulate import simulate_population

REGIMES = {0.7: 0.05}


def fit_of(curve, truth="quadratic", n=400, **settings):
    population = simulate_population(truth, regimes=[0.7], n=n, noise=0.1, seed=3, **settings)
    return popstats.fit(population, regimes=REGIMES, curve=curve, random_seed=1)


@pytest.fixture(scope="module")
def quadratic():
    return fit_of("quadratic")


def test_the_basis_holds_both_shapes():
    unit = np.linspace(-1, 1, 201)
    design = design_matrix(unit, np.zeros_like(unit))
    (parabola,) = _shapes("quadratic", (True, True, True))
    np.testing.assert_allclose(design @ parabola[:, -1], unit**2, atol=5e-5)
    halves = _shapes("asymmetric", (True, False, False))
    assert halves.shape[2] == 3
    middle = halves[len(halves) // 2]
    np.testing.assert_allclose(design @ middle[:, -2], unit**2 * (unit < 0), atol=3e-3)
    np.testing.assert_allclose(design @ middle[:, -1], unit**2 * (unit >= 0), atol=3e-3)


def test_quadratic_is_least_squares_on_the_rows(quadratic):
    (rows,) = quadratic.rows
    x = np.column_stack([np.ones_like(rows.unit), rows.offset, rows.offset**2, rows.unit, rows.unit**2])
    beta, (misfit,), *_ = np.linalg.lstsq(x, rows.drop)
    variance = misfit / (len(x) - 5)
    grid = np.linspace(-1, 1, 21)
    at = np.column_stack([np.ones(21), np.zeros((21, 2)), grid, grid**2])
    curves = quadratic.draws.flat_coefficients[:, 0] @ design_matrix(grid, np.zeros(21)).T
    error = np.sqrt(variance * np.einsum("gi,ij,gj->g", at, np.linalg.inv(x.T @ x), at))
    assert (np.abs(curves.mean(axis=0) - at @ beta) < 0.1 * error).all()
    np.testing.assert_allclose(curves.std(axis=0), error, rtol=0.06)
    assert np.median(quadratic.draws.noise) == pytest.approx(np.sqrt(variance), rel=0.01)


def test_asymmetric_finds_the_vertex_of_an_asymmetric_truth():
    fit = fit_of("asymmetric", truth="asymmetric", n=1500)
    (answer,) = fit.population.metadata["truth"]["regimes"].values()
    row = fit.optima().iloc[0]
    assert row.mcb_lower < answer["mcb"] < row.mcb_upper
    frame = fit.population.frame
    x, y = frame["log_mcb"].to_numpy(), frame["accuracy_drop"].to_numpy()

    def misfit(vertex):
        d = x - vertex
        halves = np.column_stack([np.ones_like(d), d**2 * (d < 0), d**2 * (d >= 0)])
        return np.linalg.lstsq(halves, y, rcond=None)[1][0]

    best = min(np.linspace(*np.quantile(x, [0.025, 0.975]), 801), key=misfit)
    assert np.log(row.mcb) == pytest.approx(best, abs=0.02)
    smooth = popstats.fit(fit.population, regimes=REGIMES, method="exact").optima().iloc[0]
    assert row.mcb_upper - row.mcb_lower < smooth.mcb_upper - smooth.mcb_lower


def test_replicates_narrow_the_noise_as_in_the_smooth_fit():
    population = simulate_population(
        "quadratic", regimes=[0.7], n=300, noise=0.1, seeds=3, seed_noise=0.2, seed=2
    )
    companion = popstats.fit(population, regimes=REGIMES, curve="quadratic")
    smooth = popstats.fit(population, regimes=REGIMES, method="exact")
    for name in ("residual_sd", "recipe_sd", "seed_sd", "limit"):
        assert companion.optima()[name].iloc[0] == pytest.approx(smooth.optima()[name].iloc[0], abs=0.02)


def test_a_fit_with_it_reads_like_any_other(quadratic, tmp_path):
    assert quadratic.settings.method == "exact"
    assert quadratic.convergence.ok
    assert "amplitude" not in quadratic.posterior["posterior"]
    assert quadratic.priors["distribution"].tolist() == ["flat", "flat"]
    assert np.isfinite(quadratic.predict([1.0], 0.7)["drop"]).all()
    again = popstats.Fit.load(quadratic.save(tmp_path / "fit.nc"))
    assert again.settings == quadratic.settings
    assert again.optima().equals(quadratic.optima())


def test_it_can_be_compared_with_the_smooth_curve():
    steep = fit_of("quadratic", truth="saturating-8", rise=0.8)
    smooth = popstats.fit(steep.population, regimes=REGIMES, method="exact", random_seed=1)
    found = popstats.compare(smooth, steep)
    assert found.frame["fit"].tolist() == ["smooth", "quadratic"]
    assert found.difference > 2 * found.dse


def test_it_is_never_the_source_of_a_verdict(quadratic):
    with pytest.raises(FitError, match="curve='smooth'"):
        popstats.judge(quadratic)
    with pytest.raises(FitError, match="has no priors"):
        _ = quadratic.prior_sensitivity
    with pytest.raises(FitError, match="smooth curve"):
        _ = quadratic.predictive_checks


def test_illegal_combinations_are_named():
    population = simulate_population(regimes=[0.7], n=30)
    with pytest.raises(
        FitError, match="curve: expected 'smooth' or 'quadratic' or 'asymmetric', got 'cubic'"
    ):
        popstats.fit(population, curve="cubic")
    with pytest.raises(FitError, match="curve='quadratic' has normal noise"):
        popstats.fit(population, curve="quadratic", noise="student")
