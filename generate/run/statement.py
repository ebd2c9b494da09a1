"""What a search has found: the winner's gain over each baseline, from fresh seeds and held-out images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from generate.train.device import memory_format
from generate.train.loop import evaluate
from generate.train.original import load_weights
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
    """A recipe and its confirmation."""

    name: str  # winner, or the baseline's
    widths: tuple[int, ...]
    macs: int
    params: int
    values: FloatArray  # accuracy of each fresh seed on each statement image, percent, shape (seeds, images)


@dataclass(frozen=True)
class Statement:
    """What a search has found."""

    search: SearchPlan
    winner: Arm
    baselines: tuple[Arm, ...]
    gains: Mapping[str, Gain]  # over each baseline, points
    best_observed: Mapping[str, float]  # what the best training of the search would have claimed, points
    seeds: int
    images: int  # that no choice was made by
    network_id: str  # subnetwork_id of the network that is handed over
    network_accuracy: float  # percent, on the statement images
    trainings: int
    seconds: float  # of all trainings together

    def sentences(self) -> list[str]:
        """Return the findings in words, one per baseline."""
        return [_sentence(name, gain, self) for name, gain in self.gains.items()]


def _sentence(name: str, gain: Gain, statement: Statement) -> str:
    over = NAMES[name]
    if any(arm.name == name and arm.widths == statement.winner.widths for arm in statement.baselines):
        return f"No gain over {over} was shown: the winner has the same widths."
    finding = f"Gain over {over}" if gain.lower > 0 else f"No gain over {over} was shown"
    return (
        f"{finding}: {gain.mean:+.2f} points, 90 % interval {gain.lower:+.2f} to {gain.upper:+.2f} "
        f"({statement.seeds} fresh seeds each, {statement.images:,} held-out images)."
    )


def make_statement(folder: RunFolder, context: WorkerContext) -> Statement:
    """Measure winner and baselines and compare them."""
    search = context.plan.search
    trainings = folder.read_worklist()
    rows = {training.index: folder.read_row(training.index) for training in trainings}
    confirmed = [training for training in trainings if training.block == CONFIRMATION]
    if search is None or not confirmed:
        raise RunFolderError(f"{folder.path} holds no finished search.")
    values = {t.index: _per_image(folder, context, t, rows[t.index]) for t in confirmed}
    found = folder.read_part("baselines.json") or {}
    names = {"winner": confirmed[0].widths, **{name: tuple(widths) for name, widths in found.items()}}
    arms = {}
    for name, widths in names.items():
        own = [training for training in confirmed if training.widths == widths]
        arms[name] = Arm(name, widths, own[0].macs, own[0].params, np.stack([values[t.index] for t in own]))
    winner = arms.pop("winner")
    own = [t for t in confirmed if t.widths == winner.widths and rows[t.index]["status"] == "done"]
    if not own:
        raise RunFolderError("Every confirmation of the winner failed; there is no network to hand over.")
    # The network with the best outcome on the search images: the others chose nothing.
    best = max(own, key=lambda training: outcome_of(rows[training.index]))
    return Statement(
        search=search,
        winner=winner,
        baselines=tuple(arms.values()),
        gains={
            name: Gain(0.0, 0.0, 0.0) if arm.widths == winner.widths else gain_over(winner.values, arm.values)
            for name, arm in arms.items()
        },
        best_observed=_best_observed(trainings, rows, arms),
        seeds=search.confirm,
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
    network = cut_network(context, training)
    path = folder.trained_weights(training.subnetwork_id)
    load_weights(network, path.read_bytes(), str(path))
    network = network.to(context.device).to(memory_format=memory_format(context.device))
    shift = images.test_shift
    return evaluate(network, images, images.test, device=context.device, shift=shift).by_image.cpu().numpy()


def _best_observed(
    trainings: Sequence[Training], rows: Mapping[int, Mapping[str, Any]], arms: Mapping[str, Arm]
) -> dict[str, float]:
    """Return the best search accuracy of any training minus each baseline's mean: it is selected, and so too high."""
    searched = [t for t in trainings if t.block == SEARCH and rows[t.index]["status"] == "done"]
    accuracy = {t.index: float(rows[t.index]["accuracy_val"]) for t in searched}
    claims = {}
    for name, arm in arms.items():
        own = [accuracy[t.index] for t in searched if t.widths == arm.widths]
        if own:
            claims[name] = max(accuracy.values()) - float(np.mean(own))
    return claims


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
            {"over": name, **asdict(gain), "seeds": statement.seeds, "images": statement.images}
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
