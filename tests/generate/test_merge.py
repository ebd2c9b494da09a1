"""Joining populations."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generate.merge import main, merge_populations
from popstats.errors import BAD_INPUT, PopulationError
from popstats.population import columns


def part(path, source, keep, name="part", **original):
    """Write some rows of a population as another one."""
    table = pq.read_table(source / "population.parquet")
    footer = columns.read_footer(table.schema)
    footer |= {"population": name, "original": footer["original"] | original}
    rows = [row | {"population": name} for row in table.to_pylist()[keep]]
    pq.write_table(pa.Table.from_pylist(rows, schema=columns.schema(footer)), path)
    return path


def test_each_subnetwork_is_kept_once(tmp_path, tiny_run):
    first = part(tmp_path / "a.parquet", tiny_run, slice(0, 8), "a")
    second = part(tmp_path / "b.parquet", tiny_run, slice(5, 12), "b")
    merged = merge_populations([first, second])
    assert merged.num_rows == 12
    assert set(merged["population"].to_pylist()) == {"a+b"}
    footer = columns.read_footer(merged.schema)
    assert len(footer["plan"]["merged"]) == 2
    assert footer["original"]["network"] == "cifar_resnet8"


def test_the_command_takes_run_folders(tmp_path, tiny_run, capsys):
    assert main([str(tiny_run), str(tiny_run), "-o", str(tmp_path / "c")]) == 0
    assert pq.read_table(tmp_path / "c" / "population.parquet").num_rows == 12
    assert "12 rows of 2 populations" in capsys.readouterr().out


def test_another_original_is_refused(tmp_path, tiny_run):
    other = part(tmp_path / "b.parquet", tiny_run, slice(0, 3), original_id="ffff")
    with pytest.raises(PopulationError, match=r"different original network.*original_id is 'ffff'"):
        merge_populations([tiny_run, other])


def test_filters_and_weights_are_not_joined(tmp_path, tiny_run):
    table = pq.read_table(tiny_run / "population.parquet")
    rows = [row | {"pruning": "weights", "subnetwork_id": f"w{i}"} for i, row in enumerate(table.to_pylist())]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "weights.parquet")
    with pytest.raises(PopulationError, match="the sources prune filters and weights"):
        merge_populations([tiny_run, tmp_path / "weights.parquet"])


def test_foreign_and_missing_tables_are_sentences(tmp_path):
    pq.write_table(pa.table({"macs": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(PopulationError, match="footer has no population, plan"):
        merge_populations([tmp_path / "foreign.parquet"])
    with pytest.raises(PopulationError, match="cannot be read"):
        merge_populations([tmp_path / "absent"])


def test_a_done_row_wins_over_a_failed_one(tmp_path, tiny_run):
    table = pq.read_table(tiny_run / "population.parquet")
    rows = table.to_pylist()
    rows[0] |= {"status": "failed", "error": "lost", "accuracy": None}
    failed = tmp_path / "failed.parquet"
    schema = columns.schema(json.loads(table.schema.metadata[columns.METADATA_KEY]))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), failed)
    assert merge_populations([failed, tiny_run])["status"].to_pylist() == ["done"] * 12


def test_merged_again_the_parts_lie_side_by_side(tmp_path, tiny_run):
    parts = [part(tmp_path / f"{name}.parquet", tiny_run, slice(0, 12), name) for name in "abc"]
    pq.write_table(merge_populations(parts[:2]), tmp_path / "ab.parquet")
    merged = merge_populations([tmp_path / "ab.parquet", parts[2]])
    footer = columns.read_footer(merged.schema)
    assert [plan["name"] for plan in footer["plan"]["merged"]] == ["tiny"] * 3
    assert [set(one) for one in footer["provenance"]["merged"]] == [
        {"code_version", "torch_version", "hardware"}
    ] * 3


def test_a_table_of_a_newer_format_is_refused(tmp_path, tiny_run):
    """Its columns that this version does not know would be dropped without a word."""
    table = pq.read_table(tiny_run / "population.parquet")
    footer = {**columns.read_footer(table.schema), "schema_version": columns.SCHEMA_VERSION + 1}
    newer = table.replace_schema_metadata(columns.footer(footer))
    pq.write_table(newer.append_column("joules", pa.array([1.0] * 12)), tmp_path / "newer.parquet")
    with pytest.raises(PopulationError, match=r"written by a newer version .* columns would be lost"):
        merge_populations([tmp_path / "newer.parquet"])


def test_a_run_keeps_its_own_table(tmp_path, tiny_run, capsys):
    before = (tiny_run / "population.parquet").read_bytes()
    for out in (tiny_run, tiny_run / "population.parquet"):
        assert main([str(tiny_run), "-o", str(out)]) == BAD_INPUT
        assert "is the table of a run" in capsys.readouterr().err
    assert (tiny_run / "population.parquet").read_bytes() == before
