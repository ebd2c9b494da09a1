"""Filling a run folder: checked, prepared, trained by worker processes or on Ray, compacted."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from generate.plan import Plan
from generate.run.folder import Claims, RunFolder
from generate.run.prepare import PreparedPlan, prepare, survey
from generate.run.progress import Display, Event, RunProgress
from generate.run.rounds import search_warnings
from generate.train.device import default_workers, release_freed_memory, settle_on_device, worker_devices
from generate.train.original import doubts_about
from generate.workers.local import run_local
from generate.workers.ray_cluster import join, unused_gpus
from generate.workers.ray_driver import run_ray
from popstats.errors import STOPPED, RunFolderError

# keep_weights = "best": trainings between two looks at whose weights can go.
DROP_EVERY = 50


def fill(plan: Plan, path: Path, device: torch.device, options: argparse.Namespace) -> int:
    """Make the plan's trainings in the folder at `path`, as far as time and signals allow; return the exit status."""
    deadline = math.inf if options.time_limit is None else time.time() + options.time_limit
    # The original is trained with one thread too, so that it is the same whatever the number of cores.
    settle_on_device(device)
    folder = RunFolder(path)
    # Everything is checked before anything is written: an impossible regime leaves no folder behind.
    prepared = survey(plan, folder)
    folder.create()
    on_ray = options.executor == "ray" and not (
        folder.has_worklist_of(plan) and RunProgress(folder).left == 0
    )
    # A cluster is joined at once, before the original is trained for nothing.
    if on_ray and (idle := unused_gpus(join(plan, device)[0], device)):
        print(idle, flush=True)
    with contextlib.closing(Claims(folder)) as claims:
        _prepare(prepared, folder, claims, device)
        try:
            _train(folder, claims, device, deadline, options.workers, on_ray)
        finally:
            # One process after the other: of two that end together, the one with fewer rows must not write last.
            with claims.preparation():
                if plan.keep_weights == "best":
                    folder.drop_beaten_weights()
                folder.compact()
    return _finished(folder, deadline)


def _prepare(prepared: PreparedPlan, folder: RunFolder, claims: Claims, device: torch.device) -> None:
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


def _train(
    folder: RunFolder,
    claims: Claims,
    device: torch.device,
    deadline: float,
    workers: int | None,
    on_ray: bool,
) -> None:
    """Train what is missing."""
    progress = RunProgress(folder)
    if (missing := progress.left) <= 0:
        return
    since_dropping = itertools.count(1)
    with Display(progress).shown() as display:

        def report(event: Event) -> None:
            if event.kind != "note":
                progress.take(event)
            display.update(event)
            best_only = progress.plan is not None and progress.plan.keep_weights == "best"
            if best_only and event.kind == "done" and next(since_dropping) % DROP_EVERY == 0:
                folder.drop_beaten_weights()

        if on_ray:
            run_ray(folder, claims, workers=workers, device=device, deadline=deadline, report=report)
        else:
            devices = worker_devices(device, min(workers or default_workers(device), missing))
            run_local(folder, claims, devices=devices, deadline=deadline, report=report)


def _finished(folder: RunFolder, deadline: float) -> int:
    """Print how many trainings are finished; return the exit status, 0 where there are results and none is missing."""
    progress = RunProgress(folder)
    done, left = len(progress.rows), progress.left
    print(
        f"{done} of {progress.total} trainings finished ({progress.failed} failed): {folder.population_path}"
    )
    # Where none of a search's trainings succeeded, there are no more to come.
    if done and progress.failed == done and not progress.missing:
        reason, _ = Counter(row["error"] for row in progress.rows.values()).most_common(1)[0]
        raise RunFolderError(
            f"{folder.path}: all {done} trainings failed, most of them because: {reason}. Check the network and the "
            "plan's retraining settings, and start a new folder with --out."
        )
    if left > 0:
        why = "Time limit reached" if time.time() >= deadline else "Stopped"
        print(f"{why}; {left} trainings are left. Rerun the command to resume.")
        return STOPPED
    return 0
