"""What a recipe costs, recovered from the table itself.

MACs and parameters of a pruned network are quadratic in the widths of its dependency groups (a layer costs
input channels times output channels). Given enough recipes, the form follows from the table exactly, and
widths that no recipe in the table has can be priced.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from popstats.arrays import FloatArray
from popstats.population.table import Population

#: Largest relative error on any recipe at which the recovered form counts as exact.
EXACT = 1e-4
#: Recipes that the form is solved from; it holds for the others too, or it is none.
SOLVED = 4000


@dataclass(frozen=True)
class CostForm:
    """Cost as a quadratic form in the widths."""

    matrix: FloatArray  # (G + 1, G + 1); Symmetric; cost = z' matrix z with z = (1, widths / unit).
    unit: FloatArray  # (G,); Widths are measured in these.

    def cost(self, widths: npt.ArrayLike) -> FloatArray:
        """Return the cost of recipes, shape (n, G) -> (n,)."""
        z = self._extended(widths)
        return np.asarray(((z @ self.matrix) * z).sum(axis=1))

    def log_width_slope(self, widths: npt.ArrayLike) -> FloatArray:
        """Return d cost / d log width at each recipe, shape (n, G) -> (n, G)."""
        z = self._extended(widths)
        return np.asarray(2.0 * (z @ self.matrix)[:, 1:] * z[:, 1:])

    def _extended(self, widths: npt.ArrayLike) -> FloatArray:
        relative = np.atleast_2d(np.asarray(widths, dtype=np.float64)) / self.unit
        return np.column_stack([np.ones(len(relative)), relative])


def recover_cost(population: Population, cost: str = "macs") -> CostForm | None:
    """Return the quadratic form behind a cost column; None without widths, with too few recipes, or if it misses any."""
    widths = population.widths
    if widths is None:
        return None
    rows, unit = np.unique(population.recipe, return_index=True)[1], widths.max(axis=0)
    z = np.column_stack([np.ones(rows.size), widths[rows] / unit])
    upper = np.triu_indices(z.shape[1])
    if rows.size < len(upper[0]):
        return None
    target = population.table[cost].to_numpy(dtype=np.float64)[rows]
    terms = z[:, upper[0]] * z[:, upper[1]]
    # Solved on some recipes, checked on all. At random: a table in the order of its widths must not be cut in step.
    some = np.sort(np.random.default_rng(0).permutation(rows.size)[:SOLVED])
    # Relative errors count, so every recipe is divided by its own cost.
    solution = np.linalg.lstsq(terms[some] / target[some, None], np.ones(some.size), rcond=None)[0]
    if np.abs(terms @ solution / target - 1.0).max() > EXACT:
        return None
    matrix = np.zeros((z.shape[1], z.shape[1]))
    matrix[upper] = solution / 2.0
    return CostForm(matrix + matrix.T, unit)


def cost_form(population: Population, cost: str = "macs") -> CostForm | None:
    """Return a cost as a form in the widths: the run's own where the table's metadata has it, else recovered."""
    stored = population.metadata.get("costs")
    if not stored or list(stored["groups"]) != list(population.group_names):
        return population.derived((__name__, cost), lambda: recover_cost(population, cost))
    matrix = np.asarray(stored[cost], dtype=np.float64)
    return CostForm((matrix + matrix.T) / 2.0, np.asarray(stored["steps"], dtype=np.float64))
