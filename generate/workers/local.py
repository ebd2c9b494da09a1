"""Who trains: worker processes on this machine (`ray_driver` does the same on a cluster).

Workers share nothing but the run folder. Each claims trainings by byte-range locks and writes its own rows, so
that any of them, and the parent, may die at any moment; a worker ends when its parent does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from generate.recipes.worklist import Training
from generate.run.folder import Claims, RunFolder, write_whole
from generate.run.prepare import worker_context
from generate.run.progress import Event, Report
from generate.run.rounds import extend
from generate.train.device import release_freed_memory, settle_on_device
from generate.train.original import weights_bytes
from generate.train.subnetwork import (
    DEVICE_LOST,
    OUT_OF_MEMORY,
    DeviceError,
    WorkerContext,
    known_columns,
    train_subnetwork,
)
from generate.workers.processes import end_with_parent, interrupts_held
from popstats.errors import PopstatsError, RunFolderError

# A training that takes its worker down with it this often is recorded as failed.
LOSSES_OF_A_TRAINING = 3
# Workers that are lost this often in a row, without a finished training in between, will not get further.
LOSSES_WITHOUT_PROGRESS = 20
# Failures of one kind after which a run ends in which nothing has succeeded.
FIRST_FAILURES = 10
POLL_SECONDS = 0.5
STOPPING = Event("note", message="stopping after the trainings in progress; press Ctrl-C again to drop them")
DEVICE_FAILURES: dict[int | None, str] = {
    OUT_OF_MEMORY: "ran out of GPU memory",
    DEVICE_LOST: "lost its GPU to an error",
}


@dataclass
class Outcomes:
    """What has become of a run's trainings so far, and of the workers that were lost with them."""

    folder: RunFolder
    report: Report
    finished: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by kind
    losses: Counter[int] = field(default_factory=Counter)  # by training
    losses_in_a_row: int = 0

    def take(self, event: Event) -> None:
        """Count and report an event; where no training ends well, the plan is at fault and not the recipes."""
        if event.kind in ("done", "failed"):
            self.finished += 1
            self.losses_in_a_row = 0
        if event.kind == "failed":
            kind = re.sub(r"[0-9.e+-]+", "#", event.message)
            self.failures[kind] += 1
            if self.failures.total() == self.finished and self.failures[kind] == FIRST_FAILURES:
                raise RunFolderError(
                    f"{self.folder.path}: no training of this run has succeeded, and {FIRST_FAILURES} failed in the same "
                    f"way: {event.message}. Check the network and the plan's retraining settings, and start a new folder "
                    "with --out."
                )
        self.report(event)

    def lost(self, index: int, ending: str) -> bool:
        """Count a worker that was lost at a training (-1: at none); return whether that is to be given up."""
        self.losses_in_a_row += 1
        if self.losses_in_a_row >= LOSSES_WITHOUT_PROGRESS:
            raise RunFolderError(
                f"{self.folder.path}: workers keep ending before they finish a training (the last one {ending}). Is "
                "there enough memory? Try fewer --workers."
            )
        self.losses[index] += 1
        return index >= 0 and self.losses[index] >= LOSSES_OF_A_TRAINING

    def give_up(self, index: int, reason: str) -> None:
        """Write the failed row of a training that took its workers with it."""
        context = worker_context(self.folder, torch.device("cpu"))
        known = known_columns(context, self.folder.read_worklist()[index])
        reason = f"its worker {reason}, {LOSSES_OF_A_TRAINING} times"
        self.folder.write_row(index, known | {"status": "failed", "error": reason, "seconds": 0.0})
        self.report(Event("failed", index, message=reason))


@dataclass
class _Worker:
    """One worker process, as its parent sees it."""

    process: Any
    connection: Connection
    device: str
    training: int = -1


