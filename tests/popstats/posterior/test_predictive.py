"""Posterior predictive checks: quiet where the model is right, in words where it is not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import popstats
from popstats.population.simulate import simulate_population
from popstats.posterior.pointwise import _average, closed_form, sample_of, thinned, weighted
from popstats.posterior.predictive import check_predictions
from popstats.words import sentences

TARGETS = [0.5, 0.6, 0.7, 0.8, 0.85]


def fit_of(noise_kind="normal", targets=(0.5, 0.7), **settings):
    settings = {"n": 300, "seed": 1, **settings}
    population = simulate_population("asymmetric", regimes=list(targets), noise_kind=noise_kind, **settings)
    return popstats.fit(population, regimes=dict.fromkeys(targets, 0.04), method="exact", draws=250)


@pytest.fixture(scope="module")
def fit():
    return fit_of(targets=TARGETS)


def test_quiet_where_the_model_is_right(fit):
    checks = fit.predictive_checks
    assert not checks.alerts
    assert checks.frame["regime"].tolist() == [f"{t:.2f}" for t in TARGETS]
    assert checks.frame["inside_90"].between(0.85, 0.95).all()
    assert checks.frame["inside_50"].between(0.42, 0.58).all()
    assert (checks.frame[["skewness_p", "kurtosis_p", "largest_p"]] > 0.002).all(axis=None)
    assert fit.predictive_checks is checks


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("heavy", "try noise='student'"),
        ("skewed", "noise='student'"),
    ],
)
def test_says_what_the_noise_looks_like_and_what_to_try(kind, words):
    checks = fit_of(kind).predictive_checks
    assert {r for alert in checks.alerts for r in alert.regimes} <= {"0.50", "0.70"}
    assert words in " ".join(sentences(checks.alerts))


def test_the_right_noise_quiets_the_alert():
    fit = fit_of("skewed")
    normal = fit.predictive_checks
    # The simulated noise is exponential with standard deviation 0.15 and mean 0: a curve 0.15 below.
    coefficients, scale = fit.draws.coefficients.copy(), np.array([r.scale for r in fit.fitted])
    coefficients[..., 0] -= 0.15 / scale
    draws = replace(
        fit.draws,
        coefficients=coefficients,
        noise=np.broadcast_to(0.02 / scale, fit.draws.noise.shape),
        shape=np.broadcast_to(0.15 / scale, fit.draws.noise.shape),
    )
    skewed = replace(fit, draws=draws, settings=replace(fit.settings, method="hmc", noise="exgaussian"))
    found = check_predictions(skewed)
    assert not any(alert.kind.startswith("skewed") for alert in found.alerts)
    assert (found.frame["skewness_p"] > 0.001).all()
    assert (found.frame["pit_distance"] < normal.frame["pit_distance"]).all()


def test_one_collapsed_network_is_pointed_out(fit):
    table = fit.population.table.copy()
    table.loc[0, "accuracy"] -= 2.0
    population = popstats.Population.from_frame(table)
    checks = popstats.fit(population, regimes=dict.fromkeys(TARGETS, 0.04), method="exact").predictive_checks
    assert len(checks.alerts) >= 1
    assert {alert.regimes for alert in checks.alerts} == {("0.50",)}
    assert checks.frame.loc[0, "largest"] > 6.0


def test_closed_form_equals_fits_without_the_recipe():
    fit = fit_of(n=25, targets=(0.6,))
    (points,) = fit.rows
    picked = thinned(fit, 200)
    sample = sample_of(fit, 0, picked)
    z, log_density = closed_form(points, sample)
    pit = _average(special.ndtr(z), -log_density)
    np.testing.assert_allclose(fit.predictive_checks.loo_pit["0.60"], pit)
    drops = points.regime.centre + points.regime.scale * points.drop
    for row in (0, 11):
        frame = fit.population.frame
        position = int(np.abs(drops - frame.loc[row, "accuracy_drop"]).argmin())
        table = popstats.Population.from_frame(fit.population.table.drop(index=row))
        without = popstats.fit(table, regimes={0.6: 0.04}, method="exact")
        low, high = without.fitted[0].observed
        assert low < frame.loc[row, "log_mcb"] < high
        at = frame.loc[row]
        predicted = without.predict([at["mcb"]], 0.6, reduction=at["macs_reduction"])
        tail = stats.norm.ppf(0.95) * 2
        width = float((predicted["training_upper"] - predicted["training_lower"]).iloc[0]) / tail
        refit = special.ndtr((at["accuracy_drop"] - float(predicted["drop"].iloc[0])) / width)
        assert pit[position] == pytest.approx(refit, abs=0.05)


def test_weighted_and_closed_form_agree():
    fit = fit_of(n=60, targets=(0.6,))
    (points,) = fit.rows
    everything = sample_of(fit, 0, thinned(fit, 1000))
    assert np.abs(weighted(points, everything) - fit.predictive_checks.loo_pit["0.60"]).max() < 0.06


def test_replicates_and_changing_spread_keep_their_coverage():
    for settings in ({"seeds": 3, "seed_noise": 0.2}, {"noise_kind": "growing", "n": 800}):
        checks = fit_of(targets=(0.6,), **settings).predictive_checks
        assert checks.frame["inside_90"].between(0.85, 0.95).all()


def test_limits_follow_a_line_in_the_log_of_what_is_kept(fit):
    # The simulated limits are 0.3 + 1.5 * -log(1 - reduction): exactly such a line.
    limits = fit.predictive_checks.limits
    inside = limits["limit"].between(limits["predicted_lower"], limits["predicted_upper"])
    assert inside.sum() >= 4
    assert (limits["surprise"] > 0.02).all()
    assert limits["beyond"].tolist() == [True, False, False, False, True]
    assert fit_of(n=30).predictive_checks.limits.empty


def test_a_regime_that_breaks_the_trend_is_said(fit):
    table = fit.population.table.copy()
    broken = np.isclose(fit.population.frame["regime_target"], 0.7)
    table.loc[broken, "accuracy"] -= 8.0
    population = popstats.Population.from_frame(table)
    checks = popstats.fit(population, regimes=dict.fromkeys(TARGETS, 0.04), method="exact").predictive_checks
    assert checks.limits.set_index("regime").loc["0.70", "surprise"] < 0.02
    assert isinstance(checks.limits, pd.DataFrame)


def test_regimes_too_small_to_fit_are_left_out():
    population = simulate_population(regimes=[0.5], n=5)
    empty = popstats.fit(population, regimes={0.5: 0.05}, method="exact")
    assert empty.predictive_checks.frame.empty
    assert popstats.check(empty).ok
    with pytest.raises(popstats.FitError, match="has a fitted regime"):
        popstats.compare(empty, empty)


def test_the_smallest_regime_and_hardly_any_noise():
    for settings in ({"n": 10}, {"n": 60, "noise": 1e-4}):
        fit = fit_of(targets=(0.6,), **settings)
        numbers = fit.predictive_checks.frame.select_dtypes("number")
        assert np.isfinite(numbers).all(axis=None)
        assert np.isfinite(fit.prior_sensitivity.frame.select_dtypes("number")).all(axis=None)
        assert np.isfinite(popstats.compare(fit, fit).frame.select_dtypes("number")).all(axis=None)
