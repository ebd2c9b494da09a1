"""Tables that are no population: each is refused with what is wrong, where, and what to do."""

import re

import numpy as np
import pandas as pd
import pytest

from popstats import Original, Population, PopulationError

ORIGINAL = Original(macs=1000, params=100, accuracy=95.0)


def good(**columns):
    table = {"macs": [500, 600, 700], "params": [50, 40, 60], "accuracy": [90.0, 91.0, 92.0]}
    return pd.DataFrame({**table, **columns})


def refused(frame, match, **settings):
    with pytest.raises(PopulationError, match=match) as caught:
        Population.from_frame(frame, **{"original": ORIGINAL, **settings})
    return str(caught.value)


def test_the_good_table_is_accepted():
    assert len(Population.from_frame(good(), original=ORIGINAL)) == 3


@pytest.mark.parametrize("name", ["macs", "params", "accuracy"])
def test_an_absent_column_is_named_with_the_remedy(name):
    message = refused(good().drop(columns=name), f"lacks {name}")
    assert f"columns={{'{name}': '<your column>'}}" in message


def test_an_absent_original_says_how_to_give_it():
    refused(good(), r"pass original=popstats\.Original", original=None)


def test_a_table_without_rows():
    refused(good().head(0), "no rows")


@pytest.mark.parametrize("share", [0.91, 1.0])
def test_accuracies_as_fractions(share):
    refused(good(accuracy=[0.9, 0.5, share]), "looks like a fraction.*multiply it by 100")


def test_an_original_as_a_fraction():
    with pytest.raises(PopulationError, match="looks like a fraction"):
        Original(macs=10, params=10, accuracy=0.95)


def test_one_collapsed_network_is_no_reason_to_refuse():
    assert len(Population.from_frame(good(accuracy=[90.0, 91.0, 0.5]), original=ORIGINAL)) == 3


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("macs", [500, 0, 700]),
        ("macs", [500, -600, 700]),
        ("params", [50, 0, 60]),
        ("accuracy", [90.0, 100.5, 91.0]),
        ("accuracy", [90.0, -1.0, 91.0]),
    ],
)
def test_illegal_values_are_named_with_their_row(column, values):
    message = refused(good(**{column: values}), f"column {column} must be")
    assert "row 1" in message


@pytest.mark.parametrize("column", ["macs", "params", "accuracy"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_and_infinite_values_are_named_with_their_rows(column, value):
    values = good()[column].astype(float).to_list()
    values[1:] = [value, value]
    message = refused(good(**{column: values}), f"column {column} is missing or not finite")
    assert "2 rows, the first: 1, 2" in message


def test_an_original_smaller_than_a_row():
    message = refused(good(macs=[500, 1500, 700]), "larger than the original network's in row 1")
    assert "1,500 against 1,000" in message


def test_texts_where_numbers_should_be():
    refused(good(macs=["1M", "2M", "3M"]), "column macs must hold numbers")


def test_booleans_are_no_numbers():
    refused(good(params=[True, True, True]), "column params must hold numbers")


def test_complex_accuracies():
    refused(good(accuracy=np.array([1j, 2j, 3j])), "column accuracy must hold numbers")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("population", ["a", "a", "b"]),
        ("network", ["vgg16", "resnet18", "resnet18"]),
        ("dataset", ["cifar10", "cifar100", "cifar10"]),
        ("original_accuracy", [95.0, 95.0, 94.0]),
    ],
)
def test_two_populations_in_one_table(column, values):
    extra = {"original_macs": 1000, "original_params": 100, "original_accuracy": 95.0}
    frame = good(**{**extra, column: values})
    message = refused(frame, "more than one population", original=None)
    assert f"frame[frame['{column}'] ==" in message


@pytest.mark.parametrize(
    ("column", "values", "legal"),
    [
        ("status", ["done", "running", "done"], "done | failed"),
        ("retraining", ["scratch", "from scratch", "scratch"], "fine-tune | lr-rewind | scratch"),
        ("accuracy_kind", ["last", "best", "last"], "last | best_test | best_val | unknown"),
    ],
)
def test_unknown_choices_list_the_legal_ones(column, values, legal):
    assert legal in refused(good(**{column: values}), f"column {column}")


def test_unknown_accuracy_kind():
    refused(good(), "best_test", accuracy_kind="best")


def test_costs_that_differ_inside_one_recipe():
    message = refused(good(recipe_id=["a", "a", "b"]), "macs differs between rows of one recipe")
    assert "500 to 600" in message


def test_costs_that_differ_between_equal_widths():
    frame = good(w1=[8, 8, 16], w2=[4, 4, 4])
    refused(frame, "macs differs between rows of one recipe", widths=["w1", "w2"])


def test_rows_without_a_recipe_id_are_not_one_recipe():
    frame = good(recipe_id=[None, None, "b"])
    assert Population.from_frame(frame, original=ORIGINAL).has_replicates is False


@pytest.mark.parametrize("widths", [["w1"], ["w1", "w2"]])
def test_absent_width_columns(widths):
    refused(good(w2=[1, 2, 3]), r"widths: the frame has no column \['w1'\]", widths=widths)


def test_one_width_column_must_come_in_a_list():
    refused(good(w1=[1, 2, 3]), r"e\.g\. \['w1'\]", widths="w1")


