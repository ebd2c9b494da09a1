"""Laws of the limit: the true one is found, predictions hold the truth, and what cannot be predicted is refused."""

import numpy as np
import pytest

import popstats
from popstats.posterior.limit_law import LAWS, compare_laws, predict_limit

REDUCTIONS = np.array([0.2, 0.35, 0.5, 0.6, 0.7, 0.78, 0.84, 0.88, 0.91, 0.93])
TRUTHS = {
    "power law": lambda r: 0.2 + 0.3 * r**-1.2,
    "exponential": lambda r: 0.2 + 9.0 * np.exp(-8.0 * r),
    "logarithm": lambda r: 0.3 - 1.5 * np.log(r),
    "broken line": lambda r: 0.1 - 0.5 * np.log(r) + 5.0 * np.maximum(np.log(0.3) - np.log(r), 0.0),
}


def limits_of(truth, noise, seed=0, reductions=REDUCTIONS):
    """Draws of the limits, points: estimates with an error of `noise`, and as wide as that."""
    rng = np.random.default_rng(seed)
    estimate = TRUTHS[truth](1.0 - reductions) + noise * rng.standard_normal(reductions.size)
    return estimate + noise * rng.standard_normal((800, reductions.size))


@pytest.mark.parametrize("truth", TRUTHS)
def test_the_true_law_errs_least(truth):
    found = compare_laws(1.0 - REDUCTIONS, limits_of(truth, 0.01))
    row = found.frame.set_index("law").loc[truth]
    # A logarithm is a broken line without a break: no errors tell the two apart.
    assert row["difference"] <= (2.0 * row["dse"] if truth == "logarithm" else 0.0)
    assert row["error"] < 0.05
    assert (found.frame["difference"] >= 0.0).all()
    assert set(found.frame["law"]) == set(LAWS)


def test_intervals_hold_the_truth_inside_and_a_little_beyond():
    inside, beyond = [], []
    for truth, law in TRUTHS.items():
        for seed in range(6):
            found = compare_laws(1.0 - REDUCTIONS, limits_of(truth, 0.08, seed))
            for reduction, held in ((0.65, inside), (0.945, beyond)):
                told = predict_limit(found, reduction)
                assert told.extrapolated == (held is beyond)
                held.append(told.lower <= law(1.0 - reduction) <= told.upper)
    assert np.mean(inside) >= 0.8
    assert np.mean(beyond) >= 0.8


def test_a_regime_off_the_law_is_a_surprise():
    limits = limits_of("power law", 0.02)
    limits[:, 4] += 2.0
    labels = tuple(f"{reduction:.2f}" for reduction in REDUCTIONS)
    found = compare_laws(1.0 - REDUCTIONS, limits, labels).left_out.set_index("regime")
    assert found["surprise"].idxmin() == "0.70"
    assert found["beyond"].tolist() == [True, *[False] * 8, True]


@pytest.fixture(scope="module")
def fit():
    return popstats.fit(popstats.simulate_population(regimes=[0.3, 0.5, 0.6, 0.7, 0.8, 0.85], n=120, seed=2))


def test_a_fit_predicts_the_limit_of_a_budget_not_trained(fit):
    found = fit.predict_limit(reduction=0.75)
    assert found.lower <= 0.3 - 1.5 * np.log(0.25) <= found.upper
    assert found.upper - found.lower < 0.5
    assert found.frame["law"].tolist() == fit.limit_law.frame["law"].tolist()
    assert f"by the best law in the remaining cost ({found.law})" in repr(found)
    assert "formula" in found._repr_html_()


def test_beyond_the_regimes_it_says_so_and_far_beyond_it_refuses(fit):
    beyond = fit.predict_limit(0.89)
    assert beyond.extrapolated
    assert "extrapolated" in beyond.sentence
    assert beyond.lower <= beyond.limit <= beyond.upper
    with pytest.raises(popstats.FitError, match=r"too far beyond .*0\.3 to 0\.85.*0\.000 to 0\.900"):
        fit.predict_limit(0.95)
    with pytest.raises(popstats.FitError, match="expected a fraction removed"):
        fit.predict_limit(95)
    with pytest.raises(popstats.FitError, match="at least 5 fitted regimes, got 2"):
        popstats.fit(popstats.simulate_population(regimes=[0.5, 0.7], n=30)).predict_limit(0.6)
