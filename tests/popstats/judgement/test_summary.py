"""Pooling over populations: by hand on known numbers, and on simulated populations with a known spread."""

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.judgement.summary import NEW, POOLED, _counts, _pooled
from popstats.judgement.verdicts import CLAIMS


def made_effects(rng, mean=0.1, between=0.15, within=0.05, sd=0.04, populations=8, regimes=4):
    rows = []
    for p in range(populations):
        centre = mean + between * rng.standard_normal()
        for _ in range(regimes):
            rows.append(("optimal mCB", f"p{p}", centre + np.hypot(within, sd) * rng.standard_normal(), sd))
    return pd.DataFrame(rows, columns=["quantity", "population", "estimate", "sd"])


def test_intervals_hold_the_mean_and_a_new_regime():
    rng = np.random.default_rng(0)
    mean, new, between, within = [], [], [], []
    for _ in range(300):
        frame = _pooled("optimal mCB", made_effects(rng)).set_index("population")
        pooled, expected = frame.loc[POOLED], frame.loc[NEW]
        mean.append(pooled["lower"] <= np.exp(0.1) <= pooled["upper"])
        truth = np.exp(0.1 + np.hypot(0.15, 0.05) * rng.standard_normal())
        new.append(expected["lower"] <= truth <= expected["upper"])
        between.append(pooled["between"] ** 2)
        within.append(pooled["within"] ** 2)
    assert 0.85 <= np.mean(mean) <= 0.97
    assert 0.85 <= np.mean(new) <= 0.97
    assert np.sqrt(np.mean(between)) == pytest.approx(0.15, rel=0.15)
    assert np.sqrt(np.mean(within)) == pytest.approx(0.05, rel=0.15)


def test_alike_populations_have_no_spread_and_their_mean():
    rows = [("regret of mCB = 1", name, 0.2, 0.1) for name in ("a", "b", "c")]
    frame = _pooled(
        "regret of mCB = 1", pd.DataFrame(rows, columns=["quantity", "population", "estimate", "sd"])
    )
    assert frame["estimate"].tolist() == pytest.approx([0.2] * 5)
    pooled = frame.set_index("population").loc[POOLED]
    assert pooled["between"] == pooled["within"] == 0.0
    assert pooled["upper"] == pytest.approx(
        0.2 + 2.92 * 0.1 / np.sqrt(3), abs=1e-3
    )  # Student-t with two degrees


@pytest.fixture(scope="module")
def summary():
    """Three populations whose optimal mCBs are 0.8, 1.0 and 1.25."""
    fits = {}
    for seed, centre in enumerate((-0.223, 0.0, 0.223)):
        population = popstats.simulate_population(
            lambda x, target, c=centre: 1.0 + 4.0 * (x - c) ** 2,
            regimes=[0.6, 0.8],
            n=120,
            noise=0.1,
            seed=seed,
        )
        fits[f"at {np.exp(centre):.2f}"] = popstats.fit(population)
    return popstats.summarize(fits)


def test_populations_that_differ_are_pooled_with_their_spread(summary):
    best = summary.frame[summary.frame["quantity"] == "optimal mCB"].set_index("population")
    assert best.loc["at 0.80", "estimate"] == pytest.approx(0.8, abs=0.03)
    assert best.loc[POOLED, "estimate"] == pytest.approx(1.0, abs=0.05)
    assert best.loc[POOLED, "between"] == pytest.approx(0.223, rel=0.2)
    assert (
        best.loc[NEW, "lower"]
        < best.loc[POOLED, "lower"]
        < 1.0
        < best.loc[POOLED, "upper"]
        < best.loc[NEW, "upper"]
    )
    assert best.loc[POOLED, "regimes"] == 6
    regret = summary.frame[summary.frame["quantity"] != "optimal mCB"].set_index("population")
    assert regret.loc["at 1.00", "estimate"] < 0.05
    assert regret.loc["at 0.80", "estimate"] == pytest.approx(0.2, abs=0.1)


def test_verdicts_stand_beside_those_expected_by_chance(summary):
    assert summary.verdicts["conjecture"].tolist() == list(CLAIMS)
    row = summary.verdicts.set_index("conjecture").loc["C3a"]
    assert (row["assessable"], row["supported"]) == (6, 6)
    assert row["by_chance"] == pytest.approx(0.3)
    assert row["p_chance"] == pytest.approx(0.05**6)
    assert row["wrong"] < 0.3
    assert _counts([])["assessable"].sum() == 0
    assert "C3a is supported in 6 of 6" in repr(summary)


def test_it_is_written_for_a_paper(summary, tmp_path):
    pooled, counts, moved = summary.to_csv(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(pd.read_csv(pooled), summary.frame, check_dtype=False)
    assert pd.read_csv(counts)["conjecture"].tolist() == list(CLAIMS)
    assert len(pd.read_csv(moved)) == len(summary.moves) > 0
    text = summary.to_latex(tmp_path / "table.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert r"by\_chance" in text
    assert "pooled" in summary._repr_html_()


def test_what_cannot_be_pooled_is_refused(summary):
    fit = popstats.fit(popstats.simulate_population("linear", regimes=[0.6], n=60, rise=3.0))
    with pytest.raises(popstats.FitError, match="at least two fits"):
        popstats.summarize([fit])
    with pytest.raises(popstats.FitError, match="one name"):
        popstats.summarize([fit, fit])
    with pytest.raises(popstats.FitError, match="expected a Fit, got a Population"):
        popstats.summarize([fit, fit.population])
    told = popstats.judge(fit)
    with pytest.raises(popstats.FitError, match="one Verdicts per fit"):
        popstats.summarize({"a": fit, "b": fit}, [told])
    with pytest.raises(popstats.FitError, match="nothing to pool"):
        popstats.summarize({"a": fit, "b": fit}, [told, told])
