"""What a supported optimum takes for granted: one curve per regime, and recipes spread over it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import fdtrc, ndtr

from popstats.arrays import FloatArray
from popstats.findings import Finding, Value
from popstats.inference.model import OBSERVED_QUANTILES, basis, prior_precision
from popstats.judgement.verdicts import Thresholds
from popstats.posterior.mean_curve import MeanCurve

#: Neighbours further apart than this share of the observed range belong to different clusters.
GAP = 0.05
#: Share of the recipes, those with the most room around them, that do not count in clusters; of this many and more.
STRAGGLERS, MANY = 0.05, 100
#: Degrees of freedom of the Student-t noise whose weights tell outliers.
FREEDOM = 4.0
#: Median absolute deviation of a standard normal variable.
NORMAL_MAD = 0.6745
#: Least probability, with those weights, that either end lies above the minimum by the required rise.
ROBUST = 0.80


def broken_premise(curve: MeanCurve, grid: FloatArray, limits: Thresholds) -> Finding | None:
    """Return why the shape of this curve is not to be relied on, however probable; None where nothing speaks against it."""
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
    p = float(fdtrc(2.0, freedom, explained / 2.0 / (misfit / freedom)))
    # The two ends are compared over the mCB values that both have: elsewhere the interaction is an extrapolation.
    third, ends = np.quantile(m, [1.0 / 3.0, 2.0 / 3.0]), regime.curve_scale.to_unit(grid[[0, -1]])
    ranges = [ends, *(np.quantile(u[side], OBSERVED_QUANTILES) for side in (m <= third[0], m >= third[1]))]
    low, high = max(pair[0] for pair in ranges), min(pair[1] for pair in ranges)
    at = np.linspace(low, max(low, high), grid.size)
    reach = float(np.ptp(np.quantile(m, OBSERVED_QUANTILES)))
    change = float(np.ptp(np.column_stack([at, at**2]) @ slopes)) * reach * regime.scale
    if p >= limits.moving or change <= limits.rise:
        return None
    values = {"cost": "MACs" if regime.axis == "macs" else "parameters", "p": p, "change": change}
    return Finding("moves with cost", (regime.label,), values)


def rests_on_outliers(curve: MeanCurve, grid: FloatArray, limits: Thresholds) -> Finding | None:
    """Draw the mean curve once more with Student-t weights: an end that only a few far recipes raise falls back."""
    if curve.noise != "normal":
        return None
    regime, design, drop = curve.points.regime, curve.points.design, curve.points.rows.drop
    everyone = np.ones(drop.size, dtype=bool)
    residual = (drop - design @ curve.coefficients(everyone)) / curve.scale
    spread = float(np.median(np.abs(residual - np.median(residual)))) / NORMAL_MAD
    hyper = curve.hyper._replace(noise=curve.hyper.noise * min(spread, 1.0))
    robust = replace(curve, noise="student", shape=FREEDOM, hyper=hyper)
    found = robust.coefficients(everyone)
    weight = (FREEDOM + 1.0) / (FREEDOM * robust.scale**2 + (drop - design @ found) ** 2)
    penalty = prior_precision(regime.fixed, hyper.length_scale, hyper.amplitude)[0]
    covariance = np.linalg.inv((design.T * weight) @ design + np.diag(penalty))
    columns = np.zeros((grid.size, found.size))
    columns[:, 1 + curve.terms.size :] = basis(regime.curve_scale.to_unit(grid))
    contrasts = columns[[0, -1]] - columns[int((columns @ found).argmin())]
    rise, error = contrasts @ found, np.sqrt(np.einsum("ei,ij,ej->e", contrasts, covariance, contrasts))
    # An end that is the minimum itself rises by nothing, with no error.
    probability = ndtr((rise - limits.rise / regime.scale) / np.maximum(error, 1e-12))
    worst = int(probability.argmin())
    if probability[worst] >= ROBUST:
        return None
    values: dict[str, Value] = {
        "end": ("low", "high")[worst],
        "rise": float(rise[worst]) * regime.scale,
        "required": limits.rise,
        "probability": float(probability[worst]),
    }
    return Finding("outliers", (regime.label,), values)


def few_clusters(log_mcb: FloatArray, grid: FloatArray, limits: Thresholds) -> Finding | None:
    """Count the clusters of recipes in mCB, and the share of the grid within half a gap of any, stragglers left out."""
    gap = GAP * (grid[-1] - grid[0])
    inside = np.sort(log_mcb[(log_mcb >= grid[0]) & (log_mcb <= grid[-1])])
    if inside.size < 2:
        return None
    # A recipe's room: from the recipe before it to the one after it. Tails of clusters must not bridge their gaps.
    stragglers = int(STRAGGLERS * inside.size) if inside.size >= MANY else 0
    room = np.diff(inside, prepend=2.0 * inside[0] - inside[1], append=2.0 * inside[-1] - inside[-2])
    sparse = np.argsort(room[1:] + room[:-1], kind="stable")[inside.size - stragglers :]
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
