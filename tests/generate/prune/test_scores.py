import pytest
import torch
from torch import nn

from generate.inputs.networks import build_network
from generate.prune.groups import find_groups
from generate.prune.scores import CRITERIA, score_filters
from popstats.errors import PlanError

DIGITS = (1, 8, 8)


@pytest.fixture(scope="module")
def resnet8():
    torch.manual_seed(0)
    return build_network("cifar_resnet8", classes=10, input_shape=DIGITS).eval()


def scores_of(network, criterion, **options):
    return score_filters(network, DIGITS, find_groups(network, DIGITS), criterion, **options)


def backpropagate(network):
    nn.functional.cross_entropy(network(torch.ones(4, *DIGITS)), torch.arange(4)).backward()


@pytest.mark.parametrize(("criterion", "power"), [("l1", 1), ("l2", 2)])
def test_norms_are_those_of_the_groups_own_filters(resnet8, criterion, power):
    weight = resnet8.stage1[0].conv1.weight.detach()
    expected = weight.abs().pow(power).sum((1, 2, 3)).double()
    torch.testing.assert_close(scores_of(resnet8, criterion)["stage1.0.conv1"], expected)


def test_tied_layers_are_scored_together(resnet8):
    first, second = resnet8.conv1.weight.detach(), resnet8.stage1[0].conv2.weight.detach()
    expected = (first.abs().sum((1, 2, 3)) + second.abs().sum((1, 2, 3))).double() / 2
    torch.testing.assert_close(scores_of(resnet8, "l1")["conv1"], expected)


def test_batch_norm_scale(resnet8):
    network = build_network("cifar_resnet8", classes=10, input_shape=DIGITS)
    nn.init.uniform_(network.stage3[0].bn1.weight, -1, 1)
    expected = network.stage3[0].bn1.weight.detach().abs().double()
    torch.testing.assert_close(scores_of(network, "bn_scale")["stage3.0.conv1"], expected)


def test_fpgm_drops_the_filter_in_the_middle_of_the_others():
    network = build_network("cifar_resnet8", classes=10, input_shape=DIGITS)
    weight = network.stage1[0].conv1.weight.data
    weight.uniform_(0.5, 1.5)
    weight[3] = 1.0
    assert scores_of(network, "fpgm")["stage1.0.conv1"].argmin() == 3


def test_taylor_gives_a_dead_filter_the_lowest_score():
    torch.manual_seed(0)
    network = build_network("cifar_resnet8", classes=10, input_shape=DIGITS).eval()
    network.stage2[0].conv1.weight.data[5] = 0
    network.stage2[0].conv2.weight.data[:, 5] = 0
    scores = scores_of(network, "taylor", backpropagate=backpropagate)["stage2.0.conv1"]
    assert scores.argmin() == 5
    assert scores[5] == 0


def test_random_scores_follow_the_seed_and_leave_the_global_generator_alone(resnet8):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, again = scores_of(resnet8, "random", seed=1), scores_of(resnet8, "random", seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1"], scores_of(resnet8, "random", seed=2)["conv1"])


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if c != "taylor"])
def test_scoring_leaves_the_network_untouched(resnet8, criterion):
    before = {name: value.clone() for name, value in resnet8.state_dict().items()}
    scores_of(resnet8, criterion)
    assert all(torch.equal(value, before[name]) for name, value in resnet8.state_dict().items())


def test_what_a_criterion_lacks_is_said(resnet8):
    with pytest.raises(PlanError, match="l1, l2, bn_scale"):
        scores_of(resnet8, "l3")
    with pytest.raises(PlanError, match="backpropagate"):
        scores_of(resnet8, "taylor")
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    with pytest.raises(PlanError, match="'0' has no layer that it can score"):
        scores_of(plain, "bn_scale")
