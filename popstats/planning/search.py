"""The recipes that a width law predicts best at a budget, as a band of widths for each group.

The search is the cross-entropy method (Rubinstein and Kroese 2004, doi:10.1007/978-1-4757-4321-0) on
log-widths: every candidate is shifted onto the budget, so cost is a constraint and never a penalty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from popstats.arrays import FloatArray
from popstats.inference.model import OBSERVED_QUANTILES
from popstats.planning.law import RegimeLaw
from popstats.planning.recovered_costs import CostForm

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
    law: RegimeLaw,
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
    low, high = np.quantile(seen, OBSERVED_QUANTILES, axis=0)
    sure = float(np.quantile(law.uncertainty(seen), SUPPORT))

    def objective(log_share: FloatArray) -> FloatArray:
        beyond = np.maximum(law.uncertainty(log_share) / sure - 1.0, 0.0)
        return law.expected(log_share) + PENALTY * beyond

    best = _best(objective, seen, budget, (low, high), rng)
    band_low, band_high = _bands(objective, best, seen, budget, (low, high), near, least_share, rng)
    inner = np.log(rng.uniform(np.exp(band_low), np.exp(band_high), size=(EXAMPLES, best.size)))
    examples = budget.meet(inner, band_low, band_high)
    return WidthBands(np.exp(best), np.exp(band_low), np.exp(band_high), np.exp(examples))


def _best(
    objective: Callable[[FloatArray], FloatArray],
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
    objective: Callable[[FloatArray], FloatArray],
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
