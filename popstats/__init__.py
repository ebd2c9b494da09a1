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
    "Population": "popstats.population",
    "Original": "popstats.population",
    "load_population": "popstats.population",
    "populations": "popstats.population",
    "simulate_population": "popstats.simulate",
    "fit": "popstats.inference.fit",
    "Fit": "popstats.inference.fit",
    "compare": "popstats.inference.comparison",
    "plan_size": "popstats.inference.planning",
    "width_law": "popstats.inference.width_law",
    "judge": "popstats.judgement.conjectures",
    "Verdicts": "popstats.judgement.verdicts",
    "prior_claims": "popstats.judgement.prior_claims",
    "refine": "popstats.judgement.refine",
    "RefinedSpace": "popstats.judgement.refine",
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
    "RefinedSpace",
    "Verdicts",
    "compare",
    "fit",
    "judge",
    "load_population",
    "plan_size",
    "populations",
    "prior_claims",
    "refine",
    "simulate_population",
    "width_law",
    "write_report",
]

if TYPE_CHECKING:
    from popstats.errors import ConvergenceError, FitError, PlanError, PopstatsError, PopulationError
    from popstats.inference.comparison import compare
    from popstats.inference.fit import Fit, fit
    from popstats.inference.planning import plan_size
    from popstats.inference.width_law import width_law
    from popstats.judgement.conjectures import judge
    from popstats.judgement.prior_claims import prior_claims
    from popstats.judgement.refine import RefinedSpace, refine
    from popstats.judgement.verdicts import Verdicts
    from popstats.population import Original, Population, load_population, populations
    from popstats.report.page import write_report
    from popstats.simulate import simulate_population


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'popstats' has no attribute {name!r}; it offers: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
