"""The width of the parameter bucket: harmless where buckets are fine, and shown where it is not."""

import numpy as np

import popstats
from popstats.judgement.bucket_sensitivity import bucket_sensitivity


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
