"""Whether refining a recipe space helps: the comparison in reports/refined-digits, remade.

`python -m generate.population reports/refined-digits/plan.toml --out runs/refined-digits` trains the recipes; then
`python tools/refined_comparison.py runs/refined-digits` writes reports/refined-digits/README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import popstats
from popstats.judgement.edf import compare_spaces

FOLDER = Path(__file__).parents[1] / "reports" / "refined-digits"
NAMES = {"stratified": "whole space", "mcb": "near the best mCB", "widths": "where the width law points"}


def recipes(population: popstats.Population) -> pd.DataFrame:
    """Return one row a recipe: space, mean drop, MACs."""
    frame = population.frame.assign(
        space=population.frame["space"].map(lambda s: NAMES[Path(s.removeprefix("refined:")).stem])
    )
    columns = {"drop": ("accuracy_drop", "mean"), "macs": ("macs", "first"), "mcb": ("mcb", "first")}
    return frame.groupby(["recipe_id", "space"], as_index=False).agg(**columns)


def lines(found: pd.DataFrame) -> list[str]:
    """Return the tables of the page."""
    out = [
        "| space | recipes | mCB | median drop | mean drop | best | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in NAMES.values():
        part = found[found["space"] == name]
        drop, mcb = part["drop"], part["mcb"]
        out.append(
            f"| {name} | {len(part)} | {mcb.min():.2f} to {mcb.max():.2f} | {drop.median():.2f} | {drop.mean():.2f} "
            f"| {drop.min():.2f} | {drop.max():.2f} |"
        )
    whole = found[found["space"] == NAMES["stratified"]]
    out += [
        "",
        "| against the whole space | gain in the mean drop (90 % interval) | probability |",
        "|---|---|---|",
    ]
    for name in (NAMES["mcb"], NAMES["widths"]):
        part = found[found["space"] == name]
        gain = compare_spaces(part["drop"], whole["drop"])
        out.append(
            f"| {name} | {gain.points:.2f} ({gain.lower:.2f} to {gain.upper:.2f}) | {gain.probability:.2f} |"
        )
    best = [np.sort(found[found["space"] == n]["drop"])[:5].mean() for n in NAMES.values()]
    out += ["", "Mean drop of each space's five best recipes: " + ", ".join(
        f"{n} {b:.2f}" for n, b in zip(NAMES.values(), best, strict=True)) + " points."]  # fmt: skip
    return out


def main() -> None:
    """Write the page."""
    population = popstats.load_population(sys.argv[1])
    head = (FOLDER / "head.md").read_text()
    (FOLDER / "README.md").write_text(head + "\n" + "\n".join(lines(recipes(population))) + "\n")
    population.save(FOLDER / "population.parquet")


if __name__ == "__main__":
    main()
