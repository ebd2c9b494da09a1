"""Population cards: what a shipped table is and how it came about, from the table itself.

`python -m generate.card data/*.parquet` prints the cards for data/README.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from popstats import columns
from popstats.errors import BAD_INPUT, PopstatsError, PopulationError

HEADINGS = (
    "axis", "regime", "space", "retraining", "trainings", "recipes", "mCB",
    "drop: median", "drop: best recipe", "seed noise (sd)", "its share of variance",
)  # fmt: skip

__all__ = ["card", "main", "seed_noise_share"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the cards of the tables named; return the exit status: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m generate.card", description="Print cards of populations, as Markdown."
    )
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE.parquet")
    options = parser.parse_args(arguments)
    try:
        print("\n\n".join(card(path) for path in options.tables))
    except PopstatsError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


def card(path: Path) -> str:
    """Return the Markdown card of one table.

    Raises
    ------
    PopulationError
        If the table was not written by this package.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise PopulationError(
            f"{path} cannot be read as a population ({error}). Expected a .parquet file."
        ) from error
    footer = columns.read_footer(table.schema)
    if not {"plan", "original", "provenance"} <= footer.keys():
        raise PopulationError(
            f"{path}: its footer has no plan, original and provenance. Only tables written by generate "
            "have a card."
        )
    rows = table.to_pylist()
    if not rows:
        raise PopulationError(f"{path} holds no rows yet: there is nothing to say of it.")
    return "\n".join((f"## {footer['population']}", "", *_facts(footer, rows), "", *_regime_table(rows)))


def _facts(footer: Mapping[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    plans, machines, original = _parts(footer["plan"]), _parts(footer["provenance"]), footer["original"]
    failed = [row for row in rows if row["status"] == "failed"]
    hours = sum(row["seconds"] for row in rows) / 3600
    first, last = min(row["started_at"] for row in rows), max(row["started_at"] for row in rows)
    return [
        " ".join(dict.fromkeys(plan["description"] for plan in plans)),
        "",
        f"* **Original**: {original['network']} on {original['dataset']} ({original['input_size']}), "
        f"{original['accuracy']:.2f} % on "
        f"{original['n_test']} test images, {original['macs']:,} MACs, {original['params']:,} parameters.",
        f"* **Rows**: {len(rows)} trainings of {len({row['recipe_id'] for row in rows})} recipes, "
        f"{len(failed)} failed.",
        *dict.fromkeys(
            f"* **{name}**: {_settings(settings)}."
            for plan in plans
            for name, settings in plan["retraining"].items()
        ),
        f"* **Made** with generate {_versions(rows, 'code_version')}, torch {_versions(rows, 'torch_version')}, on "
        f"{' and '.join(dict.fromkeys(machine['hardware'] for machine in machines))}; "
        f"{hours:.2f} hours of training in sum over workers, started between {first} and {last}.",
        f"* **Remake**: {' and '.join(dict.fromkeys(_command(plan) for plan in plans))}. "
        "Same version of generate and torch, "
        "same vector instructions: the same rows to the last digit; otherwise the same recipe spaces and seed noise.",
    ]


def _parts(joined: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what `generate.merge` has joined, or the one part of a table that it has not."""
    return list(joined.get("merged", [joined]))


def _command(plan: Mapping[str, Any]) -> str:
    return f"`python -m generate.population generate/plans/{plan['name']}.toml`"


def _versions(rows: Sequence[Mapping[str, Any]], column: str) -> str:
    """Return a column's value, or each of its values with the number of its rows."""
    seen = Counter(str(row[column]) for row in rows)
    if len(seen) == 1:
        return next(iter(seen))
    return " and ".join(f"{version} ({count} rows)" for version, count in seen.most_common())


def _settings(settings: Mapping[str, Any]) -> str:
    budget = (
        f"{settings['epochs']:g} epochs"
        if settings["training_macs"] is None
        else f"{settings['training_macs']:.3g} training MACs"
    )
    rate = f"rate {settings['learning_rate']:g} ({settings['schedule']})"
    return f"{budget}, {rate}, batches of {settings['batch_size']}, {settings['augmentation']}"


def _regime_table(rows: list[dict[str, Any]]) -> list[str]:
    """One line a regime, space and technique; drops in percentage points."""
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        "|" + "---|" * len(HEADINGS),
    ]
    places: dict[tuple[str, float, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] == "done":
            places.setdefault(
                (row["regime_axis"], row["regime_target"], row["space"], row["retraining"]), []
            ).append(row)
    return lines + [_regime_line(*place, held) for place, held in sorted(places.items())]


def _regime_line(axis: str, target: float, space: str, technique: str, rows: list[dict[str, Any]]) -> str:
    drops = _drops_by_recipe(rows)
    mcb = [row["macs"] / row["original_macs"] / (row["params"] / row["original_params"]) for row in rows]
    every = [drop for runs in drops.values() for drop in runs]
    best = min(statistics.fmean(runs) for runs in drops.values())
    share = seed_noise_share(drops)
    noise = "- | -" if share is None else f"{math.sqrt(share[0]):.2f} | {share[1]:.0%}"
    return (
        f"| {axis} | {target:.2f} | {space} | {technique} | {len(rows)} | {len(drops)} | "
        f"{min(mcb):.2f} to {max(mcb):.2f} "
        f"| {statistics.median(every):.2f} | {best:.2f} | {noise} |"
    )


def _drops_by_recipe(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    drops: dict[str, list[float]] = {}
    for row in rows:
        drops.setdefault(row["recipe_id"], []).append(row["original_accuracy"] - row["accuracy"])
    return drops


def seed_noise_share(drops: Mapping[str, Sequence[float]]) -> tuple[float, float] | None:
    """Return how much of the variance of single trainings is seed noise.

    One-way analysis of variance, recipes as random effects.

    Parameters
    ----------
    drops : mapping of sequence of float
        Accuracy drops (percentage points) by recipe.

    Returns
    -------
    variance, share : float
        Variance between seeds of a recipe (points squared), and its share in the variance of single trainings;
        None with fewer than two recipes that have replicates.
    """
    replicated = [runs for runs in drops.values() if len(runs) > 1]
    if len(replicated) < 2:
        return None
    within = statistics.fmean(statistics.variance(runs) for runs in replicated)
    per_recipe = statistics.fmean(len(runs) for runs in replicated)
    between = max(
        0.0, statistics.variance(statistics.fmean(runs) for runs in replicated) - within / per_recipe
    )
    total = within + between
    return (within, within / total) if total else None


if __name__ == "__main__":
    sys.exit(main())
