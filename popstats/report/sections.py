"""Text and tables of the report that need no picture: companions, diagnostics, population card, provenance."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from popstats.inference.cross_products import RegimeData
from popstats.judgement.companions import MINIMUM_POINTS, asymmetric_optimum, quadratic_optimum, two_lines, u_test
from popstats.report.answer import unfitted_words
from popstats.report.content import Alert, Section, Table
from popstats.report.evidence import Evidence
from popstats.report.figures import INTERVALS, MASS_WORDS
from popstats.report.words import MISSING, count, interval_words, join_words, number, percent, plural, probability, regime_name  # fmt: skip

__all__ = ["alerts", "card_section", "companion_section", "diagnostic_section", "provenance_section"]

#: Packages whose versions decide what a fit gives.
PACKAGES = ("popstats", "numpy", "pandas", "scipy", "statsmodels", "pymc", "nutpie", "arviz")
#: A regime with fewer networks than this gets an alert: most of its verdicts will be "undecided".
FEW_NETWORKS = 50


def alerts(evidence: Evidence) -> tuple[Alert, ...]:
    """Return what a reader must know first, gravest first."""
    fit = evidence.fit
    found = [Alert("reject", f"Diagnostics reject the fit: {reason}.") for reason in fit.convergence.reasons]
    found += [Alert("warn", text) for text in unfitted_words(evidence)]
    found += [Alert("warn", note) for note in fit.population.notes]
    if len(fit.population.failed):
        found.append(Alert("warn", f"{plural(len(fit.population.failed), 'training')} failed and {'is' if len(fit.population.failed) == 1 else 'are'} not in the fit."))  # fmt: skip
    changing = [r.label for r, c in zip(fit.regimes, fit.spread_changes, strict=True) if c is not None and c.matters]
    if changing:
        where = join_words([regime_name(r) for r in changing])
        found.append(Alert("note", f"The spread about the curve changes more than 1.5-fold over the observed range at {where}; networks are weighted accordingly."))  # fmt: skip
    ends = evidence.networks.groupby("regime")["reduction"].agg(["min", "max"])
    for label in evidence.extrapolated:
        low, high = (percent(float(v), 1) for v in ends.loc[label])
        found.append(Alert("warn", f"At {regime_name(label)} removed the regime's centre lies outside its networks ({low} to {high}): its drops are extrapolated."))  # fmt: skip
    few = [regime_name(r.label) for r in fit.fitted if r.n_recipes < FEW_NETWORKS]
    if few:
        found.append(Alert("note", f"Fewer than {FEW_NETWORKS} networks at {join_words(few)}: expect “undecided” there."))
    if not fit.population.has_replicates:
        found.append(Alert("note", "No network was trained with a second seed, so seed noise cannot be told from the networks' own differences."))  # fmt: skip
    return tuple(found)


def companion_section(evidence: Evidence) -> Section | None:
    """Classical tests and curves beside the smooth curve's optimum."""
    rows, differing = [], []
    for regime in evidence.fit.fitted:
        networks = evidence.of_regime(regime.label)
        if len(networks) < MINIMUM_POINTS:
            continue
        row, differs = _companions(evidence, regime, networks)
        rows.append(row)
        if differs:
            differing.append(regime_name(regime.label))
    if not rows:
        return None
    columns = ("removed", f"smooth curve ({MASS_WORDS})", f"quadratic ({MASS_WORDS})", f"two half-parabolas ({MASS_WORDS})", "U-test p", "two lines", "answers")  # fmt: skip
    sentence = (
        f"The answers disagree at {join_words(differing)}; the verdicts follow the smooth curve."
        if differing
        else "The classical answers agree with the smooth curve in every regime."
    )
    return Section(
        key="companions",
        heading="Companions: what classical methods say",
        sentence=sentence,
        paragraphs=(
            "Shown beside the verdicts, never instead of them. Where the smooth and the quadratic optimum differ by more than the "
            "quadratic's own interval, a quadratic is the wrong curve and its interval is not printed. The U-test (Lind and Mehlum) "
            "presumes a quadratic; the two-lines test (Simonsohn) asks for a falling line, then a rising one.",
        ),
        tables=(("Optimal mCB by method", Table(columns, tuple(rows))),),
    )


