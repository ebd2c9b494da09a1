"""A command in a child process, as its parent sees it: it ends with a status, or disappears silently."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from generate.population import main
from generate.workers.processes import first_interrupt_noted, in_own_process
from popstats.errors import RunFolderError

# Two cores that others use too: only a test that hangs takes longer.
PATIENCE = 300.0


def refused(folder: Path) -> int:
    return 2


def broken(folder: Path) -> int:
    return 1 // 0


def gone(folder: Path) -> int:
    """Ray ends its process like this when the cluster goes: no exception, no farewell."""
    os._exit(1)


def gone_when_stopped(folder: Path) -> int:
    with first_interrupt_noted() as asked_to_stop:
        (folder / "working").touch()
        while not asked_to_stop():
            time.sleep(0.01)
    os._exit(1)


def stopped_when_impatient(folder: Path) -> int:
    try:
        with first_interrupt_noted() as asked_to_stop:
            (folder / "working").touch()
            while not asked_to_stop():
                time.sleep(0.01)
            (folder / "asked").touch()
            time.sleep(PATIENCE)
    except KeyboardInterrupt:
        return 3
    return 0


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def interrupt_when(*paths: Path) -> threading.Thread:
    """Press Ctrl-C as each of these files appears."""

    def press() -> None:
        for path in paths:
            wait_for(path)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def test_its_status_is_the_commands(tmp_path):
    assert in_own_process(refused, tmp_path, tmp_path) == 2


def test_an_error_without_a_sentence_shows_its_trace(tmp_path, capfd):
    assert in_own_process(broken, tmp_path, tmp_path) == os.EX_SOFTWARE
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_cluster_that_ends_under_a_run_leaves_the_table_and_a_sentence(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("generate.workers.processes.SIGNAL_SECONDS", 0.0)
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    (folder / "population.parquet").unlink()
    with pytest.raises(RunFolderError, match=r"cluster ended under this run .*Finished trainings are saved"):
        in_own_process(gone, folder, folder)
    assert pq.read_table(folder / "population.parquet").num_rows == 12


def test_a_cluster_that_ends_with_the_job_is_no_error(tmp_path, capsys):
    """A scheduler's signal goes to Ray too, which drops its current training."""
    thread = interrupt_when(tmp_path / "working")
    with pytest.raises(KeyboardInterrupt):
        in_own_process(gone_when_stopped, tmp_path, tmp_path)
    thread.join()
    assert "Ray ended before the trainings in progress did; they are dropped" in capsys.readouterr().err


def test_the_second_interrupt_ends_a_command_that_waits(tmp_path):
    thread = interrupt_when(tmp_path / "working", tmp_path / "asked")
    assert in_own_process(stopped_when_impatient, tmp_path, tmp_path) == 3
    thread.join()


def test_it_ends_with_its_parent(tmp_path):
    script = (
        "from pathlib import Path\n"
        "from generate.workers.processes import in_own_process\n"
        "from tests.generate.workers.test_processes import gone_when_stopped\n"
        f"if __name__ == '__main__': in_own_process(gone_when_stopped, Path({str(tmp_path)!r}), None)\n"
    )
    (tmp_path / "parent.py").write_text(script)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], env=os.environ | {"PYTHONPATH": "."}
    )
    wait_for(tmp_path / "working")
    children = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert children
    assert not alive


def test_a_finished_run_asks_for_no_cluster(tiny_run, tiny_plan, tmp_path, monkeypatch, capfd):
    shutil.copytree(tiny_run, tmp_path / "run")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    options = ["--out", str(tmp_path / "run"), "--device", "cpu", "--executor", "ray"]
    assert main([str(tiny_plan), *options]) == 0
    assert "12 of 12 trainings finished" in capfd.readouterr().out


def test_the_parent_of_a_command_needs_no_torch():
    code = "import sys, generate.population, generate.workers.processes; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
