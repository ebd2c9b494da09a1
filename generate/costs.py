"""What a network costs and what pruning it can reach, on the command line: `python -m generate.costs NETWORK`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from generate.inputs.networks import build_network, parse_input_shape
from generate.population import reported
from generate.prune.cost_forms import CostModel, derive_costs, group_lines, named_groups
from generate.prune.groups import find_groups
from generate.recipes.feasible import FeasibleRange, feasible_range

MAP_REDUCTIONS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# Where it is not 3x224x224; the last stages of Inception do not fit smaller maps than its own.
USUAL_INPUTS = {"inception_v3": "3x299x299", "cifar": "3x32x32", "digits": "1x8x8"}


def _report(options: argparse.Namespace) -> int:
    """Print the costs of one network and the feasible map of MACs against parameters."""
    name, kind = options.network, options.network.partition("_")[0]
    usual = USUAL_INPUTS.get(name, USUAL_INPUTS.get(kind, "3x224x224"))
    shape = parse_input_shape(options.input or usual)
    classes = options.classes or (10 if kind in USUAL_INPUTS else 1000)
    network = build_network(name, classes=classes, input_shape=shape)
    costs = derive_costs(network, shape, find_groups(network, shape, options.keep))
    smallest = costs.macs(costs.steps)[0] / costs.original_macs
    reachable = [reduction for reduction in MAP_REDUCTIONS if 1 - reduction > smallest]
    found = [(reduction, feasible_range(costs, "macs", reduction)) for reduction in reachable]
    size = "x".join(map(str, shape))
    print(_as_json(name, size, costs, found) if options.json else _as_text(name, size, costs, found))
    return 0


def _as_json(name: str, size: str, costs: CostModel, found: Sequence[tuple[float, FeasibleRange]]) -> str:
    """Return everything as JSON; shares are fractions of the original's cost."""
    content = {
        "network": name,
        "input": size,
        "macs": costs.original_macs,
        "params": costs.original_params,
        "groups": named_groups(costs),
        "feasible": [
            {
                "macs_reduction": reduction,
                "macs": reached.macs[0],
                "params": list(reached.params),
                "mcb": [round(end, 6) for end in reached.mcb],
                "std": [round(end, 6) for end in reached.std],
            }
            for reduction, reached in found
        ],
    }
    return json.dumps(content, indent=2)


def _as_text(name: str, size: str, costs: CostModel, found: Sequence[tuple[float, FeasibleRange]]) -> str:
    """Return the report as lines for a terminal."""
    lines = [
        f"{name} on {size}: {costs.original_macs:,} MACs, {costs.original_params:,} parameters, {len(costs.groups)} "
        "groups that can be pruned.",
        "",
        "Shares are of the costs in which a group's filters are involved; a layer between two groups",
        "counts for both. Widths are multiples of the step.",
        "",
        *group_lines(costs),
        "",
        "What recipes can reach, by MACs removed:",
        "",
        "  removed    parameters left (share)         mCB             STD",
    ]
    for reduction, reached in found:
        low, high = (count / costs.original_params for count in reached.params)
        lines.append(
            f"{reduction:9.0%}    {low:7.2%} to {high:7.2%}     {reached.mcb[0]:6.3f} to {reached.mcb[1]:6.3f}    "
            f"{reached.std[0]:.3f} to {reached.std[1]:.3f}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 done, 2 bad input."""
    return reported(_report, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m generate.costs",
        description="Groups, exact MACs and parameters of a network, and what pruning it can reach.",
    )
    parser.add_argument(
        "network", metavar="NETWORK", help="cifar_resnet20, a torchvision name, module:factory"
    )
    parser.add_argument(
        "--input",
        metavar="CxHxW",
        help="size of one input (3x224x224; 3x32x32 for cifar_*, 1x8x8 for digits_*)",
    )
    parser.add_argument("--classes", type=int, help="number of classes (1000; 10 for cifar_* and digits_*)")
    parser.add_argument("--keep", action="append", default=[], metavar="LAYER", help="a layer to protect")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
