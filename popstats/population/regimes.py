"""Where each subnetwork stands in its pruning space: reductions, parameter buckets, mCB, regimes.

Pure functions on arrays and frames; the formulas are those of He et al. (arXiv:2304.09453), with the
conventions of the column declarations (MACs, fractions of the original).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import PopulationError

Axis = Literal["macs", "params"]
#: Regimes as a user gives them: centres (fractions removed), or centre -> half-width; None: the plan's, or cells.
Given = Sequence[float] | Mapping[float, float] | None


#: Default width of a parameter bucket, as a fraction of the original's parameters.
BUCKET_WIDTH = 0.02
#: Regimes that are cut where a table names none: cells in which the remaining cost falls by this factor ...
BIN_RATIO = 1.25
#: ... of which two neighbours are joined only where both hold fewer rows than this.
BIN_ROWS = 60
#: Half-width of given regimes, where their neighbours leave room: five points of reduction.
WIDEST_HALF = 0.05
#: Decimals to which targets are compared: equal ones are one regime ...
SAME_TARGET = 6
#: ... and to which they are named (targets are written with two or three).
TARGET_DIGITS = 4


def reduction(cost: npt.ArrayLike, original: npt.ArrayLike) -> FloatArray:
    """Return 1 - cost / original, the fraction removed."""
    return 1.0 - np.asarray(cost, dtype=np.float64) / np.asarray(original, dtype=np.float64)


def log_cost_offset(reduction: npt.ArrayLike, target: npt.ArrayLike) -> FloatArray:
    """Return log((1 - reduction) / (1 - target)): where a recipe's cost lies inside its regime."""
    kept = 1.0 - np.asarray(reduction, dtype=np.float64)
    return np.asarray(np.log(kept / (1.0 - np.asarray(target, dtype=np.float64))))


def parameter_bucket(
    params: npt.ArrayLike, original_params: npt.ArrayLike, width: float | None = BUCKET_WIDTH
) -> FloatArray:
    """Return the parameter count rounded to the centre of its bucket."""
    count = np.asarray(params, dtype=np.float64)
    if width is None:
        return count
    if not 0.0 < width <= 1.0:
        raise PopulationError(f"bucket width: expected a fraction of the original in (0, 1], got {width!r}")
    size = width * np.asarray(original_params, dtype=np.float64)
    # The original itself belongs to the topmost bucket, not to an empty one above it.
    index = np.minimum(np.floor(count / size), np.ceil(1.0 / width) - 1.0)
    centre: FloatArray = (index + 0.5) * size
    return centre


def mean_computation_budget(
    macs: npt.ArrayLike,
    params: npt.ArrayLike,
    original_macs: npt.ArrayLike,
    original_params: npt.ArrayLike,
    bucket_width: float | None = None,
) -> FloatArray:
    """Return mCB, the FLOPs-to-parameter-bucket ratio relative to the original network's; exact parameters by default."""
    # 1 means the original's ratio; above 1 the subnetwork spends more MACs per parameter than the original
    # (it lost parameters faster than MACs), below 1 fewer.
    bucket = parameter_bucket(params, original_params, bucket_width)
    macs_kept = np.asarray(macs, dtype=np.float64) / np.asarray(original_macs, dtype=np.float64)
    return macs_kept / (bucket / np.asarray(original_params, dtype=np.float64))


@dataclass(frozen=True)
class Regimes:
    """Which pruning regime each row belongs to."""

    axis: Axis  # The reduction that a regime fixes.
    targets: FloatArray  # (K,); Centres of the regimes, fractions of the original removed, ascending.
    index: npt.NDArray[np.int64]  # (n,); Regime of each row; -1 where the row belongs to none.
    source: str  # "plan", "bins" or "given": where the regimes came from.

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the regimes: their centres, e.g. "0.45"; all different."""
        labels = tuple(regime_label(t) for t in self.targets)
        return labels if len(set(labels)) == len(labels) else tuple(f"{t:.12g}" for t in self.targets)


def regime_label(target: float) -> str:
    """Return a regime's name: its centre with as many decimals as it needs, at least two; 1 / 3 is "0.3333"."""
    # Close to 1 a digit more of the reduction is a digit of what remains.
    tolerance = 10.0**-TARGET_DIGITS / 2.0 * min(1.0, 10.0 * (1.0 - target))
    decimals = next((d for d in range(2, 12) if abs(round(target, d) - target) < tolerance), 12)
    return f"{target:.{decimals}f}"