def _companions(evidence: Evidence, regime: RegimeData, networks: pd.DataFrame) -> tuple[tuple[str, ...], bool]:
    x, y = np.log(networks["mcb"].to_numpy()), networks["adjusted"].to_numpy()
    row = evidence.optima.loc[regime.label]
    quadratic, halves, test, lines = quadratic_optimum(x, y), asymmetric_optimum(x, y), u_test(x, y), two_lines(x, y)
    vertex = float(np.exp(quadratic.log_mcb))
    wrong = not np.exp(quadratic.lower) <= row.mcb <= np.exp(quadratic.upper)
    parabola = MISSING if np.isnan(vertex) else f"{number(vertex)} ({'misspecified' if wrong else _exp(quadratic.lower, quadratic.upper)})"  # fmt: skip
    asymmetric = MISSING if np.isnan(halves.log_mcb) else f"{number(float(np.exp(halves.log_mcb)))} ({_exp(halves.lower, halves.upper)})"  # fmt: skip
    supported = evidence.outcome("C3a", regime.label) == "supported"
    remarks = []
    if lines.u_shaped != supported:
        remarks.append("two lines see a U, the smooth curve not beyond doubt" if lines.u_shaped else "two lines see no U")
    if supported and wrong:
        remarks.append("quadratic misspecified")
    cells = (
        regime_name(regime.label),
        f"{number(row.mcb)} ({interval_words(row.mcb_lower, row.mcb_upper)})",
        parabola,
        asymmetric,
        _p_value(test.p_value),
        "U" if lines.u_shaped else "no U",
        "; ".join(remarks) or "agree",
    )
    return cells, bool(remarks)


def _exp(lower: float, upper: float) -> str:
    return interval_words(float(np.exp(lower)), float(np.exp(upper)))


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def diagnostic_section(evidence: Evidence) -> Section:
    """Whether the fit may be believed, its noise, its priors."""
    fit = evidence.fit
    state = "The fit passes its own diagnostics." if fit.convergence.ok else "The fit's own diagnostics reject it."
    method = (
        "Method: NUTS (PyMC and nutpie) over the curves' scales and noise, pooled over regimes; coefficients drawn exactly."
        if fit.settings.method == "nuts"
        else "Method: exact (closed form on a grid, regimes independent); there is nothing to converge, only a grid that must hold the posterior."
    )
    return Section(
        key="diagnostics",
        heading="Diagnostics",
        sentence=state,
        paragraphs=(f"{method} {INTERVALS}",),
        tables=(
            ("Checks of the draws", _checks(fit.convergence.table)),
            ("What is left over about the curve", _noise(evidence)),
            ("Priors, and what they held before the data", _prior_probabilities(evidence)),
            ("Prior distributions", Table.of(fit.priors)),
        ),
    )


def _checks(table: pd.DataFrame) -> Table:
    if "edge_probability" in table:
        rows = [(regime_name(r.regime), "< 0.001" if r.edge_probability < 0.001 else number(r.edge_probability, 3)) for r in table.itertuples()]  # fmt: skip
        return Table(("removed", "posterior mass at the grid's edge (must be under 0.01)"), tuple(rows))
    worst = table.groupby("regime", sort=False).agg(r_hat=("r_hat", "max"), bulk=("ess_bulk", "min"), tail=("ess_tail", "min"))
    rows = [(regime_name(str(r.Index)), number(r.r_hat, 3), count(r.bulk), count(r.tail)) for r in worst.itertuples()]
    columns = ("removed", "largest R-hat (under 1.01)", "smallest bulk ESS (over 400)", "smallest tail ESS (over 400)")
    return Table(columns, tuple(rows))


def _noise(evidence: Evidence) -> Table:
    changes = {r.label: c for r, c in zip(evidence.fit.regimes, evidence.fit.spread_changes, strict=True)}
    rows = []
    for r in evidence.optima[evidence.optima["reason"] == ""].itertuples():
        change = changes[r.regime]
        ratio = MISSING if change is None else f"{number(change.ratio)}-fold{' (weighted)' if change.matters else ''}"
        rows.append((regime_name(r.regime), number(r.residual_sd), number(r.recipe_sd), number(r.seed_sd), percent(r.seed_share, 0), ratio))  # fmt: skip
    columns = ("removed", "sd of one training, points", "networks' own sd", "seed sd", "seeds' share of the variance", "change over the range")  # fmt: skip
    return Table(columns, tuple(rows))


