"""Companion tests against published examples, independent implementations and known answers."""

import numpy as np
import pytest
import statsmodels.api as sm

import popstats
from popstats.errors import FitError
from popstats.judgement.classical import (
    lower_envelope,
    parametric_optima,
    two_lines,
    u_test,
    u_test_from_estimates,
)

# Anscombe (1973), doi:10.1080/00031305.1973.10478966, data set II: an exact parabola up to rounding.
ANSCOMBE_X = np.array([10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0])
ANSCOMBE_Y = np.array([9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74])
#: Its least-squares parabola, as published with the data: -5.9957 + 2.7808 x - 0.1267 x^2.
ANSCOMBE_VERTEX = 2.7808392 / (2 * 0.1267133)


def _noisy(curve: object, n: int = 400, noise: float = 0.15, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    assert callable(curve)
    return x, curve(x) + noise * rng.normal(size=n)


def test_u_test_finds_anscombes_vertex() -> None:
    found = u_test(ANSCOMBE_X, -ANSCOMBE_Y)
    assert found.extreme == pytest.approx(ANSCOMBE_VERTEX, abs=1e-4)
    assert found.extreme_lower < ANSCOMBE_VERTEX < found.extreme_upper
    assert found.p_value < 1e-6
    # The other way up it is no U shape at all.
    assert u_test(ANSCOMBE_X, ANSCOMBE_Y).p_value > 0.999


def test_u_test_gives_what_its_authors_own_program_printed() -> None:
    # Output of Lind and Mehlum's utest for Stata, as posted in 2017 at m.pinggu.org/bbs/thread-4667505-1-1.html: extreme
    # point .0188902; interval -156.6146 to 519.1631; slopes -13.54852 and 44.90505; t -1.0813 and 1.081918; one-sided
    # p .1397904 and .1396531; over all t 1.08, p .14. Slopes at two points give both coefficients.
    low, high, slope_low, slope_high, t_low, t_high = (
        -156.6146, 519.1631, -13.54852, 44.90505, -1.0813, 1.081918,
    )  # fmt: skip
    quadratic = (slope_high - slope_low) / (2.0 * (high - low))
    linear = slope_low - 2.0 * quadratic * low
    # Two errors give two of three covariances; the linear coefficient's is taken to be tiny beside them.
    errors = np.array([(slope_low / t_low) ** 2, (slope_high / t_high) ** 2])
    tiny = 1e-3
    cross, square = np.linalg.solve([[4.0 * low, 4.0 * low**2], [4.0 * high, 4.0 * high**2]], errors - tiny)
    found = u_test_from_estimates(linear, quadratic, [[tiny, cross], [cross, square]], low, high, 1e4)
    assert found.extreme == pytest.approx(0.0188902, rel=1e-3)
    assert (found.t_low, found.t_high) == pytest.approx((t_low, t_high), rel=1e-9)
    assert found.p_value == pytest.approx(0.1397904, abs=2e-5)


def test_u_test_slopes_are_the_contrasts_of_an_independent_regression() -> None:
    x, y = _noisy(lambda x: 0.3 * x**2 + 0.1 * x)
    found = u_test(x, y)
    model = sm.OLS(y, sm.add_constant(np.column_stack([x, x**2]))).fit()
    for at, slope, t in ((x.min(), found.slope_low, found.t_low), (x.max(), found.slope_high, found.t_high)):
        contrast = model.t_test([0.0, 1.0, 2.0 * at])
        assert slope == pytest.approx(float(np.squeeze(contrast.effect)), rel=1e-8)
        assert t == pytest.approx(float(np.squeeze(contrast.tvalue)), rel=1e-8)
    assert found.p_value == pytest.approx(
        max(model.t_test([0, 1, 2 * x.min()]).pvalue, model.t_test([0, 1, 2 * x.max()]).pvalue) / 2
    )


def test_fiellers_interval_holds_the_points_whose_slope_is_within_the_quantile() -> None:
    from scipy import stats

    covariance, df = np.array([[0.02, -0.005], [-0.005, 0.01]]), 50
    found = u_test_from_estimates(-0.4, 1.0, covariance, -1.0, 1.0, df)
    critical = stats.t.ppf(0.95, df)
    for edge in (found.extreme_lower, found.extreme_upper):
        direction = np.array([1.0, 2.0 * edge])
        t = (-0.4 + 2.0 * edge) / np.sqrt(direction @ covariance @ direction)
        assert abs(t) == pytest.approx(critical, rel=1e-8)


def test_fiellers_interval_is_unbounded_where_the_bend_may_be_zero() -> None:
    found = u_test_from_estimates(-0.4, 0.1, np.diag([0.01, 0.01]), -1.0, 1.0, 50)
    assert (found.extreme_lower, found.extreme_upper) == (-np.inf, np.inf)


def test_two_lines_on_an_exact_v() -> None:
    x = np.linspace(-1, 1, 401)
    found = two_lines(x, np.where(x < 0, -x, 2.0 * x))
    assert found.u_shaped
    # The break point may lie anywhere in the smooth curve's flat bottom; the average slopes follow from it.
    assert abs(found.break_point) < 0.15
    assert found.slope_left == pytest.approx(-1.0, abs=0.15)
    assert found.slope_right == pytest.approx(2.0, abs=0.15)


def test_two_lines_standard_errors_are_hc3() -> None:
    x, y = _noisy(lambda x: x**2)
    found = two_lines(x, y)
    after = x > found.break_point
    d = x - found.break_point
    design = np.column_stack([np.ones_like(x), np.where(after, 0, d), np.where(after, d, 0), after])
    model = sm.OLS(y, design.astype(float)).fit(cov_type="HC3")
    assert found.slope_left == pytest.approx(model.params[1], rel=1e-8)
    assert found.z_left == pytest.approx(model.tvalues[1], rel=1e-6)


def test_a_logarithm_fools_the_quadratic_but_not_two_lines() -> None:
    # Simonsohn (2018), doi:10.1177/2515245918805755: with y = log(x) quadratic regressions conclude that the
    # relation is U-shaped although it never turns; two lines do not.
    fooled, found = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.uniform(0.02, 1.0, 500)
        y = -np.log(x) + 0.3 * rng.normal(size=500)
        fooled += u_test(x, y).p_value < 0.05
        found += two_lines(x, y).u_shaped
    assert fooled == 40
    assert found <= 4


def test_two_lines_has_power_on_a_u_and_none_on_a_line() -> None:
    on_u = [two_lines(*_noisy(lambda x: 0.4 * x**2, seed=s)).u_shaped for s in range(20)]
    on_line = [two_lines(*_noisy(lambda x: 0.4 * x, seed=s)).u_shaped for s in range(40)]
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
    found = lower_envelope(x, y)
    below = np.mean(y < np.interp(x, found.log_mcb, found.drop))
    assert below == pytest.approx(0.05, abs=0.02)
    assert found.optimum == pytest.approx(0.1, abs=0.3)


@pytest.mark.parametrize("function", [u_test, two_lines])
def test_too_few_networks_or_one_mcb_are_refused(function: object) -> None:
    assert callable(function)
    with pytest.raises(FitError, match="at least 10"):
        function([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(FitError, match="different mCB"):
        function(np.zeros(50), np.arange(50.0))


def test_an_envelope_of_a_handful_is_refused() -> None:
    with pytest.raises(FitError, match="at least 200 networks"):
        lower_envelope(np.arange(50.0), np.arange(50.0))
