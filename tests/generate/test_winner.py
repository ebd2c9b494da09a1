"""The winner's command, end to end on a tiny plan: searched, resumed, shared, and what it hands over."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch_pruning as tp
from safetensors.torch import load_file
from torch import nn

from generate.inputs.networks import build_network
from generate.plan import SearchPlan, read_plan
from generate.recipes.worklist import CONFIRMATION, SEARCH
from generate.run.folder import RunFolder
from generate.run.rounds import FIRST_FRESH_SEED, outcome_of, search_warnings
from generate.winner import main
from popstats.errors import BAD_INPUT
from tests.generate.conftest import rows

OPTIONS = ("--reduction", "0.7", "--trainings", "8", "--confirm", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_plan) -> Path:
    """A finished search of one worker."""
    folder = tmp_path_factory.mktemp("winner") / "run"
    assert main([str(tiny_plan), *OPTIONS, "--workers", "1", "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_a_search_in_which_nothing_succeeds_ends_with_the_reason(tmp_path, tiny_plan, capsys):
    plan, folder = tmp_path / "plan.toml", tmp_path / "run"
    plan.write_text(tiny_plan.read_text().replace("learning_rate = 0.05", "learning_rate = 1e30"))
    assert main([str(plan), *OPTIONS, "--workers", "1", "--out", str(folder)]) == BAD_INPUT
    said = capsys.readouterr()
    assert "all 4 trainings failed, most of them because: the loss is nan" in said.err
    assert "Rerun the command" not in said.out
    assert not (folder / "winner.safetensors").exists()


def test_rounds_come_from_what_is_finished_and_fresh_seeds_confirm(found):
    folder = RunFolder(found)
    trainings = folder.read_worklist()
    search = [t for t in trainings if t.block == SEARCH]
    confirmed = [t for t in trainings if t.block == CONFIRMATION]
    assert len(search) == 8
    assert len({t.space for t in search}) > 2, "proposed in rounds"
    baselines = folder.read_part("baselines.json")
    assert [list(t.widths) for t in search[:3]] == [
        baselines["torch-pruning"],
        baselines["torch-pruning"],
        baselines["uniform"],
    ]
    assert [t.seed for t in search[:3]] == [0, 1, 0]
    assert {t.seed for t in confirmed} == {FIRST_FRESH_SEED, FIRST_FRESH_SEED + 1}
    assert {tuple(widths) for widths in baselines.values()} <= {t.widths for t in confirmed}
    assert len({t.subnetwork_id for t in trainings}) == len(trainings)
    original = folder.read_original()
    for training in trainings:
        assert 0.29 < training.macs / original["macs"] <= 0.3


def test_no_image_of_the_statement_belongs_to_the_search(found):
    """497 of the 997 test images are searched by, together with the validation images."""
    table = pq.read_table(found / "population.parquet").to_pylist()
    assert {row["n_test"] for row in table} == {498}
    row = table[0]
    expected = 0.5 * row["accuracy_val"] - 25 * (row["val_loss"] + row["train_loss"])
    assert outcome_of(row) == pytest.approx(expected)


def test_a_search_interrupted_anywhere_ends_the_same(found, tmp_path, tiny_plan):
    """Its last rounds proposed again by two workers: the same proposals, the same rows."""
    folder = tmp_path / "run"
    shutil.copytree(found, folder)
    content = json.loads((folder / "worklist.json").read_text())
    content["trainings"] = content["trainings"][:5]
    (folder / "worklist.json").write_text(json.dumps(content))
    for path in sorted((folder / "rows").glob("*.json"))[4:]:
        path.unlink()
    assert main(["--out", str(folder), "--device", "cpu", "--workers", "2"]) == 0
    assert rows(folder / "population.parquet") == rows(found / "population.parquet")
    assert (folder / "recipe.json").read_bytes() == (found / "recipe.json").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_searches_the_same(found, tmp_path, tiny_plan, monkeypatch):
    pytest.importorskip("ray")
    for name, value in (("AUTH_MODE", "disabled"), ("ADDRESS", "local"), ("worker_niceness", "0")):
        monkeypatch.setenv(f"RAY_{name}", value)
    folder = tmp_path / "run"
    arguments = [str(tiny_plan), *OPTIONS, "--workers", "1", "--executor", "ray", "--out", str(folder)]
    assert main(arguments) == 0
    assert rows(folder / "population.parquet") == rows(found / "population.parquet")
    assert (folder / "winner.safetensors").read_bytes() == (found / "winner.safetensors").read_bytes()


@pytest.mark.slow
def test_a_search_whose_processes_are_killed_loses_nothing(found, tmp_path, tiny_plan):
    """Killed four times, at moments between the original network and the confirmation."""
    folder = tmp_path / "run"
    arguments = [str(tiny_plan), *OPTIONS, "--workers", "1", "--out", str(folder)]
    command = [sys.executable, "-m", "generate.winner", *arguments]
    for rows_before in (1, 4, 7, 10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and len(list((folder / "rows").glob("*.json"))) < rows_before:
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert main(arguments) == 0
    assert rows(folder / "population.parquet") == rows(found / "population.parquet")


def test_the_recipe_says_what_to_keep_in_every_layer(found):
    recipe = json.loads((found / "recipe.json").read_text())
    assert set(recipe) == {
        *("version", "network", "original_id", "macs", "params"),
        *("widths", "layers", "torch_pruning", "gains"),
    }
    for group, width in recipe["widths"].items():
        layer = recipe["layers"][group]
        assert layer["channels"] == width
        assert layer["ratio"] == pytest.approx(1 - width / layer["of"])
    assert [gain["over"] for gain in recipe["gains"]] == ["torch-pruning", "uniform"]
    for gain in recipe["gains"]:
        assert gain["lower"] <= gain["mean"] <= gain["upper"]
        assert (gain["seeds"], gain["images"]) == (2, 498)
    weights = load_file(found / "winner.safetensors")
    for name, layer in recipe["layers"].items():
        assert weights[f"{name}.weight"].shape[0] == layer["channels"]


def test_torch_pruning_makes_the_winners_shapes_from_the_recipe(found):
    recipe = json.loads((found / "recipe.json").read_text())
    network = build_network("cifar_resnet8", classes=10, input_shape=(1, 8, 8), width=0.5)
    layers = dict(network.named_modules())
    prunable = {n for n, m in layers.items() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert set(recipe["torch_pruning"]) == prunable
    tp.pruner.BasePruner(
        network,
        torch.zeros(1, 1, 8, 8),
        importance=tp.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.0,
        pruning_ratio_dict={layers[name]: ratio for name, ratio in recipe["torch_pruning"].items()},
        ignored_layers=[network.classifier],
    ).step()
    network.load_state_dict(load_file(found / "winner.safetensors"))


def test_the_printed_loader_loads_the_winner(found, capsys):
    assert main(["--out", str(found), "--device", "cpu"]) == 0
    loader = capsys.readouterr().out.split("Load it:\n")[1].split("\nNext:")[0]
    assert len(loader.splitlines()) <= 10
    names = {}
    exec(loader, names)
    held = load_file(found / "winner.safetensors")
    loaded = names["network"].state_dict()
    assert loaded.keys() == held.keys()
    assert all(torch.equal(loaded[name], held[name]) for name in held)
    recipe = json.loads((found / "recipe.json").read_text())
    assert sum(p.numel() for p in names["network"].parameters()) == recipe["params"]


def test_the_page_opens_offline_and_leads_with_the_gain(found):
    page = (found / "report.html").read_text()
    assert not re.search(r'(src|href)="|@import|url\(', page)
    assert page.index('class="lead"') < page.index("<h2>")
    for part in ("over Torch-Pruning", "90 % interval", "stage1.0.conv1", "plan.toml --out"):
        assert part in page


def test_a_finished_search_is_stated_again_without_training(found, capsys):
    assert main(["--out", str(found), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "over Torch-Pruning" in said
    assert "generate.load_subnetwork" in said
    assert main(["--out", str(found), "--status"]) == 0
    assert "Best so far" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_population_is_a_pilot(tiny_run, tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = ["--pilot", str(tiny_run), *OPTIONS, "--workers", "1", "--out", str(folder)]
    assert main(arguments) == 0
    run = RunFolder(folder)
    assert len(run.read_part("pilot.json")["outcomes"]) == 12
    assert run.read_original()["original_id"] == RunFolder(tiny_run).read_original()["original_id"]


def test_a_dry_run_says_what_the_images_can_show(tiny_plan, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(tiny_plan), *OPTIONS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "14 trainings with" in said
    assert "498 held-out images" in said
    assert "Smallest gain" in said
    assert list(tmp_path.iterdir()) == []


OWN = """
from generate.inputs.networks import CifarResNet
def make(classes):
    return CifarResNet(8, classes, channels=1, width=8)
