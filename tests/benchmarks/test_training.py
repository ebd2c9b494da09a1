"""Training: images a second against the plain loop, several processes against one, trainings a minute of the command.

On CIFAR-10 where ../shared/data holds it, else on random pixels. Every figure is from one run, the two loops in turn,
each in its own process; the best round of each counts. On a machine with a GPU the same is measured there.
"""

import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from generate.inputs.image_sets import load_images
from generate.inputs.networks import build_network
from generate.plan import ImagesPlan, RecipePlan, Space
from generate.prune.cost_forms import derive_costs
from generate.prune.groups import find_groups
from generate.recipes.sample import sample_recipes

pytestmark = pytest.mark.benchmark

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10-images.tar.xz"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Of every so many files of CIFAR-10 one is taken: a GPU needs all of them to be busy at all.
EVERY = {"cpu": 10, "cuda": 1}
RANDOM_IMAGES = 4000
INPUT = (3, 32, 32)
ROUNDS = 3
SETTINGS = {"epochs": 3, "batch_size": 64, "learning_rate": 0.1, "augmentation": "flip+crop4"}
EVEN = "std:0-0.1"
# Network and the share of its MACs that is removed.
CASES = [("cifar_resnet8", 0.0), ("cifar_resnet8", 0.5), ("cifar_resnet8", 0.9), ("cifar_resnet20", 0.0)]
PROCESSES = {"cpu": (1, 2), "cuda": (1, 2, 4)}

PLAN = """
name = "throughput"
[original.training]
epochs = 10
[retraining.fine-tune]
epochs = 12
schedule = "one-cycle"
[[recipes]]
regimes = [0.5, 0.8]
count = 20
round_to = 2
"""


def hardware():
    if DEVICE == "cuda":
        return f"GPU: {torch.cuda.get_device_name()}"
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {torch.backends.cpu.get_cpu_capability()}, one thread"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Path of an .npz with training and test images."""
    folder = tmp_path_factory.mktemp("images")
    splits = cifar10(folder) if ARCHIVE.exists() else random_pixels()
    path = folder / "images.npz"
    np.savez(path, **splits)
    return path


def cifar10(folder):
    # Read as a stream: going back in a compressed archive means to unpack it again from its start.
    with tarfile.open(ARCHIVE, "r|xz") as archive:
        for place, member in enumerate(entry for entry in archive if entry.isfile()):
            if place % EVERY[DEVICE] == 0:
                archive.extract(member, folder, filter="data")
    held = load_images(ImagesPlan(name=f"image-folder:{folder}", size=32, folder=str(folder / "decoded")))
    parts = {"train": held.train, "test": held.test}
    return {f"{name}_images": split.images.numpy() for name, split in parts.items()} | {
        f"{name}_labels": split.labels.numpy() for name, split in parts.items()
    }


def random_pixels():
    rng = np.random.default_rng(0)
    return {
        f"{name}_{kind}": values
        for name in ("train", "test")
        for kind, values in (
            ("images", rng.integers(0, 256, (RANDOM_IMAGES, *INPUT), dtype=np.uint8)),
            ("labels", rng.integers(0, 10, RANDOM_IMAGES)),
        )
    }


def widths_of(name, removed):
    """Return the full widths, or those of a recipe that removes so much, about equally everywhere."""
    network = build_network(name, classes=10, input_shape=INPUT)
    groups = find_groups(network, INPUT)
    if not removed:
        return [group.width for group in groups]
    costs, rng = derive_costs(network, INPUT, groups), np.random.default_rng(0)
    block = RecipePlan((removed,), 1, space=Space(EVEN))
    return sample_recipes(block, costs, removed, 1, rng)[0][0].tolist()


def start(loop, case, images, seed=0, **settings):
    name, removed = case
    task = {
        "loop": loop,
        "network": name,
        "widths": widths_of(name, removed),
        "images": str(images),
        "device": DEVICE,
        "seed": seed,
        "settings": SETTINGS | settings,
    }
    script = Path(__file__).with_name("training_loops.py")
    return subprocess.Popen(
        [sys.executable, str(script), json.dumps(task)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def finish(process):
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, output
    return json.loads(output.splitlines()[-1])


def summary(rounds):
    accuracies = [one["accuracy"] for one in rounds]
    return max(one["images_per_second"] for one in rounds), (
        f"{statistics.mean(accuracies):.1f} +- {statistics.stdev(accuracies):.1f} %"
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-removed")
def test_against_the_plain_loop(case, images, capsys):
    variants = {"plain": ("plain", {}), "ours": ("ours", {})}
    if DEVICE == "cuda":
        variants["ours, bfloat16"] = ("ours", {"precision": "bfloat16"})
    seen = {label: [] for label in variants}
    for seed in range(ROUNDS):
        for label, (loop, settings) in variants.items():
            seen[label].append(finish(start(loop, case, images, seed, **settings)))
    plain, plain_accuracy = summary(seen.pop("plain"))
    with capsys.disabled():
        print(f"\n{case[0]}, {1 - case[1]:.0%} of its MACs, {hardware()}: plain {plain:,.0f} images/s")
        print(f"  plain: accuracy {plain_accuracy}")
        for label, rounds in seen.items():
            rate, accuracy = summary(rounds)
            print(f"  {label}: {rate:,.0f} images/s, {rate / plain:.2f} times plain, accuracy {accuracy}")
    assert max(summary(rounds)[0] for rounds in seen.values()) > plain


def test_processes_side_by_side(images, capsys):
    """What several trainings at once reach in sum, by the wall clock from the start of the first to the last's end."""
    for case in (CASES[0], CASES[2]):
        rates = {}
        for count in PROCESSES[DEVICE]:
            started = time.perf_counter()
            each = [finish(process) for process in [start("ours", case, images) for _ in range(count)]]
            rates[count] = count / (time.perf_counter() - started), sum(e["images_per_second"] for e in each)
        with capsys.disabled():
            one = rates[1][0]
            print(f"\n{case[0]}, {1 - case[1]:.0%} of its MACs, {hardware()}, processes side by side:")
            for count, (trainings, images_per_second) in rates.items():
                print(
                    f"  {count}: {images_per_second:,.0f} images/s by their own clocks, start-up included "
                    f"{trainings / one:.2f} times one"
                )


def trainings_a_minute(folder):
    """From the first training's start to the last one's end, so that preparation and start-up do not count."""
    table = pq.read_table(folder / "population.parquet", columns=["started_at", "seconds"]).to_pylist()
    starts = [datetime.fromisoformat(row["started_at"]).timestamp() for row in table]
    ends = [start + row["seconds"] for start, row in zip(starts, table, strict=True)]
    return len(table) / (max(ends) - min(starts)) * 60


def test_two_local_workers_against_one(tmp_path, capsys):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    rates = {}
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        options = ["--out", str(folder), "--workers", str(workers), "--device", DEVICE]
        subprocess.run(
            [sys.executable, "-m", "generate.population", str(plan), *options],
            check=True,
            cwd=ROOT,
            capture_output=True,
        )
        rates[workers] = trainings_a_minute(folder)
    with capsys.disabled():
        print(
            f"\nlocal workers on {os.cpu_count()} cores, {hardware()}, digits: one {rates[1]:.0f} trainings a "
            f"minute, two {rates[2]:.0f}, {rates[2] / rates[1]:.2f} times"
        )
