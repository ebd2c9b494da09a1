import pytest
import torch
import torch_pruning as tp
from torch import nn

from generate.inputs.networks import build_network
from generate.prune.groups import find_groups
from generate.prune.scores import SCORERS, score_filters
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


@pytest.mark.parametrize("criterion", [c for c in SCORERS if c != "taylor"])
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


class Dense(nn.Module):
    """Concatenations, a sum, a grouped and a depthwise convolution, a flattened map."""

    def __init__(self):
        super().__init__()
        self.stem, self.grow = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.norm, self.sum = nn.BatchNorm2d(14), nn.Conv2d(14, 8, 1)
        self.grouped, self.depthwise = nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8)
        self.hidden, self.classifier = nn.Linear(8 * 16, 12), nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.sum(self.norm(torch.cat([x, self.grow(x)], 1)).relu())
        return self.classifier(self.hidden(self.depthwise(self.grouped(x)).flatten(1)).relu())


def torchvision_network(name):
    models = pytest.importorskip("torchvision").models
    return getattr(models, name)(num_classes=10)


NETWORKS = {
    "resnet8": (lambda: build_network("cifar_resnet8", classes=10, input_shape=(3, 8, 8)), 8),
    "dense": (Dense, 8),
    "mobilenet_v2": (lambda: torchvision_network("mobilenet_v2"), 32),
}
SLOW = {"resnet18": 32, "resnet50": 32, "densenet121": 64, "vgg11": 32, "vgg16_bn": 32}
NETWORKS |= {name: (lambda name=name: torchvision_network(name), size) for name, size in SLOW.items()}


@pytest.mark.parametrize(
    "name",
    [*(n for n in NETWORKS if n not in SLOW), *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)],
)
def test_group_l2_is_torch_prunings_to_the_bit(name):
    torch.manual_seed(0)
    make, size = NETWORKS[name]
    network, shape = make().eval(), (3, size, size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.5)
    groups = find_groups(network, shape)
    graph = tp.DependencyGraph().build_dependency(network, torch.zeros(1, *shape))
    names = {module: name for name, module in network.named_modules()}
    theirs = {
        names.get(dep.target.module): tp.importance.GroupMagnitudeImportance()(group)
        for group in graph.get_all_groups()
        for dep, _ in group
        if graph.is_out_channel_pruning_fn(dep.handler)
    }
    found = score_filters(network, shape, groups, "group_l2")
    differing = [g.name for g in groups if not torch.equal(found[g.name], theirs[g.layers[0]].double())]
    assert not differing
