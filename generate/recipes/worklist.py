"""The trainings that a plan asks for: recipes drawn once, each training with its identity and its place in the plan."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from generate.plan import Plan, RecipePlan, TrainingSettings
from generate.prune.cost_forms import CostModel
from generate.recipes.sample import Recipes, sample_recipes
from popstats.errors import PlanError

# Recipes drawn twice are drawn again this often before a space counts as exhausted.
REDRAWS = 5


@dataclass(frozen=True)
class Training:
    """One training of one recipe."""

    index: int  # Its place in the plan, fixed for the life of the run folder: the row's place in the table.
    # subnetwork_id, recipe_id: sha256, with and without the seed.
    subnetwork_id: str
    recipe_id: str
    block: int  # Which [[recipes]] block of the plan asked for it.
    # axis, target, space: Its regime and the space that its recipe was drawn from.
    axis: str
    target: float
    space: str
    # technique, criterion: How it is retrained, and the filter score.
    technique: str
    criterion: str
    seed: int  # Number of the replicate.
    widths: tuple[int, ...]  # Channels kept, one entry a group.
    ratios_requested: tuple[float, ...]  # Fraction to remove, before rounding.
    # macs, params: Costs.
    macs: int
    params: int

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
    plan: Plan,
    costs: CostModel,
    *,
    original_id: str,
    dataset: str,
    input_size: str,
    existing: Sequence[Training] = (),
) -> tuple[Training, ...]:
    """Return all trainings that the plan asks for, the existing ones first and unchanged.

    New ones are interleaved over blocks and regimes, so that every regime fills up evenly and the time that
    remains can be told from the time that passed.
    """
    taken = {training.subnetwork_id for training in existing}
    keyed: list[tuple[float, Training]] = []
    for number, block in enumerate(plan.recipes):
        for target in block.regimes:
            held = _held_recipes(existing, number, target)
            new_of = partial(
                _new_trainings, plan, block, number, target, costs, (original_id, dataset, input_size), taken
            )
            drawn = _draw(plan, number, target, costs, held, new_of)
            for place, recipe in enumerate(drawn):
                new = new_of(recipe)
                taken.update(training.subnetwork_id for training in new)
                keyed += [((place + 0.5) / len(drawn), training) for training in new]
    keyed.sort(key=lambda entry: entry[0])
    added = (replace(training, index=len(existing) + place) for place, (_, training) in enumerate(keyed))
    return (*existing, *added)


@dataclass(frozen=True)
class _Recipe:
    widths: tuple[int, ...]
    ratios_requested: tuple[float, ...]
    macs: int
    params: int


def _held_recipes(existing: Iterable[Training], block: int, target: float) -> list[_Recipe]:
    """Return the recipes that a regime of a block already has, in the order in which they were drawn."""
    found: dict[tuple[int, ...], _Recipe] = {}
    for training in existing:
        if training.block == block and math.isclose(training.target, target):
            recipe = _Recipe(training.widths, training.ratios_requested, training.macs, training.params)
            found.setdefault(training.widths, recipe)
    return list(found.values())


def _draw(
    plan: Plan,
    number: int,
    target: float,
    costs: CostModel,
    held: list[_Recipe],
    new_of: Callable[[_Recipe], list[Training]],
) -> list[_Recipe]:
    """Return the block's count of different recipes in one regime (fewer if the space has no more).

    A recipe that another block trains in just the same way does not count.
    """
    block = plan.recipes[number]
    found = {recipe.widths: recipe for recipe in held}
    for attempt in range(REDRAWS):
        missing = block.count - len(found)
        if missing <= 0:
            break
        rng = np.random.default_rng([plan.seed, number, round(target * 1e6), len(held), attempt])
        try:
            drawn = sample_recipes(
                block.space,
                costs,
                axis=block.axis,
                target=target,
                count=missing,
                rng=rng,
                mcb_range=math.log(block.mcb_range),
                round_to=block.round_to,
            )
        except PlanError as error:
            said = str(error).removeprefix("regime: ")
            raise PlanError(f"recipes[{number}], regimes: {target:g}: {said}") from error
        for recipe in _each(drawn):
            if new_of(recipe):
                found.setdefault(recipe.widths, recipe)
    return list(found.values())


def _each(drawn: Recipes) -> Iterable[_Recipe]:
    for row in range(len(drawn.macs)):
        yield _Recipe(
            tuple(int(width) for width in drawn.widths[row]),
            tuple(round(float(ratio), 6) for ratio in drawn.ratios_requested[row]),
            int(drawn.macs[row]),
            int(drawn.params[row]),
        )


def _new_trainings(
    plan: Plan,
    block: RecipePlan,
    number: int,
    target: float,
    costs: CostModel,
    place: tuple[str, str, str],
    taken: Set[str],
    recipe: _Recipe,
) -> list[Training]:
    """Return a recipe's trainings that nothing else in the plan asks for."""
    wanted = _trainings_of(plan, block, number, target, recipe, costs, place)
    return [training for training in wanted if training.subnetwork_id not in taken]


def _trainings_of(
    plan: Plan,
    block: RecipePlan,
    number: int,
    target: float,
    recipe: _Recipe,
    costs: CostModel,
    place: tuple[str, str, str],
) -> Iterable[Training]:
    """Yield a recipe's trainings, one a technique and seed, without their index."""
    names = [group.name for group in costs.groups]
    for technique in block.retraining:
        identity = recipe_identity(
            *place,
            dict(zip(names, recipe.widths, strict=True)),
            technique,
            block.criterion,
            plan.retraining[technique],
        )
        for seed in range(block.seeds):
            yield Training(
                index=-1,
                subnetwork_id=subnetwork_identity(identity, seed),
                recipe_id=subnetwork_identity(identity),
                block=number,
                axis=block.axis,
                target=target,
                space=block.space,
                technique=technique,
                criterion=block.criterion,
                seed=seed,
                widths=recipe.widths,
                ratios_requested=recipe.ratios_requested,
                macs=recipe.macs,
                params=recipe.params,
            )
