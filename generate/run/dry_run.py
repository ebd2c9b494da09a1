"""The dry run: what a plan would make, where its regimes lie, and about how long it takes. Writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generate.plan import Plan, TrainingSettings
from generate.prune.cost_forms import CostModel, group_lines
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
from popstats.arrays import IntArray
from popstats.errors import PlanError
from popstats.planning.propose import schedule, smallest_gain

# Trainings timed for the estimate, spread over the plan's range of MACs, and the steps that are timed of each.
TIMED = 3


TIMED_STEPS = 12


TIMED_TEST_IMAGES = 256


def print_dry_run(plan: Plan, device: torch.device, workers: int | None, pilot: Path | None = None) -> int:
    """Print the plan's groups, regimes, number of trainings and estimated time; what a pilot's fit says of them."""
    torch.set_num_threads(1)
    prepared = survey(plan, download=False)
    trainings = prepared.trainings
    _print_groups(plan, prepared)
    _print_regimes(plan, prepared.costs, trainings)
    if pilot is not None:
        print_pilot(pilot, trainings)
    count = min(workers or default_workers(device), len(trainings))
    seconds = estimated_seconds(prepared, trainings, device) / count
    print(
        f"{len(trainings)} trainings with {count} workers on {device}: about {duration(seconds)}, "
        f"{_original_first(prepared, device)}."
    )
    return 0


def _original_first(prepared: PreparedPlan, device: torch.device) -> str:
    """Say what the original network takes, before the trainings."""
    source = prepared.plan.original.source
    if source != "train":
        if not source.startswith("torchvision:"):
            read_weights(source)
        return f"after the original network, which is read ({source}), not trained"
    return f"after about {duration(original_seconds(prepared, device))} for the original network"


def original_seconds(prepared: PreparedPlan, device: torch.device) -> float:
    """Return the seconds that the original network's training takes, from timing a few steps."""
    settings, costs = prepared.plan.original.training, prepared.costs
    widths, macs = tuple(map(int, costs.full_widths)), costs.original_macs
    step, test = _time_one(prepared, widths, macs, settings, device)
    return _steps(prepared, settings, macs) * step + test


def _print_groups(plan: Plan, prepared: PreparedPlan) -> None:
    costs, images = prepared.costs, prepared.images
    print(
        f"{plan.name}: {plan.network.name} on {images.name} ({images.input_size}; {len(images.train)} "
        "training, "
        f"{len(images.validation)} validation, {len(images.test)} test images)"
    )
    print(
        f"{costs.original_macs:,} MACs, {costs.original_params:,} parameters, {len(costs.groups)} "
        "dependency groups:"
    )
    for line in group_lines(costs):
        print(f"  {line}")
    print(
        "  A layer belongs to the groups of its inputs and of its outputs, so the shares add up to more than 100 %; "
        "step: widths are multiples of it."
    )


def _print_regimes(plan: Plan, costs: CostModel, trainings: tuple[Training, ...]) -> None:
    """Print each regime's recipes: their number, the range of costs and mCB, and which group mCB is confounded with."""
    regimes: dict[tuple[str, float, str], list[Training]] = {}
    for training in trainings:
        regimes.setdefault((training.axis, training.target, training.space), []).append(training)
    print(
        f"{'regime':>12} {'space':<12} {'trainings':>9} {'recipes':>8} {'MACs left':>15} "
        f"{'parameters left':>16} {'mCB':>12}  closest group"
    )
    for (axis, target, space), held in sorted(regimes.items()):
        widths = np.unique(np.array([training.widths for training in held]), axis=0)
        macs = costs.macs(widths) / costs.original_macs
        params = costs.params(widths) / costs.original_params
        mcb = macs / params
        ranges = " ".join(f"{low:>7.1%}..{high:<6.1%}" for low, high in (_ends(macs), _ends(params)))
        print(
            f"{axis:>6} {target:>5.2f} {space:<12.12} {len(held):>9} {len(widths):>8} {ranges} "
            f"{mcb.min():>5.2f}..{mcb.max():<5.2f}  "
            f"{_confounder(costs, widths)}"
        )
        missed = _off_target(axis, target, macs, params)
        if missed:
            print(
                f"{'':>13}{missed} of these recipes miss the target by more than 0.5 %: whole filters allow no less"
            )
    print(
        "  closest group: the width most correlated with log mCB; near +1 or -1 its effect cannot be separated from "
        "that of mCB."
    )
    print("Feasible ranges (STD: standard deviation of the pruning ratios over groups):")
    blocks = {(t.axis, t.target): plan.recipes[t.block].round_to for t in trainings}
    for (axis, target), round_to in sorted(blocks.items()):
        print(f"{axis:>6} {target:>5.2f} {feasible_range(costs, axis, target, round_to)}")
    techniques = Counter(training.technique for training in trainings)
    print("Retraining: " + ", ".join(f"{name} {count}" for name, count in sorted(techniques.items())))


