"""Simulation-based calibration: truths drawn from the prior must rank uniformly among the posterior's draws.

Talts et al. (2018), arXiv:1804.06788. The level and the MACs terms have flat priors, so only quantities that do
not move with them are ranked.
"""

import numpy as np
import pytest
from scipy import stats

from popstats.inference.data import RegimeDesign, StandardRows, _accumulate
from popstats.inference.draws import Draws, from_regimes
from popstats.inference.exact import draw_regime
from popstats.inference.model import FIXED_TERMS, CurveScale, Priors, basis, log_basis_variance

PRIORS = Priors()
BINS = 10
POINTS = basis(np.array([-0.7, 0.0, 0.7]))


def simulate(rng, n=120):
    """One regime whose hyperparameters and curve come from the prior, in standard units."""
    length, amplitude, noise = (
        m * np.exp(s * rng.standard_normal())
        for m, s in (PRIORS.length_scale, PRIORS.amplitude, PRIORS.noise)
    )
    unit, distance = rng.uniform(-1.1, 1.1, n), rng.uniform(-1, 1, n)
    weights = amplitude * np.exp(0.5 * log_basis_variance(length)) * rng.standard_normal(POINTS.shape[1])
    drop = 0.4 + 0.2 * distance + basis(unit) @ weights + noise * rng.standard_normal(n)
    rows = StandardRows(unit, distance, drop, np.ones(n), np.zeros(n), np.ones(n), np.zeros((n, 0)))
    products, fixed = _accumulate(rows)
    regime = RegimeDesign(
        "0.50", 0.5, "macs", n, n, 0, CurveScale(0.0, 1.0), 1.0, 0.0, 1.0, fixed, products
    )  # fmt: skip
    left, middle, right = POINTS @ weights
    return regime, np.array([np.log(length), np.log(amplitude), np.log(noise), left - middle, right - left])


#: The exact method draws its hyperparameters from a grid; ranks need its steps smoothed out.
GRID_STEPS = (0.19, 0.27, 0.05, 0.0, 0.0)


def ranked(draws: Draws, truth, steps):
    curve = draws.flat_coefficients[:, 0, FIXED_TERMS:] @ POINTS.T
    columns = [
        np.log(draws.length_scale).ravel(),
        np.log(draws.amplitude).ravel(),
        np.log(draws.noise).ravel(),
        curve[:, 0] - curve[:, 1],
        curve[:, 2] - curve[:, 0],
    ]
    rng = np.random.default_rng(0)
    return [
        float(np.mean(c + w * (rng.random(c.size) - 0.5) < t))
        for c, t, w in zip(columns, truth, steps, strict=True)
    ]


def p_values(ranks):
    counts = [np.histogram(column, bins=BINS, range=(0, 1))[0] for column in np.array(ranks).T]
    return [float(stats.chisquare(c).pvalue) for c in counts]


@pytest.mark.slow
def test_exact_method_is_calibrated():
    rng = np.random.default_rng(20)
    ranks = []
    for _ in range(400):
        regime, truth = simulate(rng)
        ranks.append(ranked(from_regimes([draw_regime(regime, PRIORS, 400, rng)]), truth, GRID_STEPS))
    assert min(p_values(ranks)) > 0.01 / 5


@pytest.mark.slow
def test_nuts_is_calibrated():
    from popstats.inference.nuts import sample_nuts
    from popstats.inference.sampling import Chains

    rng = np.random.default_rng(21)
    ranks = []
    for i in range(120):
        regime, truth = simulate(rng)
        draws = sample_nuts([regime], PRIORS, Chains(number=2, draws=200, tune=300, seed=i), progress=False)
        ranks.append(ranked(draws, truth, np.zeros(5)))
    assert min(p_values(ranks)) > 0.01 / 5