"""


def test_a_network_of_ones_own_needs_no_plan(tiny_run, capsys, tmp_path, monkeypatch):
    (tmp_path / "own_winner_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    weights = tiny_run / "original" / "weights.safetensors"
    own = ["--network", "own_winner_network:make", "--weights", str(weights), "--images", "digits"]
    assert main([*own, *OPTIONS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "make-macs-0.7: own_winner_network:make on digits" in said
    assert f"which is read ({weights}), not trained" in said


def test_many_groups_ask_for_more_trainings():
    said = " ".join(search_warnings(SearchPlan(0.9), groups=37, images=5000))
    assert "37 groups are many for a pilot of 24" in said
    assert "--trainings 200" in said
    assert list(search_warnings(SearchPlan(0.9), groups=6, images=10_000)) == []


def test_too_few_images_come_with_how_many_would_do():
    (said,) = search_warnings(SearchPlan(0.9), groups=6, images=500)
    enough = int(re.search(r"About ([\d,]+) such images", said)[1].replace(",", ""))
    seeds = int(re.search(r"--confirm (\d+)", said)[1])
    assert list(search_warnings(SearchPlan(0.9, confirm=seeds), groups=6, images=enough)) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--reduction is missing"),
        (["--reduction", "0.9999"], "no recipe removes 0.9999"),
        (["--reduction", "0.9", "--trainings", "4"], "trainings: expected at least 8"),
        (["--reduction", "0.9", "--weights", "w.safetensors"], "belong to --network"),
        (["--reduction", "0.9", "--pilot", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--device", "cpu"]) == BAD_INPUT
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_population_folder_is_no_search(tiny_run, capsys):
    assert main(["--out", str(tiny_run), "--reduction", "0.5", "--device", "cpu"]) == BAD_INPUT
    assert "holds a population" in capsys.readouterr().err
    assert read_plan(tiny_run / "plan.toml").search is None


def test_gains_are_those_of_the_accuracies(found):
    table = pq.read_table(found / "population.parquet").to_pylist()
    recipe = json.loads((found / "recipe.json").read_text())
    winner, uniform = recipe["widths"], RunFolder(found).read_part("baselines.json")["uniform"]
    fresh = [row for row in table if row["seed"] >= FIRST_FRESH_SEED]
    mean = {
        key: np.mean([row["accuracy"] for row in fresh if row["widths"] == widths])
        for key, widths in (("winner", list(winner.values())), ("uniform", uniform))
    }
    assert recipe["gains"][1]["mean"] == pytest.approx(mean["winner"] - mean["uniform"], abs=1e-6)
