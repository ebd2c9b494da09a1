"""Populations: what is added to a table, what counts as a replicate, and the way through files."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import popstats
from popstats import Original, Population, PopulationError
from popstats.inference.data import prepared_regimes
from popstats.population.columns import SCHEMA_VERSION, footer
from popstats.population.recipes import prepared_recipes

ORIGINAL = Original(macs=1000, params=100, accuracy=95.0)


def table(**columns):
    base = {"macs": [500, 500, 300, 300], "params": [50, 25, 30, 60], "accuracy": [94.0, 93.0, 90.5, 96.0]}
    return pd.DataFrame({**base, **columns})


def population(**columns):
    return Population.from_frame(table(**columns), original=ORIGINAL, name="by hand")


def test_frame_adds_what_follows_from_the_costs():
    frame = population().frame
    assert frame["macs_reduction"].tolist() == [0.5, 0.5, 0.7, 0.7]
    assert frame["params_reduction"].tolist() == [0.5, 0.75, 0.7, 0.4]
    np.testing.assert_allclose(frame["mcb"], [1.0, 2.0, 1.0, 0.5])
    np.testing.assert_allclose(frame["log_mcb"], np.log([1.0, 2.0, 1.0, 0.5]), atol=1e-15)
    assert frame["accuracy_drop"].tolist() == [1.0, 2.0, 4.5, -1.0]
    assert frame["parameter_bucket"].tolist() == [51.0, 25.0, 31.0, 61.0]
    assert frame["regime"].tolist() == ["0.54", "0.54", "0.71", "0.71"]


def test_the_users_frame_is_left_alone():
    before = table(flops=[1, 2, 3, 4])
    copy = before.copy()
    Population.from_frame(before, original=ORIGINAL)
    pd.testing.assert_frame_equal(before, copy)


def test_extra_columns_are_kept():
    assert population(pruner=["a", "b", "c", "d"]).table["pruner"].tolist() == ["a", "b", "c", "d"]


def test_costs_in_another_unit_keep_their_fractions():
    # MMACs and millions of parameters, as papers print them: rounding 11.17 to 11 would move every mCB.
    frame = pd.DataFrame({"macs": [278.3], "params": [5.585], "accuracy": [93.0]})
    found = Population.from_frame(frame, original=Original(macs=556.6, params=11.17, accuracy=94.0))
    assert found.frame["mcb"].tolist() == pytest.approx([1.0])
    assert found.original.params == 11.17


@pytest.mark.parametrize("kind", ["Int64", "int32", "uint64", "float32", "Float64", "int64[pyarrow]"])
def test_any_numeric_type_gives_the_same_population(kind):
    found = Population.from_frame(table().astype({"macs": kind, "params": kind}), original=ORIGINAL)
    pd.testing.assert_frame_equal(found.frame, Population.from_frame(table(), original=ORIGINAL).frame)


def test_rows_are_their_own_recipes_where_nothing_tells():
    found = population()
    assert found.recipe.tolist() == [0, 1, 2, 3]
    assert not found.has_replicates
    assert found.widths is None
    assert found.group_names == ()


def test_rows_of_equal_costs_are_trainings_of_one_recipe_where_nothing_else_tells():
    frame = pd.concat([table(), table().head(2).assign(accuracy=[80.0, 81.0])])
    found = Population.from_frame(frame, original=ORIGINAL, accuracy_kind="last")
    assert found.recipe.tolist() == [0, 1, 2, 3, 0, 1]
    assert found.notes[0].startswith("2 of 6 rows have the MACs and the parameters of an earlier row")
    named = Population.from_frame(
        frame.assign(recipe_id=list("abcdef")), original=ORIGINAL, accuracy_kind="last"
    )
    assert (named.recipe.tolist(), named.notes) == ([0, 1, 2, 3, 4, 5], ())


def test_recipe_id_makes_replicates():
    found = population(recipe_id=["a", "a", "b", "b"], params=[50, 50, 30, 30])
    assert found.recipe.tolist() == [0, 0, 1, 1]
    assert found.has_replicates


def test_equal_widths_make_replicates_unless_trained_differently():
    same = {"params": [50, 50, 30, 30], "w1": [8, 8, 4, 4]}
    frame = table(**same, retraining=["scratch", "scratch", "scratch", "fine-tune"])
    found = Population.from_frame(frame, original=ORIGINAL, widths=["w1"])
    assert found.recipe.tolist() == [0, 0, 1, 2]
    assert found.widths.tolist() == [[8.0], [8.0], [4.0], [4.0]]
    assert found.group_names == ("w1",)


def test_width_lists_make_replicates_and_name_their_groups():
    widths = [[8, 16], [8, 16], [4, 16], [8, 2]]
    found = population(params=[50, 50, 30, 60], widths=widths, group_names=[["conv1", "conv2"]] * 4)
    assert found.recipe.tolist() == [0, 0, 1, 2]
    assert found.widths.tolist() == [[float(w) for w in row] for row in widths]
    assert found.group_names == ("conv1", "conv2")


def test_groups_without_names_are_numbered():
    assert population(widths=[[8, 1], [7, 2], [4, 3], [2, 4]]).group_names == ("group 1", "group 2")


def test_best_over_epochs_is_said():
    found = Population.from_frame(table(), original=ORIGINAL, accuracy_kind="best_test")
    assert "best over epochs on the test images" in found.notes[0]


def test_unknown_epoch_is_said():
    assert "does not say which epoch" in population().notes[0]


def test_exact_copies_are_said_and_kept():
    frame = pd.concat([table(), table().head(2)])
    found = Population.from_frame(frame, original=ORIGINAL, accuracy_kind="last")
    assert len(found) == 6
    assert found.notes == (
        "Rows that are exact copies of other rows: 2. They count as separate trainings; if they are not, "
        "remove them (frame.drop_duplicates()), otherwise every interval is too narrow.",
    )


def test_collapsed_networks_are_said():
    found = Population.from_frame(
        table(accuracy=[94.0, 93.0, 10.0, 96.0]), original=ORIGINAL, accuracy_kind="last"
    )
    assert found.notes[0].startswith(
        "1 of 4 trainings ended below half of the original's accuracy (lowest: 10.00 %)"
    )
    assert found.notes[0].endswith("; noise='student' down-weights them.")
    errors = Population.from_frame(
        table(accuracy=[6.0, 7.0, 8.0, 9.0]), original=ORIGINAL, accuracy_kind="last"
    )
    assert errors.notes[0].startswith("4 of 4 trainings ended below half")
    assert errors.notes[0].endswith("not errors or losses.")


def test_copies_under_other_names_are_said():
    frame = pd.concat([table()] * 3, ignore_index=True)
    named = frame.assign(recipe_id=[f"network {i}" for i in range(len(frame))])
    found = Population.from_frame(named, original=ORIGINAL, accuracy_kind="last")
    assert "under another recipe_id: 8." in found.notes[-1]


def test_lists_in_extra_columns_do_not_hide_copies():
    frame = pd.concat([table(tags=[[1]] * 4), table(tags=[[2]] * 4)])
    assert "exact copies of other rows: 4" in Population.from_frame(frame, original=ORIGINAL).notes[-1]


def test_where_and_select():
    found = population(seed=[0, 1, 0, 1])
    assert found.where(seed=1).table["params"].tolist() == [25, 60]
    assert found.where(seed=1, regime="0.71").table["params"].tolist() == [60]
    assert found.select(np.array([3, 0])).table["params"].tolist() == [60, 50]


def test_where_refuses_unknown_columns_and_empty_answers():
    with pytest.raises(PopulationError, match="no column 'colour'"):
        population().where(colour="red")
    with pytest.raises(PopulationError, match="has macs = 1; macs holds: "):
        population().where(macs=1)


@pytest.mark.parametrize(("axes", "expected"), [("params", "params"), ("macs", "macs"), ("both", "macs")])
def test_regime_axis_is_the_plans(axes, expected):
    assert population(regime_axis=axes, regime_target=0.5).regime_axis == expected


def test_repr_says_how_many_and_of_what():
    text = repr(population())
    assert "4 trainings of 4 recipes; MACs reduction 50 to 70 %; original 95.00 %, 1,000 MACs" in text


def test_html_is_escaped():
    found = Population.from_frame(table(), original=ORIGINAL, name="<script>alert(1)</script>")
    assert "<script>" not in found._repr_html_()
    assert "0.54" in found._repr_html_()


@pytest.fixture
def rich():
    return Population.from_frame(
        table(
            w1=[8, 8, 4, 4],
            params=[50, 50, 30, 30],
            status=["done", "done", "done", "failed"],
            error=[None, None, None, "out of memory"],
            extra=["a", "b", "c", "d"],
        ),
        original=ORIGINAL,
        widths=["w1"],
        accuracy_kind="last",
        name="rich",
        metadata={"plan": {"network": "cifar_resnet8"}},
    )


def test_parquet_round_trip_keeps_everything(rich, tmp_path):
    again = popstats.load_population(rich.save(tmp_path / "population.parquet"))
    pd.testing.assert_frame_equal(again.frame, rich.frame)
    assert again.failed["error"].tolist() == ["out of memory"]
    assert (again.name, again.original, again.group_names) == ("rich", ORIGINAL, ("w1",))
    assert again.metadata["plan"] == {"network": "cifar_resnet8"}
    assert [path.name for path in tmp_path.iterdir()] == ["population.parquet"]


def test_csv_with_width_lists(tmp_path):
    frame = table(widths=[[8, 1], [8, 2], [4, 3], [4, 4]], group_names=[["a", "b"]] * 4)
    frame.to_csv(tmp_path / "foreign.csv", index=False)
    found = popstats.load_population(tmp_path / "foreign.csv", original=ORIGINAL)
    assert found.widths.tolist() == [[8, 1], [8, 2], [4, 3], [4, 4]]
    assert found.group_names == ("a", "b")
    assert found.name == "foreign"


@pytest.mark.parametrize("form", ["[{} {}]", "{}-{}", "{}_{}", "({}, {})", "{}x{}", '{{"a": {}, "b": {}}}'])
def test_width_lists_as_people_write_them(form, tmp_path):
    frame = table(arch=[form.format(*pair) for pair in ([8, 1], [8, 2], [4, 3], [4, 4])])
    frame.to_csv(tmp_path / "foreign.csv", index=False)
    settings = {"original": ORIGINAL, "columns": {"widths": "arch"}}
    for found in (
        popstats.load_population(tmp_path / "foreign.csv", **settings),
        popstats.Population.from_frame(frame, **settings),
    ):
        assert found.widths.tolist() == [[8, 1], [8, 2], [4, 3], [4, 4]]
        assert found.group_names == (("a", "b") if "a" in form else ("group 1", "group 2"))


def test_csv_with_unreadable_width_lists(tmp_path):
    table(widths=["c8", "c9", "[4, 3]", "[4, 4]"]).to_csv(tmp_path / "foreign.csv", index=False)
    with pytest.raises(PopulationError, match="must hold lists, one entry per group; got 'c8'"):
        popstats.load_population(tmp_path / "foreign.csv", original=ORIGINAL)


def test_csv_through_the_users_own_names(tmp_path):
    table().rename(columns={"macs": "flops"}).to_csv(tmp_path / "foreign.csv", index=False)
    found = popstats.load_population(tmp_path / "foreign.csv", original=ORIGINAL, columns={"macs": "flops"})
    assert found.frame["macs_reduction"].tolist() == [0.5, 0.5, 0.7, 0.7]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b'a,b\n1,2,3\n"'])
def test_csv_that_is_none(content, tmp_path):
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(PopulationError, match=r"broken\.csv"):
        popstats.load_population(path, original=ORIGINAL)


def test_run_folder(rich, tmp_path):
    rich.save(tmp_path / "population.parquet")
    assert len(popstats.load_population(tmp_path)) == 3


def test_folder_without_a_table(tmp_path):
    with pytest.raises(PopulationError, match=r"a folder without population\.parquet or rows/"):
        popstats.load_population(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_truncated_parquet_says_what_to_do(rich, tmp_path, share):
    path = rich.save(tmp_path / "population.parquet")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        PopulationError, match=r"damaged or was cut short.*rerun the command that made the folder"
    ):
        popstats.load_population(path)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "table.docx").write_bytes(b"PK")
    with pytest.raises(PopulationError, match=r"expected a run folder, or a file that ends in \.parquet"):
        popstats.load_population(tmp_path / "table.docx")


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(
        PopulationError, match=r"no shipped population of that name .did you mean digits-resnet8..; shipped:"
    ):
        popstats.load_population("digits-resnet9000")


def test_a_table_of_a_newer_version(tmp_path):
    stored = pa.Table.from_pandas(table(), preserve_index=False)
    newer = {key: json.dumps({"schema_version": SCHEMA_VERSION + 1}).encode() for key in footer({})}
    pq.write_table(stored.replace_schema_metadata(newer), tmp_path / "newer.parquet")
    with pytest.raises(PopulationError, match="update popstats"):
        popstats.load_population(tmp_path / "newer.parquet", original=ORIGINAL)


def test_shipped_populations_load():
    for name in popstats.populations():
        found = popstats.load_population(name)
        assert len(found) > 0
        assert found.name == name


# Anything that may stand in a cell: numbers legal and not, texts, gaps, lists.
CELLS = st.one_of(
    st.integers(-5, 2000),
    st.floats(),
    st.floats(0.0, 100.0),
    st.none(),
    st.booleans(),
    st.sampled_from(["", "done", "failed", "macs", "0.9", "scratch"]),
    st.lists(st.integers(0, 3), max_size=2),
    st.just(pd.NA),
    st.just(pd.Timestamp("2026-01-01")),
)
# Columns that are legal by themselves, so that the odd ones are met in every check and behind all of them.
LEGAL = {
    "macs": st.integers(1, 1000) | st.floats(1e-3, 1000.0),
    "params": st.integers(1, 100) | st.floats(1e-3, 100.0),
    "accuracy": st.floats(0.0, 100.0),
}
ONE_KIND = [
    st.integers(-5, 2000),
    st.floats(),
    st.sampled_from(["done", "failed", "last", "scratch", None]),
    st.lists(st.integers(0, 3), min_size=2, max_size=2),
    st.none(),
    CELLS,
]
NAMES = st.sampled_from(
    [
        "status",
        "recipe_id",
        "widths",
        "group_names",
        "regime_axis",
        "regime_target",
        "epochs",
        "seed",
        "network",
        "original_macs",
        "accuracy_kind",
        "population",
        "my column",
        7,
    ]
)


@st.composite
def foreign_tables(draw):
    rows = draw(st.integers(0, 5))

    def column(cells):
        return draw(st.lists(cells, min_size=rows, max_size=rows))

    odd = draw(st.sampled_from([None, None, None, "macs", "params", "accuracy"]))
    needed = {name: column(CELLS if name == odd else cells) for name, cells in LEGAL.items()}
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    extra = {name: column(draw(st.sampled_from(ONE_KIND))) for name in names}
    return pd.DataFrame({name: pd.Series(values) for name, values in {**needed, **extra}.items()})


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(foreign_tables(), st.sampled_from([(), ("my column",), ("epochs", "seed")]))
def test_any_table_is_a_population_or_a_population_error(frame, widths):
    try:
        found = Population.from_frame(frame, original=ORIGINAL, widths=widths)
    except PopulationError:
        return
    assert np.isfinite(found.frame[["mcb", "log_mcb", "accuracy_drop", "macs_reduction"]]).all(axis=None)
    assert found.recipe.shape == (len(found),)
    assert repr(found)
    assert found._repr_html_()


def test_what_is_kept_of_a_population_cannot_be_written_to():
    """Every fit of a population shares these arrays."""
    made = popstats.simulate_population("additive-widths", regimes=(0.5,), n=40, seeds=2)
    recipes = prepared_recipes(made, "macs")
    (regime,) = prepared_regimes(made, recipes)
    for kept in (regime.xx, regime.xy, regime.count, made.recipe, made.technique, made.widths):
        with pytest.raises(ValueError, match="read-only"):
            kept[0] = 0
    assert all(not rows.flags.writeable for rows in recipes.members)
