"""The width law and the recovered costs on populations whose law is known."""

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.errors import FitError
from popstats.planning.law import LAMBDAS, POOLED, WidthLaw, fit_law
from popstats.population.recipes import SOLVED, CostForm, original_widths, recover_cost
from popstats.population.simulate import simulate_population
from popstats.population.truths import LAYERS, LayerChain

FULL = np.array([32.0, 64.0, 128.0])
SLOPES = np.array([-0.5, -1.5, -0.2])
BENDS = np.array([0.1, 0.6, 0.0])


def macs(widths: np.ndarray) -> np.ndarray:
    first, second, third = widths.T
    return 900 * 3 * first + 400 * first * second + 100 * second * third + 10 * third


def params(widths: np.ndarray) -> np.ndarray:
    first, second, third = widths.T
    return 27 * first + 9 * first * second + 9 * second * third + 10 * third


def truth(widths: np.ndarray) -> np.ndarray:
    log = np.log(widths / FULL)
    return 1.0 + log @ SLOPES + log**2 @ BENDS


def population(n: int = 400, seeds: int = 2, noise: float = 0.1, seed: int = 0) -> popstats.Population:
    rng = np.random.default_rng(seed)
    widths = np.rint(FULL * rng.uniform(0.2, 1.0, size=(n, 3)))
    rows = np.repeat(np.arange(n), seeds)
    drop = truth(widths)[rows] + noise * rng.normal(size=rows.size)
    frame = pd.DataFrame(widths[rows], columns=["w1", "w2", "w3"])
    frame = frame.assign(macs=macs(widths)[rows], params=params(widths)[rows], accuracy=90.0 - drop)
    whole = popstats.Original(macs=int(macs(FULL[None])[0]), params=int(params(FULL[None])[0]), accuracy=90.0)
    return popstats.Population.from_frame(
        frame, original=whole, widths=["w1", "w2", "w3"], accuracy_kind="last"
    )


@pytest.fixture(scope="module")
def law() -> WidthLaw:
    return popstats.width_law(population())


def test_costs_are_recovered_exactly_and_price_unseen_widths() -> None:
    unseen = np.array([[17.0, 41.0, 99.0], [1.0, 1.0, 1.0]])
    for name, cost in (("macs", macs), ("params", params)):
        form = recover_cost(population(), name)
        assert form is not None
        np.testing.assert_allclose(form.cost(unseen), cost(unseen), rtol=1e-6)


def test_the_slope_of_the_cost_is_its_derivative() -> None:
    form = recover_cost(population(), "macs")
    assert form is not None
    widths, step = np.array([[20.0, 40.0, 80.0]]), 1e-5
    for g in range(3):
        wider = widths.copy()
        wider[0, g] *= np.exp(step)
        numeric = (form.cost(wider) - form.cost(widths))[0] / step
        assert form.log_width_slope(widths)[0, g] == pytest.approx(numeric, rel=1e-3)


def test_costs_that_do_not_follow_from_the_widths_are_not_recovered() -> None:
    table = population().table
    rng = np.random.default_rng(0)
    noisy = table.assign(macs=(table["macs"] * rng.uniform(0.5, 1.0, len(table))).round())
    made = popstats.Population.from_frame(
        noisy.drop_duplicates(["w1", "w2", "w3"]), widths=["w1", "w2", "w3"]
    )
    assert recover_cost(made, "macs") is None


