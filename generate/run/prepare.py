"""Everything between a plan and its first training: checked in one go, so that nothing fails hours later."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from generate.inputs.image_sets import load_images
from generate.inputs.images import ImageSet
from generate.inputs.networks import planned_network
from generate.plan import Plan
from generate.prune.cost_forms import CostModel, derive_costs
from generate.prune.groups import find_groups
from generate.prune.masks import weight_costs
from generate.recipes.baselines import search_problem
from generate.recipes.feasible import feasible_range
from generate.recipes.worklist import Place, Training, make_worklist, with_identities
from generate.run.folder import RunFolder
from generate.train.augmentation import check_augmentation, parse_augmentation
from generate.train.original import (
    OriginalNumbers,
    check_source,
    load_weights,
    make_original,
    measure_original,
    weights_bytes,
)
from generate.train.subnetwork import WorkerContext
from popstats.errors import PlanError, RunFolderError

# Images without which a gain of ten points would drown in their noise.
FEWEST_IMAGES = 50


@dataclass(frozen=True)
class PreparedPlan:
    """What a plan means for its network and images, before anything is trained."""

    plan: Plan
    images: ImageSet  # on the CPU
    network: nn.Module  # the architecture, untrained
    costs: CostModel
    trainings: tuple[Training, ...]  # new ones have no identities yet: these need the original network


def survey(plan: Plan, folder: RunFolder | None = None, download: bool = True) -> PreparedPlan:
    """Check everything that can be checked before anything is trained, and draw the recipes that `folder` lacks."""
    trainings = {"original.training": plan.original.training} | {
        f"retraining.{technique}": settings for technique, settings in plan.retraining.items()
    }
    for settings in trainings.values():
        parse_augmentation(settings.augmentation)
    images = load_images(plan.images, download)
    for where, settings in trainings.items():
        check_augmentation(settings.augmentation, images.input_shape, where)
    check_source(plan, images)
    network = planned_network(plan.network, classes=images.classes, input_shape=images.input_shape).eval()
    if plan.pruning.kind == "filters":
        groups = find_groups(network, images.input_shape, plan.network.keep)
        costs = derive_costs(network, images.input_shape, groups)
    else:
        costs = weight_costs(network, images.input_shape, plan.pruning, plan.network.keep)
    if plan.search is not None:
        if len(images.test) < FEWEST_IMAGES:
            raise PlanError(
                f"images: {len(images.test)} of {images.name} are left for the statement; expected at least "
                f"{FEWEST_IMAGES}, half of the test images. A winner's gain cannot be measured on fewer."
            )
        search_problem(plan.search, costs)  # refuses a budget that no recipe meets
    if folder is not None:
        folder.check_plan(plan)
    return PreparedPlan(plan, images, network, costs, _worklist(plan, network, costs, folder))


def _worklist(
    plan: Plan, network: nn.Module, costs: CostModel, folder: RunFolder | None
) -> tuple[Training, ...]:
    existing = () if folder is None else folder.read_worklist()
    if folder is not None and folder.has_worklist_of(plan):
        return existing
    return make_worklist(plan, costs, network=network, existing=existing)


def prepare(
    folder: RunFolder,  # created; the caller holds the preparation lock
    prepared: PreparedPlan,
    device: torch.device,  # where the original network is trained
) -> OriginalNumbers:
    """Bring the folder to where trainings can start: plan adopted, original network there, worklist drawn."""
    plan, images = prepared.plan, prepared.images
    folder.adopt_plan(plan)
    original = _original(folder, prepared, device)
    # The log mCB that each planned regime can have: C3c needs both sides of its band within reach.
    regimes = {(b.axis, t): b.round_to for b in plan.recipes if b.axis != "both" for t in b.regimes}
    feasible = [
        {"axis": a, "target": t, "log_mcb": list(feasible_range(prepared.costs, a, t, step).log_mcb)}
        for (a, t), step in regimes.items()
    ]
    costs = prepared.costs.as_dict(prepared.network) | {"feasible": feasible}
    folder.write_part("original/costs.json", costs)
    if folder.has_worklist_of(plan):
        return original
    drawn, held = prepared.trainings, folder.read_worklist()
    baselines = any(block.baselines for block in plan.recipes)
    if baselines:  # some go by the weights of the original network
        load_weights(prepared.network, folder.weights_path.read_bytes(), str(folder.weights_path))
    if baselines or drawn[: len(held)] != held:  # another process may have made the plan grow meanwhile
        drawn = _worklist(plan, prepared.network, prepared.costs, folder)
    place = Place(original.original_id, images.name, images.input_size)
    trainings = with_identities(drawn, plan, prepared.costs, place)
    kept = folder.weights_path.stat().st_size if plan.keep_weights == "all" else 0
    folder.check_space(len(trainings) - len(folder.finished()), kept)
    folder.write_worklist(plan, trainings)
    return original


def _original(folder: RunFolder, prepared: PreparedPlan, device: torch.device) -> OriginalNumbers:
    present = folder.read_original()
    if present is not None:
        return _still_the_same(OriginalNumbers(**present), prepared.images, folder)
    plan, images, started = prepared.plan, prepared.images, time.monotonic()
    macs, params = prepared.costs.original_macs, prepared.costs.original_params
    try:
        network = make_original(plan, images, macs=macs, device=device)
        numbers = measure_original(plan, network, images, macs, params, device)
    except torch.OutOfMemoryError as error:
        raise PlanError(
            f"original.training: {device} has too little free memory for {plan.network.name} with "
            f"batches of {plan.original.training.batch_size} images. Lower batch_size, wait until the "
            "GPU is free, or take another one with --device cuda:N."
        ) from error
    numbers = replace(numbers, seconds=round(time.monotonic() - started, 3))
    folder.write_original(weights_bytes(network), numbers.as_dict())
    return numbers


def _still_the_same(original: OriginalNumbers, images: ImageSet, folder: RunFolder) -> OriginalNumbers:
    """Return `original` if it was measured on these images: rows measured on others cannot be compared with it."""
    then = (original.dataset, original.input_size, original.n_test)
    now = (images.name, images.input_size, len(images.test))
    if then != now:
        was, are = ("{} ({}, {} test images)".format(*images) for images in (then, now))
        raise RunFolderError(
            f"{folder.path}: the images have changed since the original network was measured: then {was}, now {are}. "
            "Restore them, or start a new folder with --out."
        )
    return original


def worker_context(folder: RunFolder, device: torch.device) -> WorkerContext:
    """Return what trainings need of a prepared folder; every worker makes its own."""
    plan, numbers = folder.prepared()
    images = load_images(plan.images)
    original = _still_the_same(OriginalNumbers(**numbers), images, folder)
    return WorkerContext.from_parts(plan, images, folder.weights_path.read_bytes(), original, device)
