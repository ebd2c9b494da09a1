"""`Fit.predict_limit`: which law the limit follows over regimes, and what it predicts for a budget not yet trained.

Each law is linear in its coefficients once its shape is given, so it is fitted by weighted least squares on a grid of
shapes. A regime counts by the inverse of its limit's variance plus the law's own, which is estimated by moments.

References
----------
DerSimonian and Laird (1986), doi:10.1016/0197-2456(86)90046-2 (the law's own variance).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import FitError
from popstats.findings import Estimate, fact
from popstats.inference.draws import interval
from popstats.words import html_of, sentence

if TYPE_CHECKING:
    from popstats.posterior.curves import FittedCurves

#: Fewer regimes than this leave no law with a residual when one of them is left out.
MINIMUM_REGIMES = 5
#: A prediction further than this factor in remaining cost beyond the regimes is refused; any beyond them says so.
FARTHEST = 1.5
#: Beyond the regimes, the interval spans every law whose error is within so many standard errors of the best one's. In 136
#: predictions of the next regime on eleven tables, 90 % intervals then held its limit in 95 %, those of the best law alone
#: in 81 %; inside the regimes (101 predictions) the best law's held it in 94 %.
APART = 2.0
#: Columns of `LimitLaw.left_out`.
LEFT_OUT = ["regime", "limit", "predicted", "predicted_lower", "predicted_upper", "surprise", "beyond"]
#: Values of a shape that are tried.
_shapes = partial(np.geomspace, num=40)

#: Draws that enter.
_DRAWS = 1000


@dataclass(frozen=True)
class _Law:
    """A function of the remaining cost r: level plus terms that are linear once the shape is given."""

    formula: str
    terms: Callable[[FloatArray, FloatArray], list[FloatArray]]  # of r (1, K) and shapes (G, 1)
    shapes: Callable[[FloatArray], FloatArray]  # of the regimes' r, ascending
    parameters: int


#: By name; r is the remaining cost over the original's.
LAWS: Mapping[str, _Law] = {
    "power law": _Law("a + b r^-c", lambda r, c: [(r**-c - 1.0) / c], lambda r: _shapes(0.05, 4.0), 3),
    "exponential": _Law("a + b exp(-c r)", lambda r, c: [np.exp(-c * r)], lambda r: _shapes(0.3, 60.0), 3),
    "logarithm": _Law("a - b log r", lambda r, c: [-np.log(r) * c], lambda r: np.ones(1), 2),
    "broken line": _Law(
        "a - b log r + c max(log k - log r, 0)",
        lambda r, k: [-np.log(r) * np.ones_like(k), np.maximum(np.log(k) - np.log(r), 0.0)],
        lambda r: _shapes(r[1], r[-2]),
        4,
    ),
}


def law_columns(name: str, remaining: FloatArray, at: FloatArray) -> FloatArray:
    """Return the columns of a law fitted to regimes at `remaining` (K,), at remaining costs `at` (m,), (G, m, b)."""
    law = LAWS[name]
    terms = law.terms(at[None, :], law.shapes(np.sort(remaining))[:, None])
    return np.stack([np.ones_like(terms[0]), *terms], axis=-1)


def fit_columns(
    columns: FloatArray, weight: FloatArray, limit: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the best shape's position, coefficients and weighted squares left, (M,), (M, b), (M,)."""
    # columns (G, K, b); weight, limit (M or 1, K)
    squares = np.einsum("mk,gkb,gkc->mgbc", weight, columns, columns, optimize=True)
    products = np.einsum("mk,gkb->mgb", weight * limit, columns, optimize=True)
    beta = np.einsum("mgbc,mgc->mgb", np.linalg.pinv(squares, hermitian=True), products)
    misfit = limit[:, None] - np.einsum("gkb,mgb->mgk", columns, beta, optimize=True)
    left = (weight[:, None] * misfit**2).sum(axis=2)
    best, rows = left.argmin(axis=1), np.arange(len(left))
    return best, beta[rows, best], left[rows, best]


@dataclass(frozen=True)
class _Fitted:
    """One law, fitted to all regimes and to all but each."""

    columns: FloatArray  # (G, K, b)
    base: FloatArray  # (K, b), of the best shape
    error: FloatArray  # (K,) of the prediction of each regime's limit from the others, points
    own: float  # variance of the law's own error, points^2
    shape: float


