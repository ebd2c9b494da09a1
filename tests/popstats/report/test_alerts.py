"""What speaks against relying on a supported optimal mCB is told at the top."""

import numpy as np
import pytest

import popstats
from popstats.figures.content import VerdictRow
from popstats.figures.curve_figures import drop_figure, limit_figure, limit_sentence, near_figure
from popstats.findings import Finding
from popstats.judgement.analysis import Analysis
from popstats.judgement.judge import analyse
from popstats.posterior.fit import Fit
from popstats.report.advice import advice
from popstats.report.alerts import alerts, caveats, elsewhere_words
from popstats.report.page import _span
from popstats.report.sections import card_section
from popstats.words import clause


@pytest.fixture(scope="module")
def clear() -> Fit:
    """Two clear optima; only the first regime was retrained in two ways."""
    made = popstats.simulate_population("quadratic", regimes=(0.5, 0.8), n=150, rise=1.0, noise=0.1, seed=2)
    ways = np.where(
        (made.frame["regime"] == "0.50") & (np.arange(len(made)) % 2 == 0), "scratch", "fine-tune"
    )
    population = popstats.Population.from_frame(made.table.assign(retraining=ways))
    return popstats.fit(population, method="exact", draws=200)


def _evidence(fit: Fit, **known: object) -> Analysis:
    evidence = analyse(fit)
    evidence.__dict__.update({"mixes": {}, **known})
    return evidence


def _lead(evidence: Analysis, known: tuple[Finding, ...] | None = None) -> str:
    return advice(evidence, caveats(evidence) if known is None else known, "mine").sentence


def _told(evidence: Analysis, level: str = "") -> list[str]:
    return [a.text for a in alerts(evidence, caveats(evidence)) if a.level.startswith(level)]


def test_only_regimes_that_pool_techniques_are_called_pooled(clear: Fit) -> None:
    found = caveats(_evidence(clear))
    assert [(f.kind, f.regimes) for f in found] == [("pooled", ("0.50",))]
    assert (
        "At 50 %, networks retrained by fine-tune and scratch share one curve" in _told(_evidence(clear))[0]
    )
    analysis = Analysis(clear)
    assert "retrained by fine-tune and scratch share one curve" in clause(
        analysis.mixture(clear.fitted[0])[0]
    )
    assert analysis.mixture(clear.fitted[1]) == ()


def test_trainings_that_do_not_say_how_are_told_of_beside_those_that_do() -> None:
    made = popstats.simulate_population("quadratic", regimes=(0.6,), n=150, rise=1.0, noise=0.1, seed=2)
    ways = np.where(np.arange(len(made)) < 50, None, "fine-tune")
    population = popstats.Population.from_frame(made.table.assign(retraining=ways))
    fitted = popstats.fit(population, method="exact", draws=200)
    (note,) = population.notes
    assert note.startswith(
        "50 of 150 trainings do not say how they were retrained (column retraining). Besides fine-tune"
    )
    assert note in _told(_evidence(fitted))
    (mixture,) = Analysis(fitted).mixture(fitted.fitted[0])
    assert "fine-tune and an unnamed technique share one curve" in clause(mixture)
    (verdict,) = popstats.judge(fitted).of("R1")
    assert verdict.reason.endswith(
        "the table has only 'fine-tune'; 50 of 150 trainings do not name their retraining technique and are left out."
    )
    card = dict(card_section(analyse(fitted)).tables[0][1].rows)
    assert card["retraining"] == "fine-tune; 50 trainings do not say"
    # Of one technique alone there is nothing to tell.
    assert population.where(retraining="fine-tune").notes == ()


def test_a_comparison_of_techniques_says_whom_it_leaves_out() -> None:
    made = popstats.simulate_population("quadratic", regimes=(0.6,), n=360, rise=2.0, noise=0.1, seed=2)
    ways = np.array(["fine-tune", "scratch", None])[np.arange(len(made)) % 3]
    population = popstats.Population.from_frame(made.table.assign(retraining=ways))
    (verdict,) = popstats.judge(popstats.fit(population, method="exact", draws=200)).of("R1")
    assert verdict.outcome != "not assessable"
    assert "120 of 360 trainings do not name their retraining technique and are left out." in verdict.reason


