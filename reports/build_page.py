"""Write reports/README.md: every conjecture against every population at hand, verdict by verdict.

Shipped populations, and the shared foreign tables where they lie beside the repository (as outside evidence, by
name). Run: `python tools/reports_page.py`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import popstats
from popstats.judgement.verdicts import CLAIMS, Verdict

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
OUTCOMES = ("supported", "refuted", "undecided", "not assessable")


def cell(verdicts: list[Verdict]) -> str:
    """Return one conjecture's outcomes in one population, in words."""
    over_all = [v for v in verdicts if v.regime == "all"]
    if len(verdicts) == len(over_all):
        return over_all[0].outcome
    parts = []
    for outcome in OUTCOMES:
        at = [f"{100 * float(v.regime):.4g}" for v in verdicts if v.outcome == outcome and v.regime != "all"]
        if at:
            parts.append(
                f"{outcome} at {', '.join(at)} %" if len(at) < len(verdicts) else f"{outcome} everywhere"
            )
    return "; ".join(parts)


def shipped() -> dict[str, popstats.Fit]:
    """Return the fits of the shipped populations, as their reports are made."""
    # Recipes of small networks now and then collapse: they count less under heavy tails.
    small = popstats.load_population("cifar10-10k-resnet8")
    params = popstats.load_population("digits-resnet8-params")
    return {
        small.name: popstats.fit(small, noise="student"),
        f"{small.name}, parameter regimes": popstats.fit(small, regime_axis="params", noise="student"),
        "digits-resnet8": popstats.fit(popstats.load_population("digits-resnet8"), noise="student"),
        params.name: popstats.fit(params, noise="student"),
    }


def outside() -> dict[str, popstats.Fit]:
    """Return the fits of the shared tables that are at hand."""
    fits = {}
    bench, pruners = SHARED / "channel_bench_mobilenet.parquet", SHARED / "nni_pruner_comparison.csv"
    if bench.exists():
        table = pd.read_parquet(bench)
        whole = table[table["recipe"] == "4444444"].iloc[0]
        widths = [f"keep{i}" for i in range(1, 8)]
        runs = table.drop(columns="accuracy").melt(
            id_vars=["recipe", "flops", "params", *widths],
            value_vars=["acc_run1", "acc_run2", "acc_run3"],
            value_name="accuracy",
        )
        original = popstats.Original(macs=int(whole.flops), params=int(whole.params), accuracy=whole.accuracy)
        columns = {"macs": "flops", "recipe_id": "recipe"}
        population = popstats.Population.from_frame(
            runs,
            original=original,
            columns=columns,
            widths=widths,
            accuracy_kind="best_test",
            name="Channel-Bench-Macro",
        )
        fits["Channel-Bench-Macro (MobileNet, CIFAR-10)"] = popstats.fit(population)
    if pruners.exists():
        table = pd.read_csv(pruners)
        population = popstats.Population.from_frame(
            table[table["model"] == "resnet18"],
            original=popstats.Original(macs=556_651_530, params=11_173_962, accuracy=94.33),
            columns={"macs": "flops"},
            name="NNI",
        )
        fits["NNI's six pruners (ResNet-18, CIFAR-10)"] = popstats.fit(population, method="exact")
    return fits


def section(name: str, fit: popstats.Fit) -> list[str]:
    """Return one population's table, with the sentences of what was supported or refuted."""
    verdicts = popstats.judge(fit)
    settings = f"{fit.regime_axis} axis, method {fit.settings.method}, noise {fit.settings.noise}"
    lines = [f"## {name}", "", f"{len(fit.population):,} trainings; {settings}.", ""]
    lines += ["| | claim | verdicts |", "|---|---|---|"]
    lines += [f"| {key} | {claim} | {cell(list(verdicts.of(key)))} |" for key, claim in CLAIMS.items()]
    told = [
        v.sentence
        for v in verdicts
        if v.outcome in ("supported", "refuted") and v.conjecture in ("C3a", "C3c", "M1")
    ]
    return [*lines, "", *(f"* {sentence}" for sentence in told), ""]


def main() -> None:
    """Write the page."""
    head = (ROOT / "tools" / "reports_head.md").read_text()
    lines = [line for name, fit in {**shipped(), **outside()}.items() for line in section(name, fit)]
    (ROOT / "reports" / "README.md").write_text(head + "\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
