"""Recommendations: within the budget, near the best, honest about what the table cannot tell."""

import json
import re

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.errors import PopulationError
from popstats.planning.budget_law import law_at, width_table
from popstats.planning.recommend import _units


@pytest.fixture(scope="module")
def digits():
    return popstats.load_population("digits-resnet8")


@pytest.fixture(scope="module")
def recommendation(digits):
    return popstats.recommend(digits, reduction=0.8)


def additive(n=200, seed=0, unit=1, names=("a", "b", "c"), **extra):
    """A chain of three groups whose accuracy is a sum over log-widths, without noise to speak of."""
    rng = np.random.default_rng(seed)
    full = np.array([64, 64, 128])
    widths = np.clip(np.rint(full * rng.uniform(0.2, 1.0, (n, 3)) / unit) * unit, unit, full)
    frame = pd.DataFrame(widths, columns=list(names)).assign(**costs(widths), **extra)
    frame["accuracy"] = truth(widths) + 0.02 * rng.standard_normal(n)
    whole = costs(full[None].astype(float))
    original = popstats.Original(macs=whole["macs"][0], params=whole["params"][0], accuracy=93.0)
    return popstats.Population.from_frame(frame, original=original, widths=list(names), name="chain")


def costs(widths):
    w = np.column_stack([np.full(len(widths), 3.0), widths])
    return {
        "macs": (w[:, 1:] * w[:, :-1] * [16, 4, 1]).sum(axis=1),
        "params": (w[:, 1:] * w[:, :-1]).sum(axis=1),
    }


def truth(widths):
    return 93.0 + np.log(widths / [64, 64, 128]) @ np.array([2.0, 0.5, 0.1])


def test_every_attribute_of_the_design_is_there_and_consistent(digits, recommendation):
    r = recommendation
    assert isinstance(r, popstats.Recommendation)
    assert list(r.widths) == list(digits.group_names)
    assert r.macs <= 0.2 * digits.original.macs
    assert r.uniform.macs <= 0.2 * digits.original.macs
    assert r.ratios["conv1"] == pytest.approx(1 - r.widths["conv1"] / 16)
    assert r.mcb == pytest.approx(r.macs / digits.original.macs / (r.params / digits.original.params))
    assert r.drop_lower < r.drop < r.drop_upper
    assert r.gain == pytest.approx(r.uniform.drop - r.drop)
    assert r.gain_lower < r.gain < r.gain_upper
    assert r.frame["name"].tolist() == ["recommended", "uniform"]
    assert (r.axis, r.technique) == ("macs", "fine-tune")


def test_uniform_keeps_the_same_fraction_up_to_a_unit(recommendation, digits):
    units = _units(width_table(digits, "macs"))
    full = np.array([16, 16, 32, 32, 64, 64])
    kept = np.array(list(recommendation.uniform.widths.values()))
    assert np.ptp(kept / full) <= 2 * (units / full).max()


def test_it_is_shown_and_saved(recommendation, tmp_path):
    assert "conv1" in repr(recommendation)
    assert "90 % interval" in recommendation.sentence
    assert "<table" in recommendation._repr_html_()
    content = json.loads(recommendation.to_json(tmp_path / "new" / "recipe.json").read_text())
    assert content["version"] == 1
    assert content["widths"] == recommendation.widths
    assert content["predicted"]["drop"][0] == recommendation.drop
    assert len(content["original_id"]) == 64
    assert set(content) == {
        "version",
        "network",
        "original_id",
        "axis",
        "reduction",
        "macs",
        "params",
        "widths",
        "ratios",
        "gains",
        "predicted",
    }


def test_the_saved_space_holds_the_recipe_alone(recommendation, tmp_path):
    from generate.recipes.sample import read_refined

    path = recommendation.to_toml(tmp_path / "recipe.toml")
    space = read_refined(path)
    assert space.target == pytest.approx(1 - recommendation.macs / 763_520)
    full = {"conv1": 16, "stage1.0.conv1": 16}
    for group, width in full.items():
        low, high = space.widths[group]
        assert low * width < recommendation.widths[group] < high * width or high == 1.0
        assert (high - low) * width < 4.0


