import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import popstats
from popstats.errors import PopstatsError
from popstats.figures.content import FORMAT, ReportContent, Table
from popstats.figures.curve_figures import MOST_POINTS
from popstats.figures.space_figures import even_sentence
from popstats.inference.draws import INTERVAL_MASS
from popstats.judgement.evidence import Evidence
from popstats.judgement.verdicts import Verdicts
from popstats.planning.error_rates import Setting, calibrate
from popstats.report.comparison_page import comparison_content
from popstats.report.compose import report_content
from popstats.report.error_tables import calibration_section, shipped
from popstats.report.sections import provenance_section
from popstats.words import percent

GOLDEN = Path(__file__).with_name("golden_content.json")
#: Parts that change with the machine, the installed versions, or the calibration that is shipped.
VOLATILE = ("provenance", "calibration")


def test_the_content_survives_json_unchanged(content, tmp_path):
    path = tmp_path / "report.html.json"
    path.write_text(content.to_json(), encoding="utf-8")
    assert ReportContent.load(path) == content


def test_content_of_another_version_is_refused(content):
    with pytest.raises(PopstatsError, match=f"expected format {FORMAT}, got 0"):
        ReportContent.from_json(replace(content, format=0).to_json())


def test_tables_hold_no_nan_and_keep_their_columns():
    table = Table.of(popstats.simulate_population(n=20).frame[["mcb", "accuracy_drop"]].assign(empty=np.nan))
    assert table.columns == ("mcb", "accuracy_drop", "empty")
    assert all(row[2] is None for row in table.rows)


def test_every_figure_carries_n_mass_sentence_caption_and_table(content):
    keys = [figure.key for figure in content.figures]
    assert keys == ["drop", "near", "explained", "limits", "edfs", "elasticities", "predicted"]
    for figure in content.figures:
        assert figure.n > 0
        assert figure.interval_mass == INTERVAL_MASS
        assert figure.sentence.endswith(".")
        assert "90 %" in figure.caption
        assert figure.table.rows
        assert all(panel.alt for panel in figure.panels)


def test_panels_show_a_bounded_number_of_networks_and_mark_the_winners(fitted, content):
    for regime, panel in zip(fitted.fitted, content.figures[0].panels, strict=True):
        points = panel.data["points"].frame
        assert len(points) <= MOST_POINTS
        assert points["winner"].sum() == np.ceil(0.05 * regime.n_recipes)
        assert points.loc[points["winner"], "drop"].max() <= points.loc[~points["winner"], "drop"].min()


def test_the_numbers_of_the_page_are_those_of_the_fit(fitted, content):
    optima = fitted.optima()
    ranges = content.figures[1].panels[0].data["ranges"].frame
    np.testing.assert_allclose(ranges["near_lower"], optima["near_lower"], rtol=1e-5)
    np.testing.assert_allclose(ranges["mcb"], optima["mcb"], rtol=1e-5)
    limits = content.figures[3].panels[0].data["limits"].frame
    np.testing.assert_allclose(limits["upper"], optima["limit_upper"], rtol=1e-5)


def test_verdicts_are_repeated_word_for_word(fitted, content):
    verdicts = popstats.judge(fitted)
    told = [(c.conjecture, r.regime, r.outcome, r.sentence) for c in content.claims for r in c.rows]
    assert sorted(told) == sorted((v.conjecture, v.regime, v.outcome, v.sentence) for v in verdicts)
    assert content.claims[0].conjecture == "C3a"


def test_a_supported_optimum_of_an_additive_truth_is_credited_to_the_widths(content):
    assert content.answer[0].startswith(
        "There is a best ratio of MACs to parameters (mCB; 1 is the original network's)"
    )
    assert any("any additive effect of the layers' widths would produce" in s for s in content.answer)


def test_networks_predicted_from_the_others_are_shown_with_their_numbers(fitted, content):
    figure = content.figures[-1]
    checks = fitted.predictive_checks
    for panel, row in zip(figure.panels, checks.frame.itertuples(), strict=True):
        drawn = panel.data["places"].frame
        assert drawn["difference"].abs().max() == pytest.approx(row.pit_distance, abs=0.02)
        assert drawn["difference"].iloc[-1] == 0
        inside = bool(row.pit_distance <= drawn["upper"].iloc[0])
        assert panel.note.startswith("stays inside" if inside else "leaves")
        # A curve that touches the 90 % band has p = 0.10.
        assert inside == (row.pit_p >= 1 - INTERVAL_MASS)


def test_misfits_of_regimes_with_one_cause_share_an_alert(fitted, content):
    told = [a.text for a in content.alerts if "far above the curve" in a.text]
    assert len(fitted.predictive_checks.alerts) == 3
    assert len(told) == 1
    assert told[0].startswith("At 40, 60 and 80 % removed: more recipes far above the curve")
    assert re.search(r"\(skewness 0\.\d to 1\.\d\)", told[0])


