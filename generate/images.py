"""Image sets: one uint8 tensor a split, a fixed split into training, validation and test images.

`digits` is scikit-learn's and needs no download. torchvision is imported only where one of its sets is asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import pickle
import secrets
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generate.plan import ImagesPlan
from popstats.errors import PlanError

__all__ = ["DIGITS_TRAIN", "ImageSet", "Split", "check_images", "load_images"]

DIGITS_TRAIN = 700
DIGITS_VALIDATION = 100
# One of 997 test images is 0.1 points, about as much as recipes differ: the mean over nine one-pixel
# shifts of each image is finer.
DIGITS_SHIFT = 1
LARGEST_VALIDATION = 5000
TORCHVISION_SETS = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "fashion-mnist": "FashionMNIST",
    "mnist": "MNIST",
}
# What torchvision raises where a set is not there, cannot be downloaded, or arrived in part.
UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, tarfile.TarError, pickle.UnpicklingError)
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
IMAGE_FOLDER_SIZE = 224
SIXTEEN_BITS = 2**16 - 1
STATISTICS_IMAGES = 10_000
# Share of the shorter side that a centre crop keeps, as in the usual ImageNet evaluation (224 of 256).
CENTRE_SHARE = 224 / 256


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Parameters
    ----------
    images : Tensor
        uint8, shape (n, channels, height, width).
    labels : Tensor
        int64, shape (n,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """Return the split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels in order, `size` at a time."""
        yield from zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True)


@dataclass(frozen=True)
class ImageSet:
    """A named set of images in three fixed splits.

    Parameters
    ----------
    name : str
        As in the plan; an image folder's is its last part and a hash of its listing: image-folder:cifar10@0123456789ab.
    train, validation, test : Split
        `accuracy` is measured on test, `accuracy_val` on validation.
    classes : int
        Number of classes.
    mean, std : tuple of float
        Per channel, in units of the full range 0 to 1, of the training images.
    test_shift : int
        Test accuracy is the mean over all shifts of up to this many pixels; 0 for the images as they are.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
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
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


def load_images(plan: ImagesPlan) -> ImageSet:
    """Load the plan's images into memory, on the CPU.

    Raises
    ------
    PlanError
        If the set is unknown, its files are missing, or it cannot be downloaded.
    """
    kind, _, argument = plan.name.partition(":")
    _check_options(plan, kind)
    if plan.name == "digits":
        return _digits(plan)
    if plan.name in TORCHVISION_SETS:
        return _torchvision_set(plan)
    if kind == "image-folder" and argument:
        return _image_folder(plan, Path(argument).expanduser())
    if argument:
        return _factory(plan, kind, argument)
    legal = ", ".join(("digits", *TORCHVISION_SETS, "image-folder:PATH", "module:factory"))
    raise PlanError(f"images.name: unknown image set {plan.name!r}. Legal: {legal}.")


def _check_options(plan: ImagesPlan, kind: str) -> None:
    """Refuse what would change nothing: whoever asks for 64 pixels should not get 32 without a word."""
    known = plan.name == "digits" or plan.name in TORCHVISION_SETS or kind == "image-folder"
    unused = [
        name
        for name, used in (("size", kind == "image-folder"), ("validation", known), ("limit", known))
        if getattr(plan, name) is not None and not used
    ]
    if unused and (known or ":" in plan.name):
        whose = "has its images as they are" if known else "makes its own splits"
        raise PlanError(f"images.{unused[0]}: {plan.name} {whose}; leave images.{unused[0]} out.")


def check_images(images: ImageSet, where: str) -> None:
    """Refuse a set that no network can be trained on.

    Raises
    ------
    PlanError
        If a split is empty, labels lie outside the classes, or images are no uint8.
    """
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


