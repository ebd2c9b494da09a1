r"""Which recipes a search for a winner trains next, and which of the trained ones it chooses.

The outcome of training j of recipe i, higher being better, is

.. math:: y_{ij} = \alpha + \phi(w_i)'\beta + u_i + e_{ij}, \quad
          \beta \sim \mathrm{Normal}(0, \lambda v), \quad u_i \sim \mathrm{Normal}(0, \tau^2), \quad
          e_{ij} \sim \mathrm{Normal}(0, \sigma^2),

with phi the log-widths about uniform's, their squares and their sum, on one common scale. Rounds of Thompson draws over
trained and untrained recipes follow a pilot; the pool of recipes moves with the law's optimum; the last trainings go to
the leaders. With a scale per feature (each standardised) the regret on the tabular oracles was a sixth higher at 32
trainings and a third higher at 16: groups and bends that hardly vary then count as much as those that do.

Needs NumPy alone, so that a winner can be searched wherever `generate` runs. Every function is pure: the same
finished trainings give the same proposals, whether or not the search was interrupted.

References
----------
Thompson (1933), doi:10.1093/biomet/25.3-4.285; MacKay (1992), doi:10.1162/neco.1992.4.3.415 (ridge by evidence).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from popstats.arrays import BoolArray, FloatArray, IntArray
from popstats.errors import PlanError

#: Shares of the trainings that go to the pilot and to the leaders at the end.
PILOT, FINISH = 3 / 8, 3 / 16
#: Fewest rounds between them, and most trainings of such a round (unless there are more workers): the law learns in between.
ROUNDS, LARGEST_ROUND = 4, 7
#: Fewer trainings leave no round between pilot and finish.
LEAST_TRAININGS = 8
#: Recipes of the pool around the first baseline, around uniform, and anywhere on the budget.
POOL = (500, 300, 300)
#: Spread of log-widths around a baseline, and half-range of log shares anywhere.
SPREAD, RANGE = 0.45, 1.0
#: Candidates around the law's optimum in each round: spread of log-widths and number for each.
NEAR = ((0.12, 100), (0.3, 100))
#: An outcome is floored at the median less this many distances of the 0.9 quantile from it: a collapsed recipe says
#: where not to look, not how steep the law is.
FLOOR = 3.0
#: Prior variance of a coefficient, in units of the residual variance.
LAMBDAS: FloatArray = 2.0 ** np.arange(-8.0, 9.0)
#: Least share of the residual variance that recipes make.
LEAST_RECIPE_SHARE = 0.05
#: Degrees of freedom of the prior guess that seeds make half of the residual variance.
SEED_DF = 2.0
#: Channels that a group keeps at least.
LEAST_CHANNELS = 2
#: Guess of the standard deviation between seeds of one recipe, points.
SEED_SD = 0.5
#: Guess of the variance between images of a difference of two recipes, in units of one answer's p (1 - p): the part that
#: stays with many seeds, and the part of one seed of each.
DISAGREEMENT = (0.1, 0.8)
#: Bisections of the common factor that puts a recipe on the budget, and its reach in log-width.
_BISECTIONS, _REACH = 40, 8.0
#: Random streams of the pool and of each round.
_POOL_STREAM, _ROUND_STREAM = 1, 2

Cost = Callable[[IntArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Problem:
    """Recipes of one budget, and where the search starts."""

    cost: Cost  # widths (n, G) to shares of the original's cost on the budget's axis, (n,)
    lowest: float  # every proposed recipe's cost share lies between these
    highest: float
    full: IntArray  # (G,) the original's widths
    # (B, G) recipes that are trained in any case: first Torch-Pruning's, then uniform (uniform alone if there is one)
    baselines: IntArray
    steps: IntArray | None = None  # (G,) widths are multiples of these; by default 1
    least: IntArray | None = None  # (G,) fewest channels; by default 2, or one step where that is more
    # (n, G) the only recipes to propose, all on the budget; by default generated
    candidates: IntArray | None = None

    @cached_property
    def units(self) -> IntArray:
        """Channels in which each width changes, shape (G,)."""
        return np.ones_like(self.full) if self.steps is None else np.asarray(self.steps, dtype=np.int64)

    @cached_property
    def smallest(self) -> IntArray:
        """Fewest channels of each group, shape (G,)."""
        wanted = LEAST_CHANNELS if self.least is None else np.asarray(self.least)
        whole = -(-np.maximum(wanted, self.units) // self.units) * self.units
        return np.asarray(np.minimum(whole, self.full))

    @property
    def uniform(self) -> IntArray:
        """The uniform recipe, about which the law is centred, shape (G,)."""
        return np.asarray(self.baselines[min(1, len(self.baselines) - 1)])

    def meets(self, widths: IntArray) -> BoolArray:
        """Return which recipes lie on the budget, shape (n, G) -> (n,)."""
        share = self.cost(widths)
        return np.asarray((share >= self.lowest) & (share <= self.highest))

    def whole(self, log_widths: FloatArray) -> IntArray:
        """Return the nearest widths that the groups allow, shape (..., G)."""
        counted = np.rint(np.exp(log_widths) / self.units).astype(np.int64) * self.units
        return np.asarray(np.clip(counted, self.smallest, self.full))


def schedule(trainings: int, draws: int | None = None, given: int = 0) -> tuple[int, ...]:
    """Return the trainings of each round: pilot, rounds of draws, and two of the finish."""
    # draws: fewest trainings of a round between pilot and finish, the number of workers; given: rows of an earlier
    # population, which shorten the pilot
    if trainings < LEAST_TRAININGS:
        raise PlanError(
            f"winner: expected at least {LEAST_TRAININGS} trainings (pilot, rounds, leaders), got {trainings}"
        )
    finish = max(2, int(FINISH * trainings))
    pilot = max(4, int(PILOT * trainings) - given)
    middle = trainings - pilot - finish
    size = max(min(-(-middle // ROUNDS), LARGEST_ROUND), draws or 1)
    between = [min(size, middle - start) for start in range(0, middle, size)]
    # A last round smaller than the workers would leave some of them idle.
    if len(between) > 1 and between[-1] < (draws or 1):
        between[-2:] = [sum(between[-2:])]
    return pilot, *between, finish - finish // 2, finish // 2


def propose(
    problem: Problem,
    trained: npt.ArrayLike,
    outcome: npt.ArrayLike,
    *,
    trainings: int,
    seed: int = 0,
    draws: int | None = None,
    given: int = 0,
) -> IntArray:
    """Return the recipes of the next round, one row per training; none when the search is over, (k, G)."""
    # trained (m, G): widths of the finished trainings in the order of their proposal, none: the pilot is proposed.
    # outcome (m,): the higher the better, NaN where a training failed. trainings: of the whole search; draws: as in
    # `schedule`. The first `given` rows come from an earlier population: they do not count, and have a level of their own.
    # A recipe that comes twice is trained with two seeds.
    history = _History.of(problem, trained, outcome, given)
    ends = np.cumsum(schedule(trainings, draws, given))
    place = int(np.searchsorted(ends, history.counted, side="right"))
    if place == len(ends):
        return np.empty((0, problem.full.size), dtype=np.int64)
    size = int(ends[place]) - history.counted
    pool = _pool(problem, np.random.default_rng([seed, _POOL_STREAM]))
    if place == 0:
        # Torch-Pruning's recipe twice, the other baselines once, the rest from the pool.
        first = problem.baselines[: int(len(problem.baselines) > 1)]
        rows = np.vstack([first, problem.baselines, pool[~_member(pool, problem.baselines)]])
        return rows[np.arange(history.counted, int(ends[0])) % len(rows)]
    rng = np.random.default_rng([seed, _ROUND_STREAM, history.counted])
    law = Law.through(history)
    if place >= len(ends) - 2:
        # The leaders by posterior mean, round and round until the trainings are spent.
        leaders = size if place == len(ends) - 2 else max(2, int(ends[-1] - ends[-3]) // 4)
        return history.recipes[np.resize(history.leaders(law)[:leaders], size)]
    return _draw_round(problem, pool, history, law, size, rng)


def choose(problem: Problem, trained: npt.ArrayLike, outcome: npt.ArrayLike, *, given: int = 0) -> IntArray:
    """Return the trained recipe with the best posterior mean, (G,); arguments as in `propose`."""
    history = _History.of(problem, trained, outcome, given)
    best: IntArray = history.recipes[history.leaders(Law.through(history))[0]]
    return best


@dataclass(frozen=True)
class Gain:
    """What a recipe gains over another, points, with its 90 % equal-tailed interval."""

    mean: float
    lower: float
    upper: float


def gain_over(winner: npt.ArrayLike, baseline: npt.ArrayLike) -> Gain:
    """Return the gain of one recipe over another, from seeds and images that chose neither."""
    # Accuracies in percent of at least two trainings of each, (seeds,), or one value per image, (seeds, images), the same
    # images for both: only then does the interval hold for other images of the kind. Seeds and images are crossed: the
    # variance of the difference is that of the seeds' means, plus that of the images' differences, less the residual that
    # both contain. Degrees of freedom: Satterthwaite (1946), doi:10.2307/3002019.
    one, other = (np.asarray(v, dtype=np.float64).reshape(len(np.asarray(v)), -1) for v in (winner, baseline))
    if min(len(one), len(other)) < 2 or one.shape[1] != other.shape[1]:
        raise PlanError(
            "winner: a gain needs at least two seeds of each recipe, on the same images; got values of shapes "
            f"{np.shape(winner)} and {np.shape(baseline)}"
        )
    mean = float(one.mean() - other.mean())
    parts = [(v.mean(axis=1).var(ddof=1) / len(v), len(v) - 1) for v in (one, other)]
    images, twice = one.shape[1], 0.0
    if images > 1:
        parts.append(((one.mean(axis=0) - other.mean(axis=0)).var(ddof=1) / images, images - 1))
        for v in (one, other):  # What neither seeds nor images explain.
            rest = v - v.mean(axis=0) - v.mean(axis=1, keepdims=True) + v.mean()
            twice += float((rest**2).sum()) / ((len(v) - 1) * (images - 1)) / v.size
    variance = max(sum(part for part, _ in parts) - twice, max(part for part, _ in parts))
    df = variance**2 / max(sum(part**2 / free for part, free in parts), 1e-300)
    half = t_quantile(max(df, 1.0)) * variance**0.5
    return Gain(mean, mean - half, mean + half)


def by_layer(
    layers: Mapping[str, Mapping[str, Any]], full: Mapping[str, float], widths: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Return what each layer keeps, and the ratios with which Torch-Pruning 1.6.1 cuts exactly these widths."""
    # layers: as `costs.json` has them; full and widths by group
    kept, ratios = {}, {}
    for name, layer in layers.items():
        group, outputs = layer["group"], layer["of"]
        if group is not None:
            gone = sum(n * (full[g] - widths[g]) for g, n in layer["per_channel"].items())
            kept[name] = {"channels": round(outputs - gone), "of": outputs, "ratio": gone / outputs}
        # It keeps the whole part of width x (1 - ratio): half a channel more keeps rounding errors away from it.
        pruned = group is not None and widths[group] < full[group]
        ratios[name] = 1 - (widths[group] + 0.5) / full[group] if pruned else 0.0
    return {"layers": kept, "torch_pruning": ratios}


