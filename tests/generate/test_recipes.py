import numpy as np
import pytest

from generate.costs import derive_costs
from generate.groups import find_groups
from generate.networks import build_network
from generate.recipes import TOLERANCE, sample_recipes
from popstats.errors import PlanError

DIGITS = (1, 8, 8)


@pytest.fixture(scope="module")
def digits_costs():
    network = build_network("cifar_resnet8", classes=10, input_shape=DIGITS)
    return derive_costs(network, DIGITS, find_groups(network, DIGITS))


def draw(costs, space="random", target=0.5, count=200, seed=0):
    return sample_recipes(space, costs, axis="macs", target=target, count=count, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("space", ["random", "stratified"])
@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_every_recipe_meets_the_budget_and_is_drawn_once(digits_costs, space, target):
    recipes = draw(digits_costs, space, target)
    share = digits_costs.macs(recipes.widths) / digits_costs.original_macs
    assert np.abs(share - (1 - target)).max() <= TOLERANCE
    assert len(np.unique(recipes.widths, axis=0)) == 200
    assert (recipes.widths >= 1).all()
    assert (recipes.widths <= digits_costs.full_widths).all()


@pytest.mark.parametrize("space", ["random", "stratified"])
def test_the_same_seed_draws_the_same_recipes(digits_costs, space):
    np.testing.assert_array_equal(draw(digits_costs, space).widths, draw(digits_costs, space).widths)
    assert (draw(digits_costs, space).widths != draw(digits_costs, space, seed=1).widths).any()


def test_an_unreachable_budget_is_refused_with_the_range(digits_costs):
    with pytest.raises(PlanError, match="a reduction of 0 to 0.99"):
        draw(digits_costs, target=0.9999)
