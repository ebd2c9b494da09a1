"""Formulas of the pruning spaces, against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import popstats
from popstats import Population
from popstats.errors import PopulationError
from popstats.population.regimes import (
    assign_regimes,
    log_cost_offset,
    mean_computation_budget,
    parameter_bucket,
    reduction,
    regime_label,
)
from popstats.population.simulate import simulate_population
from popstats.words import sentence


def frame_of(macs_reduction, **columns):
    values = np.asarray(macs_reduction, dtype=float)
    return pd.DataFrame({"macs_reduction": values, "params_reduction": values / 2, **columns})


def test_reduction():
    assert reduction([25, 100], 100).tolist() == [0.75, 0.0]


def test_mean_computation_budget_of_the_original_is_one():
    assert mean_computation_budget(125_747_840, 855_770, 125_747_840, 855_770) == 1.0


def test_mean_computation_budget_is_above_one_where_parameters_went_faster():
    assert mean_computation_budget([50, 25], [25, 50], 100, 100).tolist() == [2.0, 0.5]


def test_mean_computation_budget_with_buckets_uses_their_centres():
    # 26 of 100 parameters lie in the bucket 25..30 of width 5 %, whose centre is 27.5.
    found = mean_computation_budget(55, 26, 100, 100, bucket_width=0.05)
    assert found == pytest.approx(0.55 / 0.275)


def test_bucket_centres():
    assert parameter_bucket([0, 19, 20, 999, 1000], 1000, width=0.02).tolist() == [10, 10, 30, 990, 990]


def test_no_bucket_is_the_exact_count():
    assert parameter_bucket([513], 1000, width=None).tolist() == [513.0]


@given(st.integers(1, 10**9), st.floats(0.005, 1.0))
def test_a_bucket_is_never_further_than_half_its_width(params, width):
    original = 10**9
    distance = abs(float(parameter_bucket(params, original, width)) - params)
    # One over a width that does not divide 1 leaves a narrower topmost bucket.
    assert distance <= width * original / 2 * (1 + 1e-9) or params > original * (1 - width)


@pytest.mark.parametrize("width", [0.0, -0.1, 1.5])
def test_impossible_bucket_widths_are_refused(width):
    with pytest.raises(PopulationError, match="bucket width"):
        parameter_bucket(1, 10, width)


@pytest.mark.parametrize(
    ("target", "label"),
    [(0.5, "0.50"), (0.875, "0.875"), (0.45, "0.45"), (0.333, "0.333"), (0.9998, "0.9998")],
)
def test_regime_labels(target, label):
    assert regime_label(target) == label


def test_bins_are_equal_in_log_remaining_cost_and_labelled_by_their_centres():
    found = assign_regimes(frame_of(np.repeat([0.0, -0.01, 0.19, 0.2, 0.36, 0.848], 60)), "macs")
    assert found.source == "bins"
    assert found.labels == ("0.11", "0.28", "0.43", "0.85")
    assert found.index[::60].tolist() == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ((59, 59), ("0.20",)),
        ((60, 1), ("0.11", "0.28")),
        ((5, 5, 5), ("0.20", "0.43")),
        ((5, 0, 5), ("0.11", "0.43")),
        ((60, 5, 5), ("0.11", "0.36")),
    ],
)
def test_two_neighbours_are_merged_only_where_both_are_small(rows, labels):
    cells = np.repeat(1 - 1.25 ** -(np.arange(len(rows)) + 0.5), rows)
    assert assign_regimes(frame_of(cells), "macs").labels == labels


def test_labels_are_distinct_however_far_networks_are_pruned():
    reductions = 1 - np.exp(np.repeat(np.linspace(-0.01, -15, 300), 60))
    found = assign_regimes(frame_of(reductions), "macs")
    assert len(set(found.labels)) == found.targets.size > 60
    np.testing.assert_array_equal([float(label) for label in found.labels], found.targets)
    close = assign_regimes(frame_of([0.5, 0.50001]), "macs", {0.5: 1e-6, 0.50001: 1e-6})
    assert close.labels == ("0.5", "0.50001")


def test_bins_on_the_parameter_axis():
    found = assign_regimes(frame_of([0.8, 0.9]), "params")
    assert found.labels == ("0.43",)


def test_the_plans_regimes_come_first():
    frame = frame_of([0.51, 0.49, 0.7], regime_axis="macs", regime_target=[0.5, 0.5, 0.7])
    found = assign_regimes(frame, "macs")
    assert (found.source, found.labels, found.index.tolist()) == ("plan", ("0.50", "0.70"), [0, 0, 1])


def test_a_plan_on_the_other_axis_leaves_bins():
    frame = frame_of([0.51, 0.7], regime_axis="macs", regime_target=[0.5, 0.7])
    assert assign_regimes(frame, "params").source == "bins"


def test_given_centres_take_what_is_within_half_a_gap_at_most_five_points():
    found = assign_regimes(frame_of([0.5, 0.52, 0.53, 0.56, 0.8, 0.86]), "macs", [0.5, 0.54, 0.8])
    assert found.source == "given"
    assert found.index.tolist() == [0, 0, 1, 1, 2, -1]


def test_given_centres_with_half_widths():
    found = assign_regimes(frame_of([0.4, 0.5, 0.61]), "macs", {0.5: 0.1})
    assert found.index.tolist() == [0, 0, -1]


@pytest.mark.parametrize("regimes", [[], [0.0], [1.0], [-0.2], [float("nan")]])
def test_impossible_centres_are_refused(regimes):
    with pytest.raises(PopulationError, match="strictly between 0 and 1"):
        assign_regimes(frame_of([0.5]), "macs", regimes)


def test_regimes_without_any_row_say_where_the_rows_are():
    with pytest.raises(PopulationError, match=r"run from 0\.500 to 0\.600"):
        assign_regimes(frame_of([0.5, 0.6]), "macs", [0.9])


def test_unknown_axis_is_refused():
    with pytest.raises(PopulationError, match="'macs' or 'params'"):
        assign_regimes(frame_of([0.5]), "flops")


@given(st.lists(st.floats(0.0, 0.999), min_size=1, max_size=40))
def test_every_row_falls_into_the_bin_around_it(reductions):
    found = assign_regimes(frame_of(reductions), "macs")
    offset = log_cost_offset(reductions, found.targets[found.index])
    assert (np.abs(offset) <= np.log(1.25) + 0.03).all()  # two cells at most, and a rounded centre


def test_rows_planned_on_the_other_axis_belong_to_no_regime_of_this_one():
    frame = pd.DataFrame(
        {
            "macs_reduction": [0.49, 0.51, 0.3, 0.7],
            "params_reduction": [0.2, 0.6, 0.5, 0.5],
            "regime_axis": ["macs", "macs", "params", "both"],
            "regime_target": [0.5, 0.5, 0.5, 0.7],
        }
    )
    regimes = assign_regimes(frame, "macs")
    assert regimes.source == "plan"
    assert regimes.labels == ("0.50", "0.70")
    assert regimes.index.tolist() == [0, 0, -1, 1]


def test_a_selection_keeps_the_regimes_that_were_written_down():
    whole = simulate_population(regimes=[0.5, 0.6], n=70)
    table = whole.table.drop(columns=["regime_axis", "regime_target"])
    foreign = Population.from_frame(table, original=whole.original)
    bins = assign_regimes(foreign.frame, "macs", {0.5: 0.02})
    few = foreign.in_regimes(bins).select(np.arange(0, 140, 10))
    again = assign_regimes(few.frame, "macs")
    assert (again.labels, again.index.tolist()) == (("0.50",), bins.index[::10].tolist())


def test_drops_of_a_cell_are_stated_where_its_recipes_lie():
    """Networks pruned near 50 and 70 %: the cells' centres, 54 and 71 %, were never trained."""
    rng = np.random.default_rng(0)
    macs = np.repeat([0.5, 0.3], 60) * (1.0 + rng.uniform(-0.004, 0.004, 120))
    log_mcb = rng.uniform(-0.5, 0.5, 120)
    frame = pd.DataFrame(
        {
            "macs": (macs * 1e9).astype(int),
            "params": (macs * np.exp(-log_mcb) * 1e8).astype(int),
            "accuracy": 90.0 + 4.0 * np.log(macs) - log_mcb**2 + rng.normal(0.0, 0.1, 120),
        }
    )
    original = popstats.Original(macs=10**9, params=10**8, accuracy=90.0)
    fit = popstats.fit(popstats.Population.from_frame(frame, original=original))
    optima = fit.optima().set_index("regime")
    assert list(optima.index) == ["0.54", "0.71"]
    np.testing.assert_allclose(optima["limit"], -4.0 * np.log([0.5, 0.3]), atol=0.2)
    assert not fit.extrapolated
    assert "so drops are stated at 50 %, where they lie" in sentence(fit.stated_elsewhere[0])
