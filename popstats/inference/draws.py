"""Joint posterior draws over the regimes, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import ConvergenceError
from popstats.findings import Finding, fact
from popstats.inference.data import RegimeDesign
from popstats.inference.model import CHAINS, COLUMNS, Hyper
from popstats.words import html_of, sentences

#: Mass of every interval of the package; equal-tailed ...
INTERVAL_MASS = 0.90
#: ... and what it leaves out on either side.
TAIL = (1.0 - INTERVAL_MASS) / 2.0
#: Draws from the prior with which the prior probability of each claim is computed.
PRIOR_DRAWS = 2000
#: Vehtari et al. (2021), doi:10.1214/20-BA1221.
MAXIMUM_R_HAT, MINIMUM_ESS = 1.01, 400.0
#: Betancourt (2016), arXiv:1604.00695.
MINIMUM_E_BFMI = 0.3
#: Share of transitions that may diverge.
MAXIMUM_DIVERGING = 1e-3
#: Posterior mass that the exact method's grid may cut off.
MAXIMUM_EDGE = 0.01


def interval(draws: npt.ArrayLike, mass: float = INTERVAL_MASS) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the equal-tailed interval over the first axis of `draws`."""
    tail = (1.0 - mass) / 2.0
    low, high = np.quantile(np.asarray(draws, dtype=np.float64), [tail, 1.0 - tail], axis=0)
    return low, high


