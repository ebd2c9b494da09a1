"""`popstats.refine`: from a fit to the space from which the next recipes should be drawn."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import BoolArray, FloatArray, IntArray
from popstats.errors import FitError
from popstats.inference.draws import interval
from popstats.judgement.analysis import Analysis, RegimePosterior
from popstats.judgement.space_claims import judge_std_spaces, std_halves
from popstats.judgement.verdicts import Thresholds
from popstats.planning.budget_law import BudgetLaw, WidthTable, law_at, width_table
from popstats.planning.recovered_costs import CostForm, cost_form
from popstats.planning.search import Budget, WidthBands, near_best_bands
from popstats.population.recipes import ratio_std
from popstats.population.regimes import Axis, regime_label
from popstats.population.table import folder_for
from popstats.posterior.fit import Fit, fit, require_fit
from popstats.words import join_words, percent, sentence

Kind = Literal["mcb", "widths"]

#: Fewer recipes than this inside the mCB range do not tell how their STD is spread.
_LEAST_INSIDE = 10
#: Recipes nearest to the mCB range from which the effect of STD inside it is estimated. Of 30 simulated rounds with
#: 60 recipes, 60 neighbours promised a fifth too much on average (far recipes cannot be even), 40 what came.
_NEIGHBOURS = 40
#: Bootstrap weights that are held at a time.
_WEIGHTS = 1_000_000
_ROUNDING = 1e-9
#: Centres that differ by less are one.
_SAME = 1e-6
#: A budget for which there is no regime is refined from the recipes within this factor of its cost.
AROUND = 1.25
#: From this share of the recipes on a space is the whole space again.
NEARLY_ALL = 0.95
#: Halvings behind the expected gain of bands of widths, and draws of each half.
_SPLITS, _SPLIT_DRAWS = 4, 500


@dataclass(frozen=True, eq=False, repr=False)
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
    note : str
        What else is known of the regime: that one end of the observed range is as good as any mCB in it.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population(regimes=[0.6], n=300, rise=1.0)
    >>> space = popstats.refine(popstats.fit(population, method="exact"), regime=0.6)
    >>> space.axis, space.target, space.widths, 0.0 < space.share_kept < 1.0
    ('macs', 0.6, {}, True)
    """

    kind: Kind
    axis: Axis
    target: float
    regime: str
    mcb: tuple[float, float] | None
    std: tuple[float, float] | None
    share_kept: float
    n_recipes: int
    gain: float
    gain_lower: float
    gain_upper: float
    widths: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    note: str = ""

    def to_toml(self, path: str | Path) -> Path:
        """Write the space to a file that a plan reads as ``space = "refined:FILE"``; returns the path.

        Parameters
        ----------
        path : str or Path
            The file, conventionally .toml.

        Raises
        ------
        PopstatsError
            If its folder does not exist and cannot be made.
        """
        target = Path(path)
        folder_for(target)
        target.write_text(self._toml(), encoding="utf-8")
        return target

    def _toml(self) -> str:
        lines = [
            f"# {line}"
            for line in ("A refined recipe space, written by popstats.refine.", *self._words().split("\n"))
        ]
        lines += [
            "[refined]",
            f"axis = {json.dumps(self.axis)}",
            f"target = {self.target!r}",
            f"kind = {json.dumps(self.kind)}",
        ]
        lines += [
            f"{name} = {_pair(value)}" for name, value in (("mcb", self.mcb), ("std", self.std)) if value
        ]
        if self.widths:
            lines += ["", "[refined.widths]"]
            lines += [f"{json.dumps(group)} = {_pair(band)}" for group, band in self.widths.items()]
        return "\n".join(lines) + "\n"

    def _words(self) -> str:
        where = f"{100 * self.target:.4g} % {'MACs' if self.axis == 'macs' else 'parameter'} reduction"
        parts = [f"mCB {self.mcb[0]:.3f} to {self.mcb[1]:.3f}"] if self.mcb else []
        parts += [f"STD {self.std[0]:.3f} to {self.std[1]:.3f}"] if self.std else []
        parts += [f"a band of widths for each of {len(self.widths)} groups"] if self.widths else []
        if self.share_kept >= NEARLY_ALL:
            return (
                f"At {where}: {', '.join(parts)}. This refines nothing: it keeps {percent(self.share_kept)} of "
                f"{self.n_recipes:,} recipes, so new ones drawn from it are expected to be no better than those of the "
                "whole space."
            )
        return (
            f"At {where}: {', '.join(parts)}. It keeps {percent(self.share_kept)} of {self.n_recipes:,} recipes and is "
            f"expected to gain {self.gain:.2f} points on average (90 % interval {self.gain_lower:.2f} to "
            f"{self.gain_upper:.2f}) over as many recipes of the whole space.{f' {self.note}' if self.note else ''}"
        )

    def __repr__(self) -> str:
        return f"<RefinedSpace by {self.kind}: {self._words()}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(g)}</th><td>{100 * low:.1f} to {100 * high:.1f} %</td></tr>"
            for g, (low, high) in self.widths.items()
        )
        table = f"<table><tr><th>group</th><th>width kept</th></tr>{rows}</table>" if rows else ""
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
        If "widths" is asked of a table without widths.

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
    if not found.fitted:
        held = ", ".join(r.label for r in known.fitted) or "none"
        raise FitError(
            f"refine: regime {target:g}: too few recipes within a factor of {AROUND:g} of its cost for a curve; fitted "
            f"regimes: {held}. Choose one of these, or by='widths', which needs recipes on either side only"
        )
    return found


