"""Debian's chromium, driven by playwright; skipped where there is none."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import popstats
from popstats.report.page import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
#: A name that would run, if anything on the page let it.
HOSTILE = (
    "<img src=x onerror=\"document.body.dataset.hacked='yes'\"></script>"
    "<script>document.body.dataset.hacked='yes'</script>"
)


@pytest.fixture(scope="session")
def hostile() -> popstats.Fit:
    population = popstats.simulate_population(
        "additive-widths", regimes=(0.4, 0.6, 0.8), n=120, seeds=2, seed_noise=0.1, seed=3
    )
    named = popstats.Population.from_frame(
        population.table, original=population.original, accuracy_kind="last", name=HOSTILE
    )
    return popstats.fit(named, method="exact", draws=200, random_seed=3)


@pytest.fixture(scope="session")
def report(hostile: popstats.Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(hostile, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="session")
def browser() -> Iterator["sync_api.Browser"]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        # A launch without a user data folder is a fresh profile, thrown away afterwards.
        running = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield running
        running.close()
