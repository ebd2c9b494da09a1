"""The trainings of a plan: recipes drawn once, each training with its identity and its place in the plan."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from generate.plan import Plan, RecipePlan, TrainingSettings
from generate.prune.cost_forms import CostModel
from generate.recipes.sample import Recipes, sample_recipes
from popstats.errors import PlanError

# Recipes drawn twice are drawn again this often before a space counts as exhausted.
REDRAWS = 5

# What stands for the block of a search's trainings, and of those that confirm its winner.
SEARCH, CONFIRMATION = -1, -2


@dataclass(frozen=True)
class Place:
    """What the identities of trainings are made from, besides recipe, settings and seed."""

    original_id: str
    dataset: str
    input_size: str  # such as 1x8x8


@dataclass(frozen=True)
class Training:
    """One training of one recipe."""

    block: int  # which [[recipes]] block of the plan it comes from, or SEARCH, or CONFIRMATION
    axis: str
    target: float  # reduction
    space: str  # that its recipe was drawn from
    criterion: str  # filter score
    widths: tuple[int, ...]  # channels kept in each group
    ratios_requested: tuple[float, ...]  # fraction to remove of each group, before rounding
    macs: int
    params: int
    technique: str = ""  # how it is retrained
    seed: int = 0  # number of the replicate
    index: int = (
        -1
    )  # its place in the plan, fixed for the life of the run folder: the row's place in the table
    subnetwork_id: str = ""  # sha256, and the next without the seed
    recipe_id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Training:
        """Rebuild from `as_dict`."""
        lists = {"widths": tuple(values["widths"]), "ratios_requested": tuple(values["ratios_requested"])}
        return cls(**{**values, **lists})

    @property
    def torch_seed(self) -> int:
        """Seed of weights, order and augmentation: differs between all trainings, so that their noise is independent."""
        return int(self.subnetwork_id[:15], 16)


def is_proposed_whole(trainings: Sequence[Training]) -> bool:
    """Whether a search has chosen its winner: its last trainings are there, done or not."""
    return any(training.block == CONFIRMATION for training in trainings)


def canonical_json(content: Mapping[str, Any]) -> str:
    """Return JSON that is the same for equal content: sorted keys, no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def recipe_identity(
    original_id: str,
    dataset: str,
    input_size: str,
    widths: Mapping[str, int],
    technique: str,
    criterion: str,
    settings: TrainingSettings,
) -> dict[str, Any]:
    """Return what makes a recipe the same recipe: everything that decides its accuracy except the seed.

    The filter score decides nothing where training starts from fresh weights, and is left out there.
    """
    training: dict[str, Any] = {"technique": technique, **settings.identity()}
    if technique != "scratch":
        training["criterion"] = criterion
    return {
        "original_id": original_id,
        "dataset": dataset,
        "input_size": input_size,
        "widths": dict(widths),
        "training": training,
    }


def subnetwork_identity(identity: Mapping[str, Any], seed: int | None = None) -> str:
    """Return the sha256 of an identity's canonical JSON: recipe_id without a seed, subnetwork_id with it."""
    content = identity if seed is None else {**identity, "seed": seed}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def make_worklist(
    plan: Plan, costs: CostModel, *, place: Place, existing: Sequence[Training] = ()
) -> tuple[Training, ...]:
    """Return all trainings that the plan asks for, the existing ones first and unchanged."""
    # New ones are interleaved over blocks and regimes, so that every regime fills up evenly and the remaining
    # time can be estimated from the time that passed.
    taken = {training.subnetwork_id for training in existing}
    keyed: list[tuple[float, Training]] = []
    for number, block in enumerate(plan.recipes):
        for target in block.regimes:
            recipes = _draw_regime(plan, number, target, costs, place, existing, taken)
            for position, new in enumerate(recipes):
                taken.update(training.subnetwork_id for training in new)
                keyed += [((position + 0.5) / len(recipes), training) for training in new]
    keyed.sort(key=lambda entry: entry[0])
    added = (replace(training, index=len(existing) + i) for i, (_, training) in enumerate(keyed))
    return (*existing, *added)


def with_identities(
    trainings: Sequence[Training], plan: Plan, costs: CostModel, place: Place
) -> tuple[Training, ...]:
    """Return the trainings as those of the original network that `place` names."""
    names = [group.name for group in costs.groups]
    return tuple(_identified(training, names, plan, place) for training in trainings)


def _identified(training: Training, names: Sequence[str], plan: Plan, place: Place) -> Training:
    identity = recipe_identity(
        place.original_id,
        place.dataset,
        place.input_size,
        dict(zip(names, training.widths, strict=True)),
        training.technique,
        training.criterion,
        plan.retraining[training.technique],
    )
    return replace(
        training,
        subnetwork_id=subnetwork_identity(identity, training.seed),
        recipe_id=subnetwork_identity(identity),
    )


def _draw_regime(
    plan: Plan,
    number: int,  # of the block
    target: float,
    costs: CostModel,
    place: Place,
    existing: Sequence[Training],
    taken: Set[str],  # subnetwork_ids
) -> list[list[Training]]:
    """Return the trainings that a regime of a block lacks, by recipe; fewer recipes if the space has no more."""
    block = plan.recipes[number]
    held = {t.widths: t for t in existing if t.block == number and math.isclose(t.target, target)}
    found = {widths: _trainings_of(plan, number, one, costs, place, taken) for widths, one in held.items()}
    for attempt in range(REDRAWS):
        missing = block.count - len(found)
        if missing <= 0:
            break
        rng = np.random.default_rng([plan.seed, number, round(target * 1e6), len(held), attempt])
        for one in _as_trainings(_sample(block, number, target, costs, missing, rng), block, number, target):
            # A recipe that another block trains in just the same way does not count.
            if one.widths not in found and (new := _trainings_of(plan, number, one, costs, place, taken)):
                found[one.widths] = new
    return list(found.values())


def _sample(
    block: RecipePlan, number: int, target: float, costs: CostModel, count: int, rng: np.random.Generator
) -> Recipes:
    try:
        return sample_recipes(
            block.space,
            costs,
            axis=block.axis,
            target=target,
            count=count,
            rng=rng,
            mcb_range=math.log(block.mcb_range),
            round_to=block.round_to,
        )
    except PlanError as error:
        said = str(error).removeprefix("regime: ")
        raise PlanError(f"recipes[{number}], regimes: {target:g}: {said}") from error


def _as_trainings(drawn: Recipes, block: RecipePlan, number: int, target: float) -> Iterator[Training]:
    for widths, ratios, macs, params in zip(
        drawn.widths.tolist(), drawn.ratios_requested.tolist(), drawn.macs, drawn.params, strict=True
    ):
        yield Training(
            block=number,
            axis=block.axis,
            target=target,
            space=block.space,
            criterion=block.criterion,
            widths=tuple(widths),
            ratios_requested=tuple(round(ratio, 6) for ratio in ratios),
            macs=int(macs),
            params=int(params),
        )


def _trainings_of(
    plan: Plan, number: int, recipe: Training, costs: CostModel, place: Place, taken: Set[str]
) -> list[Training]:
    """Return a recipe's trainings, one per technique and seed, that nothing else in the plan asks for."""
    block = plan.recipes[number]
    wanted = [
        replace(recipe, technique=technique, seed=seed)
        for technique in block.retraining
        for seed in range(block.seeds)
    ]
    return [t for t in with_identities(wanted, plan, costs, place) if t.subnetwork_id not in taken]
