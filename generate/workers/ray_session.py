"""The Ray driver in a separate process: Ray silently ends the process it is in when its cluster ends.

The parent joins the cluster through it before anything is trained, hands it the run folder, and outlives it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from generate.plan import Plan, plan_from_dict
from generate.run.folder import Claims, RunFolder
from generate.run.progress import Event, Report
from generate.workers.local import interrupts_held, last_words
from generate.workers.ray_cluster import check_room, connect, resources_of, unused_gpus
from generate.workers.ray_driver import run_ray
from popstats.errors import RunFolderError

POLL_SECONDS = 0.5
# Ray's farewell to a cluster that it has started itself takes a few seconds.
FAREWELL_SECONDS = 20.0
JOINED, FINISHED, STOP = "joined", "finished", "stop"
# After a signal to a whole job, the cluster may be gone before this process has handled its own.
SIGNAL_SECONDS = 1.0


@dataclass(frozen=True)
class _Order:
    """What the driver is to do."""

    folder: str
    workers: int | None
    device: str
    deadline: float


class RaySession:
    """The parent's side of a driver that has joined a cluster."""

    def __init__(self, process: Any, connection: Connection) -> None:
        self._process = process
        self._connection = connection
        self._stopping = False

    def train(
        self, folder: RunFolder, *, workers: int | None, device: torch.device, deadline: float, report: Report
    ) -> None:
        """Train what is missing; Ctrl-C once ends after the trainings in progress, twice at once."""
        self._send(_Order(str(folder.path), workers, str(device), deadline))
        while True:
            try:
                if self._step(FINISHED, report):
                    return
            except KeyboardInterrupt:
                if self._stopping:
                    raise
                self._stop(report)

    def wait_until_joined(self, report: Report) -> None:
        """Wait until the driver has joined a cluster with room."""
        while not self._step(JOINED, report):
            continue

    def close(self) -> None:
        """End the driver; it lets go of its actors by itself."""
        self._connection.close()
        self._process.join(FAREWELL_SECONDS)
        self._process.kill()
        self._process.join()

    def _stop(self, report: Report) -> None:
        self._stopping = True
        report(
            Event("note", message="stopping after the trainings in progress; press Ctrl-C again to drop them")
        )
        self._send(STOP)

    def _send(self, message: Any) -> None:
        # A driver that is gone is noticed by the next step, which knows what to say.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)

    def _step(self, last: str, report: Report) -> bool:
        """Pass on what the driver says; return whether it has said `last`."""
        wait([self._connection, self._process.sentinel], POLL_SECONDS)
        try:
            while self._connection.poll():
                message = self._connection.recv()
                if message == last:
                    return True
                if message.kind == "broken":
                    raise RunFolderError(message.message)
                report(message)
        except (EOFError, ConnectionResetError):
            self._process.join()
        return not self._process.is_alive() and self._gone(report)

    def _gone(self, report: Report) -> bool:
        """Say that the driver went with its cluster; return True if that was to be expected."""
        if not self._stopping:
            time.sleep(SIGNAL_SECONDS)
            raise RunFolderError(
                "--executor ray: the Ray cluster ended under this run (was Ray stopped on this node, or on the first "
                "one? did this node run out of memory?). Finished trainings are saved: start Ray again and "
                "rerun the command to resume."
            )
        report(Event("note", message="Ray ended before the trainings in progress did; they are dropped"))
        return True


@contextlib.contextmanager
def ray_session(plan: Plan, device: torch.device, report: Report) -> Iterator[RaySession]:
    """Join the cluster that RAY_ADDRESS or `ray start` names, or start Ray on this machine."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_drive, args=(plan.as_dict(), str(device), theirs), name="popstats Ray driver"
    )
    with interrupts_held():
        process.start()
    theirs.close()
    session = RaySession(process, ours)
    try:
        session.wait_until_joined(report)
        yield session
    finally:
        session.close()


def _drive(plan: dict[str, Any], device: str, connection: Connection) -> None:
    """Body of the driver's process."""
    # The parent decides what a signal means. Not ignored, which the processes that Ray starts would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave_to_parent)
    try:
        _join_and_train(plan_from_dict(plan), torch.device(device), connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has ended, and nobody is left to tell
    except Exception as error:
        connection.send(last_words(error))


def _leave_to_parent(number: int, frame: object) -> None:
    return


def _join_and_train(plan: Plan, device: torch.device, connection: Connection) -> None:
    ray = connect()
    check_room(ray, resources_of(plan, device))
    if sentence := unused_gpus(ray, device):
        connection.send(Event("note", message=sentence))
    connection.send(JOINED)
    order = connection.recv()
    folder = RunFolder(Path(order.folder))
    with contextlib.closing(Claims(folder)) as claims:
        run_ray(
            folder,
            claims,
            workers=order.workers,
            device=torch.device(order.device),
            deadline=order.deadline,
            report=connection.send,
            # Raises where the parent has ended, so that this process does too.
            asked_to_stop=lambda: connection.poll() and connection.recv() == STOP,
        )
    connection.send(FINISHED)
