import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.errors import PopstatsError
from popstats.figures.charts import draw
from popstats.figures.content import FORMAT, ReportContent, Table
from popstats.figures.curve_figures import MOST_POINTS, drop_figure
from popstats.figures.space_figures import even_sentence
from popstats.inference.draws import INTERVAL_MASS
from popstats.inference.model import Settings
from popstats.judgement.judge import analyse
from popstats.judgement.verdicts import Verdicts
from popstats.report.compose import comparison_content, facts, report_content
from popstats.report.sections import method_words, provenance_section

GOLDEN = Path(__file__).with_name("golden_content.json")
#: Parts that change with the machine, the installed versions, or the calibration that is shipped.
VOLATILE = ("provenance", "calibration")


def test_the_content_is_json_without_loss(content):
    told = json.loads(content.to_json())
    assert told["format"] == FORMAT
    assert [c["conjecture"] for c in told["claims"]] == [c.conjecture for c in content.claims]
    panel = told["figures"][0]["panels"][0]["data"]["curve"]
    assert (
        Table(tuple(panel["columns"]), tuple(map(tuple, panel["rows"])))
        == content.figures[0].panels[0].data["curve"]
    )


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
        points = pd.DataFrame(panel.data["points"].records)
        assert len(points) == min(MOST_POINTS, regime.n_recipes)
        assert points["winner"].sum() == np.ceil(0.05 * regime.n_recipes)
        assert points.loc[points["winner"], "drop"].max() <= points.loc[~points["winner"], "drop"].min()
        assert {"widths", "STD"} <= set(points)


def test_winners_are_drawn_no_more_often_than_others():
    population = popstats.simulate_population(regimes=[0.6], n=3000, seed=1)
    evidence = analyse(popstats.fit(population, method="exact", draws=50), Verdicts([]))
    points = pd.DataFrame(drop_figure(evidence).panels[0].data["points"].records)
    assert len(points) == MOST_POINTS
    assert 0.01 < points["winner"].mean() < 0.1


def test_the_numbers_of_the_page_are_those_of_the_fit(fitted, content):
    optima = fitted.optima()
    ranges = pd.DataFrame(content.figures[1].panels[0].data["ranges"].records)
    np.testing.assert_allclose(ranges["near_lower"], optima["near_lower"], rtol=1e-5)
    np.testing.assert_allclose(ranges["mcb"], optima["mcb"], rtol=1e-5)
    limits = pd.DataFrame(content.figures[3].panels[0].data["limits"].records)
    np.testing.assert_allclose(limits["upper"], optima["limit_upper"], rtol=1e-5)


def test_verdicts_are_repeated_word_for_word(fitted, content):
    verdicts = popstats.judge(fitted)
    told = [(c.conjecture, r.regime, r.outcome, r.sentence) for c in content.claims for r in c.rows]
    assert sorted(told) == sorted((v.conjecture, v.regime, v.outcome, v.sentence) for v in verdicts)
    assert content.claims[0].conjecture == "C3a"


def test_a_supported_optimum_of_an_additive_truth_is_credited_to_the_widths(content):
    assert (
        "There is an optimal FLOPs-to-parameters ratio (mCB; 1 is the original's)" in content.advice.sentence
    )
    assert any("any additive effect of the widths would produce" in s for s in content.advice.paragraphs)


def test_networks_predicted_from_the_others_are_shown_with_their_numbers(fitted, content):
    figure = next(f for f in content.figures if f.key == "predicted")
    assert figure.folded
    checks = fitted.predictive_checks
    for panel, row in zip(figure.panels, checks.frame.itertuples(), strict=True):
        drawn = pd.DataFrame(panel.data["places"].records)
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
    assert told[0].startswith("At 40, 60 and 80 %, more recipes lie far above the curve")
    assert re.search(r"\(skewness 0\.\d to 1\.\d\)", told[0])


def test_well_behaved_data_raise_no_alert_about_the_model():
    population = popstats.simulate_population("quadratic", regimes=(0.5, 0.8), n=150, seed=2)
    told = report_content(popstats.fit(population, method="exact", draws=200, random_seed=3))
    diagnostics = next(s for s in told.sections if s.key == "diagnostics")
    assert diagnostics.paragraphs[1].startswith("The data look like what the model expects.")
    assert not any("curve" in a.text for a in told.alerts)
    assert "is sensitive to the priors" in diagnostics.paragraphs[2]