def smallest_gain(seeds: int, images: int, *, seed_sd: float = SEED_SD, accuracy: float = 90.0) -> float:
    """Return the smallest gain, in points, that lies above its own interval with this many seeds and images."""
    own, by_seed = DISAGREEMENT
    of_images = (own + by_seed / seeds) * accuracy * (100.0 - accuracy)
    return float(t_quantile(2 * seeds - 2) * (2 * seed_sd**2 / seeds + of_images / images) ** 0.5)


def t_quantile(df: float) -> float:
    """Return the 95 % quantile of Student's t: the half-width of a 90 % interval."""
    # With t = sqrt(df) tan(angle), the density of the angle is proportional to cos(angle) ** (df - 1).
    angle = np.linspace(0.0, np.pi / 2, 20_001)[:-1]
    density = np.exp((df - 1) * np.log(np.cos(angle)))
    share = np.cumsum(density) / density.sum()
    return float(np.sqrt(df) * np.tan(np.interp(0.9, share, angle)))


@dataclass(frozen=True, eq=False)
class _History:
    """The finished trainings, by recipe."""

    problem: Problem
    recipes: IntArray  # (R, G) different ones with an outcome; those of an earlier population apart
    mean: FloatArray  # (R,) of the outcomes
    runs: FloatArray  # (R,) number of outcomes
    within: float  # squared deviations of the outcomes from their recipe's mean
    df: float  # their degrees of freedom
    earlier: BoolArray  # (R,) whether the outcomes come from an earlier population
    # (R,) whether the recipe can win: trained in this search, on the budget or a baseline
    eligible: BoolArray
    failed: IntArray  # (f, G) recipes without any outcome
    counted: int  # trainings of this search

    @classmethod
    def of(cls, problem: Problem, trained: npt.ArrayLike, outcome: npt.ArrayLike, given: int) -> _History:
        widths = np.asarray(trained, dtype=np.int64).reshape(-1, problem.full.size)
        y = np.asarray(outcome, dtype=np.float64).ravel()
        if len(widths) != len(y) or given > len(y):
            raise PlanError(
                f"winner: expected one outcome per training and at least {given} trainings, got {len(widths)} "
                f"trainings and {len(y)} outcomes"
            )
        earlier = np.arange(len(y)) < given
        known = np.isfinite(y)
        keyed = np.column_stack([earlier, widths])[known]
        unique, place = np.unique(keyed, axis=0, return_inverse=True)
        runs = np.bincount(place.ravel(), minlength=len(unique)).astype(np.float64)
        floored = _floored(y[known], earlier[known])
        mean = np.bincount(place.ravel(), floored, minlength=len(unique)) / np.maximum(runs, 1)
        recipes = unique[:, 1:].reshape(-1, problem.full.size)
        old = unique[:, 0].astype(bool)
        fine = problem.meets(recipes) | _member(recipes, problem.baselines) if len(recipes) else old
        return cls(
            problem, recipes, mean, runs,
            within=float(((floored - mean[place.ravel()]) ** 2).sum()), df=float((runs - 1).sum()),
            earlier=old, eligible=fine & ~old, failed=widths[~known], counted=len(y) - given,
        )  # fmt: skip

    def leaders(self, law: Law) -> IntArray:
        """Return the recipes that can win, best posterior mean first."""
        order = np.argsort(-law.known(), kind="stable")
        return np.asarray(order[self.eligible[order]])


