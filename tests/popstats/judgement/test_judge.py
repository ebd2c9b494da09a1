"""`judge` on populations with a known truth, on small ones, and on a real table where it is there."""

import re
import tomllib
from dataclasses import replace

import build_page
import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.arrays import BoolArray
from popstats.errors import PopstatsError
from popstats.findings import Finding
from popstats.inference.draws import Convergence
from popstats.judgement.analysis import Analysis, all_within, twice_the_recipes
from popstats.judgement.explained import CEILING, MOST, TOTALS, WidthsBeyond, what_explains
from popstats.judgement.optimum_claims import original_ratio
from popstats.judgement.space_claims import _moved
from popstats.judgement.verdicts import CLAIMS, Thresholds, Verdict
from popstats.population.recipes import prepared_recipes
from popstats.posterior.fit import Fit
from popstats.words import sentence


def _judged(truth: str, **settings: object) -> popstats.Verdicts:
    population = popstats.simulate_population(truth, **{"regimes": (0.6, 0.8), "n": 400, **settings})  # type: ignore[arg-type]
    return popstats.judge(popstats.fit(population, method="exact"))


@pytest.fixture(scope="module")
def quadratic() -> popstats.Verdicts:
    return _judged("quadratic", rise=0.5, n=600)


@pytest.fixture(scope="module")
def additive() -> popstats.Verdicts:
    return _judged("additive-widths", rise=1.0, seeds=2, seed_noise=0.1, noise=0.02)


def test_every_conjecture_gets_a_verdict_in_order(quadratic: popstats.Verdicts) -> None:
    order = [v.conjecture for v in quadratic]
    assert list(dict.fromkeys(order)) == list(CLAIMS)
    assert order == sorted(order, key=list(CLAIMS).index)


def test_a_clear_optimum_at_the_originals_ratio(quadratic: popstats.Verdicts) -> None:
    for conjecture in ("C1", "C3a", "C3c"):
        assert {v.outcome for v in quadratic.of(conjecture)} == {"supported"}, conjecture
    for verdict in quadratic.of("C3a"):
        assert _best(verdict) == pytest.approx(1.0, abs=0.1)
        assert verdict.prior_probability < 0.5


def _best(verdict: Verdict) -> float:
    """Return the optimal mCB of a supported C3a, as its sentence names it."""
    best = verdict.finding.values["near"].values["best"]
    assert f"the optimal mCB is {best.value:.2f} (90 % interval " in verdict.sentence
    return best.value


def test_c1_is_c3a_in_another_unit(quadratic: popstats.Verdicts) -> None:
    for bucket, mcb, target in zip(quadratic.of("C1"), quadratic.of("C3a"), (0.6, 0.8), strict=True):
        assert (bucket.probability, bucket.estimate) == (mcb.probability, mcb.estimate)
        share = bucket.finding.values["share"].value
        assert share == pytest.approx((1.0 - target) / _best(mcb), rel=0.01)
        assert f"an optimal parameter bucket: {100 * share:.1f} %" in bucket.sentence
        assert "C3a in another unit" in bucket.sentence


@pytest.mark.parametrize("truth", ["quadratic", "linear"])
def test_the_estimate_is_what_the_probability_is_about_whatever_the_outcome(truth: str) -> None:
    """No mCB stands where a reader takes it for a best one."""
    fitted = popstats.fit(
        popstats.simulate_population(truth, regimes=(0.6,), n=300, rise=0.6), method="exact"
    )
    (verdict,) = popstats.judge(fitted).of("C3a")
    reading = Analysis(fitted).regimes[0]
    rise = np.minimum(reading.drop[:, 0], reading.drop[:, -1]) - reading.drop.min(axis=1)
    assert verdict.outcome == {"quadratic": "supported", "linear": "refuted"}[truth]
    assert verdict.estimate == pytest.approx(np.median(rise), abs=0.005)
    assert verdict.probability == pytest.approx((rise > 0.1).mean(), abs=0.01)
    assert (verdict.quantity, verdict.unit) == ("rise at the shallower end", "points")


