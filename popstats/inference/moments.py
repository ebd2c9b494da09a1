r"""Sums over rows of products of the design's columns: all that the rows have to say under normal noise.

A product of two sines is a difference of two cosines, so with t the angle of `curves` and w the weight

.. math:: \sum w\,\phi_i \phi_j = E_{|i-j|} - E_{i+j}, \qquad E_m = \frac{1}{2L} \sum w \cos m t .

The sums with the first and the last sine alone therefore give all E, one after the other, and with them the sines'
whole square: a million rows are multiplied by six columns instead of twenty-six.
"""

from __future__ import annotations

import numpy as np

from popstats.arrays import FloatArray
from popstats.inference.model import BOUNDARY, COLUMNS, FIXED_TERMS, SINES, fill_design

#: Rows whose design matrix is made at a time: it then stays in the processor's cache. As many are multiplied as
#: they are; of more, only what the sines' square needs.
BLOCK = 8192
#: Rows multiplied at a time: few enough that BLAS does not wake its threads, which then spin for longer than it takes.
_PRODUCT = 1024


def second_moments(
    unit: FloatArray, distance: FloatArray, technique: FloatArray, drop: FloatArray, weight: FloatArray
) -> FloatArray:
    """Return the sums over rows of w z z' with z = (design row, drop), shape (p + 1, p + 1)."""
    # unit, distance, drop, weight (n,); technique (n, T)
    if unit.size > BLOCK:
        return _by_cosines(unit, distance, technique, drop, weight)
    columns = np.empty((COLUMNS + technique.shape[1] + 1, unit.size))
    fill_design(columns, unit, distance, technique)
    # The drops as one more column: a product with a vector alone wakes BLAS's threads, which then spin.
    columns[-1] = drop
    if (weight != 1.0).any():
        columns *= np.sqrt(weight)
    return np.asarray(columns @ columns.T)


def _by_cosines(
    unit: FloatArray, distance: FloatArray, technique: FloatArray, drop: FloatArray, weight: FloatArray
) -> FloatArray:
    """Return the same, by the module's formula."""
    size = COLUMNS + technique.shape[1] + 1
    first = FIXED_TERMS + technique.shape[1]
    sines = slice(first, first + SINES)
    others = [*range(first), size - 2, size - 1]
    picked = [*others, first, first + SINES - 1]
    room, sums = np.empty((size + 1, BLOCK)), np.zeros((size + 1, len(picked)))
    weighted = bool((weight != 1.0).any())
    for start in range(0, unit.size, BLOCK):
        block = slice(start, start + BLOCK)
        columns = room[:, : unit[block].size]
        columns[-1] = fill_design(columns, unit[block], distance[block], technique[block])
        columns[-2] = drop[block]
        right = columns[picked]
        if weighted:
            right *= weight[block]
        sums += _products(columns, right)
    moments = np.empty((size, size))
    moments[:, others] = sums[:-1, :-2]
    moments[others] = sums[:-1, :-2].T
    moments[sines, sines] = _squares(sums[0, 0], sums[-1, 0], sums[sines, -2], sums[sines, -1])
    return moments


def _products(left: FloatArray, right: FloatArray) -> FloatArray:
    starts = range(0, left.shape[1], _PRODUCT)
    parts = [left[:, a : a + _PRODUCT] @ right[:, a : a + _PRODUCT].T for a in starts]
    return np.asarray(sum(parts))


def _squares(weight: float, twice_cosine: float, with_first: FloatArray, with_last: FloatArray) -> FloatArray:
    """Return the sines' sums of products from those with the first and the last sine, shape (SINES, SINES)."""
    cosines = np.empty(2 * SINES + 1)
    cosines[0], cosines[1] = weight / (2.0 * BOUNDARY), twice_cosine / (4.0 * BOUNDARY)
    for j in range(1, SINES + 1):
        cosines[j + 1] = cosines[j - 1] - with_first[j - 1]
    for j in range(1, SINES + 1):
        cosines[SINES + j] = cosines[SINES - j] - with_last[j - 1]
    order = np.arange(1, SINES + 1)
    return np.asarray(cosines[abs(order[:, None] - order)] - cosines[order[:, None] + order])