def test_it_finds_what_widths_are_worth():
    population = additive()
    found = popstats.recommend(population, reduction=0.7)
    rng = np.random.default_rng(1)
    others = np.rint(np.array([64, 64, 128]) * rng.uniform(0.1, 1.0, (20_000, 3)))
    affordable = costs(others)["macs"] <= 0.3 * population.original.macs
    best = truth(others[affordable]).max()
    mine = truth(np.array([list(found.widths.values())]))[0]
    assert mine > best - 0.2
    assert found.drop_lower <= 93.0 - mine <= found.drop_upper
    assert found.gain_lower > 0.0


def test_a_tolerated_drop_is_answered_by_the_largest_reduction_that_keeps_it():
    population = additive()
    found = popstats.recommend(population, drop=1.5)
    assert found.drop_upper <= 1.5
    harsher = popstats.recommend(population, reduction=min(found.reduction + 0.05, 0.85))
    assert harsher.drop_upper > 1.5
    with pytest.raises(PopulationError, match="no supported reduction keeps the drop"):
        popstats.recommend(population, drop=-5.0)


def test_the_frontier_rises_and_uniform_is_never_clearly_better():
    frame = popstats.frontier(additive())
    assert frame["reduction"].is_monotonic_increasing
    assert (np.diff(frame["drop"]) > -0.25).all()
    assert (frame["gain_upper"] >= 0.0).all()
    assert frame["drop"].iloc[-1] > frame["drop"].iloc[0] + 0.5


def test_the_other_axis_limits_the_other_cost(digits):
    found = popstats.recommend(digits, reduction=0.8, axis="params")
    assert found.params <= 0.2 * digits.original.params
    assert found.macs > 0.2 * digits.original.macs


def test_listed_candidates_are_ranked():
    population = additive()
    listed = np.rint(np.array([64, 64, 128]) * np.random.default_rng(3).uniform(0.3, 0.9, (400, 3)))
    frame = pd.DataFrame(listed, columns=["a", "b", "c"]).assign(note="x", **costs(listed))
    found = popstats.recommend(population, reduction=0.6, candidates=frame)
    affordable = listed[frame["macs"] <= 0.4 * population.original.macs]
    assert truth(np.array([list(found.widths.values())]))[0] > np.quantile(truth(affordable), 0.9)
    assert found.ranking["drop"].is_monotonic_increasing
    assert (found.ranking["macs"] <= 0.4 * population.original.macs).all()
    assert "note" in found.ranking


def test_where_costs_do_not_follow_from_widths_the_tables_own_recipes_are_ranked():
    population = additive()
    frame = population.table.assign(
        macs=population.table["macs"] * np.random.default_rng(0).uniform(0.95, 1, 200)
    )
    bent = popstats.Population.from_frame(frame, original=population.original, widths=["a", "b", "c"])
    found = popstats.recommend(bent, reduction=0.6)
    assert (frame[["a", "b", "c"]].to_numpy() == list(found.widths.values())).all(axis=1).any()


def test_costs_and_layers_of_a_run_come_from_its_metadata(tmp_path):
    exact = [[0, 0, 0], [0, 0, 10], [0, 10, 0]]
    rng = np.random.default_rng(0)
    widths = rng.integers(2, 9, (120, 2)) * 4
    frame = pd.DataFrame(widths, columns=["a", "b"]).assign(
        macs=20 * widths.prod(axis=1) / 8, params=widths.prod(axis=1)
    )
    frame["accuracy"] = 90 + np.log(widths / 32) @ [1.0, 2.0]
    population = popstats.Population.from_frame(
        frame, original=popstats.Original(macs=2560.0, params=1024.0, accuracy=90.0), widths=["a", "b"]
    )
    stored = {"groups": ["a", "b"], "widths": [32, 32], "steps": [2, 4], "macs": exact, "params": exact}
    population.metadata["costs"] = stored
    stored["layers"] = {
        "first": {"of": 32, "group": "a", "per_channel": {"a": 1}},
        "flat": {"of": 128, "group": "b", "per_channel": {"b": 4}},
        "head": {"of": 10, "group": None, "per_channel": {}},
    }
    found = popstats.recommend(population, reduction=0.5)
    recipe = json.loads(found.to_json(tmp_path / "recipe.json").read_text())
    assert recipe["layers"]["first"]["channels"] == found.widths["a"]
    assert recipe["layers"]["flat"]["channels"] == 4 * found.widths["b"]
    assert recipe["torch_pruning"]["head"] == 0.0
    kept = [
        int(width * (1 - recipe["torch_pruning"][layer])) for layer, width in (("first", 32), ("flat", 32))
    ]
    assert kept == [found.widths["a"], found.widths["b"]]
    assert found.macs == pytest.approx(20 * found.widths["a"] * found.widths["b"] / 8)
    assert found.widths["a"] % 2 == found.widths["b"] % 4 == 0


