"""The whole loop on a tiny plan, through the real commands: plan, population, fit, verdicts, report.

Thirty-odd trainings on the digits: about half a minute on two cores, so it is marked slow and run by .ci/run.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import popstats
from popstats.population.columns import COLUMNS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
PLAN = """
name = "tiny"
[network]
name = "cifar_resnet8"
[images]
name = "digits"
[original.training]
epochs = 12
augmentation = "shift1"
[retraining.fine-tune]
epochs = 2
learning_rate = 0.05
[[recipes]]
regimes = [0.5, 0.8]
count = 14
[[recipes]]
regimes = [0.5]
count = 3
space = "random"
seeds = 2
"""
TRAININGS = 2 * 14 + 3 * 2


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("end-to-end")
    plan = folder / "tiny.toml"
    plan.write_text(PLAN)
    said = command("generate.population", plan, "--out", folder / "run", "--device", "cpu", "--workers", 2)
    return folder / "run", said


@pytest.fixture(scope="module")
def population(run):
    return popstats.load_population(run[0])


@pytest.fixture(scope="module")
def fit(population):
    return popstats.fit(population, method="exact")


def test_the_command_ends_with_the_next_one(run):
    folder, said = run
    assert f"{TRAININGS} of {TRAININGS} trainings finished" in said
    command = f"popstats report {folder} -o {folder / 'report.html'} --noise student"
    assert said.splitlines()[-1].split(" -m ")[1] == command


def test_the_same_command_again_trains_nothing(run):
    folder, _ = run
    before = {path: path.stat().st_mtime_ns for path in (folder / "rows").iterdir()}
    assert len(before) >= TRAININGS
    command("generate.population", "--out", folder, "--device", "cpu")
    assert {path: path.stat().st_mtime_ns for path in (folder / "rows").iterdir()} == before


def test_every_training_is_a_row_with_every_column(population):
    assert len(population) + len(population.failed) == TRAININGS
    assert set(population.table.columns) == {column.name for column in COLUMNS}
    assert population.table["subnetwork_id"].is_unique
    assert (population.table["accuracy_kind"] == "last").all()


def test_recipes_lie_in_their_regimes_and_differ_in_mcb(population):
    frame = population.frame
    assert (frame["macs_reduction"] - frame["regime_target"]).abs().max() < 0.02
    assert (frame.groupby("regime")["log_mcb"].std() > 0.1).all()


def test_replicates_are_recognised(population):
    drawn = population.table.groupby("recipe_id")["seed"].nunique()
    assert set(drawn) == {1, 2}
    assert population.has_replicates


def test_the_fit_is_accepted_and_every_conjecture_judged(fit):
    assert [regime.label for regime in fit.fitted] == ["0.50", "0.80"]
    assert fit.convergence.ok, fit.convergence.reasons
    verdicts = popstats.judge(fit).frame
    assert set(verdicts["conjecture"]) == {"C1", "C2", "C3a", "C3b", "C3c", "C3d", "C4", "S1", "R1", "M1"}
    assert set(verdicts["outcome"]) <= {"supported", "refuted", "undecided", "not assessable"}
    # Fourteen recipes a regime and no second technique: the last word on these is that there is none.
    unanswerable = verdicts[verdicts["conjecture"].isin(["C3d", "C4", "R1"])]
    assert (unanswerable["outcome"] == "not assessable").all()
    assert (verdicts["reason"].str.len() > 0).all()


def test_the_report_command_writes_one_offline_page(run):
    folder, _ = run
    page = folder / "report.html"
    command("popstats", "report", folder, "-o", page)
    text = page.read_text()
    assert "C3a" in text
    assert "tiny" in text
    assert page.stat().st_size < 3_000_000
    assert "<script src=" not in text
    assert json.loads(Path(f"{page}.json").read_text())["title"] == "tiny"


def test_the_refined_space_is_read_by_the_next_plan(fit, tmp_path):
    space = popstats.refine(fit, regime=0.5)
    assert isinstance(space, popstats.RefinedSpace)
    file = space.to_toml(tmp_path / "refined.toml")
    first_block = PLAN.split("[[recipes]]")[0].replace("tiny", "next")
    block = f'[[recipes]]\nregimes = [0.5]\ncount = 4\nspace = "refined:{file}"\n'
    plan = tmp_path / "next.toml"
    plan.write_text(first_block + block)
    said = command("generate.population", plan, "--dry-run", "--device", "cpu")
    assert "refined:" in said
    assert "4 trainings" in said