def test_well_behaved_data_raise_no_alert_about_the_model():
    population = popstats.simulate_population("quadratic", regimes=(0.5, 0.8), n=150, seed=2)
    told = report_content(popstats.fit(population, method="exact", draws=200, seed=3))
    diagnostics = next(s for s in told.sections if s.key == "diagnostics")
    assert diagnostics.paragraphs[1].startswith("The data look like what the model expects.")
    assert not any("curve" in a.text for a in told.alerts)
    assert "leans on the priors" in diagnostics.paragraphs[2]


def test_the_envelope_of_the_best_networks_stands_beside_the_curve(fitted, content):
    section = next(s for s in content.sections if s.key == "companions")
    table = section.tables[0][1].frame.set_index("removed")
    assert list(table["envelope of the best recipes"].str.contains("best 8 %")) == [True] * 3
    assert "quantile regression" in section.paragraphs[0]


def test_the_way_to_make_it_again_names_the_noise(fitted):
    student = replace(fitted, settings=replace(fitted.settings, method="nuts", noise="student"))
    section = provenance_section(Evidence(student, Verdicts([])), None)
    command, code = (text for _, text in section.code)
    assert "--noise student --method nuts" in command
    assert 'noise="student", method="nuts"' in code


def test_prior_sensitivities_are_told_as_measured(fitted, content):
    diagnostics = next(s for s in content.sections if s.key == "diagnostics")
    table = dict(diagnostics.tables)["How far each result leans on the priors"].frame
    found = fitted.prior_sensitivity.frame
    assert [float(v) for v in table["sensitivity to the priors"]] == list(found["prior"].round(2))
    assert fitted.prior_sensitivity.sentence in diagnostics.paragraphs[2]


def test_four_rows_make_a_report_that_says_why_there_is_nothing(fitted):
    few = popstats.fit(fitted.population.select(np.arange(4)), method="exact")
    told = report_content(few)
    assert told.answer[0].startswith("No regime of this population has enough recipes")
    assert all(row.outcome == "not assessable" for claim in told.claims for row in claim.rows)
    assert not [f for f in told.figures if f.key in ("drop", "near", "limits")]


def test_without_verdicts_the_pictures_remain(fitted):
    told = report_content(fitted, Verdicts([]))
    assert told.claims == ()
    assert "was not judged" in told.answer[0]
    assert told.figures[0].key == "drop"


def test_a_rejected_fit_says_so_first(fitted):
    edge = np.ones_like(fitted.draws.edge_probability)
    told = report_content(replace(fitted, draws=replace(fitted.draws, edge_probability=edge)))
    assert told.answer[0].startswith("The fit's own diagnostics reject it")
    assert "What to do: fit again with method='nuts'" in told.answer[1]
    assert told.claims[0].rows[0].remedy[1:] in told.answer[1]
    assert told.alerts[0].level == "reject"
    assert {row.outcome for row in told.claims[0].rows} == {"not assessable"}


def test_a_centre_outside_its_networks_is_called_extrapolated(fitted):
    moved = popstats.fit(fitted.population, regimes={0.44: 0.05, 0.6: 0.05}, method="exact", draws=100)
    told = report_content(moved)
    assert [a.text for a in told.alerts if "extrapolated" in a.text and "44 %" in a.text]
    assert told.figures[3].table.rows[0][-1] == "extrapolated"


def test_the_content_is_what_it_was(content):
    """Compare with the stored content: words exactly, numbers to a few percent.

    After an intended change: delete the file, run this test once, read the difference, commit the new file.
    """
    found = _comparable(content)
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert _differences(json.loads(GOLDEN.read_text(encoding="utf-8")), found, "content") == []


def _comparable(content: ReportContent) -> dict[str, Any]:
    value = json.loads(content.to_json())
    value["sections"] = [s for s in value["sections"] if s["key"] not in VOLATILE]
    for figure in value["figures"]:
        for panel in figure["panels"]:
            panel["data"] = {
                name: {"columns": t["columns"], "rows": t["rows"][:2]} for name, t in panel["data"].items()
            }
    return value


