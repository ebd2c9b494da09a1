"""How long trainings take, learned from those that are finished: what all remaining times are told from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generate.plan import Plan
from generate.recipes.worklist import Training
from generate.train.loop import PASSES_PER_STEP, training_epochs

# How much of a training's time goes along with its network's MACs; the rest goes along with its steps alone. ResNet-8
# on digits has 0.26, on 32x32 images 0.46; finished trainings soon outweigh the guess, which counts like a few of them.
USUAL_SHARE = 0.5
GUESS_WEIGHT = 0.5
# The speed is that of the last half of the time that has passed, or of these last seconds if that is more: workers
# start late, come and go, and share the machine with others.
RECENT_SECONDS = 60.0
SHORTEST_SECONDS = 1e-3


type Floats = NDArray[np.float64]


class Forecast:
    """The seconds that each training of a plan takes.

    An epoch of a technique takes its mean so far, corrected for the MACs of the network; how much MACs matter is
    learned too. A technique of which nothing is finished is taken to need as long an epoch as the others.
    """

    def __init__(self, plan: Plan, trainings: Sequence[Training]) -> None:
        self._plan, self._trainings = plan, trainings
        self._techniques = np.array([training.technique for training in trainings])
        self._macs = np.array([float(training.macs) for training in trainings])
        self._epochs: Floats | None = None
        self._seconds: dict[int, float] = {}

    def learn(self, index: int, row: Mapping[str, Any]) -> None:
        """Take in a finished row; failed ones stopped early and say nothing."""
        if row["status"] != "done" or index >= len(self._trainings):
            return
        if self._epochs is None:
            images = round(row["training_macs"] / (PASSES_PER_STEP * row["macs"] * row["epochs"]))
            self._epochs = self._budgets(max(1, images))
        # Nothing takes no time at all, whatever was rounded away.
        self._seconds[index] = max(row["seconds"], SHORTEST_SECONDS)

    def _budgets(self, images: int) -> Floats:
        settings = self._plan.retraining
        return np.array([training_epochs(settings[t.technique], t.macs, images) for t in self._trainings])

    def seconds(self) -> Floats | None:
        """Return the seconds of each training, shape (n,); None while none is finished."""
        if self._epochs is None:
            return None
        finished = np.array(list(self._seconds))
        by_epoch = np.array(list(self._seconds.values())) / self._epochs[finished]
        seconds, macs = self._levels(finished, by_epoch)
        relative = self._macs / macs - 1
        share = _share_of_macs(by_epoch / seconds[finished] - 1, relative[finished])
        return self._epochs * seconds * (1 + share * relative)

    def _levels(self, finished: NDArray[np.int64], by_epoch: Floats) -> tuple[Floats, Floats]:
        """Return the mean seconds an epoch, and the mean MACs behind them, of each training's technique."""
        seconds = np.full(len(self._macs), by_epoch.mean())
        macs = np.full(len(self._macs), self._macs[finished].mean())
        for technique in np.unique(self._techniques[finished]):
            known, all_of_it = self._techniques[finished] == technique, self._techniques == technique
            seconds[all_of_it] = by_epoch[known].mean()
            macs[all_of_it] = self._macs[finished[known]].mean()
        return seconds, macs


def _share_of_macs(slow: Floats, large: Floats) -> float:
    """Return the slope of relative time over relative MACs, 0 to 1, drawn to the usual one where little is known."""
    slope = (large @ slow + GUESS_WEIGHT * USUAL_SHARE) / (large @ large + GUESS_WEIGHT)
    return float(np.clip(slope, 0.0, 1.0))


def seconds_with(workers: float, work: float, one: float) -> float:
    """Return how long `workers` take for `work` seconds of trainings that take `one` second each, roughly.

    They do not all end together: at the end, half of the time of one training goes by with half of them idle.
    """
    return work / workers + max(0.0, 1 - 1 / workers) * one / 2


class Pace:
    """How fast the trainings of a plan get done, whoever does them, and how long the rest will take at that speed."""

    def __init__(self, forecast: Forecast, started: float) -> None:
        self._forecast, self._started = forecast, started
        self._spans: dict[int, tuple[float, float]] = {}

    def finished(self, index: int, seconds: float, now: float) -> None:
        """Take in that a training which took `seconds` has just finished."""
        self._spans[index] = (now - seconds, now)

    def remaining(self, missing: Set[int], running: Mapping[int, float], now: float) -> float | None:
        """Return the seconds until nothing is missing; None while nothing can be said."""
        expected = self._forecast.seconds()
        if not missing:
            return 0.0
        if expected is None:
            return None
        left = {index: max(0.0, float(expected[index]) - (now - began)) for index, began in running.items()}
        speed = self._speed(expected, running, now)
        if speed is None:
            return None
        waiting = expected[list(missing - left.keys())]
        if not waiting.size:
            return max(left.values())
        work = float(waiting.sum()) + sum(left.values())
        return max(seconds_with(speed, work, float(waiting.mean())), *left.values(), 0.0)

    def _speed(self, expected: Floats, running: Mapping[int, float], now: float) -> float | None:
        """Return how many expected seconds of training are done a second."""
        since = max(self._started, now - max(RECENT_SECONDS, (now - self._started) / 2))
        spans = self._spans | {
            # One that takes longer than expected counts no more than it was expected to.
            index: (began, max(now, began + expected[index]))
            for index, began in running.items()
        }
        if now <= since or not spans:
            return None
        indices = np.array(list(spans))
        began, ended = np.array(list(spans.values())).T
        inside = np.clip(np.minimum(ended, now) - np.maximum(began, since), 0.0, None)
        done = float((expected[indices] * inside / np.maximum(ended - began, 1e-9)).sum())
        return done / (now - since) if done > 0 else None
