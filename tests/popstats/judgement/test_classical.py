"""Companion tests against published examples, independent implementations and known answers."""

import numpy as np
import pytest
import statsmodels.api as sm

import popstats
from popstats.judgement.classical import _side_scores, lower_envelope, parametric_optima, two_lines, u_test

# Anscombe (1973), doi:10.1080/00031305.1973.10478966, data set II: an exact parabola up to rounding.
ANSCOMBE_X = np.array([10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0])
ANSCOMBE_Y = np.array([9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74])


def _noisy(curve: object, n: int = 400, noise: float = 0.15, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    assert callable(curve)
    return x, curve(x) + noise * rng.normal(size=n)


def test_u_test_finds_anscombes_parabola_one_way_up_only() -> None:
    assert u_test(ANSCOMBE_X, -ANSCOMBE_Y) < 1e-6
    assert u_test(ANSCOMBE_X, ANSCOMBE_Y) > 0.999


def test_u_test_is_the_larger_p_value_of_two_contrasts_of_an_independent_regression() -> None:
    x, y = _noisy(lambda x: 0.02 * x**2 + 0.01 * x)
    model = sm.OLS(y, sm.add_constant(np.column_stack([x, x**2]))).fit()
    falls, rises = (float(model.t_test([0, 1, 2 * end]).pvalue) / 2 for end in (x.min(), x.max()))
    assert u_test(x, y) == pytest.approx(max(falls, rises))


def test_two_lines_on_an_exact_v() -> None:
    x = np.linspace(-1, 1, 401)
    assert two_lines(x, np.where(x < 0, -x, 2.0 * x))
    assert not two_lines(x, np.where(x < 0, x, -2.0 * x))


def test_two_lines_standard_errors_are_hc3() -> None:
    x, y = _noisy(lambda x: x**2)
    after = x > 0.1
    design = np.column_stack(
        [np.ones_like(x), np.where(after, 0, x - 0.1), np.where(after, x - 0.1, 0), after]
    )
    model = sm.OLS(y, design.astype(float)).fit(cov_type="HC3")
    assert _side_scores(x, y, 0.1) == pytest.approx(model.tvalues[1:3], rel=1e-6)


def test_a_logarithm_fools_the_quadratic_but_not_two_lines() -> None:
    # Simonsohn (2018), doi:10.1177/2515245918805755: with y = log(x) quadratic regressions conclude that the
    # relation is U-shaped although it never turns; two lines do not.
    fooled, found = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.uniform(0.02, 1.0, 500)
        y = -np.log(x) + 0.3 * rng.normal(size=500)
        fooled += u_test(x, y) < 0.05
        found += two_lines(x, y)
    assert fooled == 40
    assert found <= 4


def test_two_lines_has_power_on_a_u_and_none_on_a_line() -> None:
    on_u = [two_lines(*_noisy(lambda x: 0.4 * x**2, seed=s)) for s in range(20)]
    on_line = [two_lines(*_noisy(lambda x: 0.4 * x, seed=s)) for s in range(40)]
    assert np.mean(on_u) > 0.9
    assert np.sum(on_line) <= 4


def test_parametric_optima_are_found_where_the_curve_has_them() -> None:
    def optimum(truth: str, curve: str) -> object:
        population = popstats.simulate_population(truth, regimes=(0.6,), n=600, rise=0.6)
        return parametric_optima(popstats.fit(population, method="exact"), curve)["0.60"]

    for curve in ("quadratic", "asymmetric"):
        found = optimum("quadratic", curve)
        assert found is not None
        assert found.lower < 1.0 < found.upper
    assert optimum("linear", "quadratic") is None


def test_lower_envelope_has_its_share_of_networks_below() -> None:
    x, y = _noisy(lambda x: 0.5 * (x - 0.1) ** 2, n=3000)
    grid, drop = lower_envelope(x, y)
    below = np.mean(y < np.interp(x, grid, drop))
    assert below == pytest.approx(0.05, abs=0.02)
    assert grid[drop.argmin()] == pytest.approx(0.1, abs=0.3)
