import pytest

from generate.groups import find_groups
from generate.networks import build_network
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
