"""What a supported optimum takes for granted: one curve per regime, and recipes spread over it."""

from __future__ import annotations

import numpy as np
from scipy import stats

from popstats.arrays import FloatArray
from popstats.findings import Finding
from popstats.inference.model import OBSERVED_QUANTILES, prior_precision
from popstats.judgement.verdicts import Thresholds
from popstats.posterior.mean_curve import MeanCurve

#: Neighbours further apart than this share of the observed range belong to different clusters.
GAP = 0.05
#: Share of the recipes, those with the most room around them, that do not count in clusters.
STRAGGLERS = 0.05


def broken_premise(curve: MeanCurve, grid: FloatArray, limits: Thresholds) -> Finding | None:
    """Return why no optimum of this curve is supported, however probable it is; None where nothing speaks against it."""
    return moves_with_cost(curve, grid, limits) or few_clusters(curve.log_mcb, grid, limits)


def moves_with_cost(curve: MeanCurve, grid: FloatArray, limits: Thresholds) -> Finding | None:
    """Test whether the curve differs between the two ends of the regime: mu and mu², u the place in mCB, m in cost.

    The two columns and the drops are projected off the design, its shrinkage included, so that the coefficients are those of
    generalised least squares with the curve as a random effect.
    """
    regime, rows, design = curve.points.regime, curve.points.rows, curve.points.design
    m, u, weight = rows.offset, rows.unit, 1.0 / curve.scale**2
    columns = np.column_stack([m * u, m * u**2, rows.drop])
    weighted = design.T * weight
    penalty = prior_precision(regime.fixed, curve.hyper.length_scale, curve.hyper.amplitude)[0]
    precision = weighted @ design + np.diag(penalty)
    rest = columns - design @ np.linalg.solve(precision, weighted @ columns)
    products = (columns.T * weight) @ rest
    slopes = np.linalg.lstsq(products[:2, :2], products[:2, 2], rcond=1e-10)[0]
    explained = float(slopes @ products[:2, 2])
    freedom = u.size - float(np.trace(np.linalg.solve(precision, weighted @ design))) - 2.0
    misfit = float(weight @ (rest[:, 2] - rest[:, :2] @ slopes) ** 2)
    if freedom < 1.0 or misfit <= 0.0:
        return None
    p = float(stats.f.sf(explained / 2.0 / (misfit / freedom), 2, freedom))
    at = regime.curve_scale.to_unit(grid)
    reach = float(np.ptp(np.quantile(m, OBSERVED_QUANTILES)))
    change = float(np.ptp(np.column_stack([at, at**2]) @ slopes)) * reach * regime.scale
    if p >= limits.moving or change <= limits.rise:
        return None
    values = {"cost": "MACs" if regime.axis == "macs" else "parameters", "p": p, "change": change}
    return Finding("moves with cost", (regime.label,), values)


def few_clusters(log_mcb: FloatArray, grid: FloatArray, limits: Thresholds) -> Finding | None:
    """Count the clusters of recipes in mCB, and the share of the grid within half a gap of any, stragglers left out."""
    gap = GAP * (grid[-1] - grid[0])
    inside = np.sort(log_mcb[(log_mcb >= grid[0]) & (log_mcb <= grid[-1])])
    if inside.size < 2:
        return None
    # A recipe's room: from the recipe before it to the one after it. Tails of clusters must not bridge their gaps.
    room = np.diff(inside, prepend=2.0 * inside[0] - inside[1], append=2.0 * inside[-1] - inside[-2])
    sparse = np.argsort(room[1:] + room[:-1], kind="stable")[inside.size - int(STRAGGLERS * inside.size) :]
    inside = np.delete(inside, sparse)
    clusters = 1 + int((np.diff(inside) > gap).sum())
    after = np.searchsorted(inside, grid)
    nearest = np.minimum(
        np.abs(grid - inside[np.minimum(after, inside.size - 1)]),
        np.abs(grid - inside[np.maximum(after - 1, 0)]),
    )
    covered = float((nearest <= gap / 2.0).mean())
    if clusters > limits.clusters or covered >= limits.covered:
        return None
    return Finding("clusters", (), {"groups": clusters, "covered": covered})
