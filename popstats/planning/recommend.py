"""`popstats.recommend` and `popstats.frontier`: which widths at a budget, and how far to prune for a given drop."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from popstats.arrays import FloatArray
from popstats.errors import PopulationError
from popstats.inference.draws import INTERVAL_MASS, interval
from popstats.planning.budget_law import (
    FEWEST_RECIPES,
    SUPPORTED_FACTOR,
    BudgetLaw,
    WidthTable,
    law_at,
    width_table,
)
from popstats.planning.propose import by_layer
from popstats.planning.search import Search, write_space
from popstats.population.recipes import CostForm, cost_form, prepared_recipes
from popstats.population.regimes import Axis
from popstats.population.table import Population, folder_for
from popstats.words import (
    AXIS_WORDS,
    INTERVAL_WORDS,
    html_of,
    interval_words,
    join_words,
    number,
    percent,
    points,
    with_interval,
)

#: Budgets of a frontier.
FRONTIER = 25
#: Halvings that place the largest reduction of a tolerated drop between two budgets of a frontier.
_HALVINGS = 5
#: Listed candidates may cost this much less than the budget and still be ranked: cheaper ones answer another budget.
CHEAPEST = 2.0 / 3.0
#: Up to this many different non-integer widths are taken as the only possible ones.
_LEVELS = 64
#: Other widths that are no whole numbers (densities) are given in this share of the original's.
_FINE = 1e-3
#: Names of the two recipes, and what their table shows beside the widths.
_NAMES = ("recommended", "uniform")
_COLUMNS = ("name", "macs", "params", "mcb", "drop", "drop_lower", "drop_upper")
#: What a frontier shows of the recommended recipe.
_FRONTIER_COLUMNS = ("reduction", *_COLUMNS[1:], "gain", "gain_lower", "gain_upper")
#: Draws behind the interval of a gain.
_DRAWS = 4000
#: The most even candidate is looked for among those that cost at least this share of the budget, where there are any.
USED = 0.9
#: A recipe is uniform where the shares that its groups keep differ by so many units of the widest step, and so little.
_EVEN_STEPS, _EVEN_SHARES = 2.0, 0.25
#: More groups than this are not named in a sentence.
GROUPS_NAMED = 12


@dataclass(frozen=True, eq=False)
class RecipePrediction:
    """One recipe, its costs and its predicted drop."""

    name: str  # "recommended" or "uniform".
    widths: dict[str, float]  # Channels kept in each group, in the table's unit.
    ratios: dict[str, float]  # Fraction removed of each group.
    macs: float  # In the table's unit; NaN where the table does not tell.
    params: float
    mcb: float  # FLOPs-to-parameters ratio relative to the original's.
    drop: float  # Predicted drop in accuracy, points, with its 90 % interval for this recipe.
    drop_lower: float
    drop_upper: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Recommendation(RecipePrediction):
    """The recipe that the width law predicts best at a budget, beside uniform pruning.

    Attributes
    ----------
    widths, ratios : dict of str to float
        Channels kept in each group, in the table's unit, and the fraction removed.
    macs, params, mcb : float
        Costs in the table's unit (NaN where the table does not tell) and their ratio relative to the original's.
    drop, drop_lower, drop_upper : float
        Predicted drop in accuracy, percentage points, and its 90 % interval for this recipe.
    axis : {"macs", "params"}
        What the budget limits.
    reduction : float
        Share of the original's cost that goes at least.
    uniform : RecipePrediction
        The recipe that keeps the same fraction of every group, with the same attributes.
    gain, gain_lower, gain_upper : float
        Predicted gain over uniform, percentage points, with its 90 % interval; NaN ends where this table cannot tell.
    technique : str
        Retraining technique that the drops hold for; "" where the table does not say.
    n_recipes : int
        Recipes that the law was fitted to.
    note : str
        What limits the prediction; "" if nothing does.
    ranking : pandas.DataFrame or None
        With `candidates`: those within the budget, best first, with `drop`, `drop_lower`, `drop_upper`.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population("additive-widths", regimes=[0.6, 0.8], n=150, rise=1.0)
    >>> found = popstats.recommend(population, reduction=0.7)
    >>> list(found.widths) == list(found.uniform.widths), found.gain_lower < found.gain < found.gain_upper
    (True, True)
    """

    axis: Axis
    reduction: float
    uniform: RecipePrediction
    gain: float
    gain_lower: float
    gain_upper: float
    technique: str
    n_recipes: int
    note: str
    _made: dict[str, Any] = field(default_factory=dict)  # what recipe.json says of the network and its layers
    _rival: str = "uniform pruning"
    _achieved: float = 0.0  # share of the original's cost that the recipe really removes
    _bands: dict[str, tuple[float, float]] = field(default_factory=dict)
    ranking: pd.DataFrame | None = None

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each of the two recipes: name, macs, params, mcb, drop with its interval, and the widths."""
        both = (self, self.uniform)
        return pd.DataFrame([{name: getattr(r, name) for name in _COLUMNS} | r.widths for r in both])

    @property
    def sentence(self) -> str:
        """What to do, and how sure that is."""
        kept = [f"{g} {w:{'g' if w == round(w) else '.3g'}}" for g, w in self.widths.items()]
        shown = join_words(kept) if len(kept) <= GROUPS_NAMED else f"the widths listed for {len(kept)} groups"
        trained = f" after {self.technique}" if self.technique else ""
        gain = f"{number(abs(self.gain))} points {'less' if self.gain >= 0 else 'more'} than {self._rival}"
        if self.widths == self.uniform.widths:
            gain = f"the same recipe as {self._rival}"
        elif np.isfinite(self.gain_lower):
            gain += f" ({INTERVAL_WORDS} {interval_words(self.gain_lower, self.gain_upper)})"
        text = (
            f"To remove at least {percent(self.reduction)} of the {AXIS_WORDS[self.axis]}, keep {shown}. Predicted "
            f"drop{trained}: {number(self.drop)} points ({INTERVAL_WORDS} "
            f"{interval_words(self.drop_lower, self.drop_upper)}), {gain}."
        )
        return f"{text} {self.note}".rstrip()

    def to_json(self, path: str | Path) -> Path:
        """Write the recipe as recipe.json, version 1; layer by layer too, where the table comes from a run.

        Raises
        ------
        PopulationError
            If the folder does not exist and cannot be made.
        """
        target = Path(path)
        folder_for(target)
        gain = [self.gain, self.gain_lower, self.gain_upper]
        content = {
            "version": 1,
            **self._made,
            "axis": self.axis,
            "reduction": self.reduction,
            "macs": _number(self.macs),
            "params": _number(self.params),
            "widths": {group: _number(width) for group, width in self.widths.items()},
            "ratios": self.ratios,
            "gains": [],
            "predicted": {
                "drop": [self.drop, self.drop_lower, self.drop_upper],
                "gain_over_uniform": gain if np.isfinite(self.gain_lower) else gain[:1],
                "note": self.note,
            },
        }
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return target

    def to_toml(self, path: str | Path) -> Path:
        """Write a recipe space that holds this recipe alone, for a plan's ``space = "refined:FILE"``.

        Raises
        ------
        PopulationError
            If the folder does not exist and cannot be made.
        """
        entries = {"axis": self.axis, "target": self._achieved, "kind": "widths"}
        return write_space(path, [self.sentence], entries, self._bands)

    def __repr__(self) -> str:
        return f"<Recommendation: {self.sentence}>"

    def _repr_html_(self) -> str:
        return html_of(self.sentence, self.frame)


