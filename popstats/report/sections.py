"""The report's sections beside the figures: the best networks, diagnostics, the population, how to reproduce it."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version

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
#: Packages whose versions decide what a fit gives.
PACKAGES = ("popstats", "numpy", "pandas", "scipy", "statsmodels", "pymc", "nutpie", "arviz")
#: Columns of the table whose distinct values the card lists.
LISTED = (
    "network", "dataset", "input_size", "pruning", "space", "criterion", "retraining", "epochs", "learning_rate",
    "batch_size", "weight_decay", "augmentation", "accuracy_kind", "n_test", "device",
)  # fmt: skip


def best_section(analysis: Analysis, source: str) -> Section | None:
    """Return each regime's recipes of smallest mean drop, with widths and the way to export them; None without any."""
    best = _best(analysis)
    if best.empty:
        return None
    first, population = best.drop_duplicates("regime"), analysis.fit.population
    tables = [("Best recipes per regime", _best_table(best))]
    if population.widths is not None:
        unit = f"{population.width_unit} kept (share removed)"
        widths = population.widths[analysis.fit.recipes.first[first["recipe"]]]
        pairs = zip(widths, 1.0 - widths / original_widths(population), strict=True)
        cells = [[f"{w:,.10g} ({percent(r, 0)})" for w, r in zip(*pair, strict=True)] for pair in pairs]
        rows = tuple(zip(population.group_names, *cells, strict=True))
        kept = Table(("group", *map(regime_name, first["regime"])), rows)
        tables.append((f"Best recipe by {analysis.axis_words} removed: {unit}", kept))
    if (best["id"].str.len() > SHORT_ID).any():
        whole = Table.by_column(rows_of(best), {"id": lambda r: r.id[:SHORT_ID], "whole": lambda r: r.id})
        tables.append(("Whole ids", whole))
    commands = [
        f"python -m generate.export {source} {r.id[:SHORT_ID]}  # the best at {regime_name(r.regime)}"
        for r in rows_of(first)
    ]
    # Shipped populations have no weights to export.
    exported = first["named"].iloc[0] == "subnetwork_id" and source not in populations()
    return Section(
        key="best",
        heading="The best networks",
        sentence="The two recipes with the smallest mean drop in each regime, among those that were trained.",
        paragraphs=(
            "Ranked by the mean drop over a recipe's trainings, at its own MACs and parameters. The best of many is partly "
            "luck: trained again, it drops more on average.",
        ),
        tables=tuple(tables),
        code=(("Export a network from its run folder", "\n".join(commands)),) if exported else (),
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
    """Return the recipes shown, regimes in the report's order, with `recipe` (their number), `named` and `id`."""
    population = analysis.fit.population
    frame = population.frame.assign(recipe=population.recipe)
    named = next((c for c in ID_COLUMNS if c in frame and frame[c].notna().all()), "")
    # A recipe goes by the id of its most accurate training.
    last = frame.sort_values("accuracy", kind="stable").drop_duplicates("recipe", keep="last")
    top = last.set_index("recipe", drop=False).sort_index()
    networks = analysis.networks.assign(
        params=top["params"],
        retraining=top.get("retraining"),
        recipe=top["recipe"],
        named=named,
        id=top[named].astype(str) if named else "",
    )
    parts = [networks[networks["regime"] == r.label].nsmallest(SHOWN, "drop") for r in analysis.fit.regimes]
    return pd.concat(parts, ignore_index=True)


def _best_table(best: pd.DataFrame) -> Table:
    """Return one row per recipe; columns that say nothing of any of them are left out."""
    table = Table.by_column(rows_of(best), {
        "removed": lambda r: regime_name(r.regime),
        "mean drop, points": lambda r: number(r.drop),
        "trainings": lambda r: count(r.runs),
        "retraining": lambda r: "" if pd.isna(r.retraining) else str(r.retraining),
        "MACs": lambda r: count(r.macs),
        "parameters": lambda r: count(r.params),
        "mCB": lambda r: number(r.mcb),
        "STD of ratios": lambda r: number(r.ratio_std),
        best["named"].iloc[0]: lambda r: r.id[:SHORT_ID],
    })  # fmt: skip
    said = [i for i, cells in enumerate(zip(*table.rows, strict=True)) if set(cells) - {"", MISSING}]
    columns = tuple(table.columns[i] for i in said)
    return Table(columns, tuple(tuple(row[i] for i in said) for row in table.rows))


def card_section(analysis: Analysis) -> Section:
    """Return what the population is."""
    population = analysis.fit.population
    frame, original, groups = population.frame, population.original, list(population.group_names)
    networks, failed = int(population.recipe.max()) + 1, len(population.failed)

    def ends(name: str, decimals: int, factor: float = 1.0) -> str:
        return interval_words(factor * float(frame[name].min()), factor * float(frame[name].max()), decimals)

    rows = [
        ("failed trainings", count(failed)),
        (
            "original",
            f"{number(original.accuracy)} % accuracy, {count(original.macs)} MACs, {count(original.params)} parameters",
        ),
        ("MACs removed", f"{ends('macs_reduction', 1, 100)} %"),
        ("parameters removed", f"{ends('params_reduction', 1, 100)} %"),
        ("mCB", ends("mcb", 2)),
        ("accuracy", f"{ends('accuracy', 2)} %"),
        ("layer groups", f"{len(groups)}: {_some(groups)}" if groups else "no widths in the table"),
    ]
    listed = [c for c in LISTED if c in frame and frame[c].notna().any()]
    rows += [(c.replace("_", " "), _distinct(frame[c])) for c in listed]
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


def _distinct(values: pd.Series) -> str:
    found, missing = sorted(values.dropna().unique(), key=str), int(values.isna().sum())
    unsaid = f"; {plural(missing, 'training')} {'does' if missing == 1 else 'do'} not say" if missing else ""
    return f"{_some([f'{v:g}' if isinstance(v, float | np.floating) else str(v) for v in found])}{unsaid}"


def _some(items: list[str], most: int = 8) -> str:
    return join_words(items if len(items) <= most else [*items[:most], f"{len(items) - most} more"])


def provenance_section(analysis: Analysis, command: str | None, source: str = "TABLE") -> Section:
    """Return where the report comes from and how to make it again."""
    s, metadata = analysis.fit.settings, analysis.fit.population.metadata
    stored = {key: value for key, value in metadata.items() if key not in ("truth", "costs")}
    lines = (("Stored with the table", json.dumps(stored, indent=1, default=str)),) if stored else ()
    # Half-widths of regimes, where they were given, can only be said in Python.
    regimes = "" if s.regimes is None else f" --regimes {','.join(f'{r:g}' for r in s.regimes)}"
    method = f" --method {s.method}" if s.noise == "normal" else ""
    options = f"--axis {s.regime_axis}{regimes} --noise {s.noise}{method} --seed {s.random_seed}"
    made_by = command or f"python -m popstats report {source} -o report.html {options}"
    arguments = f"regime_axis={s.regime_axis!r}, noise={s.noise!r}, random_seed={s.random_seed}"
    arguments += f", method={s.method!r}" if s.noise == "normal" else ""
    arguments += "" if s.regimes is None else f", regimes={s.regimes!r}"
    python = (
        f"import popstats\n\npopulation = popstats.load_population({source!r})\n"
        f"fit = popstats.fit(population, {arguments})\npopstats.write_report(fit, 'report.html')\n"
    )
    return Section(
        key="provenance",
        heading="How to reproduce this",
        sentence=f"With the same versions, seed {s.random_seed} gives the same draws.",
        tables=(("Fit and versions", Table(("what", "value"), tuple(_fit_rows(analysis)))),),
        code=(("Command", made_by), ("Python", python), *lines),
        folded=True,
    )


def _fit_rows(analysis: Analysis) -> list[tuple[str, str]]:
    settings = analysis.fit.settings
    tuning = "" if settings.method == "exact" else f" after {settings.tune} tuning steps"
    regimes = "from the plan, or cells of a factor of 1.25 in remaining cost"
    if settings.regimes is not None:
        regimes = join_words([percent(float(r)) for r in settings.regimes])
    return [
        ("method", settings.method),
        ("regimes", f"by {analysis.axis_words} removed; {regimes}"),
        ("curve, noise", f"{settings.curve}, {settings.noise}"),
        ("draws", f"{CHAINS} × {settings.draws}{tuning}"),
        ("time of the fit", f"{number(analysis.fit.seconds)} s"),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in PACKAGES),
    ]


