"""What the recipes of a population are, one row each with regime, place and mean drop, and what any recipe costs.

Every fit, verdict and figure of the same regimes reads the same `Recipes`, which the population keeps. MACs and parameters
of a pruned network are quadratic in its widths (a layer costs input channels times output channels): given enough recipes,
the form follows from the table exactly, and widths that no recipe in the table has can be priced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray, IntArray
from popstats.population.regimes import Axis, Given, Regimes, assign_regimes, log_cost_offset
from popstats.population.table import Population

#: Log cost offsets this small are rounding.
_SAME_COST = 1e-6
#: Largest relative error on any recipe at which the recovered form counts as exact.
EXACT = 1e-4
#: Recipes that the form is solved from; it holds for the others too, or it is none.
SOLVED = 4000


@dataclass(frozen=True, eq=False)
class Recipes:
    """The recipes of one population under one set of regimes."""

    assigned: Regimes  # of the rows
    # (K,); reduction at which the drops of each regime are stated: its centre, or where its recipes lie
    references: FloatArray
    # One row per recipe, in the order of their numbers: regime (-1: none), log_mcb, reduction, offset (log cost offset from
    # the regime's reference; NaN: no regime), technique (position in population.techniques), drop (points, mean over runs),
    # runs, within (points^2: squared deviations of the runs).
    table: pd.DataFrame
    first: IntArray  # (recipes,) number of each recipe's first row
    members: tuple[IntArray, ...]  # per regime, the numbers of its recipes, ascending

    @cached_property
    def at_average_technique(self) -> pd.DataFrame:
        """The table with drops at the average retraining technique of each regime, whose mean drop stays."""
        # For what looks at single drops beside the model, which holds the techniques apart by itself. The differences are
        # estimated by least squares, beside the cost offset and log mCB; their own uncertainty is not carried on.
        code = self.table["technique"].to_numpy()
        if code.min() == code.max():
            return self.table
        drop = self.table["drop"].to_numpy(copy=True)
        for mine in filter(len, self.members):
            drop[mine] -= _technique_effect(self.table.iloc[mine])
        return self.table.assign(drop=drop)


def prepared_recipes(population: Population, axis: Axis, regimes: Given = None) -> Recipes:
    """Return the population's recipes under these regimes (as for `assign_regimes`): the same object every time."""
    centres = None if regimes is None else tuple(regimes)
    half_widths = tuple(regimes.values()) if isinstance(regimes, Mapping) else None
    key = (__name__, axis, centres, half_widths)
    return population.derived(key, lambda: _recipes(population, axis, regimes))


def _recipes(population: Population, axis: Axis, regimes: Given) -> Recipes:
    frame, code = population.frame, population.recipe
    assigned = assign_regimes(frame, axis, regimes)
    drop, reduction = frame["accuracy_drop"].to_numpy(), frame[f"{axis}_reduction"].to_numpy()
    columns = {
        "regime": assigned.index,
        "log_mcb": frame["log_mcb"].to_numpy(),
        "reduction": reduction,
        "offset": log_cost_offset(reduction, np.append(assigned.targets, np.nan)[assigned.index]),
        "technique": population.technique,
    }
    first, runs, mean, within = np.arange(code.size), np.ones_like(drop), drop, np.zeros_like(drop)
    if code[-1] < code.size - 1:  # else recipes are numbered as they come: each row is its own
        runs = np.bincount(code).astype(np.float64)
        mean = np.bincount(code, weights=drop) / runs
        within = np.bincount(code, weights=(drop - mean[code]) ** 2)
        first = np.empty(runs.size, dtype=np.int64)
        first[code[::-1]] = np.arange(code.size)[::-1]
        columns = {name: values[first] for name, values in columns.items()}
    # Two bytes per recipe: a quarter of the memory to go through for each regime, and faster than sorting.
    short = columns["regime"].astype(np.int16)
    members = tuple(np.flatnonzero(short == k) for k in range(assigned.targets.size))
    references = _references(columns["offset"], members, assigned)
    table = pd.DataFrame({**columns, "drop": mean, "runs": runs, "within": within}, copy=False)
    return Recipes(assigned, references, table, first, members)


def _references(offset: FloatArray, members: Sequence[IntArray], assigned: Regimes) -> FloatArray:
    """Move centres that nobody chose to the recipes where all lie on one side, and the offsets with them; return them."""
    found = assigned.targets.copy()
    for k, mine in enumerate(members if assigned.source != "given" else ()):
        here = offset[mine]
        if here.size and (here.min() > _SAME_COST or here.max() < -_SAME_COST):
            found[k] = 1.0 - (1.0 - found[k]) * np.exp(here.mean())
            offset[mine] -= here.mean()
    return found


