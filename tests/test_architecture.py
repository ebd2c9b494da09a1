"""What the pages say about the tree is what the tree holds."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in (ROOT, ROOT / "docs", ROOT / "data", ROOT / "reports", ROOT / "reports" / "refined-digits")
    for path in folder.glob("*.md")
    if path.name != "head.md"  # The first part of the page beside it.
)
README_LINES = 150


def text_of(page):
    return (ROOT / page).read_text()


def fenced(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def build_tables():
    spec = importlib.util.spec_from_file_location("build_tables", ROOT / "docs" / "build_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["docs/columns.md", "docs/modules.md"])
def test_tables_are_up_to_date(build_tables, page):
    text, wanted = build_tables.up_to_date(page)
    assert text == wanted, f"{page} is out of date: run `make docs`"


def test_the_column_table_has_a_row_for_each_column(build_tables):
    names = re.findall(r"^\| \**`(\w+)`", build_tables.column_table(), flags=re.MULTILINE)
    assert names[0] == "subnetwork_id"
    assert len(names) == len(build_tables.COLUMNS)


def test_the_module_table_describes_every_module(build_tables):
    lines = build_tables.module_table().splitlines()[2:]
    for line in lines:
        assert re.fullmatch(r"\| `[\w/]+\.py` \| \S.{14,} \|", line), line
    modules = [path for package in ("generate", "popstats") for path in (ROOT / package).rglob("*.py")]
    assert len(lines) == len([path for path in modules if path.name != "__init__.py"])


def test_a_page_without_its_comments_is_an_error(build_tables, tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "columns.md").write_text("# Columns\n")
    monkeypatch.setattr(build_tables, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="restore them where the table belongs"):
        build_tables.up_to_date("docs/columns.md")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for name, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        target = ((ROOT / page).parent / name) if name else ROOT / page
        assert target.is_file(), f"{page} links to {name}, which is not there"
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            assert heading in [_anchor(title) for title in titles], f"{page} links to {name}#{heading}"


def _anchor(title):
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_files_and_make_targets_named_in_the_text_exist(page):
    text = text_of(page)
    targets = set(re.findall(r"^(\w+):", text_of("Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"`make (\w+)", text)) <= targets
    named = re.findall(r"`((?:generate|popstats|tests|docs|data|reports)/[\w/.-]*\.\w+)`", text)
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


def test_the_site_holds_every_page():
    contents = "".join(fenced("docs/index.md", r"\{toctree\}"))
    listed = re.findall(r"^([\w/-]+)$", contents, flags=re.MULTILINE)
    pages = {name.removeprefix("/") if name.startswith("/") else f"docs/{name}" for name in listed}
    assert pages == {page.removesuffix(".md") for page in PAGES} - {"docs/index"}


@pytest.mark.parametrize("package", ["generate", "popstats"])
def test_the_api_reference_names_every_public_name(package):
    public = getattr(importlib.import_module(package), "__all__", [])
    listed = re.findall(rf"^\.\. auto\w+:: {package}\.(\w+)$", text_of("docs/api.md"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(public)


def test_the_readme_is_short_and_starts_with_the_two_commands():
    assert len(text_of("README.md").splitlines()) <= README_LINES
    first_block = text_of("README.md").split("```")[1]
    assert re.findall(r"^make \w+", first_block, flags=re.MULTILINE) == ["make demo", "make test"]


def test_tested_versions_hold_names_and_versions_only():
    for line in text_of("constraints.txt").splitlines():
        assert line.startswith("#") or re.fullmatch(r'[\w.-]+==[\w.]+(; python_version >= "3\.13")?', line), (
            line
        )


@pytest.mark.parametrize(
    "example",
    [example for page in PAGES for example in fenced(page, "toml") if example.startswith("name = ")],
)
def test_plans_shown_are_legal(example, tmp_path):
    from generate.plan import read_plan

    (tmp_path / "plan.toml").write_text(example)
    assert read_plan(tmp_path / "plan.toml").recipes
