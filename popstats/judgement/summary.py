r"""`popstats.summarize`: what several populations say together, by a random-effects model.

.. math:: y_{pk} = \mu + b_p + c_{pk} + e_{pk}, \quad b_p \sim \mathrm{Normal}(0, \tau^2), \quad
          c_{pk} \sim \mathrm{Normal}(0, \omega^2), \quad e_{pk} \sim \mathrm{Normal}(0, s_{pk}^2),

for regime k of population p, with s the posterior standard deviation of its own fit.

References
----------
Paule and Mandel (1982), doi:10.6028/jres.087.022 (the variance between populations); Hartung and Knapp (2001),
doi:10.1002/sim.1009 (the interval of the mean); Higgins, Thompson and Spiegelhalter (2009),
doi:10.1111/j.1467-985X.2008.00552.x (the interval for a new population).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from popstats.errors import FitError
from popstats.findings import Estimate, Finding, Span, fact
from popstats.inference.draws import TAIL
from popstats.judgement.analysis import rows_of
from popstats.judgement.family import ENTERING, doublings, moves
from popstats.judgement.judge import analyse, judge
from popstats.judgement.verdicts import CLAIMS, Thresholds, Verdicts
from popstats.population.table import written_whole
from popstats.posterior.fit import Fit, require_fit
from popstats.words import html_of, sentence

#: Rows of the frame that stand for all populations.
POOLED, NEW = "pooled", "new population"
#: Smallest standard deviation of a regime's estimate: one grid step of log mCB, or a thousandth of a point.
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Summary:
    """What several populations say together.

    Attributes
    ----------
    frame : pandas.DataFrame
        For "optimal mCB" and "regret of mCB = 1" (percentage points): one row per population, one for all ("pooled"), and
        one for a regime of a new population ("new population"). Columns: quantity, population, regimes (that
        enter), estimate, lower, upper (90 %), between (standard deviation between populations, of log mCB or points),
        within (between the regimes of one population).
    verdicts : pandas.DataFrame
        One row per conjecture: conjecture, claim, assessable, supported, refuted, undecided (verdicts), by_chance (supported
        ones to expect at most if the claim held nowhere), p_chance (probability of as many by chance), wrong (expected
        number of wrong ones among the supported and refuted, by their own posterior probabilities).
    moves : pandas.DataFrame
        Of regimes that populations share, how each quantity moves: quantity ("optimal mCB", the two ends of the near-optimal
        range, "limit"), regime, population, against, width and depth (of the original, where its plan tells them; the
        width is a factor), outcome (of C3a), estimate, lower, upper. `against` is empty for the population's own value, the
        first population for the difference from it, and "doubling of width" or "doubling of depth" for the change per
        doubling over the originals that differ from the first in that alone. mCB is compared by factors (1: no
        difference), limits in percentage points.
    """

    frame: pd.DataFrame
    verdicts: pd.DataFrame
    moves: pd.DataFrame

    @property
    def sentence(self) -> str:
        """The pooled results in words."""
        return " ".join(map(sentence, self._findings()))

    def _findings(self) -> Iterator[Finding]:
        for quantity, rows in self.frame.groupby("quantity", sort=False):
            held = rows.set_index("population")
            values: dict[str, Any] = {
                "quantity": quantity,
                "pooled": Estimate(*held.loc[POOLED, ["estimate", "lower", "upper"]].astype(float)),
                "populations": len(rows) - 2,
                "new": Span(*held.loc[NEW, ["lower", "upper"]].astype(float)),
            }
            yield fact("pooled quantity", **values)
        (counts,) = (row for row in rows_of(self.verdicts) if row.conjecture == "C3a")
        named = {name: float(getattr(counts, name)) for name in ("supported", "assessable", "by_chance")}
        yield fact("pooled verdicts", **named)
        yield from doublings(self.moves)

    def to_csv(self, path: str | Path) -> tuple[Path, ...]:
        """Write `frame` to `path`, and beside it `verdicts` to NAME-verdicts.csv and `moves` to NAME-moves.csv."""
        path = Path(path)
        paths = path, *(path.with_name(f"{path.stem}-{name}{path.suffix}") for name in ("verdicts", "moves"))
        for table, target in zip((self.frame, self.verdicts, self.moves), paths, strict=True):
            with written_whole(target) as unfinished:
                table.to_csv(unfinished, index=False)
        return paths

    def to_latex(self, path: str | Path) -> Path:
        """Write `frame` and `verdicts` as LaTeX (package booktabs), ready for a paper; returns the path."""
        counts = self.verdicts.drop(columns="claim")
        tables = (
            t.to_latex(index=False, float_format="%.2f", escape=True, na_rep="--")
            for t in (self.frame, counts)
        )
        with written_whole(Path(path)) as unfinished:
            unfinished.write_text("\n".join(tables))
        return Path(path)

    def __repr__(self) -> str:
        return f"<Summary: {self.sentence}>"

    def _repr_html_(self) -> str:
        return html_of(self.sentence, self.frame, self.verdicts)


def summarize(fits: Sequence[Fit] | Mapping[str, Fit], verdicts: Sequence[Verdicts] | None = None) -> Summary:
    """Pool optimal mCB, regret of mCB = 1 and verdicts over populations and their regimes.

    Parameters
    ----------
    fits : sequence of Fit, or mapping of str to Fit
        At least two, of different populations; a mapping names them.
    verdicts : sequence of Verdicts, optional
        What `popstats.judge` said of each, in the same order; default: they are judged here.

    Returns
    -------
    Summary
        `.frame` (populations, pooled, and what to expect of a new one), `.verdicts` (counts beside those expected by
        chance), `.moves` (differences between the populations, and changes per doubling of the original's width or
        depth), `.to_csv(path)`, `.to_latex(path)`.

    Raises
    ------
    FitError
        If there are fewer than two fits, two share a name, or no regime of any fit may have an optimal mCB.

    Notes
    -----
    A regime enters unless C3a is refuted or cannot be assessed there; wide posteriors count for little. mCB is pooled on
    the log scale.

    Examples
    --------
    >>> import popstats
    >>> made = {f"seed {s}": popstats.simulate_population(regimes=[0.5, 0.7], n=150, rise=1.0, seed=s) for s in (1, 2, 3)}
    >>> summary = popstats.summarize({name: popstats.fit(population) for name, population in made.items()})
    >>> summary.frame.set_index(["quantity", "population"]).loc[("optimal mCB", "pooled"), "estimate"].round(1)
    np.float64(1.0)
    """
    named = _named(fits)
    judged = [judge(fit) for fit in named.values()] if verdicts is None else list(verdicts)
    if len(judged) != len(named):
        raise FitError(f"summarize: expected one Verdicts per fit, got {len(judged)} for {len(named)} fits")
    rows = chain.from_iterable(map(_effects, named.keys(), named.values(), judged))
    effects = pd.DataFrame(rows, columns=["quantity", "population", "estimate", "sd"])
    if effects["population"].nunique() < 2:
        raise FitError(
            "summarize: fewer than two populations have a regime in which an optimal mCB may exist (C3a neither refuted nor "
            "not assessable); there is nothing to pool"
        )
    several = effects.groupby("quantity", sort=False).filter(lambda rows: rows["population"].nunique() > 1)
    parts = [_pooled(str(quantity), rows) for quantity, rows in several.groupby("quantity", sort=False)]
    analyses = {name: analyse(fit, told) for (name, fit), told in zip(named.items(), judged, strict=True)}
    counts = _counts([v for told in judged for v in told])
    return Summary(pd.concat(parts, ignore_index=True), counts, moves(analyses))


def _named(fits: Sequence[Fit] | Mapping[str, Fit]) -> dict[str, Fit]:
    if isinstance(fits, Fit) or not isinstance(fits, Mapping | Sequence) or len(fits) < 2:
        raise FitError("summarize: expected at least two fits, in a list or a mapping of names to fits")
    for fit in fits.values() if isinstance(fits, Mapping) else fits:
        require_fit(fit, "summarize")
    named = dict(fits) if isinstance(fits, Mapping) else {fit.population.name: fit for fit in fits}
    if len(named) < len(fits):
        raise FitError(
            "summarize: two fits are of populations with one name; pass a mapping of names to fits"
        )
    return named


def _effects(name: str, fit: Fit, told: Verdicts) -> Iterator[tuple[str, str, float, float]]:
    """Yield quantity, population, estimate and standard deviation of each regime that enters."""
    for regime, optimum in zip(fit.fitted, fit.optimum_draws, strict=True):
        if told.outcome("C3a", regime.label) not in ENTERING:
            continue
        pairs = {"optimal mCB": optimum.log_mcb, "regret of mCB = 1": optimum.regret_at_original}
        for quantity, draws in pairs.items():
            if np.isfinite(draws).all():
                yield quantity, name, float(draws.mean()), max(float(draws.std()), _LEAST)


def _pooled(quantity: str, effects: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one quantity."""
    from statsmodels.stats.meta_analysis import combine_effects

    groups = [(str(name), rows) for name, rows in effects.groupby("population", sort=False)]
    within = _within([rows[["estimate", "sd"]] for _, rows in groups])
    means, variances = [], []
    for _, rows in groups:
        weight = 1.0 / (rows["sd"].to_numpy() ** 2 + within)
        means.append(float(weight @ rows["estimate"] / weight.sum()))
        variances.append(float(1.0 / weight.sum()))
    normal, size, y, v = stats.norm.ppf(1.0 - TAIL), len(groups), np.array(means), np.array(variances)
    found = combine_effects(y, v, method_re="pm", atol=1e-9)
    centre, between = float(found.mean_effect_re), float(found.tau2)
    # Hartung and Knapp's error, where it is larger: with few populations it can be too small.
    error = np.sqrt(found.var_eff_w_re * max(float(found.scale_hksj_re), 1.0))
    wide, spread = np.sqrt(between + within + error**2), np.sqrt(between)
    lines = [
        (name, len(rows), *pair, np.nan)
        for (name, rows), *pair in zip(groups, y, normal * np.sqrt(v), strict=True)
    ]
    lines += [
        (POOLED, len(effects), centre, stats.t.ppf(1.0 - TAIL, size - 1) * error, spread),
        (NEW, 0, centre, stats.t.ppf(1.0 - TAIL, max(size - 2, 1)) * wide, spread),
    ]
    frame = pd.DataFrame(lines, columns=["population", "regimes", "estimate", "half", "between"])
    frame = frame.assign(lower=frame["estimate"] - frame["half"], upper=frame["estimate"] + frame["half"])
    ends = ["estimate", "lower", "upper"]
    frame[ends] = np.exp(frame[ends]) if quantity == "optimal mCB" else frame[ends].clip(lower=0.0)
    frame = frame.assign(quantity=quantity, within=np.sqrt(within))
    return frame[["quantity", "population", "regimes", *ends, "between", "within"]]


