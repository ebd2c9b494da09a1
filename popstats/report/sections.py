"""The best networks of each regime, with the ids by which they are exported."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from popstats.figures.check_figures import check_paragraphs, check_tables
from popstats.figures.content import Section, Table
from popstats.figures.curve_figures import INTERVALS
from popstats.judgement.evidence import Evidence, rows_of
from popstats.population.table import Population
from popstats.words import (
    MISSING,
    count,
    interval_words,
    join_words,
    number,
    p_value,
    percent,
    plural,
    probability,
    regime_name,
)

#: Recipes shown of each regime.
SHOWN = 2


#: Characters shown of an id, where they are enough to tell it from all others.
SHORT_ID = 12


#: What a row is known by, the first that the table has: one training, or one recipe.
ID_COLUMNS = ("subnetwork_id", "recipe_id")


def best_section(evidence: Evidence) -> Section | None:
    """Return each regime's recipes of smallest mean drop; None where the table has no ids."""
    frame = evidence.fit.population.frame
    named = next((c for c in ID_COLUMNS if c in frame and frame[c].notna().all()), "")
    best = _best(evidence)
    if not named or best.empty:
        return None
    ids = _ids(evidence, best, named)
    short = _short(ids, frame[named].astype(str).drop_duplicates().tolist())
    cells = zip(rows_of(best), short, strict=True)
    rows = [
        (
            regime_name(r.regime),
            shown,
            number(r.drop),
            count(r.runs),
            count(r.macs),
            count(r.params),
            number(r.mcb),
        )
        for r, shown in cells
    ]
    columns = ("removed", named, "mean drop, points", "trainings", "MACs", "parameters", "mCB")
    pairs = zip(best["regime"], ids, strict=True)
    return Section(
        key="best",
        heading="The best networks",
        sentence=f"The {plural(SHOWN, 'recipe')} of smallest mean drop in each regime, of those that were trained.",
        paragraphs=(
            "Ranked by the mean drop over a recipe's trainings, at its own MACs and parameters. The best of many is partly "
            "luck: trained again, it drops more on average. " + _export_words(named),
        ),
        tables=(("Best recipes by regime", Table(columns, tuple(rows))),),
        code=(("Whole ids", "\n".join(f"{regime_name(r):>7}  {i}" for r, i in pairs)),)
        if short != ids
        else (),
    )


def _export_words(named: str) -> str:
    if named != "subnetwork_id":
        return "A recipe's trainings share its recipe_id."
    return (
        "The id is that of the recipe's most accurate training; for populations made by generate, "
        "“python -m generate.export RUN SUBNETWORK_ID” gives its network, and the characters shown are enough for it."
    )


def _best(evidence: Evidence) -> pd.DataFrame:
    """Return the recipes shown, regimes in the report's order, with `recipe` (their number) and `params`."""
    population = evidence.fit.population
    params = population.frame["params"].to_numpy()[evidence.fit.recipes.first]
    recipes = evidence.networks.assign(params=params, recipe=range(len(params)))
    parts = [recipes[recipes["regime"] == r.label].nsmallest(SHOWN, "drop") for r in evidence.fit.regimes]
    return pd.concat(parts, ignore_index=True)


def _ids(evidence: Evidence, best: pd.DataFrame, named: str) -> list[str]:
    """Return the id of each recipe's most accurate training."""
    population = evidence.fit.population
    rows = population.frame.assign(recipe=population.recipe)
    top = rows.sort_values("accuracy", kind="stable").drop_duplicates("recipe", keep="last")
    return top.set_index("recipe")[named].astype(str).loc[best["recipe"]].tolist()


def _short(ids: list[str], known: list[str]) -> list[str]:
    """Cut ids where a few characters tell them from all others of the table.

    >>> _short(["abcdefghijklmn", "x"], ["abcdefghijklmn", "x"])
    ['abcdefghijkl', 'x']
    >>> _short(["abcdefghijklmn"], ["abcdefghijklmn", "abcdefghijklmo"])
    ['abcdefghijklmn']
    """
    starts = pd.Series(known).str[:SHORT_ID].value_counts()
    return [i[:SHORT_ID] if starts[i[:SHORT_ID]] == 1 else i for i in ids]


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
        sentence=f"Seed {settings.random_seed} gives the same draws again with the same versions.",
        paragraphs=(),
        tables=tuple(tables),
        code=(("Command", command or _command(evidence)), ("Python", _python(evidence))),
    )