def _differences(old: Any, new: Any, where: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return [d for key in old for d in _differences(old[key], new[key], f"{where}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            d
            for i, pair in enumerate(zip(old, new, strict=True))
            for d in _differences(*pair, f"{where}[{i}]")
        ]
    if isinstance(old, str) and isinstance(new, str):
        same = re.sub(r"[\d.,]+", "#", old) == re.sub(r"[\d.,]+", "#", new)
        return [] if same else [f"{where}: {old!r} became {new!r}"]
    if isinstance(old, int | float) and isinstance(new, int | float):
        return [] if old == pytest.approx(new, rel=0.05, abs=0.02) else [f"{where}: {old} became {new}"]
    return [] if old == new else [f"{where}: {old!r} became {new!r}"]


def test_a_comparison_finds_the_difference_that_was_simulated():
    fits = [
        popstats.fit(
            popstats.simulate_population("quadratic", regimes=(0.5, 0.8), n=300, centre=centre, seed=seed),
            method="exact",
            draws=200,
        )
        for centre, seed in ((0.0, 1), (0.3, 2))
    ]
    told = comparison_content(fits, created="now")
    table = {(row[0], row[1]): row[2] for row in told.figures[1].table.rows}
    for regime in ("50 %", "80 %"):
        ratio = float(table[regime, "Best mCB"].split(" ")[0])
        assert ratio == pytest.approx(np.exp(0.3), rel=0.1)
    edfs = told.figures[2]
    assert edfs.key == "edfs"
    assert [row[2] for row in edfs.table.rows] == ["300 and 300"] * 2
    assert "equal cost" in edfs.caption
    assert {row.population for claim in told.claims for row in claim.rows} == {
        "simulated-quadratic (1)",
        "simulated-quadratic (2)",
    }
    assert ReportContent.from_json(told.to_json()) == told


def test_fits_on_different_axes_cannot_be_compared(fitted):
    other = popstats.fit(fitted.population, regime_axis="params", method="exact", draws=50)
    with pytest.raises(PopstatsError, match="on one regime axis, got 2 on: macs, params"):
        comparison_content([fitted, other])


def test_the_rules_error_rates_are_read_from_a_calibration(tmp_path):
    chosen = (Setting("flat", 30), Setting("quadratic", 30), Setting("quadratic", 30, rise=0.2))
    found = calibrate(chosen, repetitions=3)
    content = json.loads(found.to_json(tmp_path / "calibration.json").read_text())
    section = calibration_section(content)
    assert section is not None
    row = dict(zip(section.tables[0][1].columns, section.tables[0][1].rows[0], strict=True))
    shares = found.table.set_index("rise")["supported"]
    assert row["recipes a regime"] == "30"
    assert row["found: a rise of 0.2 points"] == percent(float(shares[0.2]), 0)
    assert "3 kinds of simulated truth, size and noise, 3 regimes each" in section.tables[0][0]
    assert calibration_section(None) is None


def test_the_widths_are_credited_only_where_an_optimum_is_supported(fitted):
    given = [v for v in popstats.judge(fitted) if v.conjecture in ("C3a", "M1")]

    def told(c3a: dict[str, str], m1: dict[str, str]) -> str:
        outcomes = {"C3a": c3a, "M1": m1}
        changed = [replace(v, outcome=outcomes[v.conjecture].get(v.regime, "undecided")) for v in given]
        return " ".join(report_content(fitted, Verdicts(changed)).answer)

    alike = told({"0.60": "supported", "0.80": "supported"}, {"0.40": "refuted", "0.80": "refuted"})
    assert "would produce, at 80 %:" in alike
    assert "would produce" not in told({"0.60": "supported"}, {"0.40": "refuted"})
    assert "At 60 % the best mCB is more than an additive effect" in told(
        {"0.60": "supported"}, {"0.60": "supported"}
    )
    assert "predicts the drop no better" in told({}, {"0.40": "refuted"})


def test_the_ranges_of_the_lead_are_priced_at_their_own_height(fitted):
    wide = popstats.judge(fitted, near=0.08)
    changed = [replace(v, outcome="supported") if v.conjecture == "C3a" else v for v in wide]
    lead = " ".join(report_content(fitted, Verdicts(changed)).answer)
    assert "about 0.08 points or less" in lead


def test_the_rules_are_also_held_against_a_real_table(fitted):
    real = shipped("plasmode")
    assert real is not None
    section = calibration_section(shipped("calibration"), real, Evidence(fitted))
    assert section is not None
    assert section.folded
    caption, table = section.tables[1]
    assert f"{real['trainings']:,} trainings" in caption
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["recipes a regime"] for row in rows] == ["30", "100", "500", "3,000"]
    # Subsamples of more than half of a regime's recipes cover too much to be shown.
    assert rows[-1]["near-optimal ends covered (90 %)"] == "–"
    alike = [r for r in real["rows"] if r["n"] == 500 and r["whole"] == "supported"]
    ends = [percent(f(r["supported"] for r in alike), 0) for f in (min, max)]
    assert rows[2]["“supported” where the whole is"] == " to ".join(ends)
    assert "Regimes here hold 119 to 120 recipes" in section.paragraphs[0]
    assert "100 recipes find" in section.paragraphs[0]


def test_the_lead_says_where_even_pruning_pays_and_where_it_does_not():
    def space(regime, outcome, estimate, upper):
        return SimpleNamespace(
            conjecture="S1", regime=regime, outcome=outcome, estimate=estimate, upper=upper
        )

    found = [
        space("0.50", "supported", 0.262, 0.4),
        space("0.70", "undecided", 0.1, 0.4),
        space("0.80", "supported", 1.5, 2.0),
        space("0.90", "refuted", -0.3, -0.1),
        space("all", "supported", 9.0, 9.9),
    ]
    assert even_sentence(SimpleNamespace(verdicts=found)) == (
        "Even pruning pays at 50 and 80 %: at equal MACs recipes of low STD (layers pruned alike) drop 0.26 to 1.50 points "
        "less in the mean than those of high STD, but more at 90 %."
    )
    assert even_sentence(SimpleNamespace(verdicts=found[1:2])) == ""
