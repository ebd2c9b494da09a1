"""A fit under the thresholds of its verdicts: each regime's posterior, and what verdicts, report and figures read off it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import median_abs_deviation

from popstats.arrays import BoolArray, FloatArray, IntArray
from popstats.findings import Estimate, Finding, Span, fact
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import interval
from popstats.judgement.explained import Explained, what_explains
from popstats.judgement.premises import (
    ORDER,
    few_clusters,
    follows_order,
    kinds_of_networks,
    moves_with_cost,
    rests_on_groups,
    rests_on_kinds,
    rests_on_outliers,
)
from popstats.judgement.verdicts import Outcome, Thresholds, Verdict, Verdicts, decide, negligible_words
from popstats.population.recipes import ratio_std
from popstats.posterior.fit import Fit
from popstats.posterior.mean_curve import MeanCurve
from popstats.posterior.optimum import (
    GRID_SIZE,
    NEAR_OPTIMAL_POINTS,
    OptimumDraws,
    has_optimum,
    least_rise,
    read_optimum,
    second_region,
)
from popstats.words import ALL, AXIS_WORDS

#: Draws that a second near-optimal range is looked for in, and its probability from which it is reported.
SECOND_DRAWS, SECOND_REGION = 1000, 0.5
#: Square root of the recipes that decide C3a in four of five simulated regimes, per noise over distance of the rise from
#: its threshold (docs/error-rates.md: 80, 450 and 2,200 recipes at distances of 0.3, 0.1 and 0.05 points and noise 0.15);
#: more recipes than `TOO_MANY` are no plan.
DECIDING, TOO_MANY = 15.7, 20_000
#: Spread over robust spread from which a few recipes count as outliers: a normal sample of 20 hardly reaches it.
HEAVY_TAILS = 2.0
#: What withholds an optimum until there are recipes in other places.
MORE_RECIPES_HELP = ("clusters", "groups")
#: Recipes that the proposed plan lines ask for.
PROPOSED_COUNT = 200
#: What rows that do not name their retraining technique are called beside others.
UNNAMED = "an unnamed technique"
#: Every how many grid points the curve is drawn.
CURVE_STEP = 4


def estimate(draws: FloatArray) -> Estimate:
    """Return the median of draws with their 90 % interval."""
    lower, upper = interval(draws)
    return Estimate(float(np.median(draws)), float(lower), float(upper))


def all_within(draws: FloatArray, low: float, high: float) -> bool:
    """Return whether the whole 90 % interval of draws lies in a range."""
    lower, upper = interval(draws)
    return bool(low <= lower and upper <= high)


def exponentials(pair: Sequence[float]) -> Span:
    """Return a range of log mCB as mCB."""
    low, high = np.exp(pair)
    return Span(float(low), float(high))


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """Return a frame's rows as named tuples."""
    return list(frame.itertuples(index=False))


