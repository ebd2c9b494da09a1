import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import popstats
from popstats.errors import ConvergenceError, FitError
from popstats.findings import Finding
from popstats.inference.draws import Convergence
from popstats.inference.model import Priors
from popstats.population.simulate import simulate_population

REGIMES = {0.5: 0.05, 0.8: 0.05}


@pytest.fixture(scope="module")
def fit():
    population = simulate_population("asymmetric", regimes=[0.5, 0.8], n=300, noise=0.1, seed=11)
    return popstats.fit(population, regimes=REGIMES, method="exact", random_seed=5)


def test_recovers_the_truth(fit):
    optima = fit.optima().set_index("regime")
    for label, answer in fit.population.metadata["truth"]["regimes"].items():
        row = optima.loc[label]
        assert row.mcb_lower - 0.05 < answer["mcb"] < row.mcb_upper + 0.05
        assert row.limit == pytest.approx(answer["limit"], abs=0.06)
        assert row.near_lower == pytest.approx(answer["near_lower"], abs=0.06)
        assert row.near_upper == pytest.approx(answer["near_upper"], abs=0.12)
        assert row.p_interior > 0.95


def test_curve_and_predict_agree(fit):
    curve = fit.curve()
    half = curve[curve["regime"] == "0.50"]
    point = half.iloc[80]
    predicted = fit.predict([point["mcb"]], regime=0.5)
    assert predicted["drop"].iloc[0] == pytest.approx(point["drop"], abs=1e-9)
    assert predicted["training_lower"].iloc[0] < predicted["lower"].iloc[0]


def test_predict_refuses_what_was_not_observed(fit):
    with pytest.raises(FitError, match="outside the observed range"):
        fit.predict([9.0], regime=0.5)
    for end in fit.fitted[0].observed:
        assert len(fit.predict(round(np.exp(end), 3), 0.5)) == 1
    for end in 1.0 - 0.5 * np.exp([-fit.fitted[0].reach, fit.fitted[0].reach]):
        assert len(fit.predict(1.0, 0.5, reduction=round(end, 3))) == 1
    with pytest.raises(FitError, match="reduction nan lies outside regime"):
        fit.predict(1.0, 0.5, reduction=float("nan"))
    with pytest.raises(FitError, match="lies outside regime"):
        fit.predict([1.0], regime=0.5, reduction=0.7)
    with pytest.raises(FitError, match=r"was not fitted; fitted: 0\.50, 0\.80"):
        fit.predict([1.0], regime=0.3)
    with pytest.raises(
        FitError, match=r"predict: regime: expected the centre or label .* got None; fitted: 0\.50"
    ):
        fit.predict([1.0], regime=None)
    for mcb in (["one"], [-1.0], None):
        with pytest.raises(FitError, match="mcb: expected positive numbers"):
            fit.predict(mcb, regime=0.5)


def test_saved_fit_is_the_same_fit(fit, tmp_path):
    loaded = popstats.Fit.load(fit.save(tmp_path / "fit.nc"))
    pd.testing.assert_frame_equal(loaded.optima(), fit.optima())
    assert np.array_equal(loaded.expected_drop, fit.expected_drop)
    assert loaded.settings == fit.settings
    assert loaded.prior_settings == fit.prior_settings
    assert loaded.population.name == fit.population.name


def test_load_says_what_is_wrong(tmp_path):
    (tmp_path / "no.nc").write_text("not netCDF")
    with pytest.raises(FitError, match="cannot be read as a saved fit"):
        popstats.Fit.load(tmp_path / "no.nc")


def test_a_fit_of_an_older_format_is_refused_in_a_sentence(fit, tmp_path):
    path = fit.save(tmp_path / "old.nc")
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        tree = opened.load()
    tree.attrs["popstats"] = json.dumps(json.loads(tree.attrs["popstats"]) | {"format": 1})
    tree.to_netcdf(tmp_path / "older.nc", engine="h5netcdf")
    with pytest.raises(FitError, match="format 1, this version reads 3; fit the population again"):
        popstats.Fit.load(tmp_path / "older.nc")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("method", "mcmc"),
        ("noise", "cauchy"),
        ("curve", "wiggly"),
        ("draws", 0),
        ("regime_axis", "flops"),
        ("random_seed", -1),
        ("random_seed", 1.5),
        ("random_seed", "one"),
    ],
)
def test_illegal_arguments_are_named(fit, argument, value):
    with pytest.raises(popstats.PopstatsError, match=argument):
        popstats.fit(fit.population, **{argument: value})


def test_four_rows_are_not_a_crash():
    original = popstats.Original(macs=100, params=100, accuracy=93.0)
    frame = pd.DataFrame(
        {"macs": [50, 50, 51, 49], "params": [40, 50, 60, 55], "accuracy": [90.0, 91, 90, 92]}
    )
    for method in ("exact", "nuts"):
        fit = popstats.fit(popstats.Population.from_frame(frame, original=original), method=method)
        assert len(fit.fitted) == 0
        assert fit.convergence.ok
        assert fit.optima()["reason"].str.contains("recipes").all()
        assert fit.curve().empty
        assert "0 of" in repr(fit)


