"""The command line's options: what each command takes, and the help that teaches it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from popstats.errors import PopstatsError

Command = Callable[[argparse.Namespace], int]
Parsers = list[argparse.ArgumentParser]

_DESCRIPTION = """\
Statistics for populations of pruned subnetworks: is there a best
FLOPs-to-parameters ratio (mCB), where, and does it matter?

A population is one original network and the subnetworks pruned from it: a
shipped name (see `list`), a run folder of generate, or a table with
one row per training (.csv, .parquet, .xlsx, .jsonl, ..., packed or not)."""

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
rejected by its own diagnostics (its output is written all the same)"""

_POPULATION = "shipped name, run folder, or table (.csv, .parquet, .xlsx, .jsonl, ...)"

#: Command -> a line for the list of commands, and what its own help adds.
_HELP = {
    "list": ("name the shipped populations", ""),
    "check": (
        "read a table, check every value, and say what is in it",
        "Nothing is fitted. A table that does not fit is rejected with what was\n"
        "expected, what was found, in which rows, and what to do.",
    ),
    "fit": (
        "fit the curves and print the best mCB of every regime",
        "One line per pruning regime: whether there is a best mCB (C3a), the mCB values\n"
        "whose expected drop is within 0.05 points of the lowest, where it is lowest,\n"
        "and how low. Intervals are 90 %. Choose recipes by the near-optimal range, and\n"
        "only where the best mCB is supported.",
    ),
    "judge": (
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
        "  M1   mCB explains something that the layer widths do not; read it together with C3a",
    ),
    "recommend": (
        "say which widths to keep at a budget",
        "The recipe that the width law predicts best, beside uniform pruning, with 90 %\n"
        "intervals: for a budget (--reduction 0.8), or for the largest reduction whose\n"
        "drop is at most this many points with probability 0.95 (--drop 1). With neither,\n"
        "the predicted drops over all supported reductions.",
    ),
    "report": (
        "write the report, one HTML file that opens offline",
        "What to do first, then the main figure, the best networks, every verdict and\n"
        "the rest. Two or more populations are compared side by side. FILE.html.json\n"
        "holds the same for machines. A FILE.pdf is printed with an installed Chromium.",
    ),
    "refine": (
        "propose the recipe space for the next run of generate",
        "By mCB: the near-optimal range (and low STD, where that is supported). By\n"
        "widths: a band for each group, where the table has widths. Either says what it\n"
        "is expected to gain over as many recipes of the whole space. A plan reads the\n"
        "file: space = \"refined:FILE.toml\".",
    ),
    "compare": (
        "compare how well two models predict (PSIS-LOO)",
        "Two fits of the same table, which differ in noise, curve or method:\n\n"
        "  python -m popstats fit mine.parquet -o normal.nc\n"
        "  python -m popstats fit mine.parquet --noise student -o student.nc\n"
        "  python -m popstats compare normal.nc student.nc",
    ),
    "plan-size": (
        "plan how many recipes and seeds a regime needs",
        "By simulation from a pilot population's fit, or from a guess of noise and rise.",
    ),
    "simulate": (
        "make a population whose truth is known",
        "For trying things out: fit it, and compare with the truth that is printed here.",
    ),
    "calibrate": (
        "measure the verdicts' error rates on simulated truths",
        "False \"supported\", false \"refuted\", coverage of the intervals, and power against\n"
        "the number of recipes. The full table takes about eight minutes with\n"
        "--workers 2, --quick under a minute.",
    ),
}  # fmt: skip


def command_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Return the parser of `python -m popstats`."""
    parser = argparse.ArgumentParser(
        prog="python -m popstats",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    json_only, table, fitting = _json_options(), _table_options(), _fit_options()
    parents = {name: [json_only, table, fitting] for name in commands}
    parents |= {"list": [json_only], "simulate": [json_only]}
    parents |= {name: [json_only, table] for name in ("check", "recommend", "calibrate")}
    for name, run in commands.items():
        line, more = _HELP[name]
        own = made.add_parser(
            name,
            help=line,
            description=f"{line[0].upper()}{line[1:]}.{f'{chr(10)}{chr(10)}{more}' if more else ''}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=parents[name],
        )
        own.set_defaults(run=run)
        _OWN_OPTIONS[name](own)
    return parser


def refuse_ignored(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raise PopstatsError where options are given that would change nothing."""
    given = [name for name in names if _is_given(getattr(options, name))]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        reason, _, remedy = why.partition(". ")
        raise PopstatsError(f"{reason}; {named} would change nothing. {remedy}")


def _is_given(value: object) -> bool:
    """Return whether a user gave this option; 0 is a value."""
    return not (value is None or value is False or value in ("", []))


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


def _json_options() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", action="store_true", help="print JSON, for machines")
    return parent


