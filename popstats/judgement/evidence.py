"""The names under which the report knows an `Analysis`; goes when it has moved."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from popstats.judgement.analysis import Analysis, RegimePosterior, rows_of
from popstats.judgement.judge import analyse, judge
from popstats.judgement.verdicts import Thresholds, Verdict, Verdicts
from popstats.posterior.fit import Fit
from popstats.words import AXIS_WORDS

__all__ = ["AXIS_WORDS", "Evidence", "rows_of"]


class Evidence(Analysis):
    """An analysis whose verdicts are judged when they are first asked for."""

    def __init__(self, fit: Fit, given: Verdicts | None = None) -> None:
        self.fit, self.note, self.given = fit, (), given
        if given is not None:
            self.thresholds, self.verdicts = analyse(fit, given).thresholds, given
            if isinstance(given.analysis, Analysis):
                self.__dict__.update(given.analysis.__dict__)
        else:
            self.thresholds = Thresholds()

    def __getattr__(self, name: str) -> Any:
        if name != "verdicts":
            raise AttributeError(name)
        self.verdicts = judge(self.fit)
        return self.verdicts

    @property
    def rise(self) -> float:
        """As in `Analysis.verdicts` and `RegimePosterior`."""
        return self.thresholds.rise

    def verdict(self, conjecture: str, regime: str) -> Verdict | None:  # type: ignore[override]
        """As in `Analysis.verdicts`."""
        found = self.verdicts.of(conjecture, regime)
        return found[0] if len(found) else None

    def outcome(self, conjecture: str, regime: str) -> str:
        """As in `Analysis.verdicts` and `RegimePosterior`."""
        return self.verdicts.outcome(conjecture, regime)

    def regimes_where(self, conjecture: str, outcome: str) -> list[str]:
        """As in `Analysis.verdicts` and `RegimePosterior`."""
        return self.verdicts.regimes_where(conjecture, outcome)

    @cached_property
    def readings(self) -> dict[str, RegimePosterior]:
        """As in `Analysis.verdicts` and `RegimePosterior`."""
        return self.by_label

    @cached_property
    def regions(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """As in `Analysis.verdicts` and `RegimePosterior`."""
        return {
            r.label: tuple((float(np.exp(a)), float(np.exp(b))) for a, _, b in r.regions)
            for r in self.regimes
            if r.regions
        }

    @cached_property
    def stretches(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """As in `Analysis.verdicts` and `RegimePosterior`."""
        return {r.label: tuple((s.low, s.high) for s in r.stretches) for r in self.regimes}

    @cached_property
    def bucketed(self) -> dict[str, tuple[str, str]]:
        """As in `Analysis.verdicts` and `RegimePosterior`."""
        return {}
