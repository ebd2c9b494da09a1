import json
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import popstats
from popstats.__main__ import _COMMANDS, BAD_INPUT, DONE, INTERRUPTED, REJECTED, main
from popstats.judgement.verdicts import CLAIMS


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


def test_judge_prints_the_answer_the_alerts_and_a_line_a_regime(saved, capsys):
    assert main(["judge", str(saved)]) == DONE
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("Fit of 'simulated-quadratic'")
    assert out.index("What to do: ") < out.index("python -m popstats refine TABLE --regime")
    assert out.index("Read first:") < out.index("C3a  There is an optimal") < out.index("C1   At a given")
    assert out.count("C3a is supported in 1 regime; 4 are needed.") == 1
    assert "  not assessable, over all regimes: The table has no widths." in lines
    assert "Supported: posterior probability ≥ 0.95" in out


def test_judge_takes_thresholds_and_refuses_unknown_ones_before_fitting(saved, capsys):
    assert main(["judge", str(saved), "--threshold", "rise=0.01", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)[0]["thresholds"]["rise"] == 0.01
    assert main(["judge", "no-such-table", "--threshold", "height=1"]) == BAD_INPUT
    assert "legal names: supported, refuted, rise" in capsys.readouterr().err
    assert main(["judge", str(saved), "--threshold", "rise=much"]) == BAD_INPUT
    assert "--threshold: expected a number" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["check", "{table}"],
        ["fit", "{table}", "--method", "exact"],
        ["fit", "{table}", "--curve", "quadratic"],
        ["judge", "{saved}"],
        ["report", "{saved}", "-o", "{folder}/report.html"],
        ["report", "{saved}", "{saved}", "-o", "{folder}/both.html"],
        ["refine", "{saved}", "--regime", "0.8"],
        ["compare", "{saved}", "{saved}"],
        ["plan-size", "--width", "0.5", "--guess-noise", "0.05", "--guess-rise", "1"],
        ["simulate", "--n", "12", "-o", "{folder}/made.parquet"],
    ],
    ids=lambda command: f"{command[0]} {len(command)}",
)
def test_json_is_all_that_json_prints(command, table, saved, tmp_path, capsys):
    filled = [part.format(table=table, saved=saved, folder=tmp_path) for part in command]
    assert main([*filled, "--json"]) == DONE
    out = capsys.readouterr().out
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found
    assert out.count("\n") == 1
    for rows in [found] if isinstance(found, list) else [v for v in found.values() if isinstance(v, list)]:
        assert all("target" in row for row in rows if isinstance(row, dict) and row.get("regime"))


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


def test_costs_in_any_unit(tmp_path, capsys):
    frame = popstats.simulate_population(n=40).table
    frame = frame.assign(macs=frame["macs"] / 1e9, params=frame["params"] / 1e6)
    frame[["macs", "params", "accuracy"]].to_csv(tmp_path / "giga.csv", index=False)
    original = ["--original-macs", "0.12574784", "--original-params", "0.85577", "--original-accuracy", "93"]
    assert main(["check", str(tmp_path / "giga.csv"), *original, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["trainings"] == 120


def test_a_closed_standard_output_is_no_traceback(saved):
    """Services and pythonw have none."""
    command = f"exec {shlex.quote(sys.executable)} -m popstats judge {shlex.quote(str(saved))} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (DONE, "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "no-such-table"], "no shipped population of that name; shipped: "),
        (["check", "digits-resnt8"], "did you mean digits-resnet8?"),
        (["check", "{saved}"], "a saved fit is read by fit, judge, report, refine and compare"),
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
        (["fit", "{table}", "--noise", "student", "--curve", "quadratic"], "has normal noise only"),
        (
            ["judge", "{saved}", "--noise", "student", "--where", "seed=0"],
            "--where, --noise would change nothing",
        ),
        (["fit", "{saved}", "--seed", "0"], "--seed would change nothing. Fit the table again"),
        (["report", "{saved}", "{saved}", "--method", "nuts", "-o", "{folder}/x.html"], "--method would"),
        (["plan-size", "{saved}", "--seed", "1", "--curve", "smooth"], "--curve would change nothing"),
        (
            ["plan-size", "--regime", "0.5", "--seed", "1"],
            "the plan is made from a guess; --regime would change",
        ),
        (["fit", "no-such-table", "-o", "{folder}"], "which is a folder"),
        (["fit", "no-such-table", "-o", "{folder}/fit.bin"], "a name that ends in .nc"),
        (["simulate", "-o", "{folder}/made.csv"], "a name that ends in .parquet"),
        (["report", "no-such-table", "-o", "{folder}/not/there/x.html"], "does not exist"),
        (["report", "no-such-table", "-o", "{folder}/x.docx"], "a name that ends in .html or .pdf"),
        (["recommend", "no-such-table", "--drop", "1", "-o", "{folder}/x.csv"], "ends in .json or .toml"),
        (["refine", "no-such-table", "--regime", "0.5", "-o", "{folder}"], "which is a folder"),
        (["calibrate", "--quick", "-o", "{folder}/not/there/x.json"], "does not exist"),
        (["refine", "{saved}", "--regime", "0.7"], "no subnetwork falls into the regimes [0.7]"),
    ],
)
def test_bad_input_is_told_in_a_sentence_and_exits_with_2(arguments, told, table, saved, tmp_path, capsys):
    assert main([a.format(table=table, saved=saved, folder=tmp_path) for a in arguments]) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert told in error


