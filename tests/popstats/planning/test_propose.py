"""The proposer of the winner search: legal, reproducible, better than luck, honest about gains."""

import ast
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from popstats.errors import PlanError
from popstats.planning.propose import (
    Problem,
    choose,
    gain_over,
    meet_budget,
    propose,
    schedule,
    smallest_gain,
    t_quantile,
)

FULL = np.array([16, 16, 32, 32, 64])
STEPS = np.array([1, 1, 1, 4, 1])


def cost(widths):
    """A chain of layers: each costs its inputs times its outputs."""
    chain = np.column_stack([np.full(len(widths), 3), widths])
    return (chain[:, 1:] * chain[:, :-1]).sum(axis=1) / (np.r_[3, FULL][1:] * np.r_[3, FULL][:-1]).sum()


def truth(widths):
    """Diminishing returns, the first groups buying the most."""
    share = widths / FULL
    return 90.0 + np.log(share) @ np.array([3.0, 2.5, 1.0, 0.3, 0.2]) - 0.5 * (np.log(share) ** 2).sum(axis=1)


@pytest.fixture(scope="module")
def problem():
    uniform, torch_pruning = [5, 5, 10, 12, 20], [4, 4, 10, 12, 24]
    return Problem(cost, 0.098, 0.112, FULL, np.array([torch_pruning, uniform]), steps=STEPS)


def run(problem, trainings, seed=0, until=None, **options):
    rng = np.random.default_rng([seed, 7])
    trained, outcome = np.empty((0, FULL.size), dtype=np.int64), np.empty(0)
    rounds = []
    while len(new := propose(problem, trained, outcome, trainings=trainings, seed=seed, **options)):
        rounds.append(new)
        trained = np.vstack([trained, new])
        outcome = np.r_[outcome, truth(new) + 0.2 * rng.standard_normal(len(new))]
        if until and len(rounds) == until:
            break
    return trained, outcome, rounds


def test_the_schedule_of_64_trainings_is_the_published_one():
    assert schedule(64) == (24, 7, 7, 7, 7, 6, 6)


@pytest.mark.parametrize("trainings", [8, 9, 16, 33, 64, 200])
@pytest.mark.parametrize("draws", [None, 1, 6, 40])
@pytest.mark.parametrize("given", [0, 5, 500])
def test_every_schedule_spends_what_it_has_and_keeps_workers_busy(trainings, draws, given):
    rounds = schedule(trainings, draws, given)
    assert sum(rounds) == trainings
    assert min(rounds) >= 1
    middle = rounds[1:-2]
    assert min(middle) >= min(draws or 1, sum(middle))


def test_proposals_are_on_the_budget_in_whole_steps_and_none_comes_twice_in_a_round(problem):
    trained, _, rounds = run(problem, 40)
    assert tuple(map(len, rounds)) == schedule(40)
    assert (problem.meets(trained) | (trained[:, None] == problem.baselines).all(axis=2).any(axis=1)).all()
    assert (trained % STEPS == 0).all()
    assert (trained >= 2).all()
    assert (trained <= FULL).all()
    for recipes in rounds[1:-2]:
        assert len(np.unique(recipes, axis=0)) == len(recipes)


def test_the_pilot_has_the_first_baseline_twice_and_the_others_once(problem):
    pilot = propose(problem, [], [], trainings=40)
    counts = [(pilot == row).all(axis=1).sum() for row in problem.baselines]
    assert counts == [2, 1]


def test_a_resumed_search_proposes_what_the_undisturbed_one_does(problem):
    whole = run(problem, 32)[0]
    trained, outcome, rounds = run(problem, 32, until=3)
    again = propose(problem, trained.tolist(), outcome.tolist(), trainings=32, seed=0)
    start = sum(map(len, rounds))
    np.testing.assert_array_equal(again, whole[start : start + len(again)])
    assert not np.array_equal(again, propose(problem, trained, outcome, trainings=32, seed=1))


def test_a_failed_recipe_is_not_proposed_again_and_does_not_stop_the_search(problem):
    trained, outcome, _ = run(problem, 40, until=1)
    outcome[[3, 5]] = np.nan
    again = propose(problem, trained, outcome, trainings=40)
    assert not (again[:, None] == trained[[3, 5]]).all(axis=2).any()


