"""The worklist: its size, its order, its identities, and how it grows."""

import json
from collections import Counter

import pytest

from generate.inputs.networks import build_network
from generate.plan import plan_from_dict
from generate.prune.cost_forms import CostModel, derive_costs
from generate.prune.groups import find_groups
from generate.recipes.worklist import Place, Training, make_worklist, with_identities

PLACE = Place("ab", "digits", "1x8x8")
RECIPES = {"regimes": [0.4, 0.7], "count": 5, "seeds": 2, "retraining": ["fine-tune", "scratch"]}


@pytest.fixture(scope="module")
def costs() -> CostModel:
    network = build_network("cifar_resnet8", classes=10, input_shape=(1, 8, 8))
    return derive_costs(network, (1, 8, 8), find_groups(network, (1, 8, 8)))


def plan(**changes):
    return plan_from_dict({"name": "p", "recipes": [RECIPES | changes]})


def worklist(plan, costs, existing=()) -> tuple[Training, ...]:
    return with_identities(make_worklist(plan, costs, existing=existing), plan, costs, PLACE)


def test_every_recipe_is_trained_with_every_technique_and_seed(costs):
    trainings = worklist(plan(), costs)
    assert [training.index for training in trainings] == list(range(2 * 5 * 2 * 2))
    assert len({training.subnetwork_id for training in trainings}) == len(trainings)
    assert set(Counter(training.recipe_id for training in trainings).values()) == {2}
    assert set(Counter(training.widths for training in trainings).values()) == {4}


def test_costs_are_those_of_the_widths_and_meet_the_regime(costs):
    for training in worklist(plan(), costs):
        assert training.macs == costs.macs([training.widths])[0]
        assert training.params == costs.params([training.widths])[0]
        assert abs(1 - training.macs / costs.original_macs - training.target) < 0.006


def test_every_part_of_a_run_covers_all_regimes_evenly(costs):
    trainings = worklist(plan(count=20), costs)
    targets = Counter(training.target for training in trainings[: len(trainings) // 4])
    assert abs(targets[0.4] - targets[0.7]) <= 4


def test_the_same_plan_gives_the_same_trainings_and_another_seed_others(costs):
    first, second = (worklist(plan(), costs) for _ in range(2))
    assert first == second
    reseeded = plan_from_dict({"name": "p", "seed": 1, "recipes": [RECIPES]})
    assert not {t.recipe_id for t in first} & {t.recipe_id for t in worklist(reseeded, costs)}


@pytest.mark.parametrize("changes", [{"count": 8}, {"seeds": 3}, {"regimes": [0.4, 0.55, 0.7]}])
def test_a_grown_plan_keeps_what_is_there_and_adds_what_is_missing(costs, changes):
    before = worklist(plan(), costs)
    after = worklist(plan(**changes), costs, before)
    assert after[: len(before)] == before
    grown = RECIPES | changes
    assert len(after) == len(grown["regimes"]) * grown["count"] * grown["seeds"] * 2
    assert len({training.subnetwork_id for training in after}) == len(after)


def test_replicates_have_noise_of_their_own(costs):
    seeds = [training.torch_seed for training in worklist(plan(), costs)]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 2**63


def test_a_training_survives_json(costs):
    training = worklist(plan(), costs)[3]
    assert Training.from_dict(json.loads(json.dumps(training.as_dict()))) == training


def test_a_recipe_that_two_blocks_draw_is_replaced_and_the_count_holds(costs):
    coarse = {"regimes": [0.5], "count": 20, "round_to": 4}
    both = plan_from_dict({"name": "p", "recipes": [coarse, coarse | {"space": "random"}]})
    trainings = worklist(both, costs)
    assert len(trainings) == len({training.subnetwork_id for training in trainings}) == 40
