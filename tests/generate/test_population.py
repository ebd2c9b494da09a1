"""The command, end to end on a tiny plan: complete, continued, killed, shared by two, and refused."""

import dataclasses
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from generate.export import main as export_main
from generate.plan import read_plan
from generate.population import main
from generate.recipes.worklist import Place, with_identities
from generate.run.folder import Claims, RunFolder
from generate.run.prepare import survey
from popstats import load_population
from popstats.errors import BAD_INPUT, PopulationError
from popstats.population import columns
from tests.generate.conftest import TINY, another_process_holds, command, is_held, rows, run

# Two cores that others use too: only a run that hangs takes longer.
PATIENCE = 300.0


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


class Launcher:
    """Starts commands in their own session; whatever happens, none is left when the test ends."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def __call__(self, folder: Path, plan: Path, *options: str) -> subprocess.Popen[str]:
        log = (folder.parent / f"{folder.name}-{len(self.started)}.log").open("w")
        with log:
            process = subprocess.Popen(
                command(folder, *options, plan=plan),
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.started.append(process)
        return process


@pytest.fixture
def start():
    launcher = Launcher()
    yield launcher
    for process in launcher.started:
        if process.poll() is None:
            process.kill()
        process.wait()


def workers(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        children = psutil.Process(parent.pid).children()
        return [child for child in children if any("spawn_main" in part for part in child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def finished(folder: Path) -> int:
    return len(RunFolder(folder).finished()) if (folder / "rows").is_dir() else 0


def kill_and_check_no_orphans(parent: subprocess.Popen[str]) -> None:
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_the_population_holds_the_whole_contract(tiny_run):
    table = pq.read_table(tiny_run / "population.parquet")
    assert table.schema.equals(columns.schema())
    footer = columns.read_footer(table.schema)
    assert set(footer) == {"schema_version", "population", "plan", "original", "provenance", "costs"}
    assert footer["plan"]["recipes"][0]["regimes"] == [0.4, 0.7]
    frame = table.to_pylist()
    assert len(frame) == 12
    assert len({row["subnetwork_id"] for row in frame}) == 12
    assert len({row["recipe_id"] for row in frame}) == 6
    for row in frame:
        reduction = 1 - row["macs"] / row["original_macs"]
        assert row["status"] == "done"
        assert abs(reduction - row["regime_target"]) < 0.01
        assert row["original_accuracy"] == footer["original"]["accuracy"]
        assert row["training_macs"] == 3 * row["macs"] * 4 * 100
        empty = {column.name for column in columns.COLUMNS if row[column.name] is None}
        assert empty == {
            "densities",
            "latency_ms",
            "latency_batch",
            "val_loss",
            "train_loss",
        }  # only where a plan asks for them


def test_killed_workers_and_parents_lose_nothing(tmp_path, tiny_plan, tiny_run, start):
    """Two workers, one killed, then the parent; continued, the table equals the undisturbed one of one worker."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run / "original", folder / "original")
    parent = start(folder, tiny_plan, "--workers", "2")
    wait_until(lambda: finished(folder) >= 1)
    workers(parent)[0].kill()
    wait_until(lambda: finished(folder) >= 4)
    before = {path.name: path.read_bytes() for path in (folder / "rows").glob("*.json")}
    kill_and_check_no_orphans(parent)
    assert main(["--out", str(folder), "--workers", "1", "--device", "cpu"]) == 0
    assert all((folder / "rows" / name).read_bytes() == content for name, content in before.items())
    assert rows(folder / "population.parquet") == rows(tiny_run / "population.parquet")


