"""The priors, in one place: each with its unit and its reason.

All are weak, and none contains the evidence: the observed drops enter only through the scale `s`, the
standard deviation of the recipes' mean drops in the regime, which makes the priors independent of units.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import pandas as pd

from popstats.errors import FitError

__all__ = ["Priors"]


@dataclass(frozen=True)
class Priors:
    """Priors of the smooth-curve model; every pair is (median, standard deviation of the log).

    Parameters
    ----------
    length_scale : (float, float)
        Length scale of the curve, in halves of the observed range. 0.7 lets a curve turn once or twice
        within the range; its 95 % interval, 0.2 to 2.3, spans steep bends and near-straight lines.
    amplitude : (float, float)
        Standard deviation of the curve, in units of s. From a twelfth of the spread of the drops (nothing
        to see) to three times as much.
    noise : (float, float)
        Standard deviation of one training about the curve, in units of s. Near s when the curve explains
        little, a small part of it when it explains nearly all.
    excess : (float, float)
        Mean of the exponential part of `noise="frontier"`, in units of s.
    pooling : float
        Share of each log parameter's prior variance that is common to the regimes, in (0, 1): regimes of one
        population resemble each other but need not. Only `method="nuts"` pools.

    Notes
    -----
    The level of each regime, its two MACs terms and the differences between its retraining techniques have flat
    priors: they are integrated out. The share
    of the variance of one training that is seed noise is uniform on (0, 1).
    """

    length_scale: tuple[float, float] = (0.7, 0.6)
    amplitude: tuple[float, float] = (0.5, 0.9)
    noise: tuple[float, float] = (0.8, 0.7)
    excess: tuple[float, float] = (0.5, 1.0)
    pooling: float = 0.3

    def __post_init__(self) -> None:
        for item in fields(self):
            values = getattr(self, item.name)
            if min(values if isinstance(values, tuple) else (values,)) <= 0:
                raise FitError(f"priors: {item.name} must be positive, got {values!r}")
        if self.pooling >= 1.0:
            raise FitError(f"priors: pooling is a share, expected a value in (0, 1), got {self.pooling!r}")

    def describe(self) -> pd.DataFrame:
        """Return one row a prior: name, distribution, unit, reason."""
        rows = [
            ("length_scale", _log_normal(self.length_scale), "half of the observed range of log mCB",
             "a curve may turn once or twice inside the range"),
            ("amplitude", _log_normal(self.amplitude), "s, the spread of the recipes' drops in the regime",
             "from nothing to see to the whole spread"),
            ("noise", _log_normal(self.noise), "s", "what the curve leaves over, seeds included"),
            ("excess", _log_normal(self.excess), "s", "mean distance from the frontier (noise='frontier')"),
            ("degrees of freedom", "1 + Gamma(2, 0.1)", "", "from heavy tails to nearly normal (noise='student')"),
            ("seed_share", "Uniform(0, 1)", "share of one training's variance", "replicates decide"),
            ("level, MACs terms, techniques", "flat", "percentage points", "integrated out exactly"),
            ("pooling", f"{self.pooling:g} of the variance common", "log", "regimes resemble each other (nuts only)"),
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["prior", "distribution", "unit", "reason"])

    def to_dict(self) -> dict[str, object]:
        """Return the settings as plain values."""
        return asdict(self)


def _log_normal(pair: tuple[float, float]) -> str:
    return f"LogNormal(log {pair[0]:g}, {pair[1]:g})"