def test_every_assessed_verdict_says_what_its_estimate_is(quadratic: popstats.Verdicts) -> None:
    assert all(bool(v.quantity) == (v.outcome != "not assessable") for v in quadratic)
    assert all(bool(v.quantity) == np.isfinite(v.estimate) for v in quadratic)


def test_winners_lie_near_a_true_optimum(quadratic: popstats.Verdicts) -> None:
    for verdict in quadratic.of("C3b"):
        assert verdict.estimate > 1.25
        assert "the curve alone implies" in verdict.sentence
        assert "The halves are fitted with normal noise" in verdict.reason


@pytest.mark.parametrize("truth", ["flat", "linear"])
def test_no_optimum_where_there_is_none(truth: str) -> None:
    judged = _judged(truth, n=800)
    assert {v.outcome for v in judged.of("C3a")} == {"refuted"}
    assert all("no optimal mCB" in v.sentence for v in judged.of("C3a"))
    assert {v.outcome for v in judged.of("C3c")} == {"not assessable"}


def test_a_w_has_two_near_optimal_ranges() -> None:
    judged = _judged("w", n=1500, rise=0.35)
    supported = judged.regimes_where("C3a", "supported")
    assert supported
    assert all("two near-optimal ranges of mCB" in judged.of("C3a", r)[0].sentence for r in supported)
    assert all("two near-optimal ranges of mCB" in judged.of("C1", r)[0].sentence for r in supported)


def test_additive_widths_refute_m1_and_word_the_optimum(additive: popstats.Verdicts) -> None:
    assert {v.outcome for v in additive.of("M1")} == {"refuted"}
    supported = [v for v in additive.of("C3a") if v.outcome == "supported"]
    assert supported
    assert all(
        "Any additive effect of the layer widths would produce such an optimum" in v.sentence
        for v in supported
    )


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        (
            2,
            r"they explain only [56]\d % of the noise ceiling, so the cause of the optimum is unresolved",
        ),
        (1, "is unknown without a second seed"),
    ],
)
def test_a_law_that_explains_a_part_is_not_said_to_make_the_best_mcb(seeds: int, told: str) -> None:
    """Recipes differ by more than their widths' law; mCB adds nothing to it all the same."""
    settings = {"regimes": (0.6,), "n": 500, "rise": 0.5, "noise": 0.6, "seed_noise": 0.1, "seed": 3}
    population = popstats.simulate_population("additive-widths", seeds=seeds, **settings)  # type: ignore[arg-type]
    fitted = popstats.fit(population, method="exact")
    verdicts = popstats.judge(fitted)
    (best,), (beyond,) = verdicts.of("C3a"), verdicts.of("M1")
    assert (best.outcome, beyond.outcome) == ("supported", "refuted")
    assert "would produce" not in best.sentence
    assert re.search(told, best.sentence), best.sentence
    assert ("of the noise ceiling" in beyond.sentence) == (seeds == 2)


def test_how_far_the_widths_law_reaches() -> None:
    draws = np.zeros(3)

    def reach(share: float, r2: float) -> str:
        return WidthsBeyond("0.50", 0.0, draws, share, r2, 1.0).reach

    nan = float("nan")
    assert [reach(MOST, 0.3), reach(0.39, 0.3), reach(nan, 0.3), reach(nan, MOST)] == [
        "most",
        "part",
        "unknown",
        "most",
    ]


def test_std_spaces_give_the_median_beside_a_mean_that_one_collapse_moves() -> None:
    population = popstats.simulate_population("additive-widths", regimes=(0.6,), n=100, rise=1.0, seed=1)
    kept = population.widths / population.widths.max(axis=0)
    collapsed = population.table.copy()
    collapsed.loc[kept.std(axis=1).argmax(), "accuracy"] = 10.0
    said = [_std_sentence(p) for p in (population, popstats.Population.from_frame(collapsed))]
    means, medians = zip(*said, strict=True)
    assert means[1] > means[0] + 1.0
    assert abs(medians[1] - medians[0]) < 0.05


