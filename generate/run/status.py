"""How far a run folder is. Reads only."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generate.recipes.worklist import Training
from generate.run.folder import RunFolder, claimed, is_being_prepared
from generate.run.forecast import Forecast, seconds_with
from generate.run.progress import duration
from popstats.errors import BAD_INPUT, RunFolderError

# The newest rows tell the present speed; older ones may come from another machine or another load.
NEWEST_ROWS = 50


@dataclass(frozen=True)
class Best:
    """The best subnetwork so far of one regime and technique."""

    # axis, target, technique: The regime and how it was retrained.
    axis: str
    target: float
    technique: str
    n: int  # Finished trainings in it.
    # accuracy, drop: Percent, and points below the original.
    accuracy: float
    drop: float
    subnetwork_id: str  # Which one.


@dataclass(frozen=True)
class Status:
    """How far a run folder is."""

    # total, done, failed: Trainings in the plan, finished well, finished with a reason.
    total: int
    done: int
    failed: int
    running: tuple[int, ...]  # Trainings that some process works on now.
    preparing: bool  # Whether some process trains the original network or draws the recipes now.
    # How many trainings at a time `remaining_seconds` is told for: the running ones, or those asked for.
    workers: int
    remaining_seconds: float | None  # At the speed of the newest rows; None where nothing is finished yet.
    best: tuple[Best, ...]  # One entry a regime and technique.
    damaged: tuple[str, ...]  # What is to be said of rows that cannot be read.

    @property
    def left(self) -> int:
        """Trainings without a row that can be read, the running ones included."""
        return self.total - self.done - self.failed


def read_status(folder: RunFolder, workers: int = 1) -> Status:
    """Read how far a run folder is."""
    folder.check_readable()
    trainings = folder.read_worklist()
    rows, damaged = _readable_rows(folder)
    missing = [training.index for training in trainings if training.index not in rows]
    running = claimed(folder, missing)
    failed = sum(row["status"] == "failed" for row in rows.values())
    at_a_time = max(1, min(len(running) or workers, len(missing)))
    return Status(
        total=len(trainings),
        done=len(rows) - failed,
        failed=failed,
        running=tuple(running),
        preparing=is_being_prepared(folder),
        workers=at_a_time,
        remaining_seconds=_remaining(folder, trainings, rows, running, at_a_time),
        best=_best(trainings, rows),
        damaged=damaged,
    )


def _readable_rows(folder: RunFolder) -> tuple[dict[int, dict[str, Any]], tuple[str, ...]]:
    """Return the finished rows, and what is to be said of damaged ones."""
    rows, damaged = {}, []
    for index in sorted(folder.finished()):
        try:
            rows[index] = folder.read_row(index)
        except RunFolderError as error:
            damaged.append(str(error))
    return rows, tuple(damaged)


def _remaining(
    folder: RunFolder,
    trainings: Sequence[Training],
    rows: dict[int, dict[str, Any]],
    running: Sequence[int],
    workers: int,
) -> float | None:
    """Return the seconds until everything is finished, with so many trainings at a time."""
    plan = folder.read_plan()
    missing = [training.index for training in trainings if training.index not in rows]
    if plan is None or not missing:
        return None
    forecast = Forecast(plan, trainings)
    for index, row in rows.items():
        forecast.learn(index, row)
    expected = forecast.seconds()
    if expected is None:
        return None
    expected = expected * _speed_of_late(folder, rows, expected)
    # When the running ones began is not known: on average half a training ago.
    work = float(expected[missing].sum() - expected[list(running)].sum() / 2)
    return seconds_with(workers, work, float(expected[missing].mean()))


def _speed_of_late(
    folder: RunFolder, rows: dict[int, dict[str, Any]], expected: NDArray[np.float64]
) -> float:
    """Return how much longer the newest trainings took than all of them lead to expect."""
    done = [index for index, row in rows.items() if row["status"] == "done" and index < len(expected)]
    newest = sorted(done, key=folder.written_at)[-NEWEST_ROWS:]
    took = [float(rows[index]["seconds"]) for index in newest]
    return sum(took) / float(expected[newest].sum())


def _best(trainings: Sequence[Training], rows: dict[int, dict[str, Any]]) -> tuple[Best, ...]:
    regimes: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for training in trainings:
        row = rows.get(training.index)
        if row is not None and row["status"] == "done":
            regimes.setdefault((training.axis, training.target, training.technique), []).append(row)
    return tuple(_best_of(*place, found) for place, found in sorted(regimes.items()))


def _best_of(axis: str, target: float, technique: str, rows: list[dict[str, Any]]) -> Best:
    """Return the recipe with the best mean over its seeds: the best single run is mostly luck."""
    by_recipe: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_recipe.setdefault(row["recipe_id"], []).append(row)
    means = {recipe: statistics.fmean(row["accuracy"] for row in runs) for recipe, runs in by_recipe.items()}
    recipe = max(means, key=lambda name: (means[name], name))
    row = max(by_recipe[recipe], key=lambda run: run["accuracy"])
    return Best(
        axis,
        target,
        technique,
        len(rows),
        means[recipe],
        row["original_accuracy"] - means[recipe],
        row["subnetwork_id"],
    )


def print_status(path: Path, workers: int) -> int:
    """Print how far the run folder at `path` is; return the command's exit status."""
    status = read_status(RunFolder(path), workers)
    print(
        f"{path}: {status.done} of {status.total} trainings done, {status.failed} failed, "
        f"{len(status.running)} running, {status.left} left."
    )
    for sentence in _outlook(status):
        print(sentence)
    _print_best(status.best)
    for sentence in status.damaged:
        print(f"Error: {sentence}", file=sys.stderr)
    return BAD_INPUT if status.damaged else 0


def _outlook(status: Status) -> Iterator[str]:
    """Yield what is going on, and how long it will take."""
    if status.preparing:
        yield "It is being prepared: the original network, then the recipes."
    elif not status.total:
        yield "Its preparation was not finished; the same command goes on from there."
    if not status.left or not status.total:
        return
    busy = (
        f"{status.workers} at a time"
        if status.running
        else f"{_workers(status.workers)}; nobody works on it now"
    )
    if status.remaining_seconds is None:
        yield f"Nothing is finished yet that would tell how long it takes ({busy}); --dry-run estimates it."
    else:
        yield f"About {duration(status.remaining_seconds)} left at the speed of the newest trainings ({busy})."


def _workers(count: int) -> str:
    return f"with {count} worker{'' if count == 1 else 's'}"


def _print_best(found: Sequence[Best]) -> None:
    if found:
        print("Best so far (mean over seeds):")
        print(
            f"  {'regime':>12}  {'retraining':<10} {'trainings':>9} {'accuracy':>9} {'drop':>7}  subnetwork"
        )
    for best in found:
        print(
            f"  {best.axis:>6} {best.target:>5.2f}  {best.technique:<10} {best.n:>9} "
            f"{best.accuracy:>7.2f} % {best.drop:>7.2f}  {best.subnetwork_id[:12]}"
        )
