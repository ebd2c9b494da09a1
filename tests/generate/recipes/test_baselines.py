"""Baselines of a search: on the budget, and those of Torch-Pruning exactly its own."""

import copy

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn

from generate.inputs.networks import build_network
from generate.plan import BASELINES, SearchPlan
from generate.prune.cost_forms import derive_costs
from generate.prune.groups import find_groups
from generate.prune.scores import score_filters
from generate.recipes.baselines import _by_threshold, _unit_scores, find_baselines, search_problem
from popstats.errors import PlanError

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def parts():
    """A network whose filters differ as trained ones do, its groups, costs and scores."""
    torch.manual_seed(0)
    network = build_network("cifar_resnet8", classes=10, input_shape=SHAPE).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.5)
    groups = find_groups(network, SHAPE)
    return (
        network,
        groups,
        derive_costs(network, SHAPE, groups),
        score_filters(network, SHAPE, groups, "group_l2"),
    )


@pytest.mark.parametrize("axis", ["macs", "params"])
@pytest.mark.parametrize("reduction", [0.5, 0.9])
def test_every_baseline_lies_on_the_budget(parts, axis, reduction):
    network, groups, costs, scores = parts
    search = SearchPlan(reduction, axis=axis, baselines=BASELINES)
    problem = search_problem(search, costs)
    found = find_baselines(search, problem, groups, scores, network)
    assert list(found) == list(BASELINES)
    shares = problem.cost(np.stack(list(found.values())))
    assert (shares <= 1 - reduction).all()
    assert (shares > 1 - reduction - 0.01).all()
    kept = found["uniform"] / costs.full_widths
    assert np.ptp(kept) < 0.15


@pytest.mark.parametrize("share", [0.8, 0.4, 0.12])
def test_torch_prunings_widths_are_those_of_its_own_pruner(parts, share):
    network, groups, costs, scores = parts
    problem = search_problem(SearchPlan(1 - share), costs)
    units = [_unit_scores(scores[group.name], group) for group in groups]
    # Without a lower end of the budget, the first filter that does not fit ends it: one threshold for all.
    widths = _by_threshold(units, groups, copy.replace(problem, lowest=0.0))
    pruned = copy.deepcopy(network)
    ratio = 1 - (widths.sum() + 0.5) / costs.full_widths.sum()
    tp.pruner.BasePruner(
        pruned,
        torch.zeros(1, *SHAPE),
        importance=tp.importance.GroupMagnitudeImportance(),
        pruning_ratio=float(ratio),
        global_pruning=True,
        ignored_layers=[pruned.classifier],
    ).step()
    modules = dict(pruned.named_modules())
    assert widths.tolist() == [modules[group.layers[0]].out_channels for group in groups]


def test_a_budget_that_no_recipe_meets_is_refused_with_what_can_be_had(parts):
    costs = parts[2]
    with pytest.raises(PlanError, match=r"no recipe removes 0\.9999 .* reductions up to 0\.9"):
        search_problem(SearchPlan(0.9999), costs)
