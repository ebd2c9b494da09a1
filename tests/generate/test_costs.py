import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from generate.costs import derive_costs
from generate.cut import choose_filters, cut
from generate.groups import find_groups
from generate.networks import build_network
from generate.wiring import on_meta_device

IMAGENET = ((3, 224, 224), 1000)
CIFAR = ((3, 32, 32), 10)
QUICK = {"cifar_resnet8": ((1, 8, 8), 10), "cifar_resnet20": CIFAR, "resnet18": IMAGENET}


def model_of(name, shape, classes):
    network = on_meta_device(build_network(name, classes=classes, input_shape=shape))
    groups = find_groups(network, shape)
    return network, groups, derive_costs(network, shape, groups)


def counted(network, shape):
    """MACs by torch's own counter, and parameters by summing: nothing of ours."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *shape, device="meta"))
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in network.parameters())


def recipes_with_extremes(costs, count, seed=0):
    units = costs.full_widths // costs.steps
    inner = np.random.default_rng(seed).integers(1, units + 1, size=(count - 2, len(units)))
    return np.concatenate([units[None], np.ones_like(units)[None], inner]) * costs.steps


def assert_costs_equal_those_of_cut_networks(name, shape, classes, count):
    network, groups, costs = model_of(name, shape, classes)
    scores = {group.name: torch.rand(group.width) for group in groups}
    for widths in recipes_with_extremes(costs, count):
        smaller = cut(network, shape, groups, choose_filters(scores, groups, widths))
        assert (costs.macs(widths)[0], costs.params(widths)[0]) == counted(smaller, shape)


@pytest.mark.parametrize("name", QUICK)
def test_costs_equal_those_of_really_cut_networks_to_the_integer(name):
    assert_costs_equal_those_of_cut_networks(name, *QUICK[name], count=3)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "macs", "params"),
    [
        ("resnet50", *IMAGENET, 4_089_184_256, 25_557_032),
        ("cifar_resnet56", *CIFAR, 125_747_840, 855_770),
    ],
)
def test_golden_costs(name, shape, classes, macs, params):
    *_, costs = model_of(name, shape, classes)
    assert (costs.original_macs, costs.original_params) == (macs, params)
