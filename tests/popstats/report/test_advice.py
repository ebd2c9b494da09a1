"""The box at the top names widths, or mCB, or what is known, and a command that works."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.__main__ import DONE, main
from popstats.figures.content import Section
from popstats.judgement.judge import analyse
from popstats.posterior.fit import Fit
from popstats.posterior.optimum import least_rise
from popstats.report.advice import _ruled_out, advice
from popstats.report.alerts import caveats


def box(fit: Fit, source: str = "mine") -> Section:
    analysis = analyse(fit)
    return advice(analysis, caveats(analysis), source)


@pytest.fixture(scope="module")
def digits() -> Fit:
    return popstats.fit(popstats.load_population("digits-resnet8"), method="exact")


def test_recommended_widths_stand_beside_uniform_pruning(digits: Fit) -> None:
    found = box(digits)
    table = pd.DataFrame(found.tables[0][1].records).set_index("removed")
    recipe = popstats.recommend(digits.population, reduction=0.5)
    assert table.loc["50 %", "gain over uniform"].startswith(f"{recipe.gain:.2f} (")
    assert table.loc["50 %", "uniform's drop"].startswith(f"{recipe.uniform.drop:.2f} (")
    kept = pd.DataFrame(found.tables[1][1].records).set_index("group")
    assert kept["50 %"].tolist() == [f"{w:g}" for w in recipe.widths.values()]
    assert kept["original"].tolist() == ["16", "16", "32", "32", "64", "64"]
    assert ("50" in re.findall(r"\d+", found.sentence.partition(":")[0])) == (recipe.gain_lower > 0)


def test_the_next_command_can_be_pasted(digits: Fit, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ((_, command),) = box(digits, "digits-resnet8").code
    assert main(shlex.split(command)[3:]) == DONE
    assert (tmp_path / "recipe.json").is_file()


def test_without_widths_a_best_mcb_leads_to_a_refined_space(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = popstats.simulate_population("quadratic", regimes=(0.5, 0.8), n=200, rise=1.0, seed=2)
    made.save("made.parquet")
    found = box(popstats.fit(made, method="exact"), "made.parquet")
    assert found.sentence.startswith("There is an optimal FLOPs-to-parameters ratio")
    ((label, command),) = found.code
    assert "around the optimal mCB" in label
    assert main(shlex.split(command)[3:]) == DONE
    assert (tmp_path / "refined.toml").is_file()


def test_what_is_ruled_out_is_told_where_nothing_is_decided() -> None:
    made = popstats.simulate_population("linear", regimes=(0.5,), n=60, rise=0.8, noise=0.2, seed=5)
    fit = popstats.fit(made, method="exact")
    found = box(fit)
    (regime,) = analyse(fit).regimes
    assert regime.outcome == "undecided"
    cell = found.tables[0][1].rows[0][1]
    ((low, high),) = _ruled_out(regime)
    assert f"{low:.2f} to {high:.2f} ruled out" in cell
    # The drop rises over the whole range: the ruled-out end is the upper one.
    assert made.metadata["truth"]["regimes"]["0.50"]["rise_lower"] == 0.0
    assert high == pytest.approx(regime.observed.high, rel=0.02)
    assert found.sentence.startswith("No optimal FLOPs-to-parameters ratio")


def test_twice_the_noise_takes_four_times_the_recipes() -> None:
    made = popstats.simulate_population("quadratic", regimes=(0.5,), n=60, rise=0.5, noise=0.3, seed=8)
    analysis = analyse(popstats.fit(made, method="exact"))
    (row,) = analysis.optima.values()
    rise = np.median(least_rise(analysis.regimes[0].optimum))
    noise = 0.4 * abs(rise - 0.1)
    needed = []
    for factor in (1, 2, 1000):
        analysis.__dict__["optima"] = {row.regime: row._replace(residual_sd=factor * noise, n_recipes=5)}
        needed.append(analysis.regimes[0].recipes_to_decide)
    assert needed == [39, 160, None]