#: How a curve, its noise and the making of draws are described.
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
_METHODS = {
    "parametric": "exact independent draws of the curve's coefficients and noise; regimes are independent.",
    "exact": (
        "exact. Length scale, amplitude and noise of each regime are tabulated on a grid, partially pooled over regimes "
        "by common values on a separate grid, and coefficients are drawn in closed form. Draws are independent and "
        "nothing has to converge; the grids must hold the posterior."
    ),
    "nuts": (
        "NUTS (PyMC and nutpie, {chains} after {tune} of tuning) over length scales, amplitudes and noise, partially "
        "pooled over regimes; given these, coefficients are drawn exactly."
    ),
    "hmc": (
        "Hamiltonian Monte Carlo ({chains}) over the curves' coefficients and the noise, on every recipe. Length scales "
        "and amplitudes are fixed at their posterior medians under normal noise; the noise is partially pooled over "
        "regimes."
    ),
}


def method_words(settings: Settings) -> str:
    """Return how the posterior was computed: what was sampled, what was drawn exactly, what was pooled."""
    method = _METHODS["parametric" if settings.curve in PARAMETRIC else settings.method]
    method = method.format(chains=f"{CHAINS} chains of {settings.draws} draws", tune=settings.tune)
    return f"Model: {_CURVES[settings.curve]}, with {_NOISES[settings.noise]}. Method: {method}"


