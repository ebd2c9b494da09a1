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

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import Draws
from popstats.inference.exact import draw_regime
from popstats.inference.model import BASIS_SIZE, KEPT_RANGE, Hyper, Priors, design_matrix

#: Vertices of the asymmetric curve, over the observed range: finer than its standard error at 10,000 recipes.
_VERTICES = 801
#: Points on which a curve is written in the smooth basis.
_PROJECTION = 1401
#: Step of the difference quotient at the vertex.
_STEP = 1e-4
#: Ridge, in shares of the diagonal: a bend that no row sees stays zero.
_RIDGE = 1e-10


def sample_parametric(
    curve: str, designs: Sequence[RegimeDesign], priors: Priors, size: int, seed: int
) -> Draws:
    """Draw parametric curves of all regimes, each alone: `size` independent draws."""
    streams = [np.random.default_rng([seed, k]) for k in range(len(designs))]
    drawn = [_draw_regime(curve, d, priors, size, rng) for d, rng in zip(designs, streams, strict=True)]
    return Draws.joined(drawn, [0.0] * len(drawn))


def _draw_regime(
    curve: str, design: RegimeDesign, priors: Priors, size: int, rng: np.random.Generator
) -> tuple[Hyper, FloatArray]:
    """Return hyperparameters, the seed share that of the smooth fit, and coefficients of the smooth basis."""
    share = draw_regime(design, priors, size, rng).seed_share.ravel()
    shapes = _shapes(curve, design.fixed)
    middle = np.median(share, keepdims=True)
    log_weight, means, roots, misfit, freedom = _least_squares(design, shapes, middle)
    weight = np.exp(log_weight - log_weight.max())
    picked = rng.choice(weight.size, size=size, p=weight / weight.sum())
    noise = np.sqrt(misfit[picked] / rng.chisquare(freedom, size))
    normal = rng.standard_normal((size, means.shape[1], 1))
    own = means[picked] + noise[:, None] * (roots[picked] @ normal)[..., 0]
    none = np.full(size, np.nan)
    return Hyper(none, none, noise, share), np.einsum("spq,sq->sp", shapes[picked], own)


def flat_priors() -> pd.DataFrame:
    """Return the priors of the parametric curves as `Priors.describe` does: name, distribution, unit, reason."""
    rows = [
        ("level, MACs terms, bends", "flat", "percentage points", "a companion is fitted to the data alone"),
        ("log noise, vertex", "flat", "log points, log mCB", "the vertex inside the observed range"),
    ]
    return pd.DataFrame(rows, columns=["prior", "distribution", "unit", "reason"])


@lru_cache(maxsize=4)
def _shapes(curve: str, fixed: tuple[bool, ...]) -> FloatArray:
    """Return the curve's columns in the columns of the smooth model, one matrix per vertex, (V, p, q)."""
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
    """Return the two halves in level and basis, each with slope zero at the vertex."""
    # Without that condition the ripple of a basis that ends at some frequency moves the minimum by 1 % of mCB, several
    # standard errors with a thousand recipes.
    squares, right = (unit - vertex) ** 2, unit >= vertex
    halves = inverse @ np.stack([squares * ~right, squares * right], axis=1)
    below, above = _columns(np.array([vertex - _STEP, vertex + _STEP]))
    slope = (above - below) / (2.0 * _STEP)
    reach = inverse @ (inverse.T @ slope)
    return np.asarray(halves - np.outer(reach, slope @ halves) / (slope @ reach))


def _least_squares(
    design: RegimeDesign, shapes: FloatArray, share: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, int]:
    """Return each vertex's log weight, estimates, root of their covariance at unit noise, misfit; and the freedom."""
    weight = 1.0 / design.variance(np.ones(1), share)[0]
    xx, xy = np.tensordot(weight, design.xx, 1), weight @ design.xy
    gram = shapes.transpose(0, 2, 1) @ xx @ shapes
    index = np.arange(gram.shape[1])
    gram[:, index, index] *= 1.0 + _RIDGE
    target = shapes.transpose(0, 2, 1) @ xy
    inverse = np.linalg.inv(gram)
    means = (inverse @ target[..., None])[..., 0]
    misfit = weight @ design.yy - (target * means).sum(axis=1)
    freedom = int(design.count.sum()) - gram.shape[1] - (1 if len(shapes) > 1 else 0)
    return -0.5 * freedom * np.log(misfit), means, np.linalg.cholesky(inverse), misfit, freedom
