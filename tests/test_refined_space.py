"""The loop closes: a pilot population is refined both ways, and `generate` draws better recipes from the files.

The network and its costs are real; the accuracies are an additive law of the widths, so that the truth is
known and nothing has to be trained.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import popstats
from generate.inputs.networks import build_network
from generate.plan import RecipePlan, Space
from generate.prune.cost_forms import CostModel, cost_forms
from generate.prune.groups import find_groups
from generate.recipes.sample import sample_recipes

TARGET, COUNT, NOISE = 0.6, 400, 0.1
SHAPE = (1, 8, 8)
Truth = Callable[[CostModel, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def costs() -> CostModel:
    network = build_network("cifar_resnet8", classes=10, input_shape=SHAPE, width=2)
    return cost_forms(network, SHAPE, find_groups(network, SHAPE))


def drawn(costs: CostModel, space: str, count: int = COUNT, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    block = RecipePlan((TARGET,), count, space=Space(space))
    return sample_recipes(block, costs, TARGET, count, rng)[0]


def true_drop(costs: CostModel, widths: np.ndarray) -> np.ndarray:
    log = np.log(widths / costs.full_widths)
    importance = np.linspace(0.3, 1.2, log.shape[1])
    return (-importance * log + 0.3 * log**2).sum(axis=1)


def u_shaped_drop(costs: CostModel, widths: np.ndarray) -> np.ndarray:
    return 2.0 * np.log(mcb(costs, widths) / 0.95) ** 2


def additive_drop(costs: CostModel, widths: np.ndarray) -> np.ndarray:
    return true_drop(costs, widths)


def mcb(costs: CostModel, widths: np.ndarray) -> np.ndarray:
    macs, params = costs.both(widths)
    return (macs / costs.original_macs) / (params / costs.original_params)


def pilot(costs: CostModel, widths: np.ndarray, drop: np.ndarray, seed: int) -> popstats.Fit:
    count, rng = len(drop), np.random.default_rng(seed)
    frame = pd.DataFrame({"macs": costs.macs(widths), "params": costs.params(widths)}).assign(
        accuracy=90.0 - drop - NOISE * rng.normal(size=count),
        regime_axis="macs",
        regime_target=TARGET,
        widths=widths.tolist(),
        group_names=[[g.name for g in costs.groups]] * count,
        ratios_achieved=(1.0 - widths / costs.full_widths).tolist(),
    )
    original = popstats.Original(int(costs.original_macs), int(costs.original_params), 90.0)
    population = popstats.Population.from_frame(frame, original=original)
    return popstats.fit(population, method="exact", draws=250)


@pytest.fixture(scope="module")
def fitted(costs: CostModel) -> popstats.Fit:
    widths = drawn(costs, "stratified")
    return pilot(costs, widths, additive_drop(costs, widths), seed=2)


@pytest.mark.parametrize("truth", [additive_drop, u_shaped_drop])
def test_what_is_promised_is_what_comes(costs: CostModel, tmp_path: Path, truth: Truth) -> None:
    whole, rounds = truth(costs, drawn(costs, "stratified", 2000)).mean(), 12
    promised, came, held = [], [], []
    for seed in range(rounds):
        widths = drawn(costs, "stratified", 100, seed + 10)
        space = popstats.refine(pilot(costs, widths, truth(costs, widths), seed), TARGET)
        file = space.to_toml(tmp_path / "space.toml")
        gained = whole - truth(costs, drawn(costs, f"refined:{file}", 100, seed)).mean()
        promised, came = [*promised, space.gain], [*came, gained]
        held.append(space.gain_lower < gained < space.gain_upper)
    assert sum(held) >= rounds - 3
    assert np.mean(promised) == pytest.approx(np.mean(came), rel=0.15)


@pytest.mark.parametrize("by", ["mcb", "widths"])
def test_recipes_of_the_refined_space_are_better_by_what_was_promised(
    costs: CostModel, fitted: popstats.Fit, tmp_path: Path, by: str
) -> None:
    space = popstats.refine(fitted, TARGET, by=by)  # type: ignore[arg-type]
    widths = drawn(costs, f"refined:{space.to_toml(tmp_path / 'space.toml')}", count=100)
    before = true_drop(costs, drawn(costs, "stratified")).mean()
    gained = before - true_drop(costs, widths).mean()
    assert gained > 0.02
    assert space.gain_lower < gained < space.gain_upper
    kept = costs.macs(widths) / costs.original_macs
    np.testing.assert_allclose(kept, 1.0 - TARGET, atol=0.01)


def test_they_lie_where_the_file_says(costs: CostModel, fitted: popstats.Fit, tmp_path: Path) -> None:
    space = popstats.refine(fitted, TARGET, by="widths")
    widths = drawn(costs, f"refined:{space.to_toml(tmp_path / 'widths.toml')}", count=50)
    share = widths / costs.full_widths
    low, high = np.array(list(space.widths.values())).T
    assert ((share >= low - 1e-6) & (share <= high + 1e-6)).all()
    space = popstats.refine(fitted, TARGET, by="mcb")
    widths = drawn(costs, f"refined:{space.to_toml(tmp_path / 'mcb.toml')}", count=50)
    found = mcb(costs, widths)
    assert space.mcb is not None
    assert ((found > space.mcb[0] * 0.98) & (found < space.mcb[1] * 1.02)).all()
