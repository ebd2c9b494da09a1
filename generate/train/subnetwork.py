"""From one entry of the worklist to one row of the table: cut, measure, retrain, measure again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generate.inputs.images import ImageSet
from generate.inputs.kernel import Kernel, kernel_for
from generate.inputs.networks import planned_network
from generate.plan import Plan, TrainingSettings
from generate.prune.cut import choose_filters, cut
from generate.prune.groups import Group
from generate.prune.scores import score_filters
from generate.recipes.worklist import Training
from generate.train.device import FUSED, Provenance, memory_format, now, provenance_of
from generate.train.latency import measure_latency
from generate.train.loop import (
    PASSES_PER_STEP,
    DivergenceError,
    check_learned,
    evaluate,
    fresh_weights,
    images_seen,
    loss_gradients,
    recalibrate,
    train,
    training_epochs,
)
from generate.train.original import OriginalNumbers, load_weights
from popstats.errors import PopstatsError

# Exit codes of a process whose GPU failed; its parent starts another one.
OUT_OF_MEMORY, DEVICE_LOST = 71, 72


class DeviceError(PopstatsError):
    """A GPU that failed: the process that used it should end with `exit_code`."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Workbench:
    """Everything that trainings share, loaded once a worker."""

    plan: Plan  # The resolved plan.
    images: ImageSet  # On `device` if it fits there.
    network: nn.Module  # The original network, on the CPU; never changed.
    original: OriginalNumbers  # Its numbers.
    groups: tuple[Group, ...]  # Its dependency groups.
    scores: Mapping[str, Mapping[str, Tensor]]  # Filter scores by criterion and group name.
    device: torch.device  # Where trainings run.
    provenance: Provenance  # What rows say about this worker.
    kernel: Kernel | None = None  # What computes batch norm in trainings; None is torch.


def open_workbench(
    plan: Plan,
    images: ImageSet,
    network: nn.Module,
    original: OriginalNumbers,
    groups: tuple[Group, ...],
    device: torch.device,
) -> Workbench:
    """Score the filters and put the images where trainings run."""
    criteria = sorted({block.criterion for block in plan.recipes})
    scores = {
        name: score_filters(
            network,
            images.input_shape,
            groups,
            name,
            backpropagate=partial(loss_gradients, images=images),
            seed=plan.seed,
        )
        for name in criteria
    }
    network.zero_grad(set_to_none=True)
    kernel = kernel_for(device, images.input_shape)
    provenance = provenance_of(device, kernel)
    resident = _resident(images, device)
    return Workbench(plan, resident, network, original, groups, scores, device, provenance, kernel)


def _resident(images: ImageSet, device: torch.device) -> ImageSet:
    """Move the images to the device if they take at most half of its free memory."""
    if device.type != "cuda":
        return images
    size = sum(split.images.numel() for split in (images.train, images.validation, images.test))
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if 2 * size < free else images


def cut_network(bench: Workbench, training: Training) -> nn.Module:
    """Return the network cut to the training's widths, with the original's weights (fresh ones for scratch), on the CPU."""
    kept = choose_filters(bench.scores[training.criterion], bench.groups, training.widths)
    network = cut(bench.network, bench.groups, kept)
    if training.technique == "scratch":
        fresh_weights(network, training.torch_seed)
    return network


def train_subnetwork(bench: Workbench, training: Training) -> tuple[dict[str, Any], nn.Module | None]:
    """Train one subnetwork."""
    row = known_columns(bench, training)
    started = time.monotonic()
    try:
        network = cut_network(bench, training).to(bench.device).to(memory_format=memory_format(bench.device))
        row |= _results(bench, training, network)
    except (DivergenceError, RuntimeError, ValueError) as error:
        _blame_device(error, bench.device)
        # Recorded as the row's reason: one recipe that cannot be trained must not stop thousands that can.
        row |= {"status": "failed", "error": _reason(error), "seconds": round(time.monotonic() - started, 3)}
        return row, None
    return row | {"seconds": round(time.monotonic() - started, 3)}, network


def _blame_device(error: Exception, device: torch.device) -> None:
    """Raise where it was the GPU's fault: after most of its errors nothing works in this process any more.

    Recorded as the recipe's, one such error would make failed rows of all the trainings that follow.
    """
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


