"""The command line's options: what each command takes, and the help that teaches it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from popstats.errors import PopstatsError

Command = Callable[[argparse.Namespace], int]
#: What argparse is told of each option, by its flag; without dashes, an argument by position.
Options = Mapping[str, Mapping[str, Any]]

_DESCRIPTION = """\
Statistics for populations of pruned subnetworks: is there an optimal
FLOPs-to-parameters ratio (mCB), where is it, and does it matter?

A population is one original network and the subnetworks pruned from it: a
shipped name (see `list`), a run folder of generate, or a table with
one row per training (.csv, .parquet, .xlsx, .jsonl, ..., compressed or not)."""

_EXAMPLES = """\
examples:
  python -m popstats list
  python -m popstats check runs/mine
  python -m popstats judge digits-resnet8 --noise student
  python -m popstats report runs/mine -o report.html
  python -m popstats recommend runs/mine --reduction 0.8 -o recipe.json
  python -m popstats report table.csv -o report.html --column macs=flops \\
      --original-macs 211281920 --original-params 1804170 \\
      --original-accuracy 91.7
  python -m popstats fit table.parquet -o fit.nc
  python -m popstats judge fit.nc
  python -m popstats refine runs/mine --regime 0.75 -o refined.toml
      # then, in the next plan: space = "refined:refined.toml"

