"""Plans: what is read, what is refused, and what a plan's identity is made from."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from generate.plan import (
    DEFAULT_PLAN,
    TrainingSettings,
    only_adds,
    plan_from_dict,
    read_plan,
    read_study,
    toml_of,
)
from generate.recipes.worklist import Place, recipe_identity, subnetwork_identity
from popstats.errors import PlanError

SMALL = {"name": "small", "recipes": [{"regimes": [0.5], "count": 3}]}


def with_recipes(**changes):
    return {**SMALL, "recipes": [{**SMALL["recipes"][0], **changes}]}


@pytest.mark.parametrize("path", sorted(DEFAULT_PLAN.parent.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_plan_is_legal_and_says_what_it_is_for(path: Path):
    for plan in read_study(path).plans.values():
        assert plan.description
        assert plan_from_dict(plan.as_dict()) == plan
        assert plan_from_dict(tomllib.loads(toml_of(plan.as_dict()))) == plan


def test_an_unknown_key_is_refused_with_the_legal_ones():
    with pytest.raises(
        PlanError, match=r"unknown key 'regime'.*Did you mean 'regimes'.*Legal keys: regimes, count"
    ):
        plan_from_dict(with_recipes(regime=[0.5]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regimes": [1.5]}, "between 0 and 1"),
        ({"regimes": [0.0]}, "between 0 and 1"),
        ({"regimes": []}, "at least one regime"),
        ({"regimes": [0.5, 0.5]}, "must not repeat"),
        ({"count": 0}, "at least 1"),
        ({"count": 2.5}, "expected a whole number, got 2.5"),
        ({"count": True}, "expected a whole number"),
        ({"axis": "flops"}, r"expected macs \| params \| both, got 'flops'"),
        ({"space": "std:0.3-0.1"}, "std:LOW-HIGH"),
        ({"space": "stratfied"}, "random, stratified"),
        ({"criterion": "L1"}, "l1"),
        ({"retraining": ["finetune"]}, "Did you mean 'fine-tune'"),
        ({"mcb_range": 1.0}, "more than 1"),
    ],
)
def test_impossible_recipes_are_refused_with_the_reason(changes, message):
    with pytest.raises(PlanError, match=message):
        plan_from_dict(with_recipes(**changes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "above 0"),
        ({"momentum": 1.0}, "0 to 1"),
        ({"schedule": "cyclic"}, "one-cycle"),
        ({"lr": 0.1}, "unknown key 'lr'"),
    ],
)
def test_impossible_training_settings_are_refused(settings, message):
    with pytest.raises(PlanError, match=message):
        plan_from_dict({**SMALL, "original": {"training": settings}})


def test_a_missing_file_and_broken_toml_are_sentences(tmp_path):
    with pytest.raises(PlanError, match="There is no plan at"):
        read_plan(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(PlanError, match="not valid TOML"):
        read_plan(tmp_path / "broken.toml")


def test_fine_tuning_inherits_the_original_at_a_tenth_of_its_rate():
    table = {**SMALL, "original": {"training": {"learning_rate": 0.1, "weight_decay": 1e-3}}}
    settings = plan_from_dict(table).retraining["fine-tune"]
    assert settings == TrainingSettings(learning_rate=0.01, schedule="constant", weight_decay=1e-3)


def test_refined_spaces_are_found_relative_to_the_plan(tmp_path):
    (tmp_path / "p.toml").write_text(
        'name = "p"\n[[recipes]]\nregimes = [0.5]\ncount = 2\nspace = "refined:space.toml"\n'
    )
    assert read_plan(tmp_path / "p.toml").recipes[0].space == f"refined:{tmp_path / 'space.toml'}"


@pytest.mark.parametrize("share", [0, -0.5, 1.5, 2])
def test_a_training_takes_a_share_of_one_gpu(share):
    with pytest.raises(PlanError, match="share of one GPU, above 0 and at most 1"):
        plan_from_dict({**SMALL, "gpus_per_training": share})


@pytest.mark.parametrize(
    ("changes", "grows"),
    [
        ({"count": 5}, True),
        ({"regimes": [0.5, 0.7]}, True),
        ({"seeds": 2}, True),
        ({"retraining": ["fine-tune", "scratch"]}, True),
        ({"count": 2}, False),
        ({"regimes": [0.7]}, False),
        ({"space": "random"}, False),
    ],
)
def test_a_plan_may_only_grow(changes, grows):
    assert only_adds(plan_from_dict(SMALL), plan_from_dict(with_recipes(**changes))) is grows


@pytest.mark.parametrize("change", [{"seed": 1}, {"network": {"width": 0.5}}, {"images": {"validation": 50}}])
def test_other_changes_are_no_growth(change):
    assert not only_adds(plan_from_dict(SMALL), plan_from_dict({**SMALL, **change}))


def test_the_identity_of_a_training_is_pinned():
    """These hashes name rows in published tables: if one changes, resumed runs would train everything again."""
    settings = TrainingSettings(epochs=8, learning_rate=0.02, schedule="constant", augmentation="shift1")
    identity = recipe_identity(
        Place("ab" * 32, "digits", "1x8x8"), {"b": 4, "a": 2}, "fine-tune", "l1", settings
    )
    assert subnetwork_identity(identity) == "2f6b1946c12fc87b9b3810ce8c4257bcd7145d613f7abfb2c6df26a27bb15c33"
    assert (
        subnetwork_identity(identity, seed=0)
        == "6205d8b56e92f1ddcd984d505929b1668db8f8d7f79691f4cfbff1feafca7325"
    )


def test_default_settings_do_not_enter_the_identity():
    assert TrainingSettings().identity() == {}
    assert dataclasses.replace(TrainingSettings(), batch_size=64).identity() == {"batch_size": 64}


def test_the_filter_score_matters_only_where_weights_are_kept():
    def identity(technique, criterion):
        widths = {"a": 2}
        return recipe_identity(
            Place("0", "digits", "1x8x8"), widths, technique, criterion, TrainingSettings()
        )

    assert identity("scratch", "l1") == identity("scratch", "random")
    assert identity("fine-tune", "l1") != identity("fine-tune", "random")


def test_latency_is_measured_only_where_asked_and_for_at_least_one_image():
    assert plan_from_dict(SMALL).latency_batch is None
    assert plan_from_dict({**SMALL, "latency_batch": 8}).latency_batch == 8
    with pytest.raises(PlanError, match="latency_batch: expected at least 1, got 0"):
        plan_from_dict({**SMALL, "latency_batch": 0})


def test_a_copy_of_a_plan_elsewhere_means_the_same(tmp_path):
    """The run folder holds one, and is continued from it."""
    plan, copy = tmp_path / "plän.toml", tmp_path / "run" / "plan.toml"
    plan.write_text(
        'name = "p"\n[[recipes]]\nregimes = [0.5]\ncount = 2\nspace = "refined:räume/space.toml"\n'
        "[retraining.scratch]\nlearning_rate = 1e-5\n"
    )
    copy.parent.mkdir()
    copy.write_text(toml_of(read_plan(plan).as_dict()))
    assert read_plan(copy) == read_plan(plan)


def test_a_plan_that_says_nothing_of_training_trains_the_digits_well():
    plan = plan_from_dict(SMALL)
    shipped = read_plan(DEFAULT_PLAN)
    assert plan.original.training == shipped.original.training
    assert plan.retraining["fine-tune"] == shipped.retraining["fine-tune"]
    shorter = plan_from_dict({**SMALL, "retraining": {"fine-tune": {"epochs": 1}}})
    assert shorter.retraining["fine-tune"] == dataclasses.replace(plan.retraining["fine-tune"], epochs=1.0)
    own = plan_from_dict({**SMALL, "original": {"training": {"epochs": 3}}})
    assert own.original.training == TrainingSettings(epochs=3.0)


def study_file(tmp_path, network: str, name: str = "s"):
    path = tmp_path / "study.toml"
    path.write_text(
        f'name = "{name}"\n[network]\n{network}\n[[recipes]]\nregimes = [0.5]\ncount = 2\nround_to = 2\n'
    )
    return path


def test_a_study_is_one_plan_per_network_and_prunes_the_same_shares_of_each(tmp_path):
    study = read_study(study_file(tmp_path, "width = [0.5, 1, 2]"))
    assert list(study.plans) == ["0.5x", "1x", "2x"]
    assert [plan.name for plan in study.plans.values()] == ["s-0.5x", "s-1x", "s-2x"]
    # A quarter of the first stage each: of 8, 16 and 32 channels.
    assert [(p.network.width, p.recipes[0].round_to) for p in study.plans.values()] == [
        (0.5, 2),
        (1.0, 4),
        (2.0, 8),
    ]
    alone = tmp_path / "alone.toml"
    alone.write_text(toml_of(study.plans["2x"].as_dict()))
    assert read_plan(alone) == study.plans["2x"]
    copy = tmp_path / "copy.toml"
    copy.write_text(toml_of(study.table))
    assert read_study(copy).plans == study.plans


def test_names_and_widths_of_a_study_are_crossed(tmp_path):
    plans = read_study(
        study_file(tmp_path, 'name = ["cifar_resnet8", "my.nets:deep"]\nwidth = [1, 0.5]')
    ).plans
    assert list(plans) == ["cifar_resnet8-1x", "cifar_resnet8-0.5x", "my.nets-deep-1x", "my.nets-deep-0.5x"]
    assert [plan.network.name for plan in plans.values()] == ["cifar_resnet8"] * 2 + ["my.nets:deep"] * 2


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("width = []", r"network, width: expected different values in the list, got \[\]"),
        ("width = [1, 1.0]", "expected different values"),
        ("width = [1, 'wide']", "network, width: expected a number, got 'wide'"),
        ("width = [0, 1]", "network, width: expected a number above 0"),
        ("name = [8, 20]", "network, name: expected a text in quotes, got 8"),
        ("width = [2, 0.5]", "round_to: in proportion to the width, it becomes 0.5 channels at width 0.5"),
        ("depth = [8, 20]", r"unknown key 'depth'.*Legal keys: name, width, stem, keep"),
    ],
)
def test_impossible_studies_are_refused_with_the_reason(tmp_path, network, message):
    with pytest.raises(PlanError, match=message):
        read_study(study_file(tmp_path, network))


def test_where_one_network_is_expected_a_study_is_refused(tmp_path):
    with pytest.raises(PlanError, match=r"expected one network, got a study of 2 \(0.5x, 1x\)"):
        read_plan(study_file(tmp_path, "width = [0.5, 1]"))
    nameless = tmp_path / "nameless.toml"
    nameless.write_text("[network]\nwidth = [1, 2]\n[[recipes]]\nregimes = [0.5]\ncount = 2\n")
    with pytest.raises(PlanError, match="name is missing"):
        read_study(nameless)
