"""Noise that is not normal: its density against scipy, and what the models recover."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import popstats
from popstats.inference.data import RegimeDesign, StandardRows
from popstats.inference.model import COLUMNS, FIXED_TERMS, CurveScale, Priors
from popstats.inference.robust import RowCoordinates, pack_row_posterior
from popstats.inference.robust_density import (
    _decay,
    _scaled_tail,
    _sum_of_logs,
    log_density,
    log_row_posterior,
    pack_rows,
)
from popstats.population.simulate import simulate_population
from popstats.posterior.pointwise import fitted_points


def some_rows(n, techniques=1, fixed=None, seed=0):
    """Return a regime that knows its fixed terms alone, and its recipes in the model's units."""
    rng = np.random.default_rng(seed)
    mix = (1.0 / techniques,) * techniques
    fixed = fixed or (True,) * (FIXED_TERMS + techniques - 1)
    regime = RegimeDesign(
        "0.50", 0.5, "macs", n, n, 0, CurveScale(0.0, 0.5), 0.05, 1.0, 1.0, fixed, None, mix=mix
    )
    unit, distance, drop = rng.uniform(-1.3, 1.3, n), rng.uniform(-1, 1, n), rng.normal(size=n)
    technique = (rng.integers(0, techniques, n)[:, None] == np.arange(1, techniques)) - 1.0 / techniques
    return regime, StandardRows(unit, distance, drop, np.ones(n), np.zeros(n), np.ones(n), technique)


def one_row(kind, e, scale, shape):
    """Return the log density of one residual: a regime whose curve is zero."""
    regime, rows = some_rows(1)
    packed = pack_rows(kind, [regime], [replace(rows, drop=np.array([e]))], [np.ones(1)])
    value, *_ = log_density(np.zeros((1, COLUMNS)), np.log([scale]), np.log([shape]), packed)
    return float(value)


@pytest.mark.parametrize(
    ("e", "scale", "tau"),
    [
        (0.3, 0.5, 0.4),
        (-2.0, 0.5, 0.1),
        (3.0, 0.5, 0.01),
        (5.0, 0.2, 3.0),
        (-1.0, 1.0, 1e-3),
        (40.0, 1.0, 1.0),
    ],
)
def test_frontier_density_is_the_exponentially_modified_normal(e, scale, tau):
    expected = stats.exponnorm.logpdf(e, tau / scale, scale=scale)
    assert one_row("frontier", e, scale, tau) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("e", "scale", "nu"), [(0.3, 0.5, 4.0), (-8.0, 0.5, 3.0), (0.0, 2.0, 50.0)])
def test_student_density(e, scale, nu):
    assert one_row("student", e, scale, nu) == pytest.approx(stats.t.logpdf(e / scale, nu) - np.log(scale))


def test_scaled_tail_is_erfcx_on_the_whole_half_line():
    t = np.concatenate([np.linspace(-12, 12, 2001), np.logspace(1, 8, 200)])
    found = np.empty_like(t)
    _scaled_tail(t, found)
    np.testing.assert_allclose(found, special.erfcx(np.abs(t)), rtol=1e-13)


def test_decay_is_the_normal_density_left_of_zero():
    t = np.linspace(-9.0, 3.0, 2001)
    found = np.empty_like(t)
    _decay(t, found)
    np.testing.assert_allclose(found, np.exp(-(np.minimum(t, 0.0) ** 2)), rtol=1e-13, atol=1e-17)


def test_sum_of_logs_of_far_outliers_stays_finite():
    values = 10.0 ** np.arange(37.0)
    assert _sum_of_logs(values) == pytest.approx(np.log(values).sum())


@pytest.mark.parametrize("kind", ["student", "frontier"])
@pytest.mark.parametrize("techniques", [1, 3])
def test_blocks_and_regimes_add_up(kind, techniques):
    """Rows over several blocks, of unequal noise, against scipy row by row; one regime cannot tell c^2 apart."""
    rng = np.random.default_rng(0)
    lacking = (True, True, False, *[True] * (techniques - 1))
    regimes, rows = zip(some_rows(700, techniques), some_rows(301, techniques, lacking, seed=1), strict=True)
    relative = [rng.uniform(0.5, 1.0, r.drop.size) for r in rows]
    coefficients = 0.1 * rng.normal(size=(2, COLUMNS + techniques - 1))
    noise, shape = np.array([0.4, 0.9]), np.array([1.5, 6.0])
    packed = pack_rows(kind, regimes, rows, relative)
    value, by_coefficients, *_ = log_density(coefficients, np.log(noise), np.log(shape), packed)
    expected = 0.0
    for k, r in enumerate(rows):
        design = r.design()
        design[:, : len(regimes[k].fixed)] *= regimes[k].fixed
        e, s = r.drop - design @ coefficients[k], noise[k] * relative[k]
        if kind == "student":
            expected += (stats.t.logpdf(e / s, shape[k]) - np.log(s)).sum()
        else:
            expected += stats.exponnorm.logpdf(e, shape[k] / s, scale=s).sum()
    assert float(value) == pytest.approx(expected, rel=1e-10)
    assert by_coefficients.shape == coefficients.shape
    assert by_coefficients[1, 2] == 0.0


