"""Write reports/README.md: every conjecture against every available population, shipped or other people's.

Run: `python reports/build_page.py`, after `make reports`, whose verdicts it reads. What has no report is fitted here:
tables that may not be shipped, where they lie beside the repository.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import popstats
from popstats.judgement.verdicts import CLAIMS
from popstats.population.recipes import prepared_recipes
from popstats.words import AXIS_WORDS, count, join_words, plural, regime_names

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
#: Outcomes, as the table of all populations shortens them.
MARKS = {"supported": "S", "refuted": "R", "undecided": "U", "not assessable": "n"}
#: Bins of the plain medians, and the fewest recipes of a regime in which they say something.
BINS, FEWEST = 3, 15
#: Originals of the tables that name none: MACs, parameters, accuracy in percent.
NNI_ORIGINALS = {
    "vgg16": (314_018_314, 14_987_722, 92.98),
    "resnet18": (556_651_530, 11_173_962, 94.33),
    "resnet50": (1_304_694_794, 23_520_842, 94.88),
}


@dataclass(frozen=True)
class Judged:
    """One population on one axis: its verdicts, as rows of conjecture, regime, outcome and sentence."""

    title: str
    population: popstats.Population
    axis: Any
    how: str
    verdicts: pd.DataFrame


def channel_bench() -> popstats.Population:
    """Return 16,384 MobileNets on CIFAR-10, three trainings each (Channel-Bench-Macro)."""
    table = pd.read_parquet(SHARED / "channel_bench_mobilenet.parquet")
    whole = table[table["recipe"] == "4444444"].iloc[0]
    widths = [f"keep{group}" for group in range(1, 8)]
    runs = table.melt(
        id_vars=["recipe", "flops", "params", *widths],
        value_vars=["acc_run1", "acc_run2", "acc_run3"],
        value_name="best_accuracy",
    )
    return popstats.Population.from_frame(
        runs,
        original=popstats.Original(int(whole["flops"]), int(whole["params"]), float(whole["accuracy"])),
        columns={"macs": "flops", "accuracy": "best_accuracy", "recipe_id": "recipe"},
        widths=widths,
        accuracy_kind="best_test",
        name="Channel-Bench-Macro (MobileNet, CIFAR-10)",
    )


def pruned_by_nni(network: str) -> popstats.Population:
    """Return the networks that six pruners of NNI made of one of its three originals."""
    table = pd.read_csv(SHARED / "nni_pruner_comparison.csv")
    return popstats.Population.from_frame(
        table[table["model"] == network],
        original=popstats.Original(*NNI_ORIGINALS[network]),
        columns={"macs": "flops"},
        name=f"NNI's six pruners ({network}, CIFAR-10)",
    )


def timm() -> popstats.Population:
    """Return unrelated ImageNet models no larger than the one with the most MACs: no population of one original."""
    table = pd.read_parquet(SHARED / "timm_imagenet.parquet")
    largest = table.loc[table["macs"].idxmax()]
    return popstats.Population.from_frame(
        table[table["params"] <= largest["params"]],
        original=popstats.Original(int(largest["macs"]), int(largest["params"]), float(largest["accuracy"])),
        name="timm (unrelated ImageNet models)",
    )


def judged() -> Iterator[Judged]:
    """Yield every available population, shipped ones by their reports."""
    for name in popstats.populations():
        population = popstats.load_population(name)
        reports = sorted((ROOT / "reports" / name).glob("report*.html.json"))
        for path in reports:
            content = json.loads(path.read_text())
            axis = next(key for key, words in AXIS_WORDS.items() if words == content["axis_words"])
            title = (
                name
                if axis == population.regime_axis
                else f"{name}, {content['axis_words'].removesuffix('s')} regimes"
            )
            yield Judged(
                title,
                population,
                axis,
                f"[report]({path.relative_to(ROOT / 'reports').with_suffix('')})",
                _rows(content),
            )
        if not reports:
            yield _fitted(population)
    if SHARED.is_dir():
        yield from map(_fitted, (channel_bench(), *map(pruned_by_nni, NNI_ORIGINALS), timm()))


def _fitted(population: popstats.Population) -> Judged:
    fit = popstats.fit(population)
    how = f"method {fit.settings.method}, noise {fit.settings.noise}"
    rows = [(v.conjecture, v.regime, v.outcome, v.sentence) for v in popstats.judge(fit)]
    verdicts = pd.DataFrame(rows, columns=["conjecture", "regime", "outcome", "sentence"])
    return Judged(population.name, population, fit.regime_axis, how, verdicts)


def _rows(content: dict[str, Any]) -> pd.DataFrame:
    claims = content["claims"]
    return pd.DataFrame(
        [{"conjecture": claim["conjecture"], **row} for claim in claims for row in claim["rows"]]
    )


def overview(everything: list[Judged]) -> list[str]:
    """Return the table of all populations: in how many regimes each conjecture has which outcome."""
    lines = ["| population | trainings | " + " | ".join(CLAIMS) + " |", "|---" * (2 + len(CLAIMS)) + "|"]
    for one in everything:
        found = one.verdicts.groupby("conjecture")["outcome"].agg(Counter)
        cells = [
            " ".join(f"{found[key][o]} {m}" for o, m in MARKS.items() if found[key][o])
            if key in found
            else ""
            for key in CLAIMS
        ]
        lines.append(f"| {one.title} | {count(len(one.population))} | {' | '.join(cells)} |")
    return lines


def section(one: Judged) -> list[str]:
    """Return one population's verdicts, what plain medians say, and the sentences of what was decided."""
    lines = [
        f"## {one.title}",
        "",
        f"{count(len(one.population))} trainings; {AXIS_WORDS[one.axis]} axis; {one.how}.",
        "",
    ]
    lines += [plain_medians(one.population, one.axis), "", "| | claim | verdicts |", "|---|---|---|"]
    for key, claim in CLAIMS.items():
        rows = one.verdicts[one.verdicts["conjecture"] == key]
        lines.append(f"| {key} | {claim} | {_outcomes(rows)} |")
    decided = one.verdicts[one.verdicts["outcome"].isin(["supported", "refuted"])]
    told = decided[decided["conjecture"].isin(["C3a", "C3c"])]["sentence"]
    return [*lines, "", *(f"* {sentence}" for sentence in told), ""]


