"""Image folders: files found, decoded once into shared memory, and named by their content."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generate.inputs.images import ImageSet, Split, check_images, hashed_order, held_back, statistics
from generate.plan import ImagesPlan
from popstats.errors import PlanError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")

type _Files = list[tuple[Path, int]]


IMAGE_FOLDER_SIZE = 224
SIXTEEN_BITS = 2**16 - 1
# Share of the shorter side that a centre crop keeps, as in the usual ImageNet evaluation (224 of 256).
CENTRE_SHARE = 224 / 256


def image_folder(plan: ImagesPlan, folder: Path) -> ImageSet:
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
    listed = _files(folder / "train", classes)
    shuffled = [listed[i] for i in hashed_order("image-folder", len(listed))]
    held = held_back(plan, len(listed))
    files = {
        "train": shuffled[held:][: plan.limit],
        "validation": shuffled[:held],
        "test": _files(testing, classes),
    }
    splits = {name: _decode(chosen, plan) for name, chosen in files.items()}
    mean, std = statistics(splits["train"].images)
    # Named by its last part and its content, so that the same images have one name wherever they lie.
    listing = json.dumps(
        {
            split: [(str(path.relative_to(folder)), path.stat().st_size) for path, _ in chosen]
            for split, chosen in files.items()
        }
    )
    name = f"image-folder:{folder.resolve().name}@{hashlib.sha256(listing.encode()).hexdigest()[:12]}"
    images = ImageSet(name, splits["train"], splits["validation"], splits["test"], len(classes), mean, std)
    check_images(images, f"images {plan.name}")
    return images


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
    temporary = cache.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            # On a full disk, writing to a memory map that has no disk reserved kills the process.
            reserve = getattr(os, "posix_fallocate", lambda number, _, size: os.truncate(number, size))
            reserve(file.fileno(), 0, math.prod(shape))
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


def _read_image(path: Path, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode one image to (3, size, size): shorter side resized, centre cropped; untouched where it has that size."""
    try:
        from PIL import Image
    except ImportError as error:
        raise PlanError(
            "images.name: a folder of images needs Pillow. Install it with: pip install pillow"
        ) from error
    try:
        with Image.open(path) as opened:
            picture = _eight_bits(opened).convert("RGB")
    # Pillow's exception for a damaged file depends on its format; nothing else that was passed can be wrong.
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
    """Scale grey levels of 16 bits to 8: Pillow by itself clips at 255, which leaves a white image."""
    if picture.mode == "F":
        raise ValueError(
            "its pixels are floating-point numbers without a fixed range; save it with 8 or 16 bits"
        )
    if not picture.mode.startswith("I"):
        return picture
    from PIL import Image

    levels = np.asarray(picture)
    if levels.min() < 0 or levels.max() > SIXTEEN_BITS:
        raise ValueError(f"its grey levels run from {levels.min()} to {levels.max()}; expected 8 or 16 bits")
    return Image.fromarray((levels // (SIXTEEN_BITS // 255)).astype(np.uint8))