def _std_sentence(population: popstats.Population) -> tuple[float, float]:
    (verdict,) = popstats.judge(popstats.fit(population, method="exact")).of("S1")
    values = verdict.finding.values
    assert (values["direction"], values["size"]) == ("better", "smaller")
    return values["change"].value, values["median"]


def test_an_mcb_mechanism_beyond_the_widths_supports_m1() -> None:
    population = popstats.simulate_population(
        "additive-widths", regimes=(0.6,), n=400, rise=0.3, noise=0.02, seed=3
    )
    # Add what no sum over layers can produce: a narrow valley of mCB.
    x = population.frame["log_mcb"].to_numpy()
    valley = 1.0 * (1.0 - np.exp(-((x / 0.15) ** 2)))
    frame = population.table.assign(accuracy=population.table["accuracy"] - valley)
    judged = popstats.judge(popstats.fit(popstats.Population.from_frame(frame), method="exact"))
    assert judged.of("M1")[0].outcome == "supported"
    assert judged.of("C3a")[0].outcome == "supported"
    assert "more than an effect of the layer widths: mCB adds" in judged.of("C3a")[0].sentence


def test_m1_waits_until_the_law_of_the_widths_has_learned() -> None:
    """On 50 recipes of six groups a law of the widths has not reached what it can; mCB, one number, has."""
    population = popstats.load_population("digits-width-1x")
    (verdict,) = popstats.judge(popstats.fit(population, regimes={0.8: 0.05})).of("M1")
    assert (verdict.outcome, verdict.probability > 0.95) == ("undecided", True)
    assert "the learning curve of the width law suggests" in verdict.reason
    assert "count = 100" in verdict.remedy


def test_an_interaction_of_widths_is_not_taken_for_mcb() -> None:
    """What mCB adds to an additive law, a law with products of widths explains: the sentence names the interaction."""
    population = popstats.simulate_population(
        "additive-widths", regimes=(0.6,), n=600, rise=0.3, noise=0.05, seeds=2, seed_noise=0.05, seed=3
    )
    log_widths = np.log(population.widths / population.widths.max(axis=0))
    depth = np.linspace(-1.0, 1.0, log_widths.shape[1])
    tilt = (log_widths - log_widths.mean(axis=0)) @ depth
    frame = population.table.assign(accuracy=population.table["accuracy"] - 0.5 * tilt**2)
    fitted = popstats.fit(popstats.Population.from_frame(frame))
    verdicts = popstats.judge(fitted)
    beyond = verdicts.analysis.explained.widths_beyond["0.60"]
    (verdict,) = verdicts.of("M1")
    assert beyond.pairwise
    assert 0.0 < beyond.share_of_interaction < 1.0
    assert verdict.outcome == "refuted"
    share = round(100 * beyond.share_of_interaction)
    assert (
        f"An interaction of the layer widths is at work, of which mCB carries {share} %." in verdict.sentence
    )
    assert "added to a law with pairwise interactions of the widths" in verdict.sentence


def test_a_rising_optimum_is_seen_over_regimes() -> None:
    def moving(log_mcb: np.ndarray, target: float) -> np.ndarray:
        return 2.0 * (log_mcb + 0.2 * np.log1p(-target) + 0.25) ** 2

    regimes = (0.5, 0.6, 0.7, 0.8, 0.85)
    population = popstats.simulate_population(moving, regimes=regimes, n=500, noise=0.1)
    judged = popstats.judge(popstats.fit(population, method="exact"))
    trend = judged.of("C3d")[0]
    assert trend.outcome == "supported"
    assert trend.lower < (0.5 / 0.15) ** 0.2 < trend.upper
    assert "5 regimes" in judged.of("C4")[0].reason


