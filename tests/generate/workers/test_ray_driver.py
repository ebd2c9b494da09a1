"""Training on a Ray cluster: two nodes on this machine, one of them lost on the way; and from the command line."""

import logging
import math
import os
import shutil
import signal
import subprocess
import threading
import time

import pyarrow.parquet as pq
import pytest
import torch

from generate.plan import read_plan
from generate.run.folder import Claims, RunFolder
from generate.run.prepare import prepare, survey
from generate.run.progress import Event, RunProgress
from generate.workers.ray_driver import run_ray
from tests.generate.conftest import command, rows, run

# Seconds; only a test that hangs waits as long.
PATIENCE = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# A killed node's connections are refused, which counts at once: frequent checks notice it in a second or two.
# The timeout is for living nodes on a busy machine; with two seconds, the head itself was declared dead and
# the run waited for ever. Ray's own niceness of 15 starves actors beside any other work.
SETTINGS = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 20_000,
    "health_check_failure_threshold": 3,
    "worker_niceness": 0,
}


@pytest.fixture
def nodes(monkeypatch):
    """Two nodes of one CPU each; yields the cluster and the node that is not its head."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": SETTINGS},
    )
    second = made.add_node(num_cpus=1)
    yield made, second
    made.shutdown()


@pytest.fixture
def cluster(nodes):
    """The nodes, joined by this process."""
    import ray

    ray.init(address=nodes[0].address, logging_level=logging.ERROR, log_to_driver=False)
    yield nodes
    ray.shutdown()


class Log:
    """Remembers the run's events and prints them with their times."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._start = time.monotonic()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.say(f"{event.kind} {event.index if event.index >= 0 else ''} {event.message}")

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._start:6.1f} s  {text}")

    def count(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.events)


def test_a_lost_node_costs_nothing_but_time(cluster, tmp_path, tiny_plan, tiny_run):
    made, second = cluster
    torch.set_num_threads(1)
    folder = RunFolder(tmp_path / "run")
    prepared = survey(read_plan(tiny_plan), folder)
    folder.create()
    log = Log()

    def lose_the_second_node() -> None:
        # Both actors at work, so that one training is lost with its node.
        while log.count("ready") < 2 or log.count("done") < 2:
            time.sleep(0.01)
        made.remove_node(second, allow_graceful=False)
        log.say("the second node is killed")

    claims = Claims(folder)
    with claims.preparation():
        prepare(folder, prepared, torch.device("cpu"))
    saboteur = threading.Thread(target=lose_the_second_node, daemon=True)
    saboteur.start()
    run_ray(folder, claims, workers=None, device=torch.device("cpu"), deadline=math.inf, report=log)
    claims.close()
    saboteur.join(PATIENCE)
    assert RunProgress(folder).left == 0
    assert not saboteur.is_alive()
    assert len(RunFolder(folder.path).finished()) == 12
    folder.compact()
    assert rows(folder.population_path) == rows(tiny_run / "population.parquet")


def test_a_cluster_that_ends_under_a_run_leaves_the_table_and_a_sentence(nodes, tmp_path, tiny_plan):
    """Ray ends the process that it is in, without a word, when the node's own Ray dies: as with `ray stop`."""
    made, _ = nodes
    folder = RunFolder(tmp_path / "run")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command(folder.path, "--executor", "ray", plan=tiny_plan),
            stdout=log,
            stderr=log,
            env=os.environ | {"RAY_ADDRESS": made.address},
        )
    wait_for_rows(folder, process, 2)
    made.head_node.kill_raylet()
    assert process.wait(4 * PATIENCE) == 2
    said = (tmp_path / "log").read_text()
    assert "the Ray cluster ended under this run" in said
    assert pq.read_table(folder.population_path).num_rows == len(folder.finished()) >= 2


def wait_for_rows(folder: RunFolder, process: subprocess.Popen, count: int) -> None:
    end = time.monotonic() + 4 * PATIENCE
    while not (folder.path / "rows").exists() or len(folder.finished()) < count:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def unfinished(tmp_path, tiny_run, monkeypatch) -> RunFolder:
    """The tiny run without the rows of its last eight trainings, and Ray told to start by itself."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_run, folder.path)
    for index in range(4, 12):
        (folder.path / "rows" / f"{index:07d}.json").unlink()
    return folder


def test_the_command_gives_the_same_rows(unfinished, tiny_run):
    done = run(unfinished.path, "--executor", "ray")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ray: 1 node, " in done.stdout
    assert "Traceback" not in done.stderr
    assert rows(unfinished.population_path) == rows(tiny_run / "population.parquet")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_the_schedulers_signal_keep_what_is_finished(unfinished, tmp_path, sent):
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command(unfinished.path, "--executor", "ray"), stdout=log, stderr=log, start_new_session=True
        )
    wait_for_rows(unfinished, process, 6)
    # A terminal sends Ctrl-C to the whole group, a scheduler its signal to the command.
    os.killpg(process.pid, sent) if sent is signal.SIGINT else process.send_signal(sent)
    assert process.wait(4 * PATIENCE) == 3
    said = (tmp_path / "log").read_text()
    assert "stopping after the trainings in progress" in said
    assert "Rerun the command to resume" in said
    assert "Traceback" not in said
    assert pq.read_table(unfinished.population_path).num_rows == len(unfinished.finished()) >= 6