def _members(analysis: Analysis, posterior: RegimePosterior) -> pd.DataFrame:
    """Return the regime's recipes with their number in the population, MACs and STD."""
    population, prepared = analysis.fit.population, analysis.fit.recipes
    first = prepared.first
    macs = population.table["macs"].to_numpy()[first]
    recipes = prepared.at_average_technique.assign(row=first, macs=macs)
    spread = ratio_std(population)
    if spread is not None:
        recipes["std"] = spread[first]
    return recipes.iloc[prepared.members[prepared.assigned.labels.index(posterior.label)]]


def _by_mcb(analysis: Analysis, posterior: RegimePosterior) -> RefinedSpace:
    recipes = _members(analysis, posterior)
    low, high = _near_range(posterior)
    log_mcb = recipes["log_mcb"].to_numpy()
    inside = (log_mcb >= low) & (log_mcb <= high)
    rng = np.random.default_rng([analysis.fit.settings.random_seed, 72])
    gain = _curve_gain(posterior, log_mcb, inside, rng)
    std = None
    if _evenness_pays(analysis, posterior):
        near = _nearest(log_mcb, (low + high) / 2.0) | inside
        spread = recipes["std"].to_numpy()
        even = near & (spread <= spread[near][std_halves(spread[near])[0]].max())
        std = float(spread[even].min()), float(spread[even].max())
        gain = gain + _std_gain(posterior, recipes, inside, near, even, rng)
        inside = inside & even
    mcb = float(np.exp(low)), float(np.exp(high))
    note = sentence(posterior.one_sided) if posterior.one_sided else ""
    return _space("mcb", analysis.fit, posterior.data.target, inside, gain, mcb=mcb, std=std, note=note)


def _near_range(posterior: RegimePosterior) -> tuple[float, float]:
    """Return the near-optimal range, log mCB; of two, the one whose minimum is lower."""
    if not posterior.regions:
        return float(np.log(posterior.stretches[0].low)), float(np.log(posterior.stretches[0].high))
    curve = np.median(posterior.drop, axis=0)
    low, _, high = min(posterior.regions, key=lambda region: np.interp(region[1], posterior.grid, curve))
    return low, high


