"""The recipes that engineers would take without a study or a search, on the same budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from torch import Tensor, nn

from generate.plan import SearchPlan
from generate.prune.cost_forms import CostModel
from generate.prune.dependency_graph import Group, with_values
from popstats.arrays import FloatArray, IntArray
from popstats.errors import PlanError
from popstats.planning.propose import Problem, meet_budget

# How far below the target a recipe's cost may lie, as a share of the original's: the first that whole filters allow.
BANDS = (0.002, 0.005, 0.01, 0.02, 0.05)
# Half-range of the logarithms of the shares that a random recipe keeps.
RANDOM_RANGE = 1.0
# Halvings of a baseline's one number: more than the widths of any network tell apart.
BISECTIONS = 50
# How far from its regime's target a baseline may cost, as a share of the original: as recipes at most.
FARTHEST_BASELINE = 0.08
TINY = 1e-300  # keeps layers of zeros from dividing by zero


def baseline_widths(
    name: str, costs: CostModel, network: nn.Module | None, axis: str, target: float
) -> IntArray:
    """Return the widths of a baseline of a population, (G,); with 2:4, layers that keep half or less carry the pattern."""
    shares = _shares(name, costs, network)
    units, least = costs.full_widths // costs.steps, costs.least // costs.steps

    def widths(scale: float) -> IntArray:
        whole = np.clip(np.rint(shares(scale) * units).astype(np.int64), least, units)
        return np.asarray(whole * costs.steps)

    def excess(scale: float) -> float:
        return float(costs.share(axis, widths(scale))[0] - (1 - target))

    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    best = min((low, high), key=lambda scale: abs(excess(scale)))
    if abs(excess(best)) > FARTHEST_BASELINE:
        raise PlanError(
            f"baselines: {name!r} comes no nearer to a reduction of {target:g} than {target - excess(best):.3f}; leave "
            "it out, or choose another regime."
        )
    return widths(best)


# From one number between 0 (nothing stays) and 1 (everything does) to the share of each width that stays, (G,).
Shares = Callable[[float], FloatArray]


def _shares(name: str, costs: CostModel, network: nn.Module | None) -> Shares:
    if name == "uniform":
        return lambda scale: np.full(len(costs.groups), scale)
    assert network is not None
    shell = with_values(network)
    layers = [cast(Tensor, shell.get_submodule(group.name).weight) for group in costs.groups]
    if name == "erk":  # Erdos-Renyi kernel, Evci et al. 2020, arXiv 1911.11134
        raw = np.array([sum(layer.shape) / layer.numel() for layer in layers])
        return lambda scale: np.minimum(scale * raw / raw.min(), 1.0)
    scores = [np.sort(np.abs(layer.detach().double().cpu().numpy()).ravel()) for layer in layers]
    if name == "lamp":  # layer-adaptive, Lee et al. 2021, arXiv 2010.07611
        squares = [np.square(each) for each in scores]
        scores = [s / np.maximum(np.cumsum(s[::-1])[::-1], TINY) for s in squares]
    ranked = np.sort(np.concatenate(scores))

    def shares(scale: float) -> FloatArray:
        threshold = ranked[min(round((1 - scale) * len(ranked)), len(ranked) - 1)]
        return np.array([1 - np.searchsorted(one, threshold) / len(one) for one in scores])

    return shares


def search_problem(search: SearchPlan, costs: CostModel) -> Problem:
    """Return the budget of a search, with the uniform recipe as its only baseline."""
    highest = 1 - search.reduction
    for band in BANDS:
        problem = Problem(
            cost=partial(costs.share, search.axis),
            lowest=highest - band,
            highest=highest,
            full=costs.full_widths,
            steps=costs.steps,
            baselines=np.empty((0, len(costs.groups)), dtype=np.int64),
        )
        uniform = meet_budget(problem, np.log(costs.full_widths)[None], np.random.default_rng(0))
        if len(uniform):
            return replace(problem, baselines=uniform)
    smallest = float(problem.cost(problem.smallest[None])[0])
    raise PlanError(
        f"reduction: no recipe removes {search.reduction:.4g} of the original's {search.axis}: with "
        f"{int(problem.smallest.min())} filters or more in every group, reductions up to {1 - smallest:.4g} are possible."
    )


def find_baselines(
    search: SearchPlan,
    problem: Problem,
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],  # group L2, by group name
    network: nn.Module,
) -> dict[str, IntArray]:
    """Return the widths of each baseline by name, Torch-Pruning's first and uniform second, each of shape (G,)."""
    units = [_unit_scores(scores[group.name], group) for group in groups]
    # Torch-Pruning's isomorphic pruning tells groups apart by the kinds and sides of their layers.
    modules = dict(network.named_modules())
    kinds = [[f"{type(modules.get(m.layer)).__name__} {m.side}" for m in group.members] for group in groups]
    scopes = [", ".join(sorted(each)) for each in kinds]
    rng = np.random.default_rng(0)
    made: dict[str, Callable[[], IntArray]] = {
        "torch-pruning": lambda: _by_threshold(units, groups, problem),
        "uniform": lambda: problem.baselines[0],
        "isomorphic": lambda: _by_threshold(_ranks(units, scopes), groups, problem),
        "random": lambda: meet_budget(
            problem,
            np.log(problem.full) + rng.uniform(-RANDOM_RANGE, RANDOM_RANGE, (64, len(problem.full))),
            rng,
        )[0],
    }
    return {name: made[name]() for name in made if name in {*search.baselines, "torch-pruning", "uniform"}}


def _unit_scores(scores: Tensor, group: Group) -> FloatArray:
    """Return the scores of what a group loses at once, best first, relative to their mean, shape (width / step,)."""
    values = scores.double().cpu().numpy()
    by_block = [np.sort(values[group.blocks == block])[::-1] for block in range(group.step)]
    units: FloatArray = np.mean(by_block, axis=0)
    return units / units.mean()


def _by_threshold(units: Sequence[FloatArray], groups: Sequence[Group], problem: Problem) -> IntArray:
    """Keep the best units of the whole network, at least one per group: Torch-Pruning's global pruning."""
    owners = np.repeat(np.arange(len(groups)), [len(unit) for unit in units])
    order = owners[np.argsort(-np.concatenate(units), kind="stable")]
    steps = np.array([group.step for group in groups], dtype=np.int64)
    kept = np.zeros(len(groups), dtype=np.int64)

    def cost(kept: IntArray) -> float:
        return float(problem.cost((np.maximum(kept, 1) * steps)[None])[0])

    # A unit that does not fit any more is skipped, until the cost is inside the budget's band.
    for owner in order:
        kept[owner] += 1
        if cost(kept) > problem.highest:
            kept[owner] -= 1
            if cost(kept) >= problem.lowest:
                break
    return np.maximum(kept, 1) * steps


def _ranks(units: Sequence[FloatArray], scopes: Sequence[str]) -> list[FloatArray]:
    """Return each unit's rank among those of groups of the same structure, a share: isomorphic pruning."""
    ranked: list[FloatArray] = [np.empty(0)] * len(units)
    for scope in set(scopes):
        members = [i for i, one in enumerate(scopes) if one == scope]
        ordered = np.sort(np.concatenate([units[i] for i in members]))
        for i in members:
            ranked[i] = np.searchsorted(ordered, units[i], side="right") / len(ordered)
    return ranked