def test_a_large_grid_in_the_order_of_its_widths_gives_its_costs_and_one_wrong_row_none() -> None:
    widths = np.stack(np.meshgrid(*[np.arange(1.0, 21.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    frame = pd.DataFrame(widths, columns=["w1", "w2", "w3"]).assign(
        macs=macs(widths).astype(int), params=params(widths).astype(int), accuracy=90.0
    )
    original = popstats.Original(
        macs=int(macs(FULL[None])[0]), params=int(params(FULL[None])[0]), accuracy=91.0
    )

    def recovered(table: pd.DataFrame) -> CostForm | None:
        return recover_cost(
            popstats.Population.from_frame(table, original=original, widths=["w1", "w2", "w3"])
        )

    assert len(frame) > SOLVED
    form = recovered(frame)
    assert form is not None
    np.testing.assert_allclose(form.cost(widths), macs(widths), rtol=1e-6)
    for wrong in range(0, len(frame), 1999):
        assert (
            recovered(frame.assign(macs=frame["macs"].where(frame.index != wrong, frame["macs"] + 2000)))
            is None
        )


def test_the_originals_widths_come_from_the_achieved_ratios() -> None:
    made = population()
    kept = made.table[["w1", "w2", "w3"]].to_numpy() / FULL
    frame = made.table.assign(ratios_achieved=(1.0 - kept).tolist())
    again = popstats.Population.from_frame(frame[frame["w1"] < 30], widths=["w1", "w2", "w3"])
    np.testing.assert_array_equal(original_widths(again), FULL)


def test_elasticities_are_the_average_slopes_of_the_truth(law: WidthLaw) -> None:
    widths = population().table[["w1", "w2", "w3"]].to_numpy()
    mean = np.log(widths / FULL).mean(axis=0)
    # 10 % wider buys minus the slope at the mean log-width: exactly the centre's coefficient.
    expected = -(SLOPES + 2.0 * BENDS * mean) * np.log(1.1)
    found = law.elasticities[law.elasticities["regime"] == POOLED]
    np.testing.assert_allclose(found["points"], expected, atol=0.004)
    assert (found["lower"] < expected + 0.002).all()
    assert (found["upper"] > expected - 0.002).all()


def test_a_quadratic_truth_reaches_the_noise_ceiling(law: WidthLaw) -> None:
    whole = law.fit.set_index("regime").loc[POOLED]
    assert whole["share_of_ceiling"] > 0.99
    assert 0.5 < whole["ceiling"] < 1.0


def test_elasticity_intervals_cover_at_their_nominal_rate() -> None:
    expected_at = []
    for seed in range(40):
        made = population(n=60, seeds=1, noise=0.3, seed=seed)
        widths = made.table[["w1", "w2", "w3"]].to_numpy()
        expected = -(SLOPES + 2.0 * BENDS * np.log(widths / FULL).mean(axis=0)) * np.log(1.1)
        found = popstats.width_law(made).elasticities.query(
            "regime == @POOLED", local_dict={"POOLED": POOLED}
        )
        expected_at.append((found["lower"] < expected) & (expected < found["upper"]))
    # 120 intervals of 90 %: 4 standard errors are 11 points.
    assert 0.79 < np.mean(expected_at) <= 0.99


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_the_posterior_is_that_of_normal_equations(kappa: float) -> None:
    rng = np.random.default_rng(0)
    n = 40
    shares, offset = rng.uniform(-1, 0, (n, 3)), rng.normal(0, 0.1, n)
    runs, levels = rng.integers(1, 4, n).astype(float), np.column_stack([np.ones(n), np.arange(n) % 2])
    y = (
        shares @ [1, 2, 0.5]
        + 0.3 * shares[:, 0] * shares[:, 1]
        + levels @ [1, 0.5]
        + 0.2 * rng.normal(size=n)
    )
    law = fit_law(shares, y, levels, offset, (kappa,), runs)
    d = shares - shares.mean(axis=0)
    pairs = [kappa * d[:, [0]] * d[:, 1:], kappa * d[:, [1]] * d[:, [2]]] if kappa else []
    columns = np.column_stack([levels, d, d**2, d.sum(axis=1), offset, offset**2, *pairs])
    flat = np.r_[0.0, 0.0, np.ones(columns.shape[1] - 2)]

    def solved(ratio: float, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = columns[keep]
        precision = (z * runs[keep, None]).T @ z + np.diag(flat / ratio)
        return np.linalg.solve(precision, z.T @ (runs * y)[keep]), np.linalg.inv(precision)

    whole = np.ones(n, dtype=bool)
    ratio = min(LAMBDAS, key=lambda r: np.abs(solved(r, whole)[0] - law.mean).max())
    mean, covariance = solved(ratio, whole)
    np.testing.assert_allclose(law.mean, mean, atol=1e-9)
    found = law.root @ law.root.T
    np.testing.assert_allclose(found, covariance * found[0, 0] / covariance[0, 0], atol=1e-9)
    others = np.arange(n) != 7
    assert law.left_out[7] == pytest.approx(y[7] - columns[7] @ solved(ratio, others)[0])


def test_costs_of_wider_groups_are_in_percent_of_the_original(law: WidthLaw) -> None:
    rows = law.elasticities[law.elasticities["regime"] == POOLED]
    np.testing.assert_allclose(rows["points"] / rows["macs_percent"], rows["points_per_percent_macs"])
    assert (rows["macs_percent"] > 0).all()


def test_without_widths_it_says_what_to_do() -> None:
    frame = population().table.drop(columns=["w1", "w2", "w3"])
    with pytest.raises(FitError, match=r"widths=\[\.\.\.\]"):
        popstats.width_law(popstats.Population.from_frame(frame))


def test_slopes_of_regimes_of_equal_cost_are_covered() -> None:
    """Shrunk one by one, without a common part, 0.7 of the intervals hold the truth."""
    chain = LayerChain(LAYERS)
    importance = np.array([layer.importance for layer in chain.layers])
    held = []
    for seed in range(12):
        made = simulate_population("additive-widths", regimes=[0.5], n=100, rise=0.4, noise=0.15, seed=seed)
        shares = np.log(np.asarray(made.widths) / chain.full_widths)
        bought = 0.4 * importance * (1.0 - 2.0 * shares.mean(axis=0)) * np.log(1.1)
        table = popstats.width_law(made).elasticities
        own = table[table["regime"] == "0.50"]
        held += ((own["lower"] <= bought) & (bought <= own["upper"])).tolist()
    # 0.89 of 240 intervals; of these 72, three standard errors are 11 points.
    assert np.mean(held) > 0.78