exit status: 0 done; 2 bad input, or no regime could be fitted; 3 the fit was
rejected by its own diagnostics (output is still written)"""


def _option(text: str, metavar: str | None = None, **more: Any) -> Mapping[str, Any]:
    return {"help": text, "metavar": metavar, **more}


def _number(text: str, metavar: str = "POINTS", default: float | None = None) -> Mapping[str, Any]:
    shown = "" if default is None else f" (default: {default:g})"
    return _option(f"{text}{shown}", metavar, type=float, default=default)


def _choice(text: str, *choices: str, default: str | None = None) -> Mapping[str, Any]:
    return _option(text, choices=choices, default=default)


def _repeated(text: str, metavar: str) -> Mapping[str, Any]:
    return _option(f"{text} (repeat)", metavar, action="append", default=[])


def _file(text: str, metavar: str = "FILE", **more: Any) -> Mapping[str, Any]:
    return _option(text, metavar, type=Path, **more)


def _fractions(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected fractions such as 0.5,0.7, got {text!r}") from error


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)


_POPULATION = "shipped name, run folder, or table (.csv, .parquet, .xlsx, .jsonl, ...)"
_A_TABLE = {"population": _option(_POPULATION, "POP")}
_A_FIT = {"population": _option(f"{_POPULATION}, or a fit that `fit -o` saved (.nc)", "POP")}
_AXES = ("macs", "params")

_TABLE: Options = {
    "--original-macs": _number("the original network's multiply-accumulates, in the table's unit", "N"),
    "--original-params": _number("the original network's parameters", "N"),
    "--original-accuracy": _number("the original network's test accuracy", "PERCENT"),
    "--column": _repeated("a column's name in the table, e.g. macs=flops", "OURS=THEIRS"),
    "--widths": _option("columns that hold the layer groups' widths", "A,B,...", default=""),
    "--accuracy-kind": _option(
        "which accuracy the table holds: last (test images, last epoch), best_test, last_val, best_val or unknown",
        "KIND",
    ),
    "--name": _option("the population's name"),
    "--where": _repeated("only these rows, e.g. retraining=fine-tune", "COLUMN=VALUE"),
}
_FIT: Options = {
    "--axis": _choice("the reduction that defines a regime (default: the plan's, else macs)", *_AXES),
    "--regimes": _option(
        "centres, e.g. 0.5,0.7 (default: the plan's, else cells of a factor of 1.25 in remaining cost)",
        "R,R,...",
        type=_fractions,
    ),
    "--method": _choice(
        "exact: closed form, under a second; nuts: the same model sampled by PyMC (default: exact)",
        "exact",
        "nuts",
    ),
    "--noise": _option(
        "distribution about the curve: normal; student where a few networks collapse; or exgaussian, "
        "where the curve is the attainable drop (default: normal)",
        "KIND",
    ),
    "--curve": _option(
        "smooth (default); quadratic and asymmetric are fitted for comparison and never judged",
        "SHAPE",
    ),
    "--seed": _option("same seed, same draws (default: 0)", type=_seed),
}
#: Options that say how a table is read, and how it is fitted; a saved fit has its own answers to all of them.
TABLE_OPTIONS, FIT_OPTIONS = (tuple(f[2:].replace("-", "_") for f in held) for held in (_TABLE, _FIT))


@dataclass(frozen=True)
class _Usage:
    """What a command is for and what it takes."""

    line: str  # in the list of commands
    more: str = ""  # that its own help adds
    own: Options = field(default_factory=dict)
    shared: tuple[tuple[str, Options], ...] = ()  # title and options of each group


_READS = (("tables made elsewhere", _TABLE),)
_FITS = (*_READS, ("fit", _FIT))

_USAGES: Mapping[str, _Usage] = {
    "list": _Usage("name the shipped populations"),
    "check": _Usage(
        "read a table, check every value, and say what is in it",
        "Nothing is fitted. An invalid table is rejected with what was expected, what\n"
        "was found, in which rows, and what to do.",
        _A_TABLE,
        _READS,
    ),
    "fit": _Usage(
        "fit the curves and print the optimal mCB of every regime",
        "One line per pruning regime: whether there is an optimal mCB (C3a), the mCB\n"
        "values whose expected drop is within 0.05 points of the minimum, where the\n"
        "minimum is, and the drop there. Intervals are 90 %. Choose recipes by the\n"
        "near-optimal range, and only where C3a is supported.",
        {**_A_FIT, "--output": _file("save the fit", "FILE.nc")},
        _FITS,
    ),
    "judge": _Usage(
        "judge the conjectures",
        "Each conjecture in each regime gets one of four words: supported, refuted,\n"
        "undecided, or not assessable (with the reason).\n\n"
        "  C1   at a given MACs reduction there is an optimal parameter bucket\n"
        "  C2   at a given parameter reduction there is an optimal MACs count\n"
        "  C3a  there is an optimal mCB: both ends of the observed range are worse by\n"
        "       more than 0.1 points\n"
        "  C3b  winning subnetworks lie near it\n"
        "  C3c  it is practically the original's: mCB = 1 costs under 0.1 points\n"
        "  C3d  it rises with more aggressive pruning (over all regimes)\n"
        "  C4   the limit of accuracy is predictable from it (over all regimes)\n"
        "  S1   spaces whose layers are pruned evenly beat uneven ones\n"
        "  R1   the retraining technique does not move the optimum\n"
        "  M1   mCB explains something that the layer widths do not; read it with C3a",
        {
            **_A_FIT,
            "--threshold": _repeated("a threshold, e.g. rise=0.2; an unknown name lists them", "NAME=VALUE"),
        },
        _FITS,
    ),
    "recommend": _Usage(
        "recommend the widths to keep for a budget",
        "The recipe with the smallest drop predicted by the width law, compared with\n"
        "uniform pruning, with 90 % intervals: for a budget (--reduction 0.8), or for the\n"
        "largest reduction whose drop is at most this many points with probability 0.95\n"
        "(--drop 1). With neither, the predicted drops over all supported reductions.",
        {
            **_A_TABLE,
            "--reduction": _number("share of the cost to remove, e.g. 0.8", "R"),
            "--drop": _number("tolerated drop in accuracy points, e.g. 1"),
            "--axis": _choice("what the budget limits (default: the plan's axis, else macs)", *_AXES),
            "--candidates": _file(
                "recipes to choose from, .csv or .parquet: one column per group, macs, params"
            ),
            "--output": _file("save the recipe: .json, or .toml for a plan's space"),
        },
        _READS,
    ),
    "report": _Usage(
        "write the report, one HTML file that opens offline",
        "It opens with what to do and the main figure, followed by the best networks,\n"
        "every verdict and the rest. Two or more populations are compared side by side.\n"
        "FILE.html.json holds the same content for machines. FILE.pdf is printed with an\n"
        "installed Chromium.",
        {
            "population": _option(
                f"{_POPULATION}, or a saved fit (.nc); two or more are compared", "POP", nargs="+"
            ),
            "--output": _file("FILE.html, or FILE.pdf", required=True),
        },
        _FITS,
    ),
    "refine": _Usage(
        "propose the recipe space for the next run of generate",
        "By mCB: the near-optimal range (and low STD, where that is supported). By\n"
        "widths: a band for each group, where the table has widths. Either way, the\n"
        "expected gain over as many recipes of the whole space is stated. A plan reads\n"
        'the file: space = "refined:FILE.toml".',
        {
            **_A_FIT,
            "--output": _file("save the space for a plan", "FILE.toml"),
            "--regime": _option("the regime's centre, e.g. 0.75", "R", required=True),
            "--by": _choice("what bounds the space (default: mcb)", "mcb", "widths", default="mcb"),
        },
        _FITS,
    ),
    "compare": _Usage(
        "compare how well two models predict (PSIS-LOO)",
        "Two fits of the same table, which differ in noise, curve or method:\n\n"
        "  python -m popstats fit mine.parquet -o normal.nc\n"
        "  python -m popstats fit mine.parquet --noise student -o student.nc\n"
        "  python -m popstats compare normal.nc student.nc",
        {"population": _option("two fits of the same table, saved by `fit -o` (.nc)", "FIT", nargs=2)},
        _FITS,
    ),
    "plan-size": _Usage(
        "plan how many recipes and seeds a regime needs",
        "By simulation from a pilot population's fit, or from a guess of noise and rise.",
        {
            "population": _option(
                f"a pilot: {_POPULATION}, or a fit that `fit -o` saved (.nc); without one the plan is made "
                "from a guess",
                "POP",
                nargs="?",
            ),
            "--regime": _option(
                "a regime's centre (repeat), or all; default: the one with the widest interval",
                "R",
                action="append",
            ),
            "--width": _number("target width of the 90 %% intervals at both ends", "MCB", 0.2),
            "--guess-noise": _number("guessed standard deviation of trainings about the curve"),
            "--guess-rise": _number("guessed rise of the curve at the ends of the range"),
        },
        _FITS,
    ),
    "simulate": _Usage(
        "make a population whose truth is known",
        "To try things out: fit it, and compare the result with the printed truth.",
        {
            "--truth": _option(
                "name of the true curve (default: quadratic); an unknown name lists them", default="quadratic"
            ),
            "--regimes": _option(
                "centres (default: 0.5,0.7,0.85)", "R,R,...", type=_fractions, default=[0.5, 0.7, 0.85]
            ),
            "--n": _option("recipes per regime (default: 100)", type=int, default=100),
            "--rise": _number("height of the curve at the range's ends", default=0.4),
            "--noise": _number("standard deviation about it", default=0.15),
            "--seeds": _option("trainings per recipe (default: 1)", type=int, default=1),
            "--seed": _option("same seed, same population (default: 0)", type=_seed, default=0),
            "--output": _file("the table", "FILE.parquet", required=True),
        },
    ),
    "calibrate": _Usage(
        "measure the verdicts' error rates on simulated truths",
        'False "supported", false "refuted", coverage of the intervals, and power against\n'
        "the number of recipes. The full table takes about eight minutes with\n"
        "--workers 2, --quick under a minute.",
        {
            "--quick": {"action": "store_true", "help": "a few truths, 30 regimes each (under a minute)"},
            "--method": _choice("method of the fits (default: exact)", "exact", "nuts"),
            "--workers": _option("processes (default: 1)", "N", type=int),
            "--seed": _option("same seed, same table (default: 0)", type=_seed, default=0),
            "--output": _file("save the table", "FILE.json"),
        },
    ),
}


def command_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Return the parser of `python -m popstats`."""
    parser = argparse.ArgumentParser(
        prog="python -m popstats",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, run in commands.items():
        usage = _USAGES[name]
        more = f"\n\n{usage.more}" if usage.more else ""
        own = made.add_parser(
            name,
            help=usage.line,
            description=f"{usage.line[0].upper()}{usage.line[1:]}.{more}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.set_defaults(run=run)
        _add(own, {"--json": {"action": "store_true", "help": "print JSON, for machines"}, **usage.own})
        for title, options in usage.shared:
            _add(own.add_argument_group(title), options)
    return parser


def _add(parser: argparse.ArgumentParser | argparse._ArgumentGroup, options: Options) -> None:
    for flag, settings in options.items():
        parser.add_argument(*(("-o", flag) if flag == "--output" else (flag,)), **settings)


def refuse_ignored(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raise PopstatsError where options are given that would change nothing."""
    # 0 is a value.
    given = [n for n in names if (v := getattr(options, n)) not in (None, "", []) and v is not False]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        reason, _, remedy = why.partition(". ")
        raise PopstatsError(f"{reason}; {named} would change nothing. {remedy}")


def check_output(path: Path | None, *endings: str) -> None:
    """Raise PopstatsError before any work is done for a file that could not be written in the end."""
    if path is None:
        return
    from popstats.population.table import folder_for

    if path.is_dir():
        raise PopstatsError(
            f"-o: expected a file, e.g. {path / ('name' + endings[0])}, got {path}, which is a folder"
        )
    if path.suffix.lower() not in endings:
        wanted = " or ".join(endings)
        raise PopstatsError(
            f"-o: expected a name that ends in {wanted}, e.g. {path.with_suffix(endings[0])}, got {path}"
        )
    folder = folder_for(path)
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise PopstatsError(f"-o: no permission to write {path}; write elsewhere")