def test_two_techniques_with_one_optimum_and_with_two() -> None:
    def drop_at(centre: float) -> object:
        return lambda log_mcb, target: 3.0 * (log_mcb - centre) ** 2

    def judged(other: float) -> popstats.Verdicts:
        tables = [
            popstats.simulate_population(drop_at(c), regimes=(0.7,), n=300, noise=0.1, seed=s).table.assign(  # type: ignore[arg-type]
                retraining=name, recipe_id=lambda t, name=name: t["recipe_id"] + name, population="two"
            )
            for c, s, name in ((0.0, 0, "fine-tune"), (other, 1, "scratch"))
        ]
        population = popstats.Population.from_frame(pd.concat(tables, ignore_index=True))
        return popstats.judge(popstats.fit(population, method="exact"))

    assert judged(0.0).of("R1")[0].outcome == "supported"
    moved = judged(0.35).of("R1")[0]
    assert moved.outcome == "refuted"
    assert "fine-tune" in moved.sentence
    assert "scratch" in moved.sentence


def test_four_rows_are_not_assessable_and_say_what_would_tell() -> None:
    judged = _judged("quadratic", regimes=(0.5,), n=4)
    assert {v.outcome for v in judged} == {"not assessable"}
    c3a = judged.of("C3a")[0]
    assert "4 recipes" in c3a.reason
    assert "[[recipes]]" in c3a.remedy
    assert "regimes = [0.5]" in c3a.remedy


def test_a_regime_that_cannot_pass_the_band_says_so() -> None:
    judged = _judged("quadratic", regimes=(0.15,), n=400, rise=2.0, noise=0.05, centre=0.3)
    verdict = judged.of("C3c")[0]
    assert verdict.outcome == "not assessable"
    assert "0.85" in verdict.reason


@pytest.mark.parametrize(("target", "passes"), [(0.2, False), (0.21, True)])
def test_at_20_percent_no_network_lies_below_the_band(target: float, passes: bool) -> None:
    population = popstats.simulate_population("quadratic", regimes=(target,), n=800, rise=1.5, noise=0.05)
    analysis = Analysis(popstats.fit(population, method="exact"), Thresholds(outside_band=0.01))
    assert analysis.regimes[0].outcome == "supported"
    verdict = original_ratio(analysis, analysis.regimes[0])
    assert (verdict.outcome != "not assessable") == passes
    assert ("Networks below mCB 0.80 do not exist" in verdict.reason) != passes


@pytest.mark.parametrize(("low", "side"), [(0.9, "below mCB 0.90"), (0.5, "above mCB 1.20")])
def test_the_tables_own_feasible_range_comes_before_the_reduction(low: float, side: str) -> None:
    population = popstats.simulate_population("quadratic", regimes=(0.5,), n=400, rise=2.0, noise=0.05)
    known = [{"axis": "macs", "target": 0.5, "log_mcb": [np.log(low), np.log(1.2)]}]
    population.metadata["costs"] = {"feasible": known, "groups": []}
    (verdict,) = popstats.judge(popstats.fit(population)).of("C3c")
    assert (verdict.outcome, side in verdict.reason) == ("not assessable", True)


def test_m1_needs_an_mcb_that_varies_at_equal_cost_and_all_widths() -> None:
    rng, n = np.random.default_rng(0), 200
    widths, bias = rng.integers(8, 65, (n, 2)), rng.integers(0, 2, n)
    params = 10_000 * widths.sum(axis=1) * np.exp(0.6 * bias)
    frame = pd.DataFrame({"a": widths[:, 0], "b": widths[:, 1], "bias": bias, "params": params.astype(int)})
    frame = frame.assign(recipe_id=[str(i) for i in range(n)], macs=rng.integers(28_000_000, 32_000_000, n))
    frame["accuracy"] = 90.0 - 2.0 * bias + rng.normal(0.0, 0.1, n)

    def judged(columns: list[str]) -> popstats.Verdicts:
        original = popstats.Original(macs=100_000_000, params=int(frame["params"].max()), accuracy=95.0)
        population = popstats.Population.from_frame(frame, original=original, widths=columns)
        return popstats.judge(popstats.fit(population, regimes=[0.7]))

    frame["noise"], frame["same"] = rng.integers(8, 65, n), 64
    for incomplete in (["a", "b"], ["a", "noise"], ["same"]):
        (without,) = judged(incomplete).of("M1")
        assert (without.outcome, "columns are missing" in without.reason) == ("not assessable", True)
    assert judged(["a", "b", "bias"]).of("M1")[0].outcome != "supported"
    frame["params"] = (frame["macs"] * 0.2 + 100 * bias).astype(int)
    (follows,) = judged(["a", "b", "bias"]).of("M1")
    assert (follows.outcome, "same mCB" in follows.reason) == ("not assessable", True)


