"""What a terminal shows: wrapped where it is one, reasons folded, nothing lost."""

import math

import pytest

import popstats
from popstats.findings import Finding
from popstats.judgement.verdicts import Thresholds, Verdict, Verdicts
from popstats.report.compose import merged_rows
from popstats.report.terminal import _lines, fit_text, optimum_outcomes, verdicts_text

WIDTH = 80


@pytest.fixture(scope="module")
def fit():
    population = popstats.simulate_population("quadratic", regimes=(0.5, 0.8), n=150, rise=0.8, seed=4)
    return popstats.fit(population, method="exact")


def _reason(regime: str, text: str) -> Finding:
    """ "20 recipes; ..." as the finding that it comes from; other words as they are."""
    number, _, rest = text.partition(" recipes;")
    values = {"recipes": int(number), "needed": 60} if rest else {"text": text}
    return Finding("few for halves" if rest else "text", (regime,), values)


def made(
    regime: str, outcome: str, reason: str = "why", probability: float = 0.5, prior: float = 0.2
) -> Verdict:
    nan = math.nan
    if outcome == "not assessable":
        probability = prior = nan
    return Verdict(
        "C3a", regime, outcome, probability, prior, nan, nan, nan, (nan, nan), Thresholds(),
        Finding("text", (regime,), {"text": "A sentence."}), (_reason(regime, reason),),
    )  # type: ignore[arg-type]  # fmt: skip


def told(verdicts: list[Verdict]) -> list[str]:
    return _lines(merged_rows(verdicts), Thresholds())


def test_outcomes_come_in_order_and_reasons_are_folded():
    lines = told([
        made("0.20", "not assessable", "20 recipes; 60 are needed"),
        made("0.35", "undecided"),
        made("0.50", "refuted"),
        made("0.65", "not assessable", "45 recipes; 60 are needed"),
        made("0.80", "supported"),
        made("0.92", "not assessable", "no widths"),
    ])  # fmt: skip
    assert lines == [
        "supported, 80 %: A sentence.",
        "refuted, 50 %: A sentence.",
        "undecided, 35 %: posterior probability 0.50 (prior 0.20)",
        "not assessable, 20 and 65 %: 20 to 45 recipes; two halves with winners in each need 60.",
        "not assessable, 92 %: No widths.",
    ]


def test_a_low_probability_that_does_not_refute_says_why():
    assert (
        "the evidence is too weak to refute it"
        in told([made("0.5", "undecided", probability=0.04, prior=0.05)])[0]
    )
    assert told([made("0.5", "undecided", probability=0.3, prior=math.nan)]) == [
        "undecided, 50 %: posterior probability 0.30"
    ]


def test_every_verdict_of_a_fit_is_on_the_terminal_within_its_width(fit):
    verdicts = popstats.judge(fit)
    wide, narrow = verdicts_text(fit, verdicts), verdicts_text(fit, verdicts, WIDTH)
    assert all(v.sentence in wide for v in verdicts if v.outcome in ("supported", "refuted"))
    # A command to paste stays on one line.
    assert max(len(line) for line in narrow.splitlines() if "python -m" not in line) <= WIDTH
    assert narrow.split() == wide.split()


def test_the_optima_fit_a_terminal_and_name_the_verdict(fit):
    outcomes = optimum_outcomes(fit)
    judged = popstats.judge(fit).of("C3a")
    assert outcomes == {v.regime: v.outcome for v in judged}
    text = fit_text(fit, checked=True, width=WIDTH)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.count("supported") >= list(outcomes.values()).count("supported")


def test_a_companion_gets_no_verdict(fit):
    quadratic = popstats.fit(fit.population, curve="quadratic")
    assert set(optimum_outcomes(quadratic).values()) == {""}
    assert "C3a" not in fit_text(quadratic, checked=True)


def test_no_verdicts_are_said_to_be_none(fit):
    assert "Fit of" in verdicts_text(fit, Verdicts([]))


def test_a_number_keeps_its_percent_sign(fit):
    verdicts = popstats.judge(fit)
    for width in range(70, 90):
        lines = [line.strip() for line in verdicts_text(fit, verdicts, width).splitlines()]
        assert not [line for line in lines if line.startswith("%")]
        assert "\u00a0" not in "".join(lines)
