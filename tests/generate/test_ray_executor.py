"""Training on a Ray cluster: two nodes on this machine, one of them lost on the way."""

import logging
import math
import threading
import time

import pytest
import torch

from generate.plan import read_plan
from generate.population import _check
from generate.preparation import prepare
from generate.ray_executor import run_ray
from generate.run_folder import Claims, RunFolder
from tests.generate.conftest import TINY, rows

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 2,
}


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one CPU each; yields the cluster and the node that may be lost."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": FAST_HEALTH_CHECKS},
    )
    second = made.add_node(num_cpus=1)
    ray.init(address=made.address, logging_level=logging.ERROR, log_to_driver=False)
    yield made, second
    ray.shutdown()
    made.shutdown()


def test_a_lost_node_costs_nothing_but_time(cluster, tmp_path, tiny_plan, tiny_run):
    made, second = cluster
    torch.set_num_threads(1)
    surveyed, folder = _check(read_plan(tiny_plan), tmp_path / "run")
    events = []

    def lose_the_second_node() -> None:
        while sum(event.kind == "done" for event in events) < 2:
            time.sleep(0.05)
        made.remove_node(second, allow_graceful=False)

    claims = Claims(folder)
    with claims.preparation():
        prepare(folder, surveyed, TINY, torch.device("cpu"))
    saboteur = threading.Thread(target=lose_the_second_node, daemon=True)
    saboteur.start()
    complete = run_ray(
        folder, claims, workers=None, device=torch.device("cpu"), deadline=math.inf, report=events.append
    )
    claims.close()
    saboteur.join()
    assert complete
    assert len(RunFolder(folder.path).finished()) == 12
    folder.compact({})
    assert rows(folder.population_path) == rows(tiny_run / "population.parquet")
