"""generate: makes populations of filter-pruned subnetworks, and cuts your own network.

`python -m generate.population` is the command; see ARCHITECTURE.md for the stations between a plan and a table. The names
here are for your own pruning scripts; they are loaded when they are first used.
"""

from importlib import import_module
from typing import Any

__all__ = ["cut", "derive_costs", "find_groups", "load_subnetwork"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'generate' has no attribute {name!r}")
    return getattr(import_module("generate.prune.public"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
