"""Image sets: the digits' fixed split, the folder layout, and what is refused."""

import dataclasses

import pytest
import torch

from generate.images import ImageSet, Split, check_images, load_images
from generate.plan import ImagesPlan
from popstats.errors import PlanError


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_images(ImagesPlan())


def test_the_digits_are_split_once_and_for_all(digits):
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (700, 100, 997)
    assert digits.input_shape == (1, 8, 8)
    # The first ten training labels pin the split: another one would make old and new populations incomparable.
    assert digits.train.labels[:10].tolist() == [8, 6, 9, 1, 5, 3, 0, 1, 0, 7]


def test_no_digit_is_in_two_splits(digits):
    splits = [digits.train, digits.validation, digits.test]
    images = torch.cat([split.images.flatten(1) for split in splits])
    assert len(images) == 1797
    assert len(torch.unique(images, dim=0)) == 1797


def test_every_class_is_in_every_split(digits):
    for split in (digits.train, digits.validation, digits.test):
        assert set(split.labels.tolist()) == set(range(10))


def test_a_limit_takes_training_images_only(digits):
    limited = load_images(ImagesPlan(limit=50))
    assert len(limited.train) == 50
    assert torch.equal(limited.test.images, digits.test.images)


def test_an_unknown_set_is_refused_with_the_legal_ones():
    with pytest.raises(PlanError, match=r"unknown image set 'cifar'. Legal: digits, cifar10"):
        load_images(ImagesPlan(name="cifar"))


def test_too_many_validation_images_are_refused():
    with pytest.raises(PlanError, match="expected 1 to 799 of 800 training images, got 800"):
        load_images(ImagesPlan(validation=800))


def image_folder(folder, size=6, per_class=4):
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            (folder / part / name).mkdir(parents=True)
            for number in range(per_class):
                image.new("RGB", (size, size), (label * 200, number, 0)).save(
                    folder / part / name / f"{number}.png"
                )
    return folder


def test_an_image_folder_is_read_with_its_classes_in_order(tmp_path):
    images = load_images(
        ImagesPlan(name=f"image-folder:{image_folder(tmp_path)}", size=6, folder=str(tmp_path))
    )
    assert images.classes == 2
    assert images.input_shape == (3, 6, 6)
    assert torch.equal(images.test.images[:, 0, 0, 0] // 200, images.test.labels)


def test_an_image_folder_is_resized(tmp_path):
    images = load_images(
        ImagesPlan(name=f"image-folder:{image_folder(tmp_path, size=20)}", size=8, folder=str(tmp_path))
    )
    assert images.input_shape == (3, 8, 8)


def test_a_missing_or_broken_image_folder_is_a_sentence(tmp_path):
    with pytest.raises(PlanError, match=r"train/CLASS/\*"):
        load_images(ImagesPlan(name=f"image-folder:{tmp_path / 'absent'}"))
    folder = image_folder(tmp_path)
    (folder / "train" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(PlanError, match="cannot be read as an image"):
        load_images(ImagesPlan(name=f"image-folder:{folder}", size=6, folder=str(tmp_path)))


def test_labels_outside_the_classes_are_refused(digits):
    broken = dataclasses.replace(digits, test=Split(digits.test.images, digits.test.labels + 1))
    with pytest.raises(PlanError, match="test labels run from 1 to 10; expected 0 to 9"):
        check_images(broken, "images digits")


def test_a_factory_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "my_images.py").write_text(
        "import torch\n"
        "from generate.images import ImageSet, Split\n"
        "def make():\n"
        "    split = Split(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))\n"
        "    return ImageSet('mine', split, split, split, 2, (0.0,), (1.0,))\n"
        "def wrong():\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_images(ImagesPlan(name="my_images:make")).classes == 2
    with pytest.raises(PlanError, match="returned int"):
        load_images(ImagesPlan(name="my_images:wrong"))
    with pytest.raises(PlanError, match="cannot be imported"):
        load_images(ImagesPlan(name="my_images:absent"))


def test_an_image_folder_is_decoded_once(tmp_path):
    plan = ImagesPlan(
        name=f"image-folder:{image_folder(tmp_path)}", size=6, folder=str(tmp_path / "cache"), validation=2
    )
    first = load_images(plan)
    decoded = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "decoded").iterdir()}
    second = load_images(plan)
    assert len(decoded) == 3
    assert {path: path.stat().st_mtime_ns for path in decoded} == decoded
    assert torch.equal(first.train.images, second.train.images)
    limited = load_images(dataclasses.replace(plan, limit=3))
    assert len(limited.train) == 3
    assert torch.equal(limited.train.images, first.train.images[:3])
