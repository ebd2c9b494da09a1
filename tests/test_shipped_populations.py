"""Every shipped table: it passes the checks, its costs follow from its widths, its rows are what the plan says."""

from pathlib import Path

import numpy as np
import pytest

import popstats
from generate.inputs.networks import build_network
from generate.plan import PruningPlan
from generate.prune.cost_forms import derive_costs
from generate.prune.groups import find_groups
from generate.prune.masks import weight_costs
from popstats.__main__ import main

ROOT = Path(__file__).resolve().parents[1]

CLASSES = 10  # digits and CIFAR-10
LOADED = {name: popstats.load_population(name) for name in popstats.populations()}
GENERATED = [name for name, population in LOADED.items() if "plan" in population.metadata]
PUBLISHED = sorted(set(LOADED) - set(GENERATED))


@pytest.mark.parametrize("name", popstats.populations())
def test_passes_its_own_check(name, capsys):
    assert main(["check", name]) == 0
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("name", GENERATED)
def test_recorded_costs_follow_from_the_recorded_widths(name):
    population = LOADED[name]
    first = population.table.iloc[0]
    shape = tuple(int(size) for size in first["input_size"].split("x"))
    plans = population.metadata["plan"].get("merged", [population.metadata["plan"]])
    width, pruning = plans[0]["network"]["width"], PruningPlan(**plans[0].get("pruning", {}))
    network = build_network(first["network"], classes=CLASSES, input_shape=shape, width=width)
    if pruning.kind == "filters":
        costs = derive_costs(network, shape, find_groups(network, shape))
    else:
        costs = weight_costs(network, shape, pruning)
        assert (population.widths >= costs.least).all()
    assert population.group_names == tuple(group.name for group in costs.groups)
    widths = population.widths.astype(np.int64)
    assert np.array_equal(costs.macs(widths), population.table["macs"])
    assert np.array_equal(costs.params(widths), population.table["params"])
    assert (costs.original_macs, costs.original_params) == (
        population.original.macs,
        population.original.params,
    )


@pytest.mark.parametrize("name", GENERATED)
def test_achieved_ratios_follow_from_the_widths_and_no_training_is_there_twice(name):
    population = LOADED[name]
    full = population.widths / (1 - np.stack(population.table["ratios_achieved"]))
    assert np.allclose(full, full[0])
    assert population.table["subnetwork_id"].is_unique
    assert (population.table["accuracy_kind"] == "last").all()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tables_name_their_source_and_hold_their_original(name):
    population = LOADED[name]
    assert population.metadata["source"]["license"] in ("MIT", "Apache-2.0")
    assert name in (ROOT / "data" / "README.md").read_text()
    whole = population.frame.loc[population.frame["macs"].idxmax()]
    assert (whole["macs_reduction"], whole["params_reduction"], whole["accuracy_drop"]) == (0.0, 0.0, 0.0)
    assert population.widths.shape == (len(population), len(population.group_names))


def test_costs_of_the_size_space_follow_from_its_widths():
    """Quadratic forms in the widths, but that an equally wide second or fourth stage needs no projection to the next."""
    population = LOADED["nats-bench-size-cifar10"]
    widths = population.widths / 8.0
    columns = np.column_stack([np.ones(len(widths)), widths])
    products = [columns[:, i] * columns[:, j] for i in range(6) for j in range(i, 6)]
    equal = [(widths[:, [i]] == widths[:, [i + 1]]) * widths[:, [i]] for i in (1, 3)]
    spared = [narrow ** [1, 2] for narrow in equal]
    terms = np.column_stack([*products, *spared])
    for cost in ("macs", "params"):
        counted = population.table[cost].to_numpy()
        solved = np.linalg.lstsq(terms, counted.astype(float), rcond=None)[0]
        assert np.array_equal(np.rint(terms @ solved), counted)
