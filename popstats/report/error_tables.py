"""How often the rules err: on simulated truths, and on subsamples of a large real table judged against the whole."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from popstats.figures.content import Section, Table
from popstats.judgement.evidence import Evidence
from popstats.words import MISSING, count, join_words, number, percent, plural

#: Subsamples that hold more than this share of a regime's recipes are nearly the whole: their coverage is too high.
LARGEST_SHARE = 0.5


def shipped(name: str) -> dict[str, Any] | None:
    """Return error rates that are shipped with the package ("calibration" or "plasmode"); None if there are none."""
    stored = files("popstats.planning").joinpath(f"{name}.json")
    return json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else None


def calibration_section(
    simulated: dict[str, Any] | None, real: dict[str, Any] | None = None, evidence: Evidence | None = None
) -> Section | None:
    """Return how often these very rules err; None without a calibration."""
    if simulated is None:
        return None
    table = pd.DataFrame(simulated["rows"])
    worst = table[["false_supported", "false_refuted"]].max()
    mass = percent(float(simulated["interval_mass"]))
    tables = [
        (
            f"Verdicts on C3a on {plural(len(table), 'kind')} of simulated truth, size and noise, "
            f"{count(int(table['regimes'].max()))} regimes each",
            _simulated_table(table, mass),
        )
    ]
    paragraphs = [
        f"Simulated: method {simulated['method']}. Found: share of verdicts “supported” where a quadratic of that rise is "
        f"the truth, at noise {number(_noise(table))} points. Covered: share of {mass} intervals that hold the truth, from "
        "the least to the most favourable kind. “python -m popstats calibrate” makes the table again.",
    ]
    if real is not None:
        tables.append((_real_caption(real), _real_table(real)))
        paragraphs.append(_real_words(real))
    if evidence is not None and evidence.fit.fitted and len(_plain(table)):
        paragraphs = [_own_sizes(evidence, table, real), *paragraphs]
    return Section(
        key="calibration",
        heading="How often these rules err",
        sentence=(
            f"On simulated populations with known truth, C3a was falsely supported in at most "
            f"{percent(float(worst.iloc[0]), 1)} and falsely refuted in at most {percent(float(worst.iloc[1]), 1)} of the "
            f"regimes of any kind tried.{_real_sentence(real)}"
        ),
        paragraphs=tuple(paragraphs),
        tables=tuple(tables),
        folded=True,
    )


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the plainest truth, a quadratic under normal noise."""
    chosen = (table["truth"] == "quadratic") & (table["noise_kind"] == "normal") & (table["seeds"] == 1)
    return table[chosen]


def _noise(table: pd.DataFrame) -> float:
    return float(_plain(table)["noise"].iloc[0]) if len(_plain(table)) else float("nan")


def _simulated_table(table: pd.DataFrame, mass: str) -> Table:
    rises = sorted(_plain(table)["rise"].unique())
    rows = [_simulated_row(int(n), table[table["n"] == n], rises) for n in sorted(table["n"].unique())]
    columns = (
        "recipes a regime",
        "false “supported”, worst truth",
        "false “refuted”, worst truth",
        *(f"found: a rise of {rise:g} points" for rise in rises),
        f"near-optimal ends covered ({mass})",
        f"limit covered ({mass})",
        f"best mCB covered ({mass})",
    )
    return Table(columns, tuple(rows))


def _simulated_row(n: int, rows: pd.DataFrame, rises: list[float]) -> tuple[str, ...]:
    plain = _plain(rows)
    return (
        count(n),
        percent(float(rows["false_supported"].max()), 1),
        percent(float(rows["false_refuted"].max()), 1),
        *(_ends(plain.loc[plain["rise"] == rise, ["supported"]]) for rise in rises),
        _ends(rows[["coverage_near_lower", "coverage_near_upper"]]),
        _ends(rows[["coverage_limit"]]),
        _ends(rows[["coverage_mcb"]]),
    )


def _ends(shares: pd.DataFrame) -> str:
    """Return the smallest and the largest share in words; a dash where there is none."""
    values = shares.to_numpy(dtype=float).ravel()
    values = values[np.isfinite(values)]
    ends = [percent(float(v), 0) for v in (values.min(), values.max())] if values.size else [MISSING]
    return " to ".join(dict.fromkeys(ends))


