"""The decision rule at its edges, and what verdicts look like as a table."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popstats.errors import PopstatsError
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
    return Verdict(
        conjecture, regime, "supported", 0.97, 0.2, 1.0, 0.9, NAN, "mCB", (0.5, 2.0), Thresholds(), "flat", "why", sentence
    )  # fmt: skip


def test_verdicts_as_a_frame() -> None:
    verdicts = Verdicts([_verdict(), _verdict("M1", "all")])
    assert list(verdicts.frame.columns[:7]) == [
        "conjecture", "regime", "outcome", "probability", "estimate", "lower", "upper"
    ]  # fmt: skip
    assert {"reason", "unit", "sentence", "remedy"} <= set(verdicts.frame.columns)
    assert len(verdicts.of("M1")) == 1
    assert verdicts.of("M1", "all")[0].regime == "all"
    assert Verdicts([]).frame.empty


def test_the_regimes_centre_is_a_number() -> None:
    frame = Verdicts([_verdict(), _verdict(regime="0.875"), _verdict("C4", "all")]).frame
    assert frame["target"].tolist()[:2] == [0.5, 0.875]
    assert np.isnan(frame["target"].iloc[2])
    assert frame["target"].dtype == float
    assert Verdicts([]).frame["target"].dtype == float


def test_the_first_line_counts_the_outcomes() -> None:
    open_ = replace(_verdict("M1"), outcome="undecided")
    shown = repr(Verdicts([_verdict(), _verdict("C1"), open_])).splitlines()
    assert shown[0] == "<Verdicts: 3: 2 supported, 0 refuted, 1 undecided, 0 not assessable>"
    assert len(shown) == 4


def test_what_cannot_be_assessed_for_one_reason_is_one_row() -> None:
    few = [replace(_verdict(regime=r), outcome="not assessable", reason="too few") for r in ("0.20", "0.35")]
    other = replace(few[0], regime="0.50", reason="no widths")
    shown = repr(Verdicts([*few, other, _verdict(regime="0.80")])).splitlines()
    assert len(shown) == 4
    assert "0.20, 0.35" in shown[1]
    assert shown[1].endswith("too few")
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
