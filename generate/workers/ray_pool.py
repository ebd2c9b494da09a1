"""The actors of a Ray run: which are starting, idle or busy, and what the loss of one means."""

from __future__ import annotations

import re
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from generate.recipes.worklist import Training
from popstats.errors import RunFolderError

POLL_SECONDS = 0.5
# What Ray raises when an actor, its node or its result is gone, and not because of what the training did.
LOSSES = ("RayActorError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
SAME_EVERYWHERE = "Every node needs this package with the extra [generate], in the same version, and the modules of the plan"


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
