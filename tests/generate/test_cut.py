import numpy as np
import pytest
import torch

from generate.cut import choose_filters, cut
from generate.filter_scores import score_filters
from generate.groups import find_groups
from generate.networks import build_network
from popstats.errors import PlanError

DIGITS = (1, 8, 8)


@pytest.fixture(scope="module")
def resnet8():
    torch.manual_seed(0)
    return build_network("cifar_resnet8", classes=10, input_shape=DIGITS).eval()


def test_filters_with_the_highest_scores_are_kept(resnet8):
    groups = find_groups(resnet8, DIGITS)
    scores = {group.name: torch.arange(group.width).flip(0).double() for group in groups}
    kept = choose_filters(scores, groups, [3, 1, 2, 2, 4, 64])
    assert kept["conv1"].tolist() == [0, 1, 2]
    assert kept["stage3.0.conv2"].tolist() == list(range(64))


def test_l1_scores_are_the_norms_of_the_groups_filters(resnet8):
    groups = find_groups(resnet8, DIGITS)
    scores = score_filters(resnet8, DIGITS, groups, "l1")
    expected = resnet8.stage1[0].conv1.weight.detach().abs().sum((1, 2, 3))
    torch.testing.assert_close(scores["stage1.0.conv1"].float(), expected)


def test_a_cut_leaves_the_network_itself_untouched(resnet8):
    before = {name: value.clone() for name, value in resnet8.state_dict().items()}
    groups = find_groups(resnet8, DIGITS)
    kept = choose_filters(score_filters(resnet8, DIGITS, groups, "l1"), groups, [1] * 6)
    smaller = cut(resnet8, DIGITS, groups, kept)
    assert smaller.conv1.out_channels == 1
    assert all(torch.equal(value, before[name]) for name, value in resnet8.state_dict().items())


@pytest.mark.parametrize("width", [0, 17])
def test_a_width_outside_the_group_is_refused(resnet8, width):
    groups = find_groups(resnet8, DIGITS)
    scores = {group.name: torch.ones(group.width) for group in groups}
    with pytest.raises(PlanError, match="'conv1'.*1 to 16"):
        choose_filters(scores, groups, np.array([width, 1, 1, 1, 1, 1]))
