"""What explains the drop: how much of it mCB, parameters, STD and the layer widths predict, beyond MACs.

Every share is cross-validated by recipe and measured against the same baseline (the regime's level and its
MACs terms), next to the ceiling that the seeds' own noise sets. The difference that conjecture M1 asks about
is paired: both models predict the same held-out recipes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray, IntArray
from popstats.inference.draws import interval
from popstats.inference.regression import (
    assign_folds,
    distance_terms,
    held_out_losses,
    natural_spline,
)
from popstats.population.recipes import Recipes, original_widths, positive_widths, ratio_std
from popstats.population.table import Population

Reach = Literal["most", "part", "unknown"]
#: Fewer recipes than this in a regime and ten folds predict next to nothing.
MINIMUM_RECIPES = 30
#: Bayesian bootstrap draws over recipes.
BOOTSTRAP = 500
#: Random halvings that tell how much the laws of the widths still learn, and what recipes without end would add, per rise
#: from half of the recipes to nine tenths of them: the error that a law of finitely many terms still makes falls as 1 / n.
HALVINGS, STILL_TO_LEARN = 3, 1.25
#: Most pairs of groups: with more the models of pairs take minutes. They also need more recipes than columns.
MOST_PAIRS = 800
#: The two models whose difference M1 asks about, without and with pairwise products of the log-widths.
ADDITIVE = ("log-widths", "log-widths + mCB")
PAIRWISE = ("log-width pairs", "log-width pairs + mCB")
#: What the groups of a transformer are, by their names; the one group that is neither is the embedding.
HEADS, MLP = (
    re.compile("att|q_proj|qkv|query|head", re.I),
    re.compile("mlp|ffn|fc1|feed|linear1|intermediate", re.I),
)
#: The three widths on which MACs and parameters of a transformer depend.
TOTALS = "embedding + heads + MLP"
#: What is compared, in the order of the table: name -> the features in it.
MODELS: Mapping[str, tuple[str, ...]] = {
    "mCB": ("log_mcb",),
    "parameters": ("log_params",),
    "STD": ("ratio_std",),
    "mCB + STD": ("log_mcb", "ratio_std"),
    "embedding": ("log_embedding",),
    "total heads": ("log_heads",),
    "total MLP width": ("log_mlp",),
    TOTALS: ("log_embedding", "log_heads", "log_mlp"),
    ADDITIVE[0]: ("log_widths",),
    ADDITIVE[1]: ("log_widths", "log_mcb"),
    PAIRWISE[0]: ("log_widths", "pairs"),
    PAIRWISE[1]: ("log_widths", "pairs", "log_mcb"),
}
CEILING = "retraining-noise ceiling"
#: From this share of the ceiling on, the additive law accounts for what recipes differ in. Simulated populations whose truth
#: is such a law reach 0.80 to 0.98 of it in 95 % of regimes of 100 recipes and more (24 regimes a setting).
MOST = 0.8
#: Least share of held-out log mCB at equal cost that a complete set of widths explains. On complete tables, real and
#: simulated, of 40 recipes and more: 0.91 to 1 (0.79 with 14 groups and 40 recipes); widths of a third of the groups: at
#: most 0.46; widths that are noise, or constant, or lack a bias term: 0.
WHOLE = 0.8


@dataclass(frozen=True, eq=False)
class WidthsBeyond:
    """What mCB adds to the better law of the widths, additive or with pairwise products, in one regime (conjecture M1)."""

    regime: str
    gain: float  # Rise of cross-validated R² beyond MACs when mCB is added to that law.
    draws: FloatArray  # (B,); Bayesian bootstrap draws of it over recipes.
    # The law's own R² as a share of the retraining-noise ceiling; NaN without replicates.
    share_of_ceiling: float
    r2: float  # The law's own R².
    of_mcb: float  # Share of held-out log mCB at equal cost that the better law explains.
    to_learn: float = 0.0  # What recipes without end would add to the R² of the widths.
    pairwise: bool = False  # Whether the better law has pairwise products.
    # (B,); draws of what mCB adds to the additive law, where that is not the better.
    additive_draws: FloatArray | None = None
    share_of_interaction: float = np.nan  # What mCB adds to the additive law over what the pairs add to it.

    @property
    def reach(self) -> Reach:
        """How much of what can be predicted the law predicts; "unknown" where no recipe has a second seed.

        Only from an mCB that adds nothing to a law that predicts most of it follows that the law makes the optimal mCB.
        """
        # No ceiling lies above 1, so a law that reaches most of the whole variance reaches most of any ceiling.
        if self.share_of_ceiling >= MOST or self.r2 >= MOST:
            return "most"
        return "unknown" if np.isnan(self.share_of_ceiling) else "part"


@dataclass(frozen=True, eq=False)
class Explained:
    """What explains the drop."""

    # One row per regime and model: `regime`, `model`, `n_recipes`, `r2` (share of the variance of single
    # trainings left by MACs that the model predicts on held-out recipes; negative: it predicts worse than MACs
    # alone), `lower`, `upper` (90 %, over recipes). The row "retraining-noise ceiling" is what a model that
    # knew every recipe's true mean would reach.
    frame: pd.DataFrame
    widths_beyond: Mapping[str, WidthsBeyond]  # M1's quantity by regime; empty without widths.


def what_explains(population: Population, prepared: Recipes, seed: int = 0) -> Explained:
    """Measure what explains the accuracy drop in each regime, beyond MACs."""
    recipes = prepared.at_average_technique
    features = _features(population, prepared)
    rows: list[pd.DataFrame] = []
    beyond: dict[str, WidthsBeyond] = {}
    for k, label in enumerate(prepared.assigned.labels):
        keep = recipes["regime"].to_numpy() == k
        if keep.sum() < MINIMUM_RECIPES:
            continue
        regime = _Regime(recipes[keep], {name: values[keep] for name, values in features.items()}, seed)
        losses = {model: regime.losses(model) for model in ("", *regime.models)}
        value, drawn = regime.shares(losses)
        lower, upper = interval(np.transpose(list(drawn.values())))
        columns = {
            "regime": label,
            "model": list(value),
            "n_recipes": int(keep.sum()),
            "r2": list(value.values()),
        }
        rows.append(pd.DataFrame(columns | {"lower": lower, "upper": upper}))
        if "log_widths" in features:
            beyond[label] = _widths_beyond(label, regime, losses, value, drawn)
    nothing = pd.DataFrame(columns=["regime", "model", "n_recipes", "r2", "lower", "upper"])
    return Explained(pd.concat(rows, ignore_index=True) if rows else nothing, beyond)


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
        shares = positive_widths(population.widths[first]) / original_widths(population)
        features |= {"log_widths": np.log(shares), **_transformer_totals(population, first)}
    return features


def _transformer_totals(population: Population, rows: IntArray) -> dict[str, FloatArray]:
    """Return log embedding, total heads and total MLP width, each (n, 1), where group names tell them apart."""
    places: dict[str, list[int]] = {"log_embedding": [], "log_heads": [], "log_mlp": []}
    for place, name in enumerate(population.group_names):
        role = "log_mlp" if MLP.search(name) else "log_heads" if HEADS.search(name) else "log_embedding"
        places[role].append(place)
    if len(places["log_embedding"]) != 1 or not (places["log_heads"] and places["log_mlp"]):
        return {}
    widths = positive_widths(cast(FloatArray, population.widths)[rows])
    return {role: np.log(widths[:, held].sum(axis=1))[:, None] for role, held in places.items()}


def _columns(features: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return each feature's columns: a free curve of a number; of the widths the additive law, and their products."""
    columns = {
        name: natural_spline(values[:, 0], values[:, 0])[:, 1:]
        for name, values in features.items()
        if name != "log_widths"
    }
    if "log_widths" not in features:
        return columns
    log_widths = features["log_widths"]
    centre = log_widths.mean(axis=0)
    columns["log_widths"] = np.hstack([log_widths - centre, (log_widths - centre) ** 2])
    recipes, groups = log_widths.shape
    first, second = np.triu_indices(groups, k=1)
    if 0 < first.size <= MOST_PAIRS and first.size + 2 * groups < recipes / 2.0:
        columns["pairs"] = (log_widths - centre)[:, first] * (log_widths - centre)[:, second]
    return columns


