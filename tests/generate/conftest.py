"""A plan small enough for tests, and its population made in one piece."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from generate.population import main

TINY = """
name = "tiny"
description = "For tests."
[network]
width = 0.5
[images]
limit = 100
[original.training]
epochs = 20
batch_size = 20
augmentation = "shift1"
[retraining.fine-tune]
epochs = 4
learning_rate = 0.05
schedule = "one-cycle"
[[recipes]]
regimes = [0.4, 0.7]
count = 3
round_to = 2
seeds = 2
"""

# What may differ between two runs of one plan: how long it took, when, and at which commit of the checkout.
CLOCKS = ("seconds", "started_at", "code_version")


def command(folder: Path, *options: str, plan: Path | None = None) -> list[str]:
    named = [] if plan is None else [str(plan)]
    return [
        sys.executable,
        "-m",
        "generate.population",
        *named,
        "--out",
        str(folder),
        "--device",
        "cpu",
        *options,
    ]


def run(folder: Path, *options: str, plan: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *options, plan=plan), capture_output=True, text=True, timeout=400, check=False
    )


def rows(path: Path) -> list[dict]:
    """The population's rows in order, without clocks."""
    return pq.read_table(path).drop_columns(list(CLOCKS)).to_pylist()


# As another process sees the folder: byte i + 1 of `claims` belongs to training i, byte 0 to the preparation. Plain locks,
# because the package would import torch for seconds.
HOLD = """
import fcntl, sys, time
claims = open(sys.argv[1] + "/claims", "r+b")
for index in sys.argv[2].split(","):
    fcntl.lockf(claims, fcntl.LOCK_EX, 1, int(index) + 1)
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def another_process_holds(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the claims of some trainings (such as "3,4"), or the preparation lock, "-1"."""
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), what], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout.readline() == "held\n"
        yield owner
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


ASK = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1] + "/claims", "r+b"), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]) + 1)
except BlockingIOError:
    print("held")
"""


def is_held(folder: Path, index: int) -> bool:
    """Let another process say whether a training (or the preparation, -1) is claimed."""
    asked = [sys.executable, "-c", ASK, str(folder), str(index)]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "held\n"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all processes of a parallel test session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_plan(shared_folder) -> Path:
    path = shared_folder / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_run(shared_folder, tiny_plan) -> Path:
    """A run folder of the tiny plan, made undisturbed by one worker, once a session."""
    folder = shared_folder / "tiny"
    with open(shared_folder / "lock", "w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        if not (folder / "population.parquet").exists():
            options = ["--out", str(folder), "--device", "cpu", "--workers", "1"]
            assert main([str(tiny_plan), *options]) == 0
    return folder
