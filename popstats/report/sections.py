"""The report's sections beside the figures: the best networks, diagnostics, the population, how to reproduce it."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from popstats.figures.check_figures import check_paragraphs, check_tables
from popstats.figures.content import Section, Table
from popstats.figures.curve_figures import INTERVALS, SHORT_ID
from popstats.inference.draws import INTERVAL_MASS
from popstats.inference.model import CHAINS, PARAMETRIC, Settings
from popstats.judgement.analysis import Analysis, rows_of
from popstats.population.files import populations
from popstats.population.recipes import original_widths
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
    with_interval,
)

#: Recipes shown of each regime.
SHOWN = 2
#: What the space of a baseline's rows begins with; its name follows.
BASELINE = "baseline:"
#: What a row is known by, the first that the table has: one training, or one recipe.
ID_COLUMNS = ("subnetwork_id", "recipe_id")


def best_section(analysis: Analysis, source: str) -> Section | None:
    """Return each regime's recipes of smallest mean drop, with widths and the way to export them; None without any."""
    best = _best(analysis)
    if best.empty:
        return None
    frame = analysis.fit.population.frame
    named = next((c for c in ID_COLUMNS if c in frame and frame[c].notna().all()), "")
    ids = _ids(analysis, best, named) if named else []
    known = frame[named].astype(str).drop_duplicates().tolist() if named else []
    short = _short(ids, known)
    tables = [("Best recipes per regime", _best_table(best, named, short))]
    if analysis.fit.population.widths is not None:
        unit = analysis.fit.population.width_unit
        caption = f"Widths of the best recipe per regime: {unit} kept (share removed)"
        tables.append((caption, _best_widths(analysis, best.drop_duplicates("regime"))))
    return Section(
        key="best",
        heading="The best networks",
        sentence="The two recipes with the smallest mean drop in each regime, among those that were trained.",
        paragraphs=(
            "Ranked by the mean drop over a recipe's trainings, at its own MACs and parameters. The best of many is partly "
            "luck: trained again, it drops more on average.",
        ),
        tables=tuple(tables),
        code=_exports(best, named, short, source),
    )


def baseline_section(analysis: Analysis) -> Section | None:
    """Return what the baselines of the plan dropped beside the other recipes of their regimes; None without any."""
    frame = analysis.fit.population.frame
    space = frame["space"].fillna("").astype(str) if "space" in frame else pd.Series("", index=frame.index)
    techniques = frame["retraining"].fillna("") if "retraining" in frame else ""
    named = space.str.removeprefix(BASELINE).where(space.str.startswith(BASELINE), "")
    rows, cells = frame.assign(baseline=named, technique=techniques), []
    for (regime, technique), here in rows.groupby(["regime", "technique"]):
        others = here.loc[here["baseline"] == "", "accuracy_drop"]
        for baseline, own in here[here["baseline"] != ""].groupby("baseline"):
            drop, runs = own["accuracy_drop"].to_numpy(dtype=np.float64), len(own)
            ends = stats.t.interval(INTERVAL_MASS, runs - 1, drop.mean(), stats.sem(drop)) if runs > 1 else ()
            better = percent(float((others < drop.mean()).mean()), 0) if len(others) else MISSING
            cells.append((
                regime_name(str(regime)), str(baseline), str(technique),
                with_interval(drop.mean(), *ends) if ends else number(drop.mean()),
                count(runs), number(own["mcb"].mean()), number(others.median()), better,
            ))  # fmt: skip
    if not cells:
        return None
    columns = (
        "removed", "baseline", "retraining", f"mean drop, points ({percent(INTERVAL_MASS)} interval)", "trainings", "mCB",
        "median drop of the other recipes", "other recipes that drop less",
    )  # fmt: skip
    return Section(
        key="baselines",
        heading="Baselines",
        sentence="Recipes that need no study, trained in the same regimes and in the same ways.",
        paragraphs=("Intervals are Student's t over the trainings of a baseline: the noise of seeds alone.",),
        tables=(("Baselines per regime", Table(columns, tuple(cells))),),
    )


def _best(analysis: Analysis) -> pd.DataFrame:
    """Return the recipes shown, regimes in the report's order, with `recipe` (their number) and `params`."""
    population = analysis.fit.population
    first = analysis.fit.recipes.first
    rows = population.frame.iloc[first]
    techniques = rows["retraining"].to_numpy() if "retraining" in rows else np.full(len(first), None)
    recipes = analysis.networks.assign(
        params=rows["params"].to_numpy(), retraining=techniques, recipe=range(len(first))
    )
    parts = [recipes[recipes["regime"] == r.label].nsmallest(SHOWN, "drop") for r in analysis.fit.regimes]
    return pd.concat(parts, ignore_index=True)


