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

from generate.plan import DEFAULT_PLAN, Plan, read_plan
from popstats.errors import BAD_INPUT, PlanError, PopstatsError, RunFolderError

if TYPE_CHECKING:
    import torch

    from generate.run.folder import Claims, RunFolder
    from generate.run.prepare import PreparedPlan
    from generate.run.progress import Display, Event, RunProgress
    from generate.train.original import OriginalNumbers


RUNS = Path("runs")
# keep_weights = "best": trainings between two looks at whose weights can go.
DROP_EVERY = 50
# Exit status of a run that stopped before its end.
STOPPED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 complete, 2 bad input or an error, 3 stopped before the end."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: _run(options))


def guarded(command: Callable[[], int]) -> int:
    """Run a command that trains; its errors and signals become sentences and an exit status."""
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        return command()
    except PopstatsError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("Stopped. Finished trainings are saved; rerun the command to resume.", file=sys.stderr)
        return STOPPED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m generate.population",
        description="Make a population of pruned, retrained subnetworks. Rerun the command to resume.",
    )
    parser.add_argument(
        "plan",
        nargs="?",
        type=Path,
        metavar="PLAN.toml",
        help="what to make; default: digits, a few minutes on two cores",
    )
    add_run_options(parser)
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that fills a run folder."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder; default: runs/NAME")
    parser.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="worker processes; default: one per core, or four per GPU",
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
        "--dry-run", action="store_true", help="print what would be done and how long it would take"
    )
    parser.add_argument(
        "--status", action="store_true", help="print how far the run folder is; changes nothing"
    )


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
    if options.status:
        return show_status(path, options.workers)
    device = chosen_device(options.device)
    with _naming(file):
        if options.dry_run:
            from generate.run.dry_run import print_dry_run

            return print_dry_run(plan, device, options.workers)
        return _finish(make(plan, path, device, options))


def show_status(path: Path, workers: int | None) -> int:
    """Print how far the run folder at `path` is."""
    from generate.run.progress import print_status
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


def chosen_device(name: str) -> torch.device:
    """Return the device that --device names, if trainings can run on it."""
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
class Run:
    """A prepared run folder and how it is to be filled."""

    folder: RunFolder
    claims: Claims
    plan: Plan
    original: OriginalNumbers
    deadline: float  # `time.time()` after which no training is started


def make(plan: Plan, path: Path, device: torch.device, options: argparse.Namespace) -> Run:
    """Make the plan's trainings in the folder at `path`, as far as time and signals allow."""
    from generate.run.folder import Claims

    deadline = math.inf if options.time_limit is None else time.time() + options.time_limit
    prepared, folder = check(plan, path, device)
    with contextlib.closing(Claims(folder)) as claims, _executor(plan, device, folder, options) as execute:
        run = _prepare(prepared, folder, claims, device, deadline)
        _train(run, execute)
    return run


def check(plan: Plan, path: Path, device: torch.device) -> tuple[PreparedPlan, RunFolder]:
    """Check everything that can be checked before anything is trained, and make the folder."""
    from generate.run.folder import RunFolder
    from generate.run.prepare import survey
    from generate.train.device import settle_on_device

    # The original is trained with one thread too, so that it is the same whatever the number of cores.
    settle_on_device(device)
    folder = RunFolder(path)
    # Drawn before anything is written: an impossible regime leaves no folder behind.
    prepared = survey(plan, folder)
    folder.create()
    return prepared, folder


def _prepare(
    prepared: PreparedPlan, folder: RunFolder, claims: Claims, device: torch.device, deadline: float
) -> Run:
    """Bring the folder to where trainings can start."""
    from generate.inputs.kernel import missing_kernel
    from generate.run.prepare import prepare
    from generate.run.rounds import search_warnings
    from generate.train.device import release_freed_memory
    from generate.train.original import doubts_about

    if lacking := missing_kernel(device, prepared.images.input_shape):
        print(lacking, flush=True)
    print(f"Preparing {folder.path}: the original network and the recipes.", flush=True)
    with claims.preparation(_say_that_another_prepares):
        folder.sweep()
        original = prepare(folder, prepared, device)
    # Workers need the room that this process took on a GPU to train the original.
    release_freed_memory()
    print(
        f"Original {original.network} on {original.dataset}: {original.accuracy:.2f} %, "
        f"{original.macs:,} MACs, {original.params:,} parameters.",
        flush=True,
    )
    plan, images = prepared.plan, prepared.images
    warnings = [*doubts_about(original, plan, images.classes)]
    if plan.search is not None:
        groups = len(prepared.costs.groups)
        warnings += search_warnings(plan.search, groups, len(images.test), original.accuracy)
    for warning in warnings:
        print(f"Warning: {warning}", file=sys.stderr, flush=True)
    return Run(folder, claims, plan, original, deadline)