def _fit_rows(evidence: Evidence) -> list[tuple[str, str]]:
    settings = evidence.fit.settings
    tuning = f" after {settings.tune} tuning steps" if settings.method == "nuts" else ""
    regimes = (
        "from the plan, or cells of a factor of 1.25 in remaining cost"
        if settings.regimes is None
        else join_words([percent(float(r)) for r in settings.regimes])
    )
    return [
        ("method", settings.method),
        ("regimes", f"by {evidence.axis_words} removed; {regimes}"),
        ("curve, noise", f"{settings.curve}, {settings.noise}"),
        ("seed", str(settings.random_seed)),
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
        f"--method {s.method} --seed {s.random_seed}"
    )


def _python(evidence: Evidence) -> str:
    s = evidence.fit.settings
    regimes = "" if s.regimes is None else f", regimes={s.regimes!r}"
    return (
        "import popstats\n\n"
        "population = popstats.load_population(TABLE)\n"
        f'fit = popstats.fit(population, regime_axis="{s.regime_axis}", noise="{s.noise}", method="{s.method}", '
        f"random_seed={s.random_seed}{regimes})\n"
        "verdicts = popstats.judge(fit)\n"
        'popstats.write_report(fit, "report.html", verdicts=verdicts)\n'
    )


def diagnostic_section(evidence: Evidence) -> Section:
    """Return whether the fit may be believed, its noise, its priors."""
    fit = evidence.fit
    method = (
        "Method: NUTS (PyMC and nutpie) over the curves' scales and noise, pooled over regimes; coefficients are drawn "
        "exactly."
        if fit.settings.method == "nuts"
        else "Method: exact (closed form on a grid, regimes independent); there is nothing to converge, only a grid that "
        "must hold the posterior."
    )
    tables = (
        ("Checks of the draws", _checks(fit.convergence.table)),
        ("What is left over about the curve", _noise(evidence)),
        *check_tables(evidence),
        ("What the priors held of each claim before the data", _prior_probabilities(evidence)),
        ("Prior distributions", Table.of(fit.priors)),
    )
    return Section(
        key="diagnostics",
        heading="Diagnostics",
        sentence=_diagnosis(evidence),
        paragraphs=(f"{method} {INTERVALS}", *check_paragraphs(evidence)),
        tables=tuple((caption, table) for caption, table in tables if table.rows),
        folded=True,
    )


def _diagnosis(evidence: Evidence) -> str:
    if not evidence.fit.fitted:
        return "No regime was fitted, so there is nothing to diagnose."
    return (
        "The fit passes its own diagnostics."
        if evidence.fit.convergence.ok
        else "The fit's own diagnostics reject it."
    )


def _checks(table: pd.DataFrame) -> Table:
    if "edge_probability" in table:
        masses = [(regime_name(r.regime), p_value(float(r.edge_probability))) for r in rows_of(table)]
        return Table(("removed", "posterior mass at the grid's edge (must be under 0.01)"), tuple(masses))
    grouped = table.groupby("regime", sort=False)
    worst = grouped.agg(
        r_hat=("r_hat", "max"), bulk=("ess_bulk", "min"), tail=("ess_tail", "min")
    ).reset_index()
    rows = [(regime_name(r.regime), number(r.r_hat, 3), count(r.bulk), count(r.tail)) for r in rows_of(worst)]
    columns = (
        "removed",
        "largest R-hat (under 1.01)",
        "smallest bulk ESS (over 400)",
        "smallest tail ESS (over 400)",
    )
    return Table(columns, tuple(rows))


def _noise(evidence: Evidence) -> Table:
    changes = {r.label: c for r, c in zip(evidence.fit.regimes, evidence.fit.spread_changes, strict=True)}
    rows = []
    for r in evidence.fitted_optima:
        change = changes[r.regime]
        ratio = (
            MISSING if change is None else f"{number(change.ratio)}{' (weighted)' if change.matters else ''}"
        )
        rows.append(
            (
                regime_name(r.regime),
                number(r.residual_sd),
                number(r.recipe_sd),
                number(r.seed_sd),
                percent(r.seed_share, 0),
                ratio,
            )
        )
    columns = (
        "removed",
        "sd of one training, points",
        "recipes' own sd",
        "seed sd",
        "seeds' share of the variance",
        "larger over smaller sd at the range's ends",
    )
    return Table(columns, tuple(rows))


def _prior_probabilities(evidence: Evidence) -> Table:
    shown = [v for v in evidence.verdicts if np.isfinite(v.prior_probability)]
    rows = [
        (v.conjecture, regime_name(v.regime), probability(v.prior_probability), probability(v.probability))
        for v in shown
    ]
    return Table(("claim", "removed", "probability before the data", "after"), tuple(rows))
