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


HOLD = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from generate.run.folder import Claims, RunFolder
claims = Claims(RunFolder(Path(sys.argv[1])))
with ExitStack() as held:
    if sys.argv[2] == "preparation":
        held.enter_context(claims.preparation())
    else:
        for index in sys.argv[2].split(","):
            held.enter_context(claims.claim(int(index)))
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process_holds(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the preparation lock, or the claims of some trainings (such as "3,4")."""
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
            done = run(folder, "--workers", "1", plan=tiny_plan)
            assert done.returncode == 0, done.stdout + done.stderr
    return folder
