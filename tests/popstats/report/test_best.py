"""The table of the best networks names trainings that are in the table and are the best."""

import hashlib

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats.judgement.judge import analyse
from popstats.posterior.fit import Fit
from popstats.report.compose import report_content
from popstats.report.sections import SHOWN, baseline_section, best_section


@pytest.fixture(scope="module")
def made() -> popstats.Population:
    return popstats.simulate_population(
        "quadratic", regimes=(0.5, 0.8), n=40, seeds=2, seed_noise=0.2, seed=4
    )


def _fit(population: popstats.Population) -> Fit:
    return popstats.fit(population, method="exact", draws=50)


def _named(made: popstats.Population) -> popstats.Population:
    ids = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(len(made.table))]
    return popstats.Population.from_frame(made.table.assign(subnetwork_id=ids))


def test_the_best_recipes_are_those_of_smallest_mean_drop(made: popstats.Population) -> None:
    population = _named(made)
    section = best_section(analyse(_fit(population)), "runs/mine")
    assert section is not None
    shown = pd.DataFrame(section.tables[0][1].records)
    frame = population.frame.assign(recipe=population.recipe)
    for regime, name in (("0.50", "50 %"), ("0.80", "80 %")):
        means = frame[frame["regime"] == regime].groupby("recipe")["accuracy_drop"].mean()
        mine = shown[shown["removed"] == name]
        assert list(mine["mean drop, points"]) == [
            f"{v:.2f}".replace("-", "−") for v in means.nsmallest(SHOWN)
        ]
        for start, recipe in zip(mine["subnetwork_id"], means.nsmallest(SHOWN).index, strict=True):
            found = frame[frame["subnetwork_id"].str.startswith(start)]
            assert len(found) == 1
            assert found["recipe"].iloc[0] == recipe
            assert found["accuracy"].iloc[0] == frame.loc[frame["recipe"] == recipe, "accuracy"].max()
    assert section.code[0][1].splitlines() == [
        f"python -m generate.export runs/mine {i}  # the best at {r}"
        for r, i in shown.drop_duplicates("removed")[["removed", "subnetwork_id"]].itertuples(index=False)
    ]


def test_widths_are_those_of_the_best_recipes_beside_the_originals() -> None:
    population = popstats.simulate_population("additive-widths", regimes=(0.5, 0.8), n=60, seed=4)
    section = best_section(analyse(_fit(population)), "mine")
    assert section is not None
    table = pd.DataFrame(section.tables[1][1].records).set_index("group")
    rows = population.frame[population.frame["regime"] == "0.80"]
    best = rows["accuracy_drop"].idxmin()
    assert [float(cell.split(" ")[0]) for cell in table["80 %"]] == list(population.widths[best])
    assert all(cell.endswith("%)") for cell in table["80 %"])


def test_shipped_populations_have_no_weights_to_export() -> None:
    population = popstats.load_population("digits-resnet8-params")
    section = best_section(analyse(_fit(population)), population.name)
    assert section is not None
    assert section.code == ()


def test_without_ids_the_recipes_are_still_shown(made: popstats.Population) -> None:
    columns = [c for c in ("subnetwork_id", "recipe_id") if c in made.table]
    bare = popstats.Population.from_frame(made.table.drop(columns=columns))
    section = best_section(analyse(_fit(bare)), "mine")
    assert section is not None
    assert "subnetwork_id" not in section.tables[0][1].columns
    assert section.code == ()


def test_recipes_known_by_their_recipe_id_alone_are_not_promised_an_export(made: popstats.Population) -> None:
    alone = made.table.drop(columns=[c for c in ("subnetwork_id",) if c in made.table])
    ids = np.array([f"r{i}" for i in made.recipe])
    section = best_section(analyse(_fit(popstats.Population.from_frame(alone.assign(recipe_id=ids)))), "mine")
    assert section is not None
    assert section.tables[0][1].columns[-1] == "recipe_id"
    assert section.code == ()
    assert section.code == ()


def test_baselines_stand_beside_the_recipes_of_their_regime(made: popstats.Population) -> None:
    rows = made.frame
    spaces = np.where(rows["regime"] == "0.80", "stratified", None).astype(object)
    erk = rows.index[rows["regime"] == "0.80"][:3]
    spaces[erk], spaces[rows.index[rows["regime"] == "0.50"][0]] = "baseline:erk", "baseline:uniform"
    table = made.table.assign(space=spaces, pruning="weights")
    fit = _fit(popstats.Population.from_frame(table))
    section = baseline_section(analyse(fit))
    assert section is not None
    shown = pd.DataFrame(section.tables[0][1].records)
    assert list(zip(shown["removed"], shown["baseline"], strict=True)) == [
        ("50 %", "uniform"),
        ("80 %", "erk"),
    ]
    drops = rows.loc[erk, "accuracy_drop"]
    assert shown.iloc[1, 3].startswith(f"{drops.mean():.2f} (")
    assert "(" not in shown.iloc[0, 3]  # of one training there is no interval
    others = rows[(rows["regime"] == "0.80") & ~rows.index.isin(erk)]["accuracy_drop"]
    assert shown["other recipes that drop less"].iloc[1] == f"{100 * (others < drops.mean()).mean():.0f} %"
    content = report_content(fit)
    assert "baselines" in content.order
    assert any("theoretical" in alert.text for alert in content.alerts)


def test_without_baselines_there_is_no_section_of_them(made: popstats.Population) -> None:
    assert baseline_section(analyse(_fit(made))) is None
