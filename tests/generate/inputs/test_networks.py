import pytest
import torch
from torch import nn

from generate.inputs.networks import build_network, parse_input_shape, planned_network
from generate.plan import NetworkPlan
from generate.prune.cost_forms import derive_costs
from generate.prune.groups import find_groups
from popstats.errors import PlanError


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_cifar_resnet56_with_1x1_shortcuts_has_the_known_number_of_parameters():
    assert count(build_network("cifar_resnet56", classes=10, input_shape=(3, 32, 32))) == 855_770


@pytest.mark.parametrize(("shape", "width"), [((1, 8, 8), 1), ((3, 32, 32), None), ((1, 8, 8), 0.25)])
def test_cifar_resnet8_runs_on_small_images(shape, width):
    network = planned_network(NetworkPlan("cifar_resnet8", width), classes=10, input_shape=shape)
    scores = network(torch.zeros(2, *shape))
    assert scores.shape == (2, 10)
    assert torch.isfinite(scores).all()


def test_a_users_factory_gets_the_options_it_has_parameters_for(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def tiny(classes):\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    network = build_network("my_networks:tiny", classes=7, input_shape=(1, 8, 8))
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("resnet51", {}, "unknown"),
        ("cifar_resnet9", {}, "cifar_resnet110"),
        ("no_such_module:build", {}, "module:factory"),
        ("resnet18", {"width": 0.5}, "no `width` option"),
        ("cifar_resnet8", {"width": 0}, "a whole number of them; got 0"),
        ("cifar_resnet8", {"width": 16}, "factor of its 16 channels, at most 4"),
        ("cifar_resnet8", {"width": 0.3}, "whole number of them; got 0.3"),
        ("digits_vit", {"width": 0.25}, "a multiple of 8"),
        ("cifar_resnet8", {"stem": "cifar"}, "brings its own stem"),
        ("vgg11", {"stem": "cifar"}, "no 7x7 convolution"),
        ("resnet18", {"input_shape": (1, 8, 8)}, "3 channels"),
    ],
)
def test_impossible_networks_are_refused_with_the_reason(name, options, reason):
    with pytest.raises(PlanError, match=reason):
        build_network(name, **({"classes": 10, "input_shape": (3, 32, 32)} | options))


def test_the_cifar_stem_gives_resnet50_its_known_costs_on_small_images():
    shape = (3, 32, 32)
    network = build_network("resnet50", classes=10, input_shape=shape, stem="cifar")
    assert count(network) == 23_520_842
    assert derive_costs(network, shape, find_groups(network, shape)).original_macs == 1_297_829_888


def test_input_shape_from_text():
    assert parse_input_shape("3x224x160") == (3, 224, 160)
    with pytest.raises(PlanError, match="3x224x224"):
        parse_input_shape("224")
