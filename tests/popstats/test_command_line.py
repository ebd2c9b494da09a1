import json
from dataclasses import replace

import numpy as np
import pytest

import popstats
from popstats.__main__ import BAD_INPUT, DONE, REJECTED, main


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "population.parquet"
    assert main(["simulate", "--n", "60", "--regimes", "0.5,0.8", "-o", str(path)]) == DONE
    return path


@pytest.fixture(scope="module")
def saved(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("fits") / "fit.nc"
    assert main(["fit", str(table), "--method", "exact", "-o", str(path)]) == DONE
    return path


def test_list_names_the_shipped_populations(capsys):
    assert main(["list", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out) == popstats.populations()


def test_check_counts_what_is_in_a_table(table, capsys):
    assert main(["check", str(table), "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert found["trainings"] == 120
    assert found["regimes"] == {"0.50": 60, "0.80": 60}


def test_where_keeps_rows_by_words_and_by_numbers(capsys):
    chosen = ["--where", "retraining=scratch", "--where", "seed=0"]
    assert main(["check", "digits-resnet8", "--json", *chosen]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert found["regimes"] == {"0.80": 50, "0.92": 50}
    for wrong in ("scratch", "seed=first", "no_such_column=1", "retraining=none"):
        assert main(["check", "digits-resnet8", "--where", wrong]) == BAD_INPUT
        assert wrong.split("=")[-1] in capsys.readouterr().err or wrong.startswith("no_such")


def test_fit_prints_the_optima_as_python_gives_them(table, capsys):
    assert main(["fit", str(table), "--method", "exact", "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    expected = popstats.fit(popstats.load_population(table), method="exact").optima()
    np.testing.assert_allclose([row["mcb"] for row in found["optima"]], expected["mcb"])
    assert found["ok"]


def test_judge_reads_a_saved_fit(saved, capsys):
    assert main(["judge", str(saved), "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert {v["conjecture"] for v in found} >= {"C1", "C3a", "C3c", "M1"}


def test_report_prints_its_path_and_tells_its_own_command(saved, tmp_path, capsys):
    path = tmp_path / "report.html"
    assert main(["report", str(saved), "-o", str(path)]) == DONE
    assert capsys.readouterr().out.strip() == str(path)
    assert f"python -m popstats report {saved} -o {path}" in path.read_text(encoding="utf-8")


def test_a_foreign_csv_with_its_own_names(tmp_path, capsys):
    frame = popstats.simulate_population(n=40).table.rename(columns={"macs": "flops"})
    frame[["flops", "params", "accuracy"]].to_csv(tmp_path / "mine.csv", index=False)
    original = ["--original-macs", "125747840", "--original-params", "855770", "--original-accuracy", "93.0"]
    command = ["check", str(tmp_path / "mine.csv"), "--column", "macs=flops", *original, "--json"]
    assert main(command) == DONE
    assert json.loads(capsys.readouterr().out)["trainings"] == 120


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "no-such-table"], "no shipped population of that name"),
        (["check", "{table}", "--column", "flops"], "expected OURS=THEIRS"),
        (["check", "{table}", "--original-macs", "5"], "missing: --original-params, --original-accuracy"),
        (["fit", "{table}", "--method", "exact", "--regimes", "1.5"], "strictly between 0 and 1"),
        (["fit", "{table}", "--noise", "cauchy"], "noise"),
        (["simulate", "--truth", "nonsense", "-o", "x.parquet"], "expected one of quadratic"),
        (["simulate", "--n", "12", "-o", "{table}-not/there/x.parquet"], "does not exist"),
        (["check", "{table}", "--column", "flops=macs"], "the other way round: --column macs=flops"),
        (
            ["check", "{table}", "--column", "macs=flops"],
            "--column: population.parquet has no column ['flops']",
        ),
        (["fit", "{table}", "--noise", "student", "--method", "exact"], "no closed form: use --method nuts"),
    ],
)
def test_bad_input_is_told_in_a_sentence_and_exits_with_2(arguments, told, table, capsys):
    assert main([a.format(table=table) for a in arguments]) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert told in error


def test_a_rejected_fit_exits_with_3_and_writes_all_the_same(saved, tmp_path, capsys):
    fit = popstats.Fit.load(saved)
    edge = np.ones_like(fit.draws.edge_probability)
    rejected = replace(fit, draws=replace(fit.draws, edge_probability=edge)).save(tmp_path / "rejected.nc")
    assert main(["report", str(rejected), "-o", str(tmp_path / "report.html")]) == REJECTED
    assert "diagnostics reject it" in capsys.readouterr().err
    assert "diagnostics reject it" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_compare_says_what_may_be_concluded(saved, table, tmp_path, capsys):
    other = tmp_path / "other.nc"
    assert main(["fit", str(table), "--method", "exact", "--seed", "1", "-o", str(other)]) == DONE
    capsys.readouterr()
    assert main(["compare", str(saved), str(other), "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert abs(found["difference"]) < 1.0
    assert len(found["fits"]) == 2
    assert found["sentence"].endswith(".")


def test_refine_writes_what_a_plan_reads(saved, tmp_path):
    path = tmp_path / "refined.toml"
    assert main(["refine", str(saved), "--regime", "0.8", "-o", str(path)]) == DONE
    assert "[refined]" in path.read_text(encoding="utf-8")


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == DONE
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "exit status" in text


def test_plan_size_of_every_regime_of_a_pilot(saved, capsys):
    assert main(["plan-size", str(saved), "--regime", "all", "--width", "0.5", "--json"]) == DONE
    answer = json.loads(capsys.readouterr().out)
    assert answer["axis"] == "macs"
    assert [plan["regime"] for plan in answer["plans"]] == ["0.50", "0.80"]
    assert all(f"Regime {plan['regime']}: " in plan["sentence"] for plan in answer["plans"])


def test_plan_size_from_a_guess(capsys):
    assert main(["plan-size", "--width", "0.5", "--guess-noise", "0.05", "--guess-rise", "1"]) == DONE
    assert capsys.readouterr().out.startswith("With this guess: 30 recipes with 1 seed each")


def test_subsamples_of_a_table_judged_against_the_whole(table, tmp_path, capsys):
    path = tmp_path / "plasmode.json"
    assert main(["calibrate", "--plasmode", str(table), "-o", str(path), "--json"]) == DONE
    rows = json.loads(capsys.readouterr().out)
    assert {(row["regime"], row["n"]) for row in rows} == {("0.50", 30), ("0.80", 30)}
    assert json.loads(path.read_text())["rows"] == rows


def test_a_companion_curve_is_fitted_and_not_judged(table, capsys):
    assert main(["fit", str(table), "--curve", "quadratic"]) == DONE
    assert main(["judge", str(table), "--curve", "quadratic"]) == BAD_INPUT
    assert "never the source of a verdict" in capsys.readouterr().err


def test_a_table_without_its_original_is_told_in_options(tmp_path, capsys):
    frame = popstats.simulate_population(n=12).table.rename(columns={"macs": "flops"})
    frame[["flops", "params", "accuracy"]].to_csv(tmp_path / "mine.csv", index=False)
    assert main(["check", str(tmp_path / "mine.csv")]) == BAD_INPUT
    error = capsys.readouterr().err
    assert "it has: flops, params, accuracy." in error
    assert "--column macs=<your column> and pass --original-macs N" in error
    assert "columns={" not in error


@pytest.fixture(scope="module")
def half_empty(tmp_path_factory):
    """A table with 60 recipes at 50 % and 3 at 80 %."""
    path = tmp_path_factory.mktemp("tables") / "half.parquet"
    popstats.simulate_population(regimes=[0.5, 0.8], n=60, seed=2).select(np.arange(63)).save(path)
    return str(path)


def test_nothing_fitted_is_bad_input(half_empty, tmp_path, capsys):
    command = ["fit", half_empty, "--method", "exact", "--regimes", "0.8", "-o", str(tmp_path / "fit.nc")]
    assert main(command) == BAD_INPUT
    out, error = capsys.readouterr()
    assert out == ""
    assert "0.8 (3 trainings: 3 recipes; a curve needs at least 10)" in error
    assert "50% to 60%: " in error or "40% to 50%: " in error
    assert not (tmp_path / "fit.nc").exists()


def test_some_fitted_says_how_many(half_empty, capsys):
    assert main(["fit", half_empty, "--method", "exact", "--regimes", "0.5,0.8"]) == DONE
    assert "1 of 2 regimes" in (out := capsys.readouterr().out)
    assert "diagnostics ok for the 1 that were fitted" in out


def test_fit_prints_the_alerts_in_options(tmp_path, capsys):
    population = popstats.simulate_population(regimes=[0.5], n=300, seed=3)
    heavy = np.random.default_rng(0).standard_t(2, 300) * 0.3
    table = population.table.assign(accuracy=(population.table["accuracy"] + heavy).clip(1, 99))
    popstats.Population.from_frame(table).save(tmp_path / "heavy.parquet")
    command = ["fit", str(tmp_path / "heavy.parquet"), "--method", "exact", "--regimes", "0.5"]
    assert main(command) == DONE
    assert "try --noise student (with --method nuts)" in (out := capsys.readouterr().out)
    assert "1 alert of the predictive checks (fit.predictive_checks.alerts):" in out