def test_the_search_finds_more_than_as_many_random_recipes(problem):
    regrets = []
    for seed in range(3):
        trained, outcome, _ = run(problem, 32, seed)
        pool = meet_budget(
            problem,
            np.log(FULL) + np.random.default_rng(seed).uniform(-1, 1, (32, 5)),
            np.random.default_rng(0),
        )
        best = truth(
            meet_budget(
                problem,
                np.log(trained[outcome.argmax()]) + 0.2 * np.random.default_rng(1).standard_normal((2000, 5)),
                np.random.default_rng(0),
            )
        ).max()
        chosen = choose(problem, trained, outcome)
        regrets.append((best - truth(chosen[None])[0], best - truth(pool).max()))
    ours, luck = np.mean(regrets, axis=0)
    assert ours < luck / 2


def test_a_given_population_of_another_level_is_a_pilot(problem):
    rng = np.random.default_rng(0)
    earlier = meet_budget(problem, np.log(FULL) + rng.uniform(-1, 1, (40, 5)), rng)
    known = truth(earlier) - 5.0
    rounds = schedule(16, given=len(earlier))
    assert rounds[0] == 4
    pilot = propose(problem, earlier, known, trainings=16, given=len(earlier))
    trained, outcome = np.vstack([earlier, pilot]), np.r_[known, truth(pilot)]
    new = propose(problem, trained, outcome, trainings=16, given=len(earlier))
    assert truth(new).mean() > truth(earlier).mean() + 1.0
    assert (choose(problem, trained, outcome, given=len(earlier))[None] == pilot).all(axis=1).any()


def test_a_table_of_candidates_is_all_that_is_proposed(problem):
    rng = np.random.default_rng(0)
    table = meet_budget(problem, np.log(FULL) + rng.uniform(-1, 1, (12, 5)), rng)
    listed = Problem(cost, 0.0, 1.0, FULL, table[:1], candidates=table)
    trained, _, _ = run(listed, 40)
    assert len(trained) == 40
    assert (trained[:, None] == table).all(axis=2).any(axis=1).all()


def test_what_cannot_be_searched_is_a_sentence(problem):
    nowhere = Problem(cost, 1e-4, 2e-4, FULL, problem.baselines)
    with pytest.raises(PlanError, match="smaller reduction"):
        propose(nowhere, [], [], trainings=16)
    with pytest.raises(PlanError, match="at least 8 trainings"):
        propose(problem, [], [], trainings=4)
    with pytest.raises(PlanError, match="one outcome per training"):
        propose(problem, problem.baselines, [1.0], trainings=16)
    pilot = propose(problem, [], [], trainings=16)
    with pytest.raises(PlanError, match="no training of the search has succeeded"):
        propose(problem, pilot, np.full(len(pilot), np.nan), trainings=16)


@pytest.mark.parametrize("df", [1.0, 2.7, 7.0, 30.0])
def test_students_t(df):
    assert t_quantile(df) == pytest.approx(stats.t.ppf(0.95, df), rel=1e-3)


@pytest.mark.parametrize(("seeds", "images"), [(8, 1), (4, 150)])
def test_the_interval_of_a_gain_covers_it(seeds, images):
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        hard = rng.normal(0, 25, images) if images > 1 else 0.0
        values = [
            mean + rng.normal(0, 0.5, (seeds, 1)) + hard + (images > 1) * rng.normal(0, 10, images)
            + (images > 1) * rng.normal(0, 20, (seeds, images))
            for mean in (91.0, 90.0)
        ]  # fmt: skip
        gain = gain_over(*values)
        covered += gain.lower <= 1.0 <= gain.upper
    assert 0.85 <= covered / 400 <= 0.95


def test_a_gain_needs_two_seeds_and_the_same_images():
    with pytest.raises(PlanError, match="two seeds"):
        gain_over([90.0], [89.0, 88.0])
    with pytest.raises(PlanError, match="same images"):
        gain_over(np.zeros((2, 5)), np.zeros((2, 6)))
    assert smallest_gain(8, 10_000) < smallest_gain(8, 500) < smallest_gain(2, 500)


def test_proposing_needs_numpy_alone():
    code = "import popstats.planning.propose, sys; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "numpy" in loaded
    assert not {"pandas", "scipy", "pyarrow", "pymc", "torch"} & set(ast.literal_eval(loaded))
