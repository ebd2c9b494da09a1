"""The report's figures as Altair charts: `popstats.plot_drop`, the other plot functions, and `fit.plot()`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from popstats.errors import FitError
from popstats.figures.charts import draw
from popstats.figures.content import Figure, Panel, Table
from popstats.figures.curve_figures import drop_figure, limit_figure, near_figure
from popstats.figures.space_figures import edf_figure, elasticity_panels, explained_figure
from popstats.judgement.analysis import Analysis
from popstats.judgement.optimum_claims import optimum, per_regime
from popstats.judgement.space_claims import judge_std_spaces
from popstats.judgement.verdicts import Verdicts
from popstats.planning.law import POOLED, WidthLaw
from popstats.posterior.fit import Fit, require_fit
from popstats.words import regime_name

if TYPE_CHECKING:
    import altair as alt

#: Width of a chart that stands alone, of one among several, and how many stand side by side.
ALONE, SEVERAL, COLUMNS = 480, 260, 3


def plot_drop(fit: Fit, regime: float | str | None = None) -> alt.LayerChart | alt.ConcatChart:
    """Plot the accuracy drop against mCB: recipes, expected drop with its 90 % band, near-optimal range, optimum.

    Parameters
    ----------
    fit : Fit
        From `popstats.fit`.
    regime : float or str, optional
        Centre or label of one regime; default: all fitted regimes side by side.

    Returns
    -------
    altair.LayerChart or altair.ConcatChart
        mCB as a ratio (1 is the original's), drops in percentage points at the regime's centre.

    Raises
    ------
    FitError
        If it is not given a fit with fitted regimes, or no regime of that name.

    Examples
    --------
    >>> import popstats
    >>> fit = popstats.fit(popstats.simulate_population(regimes=[0.6], n=60), method="exact")
    >>> type(popstats.plot_drop(fit)).__name__
    'LayerChart'
    """
    return _chart(drop_figure(_fitted(fit, "plot_drop")), regime)


def plot_near_optimal(fit: Fit) -> alt.LayerChart | alt.ConcatChart:
    """Plot each regime's near-optimal range, observed range and optimum (mCB, 90 % intervals).

    Parameters
    ----------
    fit : Fit
        From `popstats.fit`.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    FitError
        If it is not given a fit with fitted regimes.

    Examples
    --------
    >>> import popstats
    >>> fit = popstats.fit(popstats.simulate_population(regimes=[0.6], n=60), method="exact")
    >>> chart = popstats.plot_near_optimal(fit)
    """
    return _chart(near_figure(_fitted(fit, "plot_near_optimal")))


def plot_limits(fit: Fit) -> alt.LayerChart | alt.ConcatChart:
    """Plot the smallest expected drop (percentage points, 90 % intervals) over the regimes.

    Parameters
    ----------
    fit : Fit
        From `popstats.fit`.

    Returns
    -------
    altair.LayerChart

    Raises
    ------
    FitError
        If it is not given a fit with fitted regimes.

    Examples
    --------
    >>> import popstats
    >>> fit = popstats.fit(popstats.simulate_population(regimes=[0.6], n=60), method="exact")
    >>> chart = popstats.plot_limits(fit)
    """
    return _chart(limit_figure(_fitted(fit, "plot_limits")))


def plot_edf(fit: Fit, regime: float | str | None = None) -> alt.LayerChart | alt.ConcatChart:
    """Plot empirical distribution functions of the drop: low-STD against high-STD recipes at equal MACs, where known.

    Parameters
    ----------
    fit : Fit
        From `popstats.fit`.
    regime : float or str, optional
        Centre or label of one regime; default: all of them side by side.

    Returns
    -------
    altair.LayerChart or altair.ConcatChart
        Shares of recipes with a drop (percentage points) of at most each value, with 90 % bands.

    Raises
    ------
    FitError
        If it is not given a fit, or no regime has enough recipes.

    Examples
    --------
    >>> import popstats
    >>> fit = popstats.fit(popstats.simulate_population(regimes=[0.6], n=60), method="exact")
    >>> chart = popstats.plot_edf(fit)
    """
    require_fit(fit, "plot_edf")
    analysis = Analysis(fit)
    analysis.verdicts = Verdicts(judge_std_spaces(analysis), analysis)
    return _chart(edf_figure(analysis), regime, missing="plot_edf: no regime has enough recipes")


def plot_explained(fit: Fit, regime: float | str | None = None) -> alt.LayerChart | alt.ConcatChart:
    """Plot how much of the drop's variance mCB, parameters, STD and the layer widths predict (cross-validated R²).

    Parameters
    ----------
    fit : Fit
        From `popstats.fit`.
    regime : float or str, optional
        Centre or label of one regime; default: all of them side by side.

    Returns
    -------
    altair.LayerChart or altair.ConcatChart
        Shares beyond MACs with 90 % intervals; the dashed line is the noise ceiling.

    Raises
    ------
    FitError
        If it is not given a fit, or no regime has enough recipes.

    Examples
    --------
    >>> import popstats
    >>> fit = popstats.fit(popstats.simulate_population(regimes=[0.6], n=60), method="exact")
    >>> chart = popstats.plot_explained(fit)
    """
    require_fit(fit, "plot_explained")
    missing = "plot_explained: no regime has enough recipes for cross-validation"
    return _chart(explained_figure(Analysis(fit)), regime, missing=missing)


def plot_width_law(law: WidthLaw, regime: str = POOLED) -> alt.LayerChart | alt.ConcatChart:
    """Plot what each layer group's width buys: accuracy points (90 % intervals) per 10 % more width, and per 1 % of MACs.

    Parameters
    ----------
    law : WidthLaw
        From `popstats.width_law`.
    regime : str
        Label of a regime; default: the law over all of them.

    Returns
    -------
    altair.LayerChart or altair.ConcatChart

    Raises
    ------
    FitError
        If it is not given a width law, or it has no such regime.

    Examples
    --------
    >>> import popstats
    >>> population = popstats.simulate_population("additive-widths", regimes=[0.6], n=60)
    >>> chart = popstats.plot_width_law(popstats.width_law(population))
    """
    if not isinstance(law, WidthLaw):
        raise FitError(
            f"plot_width_law: expected a WidthLaw, got a {type(law).__name__}; popstats.width_law makes one"
        )
    rows = law.elasticities[law.elasticities["regime"] == regime]
    if rows.empty:
        raise FitError(f"plot_width_law: no regime {regime!r}; there are: {', '.join(law.labels)}")
    return _side_by_side(elasticity_panels(rows))


def plot_frontier(frontier: pd.DataFrame) -> alt.LayerChart | alt.ConcatChart:
    """Plot the predicted drop of the best recipe and of uniform pruning over reductions.

    Parameters
    ----------
    frontier : pandas.DataFrame
        From `popstats.frontier`: reduction; drop, drop_lower, drop_upper; uniform_drop, uniform_lower,
        uniform_upper.

    Returns
    -------
    altair.LayerChart
        Drops in percentage points with 90 % intervals.

    Raises
    ------
    FitError
        If columns are missing.

    Examples
    --------
    >>> import pandas as pd
    >>> import popstats
    >>> rows = {"reduction": [0.5, 0.8], "drop": [0.1, 0.8], "drop_lower": [0.0, 0.6], "drop_upper": [0.2, 1.0]}
    >>> rows |= {"uniform_drop": [0.2, 1.4], "uniform_lower": [0.1, 1.2], "uniform_upper": [0.3, 1.6]}
    >>> chart = popstats.plot_frontier(pd.DataFrame(rows))
    """
    curves = {"best recipe": ("drop", "drop_lower", "drop_upper")}
    curves["uniform"] = ("uniform_drop", "uniform_lower", "uniform_upper")
    if not isinstance(frontier, pd.DataFrame):
        raise FitError(
            f"plot_frontier: expected a frame, got a {type(frontier).__name__}; popstats.frontier makes one of a population"
        )
    if missing := [n for names in (("reduction",), *curves.values()) for n in names if n not in frontier]:
        raise FitError(f"plot_frontier: expected a frame of popstats.frontier; missing columns: {missing}")
    parts = [
        frontier[["reduction", *names]]
        .set_axis(["reduction", "drop", "lower", "upper"], axis=1)
        .assign(space=space)
        for space, names in curves.items()
    ]
    drawn = {"frontier": Table.of(pd.concat(parts))}
    return _side_by_side([Panel("frontier", "Drop over reduction.", drawn)])


def _fitted(fit: Fit, who: str) -> Analysis:
    require_fit(fit, who)
    if not fit.fitted:
        raise FitError(f"{who}: nothing was fitted; fit.optima() gives each regime's reason")
    analysis = Analysis(fit)
    analysis.verdicts = Verdicts(per_regime(analysis, "C3a", optimum), analysis)
    return analysis


def _chart(
    figure: Figure | None, regime: float | str | None = None, missing: str = ""
) -> alt.LayerChart | alt.ConcatChart:
    """Return a figure's panels as one chart, or the one panel of a regime; `missing`: why there may be no figure."""
    if figure is None:
        raise FitError(missing)
    if regime is None:
        return _side_by_side(figure.panels)
    label = regime if isinstance(regime, str) else f"{regime:.3g}"
    chosen = [p for p in figure.panels if p.title.startswith(f"{regime_name(label)} ")]
    if not chosen:
        known = ", ".join(p.title for p in figure.panels)
        raise FitError(f"plot: no regime {regime!r}; there are: {known}")
    return _side_by_side(chosen)


def _side_by_side(panels: Sequence[Panel]) -> alt.LayerChart | alt.ConcatChart:
    """Return panels as one Altair chart; each panel's data get names of their own."""
    import altair as alt

    drawn: list[Any] = []
    shared: dict[str, Any] = {"datasets": {}}
    for i, panel in enumerate(panels):
        found = draw(panel)
        for layer in found["layer"]:
            layer["data"]["name"] += f"-{i}"
        shared["datasets"] |= {f"{name}-{i}": rows for name, rows in found.pop("datasets").items()}
        shared |= {name: found.pop(name) for name in ("$schema", "config")}
        title = {"text": panel.title, "anchor": "start"}
        title |= {"subtitle": f"optimal mCB: {panel.outcome}"} if panel.chart == "drop_over_mcb" else {}
        found |= {"title": title} if panel.title else {}
        drawn.append(found | {"width": ALONE if len(panels) == 1 else SEVERAL})
    shared["config"] |= {"background": "white", "padding": 8}
    if len(drawn) == 1:
        alone: alt.LayerChart = alt.LayerChart.from_dict(drawn[0] | shared)
        return alone
    several: alt.ConcatChart = alt.ConcatChart.from_dict({"concat": drawn, "columns": COLUMNS, **shared})
    return several