@pytest.mark.parametrize(
    ("reduction", "said"),
    [
        (80, "write 0.8"),
        (0.0, "between 0 and 1"),
        ("0.8", "between 0 and 1"),
        (np.nan, "between 0 and 1"),
        (True, "got True"),
    ],
)
def test_a_reduction_that_is_none_is_refused(digits, reduction, said):
    with pytest.raises(PopulationError, match=said):
        popstats.recommend(digits, reduction=reduction)


def test_a_budget_that_the_recipes_do_not_support_is_refused_with_the_range(digits):
    with pytest.raises(PopulationError, match=r"supports reductions from 0\.\d+ to 0\.9\d"):
        popstats.recommend(digits, reduction=0.97)


def test_what_cannot_be_asked_is_a_sentence(digits):
    with pytest.raises(PopulationError, match=r"either reduction= .* got both"):
        popstats.recommend(digits, reduction=0.8, drop=1.0)
    with pytest.raises(PopulationError, match="expected a Population, got str"):
        popstats.recommend("digits-resnet8", reduction=0.8)
    for wrong in ("1", True, np.nan):
        with pytest.raises(PopulationError, match="drop: expected a number"):
            popstats.recommend(digits, drop=wrong)
    with pytest.raises(PopulationError, match="got neither"):
        popstats.recommend(digits)
    with pytest.raises(PopulationError, match="expected 'macs' or 'params', got 'mac'"):
        popstats.recommend(digits, reduction=0.8, axis="mac")
    with pytest.raises(PopulationError, match="missing: macs"):
        popstats.recommend(
            digits,
            reduction=0.8,
            candidates=pd.DataFrame({g: [4] for g in digits.group_names} | {"params": [9]}),
        )
    with pytest.raises(PopulationError, match="one recipe per row"):
        popstats.recommend(digits, reduction=0.8, candidates=pd.DataFrame())
    bad = pd.DataFrame({g: [4, "x"] for g in digits.group_names} | {"params": [9, 9], "macs": [9, 9]})
    with pytest.raises(PopulationError, match="1 rows"):
        popstats.recommend(digits, reduction=0.8, candidates=bad)
    with pytest.raises(PopulationError, match="none of 1 costs between"):
        popstats.recommend(digits, reduction=0.8, candidates=bad.head(1))


def test_tables_without_what_it_takes_are_refused():
    bare = popstats.simulate_population("quadratic", regimes=[0.6], n=60)
    with pytest.raises(PopulationError, match="has no widths") as refused:
        popstats.recommend(bare, reduction=0.6)
    assert refused.value.on_command_line.endswith("hold them: --widths A,B,...")
    with pytest.raises(PopulationError, match="too few for a recommendation"):
        popstats.recommend(additive(8), reduction=0.6)
    same = pd.concat([additive(40).table.iloc[[0]].drop(columns="accuracy")] * 40).assign(
        accuracy=np.arange(40) / 40 + 90
    )
    population = popstats.Population.from_frame(same, original=additive().original, widths=["a", "b", "c"])
    with pytest.raises(PopulationError, match="have the same widths"):
        popstats.recommend(population, reduction=0.6)


