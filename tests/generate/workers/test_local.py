"""Workers as their parent sees them."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from generate.run.folder import Claims, RunFolder
from generate.run.progress import Event
from generate.workers.local import Outcomes, _Crew, _next_event, _Worker
from popstats.errors import RunFolderError


def test_a_worker_that_dies_in_the_middle_of_a_message_has_said_nothing():
    ours, theirs = multiprocessing.Pipe()
    theirs.send(Event("done", 3, 90.0))
    # The length of what would follow, and a part of it.
    os.write(theirs.fileno(), (1000).to_bytes(4, "big") + b"half")
    theirs.close()
    assert _next_event(ours) == Event("done", 3, 90.0)
    assert _next_event(ours) is None
    ours.close()


def test_a_worker_with_nothing_to_say():
    ours, theirs = multiprocessing.Pipe()
    assert _next_event(ours) is None
    theirs.close()
    assert _next_event(ours) is None
    ours.close()


def test_an_impatient_ctrl_c_leaves_no_worker_at_work(tmp_path, monkeypatch):
    """Pressed once more while workers are being ended: one that is left goes on for as long as its training takes."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    claims = Claims(folder)
    crew = _Crew(folder, claims, 0.0, Outcomes(folder, lambda event: None))
    for _ in range(2):
        ours, _ = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), daemon=True)
        process.start()
        crew.workers.append(_Worker(process, ours, "cpu"))
    first = crew.workers[0].process
    kill = first.kill

    def pressed_again() -> None:
        kill()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(first, "kill", pressed_again)
    crew.kill()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [worker.process.exitcode for worker in crew.workers] == [-signal.SIGKILL] * 2
    for worker in crew.workers:
        worker.connection.close()
    claims.close()


def outcomes(folder: Path, kinds: str) -> Outcomes:
    """What becomes of trainings, one letter each: d for done, else a kind of failure."""
    found = Outcomes(RunFolder(folder), lambda event: None)
    for index, kind in enumerate(kinds):
        message = f"the loss is nan after {index / 3:.3g} epochs, {kind}"
        found.take(Event("done", index) if kind == "d" else Event("failed", index, message=message))
    return found


def test_a_run_stops_after_ten_failures_of_one_kind_where_nothing_succeeds(tmp_path):
    outcomes(tmp_path, "a" * 9)
    with pytest.raises(
        RunFolderError, match="no training of this run has succeeded, and 10 failed in the same way"
    ):
        outcomes(tmp_path, "a" * 10)
    with pytest.raises(RunFolderError, match="in the same way"):
        outcomes(tmp_path, "ab" * 5 + "a" * 5)
    outcomes(tmp_path, "d" + "a" * 30)
    outcomes(tmp_path, "a" * 9 + "d" + "a" * 30)
