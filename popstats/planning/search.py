"""The recipes that a width law predicts best at a budget: one of them, or a band of widths for each group.

The search is the cross-entropy method (Rubinstein and Kroese 2004, doi:10.1007/978-1-4757-4321-0) on
log-widths: every candidate is shifted onto the budget, so cost is a constraint and never a penalty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popstats.arrays import BoolArray, FloatArray
from popstats.planning.budget_law import ROUNDING, BudgetLaw
from popstats.planning.propose import common_shifts
from popstats.population.recipes import CostForm
from popstats.population.table import folder_for

#: At 18 budgets of two populations of six groups, none of 400,000 random recipes in whole channels was better.
CANDIDATES, ROUNDS = 600, 20
#: Share of candidates that the next round is centred on, and spread of log-widths that is added to theirs, falling to
#: zero: in whole channels, a search would stay on one recipe without it.
ELITE, LEAST_SPREAD = 0.05, 0.1
#: Bands hold the central share of the near-best recipes.
BAND = (0.05, 0.95)
EXAMPLES = 500
#: Points that a recipe as uncertain as twice what the law supports is charged: no gain makes up for it.
PENALTY = 1000.0
#: Least share of the regime's recipes that the bands hold.
LEAST_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Search:
    """A search at one budget, where its law may be used."""

    law: BudgetLaw
    cost: CostForm  # of the axis that the budget is on
    amount: float  # the budget, in the cost's unit

    @property
    def full(self) -> FloatArray:
        """The original's widths, shape (G,)."""
        return self.law.table.full

    def objective(self, log_shares: FloatArray) -> FloatArray:
        """Return the expected outcome, and what recipes are charged that the law knows less of, (n, G) -> (n,)."""
        offset = np.minimum(np.log(self._cost(log_shares) / self.amount), 0.0)
        beyond = np.maximum(self.law.uncertainty(log_shares, offset) / self.law.sure - 1.0, 0.0)
        return self.law.expected(log_shares, offset) + PENALTY * beyond

    def meet(self, log_shares: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """Shift each recipe's log-widths together until it meets the budget, clipped to the box, (n, G)."""
        return self._shifted(log_shares, lambda shifted: np.clip(shifted, low, high))

    def _shifted(self, log_shares: FloatArray, allowed: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """Shift log kept shares as far as the budget lets the allowed recipes behind them, (n, G)."""
        low, high = self.law.box
        reach = float((high - low).max()) + np.abs(log_shares).max() + 1.0
        n, budget = len(log_shares), self.amount * (1.0 + ROUNDING)
        within, _ = common_shifts(lambda s: self._cost(allowed(log_shares + s)), budget, n, reach)
        return allowed(log_shares + within)

    def best(self, rng: np.random.Generator, units: FloatArray | None = None) -> FloatArray:
        """Return the log kept shares of the best recipe found, in whole units if any are given, (G,)."""
        seen, (low, high), full = self.law.seen, self.law.box, self.full
        centre, spread = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-3)

        def allowed(shifted: FloatArray) -> FloatArray:
            inside = np.clip(shifted, low, high)
            if units is None:
                return inside
            # Whole units that keep no more, one at least.
            least = np.maximum(np.ceil(np.exp(low) * full / units - ROUNDING), 1.0)
            most = np.maximum(np.floor(np.exp(high) * full / units + ROUNDING), least)
            counts = np.clip(np.floor(np.exp(inside) * full / units + ROUNDING), least, most)
            return np.asarray(np.log(counts * units / full))

        best, lowest = centre, np.inf
        for k in range(ROUNDS):
            drawn = centre + spread * rng.standard_normal((CANDIDATES, centre.size))
            candidates = self._shifted(drawn, allowed)
            value = self.objective(candidates)
            order = np.argsort(value)[: int(ELITE * CANDIDATES)]
            if value[order[0]] < lowest:
                best, lowest = candidates[order[0]], value[order[0]]
            centre = candidates[order].mean(axis=0)
            spread = candidates[order].std(axis=0) + LEAST_SPREAD * (1.0 - k / ROUNDS) ** 2
        return np.asarray(best)

    def uniform(self, units: FloatArray, least: FloatArray) -> FloatArray:
        """Return the recipe within the budget that keeps the same fraction of every group, at least `least`, (G,)."""
        full = self.full

        def whole(shift: FloatArray) -> FloatArray:
            counts = np.floor(np.exp(shift[0]) * full / units + ROUNDING)
            return np.asarray(np.clip(counts * units, least, full))

        budget = self.amount * (1.0 + ROUNDING)
        widths = whole(common_shifts(lambda shift: self.cost.cost(whole(shift)), budget, 1)[0])
        # What whole units leave of the budget: one unit for a group at most, the smallest fractions first.
        for group in np.argsort(np.round(widths / full, 9), kind="stable"):
            wider = widths.copy()
            wider[group] = min(widths[group] + units[group], full[group])
            widths = wider if self.affords(wider)[0] else widths
        return np.asarray(widths)

    def near_best_bands(self, near: float, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return bands of log kept shares, (G,) each, of recipes predicted within `near` of the best; and examples."""
        seen, rng = self.law.seen, np.random.default_rng(seed)
        best = self.best(rng)
        others = seen[rng.integers(len(seen), size=10 * CANDIDATES)]
        mixed = best + rng.random((len(others), 1)) * (others - best)
        low, high = self.law.box
        candidates = self.meet(mixed, low, high)
        above = self.objective(candidates) - self.objective(best[None])
        while near <= above.max():
            # A band must hold the best recipe, or shifting onto the budget could leave it.
            good = np.vstack([candidates[above <= near], best])
            ends = np.quantile(good, BAND, axis=0)
            low, high = np.minimum(ends[0], best), np.maximum(ends[1], best)
            if inside_bands(seen, low, high).mean() >= LEAST_SHARE:
                break
            (low, high), near = self.law.box, 2.0 * near
        drawn = np.log(rng.uniform(np.exp(low), np.exp(high), size=(EXAMPLES, best.size)))
        return low, high, self.meet(drawn, low, high)

    def affords(self, widths: FloatArray) -> BoolArray:
        """Return which recipes cost no more than the budget, (n, G) or (G,) -> (n,)."""
        return np.asarray(self.cost.cost(widths) <= self.amount * (1.0 + ROUNDING))

    def _cost(self, log_shares: FloatArray) -> FloatArray:
        return self.cost.cost(np.exp(log_shares) * self.full)


def inside_bands(shares: FloatArray, low: FloatArray, high: FloatArray) -> BoolArray:
    """Return which recipes have every group inside its band, (n, G), (G,), (G,) -> (n,)."""
    return np.asarray(((shares >= low - ROUNDING) & (shares <= high + ROUNDING)).all(axis=1))


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