def test_one_regime_is_enough_for_its_own_budget():
    population = popstats.simulate_population("additive-widths", regimes=[0.6], n=60, rise=1.0)
    assert popstats.recommend(population, reduction=0.6).macs <= 0.4 * population.original.macs
    with pytest.raises(PopulationError, match="supports reductions"):
        popstats.recommend(population, reduction=0.8)


def test_skipped_blocks_and_fractions_are_legal_widths():
    table = additive(120).table
    skipped = table.assign(b=np.where(np.arange(len(table)) % 10 == 0, 0, table["b"]))
    population = popstats.Population.from_frame(skipped, original=additive().original, widths=["a", "b", "c"])
    assert np.isfinite(popstats.recommend(population, reduction=0.6).drop)
    shares = table.assign(a=table["a"] / 64, b=table["b"] / 64, c=table["c"] / 128)
    population = popstats.Population.from_frame(shares, original=additive().original, widths=["a", "b", "c"])
    found = popstats.recommend(population, reduction=0.6)
    assert max(found.widths.values()) <= 1.0


def test_collapsed_recipes_do_not_move_the_recommendation():
    table = additive(200).table
    collapsed = table.assign(accuracy=np.where(np.arange(200) % 25 == 0, 10.0, table["accuracy"]))
    population = popstats.Population.from_frame(
        collapsed, original=additive().original, widths=["a", "b", "c"]
    )
    found = popstats.recommend(population, reduction=0.7)
    best = truth(np.array([list(popstats.recommend(additive(200), reduction=0.7).widths.values())]))[0]
    assert truth(np.array([list(found.widths.values())]))[0] > best - 0.3


def test_a_gain_over_a_uniform_recipe_that_nothing_resembles_has_no_interval():
    table = additive(300).table
    whole = np.array([[64.0, 64.0, 128.0]])
    original = pd.DataFrame(whole, columns=["a", "b", "c"]).assign(**costs(whole), accuracy=93.0)
    uneven = pd.concat([table[table["a"] < 0.4 * 64], original])
    population = popstats.Population.from_frame(uneven, original=additive().original, widths=["a", "b", "c"])
    found = popstats.recommend(population, reduction=0.6)
    assert np.isnan(found.gain_lower)
    assert "training decides" in found.sentence


def test_the_law_predicts_recipes_that_it_has_not_seen(digits):
    table = width_table(digits, "macs")
    law = law_at(table, np.log(0.2))
    rows = law.rows[law.inner]
    left_out = law.left_out[law.inner]
    assert left_out.std() < table.outcome[rows].std()
    assert np.isfinite(law.uncertainty(table.log_shares[rows])).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: pd.concat([c, c[["a"]]], axis=1), "more than once: a"),
        (lambda c: c.assign(a=np.where(c.index < 4, np.nan, c["a"])), "4 rows"),
        (lambda c: c.assign(macs=np.inf), "got others in 60 rows"),
        (lambda c: c.assign(macs=c["macs"] / 1e6), "they cost 0.00"),
        (lambda c: c.assign(a=1000), "widths that the trained recipes support"),
    ],
)
def test_candidates_that_answer_nothing_are_refused_with_what_is_wrong(change, said):
    widths = np.rint(np.array([64, 64, 128]) * np.random.default_rng(3).uniform(0.3, 0.9, (60, 3)))
    listed = pd.DataFrame(widths, columns=["a", "b", "c"]).assign(**costs(widths))
    for question in ({"reduction": 0.6}, {"drop": 1.5}):
        with pytest.raises(PopulationError, match=re.escape(said)):
            popstats.recommend(additive(), candidates=change(listed), **question)


def test_a_candidate_that_is_listed_twice_is_one():
    widths = np.rint(np.array([64, 64, 128]) * np.random.default_rng(3).uniform(0.3, 0.9, (60, 3)))
    listed = pd.DataFrame(widths, columns=["a", "b", "c"]).assign(**costs(widths), macs_rank=1)
    once, twice = (
        popstats.recommend(additive(), reduction=0.6, candidates=c) for c in (listed, pd.concat([listed] * 2))
    )
    assert once.widths == twice.widths
    assert len(once.ranking) == len(twice.ranking)
    assert "the most even candidate" in once.sentence


