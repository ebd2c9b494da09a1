"""The trainings of a plan: recipes drawn once, each training with its identity and its place in the plan."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from generate.plan import FILTERS, Plan, PruningPlan, TrainingSettings
from generate.prune.cost_forms import CostModel
from generate.recipes.baselines import baseline_widths
from generate.recipes.sample import sample_recipes
from popstats.arrays import FloatArray, IntArray
from popstats.errors import PlanError

# Recipes drawn twice are drawn again this often before a space counts as exhausted.
REDRAWS = 5

# What the space of a baseline's trainings begins with; its name follows.
BASELINE = "baseline:"

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

    block: int  # its [[recipes]] block in the plan, or SEARCH, or CONFIRMATION
    axis: str
    target: float  # reduction
    space: str  # that its recipe was drawn from
    criterion: str  # filter score
    widths: tuple[int, ...]  # channels kept in each group, or weights in each layer
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


def recipe_identity(
    place: Place,
    widths: Mapping[str, int],
    technique: str,
    criterion: str,
    settings: TrainingSettings,
    pruning: PruningPlan = FILTERS,
) -> dict[str, Any]:
    """Return what makes a recipe the same recipe: everything that decides its accuracy except the seed."""
    training: dict[str, Any] = {"technique": technique, **settings.identity()}
    if technique != "scratch":  # fresh weights have no scores
        training["criterion"] = criterion
    identity = {**asdict(place), "widths": dict(widths), "training": training}
    return identity if pruning.kind == "filters" else {**identity, "pruning": asdict(pruning)}


def subnetwork_identity(identity: Mapping[str, Any], seed: int | None = None) -> str:
    """Return the sha256 of an identity's canonical JSON: recipe_id without a seed, subnetwork_id with it."""
    content = identity if seed is None else {**identity, "seed": seed}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def make_worklist(
    plan: Plan,
    costs: CostModel,
    *,
    network: nn.Module | None = None,  # whose weights tell some baselines apart: the original network
    existing: Sequence[Training] = (),
) -> tuple[Training, ...]:
    """Return all trainings of the plan, the existing ones first and unchanged, the new ones without identities."""
    # New ones are interleaved over blocks and regimes, so that every regime fills up evenly and the remaining
    # time can be estimated from the time that passed.
    drawing = _Drawing(plan, costs, network, existing, {_sameness(training) for training in existing})
    keyed: list[tuple[float, Training]] = []
    for number, block in enumerate(plan.recipes):
        for target in block.regimes:
            recipes = drawing.regime(number, target)
            for position, new in enumerate(recipes):
                keyed += [((position + 0.5) / len(recipes), training) for training in new]
    keyed.sort(key=lambda entry: entry[0])
    added = (replace(training, index=len(existing) + i) for i, (_, training) in enumerate(keyed))
    return (*existing, *added)


def with_identities(
    trainings: Sequence[Training], plan: Plan, costs: CostModel, place: Place
) -> tuple[Training, ...]:
    """Return the trainings as those of the original network that `place` names."""
    names, identified = [group.name for group in costs.groups], []
    for training in trainings:
        widths, settings = dict(zip(names, training.widths, strict=True)), plan.retraining[training.technique]
        identity = recipe_identity(
            place, widths, training.technique, training.criterion, settings, plan.pruning
        )
        subnetwork_id = subnetwork_identity(identity, training.seed)
        recipe_id = subnetwork_identity(identity)
        identified.append(replace(training, subnetwork_id=subnetwork_id, recipe_id=recipe_id))
    return tuple(identified)


def as_trainings(
    costs: CostModel, widths: IntArray, requested: FloatArray | None = None, **common: Any
) -> list[Training]:
    """Return one training per row of widths, with the fields in `common`; ratios requested default to those achieved."""
    ratios = 1 - widths / costs.full_widths if requested is None else requested
    rows = zip(widths.tolist(), ratios.tolist(), *costs.both(widths), strict=True)
    return [
        Training(
            widths=tuple(kept),
            ratios_requested=tuple(round(ratio, 6) for ratio in removed),
            macs=int(macs),
            params=int(params),
            **common,
        )
        for kept, removed, macs, params in rows
    ]


def _sameness(training: Training) -> tuple[Any, ...]:
    """Return what tells a training from the others of its plan."""
    criterion = "" if training.technique == "scratch" else training.criterion
    return training.widths, training.technique, criterion, training.seed


@dataclass(frozen=True)
class _Drawing:
    """What a worklist is drawn from, and what tells the trainings in it so far apart."""

    plan: Plan
    costs: CostModel
    network: nn.Module | None
    existing: Sequence[Training]
    taken: set[tuple[Any, ...]]

    def regime(self, number: int, target: float) -> list[list[Training]]:
        """Return the trainings that a regime of block `number` lacks, by recipe; fewer if the space has no more."""
        block = self.plan.recipes[number]
        common: dict[str, Any] = {
            "block": number,
            "axis": block.axis,
            "target": target,
            "criterion": block.criterion,
        }
        held = {t.widths: t for t in self._held(number, target, block.space)}
        found = {widths: self._new(one) for widths, one in held.items()}
        for attempt in range(REDRAWS):
            missing = block.count - len(found)
            if missing <= 0:
                break
            rng = np.random.default_rng([self.plan.seed, number, round(target * 1e6), len(held), attempt])
            try:
                drawn = sample_recipes(block, self.costs, target, missing, rng)
            except PlanError as error:
                said = str(error).removeprefix("regime: ")
                raise PlanError(f"recipes[{number}], regimes: {target:g}: {said}") from error
            for one in as_trainings(self.costs, *drawn, space=block.space, **common):
                # A recipe that another block trains in just the same way does not count.
                if one.widths not in found and (new := self._new(one)):
                    found[one.widths] = new
        baselines = []
        for (
            name
        ) in block.baselines:  # the recipe that it has already, or else the one of the network's weights
            space = f"{BASELINE}{name}"
            recipe = next(self._held(number, target, space), None)
            if recipe is None:
                widths = baseline_widths(name, self.costs, self.network, block.axis, target)[None]
                (recipe,) = as_trainings(self.costs, widths, space=space, **common)
            baselines.append(self._new(recipe))
        return [*found.values(), *filter(None, baselines)]

    def _held(self, number: int, target: float, space: str) -> Iterator[Training]:
        for training in self.existing:
            if (training.block, training.space) == (number, space) and math.isclose(training.target, target):
                yield training

    def _new(self, recipe: Training) -> list[Training]:
        """Take a recipe's trainings, one per technique and seed, that nothing else in the plan has taken."""
        block = self.plan.recipes[recipe.block]
        ways = [(technique, seed) for technique in block.retraining for seed in range(block.seeds)]
        wanted = [replace(recipe, technique=technique, seed=seed) for technique, seed in ways]
        new = [training for training in wanted if _sameness(training) not in self.taken]
        self.taken.update(map(_sameness, new))
        return new
