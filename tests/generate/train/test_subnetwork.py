"""From a training to its row: what it starts from, what it measures, and how it fails."""

import dataclasses

import numpy as np
import pytest
import torch

from generate.plan import CRITERIA
from generate.prune.cut import choose_filters, cut
from generate.run.folder import RunFolder
from generate.run.prepare import worker_context
from generate.train.loop import evaluate, recalibrate
from generate.train.original import weights_bytes
from generate.train.subnetwork import WorkerContext, cut_network, known_columns, train_subnetwork

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def context(tiny_run) -> WorkerContext:
    torch.set_num_threads(1)
    return worker_context(RunFolder(tiny_run), CPU)


@pytest.fixture(scope="module")
def training(tiny_run):
    return RunFolder(tiny_run).read_worklist()[0]


def weights(network) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_a_training_repeated_in_this_process_gives_the_row_to_the_last_digit(context, training, tiny_run):
    row, network = train_subnetwork(context, training)
    stored = RunFolder(tiny_run).read_row(training.index)
    timeless = [name for name in stored if name not in ("seconds", "started_at", "code_version")]
    assert {name: row[name] for name in timeless} == {name: stored[name] for name in timeless}
    assert sum(parameter.numel() for parameter in network.parameters()) == training.params


def test_fine_tuning_starts_from_the_originals_weights_and_scratch_from_fresh_ones(context, training):
    kept = choose_filters(context.scores["group_l2"], context.groups, np.array(training.widths))
    as_cut = cut(context.network, context.groups, kept)
    assert torch.equal(weights(cut_network(context, training)), weights(as_cut))
    scratch = dataclasses.replace(training, technique="scratch")
    fresh = [weights(cut_network(context, scratch)) for _ in range(2)]
    assert torch.equal(fresh[0], fresh[1])
    assert fresh[0].shape == weights(as_cut).shape
    assert not torch.equal(fresh[0], weights(as_cut))


def test_accuracies_before_retraining_are_those_of_the_cut_network(context, training, tiny_run):
    stored = RunFolder(tiny_run).read_row(training.index)
    network = cut_network(context, training).to(memory_format=torch.channels_last)
    images = context.images
    assert evaluate(network, images, images.test, device=CPU).accuracy == stored["accuracy_pruned"]
    recalibrate(network, images, device=CPU)
    assert evaluate(network, images, images.test, device=CPU).accuracy == stored["accuracy_recalibrated"]


def test_the_original_is_never_changed(context, training):
    before = weights(context.network).clone()
    train_subnetwork(context, training)
    assert torch.equal(before, weights(context.network))


def test_a_diverged_training_is_a_failed_row_with_its_reason(context, training):
    wild = dataclasses.replace(context.plan.retraining["fine-tune"], learning_rate=1e30)
    diverging = dataclasses.replace(
        context, plan=dataclasses.replace(context.plan, retraining={"fine-tune": wild})
    )
    row, network = train_subnetwork(diverging, training)
    assert network is None
    assert row["status"] == "failed"
    assert "loss is" in row["error"]
    assert row["macs"] == training.macs
    assert "accuracy" not in row


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_filter_score_of_a_plan_can_be_computed(context, criterion):
    block = dataclasses.replace(context.plan.recipes[0], criterion=criterion)
    plan = dataclasses.replace(context.plan, recipes=(block,))
    weights = weights_bytes(context.network)
    opened = WorkerContext.from_parts(plan, context.images, weights, context.original, CPU)
    scores = opened.scores[criterion]
    assert {name: len(values) for name, values in scores.items()} == {g.name: g.width for g in context.groups}
    assert all(torch.isfinite(values).all() for values in scores.values())
    assert all(parameter.grad is None for parameter in context.network.parameters())


def with_settings(context: WorkerContext, **retraining) -> WorkerContext:
    return dataclasses.replace(context, plan=dataclasses.replace(context.plan, retraining=retraining))


def test_scratch_with_the_budget_of_fine_tuning_in_macs_spends_the_same(context, training):
    """Compared fairly: the same MACs in all, so as many epochs as the same network gets from fine-tuning."""
    fine_tune = context.plan.retraining["fine-tune"]
    spent = 3 * training.macs * fine_tune.epochs * len(context.images.train)
    scratch = dataclasses.replace(fine_tune, training_macs=spent)
    equal = with_settings(context, **{"fine-tune": fine_tune, "scratch": scratch})
    rows = {
        technique: known_columns(equal, dataclasses.replace(training, technique=technique))
        for technique in ("fine-tune", "scratch")
    }
    assert rows["scratch"]["training_macs"] == pytest.approx(rows["fine-tune"]["training_macs"])
    assert rows["scratch"]["epochs"] == pytest.approx(fine_tune.epochs)
    narrower = dataclasses.replace(training, technique="scratch", macs=training.macs // 2)
    assert known_columns(equal, narrower)["epochs"] == pytest.approx(2 * fine_tune.epochs, rel=1e-3)


def test_training_macs_are_those_of_the_images_seen(context, training):
    """Batches of 64 of 100 images leave 36 out in each epoch."""
    settings = dataclasses.replace(context.plan.retraining["fine-tune"], batch_size=64, epochs=5.0)
    row = known_columns(with_settings(context, **{"fine-tune": settings}), training)
    images = len(context.images.train)
    assert images % 64
    assert row["training_macs"] == 3 * training.macs * 5 * (images // 64 * 64)
    assert row["epochs"] == 5.0


def test_latency_is_measured_where_the_plan_asks_for_it(context, training):
    row, _ = train_subnetwork(context, training)
    assert "latency_ms" not in row
    asked = dataclasses.replace(context, plan=dataclasses.replace(context.plan, latency_batch=2))
    row, _ = train_subnetwork(asked, training)
    assert row["latency_batch"] == 2
    assert row["latency_ms"] > 0
