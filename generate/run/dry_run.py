"""The dry run: what a plan would make, where its regimes lie, and about how long it takes. Writes nothing."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from generate.plan import Plan, SearchPlan, TrainingSettings
from generate.prune.cost_forms import CostModel, group_lines
from generate.prune.cut import choose_filters, cut
from generate.prune.masks import dense_layers, mask_network
from generate.recipes.baselines import search_problem
from generate.recipes.feasible import feasible_range
from generate.recipes.sample import TOLERANCE, mcb_correlations
from generate.recipes.worklist import Training
from generate.run.prepare import PreparedPlan, survey
from generate.run.progress import duration
from generate.run.rounds import search_warnings
from generate.train.device import default_workers
from generate.train.loop import evaluate, fresh_weights, train, training_steps
from generate.train.original import read_weights
from generate.train.subnetwork import TRAIN_LOSS_IMAGES
from popstats.planning.propose import schedule, smallest_gain

# Trainings timed for the estimate, spread over the plan's range of MACs; steps that are timed of each; test images.
TIMED, TIMED_STEPS, TIMED_TEST_IMAGES = 3, 12, 256


class _Job(NamedTuple):
    """One training whose time is estimated."""

    widths: Sequence[int]
    macs: int
    settings: TrainingSettings
    evaluations: float = 1.0  # passes over the test images


def print_dry_run(plan: Plan, device: torch.device, workers: int | None, given: int = 0) -> int:
    """Print what a plan would make and how long it would take; a search may begin with `given` rows of a pilot."""
    torch.set_num_threads(1)
    prepared = survey(plan, download=False)
    _print_groups(prepared)
    if plan.search is not None:
        _print_search(prepared, plan.search, workers, device, given)
        return 0
    _print_regimes(plan, prepared.costs, prepared.trainings)
    # Test images are passed after training, and twice before it unless from scratch.
    jobs = [
        _Job(t.widths, t.macs, plan.retraining[t.technique], 1 if t.technique == "scratch" else 3)
        for t in prepared.trainings
    ]
    _print_time(prepared, jobs, workers, device)
    return 0


def _print_search(
    prepared: PreparedPlan, search: SearchPlan, workers: int | None, device: torch.device, given: int
) -> None:
    """Print a search's budget, the hours that it takes, and the smallest gain that its images and seeds can show."""
    images, costs = prepared.images, prepared.costs
    problem = search_problem(search, costs)
    widths = tuple(int(width) for width in problem.uniform)
    print(
        f"Budget: {problem.lowest:.2%} to {problem.highest:.2%} of the original's {search.axis}. Uniform keeps "
        f"{', '.join(map(str, widths))}."
    )
    rounds = schedule(search.trainings, search.draws, given)
    print(
        f"Search: {search.trainings} trainings in rounds of {', '.join(map(str, rounds))}, by {len(images.validation):,} "
        f"search images. Confirmation: {search.confirm} fresh seeds of the winner and of {', '.join(search.baselines)}, "
        f"on {len(images.test):,} held-out images."
    )
    measured = len(images.validation) + min(len(images.train), TRAIN_LOSS_IMAGES)
    macs, settings = int(costs.macs(widths)[0]), prepared.plan.retraining[search.technique]
    job = _Job(widths, macs, settings, 1 + measured / len(images.test))
    _print_time(prepared, [job] * search.total, workers, device)
    gain = smallest_gain(search.confirm, len(images.test))
    print(f"Smallest gain that these seeds and images are likely to show: about {gain:.1f} points.")
    for warning in search_warnings(search, len(costs.groups), len(images.test)):
        print(f"Warning: {warning}")


def _print_time(
    prepared: PreparedPlan, jobs: Sequence[_Job], workers: int | None, device: torch.device
) -> None:
    source, costs = prepared.plan.original.source, prepared.costs
    first = f"after the original network, which is read ({source}), not trained"
    if source == "train":
        original = _Job(costs.full_widths.tolist(), costs.original_macs, prepared.plan.original.training)
        seconds = _seconds(prepared, [original], device)
        first = f"after about {duration(seconds)} for the original network"
    elif not source.startswith("torchvision:"):
        read_weights(source)  # refuses what is not there
    count = min(workers or default_workers(device), len(jobs))
    seconds = _seconds(prepared, jobs, device) / count
    print(f"{len(jobs)} trainings with {count} workers on {device}: about {duration(seconds)}, {first}.")


def _seconds(prepared: PreparedPlan, jobs: Sequence[_Job], device: torch.device) -> float:
    """Return the seconds that all trainings take on one worker, from timing a few steps of a few widths."""
    by_macs = sorted(jobs, key=lambda job: job.macs)
    places = np.linspace(0.1, 0.9, min(TIMED, len(jobs))) * (len(jobs) - 1)
    timed = {job.macs: _time_one(prepared, job, device) for job in (by_macs[round(p)] for p in places)}
    macs, images = sorted(timed), len(prepared.images.train)
    total = 0.0
    for job in jobs:
        step, test = (np.interp(job.macs, macs, [timed[m][k] for m in macs]) for k in (0, 1))
        total += training_steps(job.settings, job.macs, images) * step + job.evaluations * test
    return float(total)


