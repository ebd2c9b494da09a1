"""Augmentation in batches on the device: flip, shift, crop, cutout; drawn from one explicit generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from popstats.errors import PlanError

type Augment = Callable[[Tensor, torch.Generator], Tensor]


def parse_augmentation(text: str) -> tuple[Augment, ...]:
    """Return the steps of an augmentation such as "flip+crop4+cutout8" or "shift1"; "none" is no step."""
    return () if text == "none" else tuple(_parse_step(step, text) for step in text.split("+"))


def check_augmentation(text: str, input_shape: tuple[int, int, int], where: str) -> None:
    """Refuse steps that images of this shape have no room for."""
    size = min(input_shape[1:])
    for step in parse_augmentation(text):
        pixels = step.keywords["pixels"] if isinstance(step, partial) else 0
        if pixels >= size:
            raise PlanError(
                f"{where}, augmentation: {text!r} moves or removes {pixels} pixels of images that are "
                f"{input_shape[1]}x{input_shape[2]}; expected fewer than {size}."
            )


def _parse_step(step: str, text: str) -> Augment:
    name = step.rstrip("0123456789")
    pixels = int(step[len(name) :] or 0)
    if step == "flip":
        return flip
    if name in ("shift", "crop", "cutout") and pixels:
        return partial(cutout if name == "cutout" else shift, pixels=pixels)
    raise PlanError(
        f"augmentation: unknown step {step!r} in {text!r}. Legal steps, joined by +: flip, shiftN, "
        "cropN, cutoutN (N pixels); or none."
    )


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device, generator=generator) < 0.5
    return torch.where(chosen, images.flip(-1), images)


def shift(images: Tensor, generator: torch.Generator, pixels: int) -> Tensor:
    """Shift each image by up to `pixels` in both directions, zeros moving in (the usual padded random crop)."""
    count, _, height, width = images.shape
    offsets = torch.randint(
        0, 2 * pixels + 1, (2, count, 1), device=images.device, generator=generator
    ).squeeze(-1)
    padded = functional.pad(images, (pixels,) * 4)
    # A view of all windows: taking whole windows copies rows of pixels, half the time of taking them one by one.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, offsets[0], offsets[1]]


def cutout(images: Tensor, generator: torch.Generator, pixels: int) -> Tensor:
    """Set a square of `pixels` at a random place of each image to zero."""
    count, _, height, width = images.shape
    device = images.device
    top = torch.randint(0, height - pixels + 1, (count, 1), device=device, generator=generator)
    left = torch.randint(0, width - pixels + 1, (count, 1), device=device, generator=generator)
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    in_rows = (rows >= top) & (rows < top + pixels)
    in_columns = (columns >= left) & (columns < left + pixels)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


def shift_views(images: Tensor, pixels: int) -> Tensor:
    """Return every shift of up to `pixels` of every image, shape ((2 pixels + 1)^2 n, channels, height, width)."""
    _, _, height, width = images.shape
    padded = functional.pad(images, (pixels,) * 4)
    steps = range(2 * pixels + 1)
    return torch.cat(
        [padded[:, :, top : top + height, left : left + width] for top in steps for left in steps]
    )
