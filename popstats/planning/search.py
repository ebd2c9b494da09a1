"""The recipes that a width law predicts best at a budget, as a band of widths for each group.

The search is the cross-entropy method (Rubinstein and Kroese 2004, doi:10.1007/978-1-4757-4321-0) on
log-widths: every candidate is shifted onto the budget, so cost is a constraint and never a penalty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from popstats.arrays import FloatArray
from popstats.inference.model import OBSERVED_QUANTILES
from popstats.planning.recovered_costs import CostForm
from popstats.population.table import folder_for

CANDIDATES = 600
ROUNDS = 15
#: Share of candidates that the next round is centred on.
ELITE = 0.05
#: Halvings of the interval of the common shift; 2^-32 of a log-width is below rounding to channels.
_BISECTIONS = 32
#: Bands hold the central share of the near-best recipes.
BAND = (0.05, 0.95)
EXAMPLES = 500
#: The law may be used where it is as certain as of this share of the recipes that it was fitted to.
SUPPORT = 0.95
#: Points that a recipe as uncertain as twice that limit is charged: no gain makes up for it.
PENALTY = 1000.0
#: Least share of the regime's recipes that the bands hold.
LEAST_SHARE = 0.05
_ROUNDING = 1e-9
#: Steps of the search over whole channels, in units, from coarse to fine; and most moves with each.
STEPS, MOVES = (8, 2, 1), 60


#: Of log kept shares, (n, G) -> (n,): the lower the better.
Objective = Callable[[FloatArray], FloatArray]


class Law(Protocol):
    """What predicts recipes from their log kept shares, (n, G) -> (n,)."""

    def expected(self, log_shares: FloatArray) -> FloatArray:
        """Return the posterior mean, the lower the better."""

    def uncertainty(self, log_shares: FloatArray) -> FloatArray:
        """Return its posterior standard deviation."""


@dataclass(frozen=True, eq=False)
class WidthBands:
    """Near-best recipes at a budget."""

    best: FloatArray  # (G,); Kept share of each group's width in the recipe predicted best.
    # low, high: (G,); Bands of the kept share.
    low: FloatArray
    high: FloatArray
    # (n, G); Recipes drawn evenly from the bands and shifted onto the budget: what sampling the space gives.
    examples: FloatArray


def onto_budget(
    log_share: FloatArray, cost: CostForm, full: FloatArray, budget: float, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Shift each recipe's log-widths together until it meets the budget, clipped to the box."""
    # log_share (n, G); full (G,); low, high (G,)
    reach = float((high - low).max()) + np.abs(log_share).max() + 1.0
    down, up = np.full(len(log_share), -reach), np.full(len(log_share), reach)
    for _ in range(_BISECTIONS):
        middle = (down + up) / 2.0
        dear = cost.cost(np.exp(np.clip(log_share + middle[:, None], low, high)) * full) > budget
        down, up = np.where(dear, down, middle), np.where(dear, middle, up)
    return np.asarray(np.clip(log_share + down[:, None], low, high))