def recommend(
    population: Population,
    reduction: float | None = None,
    *,
    drop: float | None = None,
    axis: Axis | None = None,
    candidates: pd.DataFrame | None = None,
) -> Recommendation:
    """Recommend the widths for a budget, or the largest reduction for a tolerated drop.

    Parameters
    ----------
    population : Population
        With widths.
    reduction : float, optional
        Share of the original's cost to remove at least, between 0 and 1.
    drop : float, optional
        Instead: the largest reduction whose predicted drop is at most this many points with probability 0.95.
    axis : {"macs", "params"}, optional
        What the budget limits; default: the plan's axis, MACs where there is no plan.
    candidates : pandas.DataFrame, optional
        Recipes to choose from, one per row: a column per group (`population.group_names`), `macs` and `params`. For
        tables whose costs do not follow from the widths: there, the table's own recipes are the default.

    Returns
    -------
    Recommendation

    Raises
    ------
    PopulationError
        If the table has no widths; if the budget lies outside what the trained
        recipes support; if an argument is not legal.

    Notes
    -----
    A law in the log-widths is fitted to recipes of about that cost. The recommended recipe is its optimum among the
    recipes within the budget whose widths stay in the trained range and of which the law is as certain as of trained
    ones. Predicted improvement beyond the best fitted value of the trained recipes is extrapolation: its realised
    share is taken as uniform between 0 and 1, so that half of it enters the prediction and the rest the interval.
    Intervals hold for the recipe, its own distance from the law included; where the table has one seed per recipe,
    they hold for one training.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population("additive-widths", regimes=[0.6, 0.8], n=150, rise=1.0)
    >>> found = popstats.recommend(population, reduction=0.7)
    >>> found.macs <= 0.3 * population.original.macs, found.drop < found.uniform.drop + 0.2
    (True, True)
    """
    if (reduction is None) == (drop is None):
        raise PopulationError(
            "recommend: expected either reduction= (a budget) or drop= (a tolerated drop in points), got "
            f"{'neither' if reduction is None else 'both'}"
        )
    engine = _Recommender.of(population, axis, candidates)
    if reduction is None:
        return engine.for_drop(_finite("drop", drop, "a number of points"))
    return engine.at(_checked(reduction, engine.table))


