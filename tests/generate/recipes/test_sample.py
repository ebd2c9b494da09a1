import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generate.inputs.networks import build_network
from generate.plan import RecipePlan, Space
from generate.prune.cost_forms import CostModel, QuadraticForm, cost_forms
from generate.prune.dependency_graph import Group
from generate.prune.groups import find_groups
from generate.recipes.feasible import feasible_range
from generate.recipes.sample import TOLERANCE, mcb_correlations, sample_recipes
from popstats.errors import PlanError

NETWORKS = {
    "digits": ("cifar_resnet8", (1, 8, 8), 10),
    "cifar20": ("cifar_resnet20", (3, 32, 32), 10),
    "resnet50": ("resnet50", (3, 224, 224), 1000),
    "grouped": ("regnet_x_400mf", (3, 224, 224), 1000),
}
SPACES = ["random", "stratified", "std:0.15-0.25"]


@pytest.fixture(scope="module")
def costs_of():
    known = {}

    def costs(key):
        if key not in known:
            name, shape, classes = NETWORKS[key]
            network = build_network(name, classes=classes, input_shape=shape)
            known[key] = cost_forms(network, shape, find_groups(network, shape))
        return known[key]

    return costs


class Drawn(NamedTuple):
    widths: np.ndarray
    ratios_requested: np.ndarray
    macs: np.ndarray
    params: np.ndarray


def draw(costs, space="random", target=0.5, count=200, seed=0, axis="macs", **options):
    rng = np.random.default_rng(seed)
    block = RecipePlan((target,), count, axis, Space(space), **options)
    widths, ratios = sample_recipes(block, costs, target, count, rng)
    return Drawn(widths, ratios, *costs.both(widths))


def log_mcb(recipes, costs):
    macs, params = recipes.macs / costs.original_macs, recipes.params / costs.original_params
    return np.log(macs) - np.log(params)


def achieved_std(recipes, costs):
    return (1 - recipes.widths / costs.full_widths).std(axis=1)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("axis", ["macs", "params", "both"])
@pytest.mark.parametrize("key", ["digits", "resnet50", "grouped"])
def test_every_recipe_is_legal_meets_its_budgets_and_is_drawn_once(costs_of, space, axis, key):
    costs = costs_of(key)
    recipes = draw(costs, space, 0.6, axis=axis)
    shares = {"macs": recipes.macs / costs.original_macs, "params": recipes.params / costs.original_params}
    for fixed in ("macs", "params") if axis == "both" else (axis,):
        assert np.abs(shares[fixed] - 0.4).max() <= TOLERANCE
    assert len(np.unique(recipes.widths, axis=0)) == len(recipes.widths) == 200
    assert ((recipes.widths >= costs.steps) & (recipes.widths <= costs.full_widths)).all()
    assert (recipes.widths % costs.steps == 0).all()


@pytest.mark.parametrize("space", SPACES)
def test_the_same_seed_draws_the_same_recipes(costs_of, space):
    costs = costs_of("digits")
    np.testing.assert_array_equal(draw(costs, space).widths, draw(costs, space).widths)
    assert (draw(costs, space).widths != draw(costs, space, seed=1).widths).any()