@pytest.mark.parametrize("values", [[1, 0, 2], [1, None, 2], ["a", "b", "c"]])
def test_widths_must_be_positive_numbers(values):
    refused(good(w1=values), "column w1 must hold widths", widths=["w1"])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (["[1]", "[2]", "[3]"], "must hold lists"),
        ([[1, 2], [1], [1, 2]], "lists of one length"),
        ([[1, "a"], [1, "b"], [1, "c"]], "lists of numbers"),
        ([[1, 2], [1, 0], [3, 4]], "numbers > 0; see row 1"),
        ([[[1]], [[2]], [[3]]], "lists of numbers > 0"),
    ],
)
def test_width_lists_must_hold_positive_numbers(values, match):
    refused(good(widths=values), match)


def test_lists_where_one_value_should_be():
    refused(good(status=[["done"], ["done"], ["done"]]), "column status must hold text")


def test_columns_of_the_same_name():
    frame = good()
    frame.columns = ["macs", "macs", "accuracy"]
    refused(frame, r"more than one column named \['macs'\]")


def test_column_names_of_two_levels():
    frame = good()
    frame.columns = pd.MultiIndex.from_product([["a"], frame.columns])
    refused(frame, "2 levels")


def test_an_unknown_name_in_columns_lists_the_legal_ones():
    message = refused(good(), "not columns that popstats reads", columns={"flops": "macs"})
    assert "training_macs" in message


def test_columns_that_the_table_has_not():
    refused(good(), r"has no column \['flops'\]; it has: macs, params", columns={"macs": "flops"})


def test_two_names_for_one_column():
    refused(good(), "two names are given one column", columns={"macs": "params", "params": "params"})


def test_a_mapped_column_wins_over_one_of_that_name():
    frame = good().rename(columns={"macs": "flops"}).assign(macs="not these")
    found = Population.from_frame(frame, original=ORIGINAL, columns={"macs": "flops"})
    assert found.table["macs"].tolist() == [500, 600, 700]


@pytest.mark.parametrize("what", [{"macs": [1]}, [1, 2], "table.csv", None])
def test_what_is_no_frame(what):
    with pytest.raises(PopulationError, match=r"expected a pandas DataFrame.*load_population"):
        Population.from_frame(what, original=ORIGINAL)


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ({"macs": 0, "params": 1, "accuracy": 90.0}, "positive macs and params"),
        ({"macs": 1, "params": -1, "accuracy": 90.0}, "positive macs and params"),
        ({"macs": float("nan"), "params": 1, "accuracy": 90.0}, "positive macs and params"),
        ({"macs": 1, "params": 1, "accuracy": 101.0}, "0 to 100"),
        ({"macs": "1M", "params": 1, "accuracy": 90.0}, "a number for macs"),
        ({"macs": 1, "params": None, "accuracy": 90.0}, "a number for params"),
    ],
)
def test_impossible_originals(numbers, match):
    with pytest.raises(PopulationError, match=match):
        Original(**numbers)


def test_failed_rows_may_be_incomplete():
    frame = good(
        status=["done", "failed", "done"], accuracy=[90.0, np.nan, 92.0], error=[None, "diverged", None]
    )
    found = Population.from_frame(frame, original=ORIGINAL)
    assert (len(found), found.failed["error"].tolist()) == (2, ["diverged"])


def test_a_table_of_failures_only():
    refused(good(status="failed"), "no training of this population finished: all 3 rows")


def test_no_numbers_are_shown_with_their_rows():
    message = refused(good(macs=["500", "600k", "n/k"]), "must hold numbers")
    assert "'600k' in row 1, 'n/k' in row 2" in message
    assert "'500'" not in message


def test_numbers_stored_as_text_say_how_to_convert_them():
    refused(good(macs=["500", "600", "700"]), r"stored as .*pandas\.to_numeric")


def test_only_columns_of_the_table_itself_are_listed():
    message = refused(good().rename(columns={"macs": "flops"}), "lacks macs")
    assert "it has: flops, params, accuracy. To mend it" in message


def test_the_remedies_are_options_on_the_command_line():
    with pytest.raises(PopulationError, match="columns=") as caught:
        Population.from_frame(good().rename(columns={"macs": "flops"}))
    told = caught.value.on_command_line
    assert "--column macs=<your column> and pass --original-macs N" in told
    assert "popstats.Original" not in told


def test_columns_named_the_wrong_way_round():
    with pytest.raises(PopulationError, match=r"the other way round: \{'macs': 'flops'\}") as caught:
        Population.from_frame(good().rename(columns={"macs": "flops"}), columns={"flops": "macs"})
    assert "--column macs=flops" in caught.value.on_command_line


@pytest.mark.parametrize("mark", [";", "\t"])
def test_another_separator_than_a_comma(mark):
    frame = pd.DataFrame({f"macs{mark}params{mark}accuracy": ["500"]})
    refused(frame, f"is the separator {re.escape(repr(mark))}")


def test_an_original_that_is_no_original():
    numbers = {"macs": 1000, "params": 100, "accuracy": 95.0}
    refused(good(), r"got a dict; popstats\.Original\(\*\*it\)", original=numbers)
    refused(good(), "got a tuple$", original=(1000, 100, 95.0))


def test_numbers_of_numpy_read_like_any_other():
    with pytest.raises(PopulationError, match=r"got 500\.5$"):
        Original(macs=10, params=10, accuracy=np.float64(500.5))
