"""What a set of images is: splits of uint8 tensors, checked, with the statistics of the training images."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from generate.plan import ImagesPlan
from popstats.errors import PlanError

LARGEST_VALIDATION = 5000
STATISTICS_IMAGES = 10_000
RESIZED_AT_ONCE = 1000


@dataclass(frozen=True)
class Split:
    """Images and labels of one split."""

    images: Tensor  # uint8, shape (n, channels, height, width).
    labels: Tensor  # int64, shape (n,).

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        # Arrays travel through Ray's shared memory; tensors are pickled into one more copy.
        return Split.from_arrays, (self.images.cpu().numpy(), self.labels.cpu().numpy())

    @classmethod
    def from_arrays(cls, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Split:
        """Return the split that was sent as these arrays."""
        # Copied because shared arrays are read-only, which torch does not support.
        return cls(torch.from_numpy(images.copy()), torch.from_numpy(labels.copy()))

    def to(self, device: torch.device) -> Split:
        """Return the split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def take(self, chosen: Tensor | slice) -> Split:
        """Return the images with these indices."""
        return Split(self.images[chosen].contiguous(), self.labels[chosen])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels in order, `size` at a time."""
        yield from zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True)


@dataclass(frozen=True)
class ImageSet:
    """A named set of images in three fixed splits."""

    # As in the plan; an image folder's ends with a hash of its listing: image-folder:cifar10@0123456789ab.
    name: str
    train: Split
    validation: Split  # for `accuracy_val`
    test: Split  # for `accuracy`
    classes: int  # number of classes
    mean: tuple[float, ...]  # per channel of the training images, on the scale 0 to 1
    std: tuple[float, ...]
    # Test accuracy is the mean over all shifts of up to this many pixels; 0 for the images as they are.
    test_shift: int = 0

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.train.images.shape[1:]
        return int(channels), int(height), int(width)

    @property
    def input_size(self) -> str:
        """The input shape as the table's column holds it, such as 1x8x8."""
        return "x".join(map(str, self.input_shape))

    def to(self, device: torch.device) -> ImageSet:
        """Return the set on `device`."""
        splits = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return replace(self, **splits)


def imported_factory(name: str, where: str) -> Callable[..., Any]:
    """Return what `module:factory` names."""
    module, _, factory = name.partition(":")
    try:
        return cast(Callable[..., Any], getattr(importlib.import_module(module), factory))
    except (ImportError, AttributeError, ValueError) as error:
        raise PlanError(
            f"{where}: expected module:factory that can be imported from here; {error}."
        ) from error


def check_images(images: ImageSet, where: str) -> None:
    """Refuse a set that no network can be trained on."""
    for name, split in (("training", images.train), ("validation", images.validation), ("test", images.test)):
        if len(split) == 0 or len(split.images) != len(split.labels):
            raise PlanError(
                f"{where}: {len(split.images)} {name} images and {len(split)} labels; expected equally "
                "many, at least one."
            )
        if split.images.dtype != torch.uint8 or split.images.dim() != 4:
            raise PlanError(
                f"{where}: expected {name} images as uint8 (n, channels, height, width), got "
                f"{split.images.dtype} {tuple(split.images.shape)}."
            )
        if int(split.labels.min()) < 0 or int(split.labels.max()) >= images.classes:
            raise PlanError(
                f"{where}: {name} labels run from {int(split.labels.min())} to "
                f"{int(split.labels.max())}; expected 0 to {images.classes - 1}."
            )


def hashed_order(name: str, count: int) -> list[int]:
    """Return a fixed shuffle of range(count): the same on every machine and with every library version."""
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{name}-{i}".encode()).digest())


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel on the scale 0 to 1, from the first images."""
    sample = images[:STATISTICS_IMAGES].to(torch.float64) / 255
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp_min(1e-3)
    return tuple(mean.tolist()), tuple(std.tolist())


def held_back(plan: ImagesPlan, count: int) -> int:
    """Return how many of `count` training images validate."""
    held_back = min(LARGEST_VALIDATION, max(1, count // 10)) if plan.validation is None else plan.validation
    if not 0 < held_back < count:
        raise PlanError(
            f"images.validation: expected 1 to {count - 1} of {count} training images, got {held_back}."
        )
    return held_back


def resized(images: Tensor, size: int | None) -> Tensor:
    """Return uint8 images (n, channels, height, width) shrunk to `size` pixels per side, each the mean of what it covers."""
    if size is None or images.shape[2:] == (size, size):
        return images
    parts = (
        functional.interpolate(part.float(), (size, size), mode="bilinear", antialias=True)
        for part in torch.split(images, RESIZED_AT_ONCE)
    )
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])


def with_statement(images: ImageSet, share: float) -> ImageSet:
    """Reserve a share of the test images for the statement, unseen by any choice; the others join the validation images."""
    order = torch.tensor(hashed_order(f"{images.name}-statement", len(images.test)))
    count = round(share * len(images.test))
    if not 0 < count < len(images.test):
        raise PlanError(
            f"images.statement: {share:g} of {len(images.test)} test images leaves none to search by, or none to measure "
            "on. A winner needs more test images."
        )
    kept, joined = (images.test.take(part.sort().values) for part in (order[:count], order[count:]))
    both = (images.validation, joined)
    searched = Split(torch.cat([one.images for one in both]), torch.cat([one.labels for one in both]))
    return replace(images, validation=searched, test=kept)
