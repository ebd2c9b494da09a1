"""A dry run with a pilot's fit: what popstats answers in its own process, and what is said where it cannot."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import popstats
from generate.population import main
from generate.run.dry_run import _off_target, ask_popstats, print_pilot
from popstats.errors import BAD_INPUT, PlanError
from popstats.population.simulate import simulate_population


@pytest.mark.parametrize(("axis", "missed"), [("macs", 1), ("params", 2), ("both", 2)])
def test_counts_the_recipes_that_whole_filters_keep_off_the_target(axis, missed):
    macs, params = np.array([0.50, 0.504, 0.51]), np.array([0.50, 0.52, 0.48])
    assert _off_target(axis, 0.5, macs, params) == missed


@pytest.fixture(scope="module")
def fit_file(tmp_path_factory):
    population = simulate_population("quadratic", regimes=[0.7], n=40, seed=1)
    fit = popstats.fit(population, regimes={0.7: 0.05}, method="exact", draws=50)
    return fit.save(tmp_path_factory.mktemp("pilot") / "fit.nc")


def trainings(*targets):
    return [SimpleNamespace(axis="macs", target=t, widths=(8, 4 + i)) for t in targets for i in range(3)]


def test_the_pilots_answer_stands_beside_the_plans_numbers(fit_file, capsys):
    print_pilot(fit_file, trainings(0.5, 0.7))
    header, without, planned = capsys.readouterr().out.splitlines()
    assert header == f"What the pilot {fit_file} implies for these regimes:"
    assert without.split(maxsplit=2)[:2] == ["macs", "0.50"]
    assert "the pilot has no such regime on the macs axis" in without
    assert "Regime 0.70: " in planned
    assert planned.endswith("This plan: 3 recipes, 3 trainings.")


def test_popstats_without_its_packages_is_a_sentence(fit_file, capsys):
    absent = (sys.executable, "-c", "import no_such_package")
    print_pilot(fit_file, trainings(0.7), absent)
    assert (
        "popstats cannot run here (ModuleNotFoundError: No module named 'no_such_package')"
        in capsys.readouterr().out
    )


def test_a_file_that_is_no_fit_is_refused(tmp_path):
    with pytest.raises(PlanError, match="which is not a file"):
        ask_popstats(tmp_path / "absent.nc")
    wrong = tmp_path / "wrong.nc"
    wrong.write_text("no fit")
    with pytest.raises(PlanError, match="cannot be read as a saved fit"):
        ask_popstats(wrong)


def test_only_a_dry_run_reads_a_fit(fit_file, capsys):
    assert main(["--fit", str(fit_file)]) == BAD_INPUT
    assert "add --dry-run" in capsys.readouterr().err
