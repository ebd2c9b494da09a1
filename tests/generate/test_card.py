"""Population cards."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generate.card import card, seed_noise_share


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
