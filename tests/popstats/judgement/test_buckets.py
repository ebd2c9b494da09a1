"""The width of the parameter bucket: harmless where buckets are fine, and shown where it is not."""

import numpy as np

import popstats
from popstats.judgement.classical import bucket_sensitivity
from popstats.judgement.verdicts import Thresholds, decide


def test_fine_buckets_do_not_change_the_verdict() -> None:
    population = popstats.simulate_population("quadratic", regimes=(0.5,), n=600, rise=0.6)
    found = bucket_sensitivity(popstats.fit(population, method="exact"))
    assert found["outcome"].tolist() == ["supported"] * 4
    assert np.isnan(found["bucket_width"].iloc[0])
    assert (found["mcb_lower"] < 1.03).all()
    assert (found["mcb_upper"] > 0.97).all()


def test_one_bucket_for_all_leaves_nothing_to_fit() -> None:
    population = popstats.simulate_population("quadratic", regimes=(0.5,), n=100)
    assert bucket_sensitivity(popstats.fit(population, method="exact"), widths=[1.0]).empty


def test_a_curve_that_is_flat_by_the_rule_of_c3a_is_flat_here() -> None:
    """Its probability is low, but so was the prior's: only the height of the curve refutes."""
    population = popstats.simulate_population(
        "quadratic", regimes=(0.5,), n=100, noise=0.05, rise=0.07, seed=3
    )
    fitted = popstats.fit(population, method="exact")
    (judged,) = popstats.judge(fitted, rise=0.08).of("C3a")
    assert "the whole 90 % interval is negligible" in judged.reason
    found = bucket_sensitivity(fitted, widths=[None], thresholds=Thresholds(rise=0.08)).iloc[0]
    assert decide(found["probability"], judged.prior_probability, False) == "undecided"
    assert found["outcome"] == judged.outcome == "refuted"
