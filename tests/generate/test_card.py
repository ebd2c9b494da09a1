"""Population cards."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generate.card import card, seed_noise_share
from generate.merge import merge_populations
from popstats import columns
from popstats.errors import PopulationError


def test_the_share_of_seed_noise_is_recovered_from_known_variances():
    rng = np.random.default_rng(0)
    drops = {str(i): list(rng.normal(0, 1.0) + rng.normal(0, 0.5, size=2)) for i in range(4000)}
    variance, share = seed_noise_share(drops)
    assert variance == pytest.approx(0.25, rel=0.05)
    assert share == pytest.approx(0.25 / 1.25, rel=0.1)


def test_without_replicates_there_is_no_share():
    assert seed_noise_share({"a": [1.0], "b": [2.0]}) is None


def test_a_card_says_what_the_table_is(tiny_run):
    text = card(tiny_run / "population.parquet")
    assert text.startswith("## tiny\n")
    assert "12 trainings of 6 recipes, 0 failed" in text
    assert "| macs | 0.40 | stratified | fine-tune | 6 | 3 |" in text


def test_rows_of_several_versions_are_counted_by_version(tiny_run, tmp_path):
    table = pq.read_table(tiny_run / "population.parquet")
    column = table.schema.get_field_index("code_version")
    versions = pa.array(["1.0"] * 4 + ["2.0"] * (len(table) - 4), pa.string())
    path = tmp_path / "population.parquet"
    pq.write_table(table.set_column(column, table.schema.field(column), versions), path)
    assert "**Made** with generate 2.0 (8 rows) and 1.0 (4 rows), torch" in card(path)


def test_a_merged_table_has_a_card_of_all_its_plans(tiny_run, tmp_path):
    table = pq.read_table(tiny_run / "population.parquet")
    footer = columns.read_footer(table.schema)
    footer["plan"]["name"] = footer["population"] = "next"
    pq.write_table(table.replace_schema_metadata(columns.footer(footer)), tmp_path / "next.parquet")
    pq.write_table(merge_populations([tiny_run, tmp_path / "next.parquet"]), tmp_path / "both.parquet")
    text = card(tmp_path / "both.parquet")
    assert text.startswith("## tiny+next\n\nFor tests.\n")
    assert "plans/tiny.toml` and `python -m generate.population generate/plans/next.toml`" in text
    assert text.count("* **fine-tune**") == 1


def test_what_has_no_card_is_a_sentence(tmp_path):
    with pytest.raises(PopulationError, match="cannot be read as a population"):
        card(tmp_path / "absent.parquet")
    parts = {"plan": {}, "original": {}, "provenance": {}}
    pq.write_table(columns.schema(parts).empty_table(), tmp_path / "empty.parquet")
    with pytest.raises(PopulationError, match="holds no rows yet"):
        card(tmp_path / "empty.parquet")