@dataclass(frozen=True, eq=False)
class RegimePosterior:
    """One fitted regime, read off its draws and off draws from its prior, under the thresholds of the verdicts."""

    analysis: Analysis
    k: int  # Position among the fitted regimes.
    data: RegimeDesign  # What the model saw of the regime.
    thresholds: Thresholds  # Those of the verdicts.
    grid: FloatArray  # Values of log mCB over the observed range, shape (G,).
    drop: FloatArray  # Draws of the expected drop, points, shape (S, G).
    prior_drop: FloatArray  # The same under the prior, about an arbitrary level.

    @cached_property
    def mean_curve(self) -> MeanCurve:
        """The regime ready for curves through some of its recipes."""
        return MeanCurve.of(self.analysis.fit, self.k)

    @cached_property
    def optimum(self) -> OptimumDraws:
        """The optimum, draw by draw."""
        fit, near = self.analysis.fit, self.thresholds.near
        return fit.optimum_draws[self.k] if near == NEAR_OPTIMAL_POINTS else fit.read_optimum(self.k, near)

    @property
    def label(self) -> str:
        """Label of the regime."""
        return self.data.label

    @property
    def observed(self) -> Span:
        """Observed range, mCB."""
        return exponentials(self.data.observed)

    @cached_property
    def prior(self) -> OptimumDraws:
        """The optimum under the prior."""
        return read_optimum(self.grid, self.prior_drop, self.thresholds.near)

    @cached_property
    def holds(self) -> BoolArray:
        """Draw by draw, whether there is an optimum (C3a), shape (S,)."""
        return has_optimum(self.optimum, self.thresholds.rise)

    @cached_property
    def prior_probability(self) -> float:
        """Of an optimum, before the data."""
        return float(has_optimum(self.prior, self.thresholds.rise).mean())

    @cached_property
    def height(self) -> FloatArray:
        """Each draw's highest minus lowest expected drop over the observed range, points, shape (S,)."""
        return np.asarray(np.ptp(self.drop, axis=1))

    @property
    def flat(self) -> bool:
        """Whether the whole interval of the height is negligible."""
        return bool(interval(self.height)[1] < self.thresholds.rise)

    @cached_property
    def broken(self) -> Finding | None:
        """Why the shape of the curve is not to be relied on; None where nothing speaks against it."""
        curve, grid, limits = self.mean_curve, self.grid, self.thresholds
        return moves_with_cost(curve, grid, limits) or few_clusters(curve.log_mcb, grid, limits)

    @cached_property
    def withheld(self) -> Finding | None:
        """Why no optimum is supported here, however probable; None where nothing speaks against it."""
        if self.broken or self.holds.mean() < self.thresholds.supported:
            return self.broken
        curve, grid, limits, fit = self.mean_curve, self.grid, self.thresholds, self.analysis.fit
        return (
            rests_on_outliers(curve, grid, limits)
            or rests_on_groups(curve, grid, limits, fit.prior_settings, fit.settings.random_seed)
            or self._rests_on_kinds(lambda drawn: has_optimum(drawn, limits.rise))
        )

    def _rests_on_kinds(self, holds: Callable[[OptimumDraws], BoolArray]) -> Finding | None:
        """Return the column, or the order of the rows, whose differences alone make a claim about the curve hold."""
        curve, fit = self.mean_curve, self.analysis.fit
        rows, widths = fit.recipes.first[curve.rows.numbers], fit.population.widths
        kinds = {name: codes[rows] for name, codes in self.analysis.kinds.items()}
        stretch = follows_order(curve, rows, None if widths is None else widths[rows])
        if stretch is not None:
            kinds[ORDER] = stretch
        return rests_on_kinds(curve, self.grid, holds, kinds, fit.prior_settings, fit.settings.random_seed)

    @cached_property
    def outcome(self) -> Outcome:
        """The outcome of C3a, by the one rule for it."""
        if not self.analysis.usable:
            return "not assessable"
        found = decide(float(self.holds.mean()), self.prior_probability, self.flat, self.thresholds)
        return "undecided" if found == "supported" and self.withheld else found

    @cached_property
    def one_sided(self) -> Finding | None:
        """The finding that one end of the observed range is as good as any mCB in it, and the other end worse."""
        limits, ends = self.thresholds, ("rise_lower", "rise_upper")
        if not self.analysis.usable or (self.broken and self.broken.kind == "clusters"):
            return None
        for better, far, near, worse in (("lower", "high", *ends), ("higher", "low", *ends[::-1])):

            def holds(drawn: OptimumDraws, here: str = near, there: str = worse) -> BoolArray:
                return np.asarray(
                    (getattr(drawn, here) <= limits.near) & (getattr(drawn, there) > limits.rise)
                )

            if holds(self.optimum).mean() >= limits.supported and not self._rests_on_kinds(holds):
                cost = estimate(getattr(self.optimum, worse))
                return fact("one-sided", self.label, better=better, far=far, cost=cost)
        return None

    @cached_property
    def regions(self) -> tuple[tuple[float, float, float], ...]:
        """Lower end, best and upper end (log mCB) of both near-optimal ranges, where worse values lie in between."""
        if self.outcome != "supported":
            return ()
        thinned = self.drop[:: max(1, len(self.drop) // SECOND_DRAWS)]
        probability, both = second_region(self.grid, thinned, self.thresholds.rise, self.thresholds.near)
        return both if probability > SECOND_REGION else ()

    @cached_property
    def stretches(self) -> tuple[Span, ...]:
        """The ranges of mCB to choose from: the near-optimal one first, or two with worse values in between."""
        if self.regions:
            return tuple(exponentials((low, high)) for low, _, high in self.regions)
        return tuple(exponentials(pair) for pair in self.optimum.near.stretches)

    @cached_property
    def heavy_tailed(self) -> bool:
        """Whether a few far recipes make the spread about the curve, where the noise model is the normal one."""
        curve = self.mean_curve
        if curve.noise != "normal":
            return False
        residual = curve.adjusted - np.interp(curve.log_mcb, self.grid, np.median(self.drop, axis=0))
        return bool(residual.std() > HEAVY_TAILS * median_abs_deviation(residual, scale="normal") > 0.0)

    @property
    def recipes_to_decide(self) -> int | None:
        """At how many recipes a rise like the present estimate is decided in four of five regimes; None: at no number."""
        if self.withheld and self.withheld.kind not in MORE_RECIPES_HELP:
            return None
        distance = abs(float(np.median(least_rise(self.optimum))) - self.thresholds.rise)
        row = self.analysis.optima[self.label]
        needed = (DECIDING * row.residual_sd / distance) ** 2 if distance > 0 else np.inf
        # What was not enough here is at least doubled.
        needed = max(needed, 2.0 * row.n_recipes)
        return int(float(f"{needed:.2g}")) if needed <= TOO_MANY else None

    @property
    def shape(self) -> Finding:
        """What the curve looks like where no optimum is supported."""
        if self.flat:
            return fact("flat", self.label, height=estimate(self.height))
        if self.one_sided:
            return self.one_sided
        low, high = float(np.median(self.optimum.rise_lower)), float(np.median(self.optimum.rise_upper))
        end, least = "low" if low < high else "high", estimate(least_rise(self.optimum))
        return fact("lopsided", self.label, end=end, least=least, required=self.thresholds.rise)

    @property
    def remedies(self) -> tuple[Finding, ...]:
        """What would decide whether there is an optimum: where a premise is broken, other recipes; else more."""
        data, broken = self.data, self.withheld
        kind = broken.kind if broken else "outliers" if self.heavy_tailed else ""
        if not kind:
            return (deciding_recipes(self),)
        kept = 1.0 - data.target
        half = kept - kept * float(np.exp(-data.reach / 2.0))
        told = {
            "moves with cost": fact("narrower regimes", target=data.target, half_width=half),
            "outliers": Finding("down-weight outliers"),
            "clusters": Finding("fill the gaps"),
            "groups": Finding("add unrelated"),
            "kinds": fact("one kind", column=broken.values.get("column", "") if broken else ""),
            "order": fact("random order"),
        }
        more = (deciding_recipes(self),) if kind in MORE_RECIPES_HELP else ()
        return (replace(told[kind], regimes=(self.label,)), *more)


@dataclass(eq=False)
class Analysis:
    """A fit, the thresholds of its verdicts, and (from `judge` on) the verdicts."""

    fit: Fit
    thresholds: Thresholds = field(default_factory=Thresholds)
    note: tuple[Finding, ...] = ()  # What the reason of every verdict says besides.
    verdicts: Verdicts = field(default_factory=lambda: Verdicts([]))

    # What claims are read off.

    @cached_property
    def regimes(self) -> tuple[RegimePosterior, ...]:
        """The fitted regimes."""
        fit, limits = self.fit, self.thresholds
        return tuple(
            RegimePosterior(
                self, k, data, limits, fit.grid[k], fit.expected_drop[:, k], fit.prior_draws[1][:, k]
            )
            for k, data in enumerate(fit.fitted)
        )

    @cached_property
    def kinds(self) -> dict[str, IntArray]:
        """Columns that tell kinds of networks apart, a code per row."""
        return kinds_of_networks(self.fit.population)

    @property
    def by_label(self) -> dict[str, RegimePosterior]:
        """The fitted regimes by label."""
        return {regime.label: regime for regime in self.regimes}

    @property
    def with_optimum(self) -> tuple[RegimePosterior, ...]:
        """The regimes in which C3a is supported."""
        return tuple(regime for regime in self.regimes if regime.outcome == "supported")

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """The outcome of C3a by regime, those without a curve included."""
        found = {regime.label: regime.outcome for regime in self.regimes}
        return {r.label: found.get(r.label, "not assessable") for r in self.fit.regimes}

    @cached_property
    def explained(self) -> Explained:
        """What explains the drop, on the fit's own regimes."""
        return what_explains(self.fit.population, self.fit.recipes, self.fit.settings.random_seed)

    @property
    def usable(self) -> bool:
        """Whether the fit's own diagnostics accept it."""
        return self.fit.convergence.ok

    @property
    def rejection(self) -> Finding:
        """Why the fit cannot be used."""
        exact = self.fit.settings.method == "exact"
        what = "the grid does not resolve the posterior" if exact else "the sampler did not converge"
        return fact("not converged", what=what, reasons=self.fit.convergence.reasons)

    @property
    def way_out(self) -> Finding:
        """What to do about a fit that its own diagnostics reject."""
        settings, table = self.fit.settings, self.fit.convergence.table
        worst = (str(table["regime"].iloc[int(np.argmax(table["r_hat"]))]),) if "r_hat" in table else ()
        return Finding("fit another way", worst, {"method": settings.method, "noise": settings.noise})

    # The making of verdicts.

    def verdict(
        self,
        conjecture: str,
        regime: RegimeDesign | None,
        said: Finding,
        holds: BoolArray,
        size: FloatArray,
        *remedies: Finding,
        prior: float = np.nan,
        negligible: bool = False,
        withheld: Finding | None = None,
        rests_on: RegimePosterior | None = None,
        facts: Sequence[Finding] = (),
    ) -> Verdict:
        """Decide on a claim, worded by `said` and `facts`; `regime` None: over all of them. `remedies` would decide it."""
        # holds, size (S,): draw by draw, whether the claim holds, and the quantity that it compares with a threshold.
        # prior: probability of the claim before the data, NaN where there is no prior. negligible: whether the whole
        # interval of the effect is. withheld: what forbids "supported", however probable the claim is. rests_on: the
        # regime whose optimum (C3a) the claim is about, which it never outruns.
        limits, where, probability = self.thresholds, (regime.label if regime else ALL,), float(holds.mean())
        outcome = decide(probability, prior, negligible, limits)
        capped = outcome == "supported" and withheld is not None
        if rests_on is not None and rests_on.outcome != "supported":
            capped, withheld, remedies = True, Finding("optimum undecided", where), rests_on.remedies
        outcome = "undecided" if capped else outcome
        decision = fact(
            "decision",
            *where,
            outcome=outcome,
            probability=probability,
            prior=prior,
            negligible=negligible_words(conjecture, limits) if negligible else "",
            withheld="yes" if capped else "",
            at_least=limits.supported,
            at_most=limits.refuted,
        )
        why = (withheld,) if capped and withheld else ()
        basis = [decision, *why, *facts, *self.note]
        if regime is not None:
            basis.append(Finding("observed", where, {"observed": exponentials(regime.observed)}))
        values = {"outcome": outcome, "axis": self.fit.regime_axis, **said.values}
        middle, (lower, upper) = float(np.median(size)), interval(size)
        return Verdict(
            conjecture, where[0], outcome, probability, prior, middle, float(lower), float(upper), self._observed(regime),
            limits, replace(said, regimes=where, values=values), tuple(basis), remedies if outcome == "undecided" else (),
        )  # fmt: skip

    def not_assessable(
        self, conjecture: str, regime: RegimeDesign | None, why: Finding, *remedies: Finding
    ) -> Verdict:
        """Say that a claim cannot be assessed, why, and what would change that."""
        nan, where = float("nan"), (regime.label if regime else ALL,)
        why = replace(why, regimes=where)
        found = fact("not assessable", *where, conjecture=conjecture, axis=self.fit.regime_axis, why=why)
        return Verdict(
            conjecture, where[0], "not assessable", nan, nan, nan, nan, nan, self._observed(regime), self.thresholds,
            found, (why, *self.note), remedies,
        )  # fmt: skip

    def rejected(self, conjecture: str, regime: RegimeDesign | None) -> Verdict:
        """Say that a claim cannot be assessed because the fit cannot be used, and what to do."""
        return self.not_assessable(conjecture, regime, self.rejection, self.way_out)

    def _observed(self, regime: RegimeDesign | None) -> tuple[float, float]:
        return exponentials(regime.observed) if regime and regime.fitted else (np.nan, np.nan)

    @cached_property
    def techniques(self) -> dict[str, tuple[str, ...]]:
        """How the networks of each regime were retrained, by its label; rows that do not say come last."""
        population, assigned = self.fit.population, self.fit.recipes.assigned
        names = [name or UNNAMED for name in population.techniques]
        return {
            label: tuple(names[t] for t in np.unique(population.technique[assigned.index == k]))
            for k, label in enumerate(assigned.labels)
        }

    def mixture(self, regime: RegimeDesign) -> tuple[Finding, ...]:
        """Return that networks retrained in different ways share one curve, where they do."""
        names = self.techniques.get(regime.label, ())
        if len(names) < 2:
            return ()
        return (fact("mixture", regime.label, techniques=names, first=names[0]),)

    # What tables, figures and the terminal show.

    @property
    def axis_words(self) -> str:
        """What a regime removes: "MACs" or "parameters"."""
        return AXIS_WORDS[self.fit.regime_axis]

    @cached_property
    def optima(self) -> dict[str, Any]:
        """The rows of `fit.optima()` by regime; those not fitted have a `reason`."""
        return {row.regime: row for row in rows_of(self.fit.optima())}

    @property
    def fitted_optima(self) -> list[Any]:
        """The rows of `fit.optima()` of the fitted regimes."""
        return [self.optima[r.label] for r in self.fit.fitted]

    @property
    def n_fitted(self) -> int:
        """Trainings in the fitted regimes."""
        return sum(r.n for r in self.fit.fitted)

    @cached_property
    def curve(self) -> pd.DataFrame:
        """The expected drop at every fourth point of the grid: regime, mcb, drop (median), lower, upper."""
        whole = self.fit.curve()
        return whole[whole.index % GRID_SIZE % CURVE_STEP == 0].reset_index(drop=True)

    @property
    def extrapolated(self) -> list[str]:
        """The fitted regimes whose centre lies outside the reductions of their networks."""
        return [found.regimes[0] for found in self.fit.extrapolated]

    @cached_property
    def mixes(self) -> dict[str, tuple[float, float]]:
        """Range of each supported optimal mCB when a group's narrowest or widest quarter is left out."""
        widths, first = self.fit.population.widths, self.fit.recipes.first
        curves = {r.label: r.mean_curve for r in self.with_optimum if widths is not None}
        return {label: c.mix_range(widths[first[c.rows.numbers]]) for label, c in curves.items()}  # type: ignore[index]

    @cached_property
    def networks(self) -> pd.DataFrame:
        """One row per network (recipe), in the order of the recipes' numbers.

        Columns: regime (label), mcb, reduction, drop (points, mean over its trainings), drop_at_mix (the same at the
        average retraining technique of its regime), runs, macs, ratio_std (NaN where unknown), and `adjusted`: the
        drop at the regime's centre and mix of retraining techniques by the fit's own terms, NaN for networks that
        the fit leaves out.
        """
        fit, table, first = self.fit, self.fit.recipes.table, self.fit.recipes.first
        labels = np.array([*fit.recipes.assigned.labels, ""], dtype=object)
        spread = ratio_std(fit.population)
        adjusted = np.full(len(table), np.nan)
        for curve in (regime.mean_curve for regime in self.regimes):
            adjusted[curve.rows.numbers] = curve.adjusted
        return pd.DataFrame(
            {
                "regime": labels[table["regime"].to_numpy()],
                "mcb": np.exp(table["log_mcb"]),
                "reduction": table["reduction"],
                "drop": table["drop"],
                "drop_at_mix": fit.recipes.at_average_technique["drop"],
                "runs": table["runs"].astype(int),
                "macs": fit.population.frame["macs"].to_numpy()[first],
                "ratio_std": np.nan if spread is None else spread[first],
                "adjusted": adjusted,
            }
        )

    def of_regime(self, label: str) -> pd.DataFrame:
        """Return the networks of one regime that are in its fit."""
        return self.networks[(self.networks["regime"] == label) & self.networks["adjusted"].notna()]


def deciding_recipes(regime: RegimePosterior) -> Finding:
    """Return the plan of a population that would decide whether there is an optimum, or that none is in reach."""
    if regime.recipes_to_decide is None:
        return fact("too many recipes", regime.label, most=float(TOO_MANY))
    return replace(more_recipes(regime.data, count=regime.recipes_to_decide), kind="deciding recipes")


def more_recipes(
    *regimes: RegimeDesign,
    count: int = PROPOSED_COUNT,
    techniques: tuple[str, ...] = (),
    space: str = "stratified",
) -> Finding:
    """Return the plan of a population that would tell, retrained by these techniques."""
    where, space = (f"{regime.target:g}" for regime in regimes), "" if techniques else space
    return fact("more recipes", *where, axis=regimes[0].axis, count=count, space=space, retraining=techniques)


def twice_the_recipes(regime: RegimeDesign) -> Finding:
    """Return the plan of a population of twice the regime's recipes."""
    return replace(more_recipes(regime, count=2 * regime.n_recipes), kind="twice the recipes")
