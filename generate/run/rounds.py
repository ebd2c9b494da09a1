"""The rounds of a search: proposed from finished trainings, appended by the first process that finds nothing missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from generate.plan import SearchPlan
from generate.recipes.baselines import find_baselines, search_problem
from generate.recipes.worklist import (
    CONFIRMATION,
    SEARCH,
    Place,
    Training,
    as_trainings,
    is_proposed_whole,
    with_identities,
)
from generate.run.folder import Claims, RunFolder
from generate.train.subnetwork import WorkerContext
from popstats.arrays import IntArray
from popstats.planning.propose import choose, propose, schedule, smallest_gain

# Seeds of the confirmation: no training of a search has one of these.
FIRST_FRESH_SEED = 1000
# Weights of the outcome: accuracy (percent) of the search images, and losses (nats) of these and of the training images.
# The loss of the training images after full retraining predicts other seeds on new images better than accuracy does.
ACCURACY_WEIGHT, LOSS_WEIGHT = 0.5, 25.0
# What a search should be able to show (points).
WANTED_GAIN = 1.0


def search_warnings(search: SearchPlan, groups: int, images: int, accuracy: float = 90.0) -> Iterator[str]:
    """Yield where a search's sizes are too small, and which would do."""
    if smallest_gain(search.confirm, images, accuracy=accuracy) > WANTED_GAIN:
        seeds, wanted = search.confirm, images
        while smallest_gain(seeds, wanted, accuracy=accuracy) > WANTED_GAIN:
            seeds, wanted = seeds + (seeds < 2 * search.confirm), round(1.25 * wanted + 1)
        yield (
            f"{images:,} images and {search.confirm} seeds may not show a gain of {WANTED_GAIN:g} point. About {wanted:,} "
            f"such images (half of {2 * wanted:,} test images) and --confirm {seeds} would."
        )
    pilot = schedule(search.trainings, search.draws)[0]
    if 2 * groups > pilot:
        yield (
            f"{groups} groups are many for a pilot of {pilot} trainings. Better: --trainings "
            f"{8 * math.ceil(2 * groups / 3)}, or --pilot with a population of the same original network."
        )


def outcome_of(row: Mapping[str, Any]) -> float:
    """Return what a search maximises; NaN for a failed training."""
    if row["status"] == "failed":
        return math.nan
    if row.get("train_loss") is None:
        return float(row["accuracy_val"])  # a population's row: all that no test image is behind
    losses = float(row["val_loss"]) + float(row["train_loss"])
    return ACCURACY_WEIGHT * float(row["accuracy_val"]) - LOSS_WEIGHT * losses


def extend(folder: RunFolder, claims: Claims, context: Callable[[], WorkerContext]) -> bool:
    """Append a search's next round where all its trainings are finished; return whether there are new ones."""
    plan = folder.read_plan()
    if plan is None or plan.search is None:
        return False
    with claims.preparation():
        trainings = folder.read_worklist()
        if not folder.finished() >= {training.index for training in trainings}:
            return True  # another process has appended them
        new = next_trainings(folder, context(), trainings)
        if new:
            folder.write_worklist(plan, (*trainings, *new))
    return bool(new)


def next_trainings(
    folder: RunFolder, context: WorkerContext, trainings: Sequence[Training]
) -> tuple[Training, ...]:
    """Return the next round, or the confirmation after the last one, or nothing after that."""
    search = context.plan.search
    if search is None or is_proposed_whole(trainings):
        return ()
    baselines = _baselines(folder, context)
    problem = replace(search_problem(search, context.costs), baselines=np.stack(list(baselines.values())))
    # All finished trainings, the pilot's first.
    pilot = folder.read_part("pilot.json") or {"widths": [], "outcomes": []}
    rows, given = [folder.read_row(training.index) for training in trainings], len(pilot["outcomes"])
    widths = [*pilot["widths"], *(training.widths for training in trainings)]
    trained = np.array(widths, np.int64).reshape(-1, len(context.groups))
    outcome = np.array([*pilot["outcomes"], *map(outcome_of, rows)], np.float64)
    if not np.isfinite(outcome).any() and len(trainings):
        return ()  # nothing to go by: the run says why its trainings failed
    proposed = propose(
        problem,
        trained,
        outcome,
        trainings=search.trainings,
        seed=context.plan.seed,
        draws=search.draws,
        given=given,
    )
    if len(proposed):
        block, space = SEARCH, f"search:round-{len({training.space for training in trainings}) + 1}"
        seeds, wanted = Counter(training.widths for training in trainings), []
        for row in map(tuple, proposed.tolist()):  # a recipe that was trained before gets its next seed
            wanted.append((row, seeds[row]))
            seeds[row] += 1
    else:
        block, space = CONFIRMATION, "search:confirm"
        winner = tuple(int(w) for w in choose(problem, trained, outcome, given=given))
        arms = dict.fromkeys([winner, *(tuple(b.tolist()) for b in baselines.values())])
        wanted = [(arm, FIRST_FRESH_SEED + k) for k in range(search.confirm) for arm in arms]
    return planned_trainings(context, wanted, block, space, len(trainings))


def _baselines(folder: RunFolder, context: WorkerContext) -> dict[str, IntArray]:
    """Return the baselines that the search began with: on another processor the scores' last digits may differ."""
    stored = folder.read_part("baselines.json")
    if stored is None:
        search = context.plan.search
        assert search is not None
        problem = search_problem(search, context.costs)
        scores = context.scores["group_l2"]
        found = find_baselines(search, problem, context.groups, scores, context.network)
        stored = {name: widths.tolist() for name, widths in found.items()}
        folder.write_part("baselines.json", stored)
    return {name: np.array(widths) for name, widths in stored.items()}


def planned_trainings(
    context: WorkerContext,
    wanted: Sequence[tuple[tuple[int, ...], int]],  # widths and seed
    block: int,
    space: str,
    first: int,  # index
) -> tuple[Training, ...]:
    """Return trainings of a search."""
    search, original, costs = context.plan.search, context.original, context.costs
    assert search is not None
    made = as_trainings(
        costs,
        np.array([widths for widths, _ in wanted]),
        block=block,
        axis=search.axis,
        target=search.reduction,
        space=space,
        criterion=search.criterion,
        technique=search.technique,
    )
    seeds = (seed for _, seed in wanted)
    made = [replace(one, seed=s, index=first + i) for i, (one, s) in enumerate(zip(made, seeds, strict=True))]
    place = Place(original.original_id, original.dataset, original.input_size)
    return with_identities(made, context.plan, costs, place)
