"""What a search has found: the winner's gain over each baseline, from fresh seeds and held-out images."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from generate.plan import SearchPlan
from generate.prune.cost_forms import layer_channels
from generate.prune.dependency_graph import Group
from generate.recipes.worklist import CONFIRMATION, SEARCH, Training
from generate.run.folder import RunFolder
from generate.run.rounds import outcome_of
from generate.train.loop import evaluate
from generate.train.subnetwork import WorkerContext, cut_network
from popstats.arrays import FloatArray
from popstats.errors import RunFolderError
from popstats.planning.propose import Gain, by_layer, gain_over

NAMES = {
    "torch-pruning": "Torch-Pruning",
    "uniform": "uniform pruning",
    "isomorphic": "isomorphic pruning",
    "random": "a random recipe",
}


@dataclass(frozen=True)
class Arm:
    """A recipe, how it does in its confirmation, and what the winner gains over it."""

    name: str  # winner, or the baseline's
    widths: tuple[int, ...]
    macs: int
    params: int
    accuracy: float  # percent, mean over fresh seeds and statement images
    gain: Gain | None = None  # points; of baselines
    best_observed: float | None = None  # points that the best training of the search would have claimed


@dataclass(frozen=True)
class Statement:
    """What a search has found."""

    search: SearchPlan
    winner: Arm
    baselines: tuple[Arm, ...]
    images: int  # that no choice was made by
    network_id: str  # subnetwork_id of the network that is handed over
    network_accuracy: float  # percent, on the statement images
    trainings: int
    seconds: float  # of all trainings together

    @property
    def gains(self) -> dict[str, Gain]:
        """The winner's gain over each baseline."""
        return {arm.name: arm.gain for arm in self.baselines if arm.gain is not None}

    def sentences(self) -> Iterator[str]:
        """Yield the findings in words, one per baseline."""
        for arm in self.baselines:
            over, gain = NAMES[arm.name], self.gains[arm.name]
            if arm.widths == self.winner.widths:
                yield f"No gain over {over} was shown: the winner has the same widths."
                continue
            finding = f"Gain over {over}" if gain.lower > 0 else f"No gain over {over} was shown"
            yield (
                f"{finding}: {gain.mean:+.2f} points, 90 % interval {gain.lower:+.2f} to {gain.upper:+.2f} "
                f"({self.search.confirm} fresh seeds each, {self.images:,} held-out images)."
            )


def make_statement(folder: RunFolder, context: WorkerContext) -> Statement:
    """Measure winner and baselines and compare them."""
    search = context.plan.search
    trainings = folder.read_worklist()
    rows = {training.index: folder.read_row(training.index) for training in trainings}
    confirmed: dict[tuple[int, ...], list[Training]] = defaultdict(list)  # by widths, the winner's first
    for training in (training for training in trainings if training.block == CONFIRMATION):
        confirmed[training.widths].append(training)
    if search is None or not confirmed:
        raise RunFolderError(f"{folder.path} holds no finished search.")
    values = {
        widths: np.stack([_per_image(folder, context, t, rows[t.index]) for t in own])
        for widths, own in confirmed.items()
    }
    winner, own = next(iter(confirmed.items()))
    searched = [t for t in trainings if t.block == SEARCH and rows[t.index]["status"] == "done"]
    accuracy = {t.index: float(rows[t.index]["accuracy_val"]) for t in searched}
    arms = [Arm("winner", winner, own[0].macs, own[0].params, float(values[winner].mean()))]
    for name, listed in (folder.read_part("baselines.json") or {}).items():
        widths = tuple(listed)
        gain = Gain(0.0, 0.0, 0.0) if widths == winner else gain_over(values[winner], values[widths])
        # The best accuracy of the search is selected, and so too high.
        seen = [accuracy[t.index] for t in searched if t.widths == widths]
        claim = max(accuracy.values()) - float(np.mean(seen)) if seen else None
        costs = confirmed[widths][0].macs, confirmed[widths][0].params
        arms.append(Arm(name, widths, *costs, float(values[widths].mean()), gain, claim))
    done = [training for training in own if rows[training.index]["status"] == "done"]
    if not done:
        raise RunFolderError("Every confirmation of the winner failed; there is no network to hand over.")
    # The network with the best outcome on the search images: the others chose nothing.
    best = max(done, key=lambda training: outcome_of(rows[training.index]))
    return Statement(
        search=search,
        winner=arms[0],
        baselines=tuple(arms[1:]),
        images=len(context.images.test),
        network_id=best.subnetwork_id,
        network_accuracy=float(rows[best.index]["accuracy"]),
        trainings=len(trainings),
        seconds=float(sum(row["seconds"] for row in rows.values())),
    )


def _per_image(
    folder: RunFolder, context: WorkerContext, training: Training, row: Mapping[str, Any]
) -> FloatArray:
    """Return a confirmation network's accuracy on each statement image; a failed training guesses."""
    images = context.images
    if row["status"] == "failed":
        return np.full(len(images.test), 100 / images.classes)
    network = cut_network(context, training, folder.trained_weights(training.subnetwork_id))
    return evaluate(network, images, images.test, device=context.device).by_image.cpu().numpy()


def recipe_content(context: WorkerContext, statement: Statement) -> dict[str, Any]:
    """Return recipe.json, version 1: what to keep, where, and what it gained."""
    widths = statement.winner.widths
    return {
        "version": 1,
        "network": context.original.network,
        "original_id": context.original.original_id,
        "macs": statement.winner.macs,
        "params": statement.winner.params,
        "widths": {group.name: width for group, width in zip(context.groups, widths, strict=True)},
        **layer_recipe(context.network, context.groups, widths),
        "gains": [
            {"over": name, **asdict(gain), "seeds": statement.search.confirm, "images": statement.images}
            for name, gain in statement.gains.items()
        ],
    }


def layer_recipe(
    network: nn.Module, groups: Sequence[Group], widths: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Return what each layer of a recipe keeps, and its ratios for Torch-Pruning."""
    full = {group.name: group.width for group in groups}
    return by_layer(layer_channels(network, groups), full, dict(zip(full, widths, strict=True)))


def recipe_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a recipe, or ratios alone, as they are written."""
    return (json.dumps(content, indent=2) + "\n").encode()
