"""What keeps a probable optimum from being supported: a curve that moves with cost, clusters, outliers."""

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.judgement.analysis import Analysis, RegimePosterior
from popstats.judgement.premises import alike, few_clusters
from popstats.judgement.verdicts import Thresholds
from popstats.planning.error_rates import HARD_NULLS, simulate_null
from popstats.words import sentence

GRID = np.linspace(-0.5, 0.5, 161)
LIMITS = Thresholds()


def _posterior(drop_of: object, n: int = 600, seed: int = 0, noise: float = 0.05) -> RegimePosterior:
    """Return the posterior of one regime whose drop is a function of u (mCB, -1 to 1) and m (cost, -1 to 1)."""
    rng = np.random.default_rng(seed)
    u, m = rng.uniform(-1.0, 1.0, (2, n))
    macs = 0.3 * np.exp(0.3 * m)
    drop = drop_of(u, m, rng) + noise * rng.standard_normal(n)  # type: ignore[operator]
    table = pd.DataFrame(
        {
            "macs": np.rint(macs * 1e11).astype(np.int64),
            "params": np.rint(macs * np.exp(-0.4 * u) * 1e9).astype(np.int64),
            "accuracy": 90.0 - drop,
        }
    )
    original = popstats.Original(macs=10**11, params=10**9, accuracy=90.0)
    population = popstats.Population.from_frame(table, original=original)
    return Analysis(popstats.fit(population, regimes={0.7: 0.2})).regimes[0]


def test_an_optimum_that_stays_where_it_is_is_supported() -> None:
    posterior = _posterior(lambda u, m, rng: 2.0 + 0.6 * u**2 + 0.3 * m)
    assert (posterior.outcome, posterior.withheld) == ("supported", None)


def test_a_curve_that_moves_with_cost_is_told_to_use_narrower_regimes() -> None:
    posterior = _posterior(lambda u, m, rng: 2.0 + 0.6 * (u - 0.5 * m) ** 2)
    assert posterior.holds.mean() > 0.95
    assert posterior.outcome == "undecided"
    assert "The curve moves with MACs inside the regime (F test, p < 0.001)" in sentence(posterior.withheld)
    (verdict,) = posterior.analysis.fit and popstats.judge(posterior.analysis.fit).of("C3a")
    assert "Fit narrower regimes, for example regimes={0.7: 0.0" in verdict.remedy
    assert "The curve moves with MACs" in verdict.reason


def test_a_small_movement_does_not_matter() -> None:
    posterior = _posterior(lambda u, m, rng: 2.0 + 0.6 * (u - 0.02 * m) ** 2, n=3000)
    assert posterior.outcome == "supported"


def test_an_end_that_a_few_outliers_raise_is_not_supported() -> None:
    def drop(u: np.ndarray, m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rank = u.argsort().argsort()
        collapsed = (rank < 12) & (rank % 4 == 0)
        return 2.0 + 0.5 * np.maximum(u, 0.0) ** 2 + 2.0 * collapsed

    posterior = _posterior(drop, n=200, seed=1, noise=0.1)
    assert posterior.holds.mean() > 0.95
    assert posterior.outcome == "undecided"
    assert posterior.withheld.kind == "outliers"
    assert "Student-t weights" in sentence(posterior.withheld)


@pytest.mark.parametrize(
    ("clusters", "width", "found"), [(6, 0.003, True), (4, 0.01, True), (12, 0.003, False)]
)
def test_few_clusters_are_told_from_many(clusters: int, width: float, found: bool) -> None:
    rng = np.random.default_rng(0)
    centres = np.linspace(-0.48, 0.48, clusters)
    for n in (60, 600, 3000):
        log_mcb = rng.choice(centres, n) + width * rng.standard_normal(n)
        assert (few_clusters(log_mcb, GRID, LIMITS) is not None) == found, n


def test_recipes_spread_over_the_range_are_no_clusters() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for n in (30, 100, 1000):
            assert few_clusters(rng.uniform(-0.5, 0.5, n), GRID, LIMITS) is None
            assert (
                few_clusters(np.clip(0.25 * rng.standard_normal(n), -0.5, 0.5), GRID, LIMITS) is None
                or n < 100
            )


@pytest.mark.parametrize("name", HARD_NULLS)
def test_an_optimum_is_hardly_ever_supported_on_the_hard_nulls(name: str) -> None:
    outcomes = []
    for seed in range(3):
        population, regimes = simulate_null(name, 150, seed)
        outcomes += Analysis(popstats.fit(population, regimes=regimes, draws=250)).outcomes.values()
    assert outcomes.count("supported") <= 1


def test_families_of_like_networks_count_as_one_observation_each() -> None:
    population, regimes = simulate_null("families", 150, 7)
    found = Analysis(popstats.fit(population, regimes=regimes, draws=250)).regimes
    assert all(regime.holds.mean() > 0.95 for regime in found)
    assert {regime.withheld.kind for regime in found} == {"groups"}
    verdict = popstats.judge(found[0].analysis.fit).of("C3a")[0]
    assert (verdict.outcome, "resemble each other" in verdict.reason) == ("undecided", True)
    assert "drawn independently" in verdict.remedy


def _stacked(n: int = 300, **columns: object) -> pd.DataFrame:
    """Return networks of three kinds, each flat in mCB, whose levels make a valley of their mixture."""
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 3, n)
    log_mcb = 0.15 * rng.standard_normal(n) + np.array([-0.4, 0.0, 0.4])[kind]
    macs = 0.4 * np.exp(0.1 * rng.uniform(-1.0, 1.0, n))
    accuracy = 88.0 - np.array([2.0, 0.0, 2.0])[kind] + 0.4 * rng.standard_normal(n)
    made = {"macs": macs * 1e11, "params": macs * np.exp(-log_mcb) * 1e9, "accuracy": accuracy}
    return pd.DataFrame(made | columns).astype({"macs": np.int64, "params": np.int64}).assign(kind=kind)