def frontier(population: Population, *, axis: Axis | None = None) -> pd.DataFrame:
    """Predict the drop of the best recipe and of uniform pruning over all supported reductions.

    Parameters
    ----------
    population : Population
        With widths, from which costs follow.
    axis : {"macs", "params"}, optional
        As for `recommend`.

    Returns
    -------
    pandas.DataFrame
        One row per reduction: reduction; macs, params, mcb of the recommended recipe; drop, drop_lower, drop_upper;
        uniform_drop, uniform_lower, uniform_upper; gain, gain_lower, gain_upper. Points and 90 % intervals.

    Raises
    ------
    PopulationError
        As for `recommend`.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population("additive-widths", regimes=[0.6, 0.8], n=150, rise=1.0)
    >>> frame = popstats.frontier(population)
    >>> bool((frame["drop_lower"] < frame["drop"]).all()), frame["reduction"].is_monotonic_increasing
    (True, True)
    """
    engine = _Recommender.of(population, axis)
    rows = [
        {name: getattr(r, name) for name in _FRONTIER_COLUMNS}
        | {f"uniform_{name.removeprefix('drop_')}": getattr(r.uniform, name) for name in _COLUMNS[-3:]}
        for r in map(engine.at, engine.budgets)
    ]
    return pd.DataFrame(rows)


