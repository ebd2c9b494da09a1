"""What a supported optimum presupposes: one curve per regime, and independent recipes spread over it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import fdtrc, ndtr
from scipy.stats import kruskal

from popstats.arrays import BoolArray, FloatArray, IntArray
from popstats.findings import Finding, fact
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import Draws
from popstats.inference.exact import draw_regime
from popstats.inference.model import OBSERVED_QUANTILES, Priors, basis
from popstats.judgement.verdicts import Thresholds
from popstats.population.columns import COLUMNS
from popstats.population.table import RECIPE_SETTINGS, Population
from popstats.population.validation import is_single_value
from popstats.posterior.curves import curve_in_points
from popstats.posterior.mean_curve import MeanCurve
from popstats.posterior.optimum import OptimumDraws, has_optimum, read_optimum
from popstats.words import AXIS_WORDS

#: Neighbours further apart than this share of the observed range belong to different clusters.
GAP = 0.05
#: Share of the recipes, those with the most room around them, that do not count in clusters; of this many and more.
STRAGGLERS, MANY = 0.05, 100
#: Width of a group of recipes of like mCB, a share of the observed range.
ALIKE = 0.075
#: Least probability of an optimum where each group has an effect of its own; where groups share more than this much of the
#: variance about the curve they do have effects, and the probability must support the claim by itself. Measured at 60 to 400
#: recipes: families of like networks and six to twelve clusters gave 24 to 58 % false "supported", with this rule 0 to 5 %,
#: and power on smooth truths loses nothing (additive widths, 100 recipes: 71 %).
OF_GROUPS, SHARED = 0.65, 0.40
#: The same where more than this share of the recipes cost exactly what another one does: variants of one network. In
#: simulated tables of unrelated networks with variants, 5 % false "supported" become under 1 %.
OF_VARIANTS, TIED = 0.90, 0.10
#: Draws behind that probability.
GROUP_DRAWS = 1000
#: Degrees of freedom of the Student-t noise whose weights tell outliers.
FREEDOM = 4.0
#: Median absolute deviation of a standard normal variable.
NORMAL_MAD = 0.6745
#: Recipes about each whose median tells it for an outlier, at least (a twentieth of them where that is more).
NEIGHBOURS = 9
#: Least probability, with those weights, that both ends lie above the minimum by the required rise.
ROBUST = 0.80
#: Recipes per level, at least, of a column that may tell kinds of networks apart.
PER_LEVEL = 3
#: Names of number columns that hold kinds of networks rather than parts of a recipe: sizes of the input ...
_INPUTS = re.compile(r"^(img|image|input)?_?(size|res|resolution)$")
#: ... and when, where and by what search a network came about.
_ORIGINS = re.compile(
    r"^(search_?|run_?)?(year|paper|source|search|run|round|cycle|gen|generation|iter|iteration|step|trial|timestamp|date)s?(_?id)?$"
)
#: Columns of numbers are cut into at most this many levels, of at least so many recipes.
LEVELS, PER_STRETCH = 10, 10
#: A term of the cost or of a technique is told from the levels where this share of its length is left.
SEPARATE = 1e-6
#: What the order of the rows is called among the kinds, the p value from which drops follow it, and the rank correlation
#: from which the table is sorted by something: no order in time.
ORDER, FOLLOWS, SORTED = "order", 0.001, 0.98
#: Share of the standard deviation of log mCB between neighbours under which a table sweeps through mCB: a design.
SWEPT = 0.15
#: Standard deviations by which the mean of a piece of the table differs from that of the next, at least.
JUMP = 4.0


def moves_with_cost(curve: MeanCurve, grid: FloatArray, limits: Thresholds) -> Finding | None:
    """Test whether the curve differs between the two ends of the regime: mu and mu², u the place in mCB, m in cost.

    The two columns and the drops are projected off the design, its shrinkage included, so that the coefficients are those of
    generalised least squares with the curve as a random effect.
    """
    regime, rows, design = curve.rows.regime, curve.rows, curve.rows.design
    m, u, weight = rows.offset, rows.unit, 1.0 / curve.scale**2
    columns = np.column_stack([m * u, m * u**2, rows.drop])
    weighted = design.T * weight
    precision = weighted @ design + np.diag(curve.penalty)
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
    return fact("moves with cost", regime.label, cost=AXIS_WORDS[regime.axis], p=p, change=change)


def rests_on_outliers(curve: MeanCurve, grid: FloatArray, limits: Thresholds) -> Finding | None:
    """Draw the mean curve once more with Student-t weights: an end that only a few far recipes raise falls back."""
    if curve.noise != "normal":
        return None
    regime, design, drop = curve.rows.regime, curve.rows.design, curve.rows.drop
    residual = curve.residual / curve.scale
    spread = float(np.median(np.abs(residual - np.median(residual)))) / NORMAL_MAD
    hyper = curve.hyper._replace(noise=curve.hyper.noise * min(spread, 1.0), shape=np.array([FREEDOM]))
    robust = replace(curve, noise="student", hyper=hyper)
    # A recipe at the very end bends a curve towards itself: outliers are first told by the median of their neighbours.
    level = pd.Series(drop - design[:, 1 : 1 + curve.terms.size] @ curve.terms)
    ordered = level.iloc[curve.log_mcb.argsort(kind="stable")]
    window = max(NEIGHBOURS, drop.size // 20)
    middle = ordered.rolling(window, min_periods=window // 2, center=True).median()
    found = robust.coefficients(residual=(level - middle).to_numpy())
    weight = (FREEDOM + 1.0) / (FREEDOM * robust.scale**2 + (drop - design @ found) ** 2)
    covariance = np.linalg.inv((design.T * weight) @ design + np.diag(curve.penalty))
    columns = np.zeros((grid.size, found.size))
    columns[:, 1 + curve.terms.size :] = basis(regime.curve_scale.to_unit(grid))
    contrasts = columns[[0, -1]] - columns[int((columns @ found).argmin())]
    rise, error = contrasts @ found, np.sqrt(np.einsum("ei,ij,ej->e", contrasts, covariance, contrasts))
    # An end that is the minimum itself rises by nothing, with no error.
    probability = ndtr((rise - limits.rise / regime.scale) / np.maximum(error, 1e-12))
    worst = int(probability.argmin())
    if probability[worst] >= ROBUST:
        return None
    end, lifted, likely = ("low", "high")[worst], float(rise[worst]) * regime.scale, float(probability[worst])
    return fact("outliers", regime.label, end=end, rise=lifted, required=limits.rise, probability=likely)


def rests_on_groups(
    curve: MeanCurve, grid: FloatArray, limits: Thresholds, priors: Priors, seed: int
) -> Finding | None:
    """Let recipes of like mCB share an effect of their own: relatives, copies and clusters then count as one observation."""
    regime, rows, design = curve.rows.regime, curve.rows, curve.rows.design
    terms, residual, (precision, excess) = 1 + curve.terms.size, curve.residual, curve.weighed()
    group = alike(curve.log_mcb, grid)
    # Where the spread changes within the range, an end that scatters more counts less.
    squared = np.bincount(group, precision * ((residual - excess) / curve.hyper.noise[0]) ** 2)
    precision *= ((FREEDOM + np.bincount(group)) / (FREEDOM + squared))[group]
    total = np.bincount(group, precision)
    columns = np.column_stack(
        [design[:, terms:], rows.drop - excess - design[:, 1:terms] @ curve.terms, residual - excess]
    )
    means = np.array([np.bincount(group, precision * column) for column in columns.T]).T / total[:, None]
    x = np.column_stack([np.ones(total.size), np.zeros((total.size, terms - 1)), means[:, :-2]])
    grouped = replace(
        regime,
        fixed=(True, *[False] * (terms - 1)),
        replicates=total,
        count=np.ones(total.size),
        xx=x[:, :, None] * x[:, None, :],
        xy=x * means[:, -2:-1],
        yy=means[:, -2] ** 2,
        within=float(precision @ (columns[:, -1] - means[group, -1]) ** 2),
        within_df=rows.drop.size - total.size,
    )
    drawn, of_optimum = _redrawn(grouped, grid, priors, np.random.default_rng([seed, 51]))
    probability = float(has_optimum(of_optimum, limits.rise).mean())
    shared = 1.0 - float(np.median(drawn.seed_share))
    # One recipe retrained in two ways is no variant of a network.
    places = np.unique(np.column_stack([rows.unit, rows.offset, rows.technique]).round(9), axis=0)
    of_groups = OF_VARIANTS if len(places) < (1.0 - TIED) * rows.drop.size else OF_GROUPS
    if probability >= (limits.supported if shared > SHARED else of_groups):
        return None
    return fact("groups", regime.label, groups=total.size, probability=probability)


def kinds_of_networks(population: Population) -> dict[str, IntArray]:
    """Return the columns that tell kinds of networks apart, coded by row.

    They are extra columns of text, input sizes, settings of the training, and what tells when or where a network came about.
    """
    settings = {"input_size", *RECIPE_SETTINGS} - {"retraining"}
    declared, table = {c.name for c in COLUMNS} | set(population.width_columns), population.table
    found = {}
    for name in (c for c in table if c in settings or c not in declared):
        values, known = table[name], str(name).lower()
        numeric = pd.api.types.is_numeric_dtype(values) and values.dtype != bool
        dated = pd.api.types.is_datetime64_any_dtype(values)
        if dated or (numeric and (name in settings or _INPUTS.search(known) or _ORIGINS.search(known))):
            found[str(name)] = pd.factorize(_stretches(values), sort=True)[0]
        elif not numeric and (values.dtype != object or values.map(is_single_value).all()):
            codes, levels = pd.factorize(values)
            if len(levels) <= len(table) / PER_LEVEL:
                found[str(name)] = codes
    return found


def _stretches(values: pd.Series) -> pd.Series:
    """Return numbers cut into stretches of like counts where there are many; few stay as they are."""
    few = max(1, min(LEVELS, len(values) // PER_STRETCH))
    return values if values.nunique() <= few else (values.rank(pct=True) * few).map(np.ceil)


def follows_order(curve: MeanCurve, row: IntArray, widths: FloatArray | None) -> IntArray | None:
    """Return the stretch of the table that each recipe is in where drops follow the order of the rows: a log, or a stack.

    Tables sorted by something have no order in time. `row` is each recipe's in the table, (n,), `widths` theirs, (n, G).
    """
    stretch = pd.factorize(_stretches(pd.Series(row)))[0]
    parts = [curve.adjusted[stretch == k] for k in range(stretch.max() + 1)]
    if len(parts) < 2 or not kruskal(*parts).pvalue < FOLLOWS:
        return None
    ordered, log_mcb, offset = np.argsort(row, kind="stable"), curve.log_mcb, curve.rows.offset
    if np.median(np.abs(np.diff(log_mcb[ordered]))) < SWEPT * log_mcb.std():
        return None
    # The log of the cost that the regime leaves free, up to a constant.
    free = offset * curve.rows.regime.reach + (-log_mcb if curve.rows.regime.axis == "macs" else log_mcb)
    by = [curve.rows.drop, log_mcb, np.abs(log_mcb), offset, free]
    if widths is not None:  # Tables of all combinations count through the widths.
        levelled = np.column_stack([np.ones(row.size), widths])
        by += [*widths.T, levelled @ np.linalg.lstsq(levelled, row, rcond=None)[0]]
    ranks = pd.DataFrame(np.transpose([values for values in by if np.ptp(values) > 0])).rank()
    if ranks.corrwith(pd.Series(row).rank()).abs().max() > SORTED:
        return None
    # Where one table of a stack ends and another begins, a stretch would mix both.
    along = curve.adjusted[ordered]
    spread = float(np.median(np.abs(np.diff(along)))) / (NORMAL_MAD * np.sqrt(2.0))
    piece = np.searchsorted(_jumps(along, JUMP * spread), pd.Series(row).rank(method="first"), side="left")
    return pd.factorize(stretch * row.size + piece)[0]


def _jumps(values: FloatArray, least: float, start: int = 0) -> list[int]:
    """Return where the mean of values jumps, by halves: each place has a CUSUM statistic of at least `least`."""
    before = np.arange(PER_LEVEL, values.size - PER_LEVEL + 1)
    sums = np.cumsum(values - values.mean())
    size = np.abs(sums[before - 1]) / np.sqrt(before * (1.0 - before / values.size))
    if before.size == 0 or size.max() < least:
        return []
    at = int(before[size.argmax()])
    return [*_jumps(values[:at], least, start), start + at, *_jumps(values[at:], least, start + at)]


def rests_on_kinds(
    curve: MeanCurve,
    grid: FloatArray,
    holds: Callable[[OptimumDraws], BoolArray],
    kinds: Mapping[str, IntArray],
    priors: Priors,
    seed: int,
) -> Finding | None:
    """Give each kind of network a level of its own: a claim that only differences between kinds make goes.

    `kinds` holds, per column that tells kinds apart, a code per recipe of the regime.
    """
    for name, codes in kinds.items():
        level, levels = pd.factorize(codes)
        if 1 < levels.size <= level.size / PER_LEVEL:
            probability = float(holds(_within_levels(curve, grid, level, priors, seed)).mean())
            if probability < OF_GROUPS:
                kind = "order" if name == ORDER else "kinds"
                where, parts = curve.rows.regime.label, int(level.max()) + 1
                return fact(kind, where, column=name, levels=parts, probability=probability)
    return None


def _within_levels(
    curve: MeanCurve, grid: FloatArray, level: IntArray, priors: Priors, seed: int
) -> OptimumDraws:
    """Return draws of the optimum from differences within levels alone."""
    rows, regime, (precision, excess) = curve.rows, curve.rows.regime, curve.weighed()
    columns = np.column_stack([rows.design, rows.drop - excess])
    sums = pd.DataFrame(columns * precision[:, None]).groupby(level).transform("sum").to_numpy()
    total = np.bincount(level, precision)[level]
    columns += np.average(columns, axis=0, weights=precision) - sums / total[:, None]
    # Techniques that no level mixes, and costs that no level varies, cannot be told from the levels.
    terms = len(regime.fixed)
    rest = np.abs(np.diag(np.linalg.qr(columns[:, :terms], mode="r")))
    columns[:, :terms] *= rest > SEPARATE * rest[0]
    moments = (columns.T * precision) @ columns
    within = replace(
        regime,
        fixed=tuple((np.diag(moments)[:terms] > 0.0).tolist()),
        replicates=np.ones(1),
        count=np.array([level.size - level.max()], dtype=np.float64),
        xx=moments[None, :-1, :-1],
        xy=moments[None, :-1, -1],
        yy=moments[None, -1, -1],
        within=0.0,
        within_df=0,
    )
    return _redrawn(within, grid, priors, np.random.default_rng([seed, 52]))[1]


def _redrawn(
    regime: RegimeDesign, grid: FloatArray, priors: Priors, rng: np.random.Generator
) -> tuple[Draws, OptimumDraws]:
    """Draw a regime anew; returns the draws, and those of its optimum."""
    drawn = draw_regime(regime, priors, GROUP_DRAWS, rng)
    return drawn, read_optimum(grid, curve_in_points(regime, drawn.flat_coefficients[:, 0], grid))


def alike(log_mcb: FloatArray, grid: FloatArray) -> IntArray:
    """Return the group of each recipe, (n,): groups end at gaps, and where they span `ALIKE` of the observed range."""
    order = np.argsort(log_mcb, kind="stable")
    place = log_mcb[order] / (grid[-1] - grid[0])
    cluster = pd.Series(np.cumsum(np.diff(place, prepend=place[0]) > GAP))
    start, end = (pd.Series(place).groupby(cluster).transform(end).to_numpy() for end in ("first", "last"))
    # Between two gaps a cluster of up to twice that width stays one.
    steps = np.where(end - start <= 2.0 * ALIKE, 1.0, np.ceil((end - start) / ALIKE))
    step = np.minimum(np.floor((place - start) / np.maximum(end - start, 1e-12) * steps), steps - 1.0)
    group = np.empty(order.size, dtype=np.int64)
    group[order] = pd.DataFrame({"cluster": cluster, "step": step}).groupby(["cluster", "step"]).ngroup()
    return group


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
    return fact("clusters", groups=clusters, covered=covered)
