"""Remaining time: unbiased whatever the order of costs, the start of the workers and what was there before."""

import io

import numpy as np
import pytest

from generate.plan import plan_from_dict
from generate.run.progress import Display, Event, RunProgress, _work, duration
from tests.generate.run.replay import Rows, replay, scheduled, training

PLAN = plan_from_dict(
    {
        "name": "forecast",
        "original": {"training": {"epochs": 10.0}},
        "retraining": {"fine-tune": {"epochs": 4.0}, "scratch": {"epochs": 8.0}},
        "recipes": [{"regimes": [0.5], "count": 3, "retraining": ["fine-tune", "scratch"]}],
    }
)
IMAGES = 1000
EPOCHS = {"fine-tune": 4.0, "scratch": 8.0}
# Seconds of a training: so much an epoch of the technique, four tenths of it in proportion to MACs.
EPOCH_SECONDS = {"fine-tune": 1.0, "scratch": 0.7}
SHARE, MEAN_MACS = 0.4, 1000.0


def row(technique: str, macs: int, seconds: float | None = None, status: str = "done") -> dict:
    epochs = EPOCHS[technique]
    relative = 1 + SHARE * (macs / MEAN_MACS - 1)
    return {
        "retraining": technique,
        "macs": macs,
        "epochs": epochs,
        "training_macs": 3 * macs * epochs * IMAGES,
        "seconds": epochs * EPOCH_SECONDS[technique] * relative if seconds is None else seconds,
        "status": status,
    }


def seconds_of(rows: list[dict]) -> list[float]:
    return [one["seconds"] for one in rows]


def a_run(order: str) -> list[dict]:
    """Two hundred trainings whose costs span a factor of ten, noise of a tenth."""
    rng = np.random.default_rng(1)
    macs = rng.integers(200, 1800, 200)
    rows = [row("fine-tune", int(size)) for size in macs]
    for one in rows:
        one["seconds"] *= rng.normal(1, 0.1)
    sign = {"mixed": 0, "cheapest first": 1, "dearest first": -1}[order]
    return sorted(rows, key=lambda one: sign * one["macs"])


@pytest.mark.parametrize("order", ["mixed", "cheapest first", "dearest first"])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_the_remaining_time_is_right_whatever_the_order_of_costs(order, workers):
    rows = a_run(order)
    for moment in replay(PLAN, rows, scheduled(seconds_of(rows), [0.0] * workers)):
        assert moment.ratio == pytest.approx(1, abs=0.15), moment


def test_a_worker_that_starts_late_counts_as_soon_as_it_works():
    rows = a_run("mixed")
    late = 0.15 * sum(seconds_of(rows)) / 2
    for moment in replay(PLAN, rows, scheduled(seconds_of(rows), [0.0, late])):
        assert moment.ratio == pytest.approx(1, abs=0.15), moment


def test_another_process_counts_too():
    rows = a_run("mixed")
    foreign = frozenset(range(0, 200, 2))
    for moment in replay(PLAN, rows, scheduled(seconds_of(rows), [0.0, 0.0]), foreign=foreign):
        assert moment.ratio == pytest.approx(1, abs=0.1), moment


def test_a_technique_added_to_a_finished_plan_is_told_from_its_own_trainings():
    """Old rows of another technique, of which nothing is left, say nothing about the speed."""
    rows = [row("fine-tune", 1000) for _ in range(100)] + [row("scratch", 800 + 4 * i) for i in range(100)]
    spans = scheduled([0.0] * 100 + seconds_of(rows[100:]), [0.0, 0.0])
    for moment in replay(PLAN, rows, spans, known=100):
        assert moment.ratio == pytest.approx(1, abs=0.1), moment


def progress_of(rows: dict[int, dict], count: int, plan=PLAN):
    """A progress on a clock, of trainings of which some are finished."""
    trainings = [training(i, "fine-tune", 1000) for i in range(count)]
    folder = Rows(plan, trainings, {i: one | {"started_at": str(i)} for i, one in rows.items()})
    time = [100.0]
    return RunProgress(folder, now=lambda: time[0]), folder, time


def test_a_resumed_run_knows_at_once_how_long_the_rest_takes():
    progress, _, time = progress_of({i: row("fine-tune", 1000) for i in range(6)}, 10)
    assert progress.line() == "6 of 10 trainings"
    progress.take(Event("started", 6))
    time[0] = 101.0
    assert progress.remaining() == pytest.approx(15.0)  # four of four seconds, one of which has gone by
    assert progress.line() == "6 of 10 trainings, about 15 s left"


def test_the_last_training_takes_as_long_as_it_has_left():
    progress, folder, time = progress_of({i: row("fine-tune", 1000) for i in range(2)}, 3)
    progress.take(Event("started", 2))
    time[0] = 101.0
    assert progress.remaining() == pytest.approx(3.0)
    time[0] = 109.0
    assert progress.remaining() == 0.0
    folder.rows[2] = row("fine-tune", 1000) | {"started_at": "2"}
    progress.take(Event("done", 2))
    assert progress.line() == "3 of 3 trainings"


def test_budgets_in_macs_give_every_network_the_same_macs():
    plan = plan_from_dict(
        {
            "name": "macs",
            "retraining": {"fine-tune": {"training_macs": 3.0 * 1000 * 4 * IMAGES, "batch_size": 100}},
            "recipes": [{"regimes": [0.5], "count": 3}],
        }
    )
    # Twice the MACs is half the epochs, of which half goes along with MACs.
    first, second = _work(
        plan, [training(0, "fine-tune", 1000), training(1, "fine-tune", 2000)], row("fine-tune", 1000)
    )
    assert second / first == pytest.approx((1 + 4 / 3) / (1 + 2 / 3) / 2)


def test_failed_trainings_teach_nothing():
    progress, *_ = progress_of({0: row("fine-tune", 1000, seconds=0.0, status="failed")}, 2)
    progress.take(Event("started", 1))
    assert progress.remaining() is None


def test_the_display_says_where_it_begins_and_ends():
    stream = io.StringIO()
    progress, folder, _ = progress_of({}, 1)
    with Display(progress, stream).shown() as display:
        progress.take(Event("started", 0))
        folder.rows[0] = row("fine-tune", 1000, status="failed")
        progress.take(Event("failed", 0))
        display.update(Event("failed", 0, message="it diverged"))
    assert stream.getvalue().splitlines() == [
        "0 of 1 trainings",
        "training 0 failed: it diverged",
        "1 of 1 trainings",
    ]


@pytest.mark.parametrize(("seconds", "said"), [(42, "42 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")])
def test_durations_as_people_say_them(seconds, said):
    assert duration(seconds) == said
