"""Recipes of a regime: drawn from a space, moved onto the budget, rounded to whole filters, never twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from generate.costs import CostModel, FloatArray
from generate.geometry import Geometry, SingleArray
from generate.wiring import IntArray
from generate.recipe_spaces import RecipeSpace, make_space
from generate.rounding import round_widths
from popstats.errors import PlanError

__all__ = ["MCB_RANGE", "TOLERANCE", "Recipes", "sample_recipes"]

TOLERANCE = 0.005
"""How far from its target a recipe's cost may be, as a share of the original's cost."""

MCB_RANGE = math.log(2)
"""Stratified recipes stay inside this distance from log mCB = 0; beyond it lies junk (design 4)."""

ROWS_AT_ONCE = 4096
ATTEMPTS = 64
"""Draws for one recipe before it is given up; an attempt fails on rounding or because the recipe exists already."""

REDRAW_EVERY = 8
"""Attempts after which a place that yields nothing new is exchanged for another one."""


@dataclass(frozen=True)
class Recipes:
    """Recipes of one regime, in the order in which they are to be trained; no two have the same widths.

    Parameters
    ----------
    widths : numpy.ndarray of int, shape (n, G)
        Channels kept in each group.
    ratios_requested : numpy.ndarray, shape (n, G)
        Pruning ratio (fraction removed) before rounding to whole channels.
    macs, params : numpy.ndarray of int, shape (n,)
        Exact costs.
    off_target : numpy.ndarray of bool, shape (n,)
        True where integer widths allowed no recipe within the tolerance; the nearest was taken.
    """

    widths: IntArray
    ratios_requested: FloatArray
    macs: IntArray
    params: IntArray
    off_target: np.ndarray[tuple[int], np.dtype[np.bool_]]

    def __len__(self) -> int:
        return len(self.widths)


def sample_recipes(
    space: str,
    costs: CostModel,
    *,
    axis: str,
    target: float,
    count: int,
    rng: np.random.Generator,
    mcb_range: float = MCB_RANGE,
    round_to: int = 1,
    tolerance: float = TOLERANCE,
) -> Recipes:
    """Draw `count` different recipes of one regime.

    Parameters
    ----------
    space : str
        ``random`` or ``stratified``.
    costs : CostModel
        The network's costs.
    axis : {"macs"}
        Which reduction the regime fixes.
    target : float
        Reduction, a fraction in (0, 1).
    count : int
        Number of recipes.
    rng : numpy.random.Generator
        The only source of chance.
    mcb_range : float
        `stratified`: largest distance of log mCB from 0.
    round_to : int
        Widths are multiples of this (or the full width).
    tolerance : float
        Largest distance of the cost from its target, as a share of the original's cost.

    Raises
    ------
    PlanError
        If the space holds no recipe or fewer than `count` different ones.
    """
    geometry = Geometry(costs, round_to)
    drawn = make_space(space, geometry, axis=axis, target=target, mcb_range=mcb_range)
    collected = _Collected(geometry, count)
    for start in range(0, count, ROWS_AT_ONCE):
        _fill(collected, drawn, min(ROWS_AT_ONCE, count - start), tolerance, rng)
    return collected.recipes(rng)


def _fill(
    collected: _Collected, space: RecipeSpace, count: int, tolerance: float, rng: np.random.Generator
) -> None:
    requests = space.requests(count, rng)
    for attempt in range(ATTEMPTS):
        kept, solved = space.draw(requests, attempt, rng)
        widths, on_target = round_widths(space.geometry, space.budgets, kept, tolerance, rng)
        accepted = collected.add(widths, kept, solved & on_target)
        requests = requests[~accepted]
        if not len(requests):
            return
        if attempt % REDRAW_EVERY == REDRAW_EVERY - 1:
            requests = space.requests(len(requests), rng)
    collected.missing += len(requests)


class _Collected:
    """Recipes so far, as blocks; a row is known by a 64-bit hash of its widths."""

    def __init__(self, geometry: Geometry, count: int) -> None:
        self.geometry = geometry
        self.count = count
        self.missing = 0
        self.widths: list[IntArray] = []
        self.kept: list[SingleArray] = []
        self.seen = np.zeros(0, np.uint64)
        self.multipliers = _hash_multipliers(len(geometry.lowest))

    def add(self, widths: IntArray, kept: SingleArray, usable: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        """Keep the usable rows that are new; return which were."""
        keys = (widths.astype(np.uint64) * self.multipliers).sum(axis=1)
        first = np.zeros(len(keys), dtype=bool)
        candidates = np.flatnonzero(usable)
        first[candidates[np.unique(keys[candidates], return_index=True)[1]]] = True
        first &= ~np.isin(keys, self.seen)
        self.seen = np.union1d(self.seen, keys[first])
        self.widths.append(widths[first])
        self.kept.append(kept[first])
        return first

    def recipes(self, rng: np.random.Generator) -> Recipes:
        if self.missing:
            raise PlanError(
                f"recipes: expected {self.count} different ones, found only {self.count - self.missing}; "
                "ask for fewer, widen the space or the tolerance, or choose another target."
            )
        order = rng.permutation(self.count)
        widths, kept = np.concatenate(self.widths)[order], np.concatenate(self.kept)[order]
        costs = self.geometry.costs
        return Recipes(
            widths, 1 - kept.astype(np.float64), costs.macs(widths), costs.params(widths), np.zeros(self.count, bool)
        )


def _hash_multipliers(groups: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    # A fixed seed: the hash only tells rows apart, and a collision would merely drop a fresh recipe.
    odd = np.random.default_rng(0).integers(0, 2**63, size=groups, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return odd
