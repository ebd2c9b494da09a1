"""The file of a refined space, which `popstats.refine` writes and the space ``refined:FILE`` reads.

By mean computation budget::

    [refined]
    axis = "macs"            # macs, params or both
    target = 0.5             # reduction
    kind = "mcb"
    mcb = [0.9, 1.2]         # mean computation budget, not its logarithm
    std = [0.05, 0.25]       # optional

By widths::

    [refined]
    axis = "macs"
    target = 0.5
    kind = "widths"

    [refined.widths]         # kept fraction of each group; groups that are not named are free
    "layer1.0.conv1" = [0.4, 0.7]

Other keys and tables are notes for people: they are kept out of the space.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from popstats.errors import PlanError

Band = tuple[float, float]


@dataclass(frozen=True)
class RefinedSpec:
    """A refined space as read from its file."""

    axis: str | None = None  # Axis of the regime it was refined for.
    target: float | None = None  # Reduction of that regime.
    mcb: Band | None = None  # Band of the mean computation budget.
    std: Band | None = None  # Band of the STD.
    widths: Mapping[str, Band] = field(default_factory=dict)  # Band of the kept fraction, by group name.

    def check_regime(self, axis: str, target: float, where: str) -> None:
        """Refuse a regime that the space was not refined for."""
        same_target = self.target is None or math.isclose(self.target, target, abs_tol=1e-6)
        if not same_target or self.axis not in (None, axis):
            raise PlanError(
                f"{where}: refined for a reduction of {self.target} on the axis {self.axis}, got {target} on {axis}. "
                "Plan the regime of the file, or refine again."
            )

    def bands(self, names: Sequence[str], where: str) -> tuple[Band, ...] | None:
        """Return the bands of kept fractions in the order of `names`; None where none is set."""
        if unknown := [name for name in self.widths if name not in names]:
            raise PlanError(
                f"{where}: [refined.widths] names {', '.join(unknown)}; the network's groups are {', '.join(names)}."
            )
        return tuple(self.widths.get(name, (0.0, 1.0)) for name in names) if self.widths else None


def read_refined(path: str) -> RefinedSpec:
    """Return the refined space in the TOML file at `path`."""
    where = f"space refined:{path}"
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{where}: expected a TOML file as `popstats.refine` writes it; {error}.") from error
    table = content.get("refined")
    if not isinstance(table, dict):
        raise PlanError(f"{where}: expected a table [refined], got {', '.join(content) or 'an empty file'}.")
    kind, target = table.get("kind", "widths" if "widths" in table else "mcb"), table.get("target")
    if not isinstance(table.get(kind), {"mcb": list, "widths": dict}.get(str(kind), ())):
        raise PlanError(
            f"{where}: expected kind mcb or widths, which needs `mcb` or [refined.widths]; got {kind!r}."
        )
    if target is not None and not (isinstance(target, int | float) and 0 < target < 1):
        raise PlanError(f"{where}: target: expected a reduction between 0 and 1, got {target!r}.")
    std = _band(table["std"], f"{where}: std", 0, 1) if "std" in table else None
    mcb = _band(table["mcb"], f"{where}: mcb", 0, math.inf) if kind == "mcb" else None
    widths = table["widths"] if kind == "widths" else {}
    bands = {name: _band(band, f"{where}: widths: {name}", 0, 1) for name, band in widths.items()}
    return RefinedSpec(table.get("axis"), target, mcb, std, bands)


def _band(value: object, where: str, lowest: float, highest: float) -> Band:
    numbers = value if isinstance(value, list) else []
    if len(numbers) == 2 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        low, high = float(numbers[0]), float(numbers[1])
        if lowest <= low < high <= highest and high > 0:
            return low, high
    raise PlanError(
        f"{where}: expected [low, high] with {lowest:g} <= low < high <= {highest:g}, got {value!r}."
    )
