"""Natural cubic splines through the quantiles of the data: a curve of modest freedom without a form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["KNOTS", "natural_spline"]

FloatArray = npt.NDArray[np.float64]

#: Knots; the spline has this many columns, its constant included.
KNOTS = 6
#: Outermost knots: beyond them the curve is straight.
OUTER = (0.02, 0.98)


def natural_spline(at: FloatArray, data: FloatArray, knots: int = KNOTS) -> FloatArray:
    """Return the basis of a natural cubic spline, constant first.

    Parameters
    ----------
    at : numpy.ndarray, shape (m,)
        Where to evaluate.
    data : numpy.ndarray, shape (n,)
        Its quantiles are the knots.
    knots : int
        Number of knots; fewer where quantiles coincide.

    Returns
    -------
    numpy.ndarray, shape (m, at most knots)
        1, t and the bends, with t the distance from the knots' mean in units of their range.

    References
    ----------
    Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, equations 5.4 and 5.5.
    """
    places = np.unique(np.quantile(data, np.linspace(*OUTER, knots)))
    centre, scale = places.mean(), np.ptp(places) or 1.0
    t, k = (at - centre) / scale, (places - centre) / scale
    if k.size < 3:
        return np.column_stack([np.ones_like(t), t])
    cubes = np.clip(t[:, None] - k[None, :], 0.0, None) ** 3
    last = (cubes[:, -2] - cubes[:, -1]) / (k[-1] - k[-2])
    bends = [(cubes[:, j] - cubes[:, -1]) / (k[-1] - k[j]) - last for j in range(k.size - 2)]
    return np.column_stack([np.ones_like(t), t, *bends])
