"""popstats: Bayesian statistics for populations of pruned subnetworks.

>>> import popstats
>>> "fit" in dir(popstats)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module. Resolved on first use, so that `import popstats` takes milliseconds and
# `generate`, which needs only the column declarations, never loads PyMC.
_NAMES = {
    "population.table": "Original Population",
    "population.files": "load_population populations",
    "population.simulate": "simulate_population",
    "posterior.fit": "Fit fit",
    "inference.pymc_model": "pymc_model",
    "posterior.comparison": "check compare",
    "planning.plan_size": "plan_size",
    "planning.law": "width_law",
    "judgement.judge": "judge",
    "judgement.summary": "summarize",
    "judgement.verdicts": "Verdicts",
    "planning.recommend": "Recommendation frontier recommend",
    "planning.refine": "RefinedSpace refine",
    "plots": "plot_drop plot_edf plot_explained plot_frontier plot_limits plot_near_optimal plot_width_law",
    "report.page": "write_report",
    "errors": "ConvergenceError FitError PlanError PopstatsError PopulationError",
}
_HOMES = {name: f"popstats.{module}" for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "ConvergenceError", "Fit", "FitError", "Original", "PlanError", "PopstatsError", "Population",
    "PopulationError", "Recommendation", "RefinedSpace", "Verdicts", "check", "compare", "fit", "frontier", "judge",
    "load_population", "plan_size", "plot_drop", "plot_edf", "plot_explained", "plot_frontier",
    "plot_limits", "plot_near_optimal", "plot_width_law", "populations", "pymc_model",
    "recommend", "refine", "simulate_population", "summarize", "width_law", "write_report",
]  # fmt: skip

if TYPE_CHECKING:
    from popstats.errors import ConvergenceError, FitError, PlanError, PopstatsError, PopulationError
    from popstats.inference.pymc_model import pymc_model
    from popstats.judgement.judge import judge
    from popstats.judgement.summary import summarize
    from popstats.judgement.verdicts import Verdicts
    from popstats.planning.law import width_law
    from popstats.planning.plan_size import plan_size
    from popstats.planning.recommend import Recommendation, frontier, recommend
    from popstats.planning.refine import RefinedSpace, refine
    from popstats.plots import (
        plot_drop,
        plot_edf,
        plot_explained,
        plot_frontier,
        plot_limits,
        plot_near_optimal,
        plot_width_law,
    )
    from popstats.population.files import load_population, populations
    from popstats.population.simulate import simulate_population
    from popstats.population.table import Original, Population
    from popstats.posterior.comparison import check, compare
    from popstats.posterior.fit import Fit, fit
    from popstats.report.page import write_report


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'popstats' has no attribute {name!r}; it offers: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