def _outcomes(rows: pd.DataFrame) -> str:
    regimes = rows[rows["regime"] != "all"]
    if regimes.empty:
        return ", ".join(rows["outcome"])
    by_outcome = {outcome: regimes.loc[regimes["outcome"] == outcome, "regime"].tolist() for outcome in MARKS}
    if len(regimes) == max(map(len, by_outcome.values())):
        return f"{regimes['outcome'].iloc[0]} everywhere"
    return "; ".join(f"{outcome} at {regime_names(at)}" for outcome, at in by_outcome.items() if at)


def plain_medians(population: popstats.Population, axis: Any) -> str:
    """Return where medians of the drop in equal bins of mCB are lowest, in a sentence: no model."""
    recipes = prepared_recipes(population, axis)
    table, places, spreads = recipes.at_average_technique, [], []
    for mine in recipes.members:
        rows = table.iloc[mine]
        if len(rows) < FEWEST or rows["log_mcb"].nunique() < BINS:
            continue
        cell = pd.qcut(rows["log_mcb"].rank(method="first"), BINS, labels=False)
        medians = rows.groupby(cell)["drop"].median()
        places.append(int(medians.idxmin()))
        spreads.append(float(np.ptp(medians)))
    if not places:
        return f"*Plain medians*: no regime holds {FEWEST} recipes."
    ends = Counter("low" if place == 0 else "high" if place == BINS - 1 else "middle" for place in places)
    where = {
        "middle": "in the middle bin",
        "low": "in the bin of the lowest mCB",
        "high": "in the bin of the highest mCB",
    }
    told = join_words([f"{where[key]} in {ends[key]}" for key in where if ends[key]])
    span = " to ".join(dict.fromkeys(f"{spread:.2f}" for spread in (min(spreads), max(spreads))))
    return (
        f"*Plain medians* of the drop in {BINS} equal bins of mCB, in {plural(len(places), 'regime')} with at least "
        f"{FEWEST} recipes: lowest {told}. Bins differ by {span} points."
    )


def main() -> None:
    """Write the page."""
    everything = list(judged())
    key = ", ".join(f"{mark}: {outcome}" for outcome, mark in MARKS.items())
    head = (ROOT / "reports" / "head.md").read_text()
    lines = [*overview(everything), "", f"Numbers of regimes; {key}.", ""]
    lines += [line for one in everything for line in section(one)]
    (ROOT / "reports" / "README.md").write_text(head + "\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
