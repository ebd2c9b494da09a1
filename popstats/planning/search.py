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
from popstats.inference.model import OBSERVED_QUANTILES
from popstats.planning.budget_law import BudgetLaw, WidthTable
from popstats.planning.propose import common_shifts
from popstats.planning.recovered_costs import CostForm
from popstats.population.table import folder_for

#: At 18 budgets of two populations of six groups, none of 400,000 random recipes in whole channels was better.
CANDIDATES, ROUNDS = 600, 20
#: Share of candidates that the next round is centred on, and spread of log-widths that is added to theirs, falling to
#: zero: in whole channels, a search would stay on one recipe without it.
ELITE, LEAST_SPREAD = 0.05, 0.1
#: Bands hold the central share of the near-best recipes.
BAND = (0.05, 0.95)
EXAMPLES = 500
#: The law may be used where it is as certain as of this share of the recipes that it was fitted to.
SUPPORT = 0.95
#: Points that a recipe as uncertain as twice that limit is charged: no gain makes up for it.
PENALTY = 1000.0
#: Least share of the regime's recipes that the bands hold.
LEAST_SHARE = 0.05
#: Listed recipes lie in the trained range of at least this share of the groups.
GROUPS_INSIDE = 0.95
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Support:
    """Where a law may be used: a maximum over thousands of candidates lies where it errs the most in its favour."""

    law: BudgetLaw
    full: FloatArray  # (G,) the original's widths
    seen: FloatArray  # (n, G) log kept shares of the trained recipes near the budget
    low: FloatArray  # (G,) their observed range, 2.5 to 97.5 %
    high: FloatArray
    sure: float  # the law's uncertainty of 95 % of them, moved to the budget, is at most this
    sure_of_others: (
        float  # and this of the law that was fitted to the others: far more where there are many groups
    )

    @classmethod
    def of(cls, table: WidthTable, law: BudgetLaw) -> Support:
        """Return where the law of these recipes may be used."""
        seen = table.log_shares[law.rows[law.inner]]
        low, high = np.quantile(seen, OBSERVED_QUANTILES, axis=0)
        known = law.uncertainty(seen)
        sure = (float(np.quantile(u, SUPPORT)) for u in (known, known / np.sqrt(law.own[law.inner])))
        return cls(law, table.full, seen, low, high, *sure)

    def holds(self, log_shares: FloatArray, offset: FloatArray) -> BoolArray:
        """Return which listed recipes lie there, (n, G), (n,) -> (n,)."""
        inside = (log_shares >= self.low - _ROUNDING) & (log_shares <= self.high + _ROUNDING)
        known = self.law.uncertainty(log_shares, offset) <= self.sure_of_others * (1.0 + _ROUNDING)
        return np.asarray((inside.mean(axis=1) >= GROUPS_INSIDE) & known)