def _curve_gain(
    posterior: RegimePosterior, log_mcb: FloatArray, inside: BoolArray, rng: np.random.Generator
) -> FloatArray:
    """Return draws of what the mCB range gains over the whole space, points.

    The whole space is known only from the recipes in the table: they are weighted by the Bayesian bootstrap.
    """
    place = np.clip(log_mcb, posterior.grid[0], posterior.grid[-1])
    cell = np.rint(np.interp(place, posterior.grid, np.arange(posterior.grid.size))).astype(np.int64)
    counts = np.bincount(cell, minlength=posterior.grid.size)
    weights = rng.standard_gamma(counts, size=posterior.drop.shape)
    whole = (posterior.drop * weights).sum(axis=1) / weights.sum(axis=1)
    kept = np.bincount(cell[inside], minlength=posterior.grid.size)
    return np.asarray(whole - posterior.drop @ kept / max(int(kept.sum()), 1))


def _evenness_pays(analysis: Analysis, posterior: RegimePosterior) -> bool:
    """Return whether low-STD recipes are better in this regime (S1 is supported)."""
    return any(v.outcome == "supported" for v in judge_std_spaces(analysis) if v.regime == posterior.label)


def _nearest(log_mcb: FloatArray, centre: float) -> BoolArray:
    """Return the recipes nearest to the middle of the mCB range, shape (n,)."""
    near = np.zeros(log_mcb.size, dtype=bool)
    near[np.argsort(np.abs(log_mcb - centre), kind="stable")[:_NEIGHBOURS]] = True
    return near


