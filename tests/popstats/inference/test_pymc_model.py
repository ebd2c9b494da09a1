"""The public PyMC model: its density is that of the grid, it samples to the exact posterior, and users can extend it."""

import numpy as np
import pytest

import popstats
from popstats.errors import FitError
from popstats.inference.data import prepare_regimes
from popstats.inference.exact import _RATIOS, _tabulate
from popstats.inference.model import Hyper, Priors
from popstats.inference.pymc_model import build_model
from popstats.population.recipes import prepared_recipes
from popstats.population.simulate import simulate_population

REGIMES = {0.5: 0.05, 0.8: 0.05}
LENGTHS, SHARES = np.array([0.3, 0.9]), np.array([0.2, 0.6])


@pytest.fixture(scope="module")
def population():
    """Two regimes; in the first, some recipes have one training and some have two."""
    full = simulate_population(regimes=[0.5, 0.8], n=80, seeds=2, seed_noise=0.1, seed=7)
    keep = np.ones(len(full), dtype=bool)
    keep[:20:2] = False
    return full.select(keep)


def log_density(model, **values):
    """The model's log density at points of its free variables, without the Jacobian of their transformations."""
    density = model.compile_logp(jacobian=False, mode="FAST_COMPILE")
    logit = np.log(values["share"] / (1.0 - values["share"]))
    point = {"seed_share_interval__": logit}
    return float(
        density(point | {f"log_{n}": np.log(values[n]) for n in ("length_scale", "amplitude", "noise")})
    )


def test_its_density_is_that_of_the_grid_and_of_the_pooled_prior(population):
    regimes, priors = prepare_regimes(prepared_recipes(population, "macs", REGIMES)), Priors(pooling=0.4)
    assert regimes[0].replicates.tolist() == [1.0, 2.0]
    model, differences = build_model(regimes, priors), []
    grids = [_tabulate(r, LENGTHS, SHARES, priors) for r in regimes]
    for cells in (
        ((0, 0, 20, 3), (1, 1, 30, 7)),
        ((1, 0, 25, 5), (0, 1, 18, 2)),
        ((1, 1, 10, 9), (1, 0, 35, 1)),
    ):
        noise = np.exp([g[1][c] for g, c in zip(grids, cells, strict=True)])
        share, length = SHARES[[c[0] for c in cells]], LENGTHS[[c[1] for c in cells]]
        amplitude = _RATIOS[[c[2] for c in cells]] * noise
        # The grid's weight holds independent priors, and the share's on an equally spaced logit.
        x = np.array(priors.standardised(Hyper(length, amplitude, noise, noise)))
        expected = sum(g[0][c] for g, c in zip(grids, cells, strict=True)) + 0.5 * (x**2).sum()
        expected -= np.log(share * (1.0 - share)).sum()
        covariance = np.linalg.inv(0.6 * np.eye(2) + 0.4)
        expected -= 0.5 * np.einsum("qk,kl,ql->", x, covariance, x)
        found = log_density(model, length_scale=length, amplitude=amplitude, noise=noise, share=share)
        differences.append(found - expected)
    np.testing.assert_allclose(differences, differences[0], atol=1e-8)


def test_what_is_added_to_the_drops_is_taken_off_before_the_curve(population):
    """A shift known to be 2 x: the density is that of the population whose drops are 2 x less."""
    x = np.random.default_rng(0).normal(size=len(population))[population.recipe]
    tagged = popstats.Population.from_frame(population.table.assign(x=x))
    moved = popstats.Population.from_frame(
        population.table.assign(accuracy=population.table["accuracy"] + 2.0 * x)
    )
    differences = []
    for noise in (0.5, 0.9):
        values = {
            "length_scale": LENGTHS,
            "amplitude": np.array([0.4, 0.6]),
            "noise": np.full(2, noise),
            "share": SHARES,
        }
        shifted = popstats.pymc_model(
            tagged, regimes=REGIMES, extra=lambda recipes: 2.0 * recipes["x"].to_numpy()
        )
        plain = popstats.pymc_model(moved, regimes=REGIMES)
        designs = [prepare_regimes(prepared_recipes(p, "macs", REGIMES)) for p in (tagged, moved)]
        # Hyperparameters are in units of each population's own spread.
        ratio = np.array([a.scale / b.scale for a, b in zip(*designs, strict=True)])
        scaled = values | {n: values[n] * ratio for n in ("amplitude", "noise")}
        prior = [
            Priors().log_density(Hyper(v["length_scale"], v["amplitude"], v["noise"], v["share"]))
            for v in (values, scaled)
        ]
        differences.append(
            log_density(shifted, **values) - prior[0] - log_density(plain, **scaled) + prior[1]
        )
    assert differences[0] == pytest.approx(differences[1], abs=1e-6)


def test_a_population_without_a_curve_has_no_model():
    few = simulate_population(regimes=[0.5], n=4, seed=1)
    with pytest.raises(
        FitError, match=r"no regime of .* can be fitted .*4 recipes; a curve needs at least 10"
    ):
        popstats.pymc_model(few)


@pytest.mark.slow
def test_nuts_agrees_with_the_exact_method(population):
    exact, nuts = (
        popstats.fit(population, regimes=REGIMES, method=m, random_seed=1, draws=n)
        for m, n in (("exact", 4000), ("nuts", 1000))
    )
    assert nuts.convergence.ok, nuts.convergence.reasons
    for k in range(2):
        spread = exact.expected_drop[:, k].std(axis=0)
        distance = nuts.expected_drop[:, k].mean(axis=0) - exact.expected_drop[:, k].mean(axis=0)
        assert (np.abs(distance) < 0.1 * spread).all()
        np.testing.assert_allclose(nuts.expected_drop[:, k].std(axis=0), spread, rtol=0.1)
        for name in ("length_scale", "amplitude", "noise", "seed_share"):
            one, other = (getattr(f.draws, name)[:, :, k] for f in (exact, nuts))
            assert one.mean() == pytest.approx(other.mean(), abs=0.15 * other.std())
            assert one.std() == pytest.approx(other.std(), rel=0.12)


@pytest.mark.slow
def test_a_covariate_is_found_beside_the_curve(population):
    import pymc as pm

    x = np.random.default_rng(1).normal(size=len(population))[population.recipe]
    table = population.table.assign(x=x, accuracy=population.table["accuracy"] - 0.3 * x)
    tagged = popstats.Population.from_frame(table)

    def effect(recipes):
        return pm.Normal("slope", 0.0, 1.0) * recipes["x"].to_numpy()

    with popstats.pymc_model(tagged, regimes=REGIMES, extra=effect):
        trace = pm.sample(500, nuts_sampler="nutpie", random_seed=1, progressbar=False)
    slope = trace["posterior"]["slope"].to_numpy()
    assert slope.mean() == pytest.approx(0.3, abs=0.06)
    assert slope.std() < 0.04
