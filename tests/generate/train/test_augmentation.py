"""Augmentation: what each step does to known images."""

import pytest
import torch

from generate.train.augmentation import (
    check_augmentation,
    cutout,
    flip,
    parse_augmentation,
    shift,
    shift_views,
)
from popstats.errors import PlanError


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_flip_mirrors_about_half_of_the_images(generator):
    images = torch.arange(4.0).repeat(1000, 1, 1, 1)
    flipped = flip(images, generator)[:, 0, 0, 0] == 3
    assert 400 < flipped.sum() < 600


def test_shifts_are_windows_of_the_padded_image(generator):
    image = torch.arange(1.0, 10).view(1, 1, 3, 3)
    views = shift_views(image, 1)
    assert views.shape == (9, 1, 3, 3)
    assert torch.equal(views[4], image[0])
    shifted = shift(image.repeat(200, 1, 1, 1), generator, pixels=1)
    assert {tuple(one.flatten().tolist()) for one in shifted} == {
        tuple(one.flatten().tolist()) for one in views
    }


def test_cutout_removes_one_square(generator):
    left = cutout(torch.ones(50, 2, 6, 6), generator, pixels=2)
    assert torch.equal(left.sum((1, 2, 3)), torch.full((50,), 2 * (36.0 - 4)))


def test_steps_are_applied_in_the_order_written():
    assert len(parse_augmentation("flip+crop4+cutout8")) == 3
    assert parse_augmentation("none") == ()


@pytest.mark.parametrize("text", ["rotate10", "shift", "flip2", "", "crop4,flip"])
def test_unknown_steps_are_refused(text):
    with pytest.raises(PlanError, match="Legal steps"):
        parse_augmentation(text)


def test_steps_that_leave_nothing_of_an_image_are_refused_before_anything_is_trained():
    check_augmentation("flip+shift7+cutout7", (1, 8, 8), "original.training")
    for text in ("cutout8", "flip+crop9"):
        with pytest.raises(
            PlanError, match=r"retraining.scratch, augmentation: .* 8x9; expected fewer than 8"
        ):
            check_augmentation(text, (3, 8, 9), "retraining.scratch")
