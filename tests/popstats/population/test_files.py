"""Tables as people keep them: the same population, whatever the file, or a sentence about it."""

import bz2
import gzip
import importlib.util
import json
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest

import popstats
from popstats import Original, PopstatsError, Population, PopulationError

ORIGINAL = Original(macs=9_000_000, params=90_000, accuracy=95.0)
TABLE = pd.DataFrame(
    {
        "macs": [5_000_000, 4_500_123, 512_345],
        "params": [50_000, 40_123, 812],
        "accuracy": [94.125, 93.0, 90.5],
        "recipe_id": ["001", "1e5", "100000"],
    }
)
CSV = TABLE.to_csv(index=False)


def load(path, content=None, **settings):
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return popstats.load_population(path, original=ORIGINAL, **settings)


def same(found):
    assert (
        found.table[["macs", "params", "accuracy"]].to_numpy().tolist()
        == TABLE.iloc[:, :3].to_numpy().tolist()
    )
    assert found.table["recipe_id"].tolist() == TABLE["recipe_id"].tolist()


def with_thousands(mark):
    grouped = [f"{value:,}".replace(",", mark) for value in TABLE["macs"]]
    return TABLE.assign(macs=grouped)


WRITERS = {
    "comma.csv": lambda: CSV,
    "CAPITALS.CSV": lambda: CSV,
    "bom.csv": lambda: CSV.encode("utf-8-sig"),
    "utf16.txt": lambda: TABLE.to_csv(index=False, sep="\t").encode("utf-16"),
    "windows.csv": lambda: TABLE.assign(größe=1).to_csv(index=False).encode("cp1252"),
    "tabs.tsv": lambda: TABLE.to_csv(index=False, sep="\t"),
    "pipes.txt": lambda: TABLE.to_csv(index=False, sep="|"),
    "blanks.txt": lambda: TABLE.to_string(index=False),
    "german.csv": lambda: with_thousands(".").to_csv(index=False, sep=";", decimal=","),
    "french.csv": lambda: with_thousands("\u202f").to_csv(index=False, sep=";", decimal=","),
    "swiss.csv": lambda: with_thousands("'").to_csv(index=False, sep=";"),
    "american.csv": lambda: with_thousands(",").to_csv(index=False),
    "percent.csv": lambda: TABLE.assign(accuracy=[f"{a} %" for a in TABLE["accuracy"]]).to_csv(index=False),
    "excel.csv": lambda: "sep=;\n" + TABLE.to_csv(index=False, sep=";", decimal=","),
    "comment.csv": lambda: "# made in 2026\n\n" + CSV,
    "numbered.csv": lambda: TABLE.to_csv(),
    "trailing.csv": lambda: CSV.replace("\n", ",\n"),
    "after_blanks.csv": lambda: CSV.replace(",", ", "),
    "mac.csv": lambda: CSV.replace("\n", "\r"),
    "a.csv.gz": lambda: gzip.compress(CSV.encode()),
    "a.CSV.BZ2": lambda: bz2.compress(CSV.encode()),
    "a.csv.xz": lambda: lzma.compress(CSV.encode()),
    "lines.jsonl": lambda: TABLE.to_json(orient="records", lines=True),
    "records.json": lambda: TABLE.to_json(orient="records"),
    "texts.json": lambda: TABLE.astype(str).to_json(orient="records"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_text_in_any_dress_is_the_same_table(name, tmp_path):
    found = load(tmp_path / name, WRITERS[name]())
    same(found)
    assert found.name == name.partition(".")[0]


def test_a_zip_with_one_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("inside/Table.CSV", CSV)
    same(load(tmp_path / "packed.zip"))
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", CSV)
        archive.writestr("b.csv", CSV)
    with pytest.raises(PopulationError, match=r"expected one file inside, found a\.csv, b\.csv"):
        load(tmp_path / "two.zip")


def test_binary_tables(tmp_path):
    TABLE.to_feather(tmp_path / "a.FEATHER")
    TABLE.set_index("recipe_id").to_parquet(tmp_path / "a.pq")
    for path in tmp_path.iterdir():
        same(load(path))


def test_a_spreadsheet_is_read_or_says_what_it_takes(tmp_path):
    if importlib.util.find_spec("openpyxl") is None:
        with pytest.raises(PopulationError, match=r"openpyxl, which is not installed.*save the sheet as CSV"):
            load(tmp_path / "a.xlsx", b"PK")
        return
    TABLE.assign(accuracy=["94,125", "93", "90,5"]).to_excel(tmp_path / "a.xlsx")
    same(load(tmp_path / "a.xlsx"))


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (
            "5000000,50000,94,1\n4000000,40000,93,1\n",
            r"more values than the header has names; its names: 'macs'",
        ),
        ("5000000,50000,94\n4000000,40000,93,1\n", r"more values than .*Expected 3 fields in line 3, saw 4"),
        ("5000000,50000\n", "accuracy is missing or not finite in row 0"),
    ],
)
def test_rows_of_another_length_than_the_header(rows, match, tmp_path):
    with pytest.raises(PopulationError, match=match):
        load(tmp_path / "table.csv", "macs,params,accuracy\n" + rows)


def test_doubled_headers_are_named(tmp_path):
    with pytest.raises(PopulationError, match=r"more than one column named \['macs'\]"):
        load(tmp_path / "table.csv", "macs,macs ,accuracy\n5,6,70\n")