@dataclass(frozen=True, eq=False)
class Search:
    """A search at one budget, inside the support of a law."""

    support: Support
    cost: CostForm  # of the axis that the budget is on
    amount: float  # the budget, in the cost's unit

    def objective(self, log_shares: FloatArray) -> FloatArray:
        """Return the expected outcome, and what recipes are charged that the law knows less of, (n, G) -> (n,)."""
        law = self.support.law
        offset = np.minimum(np.log(self._cost(log_shares) / self.amount), 0.0)
        beyond = np.maximum(law.uncertainty(log_shares, offset) / self.support.sure - 1.0, 0.0)
        return law.expected(log_shares, offset) + PENALTY * beyond

    def meet(self, log_shares: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """Shift each recipe's log-widths together until it meets the budget, clipped to the box, (n, G)."""
        return self._shifted(log_shares, lambda shifted: np.clip(shifted, low, high))

    def _shifted(self, log_shares: FloatArray, allowed: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """Shift log kept shares as far as the budget lets the allowed recipes behind them, (n, G)."""
        here = self.support
        reach = float((here.high - here.low).max()) + np.abs(log_shares).max() + 1.0
        within, _ = common_shifts(
            lambda shift: self._cost(allowed(log_shares + shift)),
            self.amount * (1.0 + _ROUNDING),
            len(log_shares),
            reach,
        )
        return allowed(log_shares + within)

    def best(self, rng: np.random.Generator, units: FloatArray | None = None) -> FloatArray:
        """Return the log kept shares of the best recipe found, in whole units if any are given, (G,)."""
        here = self.support
        centre, spread = here.seen.mean(axis=0), np.maximum(here.seen.std(axis=0), 1e-3)

        def allowed(shifted: FloatArray) -> FloatArray:
            inside = np.clip(shifted, here.low, here.high)
            return inside if units is None else np.log(self._whole(inside, units) / here.full)

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

    def best_widths(self, units: FloatArray) -> FloatArray:
        """Return the best widths in whole units within the budget, shape (G,)."""
        found = np.exp(self.best(np.random.default_rng(0), units)) * self.support.full
        return np.asarray(np.rint(found / units) * units)

    def _whole(self, log_shares: FloatArray, units: FloatArray) -> FloatArray:
        """Return the widths in whole units that keep no more, one unit at least, (n, G)."""
        full, low, high = self.support.full, np.exp(self.support.low), np.exp(self.support.high)
        lower = np.maximum(np.ceil(low * full / units - _ROUNDING), 1.0) * units
        upper = np.maximum(np.floor(high * full / units + _ROUNDING) * units, lower)
        return np.clip(np.floor(np.exp(log_shares) * full / units + _ROUNDING) * units, lower, upper)

    def uniform(self, units: FloatArray, least: FloatArray) -> FloatArray:
        """Return the recipe within the budget that keeps the same fraction of every group, at least `least`, (G,)."""
        full = self.support.full

        def whole(shift: FloatArray) -> FloatArray:
            counts = np.floor(np.exp(shift[0]) * full / units + _ROUNDING)
            return np.asarray(np.clip(counts * units, least, full))

        within, _ = common_shifts(
            lambda shift: self.cost.cost(whole(shift)), self.amount * (1.0 + _ROUNDING), 1
        )
        widths = whole(within)
        # What whole units leave of the budget: one unit for a group at most, the smallest fractions first.
        for group in np.argsort(np.round(widths / full, 9), kind="stable"):
            wider = widths.copy()
            wider[group] = min(widths[group] + units[group], full[group])
            widths = wider if self.affords(wider)[0] else widths
        return np.asarray(widths)

    def near_best_bands(
        self, near: float, seed: int = 0, least_share: float = LEAST_SHARE
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return bands of log kept shares, (G,) each, of recipes predicted within `near` of the best; and examples."""
        here, rng = self.support, np.random.default_rng(seed)
        best = self.best(rng)
        others = here.seen[rng.integers(len(here.seen), size=10 * CANDIDATES)]
        mixed = best + rng.random((len(others), 1)) * (others - best)
        candidates = self.meet(mixed, here.low, here.high)
        above = self.objective(candidates) - self.objective(best[None])
        low, high = here.low, here.high
        while near <= above.max():
            # A band must hold the best recipe, or shifting onto the budget could leave it.
            good = np.vstack([candidates[above <= near], best])
            ends = np.quantile(good, BAND, axis=0)
            low, high = np.minimum(ends[0], best), np.maximum(ends[1], best)
            if share_inside(here.seen, low, high) >= least_share:
                break
            low, high, near = here.low, here.high, 2.0 * near
        drawn = np.log(rng.uniform(np.exp(low), np.exp(high), size=(EXAMPLES, best.size)))
        return low, high, self.meet(drawn, low, high)

    def affords(self, widths: FloatArray) -> BoolArray:
        """Return which recipes cost no more than the budget, (n, G) or (G,) -> (n,)."""
        return np.asarray(self.cost.cost(widths) <= self.amount * (1.0 + _ROUNDING))

    def _cost(self, log_shares: FloatArray) -> FloatArray:
        return self.cost.cost(np.exp(log_shares) * self.support.full)


def share_inside(log_shares: FloatArray, low: FloatArray, high: FloatArray) -> float:
    """Return the share of recipes with every group inside its band."""
    return float(((log_shares >= low - _ROUNDING) & (log_shares <= high + _ROUNDING)).all(axis=1).mean())


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
