"""Recipes retrained in several ways, brought to the average technique of their regime.

The curve's model holds the techniques apart by itself (`cross_products`). This is for what looks at single drops
beside it: what explains them, what the layers' widths buy, how two spaces compare. A difference between
techniques would be noise there, and is taken out beforehand.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.inference.curves import FIXED_TERMS

__all__ = ["at_average_technique"]

FloatArray = npt.NDArray[np.float64]


def at_average_technique(recipes: pd.DataFrame) -> pd.DataFrame:
    """Return the recipes with their drops at the average retraining technique of their regime.

    In each regime the differences between techniques are estimated by least squares, beside the reduction and
    log mCB (linear and squared each), and taken off. Their own uncertainty is not carried on.

    Parameters
    ----------
    recipes : pandas.DataFrame
        From `recipe_table`.

    Returns
    -------
    pandas.DataFrame
        The same, `drop` (points) changed where a regime holds several techniques; the mean drop of a regime stays.
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
    if len(columns) <= indicators.shape[1] + 2 * FIXED_TERMS:
        return np.zeros(len(columns))
    root = np.sqrt(recipes["runs"].to_numpy())
    solution = np.linalg.lstsq(columns * root[:, None], recipes["drop"].to_numpy() * root, rcond=None)[0]
    return np.asarray(indicators @ solution[: indicators.shape[1]])


def _standard(values: FloatArray) -> FloatArray:
    """Return the values about their mean in standard deviations; zeros where they hardly differ."""
    spread = values.std()
    return np.asarray((values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values))