def _fit_law(name: str, remaining: FloatArray, limit: FloatArray, error: FloatArray) -> _Fitted:
    """Fit a law to limits (K,) with standard errors (K,): all, then all but each."""
    size, columns = limit.size, law_columns(name, remaining, remaining)
    kept = np.vstack([np.ones(size), 1.0 - np.eye(size)])
    weight = kept / error**2
    _, _, left = fit_columns(columns, weight, limit[None])
    freedom = np.maximum(kept.sum(axis=1) - LAWS[name].parameters, 1.0)
    total = weight.sum(axis=1)
    own = np.maximum((left - freedom) / (total - (weight**2).sum(axis=1) / total), 0.0)
    best, beta, _ = fit_columns(columns, kept / (error**2 + own[:, None]), limit[None])
    predicted = np.einsum("kb,kb->k", columns[best[1:], np.arange(size)], beta[1:])
    shape = float(LAWS[name].shapes(np.sort(remaining))[best[0]])
    return _Fitted(columns, columns[best[0]], limit - predicted, float(own[0]), shape)


@dataclass(frozen=True, eq=False)
class LimitLaw:
    """The laws of the limit over a fit's regimes.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row per law, best first: law, formula (r: remaining cost over the original's), shape (the fitted c or k), error
        (mean absolute error of a regime's limit predicted from the others, percentage points) with its standard error se,
        difference (from the best law's error) with its standard error dse, own_sd (spread of the regimes about the law
        beyond their limits' own uncertainty, points).
    """

    frame: pd.DataFrame
    remaining: FloatArray  # (K,)
    labels: tuple[str, ...]
    limits: FloatArray  # (S, K) draws, points
    fitted: Mapping[str, _Fitted]
    seed: int

    @property
    def best(self) -> str:
        """Name of the law with the smallest left-out error."""
        return str(self.frame["law"].iloc[0])

    @cached_property
    def left_out(self) -> pd.DataFrame:
        """One row per regime: its limit, what the best law through the others predicts, and how surprising it is."""
        # surprise: twice the smaller posterior probability of the limit lying on one side of its prediction; beyond: whether
        # the regime lies outside the others
        rows = []
        for k, label in enumerate(self.labels):
            others, limit = np.arange(len(self.labels)) != k, self.limits[:, k]
            law = compare_laws(self.remaining[others], self.limits[:, others], seed=self.seed)
            drawn = law.draw(law.best, self.remaining[k])
            above, (low, high) = float((drawn > limit).mean()), interval(drawn)
            beyond = k in (self.remaining.argmin(), self.remaining.argmax())
            surprise = 2.0 * min(above, 1.0 - above)
            rows.append((label, np.median(limit), np.median(drawn), low, high, surprise, beyond))
        return pd.DataFrame(rows, columns=LEFT_OUT)

    def draw(self, name: str, remaining: float) -> FloatArray:
        """Draw the limit that a law predicts at a remaining cost, points, (S,)."""
        # The regimes' limits vary, with them the law's coefficients and shape, and the law's own error.
        rng, law = np.random.default_rng([self.seed, 4]), self.fitted[name]
        variance = self.limits.var(axis=0)
        noisy = self.limits + np.sqrt(law.own) * rng.standard_normal(self.limits.shape)
        best, beta, _ = fit_columns(law.columns, 1.0 / (variance + law.own)[None], noisy)
        here = law_columns(name, self.remaining, np.array([remaining]))[best, 0]
        # The law's own error is that of the regimes about it, or of their predictions where that is larger.
        own = max(law.own, float((law.error**2 - variance).mean()))
        freedom = max(self.remaining.size - LAWS[name].parameters, 1)
        return np.asarray((here * beta).sum(axis=1) + np.sqrt(own) * rng.standard_t(freedom, len(noisy)))


def limit_law(fit: FittedCurves) -> LimitLaw:
    """Compare the laws of the limit over a fit's regimes by predicting each regime from the others."""
    if len(fit.fitted) < MINIMUM_REGIMES:
        raise FitError(
            f"predict_limit: expected at least {MINIMUM_REGIMES} fitted regimes, got {len(fit.fitted)}; fit narrower "
            "regimes or train recipes at other reductions"
        )
    limits = np.stack([o.limit for o in fit.optimum_draws], axis=1)
    limits = limits[np.linspace(0, len(limits) - 1, min(_DRAWS, len(limits))).astype(int)]
    remaining, labels = 1.0 - np.array([r.reference for r in fit.fitted]), tuple(r.label for r in fit.fitted)
    return compare_laws(remaining, limits, labels, fit.settings.random_seed)