@pytest.mark.parametrize("column", ["model", "img_size"])
def test_an_optimum_that_differences_between_kinds_of_networks_make_is_not_supported(column: str) -> None:
    table = _stacked()
    names = np.array(["vgg", "resnet", "mobilenet"] if column == "model" else [160, 192, 224])
    original = popstats.Original(macs=10**11, params=10**9, accuracy=90.0)

    def judged(frame: pd.DataFrame) -> popstats.Verdicts:
        population = popstats.Population.from_frame(frame.drop(columns="kind"), original=original)
        return popstats.judge(popstats.fit(population, regimes={0.6: 0.1}))

    (verdict,) = judged(table.assign(**{column: names[table["kind"]]})).of("C3a")
    assert (verdict.outcome, verdict.probability > 0.95) == ("undecided", True)
    assert f"Networks with the same {column} do not show the optimum" in verdict.reason
    assert f"population.where({column}=...)" in verdict.remedy
    unrelated = np.random.default_rng(2).permutation(names[table["kind"]])
    assert judged(table.assign(**{column: unrelated})).of("C3a")[0].outcome == "supported"


def _drifting(one_sided: bool = False, **columns: object) -> pd.DataFrame:
    """Return networks flat in mCB whose accuracy rises with time, while their recipes gather at one place in mCB."""
    rng, time = np.random.default_rng(3), np.linspace(0.0, 1.0, 300)
    away = (
        0.1 * rng.standard_normal(300) + 0.3 - 0.8 * time
        if one_sided
        else (1.0 - 0.8 * time) * rng.uniform(-0.6, 0.6, 300)
    )
    macs = 0.4 * np.exp(0.05 * rng.uniform(-1.0, 1.0, 300))
    made = {"macs": macs * 1e11, "params": macs * np.exp(-away) * 1e9}
    made["accuracy"] = 87.0 + 1.5 * time + 0.2 * rng.standard_normal(300)
    return pd.DataFrame(made | columns).astype({"macs": np.int64, "params": np.int64})


def _only(table: pd.DataFrame) -> RegimePosterior:
    original = popstats.Original(macs=10**11, params=10**9, accuracy=90.0)
    population = popstats.Population.from_frame(table, original=original)
    return Analysis(popstats.fit(population, regimes={0.6: 0.1})).regimes[0]


def test_a_search_that_gets_better_while_its_recipes_gather_shows_no_optimum() -> None:
    log, shuffled = _drifting(), np.random.default_rng(4).permutation(300)
    regime = _only(log)
    assert (regime.holds.mean() > 0.95, regime.outcome, regime.withheld.kind) == (True, "undecided", "order")
    assert "random sample of these recipes" in sentence(*regime.remedies)
    assert _only(log.iloc[shuffled]).outcome == "supported"
    # Named columns tell it in any order of the rows, also settings of the training.
    for name, values in {
        "generation": np.arange(300) // 20,
        "ended": pd.date_range("2026", periods=300),
        "epochs": 10.0 + np.arange(300) // 30,
    }.items():
        assert _only(log.assign(**{name: values}).iloc[shuffled]).withheld.values["column"] == name


