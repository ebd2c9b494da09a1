"""The progress display: a bar with the remaining time on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TextIO

from generate.plan import Plan
from generate.recipes.worklist import Training
from generate.run.forecast import Forecast, Pace

PLAIN_SECONDS = 15.0


def duration(seconds: float) -> str:
    """Return a time as people say it: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Clock:
    """Counts finished trainings, whoever finished them, and tells how long the rest will take."""

    def __init__(
        self,
        plan: Plan,
        trainings: Sequence[Training],
        rows: Mapping[int, Mapping[str, Any]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = len(trainings)
        self._forecast = Forecast(plan, trainings)
        self._done = set(rows)
        self._running: dict[int, float] = {}
        self._pace: Pace | None = None
        self._now = now
        for index, row in rows.items():
            self._forecast.learn(index, row)

    @property
    def finished(self) -> int:
        """Trainings with a row."""
        return min(self.total, len(self._done))

    def news(self, finished: Set[int]) -> set[int]:
        """Return which of the finished trainings are new to the clock."""
        return set(finished - self._done)

    def take(self, event: Event, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Take in an event of this run, and the rows that are new since the last one, other processes' included."""
        now = self._now()
        if event.kind == "started":
            self._pace = self._pace or Pace(self._forecast, now)
            self._running[event.index] = now
        for index, row in rows.items():
            self._running.pop(index, None)
            self._done.add(index)
            self._forecast.learn(index, row)
            if self._pace is not None and index < self.total:
                self._pace.finished(index, row["seconds"], now)

    @property
    def remaining(self) -> float | None:
        """Seconds until everything is finished; None while unknown."""
        if self._pace is None:
            return None
        return self._pace.remaining(set(range(self.total)) - self._done, self._running, self._now())

    def line(self) -> str:
        """Return the state in one line."""
        rest = self.remaining if self.finished < self.total else None
        left = "" if rest is None else f", about {duration(rest)} left"
        return f"{self.finished} of {self.total} trainings{left}"


class Display(Protocol):
    """Shows a run's progress; the only one who writes to the terminal meanwhile."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, event: Event) -> None:
        """Show an event that the clock has taken in."""

    def note(self, text: str) -> None:
        """Show a sentence."""


class PlainDisplay:
    """One line at the beginning, one now and then, one at the end."""

    def __init__(self, clock: Clock, stream: TextIO) -> None:
        self._clock, self._stream, self._shown = clock, stream, time.monotonic()

    def __enter__(self) -> Self:
        self.note(self._clock.line())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.note(self._clock.line())

    def update(self, event: Event) -> None:
        """Print a line if the last one was long enough ago, or a training failed."""
        if event.kind == "failed":
            self.note(f"training {event.index} failed: {event.message}")
        if time.monotonic() - self._shown >= PLAIN_SECONDS:
            self._shown = time.monotonic()
            self.note(self._clock.line())

    def note(self, text: str) -> None:
        """Print a sentence."""
        print(text, file=self._stream, flush=True)


class BarDisplay:
    """A bar that rewrites itself."""

    def __init__(self, clock: Clock) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._clock = clock
        self._bar = Progress(
            TextColumn("[progress.percentage]{task.percentage:>3.0f} %"),
            BarColumn(),
            TextColumn("{task.description}"),
        )
        self._task = self._bar.add_task(clock.line(), total=clock.total, completed=clock.finished)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, event: Event) -> None:
        """Move the bar."""
        if event.kind == "failed":
            self.note(f"training {event.index} failed: {event.message}")
        self._bar.update(self._task, completed=self._clock.finished, description=self._clock.line())

    def note(self, text: str) -> None:
        """Print a sentence above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)


def display_for(clock: Clock, stream: TextIO | None = None) -> Display:
    """Return a bar on a terminal, plain lines elsewhere."""
    stream = stream or sys.stdout
    return BarDisplay(clock) if stream.isatty() else PlainDisplay(clock, stream)


@dataclass(frozen=True)
class Event:
    """Something that a worker did."""

    # ready | started | done | failed | note (a sentence to show) | broken (the run must stop).
    kind: Literal["ready", "started", "done", "failed", "note", "broken"]
    index: int = -1  # Which training; -1 for none.
    accuracy: float = math.nan  # Percent, of a finished training.
    seconds: float = 0.0  # Its wall time.
    message: str = ""  # Why it failed.
