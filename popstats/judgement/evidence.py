"""What a report draws on beside the fit: each network's place, the spaces, the laws; computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from popstats.arrays import FloatArray
from popstats.inference.data import RegimeDesign
from popstats.inference.draws import INTERVAL_MASS
from popstats.inference.model import KEPT_RANGE
from popstats.judgement.analysis import Case, Reading
from popstats.judgement.classical import bucket_sensitivity
from popstats.judgement.explained import Explained, what_explains
from popstats.judgement.judge import judge
from popstats.judgement.optimum_claims import SECOND_REGION
from popstats.judgement.verdicts import Thresholds, Verdict, Verdicts
from popstats.population.recipes import ratio_std
from popstats.population.regimes import BUCKET_WIDTH
from popstats.posterior.fit import Fit
from popstats.posterior.mean_curve import mix_sensitivity

#: What a regime removes, in words.
AXIS_WORDS = {"macs": "MACs", "params": "parameters"}
#: Every how many grid points the curve is drawn.
CURVE_STEP = 4
_TAIL = (1.0 - INTERVAL_MASS) / 2.0


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """Return a frame's rows as named tuples."""
    return list(frame.itertuples(index=False))


@dataclass(frozen=True, eq=False)
class Evidence:
    """A fit, its verdicts and what else the figures need."""

    fit: Fit
    given: Verdicts | None = None  # Verdicts that the caller has already.

    @property
    def axis_words(self) -> str:
        """What a regime removes: "MACs" or "parameters"."""
        return AXIS_WORDS[self.fit.regime_axis]

    @cached_property
    def verdicts(self) -> Verdicts:
        """The verdicts, judged here unless given."""
        return self.given if self.given is not None else judge(self.fit, explained=self.explained)

    @property
    def rise(self) -> float:
        """The rise that a supported optimum asks for, points."""
        return (self.verdicts[0].thresholds if len(self.verdicts) else Thresholds()).rise

    def verdict(self, conjecture: str, regime: str) -> Verdict | None:
        """Return the verdict on a conjecture in a regime; None where it was not judged."""
        return next((v for v in self.verdicts if (v.conjecture, v.regime) == (conjecture, regime)), None)

    def outcome(self, conjecture: str, regime: str) -> str:
        """Return the outcome of a conjecture in a regime; "" where it was not judged."""
        verdict = self.verdict(conjecture, regime)
        return "" if verdict is None else verdict.outcome

    def regimes_where(self, conjecture: str, outcome: str) -> list[str]:
        """Return the labels of the regimes in which a conjecture has an outcome."""
        return [v.regime for v in self.verdicts if v.conjecture == conjecture and v.outcome == outcome]

    @cached_property
    def optima(self) -> dict[str, Any]:
        """The rows of `fit.optima()` by regime; those not fitted have a `reason`."""
        return {row.regime: row for row in rows_of(self.fit.optima())}

    @property
    def fitted_optima(self) -> list[Any]:
        """The rows of `fit.optima()` of the fitted regimes."""
        return [self.optima[r.label] for r in self.fit.fitted]

    @cached_property
    def readings(self) -> dict[str, Reading]:
        """Each fitted regime, read off its draws, by label."""
        return {r.label: r for r in Case(self.fit, Thresholds()).readings}

    @cached_property
    def regions(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """The two good regions of mCB of each regime whose supported best mCB has a rival behind a bump."""
        second = {r: self.readings[r].second(self.rise) for r in self.regimes_where("C3a", "supported")}
        return {
            r: tuple((float(np.exp(low)), float(np.exp(high))) for low, _, high in found.regions)
            for r, found in second.items()
            if found.probability > SECOND_REGION
        }

    @cached_property
    def stretches(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """The near-optimal range of each fitted regime, then the other stretches of mCB that are as good."""
        pairs = zip(self.fit.fitted, self.fit.optimum_draws, strict=True)
        told = {
            r.label: tuple((float(np.exp(a)), float(np.exp(b))) for a, b in o.near.stretches)
            for r, o in pairs
        }
        return told | self.regions

    @property
    def n_fitted(self) -> int:
        """Trainings in the fitted regimes."""
        return sum(r.n for r in self.fit.fitted)

    @cached_property
    def curve(self) -> pd.DataFrame:
        """The expected drop at every fourth point of the grid: regime, mcb, drop (median), lower, upper."""
        fit, parts = self.fit, []
        for k, regime in enumerate(fit.fitted):
            drawn = fit.expected_drop[:, k, ::CURVE_STEP]
            lower, middle, upper = np.quantile(drawn, [_TAIL, 0.5, 1.0 - _TAIL], axis=0)
            columns = {
                "mcb": np.exp(fit.grid[k, ::CURVE_STEP]),
                "drop": middle,
                "lower": lower,
                "upper": upper,
            }
            parts.append(pd.DataFrame({"regime": regime.label, **columns}))
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def reductions(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest reduction of each regime's networks."""
        ends = self.networks.groupby("regime")["reduction"].agg(["min", "max"]).reset_index()
        return {str(row.regime): (float(row.min), float(row.max)) for row in rows_of(ends)}

    @cached_property
    def extrapolated(self) -> list[str]:
        """The fitted regimes whose centre lies outside the reductions of their networks."""
        ends = self.reductions
        return [r.label for r in self.fit.fitted if not ends[r.label][0] <= r.target <= ends[r.label][1]]

    @cached_property
    def explained(self) -> Explained:
        """What explains the drop, on the fit's regimes."""
        if self.given is not None and self.given.explained is not None:
            return self.given.explained
        settings = self.fit.settings
        return what_explains(
            self.fit.population,
            regime_axis=settings.regime_axis,
            regimes=settings.regimes,
            seed=settings.random_seed,
        )

    @cached_property
    def mixes(self) -> dict[str, tuple[float, float]]:
        """Range of each supported best mCB when a group's narrowest or widest quarter is left out."""
        found = mix_sensitivity(self.fit, self.regimes_where("C3a", "supported"))
        return {} if found is None else {r.regime: (r.lower, r.upper) for r in rows_of(found.ranges)}

    @cached_property
    def bucketed(self) -> dict[str, tuple[str, str]]:
        """Outcome of C3a by regime with exact parameter counts and with the paper's buckets, by the exact method.

        Empty where regimes fix the parameters themselves, or the fit was rejected.
        """
        fit = self.fit
        if fit.regime_axis != "macs" or not fit.convergence.ok:
            return {}
        limits = self.verdicts[0].thresholds if len(self.verdicts) else Thresholds()
        # The bucketed fit is an exact one: another method's or noise's verdict would not be its like.
        alike = (fit.settings.method, fit.settings.noise) == ("exact", "normal")
        widths = (BUCKET_WIDTH,) if alike else (None, BUCKET_WIDTH)
        found = bucket_sensitivity(fit, widths, limits)
        rounded = found[found["bucket_width"].notna()]
        exact = found[found["bucket_width"].isna()].set_index("regime")["outcome"].to_dict()
        before = {r: self.outcome("C3a", r) for r in rounded["regime"]} if alike else exact
        return {r.regime: (before[r.regime], r.outcome) for r in rows_of(rounded) if r.regime in before}

    @cached_property
    def networks(self) -> pd.DataFrame:
        """One row a network (recipe), in the order of the recipes' numbers.

        Columns: regime (label), mcb, reduction, drop (points, mean over its trainings), drop_at_mix (the same at the
        average retraining technique of its regime), runs, macs, ratio_std (NaN where unknown), and `adjusted`: the
        drop at the regime's centre and mix of retraining techniques by the fit's own terms, NaN for networks that
        the fit leaves out.
        """
        fit = self.fit
        assigned, table, first = fit.recipes.assigned, fit.recipes.table, fit.recipes.first
        labels = np.array([*assigned.labels, ""], dtype=object)
        spread = ratio_std(fit.population)
        networks = pd.DataFrame(
            {
                "regime": labels[table["regime"].to_numpy()],
                "mcb": np.exp(table["log_mcb"]),
                "reduction": table["reduction"],
                "drop": table["drop"],
                "drop_at_mix": fit.recipes.at_average_technique["drop"],
                "runs": table["runs"].astype(int),
                "macs": fit.population.frame["macs"].to_numpy()[first],
                "ratio_std": np.nan if spread is None else spread[first],
                "adjusted": np.nan,
            }
        )
        for k, regime in enumerate(fit.fitted):
            rows = (networks["regime"] == regime.label).to_numpy()
            networks.loc[rows, "adjusted"] = self._at_centre(k, regime, table[rows])
        return networks

    def _at_centre(self, k: int, regime: RegimeDesign, rows: pd.DataFrame) -> FloatArray:
        mean = self.fit.draws.flat_coefficients[:, k, 1 : len(regime.fixed)].mean(axis=0)
        others = rows["technique"].to_numpy()[:, None] == np.arange(1, len(regime.mix))
        c = regime.offset(rows["reduction"].to_numpy())
        unit = regime.curve_scale.to_unit(rows["log_mcb"])
        technique = (others - np.array(regime.mix[1:])) @ (mean[2:] * regime.fixed[3:])
        effect = mean[0] * c * regime.fixed[1] + mean[1] * c**2 * regime.fixed[2] + technique
        shifted = rows["drop"].to_numpy() - regime.scale * effect
        return np.where(np.abs(unit) <= KEPT_RANGE, shifted, np.nan)

    def of_regime(self, label: str) -> pd.DataFrame:
        """Return the networks of one regime that are in its fit."""
        return self._members.get(label, self.networks.iloc[:0])

    @cached_property
    def _members(self) -> dict[str, pd.DataFrame]:
        fitted = self.networks[self.networks["adjusted"].notna()]
        return {str(label): rows for label, rows in fitted.groupby("regime", sort=False)}
