"""The digits split anew: world k has its own 700 training, 100 validation and 997 test images. For `module:factory`."""

from dataclasses import replace

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


def world_1() -> ImageSet:
    return _world(1)


def world_2() -> ImageSet:
    return _world(2)


def world_3() -> ImageSet:
    return _world(3)


def world_4() -> ImageSet:
    return _world(4)


def world_5() -> ImageSet:
    return _world(5)
