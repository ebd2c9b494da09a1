import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from generate.inputs.networks import build_network
from generate.prune.cost_forms import derive_costs
from generate.prune.groups import find_groups
from popstats.errors import PlanError

DIGITS = (1, 8, 8)


@pytest.fixture(scope="module")
def resnet8():
    return build_network("cifar_resnet8", classes=10, input_shape=DIGITS)


def test_groups_are_named_by_their_first_producing_layer_in_order(resnet8):
    groups = find_groups(resnet8, DIGITS)
    assert [(group.name, group.width) for group in groups] == [
        ("conv1", 16),
        ("stage1.0.conv1", 16),
        ("stage2.0.conv1", 32),
        ("stage2.0.conv2", 32),
        ("stage3.0.conv1", 64),
        ("stage3.0.conv2", 64),
    ]
    assert groups[3].layers == ("stage2.0.conv2", "stage2.0.shortcut.0")


def test_keep_protects_the_groups_of_the_named_layers(resnet8):
    names = [group.name for group in find_groups(resnet8, DIGITS, keep=["stage2", "stage1.0.conv2"])]
    assert names == ["stage1.0.conv1", "stage3.0.conv1", "stage3.0.conv2"]


def test_keep_of_an_unknown_layer_is_refused(resnet8):
    with pytest.raises(PlanError, match="no layer is called stage9"):
        find_groups(resnet8, DIGITS, keep=["stage9"])


def test_the_network_itself_is_not_touched():
    network = build_network("cifar_resnet8", classes=10, input_shape=DIGITS).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    derive_costs(network, DIGITS, find_groups(network, DIGITS))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


NAMES_OF_GOOGLENET = """
import torch
from generate.prune.groups import find_groups
from generate.inputs.networks import build_network
with torch.device("meta"):
    network = build_network("googlenet", classes=10, input_shape=(3, 64, 64))
print([(g.name, g.width, g.layers) for g in find_groups(network, (3, 64, 64))])
"""


@pytest.mark.slow
def test_names_and_order_are_the_same_under_every_hash_seed():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", NAMES_OF_GOOGLENET],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("name", ["cifar_resnet20", "mobilenet_v2", "densenet121", "convnext_tiny"])
def test_groups_are_named_by_their_first_producer_and_ordered_by_it(name):
    with torch.device("meta"):
        network = build_network(name, classes=10, input_shape=(3, 64, 64))
    order = [module_name for module_name, _ in network.named_modules()]
    groups = find_groups(network, (3, 64, 64))
    places = [order.index(group.name) for group in groups]
    assert places == sorted(places)
    for group in groups:
        assert group.name == min(group.layers, key=order.index)
        assert network.get_submodule(group.name).weight.shape[0] >= group.width
    assert sum(len(group.layers) for group in groups) == len({x for group in groups for x in group.layers})


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("shufflenet_v2_x0_5", (3, 64, 64), 20),
        ("vit_b_16", (3, 32, 32), 25),  # heads and MLP width of each block, and the embedding
        (
            "swin_t",
            (3, 64, 64),
            16,
        ),  # MLP widths, and heads with channels of each stage; torch-pruning's grouping takes 23 GB
    ],
)
def test_shuffles_and_attention_leave_the_other_groups_to_prune(name, shape, expected):
    if name == "vit_b_16":
        network = VisionTransformer(32, 16, 12, 2, 16, 64, num_classes=10)
    else:
        network = build_network(name, classes=10, input_shape=shape)
    assert len(find_groups(network, shape)) == expected


class Concatenated(nn.Module):
    """Two branches joined and added to a third: the third's channels belong to two groups."""

    def __init__(self):
        super().__init__()
        self.third, self.left, self.right = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)
        self.last = nn.Linear(12, 10)

    def forward(self, images):
        joined = torch.cat([self.left(images), self.right(images)], dim=1)
        return self.last((joined + self.third(images)).mean((2, 3)))


def test_channels_of_one_layer_in_two_groups_are_told_apart():
    groups = find_groups(Concatenated(), (3, 8, 8))
    assert [(group.name, group.width, group.layers) for group in groups] == [
        ("third[0:4]", 4, ("third", "left")),
        ("third[4:12]", 8, ("third", "right")),
    ]
    derive_costs(Concatenated(), (3, 8, 8), groups)


def test_an_input_that_the_network_cannot_take_is_refused(resnet8):
    with pytest.raises(PlanError, match="cannot take images of 3x8x8"):
        find_groups(resnet8, (3, 8, 8))


def test_grouped_convolutions_are_cut_in_multiples():
    with torch.device("meta"):
        network = build_network("resnext50_32x4d", classes=10, input_shape=(3, 64, 64))
    steps = {group.name: group.step for group in find_groups(network, (3, 64, 64))}
    assert steps["layer1.0.conv1"] == steps["layer1.0.conv2"] == 32
    assert steps["layer1.0.conv3"] == 1