def _off_target(axis: str, target: float, macs: np.ndarray, params: np.ndarray) -> int:
    """Count the recipes whose reduction lies further from the target than a recipe's should."""
    kept = {"macs": [macs], "params": [params], "both": [macs, params]}[axis]
    worst = np.max([np.abs(1.0 - share - target) for share in kept], axis=0)
    return int((worst > TOLERANCE + 1e-12).sum())


def _ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _confounder(costs: CostModel, widths: IntArray) -> str:
    """Name the group whose width goes along with mCB most: its effect cannot be told from mCB's."""
    if len(widths) < 3:
        return "-"
    name, correlation = mcb_correlations(widths, costs)[0]
    return f"{name} (correlation {correlation:+.2f})"


def estimated_seconds(prepared: PreparedPlan, trainings: tuple[Training, ...], device: torch.device) -> float:
    """Return the seconds that all trainings take on one worker, from timing a few steps of a few widths."""
    by_macs = sorted(trainings, key=lambda training: training.macs)
    chosen = [
        by_macs[round(share * (len(by_macs) - 1))]
        for share in np.linspace(0.1, 0.9, min(TIMED, len(by_macs)))
    ]
    settings = prepared.plan.retraining
    timed = {t.macs: _time_one(prepared, t.widths, t.macs, settings[t.technique], device) for t in chosen}
    macs = sorted(timed)
    steps = np.interp([t.macs for t in trainings], macs, [timed[m][0] for m in macs])
    tests = np.interp([t.macs for t in trainings], macs, [timed[m][1] for m in macs])
    return float(
        sum(
            _steps(prepared, settings[t.technique], t.macs) * s + _evaluations(t) * e
            for t, s, e in zip(trainings, steps, tests, strict=True)
        )
    )


def _steps(prepared: PreparedPlan, settings: TrainingSettings, macs: int) -> float:
    return training_steps(settings, macs, len(prepared.images.train))


def _evaluations(training: Training) -> int:
    """Return the passes over the test images: after training, and twice before it unless from scratch."""
    return 1 if training.technique == "scratch" else 3


