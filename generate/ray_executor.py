"""Training on a Ray cluster: actors train, the driver alone writes, so nodes need no shared file system.

An actor that is lost with its node costs the training that it was at; that training goes to another actor.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from generate.executors import DEATHS_OF_A_TRAINING, Event, Report, check_first_failures, event_of, failed_row
from generate.images import ImageSet, Split, load_images
from generate.original import OriginalNumbers, weights_bytes
from generate.plan import Plan, plan_from_dict
from generate.preparation import assemble, reopen
from generate.run_folder import Claims, RunFolder, write_whole
from generate.subnetworks import known_columns, train_subnetwork
from generate.training import settle_on_one_core
from generate.worklist import Training
from popstats.errors import RunFolderError

__all__ = ["Trainer", "run_ray"]

POLL_SECONDS = 0.5
# Actors that are lost this often in a row without a finished training will not get further.
LOSSES_WITHOUT_PROGRESS = 20


@dataclass(frozen=True)
class Parts:
    """What an actor needs to train; sent once, in plain values and arrays.

    Parameters
    ----------
    plan, original : dict
        As in the run folder.
    splits : dict of tuple of numpy.ndarray
        Images and labels of train, validation and test.
    image_values : dict
        The image set's other fields.
    weights : bytes
        The original network's, as safetensors.
    device : str
        "cuda" or "cpu".
    """

    plan: Mapping[str, Any]
    original: Mapping[str, Any]
    splits: Mapping[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    image_values: Mapping[str, Any]
    weights: bytes
    device: str

    def images(self) -> ImageSet:
        """Rebuild the image set."""
        # Copied because Ray's shared arrays are read-only, which torch does not support.
        splits: dict[str, Any] = {
            name: Split(torch.from_numpy(images.copy()), torch.from_numpy(labels.copy()))
            for name, (images, labels) in self.splits.items()
        }
        return ImageSet(**self.image_values, **splits)


def parts_of(folder: RunFolder, plan: Plan, device: torch.device) -> Parts:
    """Return what actors need, from a prepared folder."""
    images = load_images(plan.images)
    splits = {
        name: (split.images.numpy(), split.labels.numpy())
        for name, split in (("train", images.train), ("validation", images.validation), ("test", images.test))
    }
    names = ("name", "classes", "mean", "std", "test_shift")
    values = {name: getattr(images, name) for name in names}
    original = folder.read_original() or {}
    return Parts(plan.as_dict(), original, splits, values, folder.weights_path.read_bytes(), device.type)


class Trainer:
    """The actor: opens its workbench once, then trains what it is given."""

    def __init__(self, parts: Parts) -> None:
        settle_on_one_core()
        original = OriginalNumbers(**parts.original)
        device = torch.device(parts.device)
        self._bench = assemble(plan_from_dict(parts.plan), parts.images(), parts.weights, original, device)

    def ready(self) -> bool:
        """Answer once the workbench is open."""
        return True

    def train(self, training: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return the row of one training, and its weights where the plan keeps them."""
        row, network = train_subnetwork(self._bench, Training.from_dict(training))
        keep = network is not None and self._bench.plan.keep_weights != "none"
        return row, weights_bytes(network) if keep and network is not None else b""


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

    def assign(self, training: Training, claim: ExitStack) -> None:
        actor = self.idle.popleft()
        self.busy[actor.train.remote(training.as_dict())] = (actor, training, claim)

    def finished(self) -> list[Any]:
        """Wait a moment; return the futures that have something to say."""
        futures = [*self.opening, *self.busy]
        if not futures:
            time.sleep(POLL_SECONDS)
            return []
        done, _ = self.ray.wait(futures, num_returns=len(futures), timeout=POLL_SECONDS)
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
    ray = _connect()
    resources = {"num_cpus": 1, "num_gpus": plan.gpus_per_training if device.type == "cuda" else 0}
    count = workers or _room(ray, resources)
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


def _connect() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RunFolderError(
            "--executor ray: Ray is not installed. Install it with: pip install 'popstats[ray]'"
        ) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    return ray


def _room(ray: Any, resources: Mapping[str, float]) -> int:
    """Return how many actors the cluster has room for."""
    present: dict[str, float] = ray.cluster_resources()
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    rooms = [
        math.floor(present.get(names[name], 0) / need + 1e-9) for name, need in resources.items() if need
    ]
    if min(rooms) < 1:
        raise RunFolderError(
            f"--executor ray: the cluster offers {present}; one training needs {dict(resources)}. Add "
            "nodes, or lower gpus_per_training."
        )
    return min(rooms)


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
                for future in self.pool.finished():
                    self._take(future)
            except KeyboardInterrupt:
                if self.stopping:
                    raise
                self.stopping = True
                self.report(
                    Event(
                        "note",
                        message="stopping after the trainings in progress; press Ctrl-C again to drop them",
                    )
                )

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

    def _take(self, future: Any) -> None:
        if future in self.pool.opening:
            self._take_opened(future)
            return
        actor, training, claim = self.pool.busy.pop(future)
        with claim:
            try:
                row, weights = self.pool.ray.get(future)
            except self.pool.ray.exceptions.RayActorError as error:
                self._lost(training, error)
                return
            self._write(training, row, weights)
        self.pool.idle.append(actor)

    def _take_opened(self, future: Any) -> None:
        actor = self.pool.opening.pop(future)
        try:
            self.pool.ray.get(future)
        except self.pool.ray.exceptions.RayActorError as error:
            self._count_loss(error)
            self.pool.open_actor()
            return
        self.pool.idle.append(actor)
        self.report(Event("ready"))

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

    def _lost(self, training: Training, error: Exception) -> None:
        """Open another actor; the training is missing again, unless it took too many actors with it."""
        self._count_loss(error)
        self.losses[training.index] += 1
        self.pool.open_actor()
        if self.losses[training.index] >= DEATHS_OF_A_TRAINING:
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
