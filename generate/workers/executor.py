"""Filling a run folder: checked, prepared, trained by worker processes or on Ray, compacted."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from generate.plan import Plan
from generate.recipes.worklist import is_proposed_whole
from generate.run.folder import Claims, RunFolder
from generate.run.prepare import PreparedPlan, metadata, prepare, survey
from generate.run.progress import Display, Event, Report, RunProgress
from generate.run.rounds import search_warnings
from generate.train.device import default_workers, release_freed_memory, settle_on_device, worker_devices
from generate.train.original import OriginalNumbers, doubts_about
from generate.workers.local import run_local
from generate.workers.ray_cluster import join, unused_gpus
from generate.workers.ray_driver import run_ray
from popstats.errors import STOPPED, RunFolderError

# keep_weights = "best": trainings between two looks at whose weights can go.
DROP_EVERY = 50


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
    deadline = math.inf if options.time_limit is None else time.time() + options.time_limit
    prepared, folder = check(plan, path, device)
    on_ray = options.executor == "ray" and not is_complete(folder, plan)
    # A cluster is joined at once, before the original is trained for nothing.
    if on_ray and (idle := unused_gpus(join(plan, device)[0], device)):
        print(idle, flush=True)
    with contextlib.closing(Claims(folder)) as claims:
        run = _prepare(prepared, folder, claims, device, deadline)
        _train(run, device, options.workers, on_ray)
    return run


def check(plan: Plan, path: Path, device: torch.device) -> tuple[PreparedPlan, RunFolder]:
    """Check everything that can be checked before anything is trained, and make the folder."""
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
    print(f"Preparing {folder.path}: the original network and the recipes.", flush=True)
    with claims.preparation(lambda: print("Another process is preparing it; waiting.", flush=True)):
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


def _train(run: Run, device: torch.device, workers: int | None, on_ray: bool) -> None:
    """Train what is missing; whatever stops it, the finished rows are compacted."""
    folder = run.folder
    progress = RunProgress(folder)
    try:
        if (missing := progress.total - len(progress.rows)) > 0:
            with Display(progress).shown() as display:
                report, end = _reporter(progress, display), run.deadline
                if on_ray:
                    run_ray(folder, run.claims, workers=workers, device=device, deadline=end, report=report)
                else:
                    devices = worker_devices(device, min(workers or default_workers(device), missing))
                    run_local(folder, run.claims, devices=devices, deadline=end, report=report)
    finally:
        # One process after the other: of two that end together, the one with fewer rows must not write last.
        with run.claims.preparation():
            if run.plan.keep_weights == "best":
                folder.drop_beaten_weights()
            # Another process may have made the plan grow.
            folder.compact(metadata(folder.read_plan() or run.plan, run.original))


def is_complete(folder: RunFolder, plan: Plan) -> bool:
    """Whether every training of the plan is finished."""
    if not folder.has_worklist_of(plan):
        return False
    trainings = folder.read_worklist()
    whole = plan.search is None or is_proposed_whole(trainings)
    return whole and folder.finished() >= {training.index for training in trainings}


def _reporter(progress: RunProgress, display: Display) -> Report:
    """Return what executors report their events to."""
    since_dropping = itertools.count(1)

    def report(event: Event) -> None:
        if event.kind != "note":
            progress.take(event)
        display.update(event)
        best_only = progress.plan is not None and progress.plan.keep_weights == "best"
        if best_only and event.kind == "done" and next(since_dropping) % DROP_EVERY == 0:
            progress.folder.drop_beaten_weights()

    return report


def print_finished(run: Run) -> int:
    """Print how many trainings are finished; return the exit status, 0 where there are results and none is missing."""
    progress = RunProgress(run.folder)
    done, total = len(progress.rows), progress.total
    print(f"{done} of {total} trainings finished ({progress.failed} failed): {run.folder.population_path}")
    # Where none of a search's trainings succeeded, there are no more to come.
    if done and progress.failed == done and not progress.missing:
        reason, _ = Counter(row["error"] for row in progress.rows.values()).most_common(1)[0]
        raise RunFolderError(
            f"{run.folder.path}: all {done} trainings failed, most of them because: {reason}. Check the network and the "
            "plan's retraining settings, and start a new folder with --out."
        )
    if done < total:
        why = "Time limit reached" if time.time() >= run.deadline else "Stopped"
        print(f"{why}; {total - done} trainings are left. Rerun the command to resume.")
        return STOPPED
    return 0