@dataclass
class _Crew:
    """The workers of one run."""

    folder: RunFolder
    claims: Claims
    deadline: float
    outcomes: Outcomes
    workers: list[_Worker] = field(default_factory=list)
    stopping: bool = False

    def start(self, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (str(self.folder.path), device, theirs, self.deadline)
        process = context.Process(target=_work, args=arguments, name="popstats worker")
        # Interrupted between its start and its entry here, it would keep training.
        with interrupts_held():
            process.start()
            theirs.close()
            self.workers.append(_Worker(process, ours, device))

    def stop(self) -> None:
        """Ask all workers to end after their current training."""
        self.stopping = True
        self.outcomes.take(STOPPING)
        for worker in self.workers:
            # One that has just ended by itself needs no message.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker.connection.send("stop")

    def kill(self) -> None:
        """End all workers now; another Ctrl-C in between must not leave some of them training."""
        # Blocked in this thread alone, it would reach Python through another one.
        before = {which: signal.signal(which, signal.SIG_IGN) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            for worker in self.workers:
                worker.process.kill()
            for worker in self.workers:
                worker.process.join()
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def step(self) -> None:
        """Wait for messages and deaths, and deal with them."""
        ready = wait(
            [w.connection for w in self.workers] + [w.process.sentinel for w in self.workers], POLL_SECONDS
        )
        for worker in list(self.workers):
            while (event := _next_event(worker.connection)) is not None:
                if event.kind == "broken":
                    raise RunFolderError(event.message)
                worker.training = event.index if event.kind == "started" else -1
                self.outcomes.take(event)
            if worker.process.sentinel in ready:
                self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """Replace a worker that died; one that ended by itself has found nothing left to do."""
        worker.process.join()
        worker.connection.close()
        self.workers.remove(worker)
        if worker.process.exitcode == 0 or self.stopping:
            return
        index, ending = worker.training, _ending(worker.process.exitcode)
        if self.outcomes.lost(index, ending):
            with self.claims.claim(index) as mine:
                if mine and not self.folder.is_finished(index):
                    self.outcomes.give_up(index, ending)
        self.start(worker.device)


def _next_event(connection: Connection) -> Event | None:
    """Return a message that is there; a worker that died, be it in the middle of a message, has none."""
    try:
        event: Event | None = connection.recv() if connection.poll() else None
    except (EOFError, OSError):
        return None
    return event


def _ending(exitcode: int | None) -> str:
    if exitcode in DEVICE_FAILURES:
        return DEVICE_FAILURES[exitcode]
    if exitcode is not None and exitcode < 0:
        return f"was ended by {signal.Signals(-exitcode).name}"
    return f"ended with exit code {exitcode}"


def run_local(
    folder: RunFolder, claims: Claims, *, devices: Sequence[str], deadline: float, report: Report
) -> None:
    """Train what is missing with one worker per device; Ctrl-C lets them finish their trainings, twice ends them at once."""
    crew = _Crew(folder, claims, deadline, Outcomes(folder, report))
    try:
        for device in devices if time.time() < deadline else ():
            crew.start(device)
        while crew.workers:
            try:
                crew.step()
            except KeyboardInterrupt:
                if crew.stopping:
                    raise
                crew.stop()
    finally:
        crew.kill()


def _work(folder_path: str, device: str, connection: Connection, deadline: float) -> None:
    """Body of a worker process."""
    # Ctrl-C reaches the whole process group: the parent decides what becomes of the training in progress.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    settle_on_device(torch.device(device))
    folder = RunFolder(Path(folder_path))
    try:
        context = worker_context(folder, torch.device(device))
        connection.send(Event("ready"))
        _train_missing(folder, context, connection, deadline)
    except torch.OutOfMemoryError:
        sys.exit(OUT_OF_MEMORY)
    except DeviceError as error:
        sys.exit(error.exit_code)
    except PopstatsError as error:
        connection.send(Event("broken", message=str(error)))
    except Exception:
        trace = traceback.format_exc()
        connection.send(Event("broken", message=f"Unexpected error in a worker:\n{trace}"))


def _train_missing(
    folder: RunFolder, context: WorkerContext, connection: Connection, deadline: float
) -> None:
    """Train until nothing is missing; where others hold all that is missing, wait, since they may die."""
    claims = Claims(folder)
    while True:
        finished = folder.finished()
        missing = [training for training in folder.read_worklist() if training.index not in finished]
        if not missing and not extend(folder, claims, lambda: context):
            return
        worked = False
        for training in missing:
            if connection.poll() or time.time() >= deadline:
                return
            worked |= _train_if_free(folder, claims, context, training, connection)
        if missing and not worked and connection.poll(POLL_SECONDS):
            return


def _train_if_free(
    folder: RunFolder, claims: Claims, context: WorkerContext, training: Training, connection: Connection
) -> bool:
    """Train one subnetwork unless another process does or did; return whether it was trained."""
    if folder.is_finished(training.index):
        return False
    with claims.claim(training.index) as mine:
        # Looked at again under the lock: another process may have finished it a moment ago.
        if not mine or folder.is_finished(training.index):
            return False
        connection.send(Event("started", training.index))
        row, network = train_subnetwork(context, training)
        release_freed_memory()
        if network is not None and context.keeps_weights(training):
            write_whole(folder.trained_weights(training.subnetwork_id), weights_bytes(network))
        folder.write_row(training.index, row)
    connection.send(event_of(training.index, row))
    return True


def event_of(index: int, row: dict[str, Any]) -> Event:
    """Return what a finished row means for the display."""
    if row["status"] == "failed":
        return Event("failed", index, seconds=row["seconds"], message=row["error"])
    return Event("done", index, accuracy=row["accuracy"], seconds=row["seconds"])
