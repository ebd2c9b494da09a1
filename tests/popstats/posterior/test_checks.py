"""`popstats.check` gathers what the diagnostics found as typed facts."""

from dataclasses import replace

import pandas as pd
import pytest

import popstats
from popstats.findings import Finding
from popstats.inference.draws import Convergence
from popstats.inference.model import Priors
from popstats.posterior.comparison import Checks
from popstats.report.terminal import fit_text
from popstats.words import sentence


def simulated(kind="normal", **settings):
    population = popstats.simulate_population(regimes=[0.6, 0.8], n=150, noise_kind=kind, seed=3)
    return popstats.fit(population, **settings)


def test_a_sound_fit_has_no_findings() -> None:
    found = popstats.check(simulated())
    assert found.ok
    assert found.frame.empty
    assert repr(found) == "<Checks of 2 regimes: nothing stands out>"
    assert "Nothing stands out" in found._repr_html_()
    assert list(found.loo_pit) == ["0.60", "0.80"]
    assert set(found.sensitivity["quantity"]) == {"optimum", "near_lower", "near_upper", "limit"}


def test_each_check_names_what_it_found() -> None:
    fitted = simulated("skewed", priors=Priors(amplitude=(0.05, 0.3)))
    rejected = replace(fitted)
    reason = Finding("R-hat", (), {"worst": 1.2, "most": 1.01})
    rejected.__dict__["convergence"] = Convergence((reason,), pd.DataFrame())
    found = popstats.check(rejected)
    assert isinstance(found, Checks)
    assert found.findings[0] == reason
    assert set(found.frame["check"]) == {"convergence", "prediction", "prior"}
    told = found.frame.set_index("kind")["finding"]
    assert told["R-hat"] == "R-hat up to 1.200 (must be under 1.01)."
    assert "skewness" in told["skewed up"].iloc[0]
    assert "Fit again with other priors" in " ".join(told["leans on priors"])
    assert "skewness" in repr(found)


def test_a_companion_curve_has_no_priors_to_check() -> None:
    with pytest.raises(popstats.FitError, match="companion"):
        popstats.check(simulated(curve="quadratic"))
    with pytest.raises(popstats.FitError, match="check: expected a Fit"):
        popstats.check(popstats.simulate_population(regimes=[0.5], n=20))


def test_a_centre_outside_its_recipes_is_noted_wherever_the_fit_is_read() -> None:
    population = popstats.simulate_population(regimes=[0.5], n=60)
    fit = popstats.fit(population, regimes={0.44: 0.1}, draws=100)
    assert "diagnostics ok; drops extrapolated at 44 %>" in repr(fit)
    (found,) = (f for f in popstats.check(fit).findings if f.kind == "extrapolated")
    assert "so its drops are extrapolated; fit again with centres among the recipes (regimes)" in sentence(
        found
    )
    assert sentence(found) in fit_text(fit, checked=False)
    assert "extrapolated" not in repr(popstats.fit(population, draws=100))