def compare_laws(
    remaining: FloatArray, limits: FloatArray, labels: tuple[str, ...] = (), seed: int = 0
) -> LimitLaw:
    """Compare the laws on draws of limits (S, K) at remaining costs (K,), in points."""
    middle, error = np.median(limits, axis=0), limits.std(axis=0)
    # Through all regimes but one a law must leave a residual: the broken line needs six.
    fitted = {n: _fit_law(n, remaining, middle, error) for n in LAWS if LAWS[n].parameters <= middle.size - 2}
    errors = pd.DataFrame({name: np.abs(law.error) for name, law in fitted.items()})
    errors = errors[errors.mean().sort_values(kind="stable").index]
    apart, ordered = errors.sub(errors.iloc[:, 0], axis=0), [str(name) for name in errors]
    columns = {
        "law": ordered,
        "formula": [LAWS[name].formula for name in ordered],
        "shape": [fitted[name].shape for name in ordered],
        "error": errors.mean().to_numpy(),
        "se": errors.sem().to_numpy(),
        "difference": apart.mean().to_numpy(),
        "dse": apart.sem().to_numpy(),
        "own_sd": [np.sqrt(fitted[name].own) for name in ordered],
    }
    return LimitLaw(pd.DataFrame(columns), remaining, labels, limits, fitted, seed)


@dataclass(frozen=True, eq=False)
class LimitPrediction:
    """The smallest expected drop to be expected at a reduction.

    Attributes
    ----------
    reduction : float
        Fraction of the original removed, on the fit's axis.
    limit, lower, upper : float
        The predicted limit and its 90 % interval, percentage points; beyond the regimes the interval spans all laws that
        predict left-out regimes about as well as the best.
    law : str
        The law that predicts it: the one with the smallest error for regimes left out.
    extrapolated : bool
        Whether the reduction lies beyond the fitted regimes.
    frame : pandas.DataFrame
        One row per law, best first: law, formula, shape, error, se, difference, dse, own_sd, and what it predicts here:
        limit, lower, upper.
    """

    reduction: float
    limit: float
    lower: float
    upper: float
    law: str
    extrapolated: bool
    frame: pd.DataFrame

    @property
    def sentence(self) -> str:
        """The prediction in words."""
        kind, limit = (
            "limit extrapolated" if self.extrapolated else "limit",
            Estimate(self.limit, self.lower, self.upper),
        )
        error = float(self.frame["error"].iloc[0])
        return sentence(fact(kind, reduction=self.reduction, limit=limit, law=self.law, error=error))

    def __repr__(self) -> str:
        return f"<LimitPrediction: {self.sentence}>"

    def _repr_html_(self) -> str:
        return html_of(self.sentence, self.frame)


def predict_limit(law: LimitLaw, reduction: float) -> LimitPrediction:
    """Return what the laws predict at a reduction; FitError where it lies too far beyond the regimes."""
    low, high = float(law.remaining.min()), float(law.remaining.max())
    if not isinstance(reduction, int | float | np.floating) or not 0.0 < reduction < 1.0:
        raise FitError(f"predict_limit: reduction: expected a fraction removed, in (0, 1), got {reduction!r}")
    at = 1.0 - float(reduction)
    if not low / FARTHEST <= at <= high * FARTHEST:
        raise FitError(
            f"predict_limit: reduction {reduction:g} lies too far beyond the fitted regimes ({1.0 - high:g} to "
            f"{1.0 - low:g}): predictions reach from {max(1.0 - high * FARTHEST, 0.0):.3f} to {1.0 - low / FARTHEST:.3f}. "
            "Train recipes nearer to it"
        )
    told = {name: law.draw(name, at) for name in law.frame["law"]}
    ends = np.array([interval(drawn) for drawn in told.values()])
    middle = [float(np.median(drawn)) for drawn in told.values()]
    frame = law.frame.assign(limit=middle, lower=ends[:, 0], upper=ends[:, 1])
    outside = not low - 1e-9 <= at <= high + 1e-9
    alike = frame["difference"] <= APART * frame["dse"] if outside else frame["law"] == law.best
    lower, upper = interval(np.concatenate([told[name] for name in frame["law"][alike]]))
    return LimitPrediction(float(reduction), middle[0], float(lower), float(upper), law.best, outside, frame)
