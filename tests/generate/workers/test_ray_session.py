"""The Ray driver's process as its parent sees it: it joins, it says what is wrong, or it is gone without a word."""

import math
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from generate.plan import DEFAULT_PLAN, read_plan
from generate.run.progress import Event
from generate.workers import ray_session
from popstats.errors import RunFolderError
from tests.generate.conftest import run

CPU = torch.device("cpu")


def no_cluster(plan, device, connection):
    connection.send(Event("broken", message="no cluster answers"))


def gone_at_work(plan, device, connection):
    """Ray ends its process like this when the cluster goes: no exception, no farewell."""
    connection.send(ray_session.JOINED)
    connection.recv()
    connection.send(Event("done", 0, accuracy=90.0))
    os._exit(1)


def gone_when_stopped(plan, device, connection):
    connection.send(ray_session.JOINED)
    connection.recv()
    connection.send(Event("started", 0))
    assert connection.recv() == ray_session.STOP
    os._exit(1)


def finishing(plan, device, connection):
    connection.send(Event("note", message="Ray: 1 node"))
    connection.send(ray_session.JOINED)
    order = connection.recv()
    connection.send(Event("note", message=f"{order.folder}, {order.workers} workers on {order.device}"))
    connection.send(ray_session.FINISHED)


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Train in a session whose driver is the given function; return what it told."""

    def train(driver, told, interrupt_at=None):
        def report(event):
            told.append(event.message or event.kind)
            if event.kind == interrupt_at:
                raise KeyboardInterrupt

        monkeypatch.setattr(ray_session, "_drive", driver)
        with ray_session.ray_session(read_plan(DEFAULT_PLAN), CPU, report) as session:
            folder = SimpleNamespace(path=tmp_path)
            session.train(folder, workers=3, device=CPU, deadline=math.inf, report=report)

    return train


def test_orders_go_down_and_events_come_up(train, tmp_path):
    told = []
    train(finishing, told)
    assert told == ["Ray: 1 node", f"{tmp_path}, 3 workers on cpu"]


def test_what_the_driver_cannot_do_is_said_before_anything_is_trained(train):
    with pytest.raises(RunFolderError, match="no cluster answers"):
        train(no_cluster, [])


def test_a_cluster_that_ends_under_a_run_is_a_sentence(train):
    told = []
    with pytest.raises(RunFolderError, match=r"cluster ended under this run .*Finished trainings are saved"):
        train(gone_at_work, told)
    assert told == ["done"]


def test_a_cluster_that_ends_with_the_job_is_no_error(train):
    """A scheduler's signal goes to Ray too, which drops what it was at."""
    told = []
    train(gone_when_stopped, told, interrupt_at="started")
    assert told[0] == "started"
    assert "stopping" in told[1]
    assert told[2] == "Ray ended before the trainings in progress did; they are dropped"


def test_a_finished_run_asks_for_no_cluster(tiny_run, tiny_plan, tmp_path, monkeypatch):
    shutil.copytree(tiny_run, tmp_path / "run")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    done = run(tmp_path / "run", "--executor", "ray", plan=tiny_plan)
    assert done.returncode == 0, done.stderr
    assert "12 of 12 trainings finished" in done.stdout
