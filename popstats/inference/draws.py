"""Joint posterior draws over the regimes, and their translation into accuracy points."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from popstats.arrays import FloatArray
from popstats.errors import ConvergenceError
from popstats.inference.data import RegimeData
from popstats.inference.exact import HyperDraws
from popstats.inference.model import COLUMNS, Priors, basis, design_matrix, log_basis_variance

#: Draws from the prior with which the prior probability of each claim is computed.
PRIOR_DRAWS = 2000


@dataclass(frozen=True)
class Draws:
    """Draws of all fitted regimes, in units of each regime's scale."""

    # length_scale, amplitude, noise, seed_share: (chains, draws, K); See `HyperDraws`.
    length_scale: FloatArray
    amplitude: FloatArray
    noise: FloatArray
    seed_share: FloatArray
    coefficients: FloatArray  # (chains, draws, K, p); Level, c, c^2, techniques, basis.
    # (chains, draws); Sampler statistics (diverging, energy); empty for `method="exact"`.
    statistics: dict[str, FloatArray]
    # (K,); Posterior mass at the edge of the exact method's grid; zeros for `nuts`.
    edge_probability: FloatArray
    # (chains, draws, K); Degrees of freedom (noise "student") or mean of the exponential (noise "frontier").
    shape: FloatArray | None = None

    @property
    def flat_coefficients(self) -> FloatArray:
        """Coefficients with chains joined, shape (S, K, p)."""
        chains, draws = self.coefficients.shape[:2]
        return self.coefficients.reshape(chains * draws, *self.coefficients.shape[2:])


def from_regimes(draws: list[HyperDraws]) -> Draws:
    """Stack independent regimes' draws (method "exact"), as one chain."""
    if not draws:
        empty = np.zeros((1, 0, 0))
        return Draws(empty, empty, empty, empty, np.zeros((1, 0, 0, COLUMNS)), {}, np.zeros(0))

    def stack(name: str) -> FloatArray:
        return np.stack([getattr(d, name) for d in draws], axis=1)[None]

    return Draws(
        length_scale=stack("length_scale"),
        amplitude=stack("amplitude"),
        noise=stack("noise"),
        seed_share=stack("seed_share"),
        coefficients=stack("coefficients"),
        statistics={},
        edge_probability=np.array([d.edge_probability for d in draws]),
    )


def curve_in_points(
    regime: RegimeData,
    coefficients: FloatArray,
    log_mcb: FloatArray,
    distance: float = 0.0,
    technique: int | None = None,
) -> FloatArray:
    """Return the expected drop in percentage points, shape (S, G)."""
    # coefficients (S, p); log_mcb (G,)
    c = np.full(log_mcb.shape, distance / regime.half_width if regime.half_width > 0 else 0.0)
    others = np.zeros((log_mcb.size, len(regime.mix) - 1))
    if technique is not None:
        others += (np.arange(1, len(regime.mix)) == technique) - np.array(regime.mix[1:])
    design = design_matrix(regime.curve_scale.to_unit(log_mcb), c, others)
    # Of a term that the regime cannot tell apart the draws are noise.
    design[:, : len(regime.fixed)] *= regime.fixed
    # In place: draws of a curve are megabytes, and fresh ones cost more than the arithmetic.
    curve: FloatArray = coefficients @ design.T
    curve *= regime.scale
    curve += regime.centre
    return curve


def prior_curves(regime: RegimeData, priors: Priors, log_mcb: FloatArray, seed: int) -> FloatArray:
    """Return curves drawn from the prior, points around an arbitrary level, shape (PRIOR_DRAWS, G)."""
    rng = np.random.default_rng([seed, 977])
    length = np.exp(
        np.log(priors.length_scale[0]) + priors.length_scale[1] * rng.standard_normal(PRIOR_DRAWS)
    )
    amplitude = np.exp(np.log(priors.amplitude[0]) + priors.amplitude[1] * rng.standard_normal(PRIOR_DRAWS))
    spread = amplitude[:, None] * np.exp(0.5 * log_basis_variance(length))
    weights = spread * rng.standard_normal(spread.shape)
    return np.asarray(regime.scale * (weights @ basis(regime.curve_scale.to_unit(log_mcb)).T))


#: Vehtari et al. (2021), doi:10.1214/20-BA1221.
MAXIMUM_R_HAT = 1.01


MINIMUM_ESS = 400.0


#: Betancourt (2016), arXiv:1604.00695.
MINIMUM_E_BFMI = 0.3


#: Posterior mass that the exact method's grid may cut off.
MAXIMUM_EDGE = 0.01


