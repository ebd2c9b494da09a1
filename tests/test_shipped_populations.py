"""Every shipped table: it passes the checks, its costs follow from its widths, its rows are what the plan says."""

import numpy as np
import pytest

import popstats
from generate.inputs.networks import build_network
from generate.prune.cost_forms import derive_costs
from generate.prune.groups import find_groups
from popstats.__main__ import main

CLASSES = 10  # digits and CIFAR-10


@pytest.mark.parametrize("name", popstats.populations())
def test_passes_its_own_check(name, capsys):
    assert main(["check", name]) == 0
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("name", popstats.populations())
def test_recorded_costs_follow_from_the_recorded_widths(name):
    population = popstats.load_population(name)
    first = population.table.iloc[0]
    shape = tuple(int(size) for size in first["input_size"].split("x"))
    network = build_network(first["network"], classes=CLASSES, input_shape=shape)
    costs = derive_costs(network, shape, find_groups(network, shape))
    assert population.group_names == tuple(group.name for group in costs.groups)
    widths = population.widths.astype(np.int64)
    assert np.array_equal(costs.macs(widths), population.table["macs"])
    assert np.array_equal(costs.params(widths), population.table["params"])
    assert (costs.original_macs, costs.original_params) == (
        population.original.macs,
        population.original.params,
    )


@pytest.mark.parametrize("name", popstats.populations())
def test_achieved_ratios_follow_from_the_widths_and_no_training_is_there_twice(name):
    population = popstats.load_population(name)
    full = population.widths / (1 - np.stack(population.table["ratios_achieved"]))
    assert np.allclose(full, full[0])
    assert population.table["subnetwork_id"].is_unique
    assert (population.table["accuracy_kind"] == "last").all()
