"""What a verdict is, and the one rule that makes it."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import pandas as pd

from popstats.errors import PopstatsError
from popstats.findings import Finding, merge
from popstats.words import ALL, QUANTITIES, sentence

#: What `Verdicts.to_records` gives of each verdict.
_RECORDED = (
    "conjecture", "regime", "target", "claim", "outcome", "probability", "prior_probability", "estimate", "lower", "upper",
    "unit", "quantity", "observed_range", "negligible_region", "sentence", "reason", "remedy", "thresholds",
)  # fmt: skip

#: Probabilities are means over draws; a limit met up to rounding is met.
_ROUNDING = 1e-12

Outcome = Literal["supported", "refuted", "undecided", "not assessable"]

#: What each conjecture claims, in a line; the order of the report.
CLAIMS: dict[str, str] = {
    "C1": "At a given MACs reduction there is an optimal parameter bucket",
    "C2": "At a given parameter reduction there is an optimal MACs count",
    "C3a": "There is an optimal mean computation budget (mCB)",
    "C3b": "The winning subnetworks lie near the optimal mCB",
    "C3c": "The optimal mCB is practically the original network's",
    "C3d": "The optimal mCB rises with more aggressive pruning",
    "C4": "The limit of accuracy is predictable from the optimal mCB",
    "S1": "Low-STD spaces beat high-STD spaces",
    "R1": "The retraining technique does not move the optimum",
    "M1": "mCB explains something that the layer widths do not",
}


@dataclass(frozen=True)
class Thresholds:
    """Every number that a verdict depends on; each is an argument of `popstats.judge`.

    Parameters
    ----------
    supported : float
        A claim is supported from this posterior probability on.
    refuted : float
        ... and refuted down from this one.
    rise : float
        C1 to C3a: both ends of the observed range lie more than this many points above the minimum.
    near : float
        Points above the minimum that still count as near-optimal.
    regret : float
        C3c, R1: choosing another mCB costs less than this many points.
    band : float
        C3c: the described band around the original's ratio, as a factor.
    outside_band : float
        C3c: least share of networks outside the band.
    winners : float
        C3b: share of networks that count as winners.
    nearest : float
        C3b: share of networks that count as near the optimum.
    lift : float
        C3b: the nearest hold more than this many times their share of the winners.
    trend : float
        C3d: the optimal mCB changes by more than this factor.
    trend_regimes : int
        C3d: least number of regimes with C3a supported.
    limit_regimes : int
        C4: least number of regimes.
    std_points : float
        S1: the mean drops differ by more than this many points.
    gain : float
        M1: cross-validated R² beyond MACs rises by more than this.
    moving : float
        "Supported" is withheld where an F test with a smaller p value finds that the curve moves with MACs inside the
        regime, and the fitted change exceeds `rise`.
    clusters : int
        "Supported" is withheld where recipes form at most this many clusters in mCB ...
    covered : float
        ... that cover less than this share of the observed range.
    """

    supported: float = 0.95
    refuted: float = 0.05
    rise: float = 0.10
    near: float = 0.05
    regret: float = 0.10
    band: float = 1.25
    outside_band: float = 0.20
    winners: float = 0.05
    nearest: float = 0.20
    lift: float = 1.25
    trend: float = 1.05
    trend_regimes: int = 4
    limit_regimes: int = 6
    std_points: float = 0.05
    gain: float = 0.01
    moving: float = 0.001
    clusters: int = 6
    covered: float = 0.60

    def __post_init__(self) -> None:
        for item in fields(self):
            if not getattr(self, item.name) > 0:
                raise PopstatsError(
                    f"judge: threshold {item.name} must be positive, got {getattr(self, item.name)!r}"
                )
        if not self.refuted < self.supported < 1.0:
            raise PopstatsError(
                f"judge: expected refuted < supported < 1, got {self.refuted!r} and {self.supported!r}"
            )

    @classmethod
    def of(cls, changed: dict[str, float]) -> Thresholds:
        """Return the defaults with some values changed.

        Raises
        ------
        PopstatsError
            If a name is not a threshold.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(changed) - set(known)):
            raise PopstatsError(f"judge: unknown threshold {unknown}; legal names: {', '.join(known)}")
        return cls(**{name: type(getattr(cls, name))(value) for name, value in changed.items()})


