"""Exports: the file's network reaches the row's accuracy."""

import copy
import importlib.util
import json
import shutil

import pytest
import torch
import torch_pruning as tp
from safetensors import safe_open
from torch import nn

from generate.export import _content, export_subnetwork, main
from generate.run.folder import RunFolder
from generate.run.prepare import worker_context
from generate.train.loop import evaluate
from generate.train.subnetwork import cut_network
from popstats.errors import BAD_INPUT, RunFolderError
from tests.generate.conftest import run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def first(tiny_run):
    folder = RunFolder(tiny_run)
    return folder.read_worklist()[0], folder.read_row(0)


def test_without_kept_weights_it_says_so_and_trains_again(tmp_path, tiny_run, first, capsys):
    training, row = first
    out = tmp_path / "network.safetensors"
    assert main([str(tiny_run), training.subnetwork_id[:10], "-o", str(out)]) == 0
    assert "training again from recipe and seed" in capsys.readouterr().out
    with safe_open(out, "pt") as file:
        card = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    assert json.loads(card["accuracy"]) == row["accuracy"]
    assert list(json.loads(card["widths"]).values()) == row["widths"]
    context = worker_context(RunFolder(tiny_run), CPU)
    network = cut_network(context, training)
    network.load_state_dict(state)
    again = evaluate(network, context.images, context.images.test, device=CPU)
    assert again.accuracy == pytest.approx(row["accuracy"], abs=0.05)


def test_torch_pruning_makes_the_rows_widths_of_the_ratios(tmp_path, tiny_run, first, capsys):
    training, row = first
    path = tmp_path / "ratios.json"
    assert main([str(tiny_run), training.subnetwork_id, "--format", "torch-pruning", "-o", str(path)]) == 0
    assert "training again" not in capsys.readouterr().out
    context = worker_context(RunFolder(tiny_run), CPU)
    network, example = copy.deepcopy(context.network), torch.zeros(2, *context.images.input_shape)
    ratios, layers = json.loads(path.read_text()), dict(network.named_modules())
    assert set(ratios) == {n for n, m in layers.items() if isinstance(m, nn.Conv2d | nn.Linear)}
    tp.pruner.BasePruner(
        network,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio_dict={layers[name]: ratio for name, ratio in ratios.items()},
        ignored_layers=[layers[name] for name, ratio in ratios.items() if ratio == 0],
    ).step()
    assert [layers[name].weight.shape[0] for name in row["group_names"]] == row["widths"]


class Session(nn.Module):
    """An ONNX file as a network, so that the same evaluation can judge it."""

    def __init__(self, path):
        super().__init__()
        runtime = pytest.importorskip("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def forward(self, images):
        return torch.from_numpy(self.session.run(None, {"images": images.contiguous().numpy()})[0])


def test_onnx_is_one_file_that_takes_any_batch(tmp_path, tiny_run, first):
    pytest.importorskip("onnxscript")
    training, row = first
    path = export_subnetwork(tiny_run, training.subnetwork_id, "onnx", tmp_path / "network.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["network.onnx"]
    network = Session(path)
    card = network.session.get_modelmeta().custom_metadata_map
    assert list(json.loads(card["widths"]).values()) == row["widths"]
    context = worker_context(RunFolder(tiny_run), CPU)
    again = evaluate(network, context.images, context.images.test, device=CPU)
    assert again.accuracy == pytest.approx(row["accuracy"], abs=0.05)


def test_without_the_onnx_packages_it_says_what_to_install_before_anything_is_trained(
    tiny_run, first, monkeypatch, capsys
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main([str(tiny_run), first[0].subnetwork_id, "--format", "onnx"]) == BAD_INPUT
    said = capsys.readouterr()
    assert "onnx and onnxscript are not installed. Install with: pip install onnx onnxscript" in said.err
    assert said.out == ""


@pytest.mark.slow
def test_the_best_of_a_regime_is_kept_and_exported_as_it_is(tmp_path, tiny_run, tiny_plan, capsys):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_run, folder.path)
    plan = tmp_path / "plan.toml"
    plan.write_text('keep_weights = "best"\n' + tiny_plan.read_text())
    regime = [training for training in folder.read_worklist() if training.target == 0.4]
    for training in regime:
        (folder.path / "rows" / f"{training.index:07d}.json").unlink()
    done = run(folder.path, "--workers", "2", plan=plan)
    assert done.returncode == 0, done.stdout + done.stderr
    best = max((folder.read_row(training.index) for training in regime), key=lambda row: row["accuracy"])
    kept = [path.stem for path in (folder.path / "weights").iterdir()]
    assert kept == [best["subnetwork_id"]]
    for kind in ("safetensors", "onnx", "torch-pruning"):
        if kind != "onnx" or importlib.util.find_spec("onnxscript"):
            assert main([str(folder.path), kept[0], "--format", kind]) == 0
    assert "training again" not in capsys.readouterr().out


def test_an_accuracy_that_is_not_reached_writes_nothing(tmp_path, tiny_run, first):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_run, folder.path)
    folder.write_row(0, first[1] | {"accuracy": 99.9})
    with pytest.raises(RunFolderError, match=r"its row says 99.900 %.*Nothing was written"):
        export_subnetwork(folder.path, first[0].subnetwork_id, out=tmp_path / "network.safetensors")
    assert not (tmp_path / "network.safetensors").exists()


def test_unknown_and_ambiguous_ids_are_sentences(tiny_run):
    with pytest.raises(RunFolderError, match="no subnetwork whose id begins with 'zz'"):
        export_subnetwork(tiny_run, "zz")
    with pytest.raises(RunFolderError, match="12 subnetworks"):
        export_subnetwork(tiny_run, "")


def test_a_place_that_is_no_run_is_a_sentence(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        export_subnetwork(tmp_path / "absent", "abc")


@pytest.mark.parametrize("points", ["nan", "-1", "much"])
def test_a_tolerance_that_would_let_everything_pass_is_refused(tiny_run, points, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(tiny_run), "abc", f"--tolerance={points}"])
    assert "expected percentage points, 0 to 100" in capsys.readouterr().err


def test_a_failed_row_and_one_still_to_come_are_sentences(tmp_path, tiny_run, first):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_run, folder.path)
    folder.write_row(0, first[1] | {"status": "failed", "error": "it diverged"})
    with pytest.raises(RunFolderError, match=r"failed \(it diverged\); there is nothing to export"):
        export_subnetwork(folder.path, first[0].subnetwork_id)
    (folder.path / "rows" / "0000000.json").unlink()
    with pytest.raises(RunFolderError, match="has not been trained yet"):
        export_subnetwork(folder.path, first[0].subnetwork_id)


class Branching(nn.Module):
    """Takes a way that depends on its images' values, which a graph cannot hold."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        logits = self.inner(images)
        return logits if images.abs().sum() > 0 else logits * 0


def test_a_network_that_a_graph_cannot_hold_is_not_written(tiny_run, first):
    pytest.importorskip("onnxscript")
    context = worker_context(RunFolder(tiny_run), CPU)
    with pytest.raises(RunFolderError, match=r"cannot be written as onnx .*Take another --format"):
        _content(context, Branching(cut_network(context, first[0])), first[1], "onnx")