def test_a_rejected_fit_exits_with_3_and_writes_all_the_same(saved, tmp_path, capsys):
    fit = popstats.Fit.load(saved)
    edge = np.ones_like(fit.draws.edge_probability)
    rejected = replace(fit, draws=replace(fit.draws, edge_probability=edge)).save(tmp_path / "rejected.nc")
    assert main(["report", str(rejected), "-o", str(tmp_path / "report.html")]) == REJECTED
    assert "diagnostics reject the fit" in capsys.readouterr().err
    assert "diagnostics reject the fit" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_rejected_fit_is_said_first_by_fit_and_judge(saved, tmp_path, capsys):
    fit = popstats.Fit.load(saved)
    edge = np.ones_like(fit.draws.edge_probability)
    rejected = replace(fit, draws=replace(fit.draws, edge_probability=edge)).save(tmp_path / "rejected.nc")
    assert main(["judge", str(rejected)]) == REJECTED
    out = capsys.readouterr().out
    assert "REJECTED by its diagnostics" in out.splitlines()[0]
    assert out.index("What to do: ") < out.index("Read first:") < out.index("C3a  There is")
    assert "\n  not assessable, 50 and 80 %: The grid does not resolve the posterior" in out
    assert main(["fit", str(rejected)]) == REJECTED
    out = capsys.readouterr().out
    assert "REJECTED by its diagnostics" in out.splitlines()[0]
    assert "supported" not in out
    assert main(["judge", str(rejected), "--json"]) == REJECTED
    assert {v["outcome"] for v in json.loads(capsys.readouterr().out) if v["conjecture"] == "C3a"} == {
        "not assessable"
    }


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


