"""What the recipes of a population are: one row each, with its regime, its place and its mean drop.

Every fit, verdict and figure of the same regimes reads the same `Recipes`, which the population keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray, IntArray
from popstats.population.regimes import Axis, Regimes, assign_regimes, log_cost_offset
from popstats.population.table import Population


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
        """The table with drops at the average retraining technique of each regime, whose mean drop stays.

        For what looks at single drops beside the model, which holds the techniques apart by itself. The differences are
        estimated by least squares, beside the cost offset and log mCB; their own uncertainty is not carried on.
        """
        code = self.table["technique"].to_numpy()
        if code.min() == code.max():
            return self.table
        drop = self.table["drop"].to_numpy(copy=True)
        for mine in filter(len, self.members):
            drop[mine] -= _technique_effect(self.table.iloc[mine])
        return self.table.assign(drop=drop)


def prepared_recipes(
    population: Population, axis: Axis, regimes: Sequence[float] | Mapping[float, float] | None = None
) -> Recipes:
    """Return the population's recipes under these regimes (as for `assign_regimes`): the same object every time."""
    centres = None if regimes is None else tuple(regimes)
    half_widths = tuple(regimes.values()) if isinstance(regimes, Mapping) else None
    key = (__name__, axis, centres, half_widths)
    return population.derived(key, lambda: _recipes(population, axis, regimes))


def _recipes(
    population: Population, axis: Axis, regimes: Sequence[float] | Mapping[float, float] | None
) -> Recipes:
    assigned = assign_regimes(population.frame, axis, regimes)
    references = _references(population.frame[f"{axis}_reduction"].to_numpy(), assigned)
    table, first = _recipe_table(population, assigned, references)
    # Two bytes per recipe: a quarter of the memory to go through for each regime, and faster than sorting.
    short = table["regime"].to_numpy().astype(np.int16)
    members = tuple(np.flatnonzero(short == k) for k in range(assigned.targets.size))
    return Recipes(assigned, references, table, first, members)


def _references(reduction: FloatArray, assigned: Regimes) -> FloatArray:
    """Return the centres of the regimes, or the middle of the rows where all lie on one side of a centre nobody chose."""
    index, found = assigned.index, assigned.targets.copy()
    if assigned.source == "given":
        return found
    rows = pd.Series(np.log1p(-reduction[index >= 0])).groupby(index[index >= 0]).agg(["min", "mean", "max"])
    held, centre = rows.index.to_numpy(), np.log1p(-found[rows.index])
    outside = ((centre < rows["min"]) | (centre > rows["max"])).to_numpy()
    found[held[outside]] = -np.expm1(rows["mean"].to_numpy()[outside])
    return found


def _recipe_table(
    population: Population, assigned: Regimes, references: FloatArray
) -> tuple[pd.DataFrame, IntArray]:
    """Return one row per recipe, and the number of each recipe's first row."""
    frame, code = population.frame, population.recipe
    drop = frame["accuracy_drop"].to_numpy()
    reduction = frame[f"{assigned.axis}_reduction"].to_numpy()
    columns = {
        "regime": assigned.index,
        "log_mcb": frame["log_mcb"].to_numpy(),
        "reduction": reduction,
        "offset": log_cost_offset(reduction, np.append(references, np.nan)[assigned.index]),
        "technique": population.technique,
    }
    if code[-1] == code.size - 1:  # recipes are numbered as they come: each row is its own
        alone = {"drop": drop, "runs": np.ones_like(drop), "within": np.zeros_like(drop)}
        return pd.DataFrame(columns | alone, copy=False), np.arange(code.size)
    runs = np.bincount(code).astype(np.float64)
    mean = np.bincount(code, weights=drop) / runs
    within = np.bincount(code, weights=(drop - mean[code]) ** 2)
    first = np.empty(runs.size, dtype=np.int64)
    first[code[::-1]] = np.arange(code.size)[::-1]
    places = {name: values[first] for name, values in columns.items()}
    return pd.DataFrame({**places, "drop": mean, "runs": runs, "within": within}, copy=False), first


def original_widths(population: Population) -> FloatArray:
    """Return the original's widths, shape (G,); empty without widths.

    From the achieved ratios where the table has them, else 1 where all widths are shares of the original's, else the
    widest of each group in the table.
    """
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
    c, u = (_standard(recipes[name].to_numpy()) for name in ("offset", "log_mcb"))
    columns = np.column_stack([indicators, np.ones_like(c), c, c**2, u, u**2])
    if len(columns) <= columns.shape[1] + 1:
        return np.zeros(len(columns))
    root = np.sqrt(recipes["runs"].to_numpy())
    solution = np.linalg.lstsq(columns * root[:, None], recipes["drop"].to_numpy() * root, rcond=None)[0]
    return np.asarray(indicators @ solution[: indicators.shape[1]])


def _standard(values: FloatArray) -> FloatArray:
    """Return the values about their mean in standard deviations; zeros where they hardly differ."""
    spread = values.std()
    return np.asarray((values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values))


def ratio_std(population: Population) -> FloatArray | None:
    """Return the standard deviation of the achieved ratios over groups, one per row; None without widths.

    From the column `ratio_std` where the table has it, else from the widths and the original's.
    """
    table = population.table
    if "ratio_std" in table and table["ratio_std"].notna().all():
        return table["ratio_std"].to_numpy(dtype=np.float64)
    if population.widths is None:
        return None
    return np.asarray((1.0 - population.widths / original_widths(population)).std(axis=1))
