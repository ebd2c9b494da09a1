r"""How far its prior pulls a regime's curve: what is tall and narrow comes out too shallow.

With precision :math:`A = X^\top V^{-1} X + D^{-1}` the posterior mean of coefficients that truly are :math:`\beta`
is off by :math:`-A^{-1} D^{-1} \beta` on average over data.

References
----------
Tukey (1977), Exploratory Data Analysis ("twicing"); Newey, Hsieh and Robins (2004),
doi:10.1111/j.1468-0262.2004.00518.x.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from popstats.inference.cross_products import RegimeData
from popstats.inference.curves import log_basis_variance

__all__ = ["shrinkage"]

FloatArray = npt.NDArray[np.float64]


def shrinkage(
    regime: RegimeData, mean: FloatArray, length_scale: float, amplitude: float, noise: float, share: float
) -> FloatArray:
    """Return the bias of the coefficients' posterior mean, estimated at that mean itself, shape (p,).

    Under noise that is not normal the information of the rows is taken as if it were, with the same scale.

    Parameters
    ----------
    regime : RegimeData
        A fitted regime.
    mean : numpy.ndarray, shape (p,)
        Posterior mean of its coefficients.
    length_scale, amplitude, noise, share : float
        Its hyperparameters.
    """
    data = regime.products
    prior = np.zeros((2, mean.size))
    prior[0, : len(regime.fixed)] = 1.0 - np.array(regime.fixed)
    prior[1, len(regime.fixed) :] = np.exp(-log_basis_variance(length_scale)) / amplitude**2
    weight = 1.0 / (noise**2 * (1.0 - share + share / data.replicates))
    precision = np.tensordot(weight, data.xx, 1) + np.diag(prior.sum(axis=0))
    return np.asarray(-np.linalg.solve(precision, prior[1] * mean))