def test_budgets_between_clusters_of_costs_are_not_supported():
    table = additive(900).table
    share = table["macs"] / additive().original.macs
    split = table[(share > 0.5) | (share < 0.2)]
    population = popstats.Population.from_frame(split, original=additive().original, widths=["a", "b", "c"])
    with pytest.raises(PopulationError, match=r"supports reductions from 0\.\d+ to 0\.5\d+ and 0\.7"):
        popstats.recommend(population, reduction=0.64)


def test_a_tolerance_that_everything_meets_is_answered_with_the_largest_supported_reduction():
    population = additive()
    found = popstats.recommend(population, drop=50)
    _, high = width_table(population, "macs").supported()[-1]
    assert found.reduction == high
    assert "the largest reduction that the table supports" in found.note


def test_accuracies_that_are_all_the_same_say_nothing_about_widths():
    table = additive().table.assign(accuracy=91.0)
    population = popstats.Population.from_frame(table, original=additive().original, widths=["a", "b", "c"])
    with pytest.raises(PopulationError, match="all 200 recipes have the same accuracy"):
        popstats.recommend(population, reduction=0.6)


def test_densities_are_shares_of_the_original_even_where_no_recipe_keeps_everything():
    table = additive().table
    shares = table.assign(a=table["a"] / 64, b=table["b"] / 64, c=table["c"] / 128)
    population = popstats.Population.from_frame(
        shares[shares[["a", "b", "c"]].max(axis=1) < 0.95],
        original=additive().original,
        widths=["a", "b", "c"],
    )
    found = popstats.recommend(population, reduction=0.6)
    assert found.ratios["a"] == pytest.approx(1.0 - found.widths["a"])


def test_from_the_command_line(tmp_path, capsys):
    from popstats.__main__ import main

    path, listed = tmp_path / "recipe.json", tmp_path / "listed.csv"
    listed.write_text("macs,params\n1,1\n")
    assert main(["recommend", "digits-resnet8", "--reduction", "0.8", "-o", str(path)]) == 0
    out = capsys.readouterr().out
    assert "keep conv1" in out
    assert json.loads(path.read_text())["version"] == 1
    assert main(["recommend", "digits-resnet8", "--reduction", "80"]) == 2
    assert "write 0.8" in capsys.readouterr().err
    assert main(["recommend", "digits-resnet8", "--drop", "5", "--candidates", str(listed)]) == 2
    assert "missing: conv1" in capsys.readouterr().err
    assert main(["recommend", "digits-resnet8", "-o", str(path)]) == 2
    assert re.search("--output would change nothing", capsys.readouterr().err)


def saturating(widths):
    """Drop of a chain of eight groups: a sum over log-widths, of which nothing below two points can be had."""
    total = -np.log(widths / 64) @ np.linspace(2.0, 0.2, 8)
    return np.hypot(total - 3.0, 2.0) - 1.0


def test_intervals_cover_where_improvement_beyond_the_trained_recipes_saturates():
    names, covered = [f"g{k}" for k in range(8)], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        widths = np.rint(64 * np.exp(rng.uniform(-1.6, 0.0, (100, 8))))
        macs = (widths[:, 1:] * widths[:, :-1]).sum(axis=1)
        frame = pd.DataFrame(widths, columns=names).assign(macs=macs, params=macs / 4)
        frame["accuracy"] = 90.0 - saturating(widths) + 0.1 * rng.standard_normal(100)
        original = popstats.Original(macs=7 * 64**2, params=7 * 16 * 64, accuracy=90.0)
        population = popstats.Population.from_frame(frame, original=original, widths=names)
        r = popstats.recommend(population, reduction=0.6)
        drop = float(saturating(np.array(list(r.widths.values()))))
        covered.append(r.drop_lower <= drop <= r.drop_upper)
    assert sum(covered) >= 6
