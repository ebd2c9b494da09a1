"""Exports: the file's network reaches the row's accuracy."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open

from generate.export import export_subnetwork, main
from generate.preparation import reopen
from generate.run_folder import RunFolder
from generate.subnetworks import cut_network
from generate.training import evaluate
from popstats.errors import RunFolderError

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
    bench = reopen(RunFolder(tiny_run), CPU)
    network = cut_network(bench, training)
    network.load_state_dict(state)
    again = evaluate(network, bench.images, bench.images.test, device=CPU, shift=1)
    assert again.accuracy == pytest.approx(row["accuracy"], abs=0.05)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_torchscript_needs_no_code_of_ours(tmp_path, tiny_run, first):
    path = export_subnetwork(tiny_run, first[0].subnetwork_id, "torchscript", tmp_path / "network.pt")
    bench = reopen(RunFolder(tiny_run), CPU)
    network = torch.jit.load(path)
    again = evaluate(network, bench.images, bench.images.test, device=CPU, shift=1)
    assert again.accuracy == pytest.approx(first[1]["accuracy"], abs=0.05)


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
