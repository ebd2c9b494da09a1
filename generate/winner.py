"""The command that searches for the best recipe on a budget: `python -m generate.winner [PLAN.toml] --reduction 0.9`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generate.plan import BASELINES, DEFAULT_PLAN, Plan, SearchPlan, plan_from_dict, read_plan
from generate.population import (
    RUNS,
    add_run_options,
    called_python,
    chosen_device,
    guarded,
    number,
    show_status,
)
from popstats.errors import PlanError, PopstatsError

if TYPE_CHECKING:
    import torch

# Share of the test images that no choice is made by.
STATEMENT_SHARE = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 complete, 2 bad input or an error, 3 stopped before the end."""
    options = _parser().parse_args(arguments)
    return guarded(_run, options, lambda: options.out or RUNS / _search_plan(options, None, None).name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m generate.winner",
        description="Search for the best recipe on a budget, and measure its gain over uniform pruning and "
        "Torch-Pruning with fresh seeds on held-out images. Rerun the command to resume.",
    )
    parser.add_argument(
        "plan", nargs="?", type=Path, metavar="PLAN.toml", help="network, images, retraining; default: digits"
    )
    parser.add_argument(
        "--reduction",
        type=number(float, lambda share: 0 < share < 1, "a share between 0 and 1 (0.9 removes nine tenths)"),
        metavar="SHARE",
        help="share of the cost to remove, such as 0.9",
    )
    parser.add_argument(
        "--axis", choices=("macs", "params"), default="macs", help="which cost; default: macs"
    )
    parser.add_argument("--trainings", type=int, default=64, metavar="N", help="in the search; default: 64")
    parser.add_argument(
        "--confirm", type=int, default=8, metavar="N", help="fresh seeds per confirmed recipe; default: 8"
    )
    parser.add_argument(
        "--baseline",
        choices=BASELINES[2:],
        action="append",
        default=[],
        help="a further baseline besides torch-pruning and uniform; may be given twice",
    )
    parser.add_argument(
        "--pilot", type=Path, metavar="RUN", help="run folder of the same original network to learn from"
    )
    parser.add_argument("--network", metavar="MODULE:FACTORY", help="the network to prune, instead of a plan")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="its trained weights, a .safetensors file"
    )
    parser.add_argument(
        "--images", metavar="SET", help="its images: image-folder:PATH, module:factory, cifar10, ..."
    )
    add_run_options(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    from generate.run.folder import RunFolder

    # The search that the folder holds, to be continued.
    present = None if options.out is None else RunFolder(options.out).read_plan()
    if present is not None and present.search is None:
        raise PlanError(f"--out: {options.out} holds a population, not a search. Choose another folder.")
    device = None if options.status else chosen_device(options.device)
    plan = _search_plan(options, present, device)
    path = options.out or RUNS / plan.name
    if device is None:
        return show_status(path, options.workers)
    pilot = _read_pilot(plan) if present is None else None
    if options.dry_run:
        from generate.run.dry_run import print_dry_run

        return print_dry_run(plan, device, options.workers, 0 if pilot is None else len(pilot[1]))
    from generate.run.prepare import worker_context
    from generate.run.winner_page import hand_over
    from generate.workers.executor import fill

    if pilot is not None:
        folder = RunFolder(path)
        folder.create()
        folder.write_part("pilot.json", {"widths": pilot[0], "outcomes": pilot[1]})
    if (status := fill(plan, path, device, options)) != 0:
        return status
    hand_over(RunFolder(path), worker_context(RunFolder(path), device), called_python())
    return 0


def _search_plan(options: argparse.Namespace, present: Plan | None, device: torch.device | None) -> Plan:
    """Return the plan of the search: the folder's or the file's own, or what the options ask for."""
    if present is not None and options.reduction is None:
        return present
    base = _base_plan(options)
    if options.reduction is None:
        if base.search is None or options.network is not None:
            raise PlanError("--reduction is missing: the share of the cost to remove, such as 0.9.")
        return base
    from generate.train.device import default_workers

    # The number of trainings at a time, where it is known.
    draws = options.workers or (
        default_workers(device) if device is not None and options.executor == "local" else None
    )
    technique = next(iter(sorted(base.techniques)), "fine-tune")
    search = SearchPlan(
        reduction=options.reduction,
        axis=options.axis,
        trainings=options.trainings,
        confirm=options.confirm,
        baselines=(*BASELINES[:2], *dict.fromkeys(options.baseline)),
        technique="fine-tune" if "fine-tune" in base.retraining else technique,
        draws=draws if present is None or present.search is None else present.search.draws,
        pilot=None if options.pilot is None else str(options.pilot.resolve()),
    )
    table = base.as_dict() | {"recipes": [], "search": vars(search), "keep_weights": "none"}
    table["name"] = f"{base.name}-{options.axis}-{options.reduction:g}"
    table["images"]["statement"] = STATEMENT_SHARE
    if options.pilot is not None:
        table["original"]["source"] = str((options.pilot / "original" / "weights.safetensors").resolve())
    return plan_from_dict(table, where="the search")


def _base_plan(options: argparse.Namespace) -> Plan:
    """Return what is pruned, on which images and how it is retrained."""
    if options.network is None:
        if options.weights is not None or options.images is not None:
            raise PlanError("--weights and --images belong to --network; a plan names its own.")
        if options.plan is None and options.pilot is not None:
            return _pilot_plan(options.pilot)
        return read_plan(options.plan or DEFAULT_PLAN)
    if options.plan is not None:
        raise PlanError("--network: expected either a plan or --network, got both.")
    table: dict[str, Any] = {
        "name": options.network.rpartition(":")[2],
        "network": {"name": options.network},
        "images": {"name": options.images or "digits"},
        "search": {"reduction": options.reduction or 0.5},
    }
    if options.weights is not None:
        table["original"] = {"source": str(options.weights.resolve())}
    return plan_from_dict(table, where="--network")


def _pilot_plan(path: Path) -> Plan:
    from generate.run.folder import RunFolder

    try:
        return RunFolder(path).prepared()[0]
    except PopstatsError as error:
        raise PlanError(f"--pilot: {error}") from error


def _read_pilot(plan: Plan) -> tuple[list[list[int]], list[float]] | None:
    """Return widths and outcomes of the population that a search begins with."""
    from generate.run.folder import RunFolder
    from generate.run.rounds import outcome_of

    if plan.search is None or plan.search.pilot is None:
        return None
    path = Path(plan.search.pilot)
    given = _pilot_plan(path)
    if (given.network, given.images.name) != (plan.network, plan.images.name):
        raise PlanError(
            f"--pilot: {path} is a population of {given.network.name} on {given.images.name}, not of "
            f"{plan.network.name} on {plan.images.name}."
        )
    rows = [row for row in RunFolder(path).read_rows() if row["status"] == "done"]
    if not rows:
        raise PlanError(f"--pilot: {path} has no finished training yet.")
    # One level for all: a population may mix techniques, of which the largest part counts.
    techniques = [row["retraining"] for row in rows]
    usual = max(sorted(set(techniques)), key=techniques.count)
    rows = [row for row in rows if row["retraining"] == usual]
    return [row["widths"] for row in rows], [outcome_of(row) for row in rows]


if __name__ == "__main__":
    sys.exit(main())
