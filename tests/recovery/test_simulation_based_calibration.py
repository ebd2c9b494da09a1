"""Simulation-based calibration: truths drawn from the prior must rank uniformly among the posterior's draws.

Talts et al. (2018), arXiv:1804.06788. The level and the MACs terms have flat priors, so only quantities that do
not move with them are ranked. Regimes of one population share part of their hyperparameters' variance; the first of each
is ranked, so that ranks are independent.
"""

import numpy as np
import pytest
from scipy import stats

from popstats.inference.data import RegimeDesign, RegimeRows, with_sums
from popstats.inference.exact import sample_pooled
from popstats.inference.model import FIXED_TERMS, CurveScale, Hyper, Priors, basis, prior_precision

PRIORS = Priors()
BINS, RANKED = 10, 400
POINTS = basis(np.array([-0.7, 0.0, 0.7]))
#: Draws of hyperparameters lie on a grid; ranks need its steps smoothed out.
STEPS = (0.19, 0.27, 0.05, 0.0, 0.0)


def simulate(rng, hyper, seeds, n):
    """One regime in standard units, half of its recipes with `seeds` trainings, and the truth of what is ranked."""
    unit, offset = rng.uniform(-1.1, 1.1, n), rng.uniform(-1, 1, n)
    precision = prior_precision((), hyper.length_scale[None], hyper.amplitude[None])[0]
    weights = rng.standard_normal(precision.size) / np.sqrt(precision)
    share = hyper.seed_share if seeds > 1 else 0.0
    runs = np.where(np.arange(n) < n // 2, 1.0, seeds)
    run = hyper.noise * np.sqrt(share) * rng.standard_normal((n, seeds)) * (np.arange(seeds) < runs[:, None])
    mean = run.sum(axis=1) / runs
    within = ((run - mean[:, None]) ** 2 * (np.arange(seeds) < runs[:, None])).sum(axis=1)
    recipe = hyper.noise * np.sqrt(1.0 - share) * rng.standard_normal(n)
    drop = 0.4 + 0.2 * offset + basis(unit) @ weights + recipe + mean
    design = RegimeDesign(
        "0.50", 0.5, "macs", n, n, CurveScale(0.0, 1.0), 1.0, 0.0, 1.0, (True,) * FIXED_TERMS
    )
    rows = RegimeRows(design, np.arange(n), unit, offset, drop, runs, within, np.ones(n), np.zeros((n, 0)))
    left, middle, right = POINTS @ weights
    logs = [np.log(v) for v in (hyper.length_scale, hyper.amplitude, hyper.noise)]
    truth = [*logs, left - middle, right - left, np.log(share / (1.0 - share)) if seeds > 1 else 0.0]
    return with_sums(rows), truth


def ranks(population, regimes, seeds, n):
    """Draw a population from the prior; rank the truths of its first regime among the posterior's draws."""
    rng = np.random.default_rng([population, regimes, seeds, n])
    hyper = PRIORS.draw(1, regimes, rng)
    drawn = [simulate(rng, Hyper(*(v[0, k] for v in hyper[:4])), seeds, n) for k in range(regimes)]
    draws = sample_pooled([design for design, _ in drawn], PRIORS, RANKED, population)
    found, curve = draws.hyper(0), draws.flat_coefficients[:, 0, FIXED_TERMS:] @ POINTS.T
    columns = [np.log(v) for v in (found.length_scale, found.amplitude, found.noise)]
    columns += [curve[:, 0] - curve[:, 1], curve[:, 2] - curve[:, 0]]
    steps = list(STEPS)
    if seeds > 1:
        logit = np.log(found.seed_share / (1.0 - found.seed_share))
        columns.append(logit)
        steps.append(float(np.diff(np.unique(logit.round(9))).min(initial=np.inf)))
    steps = np.where(np.isfinite(steps), steps, 0.0)
    return [
        float(np.mean(c + w * (rng.random(c.size) - 0.5) < t))
        for c, w, t in zip(columns, steps, drawn[0][1], strict=False)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("regimes", "seeds", "n"), [(1, 1, 120), (4, 1, 60), (4, 2, 60), (4, 2, 20)])
def test_the_pooled_posterior_is_calibrated(regimes, seeds, n):
    """20 recipes, half of them in pairs: ten degrees of freedom within recipes."""
    found = np.array([ranks(i, regimes, seeds, n) for i in range(300)])
    counts = [np.histogram(column, bins=BINS, range=(0, 1))[0] for column in found.T]
    p_values = [float(stats.chisquare(c).pvalue) for c in counts]
    print(
        f"regimes {regimes}, seeds {seeds}, recipes {n}: p {np.round(p_values, 3)}, mean rank {found.mean(0).round(3)}"
    )
    assert min(p_values) > 0.01 / len(p_values)