@dataclass(frozen=True)
class Draws:
    """Draws of all fitted regimes, in units of each regime's scale."""

    # length_scale, amplitude, noise, seed_share: (chains, draws, K), see `Hyper`
    length_scale: FloatArray
    amplitude: FloatArray
    noise: FloatArray
    seed_share: FloatArray
    coefficients: FloatArray  # (chains, draws, K, p): level, c, c^2, techniques, basis
    # (chains, draws, K): degrees of freedom ("student"), mean of the exponential ("exgaussian")
    shape: FloatArray | None = None
    # (chains, draws): what a sampler says of its steps (nuts: diverging, energy)
    statistics: dict[str, FloatArray] = field(default_factory=dict)
    # (K,): posterior mass at the edge of the exact method's grid; None: there was no grid
    edge_probability: FloatArray | None = None

    @classmethod
    def joined(
        cls, regimes: Sequence[tuple[Hyper, FloatArray]], edges: Sequence[float], chains: int = CHAINS
    ) -> Draws:
        """Join independent draws of regimes, hyperparameters (S,) and coefficients (S, p) each, S split over the chains."""
        if not regimes:
            none = np.zeros((chains, 0, 0))
            beta = np.zeros((chains, 0, 0, COLUMNS))
            return cls(none, none, none, none, beta, edge_probability=np.zeros(0))
        hyper = (np.stack(values, axis=1) for values in zip(*(h[:4] for h, _ in regimes), strict=True))
        coefficients = np.stack([c for _, c in regimes], axis=1)
        length_scale, amplitude, noise, share, beta = (
            values.reshape(chains, -1, *values.shape[1:]) for values in (*hyper, coefficients)
        )
        return cls(length_scale, amplitude, noise, share, beta, edge_probability=np.array(edges))

    @property
    def flat_coefficients(self) -> FloatArray:
        """Coefficients with chains joined, shape (S, K, p)."""
        chains, draws = self.coefficients.shape[:2]
        return self.coefficients.reshape(chains * draws, *self.coefficients.shape[2:])

    def hyper(self, k: int | slice, picked: npt.NDArray[np.intp] | slice = slice(None)) -> Hyper:
        """Return the k-th regime's hyperparameters with chains joined, (S,) each; of the picked draws."""
        values = (self.length_scale, self.amplitude, self.noise, self.seed_share, self.shape)
        return Hyper(*(v if v is None else v.reshape(-1, v.shape[2])[picked, k] for v in values))  # type: ignore[arg-type]

    def median_hyper(self, k: int) -> Hyper:
        """Return the medians of the k-th regime's hyperparameters, (1,) each."""
        return Hyper(*(v if v is None else np.median(v, keepdims=True) for v in self.hyper(k)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Convergence:
    """The verdict of a fit's own diagnostics.

    Attributes
    ----------
    reasons : tuple of Finding
        What failed, as typed facts; empty if every check passed.
    table : pandas.DataFrame
        One row per parameter: r_hat (below 1.01), ess_bulk and ess_tail (above 400), by name and regime.
        For `method="exact"`: the posterior mass at the grid's edge (below 0.01).
    """

    reasons: tuple[Finding, ...]
    table: pd.DataFrame

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.reasons

    @property
    def sentence(self) -> str:
        """What failed, in words; "ok" if nothing did."""
        return " ".join(sentences(self.reasons)) or "ok"

    def require(self) -> None:
        """Raise ConvergenceError unless every check passed."""
        if not self.ok:
            raise ConvergenceError(
                f"The diagnostics reject the fit. {self.sentence} Try more draws (draws=, tune=), or method='exact', "
                "which has no sampler"
            )

    def __repr__(self) -> str:
        return f"<Convergence: {'' if self.ok else 'not ok: '}{self.sentence}>"

    def _repr_html_(self) -> str:
        return html_of(repr(self)[1:-1], self.table)


def check_draws(draws: Draws, fitted: Sequence[RegimeDesign], outcomes: dict[str, FloatArray]) -> Convergence:
    """Check draws of the hyperparameters and of the outcomes that verdicts are read off."""
    # outcomes (chains, draws, K)
    if draws.edge_probability is not None:
        cut = {r.label: float(share) for r, share in zip(fitted, draws.edge_probability, strict=True)}
        found = (
            fact("grid edge", label, share=share) for label, share in cut.items() if share > MAXIMUM_EDGE
        )
        return Convergence(
            tuple(found), pd.DataFrame({"regime": list(cut), "edge_probability": cut.values()})
        )
    parameters = {name: getattr(draws, name) for name in ("length_scale", "amplitude", "noise")}
    table = _diagnose(parameters | outcomes, fitted)
    return Convergence(tuple(_failures(draws, table)), table)


def _failures(draws: Draws, table: pd.DataFrame) -> Iterator[Finding]:
    if table.empty or table[["r_hat", "ess_bulk", "ess_tail"]].isna().any(axis=None):
        yield fact("few draws", draws=draws.noise.shape[1])
    if (worst := float(table["r_hat"].max())) > MAXIMUM_R_HAT:
        yield fact("R-hat", worst=worst, most=MAXIMUM_R_HAT)
    for kind in ("bulk", "tail"):
        if (least := float(table[f"ess_{kind}"].min())) < MINIMUM_ESS:
            yield fact("ESS", kind=kind, least=least, needed=MINIMUM_ESS)
    diverging = draws.statistics.get("diverging", np.zeros(1))
    if diverging.mean() > MAXIMUM_DIVERGING:
        yield fact("divergent", transitions=int(diverging.sum()))
    energy = draws.statistics.get("energy")
    if energy is None or energy.shape[1] < 2:
        return
    found = float(((np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)).min())
    if found < MINIMUM_E_BFMI:
        yield fact("E-BFMI", found=found, needed=MINIMUM_E_BFMI)


def _diagnose(quantities: dict[str, FloatArray], regimes: Sequence[RegimeDesign]) -> pd.DataFrame:
    from arviz_stats.base import array_stats

    rows = []
    for name, values in quantities.items():
        # Constant over all draws (an optimum that always lies on the edge): nothing to diagnose.
        varying = [k for k in range(len(regimes)) if np.ptp(values[:, :, k]) > 0.0]
        chains = np.ascontiguousarray(np.moveaxis(values[:, :, varying], 2, 0))
        axes = {"chain_axis": 1, "draw_axis": 2}
        r_hat = array_stats.rhat(chains, **axes)
        bulk = array_stats.ess(chains, **axes, method="bulk")
        ends = array_stats.ess(chains, **axes, method="tail", prob=(TAIL, 1.0 - TAIL))
        rows += [
            (name, regimes[k].label, float(r_hat[i]), float(bulk[i]), float(ends[i]))
            for i, k in enumerate(varying)
        ]
    return pd.DataFrame(rows, columns=["quantity", "regime", "r_hat", "ess_bulk", "ess_tail"])
