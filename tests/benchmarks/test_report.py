"""Time and size of a report on 16,384 networks in ten regimes: design 6 asks for 3 s after the fit, and 3 MB."""

import time

import pytest

import popstats
from popstats.report.compose import report_content
from popstats.report.page import write_content

pytestmark = pytest.mark.benchmark

LARGEST = 3_000_000


def test_report_on_16384_networks(tmp_path, capsys):
    population = popstats.simulate_population(
        "additive-widths",
        regimes=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9),
        n=1638,
        seeds=3,
        seed_noise=0.1,
    )
    fit = popstats.fit(population, method="exact")
    started = time.perf_counter()
    verdicts = popstats.judge(fit)
    judged = time.perf_counter()
    content = report_content(fit, verdicts)
    composed = time.perf_counter()
    path = write_content(content, tmp_path / "report.html")
    written = time.perf_counter()
    with capsys.disabled():
        print(
            f"\nreport on {len(population):,} trainings: judged in {judged - started:.2f} s, content in "
            f"{composed - judged:.2f} s, page in {written - composed:.2f} s; {path.stat().st_size / 1e6:.2f} MB"
        )
    assert path.stat().st_size < LARGEST
