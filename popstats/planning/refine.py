"""`popstats.refine`: from a fit to the space from which the next recipes should be drawn."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.random import Generator

from popstats.arrays import BoolArray, FloatArray
from popstats.errors import FitError
from popstats.inference.draws import interval
from popstats.judgement.analysis import Analysis, RegimePosterior
from popstats.judgement.space_claims import judge_std_spaces, std_halves
from popstats.judgement.verdicts import Thresholds
from popstats.planning.budget_law import ROUNDING, WidthTable, law_at, width_table
from popstats.planning.search import Search, inside_bands, write_space
from popstats.population.recipes import cost_form, ratio_std
from popstats.population.regimes import Axis, regime_label
from popstats.posterior.fit import Fit, fit, require_fit
from popstats.words import AXIS_WORDS, INTERVAL_WORDS, interval_words, number, percent, sentence

Kind = Literal["mcb", "widths"]

#: Fewer recipes than this inside the mCB range do not tell how their STD is spread.
_LEAST_INSIDE = 10
#: Recipes nearest to the mCB range from which the effect of STD inside it is estimated. Of 30 simulated rounds with
#: 60 recipes, 60 neighbours promised a fifth too much on average (far recipes cannot be even), 40 what came.
_NEIGHBOURS = 40
#: Centres that differ by less are one.
_SAME = 1e-6
#: A budget for which there is no regime is refined from the recipes within this factor of its cost.
AROUND = 1.25
#: Log cost offset from which recipes on one side of a budget count as far from it.
_ONE_SIDED = 0.02
#: From this share of the recipes on a space is the whole space again.
NEARLY_ALL = 0.95
#: Halvings behind the expected gain of bands of widths, and draws of each half.
_SPLITS, _SPLIT_DRAWS = 4, 500


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RefinedSpace:
    """A part of a recipe space that is expected to be better than the whole.

    Attributes
    ----------
    kind : {"mcb", "widths"}
    axis : {"macs", "params"}
        The reduction that its recipes meet.
    target : float
        That reduction, a fraction.
    regime : str
        Label of the regime that it was read from.
    mcb : (float, float) or None
        Range of mCB (kind "mcb").
    std : (float, float) or None
        Band of the standard deviation of the ratios over groups, where low-STD spaces beat high-STD ones.
    widths : mapping of str to (float, float)
        Range of the kept share of each group's width (kind "widths").
    share_kept : float
        Share of the regime's recipes that lie inside.
    n_recipes : int
        Recipes of the regime.
    gain, gain_lower, gain_upper : float
        Expected gain in accuracy points over as many recipes drawn like the population's, with its 90 % interval.
    outcome : str
        Of C3a, that there is an optimal mCB, in the regime (kind "mcb").
    note : str
        What else is known of the regime: that C3a is not supported, that one end of the observed range does as well.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population(regimes=[0.6], n=300, rise=1.0)
    >>> space = popstats.refine(popstats.fit(population), regime=0.6)
    >>> space.regime, space.axis, 0.0 < space.share_kept < 1.0
    ('0.60', 'macs', True)
    """

    kind: Kind
    axis: Axis
    target: float
    regime: str
    mcb: tuple[float, float] | None = None
    std: tuple[float, float] | None = None
    share_kept: float
    n_recipes: int
    gain: float
    gain_lower: float
    gain_upper: float
    widths: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    outcome: str = ""
    note: str = ""

    def to_toml(self, path: str | Path) -> Path:
        """Write the space to a .toml file that a plan reads as ``space = "refined:FILE"``; returns the path.

        Raises
        ------
        PopstatsError
            If its folder does not exist and cannot be made.
        """
        comment = ["A refined recipe space, written by popstats.refine.", self._words()]
        entries = {name: getattr(self, name) for name in ("axis", "target", "kind", "mcb", "std")}
        return write_space(path, comment, entries, self.widths)

    def _words(self) -> str:
        where = f"{percent(self.target)} of the {AXIS_WORDS[self.axis]} removed"
        parts = [f"mCB {self.mcb[0]:.3f} to {self.mcb[1]:.3f}"] if self.mcb else []
        parts += [f"STD {self.std[0]:.3f} to {self.std[1]:.3f}"] if self.std else []
        parts += [f"a band of widths for each of {len(self.widths)} groups"] if self.widths else []
        recipes = f"{self.n_recipes:,} recipes"
        kept = f"{percent(self.share_kept)} of {recipes}"
        held = f"It keeps {kept}" if self.share_kept else f"None of the {recipes} lies inside yet"
        gain = (
            f"This refines nothing: it keeps {kept}, so new ones drawn from it are expected to be no better than those "
            "of the whole space."
            if self.share_kept >= NEARLY_ALL
            else f"{held}. Expected gain: {number(self.gain)} points on average ({INTERVAL_WORDS} "
            f"{interval_words(self.gain_lower, self.gain_upper)}) over as many recipes of the whole space."
        )
        return f"At {where}: {', '.join(parts)}. {gain} {self.note}".rstrip()

    def __repr__(self) -> str:
        return f"<RefinedSpace by {self.kind}: {self._words()}>"

    def _repr_html_(self) -> str:
        kept = {g: f"{100 * low:.1f} to {100 * high:.1f} %" for g, (low, high) in self.widths.items()}
        frame = pd.DataFrame(kept.items(), columns=["group", "width kept"])
        table = frame.to_html(index=False) if kept else ""
        return f"<p>{html.escape(self._words())}</p>{table}"


def refine(fit: Fit, regime: float | str, by: Kind = "mcb") -> RefinedSpace:
    """Propose the space for the next recipes.

    Parameters
    ----------
    fit : Fit
    regime : float or str
        Centre or label of a fitted regime, or any other reduction: "mcb" then fits a regime there, as the others were
        fitted; "widths" needs recipes that cost more and less.
    by : {"mcb", "widths"}
        "mcb": the near-optimal range of mCB, and, where S1 is supported in the regime, the band of STD that the
        evenest third of the recipes nearest to that range lies in.
        "widths": for each group the band of widths of the recipes that the law of `popstats.recommend` predicts within
        0.05 points of its best, on the exact costs' budget and where the table's recipes support the law; widened
        until 5 % of the regime's recipes lie inside. The expected gain is cross-fitted: bands from one half of
        the recipes, valued by the other.

    Returns
    -------
    RefinedSpace

    Raises
    ------
    FitError
        If too few recipes lie around the budget, or, for "widths", their costs cannot be recovered from the table.
    PopulationError
        If "widths" is wanted of a table without widths, or its recipes do not support the budget.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population(regimes=[0.6], n=300, rise=1.0)
    >>> space = popstats.refine(popstats.fit(population, method="exact"), regime=0.6)
    >>> space.kind, space.mcb[0] < 1.0 < space.mcb[1], 0.0 < space.gain_lower < space.gain_upper
    ('mcb', True, True)
    """
    require_fit(fit, "refine")
    if by not in ("mcb", "widths"):
        raise FitError(f"refine: by: expected 'mcb' or 'widths', got {by!r}")
    if not isinstance(regime, str | Real) or (isinstance(regime, Real) and not 0.0 < regime < 1.0):
        raise FitError(f"refine: regime: expected a reduction between 0 and 1 or a label, got {regime!r}")
    fitted = isinstance(regime, str) or any(abs(regime - r.target) < _SAME for r in fit.fitted)
    target = fit.fitted[fit.position_of(regime, "refine")].target if fitted else float(regime)
    if by == "widths":
        return _by_widths(fit, target, Thresholds().near)
    analysis = Analysis(fit if fitted else _fit_at(fit, target))
    return _by_mcb(analysis, analysis.regimes[analysis.fit.position_of(target, "refine")])


def _fit_at(known: Fit, target: float) -> Fit:
    """Fit a regime at a budget that has none, as the others were fitted."""
    regimes = {target: (1.0 - target) * (1.0 - 1.0 / AROUND)}
    found = fit(known.population, **(vars(known.settings) | {"regimes": regimes, "progress": False}))
    held = ", ".join(r.label for r in known.fitted)
    choose = f"fitted regimes: {held}. Choose one of these" if held else "add recipes there"
    if known.population.widths is not None:
        choose += ", or by='widths', which needs recipes on either side only"
    if not found.fitted:
        raise FitError(
            f"refine: regime {target:g}: too few recipes within a factor of {AROUND:g} of its cost for a curve; {choose}"
        )
    offset = found.recipes.table["offset"].to_numpy()[found.recipes.members[0]]
    if offset.min() > _ONE_SIDED or offset.max() < -_ONE_SIDED:
        raise FitError(
            f"refine: regime {target:g}: all recipes within a factor of {AROUND:g} of its cost lie on one side of it, so a "
            f"curve there would be extrapolated; {choose}"
        )
    return found


def _by_mcb(analysis: Analysis, posterior: RegimePosterior) -> RefinedSpace:
    prepared, (low, high) = analysis.fit.recipes, _near_range(posterior)
    members = prepared.members[prepared.assigned.labels.index(posterior.label)]
    recipes = prepared.at_average_technique.iloc[members]
    log_mcb = recipes["log_mcb"].to_numpy()
    inside = (log_mcb >= low) & (log_mcb <= high)
    rng = np.random.default_rng([analysis.fit.settings.random_seed, 72])
    gain = _curve_gain(posterior, log_mcb, low, high, rng)
    std = None
    # Low-STD recipes are better in this regime: S1 is supported.
    if any(v.outcome == "supported" for v in judge_std_spaces(analysis) if v.regime == posterior.label):
        every = ratio_std(analysis.fit.population)
        assert every is not None
        spread = every[prepared.first[members]]
        near = inside.copy()
        near[np.argsort(np.abs(log_mcb - (low + high) / 2.0), kind="stable")[:_NEIGHBOURS]] = True
        even = near & (spread <= spread[near][std_halves(spread[near])[0]].max())
        std = float(spread[even].min()), float(spread[even].max())
        expected = np.interp(log_mcb, posterior.grid, np.median(posterior.drop, axis=0))
        usual = inside if inside.sum() >= _LEAST_INSIDE else near
        rest = recipes["drop"].to_numpy() - expected
        gain = gain + _std_gain(spread, rest, near, usual, even, gain.size, rng)
        inside = inside & even
    mcb = float(np.exp(low)), float(np.exp(high))
    notes = [sentence(posterior.one_sided)] if posterior.one_sided else []
    if posterior.outcome != "supported":
        notes.append(
            f"C3a (there is an optimal mCB) is {posterior.outcome} in this regime: the range only shows where the fitted "
            "curve is lowest."
        )
    return _space(
        "mcb", analysis.fit, posterior.data.target, inside, gain, mcb=mcb, std=std, outcome=posterior.outcome,
        note=" ".join(notes),
    )  # fmt: skip


def _near_range(posterior: RegimePosterior) -> tuple[float, float]:
    """Return the near-optimal range, log mCB; of two, the one whose minimum is lower."""
    if not posterior.regions:
        return float(np.log(posterior.stretches[0].low)), float(np.log(posterior.stretches[0].high))
    curve = np.median(posterior.drop, axis=0)
    low, _, high = min(posterior.regions, key=lambda region: np.interp(region[1], posterior.grid, curve))
    return low, high


def _curve_gain(
    posterior: RegimePosterior, log_mcb: FloatArray, low: float, high: float, rng: Generator
) -> FloatArray:
    """Return draws of what the mCB range (logs) gains over the whole space, points."""
    # The whole space is known from these recipes only: they are weighted by the Bayesian bootstrap.
    inside = (log_mcb >= low) & (log_mcb <= high)
    place = np.clip(log_mcb, posterior.grid[0], posterior.grid[-1])
    cell = np.rint(np.interp(place, posterior.grid, np.arange(posterior.grid.size))).astype(np.int64)
    counts = np.bincount(cell, minlength=posterior.grid.size)
    weights = rng.standard_gamma(counts, size=posterior.drop.shape)
    whole = (posterior.drop * weights).sum(axis=1) / weights.sum(axis=1)
    # Where no recipe lies inside, new ones are taken to lie anywhere between the outermost cells of the range.
    numbers = np.arange(posterior.grid.size)
    first, last = np.rint(np.interp((low, high), posterior.grid, numbers))
    anywhere = ((numbers >= first) & (numbers <= last)).astype(np.float64)
    kept = np.bincount(cell[inside], minlength=numbers.size) if inside.any() else anywhere
    return np.asarray(whole - posterior.drop @ kept / kept.sum())


def _std_gain(
    std: FloatArray,
    rest: FloatArray,
    near: BoolArray,
    usual: BoolArray,
    even: BoolArray,
    draws: int,
    rng: Generator,
) -> FloatArray:
    """Return draws of what the even recipes gain over the usual ones, points; `rest`: distances from the curve."""
    # Few recipes, if any, lie in the mCB range and the band both, so the effect of STD is estimated from the recipes
    # near the range: a parabola through their distances from the curve.
    design = np.vander(std - std.mean(), 3, increasing=True)
    step = design[usual].mean(axis=0) - design[even].mean(axis=0)
    x, y = design[near], rest[near]
    inverse = np.linalg.pinv(x.T @ x, hermitian=True)
    slopes = inverse @ x.T @ y
    df = max(y.size - 3, 1)
    sd = np.sqrt(step @ inverse @ step * ((y - x @ slopes) ** 2).sum() / df)
    return np.asarray(step @ slopes + sd * rng.standard_t(df, draws))


def _by_widths(fit: Fit, target: float, near: float) -> RefinedSpace:
    table = width_table(fit.population, fit.regime_axis)
    table.require_support(target)
    cost = cost_form(fit.population, fit.regime_axis)
    if cost is None:
        raise FitError(
            "refine: by='widths' needs the costs of recipes that the table does not hold, and they do not follow "
            "from its widths (too few recipes, or widths that do not fix the cost); use by='mcb'"
        )
    amount = (1.0 - target) * getattr(fit.population.original, fit.regime_axis)

    def search(among: BoolArray | None = None) -> Search:
        return Search(law_at(table, float(np.log1p(-target)), among), cost, amount)

    whole = search()
    low, high, _ = whole.near_best_bands(near / whole.law.slope)
    low, high, full, widths = np.exp(low), np.exp(high), table.full, fit.population.widths
    if widths is not None and (full > 1.0).all() and np.array_equal(widths, np.rint(widths)):
        # To whole channels, so that thin groups keep a width to choose from.
        low = np.maximum(np.floor(low * full + ROUNDING), 1.0) / full
        high = np.ceil(high * full - ROUNDING) / full
    inside = inside_bands(np.exp(whole.law.seen), low, high)
    gain = _cross_fitted_gain(table, search, near, fit.settings.random_seed)
    named = dict(zip(fit.population.group_names, zip(low.tolist(), high.tolist(), strict=True), strict=True))
    return _space("widths", fit, target, inside, gain, widths=named)


def _cross_fitted_gain(
    table: WidthTable, search: Callable[[BoolArray], Search], near: float, seed: int
) -> FloatArray:
    """Return draws of what bands gain by a law that had no part in choosing them, points."""
    # The best of many predictions is too good on average: the law that found it errs there in its favour. So bands
    # are found on one half of the recipes and valued by the law of the other half. Draws of all halvings are pooled:
    # a half knows less than the whole, so the interval is wider than it need be rather than narrower.
    rng, draws = np.random.default_rng([seed, 71]), []
    recipes = table.log_cost.size
    for split in range(_SPLITS):
        first = rng.permutation(recipes) < recipes // 2
        halves = [search(first), search(~first)]
        for finder, judge in (halves, halves[::-1]):
            law, (_, _, examples) = judge.law, finder.near_best_bands(near / finder.law.slope, split)
            valued = law.rows[law.inner]
            mean = float(np.average(table.drop(table.outcome[valued]), weights=table.runs[valued]))
            outcome = law.expected(examples)
            slope = table.slope(outcome) / len(outcome)
            sd = float(np.linalg.norm(slope @ law.deviations(examples)))
            draws.append(mean - table.drop(outcome).mean() - sd * rng.standard_normal(_SPLIT_DRAWS))
    return np.concatenate(draws)


def _space(
    kind: Kind, fit: Fit, target: float, inside: BoolArray, gain: FloatArray, **bounds: Any
) -> RefinedSpace:
    """Return a space that keeps the recipes inside and gains these draws, points."""
    lower, upper = interval(gain)
    return RefinedSpace(
        kind=kind, axis=fit.regime_axis, target=target, regime=regime_label(target), share_kept=float(inside.mean()),
        n_recipes=int(inside.size), gain=float(np.median(gain)), gain_lower=float(lower), gain_upper=float(upper),
        **bounds,
    )  # fmt: skip
