"""What a winner gains on the digits, over worlds with a split and an original of their own; CPU time of a search.

    OMP_NUM_THREADS=1 pytest -s -m benchmark tests/benchmarks/test_winner_on_digits.py

WINNER_WORLDS (1-5) and WINNER_REDUCTIONS (0.8,0.9,0.95) choose what is run: about two minutes each on one core. With
WINNER_FOLDER the searches are kept there, and resumed.
"""

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from generate.plan import DEFAULT_PLAN
from generate.winner import main

pytestmark = pytest.mark.benchmark

WORLDS = range(
    *(int(end) + last for last, end in enumerate(os.environ.get("WINNER_WORLDS", "1-5").split("-")))
)
REDUCTIONS = [float(part) for part in os.environ.get("WINNER_REDUCTIONS", "0.8,0.9,0.95").split(",")]


def plan_of(world: int, folder: Path) -> Path:
    text = DEFAULT_PLAN.read_text()
    images = f'name = "tests.benchmarks.digit_worlds:world_{world}"'
    text = text.replace('name = "digits"', f'name = "world-{world}"\nseed = {world}', 1)
    text = text.replace('name = "digits"', images, 1)
    text = text.replace("[original.training]", f"[original]\nseed = {world}\n\n[original.training]", 1)
    path = folder / f"world-{world}.toml"
    path.write_text(text)
    return path


def cpu_seconds() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gain_over_the_baselines(reduction, tmp_path, capsys):
    folder = Path(os.environ.get("WINNER_FOLDER", tmp_path))
    gains: dict[str, list[float]] = {}
    for world in WORLDS:
        out, started = folder / f"{world}-{reduction:g}", cpu_seconds()
        arguments = [
            "--reduction",
            str(reduction),
            "--baseline",
            "isomorphic",
            "--workers",
            "1",
            "--device",
            "cpu",
        ]
        assert main([str(plan_of(world, folder)), *arguments, "--out", str(out)]) == 0
        capsys.readouterr()
        for gain in json.loads((out / "recipe.json").read_text())["gains"]:
            gains.setdefault(gain["over"], []).append(gain["mean"])
        with capsys.disabled():
            said = ", ".join(f"{values[-1]:+.2f} over {name}" for name, values in gains.items())
            print(f"\n  {reduction:.0%}, world {world}: {said}; {cpu_seconds() - started:.0f} s of one core")
    with capsys.disabled():
        for name, values in gains.items():
            error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            print(
                f"{reduction:.0%} over {name}: {np.mean(values):+.2f} +- {error:.2f} points, {len(values)} worlds"
            )
