"""Image sets: the digits' fixed split, the folder layout, and what is refused."""

import dataclasses
import os
import pickle
import re
import subprocess
import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch

from generate.inputs import image_files
from generate.inputs.image_sets import load_images
from generate.inputs.images import ImageSet, Split, check_images, resized
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
        "from generate.inputs.images import ImageSet, Split\n"
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
    with pytest.raises(PlanError, match="can be imported"):
        load_images(ImagesPlan(name="my_images:absent"))


def test_without_pillow_an_image_folder_is_a_sentence(tmp_path, monkeypatch):
    plan = ImagesPlan(name=f"image-folder:{image_folder(tmp_path)}", size=6, folder=str(tmp_path))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PlanError, match="pip install pillow"):
        load_images(plan)


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


def idx_file(path, values):
    """Write an array as MNIST's files hold it: two zero bytes, type 8 (uint8), dimensions, sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(bytes((0, 0, 8, values.dim())) + sizes + values.numpy().tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnists_own_files_are_read_by_torchvision(tmp_path, name, folder):
    pytest.importorskip("torchvision")
    pixels = torch.arange(20 * 28 * 28).reshape(20, 28, 28).to(torch.uint8)
    labels = (torch.arange(20) % 10).to(torch.uint8)
    for part in ("train", "t10k"):
        idx_file(tmp_path / folder / "raw" / f"{part}-images-idx3-ubyte", pixels)
        idx_file(tmp_path / folder / "raw" / f"{part}-labels-idx1-ubyte", labels)
    images = load_images(ImagesPlan(name=name, folder=str(tmp_path)))
    assert images.input_shape == (1, 28, 28)
    assert images.classes == 10
    assert (len(images.train), len(images.validation), len(images.test)) == (18, 2, 20)
    assert torch.equal(images.test.images[:, 0], pixels)
    assert torch.equal(images.test.labels, labels.to(torch.int64))


def cifar_batches(folder, files, key, meta_file, meta_key, classes):
    """Write batches as CIFAR's archives hold them: rows of 3,072 bytes, all red first, then green and blue."""
    folder.mkdir()
    for number, name in enumerate(files):
        rows = np.full((10, 3, 1024), number, dtype=np.uint8) + np.array([[[0], [50], [100]]], dtype=np.uint8)
        content = {"data": rows.reshape(10, 3072), key: list(range(10))}
        (folder / name).write_bytes(pickle.dumps(content))
    names = [f"class {number}" for number in range(classes)]
    (folder / meta_file).write_bytes(pickle.dumps({meta_key: names}))


CIFARS = {
    "cifar10": (
        "cifar-10-batches-py",
        [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"],
        "labels",
        "batches.meta",
        "label_names",
        10,
    ),
    "cifar100": ("cifar-100-python", ["train", "test"], "fine_labels", "meta", "fine_label_names", 100),
}


@pytest.mark.parametrize("name", CIFARS)
def test_cifars_own_files_are_read_by_torchvision(tmp_path, monkeypatch, name):
    """The real checksums cannot be met by other content, so only their comparison is left out."""
    cifar = pytest.importorskip("torchvision.datasets.cifar")
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5: os.path.exists(path))
    folder, files, *rest = CIFARS[name]
    cifar_batches(tmp_path / folder, files, *rest)
    images = load_images(ImagesPlan(name=name, folder=str(tmp_path)))
    assert images.classes == rest[-1]
    assert images.input_shape == (3, 32, 32)
    assert len(images.train) + len(images.validation) == 10 * (len(files) - 1)
    # The last batch is the test images'; colours in the order red, green, blue.
    assert images.test.images[0, :, 5, 5].tolist() == [len(files) - 1, len(files) + 49, len(files) + 99]
    assert images.test.labels.tolist() == list(range(10))


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_a_set_that_cannot_be_downloaded_is_one_sentence(tmp_path, monkeypatch, name):
    utils = pytest.importorskip("torchvision.datasets.utils")

    def refused(*arguments: object, **named: object) -> None:
        raise URLError("no network here")

    monkeypatch.setattr(utils.urllib.request, "urlopen", refused)
    with pytest.raises(
        PlanError, match=r"not complete in .* and could not be downloaded .*no network here"
    ) as raised:
        load_images(ImagesPlan(name=name, folder=str(tmp_path)))
    assert "\n" not in str(raised.value)


def test_a_set_that_arrived_in_part_is_a_sentence(tmp_path, monkeypatch):
    cifar = pytest.importorskip("torchvision.datasets.cifar")
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5: True)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps([1] * 99)[:50])
    with pytest.raises(PlanError, match="cifar10 is not complete in"):
        load_images(ImagesPlan(name="cifar10", folder=str(tmp_path)))


