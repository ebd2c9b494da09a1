"""How far a run folder is. Reads only."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generate.progress import duration
from generate.run_folder import RunFolder, claimed
from generate.worklist import Training
from popstats.errors import RunFolderError

__all__ = ["Best", "Status", "print_status", "read_status"]

# Rows of the last minutes tell the present speed; older ones may come from another machine or number of workers.
RECENT_SECONDS = 600.0


@dataclass(frozen=True)
class Best:
    """The best subnetwork so far of one regime and technique.

    Parameters
    ----------
    axis, target, technique : str, float, str
        The regime and how it was retrained.
    n : int
        Finished trainings in it.
    accuracy, drop : float
        Percent, and points below the original.
    subnetwork_id : str
        Which one.
    """

    axis: str
    target: float
    technique: str
    n: int
    accuracy: float
    drop: float
    subnetwork_id: str


@dataclass(frozen=True)
class Status:
    """How far a run folder is.

    Parameters
    ----------
    total, done, failed : int
        Trainings in the plan, finished well, finished with a reason.
    running : tuple of int
        Trainings that some process works on now.
    remaining_seconds : float or None
        At the speed of the last minutes; None where nothing runs or nothing is finished yet.
    best : tuple of Best
        One entry a regime and technique.
    """

    total: int
    done: int
    failed: int
    running: tuple[int, ...]
    remaining_seconds: float | None
    best: tuple[Best, ...]

    @property
    def left(self) -> int:
        """Trainings without a row, the running ones included."""
        return self.total - self.done - self.failed


def read_status(folder: RunFolder) -> Status:
    """Read how far a run folder is.

    Raises
    ------
    RunFolderError
        If it is none.
    """
    if not (folder.path / "rows").is_dir():
        raise RunFolderError(
            f"{folder.path} is no run folder: expected one made by `python -m generate.population`, "
            "with a plan and rows/."
        )
    trainings = folder.read_worklist()
    finished = folder.finished()
    rows = {index: folder.read_row(index) for index in sorted(finished)}
    running = claimed(folder, [t.index for t in trainings if t.index not in finished])
    failed = sum(row["status"] == "failed" for row in rows.values())
    left = len(trainings) - len(finished)
    pace = _recent_pace(folder, finished) if running else None
    return Status(
        total=len(trainings),
        done=len(rows) - failed,
        failed=failed,
        running=tuple(running),
        remaining_seconds=None if pace is None else pace * left,
        best=_best(trainings, rows),
    )


def _recent_pace(folder: RunFolder, finished: set[int]) -> float | None:
    """Seconds between two finished rows, over the last minutes."""
    written = sorted((folder.path / "rows" / f"{index:07d}.json").stat().st_mtime for index in finished)
    recent = [moment for moment in written if moment > time.time() - RECENT_SECONDS]
    if len(recent) < 2:
        return None
    return (recent[-1] - recent[0]) / (len(recent) - 1)


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


def print_status(path: Path) -> int:
    """Print how far the run folder at `path` is."""
    status = read_status(RunFolder(path))
    print(
        f"{path}: {status.done} of {status.total} trainings done, {status.failed} failed, "
        f"{len(status.running)} running, {status.left} left."
    )
    if status.remaining_seconds is not None and math.isfinite(status.remaining_seconds):
        print(f"About {duration(status.remaining_seconds)} left at the present speed.")
    if status.best:
        print("Best so far (mean over seeds):")
        print(
            f"  {'regime':>12}  {'retraining':<10} {'trainings':>9} {'accuracy':>9} {'drop':>7}  subnetwork"
        )
    for best in status.best:
        print(
            f"  {best.axis:>6} {best.target:>5.2f}  {best.technique:<10} {best.n:>9} "
            f"{best.accuracy:>7.2f} % {best.drop:>7.2f}  {best.subnetwork_id[:12]}"
        )
    return 0