KILLS = 20
TRAININGS = 80


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path, start):
    """SIGKILL of workers, of a parent, and of both of two parents on one folder, at random moments."""
    plan = tmp_path / "tiny.toml"
    plan.write_text(TINY.replace("count = 3", "count = 20").replace("epochs = 4", "epochs = 12"))
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "run"
    assert run(undisturbed, "--workers", "2", plan=plan).returncode == 0
    chance = random.Random(0)
    for number in range(KILLS):
        parents = [parent for parent in start.started if parent.poll() is None]
        while len(parents) < 1 + number % 2:
            parents.append(start(folder, plan, "--workers", "2"))
        kill_at_a_random_moment(folder, parents, workers_only=number % 4 > 1, chance=chance)
    for parent in start.started:
        if parent.poll() is None:
            kill_and_check_no_orphans(parent)
    assert run(folder, "--workers", "2", plan=plan).returncode == 0
    assert rows(folder / "population.parquet") == rows(undisturbed / "population.parquet")


def kill_at_a_random_moment(
    folder: Path, parents: list[subprocess.Popen[str]], workers_only: bool, chance: random.Random
) -> None:
    """Kill during the start (every third time) or a moment after another row was finished."""
    before = finished(folder)
    if chance.random() > 1 / 3:
        wait_until(lambda: finished(folder) > min(before, TRAININGS - 1))
    time.sleep(chance.uniform(0, 2))
    print(f"{finished(folder)} rows; killing {'a worker' if workers_only else f'{len(parents)} parent(s)'}")
    if workers_only:
        victims = workers(chance.choice(parents))
        for victim in victims[:1]:
            victim.kill()
        return
    for parent in parents:
        if parent.poll() is None:
            kill_and_check_no_orphans(parent)


@pytest.mark.slow
def test_two_commands_on_one_folder_share_the_work(tmp_path, tiny_plan, tiny_run, start):
    folder = tmp_path / "run"
    both = [start(folder, tiny_plan, "--workers", "1") for _ in range(2)]
    assert [process.wait(PATIENCE) for process in both] == [0, 0]
    assert rows(folder / "population.parquet") == rows(tiny_run / "population.parquet")


def test_a_complete_folder_needs_no_training(tiny_run, capsys):
    before = (tiny_run / "rows" / "0000000.json").stat().st_mtime_ns
    assert main(["--out", str(tiny_run), "--device", "cpu"]) == 0
    assert (tiny_run / "rows" / "0000000.json").stat().st_mtime_ns == before
    assert f"-m popstats report {tiny_run}" in capsys.readouterr().out


def test_the_next_command_can_be_pasted(tmp_path, tiny_run, capsys):
    folder = tmp_path / "größe 1 (neu)"
    shutil.copytree(tiny_run, folder)
    assert main(["--out", str(folder), "--device", "cpu"]) == 0
    pasted = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert pasted[3:] == ["report", str(folder), "-o", str(folder / "report.html"), "--noise", "student"]


def test_tables_are_written_one_after_the_other(tiny_run, monkeypatch):
    """Of two runs that end together, one could write last what it had read first: a table with rows missing."""
    compact, held = RunFolder.compact, []

    def observed(folder):
        held.append(is_held(folder.path, -1))
        return compact(folder)

    monkeypatch.setattr(RunFolder, "compact", observed)
    assert main(["--out", str(tiny_run), "--device", "cpu"]) == 0
    assert held == [True]