def test_no_claim_is_stronger_than_the_optimum_it_needs() -> None:
    judged = _judged("quadratic", regimes=(0.6,), n=80, rise=0.2, noise=0.1)
    assert judged.outcome("C3a", "0.60") == "undecided"
    for conjecture in ("C3b", "C3c"):
        (verdict,) = judged.of(conjecture)
        assert verdict.outcome == "undecided"
        assert "Whether there is an optimal mCB at all (C3a) is undecided" in verdict.reason
        # One answer to how many recipes would decide, whichever claim asks.
        assert verdict.remedy == judged.of("C3a")[0].remedy
    assert tomllib.loads(verdict.remedy)["recipes"][0]["count"] >= 160
    flat = _judged("linear", n=800)
    assert {v.outcome for c in ("C3b", "C3c") for v in flat.of(c)} == {"not assessable"}


def test_verdicts_say_where_they_hold_and_what_they_were_read_off(quadratic: popstats.Verdicts) -> None:
    judged = [v for v in quadratic if np.isfinite(v.observed_range[0]) and v.outcome != "not assessable"]
    assert {v.conjecture for v in judged} >= {"C1", "C2", "C3a", "C3b", "C3c"}
    for verdict in judged:
        low, high = verdict.observed_range
        assert verdict.reason.endswith(f" Observed mCB {low:.2f} to {high:.2f}."), verdict.reason
        assert ("From a second fit, with regimes of equal parameters" in verdict.reason) == (
            verdict.conjecture == "C2"
        )


def _some_fit(n: int = 30) -> Analysis:
    population = popstats.simulate_population("quadratic", regimes=(0.6,), n=n)
    return Analysis(popstats.fit(population, method="exact"))


def test_what_is_withheld_is_not_supported() -> None:
    analysis, luck = _some_fit(), Finding("lucky", (), {"lucky": 0.4})
    sure, never = np.ones(1000, dtype=bool), np.zeros(1000, dtype=bool)

    def judged(holds: BoolArray, withheld: Finding | None = None) -> Verdict:
        said = Finding("text", (), {"text": "said"})
        return analysis.verdict("S1", None, said, holds, holds * 1.0, prior=0.2, withheld=withheld)

    verdict = judged(sure, luck)
    assert (verdict.outcome, verdict.sentence) == ("undecided", "Said.")
    assert verdict.reason.endswith("(permutation p = 0.40).")
    assert judged(sure).outcome == "supported"
    assert judged(never, luck).outcome == "refuted"


def test_no_claim_outruns_the_optimum_that_it_rests_on() -> None:
    analysis, said = _some_fit(), Finding("text", (), {"text": "said"})
    (regime,) = analysis.regimes
    regime.__dict__["outcome"] = "undecided"
    for holds in (np.ones(1000, dtype=bool), np.zeros(1000, dtype=bool)):
        verdict = analysis.verdict("C3c", regime.data, said, holds, holds * 1.0, rests_on=regime)
        assert verdict.outcome == "undecided"
        assert "Whether there is an optimal mCB at all (C3a) is undecided" in verdict.reason
        assert verdict.remedies == regime.remedies


