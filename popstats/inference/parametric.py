r"""Quadratic and asymmetric curves in closed form: companions of the smooth curve, to be compared with it.

Both are linear in their coefficients once the vertex v of the asymmetric one is given,

.. math:: q(u) = a + b u + d u^2, \qquad
          h(u) = a + d_- (u - v)^2 [u < v] + d_+ (u - v)^2 [u \ge v],

beside the MACs terms of the smooth model. With flat priors the coefficients given the noise are normal and the
noise is inverse chi-square; v lies on a grid, weighted by its profile likelihood (flat priors on two bends, one of
which sees fewer and fewer rows as v nears an end, would favour the ends). So there is nothing to sample: draws
are independent and exact.

Curves are carried as coefficients of the smooth basis, which holds a parabola to 4e-6 and half a parabola to 3e-3
of its height at u = 1: everything that reads a fit reads these too, and the regime's cross-products suffice.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.inference.data import CrossProducts, RegimeData
from popstats.inference.exact import HyperDraws, draw_regime
from popstats.inference.model import BASIS_SIZE, KEPT_RANGE, Priors, design_matrix

#: Vertices of the asymmetric curve, over the observed range: finer than its standard error at 10,000 recipes.
_VERTICES = 801


#: Points on which a curve is written in the smooth basis.
_PROJECTION = 1401


#: Step of the difference quotient at the vertex.
_STEP = 1e-4


#: Ridge, in shares of the diagonal: a bend that no row sees stays zero.
_RIDGE = 1e-10


def draw_parametric(
    curve: str, regime: RegimeData, priors: Priors, size: int, rng: np.random.Generator
) -> HyperDraws:
    """Draw a parametric curve of one regime."""
    products = regime.products
    share = draw_regime(regime, priors, size, rng).seed_share
    shapes = _shapes(curve, regime.fixed)
    log_weight, means, roots, misfit, freedom = _least_squares(products, shapes, float(np.median(share)))
    weight = np.exp(log_weight - log_weight.max())
    picked = rng.choice(weight.size, size=size, p=weight / weight.sum())
    noise = np.sqrt(misfit[picked] / rng.chisquare(freedom, size))
    normal = rng.standard_normal((size, means.shape[1], 1))
    own = means[picked] + noise[:, None] * (roots[picked] @ normal)[..., 0]
    none = np.full(size, np.nan)
    return HyperDraws(
        length_scale=none,
        amplitude=none,
        noise=noise,
        seed_share=share,
        coefficients=np.einsum("spq,sq->sp", shapes[picked], own),
        edge_probability=0.0,
    )


def flat_priors() -> pd.DataFrame:
    """Return the priors of the parametric curves as `Priors.describe` does: name, distribution, unit, reason."""
    rows = [
        ("level, MACs terms, bends", "flat", "percentage points", "a companion says what the data alone say"),
        ("log noise, vertex", "flat", "log points, log mCB", "the vertex inside the observed range"),
    ]
    return pd.DataFrame(rows, columns=["prior", "distribution", "unit", "reason"])


@lru_cache(maxsize=4)
def _shapes(curve: str, fixed: tuple[bool, ...]) -> FloatArray:
    """Return the curve's columns in the columns of the smooth model, one matrix a vertex, (V, p, q)."""
    unit = np.linspace(-KEPT_RANGE, KEPT_RANGE, _PROJECTION)
    inverse = np.linalg.pinv(_columns(unit), rcond=1e-12)
    if curve == "quadratic":
        parts = (inverse @ np.stack([unit, unit**2], axis=1))[None]
    else:
        parts = np.array([_half_parabolas(unit, inverse, v) for v in np.linspace(-1.0, 1.0, _VERTICES)])
    terms = len(fixed)
    present = [j for j in range(terms) if fixed[j]]
    shapes = np.zeros((len(parts), terms + BASIS_SIZE, len(present) + 2))
    shapes[:, present, np.arange(len(present))] = 1.0
    shapes[:, [0, *range(terms, terms + BASIS_SIZE)], -2:] = parts
    return shapes


def _columns(unit: FloatArray) -> FloatArray:
    """Return the level and the basis at u, shape (n, 1 + BASIS_SIZE)."""
    return np.delete(design_matrix(unit, np.zeros_like(unit)), [1, 2], axis=1)


def _half_parabolas(unit: FloatArray, inverse: FloatArray, vertex: float) -> FloatArray:
    """Return the two halves in level and basis, each with slope zero at the vertex.

    Without that condition the ripple of a basis that ends at some frequency moves the minimum by 1 % of mCB,
    several standard errors with a thousand recipes.
    """
    squares, right = (unit - vertex) ** 2, unit >= vertex
    halves = inverse @ np.stack([squares * ~right, squares * right], axis=1)
    below, above = _columns(np.array([vertex - _STEP, vertex + _STEP]))
    slope = (above - below) / (2.0 * _STEP)
    reach = inverse @ (inverse.T @ slope)
    return np.asarray(halves - np.outer(reach, slope @ halves) / (slope @ reach))


def _least_squares(
    products: CrossProducts, shapes: FloatArray, share: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, int]:
    """Return each vertex's log weight, estimates, root of their covariance at unit noise, misfit; and the freedom."""
    relative = 1.0 - share + share / products.replicates
    xx, xy = np.tensordot(1.0 / relative, products.xx, 1), np.tensordot(1.0 / relative, products.xy, 1)
    gram = shapes.transpose(0, 2, 1) @ xx @ shapes
    index = np.arange(gram.shape[1])
    gram[:, index, index] *= 1.0 + _RIDGE
    target = shapes.transpose(0, 2, 1) @ xy
    inverse = np.linalg.inv(gram)
    means = (inverse @ target[..., None])[..., 0]
    misfit = (products.yy / relative).sum() - (target * means).sum(axis=1)
    freedom = int(products.count.sum()) - gram.shape[1] - (1 if len(shapes) > 1 else 0)
    return -0.5 * freedom * np.log(misfit), means, np.linalg.cholesky(inverse), misfit, freedom
