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
from generate.recipes.sample import Recipes, sample_recipes
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


def canonical_json(content: Mapping[str, Any]) -> str:
    """Return JSON that is the same for equal content: sorted keys, no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


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
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def make_worklist(
    plan: Plan,
    costs: CostModel,
    *,
    place: Place,
    network: nn.Module | None = None,  # whose weights tell some baselines apart: the original network
    existing: Sequence[Training] = (),
) -> tuple[Training, ...]:
    """Return all trainings of the plan, the existing ones first and unchanged."""
    # New ones are interleaved over blocks and regimes, so that every regime fills up evenly and the remaining
    # time can be estimated from the time that passed.
    drawing = _Drawing(plan, costs, place, network, existing, {t.subnetwork_id for t in existing})
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


@dataclass(frozen=True)
class _Drawing:
    """What a worklist is drawn from, and the ids of the trainings in it so far."""

    plan: Plan
    costs: CostModel
    place: Place
    network: nn.Module | None
    existing: Sequence[Training]
    taken: set[str]

    def regime(self, number: int, target: float) -> list[list[Training]]:
        """Return the trainings that a regime of block `number` lacks, by recipe; fewer if the space has no more."""
        block = self.plan.recipes[number]
        held = {t.widths: t for t in self._held(number, target, block.space)}
        found = {widths: self._new(one) for widths, one in held.items()}
        for attempt in range(REDRAWS):
            missing = block.count - len(found)
            if missing <= 0:
                break
            rng = np.random.default_rng([self.plan.seed, number, round(target * 1e6), len(held), attempt])
            for one in self._as_trainings(self._sample(number, target, missing, rng), number, target):
                # A recipe that another block trains in just the same way does not count.
                if one.widths not in found and (new := self._new(one)):
                    found[one.widths] = new
        baselines = [self._new(self._baseline(name, number, target)) for name in block.baselines]
        return [*found.values(), *(new for new in baselines if new)]

    def _held(self, number: int, target: float, space: str) -> Iterator[Training]:
        for training in self.existing:
            if (training.block, training.space) == (number, space) and math.isclose(training.target, target):
                yield training

    def _new(self, recipe: Training) -> list[Training]:
        """Take a recipe's trainings, one per technique and seed, that nothing else in the plan has taken."""
        block = self.plan.recipes[recipe.block]
        wanted = [
            replace(recipe, technique=technique, seed=seed)
            for technique in block.retraining
            for seed in range(block.seeds)
        ]
        identified = with_identities(wanted, self.plan, self.costs, self.place)
        new = [training for training in identified if training.subnetwork_id not in self.taken]
        self.taken.update(training.subnetwork_id for training in new)
        return new

    def _sample(self, number: int, target: float, count: int, rng: np.random.Generator) -> Recipes:
        block = self.plan.recipes[number]
        try:
            return sample_recipes(
                block.space,
                self.costs,
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

    def _baseline(self, name: str, number: int, target: float) -> Training:
        """Return a baseline's recipe: the one that it has already, or else the one of the network's weights."""
        space = f"{BASELINE}{name}"
        held = next(self._held(number, target, space), None)
        if held is not None:
            return held
        widths = baseline_widths(name, self.costs, self.network, self.plan.recipes[number].axis, target)[None]
        ratios = 1 - widths / self.costs.full_widths
        made = Recipes(widths, ratios, *self.costs.both(widths), np.zeros(1, dtype=bool))
        return replace(next(self._as_trainings(made, number, target)), space=space)

    def _as_trainings(self, drawn: Recipes, number: int, target: float) -> Iterator[Training]:
        block = self.plan.recipes[number]
        rows = drawn.widths.tolist(), drawn.ratios_requested.tolist(), drawn.macs, drawn.params
        for widths, ratios, macs, params in zip(*rows, strict=True):
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