def _real_sentence(real: dict[str, Any] | None) -> str:
    if real is None:
        return ""
    most = float(pd.DataFrame(real["rows"])["contradicted"].max())
    share = "none" if most == 0 else f"at most {percent(most, 0)}"
    return f" Of subsamples of real networks, {share} said the opposite of the whole table."


def _real_caption(real: dict[str, Any]) -> str:
    repeated = int(pd.DataFrame(real["rows"])["subsamples"].max())
    return (
        f"Verdicts on C3a from subsamples of {real['population']} ({plural(int(real['trainings']), 'training')}) "
        f"against the whole, {repeated} subsamples a regime and size"
    )


def _real_table(real: dict[str, Any]) -> Table:
    table, mass = pd.DataFrame(real["rows"]), percent(float(real["interval_mass"]))
    columns = (
        "recipes a regime",
        "regimes",
        "“supported” where the whole is",
        "“refuted” where the whole is",
        "decided where the whole is undecided",
        "the opposite of the whole",
        f"near-optimal ends covered ({mass})",
        f"limit covered ({mass})",
        f"best mCB covered ({mass})",
    )
    return Table(
        columns, tuple(_real_row(int(n), table[table["n"] == n]) for n in sorted(table["n"].unique()))
    )


def _real_row(n: int, rows: pd.DataFrame) -> tuple[str, ...]:
    scored = rows[rows["share_of_population"] <= LARGEST_SHARE]
    decided = 1.0 - rows.loc[rows["whole"] == "undecided", ["undecided"]]
    return (
        count(n),
        count(len(rows)),
        _ends(rows.loc[rows["whole"] == "supported", ["supported"]]),
        _ends(rows.loc[rows["whole"] == "refuted", ["refuted"]]),
        _ends(decided),
        _ends(rows[["contradicted"]]),
        _ends(scored[["coverage_near_lower", "coverage_near_upper"]]),
        _ends(scored[["coverage_limit"]]),
        _ends(scored[["coverage_mcb"]]),
    )


def _real_words(real: dict[str, Any]) -> str:
    return (
        f"Real: one table, {real['population']}; its whole fit stands in for the truth, so an error that the model makes at "
        "every size stays unseen. Ranges go from the least to the most favourable regime. Covered: share of intervals "
        f"that hold the whole's median, where a subsample has at most {percent(LARGEST_SHARE)} of the regime's recipes."
    )


def _own_sizes(evidence: Evidence, table: pd.DataFrame, real: dict[str, Any] | None) -> str:
    """Say what regimes of the reader's own sizes can expect."""
    own = sorted(r.n_recipes for r in evidence.fit.fitted)
    spreads = sorted(float(row.residual_sd) for row in evidence.fitted_optima)
    plain = _plain(table).sort_values("rise")
    rises = join_words([f"{rise:g}" for rise in plain["rise"].unique()])
    found = [_found(plain[plain["n"] == n], n) for n in _nearest(own, plain["n"])]
    words = (
        f"Regimes here hold {_span([count(n) for n in own])} recipes, with noise of "
        f"{_span([number(sd) for sd in spreads])} points. Of simulated rises of {rises} points at noise "
        f"{number(_noise(table))}, {'; '.join(found)}; more noise asks for a rise larger in proportion."
    )
    if real is None:
        return words
    rows = pd.DataFrame(real["rows"])
    rows = rows[rows["whole"] == "supported"]
    told = [
        f"{count(n)} recipes find {_ends(rows.loc[rows['n'] == n, ['supported']])}"
        for n in _nearest(own, rows["n"])
    ]
    return f"{words} Of the best mCBs that a large real table supports, subsamples of {join_words(told)}."


def _span(values: list[str]) -> str:
    return " to ".join(dict.fromkeys((values[0], values[-1])))


def _nearest(own: list[int], tried: pd.Series) -> list[int]:
    """Return the sizes tried that are nearest, on a log scale, to the smallest and the largest regime's."""
    sizes = sorted(int(n) for n in tried.unique())
    return sorted({min(sizes, key=lambda n: abs(np.log(n / mine))) for mine in (own[0], own[-1])})


def _found(rows: pd.DataFrame, n: int) -> str:
    shares = join_words([number(100 * float(v), 0) for v in rows["supported"]])
    return f"{count(n)} recipes find {shares} %"