def _best_table(best: pd.DataFrame, named: str, short: Sequence[str]) -> Table:
    """Return one row per recipe; columns that say nothing of any of them are left out."""
    cells: dict[str, list[str]] = {"removed": [regime_name(r) for r in best["regime"]]}
    cells |= {
        "mean drop, points": [number(v) for v in best["drop"]],
        "trainings": [count(v) for v in best["runs"]],
        "retraining": ["" if pd.isna(v) else str(v) for v in best["retraining"]],
        "MACs": [count(v) for v in best["macs"]],
        "parameters": [count(v) for v in best["params"]],
        "mCB": [number(v) for v in best["mcb"]],
        "STD of ratios": [number(v) for v in best["ratio_std"]],
        **({named: list(short)} if named else {}),
    }
    told = {name: values for name, values in cells.items() if set(values) - {"", MISSING}}
    return Table(tuple(told), tuple(zip(*told.values(), strict=True)))


def _best_widths(analysis: Analysis, best: pd.DataFrame) -> Table:
    """Return one row per layer group and one column per recipe."""
    population = analysis.fit.population
    assert population.widths is not None
    widths = population.widths[analysis.fit.recipes.first[best["recipe"]]]
    full = original_widths(population)
    cells = [
        [
            f"{number(w, 0 if w == int(w) else 2)} ({percent(1 - w / f, 0)})"
            for w, f in zip(row, full, strict=True)
        ]
        for row in widths
    ]
    columns = ("group", *(f"{regime_name(r)} removed" for r in best["regime"]))
    return Table(columns, tuple(zip(population.group_names, *cells, strict=True)))


def _ids(analysis: Analysis, best: pd.DataFrame, named: str) -> list[str]:
    """Return the id of each recipe's most accurate training."""
    population = analysis.fit.population
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
    starts = pd.Series(known, dtype=object).str[:SHORT_ID].value_counts()
    return [i[:SHORT_ID] if starts[i[:SHORT_ID]] == 1 else i for i in ids]


def _exports(
    best: pd.DataFrame, named: str, short: Sequence[str], source: str
) -> tuple[tuple[str, str], ...]:
    """Return the commands that export each regime's best network; shipped populations have no weights to export."""
    if named != "subnetwork_id" or source in populations():
        return ()
    first = best.assign(short=short).drop_duplicates("regime")
    lines = (
        f"python -m generate.export {source} {r.short}  # the best at {regime_name(r.regime)}"
        for r in rows_of(first)
    )
    return (("Export a network from its run folder", "\n".join(lines)),)


#: Packages whose versions decide what a fit gives.
PACKAGES = ("popstats", "numpy", "pandas", "scipy", "statsmodels", "pymc", "nutpie", "arviz")


#: Columns of the table whose distinct values the card lists.
LISTED = (
    "network", "dataset", "input_size", "pruning", "space", "criterion", "retraining", "epochs", "learning_rate",
    "batch_size", "weight_decay", "augmentation", "accuracy_kind", "n_test", "device",
)  # fmt: skip


#: Longer texts from the table's footer are cut; the file holds them whole.
LONGEST_TEXT = 600


def card_section(analysis: Analysis) -> Section:
    """Return what the population is."""
    population = analysis.fit.population
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
            "network spends more MACs per parameter. A recipe gives the width of every layer group; its trainings differ in "
            "their seed.",
        ),
        tables=(("Population card", Table(("what", "value"), tuple(rows))),),
        folded=True,
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


def provenance_section(analysis: Analysis, command: str | None, source: str = "TABLE") -> Section:
    """Return where the report comes from and how to make it again."""
    settings, metadata = analysis.fit.settings, analysis.fit.population.metadata
    stored = [row for key, value in metadata.items() if key != "truth" for row in _flat(str(key), value)]
    tables = [("Fit and versions", Table(("what", "value"), tuple(_fit_rows(analysis))))]
    if stored:
        tables.append(("Stored with the table", Table(("what", "value"), tuple(stored))))
    return Section(
        key="provenance",
        heading="How to reproduce this",
        sentence=f"With the same versions, seed {settings.random_seed} gives the same draws.",
        paragraphs=(),
        tables=tuple(tables),
        code=(("Command", command or _command(analysis, source)), ("Python", _python(analysis, source))),
        folded=True,
    )