def _hashed_order(name: str, count: int) -> list[int]:
    """Return a fixed shuffle of range(count): the same on every machine and with every library version."""
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{name}-{i}".encode()).digest())


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel on the scale 0 to 1, from the first images."""
    sample = images[:STATISTICS_IMAGES].to(torch.float64) / 255
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp_min(1e-3)
    return tuple(mean.tolist()), tuple(std.tolist())


def _held_back(plan: ImagesPlan, count: int) -> int:
    """Return how many of `count` training images validate."""
    held_back = min(LARGEST_VALIDATION, max(1, count // 10)) if plan.validation is None else plan.validation
    if not 0 < held_back < count:
        raise PlanError(
            f"images.validation: expected 1 to {count - 1} of {count} training images, got {held_back}."
        )
    return held_back


def _assemble(plan: ImagesPlan, train: Split, test: Split, classes: int, test_shift: int = 0) -> ImageSet:
    """Hold back validation images from the training images and measure the statistics of the rest."""
    held_back = _held_back(plan, len(train))
    order = torch.tensor(_hashed_order(plan.name, len(train)))
    kept = order[held_back:] if plan.limit is None else order[held_back:][: plan.limit]
    training = Split(train.images[kept].contiguous(), train.labels[kept])
    validation = Split(train.images[order[:held_back]].contiguous(), train.labels[order[:held_back]])
    mean, std = _statistics(training.images)
    images = ImageSet(plan.name, training, validation, test, classes, mean, std, test_shift)
    check_images(images, f"images {plan.name}")
    return images


def _digits(plan: ImagesPlan) -> ImageSet:
    """scikit-learn's 1,797 scans of 8x8 pixels with 17 grey levels: 700 to train, 100 to validate, 997 to test."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    pixels = torch.from_numpy(np.asarray(scans.images * 15, dtype=np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(np.asarray(scans.target, dtype=np.int64))
    order = torch.tensor(_hashed_order("digits-split", len(labels)))
    first, rest = order[: DIGITS_TRAIN + DIGITS_VALIDATION], order[DIGITS_TRAIN + DIGITS_VALIDATION :]
    held_back = DIGITS_VALIDATION if plan.validation is None else plan.validation
    return _assemble(
        replace(plan, validation=held_back),
        Split(pixels[first], labels[first]),
        Split(pixels[rest], labels[rest]),
        classes=10,
        test_shift=DIGITS_SHIFT,
    )


def _torchvision_set(plan: ImagesPlan) -> ImageSet:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise PlanError(
            f"images.name: {plan.name} needs torchvision. Install it with: pip install torchvision"
        ) from error
    factory = getattr(datasets, TORCHVISION_SETS[plan.name])
    folder = Path(plan.folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        train, test = (factory(str(folder), train=part, download=True) for part in (True, False))
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PlanError(
            f"images.name: {plan.name} is neither whole in {folder} nor could it be downloaded ({reason}). "
            "Put it there, set images.folder to where it lies, or use digits, which needs no download."
        ) from error
    return _assemble(plan, _from_arrays(train), _from_arrays(test), classes=len(train.classes))


def _from_arrays(dataset: Any) -> Split:
    """Take a torchvision set's raw pixels, grey (n, h, w) or colour (n, h, w, 3), as one tensor."""
    pixels = torch.as_tensor(np.asarray(dataset.data))
    images = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.as_tensor(np.asarray(dataset.targets), dtype=torch.int64))


def _image_folder(plan: ImagesPlan, folder: Path) -> ImageSet:
    """Read train/CLASS/* and test/CLASS/* (or val/CLASS/*), as ImageNet is usually laid out.

    Decoded once into memory-mapped files, which all workers of a machine share.
    """
    testing = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if not (folder / "train").is_dir() or testing is None:
        raise PlanError(
            f"images.name: expected {folder}/train/CLASS/* and {folder}/test/CLASS/* (or val), "
            "but they are not there."
        )
    classes = sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir())
    if len(classes) < 2:
        raise PlanError(
            f"images.name: expected at least two class folders in {folder}/train, found {len(classes)}."
        )
    files = _split_files(plan, folder / "train", testing, classes)
    splits = {name: _decode(chosen, plan) for name, chosen in files.items()}
    mean, std = _statistics(splits["train"].images)
    name = _folder_identity(folder, files)
    images = ImageSet(name, splits["train"], splits["validation"], splits["test"], len(classes), mean, std)
    check_images(images, f"images {plan.name}")
    return images


type _Files = list[tuple[Path, int]]


def _split_files(plan: ImagesPlan, training: Path, testing: Path, classes: list[str]) -> dict[str, _Files]:
    """Return each split's files with their classes' numbers."""
    files = _files(training, classes)
    shuffled = [files[i] for i in _hashed_order("image-folder", len(files))]
    held_back = _held_back(plan, len(files))
    return {
        "train": shuffled[held_back:][: plan.limit],
        "validation": shuffled[:held_back],
        "test": _files(testing, classes),
    }


