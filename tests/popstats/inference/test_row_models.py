"""Noise that is not normal: its density against scipy, and what the models recover."""

import numpy as np
import pytest
from scipy import special, stats

import popstats
from popstats.inference.curves import COLUMNS
from popstats.inference.row_density import _scaled_tail, _sum_of_logs, log_density, pack_rows
from popstats.simulate import simulate_population


def one_row(kind, e, scale, shape):
    """Return the log density of one residual: a regime whose curve is zero."""
    packed = pack_rows(kind, np.array([0.0, 1.0]), np.ones((1, COLUMNS)), np.array([e]), np.ones(1))
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


def test_sum_of_logs_of_far_outliers_stays_finite():
    values = 10.0 ** np.arange(37.0)
    assert _sum_of_logs(values) == pytest.approx(np.log(values).sum())


@pytest.mark.parametrize("kind", ["student", "frontier"])
def test_blocks_and_regimes_add_up(kind):
    """Rows over several blocks, of unequal noise, against scipy row by row."""
    rng = np.random.default_rng(0)
    starts, n = np.array([0.0, 700.0, 1000.0]), 1000
    design, drop, relative = rng.normal(size=(n, COLUMNS)), rng.normal(size=n), rng.uniform(0.5, 1.0, n)
    coefficients, noise, shape = (
        0.1 * rng.normal(size=(2, COLUMNS)),
        np.array([0.4, 0.9]),
        np.array([1.5, 6.0]),
    )
    packed = pack_rows(kind, starts, design, drop, relative)
    value, by_coefficients, *_ = log_density(coefficients, np.log(noise), np.log(shape), packed)
    member = (np.arange(n) >= 700).astype(int)
    e, s = drop - (design * coefficients[member]).sum(axis=1), noise[member] * relative
    if kind == "student":
        expected = stats.t.logpdf(e / s, shape[member]) - np.log(s)
    else:
        expected = stats.exponnorm.logpdf(e, shape[member] / s, scale=s)
    assert float(value) == pytest.approx(expected.sum(), rel=1e-10)
    assert by_coefficients.shape == (2, COLUMNS)


@pytest.mark.parametrize("kind", ["student", "frontier"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradients_equal_finite_differences(kind, which):
    rng = np.random.default_rng(3)
    starts = np.array([0.0, 5.0, 12.0])
    packed = pack_rows(
        kind, starts, rng.normal(size=(12, COLUMNS)), rng.normal(size=12), rng.uniform(0.5, 1, 12)
    )
    inputs = [0.1 * rng.normal(size=(2, COLUMNS)), rng.normal(size=2) * 0.3, rng.normal(size=2) * 0.3 + 1.0]
    analytic = log_density(*inputs, packed)[1 + which]
    index = (1, 4) if which == 0 else (1,)
    ends = []
    for sign in (1, -1):
        moved = [x.copy() for x in inputs]
        moved[which][index] += sign * 1e-6
        ends.append(float(log_density(*moved, packed)[0]))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(analytic[index], rel=1e-5)


@pytest.mark.slow
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
