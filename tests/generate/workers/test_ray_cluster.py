"""Finding a Ray cluster: what cannot work is a sentence, in seconds."""

import dataclasses
import socket
import sys
from types import SimpleNamespace

import pytest
import torch

from generate.plan import DEFAULT_PLAN, read_plan
from generate.workers.ray_cluster import (
    _is_a_node,
    connect,
    describe,
    join,
    room_for,
    unused_gpus,
)
from popstats.errors import RunFolderError


@pytest.fixture(autouse=True)
def no_cluster_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cluster(**resources: float) -> SimpleNamespace:
    nodes = [{"Alive": True}, {"Alive": True}, {"Alive": False}]
    return SimpleNamespace(cluster_resources=lambda: resources, nodes=lambda: nodes)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunFolderError, match=r"not installed.*pip install ray"):
        connect()


def test_an_address_where_nothing_listens_is_refused_in_seconds(monkeypatch, free_port):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port}")
    with pytest.raises(
        RunFolderError, match=rf"answers at 127.0.0.1:{free_port} \(from RAY_ADDRESS\).*unset"
    ):
        connect()


def test_an_address_that_is_none_is_refused(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "the-cluster")
    with pytest.raises(RunFolderError, match=r"RAY_ADDRESS to hold HOST:PORT .*got 'the-cluster'"):
        connect()


def test_a_cluster_that_has_crashed_is_not_waited_for(tmp_path, free_port):
    """`ray start` leaves its address in a file, which stays when its processes are killed."""
    pytest.importorskip("ray")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port}")
    with pytest.raises(RunFolderError, match=r"from .*ray_current_cluster.*`ray stop`"):
        connect()


@pytest.mark.parametrize(("gpus", "actors"), [(0, 8), (1.0, 2), (0.5, 4), (0.4, 4), (0.25, 8), (0.1, 8)])
def test_shares_of_a_gpu_must_lie_on_one_gpu(gpus, actors):
    assert room_for(cluster(CPU=8.0, GPU=2.0), {"num_cpus": 1, "num_gpus": gpus}) == actors


def test_a_cluster_without_room_is_a_sentence(monkeypatch):
    plan = dataclasses.replace(read_plan(DEFAULT_PLAN), gpus_per_training=0.5)
    monkeypatch.setattr("generate.workers.ray_cluster.connect", lambda: cluster(CPU=8.0))
    with pytest.raises(
        RunFolderError, match=r"offers 8 CPUs, 0 GPUs, but one training needs 1 CPU, 0\.5 GPU"
    ):
        join(plan, torch.device("cuda"))


def test_the_cluster_in_one_line_counts_living_nodes():
    assert describe(cluster(CPU=8.0), 3) == "Ray: 2 nodes, 8 CPUs, 0 GPUs; 3 actors"


def test_a_machine_that_is_no_node_is_told_to_join_first(tmp_path):
    assert "first `ray start --address head:6379` here" in _is_a_node("head:6379")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("head:6379")
    assert _is_a_node("head:6379") == ""


def test_gpus_that_stay_idle_are_named():
    assert "the cluster's 2 GPUs stay idle" in unused_gpus(cluster(CPU=8.0, GPU=2.0), torch.device("cpu"))
    assert unused_gpus(cluster(CPU=8.0, GPU=2.0), torch.device("cuda")) == ""
    assert unused_gpus(cluster(CPU=8.0), torch.device("cpu")) == ""


def test_a_plan_says_what_share_of_a_gpu_an_actor_takes(monkeypatch):
    plan, joined = read_plan(DEFAULT_PLAN), cluster(CPU=8.0, GPU=2.0)
    monkeypatch.setattr("generate.workers.ray_cluster.connect", lambda: joined)
    assert join(plan, torch.device("cpu")) == (joined, {"num_cpus": 1, "num_gpus": 0})
    assert join(plan, torch.device("cuda"))[1] == {"num_cpus": 1, "num_gpus": plan.gpus_per_training}
