"""Actors that cannot open: which node it is, what it lacks, and a run that goes on without them."""

import math
from collections import deque
from types import SimpleNamespace

import pytest
import torch

from generate.workers.ray_driver import _Driver
from generate.workers.ray_pool import LostError, Pool, UnfitError, _check_gpu, _unfit
from popstats.errors import RunFolderError

# As Ray 2.60 words them.
IN_ITS_START = """The actor died because of an error raised in its creation task, \
\x1b[36mray::Trainer.__init__()\x1b[39m (pid=1040, ip=10.77.0.24, actor_id=6ba8, repr=<Trainer object>)
  File "ray_actor.py", line 90, in __init__
    _check_gpu(device)
popstats.errors.RunFolderError: m4 has joined the cluster with a GPU, but torch sees none there"""
WITHOUT_THE_PACKAGE = """The actor died because of an error raised in its creation task, \
ray::Trainer.__init__() (pid=1041, ip=10.77.0.24, actor_id=6ba9)
ModuleNotFoundError: No module named 'generate.workers.ray_actor'"""


def test_a_sentence_of_ours_comes_through_as_it_is():
    assert str(_unfit(RuntimeError(IN_ITS_START))) == (
        "10.77.0.24: m4 has joined the cluster with a GPU, but torch sees none there"
    )


def test_what_a_node_lacks_comes_with_what_every_node_needs():
    said = str(_unfit(RuntimeError(WITHOUT_THE_PACKAGE)))
    assert said.startswith(
        "10.77.0.24: ModuleNotFoundError: No module named 'generate.workers.ray_actor'. Every node needs"
    )


def driver(pool: Pool, told: list[str]) -> _Driver:
    folder = SimpleNamespace(read_worklist=list)
    resources = {"num_cpus": 1.0, "num_gpus": 0.0}
    return _Driver(
        folder, None, lambda e: told.append(e.message), math.inf, pool, None, resources, lambda: False
    )


def test_a_run_goes_on_without_a_node_that_cannot_train_and_says_so_once():
    told: list[str] = []
    running = driver(Pool(None, None, None, idle=deque(["another actor"])), told)
    for _ in range(2):
        running._do_without(UnfitError("10.0.0.2: no torch"))
    assert told == ["no training can run on 10.0.0.2: no torch; continuing without it"]
    assert running.unfit == 2


def test_without_any_node_that_can_train_the_run_ends():
    with pytest.raises(RunFolderError, match=r"no training can run on 10\.0\.0\.2: no torch\."):
        driver(Pool(None, None, None), [])._do_without(UnfitError("10.0.0.2: no torch"))


def test_a_node_that_dies_as_its_actor_opens_is_named_and_another_actor_asked_for(monkeypatch):
    """What a full /dev/shm does: Ray itself dies there."""

    def lost(self, future):
        raise LostError("The node 10.0.0.2 has been marked dead")

    monkeypatch.setattr(Pool, "result", lost)
    monkeypatch.setattr(Pool, "replace_actor", lambda self, actor: replaced.append(actor))
    replaced: list[str] = []
    told: list[str] = []
    running = driver(Pool(None, None, None, opening={"future": "actor"}), told)
    running._take("future")
    assert replaced == ["actor"]
    assert "/dev/shm full on its node? (The node 10.0.0.2 has been marked dead)" in told[0]


class Cluster:
    """Hands out actors, as far as a run's driver asks for them."""

    exceptions = SimpleNamespace()

    def __init__(self, cpus: float) -> None:
        self.cpus = cpus
        self.opened = 0

    def cluster_resources(self):
        return {"CPU": self.cpus}

    def nodes(self):
        return [{"Alive": True}]

    def remote(self, parts):
        self.opened += 1
        ready = SimpleNamespace(remote=lambda: f"future {self.opened}")
        return SimpleNamespace(ready=ready)


def test_nodes_that_join_later_are_used(monkeypatch):
    monkeypatch.setattr("generate.workers.ray_driver.LOOK_SECONDS", 0.0)
    cluster = Cluster(cpus=2.0)
    told: list[str] = []
    running = driver(Pool(cluster, cluster, None), told)
    running._open_where_there_is_room(missing=10)
    assert cluster.opened == 2
    cluster.cpus = 8.0
    running._open_where_there_is_room(missing=5)
    assert cluster.opened == 5
    running.unfit = 1
    running._open_where_there_is_room(missing=10)
    assert cluster.opened == 7
    cluster.cpus = 1.0
    running._open_where_there_is_room(missing=10)
    assert cluster.opened == 7
    assert told[0] == "Ray: 1 node, 2 CPUs, 0 GPUs; 2 actors"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_only_ray_start_has_claimed_is_a_sentence():
    with pytest.raises(RunFolderError, match=r"sees none there. .*without --num-gpus"):
        _check_gpu(torch.device("cuda:0"))
