"""The best networks of each regime, with the ids by which they are exported."""

from __future__ import annotations

import pandas as pd

from popstats.inference.cost_form import first_rows
from popstats.report.content import Section, Table
from popstats.report.evidence import Evidence, rows_of
from popstats.report.words import count, number, plural, regime_name

__all__ = ["best_section"]

#: Recipes shown of each regime.
SHOWN = 2
#: Characters shown of an id, where they are enough to tell it from all others.
SHORT_ID = 12
#: What a row is known by, the first that the table has: one training, or one recipe.
ID_COLUMNS = ("subnetwork_id", "recipe_id")


def best_section(evidence: Evidence) -> Section | None:
    """Return each regime's recipes of smallest mean drop; None where the table has no ids."""
    frame = evidence.fit.population.frame
    named = next((c for c in ID_COLUMNS if c in frame and frame[c].notna().all()), "")
    best = _best(evidence)
    if not named or best.empty:
        return None
    ids = _ids(evidence, best, named)
    short = _short(ids, frame[named].astype(str).drop_duplicates().tolist())
    cells = zip(rows_of(best), short, strict=True)
    rows = [
        (
            regime_name(r.regime),
            shown,
            number(r.drop),
            count(r.runs),
            count(r.macs),
            count(r.params),
            number(r.mcb),
        )
        for r, shown in cells
    ]
    columns = ("removed", named, "mean drop, points", "trainings", "MACs", "parameters", "mCB")
    pairs = zip(best["regime"], ids, strict=True)
    return Section(
        key="best",
        heading="The best networks",
        sentence=f"The {plural(SHOWN, 'recipe')} of smallest mean drop in each regime, of those that were trained.",
        paragraphs=(
            "Ranked by the mean drop over a recipe's trainings, at its own MACs and parameters. The best of many is partly "
            "luck: trained again, it drops more on average. " + _export_words(named),
        ),
        tables=(("Best recipes by regime", Table(columns, tuple(rows))),),
        code=(("Whole ids", "\n".join(f"{regime_name(r):>7}  {i}" for r, i in pairs)),)
        if short != ids
        else (),
    )


def _export_words(named: str) -> str:
    if named != "subnetwork_id":
        return "A recipe's trainings share its recipe_id."
    return (
        "The id is that of the recipe's most accurate training; for populations made by generate, "
        "“python -m generate.export RUN SUBNETWORK_ID” gives its network, and the characters shown are enough for it."
    )


def _best(evidence: Evidence) -> pd.DataFrame:
    """Return the recipes shown, regimes in the report's order, with `recipe` (their number) and `params`."""
    population = evidence.fit.population
    params = population.frame["params"].to_numpy()[first_rows(population)]
    recipes = evidence.networks.assign(params=params, recipe=range(len(params)))
    parts = [recipes[recipes["regime"] == r.label].nsmallest(SHOWN, "drop") for r in evidence.fit.regimes]
    return pd.concat(parts, ignore_index=True)


def _ids(evidence: Evidence, best: pd.DataFrame, named: str) -> list[str]:
    """Return the id of each recipe's most accurate training."""
    population = evidence.fit.population
    rows = population.frame.assign(recipe=population.recipe)
    top = rows.sort_values("accuracy", kind="stable").drop_duplicates("recipe", keep="last")
    return top.set_index("recipe")[named].astype(str).loc[best["recipe"]].tolist()


def _short(ids: list[str], known: list[str]) -> list[str]:
    """Cut ids where a few characters tell them from all others of the table.

    >>> _short(["abcdefghijklmn", "x"], ["abcdefghijklmn", "x"])
    ['abcdefghijkl', 'x']
    >>> _short(["abcdefghijklmn"], ["abcdefghijklmn", "abcdefghijklmo"])
    ['abcdefghijklmn']
    """
    starts = pd.Series(known).str[:SHORT_ID].value_counts()
    return [i[:SHORT_ID] if starts[i[:SHORT_ID]] == 1 else i for i in ids]
