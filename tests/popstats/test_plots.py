"""Charts for notebooks: the report's figures, as Altair objects that can be saved and changed."""

import altair as alt
import pandas as pd
import pytest
import vl_convert

import popstats
from popstats.errors import FitError
from popstats.plots import COLUMNS


@pytest.fixture(scope="module")
def fit() -> popstats.Fit:
    population = popstats.simulate_population("additive-widths", regimes=(0.5, 0.8), n=60, seed=3)
    return popstats.fit(population, method="exact", draws=100)


@pytest.mark.parametrize(
    ("plot", "panels"),
    [
        (popstats.plot_drop, 2),
        (popstats.plot_near_optimal, 1),
        (popstats.plot_limits, 1),
        (popstats.plot_edf, 2),
        (popstats.plot_explained, 2),
    ],
)
def test_each_figure_is_a_chart_that_vega_draws(fit: popstats.Fit, plot, panels: int) -> None:
    chart = plot(fit)
    drawn = chart.to_dict()
    assert len(drawn.get("concat", [drawn])) == panels
    assert "@" not in str([value for key, value in drawn.items() if key != "datasets"])
    assert "<svg" in vl_convert.vegalite_to_svg(drawn)
    assert chart.properties(title="mine").to_dict()["title"] == "mine"


def test_one_regime_is_one_chart_and_fit_plot_is_plot_drop(fit: popstats.Fit) -> None:
    assert isinstance(fit.plot(0.8), alt.LayerChart)
    assert fit.plot("0.80").to_dict() == popstats.plot_drop(fit, 0.8).to_dict()
    assert fit.plot().to_dict()["columns"] == COLUMNS
    with pytest.raises(FitError, match=r"no regime 0.7; there are: 50 % removed, 80 % removed"):
        fit.plot(0.7)


def test_the_width_law_is_drawn_for_any_regime(fit: popstats.Fit) -> None:
    law = popstats.width_law(fit.population)
    rows = popstats.plot_width_law(law, "0.80").to_dict()["datasets"]["groups-0"]
    expected = law.elasticities.query("regime == '0.80'")["points"]
    assert [row["points"] for row in rows] == pytest.approx(list(expected), rel=1e-4)
    with pytest.raises(FitError, match="there are: "):
        popstats.plot_width_law(law, "0.99")
    with pytest.raises(FitError, match="expected a WidthLaw, got a Fit"):
        popstats.plot_width_law(fit)


def test_the_frontier_needs_its_columns() -> None:
    names = [f"{name}_{end}" for name in ("drop", "uniform") for end in ("lower", "upper")]
    frame = pd.DataFrame({"reduction": [0.5, 0.8], **dict.fromkeys(["drop", "uniform_drop", *names], 1.0)})
    assert {row["space"] for row in popstats.plot_frontier(frame).to_dict()["datasets"]["frontier-0"]} == {
        "best recipe",
        "uniform",
    }
    with pytest.raises(FitError, match=r"missing columns: .'uniform_upper'."):
        popstats.plot_frontier(frame.drop(columns="uniform_upper"))
    with pytest.raises(FitError, match=r"expected a frame, got a dict; popstats\.frontier makes one"):
        popstats.plot_frontier({})