@dataclass(frozen=True, eq=False)
class Budget:
    """What recipes of the search must meet."""

    cost: CostForm  # Of the axis that the budget is on.
    full: FloatArray  # (G,); The original's widths.
    amount: float  # The budget, in the cost's unit.

    def meet(self, log_share: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """Shift recipes onto the budget inside a box; see `onto_budget`."""
        return onto_budget(log_share, self.cost, self.full, self.amount, low, high)


def near_best_bands(
    law: Law,
    budget: Budget,
    seen: FloatArray,
    near: float,
    least_share: float = LEAST_SHARE,
    seed: int = 0,
) -> WidthBands:
    """Search the recipes predicted within `near` points of the best at a budget.

    A maximum over thousands of candidates is where the law errs the most in its favour. The search therefore stays
    inside each group's observed range (2.5 to 97.5 %) and where the law is as certain as it is of 95 % of the
    regime's own recipes, and the bands must hold recipes that were really trained.
    """
    # seen (n, G)
    rng = np.random.default_rng(seed)
    low, high, sure = support(seen, law.uncertainty(seen))

    def objective(log_share: FloatArray) -> FloatArray:
        return law.expected(log_share) + penalty(law.uncertainty(log_share), sure)

    best = _best(objective, seen, budget, (low, high), rng)
    band_low, band_high = _bands(objective, best, seen, budget, (low, high), near, least_share, rng)
    inner = np.log(rng.uniform(np.exp(band_low), np.exp(band_high), size=(EXAMPLES, best.size)))
    examples = budget.meet(inner, band_low, band_high)
    return WidthBands(np.exp(best), np.exp(band_low), np.exp(band_high), np.exp(examples))


def support(seen: FloatArray, uncertainty: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Return where a law may be used: each group's observed range (2.5 to 97.5 %), and the largest uncertainty."""
    low, high = np.quantile(seen, OBSERVED_QUANTILES, axis=0)
    return low, high, float(np.quantile(uncertainty, SUPPORT))


def penalty(uncertainty: FloatArray, sure: float) -> FloatArray:
    """Return what recipes are charged of which the law is less certain than of those that were seen, (n,)."""
    return np.asarray(PENALTY * np.maximum(uncertainty / sure - 1.0, 0.0))


def best_recipe(
    objective: Objective,
    budget: Budget,
    seen: FloatArray,
    box: tuple[FloatArray, FloatArray],
    units: FloatArray,
) -> FloatArray:
    """Return the widths, in whole units, of the least objective at no more than the budget, shape (G,)."""
    # seen (n, G) log kept shares of trained recipes near the budget; box: of log kept shares; units (G,) channels in
    # which each width changes
    low, high = box
    start = _best(objective, seen, budget, (low, high), np.random.default_rng(0))
    lower = np.maximum(np.ceil(np.exp(low) * budget.full / units - _ROUNDING), 1.0) * units
    upper = np.maximum(np.floor(np.exp(high) * budget.full / units + _ROUNDING) * units, lower)
    best = np.clip(np.floor(np.exp(start) * budget.full / units + _ROUNDING) * units, lower, upper)
    for step in STEPS:
        moves = _moves(step * units)
        for _ in range(MOVES):
            better = _better(best, moves, objective, budget, (lower, upper))
            if better is None:
                break
            best = better
    return best


def _moves(step: FloatArray) -> FloatArray:
    """Return all moves of one group by one step, and of two groups in opposite directions."""
    one = np.diag(step)
    i, j = np.nonzero(~np.eye(step.size, dtype=bool))
    return np.vstack([one, -one, one[i] - one[j]])


def _better(
    best: FloatArray,
    moves: FloatArray,
    objective: Objective,
    budget: Budget,
    box: tuple[FloatArray, FloatArray],
) -> FloatArray | None:
    """Return the best recipe one move away that meets the budget, or None if none is better."""
    tried = best + moves
    tried = tried[((tried >= box[0] - _ROUNDING) & (tried <= box[1] + _ROUNDING)).all(axis=1)]
    tried = tried[budget.cost.cost(tried) <= budget.amount * (1.0 + _ROUNDING)]
    if not len(tried):
        return None
    value = objective(np.log(tried / budget.full))
    # A recipe that the box leaves above the budget has to come down whatever that costs.
    above = budget.cost.cost(best)[0] > budget.amount * (1.0 + _ROUNDING)
    known = float(objective(np.log(best / budget.full)[None])[0])
    return np.asarray(tried[value.argmin()]) if above or value.min() < known - _ROUNDING else None


def uniform_recipe(budget: Budget, units: FloatArray) -> FloatArray:
    """Return the recipe that keeps the same fraction of every group, in whole units within the budget, shape (G,).

    What whole units leave of the budget is filled up, one unit for a group at most, the smallest fractions first.
    """

    def whole(fraction: float) -> FloatArray:
        return np.clip(np.floor(fraction * budget.full / units + _ROUNDING) * units, units, budget.full)

    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if budget.cost.cost(whole(middle))[0] <= budget.amount else (low, middle)
    widths = whole(low)
    for group in np.argsort(np.round(widths / budget.full, 9), kind="stable"):
        wider = widths.copy()
        wider[group] = min(widths[group] + units[group], budget.full[group])
        if budget.cost.cost(wider)[0] <= budget.amount * (1.0 + _ROUNDING):
            widths = wider
    return np.asarray(widths)


def _best(
    objective: Objective,
    seen: FloatArray,
    budget: Budget,
    box: tuple[FloatArray, FloatArray],
    rng: np.random.Generator,
) -> FloatArray:
    """Return the best recipe of the cross-entropy search, shape (G,)."""
    centre, spread = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-3)
    for _ in range(ROUNDS):
        drawn = centre + spread * rng.standard_normal((CANDIDATES, centre.size))
        candidates = budget.meet(drawn, *box)
        elite = candidates[np.argsort(objective(candidates))[: int(ELITE * CANDIDATES)]]
        centre, spread = elite.mean(axis=0), elite.std(axis=0) + 1e-4
    return np.asarray(elite[0])


def _bands(
    objective: Objective,
    best: FloatArray,
    seen: FloatArray,
    budget: Budget,
    box: tuple[FloatArray, FloatArray],
    near: float,
    least_share: float,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Quantiles of near-best recipes between the best one and the regime's own, wide enough to hold some of those."""
    others = seen[rng.integers(len(seen), size=10 * CANDIDATES)]
    mixed = best + rng.random((len(others), 1)) * (others - best)
    candidates = budget.meet(mixed, *box)
    predicted, lowest = objective(candidates), float(objective(best[None])[0])
    while True:
        good = np.vstack([candidates[predicted <= lowest + near], best])
        low, high = np.quantile(good, BAND, axis=0)
        # A band must hold the best recipe, or shifting onto the budget could leave it.
        low, high = np.minimum(low, best), np.maximum(high, best)
        if share_inside(seen, low, high) >= least_share:
            return low, high
        if len(good) > len(candidates):
            return box
        near *= 2.0


def share_inside(log_share: FloatArray, low: FloatArray, high: FloatArray) -> float:
    """Return the share of recipes with every group inside its band."""
    return float(((log_share >= low - _ROUNDING) & (log_share <= high + _ROUNDING)).all(axis=1).mean())


def write_space(
    path: str | Path,
    comment: Sequence[str],
    entries: Mapping[str, str | float | tuple[float, float] | None],
    widths: Mapping[str, tuple[float, float]],
) -> Path:
    """Write a recipe space that a plan reads as ``space = "refined:FILE"``; return the path."""

    def value(entry: str | float | tuple[float, float]) -> str:
        if isinstance(entry, tuple):
            return f"[{entry[0]:.6g}, {entry[1]:.6g}]"
        return json.dumps(entry) if isinstance(entry, str) else repr(entry)

    target = Path(path)
    folder_for(target)
    lines = [*(f"# {line}" for line in comment), "[refined]"]
    lines += [f"{name} = {value(entry)}" for name, entry in entries.items() if entry is not None]
    lines += ["", "[refined.widths]"] if widths else []
    lines += [f"{json.dumps(group)} = {value(band)}" for group, band in widths.items()]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target