def test_the_envelope_of_the_best_networks_stands_beside_the_curve(fitted, content):
    section = next(s for s in content.sections if s.key == "companions")
    table = pd.DataFrame(section.tables[0][1].records).set_index("removed")
    assert list(table["envelope of the best recipes"].str.contains("best 8 %")) == [True] * 3
    assert "quantile regression" in section.paragraphs[0]


def test_the_way_to_make_it_again_names_the_noise(fitted):
    student = replace(fitted, settings=replace(fitted.settings, method="hmc", noise="student"))
    section = provenance_section(analyse(student, Verdicts([])), None, "mine")
    command, code = (text for _, text in section.code)
    assert "--noise student --seed" in command
    assert "noise='student', random_seed" in code


def test_prior_sensitivities_are_told_as_measured(fitted, content):
    diagnostics = next(s for s in content.sections if s.key == "diagnostics")
    table = pd.DataFrame(dict(diagnostics.tables)["Prior sensitivity of each result"].records)
    found = fitted.prior_sensitivity.frame
    assert [float(v) for v in table["sensitivity to the priors"]] == list(found["prior"].round(2))
    assert fitted.prior_sensitivity.sentence in diagnostics.paragraphs[2]


def test_four_rows_make_a_report_that_says_why_there_is_nothing(fitted):
    few = popstats.fit(fitted.population.select(np.arange(4)), method="exact")
    told = report_content(few)
    assert "2 recipes; a curve needs at least 10" in told.advice.sentence
    assert "count = 200" in told.advice.code[0][1]
    assert all(row.outcome == "not assessable" for claim in told.claims for row in claim.rows)
    assert not [f for f in told.figures if f.key in ("drop", "near", "limits")]


def test_without_verdicts_the_pictures_remain(fitted):
    told = report_content(fitted, Verdicts([]))
    assert told.claims == ()
    assert "was not judged" in " ".join([told.advice.sentence, *told.advice.paragraphs])
    assert told.figures[0].key == "drop"


def test_a_rejected_fit_says_so_first(fitted):
    edge = np.ones_like(fitted.draws.edge_probability)
    told = report_content(replace(fitted, draws=replace(fitted.draws, edge_probability=edge)))
    assert told.advice.sentence.startswith(
        "Do not use these results: the grid does not resolve the posterior"
    )
    assert "Fit again with method='nuts'" in told.advice.sentence
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
    told = comparison_content(fits)
    table = {(row[0], row[1]): row[2] for row in told.figures[1].table.rows}
    for regime in ("50 %", "80 %"):
        ratio = float(table[regime, "Optimal mCB"].split(" ")[0])
        assert ratio == pytest.approx(np.exp(0.3), rel=0.1)
    edfs = told.figures[2]
    assert edfs.key == "edfs"
    assert [row[2] for row in edfs.table.rows] == ["300 and 300"] * 2
    assert "equal cost" in edfs.caption
    first, second = (f.population.frame.groupby("regime")["accuracy_drop"].mean() for f in fits)
    more = [float(row[3].split(" ")[0].replace("−", "-")) for row in edfs.table.rows]
    assert more == pytest.approx((second - first).tolist(), abs=0.02)
    overlaid = told.figures[0]
    assert told.order[:2] == ("curves", "verdicts")
    for panel in overlaid.panels:
        assert set(pd.DataFrame(panel.data["curves"].records)["space"]) == {
            f"simulated-quadratic ({i})" for i in (1, 2)
        }
        draw(panel)
    assert {row.population for claim in told.claims for row in claim.rows} == {
        "simulated-quadratic (1)",
        "simulated-quadratic (2)",
    }


