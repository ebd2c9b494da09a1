"""The command that makes a population: `python -m generate.population [PLAN.toml] [--out DIR] ...`."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from generate.plan import DEFAULT_PLAN, Plan, Study, read_study, toml_of
from popstats.errors import BAD_INPUT, STOPPED, PlanError, PopstatsError

if TYPE_CHECKING:
    import torch

type Command = Callable[[argparse.Namespace], int]

RUNS = Path("runs")
STUDY_COPY = "study.toml"
RESUMABLE = "Stopped. Finished trainings are saved; rerun the command to resume."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 complete, 2 bad input or an error, 3 stopped before the end."""
    return reported(_make_study, _parser().parse_args(arguments), RESUMABLE)


def guarded(command: Command, options: argparse.Namespace, path: Callable[[], Path]) -> int:
    """Run a command that fills the folder at `path`, with Ray in a child process; SIGTERM counts as Ctrl-C."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.executor == "local" or options.dry_run or options.status:
            return reported(command, options, RESUMABLE)
        from generate.workers.processes import in_own_process

        own = partial(reported, command, stopped=RESUMABLE)
        return reported(lambda given: in_own_process(own, given, path()), options, RESUMABLE)
    finally:
        signal.signal(signal.SIGTERM, previous)


def reported(command: Command, options: argparse.Namespace, stopped: str = "Stopped.") -> int:
    """Run a command; its errors and interrupts become sentences and an exit status."""
    try:
        return command(options)
    except PopstatsError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return STOPPED


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
        help="the plan; default: digits, a few minutes on two cores",
    )
    add_run_options(parser)
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that fills a run folder."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder; default: runs/NAME")
    parser.add_argument(
        "--workers",
        type=number(int, lambda n: n >= 1, "a whole number, at least 1"),
        metavar="N",
        help="worker processes; default: one per core, or four per GPU",
    )
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="where to train; default: auto"
    )
    parser.add_argument(
        "--executor", choices=("local", "ray"), default="local", help="where trainings run; default: local"
    )
    parser.add_argument(
        "--time-limit",
        type=number(float, lambda seconds: seconds >= 0, "a number of seconds, 0 or more"),
        metavar="SECONDS",
        help="start no training after this many seconds",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done and how long it would take"
    )
    parser.add_argument(
        "--status", action="store_true", help="print the progress of the run folder; changes nothing"
    )


def number[T: (int, float)](
    kind: Callable[[str], T], fits: Callable[[T], bool], expected: str
) -> Callable[[str], T]:
    """Return what reads an option's number."""

    def parse(text: str) -> T:
        try:
            value = kind(text)
        except ValueError:
            value = kind("-1")
        if not fits(value):
            raise argparse.ArgumentTypeError(f"expected {expected}; got {text!r}")
        return value

    return parse


def _make_study(options: argparse.Namespace) -> int:
    """Fill the run folders of a plan file one after the other; a single population has the study's folder itself."""
    # Without a plan, the folder's own, or digits.
    own = [] if options.out is None else [options.out / "plan.toml", options.out / STUDY_COPY]
    file = options.plan or next((file for file in own if file.exists()), DEFAULT_PLAN)
    study = read_study(file)
    out = options.out or RUNS / study.name
    plans = {out / folder: plan for folder, plan in study.plans.items()}
    only_looks = options.status or options.dry_run
    if out not in plans and not only_looks:
        _begin_study(study, plans, out, file)
    deadline = None if options.time_limit is None else time.monotonic() + options.time_limit
    for path, plan in plans.items():
        begun = path == out or path.exists()
        if options.status and not begun:
            print(f"{path}: not started.")
            continue
        if deadline is not None:
            options.time_limit = max(0.0, deadline - time.monotonic())
            if not (begun or options.dry_run or options.time_limit):
                print(f"Time limit reached before {path} was begun. Rerun the command to resume.")
                return STOPPED
        if (status := guarded(partial(_run, plan, file, path), options, partial(Path, path))) != 0:
            return status
    if not only_looks:
        # As `make demo` does it: recipes that collapse count less.
        report = ["report", *map(str, plans), "-o", f"{out}/report.html", "--noise", "student"]
        print(f"Next:\n  {shlex.join([called_python(), '-m', 'popstats', *report])}")
    return 0


def _begin_study(study: Study, plans: Mapping[Path, Plan], out: Path, file: Path) -> None:
    """Refuse what a study's last network cannot do before the first is trained; keep a copy of its file."""
    from generate.run.folder import RunFolder, write_whole
    from generate.run.prepare import survey

    with _naming(file):
        for path, plan in plans.items():
            survey(plan, RunFolder(path))
    RunFolder(next(iter(plans))).create()
    write_whole(out / STUDY_COPY, toml_of(study.table).encode())


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Put the plan's file before errors about a block of recipes, as the errors of reading it have it."""
    try:
        yield
    except PlanError as error:
        if str(error).startswith("recipes["):
            raise PlanError(f"{file}, {error}") from error
        raise


def _run(plan: Plan, file: Path, path: Path, options: argparse.Namespace) -> int:
    if options.status:
        return show_status(path, options.workers)
    device = chosen_device(options.device)
    from generate.run.dry_run import print_dry_run
    from generate.workers.executor import fill

    with _naming(file):
        if options.dry_run:
            return print_dry_run(plan, device, options.workers)
        return fill(plan, path, device, options)


def show_status(path: Path, workers: int | None) -> int:
    """Print how far the run folder at `path` is."""
    from generate.run.progress import print_status
    from generate.train.device import choose_device, default_workers

    return print_status(path, workers or default_workers(choose_device("auto")))


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


def called_python() -> str:
    """Return how this Python was called, as short as it can be."""
    relative = os.path.relpath(sys.executable)
    return relative if len(relative) < len(sys.executable) else sys.executable


if __name__ == "__main__":
    sys.exit(main())