class _Regime:
    """The recipes of one regime, and the columns of every model of their drops."""

    def __init__(self, recipes: pd.DataFrame, features: Mapping[str, FloatArray], seed: int) -> None:
        self.drop, self.runs, self.within = (recipes[name].to_numpy() for name in ("drop", "runs", "within"))
        self.base, self.columns = distance_terms(recipes["reduction"].to_numpy()), _columns(features)
        self.log_mcb, self.seed = features["log_mcb"][:, 0], seed
        self.models = {m: names for m, names in MODELS.items() if set(names) <= set(self.columns)}
        self.tenths = assign_folds(self.drop.size, seed)

    def losses(self, model: str, fold: IntArray | None = None, y: FloatArray | None = None) -> FloatArray:
        """Return each recipe's loss when its fold (by default of ten) is left out; model "": MACs alone."""
        columns = np.hstack([self.base, *(self.columns[name] for name in self.models.get(model, ()))])
        fold, y = self.tenths if fold is None else fold, self.drop if y is None else y
        return self.runs * held_out_losses(columns, y, self.runs, fold, free=self.base.shape[1])

    def shares(self, losses: Mapping[str, FloatArray]) -> tuple[dict[str, float], dict[str, FloatArray]]:
        """Return what each model explains of single trainings' variance, by name, and draws (B,) of it."""
        named = {model: losses[""] - losses[model] for model in self.models}
        if (freedom := self.runs.sum() - self.runs.size) > 0:
            # What knowing every recipe's true mean would explain.
            named[CEILING] = losses[""] + self.within - self.runs * float(self.within.sum() / freedom)
        stacked = np.column_stack([*named.values(), losses[""] + self.within])
        # Single precision halves the time, and sums over recipes keep six digits.
        rng, size = np.random.default_rng(self.seed), (BOOTSTRAP, self.runs.size)
        drawn = (rng.standard_exponential(size, dtype=np.float32) @ stacked.astype(np.float32)).astype(float)
        total = stacked.sum(axis=0)
        point, draws = total[:-1] / total[-1], drawn[:, :-1] / drawn[:, -1:]
        return dict(zip(named, point.tolist(), strict=True)), dict(zip(named, draws.T, strict=True))


