"""Costs against the networks themselves: really cut, and counted by torch's own counter."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from generate.inputs.networks import build_network
from generate.prune.cost_forms import cost_forms
from generate.prune.cut import choose_filters, cut
from generate.prune.groups import find_groups
from popstats.errors import PlanError

IMAGENET = ((3, 224, 224), 1000)
SMALL = ((3, 64, 64), 1000)  # counts depend on the size alone, and small maps are counted sooner
CIFAR = ((3, 32, 32), 10)
QUICK = {
    "cifar_resnet8": ((1, 8, 8), 10),
    "resnet18": SMALL,
    "vgg11_bn": SMALL,
    "mobilenet_v2": SMALL,
    "mobilenet_v3_small": SMALL,
    "densenet121": SMALL,
    "efficientnet_b0": SMALL,
    "googlenet": SMALL,
    "inception_v3": ((3, 96, 96), 1000),
    "mnasnet0_5": SMALL,
    "squeezenet1_1": SMALL,
    "convnext_tiny": SMALL,
    "regnet_y_400mf": SMALL,
    "resnext50_32x4d": SMALL,
}
ALL = QUICK | {
    **{f"cifar_resnet{depth}": CIFAR for depth in (20, 32, 56, 110)},
    **dict.fromkeys(("resnet34", "resnet50", "resnet101", "wide_resnet50_2", "wide_resnet101_2"), SMALL),
    **dict.fromkeys(("vgg13_bn", "vgg16_bn", "vgg19_bn", "mobilenet_v3_large", "densenet169"), SMALL),
    **dict.fromkeys(("efficientnet_b1", "mnasnet1_0", "squeezenet1_0", "convnext_small", "alexnet"), SMALL),
    **dict.fromkeys(("regnet_x_400mf", "regnet_y_16gf", "resnext101_32x8d", "efficientnet_v2_s"), SMALL),
}


def model_of(name, shape, classes, keep=()):
    # No values are needed, and making them takes longest; RegNet alone computes its widths with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = build_network(name, classes=classes, input_shape=shape)
    groups = find_groups(network, shape, keep)
    return network, groups, cost_forms(network, shape, groups)


def counted(network, shape):
    """MACs by torch's own counter, and parameters by summing: nothing of ours."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network).to("meta").eval()(torch.zeros(1, *shape, device="meta"))
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in network.parameters())


def recipes_with_extremes(costs, count, seed=0):
    units = costs.full_widths // costs.steps
    inner = np.random.default_rng(seed).integers(1, units + 1, size=(count - 2, len(units)))
    return np.concatenate([units[None], np.ones_like(units)[None], inner]) * costs.steps


def assert_costs_equal_those_of_cut_networks(name, shape, classes, count):
    network, groups, costs = model_of(name, shape, classes)
    scores = {group.name: torch.rand(group.width) for group in groups}
    for widths in recipes_with_extremes(costs, count):
        smaller = cut(network, groups, choose_filters(scores, groups, widths))
        assert (costs.macs(widths)[0], costs.params(widths)[0]) == counted(smaller, shape)


@pytest.mark.parametrize("name", QUICK)
def test_costs_equal_those_of_really_cut_networks_to_the_integer(name):
    assert_costs_equal_those_of_cut_networks(name, *QUICK[name], count=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_costs_of_25_recipes_of_every_network_equal_those_of_the_cut_networks(name):
    assert_costs_equal_those_of_cut_networks(name, *ALL[name], count=25)


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


@pytest.fixture(scope="module")
def models():
    shapes = {"cifar_resnet8": ((1, 8, 8), 10), "squeezenet1_1": SMALL, "regnet_x_400mf": SMALL}
    return {name: model_of(name, *options) for name, options in shapes.items()}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(["cifar_resnet8", "squeezenet1_1", "regnet_x_400mf"]))