def _fit_rows(analysis: Analysis) -> list[tuple[str, str]]:
    settings = analysis.fit.settings
    tuning = "" if settings.method == "exact" else f" after {settings.tune} tuning steps"
    regimes = (
        "from the plan, or cells of a factor of 1.25 in remaining cost"
        if settings.regimes is None
        else join_words([percent(float(r)) for r in settings.regimes])
    )
    return [
        ("method", settings.method),
        ("regimes", f"by {analysis.axis_words} removed; {regimes}"),
        ("curve, noise", f"{settings.curve}, {settings.noise}"),
        ("seed", str(settings.random_seed)),
        ("draws", f"{CHAINS} × {settings.draws}{tuning}"),
        ("time of the fit", f"{number(analysis.fit.seconds)} s"),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in PACKAGES),
    ]


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """Return a nested value as rows, one per leaf: "plan, training, epochs"."""
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _flat(f"{name}, {key.replace('_', ' ')}", item)]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [row for i, item in enumerate(value, 1) for row in _flat(f"{name} {i}", item)]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return [(name, text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…")]


def _command(analysis: Analysis, source: str) -> str:
    s = analysis.fit.settings
    # Half-widths of regimes, where they were given, can only be said in Python.
    regimes = "" if s.regimes is None else f" --regimes {','.join(f'{r:g}' for r in s.regimes)}"
    method = f" --method {s.method}" if s.noise == "normal" else ""
    return (
        f"python -m popstats report {source} -o report.html --axis {s.regime_axis}{regimes} --noise {s.noise}{method} "
        f"--seed {s.random_seed}"
    )


def _python(analysis: Analysis, source: str) -> str:
    s = analysis.fit.settings
    regimes = "" if s.regimes is None else f", regimes={s.regimes!r}"
    method = f', method="{s.method}"' if s.noise == "normal" else ""
    return (
        "import popstats\n\n"
        f"population = popstats.load_population({source!r})\n"
        f'fit = popstats.fit(population, regime_axis="{s.regime_axis}", noise="{s.noise}"{method}, '
        f"random_seed={s.random_seed}{regimes})\n"
        "verdicts = popstats.judge(fit)\n"
        'popstats.write_report(fit, "report.html", verdicts=verdicts)\n'
    )


#: How a curve and its noise are described, and how draws of them are made.
_CURVES = {
    "smooth": "a smooth curve over log mCB (Matérn process of smoothness 7/4 on a fixed basis)",
    "quadratic": "a quadratic in log mCB with flat priors",
    "asymmetric": "two half-parabolas in log mCB with flat priors",
}
_NOISES = {
    "normal": "normal noise",
    "student": "Student-t noise, which down-weights collapsed recipes",
    "exgaussian": (
        "normal plus exponential noise, with the curve as what is attainable; the expected drop includes the mean of the "
        "exponential"
    ),
}


def method_words(settings: Settings) -> str:
    """Return how the posterior was computed: what was sampled, what was drawn exactly, what was pooled."""
    model = f"Model: {_CURVES[settings.curve]}, with {_NOISES[settings.noise]}."
    return f"{model} Method: {_method(settings)}"


def _method(settings: Settings) -> str:
    if settings.curve in PARAMETRIC:
        return "exact independent draws of the curve's coefficients and noise; regimes are independent."
    if settings.method == "exact":
        return (
            "exact. Length scale, amplitude and noise of each regime are tabulated on a grid, partially pooled over regimes "
            "by common values on a grid of their own, and coefficients are drawn in closed form. Draws are independent and "
            "nothing has to converge; the grids must hold the posterior."
        )
    chains = f"{CHAINS} chains of {settings.draws} draws"
    if settings.method == "nuts":
        return (
            f"NUTS (PyMC and nutpie, {chains} after {settings.tune} of tuning) over length scales, amplitudes and noise, "
            "partially pooled over regimes; given these, coefficients are drawn exactly."
        )
    return (
        f"Hamiltonian Monte Carlo ({chains}) over the curves' coefficients and the noise, on every recipe. Length scales "
        "and amplitudes are fixed at their posterior medians under normal noise; the noise is partially pooled over regimes."
    )


def diagnostic_section(analysis: Analysis) -> Section:
    """Return whether the fit may be believed, its noise, its priors."""
    fit = analysis.fit
    tables = (
        ("Checks of the draws", _checks(fit.convergence.table)),
        ("Residuals", _noise(analysis)),
        *check_tables(analysis),
        ("Prior and posterior probability of each claim", _prior_probabilities(analysis)),
        ("Prior distributions", Table.of(fit.priors)),
    )
    return Section(
        key="diagnostics",
        heading="Diagnostics",
        sentence=_diagnosis(analysis),
        paragraphs=(f"{method_words(fit.settings)} {INTERVALS}", *check_paragraphs(analysis)),
        tables=tuple((caption, table) for caption, table in tables if table.rows),
        folded=True,
    )


def _diagnosis(analysis: Analysis) -> str:
    if not analysis.fit.fitted:
        return "No regime was fitted, so there is nothing to diagnose."
    return (
        "The fit passes its own diagnostics."
        if analysis.fit.convergence.ok
        else "The diagnostics reject the fit."
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


def _noise(analysis: Analysis) -> Table:
    changes = {r.label: c for r, c in zip(analysis.fit.regimes, analysis.fit.spread_changes, strict=True)}
    rows = []
    for r in analysis.fitted_optima:
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
        "sd between recipes",
        "seed sd",
        "share of seeds in the variance",
        "ratio of sds at the ends of the range",
    )
    return Table(columns, tuple(rows))


def _prior_probabilities(analysis: Analysis) -> Table:
    shown = [v for v in analysis.verdicts if np.isfinite(v.prior_probability)]
    rows = [
        (v.conjecture, regime_name(v.regime), probability(v.prior_probability), probability(v.probability))
        for v in shown
    ]
    return Table(("claim", "removed", "prior probability", "posterior probability"), tuple(rows))
