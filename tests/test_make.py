"""What `make` says where Python is too old, and that it installs once."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder, *arguments):
    # Not as a part of the `make test` that may be running these tests.
    outer = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def script(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_too_old_python_is_told_in_a_sentence(clone, target):
    old = script(clone / "python3.8", '[ "$1" = --version ] && echo "Python 3.8.10"; exit 1')
    done = make(clone, target, f"PYTHON={old}")
    assert done.returncode != 0
    assert (
        f"popstats needs Python 3.12 or newer with its venv module (Debian: python3-venv); here {old} is"
        in done.stderr
    )
    assert "Python 3.8.10. Name one that fits: make PYTHON=/path/to/python3.13" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (clone / ".venv").exists()


def test_no_python_at_all_is_told_too(clone):
    done = make(clone, "demo", "PYTHON=no-such-python")
    assert "no-such-python is absent" in done.stderr


def test_what_is_installed_is_not_installed_again(clone):
    called = clone / "called"
    script(clone / ".venv/bin/python", f'echo "$@" >> {called}')
    assert make(clone, "demo").returncode == 0
    assert "pip" in called.read_text()
    called.unlink()
    done = make(clone, "demo")
    assert "pip" not in called.read_text()
    assert done.stdout.splitlines()[-1] == f"{clone}/runs/digits/report.html"


def test_the_full_install_serves_the_demo(clone):
    script(clone / ".venv/bin/python", "exit 0")
    assert make(clone, "install").returncode == 0
    assert "Installing" not in make(clone, "demo").stdout


def test_changed_requirements_install_again(clone):
    script(clone / ".venv/bin/python", "exit 0")
    make(clone, "install")
    later = time.time() + 10
    os.utime(clone / "pyproject.toml", (later, later))
    assert "Installing" in make(clone, "install").stdout


def test_a_failed_install_is_tried_again(clone):
    python = script(clone / ".venv/bin/python", 'echo "no network" >&2; exit 1')
    assert "no network" in make(clone, "install").stderr
    python.write_text("#!/bin/sh\nexit 0\n")
    assert "Installing" in make(clone, "install").stdout


def test_a_rejected_fit_still_shows_its_report(clone):
    script(clone / ".venv/bin/python", 'case "$*" in *"popstats report"*) exit 3;; esac')
    done = make(clone, "demo")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].endswith("report.html")


def test_every_target_says_what_it_does(clone):
    said = {line.split()[1] for line in make(clone, "help").stdout.splitlines()}
    assert said == {"help", "install", "demo", "test", "lint", "bench", "calibrate", "reports", "docs"}