def _std_gain(
    posterior: RegimePosterior,
    recipes: pd.DataFrame,
    inside: BoolArray,
    near: BoolArray,
    even: BoolArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Return what the low-STD band adds inside the mCB range, points, as draws.

    Few recipes, if any, lie in range and band both, so the effect of STD is estimated from the recipes nearest to
    the range: a parabola through their distances from the curve, under the Bayesian bootstrap.
    """
    std, log_mcb = recipes["std"].to_numpy(), recipes["log_mcb"].to_numpy()
    rest = recipes["drop"].to_numpy() - np.interp(log_mcb, posterior.grid, np.median(posterior.drop, axis=0))
    design = np.vander(std - std.mean(), 3, increasing=True)
    usual = inside if inside.sum() >= _LEAST_INSIDE else near
    step = design[usual].mean(axis=0) - design[even].mean(axis=0)
    x, y = design[near], rest[near]
    products = np.column_stack([(x[:, :, None] * x[:, None, :]).reshape(y.size, -1), x * y[:, None]])
    # Some draws at a time: the weights of all of them for a large regime's recipes would fill the memory.
    sizes = np.diff([*range(0, len(posterior.drop), max(1, _WEIGHTS // y.size)), len(posterior.drop)])
    sums = np.concatenate([rng.standard_exponential((size, y.size)) @ products for size in sizes])
    moments, right = (
        sums[:, : x.shape[1] ** 2].reshape(-1, x.shape[1], x.shape[1]),
        sums[:, x.shape[1] ** 2 :],
    )
    slopes = np.linalg.pinv(moments, hermitian=True) @ right[..., None]
    return np.asarray(slopes[..., 0] @ step)


def _by_widths(fit: Fit, target: float, near: float) -> RefinedSpace:
    table = width_table(fit.population, fit.regime_axis)
    if not any(low <= target <= high for low, high in table.supported()):
        raise FitError(
            f"refine: by='widths' needs recipes that cost more and less than {percent(1.0 - target)} of the original; "
            f"{fit.population.name} supports reductions {join_words([f'{a:.3g} to {b:.3g}' for a, b in table.supported()])}"
        )
    whole = getattr(fit.population.original, fit.regime_axis)
    budget = Budget(_cost(fit), table.full, (1.0 - target) * whole)
    log_cost = float(np.log1p(-target))
    law = law_at(table, log_cost)
    rows = law.rows[law.inner]
    shares = table.log_shares[rows]
    bands = near_best_bands(law, budget, shares, near / _slope(table, law))
    low, high = _whole_channels(bands, table.full, np.exp(shares) * table.full)
    kept = np.exp(shares)
    inside = ((kept >= low - _ROUNDING) & (kept <= high + _ROUNDING)).all(axis=1)
    gain = _cross_fitted_gain(table, rows, log_cost, budget, near, fit.settings.random_seed)
    named = {g: (float(a), float(b)) for g, a, b in zip(fit.population.group_names, low, high, strict=True)}
    return _space("widths", fit, target, inside, gain, widths=named)


def _slope(table: WidthTable, law: BudgetLaw) -> float:
    """Return how fast the drop rises with the law's outcome at its best recipes."""
    return float(table.slope(np.quantile(law.fitted[law.inner], [0.05]))[0])


def _cross_fitted_gain(
    table: WidthTable, rows: IntArray, log_cost: float, budget: Budget, near: float, seed: int
) -> FloatArray:
    """Return draws of what bands gain by a law that had no part in choosing them, points.

    The best of many predictions is too good on average: the law that found it errs there in its favour. So bands
    are found on one half of the recipes and valued by the law of the other half. Draws of all halvings are pooled:
    a half knows less than the whole, so the interval is wider than it need be rather than narrower.
    """
    rng, draws = np.random.default_rng([seed, 71]), []
    recipes = table.log_cost.size
    for split in range(_SPLITS):
        first = rng.permutation(recipes) < recipes // 2
        laws = [law_at(table, log_cost, among) for among in (first, ~first)]
        for finder, judge in (laws, laws[::-1]):
            seen = table.log_shares[finder.rows[finder.inner]]
            bands = near_best_bands(finder, budget, seen, near / _slope(table, finder), seed=split)
            valued = judge.rows[judge.inner]
            mean = float(np.average(table.drop(table.outcome[valued]), weights=table.runs[valued]))
            draws.append(mean - _mean_drops(table, judge, np.log(bands.examples), rng))
    return np.concatenate(draws)


def _mean_drops(
    table: WidthTable, law: BudgetLaw, log_shares: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Return draws of the mean expected drop of these recipes, points."""
    outcome = law.expected(log_shares)
    slope = table.slope(outcome) / len(outcome)
    sd = float(np.sqrt(slope @ law.covariance(log_shares) @ slope))
    return np.asarray(table.drop(outcome).mean() + sd * rng.standard_normal(_SPLIT_DRAWS))


def _whole_channels(bands: WidthBands, full: FloatArray, seen: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Widen each band to whole channels, so that thin groups keep a width to choose from.

    Tables whose widths are no whole numbers (fractions of the original's) keep their bands.
    """
    if not np.array_equal(seen, np.rint(seen)) or (full <= 1.0).any():
        return bands.low, bands.high
    low = np.maximum(np.floor(bands.low * full + _ROUNDING), 1.0) / full
    return low, np.ceil(bands.high * full - _ROUNDING) / full


def _cost(fit: Fit) -> CostForm:
    cost = cost_form(fit.population, fit.regime_axis)
    if cost is None:
        raise FitError(
            "refine: by='widths' needs the costs of recipes that the table does not hold, and they do not follow "
            "from its widths (too few recipes, or widths that do not fix the cost); use by='mcb'"
        )
    return cost


def _space(
    kind: Kind,
    fit: Fit,
    target: float,
    inside: npt.NDArray[np.bool_],
    gain: FloatArray,
    *,
    mcb: tuple[float, float] | None = None,
    std: tuple[float, float] | None = None,
    widths: Mapping[str, tuple[float, float]] | None = None,
    note: str = "",
) -> RefinedSpace:
    lower, upper = interval(gain)
    return RefinedSpace(
        kind=kind,
        axis=fit.regime_axis,
        target=target,
        regime=regime_label(target),
        mcb=mcb,
        std=std,
        share_kept=float(inside.mean()),
        n_recipes=int(inside.size),
        gain=float(np.median(gain)),
        gain_lower=float(lower),
        gain_upper=float(upper),
        widths=widths or {},
        note=note,
    )


def _pair(values: tuple[float, float]) -> str:
    return f"[{values[0]:.6g}, {values[1]:.6g}]"
