"""Weight pruning: exact costs of what stays, masks by magnitude with a floor, and zeros that training never revives."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from generate.inputs.networks import build_network
from generate.plan import PruningPlan
from generate.prune.masks import dense_layers, magnitudes, mask_network, weight_costs, zero_removed
from popstats.errors import PlanError

SHAPE = (2, 8, 8)
WEIGHTS, TWO_OF_FOUR = PruningPlan("weights"), PruningPlan("2:4")


class Odd(nn.Module):
    """Depthwise, grouped and transposed convolutions, a layer that is used twice, one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(16, 12, 3, padding=1, groups=4, bias=False)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.hidden = nn.Linear(8, 12)
        self.head = nn.Linear(12, 5)
        self.unused = nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.up(self.grouped(self.depthwise(self.first(images)).relu()).relu())
        features = self.twice(self.twice(self.norm(features).relu()).relu())
        return self.head(self.hidden(features.mean((2, 3))).relu())


@pytest.fixture(params=["odd", "resnet"])
def network(request) -> nn.Module:
    torch.manual_seed(0)
    if request.param == "odd":
        return Odd()
    return build_network("cifar_resnet8", classes=5, input_shape=SHAPE)


def random_widths(costs, seed: int) -> np.ndarray:
    """Numbers of weights between the floor and all of them, in whole steps."""
    draws = np.random.default_rng(seed).random(len(costs.groups))
    units, least = costs.full_widths // costs.steps, costs.least // costs.steps
    return (least + np.floor(draws * (units - least + 1)).astype(int)) * costs.steps


def counted(network: nn.Module) -> tuple[int, int]:
    """Multiply-accumulates of non-zero weights, by layers that see all-ones images, and parameters that are not masked."""
    marked = copy.deepcopy(network).double().eval()
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        weight = (layer.weight != 0).double()
        if isinstance(layer, nn.Linear):
            total += int(functional.linear(torch.ones_like(inputs[0]), weight).sum())
        elif isinstance(layer, nn.ConvTranspose2d):
            ones = torch.ones_like(inputs[0])
            total += int(
                functional.conv_transpose2d(ones, weight, stride=layer.stride, groups=layer.groups).sum()
            )
        else:  # padding is multiplied too: each weight once per output position
            total += int(weight.sum()) * math.prod(output.shape[2:])

    for layer in marked.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            layer.register_forward_hook(count)
    marked(torch.randn(1, *SHAPE).double())
    removed = sum(
        int(buffer.sum()) for name, buffer in network.named_buffers() if name.endswith("removed_weights")
    )
    return total, sum(p.numel() for p in network.parameters()) - removed


@pytest.mark.parametrize("pruning", [WEIGHTS, TWO_OF_FOUR], ids=lambda p: p.kind)
def test_costs_are_those_of_the_weights_that_are_not_zero(network, pruning):
    costs = weight_costs(network, SHAPE, pruning)
    scores = magnitudes(network, costs.groups)
    assert counted(network) == (costs.original_macs, costs.original_params)
    for seed in range(3):
        widths = random_widths(costs, seed)
        masked = mask_network(network, costs.groups, scores, widths, pruning)
        kept = [int((masked.get_submodule(g.name).weight != 0).sum()) for g in costs.groups]
        assert kept == widths.tolist()
        assert counted(masked) == (costs.macs(widths)[0], costs.params(widths)[0])


