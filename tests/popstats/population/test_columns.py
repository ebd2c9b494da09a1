"""The column contract: one declaration, and everything that is made from it agrees."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from popstats.population.columns import COLUMNS, REQUIRED, SCHEMA_VERSION, column, read_footer, schema

#: Section 3 of the design in its order, a winner search's losses and the optional latency: renaming one breaks tables.
CONTRACT = """
subnetwork_id recipe_id original_id population
network dataset input_size regime_axis regime_target space
pruning widths densities group_names ratios_requested ratios_achieved ratio_mean ratio_std criterion
macs params original_macs original_params
retraining epochs learning_rate batch_size weight_decay augmentation seed training_macs
original_accuracy accuracy_pruned accuracy_recalibrated accuracy accuracy_kind accuracy_val
test_loss val_loss train_loss n_test
seconds latency_ms latency_batch status error
code_version torch_version device cpu_capability memory_format started_at
""".split()  # noqa: SIM905 (the table reads better in lines)


def test_columns_are_those_of_the_contract():
    assert [c.name for c in COLUMNS] == CONTRACT


def test_required_are_costs_and_accuracies():
    expected = {"macs", "params", "original_macs", "original_params", "original_accuracy", "accuracy"}
    assert set(REQUIRED) == expected


def test_every_column_says_what_it_means():
    for declared in COLUMNS:
        assert declared.meaning, declared.name
        assert not declared.meaning.endswith("."), declared.name
        assert len(declared.meaning) < 120, declared.name


def test_legal_values_in_words():
    assert column("retraining").legal == "fine-tune | lr-rewind | scratch"
    assert column("accuracy").legal == "0 to 100"
    assert column("macs").legal == "> 0"
    assert column("seconds").legal == ">= 0"
    assert column("error").legal == "any"


def test_unknown_column_is_a_key_error():
    with pytest.raises(KeyError):
        column("flops")


def test_schema_and_metadata_survive_a_file(tmp_path):
    path = tmp_path / "empty.parquet"
    metadata = {"plan": {"network": "cifar_resnet8"}, "original": {"macs": 1}}
    pq.write_table(schema(metadata).empty_table(), path)
    stored = pq.read_schema(path)
    assert stored.names == CONTRACT
    assert read_footer(stored) == {"schema_version": SCHEMA_VERSION, **metadata}


def test_footer_of_a_foreign_file_is_empty():
    assert read_footer(pa.schema([pa.field("flops", pa.int64())])) == {}


def test_same_metadata_same_bytes():
    assert schema({"b": 1, "a": 2}).metadata == schema({"a": 2, "b": 1}).metadata
