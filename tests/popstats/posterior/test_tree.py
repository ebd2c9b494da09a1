"""The DataTree of a fit: its groups, its units, and ArviZ's own functions on it with their default arguments."""

import json

import arviz as az
import numpy as np
import pytest
from scipy import stats

import popstats
from popstats.posterior import tree

pytestmark = pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
TARGETS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
GROUPS = {
    "posterior", "prior", "log_likelihood", "log_prior", "observed_data", "posterior_predictive", "predictions",
    "sample_stats", "constant_data", "coefficients",
}  # fmt: skip


@pytest.fixture(scope="module")
def population():
    return popstats.simulate_population(regimes=TARGETS, n=30, seeds=2, seed_noise=0.05, seed=1)


@pytest.fixture(scope="module")
def fit(population):
    return popstats.fit(population, draws=250)


@pytest.fixture(autouse=True)
def no_drawing_library(monkeypatch):
    """None is a dependency of popstats."""
    monkeypatch.setitem(az.rcParams, "plot.backend", "none")


def test_groups_and_variables_are_in_users_units(fit):
    found = fit.posterior
    assert set(found.children) == GROUPS
    posterior, optima = found["posterior"].dataset, fit.optima()
    assert posterior["regime"].to_numpy() == pytest.approx(TARGETS)
    assert dict(posterior.sizes) == {"chain": 4, "draw": 250, "regime": 6}
    for name, column in (
        ("optimum", "mcb"),
        ("limit", "limit"),
        ("noise", "residual_sd"),
    ):
        np.testing.assert_allclose(posterior[name].median(("chain", "draw")), optima[column])
    assert set(posterior) == {"optimum", "limit", "regret", "length_scale", "amplitude", "noise"}
    # A quantile of one regime, by its number.
    assert float(posterior["limit"].sel(regime=0.5).mean()) == pytest.approx(
        fit.optimum_draws[2].limit.mean()
    )
    observed = found["observed_data"]["drop"]
    table = fit.recipes.table
    np.testing.assert_allclose(observed, table["drop"].to_numpy()[observed["recipe"]])
    np.testing.assert_allclose(
        np.log(found["constant_data"]["mcb"]), table["log_mcb"].to_numpy()[observed["recipe"]]
    )


def test_pointwise_groups_are_those_of_the_model(fit):
    found = fit.posterior
    density, replicated = (
        found[g]["drop"].isel(recipe=7) for g in ("log_likelihood", "posterior_predictive")
    )
    target, runs = (float(found["constant_data"][n].isel(recipe=7)) for n in ("target", "runs"))
    curve = found["predictions"]["curve"].sel(regime=target)
    mcb = float(found["constant_data"]["mcb"].isel(recipe=7))
    posterior = found["posterior"].dataset.sel(regime=target)
    share = found["coefficients"]["seed_share"].sel(regime=target)
    scale = posterior["noise"] * np.sqrt(1.0 - share * (1.0 - 1.0 / runs))
    # The curve is that of the regime's centre, and recipes scatter a little about it in cost.
    at = float(found["observed_data"]["drop"].isel(recipe=7))
    expected = stats.norm.logpdf(at, curve.interp(mcb=mcb), scale)
    assert float(density.mean()) == pytest.approx(expected.mean(), abs=0.3)
    assert float(replicated.std()) == pytest.approx(float(scale.mean()), rel=0.3)


@pytest.mark.parametrize("noise", ["normal", "student", pytest.param("exgaussian", marks=pytest.mark.slow)])
def test_arviz_takes_it_as_it_is(population, noise):
    found = popstats.fit(population, noise=noise, draws=250).posterior
    _go_through_arviz(found)


@pytest.mark.slow
def test_arviz_takes_nuts_as_it_is(population):
    found = popstats.fit(population, method="nuts", draws=250, tune=400).posterior
    assert {"diverging", "energy", "lp"} == set(found["sample_stats"].data_vars)
    _go_through_arviz(found)


def _go_through_arviz(found):
    summary = az.summary(found)
    assert summary["r_hat"].astype(float).max() < 1.1
    assert len(summary) == 6 * len(found["posterior"].data_vars)
    loo = az.loo(found)
    assert np.isfinite(loo.elpd)
    assert len(az.compare({"one": found, "other": found})) == 2
    pit = az.loo_pit(found)["drop"]
    assert stats.kstest(np.asarray(pit), "uniform").statistic < 0.25
    assert set(az.psense_summary(found).columns) == {"prior", "likelihood", "diagnosis"}
    for plot in (az.plot_dist, az.plot_trace_dist, az.plot_forest, az.plot_ppc_dist, az.plot_loo_pit):
        assert plot(found) is not None


def test_large_groups_hold_fewer_draws_and_say_so(population, monkeypatch):
    monkeypatch.setattr(tree, "LARGEST_GROUP", 4 * 50 * 180 * 8)
    found = popstats.fit(population, draws=250).posterior
    for group in ("log_likelihood", "posterior_predictive"):
        assert found[group].sizes["draw"] == 50
        assert found[group].attrs["thinned"] == "50 of 250 draws per chain, evenly spaced"
    assert "thinned" in found["predictions"].attrs
    assert found["posterior"].sizes["draw"] == 250
    assert np.isfinite(az.loo(found).elpd)


def test_a_regime_that_never_saw_the_originals_ratio_has_no_regret(population):
    table = population.table.assign(params=(population.table["params"] * 0.3).astype(int))
    low = popstats.fit(popstats.Population.from_frame(table), draws=100).posterior
    assert np.isnan(low["posterior"]["regret"]).all()
    assert len(az.summary(low)) == 6 * len(low["posterior"].data_vars)


def test_companions_and_fits_of_nothing_have_a_tree_too(population):
    parabola = popstats.fit(population, curve="quadratic", draws=100).posterior
    assert set(parabola.children) == GROUPS - {"prior", "log_prior"}
    assert "amplitude" not in parabola["posterior"].data_vars
    few = popstats.fit(popstats.simulate_population(regimes=[0.5], n=4, seed=1)).posterior
    assert few["posterior"].sizes["regime"] == 0


def test_its_attributes_are_plain(fit, tmp_path):
    fit.posterior.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    assert json.dumps(fit.posterior["posterior"]["limit"].attrs) == '{"units": "percentage points"}'
