"""The progress display: a bar with the remaining time on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from generate.executors import Event

__all__ = ["Clock", "Display", "display_for", "duration"]

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
    """Counts finished trainings and tells how long the rest will take.

    Trainings are interleaved over the regimes, so the mean of the finished ones holds for the rest.

    Parameters
    ----------
    total : int
        Trainings in the plan.
    finished : int
        Of these, finished before this run.
    """

    def __init__(self, total: int, finished: int) -> None:
        self.total = total
        self.finished = finished
        self._before = finished
        self._started: float | None = None

    def start(self) -> None:
        """Begin to count, when the first worker is ready."""
        if self._started is None:
            self._started = time.monotonic()

    @property
    def remaining(self) -> float | None:
        """Seconds until everything is finished; None while unknown."""
        here = self.finished - self._before
        if self._started is None or here == 0:
            return None
        return (time.monotonic() - self._started) / here * (self.total - self.finished)

    def line(self) -> str:
        """Return the state in one line."""
        rest = self.remaining
        left = "" if rest is None else f", about {duration(rest)} left"
        return f"{self.finished} of {self.total} trainings{left}"


class Display(Protocol):
    """Shows a run's progress; the only one who writes to the terminal meanwhile."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, event: Event, finished: int) -> None:
        """Show an event; `finished` counts everything in the folder, other processes' work included."""

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

    def update(self, event: Event, finished: int) -> None:
        """Print a line if the last one was long enough ago, or a training failed."""
        self._clock.start()
        self._clock.finished = finished
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

    def update(self, event: Event, finished: int) -> None:
        """Move the bar."""
        self._clock.start()
        self._clock.finished = finished
        if event.kind == "failed":
            self.note(f"training {event.index} failed: {event.message}")
        self._bar.update(self._task, completed=finished, description=self._clock.line())

    def note(self, text: str) -> None:
        """Print a sentence above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)


def display_for(clock: Clock, stream: TextIO | None = None) -> Display:
    """Return a bar on a terminal, plain lines elsewhere."""
    stream = stream or sys.stdout
    return BarDisplay(clock) if stream.isatty() else PlainDisplay(clock, stream)
