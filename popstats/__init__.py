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
_HOMES = {
    "Population": "popstats.population.table",
    "Original": "popstats.population.table",
    "load_population": "popstats.population.files",
    "populations": "popstats.population.files",
    "simulate_population": "popstats.population.simulate",
    "fit": "popstats.posterior.fit",
    "Fit": "popstats.posterior.fit",
    "pymc_model": "popstats.inference.pymc_model",
    "compare": "popstats.posterior.comparison",
    "plan_size": "popstats.planning.plan_size",
    "width_law": "popstats.planning.law",
    "judge": "popstats.judgement.judge",
    "Verdicts": "popstats.judgement.verdicts",
    "recommend": "popstats.planning.recommend",
    "Recommendation": "popstats.planning.recommend",
    "frontier": "popstats.planning.recommend",
    "refine": "popstats.planning.refine",
    "RefinedSpace": "popstats.planning.refine",
    "plot_drop": "popstats.plots",
    "plot_edf": "popstats.plots",
    "plot_explained": "popstats.plots",
    "plot_frontier": "popstats.plots",
    "plot_limits": "popstats.plots",
    "plot_near_optimal": "popstats.plots",
    "plot_width_law": "popstats.plots",
    "write_report": "popstats.report.page",
    "PopstatsError": "popstats.errors",
    "PopulationError": "popstats.errors",
    "PlanError": "popstats.errors",
    "ConvergenceError": "popstats.errors",
    "FitError": "popstats.errors",
}

__all__ = [
    "ConvergenceError",
    "Fit",
    "FitError",
    "Original",
    "PlanError",
    "PopstatsError",
    "Population",
    "PopulationError",
    "Recommendation",
    "RefinedSpace",
    "Verdicts",
    "compare",
    "fit",
    "frontier",
    "judge",
    "load_population",
    "plan_size",
    "plot_drop",
    "plot_edf",
    "plot_explained",
    "plot_frontier",
    "plot_limits",
    "plot_near_optimal",
    "plot_width_law",
    "populations",
    "pymc_model",
    "recommend",
    "refine",
    "simulate_population",
    "width_law",
    "write_report",
]

if TYPE_CHECKING:
    from popstats.errors import ConvergenceError, FitError, PlanError, PopstatsError, PopulationError
    from popstats.inference.pymc_model import pymc_model
    from popstats.judgement.judge import judge
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
    from popstats.posterior.comparison import compare
    from popstats.posterior.fit import Fit, fit
    from popstats.report.page import write_report


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'popstats' has no attribute {name!r}; it offers: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