def test_a_techniques_rejected_fit_is_named() -> None:
    table = popstats.simulate_population("quadratic", regimes=(0.7,), n=120).table.assign(
        retraining=["fine-tune", "scratch"] * 60
    )
    fitted = popstats.fit(popstats.Population.from_frame(table), method="exact")
    alone = replace(fitted)
    alone.__dict__["convergence"] = Convergence(
        (Finding("R-hat", (), {"worst": 1.200, "most": 1.01}),), pd.DataFrame()
    )
    both = {"fine-tune": Analysis(fitted), "scratch": Analysis(alone)}
    verdict = _moved(both["fine-tune"], both, fitted.regimes[0])
    assert verdict.outcome == "not assessable"
    assert "retrained by scratch alone" in verdict.reason
    assert "R-hat" in verdict.reason
    assert "method='nuts'" in verdict.remedy


def test_a_lift_of_one_is_negligible() -> None:
    near_one = np.linspace(0.9, 1.1, 100)
    assert all_within(near_one, 0.8, 1.25)
    assert not all_within(near_one * 1.2, 0.8, 1.25)
    assert not all_within(near_one * 0.8, 0.8, 1.25)


def test_regimes_on_the_params_axis_are_proposed_on_it() -> None:
    population = popstats.simulate_population("quadratic", regimes=(0.5,), n=60)
    judged = popstats.judge(
        popstats.fit(population, regime_axis="params", regimes=[0.5, 0.7], method="exact")
    )
    for conjecture in ("C3d", "C4", "R1"):
        remedy = judged.of(conjecture)[0].remedy
        assert tomllib.loads(remedy[remedy.index("[[recipes]]") :])["recipes"][0]["axis"] == "params", (
            conjecture
        )


def test_a_fit_that_its_diagnostics_reject_supports_nothing() -> None:
    fitted = popstats.fit(popstats.simulate_population("quadratic", regimes=(0.6,), n=200), method="exact")
    rejected = replace(fitted)
    bad = Convergence((Finding("R-hat", (), {"worst": 1.200, "most": 1.01}),), pd.DataFrame())
    rejected.__dict__["convergence"] = bad
    judged = popstats.judge(rejected)
    for conjecture in ("C1", "C3a", "C3b", "C3c", "C3d", "C4"):
        verdict = judged.of(conjecture)[0]
        assert verdict.outcome == "not assessable"
        assert "R-hat" in verdict.reason


@pytest.mark.parametrize(("noise", "advice"), [("student", "noise='normal'"), ("normal", "method='exact'")])
def test_a_rejected_fit_says_what_to_do(noise: str, advice: str) -> None:
    fitted = popstats.fit(popstats.simulate_population("quadratic", regimes=(0.6, 0.7), n=60), method="exact")
    rejected = replace(
        fitted, settings=replace(fitted.settings, method="nuts" if noise == "normal" else "hmc", noise=noise)
    )
    table = pd.DataFrame({"regime": ["0.60", "0.70"], "r_hat": [1.0, 1.4]})
    rejected.__dict__["convergence"] = Convergence(
        (Finding("R-hat", (), {"worst": 1.400, "most": 1.01}),), table
    )
    verdict = Analysis(rejected).rejected("C3a", rejected.regimes[1])
    assert verdict.outcome == "not assessable"
    assert advice in verdict.remedy
    assert "worst at 70 %" in verdict.remedy


def test_a_low_probability_that_the_prior_alone_explains_does_not_refute() -> None:
    analysis = _some_fit()

    def judged(holds: int, prior: float) -> Verdict:
        draws = np.arange(1000) < holds
        said = Finding("text", (), {"text": "said"})
        return analysis.verdict("C3a", analysis.fit.regimes[0], said, draws, draws * 1.0, prior=prior)

    weak = "Unlikely (4 %, prior 4 %), but the evidence is too weak to refute it."
    assert (judged(40, 0.04).outcome, judged(40, 0.9).outcome) == ("undecided", "refuted")
    assert weak in judged(40, 0.04).reason
    assert "Unlikely" not in judged(300, 0.04).reason + judged(40, 0.9).reason


