"""The prior probability of each claim: the same numbers as in the verdicts, and what they hang on."""

from dataclasses import replace

import pytest

import popstats
from popstats.errors import FitError
from popstats.inference.model import Priors

REGIMES = [0.5, 0.6, 0.7, 0.8]


@pytest.fixture(scope="module")
def fit():
    population = popstats.simulate_population("quadratic", regimes=REGIMES, n=400, noise=0.1, seed=2)
    return popstats.fit(population, regimes=REGIMES, method="exact")


def test_verdicts_show_the_same_prior_probabilities(fit):
    frame = popstats.prior_claims(fit).set_index(["conjecture", "regime"])
    verdicts = {(v.conjecture, v.regime): v for v in popstats.judge(fit)}
    shown = [key for key in frame.index if verdicts[key].outcome != "not assessable"]
    assert {"C1", "C3a", "C3b", "C3c", "C3d"} == {conjecture for conjecture, _ in shown}
    for key in shown:
        assert frame.loc[key, "prior_probability"] == pytest.approx(verdicts[key].prior_probability)
    assert frame.loc[("C3a", "0.50"), "claim"] == verdicts["C3a", "0.50"].claim


def test_flatter_curves_make_an_optimum_less_probable(fit):
    flat = replace(fit, prior_settings=Priors(amplitude=(0.05, 0.3)))
    before, after = (
        popstats.prior_claims(f).query("conjecture == 'C3a'")["prior_probability"].mean() for f in (fit, flat)
    )
    assert after < before


def test_a_lower_threshold_makes_it_more_probable(fit):
    low, high = (
        popstats.prior_claims(fit, rise=rise).query("conjecture == 'C3a'")["prior_probability"]
        for rise in (0.02, 0.5)
    )
    assert (low > high).all()


def test_companions_have_no_prior_to_ask(fit):
    companion = popstats.fit(fit.population, regimes=REGIMES, curve="quadratic")
    with pytest.raises(FitError, match="curve='smooth'"):
        popstats.prior_claims(companion)