def diagnostic_section(analysis: Analysis) -> Section:
    """Return whether the fit may be believed, its noise, its priors."""
    fit = analysis.fit
    sentence = "No regime was fitted, so there is nothing to diagnose."
    if fit.fitted:
        sentence = (
            "The fit passes its own diagnostics." if fit.convergence.ok else "The diagnostics reject the fit."
        )
    priors = Table.by_column([v for v in analysis.verdicts if np.isfinite(v.prior_probability)], {
        "claim": lambda v: v.conjecture,
        "removed": lambda v: regime_name(v.regime),
        "prior probability": lambda v: probability(v.prior_probability),
        "posterior probability": lambda v: probability(v.probability),
    })  # fmt: skip
    tables = (
        ("Checks of the draws", _checks(fit.convergence.table)),
        ("Residuals", _noise(analysis)),
        *check_tables(analysis),
        ("Prior and posterior probability of each claim", priors),
        ("Prior distributions", Table.of(fit.priors)),
    )
    return Section(
        key="diagnostics",
        heading="Diagnostics",
        sentence=sentence,
        paragraphs=(f"{method_words(fit.settings)} {INTERVALS}", *check_paragraphs(analysis)),
        tables=tuple((caption, table) for caption, table in tables if table.rows),
        folded=True,
    )


def _checks(table: pd.DataFrame) -> Table:
    if "edge_probability" in table:
        return Table.by_column(rows_of(table), {
            "removed": lambda r: regime_name(r.regime),
            "posterior mass at the grid's edge (must be under 0.01)": lambda r: p_value(float(r.edge_probability)),
        })  # fmt: skip
    worst = table.groupby("regime", sort=False).agg({"r_hat": "max", "ess_bulk": "min", "ess_tail": "min"})
    return Table.by_column(rows_of(worst.reset_index()), {
        "removed": lambda r: regime_name(r.regime),
        "largest R-hat (under 1.01)": lambda r: number(r.r_hat, 3),
        "smallest bulk ESS (over 400)": lambda r: count(r.ess_bulk),
        "smallest tail ESS (over 400)": lambda r: count(r.ess_tail),
    })  # fmt: skip


def _noise(analysis: Analysis) -> Table:
    changes = zip(analysis.fit.regimes, analysis.fit.spread_changes, strict=True)
    ratios = {r.label: f"{number(c.ratio)}{' (weighted)' if c.matters else ''}" for r, c in changes}
    return Table.by_column(analysis.fitted_optima, {
        "removed": lambda r: regime_name(r.regime),
        "sd of one training, points": lambda r: number(r.residual_sd),
        "sd between recipes": lambda r: number(r.recipe_sd),
        "seed sd": lambda r: number(r.seed_sd),
        "share of seeds in the variance": lambda r: percent(r.seed_share, 0),
        "ratio of sds at the ends of the range": lambda r: ratios[r.regime],
    })  # fmt: skip
