"""The command line: `python -m popstats COMMAND`."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popstats.errors import BAD_INPUT, PopstatsError

if TYPE_CHECKING:
    import pandas as pd

    from popstats.inference.fit import Fit
    from popstats.population import Population

__all__ = ["BAD_INPUT", "DONE", "REJECTED", "main"]

#: Exit statuses.
DONE, REJECTED = 0, 3

_DESCRIPTION = """\
Statistics for populations of pruned subnetworks: is there a best FLOPs-to-parameters ratio (mCB), where,
and does it matter?

A population is one original network and the subnetworks pruned from it: a shipped name (see `list`), a run
folder of generate, a .parquet or a .csv file with one row a training."""

_EXAMPLES = """\
examples:
  python -m popstats list
  python -m popstats report digits-resnet8 -o report.html
  python -m popstats report runs/mine -o report.html --method exact
  python -m popstats report table.csv -o report.html --column macs=flops \\
      --original-macs 211281920 --original-params 1804170 --original-accuracy 91.7
  python -m popstats fit table.parquet -o fit.nc && python -m popstats judge fit.nc
  python -m popstats refine runs/mine --regime 0.75 -o refined.toml   # then space = "refined:refined.toml"

exit status: 0 done; 2 bad input, or no regime could be fitted; 3 the fit was rejected by its own diagnostics
(its output is written all the same)"""


#: An argument of `popstats.fit`, as sentences of popstats write it.
_SETTING = re.compile(r"\b(noise|method|curve)='(\w+)'")
#: Above so many trainings, `fit` does not wait for the predictive checks.
_CHECKED_TRAININGS = 50_000

Command = Callable[[argparse.Namespace], int]
Parsers = list[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    options.command_line = f"python -m popstats {shlex.join(given)}"
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except PopstatsError as error:
        print(f"Error: {_as_options(error.on_command_line)}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing may be written to the pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT
    return status


def _as_options(sentence: str) -> str:
    """Return a sentence that names arguments of `popstats.fit` with the options of the command line instead."""
    return _SETTING.sub(r"--\1 \2", sentence)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m popstats",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    json_only, table, fitting = _json_options(), _table_options(), _fit_options()
    both = [json_only, table, fitting]

    def command(name: str, run: Command, text: str, parents: Parsers) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=parents
        )
        made.set_defaults(run=run)
        return made

    command("list", _list, "name the shipped populations", [json_only])
    check = command(
        "check", _check, "read a table, check every value, and say what is in it", [json_only, table]
    )
    fit = command("fit", _fit, "fit the curves and print the best mCB of every regime", both)
    judge = command("judge", _judge, "judge the conjectures", both)
    report = command("report", _report, "write the report, one HTML file that opens offline", both)
    refine = command("refine", _refine, "propose the recipe space for the next run of generate", both)
    compare = command("compare", _compare, "compare how well two models predict (PSIS-LOO)", both)
    plan_size = command("plan-size", _plan_size, "plan how many recipes and seeds a regime needs", both)
    simulate = command("simulate", _simulate, "make a population whose truth is known", [json_only])
    calibrate = command(
        "calibrate", _calibrate, "measure the verdicts' error rates on simulated truths", [json_only, table]
    )

    what = "shipped name, run folder, .parquet or .csv"
    check.add_argument("population", metavar="POP", help=what)
    for made in (fit, judge, refine):
        made.add_argument("population", metavar="POP", help=f"{what}, or a fit that `fit -o` saved (.nc)")
    report.add_argument(
        "population", metavar="POP", nargs="+", help=f"{what}, or a saved fit (.nc); two or more are compared"
    )
    plan_size.add_argument(
        "population",
        metavar="POP",
        nargs="?",
        help=f"a pilot: {what}, or a fit that `fit -o` saved (.nc); without one a guess is planned with",
    )
    _planning_options(plan_size)
    compare.add_argument(
        "population", metavar="FIT", nargs=2, help="two fits of the same table, saved by `fit -o` (.nc)"
    )
    fit.add_argument("-o", "--output", type=Path, metavar="FILE.nc", help="save the fit")
    report.add_argument(
        "-o", "--output", type=Path, metavar="FILE.html", required=True, help="where the page goes"
    )
    refine.add_argument("-o", "--output", type=Path, metavar="FILE.toml", help="save the space for a plan")
    refine.add_argument("--regime", required=True, metavar="R", help="the regime's centre, e.g. 0.75")
    refine.add_argument(
        "--by", choices=("mcb", "widths"), default="mcb", help="what bounds the space (default: mcb)"
    )
    _simulate_options(simulate)
    _calibrate_options(calibrate)
    return parser


def _json_options() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", action="store_true", help="print JSON, for machines")
    return parent


def _table_options() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("tables made elsewhere")
    group.add_argument(
        "--original-macs", type=int, metavar="N", help="the original network's multiply-accumulates"
    )
    group.add_argument("--original-params", type=int, metavar="N", help="... its parameters")
    group.add_argument("--original-accuracy", type=float, metavar="PERCENT", help="... its test accuracy")
    group.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="a column's name in the table, e.g. macs=flops (repeat)",
    )
    group.add_argument(
        "--widths", default="", metavar="A,B,...", help="columns that hold the layer groups' widths"
    )
    group.add_argument(
        "--accuracy-kind",
        choices=("last", "best_test", "best_val", "unknown"),
        help="which epoch's accuracy the table holds",
    )
    group.add_argument("--name", help="the population's name")
    parent.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="only these rows, e.g. retraining=fine-tune (repeat)",
    )
    return parent  # fmt: skip


def _fit_options() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("fit")
    group.add_argument(
        "--axis",
        choices=("macs", "params"),
        help="the reduction that defines a regime (default: the plan's, else macs)",
    )
    group.add_argument(
        "--regimes",
        type=_fractions,
        metavar="R,R,...",
        help="centres, e.g. 0.5,0.7 (default: the plan's, else ten-point bins)",
    )
    group.add_argument(
        "--method",
        choices=("nuts", "exact"),
        default="nuts",
        help="nuts: regimes learn from each other; exact: under a second (default: nuts)",
    )
    group.add_argument(
        "--noise",
        default="normal",
        metavar="KIND",
        help="distribution about the curve: normal, student or frontier (default: normal)",
    )
    group.add_argument(
        "--curve",
        default="smooth",
        metavar="SHAPE",
        help="smooth; or quadratic or asymmetric, companions that are fitted and compared but never judged",
    )
    group.add_argument("--seed", type=int, default=0, help="same seed, same draws (default: 0)")
    return parent  # fmt: skip


def _planning_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--regime",
        action="append",
        metavar="R",
        help="a regime's centre (repeat), or all; default: the one known worst",
    )
    parser.add_argument(
        "--width", type=float, default=0.2, metavar="MCB",
        help="both ends of the near-optimal range shall have 90 %% intervals narrower than this (default: 0.2)",
    )  # fmt: skip
    parser.add_argument("--guess-noise", type=float, metavar="POINTS", help="of a guess: spread of trainings")
    parser.add_argument(
        "--guess-rise", type=float, metavar="POINTS", help="of a guess: height of the curve's ends"
    )


def _simulate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--truth",
        default="quadratic",
        help="name of the true curve (default: quadratic); a wrong one lists them",
    )
    parser.add_argument(
        "--regimes",
        type=_fractions,
        default=[0.5, 0.7, 0.85],
        metavar="R,R,...",
        help="centres (default: 0.5,0.7,0.85)",
    )
    parser.add_argument("--n", type=int, default=100, help="networks a regime (default: 100)")
    parser.add_argument(
        "--rise",
        type=float,
        default=0.4,
        metavar="POINTS",
        help="height of the curve at the range's ends (default: 0.4)",
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.15,
        metavar="POINTS",
        help="standard deviation about it (default: 0.15)",
    )
    parser.add_argument("--seeds", type=int, default=1, help="trainings a network (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same population (default: 0)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.parquet", required=True, help="where")


def _calibrate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a few truths, 30 regimes each (under a minute)")
    parser.add_argument(
        "--method", choices=("exact", "nuts"), default="exact", help="of the fits (default: exact)"
    )
    parser.add_argument(
        "--plasmode",
        metavar="TABLE",
        help="judge subsamples of a large real table against the whole instead of simulated truths",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same table (default: 0)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.json", help="save the table, for the reports"
    )


def _fractions(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected fractions such as 0.5,0.7, got {text!r}") from error


def _list(options: argparse.Namespace) -> int:
    from popstats.population import populations

    names = populations()
    _say(options, names, "\n".join(names) or "No population is shipped with this installation.")
    return DONE


def _check(options: argparse.Namespace) -> int:
    population = _population(options, options.population)
    counts = population.frame["regime"].value_counts().sort_index()
    found = {
        "population": population.name,
        "trainings": len(population),
        "networks": int(population.recipe.max()) + 1,
        "failed": len(population.failed),
        "regimes": {str(label): int(n) for label, n in counts.items()},
        "mcb": [float(v) for v in population.frame["mcb"].quantile([0.0, 1.0])],
        "groups": list(population.group_names),
        "notes": list(population.notes),
    }
    lines = [repr(population)[1:-1], *(f"regime {label}: {n:,} trainings" for label, n in counts.items())]
    _say(options, found, "\n".join([*lines, *(f"Note: {note}" for note in population.notes)]))
    return DONE


def _fit(options: argparse.Namespace) -> int:
    fit = _fitted(options, options.population)
    if not fit.fitted:
        raise PopstatsError(_why_nothing(fit))
    if options.output:
        fit.save(options.output)
    optima, alerts = fit.optima(), _alerts(fit)
    found = {
        "population": fit.population.name,
        "ok": fit.convergence.ok,
        "reasons": list(fit.convergence.reasons),
        "alerts": alerts,
        "seconds": fit.seconds,
        "optima": optima.to_dict("records"),
    }
    saved = f"\nSaved: {options.output}" if options.output else ""
    _say(options, found, f"{repr(fit)[1:-1]}\n\n{_optima_text(optima)}{_alerts_text(alerts)}{saved}")
    return _status(fit)


def _why_nothing(fit: Fit) -> str:
    """Say why no regime was fitted: what was asked for, what the table holds, what to do."""
    import numpy as np

    from popstats.inference.cross_products import MINIMUM_RECIPES

    population, axis = fit.population, fit.regime_axis
    counts, edges = np.histogram(population.frame[f"{axis}_reduction"], bins=10, range=(0.0, 1.0))
    held = ", ".join(
        f"{low:.0%} to {low + 0.1:.0%}: {n:,}" for n, low in zip(counts, edges[:-1], strict=True) if n
    )
    asked = ", ".join(f"{r.target:g} ({r.n:,} trainings: {r.reason})" for r in fit.regimes)
    return (
        f"{population.name}: no regime could be fitted. Asked for (--regimes, on the {axis} axis): {asked}. "
        f"The table's {len(population):,} trainings by {axis} reduction: {held}. Ask for regimes with at least "
        f"{MINIMUM_RECIPES} recipes of different mCB, or add recipes"
    )


def _alerts(fit: Fit) -> list[str] | None:
    """Return what the predictive checks found, in options' words; None where they are not made here."""
    if fit.settings.curve != "smooth" or sum(r.n for r in fit.fitted) > _CHECKED_TRAININGS:
        return None
    return [_as_options(alert) for alert in fit.predictive_checks.alerts]


