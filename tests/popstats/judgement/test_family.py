"""How populations of several originals differ: known slopes, known shifts, and intervals that are wide enough."""

from dataclasses import replace

import numpy as np
import pytest

import popstats
from popstats.judgement.family import moves, per_doubling, sizes
from popstats.judgement.judge import analyse

SHIFT, RISE = 0.2, -0.5  # of log mCB and of the limit, per doubling of the width


def planned(name: str, width: float | None, seed: int = 0, n: int = 20, **plan) -> popstats.Population:
    """A population whose optimum and limit follow the width of its original."""
    x0, level = (SHIFT * np.log2(width or 1.0), 2.0 + RISE * np.log2(width or 1.0))
    made = popstats.simulate_population(
        lambda x, target: level + 4.0 * (x - x0) ** 2, regimes=[0.6, 0.8], n=n, noise=0.1, seed=seed
    )
    known = {"network": {"name": name, "width": width}, "images": {"name": "digits"}, **plan}
    return replace(made, metadata={**made.metadata, "plan": known})


@pytest.fixture(scope="module")
def family():
    made = {width: planned("cifar_resnet8", width, seed, 120) for seed, width in enumerate((1.0, 0.5, 2.0))}
    return {f"{width:g}x": analyse(popstats.fit(population)) for width, population in made.items()}


def test_the_change_per_doubling_is_that_of_the_truth(family):
    found = moves(family)
    changes = found[found["against"] == "doubling of width"].set_index(["quantity", "regime"])
    assert len(changes) == 8
    for regime in ("0.60", "0.80"):
        for quantity, truth in (("optimal mCB", np.exp(SHIFT)), ("limit", RISE)):
            row = changes.loc[(quantity, regime)]
            assert row["lower"] - 0.05 < truth < row["upper"] + 0.05
            assert row["estimate"] == pytest.approx(truth, abs=0.06)
        # Of one shape, the curves' near-optimal ranges move with their optima.
        assert changes.loc[("near-optimal lower end", regime), "estimate"] == pytest.approx(
            np.exp(SHIFT), rel=0.1
        )
    against = found[found["against"] == "1x"]
    assert set(against["population"]) == {"0.5x", "2x"}
    half = against.set_index(["quantity", "regime", "population"]).loc[("limit", "0.80", "0.5x")]
    assert half["estimate"] == pytest.approx(-RISE, abs=0.1)
    assert half["width"] == 0.5
    assert half["outcome"] == "supported"


def test_draws_of_two_fits_of_one_seed_are_paired_as_independent_ones(family):
    """Both fits use the same random numbers: paired in order, their difference would look far too certain."""
    first, other = (family[name].fit.optimum_draws[1].limit for name in ("1x", "0.5x"))
    row = moves(family).query(
        "quantity == 'limit' and regime == '0.80' and population == '0.5x' and against == '1x'"
    )
    expected = 2 * 1.645 * np.hypot(first.std(), other.std())
    assert (row["upper"] - row["lower"]).item() == pytest.approx(expected, rel=0.1)


def test_a_line_through_two_originals_has_their_difference_and_a_third_off_it_widens_the_interval():
    rng = np.random.default_rng(0)
    x, draws = np.array([0.0, 2.0]), np.array([[1.0], [3.0]]) + 0.1 * rng.standard_normal((2, 4000))
    np.testing.assert_allclose(per_doubling(x, draws), (draws[1] - draws[0]) / 2.0)
    x, on, off = np.array([-1.0, 0.0, 1.0]), np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [3.0], [3.0]])
    noise = 0.1 * rng.standard_normal((3, 4000))
    assert per_doubling(x, on + noise).std() == pytest.approx(0.1 / np.sqrt(2.0), rel=0.05)
    # Residuals of 1/3, 2/3, 1/3 with one degree of freedom: chi-squared 0.667 / 0.01.
    assert per_doubling(x, off + noise).std() == pytest.approx(np.sqrt(66.7) * 0.1 / np.sqrt(2.0), rel=0.05)


def test_families_are_originals_that_differ_in_one_thing():
    def of(*designs: tuple, **plan) -> dict:
        return {f"{name} {width}": planned(name, width, **plan) for name, width in designs}

    wide = of(("cifar_resnet8", 1.0), ("cifar_resnet8", 0.5), ("cifar_resnet8", None))
    assert list(sizes(wide)["width"].values()) == [1.0, 0.5, 1.0]
    deep = of(*((f"cifar_resnet{depth}", None) for depth in (8, 20, 14)))
    assert list(sizes(deep)["depth"].values()) == [8.0, 20.0, 14.0]
    crossed = sizes(wide | of(("cifar_resnet20", 1.0), ("cifar_resnet20", 0.5)))
    assert list(crossed) == ["width", "depth"]
    assert list(crossed["depth"].values()) == [8.0, 8.0, 20.0], "of the first one's width"
    weights = of(("cifar_resnet8", 2.0), pruning={"kind": "weights"})
    unplanned = {"table": popstats.simulate_population(regimes=[0.6], n=20)}
    for stranger in (of(("digits_vit", 2.0)), weights, unplanned):
        assert (
            sizes(of(("cifar_resnet8", 1.0)) | stranger) == sizes(stranger | of(("cifar_resnet8", 1.0))) == {}
        )


def test_a_summary_tells_what_a_doubling_does(family):
    fits = {name: analysis.fit for name, analysis in family.items()}
    summary = popstats.summarize(fits, [analysis.verdicts for analysis in family.values()])
    assert "At 60 %, doubling the original's width multiplies the optimal mCB by 1.2" in summary.sentence
    assert summary.moves.equals(moves(family))