def test_a_plan_that_another_process_made_grow_meanwhile(tmp_path, tiny_run, monkeypatch, capsys):
    """This run ends with its own trainings done, and says what is left."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_run, folder.path)
    plan = folder.read_plan()
    grown = dataclasses.replace(plan, recipes=(*plan.recipes, dataclasses.replace(plan.recipes[0], seeds=3)))
    compact = RunFolder.compact

    def meanwhile(folder):
        trainings = folder.read_worklist()
        folder.write_worklist(grown, (*trainings, dataclasses.replace(trainings[0], index=12, seed=2)))
        return compact(folder)

    monkeypatch.setattr(RunFolder, "compact", meanwhile)
    assert main(["--out", str(folder.path), "--device", "cpu"]) == 3
    assert "12 of 13 trainings finished" in (said := capsys.readouterr().out)
    assert "1 trainings are left" in said


def test_whoever_waits_for_another_process_can_say_so(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    claims = Claims(folder)
    with another_process_holds(folder.path, "-1") as owner, claims.preparation(owner.kill):
        assert owner.wait() != 0
    claims.close()


# From scratch, so that nothing is evaluated before the loss is no number.
HOPELESS = TINY.replace("learning_rate = 0.05", "learning_rate = 1e30").replace("fine-tune", "scratch")
HOPELESS += 'retraining = ["scratch"]\n'


def hopeless(tmp_path: Path, tiny_run: Path, plan: str, capsys) -> tuple[RunFolder, str]:
    """Run a plan in which every training diverges, on the tiny run's original; return the folder and what it said."""
    (tmp_path / "plan.toml").write_text(plan)
    shutil.copytree(tiny_run / "original", tmp_path / "run" / "original")
    options = ["--out", str(tmp_path / "run"), "--workers", "1", "--device", "cpu"]
    assert main([str(tmp_path / "plan.toml"), *options]) == BAD_INPUT
    said = capsys.readouterr()
    assert "Next:" not in said.out
    return RunFolder(tmp_path / "run"), said.err


def test_a_run_in_which_nothing_succeeds_stops_after_ten_failures_of_one_kind(tmp_path, tiny_run, capsys):
    folder, said = hopeless(tmp_path, tiny_run, HOPELESS.replace("count = 3", "count = 10"), capsys)
    assert "no training of this run has succeeded, and 10 failed in the same way: the loss is nan" in said
    assert 10 <= len(folder.finished()) < 40
    table = pq.read_table(folder.population_path).to_pylist()
    assert len(table) == len(folder.finished())
    assert {row["status"] for row in table} == {"failed"}


@pytest.mark.slow
def test_a_short_run_in_which_nothing_succeeds_ends_with_the_reason(tmp_path, tiny_run, capsys):
    folder, said = hopeless(tmp_path, tiny_run, HOPELESS.replace("count = 3", "count = 1"), capsys)
    assert "all 4 trainings failed, most of them because: the loss is nan" in said
    assert len(folder.finished()) == 4


