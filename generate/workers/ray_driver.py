"""Training on a Ray cluster: actors train, the driver alone writes, so nodes need no shared file system.

An actor that is lost with its node loses its current training, which goes to another actor.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from generate.recipes.worklist import Training
from generate.run.folder import Claims, RunFolder, write_whole
from generate.run.prepare import worker_context
from generate.run.progress import Event, Report
from generate.run.rounds import extend
from generate.train.subnetwork import WorkerContext
from generate.workers.local import STOPPING, Outcomes, event_of
from generate.workers.processes import first_interrupt_noted
from generate.workers.ray_cluster import describe, join, room_for
from generate.workers.ray_pool import LostError, Pool, Trainer, UnfitError, parts_of
from popstats.errors import RunFolderError

# An actor that has not started by then waits for room: others use the cluster, or its nodes are gone.
ROOM_SECONDS = 60.0
# Nodes that join a running cluster are looked for this often.
LOOK_SECONDS = 10.0


def run_ray(
    folder: RunFolder,
    claims: Claims,
    *,
    workers: int | None,
    device: torch.device,
    deadline: float,
    report: Report,
) -> None:
    """Train what is missing on the cluster that `join` finds; Ctrl-C once lets the trainings in progress finish."""
    plan, _ = folder.prepared()
    ray, resources = join(plan, device)
    # Without a limit on restarts an actor would come back empty on another node and be called as if nothing had happened.
    actor_class = ray.remote(max_restarts=0, **resources)(Trainer)
    pool = Pool(ray, actor_class, ray.put(parts_of(folder, plan, device)))
    try:
        with first_interrupt_noted() as asked_to_stop:
            _Driver(folder, claims, report, deadline, pool, workers, resources, asked_to_stop).run()
    finally:
        pool.close()


@dataclass
class _Driver:
    """Gives trainings to actors and writes what comes back."""

    folder: RunFolder
    claims: Claims
    report: Report
    deadline: float
    pool: Pool
    workers: int | None
    resources: Mapping[str, float]
    asked_to_stop: Callable[[], bool]
    stopping: bool = False
    unfit: int = 0
    told: set[str] = field(default_factory=set)
    look_again: float = -math.inf
    waiting_since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.outcomes = Outcomes(self.folder, self.report)
        self.trainings = self.folder.read_worklist()

    @cached_property
    def _context(self) -> WorkerContext:
        return worker_context(self.folder, torch.device("cpu"))

    def run(self) -> None:
        while True:
            if not self.stopping and self.asked_to_stop():
                self.stopping = True
                self.report(STOPPING)
            finished = self.folder.finished()
            whole = not self.stopping and all(training.index in finished for training in self.trainings)
            if whole and extend(self.folder, self.claims, lambda: self._context):
                self.trainings = self.folder.read_worklist()
            at_work = {training.index for _, training, _ in self.pool.busy.values()}
            missing = deque(t for t in self.trainings if t.index not in finished and t.index not in at_work)
            if not self.pool.busy and (self.stopping or time.time() >= self.deadline or not missing):
                return
            self._open_where_there_is_room(len(missing))
            self._assign(missing)
            self._say_if_nothing_starts()
            for future in self.pool.finished():
                self._take(future)

    def _open_where_there_is_room(self, missing: int) -> None:
        """Open actors: all at first, later on nodes that have joined."""
        if time.monotonic() < self.look_again:
            return
        self.look_again = time.monotonic() + LOOK_SECONDS
        room = (self.workers or room_for(self.pool.ray, self.resources)) - self.unfit
        more = min(room, missing + len(self.pool.busy)) - self.pool.size
        for _ in range(more):
            self.pool.open_actor()
        if more > 0:
            self._note(describe(self.pool.ray, self.pool.size))

    def _assign(self, missing: deque[Training]) -> None:
        """Give every idle actor a training that no other process holds."""
        while missing and self.pool.idle and not self.stopping and time.time() < self.deadline:
            training, claim = missing.popleft(), ExitStack()
            mine = claim.enter_context(self.claims.claim(training.index))
            if mine and not self.folder.is_finished(training.index):
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
                f"no actor has started for {ROOM_SECONDS:.0f} s: the cluster is full or its nodes are "
                "slow; `ray status` shows its use"
            )

    def _note(self, sentence: str) -> None:
        self.report(Event("note", message=sentence))

    def _note_once(self, sentence: str) -> None:
        if sentence not in self.told:
            self.told.add(sentence)
            self._note(sentence)

    def _take(self, future: Any) -> None:
        if future in self.pool.opening:
            self._take_opened(future)
            return
        actor, training, claim = self.pool.busy.pop(future)
        with claim:
            try:
                row, weights = self.pool.result(future)
            except LostError as error:
                self._lost(actor, training, error)
                return
            if weights:
                write_whole(self.folder.trained_weights(training.subnetwork_id), weights)
            self.folder.write_row(training.index, row)
        self.pool.idle.append(actor)
        self.outcomes.take(event_of(training.index, row))

    def _take_opened(self, future: Any) -> None:
        actor = self.pool.opening.pop(future)
        try:
            node, version = self.pool.result(future)
        except LostError as error:
            self.outcomes.lost(-1, f"was lost: {error}")
            self._note(
                "an actor was lost before it could train and is being replaced; is memory or /dev/shm full on its "
                f"node? ({error})"
            )
            self.pool.replace_actor(actor)
            return
        except UnfitError as error:
            self._do_without(error)
            return
        if version != (here := str(torch.__version__)):
            self._note_once(
                f"{node} has torch {version}, this machine {here}: equal recipes and seeds differ by seed noise"
            )
        self.pool.idle.append(actor)
        self.report(Event("ready"))

    def _do_without(self, error: UnfitError) -> None:
        """Go on without an actor that could not open, as long as there are others."""
        self.unfit += 1
        if not self.pool.size:
            raise RunFolderError(f"--executor ray: no training can run on {error}.") from error
        self._note_once(f"no training can run on {error}; continuing without it")

    def _lost(self, actor: Any, training: Training, error: Exception) -> None:
        """Open another actor; the training is missing again, unless it took too many actors with it."""
        if self.stopping:
            self._note(f"the actor of training {training.index} was lost; the next run repeats it ({error})")
            return
        given_up = self.outcomes.lost(training.index, f"was lost: {error}")
        self.pool.replace_actor(actor)
        if given_up:
            self.outcomes.give_up(training.index, "was lost")
        else:
            self._note(f"the actor of training {training.index} was lost; another one repeats it ({error})")
