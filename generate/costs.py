"""What a network costs and what pruning it can reach, on the command line: `python -m generate.costs NETWORK`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from generate.inputs.networks import build_network, parse_input_shape
from generate.prune.cost_forms import CostModel, derive_costs, group_lines, named_groups
from generate.prune.groups import find_groups
from generate.recipes.feasible import FeasibleRange, feasible_range
from popstats.errors import BAD_INPUT, PopstatsError

MAP_REDUCTIONS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# Where it is not 3x224x224; the last stages of Inception do not fit smaller maps than its own.
USUAL_INPUTS = {"inception_v3": "3x299x299", "cifar": "3x32x32", "digits": "1x8x8"}


@dataclass(frozen=True)
class CostReport:
    """The costs of one network and the feasible map of MACs against parameters."""

    network: str  # Name, as `generate.inputs.networks.build_network` takes it.
    input_shape: tuple[int, int, int]  # Channels, height and width of one input.
    costs: CostModel  # Exact costs.
    # For MACs reductions that can be reached: what recipes there reach.
    feasible: tuple[tuple[float, FeasibleRange], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable values; shares are fractions of the original's cost."""
        return {
            "network": self.network,
            "input": "x".join(map(str, self.input_shape)),
            "macs": self.costs.original_macs,
            "params": self.costs.original_params,
            "groups": named_groups(self.costs),
            "feasible": [
                {
                    "macs_reduction": reduction,
                    "macs": found.macs[0],
                    "params": list(found.params),
                    "mcb": [round(end, 6) for end in found.mcb],
                    "std": [round(end, 6) for end in found.std],
                }
                for reduction, found in self.feasible
            ],
        }

    def as_text(self) -> str:
        """Return the report as lines for a terminal."""
        costs = self.costs
        lines = [
            f"{self.network} on {'x'.join(map(str, self.input_shape))}: {costs.original_macs:,} MACs, "
            f"{costs.original_params:,} parameters, {len(costs.groups)} groups that can be pruned.",
            "",
            "Shares are of the costs in which a group's filters are involved; a layer between two groups",
            "counts for both. Widths are multiples of the step.",
            "",
            *group_lines(costs),
            "",
            "What recipes of a MACs reduction can reach:",
            "",
            "MACs less    parameters left (share)         mCB             STD",
        ]
        for reduction, found in self.feasible:
            low, high = (count / costs.original_params for count in found.params)
            lines.append(
                f"{reduction:9.0%}    {low:7.2%} to {high:7.2%}     {found.mcb[0]:6.3f} to {found.mcb[1]:6.3f}    "
                f"{found.std[0]:.3f} to {found.std[1]:.3f}"
            )
        return "\n".join(lines)


def cost_report(
    name: str, *, input_shape: tuple[int, int, int], classes: int, keep: Sequence[str] = ()
) -> CostReport:
    """Return the report on a network by name."""
    network = build_network(name, classes=classes, input_shape=input_shape)
    costs = derive_costs(network, input_shape, find_groups(network, input_shape, keep))
    smallest = costs.macs(costs.steps)[0] / costs.original_macs
    reachable = [reduction for reduction in MAP_REDUCTIONS if 1 - reduction > smallest]
    found = tuple((reduction, feasible_range(costs, "macs", reduction)) for reduction in reachable)
    return CostReport(name, input_shape, costs, found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 done, 2 bad input."""
    options = _parser().parse_args(arguments)
    kind = options.network.partition("_")[0]
    usual = USUAL_INPUTS.get(options.network, USUAL_INPUTS.get(kind, "3x224x224"))
    classes = options.classes or (10 if kind in USUAL_INPUTS else 1000)
    try:
        shape = parse_input_shape(options.input or usual)
        report = cost_report(options.network, input_shape=shape, classes=classes, keep=options.keep)
    except PopstatsError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT
    print(json.dumps(report.as_dict(), indent=2) if options.json else report.as_text())
    return 0


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
