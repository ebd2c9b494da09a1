"""The population's card, where everything comes from, and how to make it again."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from popstats.population import Population
from popstats.report.content import Section, Table
from popstats.report.evidence import Evidence
from popstats.report.words import count, interval_words, join_words, number, percent, plural

__all__ = ["card_section", "provenance_section"]

#: Packages whose versions decide what a fit gives.
PACKAGES = ("popstats", "numpy", "pandas", "scipy", "statsmodels", "pymc", "nutpie", "arviz")
#: Columns of the table whose distinct values the card lists.
LISTED = (
    "network",
    "dataset",
    "input_size",
    "space",
    "criterion",
    "retraining",
    "epochs",
    "learning_rate",
    "batch_size",
    "weight_decay",
    "augmentation",
    "accuracy_kind",
    "n_test",
    "device",
)
#: Longer texts from the table's footer are cut; the file holds them whole.
LONGEST_TEXT = 600


def card_section(evidence: Evidence) -> Section:
    """Return what the population is."""
    population = evidence.fit.population
    networks = int(population.recipe.max()) + 1
    listed = [c for c in LISTED if c in population.frame and population.frame[c].notna().any()]
    rows = [*_sizes(population), *((c.replace("_", " "), _distinct(population.frame[c])) for c in listed)]
    return Section(
        key="population",
        heading="The population",
        sentence=f"{plural(len(population), 'training')} of {plural(networks, 'recipe')} for pruning one original.",
        paragraphs=(
            "One MAC is one multiply-accumulate of a convolution or linear layer (the papers' FLOP). mCB is the MACs "
            "kept over the parameters kept, both as fractions of the original: 1 is the original's ratio, above 1 the "
            "network spends more MACs a parameter. A network is one recipe, a width for every layer group; its trainings "
            "differ in their seed.",
        ),
        tables=(("Population card", Table(("what", "value"), tuple(rows))),),
    )


def _sizes(population: Population) -> list[tuple[str, str]]:
    frame, original, groups = population.frame, population.original, population.group_names

    def ends(values: pd.Series, decimals: int, factor: float = 1.0) -> str:
        return interval_words(factor * float(values.min()), factor * float(values.max()), decimals)

    return [
        ("population", population.name),
        ("trainings", count(len(population))),
        ("recipes (pruned networks)", count(int(population.recipe.max()) + 1)),
        ("failed trainings", count(len(population.failed))),
        (
            "original",
            f"{number(original.accuracy)} % accuracy, {count(original.macs)} MACs, {count(original.params)} parameters",
        ),
        ("MACs removed", f"{ends(frame['macs_reduction'], 1, 100)} %"),
        ("parameters removed", f"{ends(frame['params_reduction'], 1, 100)} %"),
        ("mCB", ends(frame["mcb"], 2)),
        ("accuracy", f"{ends(frame['accuracy'], 2)} %"),
        ("layer groups", f"{len(groups)}: {_some(list(groups))}" if groups else "no widths in the table"),
    ]


def _distinct(values: pd.Series) -> str:
    found, missing = sorted(values.dropna().unique(), key=str), int(values.isna().sum())
    unsaid = f"; {plural(missing, 'training')} {'does' if missing == 1 else 'do'} not say" if missing else ""
    return _some([f"{v:g}" if isinstance(v, float | np.floating) else str(v) for v in found]) + unsaid


def _some(items: list[str], most: int = 8) -> str:
    return (
        join_words(items) if len(items) <= most else f"{', '.join(items[:most])} and {len(items) - most} more"
    )


def provenance_section(evidence: Evidence, command: str | None) -> Section:
    """Return where the report comes from and how to make it again."""
    settings, metadata = evidence.fit.settings, evidence.fit.population.metadata
    stored = [row for key, value in metadata.items() if key != "truth" for row in _flat(str(key), value)]
    tables = [("Fit and versions", Table(("what", "value"), tuple(_fit_rows(evidence))))]
    if stored:
        tables.append(("Stored with the table", Table(("what", "value"), tuple(stored))))
    return Section(
        key="provenance",
        heading="How to make this again",
        sentence=f"Seed {settings.seed} gives the same draws again with the same versions.",
        paragraphs=(),
        tables=tuple(tables),
        code=(("Command", command or _command(evidence)), ("Python", _python(evidence))),
    )


def _fit_rows(evidence: Evidence) -> list[tuple[str, str]]:
    settings = evidence.fit.settings
    tuning = f" after {settings.tune} tuning steps" if settings.method == "nuts" else ""
    regimes = (
        "from the plan, or bins of ten points"
        if settings.regimes is None
        else join_words([percent(float(r)) for r in settings.regimes])
    )
    return [
        ("method", settings.method),
        ("regimes", f"by {evidence.axis_words} removed; {regimes}"),
        ("curve, noise", f"{settings.curve}, {settings.noise}"),
        ("seed", str(settings.seed)),
        ("draws", f"{settings.chains} × {settings.draws}{tuning}"),
        ("time of the fit", f"{number(evidence.fit.seconds)} s"),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in PACKAGES),
    ]


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """Return a nested value as rows, one a leaf: "plan, training, epochs"."""
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _flat(f"{name}, {key.replace('_', ' ')}", item)]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [row for i, item in enumerate(value, 1) for row in _flat(f"{name} {i}", item)]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return [(name, text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…")]


def _command(evidence: Evidence) -> str:
    s = evidence.fit.settings
    # Half-widths of regimes, where they were given, can only be said in Python.
    regimes = "" if s.regimes is None else f" --regimes {','.join(f'{r:g}' for r in s.regimes)}"
    return (
        f"python -m popstats report TABLE -o report.html --axis {s.regime_axis}{regimes} --noise {s.noise} "
        f"--method {s.method} --seed {s.seed}"
    )


def _python(evidence: Evidence) -> str:
    s = evidence.fit.settings
    regimes = "" if s.regimes is None else f", regimes={s.regimes!r}"
    return (
        "import popstats\n\n"
        "population = popstats.load_population(TABLE)\n"
        f'fit = popstats.fit(population, regime_axis="{s.regime_axis}", noise="{s.noise}", method="{s.method}", '
        f"seed={s.seed}{regimes})\n"
        "verdicts = popstats.judge(fit)\n"
        'popstats.write_report(fit, "report.html", verdicts=verdicts)\n'
    )
