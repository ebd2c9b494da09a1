"""Tables that are no population: each is refused with what is wrong, where, and what to do."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
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


@pytest.mark.parametrize("name", ["macs", "params"])
@pytest.mark.parametrize("unit", [1e-6, 1e-9])
def test_a_table_in_another_unit_than_the_original(name, unit):
    message = refused(good(**{name: good()[name] * unit}), f"{name} is .* in 3 rows")
    assert "are they in the same unit?" in message
    mixed = refused(good(**{name: good()[name] * [1, 1, 1e-11]}), f"{name} is .* in row 2")
    assert "are they in the same unit?" in mixed


def test_doubled_macs_say_so():
    refused(good(macs=[1000, 1900, 600]), r"FLOPs often count 2 per MAC")
    whole = good(macs=[500, 300, 200], params=[100, 40, 60])
    assert [
        f.kind for f in Population.from_frame(whole, original=ORIGINAL, accuracy_kind="last").findings
    ] == ["half the MACs"]
    below = good(params=[90, 80, 60], macs=[450, 400, 300])
    assert (
        "factor of two away" in Population.from_frame(below, original=ORIGINAL, accuracy_kind="last").notes[0]
    )
    around = good(params=[45, 80, 60], macs=[450, 400, 300])
    assert not Population.from_frame(around, original=ORIGINAL, accuracy_kind="last").notes


@pytest.mark.parametrize("name", ["perplexity", "val_loss", "Top-1 error", "test_err", "PPL"])
def test_quantities_of_which_lower_is_better_are_not_accuracies(name):
    refused(good().rename(columns={"accuracy": name}), "lower is better", columns={"accuracy": name})


def test_a_name_that_only_looks_like_a_loss_is_read():
    frame = good().rename(columns={"accuracy": "lossless_power"})
    assert len(Population.from_frame(frame, original=ORIGINAL, columns={"accuracy": "lossless_power"})) == 3


def test_perplexities_are_refused_above_100_and_doubted_below():
    refused(good(accuracy=[120.0, 150.0, 110.0]), "Losses and perplexities are not accuracies")
    found = Population.from_frame(good(), original=Original(macs=1000, params=100, accuracy=21.1))
    assert "3 of 3 networks are more accurate than the original (21.10 %)" in found.notes[-1]


def test_a_row_up_to_one_percent_above_the_original_is_kept_with_a_note():
    found = Population.from_frame(good(macs=[1010, 600, 700]), original=ORIGINAL, accuracy_kind="last")
    assert found.frame["macs_reduction"].iloc[0] == pytest.approx(-0.01)
    assert found.notes == (
        "Rows that cost up to 1 % more than the original in MACs: 1. They are kept: rounding or a different way "
        "of counting can explain such differences.",
    )
    refused(good(macs=[1011, 600, 700]), "larger than the original network's")


@pytest.mark.parametrize(
    ("dataset", "accuracy", "size", "kind"),
    [
        ("CIFAR-10", 15.0, "3x32x32", "did not learn"),
        ("cifar10", 60.0, "3x32x32", "learned little"),
        ("cifar10", 60.0, "3x16x16", None),
        ("fashion_mnist", 91.0, "1x28x28", None),
        ("my images", 15.0, "3x32x32", None),
    ],
)
def test_an_original_that_did_not_learn_is_noted(dataset, accuracy, size, kind):
    frame = good(accuracy=[accuracy - 1] * 3, dataset=dataset, input_size=size, accuracy_kind="last")
    found = Population.from_frame(frame, original=Original(macs=1000, params=100, accuracy=accuracy))
    assert [f.kind for f in found.findings] == ([kind] if kind else [])


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
        ("accuracy_kind", ["last", "best", "last"], "last | best_test | last_val | best_val | unknown"),
    ],
)
def test_unknown_choices_list_the_legal_ones(column, values, legal):
    assert legal in refused(good(**{column: values}), f"column {column}")


def test_unknown_accuracy_kind_names_the_argument():
    with pytest.raises(
        PopulationError, match=r"^accuracy_kind: expected one of last, best_test, .*'best'"
    ) as caught:
        Population.from_frame(good(), original=ORIGINAL, accuracy_kind="best")
    assert caught.value.on_command_line.startswith("--accuracy-kind: ")


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


@pytest.mark.parametrize("values", [[1, -1, 2], [1, None, 2], [1, np.inf, 2], ["a", "b", "c"]])
def test_widths_must_be_numbers_from_0_on(values):
    refused(good(w1=values), "column w1 must hold widths", widths=["w1"])


def test_a_skipped_block_has_width_0_unless_all_skip_it():
    found = Population.from_frame(good(w1=[0, 8, 4]), original=ORIGINAL, widths=["w1"])
    assert found.widths.ravel().tolist() == [0.0, 8.0, 4.0]
    lists = Population.from_frame(good(widths=[[1, 0], [1, 8], [1, 4]]), original=ORIGINAL)
    assert lists.widths[:, 1].tolist() == [0.0, 8.0, 4.0]
    refused(good(w1=0), "width 0 in every row; leave it out", widths=["w1"])
    refused(good(widths=[[1, 0]] * 3), "position 1; leave that group out")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (["c1", "c2", "c3"], "must hold lists"),
        ([[1, 2], [1], [1, 2]], "lists of one length"),
        ([[1, "a"], [1, "b"], [1, "c"]], "lists of numbers"),
        ([[1, 2], [1, -1], [3, 4]], r"numbers >= 0 .*; got \[1, -1\] in row 1"),
        ([[[1]], [[2]], [[3]]], "lists of numbers >= 0"),
    ],
)
def test_width_lists_must_hold_numbers_from_0_on(values, match):
    refused(good(widths=values), match)


def test_lists_where_one_value_should_be():
    refused(good(status=[["done"], ["done"], ["done"]]), "column status must hold text")


def test_blanks_around_names_are_removed_with_a_note():
    frame = good().set_axis(["macs", " params", "accuracy\t"], axis=1)
    found = Population.from_frame(frame, original=ORIGINAL)
    assert found.notes[0] == "Blanks around column names were removed: ' params' and 'accuracy\\t'."
    assert found.select(np.array([0])).notes[0] == found.notes[0]
    refused(good(**{" macs": 1}), r"more than one column named \['macs'\]")
    for name in (" flops", "flops"):
        mapped = good().rename(columns={"macs": " flops"})
        assert len(Population.from_frame(mapped, original=ORIGINAL, columns={"macs": name})) == 3


def test_a_named_index_is_a_column():
    found = Population.from_frame(
        good(recipe_id=list("abb"), macs=5, params=5).set_index(["recipe_id", "macs"]), original=ORIGINAL
    )
    assert found.recipe.tolist() == [0, 1, 1]
    assert found.table["macs"].tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical([90.0, 91.0, 92.0]),
        pd.Series([90, 91.0, np.float32(92)], dtype=object),
        pd.Series([90, 91, 92], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
    ],
)
def test_numbers_are_read_however_they_are_boxed(column):
    assert Population.from_frame(good(accuracy=column), original=ORIGINAL).table["accuracy"].tolist() == [
        90,
        91,
        92,
    ]


def test_costs_beyond_whole_numbers_of_64_bits_stay_as_they_are():
    frame = good(macs=[5e22, 6e22, 7e22])
    found = Population.from_frame(frame, original=Original(macs=10**23, params=100, accuracy=95.0))
    assert found.table["macs"].tolist() == [5e22, 6e22, 7e22]


def test_lists_of_arrow_are_widths_like_any_other():
    lists = pd.Series([[1, 2], [1, 2], [2, 2]], dtype=pd.ArrowDtype(pa.list_(pa.int64())))
    found = Population.from_frame(good(macs=500, params=50, widths=lists, tags=lists), original=ORIGINAL)
    assert found.recipe.tolist() == [0, 0, 1]


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
    refused(good(), r"has no column \['flops'\]; it has: 'macs', 'params'", columns={"macs": "flops"})


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
    refused(good(macs=["500", "600", "700"]), r"stored as .*\.astype\(float\)")


def test_only_columns_of_the_table_itself_are_listed():
    message = refused(good().rename(columns={"macs": "MFLOPs"}), "lacks macs")
    assert (
        "it has: 'MFLOPs', 'params', 'accuracy'. To fix this, map them with columns={'macs': 'MFLOPs'}"
        in message
    )


def test_the_remedies_are_options_on_the_command_line():
    with pytest.raises(PopulationError, match="columns=") as caught:
        Population.from_frame(good().rename(columns={"macs": "flops"}))
    told = caught.value.on_command_line
    assert "--column macs=flops and pass --original-macs N" in told
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


def spread(n=40):
    """Return `n` networks whose accuracy rises with their costs."""
    kept = np.linspace(0.3, 0.8, n)
    share = kept * np.exp(0.2 * np.sin(np.arange(n)))
    costs = {"macs": np.rint(1e6 * kept).astype(int), "params": np.rint(1e6 * share).astype(int)}
    return pd.DataFrame({**costs, "accuracy": 95.0 - 4.0 * (1.0 - kept)})


WHOLE = Original(macs=10**6, params=10**6, accuracy=95.0)


def test_fractions_in_some_rows_are_refused():
    frame = spread()
    frame.loc[3, "accuracy"] /= 100.0
    refused(frame, "hold percent in every row; got 0.923", original=WHOLE)


@pytest.mark.parametrize("wrong", [lambda a: 100.0 - a, lambda a: (-a).rank(), lambda a: 99.5 - 0.01 * a])
def test_numbers_that_fall_as_networks_grow_are_no_accuracies(wrong):
    frame = spread().assign(accuracy=lambda t: wrong(t["accuracy"]))
    refused(frame, "falls as macs grow .* lower is better", original=WHOLE)


def test_costs_removed_are_no_costs():
    frame = spread().assign(macs=lambda t: 10**6 - t["macs"], params=lambda t: 10**6 - t["params"])
    refused(frame, "what was removed, give what is kept", original=WHOLE)


@pytest.mark.parametrize("name", ["latency_ms", "inference time", "Energy"])
def test_times_are_no_macs(name):
    refused(good().rename(columns={"macs": name}), "not a count of operations", columns={"macs": name})


def test_ratios_removed_are_no_widths():
    kept = np.random.default_rng(0).uniform(0.2, 1.0, (40, 2))
    costs = np.rint(1e6 * kept.prod(axis=1)).astype(int)
    frame = pd.DataFrame({"macs": costs, "params": costs, "accuracy": 90.0, "a": kept[:, 0], "b": kept[:, 1]})
    widths = {"original": WHOLE, "widths": ["a", "b"]}
    assert Population.from_frame(frame, **widths).group_names == ("a", "b")
    refused(frame.assign(a=1.0 - frame["a"], b=1.0 - frame["b"]), "hold what was removed", **widths)


def test_learning_curves_are_refused_with_the_rows_to_keep():
    curves = pd.concat([spread().assign(epoch=e, accuracy=lambda t: t["accuracy"] - 1) for e in (10, 20)])
    assert "frame[frame['epoch'] == 20]" in refused(curves, "learning curves", original=WHOLE)
    kept = Population.from_frame(curves, original=WHOLE, only={"epoch": "20"})
    assert (len(kept), kept.has_replicates) == (40, False)
    best = curves.assign(epoch=np.arange(80))  # Of each seed, its best epoch.
    assert Population.from_frame(best, original=WHOLE).has_replicates


def test_targets_that_are_no_reductions():
    planned = {"regime_axis": "macs", "regime_target": 0.3}
    thin = spread().query("macs < 400_000")
    refused(thin.assign(**planned), "regime_target is 0.3 where", original=WHOLE)
    assert len(Population.from_frame(thin.assign(**planned | {"regime_target": 0.65}), original=WHOLE))


def test_only_some_rows_are_read_before_anything_is_checked():
    both = pd.concat([good(dataset="a"), good(dataset="b", accuracy=[0.1, 0.2, 101.0])])
    assert len(Population.from_frame(both, original=ORIGINAL, only={"dataset": "a"})) == 3
    assert len(Population.from_frame(both[:3], original=ORIGINAL, only={"regime": "0.54"})) == 1
    refused(both, "where: no subnetwork of the frame has dataset = 'c'", only={"dataset": "c"})


def test_a_column_of_lists_is_no_column_of_widths():
    message = refused(good(arch=["[1, 2]"] * 3), "whole lists is mapped instead", widths=["arch"])
    assert "columns={'widths': 'arch'}" in message


def test_targets_in_some_rows_are_not_used_and_said():
    planned = spread().assign(regime_axis="macs", regime_target=np.where(np.arange(40) % 2, 0.5, np.nan))
    population = Population.from_frame(planned.query("macs > 450_000 and macs < 550_000"), original=WHOLE)
    assert "4 of 8 rows lack regime_axis or regime_target" in " ".join(population.notes)


@pytest.mark.filterwarnings("error")
def test_many_columns_are_read_without_a_warning():
    many = pd.concat([spread(), *(pd.DataFrame({f"g{i}": np.arange(40) + i}) for i in range(150))], axis=1)
    assert len(Population.from_frame(many, original=WHOLE, widths=["g0", "g1"]).frame) == 40