def test_a_best_mcb_is_moved_by_the_mix_from_half_of_the_range_on(clear: Fit) -> None:
    ends = {r.label: np.array(r.observed) for r in clear.fitted}

    def told(share: float) -> list[tuple[str, ...]]:
        low, high = ends["0.80"]
        moved = {"0.80": (float(np.exp(low)), float(np.exp(low + share * (high - low))))}
        return [f.regimes for f in caveats(_evidence(clear, mixes=moved)) if f.kind == "mix moves"]

    assert told(0.51) == [("0.80",)]
    assert told(0.49) == []


def test_the_lead_starts_with_what_makes_a_best_mcb_weak(clear: Fit) -> None:
    evidence = _evidence(clear)
    weak = (Finding("predicts nothing", ("0.80",), {"r2": 0.003}), Finding("winners elsewhere", ("0.80",)))
    lead = _lead(evidence, weak)
    assert lead.startswith(
        "mCB is a weak guide at 80 %: it predicts nothing beyond MACs (cross-validated R² 0.00); the "
        "winners do not lie near the optimal mCB."
    )
    # What is weak is no target either.
    assert "aim for" in lead
    assert f"{evidence.optima['0.80'].mcb:.2f} at 80 %" not in lead


def test_the_lead_gives_the_best_mcbs_own_interval(clear: Fit) -> None:
    evidence = _evidence(clear)
    row = evidence.optima["0.80"]
    assert f"(optimum {row.mcb:.2f}, 90 % interval {row.mcb_lower:.2f} to {row.mcb_upper:.2f})" in _lead(
        evidence
    )


def test_the_ends_of_the_near_optimal_range_are_not_oversold(clear: Fit) -> None:
    caption = near_figure(_evidence(clear)).caption
    assert "intervals of its ends, often wider than the range" in caption
    assert "reliably" not in caption
    assert "are not targets" in caption


def test_trainings_outside_the_fit_are_accounted_for(clear: Fit) -> None:
    evidence = _evidence(clear)
    missing = len(clear.population) - evidence.n_fitted
    caption = drop_figure(evidence).caption
    assert (f"{missing} are not in the fit" in caption) == (missing > 1)
    part = popstats.fit(clear.population, regimes=[0.5], method="exact", draws=50)
    left = len(clear.population) - sum(r.n for r in part.fitted)
    assert (
        f"Of {len(clear.population)} trainings, {left} are not in the fit"
        in drop_figure(_evidence(part)).caption
    )


@pytest.mark.parametrize(
    ("lower", "upper", "shown"),
    [(-0.0019, 0.0235, "−0.002 to 0.024"), (0.0, 0.0235, "0.00 to 0.02"), (-0.02, 13.28, "−0.02 to 13.28")],
)
def test_a_bound_below_zero_never_looks_like_zero(lower: float, upper: float, shown: str) -> None:
    row = VerdictRow("0.50", "50 %", "undecided", 0.5, None, 0.01, lower, upper, "points", "", "", "")
    assert _span(row) == shown


def test_parabolas_that_differ_are_counted_though_they_contradict_no_verdict() -> None:
    agreeing = "1.00 (0.90 to 1.10)"
    assert elsewhere_words([agreeing]) == ""
    told = "in 1 of 2 regimes a parabola has no minimum, or a different one"
    assert told in elsewhere_words([agreeing, "1.31 (misspecified)"])
    assert told in elsewhere_words([agreeing, "none inside"])


def test_regimes_of_few_networks_are_marked() -> None:
    made = popstats.simulate_population("quadratic", regimes=(0.5, 0.8), n=60, seed=2)
    keep = np.flatnonzero((made.frame["regime"] == "0.50") | (np.arange(len(made)) % 3 == 0))
    told = _evidence(popstats.fit(made.select(keep), method="exact", draws=50))
    cells = [row[1] for row in drop_figure(told).table.rows]
    assert cells == ["60", "20 (few recipes)"]
    assert [row[1] for row in near_figure(told).table.rows] == cells
    assert [row[-1] for row in limit_figure(told).table.rows] == ["", "few recipes"]