def test_status_reads_only(tmp_path, tiny_run, capsys):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    assert main(["--out", str(folder), "--status"]) == 0
    out = capsys.readouterr().out
    assert "12 of 12 trainings done, 0 failed, 0 running, 0 left" in out
    assert "macs  0.40  fine-tune" in out
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_a_dry_run_writes_nothing(tmp_path, tiny_plan, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(tiny_plan), "--dry-run", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "12 trainings with" in out
    assert "193,344 MACs" in out
    assert "add up to more than 100 %" in out
    assert "after about" in out
    assert "for the original network" in out
    assert "MACs 116,006, parameters" in out, "what the regime fixes is shown once"
    assert list(tmp_path.iterdir()) == []


STUDY = TINY.replace("width = 0.5", "width = [0.5, 0.25]").replace("count = 3", "count = 1")


def test_a_study_is_shown_before_it_is_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan = tmp_path / "study.toml"
    plan.write_text(STUDY)
    assert main([str(plan), "--dry-run", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "tiny-0.5x: cifar_resnet8" in out
    assert "193,344 MACs" in out
    assert "tiny-0.25x: cifar_resnet8" in out
    assert main([str(plan), "--status"]) == 0
    assert capsys.readouterr().out == "runs/tiny/0.5x: not started.\nruns/tiny/0.25x: not started.\n"
    # What the last network cannot do is said before the first is trained.
    plan.write_text(STUDY.replace("[0.5, 0.25]", '[0.5, 0.25]\nkeep = ["stage9"]'))
    assert main([str(plan), "--device", "cpu"]) == BAD_INPUT
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_study_fills_one_run_folder_per_network_and_can_be_resumed(tmp_path, capsys):
    plan, out = tmp_path / "study.toml", tmp_path / "study"
    plan.write_text(STUDY)
    options = ["--out", str(out), "--workers", "1", "--device", "cpu"]
    assert main([str(plan), *options, "--time-limit", "0"]) == 3
    assert main(["--out", str(out), "--status"]) == 0
    assert "0.25x: not started" in capsys.readouterr().out
    assert main(options) == 0
    assert f"popstats report {out / '0.5x'} {out / '0.25x'}" in capsys.readouterr().out
    made = {name: rows(out / name / "population.parquet") for name in ("0.5x", "0.25x")}
    assert [made[name][0]["original_macs"] for name in made] == [193_344, 49_568]
    (out / "0.25x" / "rows" / "0000001.json").unlink()
    assert main(options) == 0
    assert main([*options, "--time-limit", "0"]) == 0
    (out / "0.25x").rename(tmp_path / "elsewhere")
    assert main([*options, "--time-limit", "0"]) == 3
    assert f"before {out / '0.25x'} was begun" in capsys.readouterr().out
    (tmp_path / "elsewhere").rename(out / "0.25x")
    assert {name: rows(out / name / "population.parquet") for name in made} == made
    with pytest.raises(PopulationError, match=f"below it: {out / '0.25x'}, {out / '0.5x'}"):
        load_population(out)
    # What has been trained may not change: here its steps of rounding.
    plan.write_text(
        STUDY.replace("[0.5, 0.25]", "[0.5, 0.25, 0.125]").replace("round_to = 2", "round_to = 4")
    )
    assert main([str(plan), *options]) == BAD_INPUT
    assert "was made with a different plan" in capsys.readouterr().err


def test_the_time_limit_stops_between_trainings_and_says_what_is_left(tmp_path, tiny_run, capsys):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    for index in (3, 7):
        (folder / "rows" / f"{index:07d}.json").unlink()
    assert main(["--out", str(folder), "--time-limit", "0", "--device", "cpu"]) == 3
    assert "Time limit reached; 2 trainings are left" in capsys.readouterr().out
    assert pq.read_table(folder / "population.parquet").num_rows == 10


@pytest.mark.parametrize(
    ("before", "after"), [("epochs = 4", "epochs = 5"), ("width = 0.5", 'name = "cifar_resnet20"')]
)
def test_a_changed_plan_is_refused(tmp_path, tiny_run, capsys, before, after):
    changed = tmp_path / "changed.toml"
    changed.write_text(TINY.replace(before, after))
    assert main([str(changed), "--out", str(tiny_run), "--device", "cpu"]) == BAD_INPUT
    assert "was made with a different plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--workers", "two", "expected a whole number, at least 1; got 'two'"),
        ("--time-limit", "nan", "expected a number of seconds, 0 or more; got 'nan'"),
        ("--time-limit", "-1", "expected a number of seconds, 0 or more; got '-1'"),
    ],
)
def test_odd_options_are_sentences(option, value, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([f"{option}={value}"])
    assert sentence in capsys.readouterr().err


def test_devices_that_trainings_cannot_run_on_are_refused(tiny_plan, capsys):
    assert main([str(tiny_plan), "--device", "mps"]) == BAD_INPUT
    assert "expected auto, cpu, cuda or cuda:N; got 'mps'" in capsys.readouterr().err


def test_a_folder_is_no_plan(tmp_path, capsys):
    assert main([str(tmp_path), "--device", "cpu"]) == BAD_INPUT
    assert "Is a directory" in capsys.readouterr().err


def test_an_impossible_regime_is_refused_before_anything_is_written(tmp_path, capsys):
    plan = tmp_path / "plan.toml"
    plan.write_text(TINY.replace("[0.4, 0.7]", "[0.4, 0.9999]"))
    assert main([str(plan), "--out", str(tmp_path / "run"), "--device", "cpu"]) == BAD_INPUT
    assert capsys.readouterr().err.startswith(f"Error: {plan}, recipes[0], regimes: 0.9999: no recipe")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write everywhere; test_run_folder has it for root too"
)
def test_a_read_only_folder_is_a_sentence(tmp_path, tiny_plan, capsys):
    tmp_path.chmod(0o500)
    assert main([str(tiny_plan), "--out", str(tmp_path / "run"), "--device", "cpu"]) == BAD_INPUT
    assert "permission to write is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(tmp_path, tiny_plan, start):
    folder = tmp_path / "run"
    process = start(folder, tiny_plan, "--workers", "2")
    wait_until(lambda: finished(folder) >= 1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == 3
    said = (tmp_path / "run-0.log").read_text()
    assert "stopping after the trainings in progress" in said
    assert "Traceback" not in said
    assert pq.read_table(folder / "population.parquet").num_rows == finished(folder) >= 1


@pytest.mark.slow
def test_ctrl_c_while_workers_are_starting_is_quiet_too(tmp_path, tiny_plan, tiny_run, start):
    """Workers import torch for seconds before they can say what Ctrl-C means to them."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run / "original", folder / "original")
    process = start(folder, tiny_plan, "--workers", "2")
    wait_until(lambda: len(workers(process)) == 2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == 3
    said = (tmp_path / "run-0.log").read_text()
    assert "rerun the command to resume" in said.lower()
    assert "Traceback" not in said


def colour_folder(folder: Path) -> Path:
    """Write an image folder of two classes that a network tells apart in a few steps: reds and greens."""
    image = pytest.importorskip("PIL.Image")
    for part, count in (("train", 30), ("test", 20)):
        for channel, name in enumerate(("red", "green")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                colour = [10 * (number % 5), 10 * (number % 5), 7 * (number % 7)]
                colour[channel] = 200 + number
                image.new("RGB", (8, 8), tuple(colour)).save(folder / part / name / f"{number}.png")
    return folder


FOLDER_PLAN = """
name = "colours"
[network]
width = 0.5
[images]
name = "image-folder:{images}"
folder = "{cache}"
size = 8
[original.training]
epochs = 5
batch_size = 8
augmentation = "flip"
[retraining.fine-tune]
epochs = 2
[[recipes]]
regimes = [0.5]
count = 2
"""


def folder_plan(path: Path, images: Path) -> Path:
    path.write_text(FOLDER_PLAN.format(images=images, cache=path.parent / "cache"))
    return path


def test_an_image_folder_from_the_command_line(tmp_path, capsys):
    images = colour_folder(tmp_path / "colours")
    plan = folder_plan(tmp_path / "plan.toml", images)
    out = ["--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([str(plan), *out, "--workers", "1"]) == 0
    made = rows(tmp_path / "run" / "population.parquet")
    assert [row["status"] for row in made] == ["done", "done"]
    assert all(row["dataset"].startswith("image-folder:colours@") for row in made)
    # Elsewhere the same images are the same trainings.
    moved = shutil.copytree(images, tmp_path / "elsewhere" / "colours")
    prepared = survey(read_plan(folder_plan(tmp_path / "moved.toml", moved)))
    place = Place(made[0]["original_id"], prepared.images.name, prepared.images.input_size)
    again = with_identities(prepared.trainings, prepared.plan, prepared.costs, place)
    assert [training.subnetwork_id for training in again] == [row["subnetwork_id"] for row in made]
    # Continued on other images, it would mix what cannot be compared.
    (images / "test" / "red" / "0.png").rename(tmp_path / "0.png")
    (tmp_path / "run" / "rows" / "0000001.json").unlink()
    assert main(["--out", str(tmp_path / "run"), "--device", "cpu"]) == BAD_INPUT
    assert "the images have changed" in capsys.readouterr().err
    assert export_main([str(tmp_path / "run"), made[0]["subnetwork_id"]]) == BAD_INPUT
    assert "the images have changed" in capsys.readouterr().err
    # Continued after the images are gone, it says so; what was finished stays.
    shutil.rmtree(images)
    assert main(["--out", str(tmp_path / "run"), "--device", "cpu"]) == BAD_INPUT
    assert f"expected {images}/train/CLASS/*" in capsys.readouterr().err
    assert finished(tmp_path / "run") == 1
