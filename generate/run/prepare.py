"""Everything between a plan and its first training: checked in one go, so that nothing fails hours later."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from generate.inputs.image_sets import load_images
from generate.inputs.images import ImageSet
from generate.inputs.kernel import kernel_for
from generate.inputs.networks import planned_network
from generate.plan import Plan
from generate.prune.cost_forms import CostModel, derive_costs
from generate.prune.groups import find_groups
from generate.recipes.worklist import Training, make_worklist
from generate.run.folder import RunFolder
from generate.train.augmentation import check_augmentation, parse_augmentation
from generate.train.device import code_version, hardware
from generate.train.original import (
    OriginalNumbers,
    check_outputs,
    check_source,
    make_original,
    measure_original,
    weights_bytes,
)
from generate.train.subnetwork import Workbench, open_workbench, rebuild_original
from popstats.errors import PlanError, RunFolderError


@dataclass(frozen=True)
class Survey:
    """What a plan means for its network and images, before anything is trained."""

    plan: Plan  # The plan.
    images: ImageSet  # Its images, on the CPU.
    network: nn.Module  # The architecture, untrained.
    costs: CostModel  # Its groups and exact costs.

    def worklist(self, original_id: str, existing: tuple[Training, ...] = ()) -> tuple[Training, ...]:
        """Return the plan's trainings."""
        return make_worklist(
            self.plan,
            self.costs,
            original_id=original_id,
            dataset=self.images.name,
            input_size=self.images.input_size,
            existing=existing,
        )


def survey(plan: Plan) -> Survey:
    """Load the images, build the network, find its groups and derive its costs."""
    trainings = {"original.training": plan.original.training} | {
        f"retraining.{technique}": settings for technique, settings in plan.retraining.items()
    }
    for settings in trainings.values():
        parse_augmentation(settings.augmentation)
    images = load_images(plan.images)
    for where, settings in trainings.items():
        check_augmentation(settings.augmentation, images.input_shape, where)
    check_source(plan, images)
    network = planned_network(plan.network, classes=images.classes, input_shape=images.input_shape).eval()
    groups = find_groups(network, images.input_shape, plan.network.keep)
    return Survey(plan, images, network, derive_costs(network, images.input_shape, groups))


def prepare(
    folder: RunFolder, surveyed: Survey, source: str, device: torch.device
) -> tuple[OriginalNumbers, tuple[Training, ...]]:
    """Bring the folder to where trainings can start: plan adopted, original network there, worklist drawn."""
    folder.adopt_plan(surveyed.plan, source)
    original = _original(folder, surveyed, device)
    held = folder.read_worklist()
    if folder.has_worklist_of(surveyed.plan):
        return original, held
    trainings = surveyed.worklist(original.original_id, existing=held)
    folder.check_space(len(trainings) - len(folder.finished()), _kept_bytes(folder, surveyed.plan))
    folder.write_worklist(surveyed.plan, trainings)
    return original, trainings


def _kept_bytes(folder: RunFolder, plan: Plan) -> int:
    return folder.weights_path.stat().st_size if plan.keep_weights == "all" else 0


def _original(folder: RunFolder, surveyed: Survey, device: torch.device) -> OriginalNumbers:
    present = folder.read_original()
    if present is not None:
        return _still_the_same(OriginalNumbers(**present), surveyed.images, folder)
    started = time.monotonic()
    costs = (surveyed.costs.original_macs, surveyed.costs.original_params)
    kernel = kernel_for(device, surveyed.images.input_shape)
    try:
        network = make_original(surveyed.plan, surveyed.images, macs=costs[0], device=device, kernel=kernel)
        check_outputs(network, surveyed.images)
        numbers = measure_original(
            surveyed.plan, network, surveyed.images, costs=costs, device=device, started=started
        )
    except torch.OutOfMemoryError as error:
        raise PlanError(
            f"original.training: {device} has too little free memory for {surveyed.plan.network.name} with "
            f"batches of {surveyed.plan.original.training.batch_size} images. Lower batch_size, wait until the "
            "GPU is free, or take another one with --device cuda:N."
        ) from error
    folder.write_original(weights_bytes(network), numbers.as_dict())
    return numbers


def _still_the_same(original: OriginalNumbers, images: ImageSet, folder: RunFolder) -> OriginalNumbers:
    """Return `original` if it was measured on these images: rows measured on others cannot be compared with it."""
    then = (original.dataset, original.input_size, original.n_test)
    now = (images.name, images.input_size, len(images.test))
    if then != now:
        raise RunFolderError(
            f"{folder.path}: the images have changed since the original network was measured: then {_of_images(then)}, "
            f"now {_of_images(now)}. Restore them, or start a new folder with --out."
        )
    return original


def _of_images(images: tuple[str, str, int]) -> str:
    name, size, count = images
    return f"{name} ({size}, {count} test images)"


def reopen(folder: RunFolder, device: torch.device) -> Workbench:
    """Open the workbench of a prepared folder, as each worker does."""
    plan, numbers = folder.read_plan(), folder.read_original()
    if plan is None or numbers is None:
        raise RunFolderError(
            f"{folder.path} holds no plan or no original network. Run `python -m generate.population` "
            "on it first."
        )
    images = load_images(plan.images)
    original = _still_the_same(OriginalNumbers(**numbers), images, folder)
    return assemble(plan, images, folder.weights_path.read_bytes(), original, device)


def assemble(
    plan: Plan, images: ImageSet, weights: bytes, original: OriginalNumbers, device: torch.device
) -> Workbench:
    """Build a workbench from its parts, on this machine or on another one."""
    network = rebuild_original(plan, images, weights, "the original network's weights")
    groups = find_groups(network, images.input_shape, plan.network.keep)
    return open_workbench(plan, images, network, original, groups, device)


def metadata(plan: Plan, original: OriginalNumbers) -> dict[str, Any]:
    """Return what the population's footer holds."""
    return {
        "population": plan.name,
        "plan": plan.as_dict(),
        "original": original.as_dict(),
        "provenance": {
            "code_version": code_version(),
            "torch_version": str(torch.__version__),
            "hardware": hardware(),
        },
    }