def test_evenly_spaced_recipes_may_show_an_optimum() -> None:
    log_mcb, rng = np.linspace(-0.4, 0.4, 100), np.random.default_rng(5)
    accuracy = 88.0 - 2.5 * log_mcb**2 + rng.normal(0.0, 0.15, 100)
    params = (0.4e9 * np.exp(-log_mcb)).astype(np.int64)
    table = pd.DataFrame({"macs": 4 * 10**10, "params": params, "accuracy": accuracy})
    assert _only(table.sample(frac=1.0, random_state=0)).outcome == "supported"


def test_tables_stacked_without_a_column_that_names_them_show_no_optimum() -> None:
    stacked = _stacked().sort_values("kind", kind="stable").drop(columns="kind")
    assert (_only(stacked).outcome, _only(stacked).withheld.kind) == ("undecided", "order")


def test_the_order_of_a_sorted_table_says_nothing() -> None:
    table = popstats.simulate_population(regimes=[0.6], n=200, rise=0.8).table[["macs", "params", "accuracy"]]
    original = popstats.simulate_population(regimes=[0.6], n=10).original
    for column in table:
        ordered = popstats.Population.from_frame(table.sort_values(column), original=original)
        assert Analysis(popstats.fit(ordered, regimes=[0.6])).regimes[0].outcome == "supported"


def test_a_one_sided_finding_must_not_rest_on_the_order_of_the_rows() -> None:
    log = _drifting(one_sided=True)
    assert _only(log).one_sided is None
    assert _only(log.sample(frac=1.0, random_state=0)).one_sided is not None


def test_variants_of_one_network_need_more_evidence() -> None:
    """Each network three times, trained in other ways; what differs between networks is no curve."""
    rng = np.random.default_rng(28)
    network = np.repeat(np.arange(24), 3)
    log_mcb, level = rng.uniform(-0.5, 0.5, 24), rng.normal(0.0, 0.25, 24)
    macs = 0.4 * np.exp(0.1 * rng.uniform(-1.0, 1.0, 24))
    frame = pd.DataFrame(
        {
            "macs": (macs * 1e11).astype(np.int64)[network],
            "params": (macs * np.exp(-log_mcb) * 1e9).astype(np.int64)[network],
            "accuracy": 88.0 - (3.0 * log_mcb**2 + level)[network] + rng.normal(0.0, 0.5, 72),
            "recipe_id": [f"run {i}" for i in range(72)],
        }
    )
    original = popstats.Original(macs=10**11, params=10**9, accuracy=90.0)
    outcomes = []
    for moved in (0, 1):  # With costs of its own, each is a recipe like any other.
        table = frame.assign(macs=frame["macs"] + moved * 10_000 * np.arange(72))
        population = popstats.Population.from_frame(table, original=original)
        outcomes.append(Analysis(popstats.fit(population, regimes={0.6: 0.1})).outcomes["0.60"])
    assert outcomes == ["undecided", "supported"]


def test_groups_end_at_gaps_and_are_no_wider_than_a_thirteenth() -> None:
    spread = np.linspace(-0.5, 0.5, 101)
    assert np.bincount(alike(spread, GRID)).max() <= 8
    clustered = np.concatenate([-0.5 + 0.1 * spread, 0.4 + 0.1 * spread])
    assert np.array_equal(alike(clustered, GRID), np.repeat([0, 1], 101))


def test_one_recipe_at_either_end_does_not_make_an_optimum() -> None:
    def drop(u: np.ndarray, m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return 2.0 + 3.0 * ((u == u.min()) | (u == u.max()))

    for seed in range(4):
        assert _posterior(drop, n=60, seed=seed, noise=0.15).outcome != "supported"


def test_a_one_sided_curve_is_a_finding() -> None:
    lower = _posterior(lambda u, m, rng: 2.0 + 0.5 * np.maximum(u, -0.5))
    assert lower.outcome == "refuted"
    assert sentence(lower.one_sided).startswith(
        "The lower the better, as far as observed; the high end costs 0.7"
    )
    assert lower.shape is lower.one_sided
    assert _posterior(lambda u, m, rng: 2.0 + 0.6 * u**2).one_sided is None
    higher = _posterior(lambda u, m, rng: 2.0 - 0.5 * u)
    assert sentence(higher.one_sided).startswith("The higher the better")
    refined = popstats.refine(higher.analysis.fit, regime=0.7)
    assert "The higher the better" in repr(refined)
