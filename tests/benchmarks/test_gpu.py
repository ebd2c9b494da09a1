"""What is to be measured the day that a GPU is at hand: right answers there, and which way of training is fastest.

    python -m pytest -m benchmark -s tests/benchmarks/test_gpu.py tests/benchmarks/test_training.py

The product takes the plain step until one of the other ways has won in the table printed here. Their arithmetic is
checked on the CPU, in every run of the tests.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from generate.inputs.images import ImageSet, Split
from generate.inputs.networks import build_network
from generate.plan import RecipePlan, Space, TrainingSettings
from generate.prune.cost_forms import derive_costs
from generate.prune.cut import choose_filters, cut
from generate.prune.groups import find_groups
from generate.recipes.sample import sample_recipes
from generate.train.device import settle_on_device
from generate.train.loop import evaluate, fresh_weights, train

FOLDER = Path(__file__).parent
CPU = torch.device("cpu")
DEVICES = [
    CPU,
    pytest.param(
        torch.device("cuda", 0),
        marks=[pytest.mark.benchmark, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")],
    ),
]
SMALL = (3, 16, 16)
SETTINGS = TrainingSettings(epochs=2, batch_size=16, learning_rate=0.02, augmentation="flip+crop2")
# Sums in another order: rounding, amplified by two epochs of steps.
CLOSE = {"rtol": 2e-2, "atol": 2e-3}

IMAGES, TEST_IMAGES = 20_000, 2_000
RECIPES = 8
WAYS = ("eager", "graph", "masked", "streams")
PROCESSES = (1, 2, 4)
TASK = {
    "network": "cifar_resnet20",
    "seed": 0,
    "device": "cuda:0",
    "settings": {"epochs": 4, "batch_size": 256, "learning_rate": 0.1, "augmentation": "flip+crop4"},
}


@pytest.fixture(scope="module")
def candidates():
    sys.path.insert(0, str(FOLDER))
    try:
        import gpu_candidates

        yield gpu_candidates
    finally:
        sys.path.remove(str(FOLDER))


def blobs(count, shape=SMALL, seed=0):
    """Images of ten classes that differ in colour and place of a bright square, with noise."""
    drawn = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (count,), generator=drawn)
    pixels = 60 + 40 * torch.randn(count, *shape, generator=drawn)
    size = shape[1] // 4
    for label in range(10):
        top, left = divmod(label, 4)
        chosen = torch.nonzero(labels == label).flatten()
        pixels[chosen, label % 3, top * size : (top + 1) * size, left * size : (left + 1) * size] += 60
    return pixels.clamp(0, 255).to(torch.uint8), labels


def image_set(device) -> ImageSet:
    split = Split(*blobs(64)).to(device)
    return ImageSet("blobs", split, split, split, 10, (0.25,) * 3, (0.18,) * 3)


def recipe(network, groups, shape=SMALL, target=0.5, count=1):
    costs, rng = derive_costs(network, shape, groups), np.random.default_rng(0)
    block = RecipePlan((target,), count, space=Space("random"))
    return sample_recipes(block, costs, target, count, rng)[0]


def fresh(device, name="cifar_resnet8"):
    network = build_network(name, classes=10, input_shape=SMALL, width=0.5)
    fresh_weights(network, 1)
    return network.to(device)


@pytest.fixture
def exact_products():
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = allowed


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_resnet20"])
def test_a_cut_network_is_the_masked_one(candidates, exact_products, device, name):
    network = fresh(CPU, name).eval()
    groups = find_groups(network, SMALL)
    scores = {group.name: torch.arange(group.width).float() % 5 for group in groups}
    kept = choose_filters(scores, groups, recipe(network, groups)[0])
    smaller = cut(network, groups, kept).to(device)
    whole = network.to(device)
    masks = candidates.Masks(whole, groups, device)
    masks.keep(kept)
    inputs = torch.randn(8, *SMALL, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        torch.testing.assert_close(smaller(inputs), whole(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_static_step_trains_as_the_plain_one(candidates, exact_products, device):
    """On a GPU the static step is the captured graph."""
    images, plain, static = image_set(device), fresh(device), fresh(device)
    train(plain, images, SETTINGS, macs=1, seed=3, device=device)
    step = candidates.static_step(static, images, SETTINGS, device)
    assert (step.graph is not None) == (device.type == "cuda")
    candidates.train_statically(step, images, SETTINGS, 3, device)
    for (name, expected), value in zip(plain.state_dict().items(), static.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_masked_network_trains_as_the_cut_one_and_can_be_used_again(candidates, exact_products, device):
    images, network = image_set(device), fresh(CPU)
    groups = find_groups(network, SMALL)
    scores = {group.name: torch.arange(group.width).float() for group in groups}
    kept = choose_filters(scores, groups, recipe(network, groups)[0])
    cut_one = cut(network, groups, kept).to(device)
    train(cut_one, images, SETTINGS, macs=1, seed=3, device=device)
    network.to(device)
    masks = candidates.Masks(network, groups, device)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    step = candidates.static_step(network, images, SETTINGS, device)
    for seed in (5, 3):  # the second recipe starts as if there had been no first one
        masks.keep(kept)
        step.restart(start)
        network.train()
        candidates.train_statically(step, images, SETTINGS, seed, device)
    outputs = [evaluate(one, images, images.test, device=device).loss for one in (cut_one, network)]
    assert outputs[0] == pytest.approx(outputs[1], rel=0.02)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_the_same_seed_gives_the_same_bits(device):
    settle_on_device(device)
    images, networks = image_set(device), [fresh(device) for _ in range(2)]
    for network in networks:
        train(network, images, SETTINGS, macs=1, seed=3, device=device)
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "images.npz"
    splits = {"train": blobs(IMAGES, (3, 32, 32)), "test": blobs(TEST_IMAGES, (3, 32, 32), seed=1)}
    arrays = {f"{name}_images": images.numpy() for name, (images, _) in splits.items()}
    np.savez(path, **arrays, **{f"{name}_labels": labels.numpy() for name, (_, labels) in splits.items()})
    network = build_network(TASK["network"], classes=10, input_shape=(3, 32, 32))
    widths = recipe(network, find_groups(network, (3, 32, 32)), (3, 32, 32), 0.7, RECIPES)
    return TASK | {"images": str(path), "recipes": widths.tolist()}


def start(task, way):
    command = [sys.executable, str(FOLDER / "gpu_candidates.py"), json.dumps(task | {"way": way})]
    return subprocess.Popen(command, cwd=FOLDER.parents[1], stdout=subprocess.PIPE, text=True)


def finish(process):
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, output
    return json.loads(output.splitlines()[-1])


@pytest.mark.benchmark
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_which_way_of_training_is_fastest(task, capsys):
    """Trainings a minute in sum, cutting and capturing included; the wall clock also holds the processes' start."""
    with capsys.disabled():
        print(
            f"\n{torch.cuda.get_device_name()}, {TASK['network']} cut to 30 % of its MACs, {RECIPES} recipes a process"
        )
        for way in WAYS:
            for count in PROCESSES:
                started = time.perf_counter()
                done = [finish(process) for process in [start(task, way) for _ in range(count)]]
                wall = time.perf_counter() - started
                rate = sum(60 * one["trainings"] / one["seconds"] for one in done)
                accuracy = statistics.mean(value for one in done for value in one["accuracies"])
                print(
                    f"  {way:8} in {count} processes: {rate:6.1f} trainings a minute, {wall:5.1f} s in all, "
                    f"accuracy {accuracy:.2f} %"
                )


PLAN = """
name = "gpu"
[network]
width = 0.5
[images]
limit = 200
[original.training]
epochs = 20
batch_size = 20
[retraining.fine-tune]
epochs = 4
[[recipes]]
regimes = [0.4, 0.7]
count = 4
round_to = 2
"""


@pytest.mark.benchmark
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_workers_on_one_gpu_make_the_rows_that_one_makes(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    accuracies = {}
    for workers in (1, 4):
        out = tmp_path / str(workers)
        options = [str(plan), "--out", str(out), "--workers", str(workers), "--device", "cuda:0"]
        subprocess.run(
            [sys.executable, "-m", "generate.population", *options], check=True, cwd=FOLDER.parents[1]
        )
        table = pq.read_table(out / "population.parquet", columns=["subnetwork_id", "accuracy", "status"])
        accuracies[workers] = table.to_pylist()
    assert accuracies[1] == accuracies[4]
    assert {row["status"] for row in accuracies[1]} == {"done"}
