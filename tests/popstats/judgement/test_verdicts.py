"""The decision rule at its edges, and what verdicts look like as a table."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popstats.errors import PopstatsError
from popstats.findings import Finding
from popstats.judgement.verdicts import CLAIMS, Thresholds, Verdict, Verdicts, decide, reset_odds

NAN = float("nan")
PROBABILITY = st.floats(0.0, 1.0)


@pytest.mark.parametrize(
    ("probability", "prior", "inside", "outcome"),
    [
        (0.95, 0.2, False, "supported"),
        (0.9499, 0.2, False, "undecided"),
        (0.95, 0.2, True, "supported"),
        (0.05, 0.5, False, "refuted"),
        (0.0501, 0.5, False, "undecided"),
        # At prior odds of 1:4 a probability of 0.05 becomes 0.17: no refutation.
        (0.05, 0.2, False, "undecided"),
        (0.012, 0.2, False, "refuted"),
        # A prior in favour of the claim never helps to refute it.
        (0.06, 0.9, False, "undecided"),
        (0.30, 0.2, True, "refuted"),
        (0.0, 0.01, False, "refuted"),
        (0.03, NAN, False, "refuted"),
        (NAN, 0.2, True, "undecided"),
    ],
)
def test_the_rule_at_its_edges(probability: float, prior: float, inside: bool, outcome: str) -> None:
    assert decide(probability, prior, inside) == outcome


@given(PROBABILITY, PROBABILITY, st.booleans())
def test_a_more_probable_claim_never_gets_a_worse_outcome(
    probability: float, prior: float, inside: bool
) -> None:
    order = ["refuted", "undecided", "supported"]
    more = min(1.0, probability + 0.1)
    assert order.index(decide(more, prior, inside)) >= order.index(decide(probability, prior, inside))


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_resetting_odds_is_bayes_rule(probability: float, prior: float) -> None:
    reset = reset_odds(probability, prior)
    odds = (reset / (1 - reset)) * (prior / (1 - prior))
    assert odds / (1 + odds) == pytest.approx(probability, rel=1e-6)


def test_thresholds_can_be_changed_and_are_checked() -> None:
    assert Thresholds.of({"rise": 0.3}).rise == 0.3
    with pytest.raises(PopstatsError, match="legal names: supported, refuted, rise"):
        Thresholds.of({"raise": 0.3})
    with pytest.raises(PopstatsError, match="must be positive"):
        Thresholds.of({"rise": 0.0})
    with pytest.raises(PopstatsError, match="refuted < supported"):
        Thresholds.of({"supported": 0.01})


def _verdict(conjecture: str = "C3a", regime: str = "0.50", sentence: str = "<b>x</b>") -> Verdict:
    said, why = (Finding("text", (regime,), {"text": text}) for text in (sentence, "why"))
    return Verdict(
        conjecture, regime, "supported", 0.97, 0.2, 1.0, 0.9, NAN, (0.5, 2.0), Thresholds(), said, (why,)
    )


def _open(regime: str, why: Finding) -> Verdict:
    values = {"conjecture": "C3a", "axis": "macs", "why": why}
    found = Finding("not assessable", (regime,), values)
    return replace(_verdict(regime=regime), outcome="not assessable", finding=found)


def test_verdicts_as_a_frame() -> None:
    verdicts = Verdicts([_verdict(), _verdict("M1", "all")])
    assert list(verdicts.frame.columns) == [
        "conjecture", "regime", "outcome", "probability", "estimate", "lower", "upper", "reason"
    ]  # fmt: skip
    assert verdicts.frame["reason"].tolist() == ["Why."] * 2
    assert len(verdicts.of("M1")) == 1
    assert verdicts.of("M1", "all")[0].regime == "all"
    assert (verdicts.outcome("C3a", "0.50"), verdicts.outcome("C3a", "0.75")) == ("supported", "")
    assert verdicts.regimes_where("M1", "supported") == ["all"]
    assert Verdicts([]).frame.empty


def test_the_regimes_centre_is_a_number() -> None:
    assert [_verdict(regime=r).target for r in ("0.50", "0.875")] == [0.5, 0.875]
    assert np.isnan(_verdict("C4", "all").target)


def test_the_first_line_counts_the_outcomes() -> None:
    open_ = replace(_verdict("M1"), outcome="undecided")
    shown = repr(Verdicts([_verdict(), _verdict("C1"), open_])).splitlines()
    assert shown[0] == "<Verdicts: 3: 2 supported, 0 refuted, 1 undecided, 0 not assessable>"
    assert len(shown) == 4


def test_what_cannot_be_assessed_for_one_reason_is_one_row() -> None:
    few = [
        _open(r, Finding("few recipes", (), {"recipes": n, "needed": 10}))
        for r, n in (("0.20", 3), ("0.35", 9))
    ]
    other = _open("0.50", Finding("one mCB"))
    shown = repr(Verdicts([*few, other, _verdict(regime="0.80")])).splitlines()
    assert len(shown) == 4
    assert "0.20, 0.35" in shown[2]
    assert shown[2].endswith("3 to 9 recipes; a curve needs at least 10.")
    assert Verdicts([*few, other])._repr_html_().count("<tr><th scope") == 2


def test_verdicts_display_escapes_what_it_shows() -> None:
    shown = Verdicts([_verdict(sentence="<script>alert(1)</script>")])._repr_html_()
    assert "<script>" not in shown
    assert "supported" in shown


def test_records_are_plain_json() -> None:
    records = json.loads(json.dumps(Verdicts([_verdict()]).to_records(), allow_nan=False))
    assert records[0]["target"] == 0.5
    assert records[0]["upper"] is None
    assert records[0]["observed_range"] == [0.5, 2.0]


def test_every_conjecture_has_a_claim() -> None:
    assert list(CLAIMS) == ["C1", "C2", "C3a", "C3b", "C3c", "C3d", "C4", "S1", "R1", "M1"]
    assert all(np.char.isupper(claim[0]) or claim.startswith("mCB") for claim in CLAIMS.values())
