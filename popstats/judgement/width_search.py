"""The recipes that a width law predicts best at a budget, as a band of widths for each group.

The search is the cross-entropy method (Rubinstein and Kroese 2004, doi:10.1007/978-1-4757-4321-0) on
log-widths: every candidate is shifted onto the budget, so cost is a constraint and never a penalty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from popstats.inference.cost_form import CostForm
from popstats.inference.width_law import WidthLaw

__all__ = ["WidthBands", "near_best_bands", "onto_budget"]

FloatArray = npt.NDArray[np.float64]

CANDIDATES = 1000
ROUNDS = 20
#: Share of candidates that the next round is centred on.
ELITE = 0.05
#: Halvings of the interval of the common shift; 2^-32 of a log-width is below rounding to channels.
_BISECTIONS = 32
#: Bands hold the central share of the near-best recipes.
BAND = (0.05, 0.95)
EXAMPLES = 500


@dataclass(frozen=True, eq=False)
class WidthBands:
    """Near-best recipes at a budget.

    Attributes
    ----------
    best : numpy.ndarray, shape (G,)
        Kept share of each group's width in the recipe predicted best.
    low, high : numpy.ndarray, shape (G,)
        Bands of the kept share.
    examples : numpy.ndarray, shape (n, G)
        Recipes drawn evenly from the bands and shifted onto the budget: what sampling the space gives.
    """

    best: FloatArray
    low: FloatArray
    high: FloatArray
    examples: FloatArray


def onto_budget(
    log_share: FloatArray, cost: CostForm, full: FloatArray, budget: float, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Shift each recipe's log-widths together until it meets the budget, clipped to the box.

    Parameters
    ----------
    log_share : numpy.ndarray, shape (n, G)
        Logarithm of the kept shares.
    cost : CostForm
    full : numpy.ndarray, shape (G,)
        The original's widths.
    budget : float
        Cost to meet.
    low, high : numpy.ndarray, shape (G,)
        Ends of the box, log shares; where the whole box is too dear or too cheap its cheap or dear end is given.
    """
    reach = float((high - low).max()) + np.abs(log_share).max() + 1.0
    down, up = np.full(len(log_share), -reach), np.full(len(log_share), reach)
    for _ in range(_BISECTIONS):
        middle = (down + up) / 2.0
        dear = cost.cost(np.exp(np.clip(log_share + middle[:, None], low, high)) * full) > budget
        down, up = np.where(dear, down, middle), np.where(dear, middle, up)
    return np.asarray(np.clip(log_share + down[:, None], low, high))


def near_best_bands(
    law: WidthLaw, regime: str, cost: CostForm, budget: float, seen: FloatArray, near: float, seed: int = 0
) -> WidthBands:
    """Search the recipes predicted within `near` points of the best at a budget.

    Parameters
    ----------
    law : WidthLaw
    regime : str
        Which of its laws.
    cost : CostForm
        Of the axis that the budget is on.
    budget : float
        In the cost's unit.
    seen : numpy.ndarray, shape (n, G)
        Widths of the regime's recipes: the search stays inside their range.
    near : float
        Points.
    """
    rng, full = np.random.default_rng(seed), law.full_widths
    shares = np.log(seen / full)
    low, high = shares.min(axis=0), shares.max(axis=0)

    def predict(log_share: FloatArray) -> FloatArray:
        return law.expected_drop(np.exp(log_share) * full, regime)

    centre, spread = shares.mean(axis=0), np.maximum(shares.std(axis=0), 1e-3)
    for _ in range(ROUNDS):
        drawn = centre + spread * rng.standard_normal((CANDIDATES, full.size))
        candidates = onto_budget(drawn, cost, full, budget, low, high)
        elite = candidates[np.argsort(predict(candidates))[: int(ELITE * CANDIDATES)]]
        centre, spread = elite.mean(axis=0), elite.std(axis=0) + 1e-4
    best = onto_budget(centre[None], cost, full, budget, low, high)
    band_low, band_high = _bands(predict, best, shares, (cost, full, budget, low, high), near, rng)
    inner = np.log(rng.uniform(np.exp(band_low), np.exp(band_high), size=(EXAMPLES, full.size)))
    examples = onto_budget(inner, cost, full, budget, band_low, band_high)
    return WidthBands(np.exp(best[0]), np.exp(band_low), np.exp(band_high), np.exp(examples))


def _bands(
    predict: Callable[[FloatArray], FloatArray], best: FloatArray, shares: FloatArray,
    box: tuple[CostForm, FloatArray, float, FloatArray, FloatArray], near: float, rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Quantiles of near-best recipes between the best one and the regime's own."""
    others = shares[rng.integers(len(shares), size=10 * CANDIDATES)]
    mixed = best + rng.random((len(others), 1)) * (others - best)
    candidates = onto_budget(mixed, *box)
    good = candidates[predict(candidates) <= predict(best)[0] + near]
    low, high = np.quantile(np.vstack([good, best]), BAND, axis=0)
    # A band must hold the best recipe, or shifting onto the budget could leave it.
    return np.minimum(low, best[0]), np.maximum(high, best[0])