def _results(bench: Workbench, training: Training, network: nn.Module) -> dict[str, Any]:
    """Measure, train, and measure the test accuracy of the last epoch."""
    images, device, settings = bench.images, bench.device, bench.plan.retraining[training.technique]
    before = {} if training.technique == "scratch" else _accuracies_before(bench, network)
    train(
        network,
        images,
        settings,
        macs=training.macs,
        seed=training.torch_seed,
        device=device,
        kernel=bench.kernel,
    )
    test = evaluate(network, images, images.test, device=device, shift=images.test_shift)
    check_learned(test, images.classes)
    validation = evaluate(network, images, images.validation, device=device, shift=images.test_shift)
    return before | {
        "accuracy": test.accuracy,
        "accuracy_kind": "last",
        "accuracy_val": validation.accuracy,
        "test_loss": test.loss,
        "status": "done",
        "error": "",
        **_latency_columns(bench, network),
    }


def _latency_columns(bench: Workbench, network: nn.Module) -> dict[str, Any]:
    batch = bench.plan.latency_batch
    if batch is None:
        return {}
    latency = measure_latency(network, bench.images.input_shape, batch=batch, device=bench.device)
    return {"latency_ms": latency, "latency_batch": batch}


def _accuracies_before(bench: Workbench, network: nn.Module) -> dict[str, float]:
    """Test accuracy as cut and with re-estimated batch norm; training starts from the statistics as cut."""
    images, device = bench.images, bench.device
    as_cut = {name: value.clone() for name, value in network.named_buffers()}
    pruned = evaluate(network, images, images.test, device=device, shift=images.test_shift)
    recalibrate(network, images, device=device)
    recalibrated = evaluate(network, images, images.test, device=device, shift=images.test_shift)
    for name, buffer in network.named_buffers():
        buffer.copy_(as_cut[name])
    return {"accuracy_pruned": pruned.accuracy, "accuracy_recalibrated": recalibrated.accuracy}


def known_columns(bench: Workbench, training: Training) -> dict[str, Any]:
    """Everything about a row that is known before its training."""
    return {
        **_identity_columns(bench, training),
        **_recipe_columns(bench, training),
        **_retraining_columns(bench, training),
        "original_accuracy": bench.original.accuracy,
        "n_test": len(bench.images.test),
        **_provenance_columns(bench, training),
        "started_at": now(),
    }


def _provenance_columns(bench: Workbench, training: Training) -> dict[str, Any]:
    columns = bench.provenance.as_dict()
    if bench.plan.retraining[training.technique].precision != "float32":
        # The kernel leaves other precisions to torch.
        columns["memory_format"] = columns["memory_format"].removesuffix(FUSED)
    return columns


def _identity_columns(bench: Workbench, training: Training) -> dict[str, Any]:
    return {
        "subnetwork_id": training.subnetwork_id,
        "recipe_id": training.recipe_id,
        "original_id": bench.original.original_id,
        "population": bench.plan.name,
        "network": bench.original.network,
        "dataset": bench.original.dataset,
        "input_size": bench.original.input_size,
        "regime_axis": training.axis,
        "regime_target": training.target,
        "space": training.space,
    }


def _recipe_columns(bench: Workbench, training: Training) -> dict[str, Any]:
    full = np.array([group.width for group in bench.groups])
    achieved = 1 - np.array(training.widths) / full
    return {
        "widths": list(training.widths),
        "group_names": [group.name for group in bench.groups],
        "ratios_requested": list(training.ratios_requested),
        "ratios_achieved": achieved.tolist(),
        "ratio_mean": float(achieved.mean()),
        "ratio_std": float(achieved.std()),
        "criterion": training.criterion,
        "macs": training.macs,
        "params": training.params,
        "original_macs": bench.original.macs,
        "original_params": bench.original.params,
    }


def _retraining_columns(bench: Workbench, training: Training) -> dict[str, Any]:
    settings: TrainingSettings = bench.plan.retraining[training.technique]
    images = len(bench.images.train)
    return {
        "retraining": training.technique,
        "epochs": training_epochs(settings, training.macs, images),
        "learning_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
        "weight_decay": settings.weight_decay,
        "augmentation": settings.augmentation,
        "seed": training.seed,
        "training_macs": float(
            PASSES_PER_STEP * training.macs * images_seen(settings, training.macs, images)
        ),
    }


def rebuild_original(plan: Plan, images: ImageSet, weights: bytes, where: str) -> nn.Module:
    """Return the original network from its stored weights, in evaluation mode."""
    network = planned_network(plan.network, classes=images.classes, input_shape=images.input_shape)
    load_weights(network, weights, where)
    return network.eval()
