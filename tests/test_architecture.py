"""What the pages say about the tree is what the tree holds."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def docs_tables():
    spec = importlib.util.spec_from_file_location("build_tables", ROOT / "docs" / "build_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md"])
def test_tables_are_in_step_with_the_code(docs_tables, page):
    text, wanted = docs_tables.in_step(page)
    assert text == wanted, f"{page} is out of step with the code: run `make docs`"


def test_the_column_table_has_a_row_for_each_column(docs_tables):
    names = re.findall(r"^\| \**`(\w+)`", docs_tables.column_table(), flags=re.MULTILINE)
    assert names[0] == "subnetwork_id"
    assert len(names) == len(docs_tables.COLUMNS)


def test_the_module_table_says_something_of_each_module(docs_tables):
    for line in docs_tables.module_table().splitlines()[2:]:
        assert re.fullmatch(r"\| `[\w/]+\.py` \| \S.{14,} \|", line), line


def test_a_page_without_its_place_is_an_error(docs_tables, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("# popstats\n")
    monkeypatch.setattr(docs_tables, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="put the table's place back"):
        docs_tables.in_step("README.md")


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "data/README.md"])
def test_links_and_named_files_exist(page):
    text = (ROOT / page).read_text()
    named = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [name for name in named if not ((ROOT / page).parent / name).exists()]
    assert not missing, f"{page} names files that are not there"


def test_make_targets_that_the_pages_name_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        named = set(re.findall(r"`make (\w+)", (ROOT / page).read_text()))
        assert named <= targets, page


def test_the_two_commands_are_the_first_thing_in_the_readme():
    first_block = (ROOT / "README.md").read_text().split("```")[1]
    assert re.findall(r"^make \w+", first_block, flags=re.MULTILINE) == ["make demo", "make test"]


def test_tested_versions_hold_names_and_versions_only():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r'[\w.-]+==[\w.]+(; python_version >= "3\.13")?', line), (
            line
        )


def test_the_readmes_plan_is_a_legal_plan(tmp_path):
    from generate.plan import read_plan

    examples = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert examples
    for example in examples:
        path = tmp_path / "plan.toml"
        path.write_text(example)
        assert read_plan(path).name == "mine"