def test_a_collapsed_network_does_not_break_the_fit(fit):
    table = fit.population.table.copy()
    table.loc[0, "accuracy"] = 10.0
    population = popstats.Population.from_frame(table)
    found = popstats.fit(population, regimes=REGIMES, method="exact").optima()
    assert np.isfinite(found[["mcb_lower", "mcb_upper", "limit_lower", "limit_upper"]]).all(axis=None)


def test_spread_that_grows_is_weighted_and_said():
    population = simulate_population(regimes=[0.5], n=1500, noise_kind="growing", noise=0.2, seed=3)
    fit = popstats.fit(population, regimes={0.5: 0.05}, method="exact")
    (change,) = fit.spread_changes
    assert change.matters
    assert 1.5 < change.ratio < 4.5
    # One training in ten lies outside its predicted interval, where the spread is small as where it is large.
    frame = population.frame[population.frame["mcb"].between(*np.exp(fit.fitted[0].observed))]
    mcb, drop = frame["mcb"].to_numpy(), frame["accuracy_drop"].to_numpy()
    told = fit.predict(mcb, 0.5)
    inside = (told["training_lower"].to_numpy() < drop) & (drop < told["training_upper"].to_numpy())
    assert inside[mcb < 0.8].mean() == pytest.approx(0.9, abs=0.04)
    assert inside[mcb > 1.25].mean() == pytest.approx(0.9, abs=0.04)
    steady = simulate_population(regimes=[0.5], n=1500, noise=0.2, seed=3)
    assert not popstats.fit(steady, regimes={0.5: 0.05}, method="exact").spread_changes[0].matters


def test_rejected_fit_says_so(fit):
    rejected = Convergence((Finding("R-hat", (), {"worst": 1.2, "most": 1.01}),), pd.DataFrame())
    with pytest.raises(ConvergenceError, match=r"R-hat up to 1\.200 \(must be under 1\.01\)"):
        rejected.require()
    fit.convergence.require()


def test_draws_too_few_to_be_diagnosed_do_not_pass(fit):
    few = popstats.fit(fit.population, regimes=REGIMES, noise="student", draws=3, tune=10)
    assert not few.convergence.ok
    assert few.convergence.reasons[0] == Finding("few draws", (), {"draws": 3})
    assert "3 draws per chain are too few for R-hat and ESS" in repr(few)


def test_priors_are_checked_and_described(fit):
    with pytest.raises(FitError, match="amplitude must be positive"):
        Priors(amplitude=(0.0, 1.0))
    assert {"prior", "distribution", "unit", "reason"} == set(fit.priors.columns)


def test_displays_in_a_notebook(fit):
    assert "near_lower" in fit._repr_html_()
    assert "edge_probability" in fit.convergence._repr_html_()
    rejected = Convergence((Finding("E-BFMI", (), {"found": 0.1, "needed": 0.3}),), pd.DataFrame())
    assert "not ok: E-BFMI 0.10 (must be over 0.3)" in rejected._repr_html_()
    assert set(fit.posterior["posterior"].dims) == {"chain", "draw", "regime"}


@pytest.mark.parametrize(
    ("what", "remedy"),
    [
        ("digits-resnet8", r"popstats\.fit\(popstats\.load_population\('digits-resnet8'\)\)"),
        (pd.DataFrame({"macs": [1]}), r"Population\.from_frame"),
        (None, "got a NoneType; make one with"),
    ],
)
def test_what_is_no_population_is_told_how_to_become_one(what, remedy):
    with pytest.raises(popstats.PopulationError, match=remedy):
        popstats.fit(what)


@pytest.mark.parametrize(
    "function",
    [
        popstats.judge,
        lambda what: popstats.refine(what, regime=0.5),
        lambda what: popstats.write_report(what, "report.html"),
    ],
)
def test_a_population_must_be_fitted_first(fit, function):
    with pytest.raises(FitError, match=r"expected a Fit, got a Population; fit it first"):
        function(fit.population)
    with pytest.raises(FitError, match=r"got a str; popstats\.fit makes one"):
        function("digits-resnet8")


def test_one_number_is_one_regime(fit):
    one = popstats.fit(fit.population, regimes=0.5, method="exact")
    assert [r.label for r in one.regimes] == ["0.50"]
    assert "1 of 1 regimes" in repr(one)
    assert repr(one).endswith("diagnostics ok>")


@pytest.mark.parametrize("regimes", ["half", ["a"], [[0.5, "x"]], {0.5: "wide"}])
def test_regimes_that_are_no_numbers(fit, regimes):
    with pytest.raises(FitError, match="regimes: expected fractions removed"):
        popstats.fit(fit.population, regimes=regimes, method="exact")


def test_the_diagnostics_speak_of_what_was_fitted(fit):
    some = popstats.fit(fit.population.select(np.arange(305)), regimes=REGIMES, method="exact")
    assert repr(some).endswith("diagnostics ok for the 1 that were fitted>")
    none = popstats.fit(fit.population.select(np.arange(5)), regimes=REGIMES, method="exact")
    assert "nothing was fitted" in repr(none)
    assert "ok" not in repr(none)
