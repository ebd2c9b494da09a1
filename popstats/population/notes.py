"""What a reader should know about a table that was accepted: findings, none of which is a reason to reject it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from popstats.findings import Finding, Value
from popstats.population.columns import SETS
from popstats.population.validation import is_single_value
from popstats.words import AXIS_WORDS

#: A training that ends below this share of the original's accuracy has collapsed: it is no matter of recipes.
COLLAPSED = 0.5
#: Kinds of pruning that leave layers their shape, as a sentence begins with them.
SPARSE = {"weights": "Unstructured", "2:4": "2:4"}
#: From this share of networks better or far worse than the original, its accuracy (or what the column holds) is in doubt.
BETTER = 0.9
#: Share of the recipes of equal costs from which those that have the same accuracy too may be copies.
COPIED = 0.8
#: An original that learned is this many times better than chance.
TIMES_CHANCE = 2.0
#: Networks with this share of the original's parameters are as good as the original, and so should be their MACs.
_WHOLE, _HALF = 0.999, (0.48, 0.52)
_CENTRAL = (0.025, 0.975)
#: Where all mCB lie further from the original's than this, but not by doubling or halving them, the counts are doubted.
FAR = 1.25


def notes_of(
    table: pd.DataFrame, techniques: Sequence[str], metadata: dict[str, Any], equal: int
) -> Iterator[Finding]:
    """Yield what should be said of a population's rows; `equal` of them have the costs of an earlier one."""
    if run := metadata.get("run"):
        yield Finding("run unfinished", (), run)
    yield from _accuracies(table)
    yield from _original(table)
    yield from _costs(table)
    if {"regime_axis", "regime_target"} <= set(table):
        missing = int(table[["regime_axis", "regime_target"]].isna().any(axis=1).sum())
        if 0 < missing < len(table):
            yield Finding("targets unsaid", (), {"missing": missing, "trainings": len(table)})
    if len(techniques) > 1 and not techniques[-1]:
        missing = int(table["retraining"].isna().sum())
        named = tuple(filter(None, techniques))
        yield Finding("techniques unsaid", (), {"missing": missing, "trainings": len(table), "named": named})
    scalar = [c for c in table.columns if table[c].dtype != object or table[c].map(is_single_value).all()]
    copies = int(table.duplicated(subset=scalar).sum()) if "subnetwork_id" not in table else 0
    if copies:
        yield Finding("copies", (), {"rows": copies})
    if "recipe_id" in table:
        recipes = table.drop_duplicates("recipe_id")
        repeated = int(recipes.duplicated(["macs", "params", "accuracy"]).sum())
        if repeated > COPIED * recipes.duplicated(["macs", "params"]).sum():
            yield Finding("repeated", (), {"rows": repeated})
    kinds = set(table["pruning"].dropna()) if "pruning" in table else set()
    for kind, name in SPARSE.items():
        if kind in kinds:
            yield Finding("theoretical MACs", (), {"kind": name})
    if equal > copies:
        yield Finding("equal costs", (), {"rows": equal, "trainings": len(table)})


def _accuracies(table: pd.DataFrame) -> Iterator[Finding]:
    kinds = set(table["accuracy_kind"].dropna())
    for kind, images in (("best_test", "test"), ("best_val", "validation")):
        if kind in kinds:
            yield Finding("best accuracies", (), {"images": images})
    if "last_val" in kinds:
        yield Finding("validation accuracies")
    if "unknown" in kinds:
        yield Finding("unknown accuracies")
    collapsed = table["accuracy"] < COLLAPSED * table["original_accuracy"]
    if collapsed.any():
        counted = {"rows": int(collapsed.sum()), "trainings": len(table)}
        worst = "most collapsed" if collapsed.mean() >= BETTER else "collapsed"
        yield Finding(worst, (), {**counted, "lowest": float(table["accuracy"].min())})


def _original(table: pd.DataFrame) -> Iterator[Finding]:
    accuracy = float(table["original_accuracy"].iloc[0])
    better = int((table["accuracy"] > accuracy).sum())
    if better >= BETTER * len(table) and better > 1:
        counted = {"rows": better, "trainings": len(table)}
        yield Finding("better than original", (), {**counted, "accuracy": accuracy})
    dataset = str(table["dataset"].iloc[0]) if "dataset" in table else ""
    known = SETS.get(dataset.lower().replace("-", "").replace("_", ""))
    if known is None:
        return
    chance = 100.0 / known.classes
    found: dict[str, Value] = {"dataset": dataset, "accuracy": accuracy}
    # Less can be expected on images that were shrunk.
    whole = "input_size" not in table or table["input_size"].iloc[0] == known.input_size
    if accuracy < TIMES_CHANCE * chance:
        yield Finding("did not learn", (), {**found, "chance": chance})
    elif accuracy < known.usual and whole:
        yield Finding("learned little", (), {**found, "usual": known.usual})


def _costs(table: pd.DataFrame) -> Iterator[Finding]:
    shares = {name: table[name] / table[f"original_{name}"] for name in ("macs", "params")}
    above = {name: int((share > 1.0).sum()) for name, share in shares.items()}
    if rows := sum(above.values()):
        costs = tuple(AXIS_WORDS[name] for name, count in above.items() if count)
        yield Finding("above original", (), {"rows": rows, "costs": costs})
    mcb = shares["macs"].to_numpy() / shares["params"].to_numpy()
    low, high = (float(v) for v in np.quantile(mcb, _CENTRAL))
    whole = mcb[(shares["params"] >= _WHOLE).to_numpy()]
    halved = bool(whole.size) and _HALF[0] <= float(np.median(whole)) <= _HALF[1]
    doubled = any(low * factor <= 1.0 <= high * factor for factor in (0.5, 2.0))
    if halved:
        yield Finding("half the MACs", (), {"share": float(np.median(whole))})
    elif doubled and (high < 1.0 / FAR or low > FAR):
        yield Finding("other count", (), {"low": low, "high": high})
