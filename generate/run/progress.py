"""Progress of a run, counted from its folder, whichever process works on it: shown while it runs, and by `--status`."""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn

from generate.plan import Plan
from generate.recipes.worklist import Training, is_proposed_whole
from generate.run.folder import PREPARATION, RunFolder, claimed
from generate.train.loop import PASSES_PER_STEP, training_epochs
from popstats.arrays import FloatArray
from popstats.errors import BAD_INPUT, RunFolderError

# Off a terminal, a line is printed this often (s).
LINE_SECONDS = 15.0
# The newest rows tell the present speed; older ones may come from another machine or another load.
NEWEST_ROWS = 50
# The number of trainings at a time is estimated from the last half of the run, or from these last seconds if that is more.
RECENT_SECONDS = 60.0


@dataclass(frozen=True)
class Event:
    """Something that a worker did."""

    kind: Literal["ready", "started", "done", "failed", "note", "broken"]  # broken: the run must stop
    index: int = -1  # which training; -1 for none
    accuracy: float = math.nan  # percent
    seconds: float = 0.0  # wall time of a finished training
    message: str = ""  # why it failed, or what is to be shown


type Report = Callable[[Event], None]


def duration(seconds: float) -> str:
    """Return a time as people say it: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class RunProgress:
    """What a run folder holds; each refresh reads the new rows alone, other processes' included."""

    def __init__(self, folder: RunFolder, now: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self.rows: dict[int, dict[str, Any]] = {}
        self.damaged: dict[int, str] = {}  # what there is to say of rows that cannot be read
        self._now, self._stamp = now, -1
        self.refresh()
        self._began: dict[int, float] = {}  # of this process's running trainings
        self._spans: dict[int, tuple[float, float]] = {}  # of what was finished in this run, by anybody
        self._started: float | None = None

    def refresh(self) -> None:
        """Read what is new."""
        if (stamp := self.folder.worklist_stamp()) != self._stamp:
            self.plan, self.trainings = self.folder.read_plan(), self.folder.read_worklist()
            self._stamp = stamp
        for index in sorted(self.folder.finished() - self.rows.keys()):
            try:
                self.rows[index] = self.folder.read_row(index)
            except RunFolderError as error:
                self.damaged[index] = str(error)

    @property
    def total(self) -> int:
        """Trainings in all; those of a search are not all proposed yet."""
        proposed = len(self.trainings)
        if self.plan is None or self.plan.search is None:
            return proposed
        return proposed if is_proposed_whole(self.trainings) else max(proposed, self.plan.search.total)

    @property
    def left(self) -> int:
        """Trainings without a row that can be read."""
        return self.total - len(self.rows)

    @property
    def failed(self) -> int:
        """Trainings that ended with a reason."""
        return sum(row["status"] == "failed" for row in self.rows.values())

    @property
    def missing(self) -> list[int]:
        """Trainings of the worklist without a row, the running ones included."""
        return [training.index for training in self.trainings if training.index not in self.rows]

    def take(self, event: Event) -> None:
        """Take in an event of this run."""
        if event.kind == "started":
            self._started = self._now() if self._started is None else self._started
            self._began[event.index] = self._now()
            return
        before = self.rows.keys() | set()
        self.refresh()
        for index in self.rows.keys() - before:
            self._spans[index] = (self._now() - self.rows[index]["seconds"], self._now())
        self._began = {index: began for index, began in self._began.items() if index not in self.rows}

    def remaining(self) -> float | None:
        """Return the seconds until everything is finished; None while unknown."""
        now, expected = self._now(), self._expected_seconds()
        if expected is None or self._started is None:
            return None
        running = {i: max(0.0, float(expected[i]) - (now - began)) for i, began in self._began.items()}
        # How many recently ran at a time: trainings of other processes show in the rows.
        since = max(self._started, now - max(RECENT_SECONDS, (now - self._started) / 2))
        spans = [*self._spans.values(), *((began, now) for began in self._began.values())]
        spent = sum(max(0.0, ended - max(began, since)) for began, ended in spans)
        workers = max(1.0, len(running), spent / max(now - since, 1e-9))
        return max(self._seconds_of(workers, running, expected), *running.values(), 0.0)

    def remaining_with(self, workers: int, running: Sequence[int]) -> float | None:
        """Return the seconds that this many workers need for the rest, as seen from outside the run."""
        expected = self._expected_seconds()
        if expected is None:
            return None
        # When the running ones began is not known: on average half a training ago.
        return self._seconds_of(workers, {i: float(expected[i]) / 2 for i in running}, expected)

    def _seconds_of(self, workers: float, running: Mapping[int, float], expected: FloatArray) -> float:
        """Return how long workers take; at the end, half of them idle for half a training."""
        waiting = [float(expected[i]) for i in range(self.total) if i not in self.rows and i not in running]
        typical = statistics.fmean(waiting or running.values() or [0.0])
        return (sum(waiting) + sum(running.values())) / workers + max(0.0, 1 - 1 / workers) * typical / 2

    def _expected_seconds(self) -> FloatArray | None:
        """Return the seconds of each training at the speed of the newest rows, shape (total,)."""
        done = [i for i, row in self.rows.items() if row["status"] == "done" and i < len(self.trainings)]
        if not done or self.plan is None:
            return None
        work = _work(self.plan, self.trainings, self.rows[done[0]])
        recent = [i for i in done if i in self._spans] or done
        newest = sorted(recent, key=lambda i: str(self.rows[i]["started_at"]))[-NEWEST_ROWS:]
        speed = sum(self.rows[i]["seconds"] for i in newest) / float(work[newest].sum())
        unproposed = np.full(self.total - len(work), work.mean())
        seconds: FloatArray = np.concatenate([work, unproposed]) * speed
        return seconds

    def line(self) -> str:
        """Return the state in one line."""
        done = min(len(self.rows), self.total)
        rest = self.remaining() if done < self.total else None
        return f"{done} of {self.total} trainings" + (
            "" if rest is None else f", about {duration(rest)} left"
        )


def _work(plan: Plan, trainings: Sequence[Training], row: Mapping[str, Any]) -> FloatArray:
    """Return the work of each training: its epochs, half of it in proportion to the network's MACs."""
    images = max(1, round(row["training_macs"] / (PASSES_PER_STEP * row["macs"] * row["epochs"])))
    epochs = [training_epochs(plan.retraining[t.technique], t.macs, images) for t in trainings]
    macs = np.array([float(training.macs) for training in trainings])
    return np.array(epochs) * (1 + macs / macs.mean()) / 2


class Display:
    """Shows a run's progress, and is the only one who writes meanwhile: a bar on a terminal, else lines."""

    def __init__(self, progress: RunProgress, stream: TextIO | None = None) -> None:
        self._progress, self._stream = progress, stream or sys.stdout
        self._bar = self._task = None
        if self._stream.isatty():
            columns = (TextColumn("[progress.percentage]{task.percentage:>3.0f} %"), BarColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}"))
            self._task = self._bar.add_task("")

    @contextlib.contextmanager
    def shown(self) -> Iterator[Display]:
        """Show it from beginning to end."""
        with self._bar or contextlib.nullcontext():
            self._show()
            yield self
            self._progress.refresh()
            self._show()

    def update(self, event: Event) -> None:
        """Show an event that the progress has taken in."""
        if event.kind == "note":
            self.note(event.message)
        if event.kind == "failed":
            self.note(f"training {event.index} failed: {event.message}")
        if self._bar is not None or time.monotonic() - self._shown >= LINE_SECONDS:
            self._show()

    def _show(self) -> None:
        progress, self._shown = self._progress, time.monotonic()
        if self._bar is None or self._task is None:
            self.note(progress.line())
            return
        self._bar.update(
            self._task, total=progress.total, completed=len(progress.rows), description=progress.line()
        )

    def note(self, text: str) -> None:
        """Print a sentence."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.console.print(text, markup=False, highlight=False)


def print_status(path: Path, workers: int) -> int:
    """Print how far the run folder at `path` is; return the command's exit status. Writes nothing."""
    folder = RunFolder(path)
    progress = RunProgress(folder)
    running = claimed(folder, progress.missing)
    print(
        f"{path}: {len(progress.rows) - progress.failed} of {progress.total} trainings done, "
        f"{progress.failed} failed, {len(running)} running, {progress.left} left."
    )
    for sentence in _outlook(progress, running, workers):
        print(sentence)
    if progress.plan is None or progress.plan.search is None:  # the best of a search is no result
        _print_best(progress)
    for sentence in progress.damaged.values():
        print(f"Error: {sentence}", file=sys.stderr)
    return BAD_INPUT if progress.damaged else 0


def _outlook(progress: RunProgress, running: Sequence[int], workers: int) -> Iterator[str]:
    """Yield what is going on, and how long it will take."""
    if claimed(progress.folder, [PREPARATION]):
        yield "It is being prepared: the original network, then the recipes."
    elif not progress.total:
        yield "Its preparation was not finished; rerun the command to resume."
    if not progress.left:
        return
    count = max(1, min(len(running) or workers, progress.left))
    busy = f"{count} at a time" if running else f"with {count} worker{'s' * (count > 1)}; no worker is active"
    seconds = progress.remaining_with(count, running)
    if seconds is None:
        yield f"No training has finished yet; no time estimate ({busy}). --dry-run gives one."
    else:
        yield f"About {duration(seconds)} left at the speed of the newest trainings ({busy})."


def _print_best(progress: RunProgress) -> None:
    regimes: dict[tuple[str, float, str], dict[str, list[dict[str, Any]]]] = {}
    for row in progress.rows.values():
        if row["status"] == "done":
            recipes = regimes.setdefault((row["regime_axis"], row["regime_target"], row["retraining"]), {})
            recipes.setdefault(row["recipe_id"], []).append(row)
    if regimes:
        print("Best so far (mean over seeds):")
        print(
            f"  {'regime':>12}  {'retraining':<10} {'trainings':>9} {'accuracy':>9} {'drop':>7}  subnetwork"
        )
    for (axis, target, technique), recipes in sorted(regimes.items()):
        # The best single run is mostly luck: the best mean over a recipe's seeds, and then its best run.
        mean, name = max(
            (statistics.fmean(r["accuracy"] for r in runs), name) for name, runs in recipes.items()
        )
        best = max(recipes[name], key=lambda run: float(run["accuracy"]))
        print(
            f"  {axis:>6} {target:>5.2f}  {technique:<10} {sum(map(len, recipes.values())):>9} {mean:>7.2f} % "
            f"{best['original_accuracy'] - mean:>7.2f}  {best['subnetwork_id'][:12]}"
        )