@dataclass(frozen=True)
class Convergence:
    """The verdict of a fit's own diagnostics.

    Attributes
    ----------
    ok : bool
        Whether every check passed.
    reasons : tuple of str
        What failed, in words; empty if `ok`.
    table : pandas.DataFrame
        One row a parameter: r_hat (below 1.01), ess_bulk and ess_tail (above 400), by name and regime.
        For `method="exact"`: the posterior mass at the grid's edge (below 0.01).
    """

    ok: bool
    reasons: tuple[str, ...]
    table: pd.DataFrame

    def require(self) -> None:
        """Raise ConvergenceError unless every check passed."""
        if not self.ok:
            raise ConvergenceError(
                "the fit's own diagnostics reject it: " + "; ".join(self.reasons)
                + ". Try more draws (draws=, tune=), or method='exact', which has nothing to converge"
            )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Convergence: {'ok' if self.ok else 'not ok: ' + '; '.join(self.reasons)}>"

    def _repr_html_(self) -> str:
        table = self.table.to_html(index=False, float_format=lambda v: f"{v:.4g}")
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{table}"


def check_draws(draws: Draws, regimes: Sequence[RegimeData], outcomes: dict[str, FloatArray]) -> Convergence:
    """Check draws of the hyperparameters and of the outcomes that verdicts are read off."""
    # outcomes (chains, draws, K)
    if not draws.statistics:
        return _check_grid(draws, regimes)
    parameters = {name: getattr(draws, name) for name in ("length_scale", "amplitude", "noise")}
    table = _diagnose(parameters | outcomes, regimes)
    reasons = []
    if table.empty or table[["r_hat", "ess_bulk", "ess_tail"]].isna().any(axis=None):
        reasons.append(
            f"{draws.noise.shape[1]} draws a chain are too few to tell whether the chains agree: R-hat and ESS have no value"
        )
    if (worst := float(table["r_hat"].max())) > MAXIMUM_R_HAT:
        reasons.append(f"R-hat up to {worst:.3f} (must be under {MAXIMUM_R_HAT})")
    for kind in ("ess_bulk", "ess_tail"):
        if (least := float(table[kind].min())) < MINIMUM_ESS:
            reasons.append(
                f"{kind.replace('_', ' ').replace('ess', 'ESS')} down to {least:.0f} (must be over {MINIMUM_ESS:.0f})"
            )
    if divergences := int(draws.statistics["diverging"].sum()):
        reasons.append(f"{divergences} divergent transitions")
    if draws.noise.shape[1] > 1 and (energy := _e_bfmi(draws.statistics["energy"])) < MINIMUM_E_BFMI:
        reasons.append(f"E-BFMI {energy:.2f} (must be over {MINIMUM_E_BFMI})")
    return Convergence(not reasons, tuple(reasons), table)


def _check_grid(draws: Draws, regimes: Sequence[RegimeData]) -> Convergence:
    table = pd.DataFrame({"regime": [r.label for r in regimes], "edge_probability": draws.edge_probability})
    cut = table[table["edge_probability"] > MAXIMUM_EDGE]
    reasons = tuple(
        f"regime {row.regime}: {row.edge_probability:.0%} of the posterior lies at the edge of the amplitude grid"
        for row in cut.itertuples()
    )
    return Convergence(not reasons, reasons, table)


def _diagnose(quantities: dict[str, FloatArray], regimes: Sequence[RegimeData]) -> pd.DataFrame:
    from arviz_stats.base import array_stats

    tail = ((1.0 - INTERVAL_MASS) / 2.0, (1.0 + INTERVAL_MASS) / 2.0)
    rows = []
    for name, values in quantities.items():
        # Constant over all draws (an optimum that always lies on the edge): nothing to diagnose.
        varying = [k for k in range(len(regimes)) if np.ptp(values[:, :, k]) > 0.0]
        chains = _at_least_two(np.ascontiguousarray(np.moveaxis(values[:, :, varying], 2, 0)))
        axes = {"chain_axis": 1, "draw_axis": 2}
        r_hat = array_stats.rhat(chains, **axes)
        bulk = array_stats.ess(chains, **axes, method="bulk")
        ends = array_stats.ess(chains, **axes, method="tail", prob=tail)
        rows += [
            (name, regimes[k].label, float(r_hat[i]), float(bulk[i]), float(ends[i]))
            for i, k in enumerate(varying)
        ]
    return pd.DataFrame(rows, columns=["quantity", "regime", "r_hat", "ess_bulk", "ess_tail"])


def _at_least_two(chains: FloatArray) -> FloatArray:
    """Return chains (..., chains, draws), a single one as its two halves: R-hat has no value for one."""
    if chains.shape[1] > 1:
        return chains
    half = chains.shape[2] // 2
    return np.concatenate([chains[:, :, :half], chains[:, :, -half:]], axis=1) if half else chains


def _e_bfmi(energy: FloatArray) -> float:
    return float(((np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)).min())


#: Mass of every interval of the package; equal-tailed.
INTERVAL_MASS = 0.90


def interval(draws: npt.ArrayLike, mass: float = INTERVAL_MASS) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the equal-tailed interval over the first axis of `draws`.

    >>> low, high = interval(np.arange(101.0))
    >>> round(float(low), 6), round(float(high), 6)
    (5.0, 95.0)
    """
    tail = (1.0 - mass) / 2.0
    low, high = np.quantile(np.asarray(draws, dtype=np.float64), [tail, 1.0 - tail], axis=0)
    return low, high
