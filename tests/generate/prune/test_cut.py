import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import generate
from generate.inputs.networks import CifarResNet, build_network
from generate.prune.cut import choose_filters, cut
from generate.prune.groups import find_groups
from generate.prune.scores import score_filters
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
    smaller = cut(resnet8, groups, kept)
    assert smaller.conv1.out_channels == 1
    assert all(torch.equal(value, before[name]) for name, value in resnet8.state_dict().items())


@pytest.mark.parametrize("width", [0, 17])
def test_a_width_outside_the_group_is_refused(resnet8, width):
    groups = find_groups(resnet8, DIGITS)
    scores = {group.name: torch.ones(group.width) for group in groups}
    with pytest.raises(PlanError, match=r"'conv1'.*1 to 16"):
        choose_filters(scores, groups, np.array([width, 1, 1, 1, 1, 1]))


def test_the_best_of_each_block_are_kept():
    with torch.device("meta"):
        network = build_network("resnext50_32x4d", classes=10, input_shape=(3, 64, 64))
    groups = find_groups(network, (3, 64, 64))
    scores = {group.name: torch.arange(group.width, dtype=torch.float64) for group in groups}
    kept = choose_filters(scores, groups, [group.step for group in groups])
    first = groups[1]
    assert (first.name, first.width, first.step) == ("layer1.0.conv1", 128, 32)
    assert kept[first.name].tolist() == list(range(3, 128, 4))


@pytest.fixture(scope="module")
def searched():
    torch.manual_seed(0)
    networks = {
        "cifar_resnet8": build_network("cifar_resnet8", classes=10, input_shape=DIGITS).eval(),
        "squeezenet1_1": build_network("squeezenet1_1", classes=10, input_shape=(3, 64, 64)).eval(),
        "regnet_x_400mf": build_network("regnet_x_400mf", classes=10, input_shape=(3, 64, 64)).eval(),
    }
    shapes = {"cifar_resnet8": DIGITS}
    return {
        name: (network, shapes.get(name, (3, 64, 64)), find_groups(network, shapes.get(name, (3, 64, 64))))
        for name, network in networks.items()
    }


@settings(max_examples=20, deadline=None)
@given(data=st.data(), name=st.sampled_from(["cifar_resnet8", "squeezenet1_1", "regnet_x_400mf"]))
def test_any_cut_network_runs_and_gives_finite_outputs(searched, data, name):
    network, shape, groups = searched[name]
    widths = [data.draw(st.integers(1, group.width // group.step)) * group.step for group in groups]
    kept = choose_filters(score_filters(network, shape, groups, "l1"), groups, widths)
    with torch.no_grad():
        scores = cut(network, groups, kept)(torch.randn(2, *shape))
    assert scores.shape == (2, 10)
    assert torch.isfinite(scores).all()


def test_a_cut_network_trains(resnet8):
    groups = find_groups(resnet8, DIGITS)
    kept = choose_filters(score_filters(resnet8, DIGITS, groups, "l1"), groups, [3, 1, 7, 2, 5, 9])
    smaller = cut(resnet8, groups, kept).train()
    smaller(torch.randn(4, *DIGITS)).sum().backward()
    assert all(parameter.grad is not None and parameter.is_leaf for parameter in smaller.parameters())


def test_the_public_functions_say_what_they_take(resnet8, tmp_path):
    groups = generate.find_groups(resnet8, DIGITS, keep=["stage2", "stage3"])
    whole = {group.name: np.arange(group.width) for group in groups}
    first = groups[0].name
    empty = tmp_path / "recipe.json"
    empty.write_text("{}")
    weights = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    calls = {
        r"expected a torch\.nn\.Module, got a str": lambda: generate.find_groups("resnet8", DIGITS),
        r"such as \(3, 32, 32\), got 32": lambda: generate.find_groups(resnet8, 32),
        r"such as \(3, 32, 32\), got \(3, 0": lambda: generate.find_groups(resnet8, (3, 0, 32)),
        r"list of names, such as \['conv1'\]": lambda: generate.find_groups(resnet8, DIGITS, "conv1"),
        "no layer is called 3": lambda: generate.find_groups(resnet8, DIGITS, [3]),
        r"find_groups returned, got \['conv1'\]": lambda: generate.derive_costs(resnet8, DIGITS, ["conv1"]),
        r"of conv1, .*got \[\[0, 1": lambda: generate.cut(resnet8, DIGITS, groups, [[0, 1]]),
        r"got \{.*'other'": lambda: generate.cut(resnet8, DIGITS, groups, whole | {"other": [0]}),
        r"indices, got \[0.5\]": lambda: generate.cut(resnet8, DIGITS, groups, whole | {first: [0.5]}),
        r"indices, got \[True\]": lambda: generate.cut(resnet8, DIGITS, groups, whole | {first: [True]}),
        r"indices, got \[\[0\]\]": lambda: generate.cut(resnet8, DIGITS, groups, whole | {first: [[0]]}),
        "has no layer": lambda: generate.cut(nn.Linear(2, 2), (2,), groups, whole | {first: [0]}),
        "groups of this network": lambda: generate.cut(
            CifarResNet(8, 10, 1, width=8), DIGITS, groups, whole | {first: [0]}
        ),
        "expected a recipe with `layers`": lambda: generate.load_subnetwork(empty, weights, resnet8),
        "expected a recipe and its weights": lambda: generate.load_subnetwork(empty, empty, resnet8),
    }
    for message, call in calls.items():
        with pytest.raises(PlanError, match=message):
            call()