def _time_one(
    prepared: PreparedPlan,
    widths: tuple[int, ...],
    macs: int,
    settings: TrainingSettings,
    device: torch.device,
) -> tuple[float, float]:
    """Return the seconds of one step and of one pass over the test images."""
    import dataclasses

    from generate.prune.cut import cut_to_widths

    images = prepared.images
    scores = {group.name: torch.ones(group.width) for group in prepared.costs.groups}
    network = cut_to_widths(prepared.network, prepared.costs.groups, scores, widths)
    fresh_weights(network, 0)
    network.to(device)
    share = TIMED_STEPS / max(1, len(images.train) // settings.batch_size)
    short = dataclasses.replace(settings, epochs=share, training_macs=None)
    for _ in range(2):  # the first pass warms up
        started = time.perf_counter()
        train(network, images, short, macs=macs, seed=0, device=device)
        step = (time.perf_counter() - started) / TIMED_STEPS
    sample = dataclasses.replace(
        images.test,
        images=images.test.images[:TIMED_TEST_IMAGES],
        labels=images.test.labels[:TIMED_TEST_IMAGES],
    )
    started = time.perf_counter()
    evaluate(network, images, sample, device=device, shift=images.test_shift)
    return step, (time.perf_counter() - started) * len(images.test) / len(sample)


#: Exit status of popstats where the fit's own diagnostics reject it; its answer comes all the same.
_REJECTED = 3


_COMMAND = (sys.executable, "-m", "popstats", "plan-size")


def print_pilot(fit: Path, trainings: Sequence[Training], command: Sequence[str] = _COMMAND) -> None:
    """Print, for each regime of the plan that the pilot fitted, how many recipes and seeds would do."""
    print(f"What the pilot {fit} implies for these regimes:", flush=True)
    answer = ask_popstats(fit, command)
    if isinstance(answer, str):
        print(f"  {answer}")
        return
    for axis, target in sorted({(t.axis, t.target) for t in trainings}):
        found = [p for p in answer["plans"] if _is_of(p, answer["axis"], axis, target)]
        sentence = (
            found[0]["sentence"] if found else f"the pilot has no such regime on the {answer['axis']} axis."
        )
        print(f"{axis:>6} {target:>5.2f} {sentence} {_planned(axis, target, trainings)}")


def _is_of(plan: dict[str, Any], fitted_axis: str, axis: str, target: float) -> bool:
    return axis in (fitted_axis, "both") and abs(float(plan["regime"]) - target) < 1e-6


def _planned(axis: str, target: float, trainings: Sequence[Training]) -> str:
    held = [t for t in trainings if (t.axis, t.target) == (axis, target)]
    recipes = len({tuple(t.widths) for t in held})
    return f"This plan: {recipes:,} recipes, {len(held):,} trainings."


def ask_popstats(fit: Path, command: Sequence[str] = _COMMAND) -> dict[str, Any] | str:
    """Return what `popstats plan-size` answers, or a sentence where popstats cannot run here."""
    if not fit.is_file():
        raise PlanError(
            f"--fit: expected a saved fit, got {fit}, which is not a file; `popstats fit -o FILE.nc` saves one"
        )
    asked = subprocess.run(
        [*command, str(fit), "--regime", "all", "--json"], capture_output=True, text=True, check=False
    )
    if asked.returncode in (0, _REJECTED):
        answer: dict[str, Any] = json.loads(asked.stdout)
        return answer
    reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
    if "ModuleNotFoundError" in asked.stderr:
        return f"popstats cannot run here ({reason}); install all of its packages, or plan where the fit was made."
    raise PlanError(f"--fit: popstats cannot plan with {fit}: {reason.removeprefix('Error: ')}")


def print_search_dry_run(plan: Plan, device: torch.device, workers: int | None, given: int) -> int:
    """Print a search's budget, the hours that it takes, and the smallest gain that its images and seeds can show."""
    torch.set_num_threads(1)
    prepared = survey(plan, download=False)
    search, images, costs = plan.search, prepared.images, prepared.costs
    assert search is not None
    _print_groups(plan, prepared)
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
        f"on {len(images.test):,} images that choose nothing."
    )
    count = min(workers or default_workers(device), search.total)
    settings, macs = plan.retraining[search.technique], int(costs.macs([widths])[0])
    step, test = _time_one(prepared, widths, macs, settings, device)
    measured = len(images.validation) + min(len(images.train), TRAIN_LOSS_IMAGES)
    evaluations = 1 + measured / len(images.test)
    seconds = search.total * (_steps(prepared, settings, macs) * step + evaluations * test) / count
    print(
        f"{search.total} trainings with {count} workers on {device}: about {duration(seconds)}, "
        f"{_original_first(prepared, device)}."
    )
    gain = smallest_gain(search.confirm, len(images.test))
    print(f"Smallest gain that these seeds and images are likely to show: about {gain:.1f} points.")
    for warning in search_warnings(search, len(costs.groups), len(images.test)):
        print(f"Warning: {warning}")
    return 0