def _time_one(prepared: PreparedPlan, job: _Job, device: torch.device) -> tuple[float, float]:
    """Return the seconds of one step and of one pass over the test images."""
    images, groups = prepared.images, prepared.costs.groups
    scores = {group.name: torch.ones(group.width) for group in groups}
    pruning = prepared.plan.pruning
    if pruning.kind == "filters":
        network = cut(prepared.network, groups, choose_filters(scores, groups, job.widths))
    else:
        network = mask_network(prepared.network, groups, scores, job.widths, pruning)
    fresh_weights(network, 0)
    network.to(device)
    share = TIMED_STEPS / max(1, len(images.train) // job.settings.batch_size)
    short = dataclasses.replace(job.settings, epochs=share, training_macs=None)
    for _ in range(2):  # the first pass warms up
        started = time.perf_counter()
        train(network, images, short, macs=job.macs, seed=0, device=device)
        step = (time.perf_counter() - started) / TIMED_STEPS
    sample = images.test.take(slice(TIMED_TEST_IMAGES))
    started = time.perf_counter()
    evaluate(network, images, sample, device=device)
    return step, (time.perf_counter() - started) * len(images.test) / len(sample)


def _print_groups(prepared: PreparedPlan) -> None:
    plan, costs, images = prepared.plan, prepared.costs, prepared.images
    print(
        f"{plan.name}: {plan.network.name} on {images.name} ({images.input_size}; {len(images.train)} "
        "training, "
        f"{len(images.validation)} validation, {len(images.test)} test images)"
    )
    print(
        f"{costs.original_macs:,} MACs, {costs.original_params:,} parameters, {len(costs.groups)} "
        f"{'dependency groups' if plan.pruning.kind == 'filters' else 'layers to prune'}:"
    )
    for line in group_lines(costs):
        print(f"  {line}")
    if plan.pruning.kind == "filters":
        print(
            "  A layer belongs to the groups of its inputs and of its outputs, so the shares add up to more than 100 %; "
            "step: widths are multiples of it."
        )
        return
    if dense := dense_layers(prepared.network, costs.groups, plan.pruning):
        print(f"  Layers that stay dense: {dense}.")
    print(
        "  width: number of weights; step: widths are multiples of it. MACs count non-zero weights and are theoretical."
    )


def _print_regimes(plan: Plan, costs: CostModel, trainings: tuple[Training, ...]) -> None:
    """Print each regime's recipes: their number, the range of costs and mCB, and which group mCB is confounded with."""
    regimes: dict[tuple[str, float, str], list[Training]] = {}
    for training in trainings:
        regimes.setdefault((training.axis, training.target, training.space), []).append(training)
    print(
        f"{'regime':>12} {'space':<16} {'trainings':>9} {'recipes':>8} {'MACs left':>15} "
        f"{'parameters left':>16} {'mCB':>12}  closest group"
    )
    for (axis, target, space), held in sorted(regimes.items()):
        widths = np.unique(np.array([training.widths for training in held]), axis=0)
        macs, params = costs.share("macs", widths), costs.share("params", widths)
        mcb, closest = macs / params, "-"
        if len(widths) > 2:
            name, correlation = mcb_correlations(widths, costs)[0]
            closest = f"{name} (correlation {correlation:+.2f})"
        ranges = " ".join(f"{share.min():>7.1%}..{share.max():<6.1%}" for share in (macs, params))
        print(
            f"{axis:>6} {target:>5.2f} {space:<16.16} {len(held):>9} {len(widths):>8} {ranges} "
            f"{mcb.min():>5.2f}..{mcb.max():<5.2f}  {closest}"
        )
        if missed := _off_target(axis, target, macs, params):
            print(
                f"{'':>13}{missed} recipes miss the target by more than 0.5 %: the steps of the widths are too coarse"
            )
    print(
        "  closest group: the width most correlated with log mCB; near +1 or -1 its effect cannot be separated from "
        "that of mCB."
    )
    print("Feasible ranges (STD: standard deviation of the pruning ratios over groups):")
    if plan.pruning.kind == "weights":
        print(f"  Floor: every filter keeps at least {plan.pruning.floor} weights.")
    blocks = {(t.axis, t.target): plan.recipes[t.block].round_to for t in trainings}
    for (axis, target), round_to in sorted(blocks.items()):
        print(f"{axis:>6} {target:>5.2f} {feasible_range(costs, axis, target, round_to)}")
    if {"global", "lamp"} & {name for block in plan.recipes for name in block.baselines}:
        print(
            "The baselines global and lamp depend on the original's weights: those above are of an untrained network."
        )
    techniques = Counter(training.technique for training in trainings)
    print("Retraining: " + ", ".join(f"{name} {count}" for name, count in sorted(techniques.items())))


def _off_target(axis: str, target: float, macs: np.ndarray, params: np.ndarray) -> int:
    """Count the recipes whose reduction lies further from the target than a recipe's should."""
    kept = {"macs": [macs], "params": [params], "both": [macs, params]}[axis]
    worst = np.max([np.abs(1.0 - share - target) for share in kept], axis=0)
    return int((worst > TOLERANCE + 1e-12).sum())