def _within(groups: Sequence[pd.DataFrame]) -> float:
    """Return the variance between the regimes of one population, by moments (DerSimonian and Laird within each)."""
    misfit, freedom, total = 0.0, 0, 0.0
    for estimate, sd in (rows.to_numpy().T for rows in groups):
        weight = 1.0 / sd**2
        misfit += float(weight @ (estimate - weight @ estimate / weight.sum()) ** 2)
        freedom += estimate.size - 1
        total += float(weight.sum() - (weight**2).sum() / weight.sum())
    return max((misfit - freedom) / total, 0.0) if freedom else 0.0


def _counts(told: Sequence[Any]) -> pd.DataFrame:
    """Return how often each conjecture was supported and refuted, and how often that would happen by chance."""
    chance, rows = 1.0 - Thresholds().supported, []
    for conjecture, claim in CLAIMS.items():
        mine = [v for v in told if v.conjecture == conjecture and v.outcome != "not assessable"]
        by = {name: [v for v in mine if v.outcome == name] for name in ("supported", "refuted", "undecided")}
        wrong = sum(1.0 - v.probability for v in by["supported"]) + sum(v.probability for v in by["refuted"])
        counts = {name: len(held) for name, held in by.items()}
        p = float(stats.binom.sf(counts["supported"] - 1, len(mine), chance)) if mine else np.nan
        rows.append(
            {"conjecture": conjecture, "claim": claim, "assessable": len(mine), **counts,
             "by_chance": chance * len(mine), "p_chance": p, "wrong": float(wrong)}
        )  # fmt: skip
    return pd.DataFrame(rows)