@dataclass(frozen=True)
class Verdict:
    """One conjecture in one regime.

    Attributes
    ----------
    conjecture : str
        C1, C2, C3a to C3d, C4, S1, R1, M1.
    regime : str
        Label of the regime; "all" for a verdict over all regimes.
    outcome : {"supported", "refuted", "undecided", "not assessable"}
    probability : float
        Posterior probability of the claim with its negligible region; NaN if not assessable.
    prior_probability : float
        Of the same claim under the prior, by simulation; NaN where the probability comes from a bootstrap.
    estimate, lower, upper : float
        `quantity` with its 90 % equal-tailed interval, in `unit`: what the probability is about, whatever the outcome.
        Where the optimal mCB lies is in `sentence`, and in `Fit.optima`.
    observed_range : (float, float)
        mCB between which anything is claimed.
    thresholds : Thresholds
        What the verdict was made with.
    finding : Finding
        What was found, typed: `sentence` in words.
    basis : tuple of Finding
        Why this outcome: `reason` in words.
    remedies : tuple of Finding
        What would decide, with the lines of a plan where a population could: `remedy` in words.
    """

    conjecture: str
    regime: str
    outcome: Outcome
    probability: float
    prior_probability: float
    estimate: float
    lower: float
    upper: float
    observed_range: tuple[float, float]
    thresholds: Thresholds
    finding: Finding
    basis: tuple[Finding, ...]
    remedies: tuple[Finding, ...] = ()

    @property
    def claim(self) -> str:
        """The conjecture in a line."""
        return CLAIMS[self.conjecture]

    @property
    def target(self) -> float:
        """The regime's centre, a fraction removed; NaN for a verdict over all regimes."""
        return math.nan if self.regime == ALL else float(self.regime)

    @property
    def sentence(self) -> str:
        """The verdict in plain words, with numbers and units."""
        return sentence(self.finding)

    @property
    def reason(self) -> str:
        """Why this outcome, in words."""
        return " ".join(sentence(found) for found in self.basis)

    @property
    def remedy(self) -> str:
        """What would decide, in words; empty where nothing is open."""
        return "\n".join(sentence(found) for found in self.remedies)

    @property
    def quantity(self) -> str:
        """What `estimate` is an estimate of; empty where nothing could be assessed."""
        return "" if self.outcome == "not assessable" else QUANTITIES[self.conjecture][0]

    @property
    def unit(self) -> str:
        """Of `estimate`."""
        return "" if self.outcome == "not assessable" else QUANTITIES[self.conjecture][1]

    @property
    def negligible_region(self) -> str:
        """What counts as no effect, in words."""
        return "" if self.outcome == "not assessable" else negligible_words(self.conjecture, self.thresholds)


def negligible_words(conjecture: str, thresholds: Thresholds) -> str:
    """Return what counts as no effect, in words."""
    return QUANTITIES[conjecture][2].format(**asdict(thresholds))