def test_refine_says_where_no_best_mcb_was_found(tmp_path, capsys):
    popstats.simulate_population("linear", regimes=[0.5], n=800).save(tmp_path / "line.parquet")
    command = ["refine", str(tmp_path / "line.parquet"), "--method", "exact", "--regime", "0.5"]
    assert main(command) == DONE
    assert "C3a (there is an optimal mCB) is refuted" in capsys.readouterr().out
    assert main([*command, "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["outcome"] == "refuted"


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == DONE
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "exit status" in text


@pytest.mark.parametrize("command", list(_COMMANDS))
def test_each_commands_help_fits_its_terminal(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == DONE
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_judges_help_names_the_conjectures(capsys):
    with pytest.raises(SystemExit):
        main(["judge", "--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {conjecture} " in text for conjecture in CLAIMS)


@pytest.mark.parametrize("wrong", [["--seed", "-1"], ["--seed", "x"], ["--regimes", "0.5,half"]])
def test_a_wrong_option_exits_with_2(wrong, table, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", str(table), *wrong])
    assert stopped.value.code == BAD_INPUT
    assert "expected" in capsys.readouterr().err


def test_an_interrupted_command_is_no_traceback(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(popstats.Fit, "load", interrupted)
    assert main(["judge", "some.nc"]) == INTERRUPTED
    assert capsys.readouterr().err == "Interrupted.\n"


def test_plan_size_of_every_regime_of_a_pilot(saved, capsys):
    assert main(["plan-size", str(saved), "--regime", "all", "--width", "0.5", "--json"]) == DONE
    answer = json.loads(capsys.readouterr().out)
    assert answer["axis"] == "macs"
    assert [plan["target"] for plan in answer["plans"]] == [0.5, 0.8]
    assert [plan["regime"] for plan in answer["plans"]] == ["0.50", "0.80"]
    assert all(f"Regime {plan['regime']}: " in plan["sentence"] for plan in answer["plans"])


def test_plan_size_from_a_guess(capsys):
    assert main(["plan-size", "--width", "0.5", "--guess-noise", "0.05", "--guess-rise", "1"]) == DONE
    assert capsys.readouterr().out.startswith("With this guess: 30 recipes with 1 seed each")


def test_a_companion_curve_is_fitted_and_not_judged(table, capsys):
    assert main(["fit", str(table), "--curve", "quadratic"]) == DONE
    assert "no verdict comes from it, and no range here is a target" in capsys.readouterr().out
    assert main(["judge", str(table), "--curve", "quadratic"]) == BAD_INPUT
    assert "never the source of a verdict" in capsys.readouterr().err


def test_a_table_without_its_original_is_told_in_options(tmp_path, capsys):
    frame = popstats.simulate_population(n=12).table.rename(columns={"macs": "flops"})
    frame[["flops", "params", "accuracy"]].to_csv(tmp_path / "mine.csv", index=False)
    assert main(["check", str(tmp_path / "mine.csv")]) == BAD_INPUT
    error = capsys.readouterr().err
    assert "it has: 'flops', 'params', 'accuracy'." in error
    assert "--column macs=flops and pass --original-macs N" in error
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
    assert "50 to 60 %: " in error or "40 to 50 %: " in error
    assert not (tmp_path / "fit.nc").exists()


def test_some_fitted_says_how_many(half_empty, capsys):
    assert main(["fit", half_empty, "--method", "exact", "--regimes", "0.5,0.8"]) == DONE
    assert "1 of 2 regimes" in (out := capsys.readouterr().out)
    assert "diagnostics ok for the 1 that were fitted" in out


def test_fit_says_first_whether_there_is_a_best_mcb(half_empty, capsys):
    command = ["fit", half_empty, "--method", "exact", "--regimes", "0.5,0.8"]
    assert main([*command, "--json"]) == DONE
    outcomes = [row["outcome"] for row in json.loads(capsys.readouterr().out)["optima"]]
    assert main(command) == DONE
    out = capsys.readouterr().out
    assert outcomes[1] == "not assessable"
    assert [outcome in line for outcome, line in zip(outcomes, out.splitlines()[-4:-2], strict=True)] == [
        True,
        True,
    ]


def test_fit_prints_the_alerts_in_options(tmp_path, capsys):
    population = popstats.simulate_population(regimes=[0.5], n=300, seed=3)
    heavy = np.random.default_rng(0).standard_t(2, 300) * 0.3
    table = population.table.assign(accuracy=(population.table["accuracy"] + heavy).clip(1, 99))
    popstats.Population.from_frame(table).save(tmp_path / "heavy.parquet")
    command = ["fit", str(tmp_path / "heavy.parquet"), "--method", "exact", "--regimes", "0.5"]
    assert main(command) == DONE
    assert "try --noise student" in (out := capsys.readouterr().out)
    assert out.index("Read first:") < out.index("C3a")


@pytest.mark.parametrize(
    ("truth", "told"), [("quadratic", "optimal mCB 1.0"), ("flat", "no optimal mCB; lowest at")]
)
def test_a_simulated_truth_is_told_by_the_rule_of_c3a(truth, told, tmp_path, capsys):
    path = tmp_path / "made.parquet"
    assert main(["simulate", "--truth", truth, "--regimes", "0.5", "-o", str(path)]) == DONE
    assert capsys.readouterr().out.startswith(f"regime 0.50: {told}")
