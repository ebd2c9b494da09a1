"""The winner search against luck, evolution and Optuna's TPE on real tables: design 6 asks for a quarter of random's regret.

Every method sees the same oracles and seeds in one run. TPE takes part where optuna can be imported.

The truth of a recipe is a law of second order through its regime plus the best linear prediction of the recipe's own
effect, with as much randomness added as real recipes have: as rough as the table, and independent of the noise that a
search sees. Noise is drawn from the table's own differences between seeds; NATS-Bench has one seed per recipe, of which
half of the variance between neighbours is taken to be noise.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from popstats.planning.propose import Problem, choose, gain_over, propose

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
MOBILENET = SHARED / "channel_bench_mobilenet.parquet"
NATS = SHARED / "nats_bench_sizes.parquet"
TARGETS = (0.45, 0.65, 0.8, 0.9)
#: Recipes of an oracle cost this share of the original, at most, more or less than the target.
HALF_WIDTH = 0.02
#: Median of a squared standard normal: turns a median of squares into a variance.
MEDIAN_SQUARE = 0.455


pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(not (MOBILENET.exists() and NATS.exists()), reason="the shared tables are not here"),
]

BUDGETS = (16, 32, 64, 128)
SEEDS = 8
#: Optuna is slow (a study of 128 trainings takes a second).
TPE_SEEDS = 4


def tables():
    """Return {name: (widths, full widths, share of MACs, accuracies of the runs)} of the shared tables."""
    mobile, nats = pd.read_parquet(MOBILENET), pd.read_parquet(NATS)
    whole = mobile[mobile["recipe"] == "4444444"].iloc[0]
    keep = np.rint(4 * mobile[[f"keep{i}" for i in range(1, 8)]].to_numpy()).astype(np.int64)
    runs = mobile[["acc_run1", "acc_run2", "acc_run3"]].to_numpy()
    found = {"MobileNet": (keep, np.full(7, 4), mobile["flops"].to_numpy() / whole["flops"], runs)}
    widths = nats[[f"c{i}" for i in range(1, 6)]].to_numpy(np.int64)
    for data in ("cifar10", "cifar100"):
        macs = nats[f"macs_{data}"].to_numpy() / nats[f"macs_{data}"].max()
        found[f"NATS {data}"] = (widths, np.full(5, 64), macs, nats[[f"acc_{data}"]].to_numpy())
    return found


class Oracle:
    """The recipes of a table near one budget, with truths and noise."""

    def __init__(self, name, table, target):
        widths, self.full, macs, runs = table
        near = np.abs(1 - macs - target) <= HALF_WIDTH
        self.name, self.target = f"{name} {target:.0%}", target
        self.widths, self.macs, runs = widths[near], macs[near], runs[near]
        self.log = np.log(self.widths / self.full)
        mean, seeds = runs.mean(axis=1), runs.shape[1]
        law = self._law(mean)
        residual = mean - law
        if seeds > 1:
            self.noise = ((runs - mean[:, None]) * np.sqrt(seeds / (seeds - 1))).ravel()
            seed_variance = float((self.noise**2).mean())
        else:
            seed_variance = self._between_neighbours(mean) / 2
            self.noise = np.sqrt(seed_variance) * np.random.default_rng(2).standard_normal(100_000)
        own = max(residual @ residual / max(1, len(mean) - self.terms) - seed_variance / seeds, 1e-4)
        known = own / (own + seed_variance / seeds)
        fresh = np.random.default_rng(0).standard_normal(len(mean))
        self.truth = law + known * residual + np.sqrt(own * (1 - known)) * fresh
        spread = np.round((self.widths / self.full).std(axis=1), 6)
        self.uniform = int(np.lexsort((np.abs(1 - self.macs - target), spread))[0])

    def __len__(self):
        return len(self.widths)

    def _law(self, mean):
        x = self.log - self.log.mean(axis=0)
        i, j = np.triu_indices(x.shape[1])
        design = np.hstack([np.ones((len(x), 1)), x, x[:, i] * x[:, j], x**3])
        self.terms = design.shape[1]
        return design @ np.linalg.lstsq(design, mean, rcond=None)[0]

    def _between_neighbours(self, mean):
        chosen = np.random.default_rng(1).choice(len(mean), 300, replace=False)
        squares = []
        for i in chosen:
            near = np.argsort(np.abs(self.log - self.log[i]).sum(axis=1))[1:9]
            squares.append((mean[near] - mean[i]) ** 2)
        return float(np.median(squares)) / MEDIAN_SQUARE / 2

    def train(self, rows, rng):
        """Return one outcome per row."""
        return self.truth[rows] + rng.choice(self.noise, len(rows))

    def regret(self, row):
        return float(self.truth.max() - self.truth[row])


def oracles(targets=TARGETS):
    """Return an oracle for each table and reduction."""
    return [Oracle(name, table, target) for name, table in tables().items() for target in targets]


def ours(oracle, trainings, seed, rng):
    row = {widths.tobytes(): i for i, widths in enumerate(oracle.widths)}
    problem = Problem(
        cost=lambda widths: np.full(len(widths), 1 - oracle.target), lowest=0.0, highest=1.0, full=oracle.full,
        baselines=oracle.widths[[oracle.uniform]], least=np.ones_like(oracle.full), candidates=oracle.widths,
    )  # fmt: skip
    trained, outcome = oracle.widths[:0], np.empty(0)
    while len(new := propose(problem, trained, outcome, trainings=trainings, seed=seed)):
        outcome = np.r_[outcome, oracle.train([row[w.tobytes()] for w in new], rng)]
        trained = np.vstack([trained, new])
    assert len(trained) == trainings
    return row[choose(problem, trained, outcome).tobytes()]


def luck(oracle, trainings, seed, rng):
    rows = rng.permutation(len(oracle))[:trainings]
    return rows[oracle.train(rows, rng).argmax()]


def evolution(oracle, trainings, seed, rng, size=16, sample=5):
    """Regularised evolution: the best of a few living recipes moves width between two groups; the oldest dies."""
    rows = list(rng.permutation(len(oracle))[: min(size, trainings // 2)])
    seen = list(oracle.train(rows, rng))
    while len(rows) < min(trainings, len(oracle)):
        living = np.arange(len(rows))[-size:]
        parent = rows[max(rng.choice(living, min(sample, living.size), replace=False), key=seen.__getitem__)]
        child = oracle.log[parent].copy()
        child[rng.choice(child.size, 2, replace=False)] += np.array([0.5, -0.5]) * rng.uniform(0.5, 1.5)
        distance = np.abs(oracle.log - child).sum(axis=1) + 1e-6 * rng.random(len(oracle))
        distance[rows] = np.inf
        rows.append(int(distance.argmin()))
        seen.append(oracle.train(rows[-1:], rng)[0])
    return rows[int(np.argmax(seen))]


def tree_parzen(oracle, trainings, seed, rng):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    levels = [np.unique(column) for column in oracle.widths.T]
    shape = oracle.log - oracle.log.mean(axis=1, keepdims=True)
    rows, seen = [], []
    for _ in range(trainings):
        trial = study.ask()
        asked = np.log(
            [w[trial.suggest_int(f"w{g}", 0, w.size - 1)] for g, w in enumerate(levels)] / oracle.full
        )
        distance = ((shape - (asked - asked.mean())) ** 2).sum(axis=1)
        rows.append(int((distance + 1e-9 * rng.random(distance.size)).argmin()))
        seen.append(oracle.train(rows[-1:], rng)[0])
        study.tell(trial, seen[-1])
    return rows[int(np.argmax(seen))]


def mean_regret(method, tests, trainings, seeds):
    regrets = [
        oracle.regret(method(oracle, trainings, seed, np.random.default_rng([seed, trainings, place])))
        for place, oracle in enumerate(tests)
        for seed in range(seeds)
    ]
    return float(np.mean(regrets))


@pytest.fixture(scope="module")
def tests_beds():
    return oracles()


@pytest.fixture(scope="module")
def table(tests_beds):
    methods = {"ours": ours, "random": luck, "evolution": evolution}
    return {
        name: [mean_regret(method, tests_beds, n, SEEDS if name == "ours" else 3 * SEEDS) for n in BUDGETS]
        for name, method in methods.items()
    }


def show(capsys, name, regrets):
    with capsys.disabled():
        print(f"\n{name:12s}" + "".join(f"{regret:8.3f}" for regret in regrets), end="")


def test_a_quarter_of_random_search(table, capsys):
    show(capsys, "trainings", BUDGETS)
    for name, regrets in table.items():
        show(capsys, name, regrets)
    ratio = np.array(table["ours"]) / np.array(table["random"])
    show(capsys, "ours/random", ratio)
    assert (ratio[1:] <= 0.25).all()
    assert (np.array(table["ours"]) < np.array(table["evolution"])).all()


def test_tpe_needs_four_times_the_trainings(table, tests_beds, capsys):
    pytest.importorskip("optuna")
    regrets = [mean_regret(tree_parzen, tests_beds, n, TPE_SEEDS) for n in BUDGETS]
    show(capsys, "Optuna TPE", regrets)
    assert table["ours"][0] <= regrets[2]
    assert table["ours"][1] <= regrets[3]


@pytest.mark.parametrize("confirmations", [4, 8])
def test_the_stated_gain_covers_the_truth(tests_beds, confirmations, capsys):
    covered, shown = [], []
    for place, oracle in enumerate(tests_beds):
        for seed in range(3 * SEEDS):
            rng = np.random.default_rng([seed, 5, place])
            winner = ours(oracle, 32, seed, rng)
            fresh = [oracle.train([row] * confirmations, rng) for row in (winner, oracle.uniform)]
            gain = gain_over(*fresh)
            truth = oracle.truth[winner] - oracle.truth[oracle.uniform]
            covered.append(gain.lower <= truth <= gain.upper or winner == oracle.uniform)
            shown.append(gain.lower > 0)
    with capsys.disabled():
        print(
            f"\nstated gain over uniform, {confirmations} confirmations: {np.mean(covered):.1%} of {len(covered)} "
            f"intervals cover; a gain is shown in {np.mean(shown):.0%}"
        )
    assert 0.85 <= np.mean(covered) <= 0.95