def test_costs_rise_with_every_width(models, data, name):
    *_, costs = models[name]
    units = costs.full_widths // costs.steps
    widths = np.array([data.draw(st.integers(1, int(u))) for u in units]) * costs.steps
    group = data.draw(st.integers(0, len(units) - 1))
    wider = widths.copy()
    wider[group] = min(widths[group] + costs.steps[group], costs.full_widths[group])
    for cost in (costs.macs, costs.params):
        assert (cost(wider) > cost(widths)) if wider[group] > widths[group] else (cost(wider) == cost(widths))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_costs_do_not_depend_on_the_order_of_groups(models, seed):
    network, groups, costs = models["cifar_resnet8"]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(groups))
    shuffled = cost_forms(network, (1, 8, 8), [groups[i] for i in order])
    widths = rng.integers(1, costs.full_widths + 1, size=(50, len(groups)))
    np.testing.assert_array_equal(shuffled.macs(widths[:, order]), costs.macs(widths))
    np.testing.assert_array_equal(shuffled.params(widths[:, order]), costs.params(widths))


def test_full_widths_cost_what_the_original_costs(models):
    for network, _, costs in models.values():
        assert costs.original_params == sum(p.numel() for p in network.parameters())
        assert costs.both(costs.full_widths) == (costs.original_macs, costs.original_params)


def test_a_protected_network_is_costed_too():
    network, groups, costs = model_of("resnet18", *SMALL, keep=["layer3", "conv1"])
    widths = np.maximum(costs.full_widths // 3, 1)
    kept = choose_filters({g.name: torch.rand(g.width) for g in groups}, groups, widths)
    assert counted(cut(network, groups, kept), SMALL[0]) == costs.both(widths)


def test_blocks_give_the_same_as_single_recipes(models):
    *_, costs = models["cifar_resnet8"]
    widths = np.random.default_rng(0).integers(1, costs.full_widths + 1, size=(2500, 6))
    one_by_one = [costs.macs(row)[0] for row in widths[::250]]
    assert costs.macs(widths)[::250].tolist() == one_by_one


@pytest.mark.parametrize("name", ["cifar_resnet8", "regnet_x_400mf"])
def test_the_forms_in_the_footer_are_the_costs(models, name):
    network, _, costs = models[name]
    stored = json.loads(json.dumps(costs.as_dict(network)))
    widths = recipes_with_extremes(costs, 5)
    z = np.column_stack([np.ones(5, dtype=np.int64), widths // stored["steps"]])
    macs, params = (np.einsum("ni,ij,nj->n", z, np.array(stored[cost]), z) for cost in ("macs", "params"))
    np.testing.assert_array_equal(macs, costs.macs(widths))
    np.testing.assert_array_equal(params, costs.params(widths))
    assert (stored["groups"], stored["widths"]) == (
        [g.name for g in costs.groups],
        costs.full_widths.tolist(),
    )
    first = costs.groups[0]
    assert stored["layers"][first.layers[0]] == {
        "of": first.width,
        "group": first.name,
        "per_channel": {first.name: 1},
    }


def test_widths_that_no_cut_can_have_are_refused(models):
    *_, costs = models["cifar_resnet8"]
    full = dict(zip([group.name for group in costs.groups], costs.full_widths.tolist(), strict=True))
    first = costs.groups[0].name
    assert costs.macs(full) == costs.original_macs
    assert costs.both({name: [1, width] for name, width in full.items()})[0].shape == (2,)
    for widths, message in [
        (np.ones((2, 5)), r"6 columns.*got an array of shape \(2, 5\)"),
        (np.ones((1, 1, 6)), r"shape \(1, 1, 6\)"),
        (["all"] * 6, "type <U3"),
        (full | {"other": 3}, "got .*other"),
        ({}, "got none"),
        (full | {first: 0}, f"'{first}': expected a width of 1 to 16 .* got 0"),
        (full | {first: 17}, "got 17"),
        (full | {first: 2.5}, "got 2.5"),
        (full | {first: np.nan}, "got nan"),
    ]:
        with pytest.raises(PlanError, match=message):
            costs.both(widths)


def test_a_layer_that_runs_twice_is_counted_twice():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1)
            self.last = torch.nn.Linear(8, 10)

        def forward(self, images):
            features = self.again(torch.relu(self.again(torch.relu(self.first(images)))))
            return self.last(features.mean((2, 3)))

    network = Twice()
    costs = cost_forms(network, (3, 16, 16), find_groups(network, (3, 16, 16)))
    assert (costs.original_macs, costs.original_params) == counted(network, (3, 16, 16))
