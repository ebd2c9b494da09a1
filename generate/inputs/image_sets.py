"""Image sets: one uint8 tensor per split, a fixed split into training, validation and test images.

`digits` is scikit-learn's and needs no download. torchvision is imported only for its own sets.
"""

from __future__ import annotations

import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generate.inputs.image_files import image_folder
from generate.inputs.images import (
    ImageSet,
    Split,
    check_images,
    hashed_order,
    held_back,
    imported_factory,
    resized,
    statistics,
    with_statement,
)
from generate.plan import ImagesPlan
from popstats.errors import PlanError

DIGITS_TRAIN, DIGITS_VALIDATION = 700, 100
# One of 997 test images is 0.1 points, about as much as recipes differ: the mean over nine one-pixel
# shifts of each image is finer.
DIGITS_SHIFT = 1
# torchvision's class; number of classes, training images, channels and pixels per side; each has 10,000 test images.
TORCHVISION_SETS = {
    "cifar10": ("CIFAR10", 10, 50_000, 3, 32),
    "cifar100": ("CIFAR100", 100, 50_000, 3, 32),
    "fashion-mnist": ("FashionMNIST", 10, 60_000, 1, 28),
    "mnist": ("MNIST", 10, 60_000, 1, 28),
}
# What torchvision raises where a set is not there, cannot be downloaded, or arrived in part.
UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, tarfile.TarError, pickle.UnpicklingError)


def load_images(plan: ImagesPlan, download: bool = True) -> ImageSet:
    """Load the plan's images into memory, on the CPU; without a download, blank ones stand in for absent ones."""
    kind, _, argument = plan.name.partition(":")
    known = plan.name in ("digits", *TORCHVISION_SETS) or (kind == "image-folder" and argument != "")
    if not known and not argument:
        legal = ", ".join(("digits", *TORCHVISION_SETS, "image-folder:PATH", "module:factory"))
        raise PlanError(f"images.name: unknown image set {plan.name!r}. Legal: {legal}.")
    # A plan that says 64 pixels must not silently get 32.
    used = {"size": known and plan.name != "digits", "validation": known, "limit": known}
    if unused := [name for name in used if getattr(plan, name) is not None and not used[name]]:
        whose = "has its images as they are" if known else "makes its own splits"
        raise PlanError(f"images.{unused[0]}: {plan.name} {whose}; leave images.{unused[0]} out.")
    if plan.name == "digits":
        images = _digits(plan)
    elif plan.name in TORCHVISION_SETS:
        images = _torchvision_set(plan, download)
    elif known:
        images = image_folder(plan, Path(argument).expanduser())
    else:
        images = imported_factory(plan.name, f"images.name: {plan.name}")()
        if not isinstance(images, ImageSet):
            raise PlanError(
                f"images.name: {plan.name} returned {type(images).__name__}; expected generate.inputs.images.ImageSet."
            )
        check_images(images, f"images {plan.name}")
        images = replace(images, name=plan.name)
    return images if plan.statement is None else with_statement(images, plan.statement)


def _assemble(plan: ImagesPlan, train: Split, test: Split, classes: int, test_shift: int = 0) -> ImageSet:
    """Hold back validation images from the training images and measure the statistics of the rest."""
    held = held_back(plan, len(train))
    order = torch.tensor(hashed_order(plan.name, len(train)))
    kept = order[held:] if plan.limit is None else order[held:][: plan.limit]
    training, validation = train.take(kept), train.take(order[:held])
    mean, std = statistics(training.images)
    images = ImageSet(plan.name, training, validation, test, classes, mean, std, test_shift)
    check_images(images, f"images {plan.name}")
    return images


def _digits(plan: ImagesPlan) -> ImageSet:
    """scikit-learn's 1,797 scans of 8x8 pixels with 17 grey levels: 700 to train, 100 to validate, 997 to test."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    pixels = torch.from_numpy(np.asarray(scans.images * 15, dtype=np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(np.asarray(scans.target, dtype=np.int64))
    order = torch.tensor(hashed_order("digits-split", len(labels)))
    parts = order.tensor_split([DIGITS_TRAIN + DIGITS_VALIDATION])
    train, test = (Split(pixels, labels).take(part) for part in parts)
    held_back = DIGITS_VALIDATION if plan.validation is None else plan.validation
    return _assemble(replace(plan, validation=held_back), train, test, classes=10, test_shift=DIGITS_SHIFT)


def _torchvision_set(plan: ImagesPlan, download: bool) -> ImageSet:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise PlanError(
            f"images.name: {plan.name} needs torchvision. Install it with: pip install torchvision"
        ) from error
    factory = getattr(datasets, TORCHVISION_SETS[plan.name][0])
    folder = Path(plan.folder).expanduser()
    try:
        if download:
            folder.mkdir(parents=True, exist_ok=True)
        train, test = (factory(str(folder), train=part, download=download) for part in (True, False))
    except UNREADABLE as error:
        if not download:
            print(f"{plan.name} is not in {folder} yet; blank images of its size stand in for it.")
            return _blank(plan)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PlanError(
            f"images.name: {plan.name} is not complete in {folder} and could not be downloaded ({reason}). "
            "Put it there, set images.folder to its location, or use digits, which needs no download."
        ) from error
    splits = (_from_arrays(train, plan.size), _from_arrays(test, plan.size))
    return _assemble(plan, *splits, classes=len(train.classes))


def _blank(plan: ImagesPlan) -> ImageSet:
    _, classes, train, channels, size = TORCHVISION_SETS[plan.name]
    shape = (channels, plan.size or size, plan.size or size)
    training, test = (
        Split(torch.zeros(count, *shape, dtype=torch.uint8), torch.arange(count) % classes)
        for count in (train, 10_000)
    )
    return _assemble(plan, training, test, classes=classes)


def _from_arrays(dataset: Any, size: int | None) -> Split:
    """Take a torchvision set's raw pixels, grey (n, h, w) or colour (n, h, w, 3), as one tensor."""
    pixels = torch.as_tensor(np.asarray(dataset.data))
    images = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return Split(resized(images, size), torch.as_tensor(np.asarray(dataset.targets), dtype=torch.int64))
