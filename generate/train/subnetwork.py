"""From one entry of the worklist to one row of the table: cut, measure, retrain, measure again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generate.inputs.images import ImageSet
from generate.inputs.networks import planned_network
from generate.plan import MAGNITUDE, Plan
from generate.prune.cost_forms import CostModel, cost_forms
from generate.prune.cut import choose_filters, cut
from generate.prune.dependency_graph import Group, copy_network
from generate.prune.groups import find_groups
from generate.prune.masks import magnitudes, mask_network, weight_costs, zero_removed
from generate.prune.scores import score_filters
from generate.recipes.worklist import CONFIRMATION, Training
from generate.train.device import memory_format, now, provenance_of
from generate.train.loop import (
    PASSES_PER_STEP,
    DivergenceError,
    check_learned,
    evaluate,
    fresh_weights,
    images_seen,
    loss_gradients,
    peak_rate,
    recalibrate,
    train,
    training_epochs,
)
from generate.train.original import OriginalNumbers, load_weights
from popstats.errors import PopstatsError

# Training images whose loss a search uses.
TRAIN_LOSS_IMAGES = 10_000

# Columns that are attributes of the training and of its settings.
OF_TRAINING = ("subnetwork_id", "recipe_id", "space", "criterion", "macs", "params", "seed")
OF_SETTINGS = ("batch_size", "weight_decay", "augmentation")

# Exit codes of a process whose GPU failed; its parent starts another one.
OUT_OF_MEMORY, DEVICE_LOST = 71, 72


class DeviceError(PopstatsError):
    """A GPU that failed: the process that used it should end with `exit_code`."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class WorkerContext:
    """Everything that trainings share, loaded once per worker."""

    plan: Plan
    images: ImageSet  # on `device` if they fit there
    network: nn.Module  # the original network, on the CPU; never changed
    original: OriginalNumbers
    groups: tuple[Group, ...]
    scores: Mapping[str, Mapping[str, Tensor]]  # of the filters, by criterion and group name
    device: torch.device  # where trainings run
    provenance: Mapping[str, str]  # the columns that say where rows come from

    @classmethod
    def from_parts(
        cls, plan: Plan, images: ImageSet, weights: bytes, original: OriginalNumbers, device: torch.device
    ) -> WorkerContext:
        """Build the original network and score its filters; images that take half of a GPU's free memory stay outside."""
        network = planned_network(plan.network, classes=images.classes, input_shape=images.input_shape).eval()
        load_weights(network, weights, "the original network's weights")
        network = copy_network(network)
        if plan.pruning.kind == "filters":
            groups = find_groups(network, images.input_shape, plan.network.keep)
            options: dict[str, Any] = {
                "backpropagate": partial(loss_gradients, images=images),
                "seed": plan.seed,
            }
            scores = {
                name: score_filters(network, images.input_shape, groups, name, **options)
                for name in sorted(plan.criteria)
            }
        else:
            groups = weight_costs(network, images.input_shape, plan.pruning, plan.network.keep).groups
            scores = {MAGNITUDE: magnitudes(network, groups)}
        if device.type == "cuda":
            size = sum(split.images.numel() for split in (images.train, images.validation, images.test))
            free, _ = torch.cuda.mem_get_info(device)
            images = images.to(device) if 2 * size < free else images
        return cls(plan, images, network, original, groups, scores, device, provenance_of(device))

    @cached_property
    def costs(self) -> CostModel:
        """Exact costs of every recipe."""
        return cost_forms(self.network, self.images.input_shape, self.groups)

    def keeps_weights(self, training: Training) -> bool:
        """Whether the trained network is stored: the winner is one of the confirmation networks."""
        return self.plan.keep_weights != "none" or training.block == CONFIRMATION


def cut_network(context: WorkerContext, training: Training, weights: Path | None = None) -> nn.Module:
    """Return the network of a recipe where trainings run, with the original's weights, fresh ones or those of a file."""
    scores, pruning = context.scores[training.criterion], context.plan.pruning
    if pruning.kind == "filters":
        kept = choose_filters(scores, context.groups, training.widths)
        network = cut(context.network, context.groups, kept)
    else:
        network = mask_network(context.network, context.groups, scores, training.widths, pruning)
    if training.technique == "scratch":
        fresh_weights(network, training.torch_seed)
        zero_removed(network)
    if weights is not None:
        load_weights(network, weights.read_bytes(), str(weights))
    return network.to(context.device).to(memory_format=memory_format(context.device))


