"""What a winner gains with real trainings, over worlds that each have an original of their own; CPU time of a search.

    OMP_NUM_THREADS=1 pytest -s -m benchmark tests/benchmarks/test_winner_on_images.py

WINNER_SETTINGS (digits:macs:0.9,cifar10:macs:0.8) and WINNER_WORLDS (1-5) choose what is run: about two minutes per
world of digits on one core, six per world of CIFAR-10. With WINNER_FOLDER the searches are kept there, and resumed.
WINNER_RANDOM=0 leaves out the comparison with the best of as many random recipes, which takes almost as long again.
CIFAR-10 (16x16 pixels, 10,000 training images) is skipped where the archive of its images is absent.
"""

import json
import os
import resource
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from generate.plan import DEFAULT_PLAN, read_plan, toml_of
from generate.recipes.baselines import RANDOM_RANGE, search_problem
from generate.recipes.worklist import CONFIRMATION, SEARCH
from generate.run.folder import RunFolder
from generate.run.prepare import worker_context
from generate.run.rounds import FIRST_FRESH_SEED, planned_trainings
from generate.train.subnetwork import train_subnetwork
from generate.winner import main
from popstats.planning.propose import meet_budget

pytestmark = pytest.mark.benchmark

SETTINGS = os.environ.get(
    "WINNER_SETTINGS",
    "digits:macs:0.95,digits:macs:0.9,digits:macs:0.8,cifar10:macs:0.9,cifar10:macs:0.8,digits:params:0.9",
).split(",")
FIRST, LAST = map(int, os.environ.get("WINNER_WORLDS", "1-5").split("-"))
#: Most worlds, and fresh seeds per recipe: CIFAR-10 has ten times the statement images, and trains longer.
MOST_WORLDS, SEEDS = {"digits": 5, "cifar10": 3}, {"digits": 8, "cifar10": 4}
RANDOM = os.environ.get("WINNER_RANDOM", "1") == "1"
CIFAR = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10-images.tar.xz"
CPU = torch.device("cpu")


def cifar_images(folder):
    """Unpack the images where they are not yet."""
    if not CIFAR.exists():
        pytest.skip(f"{CIFAR} is absent")
    target = folder / "cifar10-images"
    if not target.exists():
        with tarfile.open(CIFAR) as archive:
            archive.extractall(folder / "unpacking", filter="data")
        (folder / "unpacking").rename(target)
    return target


def plan_of(images, world, folder):
    """Write the plan of a world, whose original is trained once."""
    if images == "digits":
        plan = read_plan(DEFAULT_PLAN)
        of = replace(plan.images, name=f"tests.benchmarks.winner_worlds:world_{world}")
    else:
        plan = read_plan(DEFAULT_PLAN.parent / "cifar10-10k-resnet8.toml")
        of = replace(plan.images, name=f"image-folder:{cifar_images(folder)}", size=16, folder=str(folder))
    weights = folder / f"{images}-{world}.safetensors"
    source = str(weights) if weights.exists() else "train"
    original = replace(plan.original, seed=world, source=source)
    path = folder / f"{images}-{world}.toml"
    path.write_text(
        toml_of(
            replace(
                plan,
                name=f"world-{world}",
                seed=world,
                images=of,
                original=original,
                recipes=plan.recipes[:1],
            )
        )
    )
    return path


def searched(images, axis, reduction, world, folder):
    """Search in one world, or go on with a search; return its folder."""
    out = folder / f"{images}-{world}-{axis}-{reduction:g}"
    arguments = ["--out", str(out), "--workers", "1", "--device", "cpu"]
    if RunFolder(out).read_plan() is None:
        chosen = ["--reduction", f"{reduction:g}", "--axis", axis, "--baseline", "isomorphic"]
        arguments += [str(plan_of(images, world, folder)), *chosen, "--confirm", str(SEEDS[images])]
    assert main(arguments) == 0
    weights = folder / f"{images}-{world}.safetensors"
    if not weights.exists():
        shutil.copy(RunFolder(out).weights_path, weights)
    return out


def best_of_random(out, world):
    """Return the gain over what random search finds: as many random recipes trained once, the best one confirmed."""
    stored = out / "random.json"
    rows = json.loads(stored.read_text()) if stored.exists() else []
    folder = RunFolder(out)
    context = worker_context(folder, CPU)

    def train_up_to(wanted):
        for training in planned_trainings(context, wanted[len(rows) :], SEARCH, "random", len(rows)):
            row = train_subnetwork(context, training)[0]
            rows.append({name: row.get(name) for name in ("widths", "accuracy", "accuracy_val")})
            stored.write_text(json.dumps(rows))

    search, rng = context.plan.search, np.random.default_rng(world)
    problem = search_problem(search, context.costs)
    shares = rng.uniform(-RANDOM_RANGE, RANDOM_RANGE, (2 * search.trainings, len(problem.full)))
    recipes = meet_budget(problem, np.log(problem.full) + shares, rng)[: search.trainings]
    wanted = [(tuple(recipe), 0) for recipe in recipes.tolist()]
    train_up_to(wanted)
    # A failed training has no accuracy. The same fresh seeds as the other recipes', on the same images.
    best = max(rows[: len(wanted)], key=lambda row: row["accuracy_val"] or 0.0)
    train_up_to(wanted + [(tuple(best["widths"]), FIRST_FRESH_SEED + k) for k in range(search.confirm)])
    confirmed = [t for t in folder.read_worklist() if t.block == CONFIRMATION]
    ours = [folder.read_row(t.index)["accuracy"] for t in confirmed if t.widths == confirmed[0].widths]
    return np.mean(ours) - np.mean([row["accuracy"] for row in rows[len(wanted) :]])


def cpu_seconds():
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


@pytest.mark.parametrize("setting", SETTINGS)
def test_gain_over_the_baselines(setting, tmp_path, capsys):
    images, axis, reduction = setting.split(":")
    folder = Path(os.environ.get("WINNER_FOLDER", tmp_path))
    gains = {}
    for world in range(FIRST, min(LAST, MOST_WORLDS[images]) + 1):
        started = cpu_seconds()
        out = searched(images, axis, float(reduction), world, folder)
        recipe = json.loads((out / "recipe.json").read_text())
        found = {gain["over"]: gain["mean"] for gain in recipe["gains"]}
        if RANDOM:
            found["best of random"] = best_of_random(out, world)
        for name, gain in found.items():
            gains.setdefault(name, []).append(gain)
        capsys.readouterr()
        with capsys.disabled():
            said = ", ".join(f"{gain:+.2f} over {name}" for name, gain in found.items())
            print(
                f"\n  {setting}, world {world}: {said}; {cpu_seconds() - started:.0f} s of one core",
                flush=True,
            )
    with capsys.disabled():
        for name, values in gains.items():
            error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            print(
                f"{setting} over {name}: {np.mean(values):+.2f} +- {error:.2f} points, {len(values)} worlds"
            )