def _alerts_text(alerts: list[str] | None) -> str:
    if alerts is None:
        return "\nPredictive checks: not made here; the report makes them"
    if not alerts:
        return ""
    count = f"{len(alerts)} alert{'s' * (len(alerts) > 1)}"
    listed = "".join(f"\n  {alert}" for alert in alerts)
    return f"\n{count} of the predictive checks (fit.predictive_checks.alerts):{listed}"


def _optima_text(optima: pd.DataFrame) -> str:
    """Return the optima as a table: mCB and points, intervals 90 %."""
    import pandas as pd

    from popstats.report.words import interval_words, regime_name, with_interval

    table = pd.DataFrame({
        "removed": [regime_name(r) for r in optima["regime"]],
        "trainings": optima["n"],
        "near-optimal mCB": [interval_words(*v) for v in optima[["near_lower", "near_upper"]].to_numpy()],
        "lowest at mCB (90 %)": [with_interval(*v) for v in optima[["mcb", "mcb_lower", "mcb_upper"]].to_numpy()],
        "drop, points (90 %)": [with_interval(*v) for v in optima[["limit", "limit_lower", "limit_upper"]].to_numpy()],
        "": optima["reason"],
    })  # fmt: skip
    return str(table.to_string(index=False))


def _judge(options: argparse.Namespace) -> int:
    from popstats.judgement.conjectures import judge

    fit = _fitted(options, options.population)
    verdicts = judge(fit)
    lines = [f"{v.conjecture:<4} {v.regime:<6} {v.outcome:<15} {v.sentence}" for v in verdicts]
    _say(options, verdicts.to_records(), "\n".join(lines))
    return _status(fit)