def _table_options() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("tables made elsewhere")
    group.add_argument(
        "--original-macs",
        type=float,
        metavar="N",
        help="the original network's multiply-accumulates, in the table's unit",
    )
    group.add_argument("--original-params", type=float, metavar="N", help="... its parameters")
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
        metavar="KIND",
        help="which accuracy the table holds: last (test images, last epoch), best_test, last_val, best_val or unknown",
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
        help="centres, e.g. 0.5,0.7 (default: the plan's, else cells of a factor of 1.25 in remaining cost)",
    )
    group.add_argument(
        "--method",
        choices=("exact", "nuts"),
        help="exact: closed form, under a second; nuts: the same model sampled by PyMC (default: exact)",
    )
    group.add_argument(
        "--noise",
        metavar="KIND",
        help="distribution about the curve: normal; student where a few networks collapse; or exgaussian, "
        "the curve as what is attainable (default: normal)",
    )
    group.add_argument(
        "--curve",
        metavar="SHAPE",
        help="smooth; or quadratic or asymmetric, companions that are fitted and compared but never judged",
    )
    group.add_argument("--seed", type=_seed, help="same seed, same draws (default: 0)")
    return parent  # fmt: skip


#: Options that say how a table is read, and how it is fitted; a saved fit has its own answers to all of them.
TABLE_OPTIONS = (
    "original_macs",
    "original_params",
    "original_accuracy",
    "column",
    "widths",
    "accuracy_kind",
    "name",
    "where",
)
FIT_OPTIONS = ("axis", "regimes", "method", "noise", "curve", "seed")


def _no_options(parser: argparse.ArgumentParser) -> None:
    """Take nothing but what all commands take."""


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("population", metavar="POP", help=_POPULATION)


def _one_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "population", metavar="POP", help=f"{_POPULATION}, or a fit that `fit -o` saved (.nc)"
    )


def _fitting_options(parser: argparse.ArgumentParser) -> None:
    _one_fit(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.nc", help="save the fit")


def _judge_options(parser: argparse.ArgumentParser) -> None:
    _one_fit(parser)
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another threshold, e.g. rise=0.2 (repeat); a wrong name lists them",
    )


def _recommend_options(parser: argparse.ArgumentParser) -> None:
    _check_options(parser)
    parser.add_argument("--reduction", type=float, metavar="R", help="share of the cost to remove, e.g. 0.8")
    parser.add_argument(
        "--drop", type=float, metavar="POINTS", help="tolerated drop in accuracy points, e.g. 1"
    )
    parser.add_argument(
        "--axis",
        choices=("macs", "params"),
        help="what the budget limits (default: the plan's axis, else macs)",
    )
    parser.add_argument(
        "--candidates",
        type=Path,
        metavar="FILE",
        help="recipes to choose from, .csv or .parquet: groups, macs, params",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="save the recipe: .json, or .toml for a plan's space",
    )


def _report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "population",
        metavar="POP",
        nargs="+",
        help=f"{_POPULATION}, or a saved fit (.nc); two or more are compared",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", required=True, help="FILE.html, or FILE.pdf"
    )


def _refine_options(parser: argparse.ArgumentParser) -> None:
    _one_fit(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.toml", help="save the space for a plan")
    parser.add_argument("--regime", required=True, metavar="R", help="the regime's centre, e.g. 0.75")
    parser.add_argument(
        "--by", choices=("mcb", "widths"), default="mcb", help="what bounds the space (default: mcb)"
    )


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "population", metavar="FIT", nargs=2, help="two fits of the same table, saved by `fit -o` (.nc)"
    )


def _planning_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "population",
        metavar="POP",
        nargs="?",
        help=f"a pilot: {_POPULATION}, or a fit that `fit -o` saved (.nc); without one the plan is made from a guess",
    )
    parser.add_argument(
        "--regime",
        action="append",
        metavar="R",
        help="a regime's centre (repeat), or all; default: the one with the widest interval",
    )
    parser.add_argument(
        "--width", type=float, default=0.2, metavar="MCB",
        help="target width of the 90 %% intervals at both ends (default: 0.2)",
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
    parser.add_argument("--n", type=int, default=100, help="recipes per regime (default: 100)")
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
    parser.add_argument("--seeds", type=int, default=1, help="trainings per recipe (default: 1)")
    parser.add_argument("--seed", type=_seed, default=0, help="same seed, same population (default: 0)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.parquet", required=True, help="where")


def _calibrate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a few truths, 30 regimes each (under a minute)")
    parser.add_argument("--method", choices=("exact", "nuts"), help="of the fits (default: exact)")
    parser.add_argument(
        "--plasmode",
        metavar="TABLE",
        help="judge subsamples of a large real table against the whole instead of simulated truths",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: 1)")
    parser.add_argument("--seed", type=_seed, default=0, help="same seed, same table (default: 0)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="save the table")


_OWN_OPTIONS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "list": _no_options,
    "check": _check_options,
    "fit": _fitting_options,
    "judge": _judge_options,
    "recommend": _recommend_options,
    "report": _report_options,
    "refine": _refine_options,
    "compare": _compare_options,
    "plan-size": _planning_options,
    "simulate": _simulate_options,
    "calibrate": _calibrate_options,
}


def _fractions(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected fractions such as 0.5,0.7, got {text!r}") from error


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)
