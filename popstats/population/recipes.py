"""Recipes retrained in several ways, brought to the average technique of their regime.

The curve's model holds the techniques apart by itself (`cross_products`). This is for what looks at single drops
beside it: what explains them, what the layers' widths buy, how two spaces compare. A difference between
techniques would be noise there, and is taken out beforehand.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.population.regimes import Regimes
from popstats.population.table import Population


def first_rows(population: Population) -> npt.NDArray[np.int64]:
    """Return the number of the first row of each recipe, in the order of recipe numbers."""
    return np.unique(population.recipe, return_index=True)[1].astype(np.int64)


def original_widths(population: Population) -> FloatArray:
    """Return the original's widths, shape (G,); empty without widths.

    From the achieved ratios where the table has them, else the widest of each group in the table.
    """
    widths = population.widths
    if widths is None:
        return np.zeros(0)
    table = population.table
    if "ratios_achieved" not in table or table["ratios_achieved"].isna().any():
        return np.asarray(widths.max(axis=0))
    kept = 1.0 - np.array(table["ratios_achieved"].tolist(), dtype=np.float64)
    return np.asarray(np.round(np.median(widths / kept, axis=0)))


def recipe_table(population: Population, regimes: Regimes) -> pd.DataFrame:
    """Return one row a recipe: regime, place, technique, mean drop, runs, squared deviations of its runs."""
    frame, code = population.frame, population.recipe
    drop = frame["accuracy_drop"].to_numpy()
    columns = {
        "regime": regimes.index,
        "log_mcb": frame["log_mcb"].to_numpy(),
        "reduction": frame[f"{regimes.axis}_reduction"].to_numpy(),
        "technique": population.technique,
    }
    if code[-1] == code.size - 1:  # recipes are numbered as they come: each row is its own
        alone = {"drop": drop, "runs": np.ones_like(drop), "within": np.zeros_like(drop)}
        return pd.DataFrame(columns | alone, copy=False)
    runs = np.bincount(code).astype(np.float64)
    mean = np.bincount(code, weights=drop) / runs
    within = np.bincount(code, weights=(drop - mean[code]) ** 2)
    first = np.empty(runs.size, dtype=np.int64)
    first[code[::-1]] = np.arange(code.size)[::-1]
    places = {name: values[first] for name, values in columns.items()}
    return pd.DataFrame({**places, "drop": mean, "runs": runs, "within": within}, copy=False)


def at_average_technique(recipes: pd.DataFrame) -> pd.DataFrame:
    """Return the recipes with their drops at the average retraining technique of their regime.

    In each regime the differences between techniques are estimated by least squares, beside the reduction and
    log mCB (linear and squared each), and taken off. Their own uncertainty is not carried on.
    """
    code = recipes["technique"].to_numpy()
    if code.min() == code.max():
        return recipes
    drop, member = recipes["drop"].to_numpy(copy=True), recipes["regime"].to_numpy()
    for k in np.unique(member[member >= 0]):
        mine = member == k
        drop[mine] -= _technique_effect(recipes[mine])
    return recipes.assign(drop=drop)


def _technique_effect(recipes: pd.DataFrame) -> FloatArray:
    """Return what each recipe's technique adds to its drop, points, mean 0, shape (n,)."""
    code = recipes["technique"].to_numpy()
    indicators = (code[:, None] == np.unique(code)[1:]).astype(np.float64)
    indicators -= indicators.mean(axis=0)
    c, u = (_standard(recipes[name].to_numpy()) for name in ("reduction", "log_mcb"))
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
    """Return the standard deviation of the achieved ratios over groups, one a row; None without widths.

    From the column `ratio_std` where the table has it, else from the widths and the original's.
    """
    table = population.table
    if "ratio_std" in table and table["ratio_std"].notna().all():
        return table["ratio_std"].to_numpy(dtype=np.float64)
    if population.widths is None:
        return None
    return np.asarray((1.0 - population.widths / original_widths(population)).std(axis=1))