def original_widths(population: Population) -> FloatArray:
    """Return the original's widths, shape (G,); empty without widths."""
    # From the achieved ratios where the table has them, else 1 where all widths are shares of the original's, else the
    # widest of each group in the table.
    widths = population.widths
    if widths is None:
        return np.zeros(0)
    table = population.table
    if "ratios_achieved" not in table or table["ratios_achieved"].isna().any():
        return np.asarray(widths.max(axis=0) if widths.max() > 1.0 else np.ones(widths.shape[1]))
    kept = 1.0 - np.array(table["ratios_achieved"].tolist(), dtype=np.float64)
    return np.asarray(np.round(np.median(widths / kept, axis=0)))


def positive_widths(widths: FloatArray) -> FloatArray:
    """Return the widths with skipped blocks (0) at half of the narrowest that is kept, so that their logs exist."""
    narrowest = np.where(widths > 0.0, widths, np.inf).min(axis=0)
    return np.where(widths > 0.0, widths, narrowest / 2.0)


def _technique_effect(recipes: pd.DataFrame) -> FloatArray:
    """Return what each recipe's technique adds to its drop, points, mean 0, shape (n,)."""
    code = recipes["technique"].to_numpy()
    indicators = (code[:, None] == np.unique(code)[1:]).astype(np.float64)
    indicators -= indicators.mean(axis=0)
    places = (recipes[name].to_numpy() for name in ("offset", "log_mcb"))
    # In standard deviations; zeros where they hardly differ.
    c, u = ((v - v.mean()) / (v.std() if v.std() > 1e-9 else np.inf) for v in places)
    columns = np.column_stack([indicators, np.ones_like(c), c, c**2, u, u**2])
    if len(columns) <= columns.shape[1] + 1:
        return np.zeros(len(columns))
    root = np.sqrt(recipes["runs"].to_numpy())
    solution = np.linalg.lstsq(columns * root[:, None], recipes["drop"].to_numpy() * root, rcond=None)[0]
    return np.asarray(indicators @ solution[: indicators.shape[1]])


def ratio_std(population: Population) -> FloatArray | None:
    """Return the standard deviation of the achieved ratios over groups, one per row; None without widths."""
    table = population.table
    if "ratio_std" in table and table["ratio_std"].notna().all():
        return table["ratio_std"].to_numpy(dtype=np.float64)
    if population.widths is None:
        return None
    return np.asarray((1.0 - population.widths / original_widths(population)).std(axis=1))


@dataclass(frozen=True)
class CostForm:
    """Cost as a quadratic form in the widths."""

    matrix: FloatArray  # (G + 1, G + 1); Symmetric; cost = z' matrix z with z = (1, widths / unit).
    unit: FloatArray  # (G,); Widths are measured in these.

    def cost(self, widths: FloatArray) -> FloatArray:
        """Return the cost of recipes, shape (n, G) -> (n,)."""
        z = self._extended(widths)
        return np.asarray(((z @ self.matrix) * z).sum(axis=1))

    def log_width_slope(self, widths: FloatArray) -> FloatArray:
        """Return d cost / d log width at each recipe, shape (n, G) -> (n, G)."""
        z = self._extended(widths)
        return np.asarray(2.0 * (z @ self.matrix)[:, 1:] * z[:, 1:])

    def _extended(self, widths: FloatArray) -> FloatArray:
        relative = np.atleast_2d(np.asarray(widths, dtype=np.float64)) / self.unit
        return np.column_stack([np.ones(len(relative)), relative])


def recover_cost(population: Population, cost: str = "macs") -> CostForm | None:
    """Return the quadratic form behind a cost column; None without widths, with too few recipes, or if it misses any."""
    widths = population.widths
    if widths is None:
        return None
    rows, unit = np.unique(population.recipe, return_index=True)[1], widths.max(axis=0)
    z = np.column_stack([np.ones(rows.size), widths[rows] / unit])
    upper = np.triu_indices(z.shape[1])
    if rows.size < len(upper[0]):
        return None
    target = population.table[cost].to_numpy(dtype=np.float64)[rows]
    terms = z[:, upper[0]] * z[:, upper[1]]
    # Solved on some recipes, checked on all. At random: a table in the order of its widths must not be cut in step.
    some = np.sort(np.random.default_rng(0).permutation(rows.size)[:SOLVED])
    # Relative errors count, so every recipe is divided by its own cost.
    solution = np.linalg.lstsq(terms[some] / target[some, None], np.ones(some.size), rcond=None)[0]
    if np.abs(terms @ solution / target - 1.0).max() > EXACT:
        return None
    matrix = np.zeros((z.shape[1], z.shape[1]))
    matrix[upper] = solution / 2.0
    return CostForm(matrix + matrix.T, unit)


def cost_form(population: Population, cost: str = "macs") -> CostForm | None:
    """Return a cost as a form in the widths: the run's own where the table's metadata has it, else recovered."""
    stored = population.metadata.get("costs")
    if not stored or list(stored["groups"]) != list(population.group_names):
        return population.derived((__name__, cost), lambda: recover_cost(population, cost))
    matrix = np.asarray(stored[cost], dtype=np.float64)
    return CostForm((matrix + matrix.T) / 2.0, np.asarray(stored["steps"], dtype=np.float64))