def _floored(outcome: FloatArray, part: BoolArray) -> FloatArray:
    """Floor the outcomes of either part of the trainings."""
    floored = outcome.copy()
    for rows in (part, ~part):
        if rows.any():
            median = float(np.median(outcome[rows]))
            above = max(float(np.quantile(outcome[rows], 0.9)) - median, 1e-6)
            floored[rows] = np.maximum(outcome[rows], median - FLOOR * above)
    return floored


def _features(widths: IntArray, problem: Problem) -> FloatArray:
    """Return the law's features, (n, G) -> (n, 2 G + 1)."""
    distance = np.log(widths / problem.uniform)
    return np.hstack([distance, distance**2, distance.sum(axis=1, keepdims=True)])


@dataclass(frozen=True, eq=False)
class Law:
    """Posterior of the law and of the trained recipes' own effects."""

    centre: FloatArray  # (p,) mean of the features over the trained recipes
    spread: float  # their common scale
    shift: float  # level of the outcomes
    mean: FloatArray  # (c,) posterior mean of level and coefficients
    root: FloatArray  # (c, c) Cholesky factor of their covariance
    rows: FloatArray  # (R, c) columns of the trained recipes; one more where some come from elsewhere
    residual: FloatArray  # (R,) distance of each trained recipe from the law
    shrinkage: FloatArray  # (R,) share of it that is the recipe's own
    recipe_variance: float
    seed_variance: float

    @classmethod
    def through(cls, history: _History) -> Law:
        """Fit the law to the mean outcomes of the recipes."""
        if not history.eligible.any():
            raise PlanError("winner: no training of the search has succeeded, so nothing can be proposed")
        mean, earlier = history.mean, history.earlier
        features = _features(history.recipes, history.problem)
        centre, spread = features.mean(axis=0), float(features.std(axis=0).mean()) + 1e-9
        scaled = (features - centre) / spread
        levels = 1 + int(earlier.any() and not earlier.all())
        free = np.column_stack([np.ones(len(mean)), earlier])[:, :levels]
        df_level = max(len(mean) - free.shape[1], 1)
        ridge = Ridge.of(free, scaled, mean, LAMBDAS, df_level + 2.0, 2e-9)
        residual_variance = ridge.squares / df_level
        seed = min((history.within + residual_variance) / (history.df + SEED_DF), residual_variance)
        recipe = max(residual_variance - seed, LEAST_RECIPE_SHARE * residual_variance)
        variance = recipe + seed / history.runs
        rows = np.hstack([free, scaled])
        flat = np.full(free.shape[1], 1e-8)
        precision = np.r_[flat, np.full(scaled.shape[1], 1 / (ridge.ratio * residual_variance))]
        covariance = np.linalg.inv((rows / variance[:, None]).T @ rows + np.diag(precision))
        shift = float(mean.mean())
        beta = covariance @ (rows.T @ ((mean - shift) / variance))
        root = np.linalg.cholesky(covariance + 1e-14 * np.eye(len(beta)))
        residual = mean - shift - rows @ beta
        return cls(centre, spread, shift, beta, root, rows, residual, recipe / variance, recipe, seed)

    def columns(self, features: FloatArray) -> FloatArray:
        """Return the law's columns at recipes of this search, shape (n, p) -> (n, columns)."""
        scaled = (features - self.centre) / self.spread
        level = np.zeros((len(features), self.mean.size - scaled.shape[1]))
        level[:, 0] = 1.0
        return np.hstack([level, scaled])

    def expected(self, features: FloatArray) -> FloatArray:
        """Return the law's mean outcome, (n, p) -> (n,)."""
        return np.asarray(self.shift + self.columns(features) @ self.mean)

    def known(self) -> FloatArray:
        """Return the posterior mean outcome of the trained recipes, own effects included, shape (R,)."""
        own = self.shrinkage * self.residual
        return np.asarray(self.shift + self.rows @ self.mean + own)

    def draw(self, columns: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Draw the outcomes of recipes jointly: those of the n `columns`, of which the first R are the trained ones."""
        beta = self.mean + self.root @ rng.standard_normal(self.mean.size)
        outcome = self.shift + columns @ beta
        trained = self.rows @ beta
        own = self.shrinkage * (self.residual + self.rows @ self.mean - trained)
        noise = np.sqrt(self.recipe_variance * (1 - self.shrinkage)) * rng.standard_normal(len(trained))
        outcome[: len(trained)] = self.shift + trained + own + noise
        return np.asarray(outcome)


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge regression whose prior variance has the largest marginal likelihood."""

    evidence: float  # log marginal likelihood, up to a constant
    ratio: float  # prior variance of a coefficient over the residual variance
    squares: float  # sum of squares at that ratio
    left: FloatArray  # (n, k) singular vectors and values of the columns, the free ones taken out
    spread: FloatArray  # (k,)
    axes: FloatArray  # (k, p)
    along: FloatArray  # (k,) outcome along the left vectors

    @classmethod
    def of(
        cls, free: FloatArray, x: FloatArray, y: FloatArray, lambdas: FloatArray, df: float, prior: float
    ) -> Ridge:
        """Fit columns x beside unshrunk ones, the residual variance given `df` and a `prior` sum of squares."""
        # free (n, f); x (n, p); y (n,)
        basis = np.linalg.qr(free)[0]
        y = y - basis @ (basis.T @ y)
        left, spread, axes = _singular(x - basis @ (basis.T @ x))
        along = left.T @ y
        gain = 1.0 + lambdas[:, None] * spread**2
        squares = (along**2 / gain).sum(axis=1) + max(float(y @ y - along @ along), 0.0) + prior
        evidence = -0.5 * np.log(gain).sum(axis=1) - 0.5 * df * np.log(squares)
        best = int(evidence.argmax())
        chosen, ratio, least = (float(values[best]) for values in (evidence, lambdas, squares))
        return cls(chosen, ratio, least, left, spread, axes, along)


def _singular(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the singular vectors and values of a matrix, without its null space."""
    if x.shape[1] <= x.shape[0]:
        left, spread, right = np.linalg.svd(x, full_matrices=False)
        kept = spread > 1e-9 * max(float(spread[0]), 1e-300)
        return left[:, kept], spread[kept], right[kept]
    # Several times faster where there are more columns than rows; half of the digits are enough.
    values, left = np.linalg.eigh(x @ x.T)
    kept = values > 1e-12 * max(float(values[-1]), 1e-300)
    left, spread = left[:, kept], np.sqrt(values[kept])
    return left, spread, (left.T @ x) / spread[:, None]


def _pool(problem: Problem, rng: np.random.Generator) -> IntArray:
    """Return recipes on the budget in random order, shape (n, G)."""
    if problem.candidates is not None:
        return rng.permutation(_unique(np.asarray(problem.candidates, dtype=np.int64)))
    groups = problem.full.size
    centres = [np.log(problem.baselines[0]), np.log(problem.uniform)]
    around = [c + SPREAD * rng.standard_normal((n, groups)) for c, n in zip(centres, POOL[:2], strict=True)]
    anywhere = np.log(problem.full) + rng.uniform(-RANGE, RANGE, (POOL[2], groups))
    pool = meet_budget(problem, np.vstack([*around, anywhere]), rng)
    if not len(pool):
        raise PlanError(
            f"winner: no recipe costs between {problem.lowest:.2%} and {problem.highest:.2%} of the original with at "
            "least two channels in every group; ask for a smaller reduction"
        )
    return rng.permutation(pool)


def meet_budget(problem: Problem, log_widths: FloatArray, rng: np.random.Generator) -> IntArray:
    """Return different whole widths on the budget, (n, G) -> (k, G); those that two moves cannot repair are left out."""
    middle = (problem.lowest + problem.highest) / 2
    shifts = common_shifts(lambda s: problem.cost(problem.whole(log_widths + s)), middle, len(log_widths))
    under, over = (problem.whole(log_widths + shift) for shift in shifts)
    nearer = np.abs(problem.cost(over) - middle) < np.abs(problem.cost(under) - middle)
    widths = np.where(nearer[:, None], over, under)
    fine = problem.meets(widths)
    for row in np.flatnonzero(~fine):
        widths[row], fine[row] = _repaired(problem, widths[row], rng)
    return _unique(widths[fine])


def common_shifts(
    cost: Callable[[FloatArray], FloatArray], budget: float, n: int, reach: float = _REACH
) -> tuple[FloatArray, FloatArray]:
    """Return the largest shift of each recipe's log-widths within the budget, and the smallest above it, (n, 1) each."""
    low, high = np.full((n, 1), -reach), np.full((n, 1), reach)
    for _ in range(_BISECTIONS):
        centre = (low + high) / 2
        above = (cost(centre) > budget)[:, None]
        low, high = np.where(above, low, centre), np.where(above, centre, high)
    return low, high


def _repaired(problem: Problem, widths: IntArray, rng: np.random.Generator) -> tuple[IntArray, bool]:
    """Return a recipe on the budget up to two units of one group, or one of each of two, away; and whether there is one."""
    unit = np.diag(problem.units)
    i, j = np.triu_indices(len(unit), 1)
    one = np.vstack([k * unit for k in (-2, -1, 1, 2)])
    two = np.vstack([a * unit[i] + b * unit[j] for a in (-1, 1) for b in (-1, 1)])
    for moves in (one, two):
        tried = widths + moves
        inside = ((tried >= problem.smallest) & (tried <= problem.full)).all(axis=1)
        tried = tried[inside]
        tried = tried[problem.meets(tried)] if len(tried) else tried
        if len(tried):
            return tried[rng.integers(len(tried))], True
    return widths, False


def _draw_round(
    problem: Problem, pool: IntArray, history: _History, law: Law, size: int, rng: np.random.Generator
) -> IntArray:
    """Return a round's recipes: each wins one joint draw, none twice."""
    known = history.recipes[history.eligible]
    pool = np.vstack([known, pool])
    if problem.candidates is None:  # The pool moves with the law's optimum.
        best = np.log(pool[law.expected(_features(pool, problem)).argmax()])
        near = [best + sd * rng.standard_normal((n, best.size)) for sd, n in NEAR]
        pool = np.vstack([pool, meet_budget(problem, np.vstack(near), rng)])
    untrained = _unique(pool[~_member(pool, history.failed) & ~_member(pool, known)])
    pool = np.vstack([history.recipes, untrained])
    columns = law.columns(_features(pool, problem))
    open_to = np.r_[history.eligible, np.ones(len(untrained), dtype=bool)]
    picked: list[int] = []
    for _ in range(min(size, int(open_to.sum()))):
        outcome = law.draw(columns, rng)
        outcome[~open_to] = -np.inf
        picked.append(int(outcome.argmax()))
        open_to[picked[-1]] = False
    return pool[picked]


def _unique(widths: IntArray) -> IntArray:
    """Return the different recipes in the order in which they first come."""
    return widths[np.sort(np.unique(widths, axis=0, return_index=True)[1])]


def _member(widths: IntArray, others: IntArray) -> BoolArray:
    """Return which recipes are among the others, (n, G) and (m, G) -> (n,)."""
    known = {row.tobytes() for row in np.ascontiguousarray(others, dtype=np.int64)}
    return np.array([row.tobytes() in known for row in np.ascontiguousarray(widths)], dtype=bool)
