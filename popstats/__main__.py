"""The command line: `python -m popstats COMMAND`."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popstats.errors import BAD_INPUT, PopstatsError
from popstats.options import FIT_OPTIONS, TABLE_OPTIONS, Command, check_output, command_parser, refuse_ignored

if TYPE_CHECKING:
    from popstats.population.table import Population
    from popstats.posterior.fit import Fit


#: Exit statuses; the last is what shells give a command that was interrupted.
DONE, REJECTED, INTERRUPTED = 0, 3, 130
#: Why options about a table or its fit have nothing to change.
_SAVED = "is a saved fit and holds its own table and settings. Fit the table again with these options, or leave them out"
_GUESSED = "without a population, the plan is made from a guess. Give a pilot, or leave these options out"
_NO_BUDGET = "without a budget, all of them are predicted. Give --reduction or --drop, or leave these out"
#: What `calibrate` prints of each setting.
_SHOWN_RATES = "^(truth|n|rise|regimes|coverage_mcb|coverage_limit|supported|refuted|false_.*)$"
#: Above this many trainings, `fit` does not wait for the predictive checks.
_CHECKED_TRAININGS = 50_000
#: Longer lines are hard to read, however wide the terminal is.
_WIDEST = 110


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    if sys.stdout is None:  # Closed: services and pythonw have none.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = command_parser(_COMMANDS).parse_args(given)
    options.command_line = f"python -m popstats {shlex.join(given)}"
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing may be written to the pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (PopstatsError, OSError) as error:
        print(f"Error: {getattr(error, 'on_command_line', error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    return status


def _width() -> int | None:
    """Return the columns to wrap text at; None through a pipe, whose reader wants one line per sentence."""
    return min(shutil.get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else None


def _list(options: argparse.Namespace) -> int:
    from popstats.population.files import load_population, populations

    names = populations()
    shown = [] if options.json else [repr(load_population(name))[1:-1] for name in names]
    return _say(options, names, "\n".join(shown) or "No population is shipped with this installation.")


def _check(options: argparse.Namespace) -> int:
    from popstats.words import plural

    population = _population(options, options.population)
    numbered = population.frame.assign(recipe=population.recipe)
    counts = numbered.groupby("regime")["recipe"].agg(["size", "nunique"])
    found = {
        "population": population.name,
        "trainings": len(population),
        "networks": int(population.recipe.max()) + 1,
        "failed": len(population.failed),
        "regimes": {str(label): int(n) for label, n in counts["size"].items()},
        "mcb": [float(v) for v in population.frame["mcb"].quantile([0.0, 1.0])],
        "groups": list(population.group_names),
        "notes": list(population.notes),
    }
    lines = [repr(population)[1:-1], *(f"Note: {note}" for note in population.notes)]
    sizes = counts.itertuples()
    lines[1:1] = [f"regime {r}: {plural(n, 'training')} of {plural(m, 'recipe')}" for r, n, m in sizes]
    return _say(options, found, "\n".join(lines))


def _fit(options: argparse.Namespace) -> int:
    from popstats.report.terminal import fit_text, near_optimal, optimum_outcomes
    from popstats.words import sentences

    check_output(options.output, ".nc")
    fit = _fitted(options, options.population)
    if not fit.fitted:
        raise PopstatsError(_why_nothing(fit))
    if options.output:
        fit.save(options.output)
    checked = sum(r.n for r in fit.fitted) <= _CHECKED_TRAININGS and fit.settings.curve == "smooth"
    alerts = [*fit.extrapolated, *fit.predictive_checks.alerts] if checked else []
    optima = fit.optima()
    read: dict[str, Any] = {"outcome": optimum_outcomes(fit), "near_optimal": near_optimal(fit)}
    found = {
        "population": fit.population.name,
        "ok": fit.convergence.ok,
        "reasons": sentences(fit.convergence.reasons),
        "alerts": sentences(alerts, command_line=True) if checked else None,
        "seconds": fit.seconds,
        "optima": optima.assign(**{name: optima["regime"].map(values) for name, values in read.items()}),
    }
    text = "" if options.json else fit_text(fit, checked, _width())
    return _say(options, found, text, fit, saved=options.output)


def _why_nothing(fit: Fit) -> str:
    """Say why no regime was fitted: what was requested, what the table holds, what to do."""
    import numpy as np

    from popstats.inference.data import MINIMUM_RECIPES
    from popstats.words import clause, plural

    population, axis = fit.population, fit.regime_axis
    counts, _ = np.histogram(population.frame[f"{axis}_reduction"], bins=10, range=(0.0, 1.0))
    held = ", ".join(f"{10 * i} to {10 * i + 10} %: {n:,}" for i, n in enumerate(counts) if n)
    asked = ", ".join(
        f"{r.target:g} ({plural(r.n, 'training')}: {clause(r.reason)})"
        for r in fit.regimes
        if r.reason is not None
    )
    return (
        f"{population.name}: no regime could be fitted. Given (--regimes, on the {axis} axis): {asked}. "
        f"The table's {len(population):,} trainings by {axis} reduction: {held}. Choose regimes with at least "
        f"{MINIMUM_RECIPES} recipes of different mCB, or add recipes"
    )


def _judge(options: argparse.Namespace) -> int:
    from popstats.judgement.judge import judge
    from popstats.judgement.verdicts import Thresholds
    from popstats.report.terminal import verdicts_text

    pairs = _pairs(options.threshold, "--threshold", "NAME=VALUE, e.g. rise=0.2")
    thresholds = {name: _number(text, "--threshold") for name, text in pairs.items()}
    Thresholds.of(thresholds)  # Refuses wrong ones before anything is fitted.
    fit = _fitted(options, options.population)
    verdicts = judge(fit, **thresholds)
    text = "" if options.json else verdicts_text(fit, verdicts, _width(), _source(options.population))
    return _say(options, verdicts.to_records(), text, fit)


def _report(options: argparse.Namespace) -> int:
    from popstats.report.compose import comparison_content
    from popstats.report.page import write_content, write_report

    check_output(options.output, ".html", ".pdf")
    fits = [_fitted(options, source) for source in options.population]
    if len(fits) == 1:
        source = _source(options.population[0])
        path = write_report(fits[0], options.output, command=options.command_line, source=source)
    else:
        path = write_content(comparison_content(fits, command=options.command_line), options.output)
    ok = all(fit.convergence.ok for fit in fits)
    return _say(options, {"report": str(path), "content": f"{path}.json", "ok": ok}, str(path), *fits)


def _source(given: str) -> str | None:
    """Return what the population is loaded by, for commands to paste; None for a saved fit."""
    return None if Path(given).suffix == ".nc" else shlex.quote(given)


def _recommend(options: argparse.Namespace) -> int:
    from popstats.planning.recommend import frontier, recommend
    from popstats.population.files import read_table
    from popstats.words import AXIS_WORDS, percent

    asked = options.reduction is not None or options.drop is not None
    check_output(options.output, ".json", ".toml")
    if not asked:
        refuse_ignored(options, ("candidates", "output"), _NO_BUDGET)
    population = _population(options, options.population)
    if not asked:
        found, axis = frontier(population, axis=options.axis), options.axis or population.regime_axis
        table = found.to_string(index=False, float_format=lambda v: f"{v:.4g}")
        ends = " to ".join(percent(reduction) for reduction in found["reduction"].iloc[[0, -1]])
        text = f"{table}\nPredicted drops, points, from {ends} of the {AXIS_WORDS[axis]} removed."
        return _say(options, {"axis": axis, "frontier": found}, text)
    if (path := options.candidates) and not path.is_file():
        raise PopstatsError(f"--candidates: no such file: {path}")
    candidates = read_table(path)[0] if path else None
    asked_for = {"drop": options.drop, "axis": options.axis}
    recipe = recommend(population, options.reduction, **asked_for, candidates=candidates)
    if options.output:
        (recipe.to_toml if options.output.suffix == ".toml" else recipe.to_json)(options.output)
    table = recipe.frame.set_index("name").T.to_string(float_format=lambda v: f"{round(v, 2):,.12g}")
    value = {
        "axis": recipe.axis, "reduction": recipe.reduction, "recipes": recipe.frame,
        "gain": [recipe.gain, recipe.gain_lower, recipe.gain_upper],
        "note": recipe.note,
    }  # fmt: skip
    return _say(options, value, f"{recipe.sentence}\n{table}", saved=options.output)


def _refine(options: argparse.Namespace) -> int:
    from popstats.planning.refine import refine

    check_output(options.output, ".toml")
    fit = _fitted(options, options.population)
    space = refine(fit, regime=_regime(options.regime), by=options.by)
    if options.output:
        space.to_toml(options.output)
    return _say(options, vars(space), repr(space)[1:-1], fit, saved=options.output)


def _regime(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _plan_size(options: argparse.Namespace) -> int:
    from popstats.planning.plan_size import plan_size

    asked = {"width": options.width, "noise": options.guess_noise, "rise": options.guess_rise}
    seed = options.seed or 0
    pilots: list[Fit] = []
    if options.population is None:
        idle = [*TABLE_OPTIONS, *(name for name in FIT_OPTIONS if name != "seed"), "regime"]
        refuse_ignored(options, idle, _GUESSED)
        plans, axis = [plan_size(**asked, seed=seed)], None
    else:
        pilot = _fitted(options, options.population)
        asked_for = options.regime or []
        regimes = [r.label for r in pilot.fitted] if asked_for == ["all"] else [_regime(r) for r in asked_for]
        plans = [plan_size(pilot, regime=r, **asked, seed=seed) for r in regimes or [None]]
        pilots, axis = [pilot], pilot.regime_axis
    targets = {r.label: r.target for pilot in pilots for r in pilot.fitted}
    found = [{**plan.to_dict(), "target": targets.get(plan.regime)} for plan in plans]
    text = "\n".join(plan.sentence for plan in plans)
    return _say(options, {"axis": axis, "plans": found}, text, *pilots)


def _compare(options: argparse.Namespace) -> int:
    from popstats.posterior.comparison import compare

    first, second = (_fitted(options, source) for source in options.population)
    found = compare(first, second)
    table = found.frame.to_string(index=False, float_format=lambda v: f"{v:.2f}")
    value = {"sentence": found.sentence, "difference": found.difference, "dse": found.dse}
    return _say(options, {**value, "fits": found.frame}, f"{table}\n{found.sentence}", first, second)


def _simulate(options: argparse.Namespace) -> int:
    from popstats.judgement.verdicts import Thresholds
    from popstats.population.simulate import simulate_population

    check_output(options.output, ".parquet")
    population = simulate_population(
        options.truth, regimes=options.regimes, n=options.n, rise=options.rise, noise=options.noise,
        seeds=options.seeds, seed=options.seed,
    )  # fmt: skip
    path, truth, lines = population.save(options.output), population.metadata["truth"], []
    for label, answer in truth["regimes"].items():  # What C3a should find there, by its own rule.
        lower, upper = answer["rise_lower"], answer["rise_upper"]
        found = answer["interior"] and min(lower, upper) > Thresholds().rise
        lines.append(
            f"regime {label}: {'optimal mCB' if found else 'no optimal mCB; lowest at'} {answer['mcb']:.3f}, drop "
            f"{answer['limit']:.2f} points; the range's ends lie {lower:.2f} and {upper:.2f} above it"
        )
    return _say(options, {"population": str(path), "truth": truth}, "\n".join([*lines, str(path)]))


def _calibrate(options: argparse.Namespace) -> int:
    from popstats.planning.error_rates import FULL, QUICK, calibrate

    check_output(options.output, ".json")
    size = QUICK if options.quick else FULL
    chosen = {name: value for name in ("method", "workers") if (value := getattr(options, name)) is not None}
    found = calibrate(size["settings"], size["repetitions"], seed=options.seed, **chosen)
    if options.output:
        found.to_json(options.output)
    shown = found.table.filter(regex=_SHOWN_RATES)
    text = f"{shown.to_string(index=False, float_format='{:.2f}'.format, na_rep='-')}\n{repr(found)[1:-1]}"
    return _say(options, found.table, text, saved=options.output)


def _population(options: argparse.Namespace, source: str) -> Population:
    from popstats.population.files import load_population

    settings: dict[str, Any] = {
        "columns": _pairs(options.column, "--column", "OURS=THEIRS, e.g. macs=flops"),
        "original": _original(options),
        "widths": [w for w in options.widths.split(",") if w],
        "only": _pairs(options.where, "--where", "COLUMN=VALUE, e.g. retraining=fine-tune"),
        "accuracy_kind": options.accuracy_kind,
        "name": options.name,
    }
    population = load_population(source, **{key: value for key, value in settings.items() if value})
    # The population's name says which rows --where keeps.
    kept = (f", {column} {text}" for column, text in settings["only"].items())
    return replace(population, name="".join([population.name, *kept]))


def _pairs(texts: list[str], option: str, expected: str) -> dict[str, str]:
    split = [text.partition("=") for text in texts]
    if wrong := [text for text, parts in zip(texts, split, strict=True) if not (parts[0] and parts[2])]:
        raise PopstatsError(f"{option}: expected {expected}, got {wrong[0]!r}")
    return {left: right for left, _, right in split}


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PopstatsError(f"{option}: expected a number after the =, got {text!r}") from error


def _original(options: argparse.Namespace) -> Any:
    from popstats.population.table import Original

    given = {name: getattr(options, f"original_{name}") for name in ("macs", "params", "accuracy")}
    absent = [f"--original-{name}" for name, value in given.items() if value is None]
    if len(absent) == len(given):
        return None
    if absent:
        raise PopstatsError(f"expected all three numbers of the original; missing: {', '.join(absent)}")
    return Original(**given)


def _fitted(options: argparse.Namespace, source: str) -> Fit:
    """Read a saved fit, or load the population and fit it."""
    from popstats.posterior.fit import Fit, fit

    if Path(source).suffix == ".nc":
        sources = [options.population] if isinstance(options.population, str) else options.population
        if all(Path(s).suffix == ".nc" for s in sources):
            # The simulations of a plan take the seed all the same.
            obeyed = ("seed",) if options.command == "plan-size" else ()
            idle = (name for name in (*TABLE_OPTIONS, *FIT_OPTIONS) if name not in obeyed)
            refuse_ignored(options, idle, f"{source} {_SAVED}")
        return Fit.load(source)
    # What is not given is left to popstats.fit, whose defaults the options' help repeats.
    given = {name: getattr(options, name) for name in FIT_OPTIONS}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    axis, seed = settings.pop("axis", None), settings.pop("seed", 0)
    progress = False if options.json else None
    return fit(_population(options, source), axis, progress=progress, random_seed=seed, **settings)


def _status(fit: Fit) -> int:
    if not fit.fitted:
        print(_why_nothing(fit), file=sys.stderr)
        return BAD_INPUT
    if fit.convergence.ok:
        return DONE
    print(f"The diagnostics reject the fit. {fit.convergence.sentence}", file=sys.stderr)
    return REJECTED


#: What runs each command, in the order of the help.
_COMMANDS: Mapping[str, Command] = {
    run.__name__[1:].replace("_", "-"): run
    for run in (
        _list, _check, _fit, _judge, _recommend, _report, _refine, _compare, _plan_size, _simulate, _calibrate,
    )
}  # fmt: skip


def _say(options: argparse.Namespace, value: Any, text: str, *fits: Fit, saved: Path | None = None) -> int:
    """Print a command's answer (JSON with --json) and where it was saved; return the exit status, that of its fits."""
    lines = text if saved is None else f"{text}\nSaved: {saved}"
    print(json.dumps(_plain(value), ensure_ascii=False) if options.json else lines)
    return max(map(_status, fits), default=DONE)


def _plain(value: Any) -> Any:
    """Return plain JSON values: NaN and infinite numbers become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict("records"))
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


if __name__ == "__main__":
    sys.exit(main())
