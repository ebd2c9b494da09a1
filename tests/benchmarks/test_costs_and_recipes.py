"""Speeds of costing and of drawing recipes for ResNet-50, each beside what is done elsewhere, in the same run.

Figures are for one core, in CPU time of one thread, so that other work on the machine counts as little as it can:

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 pytest -s -m benchmark tests/benchmarks/test_costs_and_recipes.py
"""

import time
import tracemalloc

import numpy as np
import pytest
import torch
import torch_pruning as tp

from generate.inputs.networks import build_network
from generate.plan import RecipePlan, Space
from generate.prune.cost_forms import cost_forms
from generate.prune.cut import choose_filters, cut
from generate.prune.groups import find_groups
from generate.recipes.sample import TOLERANCE, sample_recipes

pytestmark = pytest.mark.benchmark(timer=time.process_time)

IMAGENET = (3, 224, 224)
TARGET = 0.5
COST_ROWS = 500_000
BLOCK = 16_384


@pytest.fixture(scope="module")
def resnet50():
    torch.manual_seed(0)
    network = build_network("resnet50", classes=1000, input_shape=IMAGENET).eval()
    groups = find_groups(network, IMAGENET)
    return network, groups, cost_forms(network, IMAGENET, groups)


def random_widths(costs, count, seed=0):
    return np.random.default_rng(seed).integers(1, costs.full_widths + 1, size=(count, len(costs.groups)))


def report(benchmark, rate, **ratios):
    benchmark.extra_info.update({"recipes_per_second": round(rate), **ratios})
    print(
        f"\n{benchmark.name}: {rate:,.0f} recipes a second", *(f"{k} = {v:,.1f}" for k, v in ratios.items())
    )


def test_costs_of_recipes_against_counting_cut_networks(benchmark, resnet50):
    network, groups, costs = resnet50
    widths = random_widths(costs, COST_ROWS)
    benchmark.pedantic(costs.both, args=(widths,), rounds=5, warmup_rounds=1)
    rate = COST_ROWS / benchmark.stats["min"]
    counted_rate = count_by_cutting(network, groups, costs)
    report(benchmark, rate, ratio_to_counting_cut_networks=rate / counted_rate)
    assert rate / counted_rate > 10_000


def count_by_cutting(network, groups, costs, recipes=3):
    """Recipes a second of torch-pruning's own counter on really cut networks, and that it agrees on parameters."""
    scores = {group.name: torch.rand(group.width) for group in groups}
    image = torch.zeros(1, *IMAGENET)
    start = time.process_time()
    for widths in random_widths(costs, recipes, seed=1):
        smaller = cut(network, groups, choose_filters(scores, groups, widths))
        _, params = tp.utils.count_ops_and_params(smaller, image)
        assert params == costs.params(widths)[0]
    return recipes / (time.process_time() - start)


def draw(space, costs, count):
    rng = np.random.default_rng(0)
    block = RecipePlan((TARGET,), count, space=Space(space))
    return len(sample_recipes(block, costs, TARGET, count, rng)[0])


def test_random_recipes_against_rejection_sampling(benchmark, resnet50):
    *_, costs = resnet50
    count = 16 * BLOCK
    benchmark.pedantic(draw, args=("random", costs, count), rounds=3, warmup_rounds=1)
    rate = count / benchmark.stats["min"]
    report(benchmark, rate, ratio_to_rejection=rate / rejection_rate(costs, in_mcb_strata=False))


def test_stratified_recipes_against_rejection_sampling(benchmark, resnet50):
    *_, costs = resnet50
    count = 8 * BLOCK
    benchmark.pedantic(draw, args=("stratified", costs, count), rounds=3, warmup_rounds=1)
    rate = count / benchmark.stats["min"]
    report(benchmark, rate, ratio_to_rejection=rate / rejection_rate(costs, in_mcb_strata=True))


def rejection_rate(costs, *, in_mcb_strata, candidates=1_000_000):
    """Useful recipes a second of uniform ratios with the same fast costs, all that is off the budget thrown away.

    In strata of log mCB, a recipe is useful until its stratum has a tenth: the scarcest stratum decides.
    """
    rng = np.random.default_rng(0)
    start = time.process_time()
    widths = rng.integers(1, costs.full_widths + 1, size=(candidates, len(costs.groups)))
    macs, params = costs.both(widths)
    hit = np.abs(macs / costs.original_macs - (1 - TARGET)) <= TOLERANCE
    useful = float(hit.sum())
    if in_mcb_strata:
        log_mcb = np.log(macs / costs.original_macs / params * costs.original_params)[hit]
        strata = np.histogram(log_mcb, np.linspace(-0.6, np.log(RecipePlan.mcb_range), 11))[0]
        useful = 10.0 * max(strata.min(), 1)
    return useful / (time.process_time() - start)


def test_memory_stays_flat_for_ten_million_candidates(benchmark, resnet50):
    *_, costs = resnet50
    peaks = {count: peak_memory(costs, count) for count in (2_000_000, 10_000_000)}
    benchmark.pedantic(cost_in_blocks, args=(costs, 2_000_000), rounds=1)
    benchmark.extra_info.update({f"peak_bytes_{count}": peak for count, peak in peaks.items()})
    print("\npeak memory:", {count: f"{peak / 2**20:.0f} MiB" for count, peak in peaks.items()})
    assert peaks[10_000_000] < 1.2 * peaks[2_000_000]


def peak_memory(costs, count):
    tracemalloc.start()
    cost_in_blocks(costs, count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def cost_in_blocks(costs, count, block=100_000):
    return max(costs.macs(random_widths(costs, block, seed)).max() for seed in range(count // block))


def test_derivation(benchmark, resnet50):
    network, *_ = resnet50
    shell = network
    benchmark.pedantic(lambda: cost_forms(shell, IMAGENET, find_groups(shell, IMAGENET)), rounds=5)
    print(f"\ngroups and costs of ResNet-50: {benchmark.stats['min']:.2f} s")
