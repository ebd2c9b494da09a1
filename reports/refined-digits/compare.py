"""Whether refining a recipe space helps: the comparison in reports/refined-digits, made anew from a pilot.

`python reports/refined-digits/compare.py [PILOT]` does all of it (default: the shipped digits-resnet8): fits the fine-tuned
part of the pilot at 92 %, refines it both ways, trains new recipes of the whole space and of both refined ones in one
run on the same original network, and writes reports/refined-digits. 300 trainings; the same command again continues.
`--refine-only` writes the spaces and the plan's dry run, and trains nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import popstats
from popstats.judgement.edf import compare_spaces, edf
from popstats.words import interval_words, number, percent, probability, with_interval

FOLDER = Path(__file__).parents[1] / "reports" / "refined-digits"
REGIME, NOISE = 0.92, "student"
#: Part of a row's `space` -> what the page calls it. The whole space is drawn as the pilot's regime was.
NAMES = {
    "stratified": "whole space",
    "random": "whole space",
    "mcb": "near the best mCB",
    "widths": "where the width law points",
}
WHOLE = NAMES["stratified"]
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


def refined(pilot: popstats.Population) -> dict[str, popstats.RefinedSpace]:
    """Refine the pilot both ways and write the spaces where the plan reads them."""
    fit = popstats.fit(pilot.where(retraining="fine-tune"), noise=NOISE)
    if not fit.convergence.ok:
        print(f"The pilot's fit is rejected: {fit.convergence.sentence}", file=sys.stderr)
    spaces = {by: popstats.refine(fit, REGIME, by=by) for by in ("mcb", "widths")}
    for by, space in spaces.items():
        print(repr(space)[1:-1])
        space.to_toml(FOLDER / f"{by}.toml")
    return spaces


def train(out: Path, *options: str) -> None:
    """Train the plan's recipes; what an earlier run finished is kept."""
    command = [sys.executable, "-m", "generate.population", str(FOLDER / "plan.toml"), "--out", str(out)]
    if status := subprocess.run([*command, *options], check=False).returncode:
        sys.exit(status)


def recipes(population: popstats.Population) -> pd.DataFrame:
    """Return one row per recipe: space as drawn, space by name, mean drop, MACs, mCB."""
    drawn = population.frame["space"].map(lambda s: Path(s.removeprefix("refined:")).stem)
    frame = population.frame.assign(drawn=drawn, space=drawn.map(NAMES))
    columns = {"drop": ("accuracy_drop", "mean"), "macs": ("macs", "first"), "mcb": ("mcb", "first")}
    return frame.groupby(["recipe_id", "space", "drawn"], as_index=False).agg(**columns)


def described(found: pd.DataFrame) -> list[str]:
    """Return the table of the spaces: how large, where, and how their drops are spread."""
    shares = " | ".join(percent(share) for share in SHARES)
    lines = [
        f"| space | recipes | mCB | mean drop | best | {shares} | worst |",
        "|---|---|---|---|---|" + "---|" * (len(SHARES) + 1),
    ]
    parts = [(name, found[found["space"] == name]) for name in dict.fromkeys(NAMES.values())]
    parts.insert(1, ("of it, drawn at random", found[found["drawn"] == "random"]))
    for name, part in [(name, part) for name, part in parts if len(part)]:
        drop = part["drop"].to_numpy()
        at = " | ".join(number(value) for value in np.quantile(drop, SHARES))
        lines.append(
            f"| {name} | {len(part)} | {interval_words(part['mcb'].min(), part['mcb'].max())} | {number(drop.mean())} "
            f"| {number(drop.min())} | {at} | {number(drop.max())} |"
        )
    return lines


def moved(found: pd.DataFrame, spaces: dict[str, popstats.RefinedSpace]) -> list[str]:
    """Return the table of each refined space's predicted and measured gain at equal MACs."""
    whole = found[found["space"] == WHOLE]
    lines = [
        "| against the whole space | predicted gain | measured gain, at equal MACs | probability of a gain | share under "
        "the whole space's median |",
        "|---|---|---|---|---|",
    ]
    median = float(whole["drop"].median())
    for by, space in spaces.items():
        part = found[found["space"] == NAMES[by]]
        gain = compare_spaces(part["drop"], whole["drop"], costs=(part["macs"], whole["macs"]))
        under = edf(part["drop"], grid=[median])
        held = float(under.share[0]), float(under.lower[0]), float(under.upper[0])
        lines.append(
            f"| {NAMES[by]} | {with_interval(space.gain, space.gain_lower, space.gain_upper)} "
            f"| {with_interval(gain.points, gain.lower, gain.upper)} | {probability(gain.probability)} "
            f"| {with_interval(*held)} |"
        )
    return lines


def page(
    pilot: popstats.Population, population: popstats.Population, spaces: dict[str, popstats.RefinedSpace]
) -> str:
    """Return the page."""
    found = recipes(population)
    best = [
        f"{name} {number(float(np.sort(found.loc[found['space'] == name, 'drop'])[:5].mean()))}"
        for name in dict.fromkeys(NAMES.values())
    ]
    head = (FOLDER / "head.md").read_text(encoding="utf-8").format(
        pilot=pilot.name, trainings=len(population), **{by: repr(space)[1:-1] for by, space in spaces.items()}
    )  # fmt: skip
    parts = [
        head,
        "\n".join(moved(found, spaces)),
        "Drops in points, spread over each space's recipes (the EDF, read at five shares):",
        "\n".join(described(found)),
        f"Mean drop of each space's five best recipes: {', '.join(best)} points.",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def main() -> None:
    """Refine, train, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pilot", nargs="?", default="digits-resnet8", metavar="PILOT", help="shipped name or run folder"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/refined-digits"), metavar="DIR", help="run folder"
    )
    parser.add_argument(
        "--refine-only", action="store_true", help="write the spaces, show the plan, train nothing"
    )
    options = parser.parse_args()
    pilot = popstats.load_population(options.pilot)
    spaces = refined(pilot)
    if options.refine_only:
        train(options.out, "--dry-run")
        return
    train(options.out)
    population = popstats.load_population(options.out)
    (FOLDER / "README.md").write_text(page(pilot, population, spaces), encoding="utf-8")
    population.save(FOLDER / "population.parquet")
    print(FOLDER / "README.md")


if __name__ == "__main__":
    main()
