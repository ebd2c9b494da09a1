"""The actors of a Ray run: what they do on their nodes, which are starting, idle or busy, and what a loss means."""

from __future__ import annotations

import os
import re
import socket
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from generate.inputs.image_sets import load_images
from generate.inputs.images import ImageSet
from generate.plan import Plan, plan_from_dict
from generate.recipes.worklist import Training
from generate.run.folder import RunFolder
from generate.train.device import release_freed_memory, settle_on_device
from generate.train.original import OriginalNumbers, weights_bytes
from generate.train.subnetwork import DeviceError, WorkerContext, train_subnetwork
from popstats.errors import RunFolderError

POLL_SECONDS = 0.5
# What Ray raises when an actor, its node or its result is gone, and not because of what the training did.
LOSSES = ("RayActorError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
SAME_EVERYWHERE = "Every node needs this package with the extra [generate], in the same version, and the modules of the plan"

# Plan and original as in the run folder, images, the original network's weights, "cuda" or "cpu"; sent once.
type Parts = tuple[Mapping[str, Any], Mapping[str, Any], ImageSet, bytes, str]


def parts_of(folder: RunFolder, plan: Plan, device: torch.device) -> Parts:
    """Return what actors need, from a prepared folder."""
    weights = folder.weights_path.read_bytes()
    return plan.as_dict(), folder.read_original() or {}, load_images(plan.images), weights, device.type


def _check_gpu(device: torch.device) -> None:
    """Check that a GPU that Ray has promised is there; `ray start --num-gpus` takes any number for granted."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunFolderError(
            f"{socket.gethostname()} has joined the cluster with a GPU, but torch {torch.__version__} sees none there. "
            "Start its Ray again without --num-gpus, or install a torch for its driver"
        )


class Trainer:
    """The actor: prepares itself once, then trains what it is given."""

    def __init__(self, parts: Parts) -> None:
        plan, original, images, weights, kind = parts
        # Ray shows an actor no GPU but its own, which is then the first one.
        device = torch.device("cuda:0" if kind == "cuda" else kind)
        _check_gpu(device)
        settle_on_device(device)
        self._context = WorkerContext.from_parts(
            plan_from_dict(plan), images, weights, OriginalNumbers(**original), device
        )

    def ready(self) -> tuple[str, str]:
        """Answer once trainings can start: the node's name and its version of torch."""
        return socket.gethostname(), self._context.provenance["torch_version"]

    def train(self, training: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return the row of one training, and its weights where the plan keeps them."""
        one = Training.from_dict(training)
        try:
            row, network = train_subnetwork(self._context, one)
        except DeviceError as error:
            # At once, without Ray's own farewell: the driver opens another actor for one that is gone.
            os._exit(error.exit_code)
        release_freed_memory()
        keep = network is not None and self._context.keeps_weights(one)
        return row, weights_bytes(network) if keep and network is not None else b""


class LostError(Exception):
    """An actor, its node or its result is gone."""


class UnfitError(Exception):
    """An actor could not open where Ray put it: that node lacks something, and so will the next actor there."""


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _unfit(error: Exception) -> UnfitError:
    """Name the node and the reason, out of the report in which Ray wraps what the actor's own start raised."""
    node = re.search(r"\bip=([^,)\s]+)", str(error))
    ours = re.fullmatch(r"popstats\.errors\.\w+: (.+)", _last_line(error))
    reason = ours[1] if ours else f"{_last_line(error)}. {SAME_EVERYWHERE}"
    return UnfitError(f"{node[1] if node else 'a node'}: {reason}")


@dataclass
class Pool:
    """Actors and what they are doing. Futures are Ray's handles of results to come."""

    ray: Any  # connected
    actor_class: Any
    parts: Any  # what each actor is given when it opens
    opening: dict[Any, Any] = field(default_factory=dict)  # actors that are not ready yet, by future
    idle: deque[Any] = field(default_factory=deque)  # actors without work
    busy: dict[Any, tuple[Any, Training, ExitStack]] = field(
        default_factory=dict
    )  # with their claims, by future

    @property
    def size(self) -> int:
        """How many actors there are."""
        return len(self.opening) + len(self.idle) + len(self.busy)

    def open_actor(self) -> None:
        """Ask the cluster for one more actor."""
        actor = self.actor_class.remote(self.parts)
        self.opening[actor.ready.remote()] = actor

    def replace_actor(self, lost: Any) -> None:
        """Open another actor; the lost one may be alive where only its result is gone."""
        self.ray.kill(lost)
        self.open_actor()

    def result(self, future: Any) -> Any:
        """Return what a future holds."""
        exceptions = self.ray.exceptions
        try:
            return self.ray.get(future)
        except tuple(getattr(exceptions, name) for name in LOSSES) as error:
            if getattr(error, "actor_init_failed", False):
                raise _unfit(error) from error
            raise LostError(_last_line(error)) from error
        except exceptions.RayTaskError as error:
            raise RunFolderError(
                "--executor ray: unexpected error in an actor. Does every node have the same version of this package, "
                f"with the extra [generate]?\n{error}"
            ) from error

    def assign(self, training: Training, claim: ExitStack) -> None:
        """Give a training to an idle actor."""
        actor = self.idle.popleft()
        self.busy[actor.train.remote(training.as_dict())] = (actor, training, claim)

    def finished(self) -> list[Any]:
        """Wait a moment; return the futures that have a result."""
        futures = [*self.opening, *self.busy]
        if not futures:
            time.sleep(POLL_SECONDS)
            return []
        # One is enough to go on: an actor that has finished must not idle until the others have.
        self.ray.wait(futures, num_returns=1, timeout=POLL_SECONDS)
        done, _ = self.ray.wait(futures, num_returns=len(futures), timeout=0)
        return list(done)

    def close(self) -> None:
        """End all actors and let go of what they held."""
        for _, _, claim in self.busy.values():
            claim.close()
        for actor in (*self.opening.values(), *self.idle, *(entry[0] for entry in self.busy.values())):
            self.ray.kill(actor)