def _finite(name: str, value: object, expected: str) -> float:
    known = isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)
    if not known:
        raise PopulationError(f"recommend: {name}: expected {expected}, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def _checked(reduction: float | None, table: WidthTable) -> float:
    """Return the reduction if the table's recipes support it."""
    expected = "a fraction between 0 and 1"
    found = _finite("reduction", reduction, expected)
    if not 0.0 < found < 1.0:
        hint = f"; for {found:g} % write {found / 100:g}" if 1.0 < found < 100.0 else ""
        raise PopulationError(f"recommend: reduction: expected {expected}, got {found:g}{hint}")
    table.require_support(found)
    return found


@dataclass(frozen=True, eq=False)
class _Recommender:
    """What is the same for every budget: the table, exact costs or a list of candidates, and whole units."""

    table: WidthTable
    cost: CostForm | None  # on the axis; None with candidates
    units: FloatArray  # (G,)
    listed: pd.DataFrame | None
    trained: bool = False  # whether the candidates are the table's own recipes

    @classmethod
    def of(
        cls, population: Population, axis: Axis | None, candidates: pd.DataFrame | None = None
    ) -> _Recommender:
        if not isinstance(population, Population):
            raise PopulationError(
                f"recommend: expected a Population, got {type(population).__name__}; popstats.load_population reads one"
            )
        if axis not in (None, "macs", "params"):
            raise PopulationError(f"recommend: axis: expected 'macs' or 'params', got {axis!r}")
        table = width_table(population, axis or population.regime_axis)
        if not table.supported():
            raise PopulationError(
                f"{population.name}: {len(table.outcome)} recipes are too few for a recommendation: no {FEWEST_RECIPES} of "
                f"them have {AXIS_WORDS[table.axis]} within a factor of {SUPPORTED_FACTOR:g}. Train more, of similar cost"
            )
        units = _units(table)
        if candidates is not None:
            return cls(table, None, units, _checked_candidates(candidates, population))
        cost = cost_form(population, table.axis)
        if cost is not None:
            return cls(table, cost, units, None)
        # Where costs do not follow from the widths, the candidates are the recipes whose costs are known: the table's.
        assert population.widths is not None
        first = prepared_recipes(population, population.regime_axis).first
        own = pd.DataFrame(population.widths[first], columns=list(population.group_names))
        costs = {name: population.table[name].to_numpy()[first] for name in ("macs", "params")}
        return cls(table, None, units, own.assign(**costs), trained=True)

    @property
    def budgets(self) -> list[float]:
        """Supported reductions, even in log remaining cost; those that some recipe meets where recipes are listed."""
        ranges = self.table.supported()
        grid = -np.expm1(np.linspace(np.log1p(-ranges[0][0]), np.log1p(-ranges[-1][1]), FRONTIER))
        grid[0], grid[-1] = ranges[0][0], ranges[-1][1]  # to the digit
        held = [any(low <= r <= high for low, high in ranges) for r in grid]
        grid = grid[np.array(held)]
        if self.listed is not None:
            cost = self.listed[self.table.axis].to_numpy(dtype=np.float64)
            amount = (1.0 - grid[:, None]) * getattr(self.table.population.original, self.table.axis)
            grid = grid[((cost <= amount) & (cost >= CHEAPEST * amount)).any(axis=1)]
            if not grid.size:
                raise PopulationError(self._none_listed("a supported budget"))
        return [float(reduction) for reduction in grid]

    def at(self, reduction: float) -> Recommendation:
        """Return the recommendation for one budget."""
        table = self.table
        law = law_at(table, float(np.log1p(-reduction)))
        amount = (1.0 - reduction) * getattr(table.population.original, table.axis)
        found = self._searched(law, amount) if self.cost is not None else self._ranked(law, amount)
        return self._compared(law, reduction, amount, *found)

    def for_drop(self, tolerated: float) -> Recommendation:
        """Return the recommendation for the largest reduction whose drop is tolerable with probability 0.95."""
        harsher: Recommendation | None = None
        for reduction in self.budgets[::-1]:
            found = self.at(reduction)
            if found.drop_upper > tolerated:
                harsher = found
            elif harsher is None:
                limit = "Recipes pruned further may do as well: this is the largest reduction that the table supports."
                return replace(found, note=f"{found.note} {limit}".lstrip())
            else:  # Bisect; listed recipes leave no more to find.
                for _ in range(_HALVINGS if self.cost is not None else 0):
                    middle = self.at((found.reduction + harsher.reduction) / 2.0)
                    found, harsher = (middle, harsher) if middle.drop_upper <= tolerated else (found, middle)
                return found
        assert harsher is not None
        raise PopulationError(
            f"{self.table.population.name}: no supported reduction keeps the drop at {points(tolerated)} or less with "
            f"probability 0.95: even {percent(harsher.reduction)} of the {AXIS_WORDS[self.table.axis]} removed is "
            f"predicted to cost {with_interval(harsher.drop, harsher.drop_lower, harsher.drop_upper)} points. Tolerate "
            "more, or train recipes that are pruned less"
        )

    def _searched(self, law: BudgetLaw, amount: float) -> tuple[pd.DataFrame, None]:
        """Return the best recipe within the budget and the uniform one."""
        assert self.cost is not None
        table, search = self.table, Search(law, self.cost, amount)
        # Runs that prune weights keep a floor in every filter.
        costs = table.population.metadata.get("costs", {})
        least = np.asarray(costs.get("least", self.units), dtype=np.float64)
        best = np.exp(search.best(np.random.default_rng(0), self.units)) * search.full / self.units
        widths = np.vstack([np.rint(best) * self.units, search.uniform(self.units, least)])
        if not search.affords(widths).all():
            raise PopulationError(
                f"{table.population.name}: no recipe inside the trained widths, with at least one unit of every group, "
                f"costs {amount:,.6g} {AXIS_WORDS[table.axis]} or less"
            )
        forms = {name: cost_form(table.population, name) for name in ("macs", "params")}
        priced = {n: np.nan if form is None else _whole(form.cost(widths)) for n, form in forms.items()}
        return pd.DataFrame(widths, columns=list(table.population.group_names)).assign(**priced), None

    def _ranked(self, law: BudgetLaw, amount: float) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the best and the most even candidate within the budget, and all of these, best first."""
        frame, table = self.listed, self.table
        assert frame is not None
        fits = frame[(frame[table.axis] <= amount) & (frame[table.axis] >= CHEAPEST * amount)]
        widths = fits[list(table.population.group_names)].to_numpy(dtype=np.float64)
        logs = table.logs(widths)
        offset = np.log(fits[table.axis].to_numpy(dtype=np.float64) / amount)
        usable = self.trained | law.supports(logs, offset)
        if not usable.any():
            raise PopulationError(self._none_listed(f"the budget ({amount:,.6g} {AXIS_WORDS[table.axis]})"))
        predicted = _drops(law, logs[usable], offset[usable])
        named = dict(zip(_COLUMNS[-3:], predicted, strict=True))
        ranking = fits[usable].assign(**named).sort_values("drop", kind="stable").reset_index(drop=True)
        # The most even of those that use the budget, so that it is not beaten by thrift.
        thrift = np.maximum(np.log(USED) - offset, 0.0)
        spread = np.round((widths / table.full).std(axis=1), 6)
        even = int(np.lexsort((-offset, spread, np.round(thrift, 3)))[0])
        return pd.concat([ranking.head(1), fits.iloc[[even]]], ignore_index=True), ranking

    def _none_listed(self, budget: str) -> str:
        assert self.listed is not None
        cost = self.listed[self.table.axis]
        return (
            f"recommend: candidates: none of {len(cost):,} costs between {percent(CHEAPEST)} and 100 % of {budget} with "
            f"widths that the trained recipes support; they cost {cost.min():,.6g} to {cost.max():,.6g} "
            f"{AXIS_WORDS[self.table.axis]}"
        )

    def _compared(
        self,
        law: BudgetLaw,
        reduction: float,
        amount: float,
        pair: pd.DataFrame,
        ranking: pd.DataFrame | None,
    ) -> Recommendation:
        """Return the recommendation of the first recipe of a pair, the second being uniform."""
        table = self.table
        population, groups = table.population, list(table.population.group_names)
        widths = pair[groups].to_numpy(dtype=np.float64)
        logs, offset = table.logs(widths), np.log(pair[table.axis].to_numpy(dtype=np.float64) / amount)
        drops = np.transpose(_drops(law, logs, offset)).tolist()
        best, uniform = (
            _prediction(table, name, widths[k], pair.iloc[k], drops[k]) for k, name in enumerate(_NAMES)
        )
        gain, lower, upper = _gain(law, logs, offset)
        note = _note(law, logs[1])
        steps = _EVEN_STEPS * (self.units / table.full).max()
        even = np.ptp(widths[1] / table.full) <= min(steps, _EVEN_SHARES)
        # Bands that hold one width each: less than a unit to either side.
        bands = np.clip((widths[0] + np.array([[-0.4], [0.4]]) * self.units) / table.full, 0.0, 1.0)
        return Recommendation(
            **vars(best), uniform=uniform, axis=table.axis, reduction=reduction, gain=gain,
            gain_lower=np.nan if note else lower, gain_upper=np.nan if note else upper, note=note, ranking=ranking,
            technique=population.techniques[law.technique], n_recipes=law.rows.size,
            _made=_made(table, best.widths),
            _rival="uniform pruning" if even else "the most even candidate",
            _achieved=1.0 - float(np.exp(offset[0])) * (1.0 - reduction),
            _bands=dict(zip(groups, zip(*bands.tolist(), strict=True), strict=True)),
        )  # fmt: skip


def _made(table: WidthTable, widths: dict[str, float]) -> dict[str, Any]:
    """Return the network that a recipe belongs to and what its layers keep, where the table tells."""
    population = table.population
    original, costs = (population.metadata.get(key, {}) for key in ("original", "costs"))
    made = {key: original[key] for key in ("network", "original_id") if key in original}
    full = dict(zip(population.group_names, table.full.tolist(), strict=True))
    return made | (by_layer(costs["layers"], full, widths) if costs.get("layers") else {})


def _drops(law: BudgetLaw, logs: FloatArray, offset: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the median drop of recipes, points, and the ends of its 90 % interval, (n,) each."""
    (outcome, beyond), drop = law.predicted(logs, offset), law.table.drop
    variance, df = law.recipe_variance(outcome)
    sd = np.sqrt(law.uncertainty(logs, offset) ** 2 + variance + beyond)
    half = stats.t.ppf((1.0 + INTERVAL_MASS) / 2.0, df) * sd
    return drop(outcome), drop(outcome - half), drop(outcome + half)


def _gain(law: BudgetLaw, logs: FloatArray, offset: FloatArray) -> tuple[float, float, float]:
    """Return what the first of two recipes gains over the second, points, with its 90 % interval."""
    if np.array_equal(logs[0], logs[1]):
        return 0.0, 0.0, 0.0
    (expected, beyond), rng = law.predicted(logs, offset), np.random.default_rng(0)
    variance, df = law.recipe_variance(expected)
    root = np.hstack([law.deviations(logs, offset), np.diag(np.sqrt(variance + beyond))])
    normal = rng.standard_normal((_DRAWS, 2)) @ np.linalg.cholesky(root @ root.T).T
    scale = np.sqrt(df.min() / rng.chisquare(df.min(), (_DRAWS, 1)))
    drops = law.table.drop(expected + normal * scale)
    lower, upper = interval(drops[:, 1] - drops[:, 0])
    best, uniform = law.table.drop(expected).tolist()
    return uniform - best, float(lower), float(upper)


def _note(law: BudgetLaw, uniform: FloatArray) -> str:
    """Say why the gain over uniform cannot be predicted; "" where it can."""
    step = 0.05
    outside = (uniform < law.seen.min(axis=0) - step) | (uniform > law.seen.max(axis=0) + step)
    if not outside.any():
        return ""
    groups = join_words([g for g, out in zip(law.table.population.group_names, outside, strict=True) if out])
    return (
        f"Uniform pruning lies outside the trained widths of {groups}, so the gain over it has no interval: training "
        "decides."
    )


def _prediction(
    table: WidthTable, name: str, widths: FloatArray, costs: pd.Series[Any], interval: list[float]
) -> RecipePrediction:
    groups, original = table.population.group_names, table.population.original
    macs, params = float(costs["macs"]), float(costs["params"])
    kept, removed = (dict(zip(groups, v.tolist(), strict=True)) for v in (widths, 1.0 - widths / table.full))
    mcb = (macs / original.macs) / (params / original.params)
    return RecipePrediction(name, kept, removed, macs, params, mcb, *interval)


def _units(table: WidthTable) -> FloatArray:
    """Return the step in which each group's width changes, shape (G,): the run's own, else what the table shows."""
    stored = table.population.metadata.get("costs")
    if stored and list(stored["groups"]) == list(table.population.group_names):
        return np.asarray(stored["steps"], dtype=np.float64)
    widths = table.population.widths
    assert widths is not None
    return np.array([_unit(column, full) for column, full in zip(widths.T, table.full.tolist(), strict=True)])


def _unit(widths: FloatArray, full: float) -> float:
    values = np.unique(np.append(widths[widths > 0], full))
    if np.array_equal(values, np.rint(values)) and full > 1.0:
        return float(np.gcd.reduce(values.astype(np.int64)))
    steps = values / values[0]
    if values.size <= _LEVELS and np.abs(steps - np.rint(steps)).max() < 1e-6:
        return float(values[0])
    return _FINE * full


def _checked_candidates(frame: pd.DataFrame, population: Population) -> pd.DataFrame:
    """Return the candidates with a column per group and both costs, none twice."""
    if not isinstance(frame, pd.DataFrame) or frame.empty:
        raise PopulationError(
            f"recommend: candidates: expected a table with one recipe per row, got {type(frame).__name__}"
        )
    wanted = [*population.group_names, "macs", "params"]
    counts = {name: int((frame.columns == name).sum()) for name in wanted}
    for what, wrong in (("missing", 0), ("more than once", 2)):
        if found := [name for name, n in counts.items() if min(n, 2) == wrong]:
            raise PopulationError(
                f"recommend: candidates: expected one column for each group, macs and params; {what}: "
                f"{', '.join(found)}. The table has: {', '.join(map(str, frame.columns))}"
            )
    numbers = frame[wanted].apply(pd.to_numeric, errors="coerce")
    legal = np.isfinite(numbers).all(axis=1) & (numbers >= 0).all(axis=1)
    legal &= (numbers[["macs", "params"]] > 0).all(axis=1)
    if not legal.all():
        rows = ", ".join(map(str, frame.index[~legal][:5]))
        raise PopulationError(
            f"recommend: candidates: expected widths of 0 or more and positive costs, got others in {int((~legal).sum())} "
            f"rows (first: {rows})"
        )
    different: pd.DataFrame = frame.assign(**numbers).loc[~numbers.duplicated()]
    return different


def _whole(values: FloatArray) -> FloatArray:
    """Return values that miss a whole number by rounding errors as that number."""
    whole = np.rint(values)
    return np.where(np.abs(values - whole) < 1e-6 * np.maximum(1.0, np.abs(values)), whole, values)


def _number(value: float) -> float | int | None:
    """Return a whole number as one, and None for NaN, as JSON has neither."""
    return int(value) if value.is_integer() else value if np.isfinite(value) else None
