"""Where the original network comes from: torchvision's weights read by torchvision itself, from a cache made here."""

import os
import re
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from generate.inputs.images import ImageSet, Split
from generate.inputs.networks import build_network
from generate.plan import plan_from_dict
from generate.train.original import (
    OriginalNumbers,
    check_source,
    doubts_about,
    make_original,
    weights_id,
)
from popstats.errors import PlanError

CPU = torch.device("cpu")
NETWORK = "squeezenet1_1"


def image_set(classes: int) -> ImageSet:
    pixels = torch.randint(0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    split = Split(pixels.to(torch.uint8), torch.arange(8) % classes)
    return ImageSet("mine", split, split, split, classes, (0.5,) * 3, (0.25,) * 3)


def plan_of(source: str, **network: str):
    return plan_from_dict(
        {
            "name": "small",
            "network": {"name": NETWORK, **network},
            "original": {"source": source},
            "recipes": [{"regimes": [0.5], "count": 1}],
        }
    )


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """An empty cache of torch's, and no network."""

    def refused(*arguments: object, **named: object) -> None:
        raise URLError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refused)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def cached_file(cache: Path) -> Path:
    models = pytest.importorskip("torchvision.models")
    return cache / os.path.basename(models.get_model_weights(NETWORK)["IMAGENET1K_V1"].url)


def make(source: str, images: ImageSet) -> torch.nn.Module:
    return make_original(plan_of(source), images, macs=1, device=CPU)


def test_weights_of_torchvision_are_read_from_its_cache(cache):
    images = image_set(1000)
    weights = build_network(NETWORK, classes=1000, input_shape=(3, 32, 32)).state_dict()
    torch.save(weights, cached_file(cache))
    network = make("torchvision:IMAGENET1K_V1", images)
    assert weights_id(network.state_dict()) == weights_id(weights)
    assert not network.training
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


def test_a_failed_download_is_a_sentence(cache):
    cached_file(cache)
    with pytest.raises(
        PlanError, match=r"could not be downloaded or read \(<urlopen error no network here>\)"
    ):
        make("torchvision:IMAGENET1K_V1", image_set(1000))


@pytest.mark.parametrize("content", [b"", b"<html>Moved</html>"])
def test_a_damaged_download_is_a_sentence(cache, content):
    cached_file(cache).write_bytes(content)
    with pytest.raises(
        PlanError, match=r"could not be downloaded or read .*remove it there if it is damaged"
    ):
        make("torchvision:IMAGENET1K_V1", image_set(1000))


def test_weights_for_other_classes_are_refused_without_loading_them(cache):
    with pytest.raises(PlanError, match="has 1000 outputs, but mine has 10 classes"):
        check_source(plan_of("torchvision:IMAGENET1K_V1"), image_set(10))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("network", "source", "message"),
    [
        (
            NETWORK,
            "IMAGENET1K_V9",
            "has no weights 'IMAGENET1K_V9' for 'squeezenet1_1'; it has IMAGENET1K_V1",
        ),
        ("cifar_resnet8", "IMAGENET1K_V1", "no weights for 'cifar_resnet8'"),
        ("inception_v3", "IMAGENET1K_V1", "rescales itself"),
    ],
)
def test_weights_that_torchvision_does_not_have_are_refused(network, source, message):
    pytest.importorskip("torchvision")
    with pytest.raises(PlanError, match=message):
        check_source(plan_of(f"torchvision:{source}", name=network), image_set(1000))


def test_a_file_of_weights(tmp_path):
    images = image_set(10)
    plan = plan_of(str(tmp_path / "weights.safetensors"), name="cifar_resnet8")
    with pytest.raises(PlanError, match=r"weights.safetensors cannot be read \(No such file"):
        make_original(plan, images, macs=1, device=CPU)
    weights = build_network("cifar_resnet8", classes=10, input_shape=(3, 32, 32)).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    network = make_original(plan, images, macs=1, device=CPU)
    assert weights_id(network.state_dict()) == weights_id(weights)
    with pytest.raises(PlanError, match="these weights do not fit the network"):
        make_original(plan, replace(images, classes=9), macs=1, device=CPU)


@pytest.mark.parametrize(
    ("accuracy", "source", "said"),
    [
        (19.0, "train", r"19\.00 %, less than twice chance \(10 %\)\. .*epochs or learning_rate"),
        (94.0, "train", r"94\.00 % on digits, where small networks reach 95 % or more"),
        (94.0, "mine.safetensors", r"check original\.source"),
        (96.0, "train", None),
    ],
)
def test_an_original_that_did_not_learn_is_doubted(accuracy, source, said):
    plan = plan_of(source)
    original = OriginalNumbers(
        *("id", NETWORK, "digits", "1x8x8", source, 1, 1, accuracy, accuracy, 1.0, 997, 1.0, 1.0)
    )
    doubts = " ".join(doubts_about(original, plan, classes=10))
    assert doubts == "" if said is None else re.search(said, doubts)