def test_two_good_stretches_are_both_told() -> None:
    """A bump between two valleys that is too low for two optima, but too high to be near-optimal."""
    made = popstats.simulate_population("quadratic", regimes=(0.5,), n=400, rise=0.5, noise=0.02, seed=4)
    x = made.frame["log_mcb"].to_numpy()
    valleys = np.where(
        np.abs(x) > 0.3, 0.5 * (np.abs(x) - 0.3) / 0.2, 0.08 * np.cos(x / 0.3 * np.pi / 2) ** 2
    )
    accuracy = made.original.accuracy - 1.0 - valleys
    table = made.table.assign(accuracy=accuracy + 0.01 * np.sin(np.arange(len(x)) * 1.7))
    fit = popstats.fit(
        popstats.Population.from_frame(table, original=made.original), method="exact", draws=300
    )
    evidence = _evidence(fit)
    stretches = evidence.by_label["0.50"].stretches
    assert len(stretches) == 2
    assert {np.sign(np.log(low)) for low, _ in stretches} == {-1.0, 1.0}
    both = " or ".join(f"{low:.2f} to {high:.2f}" for low, high in stretches)
    assert f"aim for {both} (optimum " in _lead(evidence)
    assert f"values from {both} are within" in evidence.verdicts.of("C3a")[0].sentence
    assert drop_figure(evidence).table.rows[0][2] == both
    drawn = near_figure(evidence).panels[0].data["near"]
    assert [row[2:] for row in drawn.rows] == list(stretches)


def test_the_lead_speaks_of_no_limit_from_a_few_recipes() -> None:
    made = popstats.simulate_population("quadratic", regimes=(0.5, 0.65, 0.8), n=60, seed=2)
    keep = np.flatnonzero((made.frame["regime"] != "0.50") | (np.arange(len(made)) % 3 == 0))
    evidence = _evidence(popstats.fit(made.select(keep), method="exact", draws=50))
    assert "points at 65 % and" in limit_sentence(evidence, reliable=True)
    few = _evidence(popstats.fit(made.select(keep), regimes=[0.5], method="exact", draws=50))
    assert limit_sentence(few, reliable=True) == ""
    assert "at 50 % (20 recipes only) of MACs removed" in limit_sentence(few)


def test_few_recipes_and_outliers_stand_before_a_best_mcb() -> None:
    made = popstats.simulate_population("quadratic", regimes=(0.5,), n=26, rise=4.0, noise=0.05, seed=7)
    fall = np.where(np.arange(len(made)) == np.argmax(made.frame["log_mcb"].to_numpy()), 6.0, 0.0)
    table = made.table.assign(accuracy=made.table["accuracy"] - fall)
    fit = popstats.fit(
        popstats.Population.from_frame(table, original=made.original), method="exact", draws=200
    )
    evidence = _evidence(fit)
    assert evidence.verdicts.outcome("C3a", "0.50") == "supported"
    assert evidence.by_label["0.50"].heavy_tailed
    assert (
        "At 50 %, the optimal mCB rests on only 26 recipes, so the prior shapes much of the curve."
        in _told(evidence)
    )
    told = _told(evidence, "warn")
    assert any("fit with noise='student' before relying" in text for text in told)
    assert sum("drop far more than the others" in text for text in _told(evidence)) == 1


def test_a_range_narrower_than_what_is_known_is_no_target(clear: Fit) -> None:
    evidence = _evidence(clear)
    row = evidence.optima["0.80"]
    assert "uncertain" not in _lead(evidence)
    loose = {r: v._replace(mcb_lower=0.5, mcb_upper=2.0) for r, v in evidence.optima.items()}
    told = _lead(_evidence(clear, optima=loose))
    assert f"{row.mcb:.2f} at 80 % (uncertain: 90 % interval 0.50 to 2.00)" in told


@pytest.mark.parametrize(
    ("truth", "told"),
    [
        ("flat", "in any regime (mCB hardly matters at 50 and 70 %)."),
        ("linear", "in any regime (the lower the better, as far as observed at 50 and 70 %)."),
    ],
)
def test_where_there_is_no_best_mcb_the_lead_says_what_does_as_well(truth: str, told: str) -> None:
    made = popstats.simulate_population(truth, regimes=(0.5, 0.7), n=400, rise=0.8)
    evidence = analyse(popstats.fit(made, method="exact"))
    lead = _lead(evidence)
    assert lead.startswith("There is no optimal FLOPs-to-parameters ratio")
    assert lead.endswith(told)
    # A cost against a lowest point that no verdict supports would be read as one.
    assert (
        near_figure(evidence).sentence
        == "No regime has a supported optimal mCB, so none of these ranges is a target."
    )
