"""The command that makes a population: `python -m generate.population [PLAN.toml] [--out DIR] ...`."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from generate.plan import DEFAULT_PLAN, Plan, read_plan, source_of
from popstats.errors import BAD_INPUT, PlanError, PopstatsError

if TYPE_CHECKING:
    import torch

    from generate.run.folder import Claims, RunFolder
    from generate.run.prepare import Survey
    from generate.run.progress import Clock, Display, Event
    from generate.train.original import OriginalNumbers


RUNS = Path("runs")
# keep_weights = "best": trainings between two looks at whose weights can go.
DROP_EVERY = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 complete, 2 bad input or an error, 3 stopped before the end."""
    options = _parser().parse_args(arguments)
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        return _run(options)
    except PopstatsError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("Stopped. Everything finished is kept; the same command goes on from there.", file=sys.stderr)
        return 3
    finally:
        signal.signal(signal.SIGTERM, previous)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m generate.population",
        description="Make a population of pruned, retrained subnetworks. Run again, it continues; nothing is lost.",
    )
    parser.add_argument(
        "plan",
        nargs="?",
        type=Path,
        metavar="PLAN.toml",
        help="what to make; default: digits, a few minutes on two cores",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder; default: runs/NAME")
    parser.add_argument(
        "--workers", type=_positive, metavar="N", help="worker processes; default: one a core, or four a GPU"
    )
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="where to train; default: auto"
    )
    parser.add_argument(
        "--executor", choices=("local", "ray"), default="local", help="who trains; default: local"
    )
    parser.add_argument(
        "--time-limit", type=_seconds, metavar="SECONDS", help="start no training after this time"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and how long it would take"
    )
    parser.add_argument(
        "--fit",
        type=Path,
        metavar="FIT.nc",
        help="with --dry-run: a pilot's saved fit, to say how many recipes its regimes need",
    )
    parser.add_argument(
        "--status", action="store_true", help="say how far the run folder is; changes nothing"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, at least 1; got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, 0 or more; got {text!r}")
    return value


def _run(options: argparse.Namespace) -> int:
    plan, file, path = _plan_and_folder(options)
    if options.fit is not None and not options.dry_run:
        raise PlanError("--fit: only a dry run reads a pilot's fit; add --dry-run")
    if options.status:
        return _status(path, options.workers)
    device = _device(options.device)
    with _naming(file):
        if options.dry_run:
            from generate.run.dry_run import print_dry_run

            return print_dry_run(plan, device, options.workers, options.fit)
        return _make(plan, source_of(file), path, device, options)


def _status(path: Path, workers: int | None) -> int:
    from generate.run.status import print_status
    from generate.train.device import choose_device, default_workers

    return print_status(path, workers or default_workers(choose_device("auto")))


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Put the plan's file before errors about a block of recipes, as the errors of reading it have it."""
    try:
        yield
    except PlanError as error:
        if str(error).startswith("recipes["):
            raise PlanError(f"{file}, {error}") from error
        raise


def _plan_and_folder(options: argparse.Namespace) -> tuple[Plan, Path, Path]:
    """Return the plan, its file and the run folder; without a plan, the folder's own, or digits."""
    file = options.plan
    if file is None and options.out is not None and (options.out / "plan.toml").exists():
        file = options.out / "plan.toml"
    file = file or DEFAULT_PLAN
    plan = read_plan(file)
    return plan, file, options.out or RUNS / plan.name


def _device(name: str) -> torch.device:
    import torch

    from generate.train.device import choose_device

    if not re.fullmatch("auto|cpu|cuda(:[0-9]+)?", name):
        raise PlanError(f"--device: expected auto, cpu, cuda or cuda:N; got {name!r}.")
    try:
        device = choose_device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise PlanError(f"--device: {name!r} cannot be used here ({reason}). Use auto or cpu.") from error
    if name == "auto" and device.type == "cpu":
        print("No GPU found: everything runs on the CPU.", flush=True)
    return device


@dataclass(frozen=True)
class _Run:
    """A prepared run folder and how it is to be filled."""

    folder: RunFolder
    claims: Claims
    plan: Plan
    original: OriginalNumbers
    total: int
    deadline: float


def _make(plan: Plan, source: str, path: Path, device: torch.device, options: argparse.Namespace) -> int:
    from generate.run.folder import Claims

    deadline = math.inf if options.time_limit is None else time.time() + options.time_limit
    surveyed, folder = _check(plan, path, device)
    with contextlib.closing(Claims(folder)) as claims, _executor(plan, device, folder, options) as execute:
        run = _prepare(surveyed, source, folder, claims, device, deadline)
        _train(run, execute)
    return _finish(run)


def _check(plan: Plan, path: Path, device: torch.device) -> tuple[Survey, RunFolder]:
    """Check everything that can be checked before anything is trained, and make the folder."""
    from generate.run.folder import RunFolder
    from generate.run.prepare import survey
    from generate.train.device import settle_on_device

    # The original is trained with one thread too, so that it is the same whatever the number of cores.
    settle_on_device(device)
    surveyed = survey(plan)
    folder = RunFolder(path)
    if not folder.has_worklist_of(plan):
        # Drawn once before anything is written: an impossible regime leaves no folder behind.
        surveyed.worklist(original_id="")
    folder.create()
    return surveyed, folder


def _prepare(
    surveyed: Survey, source: str, folder: RunFolder, claims: Claims, device: torch.device, deadline: float
) -> _Run:
    """Bring the folder to where trainings can start."""
    from generate.inputs.kernel import missing_kernel
    from generate.run.prepare import prepare
    from generate.train.device import release_freed_memory

    if lacking := missing_kernel(device, surveyed.images.input_shape):
        print(lacking, flush=True)
    print(f"Preparing {folder.path}: the original network and the recipes.", flush=True)
    with claims.preparation(_say_that_another_prepares):
        folder.sweep()
        original, trainings = prepare(folder, surveyed, source, device)
    # Workers need the room that this process took on a GPU to train the original.
    release_freed_memory()
    print(
        f"Original {original.network} on {original.dataset}: {original.accuracy:.2f} %, "
        f"{original.macs:,} MACs, {original.params:,} parameters.",
        flush=True,
    )
    return _Run(folder, claims, surveyed.plan, original, len(trainings), deadline)


def _say_that_another_prepares() -> None:
    print("Another process prepares it; waiting for that.", flush=True)


def _train(run: _Run, execute: Callable[[_Run, Callable[[Event], None]], None]) -> None:
    """Train what is missing; whatever stops it, the rows that are there are compacted."""
    from generate.run.prepare import metadata
    from generate.run.progress import Clock, display_for

    folder = run.folder
    rows = {index: folder.read_row(index) for index in folder.finished()}
    clock = Clock(run.plan, folder.read_worklist(), rows)
    try:
        if clock.finished < run.total:
            with display_for(clock) as display:
                execute(run, _reporter(folder, run.plan, clock, display))
    finally:
        # One process after the other: of two that end together, the one with fewer rows must not write last.
        with run.claims.preparation():
            if run.plan.keep_weights == "best":
                folder.drop_beaten_weights()
            # Another process may have made the plan grow.
            folder.compact(metadata(folder.read_plan() or run.plan, run.original))


@contextlib.contextmanager
def _executor(
    plan: Plan, device: torch.device, folder: RunFolder, options: argparse.Namespace
) -> Iterator[Callable[[_Run, Callable[[Event], None]], None]]:
    """Give what trains a run; a cluster is joined at once, before the original is trained for nothing.

    None is asked for where nothing is left to train.
    """
    finished = folder.has_worklist_of(plan) and len(folder.finished()) >= len(folder.read_worklist())
    if options.executor == "local" or finished:
        yield lambda run, report: _train_locally(run, device, options.workers, report)
        return
    from generate.workers.ray_session import ray_session

    with ray_session(plan, device, lambda event: print(event.message, flush=True)) as session:
        yield lambda run, report: session.train(
            run.folder, workers=options.workers, device=device, deadline=run.deadline, report=report
        )


def _train_locally(
    run: _Run, device: torch.device, workers: int | None, report: Callable[[Event], None]
) -> None:
    from generate.train.device import default_workers, worker_devices
    from generate.workers.local import run_local

    count = min(workers or default_workers(device), run.total - len(run.folder.finished()))
    run_local(
        run.folder,
        run.claims,
        devices=worker_devices(device, max(1, count)),
        deadline=run.deadline,
        report=report,
    )


def _reporter(folder: RunFolder, plan: Plan, clock: Clock, display: Display) -> Callable[[Event], None]:
    """Return what executors tell their events to."""
    since_dropping = itertools.count(1)

    def report(event: Event) -> None:
        if event.kind == "note":
            display.note(event.message)
            return
        clock.take(event, {index: folder.read_row(index) for index in clock.news(folder.finished())})
        display.update(event)
        if plan.keep_weights == "best" and event.kind == "done" and next(since_dropping) % DROP_EVERY == 0:
            folder.drop_beaten_weights()

    return report


def _finish(run: _Run) -> int:
    """Say what there is and what to do next."""
    rows = run.folder.read_rows()
    # Another process may have made the plan grow.
    total = len(run.folder.read_worklist())
    failed = sum(row["status"] == "failed" for row in rows)
    print(f"{len(rows)} of {total} trainings finished ({failed} failed): {run.folder.population_path}")
    if len(rows) < total:
        why = "The time limit is reached" if time.time() >= run.deadline else "Stopped"
        print(f"{why}; {total - len(rows)} trainings are left. The same command goes on from here.")
        return 3
    print("Next:")
    command = (_python(), "-m", "popstats", "report", run.folder.path, "-o", run.folder.path / "report.html")
    print("  " + shlex.join(map(str, command)))
    return 0


def _python() -> str:
    """Return how this Python was called, as short as it can be."""
    relative = os.path.relpath(sys.executable)
    return relative if len(relative) < len(sys.executable) else sys.executable


if __name__ == "__main__":
    sys.exit(main())