def train_subnetwork(context: WorkerContext, training: Training) -> tuple[dict[str, Any], nn.Module | None]:
    """Train one subnetwork."""
    row = known_columns(context, training)
    started = time.monotonic()
    try:
        network = cut_network(context, training)
        row |= _results(context, training, network)
    except (DivergenceError, RuntimeError, ValueError) as error:
        _blame_device(error, context.device)
        # Recorded as the row's reason: one recipe that cannot be trained must not stop thousands that can.
        row |= {"status": "failed", "error": _reason(error), "seconds": round(time.monotonic() - started, 3)}
        return row, None
    return row | {"seconds": round(time.monotonic() - started, 3)}, network


def _blame_device(error: Exception, device: torch.device) -> None:
    """Raise where it was the GPU's fault: after most of its errors, every training that follows would fail too."""
    if device.type != "cuda":
        return
    if isinstance(error, torch.OutOfMemoryError):
        raise DeviceError(f"{device} is out of memory", OUT_OF_MEMORY) from error
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as lost:
        raise DeviceError(f"{device} does not answer ({_reason(lost)})", DEVICE_LOST) from lost


def _reason(error: Exception) -> str:
    if isinstance(error, DivergenceError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _results(context: WorkerContext, training: Training, network: nn.Module) -> dict[str, Any]:
    """Measure, train, and measure the test accuracy of the last epoch."""
    plan, images, device = context.plan, context.images, context.device
    measure, row = partial(evaluate, network, images, device=device), dict[str, Any]()
    # A search does not go by accuracies before retraining, which say little about those after it.
    if training.technique != "scratch" and plan.search is None:
        as_cut = {name: value.clone() for name, value in network.named_buffers()}
        row["accuracy_pruned"] = measure(images.test).accuracy
        recalibrate(network, images, device=device)
        row["accuracy_recalibrated"] = measure(images.test).accuracy
        for name, buffer in network.named_buffers():  # training starts from the statistics as cut
            buffer.copy_(as_cut[name])
    settings = plan.retraining[training.technique]
    train(network, images, settings, macs=training.macs, seed=training.torch_seed, device=device)
    test = measure(images.test)
    check_learned(test, images.classes)
    validation = measure(images.validation)
    if plan.search is not None:
        sample = images.train.take(slice(TRAIN_LOSS_IMAGES))
        row |= {"val_loss": validation.loss, "train_loss": measure(sample).loss}
    if (batch := plan.latency_batch) is not None:
        milliseconds = measure_latency(network, images.input_shape, batch=batch, device=device)
        row |= {"latency_ms": milliseconds, "latency_batch": batch}
    return row | {
        "accuracy": test.accuracy,
        "accuracy_kind": "last",
        "accuracy_val": validation.accuracy,
        "test_loss": test.loss,
        "status": "done",
        "error": "",
    }


@torch.inference_mode()
def measure_latency(
    network: nn.Module, input_shape: tuple[int, int, int], *, batch: int, device: torch.device
) -> float:
    """Return the median wall time of one forward pass in evaluation mode (ms), for `batch` images at once."""
    from torch.utils.benchmark import Timer  # takes a third of a second, and workers seldom need it

    network.eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *input_shape, generator=generator).to(device)
    images = images.contiguous(memory_format=memory_format(device))
    # Warms up, waits for a GPU, and repeats short passes until they can be timed.
    timer = Timer("network(images)", globals={"network": network, "images": images})
    return 1000 * float(timer.blocked_autorange().median)


def known_columns(context: WorkerContext, training: Training) -> dict[str, Any]:
    """Everything about a row that is known before its training."""
    plan, original = context.plan, context.original
    settings, images = plan.retraining[training.technique], len(context.images.train)
    achieved = 1 - np.array(training.widths) / [group.width for group in context.groups]
    seen = images_seen(settings, training.macs, images)
    return {
        **{name: getattr(training, name) for name in OF_TRAINING},
        **{name: getattr(original, name) for name in ("original_id", "network", "dataset", "input_size")},
        **{f"original_{name}": getattr(original, name) for name in ("macs", "params", "accuracy")},
        **{name: getattr(settings, name) for name in OF_SETTINGS},
        "learning_rate": peak_rate(context.network, settings),
        "population": plan.name,
        "regime_axis": training.axis,
        "regime_target": training.target,
        "pruning": plan.pruning.kind,
        "widths": list(training.widths),
        "densities": None if plan.pruning.kind == "filters" else (1 - achieved).tolist(),
        "group_names": [group.name for group in context.groups],
        "ratios_requested": list(training.ratios_requested),
        "ratios_achieved": achieved.tolist(),
        "ratio_mean": float(achieved.mean()),
        "ratio_std": float(achieved.std()),
        "retraining": training.technique,
        "epochs": training_epochs(settings, training.macs, images),
        "training_macs": float(PASSES_PER_STEP * training.macs * seen),
        "n_test": len(context.images.test),
        **context.provenance,
        "started_at": now(),
    }
