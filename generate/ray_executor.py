"""Training on a Ray cluster: actors train, the driver alone writes, so nodes need no shared file system.

An actor that is lost with its node costs the training that it was at; that training goes to another actor.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from generate.executors import DEATHS_OF_A_TRAINING, Event, Report, check_first_failures, event_of, failed_row
from generate.preparation import reopen
from generate.ray_actor import Trainer, parts_of
from generate.ray_cluster import connect, describe, room_for
from generate.run_folder import Claims, RunFolder, write_whole
from generate.subnetworks import known_columns
from generate.worklist import Training
from popstats.errors import RunFolderError

__all__ = ["run_ray"]

POLL_SECONDS = 0.5
# Actors that are lost this often in a row without a finished training will not get further.
LOSSES_WITHOUT_PROGRESS = 20
# An actor that has not started by then waits for room: others use the cluster, or its nodes are gone.
ROOM_SECONDS = 60.0
# What Ray raises when an actor, its node or its result is gone, and not because of what the training did.
LOSSES = ("RayActorError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")


class _LostError(Exception):
    """An actor, its node or its result is gone."""


def _broken(error: Exception) -> RunFolderError:
    return RunFolderError(
        "--executor ray: an actor met an error that it has no sentence for. Does every node have the same "
        f"version of this package, with the extra [generate]?\n{error}"
    )


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


@dataclass
class _Pool:
    """Actors and what they are at. Futures are Ray's handles of results to come."""

    ray: Any
    actor_class: Any
    parts: Any
    opening: dict[Any, Any] = field(default_factory=dict)
    idle: deque[Any] = field(default_factory=deque)
    busy: dict[Any, tuple[Any, Training, ExitStack]] = field(default_factory=dict)

    def open_actor(self) -> None:
        actor = self.actor_class.remote(self.parts)
        self.opening[actor.ready.remote()] = actor

    def replace_actor(self, lost: Any) -> None:
        """Open another actor; the lost one may be alive where only its result is gone."""
        self.ray.kill(lost)
        self.open_actor()

    def result(self, future: Any) -> Any:
        """Return what a future holds.

        Raises
        ------
        _LostError
            If it was lost on the way.
        RunFolderError
            If the actor met an error that is not the training's.
        """
        exceptions = self.ray.exceptions
        try:
            return self.ray.get(future)
        except tuple(getattr(exceptions, name) for name in LOSSES) as error:
            if getattr(error, "actor_init_failed", False):
                raise _broken(error) from error
            raise _LostError(_last_line(error)) from error
        except exceptions.RayTaskError as error:
            raise _broken(error) from error

    def assign(self, training: Training, claim: ExitStack) -> None:
        actor = self.idle.popleft()
        self.busy[actor.train.remote(training.as_dict())] = (actor, training, claim)

    def finished(self) -> list[Any]:
        """Wait a moment; return the futures that have something to say."""
        futures = [*self.opening, *self.busy]
        if not futures:
            time.sleep(POLL_SECONDS)
            return []
        # One is enough to go on: an actor that has finished must not idle until the others have.
        self.ray.wait(futures, num_returns=1, timeout=POLL_SECONDS)
        done, _ = self.ray.wait(futures, num_returns=len(futures), timeout=0)
        return list(done)

    def close(self) -> None:
        for _, _, claim in self.busy.values():
            claim.close()
        for actor in (*self.opening.values(), *self.idle, *(entry[0] for entry in self.busy.values())):
            self.ray.kill(actor)


def run_ray(
    folder: RunFolder,
    claims: Claims,
    *,
    workers: int | None,
    device: torch.device,
    deadline: float,
    report: Report,
) -> bool:
    """Train what is missing on a Ray cluster; return whether everything is finished.

    Connects to the cluster that RAY_ADDRESS or `ray start` names; without one it starts Ray on this machine.

    Parameters
    ----------
    folder, claims, deadline, report
        As for `run_local`.
    workers : int, optional
        Actors; default: as many as the cluster has CPUs, or GPUs divided by the plan's `gpus_per_training`.
    device : torch.device
        Its kind decides what an actor asks the cluster for.

    Raises
    ------
    RunFolderError
        If Ray is not installed or the cluster has no room for any actor.
    """
    plan = folder.read_plan()
    if plan is None:
        raise RunFolderError(f"{folder.path} holds no plan.")
    ray = connect()
    resources = {"num_cpus": 1, "num_gpus": plan.gpus_per_training if device.type == "cuda" else 0}
    count = min(workers or room_for(ray, resources), len(folder.read_worklist()) - len(folder.finished()))
    report(Event("note", message=describe(ray, count)))
    # Without a limit on restarts an actor would come back empty on another node and be called as if nothing had happened.
    actor_class = ray.remote(max_restarts=0, **resources)(Trainer)
    pool = _Pool(ray, actor_class, ray.put(parts_of(folder, plan, device)))
    driver = _Driver(folder, claims, report, deadline, pool)
    try:
        for _ in range(count):
            pool.open_actor()
        driver.run()
    finally:
        pool.close()
    return len(folder.finished()) >= driver.total