@pytest.mark.parametrize("target", [0.2, 0.5, 0.8])
def test_requested_ratios_are_what_was_rounded(costs_of, target):
    costs = costs_of("resnet50")
    recipes = draw(costs, "random", target)
    achieved = 1 - recipes.widths / costs.full_widths
    assert np.abs(achieved - recipes.ratios_requested).max() <= 0.51 / costs.full_widths.min() + 1e-6


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("resnet50", 0.5),
        ("cifar20", 0.2),
        ("cifar20", 0.8),
        ("digits", 0.2),
        ("digits", 0.5),
        ("digits", 0.93),
    ],
)
def test_stratified_recipes_spread_over_log_mcb_and_over_std_at_each_of_them(costs_of, key, target):
    costs = costs_of(key)
    found = feasible_range(costs, "macs", target)
    low, high = max(found.log_mcb[0], -math.log(2)), min(found.log_mcb[1], math.log(2))
    recipes = draw(costs, "stratified", target, count=1000)
    edges = np.linspace(low + 0.05 * (high - low), high - 0.05 * (high - low), 11)
    place = np.digitize(log_mcb(recipes, costs), edges) - 1
    assert min(np.bincount(place[(place >= 0) & (place < 10)], minlength=10)) >= 80

    # STD that is reachable at each mCB, as a far larger population finds it.
    many = draw(costs, "stratified", target, count=15_000, seed=1)
    far = np.digitize(log_mcb(many, costs), edges) - 1
    for number in range(10):
        reached, reachable = (
            achieved_std(recipes, costs)[place == number],
            achieved_std(many, costs)[far == number],
        )
        lowest, highest = np.quantile(reachable, [0.001, 0.999])
        bulk = np.quantile(reached, [0.05, 0.95])
        assert bulk[1] - bulk[0] >= 0.4 * (highest - lowest)
        thirds = np.histogram(reached, np.linspace(lowest, highest, 4))[0] / len(reached)
        assert thirds[:2].min() >= 0.12


def test_plain_random_recipes_crowd_the_middle_which_is_why_stratified_is_the_default(costs_of):
    costs = costs_of("resnet50")
    assert np.quantile(np.abs(log_mcb(draw(costs, "random", count=2000), costs)), 0.85) < 0.27


def test_feasible_log_mcb_of_resnet50_at_half_its_macs(costs_of):
    found = feasible_range(costs_of("resnet50"), "macs", 0.5)
    assert found.log_mcb == pytest.approx((-0.60, 1.74), abs=0.02)


@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_no_recipe_lies_outside_the_feasible_range(costs_of, target):
    costs = costs_of("digits")
    found = feasible_range(costs, "macs", target)
    for space in ("random", "stratified"):
        recipes = draw(costs, space, target, count=2000, mcb_range=math.exp(9))
        values = log_mcb(recipes, costs)
        assert found.log_mcb[0] - 0.03 < values.min() < values.max() < found.log_mcb[1] + 0.03
        assert achieved_std(recipes, costs).max() < found.std[1] + 0.02


@pytest.mark.parametrize("round_to", [4, 8])
def test_widths_are_rounded_to_multiples(costs_of, round_to):
    costs = costs_of("resnet50")
    widths = draw(costs, "stratified", round_to=round_to).widths
    assert (widths % round_to == 0).all()


def test_an_unreachable_budget_is_refused_with_the_ranges(costs_of):
    with pytest.raises(PlanError, match=r"reductions of 0\.0000 to 0\.99\d\d are possible"):
        draw(costs_of("digits"), target=0.9999)


@pytest.mark.parametrize(
    ("space", "options", "reason"),
    [
        ("evenly", {}, "expected random, stratified"),
        ("std:0.3", {}, "std:LOW-HIGH"),
        ("std:0.4-0.3", {}, "std:LOW-HIGH"),
        ("std:0.6-0.7", {}, "no recipe of this regime has such an STD; feasible are MACs"),
        ("refined:/no/such.toml", {}, "TOML"),
    ],
)
def test_impossible_spaces_are_refused_with_the_reason(costs_of, space, options, reason):
    with pytest.raises(PlanError, match=reason):
        draw(costs_of("digits"), space, **options)


def test_a_space_with_too_few_recipes_says_how_many_it_holds():
    tiny = CostModel((Group("a", 40, ("a",)),), *two_forms(linear=[10]))
    with pytest.raises(PlanError, match="expected 200 different recipes, found 1 within"):
        draw(tiny, "random")


def test_where_integers_forbid_the_budget_the_nearest_recipes_are_taken():
    tiny = CostModel((Group("a", 10, ("a",)),), *two_forms(linear=[10]))
    recipes = draw(tiny, "random", target=0.55, count=1)
    assert recipes.macs[0] in (40, 50)


