"""Populations of pruned weights: the plan's rules, baselines on the budget, and a run like that of filters."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from generate.export import export_subnetwork
from generate.inputs.networks import build_network
from generate.plan import PLAIN_BASELINES, PruningPlan, only_adds, plan_from_dict, read_plan
from generate.prune.dependency_graph import with_values
from generate.prune.masks import magnitudes, mask_network, weight_costs
from generate.recipes.baselines import baseline_widths
from generate.recipes.worklist import Place, make_worklist, with_identities
from generate.run.folder import RunFolder
from generate.run.prepare import prepare, survey, worker_context
from generate.train.subnetwork import cut_network, train_subnetwork
from popstats import Population
from popstats.errors import PlanError, RunFolderError
from popstats.population import columns
from tests.generate.conftest import TINY, command, rows, run

CPU, SHAPE = torch.device("cpu"), (1, 8, 8)
BLOCK = {"regimes": [0.6], "count": 2, "seeds": 2, "baselines": list(PLAIN_BASELINES["weights"])}


def plan(kind: str = "weights", **changes):
    return plan_from_dict({"name": "p", "pruning": {"kind": kind}, "recipes": [BLOCK | changes]})


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = build_network("cifar_resnet8", classes=10, input_shape=SHAPE)
    with torch.no_grad():
        made.stage2[0].conv2.weight *= 0.1
    return made


@pytest.mark.parametrize(("axis", "reduction"), [("macs", 0.5), ("macs", 0.9), ("params", 0.8)])
@pytest.mark.parametrize("name", PLAIN_BASELINES["weights"])
def test_every_baseline_lies_on_the_budget_and_above_the_floor(network, name, axis, reduction):
    costs = weight_costs(network, SHAPE, PruningPlan("weights"))
    widths = baseline_widths(name, costs, network, axis, reduction)
    macs, params = (
        costs.macs(widths)[0] / costs.original_macs,
        costs.params(widths)[0] / costs.original_params,
    )
    assert (macs if axis == "macs" else params) == pytest.approx(1 - reduction, abs=0.003)
    assert (widths >= costs.least).all()
    assert (widths % costs.steps == 0).all()


def test_baselines_keep_what_their_names_promise(network):
    costs = weight_costs(network, SHAPE, PruningPlan("weights"))
    kept = {n: baseline_widths(n, costs, network, "macs", 0.6) for n in PLAIN_BASELINES["weights"]}
    densities = {name: widths / costs.full_widths for name, widths in kept.items()}
    layers = {group.name: place for place, group in enumerate(costs.groups)}
    assert np.ptp(densities["uniform"][1:]) < 1 / 16  # a shortcut has 16 weights per filter
    # (inputs + outputs + kernel) / (inputs * outputs * kernel) of two layers that keep less than all of their weights
    ratio = (64 + 64 + 6) / (64 * 64 * 9) / ((32 + 64 + 6) / (32 * 64 * 9))
    wide, narrow = (densities["erk"][layers[f"stage3.0.conv{i}"]] for i in (2, 1))
    assert wide / narrow == pytest.approx(ratio, rel=0.02)
    # Weights a tenth as large go first where all are compared as they are, and not where layers are put on one scale.
    shrunk = layers["stage2.0.conv2"]
    assert kept["global"][shrunk] == costs.least[shrunk]
    assert densities["lamp"][shrunk] > 5 * densities["global"][shrunk]
    weights = np.concatenate([network.get_submodule(n).weight.detach().abs().numpy().ravel() for n in layers])
    threshold = np.quantile(weights, 1 - kept["global"].sum() / weights.size)
    above = (network.stage3[0].conv1.weight.detach().abs() >= threshold).sum()
    assert kept["global"][layers["stage3.0.conv1"]] == pytest.approx(int(above), rel=0.02)


def test_the_layers_of_attention_have_densities_of_their_own():
    vit = build_network("digits_vit", classes=10, input_shape=SHAPE)
    costs = weight_costs(vit, SHAPE, PruningPlan("weights"))
    names = [group.name for group in costs.groups]
    assert {f"blocks.0.attention.{part}_proj" for part in ("q", "k", "v", "out")} < set(names)
    for name in PLAIN_BASELINES["weights"]:
        widths = baseline_widths(name, costs, vit, "macs", 0.5)
        masked = mask_network(
            vit, costs.groups, magnitudes(with_values(vit), costs.groups), widths, PruningPlan("weights")
        )
        assert [int((masked.get_submodule(n).weight != 0).sum()) for n in names] == widths.tolist()


def test_uniform_pruning_of_filters_is_a_baseline_too():
    tiny = plan("filters", baselines=["uniform"], count=0)
    trainings = survey(tiny).trainings
    assert [t.space for t in trainings] == ["baseline:uniform"] * 2
    assert trainings[0].widths[:3] == pytest.approx([10, 10, 21], abs=2)


def test_a_baseline_that_cannot_meet_the_budget_is_refused(network):
    costs = weight_costs(network, SHAPE, PruningPlan("2:4"))
    assert baseline_widths("lamp", costs, network, "macs", 0.3).min() > 0
    with pytest.raises(PlanError, match=r"baselines: 'erk' comes no nearer to a reduction of 0.7 than 0.49"):
        baseline_widths("erk", costs, network, "macs", 0.7)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("filter", {}, r"pruning, kind: expected filters \| weights \| 2:4"),
        ("weights", {"criterion": "l1"}, "criterion: expected magnitude, got 'l1'"),
        ("weights", {"round_to": 4}, "round_to: only numbers of filters"),
        ("filters", {"baselines": ["erk"]}, r"recipes\[0\], baselines: expected uniform, got 'erk'"),
        ("2:4", {"baselines": ["uniform"]}, r"baselines: expected erk \| global \| lamp"),
        ("weights", {"axis": "both"}, "a baseline meets one budget"),
        ("weights", {"count": 0, "baselines": []}, "count: expected at least 1"),
    ],
)
def test_plans_that_mean_nothing_are_refused(kind, changes, reason):
    with pytest.raises(PlanError, match=reason):
        plan(kind, **changes)


def test_a_search_prunes_filters():
    with pytest.raises(PlanError, match="a search prunes filters"):
        plan_from_dict({"name": "p", "pruning": {"kind": "weights"}, "search": {"reduction": 0.5}})


def test_a_plan_may_grow_by_baselines_and_never_changes_its_kind():
    assert only_adds(plan(baselines=["erk"]), plan())
    assert not only_adds(plan(), plan(baselines=["erk"]))
    assert not only_adds(plan(baselines=[]), plan("2:4", baselines=[]))


def test_baselines_are_trained_like_the_recipes_beside_them_and_stay_as_they_were(network):
    costs, place = weight_costs(network, SHAPE, PruningPlan("weights")), Place("ab", "digits", "1x8x8")
    before = with_identities(make_worklist(plan(), costs, network=network), plan(), costs, place)
    spaces = [t.space for t in before]
    assert spaces.count("stratified") == 4
    assert all(spaces.count(f"baseline:{name}") == 2 for name in PLAIN_BASELINES["weights"])
    assert len({t.subnetwork_id for t in before}) == 12
    other = build_network("cifar_resnet8", classes=10, input_shape=SHAPE)
    grown = make_worklist(plan(seeds=3), costs, network=other, existing=before)
    grown = with_identities(grown, plan(seeds=3), costs, place)
    assert grown[:12] == before
    assert len(grown) == 18
    assert {t.recipe_id for t in grown} == {t.recipe_id for t in before}


def test_the_floor_and_the_kind_are_part_of_what_a_recipe_is(network):
    place = Place("ab", "digits", "1x8x8")
    made = []
    for pruning in ({"kind": "weights"}, {"kind": "weights", "floor": 1}):
        one = plan_from_dict(
            {"name": "p", "pruning": pruning, "recipes": [BLOCK | {"count": 0, "baselines": ["erk"]}]}
        )
        costs = weight_costs(network, SHAPE, one.pruning)
        trainings = make_worklist(one, costs, network=network)
        made.append(with_identities(trainings, one, costs, place)[0])
    assert made[0].widths == made[1].widths
    assert made[0].recipe_id != made[1].recipe_id


def weights_plan(tmp_path, kind: str):
    text = TINY.replace("[network]", f'[pruning]\nkind = "{kind}"\n[network]')
    text = text.replace("[0.4, 0.7]", "[0.6]" if kind == "weights" else "[0.3]").replace(
        "count = 3", "count = 1"
    )
    text = text.replace("round_to = 2\nseeds = 2", f"baselines = {json.dumps(list(PLAIN_BASELINES[kind]))}")
    path = tmp_path / f"{kind[0]}.toml"
    path.write_text(text + 'retraining = ["fine-tune", "scratch"]\n')
    return path


@pytest.mark.parametrize("kind", ["weights", "2:4"])
def test_rows_say_what_was_pruned_and_zeros_last_through_retraining(tmp_path, tiny_run, kind):
    torch.set_num_threads(1)
    shutil.copytree(tiny_run / "original", tmp_path / "run" / "original")
    plan, folder = read_plan(weights_plan(tmp_path, kind)), RunFolder(tmp_path / "run")
    folder.create()
    original = prepare(folder, survey(plan, folder), CPU)
    context, trainings = worker_context(folder, CPU), folder.read_worklist()
    assert prepare(folder, survey(plan, folder), CPU) == original
    assert folder.read_worklist() == trainings
    by_technique = {training.technique: training for training in trainings}
    for technique, training in by_technique.items():
        row, trained = train_subnetwork(context, training)
        folder.write_row(training.index, row)
        assert (row["status"], row["pruning"], row["retraining"]) == ("done", kind, technique)
        left = {name: int((trained.get_submodule(name).weight != 0).sum()) for name in row["group_names"]}
        assert list(left.values()) == row["widths"] == list(training.widths)
        assert row["densities"] == pytest.approx(np.array(row["widths"]) / [g.width for g in context.groups])
        before = cut_network(context, training)
        for name in left:
            same = (before.get_submodule(name).weight == 0) == (trained.get_submodule(name).weight == 0)
            assert same.all()
    folder.compact()
    population = Population.from_frame(folder.table().to_pandas())
    assert population.width_unit == "weights"
    assert any("theoretical" in note for note in population.notes)
    assert columns.read_footer(folder.table().schema)["plan"]["pruning"] == {"kind": kind, "floor": 2}


@pytest.mark.slow
def test_a_run_can_be_killed_resumed_shared_and_exported(tmp_path):
    path = weights_plan(tmp_path, "weights")
    first = run(tmp_path / "one", "--workers", "1", plan=path)
    assert first.returncode == 0, first.stdout + first.stderr
    folder = RunFolder(tmp_path / "two")
    folder.create()
    killed = subprocess.Popen(command(folder.path, "--workers", "1", plan=path), start_new_session=True)
    while killed.poll() is None and len(folder.finished()) < 3:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    left = {index: folder.read_row(index) for index in folder.finished()}
    assert 3 <= len(left) < 10
    assert f"{len(left)} of 10 trainings done" in run(folder.path, "--status").stdout
    assert run(folder.path, "--workers", "2", plan=path).returncode == 0
    assert all(folder.read_row(index) == row for index, row in left.items())
    assert rows(folder.population_path) == rows(tmp_path / "one" / "population.parquet")
    row = folder.read_row(0)
    exported = load_file(export_subnetwork(folder.path, row["subnetwork_id"]))
    names = [f"{name}.weight" for name in row["group_names"]]
    assert [int((exported[name] != 0).sum()) for name in names] == row["widths"]
    with pytest.raises(RunFolderError, match="this run prunes weights"):
        export_subnetwork(folder.path, row["subnetwork_id"], "torch-pruning")


@pytest.mark.slow
def test_a_cluster_gives_the_same_rows(tmp_path):
    pytest.importorskip("ray")
    path = weights_plan(tmp_path, "weights")
    for name, options in (("local", ()), ("ray", ("--executor", "ray"))):
        done = run(tmp_path / name, "--workers", "1", *options, plan=path)
        assert done.returncode == 0, done.stdout + done.stderr
    local, ray = (rows(tmp_path / name / "population.parquet") for name in ("local", "ray"))
    assert local == ray
