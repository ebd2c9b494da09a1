"""A run without trainings: events as they would come from workers, on a clock that a test holds in its hand."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from generate.plan import Plan
from generate.recipes.worklist import Training
from generate.run.progress import Event, RunProgress


@dataclass(frozen=True)
class Moment:
    """What was said after some of a run's trainings, and what came."""

    share: float
    predicted: float | None
    actual: float

    @property
    def ratio(self) -> float:
        assert self.predicted is not None
        return self.predicted / self.actual


@dataclass
class Rows:
    """A run folder's plan, worklist and rows, in memory."""

    plan: Plan
    trainings: Sequence[Training]
    rows: dict[int, dict] = field(default_factory=dict)

    def read_plan(self) -> Plan:
        return self.plan

    def read_worklist(self) -> Sequence[Training]:
        return self.trainings

    def worklist_stamp(self) -> int:
        return 1

    def finished(self) -> set[int]:
        return set(self.rows)

    def read_row(self, index: int) -> dict:
        return self.rows[index]


def training(index: int, technique: str, macs: int) -> Training:
    return Training(0, "macs", 0.5, "random", "l1", (1,), (0.5,), macs, 1, technique, index=index)


def scheduled(seconds: Sequence[float], starts: Sequence[float]) -> list[tuple[float, float]]:
    """Return when each training begins and ends, assigned in order to workers that start at `starts`."""
    free, spans = sorted(starts), []
    for duration in seconds:
        began = heapq.heappop(free)
        spans.append((began, began + duration))
        heapq.heappush(free, began + duration)
    return spans


def replay(
    plan: Plan,
    rows: Sequence[dict],
    spans: Sequence[tuple[float, float]],
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    known: int = 0,
    foreign: frozenset[int] = frozenset(),
) -> list[Moment]:
    """Tell a progress of a run; the first `known` rows are there before it, `foreign` ones are another process's."""
    trainings = [training(i, row["retraining"], row["macs"]) for i, row in enumerate(rows)]
    folder = Rows(plan, trainings, {i: rows[i] | {"started_at": f"{i:09d}"} for i in range(known)})
    time, moments = [0.0], []
    progress = RunProgress(folder, now=lambda: time[0])
    here = range(known, len(rows))
    events = [(spans[i][0], 1, i) for i in here if i not in foreign] + [(spans[i][1], 0, i) for i in here]
    last = max(spans[i][1] for i in here)
    marks = {max(1, round(share * len(here))): share for share in shares}
    done = 0
    for moment, starting, index in sorted(events):
        time[0] = moment
        if starting:
            progress.take(Event("started", index))
            continue
        began, ended = spans[index]
        timed = {"seconds": ended - began, "status": "done", "started_at": f"{began + 1e6:020.6f}"}
        folder.rows[index] = rows[index] | timed
        progress.take(Event("done", index))
        done += 1
        if done in marks:
            moments.append(Moment(marks[done], progress.remaining(), last - moment))
    return moments


def quiet(seconds: Sequence[float], neighbours: int = 10) -> np.ndarray:
    """Take the load of the machine out of recorded times: each relative to the median of those before and after it.

    More than twice that is load too: recipes of the shipped populations do not differ by so much.
    """
    recorded = np.asarray(seconds, dtype=float)
    around = [np.median(recorded[max(0, i - neighbours) : i + neighbours + 1]) for i in range(len(recorded))]
    return np.minimum(recorded / np.array(around), 2.0) * np.median(recorded)