def _prior_probabilities(evidence: Evidence) -> Table:
    shown = [v for v in evidence.verdicts if np.isfinite(v.prior_probability)]
    rows = [(v.conjecture, regime_name(v.regime), probability(v.prior_probability), probability(v.probability)) for v in shown]
    return Table(("claim", "removed", "probability before the data", "after"), tuple(rows))


_CARD = ("network", "dataset", "input_size", "space", "criterion", "retraining", "epochs", "learning_rate", "batch_size",
         "weight_decay", "augmentation", "accuracy_kind", "n_test")  # fmt: skip


def card_section(evidence: Evidence) -> Section:
    """What the population is."""
    population = evidence.fit.population
    frame, original = population.frame, population.original
    reductions = [frame[f"{axis}_reduction"] for axis in ("macs", "params")]
    rows = [
        ("population", population.name),
        ("trainings", count(len(population))),
        ("networks", count(population.recipe.max() + 1)),
        ("failed trainings", count(len(population.failed))),
        ("original", f"{number(original.accuracy)} % accuracy, {count(original.macs)} MACs, {count(original.params)} parameters"),
        ("MACs removed", interval_words(*(100 * reductions[0].quantile([0, 1])), 1) + " %"),
        ("parameters removed", interval_words(*(100 * reductions[1].quantile([0, 1])), 1) + " %"),
        ("mCB", interval_words(*frame["mcb"].quantile([0, 1]))),
        ("accuracy", interval_words(*population.table["accuracy"].quantile([0, 1])) + " %"),
        ("layer groups", f"{len(population.group_names)}: {_some(list(population.group_names))}" if population.group_names else "no widths in the table"),  # fmt: skip
    ]
    rows += [(name.replace("_", " "), _distinct(frame[name])) for name in _CARD if name in frame and frame[name].notna().any()]
    return Section(
        key="population",
        heading="The population",
        sentence=f"{count(len(population))} trainings of {plural(population.recipe.max() + 1, 'network')} pruned from one original.",
        paragraphs=("One MAC is one multiply-accumulate of a convolution or linear layer (the papers' FLOP).",),
        tables=(("Population card", Table(("what", "value"), tuple(rows))),),
    )


def _distinct(values: pd.Series) -> str:
    return _some([f"{v:g}" if isinstance(v, float) else str(v) for v in sorted(values.dropna().unique(), key=str)])


def _some(items: list[str], most: int = 8) -> str:
    return join_words(items) if len(items) <= most else f"{', '.join(items[:most])} and {len(items) - most} more"


def provenance_section(evidence: Evidence, command: str | None) -> Section:
    """Where it comes from and how to make it again."""
    fit = evidence.fit
    settings = fit.settings
    rows = [
        ("method", settings.method),
        ("regimes", f"on {evidence.axis_words}; {'from the plan or bins of ten points' if settings.regimes is None else _regimes(settings.regimes)}"),
        ("curve, noise", f"{settings.curve}, {settings.noise}"),
        ("seed", str(settings.seed)),
        ("draws", f"{settings.chains} × {settings.draws}" + (f" after {settings.tune} tuning steps" if settings.method == "nuts" else "")),
        ("time of the fit", f"{number(fit.seconds)} s"),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in PACKAGES),
    ]  # fmt: skip
    stored = [(str(k), _flat(v)) for k, v in fit.population.metadata.items() if k != "truth"]
    tables = [("Fit and versions", Table(("what", "value"), tuple(rows)))]
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


def _regimes(regimes: Any) -> str:
    return join_words([percent(float(r)) for r in regimes])


def _flat(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 600 else f"{text[:600]}…"


def _command(evidence: Evidence) -> str:
    settings = evidence.fit.settings
    return (
        f"python -m popstats report TABLE -o report.html --axis {settings.regime_axis} --method {settings.method} "
        f"--seed {settings.seed}"
    )


def _python(evidence: Evidence) -> str:
    s = evidence.fit.settings
    regimes = "" if s.regimes is None else f", regimes={s.regimes!r}"
    return (
        "import popstats\n\n"
        "population = popstats.load_population(TABLE)\n"
        f'fit = popstats.fit(population, regime_axis="{s.regime_axis}", method="{s.method}", seed={s.seed}{regimes})\n'
        "verdicts = popstats.judge(fit)\n"
        'popstats.write_report(fit, "report.html", verdicts=verdicts)\n'
    )