def _report(options: argparse.Namespace) -> int:
    from popstats.report.page import write_comparison, write_report

    fits = [_fitted(options, source) for source in options.population]
    if len(fits) == 1:
        path = write_report(fits[0], options.output, command=options.command_line)
    else:
        path = write_comparison(fits, options.output, command=options.command_line)
    ok = all(fit.convergence.ok for fit in fits)
    _say(options, {"report": str(path), "content": f"{path}.json", "ok": ok}, str(path))
    return max(_status(fit) for fit in fits)


def _refine(options: argparse.Namespace) -> int:
    from popstats.judgement.refine import refine

    fit = _fitted(options, options.population)
    space = refine(fit, regime=_regime(options.regime), by=options.by)
    if options.output:
        space.to_toml(options.output)
    _say(
        options,
        vars(space),
        f"{repr(space)[1:-1]}{f'{chr(10)}Saved: {options.output}' if options.output else ''}",
    )
    return _status(fit)


def _regime(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _plan_size(options: argparse.Namespace) -> int:
    from popstats.inference.planning import plan_size

    asked = {"width": options.width, "noise": options.guess_noise, "rise": options.guess_rise}
    if options.population is None:
        plans, axis, status = [plan_size(**asked, seed=options.seed)], None, DONE
    else:
        pilot = _fitted(options, options.population)
        asked_for = options.regime or []
        regimes = [r.label for r in pilot.fitted] if asked_for == ["all"] else [_regime(r) for r in asked_for]
        plans = [plan_size(pilot, regime=r, **asked, seed=options.seed) for r in regimes or [None]]
        axis, status = pilot.regime_axis, _status(pilot)
    _say(
        options,
        {"axis": axis, "plans": [plan.to_dict() for plan in plans]},
        "\n".join(plan.sentence for plan in plans),
    )
    return status


def _compare(options: argparse.Namespace) -> int:
    from popstats.inference.comparison import compare

    first, second = (_fitted(options, source) for source in options.population)
    found = compare(first, second)
    table = found.frame.to_string(index=False, float_format=lambda v: f"{v:.2f}")
    value = {"sentence": found.sentence, "difference": found.difference, "difference_se": found.difference_se}
    _say(options, {**value, "fits": found.frame}, f"{table}\n{found.sentence}")
    return max(_status(first), _status(second))


def _simulate(options: argparse.Namespace) -> int:
    from popstats.simulate import simulate_population

    population = simulate_population(
        options.truth, regimes=options.regimes, n=options.n, rise=options.rise, noise=options.noise,
        seeds=options.seeds, seed=options.seed,
    )  # fmt: skip
    path = population.save(options.output)
    truth = population.metadata["truth"]
    lines = [
        f"regime {label}: best mCB {answer['mcb']:.3f}, drop {answer['limit']:.2f} points"
        for label, answer in truth["regimes"].items()
    ]
    _say(options, {"population": str(path), "truth": truth}, "\n".join([*lines, str(path)]))
    return DONE


def _calibrate(options: argparse.Namespace) -> int:
    from popstats.judgement.calibration import FULL, QUICK, calibrate

    if options.plasmode is not None:
        return _judge_subsamples(options)
    size = QUICK if options.quick else FULL
    found = calibrate(size["settings"], size["repetitions"], options.method, options.seed, options.workers)
    if options.output:
        found.to_json(options.output)
    shown = [
        "truth",
        "n",
        "rise",
        "regimes",
        "coverage_mcb",
        "coverage_limit",
        "supported",
        "refuted",
        "false_supported",
        "false_refuted",
    ]
    text = found.table[shown].to_string(index=False, float_format=lambda v: f"{v:.2f}", na_rep="-")
    methods = f"\n{_compared_methods(options.seed)}" if options.quick and not options.json else ""
    _say(options, found.table.to_dict("records"), f"{text}\n{repr(found)[1:-1]}{methods}")
    return DONE


def _compared_methods(seed: int) -> str:
    from popstats.judgement.calibration import compare_methods

    found = compare_methods(seed=seed)
    return f"exact and nuts give the same verdict in {found['agree'].sum()} of {len(found)} regimes"


def _judge_subsamples(options: argparse.Namespace) -> int:
    from popstats.judgement.plasmode import judge_subsamples

    found = judge_subsamples(_population(options, options.plasmode), seed=options.seed)
    if options.output:
        found.to_json(options.output)
    text = found.table.to_string(index=False, float_format=lambda v: f"{v:.2f}")
    _say(options, found.table.to_dict("records"), f"{text}\n{repr(found)[1:-1]}")
    return DONE


def _population(options: argparse.Namespace, source: str) -> Population:
    from popstats.population import load_population

    settings: dict[str, Any] = {"columns": _columns(options.column), "original": _original(options)}
    settings |= {
        "widths": [w for w in options.widths.split(",") if w],
        "accuracy_kind": options.accuracy_kind,
        "name": options.name,
    }
    population = load_population(source, **{key: value for key, value in settings.items() if value})
    return _chosen(population, options.where)


def _chosen(population: Population, conditions: list[str]) -> Population:
    """Keep the rows that --where asks for, and say in the population's name which they are."""
    from pandas.api.types import is_numeric_dtype

    for column, text in _pairs(conditions, "--where", "COLUMN=VALUE, e.g. retraining=fine-tune").items():
        numbers = column in population.frame and is_numeric_dtype(population.frame[column])
        chosen = population.where(**{column: _number(text) if numbers else text})
        population = replace(chosen, name=f"{population.name}, {column} {text}")
    return population


def _columns(pairs: list[str]) -> dict[str, str]:
    return _pairs(pairs, "--column", "OURS=THEIRS, e.g. macs=flops")


def _pairs(texts: list[str], option: str, expected: str) -> dict[str, str]:
    split = [text.partition("=") for text in texts]
    if wrong := [text for text, parts in zip(texts, split, strict=True) if not (parts[0] and parts[2])]:
        raise PopstatsError(f"{option}: expected {expected}, got {wrong[0]!r}")
    return {left: right for left, _, right in split}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PopstatsError(f"--where: expected a number for a column of numbers, got {text!r}") from error


def _original(options: argparse.Namespace) -> Any:
    from popstats.population import Original

    given = {name: getattr(options, f"original_{name}") for name in ("macs", "params", "accuracy")}
    absent = [f"--original-{name}" for name, value in given.items() if value is None]
    if len(absent) == len(given):
        return None
    if absent:
        raise PopstatsError(
            f"expected all three numbers of the original network; missing: {', '.join(absent)}"
        )
    return Original(**given)


def _fitted(options: argparse.Namespace, source: str) -> Fit:
    """Read a saved fit, or load the population and fit it."""
    from popstats.inference.fit import Fit, fit

    if Path(source).suffix == ".nc":
        return Fit.load(source)
    population = _population(options, source)
    return fit(
        population,
        options.axis,
        options.regimes,
        curve=options.curve,
        method=options.method,
        noise=options.noise,
        seed=options.seed,
        progress=False if options.json else None,
    )


def _status(fit: Fit) -> int:
    if not fit.fitted:
        print(_why_nothing(fit), file=sys.stderr)
        return BAD_INPUT
    if fit.convergence.ok:
        return DONE
    print(f"The fit's own diagnostics reject it: {'; '.join(fit.convergence.reasons)}", file=sys.stderr)
    return REJECTED


def _say(options: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(_plain(value), ensure_ascii=False) if options.json else text)


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