def two_forms(linear):
    form = QuadraticForm(0, np.array(linear), np.zeros((len(linear), len(linear)), np.int64))
    return form, form


REFINED_BY_MCB = """
[refined]
axis = "macs"
target = 0.5
kind = "mcb"
mcb = [0.9, 1.1]
std = [0.1, 0.2]
"""
REFINED_BY_WIDTHS = """
[refined]
axis = "macs"
target = 0.5
kind = "widths"
[refined.widths]
"conv1" = [0.5, 0.75]
"stage3.0.conv2" = [0.25, 0.5]
"""


def refined(tmp_path, text):
    (tmp_path / "space.toml").write_text(text)
    return f"refined:{tmp_path / 'space.toml'}"


def test_a_space_refined_by_mcb(costs_of, tmp_path):
    costs = costs_of("digits")
    recipes = draw(costs, refined(tmp_path, REFINED_BY_MCB))
    assert np.abs(log_mcb(recipes, costs)).max() < math.log(1.1) + 0.03
    std = achieved_std(recipes, costs)
    assert ((std >= 0.1) & (std <= 0.2)).all()


def test_a_space_refined_by_widths(costs_of, tmp_path):
    costs = costs_of("digits")
    names = [group.name for group in costs.groups]
    kept = draw(costs, refined(tmp_path, REFINED_BY_WIDTHS)).widths / costs.full_widths
    stem, last = kept[:, names.index("conv1")], kept[:, names.index("stage3.0.conv2")]
    assert stem.min() >= 0.5
    assert stem.max() <= 0.75
    assert last.min() >= 0.25
    assert last.max() <= 0.5


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("target = 0.5", "target = 0.7", "refined for a reduction of 0.7"),
        ('kind = "mcb"', 'kind = "best"', "mcb or widths"),
        ("mcb = [0.9, 1.1]", "mcb = [1.1, 0.9]", "low < high"),
        ("mcb = [0.9, 1.1]", "", "needs `mcb`"),
        ("mcb = [0.9, 1.1]", "mcb = [6.0, 7.0]", "feasible are"),
        ("[refined]", "[space]", r"a table \[refined\]"),
    ],
)
def test_a_wrong_refined_file_is_refused_with_the_reason(costs_of, tmp_path, before, after, reason):
    with pytest.raises(PlanError, match=reason):
        draw(costs_of("digits"), refined(tmp_path, REFINED_BY_MCB.replace(before, after)))


def test_a_refined_file_for_another_network_is_refused(costs_of, tmp_path):
    with pytest.raises(PlanError, match=r"names stage3\.0\.conv2"):
        draw(costs_of("resnet50"), refined(tmp_path, REFINED_BY_WIDTHS))


def test_mcb_is_confounded_with_late_groups(costs_of):
    costs = costs_of("resnet50")
    recipes = draw(costs, "random", count=5000)
    name, strongest = mcb_correlations(recipes.widths, costs)[0]
    expected = np.corrcoef(
        recipes.widths[:, [g.name for g in costs.groups].index(name)], log_mcb(recipes, costs)
    )
    assert strongest == pytest.approx(expected[0, 1])
    assert name.startswith("layer4")
    assert abs(strongest) > 0.5


@settings(max_examples=25, deadline=None)
@given(
    key=st.sampled_from(["digits", "cifar20", "grouped"]),
    target=st.floats(0.1, 0.9),
    axis=st.sampled_from(["macs", "params"]),
    seed=st.integers(0, 10_000),
)
def test_budgets_are_met_for_any_target(costs_of, key, target, axis, seed):
    costs = costs_of(key)
    recipes = draw(costs, "random", target, count=20, seed=seed, axis=axis)
    cost, original = (
        (recipes.macs, costs.original_macs) if axis == "macs" else (recipes.params, costs.original_params)
    )
    assert np.abs(cost / original - (1 - target)).max() <= TOLERANCE
