"""The Slurm script of docs/clusters.md, run with stubs for Slurm, Ray and the command: what it starts and how it ends."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "clusters.md"
PATIENCE = 30.0
SLURM = {"SLURM_JOB_NUM_NODES": "4", "SLURM_CPUS_PER_TASK": "32", "SLURMD_NODENAME": "node1"}
# Each stub writes down how it was called, then does its part.
STUBS = {
    "ray": 'if [ "$1" = start ]; then exit ${RAY_START:-0}; fi',
    "srun": "exec sleep 60",
    "python": "trap 'echo table >> calls; exit 3' TERM; for i in $(seq ${TRAINS:-0}); do sleep 0.05; done; exit ${ENDS:-0}",
}


@pytest.fixture
def start(tmp_path):
    """Start the script as Slurm would; what it calls stands in the file `calls`."""
    match = re.search(r"```sh\n(#!/bin/bash\n#SBATCH.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "script").write_text(match[1])
    (tmp_path / "bin").mkdir()
    for name, part in STUBS.items():
        stub = tmp_path / "bin" / name
        stub.write_text(f'#!/bin/bash\necho {name} "$@" >> calls\n{part}\n')
        stub.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"

    def start(**settings: str) -> subprocess.Popen:
        environment = os.environ | SLURM | {"PATH": path} | settings
        return subprocess.Popen(["bash", "script"], cwd=tmp_path, env=environment)

    return start


def calls(tmp_path: Path) -> list[str]:
    file = tmp_path / "calls"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("status", [0, 2, 3])
def test_the_job_ends_as_the_command_does(start, tmp_path, status):
    assert start(ENDS=str(status)).wait(PATIENCE) == status
    said = calls(tmp_path)
    assert said[0] == "ray start --head --port 6379 --num-cpus 32"
    assert any("--executor ray" in call for call in said if call.startswith("python"))
    assert said[-1] == "ray stop"


def test_the_other_nodes_join_the_first(start, tmp_path):
    assert start(TRAINS="20").wait(PATIENCE) == 0
    (srun,) = [call for call in calls(tmp_path) if call.startswith("srun")]
    assert srun.startswith("srun --nodes 3 --ntasks 3 --exclude node1 --cpus-per-task 32")
    assert srun.endswith("ray start --address node1:6379 --num-cpus 32 --block")


def test_without_ray_the_job_fails(start, tmp_path):
    """A job that reports success without having trained would let the jobs that wait for it start."""
    assert start(RAY_START="1").wait(PATIENCE) == 1
    assert len(calls(tmp_path)) == 1


def test_a_signal_leaves_the_command_time_to_write_the_table(start, tmp_path):
    script = start(TRAINS="400")
    end = time.monotonic() + PATIENCE
    while not any(call.startswith("python") for call in calls(tmp_path)):
        assert time.monotonic() < end
        time.sleep(0.02)
    children = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().split()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
    (command,) = [int(pid) for pid, line in commands.items() if "python" in line]
    time.sleep(0.2)
    for pid in (script.pid, command):
        os.kill(pid, signal.SIGTERM)
    assert script.wait(PATIENCE) == 3
    assert "table" in calls(tmp_path)
    assert calls(tmp_path)[-1] == "ray stop"