@pytest.mark.parametrize("kind", ["student", "frontier"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradients_equal_finite_differences(kind, which):
    rng = np.random.default_rng(3)
    regimes, rows = zip(some_rows(5, 2), some_rows(140, 2, seed=1), strict=True)
    packed = pack_rows(kind, regimes, rows, [rng.uniform(0.5, 1, r.drop.size) for r in rows])
    shape = (2, COLUMNS + 1)
    inputs = [0.1 * rng.normal(size=shape), rng.normal(size=2) * 0.3, rng.normal(size=2) * 0.3 + 1.0]
    analytic = log_density(*inputs, packed)[1 + which]
    for index in [(1, j) for j in range(shape[1])] if which == 0 else [(1,)]:
        ends = []
        for sign in (1, -1):
            moved = [x.copy() for x in inputs]
            moved[which][index] += sign * 1e-6
            ends.append(float(log_density(*moved, packed)[0]))
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(analytic[index], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("noise", ["student", "frontier"])
def test_the_sampled_density_is_that_of_the_pymc_model(noise):
    """Up to a constant, with its gradient: the sampler's coordinates against the model's variables."""
    from popstats.inference.pymc_model import build_row_model

    population = simulate_population("asymmetric", regimes=[0.5, 0.7], n=60, seeds=2, seed_noise=0.1, seed=1)
    fit, priors = popstats.fit(population, method="exact", draws=200), Priors(pooling=0.4, excess=(0.3, 0.8))
    rows = [points.rows for points in fitted_points(fit)]
    length, amplitude, share = (
        np.median(getattr(fit.draws, name), axis=(0, 1))
        for name in ("length_scale", "amplitude", "seed_share")
    )
    relative = [np.sqrt((1.0 - s + s / r.runs) / r.weight) for r, s in zip(rows, share, strict=True)]
    packed = pack_rows(noise, fit.fitted, rows, relative)
    coordinates = RowCoordinates.of(noise, fit.fitted, fit.draws, length, amplitude)
    data = pack_row_posterior(coordinates, packed, priors)
    model = build_row_model(noise, coordinates, packed, priors)
    density, slope = model.compile_logp(jacobian=True), model.compile_dlogp()
    rng, differences = np.random.default_rng(0), []
    size, gradient = 2, np.empty(coordinates.dimension)
    for _ in range(3):
        x = rng.normal(size=coordinates.dimension)
        walked = coordinates.start + coordinates.spread * x[: 1 + 2 * size]
        names = [v.name for v in model.free_RVs]
        values = (walked[0], walked[1 : 1 + size], walked[1 + size :], x[1 + 2 * size :].reshape(size, -1))
        point = dict(zip(names, values, strict=True))
        differences.append(log_row_posterior(x, data, gradient) - float(density(point)))
        expected = slope(point)
        expected[: 1 + 2 * size] *= coordinates.spread
        np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(differences, differences[0], rtol=1e-9)


@pytest.mark.parametrize("noise", ["student", "frontier"])
def test_parameters_are_those_of_the_density(noise):
    """A regime at its coordinates' starting point: unit noise, five degrees of freedom beyond one or equal parts."""
    zeros = np.zeros((1, 2))
    start = np.log([[0.8, 0.8, 5.0 if noise == "student" else 1.0]])[0]
    coordinates = RowCoordinates(start, np.ones(3), zeros, np.eye(2)[None], np.ones((1, 2)), np.ones((1, 1)))
    log_noise, log_shape, coefficients = coordinates.to_parameters(noise, np.zeros((4, 7, 5)))
    part = 0.8 if noise == "student" else 0.8 / np.sqrt(2.0)
    np.testing.assert_allclose(np.exp(log_noise), part)
    np.testing.assert_allclose(np.exp(log_shape), 6.0 if noise == "student" else part)
    np.testing.assert_allclose(coefficients[..., 0], 0.0 if noise == "student" else -part)


def test_regimes_of_constant_macs_are_sampled_as_easily_as_others():
    """Terms that a regime cannot tell apart keep out of the other coefficients' way."""
    rng, n = np.random.default_rng(0), 100
    macs = np.full(n, 50_000_000)
    log_mcb = rng.uniform(-0.5, 0.5, n)
    frame = pd.DataFrame(
        {
            "macs": macs,
            "params": np.rint(0.5e6 / np.exp(log_mcb)),
            "accuracy": 92.0 - 2.0 * log_mcb**2 + 0.1 * rng.standard_t(3, n),
        }
    )
    original = popstats.Original(macs=100_000_000, params=1_000_000, accuracy=93.0)
    population = popstats.Population.from_frame(frame, original=original)
    fit = popstats.fit(population, noise="student", draws=500, tune=300)
    assert fit.convergence.ok, fit.convergence
    assert fit.fitted[0].fixed == (True, False, False)
    assert fit.optima()["mcb"].iloc[0] == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("noise", "kind"), [("student", "heavy"), ("frontier", "skewed")])
def test_fits_the_noise_it_is_made_for_and_narrows_the_intervals(noise, kind):
    population = simulate_population("quadratic", regimes=[0.5, 0.7], n=300, noise_kind=kind, seed=1)
    regimes = {0.5: 0.05, 0.7: 0.05}
    robust = popstats.fit(population, regimes=regimes, noise=noise, seed=2)
    normal = popstats.fit(population, regimes=regimes, method="exact", seed=2)
    assert robust.convergence.ok, robust.convergence.reasons
    width = [(f.optima()["limit_upper"] - f.optima()["limit_lower"]).to_numpy() for f in (robust, normal)]
    assert (width[0] < width[1]).all()
    for row, answer in zip(
        robust.optima().itertuples(), population.metadata["truth"]["regimes"].values(), strict=True
    ):
        assert row.limit == pytest.approx(answer["limit"], abs=0.05)
        assert row.mcb == pytest.approx(answer["mcb"], abs=0.08)


def test_exact_method_refuses_noise_without_a_closed_form():
    population = simulate_population(regimes=[0.5], n=30)
    with pytest.raises(popstats.PopstatsError, match="no closed form"):
        popstats.fit(population, noise="student", method="exact")
