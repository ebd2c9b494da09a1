import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import pytest

import popstats
from popstats.figures.charts import CHARTS, draw
from popstats.figures.content import Panel, ReportContent
from popstats.figures.theme import DARK, LIGHT, SPACE_MARKS, color_rules
from popstats.report import page as page_module
from popstats.report.page import render, write_content

HOSTILE = (
    "<script>window.hacked = true</script> & \"quotes\" </script><img src=x onerror='window.hacked=true'>"
)


class Headings(HTMLParser):
    """Collect headings, tables, details and ids."""

    def __init__(self):
        super().__init__()
        self.tags, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]


@pytest.fixture(scope="module")
def page(content) -> str:
    return render(content, sidecar="report.html.json")


def specifications(content: ReportContent):
    for figure in content.figures:
        for panel in figure.panels:
            yield panel, draw(panel)


def test_the_report_and_its_content_are_written(fitted, tmp_path):
    path = popstats.write_report(fitted, tmp_path / "new folder" / "report.html")
    assert path.stat().st_size < 3_000_000
    assert json.loads(Path(f"{path}.json").read_text())["title"] == fitted.population.name
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "report.html.json"]


@pytest.mark.parametrize("folder", ["{tmp}/not/there", "/popstats-not-there"])
def test_a_mistyped_path_makes_no_folders(content, tmp_path, folder):
    path = Path(folder.format(tmp=tmp_path)) / "report.html"
    with pytest.raises(popstats.PopstatsError, match="does not exist"):
        write_content(content, path)
    assert not path.parent.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_as_named_is_refused_by_that_name(content, tmp_path, monkeypatch):
    with pytest.raises(popstats.PopstatsError, match=r"report.txt: expected a name that ends in .html"):
        write_content(content, tmp_path / "report.txt")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(popstats.PopstatsError, match=r"report.pdf: printing a PDF needs Chromium"):
        write_content(content, tmp_path / "report.pdf")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.html.json").mkdir()
    with pytest.raises(popstats.PopstatsError, match=r"^report.html.json: cannot be written"):
        write_content(content, "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html.json"]


def test_a_failed_figure_fails_the_report_and_leaves_the_old_one(content, tmp_path):
    path = tmp_path / "report.html"
    write_content(content, path)
    before = path.read_bytes(), (tmp_path / "report.html.json").read_bytes()
    broken = replace(content.figures[0], panels=(Panel("no such chart", "", {}),))
    with pytest.raises(KeyError, match="no such chart"):
        write_content(replace(content, figures=(broken,), title="changed"), path)
    assert (path.read_bytes(), (tmp_path / "report.html.json").read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_the_page_asks_the_network_for_nothing(page):
    head = page[: page.index('<script type="application/json"')]
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", head)
    assert "@import" not in head
    assert "url(" not in head


def test_text_of_tables_is_escaped_everywhere(content):
    page = render(replace(content, title=HOSTILE))
    assert "<script>window.hacked" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;window.hacked" in page


def test_text_inside_the_charts_cannot_end_their_script(content):
    panel = replace(content.figures[0].panels[0], alt=HOSTILE, title=HOSTILE)
    figure = replace(content.figures[0], panels=(panel,))
    page = render(replace(content, figures=(figure,), sections=(), order=(figure.key,)))
    inside = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL)
    assert inside is not None
    assert json.loads(inside[1])["0-0"]["description"] == HOSTILE


def test_the_page_has_one_title_ordered_sections_and_a_table_a_figure(content, page):
    found = Headings()
    found.feed(page[: page.index('<script type="application/json"')])
    assert found.tags.count("h1") == 1
    assert content.order[:3] == ("drop", "best", "verdicts")
    assert set(content.order) == {"verdicts", *(part.key for part in (*content.figures, *content.sections))}
    positions = [found.ids.index(key) for key in ("what-to-do", *content.order)]
    assert positions == sorted(positions)
    assert found.tags.count("figure") == len(content.figures)
    assert found.tags.count("figcaption") == len(content.figures)
    assert len(found.ids) == len(set(found.ids))
    assert page.count('role="img"') == sum(len(f.panels) for f in content.figures)


def test_every_chart_is_legal_vega_lite_and_holds_its_tables(content):
    drawn = set()
    for panel, specification in specifications(content):
        alt.Chart.from_dict(specification)
        drawn.add(panel.chart)
        assert specification["description"] == panel.alt
        assert specification["width"] == "container"
        assert {n: len(rows) for n, rows in specification["datasets"].items()} == {
            n: len(table.rows) for n, table in panel.data.items() if n != "frame"
        }
    assert drawn == set(CHARTS) - {"overlaid_curves", "over_size", "frontier"}


def test_nothing_is_computed_in_a_chart(content):
    for _, specification in specifications(content):
        text = json.dumps(specification)
        assert not re.search(r'"(aggregate|bin|calculate|window|density|regression|loess)"', text)


def test_drop_panels_show_curve_band_range_optimum_and_the_original(content):
    _panel, specification = next(specifications(content))
    layers = [(layer["data"]["name"], layer["mark"]["type"]) for layer in specification["layer"]]
    assert layers == [
        ("near", "rect"), ("original", "rule"), ("points", "circle"), ("points", "point"),
        ("curve", "area"), ("curve", "line"), ("optimum", "rule"), ("optimum", "point"),
    ]  # fmt: skip
    assert specification["datasets"]["original"] == [{"mcb": 1.0}]
    assert specification["layer"][1]["encoding"]["x"]["scale"]["type"] == "log"


def test_series_differ_in_dash_or_shape_and_not_only_in_colour():
    assert len({m.dash for m in SPACE_MARKS}) == len(SPACE_MARKS)


def test_each_colour_is_mapped_once_and_text_colours_can_be_read():
    for palette, paper in ((LIGHT, "#fbfbfa"), (DARK, "#12171e")):
        assert len(set(palette)) == len(palette)
        for name in ("ink", "muted", "curve", "winner", "second", "third", "fourth", "original"):
            assert contrast(getattr(palette, name), paper) >= 3.0
        assert contrast(palette.muted, paper) >= 4.5
    rules = color_rules()
    assert all(f'[fill="{value}"]' in rules for value in LIGHT)


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of WCAG 2.1."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def page_colors(source: str) -> list[dict[str, str]]:
    """Return the page's own colours, light and dark, from its style sheet."""
    dark = source.index("prefers-color-scheme: dark")
    parts = source[:dark], source[dark : source.index("* { box-sizing")]
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in parts]


#: Text and what it stands on; smaller text than 18 pt needs 4.5 to 1 (WCAG 2.1, level AA).
TEXT_ON = [
    *((text, ground) for text in ("ink", "soft", "link") for ground in ("paper", "card")),
    *((f"{hue}-ink", f"{hue}-bg") for hue in ("blue", "red", "amber", "grey")),
    *(("ink", f"{hue}-bg") for hue in ("amber", "red", "grey")),
]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT_ON)
def test_text_stands_out_from_its_ground(scheme, text, ground):
    colors = page_colors((Path(page_module.__file__).parent / "templates" / "report.css").read_text())[scheme]
    assert contrast(colors[text], colors[ground]) >= 4.5


@pytest.mark.parametrize(("palette", "paper"), [(LIGHT, "#fbfbfa"), (DARK, "#12171e")])
@pytest.mark.parametrize("mark", ["ink", "curve", "winner", "original", "second", "third", "fourth", "muted"])
def test_marks_that_carry_a_meaning_stand_out_from_the_paper(palette, paper, mark):
    assert contrast(getattr(palette, mark), paper) >= 3.0