@pytest.mark.parametrize("floor", [1, 2, 5])
def test_every_filter_keeps_the_floor_whatever_its_magnitudes(floor):
    network, pruning = Odd(), PruningPlan("weights", floor)
    with torch.no_grad():
        network.twice.weight[3] *= 1e-6
        network.up.weight[:, 1] *= 1e-6
    costs = weight_costs(network, SHAPE, pruning)
    masked = mask_network(network, costs.groups, magnitudes(network, costs.groups), costs.least, pruning)
    assert ((masked.twice.weight != 0).flatten(1).sum(1) == floor).all()
    # Filters of a transposed convolution lie along its second axis, once for each group of inputs.
    by_filter = (masked.up.weight != 0).reshape(2, 6, 4, 4).transpose(1, 2).reshape(8, -1)
    assert (by_filter.sum(1) == floor).all()
    assert all(group.least == floor * (group.width // _fan_in(network, group)) for group in costs.groups)


def _fan_in(network: nn.Module, group) -> int:
    layer = network.get_submodule(group.name)
    return group.width // (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def test_the_largest_weights_of_a_layer_stay():
    network = Odd()
    costs = weight_costs(network, SHAPE, WEIGHTS)
    widths = np.where([g.name == "twice" for g in costs.groups], 400, costs.full_widths)
    masked = mask_network(network, costs.groups, magnitudes(network, costs.groups), widths, WEIGHTS)
    kept = masked.twice.weight != 0
    assert network.twice.weight.abs()[kept].min() > network.twice.weight.abs()[~kept].max()
    assert torch.equal(masked.twice.weight[kept], network.twice.weight[kept])
    assert torch.equal(masked.first.weight, network.first.weight)


def test_a_pattern_keeps_the_larger_two_of_each_four_along_inputs_and_kernel():
    network = Odd()
    costs = weight_costs(network, SHAPE, TWO_OF_FOUR)
    widths = np.where([g.name == "twice" for g in costs.groups], costs.full_widths // 2, costs.full_widths)
    masked = mask_network(network, costs.groups, magnitudes(network, costs.groups), widths, TWO_OF_FOUR)
    blocks, whole = masked.twice.weight.reshape(-1, 4), network.twice.weight.abs().reshape(-1, 4)
    assert ((blocks != 0).sum(1) == 2).all()
    assert torch.equal(blocks.abs().sum(1), whole.topk(2, dim=1).values.sum(1))
    assert torch.equal(masked.head.weight, network.head.weight)


def test_layers_that_the_pattern_does_not_fit_stay_dense_and_are_named():
    costs = weight_costs(Odd(), SHAPE, TWO_OF_FOUR)
    assert [group.name for group in costs.groups] == ["grouped", "twice", "hidden", "head"]
    said = dense_layers(Odd(), costs.groups, TWO_OF_FOUR)
    assert said.startswith("first, depthwise, up, unused (")
    assert "multiple of 4" in said
    with pytest.raises(PlanError, match="no layer of Sequential can be pruned with kind = '2:4'"):
        weight_costs(nn.Sequential(nn.Conv2d(2, 5, 3), nn.AvgPool2d(6), nn.Flatten()), SHAPE, TWO_OF_FOUR)


def test_layers_in_keep_stay_dense_and_unknown_ones_are_refused(network):
    kept = next(name for name, layer in network.named_modules() if isinstance(layer, nn.Linear))
    assert kept not in [group.name for group in weight_costs(network, SHAPE, WEIGHTS, [kept]).groups]
    with pytest.raises(PlanError, match="keep: no layer is called nowhere"):
        weight_costs(network, SHAPE, WEIGHTS, ["nowhere"])


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "fused": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("fresh", [False, True], ids=["fine-tune", "scratch"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_momentum_and_decay_never_revive_a_removed_weight(network, optimiser, fresh):
    costs = weight_costs(network, SHAPE, WEIGHTS)
    widths = random_widths(costs, 1)
    masked = mask_network(network, costs.groups, magnitudes(network, costs.groups), widths, WEIGHTS)
    removed = {n: (masked.get_submodule(n).weight == 0) for n in (g.name for g in costs.groups)}
    if fresh:
        for layer in masked.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        zero_removed(masked)
    before = copy.deepcopy(masked.state_dict())
    steps = OPTIMISERS[optimiser](masked.parameters())
    for _ in range(6):
        steps.zero_grad()
        masked(torch.randn(4, *SHAPE)).square().sum().backward()
        nn.utils.clip_grad_norm_(masked.parameters(), 1.0)
        steps.step()
    for name, gone in removed.items():
        weight = masked.get_submodule(name).weight
        # Bit for bit: not even the sign of a zero changes.
        assert torch.equal(weight[gone].view(torch.int32), torch.zeros(int(gone.sum()), dtype=torch.int32))
        assert not torch.equal(weight[~gone], before[f"{name}.weight"][~gone])


def test_a_masked_network_can_be_moved(network):
    costs = weight_costs(network, SHAPE, WEIGHTS)
    masked = mask_network(network, costs.groups, magnitudes(network, costs.groups), costs.least, WEIGHTS)
    masked.to(memory_format=torch.channels_last).double()
    masked(torch.randn(4, *SHAPE).double()).sum().backward()
    for group in costs.groups:
        weight = masked.get_submodule(group.name).weight
        assert not weight.grad[weight == 0].any()
        assert weight.grad[weight != 0].any()


def test_what_is_saved_is_a_plain_dense_network(network):
    costs = weight_costs(network, SHAPE, WEIGHTS)
    masked = mask_network(network, costs.groups, magnitudes(network, costs.groups), costs.least, WEIGHTS)
    assert masked.state_dict().keys() == network.state_dict().keys()
    network.load_state_dict(masked.state_dict())
    images = torch.randn(3, *SHAPE)
    assert torch.equal(network.eval()(images), masked.eval()(images))