def assign_regimes(frame: pd.DataFrame, axis: Axis, regimes: Given = None) -> Regimes:
    """Assign each row to a pruning regime: the given ones, else the plan's, else cells that are equal in log cost."""
    # regimes: centres, half-widths being half the distance to the nearest neighbour, at most 0.05; or {centre: half-width}
    if axis not in ("macs", "params"):
        raise PopulationError(f"regime_axis: expected 'macs' or 'params', got {axis!r}")
    reductions = frame[f"{axis}_reduction"].to_numpy()
    given = _given(axis, reductions, regimes) if regimes is not None else None
    found = given or _from_plan(frame, axis) or _bins(axis, reductions)
    if not (found.index >= 0).any():
        low, high = float(reductions.min()), float(reductions.max())
        raise PopulationError(
            f"no subnetwork falls into the regimes {found.targets.tolist()} on the {axis} axis; "
            f"the population's {axis} reductions run from {low:.3f} to {high:.3f}"
        )
    return found


def _from_plan(frame: pd.DataFrame, axis: Axis) -> Regimes | None:
    """Take the plan's targets, where every row has one; networks drawn on the other axis belong to none on this one."""
    needed = ["regime_axis", "regime_target"]
    if not set(needed) <= set(frame) or frame[needed].isna().any(axis=None):
        return None
    on_axis = frame["regime_axis"].isin([axis, "both"]).to_numpy(dtype=bool)
    if not on_axis.any():
        return None
    index = np.full(len(frame), -1, dtype=np.int64)
    targets = frame["regime_target"].to_numpy(dtype=np.float64)[on_axis].round(SAME_TARGET)
    centres, index[on_axis] = np.unique(targets, return_inverse=True)
    return Regimes(axis, centres, index, "plan")


def _bins(axis: Axis, reductions: FloatArray) -> Regimes:
    """Cut cells that are equal in the log of the remaining cost; rows a little above the original are in the first."""
    step = np.log(BIN_RATIO)
    # The smallest share that rounding can leave under an edge belongs to the cell that starts there.
    cell = np.maximum(np.floor(-np.log1p(-reductions) / step + 1e-9), 0.0).astype(np.int64)
    rows = np.bincount(cell)
    centres: list[float] = []
    regime_of, joined = np.zeros(rows.size, dtype=np.int64), False
    for k in np.flatnonzero(rows):
        joined = bool(k and rows[k - 1] and not joined and max(rows[k - 1], rows[k]) < BIN_ROWS)
        if joined:
            centres[-1] = _centre(k * step)
        else:
            centres.append(_centre((k + 0.5) * step))
        regime_of[k] = len(centres) - 1
    return Regimes(axis, np.array(centres), regime_of[cell], "bins")


def _centre(log_cost: float) -> float:
    """Return the reduction at a log of the remaining cost (below 0), to at most 2.5 % of what remains."""
    kept = np.exp(-log_cost)
    return float(round(1.0 - kept, max(2, int(np.ceil(-np.log10(0.05 * kept))))))


def _given(axis: Axis, reductions: FloatArray, regimes: Sequence[float] | Mapping[float, float]) -> Regimes:
    centres = np.array(sorted({float(c) for c in regimes}), dtype=np.float64)
    if centres.size == 0 or not ((centres > 0.0) & (centres < 1.0)).all():
        raise PopulationError(
            f"regimes: expected centres strictly between 0 and 1 (fractions removed), got {centres.tolist()}"
        )
    gaps = np.diff(centres, prepend=-np.inf, append=np.inf)
    halves = np.minimum(WIDEST_HALF, np.minimum(gaps[:-1], gaps[1:]) / 2.0)
    if isinstance(regimes, Mapping):
        halves = np.array([regimes[c] for c in centres.tolist()])
    distance = np.abs(reductions[:, None] - centres)
    distance[distance > halves + 1e-9] = np.inf
    nearest = distance.argmin(axis=1)  # the lower of two
    return Regimes(axis, centres, np.where(np.isfinite(distance.min(axis=1)), nearest, -1), "given")