def _widths_beyond(
    label: str,
    regime: _Regime,
    losses: Mapping[str, FloatArray],
    value: Mapping[str, float],
    drawn: Mapping[str, FloatArray],
) -> WidthsBeyond:
    laws = [law for law, _ in (ADDITIVE, PAIRWISE) if law in regime.models]
    additive, law = ADDITIVE[0], max(laws, key=value.__getitem__)
    with_mcb, pairwise = dict((ADDITIVE, PAIRWISE))[law], law != additive
    ceiling, added = value.get(CEILING, np.nan), value[ADDITIVE[1]] - value[additive]
    halves = [assign_folds(regime.drop.size, regime.seed + 1 + k, 2) for k in range(HALVINGS)]
    whole = float((losses[""] + regime.within).sum())
    half_loss = {name: np.mean([regime.losses(name, half).sum() for half in halves]) for name in laws}
    learns = {name: max(half_loss[name] - losses[name].sum(), 0.0) / whole for name in laws}
    of_mcb = [float(regime.losses(name, y=regime.log_mcb).sum()) for name in ("", *laws)]
    return WidthsBeyond(
        regime=label,
        gain=value[with_mcb] - value[law],
        draws=drawn[with_mcb] - drawn[law],
        share_of_ceiling=value[law] / ceiling if ceiling > 0 else np.nan,
        r2=value[law],
        of_mcb=1.0 - min(of_mcb[1:]) / of_mcb[0] if of_mcb[0] > 0.0 else 0.0,
        # With recipes without end, by the learning curves.
        to_learn=float(max(value[name] + STILL_TO_LEARN * learns[name] for name in laws)) - value[law],
        pairwise=pairwise,
        additive_draws=drawn[ADDITIVE[1]] - drawn[additive] if pairwise else None,
        share_of_interaction=added / (value[law] - value[additive]) if pairwise else np.nan,
    )
