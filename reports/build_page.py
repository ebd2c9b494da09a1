"""Write reports/README.md: what all populations say together, and every conjecture against each, shipped or not.

Run: `python reports/build_page.py`, after `make reports`. Tables that may not be shipped are read where they lie beside the
repository.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import popstats
from popstats.judgement.verdicts import CLAIMS
from popstats.words import AXIS_WORDS, count, p_value, regime_names, with_interval

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


#: Where `head.md` has what the populations say together.
POOLED = "<!-- pooled -->"
#: Unrelated networks: no population, and not pooled with the others.
TIMM = "timm (unrelated ImageNet models)"
#: Populations that others made, fitted with normal noise, as `make reports` does.
PUBLISHED = ("nats-", "hw-gpt-")


@dataclass(frozen=True)
class Judged:
    """One population on one axis, fitted and judged."""

    title: str
    how: str
    fit: popstats.Fit
    verdicts: popstats.Verdicts

    @property
    def frame(self) -> pd.DataFrame:
        """The verdicts as rows of conjecture, regime, outcome and sentence."""
        rows = [(v.conjecture, v.regime, v.outcome, v.sentence) for v in self.verdicts]
        return pd.DataFrame(rows, columns=["conjecture", "regime", "outcome", "sentence"])


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
        name=TIMM,
    )


def judged() -> Iterator[Judged]:
    """Yield every available population, shipped ones on each axis that they have a report for."""
    for name in popstats.populations():
        population, folder = popstats.load_population(name), ROOT / "reports" / name
        noise = "normal" if name.startswith(PUBLISHED) else "student"
        if (folder / "report-params.html").exists():
            title = f"{name}, parameter regimes"
            yield _judged(title, population, f"[report]({name}/report-params.html)", "params", noise)
        yield _judged(name, population, f"[report]({name}/report.html)", population.regime_axis, noise)
    if SHARED.is_dir():
        for population in (channel_bench(), *map(pruned_by_nni, NNI_ORIGINALS), timm()):
            yield _judged(population.name, population, "no report, as the table is not shipped")


def _judged(
    title: str, population: popstats.Population, how: str, axis: Any = None, noise: str = "normal"
) -> Judged:
    fit = popstats.fit(population, axis, noise=noise)
    return Judged(title, f"noise {noise}; {how}", fit, popstats.judge(fit))


def together(everything: list[Judged]) -> list[str]:
    """Return what the populations say together: optimal mCB and its cost pooled, and verdicts beside chance."""
    pooled = [one for one in everything if one.title != TIMM]
    summary = popstats.summarize({one.title: one.fit for one in pooled}, [one.verdicts for one in pooled])
    lines = [
        "| | pooled | a regime of a new population | sd between populations | sd within |",
        "|---" * 5 + "|",
    ]
    for quantity, rows in summary.frame.groupby("quantity", sort=False):
        held = rows.set_index("population")
        cells = [
            with_interval(*held.loc[name, ["estimate", "lower", "upper"]])
            for name in ("pooled", "new population")
        ]
        spreads = [f"{held.loc['pooled', name]:.2f}" for name in ("between", "within")]
        lines.append(f"| {quantity} | {' | '.join([*cells, *spreads])} |")
    lines += [
        "",
        "| | assessable | supported | by chance at most | p | refuted | undecided |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {r.conjecture} | {r.assessable} | {r.supported} | {r.by_chance:.1f} | {p_value(r.p_chance)} | {r.refuted} | "
        f"{r.undecided} |"
        for r in summary.verdicts.itertuples()
        if r.assessable
    ]
    return [summary.sentence, "", *lines]


def overview(everything: list[Judged]) -> list[str]:
    """Return the table of all populations: in how many regimes each conjecture has which outcome."""
    lines = ["| population | trainings | " + " | ".join(CLAIMS) + " |", "|---" * (2 + len(CLAIMS)) + "|"]
    for one in everything:
        found = one.frame.groupby("conjecture")["outcome"].agg(Counter)
        cells = [
            " ".join(f"{found[key][o]} {m}" for o, m in MARKS.items() if found[key][o])
            if key in found
            else ""
            for key in CLAIMS
        ]
        lines.append(f"| {one.title} | {count(len(one.fit.population))} | {' | '.join(cells)} |")
    return lines


def section(one: Judged) -> list[str]:
    """Return one population's verdicts, what plain medians say, and the sentences of what was decided."""
    population, axis, verdicts = one.fit.population, one.fit.regime_axis, one.frame
    lines = [
        f"## {one.title}",
        "",
        f"{count(len(population))} trainings; {AXIS_WORDS[axis]} axis; {one.how}.",
        "",
    ]
    lines += ["| | claim | verdicts |", "|---|---|---|"]
    for key, claim in CLAIMS.items():
        rows = verdicts[verdicts["conjecture"] == key]
        lines.append(f"| {key} | {claim} | {_outcomes(rows)} |")
    decided = verdicts[verdicts["outcome"].isin(["supported", "refuted"])]
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


def main() -> None:
    """Write the page."""
    everything = list(judged())
    key = ", ".join(f"{mark}: {outcome}" for outcome, mark in MARKS.items())
    head = (ROOT / "reports" / "head.md").read_text().replace(POOLED, "\n".join(together(everything)))
    lines = [*overview(everything), "", f"Numbers of regimes; {key}.", ""]
    lines += [line for one in everything for line in section(one)]
    (ROOT / "reports" / "README.md").write_text(head + "\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
