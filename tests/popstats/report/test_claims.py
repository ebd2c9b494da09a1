"""Verdicts for one reason share a row; numbers that differ become ranges."""

import math
from dataclasses import replace

from popstats.findings import Finding
from popstats.judgement.verdicts import Thresholds, Verdict
from popstats.report.compose import merged_rows


def made(regime: str, why: Finding, *remedies: Finding) -> Verdict:
    nan, where = math.nan, (regime,)
    said = Finding("not assessable", where, {"conjecture": "C3a", "axis": "macs", "why": why})
    return Verdict(
        "C3a", regime, "not assessable", nan, nan, nan, nan, nan, (nan, nan), Thresholds(), said,
        (replace(why, regimes=where),), remedies,
    )  # fmt: skip


def few(recipes: int) -> Finding:
    return Finding("few recipes", (), {"recipes": recipes, "needed": 10})


def more(regime: str, count: int) -> Finding:
    values = {"axis": "macs", "count": count, "space": "", "retraining": ()}
    return Finding("more recipes", (regime,), values)


def test_regimes_that_cannot_be_assessed_for_one_reason_share_a_row() -> None:
    rows = [
        made("0.05", few(8), more("0.05", 200)),
        replace(made("0.35", few(8)), outcome="supported", probability=0.99),
        made("0.25", few(4), more("0.25", 340)),
        made("0.45", Finding("one mCB"), more("0.45", 200)),
    ]
    merged = merged_rows(rows)
    assert [row.place for row in merged] == ["5 and 25 %", "35 %", "45 %"]
    assert merged[0].sentence == "Cannot be assessed: 4 to 8 recipes; a curve needs at least 10."
    assert merged[0].remedy == '[[recipes]]\naxis = "macs"\nregimes = [0.05, 0.25]\ncount = 340'
    assert merged[2].sentence == rows[3].sentence
    # Nothing would help at one of the two: the lines are for the other.
    alone = merged_rows([made("0.05", few(8)), rows[2]])[0]
    assert alone.remedy.splitlines()[2] == "regimes = [0.25]"
