"""What all claims share: the fit being judged, its regimes' readings, and the making of a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from popstats.arrays import BoolArray, FloatArray
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import interval
from popstats.judgement.explained import Explained, what_explains
from popstats.judgement.verdicts import Outcome, Thresholds, Verdict, decide
from popstats.posterior.fit import Fit
from popstats.posterior.mean_curve import MeanCurve
from popstats.posterior.optimum import (
    NEAR_OPTIMAL_POINTS,
    OptimumDraws,
    SecondRegion,
    curve_height,
    has_optimum,
    is_flat,
    read_optimum,
    second_region,
)
from popstats.posterior.pointwise import fitted_points

#: A sentence, or what makes it where it takes work that only one outcome needs.
Words = str | Callable[[], str]

#: Regime label of a verdict over all regimes.
ALL = "all"
#: Draws that a second good region is looked for in: its probability is compared with one half only.
SECOND_DRAWS = 1000
#: Recipes that the proposed plan lines ask for.
PROPOSED_COUNT = 200
#: What rows that do not say how they were retrained are called beside others.
UNNAMED = "an unnamed technique"
_AXIS_WORDS = {"macs": "MACs reduction", "params": "parameter reduction"}


@dataclass(frozen=True, eq=False)
class Reading:
    """One fitted regime, read off its draws and off draws from its prior."""

    data: RegimeDesign
    grid: FloatArray  # (G,); log mCB.
    # drop, prior_drop: (S, G); Draws of the expected drop, points (the prior's around an arbitrary level).
    drop: FloatArray
    prior_drop: FloatArray
    optimum: OptimumDraws  # The optimum, draw by draw.
    near: float  # Height of the near-optimal range, points.

    @property
    def label(self) -> str:
        """Label of the regime."""
        return self.data.label

    @cached_property
    def prior(self) -> OptimumDraws:
        """The optimum under the prior."""
        return read_optimum(self.grid, self.prior_drop, self.near)

    @cached_property
    def height(self) -> FloatArray:
        """Each draw's highest minus lowest expected drop over the observed range, points."""
        return curve_height(self.drop)

    def second(self, bump: float) -> SecondRegion:
        """Return the second good region beside the optimum."""
        thinned = self.drop[:: max(1, len(self.drop) // SECOND_DRAWS)]
        return second_region(self.grid, thinned, bump, self.near)

    @property
    def observed(self) -> tuple[float, float]:
        """Observed range, mCB."""
        low, high = np.exp(self.data.observed)
        return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Effect:
    """What a claim is about, as draws."""

    holds: BoolArray  # (S,); Whether the claim holds, draw by draw.
    prior_probability: float  # Of the claim under the prior; NaN where there is none.
    size: FloatArray  # (S,); The quantity shown, in `unit`: the one that `holds` compares with a threshold.
    quantity: str  # What it is, in a few words.
    unit: str
    negligible: str  # What counts as no effect, in words.
    inside_negligible: bool = False  # Whether the whole 90 % interval of the effect lies there.
    withheld: str = ""  # What forbids "supported", however probable the claim is; empty if nothing does.


@dataclass(frozen=True, eq=False)
class Case:
    """A fit on trial."""

    fit: Fit
    thresholds: Thresholds
    given: Explained | None = None  # What explains the drop, where the caller has it already.
    # What to add to the reason of every verdict read off this fit; empty for the fit that was asked for.
    note: str = ""

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """The fitted regimes."""
        fit, near = self.fit, self.thresholds.near
        return tuple(
            Reading(r, fit.grid[k], fit.expected_drop[:, k], fit.prior_drop[:, k], self._optimum(k), near)
            for k, r in enumerate(fit.fitted)
        )

    def _optimum(self, k: int) -> OptimumDraws:
        if self.thresholds.near == NEAR_OPTIMAL_POINTS:
            return self.fit.optimum_draws[k]
        return self.fit.read_optimum(k, self.thresholds.near)

    @cached_property
    def mean_curves(self) -> tuple[MeanCurve, ...]:
        """The fitted regimes, ready for curves through some of their recipes."""
        return tuple(MeanCurve.of(self.fit, k, points) for k, points in enumerate(fitted_points(self.fit)))

    @cached_property
    def with_optimum(self) -> tuple[Reading, ...]:
        """The regimes in which C3a is supported."""
        return tuple(r for r in self.readings if self.has_optimum(r) == "supported") if self.usable else ()

    def has_optimum(self, reading: Reading) -> Outcome:
        """Return the outcome of C3a in a regime."""
        prior = float(has_optimum(reading.prior, self.thresholds.rise).mean())
        return decide_optimum(reading.optimum, reading.height, prior, self.thresholds)[0]

    @cached_property
    def explained(self) -> Explained:
        """What explains the drop, on the fit's own regimes."""
        settings = self.fit.settings
        return self.given or what_explains(
            self.fit.population,
            regime_axis=settings.regime_axis,
            regimes=settings.regimes,
            seed=settings.random_seed,
        )

    @property
    def explained_so_far(self) -> Explained | None:
        """What explains the drop, where it was given or asked for; None otherwise."""
        return self.given or self.__dict__.get("explained")

    @property
    def usable(self) -> bool:
        """Whether the fit's own diagnostics accept it."""
        return self.fit.convergence.ok

    @property
    def rejection(self) -> str:
        """Why verdicts that hang on the fit cannot be given."""
        return "the fit's own diagnostics reject it: " + "; ".join(self.fit.convergence.reasons)

    @property
    def way_out(self) -> str:
        """What to do about a fit that its own diagnostics reject."""
        settings, table = self.fit.settings, self.fit.convergence.table
        if settings.method == "exact":
            return (
                "fit again with method='nuts' (--method nuts), which has no grid, or with a wider prior of the amplitude "
                "(popstats.inference.model.Priors)"
            )
        where = (
            f" (worst in regime {table['regime'].iloc[int(np.argmax(table['r_hat']))]})"
            if "r_hat" in table
            else ""
        )
        if settings.noise == "normal":
            return (
                f"fit again with method='exact' (--method exact), which has no chains that could disagree{where}, or with "
                "more draws (draws=4000, tune=2000)"
            )
        return (
            f"fit again with noise='normal' (--noise normal), whose curves are drawn exactly: noise {settings.noise!r} can "
            f"leave two good curves open between which the chains do not move{where}; or with more draws (draws=4000, "
            "tune=2000), or more recipes there"
        )

    def rejected(self, conjecture: str, regime: RegimeDesign | None) -> Verdict:
        """Say that a claim cannot be assessed because the fit may not be believed, and what to do."""
        return self.not_assessable(conjecture, regime, self.rejection, self.way_out)

    @cached_property
    def techniques(self) -> dict[str, tuple[str, ...]]:
        """How the networks of each regime were retrained."""
        return retraining_techniques(self.fit)

    def mixture(self, regime: RegimeDesign) -> str:
        """Return what to add to a reason where networks retrained in different ways share one curve."""
        techniques = self.techniques.get(regime.label, ())
        if len(techniques) < 2:
            return ""
        one = f"population.where(retraining={techniques[0]!r})"
        return (
            f"; networks retrained by {' and '.join(techniques)} share one curve, their difference in level taken out; "
            f"{one} fits one alone"
        )

    def at(self, regime: RegimeDesign) -> str:
        """Return the regime in words: "At 75 % MACs reduction"."""
        return f"At {100 * regime.target:.4g} % {_AXIS_WORDS[self.fit.regime_axis]}"

    def unfitted(self) -> Iterator[RegimeDesign]:
        """Return the regimes with too little to fit a curve to."""
        return (r for r in self.fit.regimes if not r.fitted)

    def verdict(
        self, conjecture: str, regime: RegimeDesign | None, effect: Effect, words: Mapping[str, Words]
    ) -> Verdict:
        """Decide on a claim and put it into words."""
        probability = float(np.mean(effect.holds))
        outcome = decide(probability, effect.prior_probability, effect.inside_negligible, self.thresholds)
        outcome = "undecided" if outcome == "supported" and effect.withheld else outcome
        lower, upper = interval(effect.size)
        return Verdict(
            conjecture=conjecture,
            regime=ALL if regime is None else regime.label,
            outcome=outcome,
            probability=probability,
            prior_probability=effect.prior_probability,
            estimate=float(np.median(effect.size)),
            lower=float(lower),
            upper=float(upper),
            unit=effect.unit,
            observed_range=self._range(regime),
            thresholds=self.thresholds,
            negligible_region=effect.negligible,
            reason=_reason(outcome, probability, effect, self.thresholds)
            + _said(words.get("because", ""))
            + self.note
            + self._observed(regime),
            sentence=_sentence(outcome, probability, effect, self.thresholds, _said(words[outcome])),
            remedy=_said(words.get("remedy", "")) if outcome == "undecided" else "",
            quantity=effect.quantity,
        )

    def not_assessable(
        self, conjecture: str, regime: RegimeDesign | None, reason: str, remedy: str = "", where: str = ""
    ) -> Verdict:
        """Say that a claim cannot be assessed, why, and what would change that."""
        nan = float("nan")
        place = where or ("Over all regimes" if regime is None else self.at(regime))
        return Verdict(
            conjecture, ALL if regime is None else regime.label, "not assessable", nan, nan, nan, nan, nan, "",
            self._range(regime), self.thresholds, "", reason, f"{place} {conjecture} cannot be assessed: {reason}.",
            remedy,
        )  # fmt: skip

    def _observed(self, regime: RegimeDesign | None) -> str:
        """Return where anything is claimed, for the end of a reason."""
        low, high = self._range(regime)
        return "" if np.isnan(low) else f"; observed mCB {number(low)} to {number(high)}"

    def _range(self, regime: RegimeDesign | None) -> tuple[float, float]:
        if regime is None or not regime.fitted:
            return float("nan"), float("nan")
        low, high = np.exp(regime.observed)
        return float(low), float(high)


def _sentence(outcome: str, probability: float, effect: Effect, limits: Thresholds, words: str) -> str:
    """Return the sentence, and why a claim that looks refuted is not: the prior alone held it improbable."""
    if outcome != "undecided" or not probability <= limits.refuted:
        return words
    shown = "under 0.01" if probability < 0.01 else f"{probability:.2f}"
    before = f"it was {effect.prior_probability:.2f} before the data, too little evidence to refute"
    return f"{words.removesuffix('.')} (probability {shown}; {before})."


def decide_optimum(
    optimum: OptimumDraws, height: FloatArray, prior_probability: float, limits: Thresholds
) -> tuple[Outcome, float]:
    """Return the outcome of C3a, by the one rule for it, and its probability."""
    # height (S,)
    probability = float(has_optimum(optimum, limits.rise).mean())
    return decide(probability, prior_probability, is_flat(height, limits.rise), limits), probability


def retraining_techniques(fit: Fit) -> dict[str, tuple[str, ...]]:
    """Return how the networks of each regime were retrained, by its label; rows that do not say come last."""
    population, assigned = fit.population, fit.recipes.assigned
    names = [name or UNNAMED for name in population.techniques]
    return {
        label: tuple(names[t] for t in np.unique(population.technique[assigned.index == k]))
        for k, label in enumerate(assigned.labels)
    }


def _said(words: Words) -> str:
    return words if isinstance(words, str) else words()


def _reason(outcome: str, probability: float, effect: Effect, limits: Thresholds) -> str:
    drawn_from_data = np.isnan(effect.prior_probability)
    prior = "" if drawn_from_data else f", before the data {effect.prior_probability:.2f}"
    # A bootstrap has no probability before the data, and nothing to set to even odds.
    even = "" if drawn_from_data else ", also at even odds before the data,"
    shown = f"probability of the claim {probability:.3f}{prior}"
    if outcome == "supported":
        return f"{shown}; at least {limits.supported:g} supports"
    if outcome == "refuted" and effect.inside_negligible:
        return f"the whole 90 % interval is negligible ({effect.negligible}); {shown}"
    if outcome == "refuted":
        return f"{shown}; at most {limits.refuted:g}{even} refutes"
    if effect.withheld and probability >= limits.supported:
        return f"{shown}; {effect.withheld}"
    return f"{shown}; at least {limits.supported:g} would support, at most {limits.refuted:g}{even} refute"


def span(draws: FloatArray, digits: int = 2) -> str:
    """Return "median (90 % interval low to high)"."""
    low, high = interval(draws)
    return (
        f"{number(np.median(draws), digits)} (90 % interval {number(low, digits)} to {number(high, digits)})"
    )


def number(value: npt.ArrayLike, digits: int = 2) -> str:
    """Return a number with fixed digits and no negative zero."""
    text = f"{float(np.asarray(value)):.{digits}f}"
    return text.lstrip("-") if float(text) == 0.0 else text


def percent(share: float) -> str:
    """Return a fraction as percent: "5 %"."""
    return f"{100 * share:.3g} %"


def twice_the_recipes(regime: RegimeDesign) -> str:
    """Return the plan lines of a population of twice the regime's recipes, and where to ask for a better number."""
    return (
        "# Twice as many as now; popstats.plan_size says what a precision you choose takes.\n"
        f"{more_recipes(regime, 2 * regime.n_recipes)}"
    )


def more_recipes(regime: RegimeDesign, count: int = PROPOSED_COUNT, space: str = "stratified") -> str:
    """Return the plan lines of a population that would tell."""
    return (
        f'[[recipes]]\naxis = "{regime.axis}"\nregimes = [{regime.target:g}]\n'
        f'space = "{space}"\ncount = {count}'
    )