def test_a_family_of_originals_opens_with_optimum_and_limit_by_size():
    fits = []
    for seed, depth in enumerate((8, 14, 20)):
        made = popstats.simulate_population("quadratic", regimes=(0.5, 0.8), n=100, rise=1.0, seed=seed)
        plan = {"plan": {"network": {"name": f"cifar_resnet{depth}"}}}
        fits.append(
            popstats.fit(replace(made, name=f"resnet{depth}", metadata=made.metadata | plan), draws=200)
        )
    told = comparison_content(fits)
    assert told.order[:2] == ("family", "curves")
    figure = told.figures[0]
    assert [panel.title for panel in figure.panels] == ["Optimal mCB by depth", "Limit by depth"]
    for panel in figure.panels:
        assert set(pd.DataFrame(panel.data["places"].records)["original"]) == {
            "resnet8",
            "resnet14",
            "resnet20",
        }
        draw(panel)
    assert len(figure.table.rows) == 8
    assert "doubling the original's depth multiplies the optimal mCB by" in told.advice.paragraphs[0]
    differences = next(f for f in told.figures if f.key == "differences")
    assert [panel.title for panel in differences.panels] == [
        "Optimal mCB",
        "Near-optimal lower end",
        "Near-optimal upper end",
        "Limit",
    ]


def test_fits_on_different_axes_cannot_be_compared(fitted):
    other = popstats.fit(fitted.population, regime_axis="params", method="exact", draws=50)
    with pytest.raises(PopstatsError, match="on one regime axis, got 2 on: macs, params"):
        comparison_content([fitted, other])


def test_the_widths_are_credited_only_where_an_optimum_is_supported(fitted):
    given = [v for v in popstats.judge(fitted) if v.conjecture in ("C3a", "M1")]

    def told(c3a: dict[str, str], m1: dict[str, str]) -> str:
        outcomes = {"C3a": c3a, "M1": m1}
        changed = [replace(v, outcome=outcomes[v.conjecture].get(v.regime, "undecided")) for v in given]
        return " ".join(report_content(fitted, Verdicts(changed)).advice.paragraphs)

    alike = told({"0.60": "supported", "0.80": "supported"}, {"0.40": "refuted", "0.80": "refuted"})
    assert "mCB adds no predictive power at 80 %" in alike
    assert "would produce" in alike
    assert "would produce" not in told({"0.60": "supported"}, {"0.40": "refuted"})
    assert "mCB explains something that the layer widths do not at 60 %" in told(
        {"0.60": "supported"}, {"0.60": "supported"}
    )
    assert "mCB adds no predictive power at 40 %" in told({}, {"0.40": "refuted"})


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
    assert even_sentence(SimpleNamespace(verdicts=Verdicts(found))) == (
        "Even pruning pays at 50 and 80 %: at equal MACs, recipes of low STD (layers pruned alike) drop 0.26 to 1.50 points "
        "less on average than those of high STD, but more at 90 %."
    )
    assert even_sentence(SimpleNamespace(verdicts=Verdicts(found[1:2]))) == ""


@pytest.mark.parametrize(
    ("settings", "told", "untrue"),
    [
        (
            {"method": "exact"},
            ("normal noise", "on a grid", "partially pooled", "closed form"),
            ("NUTS", "Student"),
        ),
        (
            {"method": "nuts"},
            ("normal noise", "NUTS", "partially pooled", "drawn exactly"),
            ("grid", "Hamiltonian"),
        ),
        (
            {"method": "hmc", "noise": "student"},
            (
                "Student-t noise",
                "Hamiltonian Monte Carlo",
                "on every recipe",
                "fixed at their posterior medians",
            ),
            ("drawn exactly", "closed form", "NUTS"),
        ),
        (
            {"method": "hmc", "noise": "exgaussian"},
            (
                "normal plus exponential noise",
                "mean of the exponential",
                "Hamiltonian Monte Carlo",
                "on every recipe",
            ),
            ("drawn exactly", "closed form", "Student", "NUTS"),
        ),
        (
            {"method": "exact", "curve": "quadratic"},
            ("a quadratic in log mCB", "exact independent draws"),
            ("NUTS", "grid"),
        ),
        (
            {"method": "exact", "curve": "asymmetric"},
            ("two half-parabolas", "exact independent draws"),
            ("NUTS", "grid"),
        ),
    ],
)
def test_the_method_is_stated_as_it_was(settings, told, untrue):
    words = method_words(Settings(**settings))
    assert [w for w in told if w not in words] == []
    assert [w for w in untrue if w in words] == []


def test_a_run_that_is_not_finished_says_how_far_it_is(fitted):
    running = replace(fitted.population, metadata={"run": {"finished": 720, "planned": 1_000}})
    told = facts(analyse(replace(fitted, population=running), Verdicts([])))
    assert told[0] == ("trainings of 1,000 planned, so far", "720")
    assert facts(analyse(fitted, Verdicts([])))[0] == ("trainings", "720")