def test_an_image_folder_is_named_by_its_images_and_not_by_its_place(tmp_path):
    here, there = image_folder(tmp_path / "a" / "pets"), image_folder(tmp_path / "b" / "pets")

    def name(folder, **changes) -> str:
        plan = ImagesPlan(name=f"image-folder:{folder}", size=6, folder=str(tmp_path / "cache"), **changes)
        return load_images(plan).name

    same = name(here)
    assert re.fullmatch("image-folder:pets@[0-9a-f]{12}", same)
    assert name(there) == same
    assert name(here, limit=3) != same
    assert name(here, validation=2) != same
    (there / "train" / "cat" / "1.png").unlink()
    assert name(there) != same


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut short.ppm", b"P6 6 ?0 255\n"),
        ("too many pixels.ppm", b"P6 60000 60000 255\n"),
        ("no image.png", b"hello"),
        ("nothing.jpg", b""),
    ],
)
def test_a_damaged_image_is_named_whatever_pillow_raises(tmp_path, name, content):
    image_folder(tmp_path / "set")
    (tmp_path / "set" / "train" / "cat" / name).write_bytes(content)
    with pytest.raises(PlanError, match=f"{re.escape(name)} cannot be read as an image .* Remove or replace"):
        load_images(ImagesPlan(name=f"image-folder:{tmp_path / 'set'}", folder=str(tmp_path), size=6))
    assert list((tmp_path / "decoded").iterdir()) == []


def grey(path, levels):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(levels).save(path)
    return image_files._read_image(path, len(levels))


def test_grey_levels_of_16_bits_keep_their_order(tmp_path):
    """Pillow's own conversion cuts all above 255 off: white nearly everywhere."""
    levels = np.arange(400, dtype=np.uint16).reshape(20, 20) * 164
    eight = grey(tmp_path / "grey.png", levels)
    assert eight.shape == (3, 20, 20)
    assert np.array_equal(eight[0], (levels // 257).astype(np.uint8))
    assert np.array_equal(grey(tmp_path / "grey.tif", levels.astype(np.int32)), eight)


def test_pixels_without_a_range_are_refused(tmp_path):
    with pytest.raises(PlanError, match="floating-point numbers"):
        grey(tmp_path / "real.tif", np.ones((4, 4), dtype=np.float32))
    with pytest.raises(PlanError, match="grey levels run from -1 to 70000"):
        grey(tmp_path / "wide.tif", np.array([[-1, 0], [1, 70000]], dtype=np.int32))


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_too_small_for_the_decoded_images_is_a_sentence(tmp_path):
    """In a process of its own: writing to a map of a file that has no room on its disk ends the process."""
    image_folder(tmp_path / "set")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no mounting here")
    code = (
        "from generate.inputs.image_sets import load_images; from generate.plan import ImagesPlan; "
        f"load_images(ImagesPlan(name='image-folder:{tmp_path / 'set'}', folder='{disk}', size=200))"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        left = list((disk / "decoded").iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "cannot hold the decoded images (No space left on device)" in done.stderr
    assert left == []


@pytest.mark.parametrize(
    ("name", "option"),
    [("digits", "size"), ("mine:images", "limit"), ("mine:images", "validation")],
)
def test_options_that_would_change_nothing_are_refused(name, option):
    with pytest.raises(PlanError, match=rf"images\.{option}: {name} .* leave images\.{option} out"):
        load_images(ImagesPlan(name=name, **{option: 16}))


def test_images_of_the_statement_are_test_images_that_the_search_does_not_see(digits):
    split = load_images(ImagesPlan(statement=0.5))
    assert (len(split.train), len(split.validation), len(split.test)) == (700, 599, 498)
    parts = [split.validation.images[100:], split.test.images]
    both = torch.cat(parts).flatten(1)
    assert torch.equal(torch.unique(both, dim=0), torch.unique(digits.test.images.flatten(1), dim=0))
    assert torch.equal(split.validation.images[:100], digits.validation.images)
    with pytest.raises(PlanError, match="leaves none to search by"):
        load_images(ImagesPlan(statement=1e-4))


def test_smaller_images_are_means_of_what_they_cover():
    stripes = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    stripes[:, :, :, 16:] = 200
    small = resized(stripes, 16)
    assert small.shape == (2, 3, 16, 16)
    assert small.dtype == torch.uint8
    assert small[..., :6].max() == 0
    assert small[..., 10:].min() == 200
    assert small.float().mean() == pytest.approx(100, abs=1)


def test_a_dry_run_needs_no_download(tmp_path, capsys):
    pytest.importorskip("torchvision")
    plan = ImagesPlan(name="mnist", folder=str(tmp_path / "none"), size=14)
    blank = load_images(plan, download=False)
    assert (len(blank.train), len(blank.test), blank.input_shape) == (55_000, 10_000, (1, 14, 14))
    assert "blank images of its size stand in" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