def test_twice_the_recipes_are_lines_of_a_plan() -> None:
    fitted = popstats.fit(popstats.simulate_population("quadratic", regimes=(0.6,), n=30), method="exact")
    lines = sentence(twice_the_recipes(fitted.regimes[0]))
    assert "popstats.plan_size" in lines
    assert tomllib.loads(lines)["recipes"][0] == {
        "axis": "macs",
        "regimes": [0.6],
        "space": "stratified",
        "count": 60,
    }


def test_thresholds_are_arguments_and_kept_with_the_verdict() -> None:
    fitted = popstats.fit(
        popstats.simulate_population("quadratic", regimes=(0.6,), n=600, rise=0.4), method="exact"
    )
    assert popstats.judge(fitted).of("C3a")[0].outcome == "supported"
    strict = popstats.judge(fitted, rise=1.0).of("C3a")[0]
    assert strict.outcome == "refuted"
    assert strict.thresholds.rise == 1.0
    with pytest.raises(PopstatsError, match="unknown threshold"):
        popstats.judge(fitted, height=1.0)


def test_params_axis_judges_c2_from_the_fit_itself() -> None:
    population = popstats.simulate_population("quadratic", regimes=(0.5, 0.7), n=300)
    fitted = popstats.fit(population, regime_axis="params", regimes=[0.5, 0.7], method="exact")
    judged = popstats.judge(fitted)
    assert [v.regime for v in judged.of("C2")] == ["0.50", "0.70"]
    assert all("parameter reduction" in v.sentence for v in judged.of("C2"))


def test_no_widths_leaves_m1_and_s1_open_with_a_remedy(quadratic: popstats.Verdicts) -> None:
    for conjecture in ("M1", "S1"):
        verdict = quadratic.of(conjecture)[0]
        assert verdict.outcome == "not assessable"
        assert "widths=[...]" in verdict.remedy


def test_what_explains_knows_the_mechanism() -> None:
    population = popstats.simulate_population(
        "additive-widths", regimes=(0.7,), n=400, rise=1.0, noise=0.0, seeds=3, seed_noise=0.1
    )
    share = what_explains(population, prepared_recipes(population, "macs")).frame.set_index("model")["r2"]
    assert share["log-widths"] > 0.97 * share[CEILING]
    assert share["mCB"] < share["log-widths"]
    assert abs(share["log-widths + mCB"] - share["log-widths"]) < 0.005


def test_embedding_heads_and_mlp_stand_beside_mcb_where_group_names_tell_them_apart() -> None:
    vit, resnet = (popstats.load_population(name) for name in ("digits-vit", "digits-resnet8"))
    share = what_explains(vit, prepared_recipes(vit, "macs", (0.75,))).frame.set_index("model")["r2"]
    assert {"embedding", "total heads", "total MLP width"} < set(share.index)
    assert share["mCB"] < share["embedding"] < share[TOTALS] < share["log-widths"]
    assert TOTALS not in set(what_explains(resnet, prepared_recipes(resnet, "macs")).frame["model"])


@pytest.fixture(scope="module")
def real() -> Fit:
    if not build_page.SHARED.is_dir():
        pytest.skip("the shared Channel-Bench table is not here")
    return popstats.fit(build_page.channel_bench(), method="exact")


def test_the_real_table_supports_an_optimum_where_it_has_one(real: Fit) -> None:
    judged = popstats.judge(real)
    for regime in ("0.77", "0.812", "0.85"):
        verdict = judged.of("C3a", regime)[0]
        assert verdict.outcome == "supported"
        assert 0.85 < _best(verdict) < 1.15
        assert "Any additive effect of the layer widths would produce such an optimum" in verdict.sentence
        assert judged.of("M1", regime)[0].outcome == "refuted"
    for regime in ("0.11", "0.28", "0.43"):
        assert judged.of("C3a", regime)[0].outcome != "supported"


def test_widths_reach_the_noise_ceiling_on_the_real_table(real: Fit) -> None:
    fitted = popstats.width_law(real.population).fit.set_index("regime")
    large = fitted[fitted["n_recipes"] > 400]
    assert large["share_of_ceiling"].between(0.88, 1.01).all()