def test_two_decimal_marks_in_one_table_are_refused(tmp_path):
    rows = "macs;params;accuracy\n5000000;50000;93,5\n5000000;50000;93.25\n"
    with pytest.raises(PopulationError, match=r"decimal commas \('93,5'\) and decimal points \('93\.25'\)"):
        load(tmp_path / "table.csv", rows)


def test_a_semicolon_decides_where_the_numbers_do_not(tmp_path):
    found = load(tmp_path / "table.csv", "macs;params;accuracy\n5000000;50000;93,525\n4000000;40000;91,125\n")
    assert found.table["accuracy"].tolist() == [93.525, 91.125]


def test_marks_are_read_in_the_columns_that_are_mapped_and_in_no_others(tmp_path):
    text = 'flops,params,accuracy,kernel,w\n"5,000,000",50000,94,"3,3",8\n"4,000,000",40000,93,"5,5",4\n'
    found = load(tmp_path / "table.csv", text, columns={"macs": "flops"}, widths=["w"])
    assert found.table["macs"].tolist() == [5_000_000, 4_000_000]
    assert found.table["kernel"].tolist() == ["3,3", "5,5"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.csv.gz", gzip.compress(CSV.encode() * 50, mtime=0)[:60]),
        ("none.csv.gz", b"macs"),
        ("cut.csv.xz", lzma.compress(CSV.encode() * 50)[:60]),
        ("none.csv.bz2", b"BZh9"),
        ("none.zip", b"PK"),
        ("cut.feather", b"ARROW1"),
        ("none.json", "{"),
        ("lines.jsonl", "nonsense"),
        ("numbers.json", "[1, 2]"),
    ],
)
def test_damaged_files_end_in_a_sentence_that_names_them(name, content, tmp_path):
    with pytest.raises(PopulationError, match=name.replace(".", r"\.")):
        load(tmp_path / name, content)


def test_columns_without_a_common_type_are_saved_as_text(tmp_path):
    extras = {
        "remark": [1, "rerun", None],
        "nested": [{"a": 1}, [1], 2.5],
        "complex": np.array([1j, 2, 3]),
        "sparse": pd.arrays.SparseArray([0, 0, 1]),
        7: ["a", "b", "c"],
    }
    population = Population.from_frame(
        TABLE.assign(**{str(k): v for k, v in extras.items()}), original=ORIGINAL
    )
    again = popstats.load_population(population.save(tmp_path / "saved.parquet"))
    same(again)
    assert again.table["remark"].tolist()[:2] == ["1", "rerun"]
    assert again.table["remark"].isna().tolist() == [False, False, True]


def test_a_path_that_cannot_be_written_is_named_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "file").touch()
    population = Population.from_frame(TABLE, original=ORIGINAL)
    for path, match in (
        ("folder.parquet", r"^folder\.parquet: cannot be written"),
        ("file/x.parquet", r"^file/x\.parquet: "),
        ("no/such/x.parquet", r"^no/such/x\.parquet: expected a folder to write to, got no/such, which"),
        (f"{'x' * 260}.parquet", r"^x+\.parquet: cannot be written"),
    ):
        with pytest.raises(PopstatsError, match=match):
            population.save(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.parquet"]


def row(number, **values):
    known = {
        "subnetwork_id": f"s{number}",
        "recipe_id": f"r{number}",
        "status": "done",
        "accuracy_kind": "last",
    }
    costs = {"macs": 5_000_000 + number, "params": 50_000, "accuracy": 90.0, "widths": [8, 4]}
    whole = {f"original_{name}": value for name, value in vars(ORIGINAL).items()}
    return {**known, **costs, **whole, "seed": 0, **values}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "rows").mkdir(parents=True)
    (folder / "worklist.json").write_text(json.dumps({"recipes": [], "trainings": [{}] * 5}))
    (folder / "plan.json").write_text(json.dumps({"name": "mine", "recipes": []}))
    for number in (0, 2, 3):
        (folder / "rows" / f"{number:07d}.json").write_text(json.dumps(row(number)))
    (folder / "rows" / ".a1b2.tmp").write_text("{")
    return folder


def test_a_run_can_be_looked_at_while_it_goes(run):
    found = popstats.load_population(run)
    assert (len(found), found.name, found.metadata["plan"]["name"]) == (3, "mine", "mine")
    assert found.widths.tolist() == [[8, 4]] * 3
    assert found.notes == (
        "This run holds 3 of 5 trainings: it is still running or was stopped. Rerun its command to resume it.",
    )
    assert "3 of 5" in repr(found)
    for number in (1, 4):
        failed = {"status": "failed", "error": "out of memory", "accuracy": None}
        (run / "rows" / f"{number:07d}.json").write_text(json.dumps(row(number, **failed)))
    whole = popstats.load_population(run)
    assert (len(whole), len(whole.failed), whole.notes) == (3, 2, ())


def test_the_table_of_a_run_is_read_unless_its_rows_are_ahead_of_it(run):
    popstats.load_population(run).save(run / "population.parquet")
    (run / "rows" / "0000003.json").write_text("not read: the table holds as many")
    assert len(popstats.load_population(run)) == 3
    (run / "rows" / "0000004.json").write_text(json.dumps(row(4)))
    with pytest.raises(PopulationError, match=r"0000003\.json cannot be read .*Delete it and rerun"):
        popstats.load_population(run)


def test_a_run_without_rows_says_how_many_are_planned(run):
    for path in (run / "rows").iterdir():
        path.unlink()
    with pytest.raises(PopulationError, match=r"no training has finished yet \(5 are planned\)"):
        popstats.load_population(run)
