"""A cut network computes what the whole one computes once the same filters are silenced.

Silencing touches only what produces or passes on the filters (weights, norms, scales), never the layers that
consume them: whether the right inputs were cut is what the comparison finds out.
"""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from generate.inputs.networks import build_network
from generate.prune.cost_forms import cost_forms
from generate.prune.cut import choose_filters, cut
from generate.prune.groups import find_groups
from generate.prune.scores import SCORERS, score_filters

DIGITS = (1, 8, 8)
SMALL = (3, 64, 64)
LARGER = (3, 96, 96)
FAMILIES = [
    "resnet18",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "googlenet",
    "convnext_tiny",
    "regnet_y_400mf",
]
MORE_FAMILIES = [
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "densenet121",
    "efficientnet_b0",
    "mnasnet0_5",
    "inception_v3",
    "resnext50_32x4d",
    "vgg11_bn",
]


def trained_lookalike(name, shape, classes=10):
    """A network in double precision whose norms have statistics and scales as after training."""
    torch.manual_seed(0)
    network = build_network(name, classes=classes, input_shape=shape).double().eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def silence(network, groups, kept):
    """A copy in which the dropped filters are zero wherever they are made or passed on."""
    masked = copy.deepcopy(network)
    for group in groups:
        dropped = np.setdiff1d(np.arange(group.width), kept[group.name])
        for member in group.members:
            if member.side == "out" and len(dropped):
                silence_layer(masked, member.layer, torch.from_numpy(member.channels[dropped].ravel()))
    return masked


def silence_layer(network, layer, gone):
    parent, _, attribute = layer.rpartition(".")
    target = getattr(network.get_submodule(parent), attribute)
    for parameter in [target] if isinstance(target, nn.Parameter) else target.parameters(recurse=False):
        parameter.data[gone] = 0
    if isinstance(target, nn.LayerNorm):
        earlier = getattr(target, "silenced", torch.zeros(0, dtype=torch.long))
        target.silenced = torch.cat([earlier, gone])
        target.register_forward_hook(partial(normalise_over_the_rest, target.silenced))


def normalise_over_the_rest(gone, layer, inputs, _output):
    stay = np.setdiff1d(np.arange(layer.normalized_shape[0]), gone.numpy())
    rest = inputs[0][..., stay]
    output = torch.zeros_like(inputs[0])
    output[..., stay] = nn.functional.layer_norm(
        rest, (len(stay),), layer.weight[stay], layer.bias[stay], layer.eps
    )
    return output


def layer_norm_2d_as_layer_norm(network):
    """ConvNeXt's LayerNorm2d normalises over axis 1; here it does so through the hook above."""
    for name, module in list(network.named_modules()):
        if type(module).__name__ == "LayerNorm2d":
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, OverAxisOne(module))
    return network


class OverAxisOne(nn.LayerNorm):
    def __init__(self, source):
        super().__init__(source.normalized_shape, source.eps)
        self.double().load_state_dict(source.state_dict())

    def __call__(self, images):
        return super().__call__(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def assert_cut_equals_masked(network, shape, groups, scores, widths):
    kept = choose_filters(scores, groups, widths)
    images = torch.randn(2, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = layer_norm_2d_as_layer_norm_masked(network, groups, kept)(images)
        found = cut(network, groups, kept)(images)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    return found


def layer_norm_2d_as_layer_norm_masked(network, groups, kept):
    return silence(layer_norm_2d_as_layer_norm(copy.deepcopy(network)), groups, kept)


def check_family(name, recipes):
    shape = LARGER if name == "inception_v3" else SMALL
    check_network(trained_lookalike(name, shape), shape, recipes)


def check_network(network, shape, recipes):
    groups = find_groups(network, shape)
    costs = cost_forms(network, shape, groups)
    rng = np.random.default_rng(0)
    units = costs.full_widths // costs.steps
    outputs = []
    for _ in range(recipes):
        widths = rng.integers(1, units + 1) * costs.steps
        scores = {group.name: torch.from_numpy(rng.random(group.width)) for group in groups}
        outputs.append(assert_cut_equals_masked(network, shape, groups, scores, widths))
    assert not torch.equal(outputs[0], network(torch.zeros(2, *shape, dtype=torch.float64)))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_network_equals_the_masked_one(name):
    check_family(name, recipes=1)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(12), nn.InstanceNorm2d(12, affine=True), nn.Identity()])
def test_a_flattened_map_is_cut_channel_by_channel(norm):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2),
        norm,
        nn.PReLU(12),
        nn.AdaptiveAvgPool2d(7),
        nn.Flatten(),
        nn.Linear(12 * 49, 30),
        nn.PReLU(),
        nn.Linear(30, 10),
    )
    check_network(network.double().eval(), SMALL, recipes=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES + MORE_FAMILIES)
def test_every_family_cut_equals_masked_on_several_recipes(name):
    check_family(name, recipes=4)


def cross_entropy_gradients(network):
    torch.manual_seed(1)
    images, labels = torch.randn(8, *DIGITS, dtype=torch.float64), torch.arange(8)
    nn.functional.cross_entropy(network(images), labels).backward()


@pytest.mark.parametrize("criterion", SCORERS)
def test_a_cut_network_equals_the_masked_one_for_every_score(criterion):
    network = trained_lookalike("cifar_resnet8", DIGITS)
    groups = find_groups(network, DIGITS)
    scores = score_filters(network, DIGITS, groups, criterion, backpropagate=cross_entropy_gradients, seed=3)
    assert {group.name: len(scores[group.name]) for group in groups} == {g.name: g.width for g in groups}
    for widths in ([1, 1, 1, 1, 1, 1], [16, 16, 32, 32, 64, 64], [5, 7, 3, 20, 40, 11]):
        assert_cut_equals_masked(network, DIGITS, groups, scores, np.array(widths))