class Verdicts(tuple[Verdict, ...]):
    """The verdicts of one fit: a tuple of `Verdict` that displays itself as a table.

    Each has an outcome of four words, the claim's probability, an estimate with its 90 % interval, and a sentence.

    Parameters
    ----------
    items : iterable of Verdict
    analysis : popstats.judgement.analysis.Analysis, optional
        What they were read off: a report that is given the verdicts computes nothing again.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population(regimes=[0.6], n=300, rise=1.0)
    >>> verdicts = popstats.judge(popstats.fit(population, method="exact"))
    >>> verdicts.of("C3a")[0].sentence[:45]
    'At 60 % MACs reduction, the optimal mCB is 1.'
    >>> verdicts.outcome("C3c", "0.60"), verdicts.regimes_where("C3a", "supported")
    ('supported', ['0.60'])
    """

    analysis: object

    def __new__(cls, items: Iterable[Verdict] = (), analysis: object = None) -> Verdicts:
        """Keep the verdicts, and what they were read off."""
        found = super().__new__(cls, items)
        found.analysis = analysis
        return found

    def of(self, conjecture: str, regime: str | None = None) -> Verdicts:
        """Return the verdicts on one conjecture, optionally in one regime.

        Parameters
        ----------
        conjecture : str
            C1, C2, C3a to C3d, C4, S1, R1 or M1.
        regime : str, optional
            Label of a regime ("0.75"), or "all" for the verdict over all regimes; default: every one.
        """
        return Verdicts(v for v in self if v.conjecture == conjecture and regime in (None, v.regime))

    def outcome(self, conjecture: str, regime: str) -> str:
        """Return the outcome of a conjecture in a regime; "" where it was not judged."""
        found = self.of(conjecture, regime)
        return found[0].outcome if len(found) else ""

    def regimes_where(self, conjecture: str, outcome: str) -> list[str]:
        """Return the labels of the regimes in which a conjecture has an outcome."""
        return [v.regime for v in self if (v.conjecture, v.outcome) == (conjecture, outcome)]

    @property
    def frame(self) -> pd.DataFrame:
        """One row per verdict: conjecture, regime, outcome, probability, estimate, lower, upper, reason.

        `estimate` estimates the quantity that the probability refers to (`Verdict.quantity`): for C3a, not the optimal mCB
        but the rise of the curve from its minimum to the shallower end.
        """
        columns = ["conjecture", "regime", "outcome", "probability", "estimate", "lower", "upper", "reason"]
        return pd.DataFrame([[getattr(v, name) for name in columns] for v in self], columns=columns)

    def to_records(self) -> list[dict[str, object]]:
        """Return plain values and words for JSON: NaN and infinite numbers become None."""
        return [{name: _plain(getattr(v, name)) for name in _RECORDED} for v in self]

    def __repr__(self) -> str:
        lines = [f"{c:<4}{regimes:<7} {outcome:<15}{words}" for c, regimes, outcome, words in self._folded()]
        return "\n".join([f"<Verdicts: {len(self)}{self._counts()}>", *lines])

    def _folded(self) -> list[tuple[str, str, str, str]]:
        """Return conjecture, regimes, outcome, words; those that cannot be assessed share a row per kind of reason."""
        rows: list[tuple[str, str, str, str]] = []
        for conjecture in dict.fromkeys(v.conjecture for v in self):
            own = self.of(conjecture)
            rows += [
                (conjecture, v.regime, v.outcome, v.sentence) for v in own if v.outcome != "not assessable"
            ]
            for found in merge(v.finding for v in own if v.outcome == "not assessable"):
                rows.append((conjecture, ", ".join(found.regimes) or ALL, "not assessable", sentence(found)))
        return rows

    def _counts(self) -> str:
        counts = [(sum(v.outcome == outcome for v in self), outcome) for outcome in get_args(Outcome)]
        return f": {', '.join(f'{n} {outcome}' for n, outcome in counts)}" if self else ""

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th scope='row' title='{html.escape(CLAIMS.get(c, ''), quote=True)}'>{html.escape(c)}</th>"
            f"<td>{html.escape(regimes)}</td><td><strong>{html.escape(outcome)}</strong></td>"
            f"<td style='text-align: left'>{html.escape(words)}</td></tr>"
            for c, regimes, outcome, words in self._folded()
        )
        head = "<tr><th>conjecture</th><th>regime</th><th>verdict</th><th style='text-align: left'>in words</th></tr>"
        counts = html.escape(f"{len(self)} verdicts{self._counts()}")
        return f"<p>{counts}</p><table><thead>{head}</thead><tbody>{cells}</tbody></table>"


def decide(
    probability: float,
    prior_probability: float,
    inside_negligible: bool,
    thresholds: Thresholds | None = None,
) -> Outcome:
    """Return the outcome for a claim: the one rule of all verdicts.

    A low probability refutes only if it stays low after the prior odds of the claim are set to 1:1: what the
    prior held against the claim is no evidence.

    >>> decide(0.97, 0.2, False), decide(0.03, 0.2, False), decide(0.01, 0.2, False), decide(0.3, 0.2, True)
    ('supported', 'undecided', 'refuted', 'refuted')
    """
    limits = thresholds or Thresholds()
    if math.isnan(probability):
        return "undecided"
    if probability >= limits.supported:
        return "supported"
    least = limits.refuted + _ROUNDING
    low = probability <= least and reset_odds(probability, prior_probability) <= least
    return "refuted" if low or inside_negligible else "undecided"


def reset_odds(probability: float, prior_probability: float) -> float:
    """Return the posterior probability had the prior odds been 1:1.

    >>> round(reset_odds(0.05, 0.2), 3), reset_odds(0.3, float("nan"))
    (0.174, 0.3)
    """
    if math.isnan(prior_probability) or probability in (0.0, 1.0):
        return probability
    # A prior that excludes the claim, or is sure of it, cannot be reset: simulation error of 2,000 draws.
    prior = min(max(prior_probability, 5e-4), 1.0 - 5e-4)
    odds = probability / (1.0 - probability) / (prior / (1.0 - prior))
    return odds / (1.0 + odds)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return asdict(value) if isinstance(value, Thresholds) else value