def _folder_identity(folder: Path, files: Mapping[str, _Files]) -> str:
    """Name a folder by its last part and its content, so that the same images have one name wherever they lie."""
    listing = json.dumps(
        {
            split: [(str(path.relative_to(folder)), path.stat().st_size) for path, _ in chosen]
            for split, chosen in files.items()
        }
    )
    return f"image-folder:{folder.resolve().name}@{hashlib.sha256(listing.encode()).hexdigest()[:12]}"


def _files(folder: Path, classes: list[str]) -> _Files:
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in IMAGE_ENDINGS
    ]
    if not files:
        raise PlanError(f"images.name: no images ({', '.join(IMAGE_ENDINGS)}) in {folder}/CLASS/.")
    return files


def _decode(files: _Files, plan: ImagesPlan) -> Split:
    """Open the split's decoded images, decoding them first where no earlier run did."""
    size = plan.size or IMAGE_FOLDER_SIZE
    listing = f"{size};" + ";".join(f"{path} {path.stat().st_size}" for path, _ in files)
    name = f"{hashlib.sha256(listing.encode()).hexdigest()}.uint8"
    cache = Path(plan.folder).expanduser() / "decoded" / name
    shape = (len(files), 3, size, size)
    if not cache.exists():
        _decode_into(cache, files, shape)
    # Mode "c": pages are shared between workers, and torch gets an array that it may call writable.
    images = torch.from_numpy(np.memmap(cache, dtype=np.uint8, mode="c", shape=shape))
    return Split(images, torch.tensor([label for _, label in files]))


def _decode_into(cache: Path, files: _Files, shape: tuple[int, int, int, int]) -> None:
    """Decode in threads into a temporary file, renamed when it is whole."""
    _need_pillow()
    temporary = cache.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        _reserve(temporary, math.prod(shape))
        decoded = np.memmap(temporary, dtype=np.uint8, mode="r+", shape=shape)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PlanError(
            f"images.folder: {cache.parent} cannot hold the decoded images ({error.strerror}). "
            "Set images.folder to a place with enough room."
        ) from error

    def read(position: int) -> None:
        decoded[position] = _read_image(files[position][0], shape[-1])

    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(read, range(len(files))))
        decoded.flush()
        os.replace(temporary, cache)
    finally:
        temporary.unlink(missing_ok=True)


def _need_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise PlanError(
            "images.name: a folder of images needs Pillow. Install it with: pip install pillow"
        ) from error


def _reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes that has its room on the disk: a disk that is full later kills who writes to a map."""
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _read_image(path: Path, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode one image to (3, size, size): shorter side resized, centre cropped; untouched where it has that size."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            picture = _eight_bits(opened).convert("RGB")
    # What Pillow raises for damaged files hangs on their format; no value was passed that could be wrong otherwise.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PlanError(
            f"images.name: {path} cannot be read as an image ({error}). Remove or replace it."
        ) from error
    if picture.size != (size, size):
        shorter = round(size / CENTRE_SHARE)
        scale = shorter / min(picture.size)
        width, height = (max(size, round(side * scale)) for side in picture.size)
        left, top = (width - size) // 2, (height - size) // 2
        picture = picture.resize((width, height), Image.Resampling.BILINEAR).crop(
            (left, top, left + size, top + size)
        )
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def _eight_bits(picture: Any) -> Any:
    """Bring grey levels of 16 bits to 8: Pillow by itself cuts all above 255 off, which leaves a white image."""
    if picture.mode == "F":
        raise ValueError(
            "its pixels are floating-point numbers, whose range is anything; save it with 8 or 16 bits"
        )
    if not picture.mode.startswith("I"):
        return picture
    from PIL import Image

    levels = np.asarray(picture)
    if levels.min() < 0 or levels.max() > SIXTEEN_BITS:
        raise ValueError(f"its grey levels run from {levels.min()} to {levels.max()}; expected 8 or 16 bits")
    return Image.fromarray((levels // (SIXTEEN_BITS // 255)).astype(np.uint8))


def _factory(plan: ImagesPlan, module: str, name: str) -> ImageSet:
    """Call a user's `module:factory`, which returns an ImageSet."""
    try:
        factory: Callable[[], ImageSet] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PlanError(
            f"images.name: {plan.name} cannot be imported ({error}). Expected module:factory on the "
            "Python path."
        ) from error
    images = factory()
    if not isinstance(images, ImageSet):
        raise PlanError(
            f"images.name: {plan.name} returned {type(images).__name__}; expected generate.images.ImageSet."
        )
    check_images(images, f"images {plan.name}")
    return replace(images, name=plan.name)