@dataclass
class _Driver:
    """Deals trainings out to actors and writes what comes back."""

    folder: RunFolder
    claims: Claims
    report: Report
    deadline: float
    pool: _Pool
    losses: Counter[int] = field(default_factory=Counter)
    losses_in_a_row: int = 0
    done: int = 0
    failures: int = 0
    stopping: bool = False
    waiting_since: float = field(default_factory=time.monotonic)
    other_nodes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.trainings = self.folder.read_worklist()
        self.total = len(self.trainings)

    def run(self) -> None:
        while True:
            try:
                missing = self._missing()
                if self._is_over(missing):
                    return
                self._assign(missing)
                self._say_if_nothing_starts()
                for future in self.pool.finished():
                    self._take(future)
            except KeyboardInterrupt:
                if self.stopping:
                    raise
                self.stopping = True
                self._note("stopping after the trainings in progress; press Ctrl-C again to drop them")

    def _missing(self) -> deque[Training]:
        finished = self.folder.finished()
        at_work = {training.index for _, training, _ in self.pool.busy.values()}
        return deque(t for t in self.trainings if t.index not in finished and t.index not in at_work)

    def _is_over(self, missing: deque[Training]) -> bool:
        stopped = self.stopping or time.time() >= self.deadline
        return not self.pool.busy and (stopped or not missing)

    def _assign(self, missing: deque[Training]) -> None:
        """Give every idle actor a training that no other process holds."""
        while missing and self.pool.idle and not self.stopping and time.time() < self.deadline:
            training = missing.popleft()
            claim = ExitStack()
            if claim.enter_context(self.claims.claim(training.index)) and not self.folder.is_finished(
                training.index
            ):
                self.report(Event("started", training.index))
                self.pool.assign(training, claim)
            else:
                claim.close()

    def _say_if_nothing_starts(self) -> None:
        if self.pool.idle or self.pool.busy or not self.pool.opening:
            self.waiting_since = time.monotonic()
        elif time.monotonic() - self.waiting_since > ROOM_SECONDS:
            self.waiting_since = math.inf
            self._note(
                f"no actor has started for {ROOM_SECONDS:.0f} s: the cluster has no room for one, or its nodes are "
                "slow; `ray status` shows who uses it"
            )

    def _note(self, sentence: str) -> None:
        self.report(Event("note", message=sentence))

    def _take(self, future: Any) -> None:
        if future in self.pool.opening:
            self._take_opened(future)
            return
        actor, training, claim = self.pool.busy.pop(future)
        with claim:
            try:
                row, weights = self.pool.result(future)
            except _LostError as error:
                self._lost(actor, training, error)
                return
            self._write(training, row, weights)
        self.pool.idle.append(actor)

    def _take_opened(self, future: Any) -> None:
        actor = self.pool.opening.pop(future)
        try:
            node, torch_version = self.pool.result(future)
        except _LostError as error:
            self._count_loss(error)
            self.pool.replace_actor(actor)
            return
        self._say_if_another_torch(node, torch_version)
        self.pool.idle.append(actor)
        self.report(Event("ready"))

    def _say_if_another_torch(self, node: str, version: str) -> None:
        here = str(torch.__version__)
        if version != here and node not in self.other_nodes:
            self.other_nodes.add(node)
            self._note(
                f"{node} has torch {version}, this machine {here}: equal recipes and seeds differ by seed noise"
            )

    def _write(self, training: Training, row: dict[str, Any], weights: bytes) -> None:
        if weights:
            write_whole(self.folder.trained_weights(training.subnetwork_id), weights)
        self.folder.write_row(training.index, row)
        event = event_of(training.index, row)
        self.losses_in_a_row = 0
        self.done += 1
        self.failures += event.kind == "failed"
        check_first_failures(self.folder, self.done, self.failures, event.message)
        self.report(event)

    def _lost(self, actor: Any, training: Training, error: Exception) -> None:
        """Open another actor; the training is missing again, unless it took too many actors with it."""
        self._count_loss(error)
        self.losses[training.index] += 1
        self.pool.replace_actor(actor)
        if self.losses[training.index] < DEATHS_OF_A_TRAINING:
            self._note(
                f"the actor of training {training.index} was lost, another one takes it over ({error})"
            )
            return
        reason = f"its actor was lost {DEATHS_OF_A_TRAINING} times"
        columns = known_columns(reopen(self.folder, torch.device("cpu")), training)
        self.folder.write_row(training.index, failed_row(columns, reason))
        self.report(Event("failed", training.index, message=reason))

    def _count_loss(self, error: Exception) -> None:
        self.losses_in_a_row += 1
        if self.losses_in_a_row >= LOSSES_WITHOUT_PROGRESS:
            raise RunFolderError(
                "--executor ray: actors are lost again and again before they finish anything. The "
                f"last one: {error}"
            ) from error
