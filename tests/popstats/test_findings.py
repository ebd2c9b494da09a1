"""Findings merge by kind, and every kind has words."""

import re
import string
from pathlib import Path

import pytest

import popstats
from popstats import words
from popstats.findings import Estimate, Finding, Span, merge
from popstats.words import clause, sentence, sentences


def test_every_kind_has_words() -> None:
    # Kinds are written where findings are made: in a call of `Finding` or `fact`, or picked before it.
    told = {kind.removesuffix(" supported") for kind in words._WORDS}
    sources = "\n".join(path.read_text() for path in Path(popstats.__file__).parent.rglob("*.py"))
    made = set(re.findall(r'(?:Finding|fact)\(\s*"([^"]+)"', sources))
    assert made <= told
    assert all(f'"{kind}"' in sources for kind in told)


def test_templates_can_be_parsed() -> None:
    templates = [t for t in words._WORDS.values() if isinstance(t, str)]
    assert all(list(string.Formatter().parse(t)) for t in templates)


def test_regimes_with_one_kind_share_a_sentence_with_ranges() -> None:
    few = [Finding("few recipes", (r,), {"recipes": n, "needed": 10}) for r, n in (("0.50", 9), ("0.60", 4))]
    other = Finding("one mCB", ("0.70",))
    assert sentences([*few, other]) == (
        "4 to 9 recipes; a curve needs at least 10.",
        "All recipes have practically the same mCB.",
    )
    assert merge([*few, other])[0].regimes == ("0.50", "0.60")


def test_words_keep_findings_apart_and_numbers_do_not() -> None:
    one, two = (
        Finding("mixture", (r,), {"techniques": (t, "scratch"), "first": t})
        for r, t in (("0.5", "a"), ("0.6", "b"))
    )
    assert len(merge([one, two])) == 2
    assert merge([one, one]) == (one,)


def test_nested_findings_and_estimates_merge() -> None:
    found = [
        Finding(
            "not assessable",
            (r,),
            {
                "conjecture": "C3a",
                "axis": "macs",
                "why": Finding("few recipes", (), {"recipes": n, "needed": 10}),
            },
        )
        for r, n in (("0.50", 3), ("0.75", 8))
    ]
    assert sentences(found) == (
        "At 50 and 75 % MACs reduction, C3a cannot be assessed: 3 to 8 recipes; a curve needs at least 10.",
    )
    flat = [Finding("flat", (), {"height": Estimate(v, v - 0.1, v + 0.1)}) for v in (0.2, 0.4)]
    assert (
        clause(merge(flat)[0])
        == "the expected drop varies by only 0.20 to 0.40 (90 % interval 0.10 to 0.50) points"
    )


@pytest.mark.parametrize(
    ("command_line", "told"),
    [(False, "noise='student', draws=4000"), (True, "--noise student, --draws 4000")],
)
def test_arguments_are_options_on_the_command_line(command_line: bool, told: str) -> None:
    assert words._Writer(command_line).format("{noise=student}, {draws=4000}") == told


def test_empty_parts_leave_no_trace() -> None:
    writer = words._Writer(False)
    assert writer.format("a{rest:; }", rest=()) == "a"
    assert (
        writer.format("a{rest:; }", rest=Finding("one mCB")) == "a; all recipes have practically the same mCB"
    )
    assert writer.format("{r:2}", r=Span(1.0, 1.0)) == "1.00"


def test_a_low_probability_that_the_prior_alone_explains_is_said() -> None:
    values = {
        "outcome": "undecided",
        "probability": 0.01,
        "prior": 0.09,
        "negligible": "",
        "withheld": "",
        "at_least": 0.95,
        "at_most": 0.05,
    }
    assert sentence(Finding("decision", ("0.5",), values)) == (
        "Posterior probability 0.010 (prior 0.09). Unlikely (1 %, prior 9 %), but the evidence is too weak to refute it."
    )


def test_plan_lines_of_several_regimes_take_the_largest_count() -> None:
    plans = [
        Finding("more recipes", (r,), {"axis": "macs", "count": n}) for r, n in (("0.50", 200), ("0.60", 400))
    ]
    assert sentences(plans) == ('[[recipes]]\naxis = "macs"\nregimes = [0.5, 0.6]\ncount = 400',)
