"""Digits split anew: world k has its own 700 training, 100 validation and 997 test images. For `module:factory`."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from generate.inputs.image_sets import load_images
from generate.inputs.images import ImageSet, Split, statistics
from generate.plan import ImagesPlan


def _world(number: int) -> ImageSet:
    digits = load_images(ImagesPlan())
    parts = (digits.test, digits.validation, digits.train)
    whole = Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))
    order = torch.from_numpy(np.random.default_rng(1000 + number).permutation(len(whole)))
    train, validation, test = (whole.take(part) for part in torch.split(order, [700, 100, 997]))
    mean, std = statistics(train.images)
    return replace(digits, train=train, validation=validation, test=test, mean=mean, std=std)


def __getattr__(name: str) -> Callable[[], ImageSet]:
    """Return the factory of a world by its name, such as world_3."""
    kind, _, number = name.partition("_")
    if kind != "world" or not number.isdecimal():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_world, int(number))
