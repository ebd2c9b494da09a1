"""Speed of `popstats.fit`: cold and warm, against the number of rows, against plain PyMC on the rows."""

import os
import subprocess
import sys
import time
from math import gamma

import numpy as np
import pytest

import popstats
from popstats.inference.model import FIXED_TERMS, FREQUENCIES, design_matrix
from popstats.population.simulate import simulate_population

REGIMES = tuple(np.round(np.arange(0.15, 0.95, 0.1), 2))
NETWORKS = 16_384
HALF_WIDTHS = dict.fromkeys(REGIMES, 0.05)

pytestmark = pytest.mark.benchmark


def population(rows):
    return simulate_population("asymmetric", regimes=REGIMES, n=-(-rows // len(REGIMES)), seed=1)


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_first_fit_on_a_fresh_machine(tmp_path, capsys):
    path = population(NETWORKS).save(tmp_path / "population.parquet")
    code = (
        f"import popstats; p = popstats.load_population({str(path)!r});"
        "f = popstats.fit(p); f.optima(); assert f.convergence.ok, f.convergence;"
        "import sys; assert 'numba' not in sys.modules and 'pymc' not in sys.modules"
    )
    empty = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    times = [
        seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True, env=empty)) for _ in range(3)
    ]
    with capsys.disabled():
        print(
            f"\nfirst fit, {NETWORKS:,} networks, new process, empty caches: {times[0]:.2f} s, again {min(times):.2f} s"
        )


def test_warm_and_a_million_rows(capsys):
    small, large = population(NETWORKS), population(1_000_000)
    for p in (small, large):
        _ = p.frame, p.recipe
    popstats.fit(small, regimes=HALF_WIDTHS)
    times = {
        p: [seconds(lambda p=p: popstats.fit(p, regimes=HALF_WIDTHS)) for _ in range(4)]
        for p in (small, large)
    }
    with capsys.disabled():
        print("\nfit, warm:")
        for p, (first, *others) in times.items():
            again = "" if p is small else f"{first:.2f} s the first time that the rows are seen, "
            print(f"  {len(p):,} rows: {again}{min(others):.2f} s (best of 3 more)")


@pytest.mark.parametrize(("noise", "kind"), [("student", "heavy"), ("exgaussian", "skewed")])
def test_noise_that_sees_every_row(noise, kind, capsys):
    p = simulate_population(
        "asymmetric",
        regimes=REGIMES,
        n=NETWORKS // len(REGIMES),
        noise_kind=kind,
        seeds=3,
        seed_noise=0.1,
        seed=1,
    )
    fits = []
    wall = seconds(lambda: fits.append(popstats.fit(p, noise=noise)))
    assert fits[0].convergence.ok, fits[0].convergence
    with capsys.disabled():
        print(f"\nfit, {len(p):,} trainings of {NETWORKS:,} networks, {noise}: {wall:.1f} s")


def test_against_plain_pymc_on_the_rows(capsys):
    """Time to 1,000 effective draws of the noise and of the curve in one regime, ours against row by row."""
    import arviz_stats
    import pymc as pm
    import pytensor.tensor as pt

    p = simulate_population("asymmetric", regimes=[0.7], n=2000, seed=1)
    popstats.fit(p, regimes={0.7: 0.05})
    started = time.perf_counter()
    fit = popstats.fit(p, regimes={0.7: 0.05})
    ours = time.perf_counter() - started
    ours_ess = fit.draws.noise.size  # independent draws
    (regime,) = fit.fitted
    frame = p.frame
    unit = regime.curve_scale.to_unit(frame["log_mcb"])
    x = design_matrix(unit, regime.offset(frame["macs_reduction"]))
    y = (frame["accuracy_drop"].to_numpy() - regime.centre) / regime.scale
    with pm.Model():
        length = pm.LogNormal("length", np.log(0.7), 0.6)
        amplitude, noise = (
            pm.LogNormal("amplitude", np.log(0.5), 0.9),
            pm.LogNormal("noise", np.log(0.8), 0.7),
        )
        fixed = pm.Normal("fixed", 0, 10, shape=FIXED_TERMS)
        z = pm.Normal("z", 0, 1, shape=x.shape[1] - FIXED_TERMS)
        density = -3.5 * pt.log(length) - 2.25 * pt.log(3.5 / length**2 + FREQUENCIES**2)
        density += np.log(2 * np.sqrt(np.pi) * 3.5**1.75 * gamma(2.25) / gamma(1.75))
        spread = amplitude * pt.exp(0.5 * pt.concatenate([density, pt.zeros(1)]))
        mean = x[:, :FIXED_TERMS] @ fixed + x[:, FIXED_TERMS:] @ (spread * z)
        pm.Normal("y", mean, noise, observed=y)
        started = time.perf_counter()
        trace = pm.sample(500, tune=500, chains=4, cores=2, random_seed=1, progressbar=False)
        plain = time.perf_counter() - started
    ess = arviz_stats.summary(trace, kind="diagnostics", round_to="none")["ess_bulk"].astype(float).min()
    per_thousand = ours / ours_ess * 1000, plain / ess * 1000
    with capsys.disabled():
        print(
            f"\n1,000 effective draws, 2,000 rows, one regime: ours {per_thousand[0]:.2f} s, plain pm.sample "
            f"{per_thousand[1]:.2f} s, ratio {per_thousand[1] / per_thousand[0]:.0f}"
        )
