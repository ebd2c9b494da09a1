"""What explains the drop: how much of it mCB, parameters, STD and the layers' widths predict, beyond MACs.

Every share is cross-validated by recipe and measured against the same baseline (the regime's level and its
MACs terms), next to the ceiling that the seeds' own noise sets. The difference that conjecture M1 asks about
is paired: both models predict the same held-out recipes.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.inference.draws import interval
from popstats.inference.regression import (
    assign_folds,
    distance_terms,
    held_out_losses,
    log_width_terms,
    natural_spline,
)
from popstats.population.recipes import (
    Recipes,
    original_widths,
    prepared_recipes,
    ratio_std,
)
from popstats.population.regimes import Axis
from popstats.population.table import Population

Reach = Literal["most", "part", "unknown"]


#: Fewer recipes than this in a regime and ten folds predict next to nothing.
MINIMUM_RECIPES = 30


#: Bayesian bootstrap draws over recipes.
BOOTSTRAP = 500


#: What is compared, in the order of the table: name -> the features in it.
MODELS: Mapping[str, tuple[str, ...]] = {
    "mCB": ("log_mcb",),
    "parameters": ("log_params",),
    "STD": ("ratio_std",),
    "mCB + STD": ("log_mcb", "ratio_std"),
    "log-widths": ("log_widths",),
    "log-widths + mCB": ("log_widths", "log_mcb"),
}


CEILING = "retraining-noise ceiling"


#: From this share of the ceiling on, the additive law accounts for what recipes differ in. Simulated populations whose truth
#: is such a law reach 0.80 to 0.98 of it in 95 % of regimes of 100 recipes and more (24 regimes a setting).
MOST = 0.8


#: The two models whose difference M1 asks about.
GAIN = ("log-widths", "log-widths + mCB")


@dataclass(frozen=True, eq=False)
class WidthsBeyond:
    """What mCB adds to the additive law in log-widths, in one regime (conjecture M1)."""

    regime: str
    n_recipes: int
    gain: float  # Rise of cross-validated R^2 beyond MACs when mCB is added to the log-widths.
    draws: FloatArray  # (B,); Bayesian bootstrap draws of it over recipes.
    # R^2 of the log-widths alone as a share of the retraining-noise ceiling; NaN without replicates.
    share_of_ceiling: float
    r2: float  # R^2 of the log-widths alone.

    @property
    def reach(self) -> Reach:
        """How much of what can be predicted the additive law predicts.

        "most" of it, only "part" of it, or "unknown" where no recipe has a second seed: only from a mCB that adds nothing
        to a law that predicts most of it follows that the law makes the best mCB.
        """
        # No ceiling lies above 1, so a law that reaches most of the whole variance reaches most of any ceiling.
        if self.share_of_ceiling >= MOST or self.r2 >= MOST:
            return "most"
        return "unknown" if np.isnan(self.share_of_ceiling) else "part"


@dataclass(frozen=True, eq=False, repr=False)
class Explained:
    """What explains the drop."""

    # One row a regime and model: `regime`, `model`, `n_recipes`, `r2` (share of the variance of single
    # trainings left by MACs that the model predicts on held-out recipes; negative: it predicts worse than MACs
    # alone), `lower`, `upper` (90 %, over recipes). The row "retraining-noise ceiling" is what a model that
    # knew every recipe's true mean would reach.
    frame: pd.DataFrame
    widths_beyond: Mapping[str, WidthsBeyond]  # M1's quantity by regime; empty without widths.

    def __repr__(self) -> str:
        return (
            f"<Explained: {self.frame['model'].nunique()} models in {self.frame['regime'].nunique()} regimes>"
        )

    def _repr_html_(self) -> str:
        if self.frame.empty:
            return html.escape(repr(self))
        table = self.frame.pivot(index="model", columns="regime", values="r2")
        order = [m for m in [*MODELS, CEILING] if m in table.index]
        return str(table.loc[order].to_html(float_format=lambda v: f"{v:.3f}"))


def what_explains(
    population: Population,
    *,
    regime_axis: Axis = "macs",
    regimes: Sequence[float] | Mapping[float, float] | None = None,
    seed: int = 0,
) -> Explained:
    """Measure what explains the accuracy drop in each regime, beyond MACs."""
    prepared = prepared_recipes(population, regime_axis, regimes)
    recipes = prepared.at_average_technique
    features = _features(population, prepared)
    rows: list[dict[str, object]] = []
    beyond: dict[str, WidthsBeyond] = {}
    for k, label in enumerate(prepared.assigned.labels):
        keep = recipes["regime"].to_numpy() == k
        if keep.sum() < MINIMUM_RECIPES:
            continue
        members = {name: values[keep] for name, values in features.items()}
        scored = _Scores.of(recipes[keep], members, seed)
        shares = scored.shares()
        rows += _rows(label, int(keep.sum()), *shares)
        if "log_widths" in features:
            beyond[label] = _widths_beyond(label, int(keep.sum()), *shares)
    columns = ["regime", "model", "n_recipes", "r2", "lower", "upper"]
    return Explained(pd.DataFrame(rows, columns=columns), beyond)


def _features(population: Population, recipes: Recipes) -> dict[str, FloatArray]:
    first = recipes.first
    features = {
        "log_mcb": recipes.table["log_mcb"].to_numpy()[:, None],
        "log_params": np.log1p(-population.frame["params_reduction"].to_numpy()[first])[:, None],
    }
    spread = ratio_std(population)
    if spread is not None:
        features["ratio_std"] = spread[first][:, None]
    if population.widths is not None:
        features["log_widths"] = np.log(population.widths[first] / original_widths(population))
    return features


def _terms(feature: FloatArray) -> FloatArray:
    """Return the columns of one feature: a free curve of a single number, the additive law of the log-widths."""
    if feature.shape[1] == 1:
        return natural_spline(feature[:, 0], feature[:, 0])[:, 1:]
    return log_width_terms(feature, feature.mean(axis=0))


@dataclass(frozen=True, eq=False)
class _Scores:
    """Held-out losses of every model in one regime, and the bootstrap weights that compare them."""

    baseline: FloatArray
    losses: Mapping[str, FloatArray]
    within: FloatArray
    seed_variance: float
    runs: FloatArray
    bootstrap: npt.NDArray[np.float32]

    @classmethod
    def of(cls, recipes: pd.DataFrame, features: Mapping[str, FloatArray], seed: int) -> _Scores:
        drop, runs = recipes["drop"].to_numpy(), recipes["runs"].to_numpy()
        fold = assign_folds(drop.size, seed)
        base = distance_terms(recipes["reduction"].to_numpy())

        def losses(names: tuple[str, ...]) -> FloatArray:
            terms = [_terms(features[n]) for n in names]
            return runs * held_out_losses(np.hstack([base, *terms]), drop, runs, fold, free=base.shape[1])

        within = recipes["within"].to_numpy()
        df = runs.sum() - runs.size
        return cls(
            baseline=losses(()),
            losses={m: losses(names) for m, names in MODELS.items() if set(names) <= set(features)},
            within=within,
            seed_variance=float(within.sum() / df) if df > 0 else float("nan"),
            runs=runs,
            # Single precision halves the time, and sums over recipes keep six digits.
            bootstrap=np.random.default_rng(seed).standard_exponential(
                (BOOTSTRAP, drop.size), dtype=np.float32
            ),
        )

    def shares(self) -> tuple[list[str], FloatArray, FloatArray]:
        """Return names, values (M,) and draws (B, M) of what each model explains of single trainings' variance.

        The last column is the gain of mCB over the log-widths alone, where there are widths.
        """
        named = {name: self.baseline - loss for name, loss in self.losses.items()}
        if np.isfinite(self.seed_variance):
            # What knowing every recipe's true mean would explain.
            named[CEILING] = self.baseline + self.within - self.runs * self.seed_variance
        if GAIN[1] in named:
            named["gain"] = named[GAIN[1]] - named[GAIN[0]]
        whole = self.baseline + self.within
        stacked = np.column_stack([*named.values(), whole])
        total, drawn = stacked.sum(axis=0), (self.bootstrap @ stacked.astype(np.float32)).astype(np.float64)
        return list(named), total[:-1] / total[-1], drawn[:, :-1] / drawn[:, -1:]


def _rows(
    label: str, n_recipes: int, names: list[str], point: FloatArray, draws: FloatArray
) -> list[dict[str, object]]:
    lower, upper = interval(draws)
    return [
        {
            "regime": label,
            "model": name,
            "n_recipes": n_recipes,
            "r2": float(point[i]),
            "lower": float(lower[i]),
            "upper": float(upper[i]),
        }
        for i, name in enumerate(names)
        if name != "gain"
    ]


def _widths_beyond(
    label: str, n_recipes: int, names: list[str], point: FloatArray, draws: FloatArray
) -> WidthsBeyond:
    value = dict(zip(names, point.tolist(), strict=True))
    ceiling = value.get(CEILING, float("nan"))
    share = value[GAIN[0]] / ceiling if ceiling > 0 else float("nan")
    gain = value["gain"], draws[:, names.index("gain")]
    return WidthsBeyond(label, n_recipes, *gain, share_of_ceiling=share, r2=value[GAIN[0]])
