import json
import subprocess
import sys

import pytest

from generate.costs import main
from popstats.errors import BAD_INPUT

DIGITS = ["cifar_resnet8", "--input", "1x8x8"]


def test_json_holds_costs_groups_and_the_feasible_map(capsys):
    assert main(["cifar_resnet56", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["macs"], content["params"]) == (125_747_840, 855_770)
    assert len(content["groups"]) == 30
    assert content["groups"][0]["name"] == "conv1"
    half = next(point for point in content["feasible"] if point["macs_reduction"] == 0.5)
    assert half["params"][0] < half["params"][1] < content["params"]
    assert half["mcb"][0] == pytest.approx(0.5 / (half["params"][1] / content["params"]), rel=1e-3)


def test_shares_are_what_vanishes_with_the_group(capsys):
    assert main([*DIGITS, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    stem = content["groups"][0]
    convolutions = {
        "conv1": 9 * 16 * 64,
        "conv1 of stage 1": 9 * 16 * 16 * 64,
        "conv2 of stage 1": 9 * 16 * 16 * 64,
    }
    onward = {"conv1 of stage 2": 9 * 16 * 32 * 16, "its shortcut": 16 * 32 * 16}
    touched = sum(convolutions.values()) + sum(onward.values())
    assert stem["macs_share"] == pytest.approx(touched / content["macs"], abs=1e-6)


def test_text_names_every_group(capsys):
    assert main(DIGITS) == 0
    text = capsys.readouterr().out
    assert "763,520 MACs, 77,754 parameters, 6 groups" in text
    names = (
        "conv1",
        "stage1.0.conv1",
        "stage2.0.conv1",
        "stage2.0.conv2",
        "stage3.0.conv1",
        "stage3.0.conv2",
    )
    assert all(name in text for name in names)


def test_errors_are_sentences_with_a_status(capsys):
    assert main(["cifar_resnet8", "--keep", "stage9"]) == BAD_INPUT
    assert "Error: keep: no layer is called stage9" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_runs_as_a_module():
    command = [sys.executable, "-W", "error", "-m", "generate.costs", "cifar_resnet8", "--input", "1x8x8"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cifar_resnet8 on 1x8x8: 763,520 MACs")