def _say_that_another_prepares() -> None:
    print("Another process is preparing it; waiting.", flush=True)


def _train(run: Run, execute: Callable[[Run, Callable[[Event], None]], None]) -> None:
    """Train what is missing; whatever stops it, the rows that are there are compacted."""
    from generate.run.prepare import metadata
    from generate.run.progress import Display, RunProgress

    folder = run.folder
    progress = RunProgress(folder)
    try:
        if len(progress.rows) < progress.total:
            with Display(progress).shown() as display:
                execute(run, _reporter(progress, display))
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
) -> Iterator[Callable[[Run, Callable[[Event], None]], None]]:
    """Yield what trains a run; a cluster is joined at once, before the original is trained for nothing."""
    if options.executor == "local" or is_complete(folder, plan):
        yield lambda run, report: _train_locally(run, device, options.workers, report)
        return
    from generate.workers.ray_session import ray_session

    with ray_session(plan, device, lambda event: print(event.message, flush=True)) as session:
        yield lambda run, report: session.train(
            run.folder, workers=options.workers, device=device, deadline=run.deadline, report=report
        )


def is_complete(folder: RunFolder, plan: Plan) -> bool:
    """Whether every training of the plan is finished."""
    from generate.recipes.worklist import is_proposed_whole

    if not folder.has_worklist_of(plan):
        return False
    trainings = folder.read_worklist()
    whole = plan.search is None or is_proposed_whole(trainings)
    return whole and folder.finished() >= {training.index for training in trainings}


def _train_locally(
    run: Run, device: torch.device, workers: int | None, report: Callable[[Event], None]
) -> None:
    from generate.run.progress import RunProgress
    from generate.train.device import default_workers, worker_devices
    from generate.workers.local import run_local

    left = RunProgress(run.folder)
    count = min(workers or default_workers(device), left.total - len(left.rows))
    run_local(
        run.folder,
        run.claims,
        devices=worker_devices(device, max(1, count)),
        deadline=run.deadline,
        report=report,
    )


def _reporter(progress: RunProgress, display: Display) -> Callable[[Event], None]:
    """Return what executors tell their events to."""
    since_dropping = itertools.count(1)

    def report(event: Event) -> None:
        if event.kind != "note":
            progress.take(event)
        display.update(event)
        best_only = progress.plan is not None and progress.plan.keep_weights == "best"
        if best_only and event.kind == "done" and next(since_dropping) % DROP_EVERY == 0:
            progress.folder.drop_beaten_weights()

    return report


def _finish(run: Run) -> int:
    """Print what there is and what to do next."""
    if (status := print_finished(run)) != 0:
        return status
    print("Next:")
    folder = run.folder.path
    print(
        "  "
        + shlex.join(
            [called_python(), "-m", "popstats", "report", str(folder), "-o", f"{folder}/report.html"]
        )
    )
    return 0


def print_finished(run: Run) -> int:
    """Print how many trainings are finished; return the exit status, 0 where there are results and none is missing."""
    from generate.run.progress import RunProgress, most_frequent_reason

    progress = RunProgress(run.folder)
    done, total = len(progress.rows), progress.total
    print(f"{done} of {total} trainings finished ({progress.failed} failed): {run.folder.population_path}")
    if done < total:
        why = "Time limit reached" if time.time() >= run.deadline else "Stopped"
        print(f"{why}; {total - done} trainings are left. Rerun the command to resume.")
        return STOPPED
    if progress.failed == done:
        raise RunFolderError(
            f"{run.folder.path}: all {done} trainings failed, most of them because: "
            f"{most_frequent_reason(list(progress.rows.values()))}. Check the network and the plan's retraining settings, "
            "and start a new folder with --out."
        )
    return 0


def called_python() -> str:
    """Return how this Python was called, as short as it can be."""
    relative = os.path.relpath(sys.executable)
    return relative if len(relative) < len(sys.executable) else sys.executable


if __name__ == "__main__":
    sys.exit(main())
