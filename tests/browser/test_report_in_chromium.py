"""The report as a reader meets it: drawn, quiet, offline, usable without a mouse, on a phone and on paper."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from popstats.report.page import write_report

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
#: Pixels between the margins of an A4 page.
A4_CONTENT = 703


class Visit:
    """An open report and everything that it said or asked for."""

    def __init__(self, browser, report, viewport, scheme="light"):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = self.context.new_page()
        self.messages, self.requests = [], []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())
        self.page.wait_for_function("document.body.dataset.charts", timeout=60_000)


@pytest.fixture(scope="module")
def wide(browser, report):
    visit = Visit(browser, report, WIDE)
    yield visit
    visit.context.close()


@pytest.fixture(scope="module")
def phone(browser, report):
    visit = Visit(browser, report, PHONE)
    yield visit
    visit.context.close()


def test_every_chart_is_drawn_without_a_word_or_a_request(wide, report):
    panels = sum(len(f["panels"]) for f in json.loads(Path(f"{report}.json").read_text())["figures"])
    assert wide.page.evaluate("document.body.dataset.charts") == "drawn"
    assert wide.page.locator("[data-chart] svg.marks").count() == panels
    assert wide.messages == []
    assert wide.requests == [report.as_uri()]


def test_each_chart_holds_marks_and_none_is_empty(wide):
    counts = wide.page.evaluate(
        "Array.from(document.querySelectorAll('[data-chart] svg.marks'), s => s.querySelectorAll('path').length)"
    )
    assert min(counts) > 5


def test_a_hostile_population_name_is_text(wide):
    assert wide.page.evaluate("document.body.dataset.hacked ?? 'no'") == "no"
    assert wide.page.locator("h1").inner_text().startswith("<img src=x")
    assert "</script>" in wide.page.title()


def test_a_tooltip_tells_the_numbers(wide):
    chart = wide.page.locator("#near [data-chart]")
    chart.scroll_into_view_if_needed()
    chart.locator("path[aria-roledescription], .mark-symbol path").last.hover(force=True)
    tip = wide.page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible", timeout=5_000)
    assert "near-optimal from" in tip.inner_text()


@pytest.mark.parametrize("opened", [False, True], ids=["folded", "unfolded"])
def test_nothing_scrolls_sideways_on_a_phone(phone, opened):
    phone.page.evaluate(f"document.querySelectorAll('details').forEach(d => d.open = {str(opened).lower()})")
    # Charts follow the layout a moment later.
    phone.page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=10_000)
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    outside = phone.page.evaluate(
        """Array.from(document.querySelectorAll('main *'))
             .filter(e => !e.closest('.scroll') && !e.closest('svg') && !e.closest('.hidden') && !e.closest('thead'))
             .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert outside == []


@pytest.mark.parametrize("width", [720, 820, 1000])
def test_nothing_scrolls_sideways_on_screens_between(wide, width):
    wide.page.set_viewport_size({"width": width, "height": 900})
    wide.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    try:
        # Charts follow a new width a moment later.
        wide.page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=10_000)
    finally:
        found = wide.page.evaluate("document.documentElement.scrollWidth")
        wide.page.evaluate(
            "document.querySelectorAll('details').forEach(d => d.open = d.matches('#claim-C3a > *'))"
        )
        wide.page.set_viewport_size(WIDE)
    assert found <= width


def test_charts_follow_the_width_of_a_phone(phone):
    widths = phone.page.evaluate(
        "Array.from(document.querySelectorAll('[data-chart] svg.marks'), s => s.getBoundingClientRect().width)"
    )
    assert max(widths) <= PHONE["width"]
    assert min(widths) > 250


def test_the_keyboard_reaches_and_opens_every_fold(wide):
    summary = wide.page.locator("#drop summary")
    summary.focus()
    wide.page.keyboard.press("Enter")
    assert wide.page.locator("#drop details").evaluate("d => d.open")
    assert wide.page.locator("#drop table").is_visible()
    wide.page.keyboard.press("Enter")
    assert not wide.page.locator("#drop details").evaluate("d => d.open")


def test_headings_go_down_one_step_at_a_time_and_charts_have_names(wide):
    levels = wide.page.evaluate(
        "Array.from(document.querySelectorAll('h1, h2, h3, h4'), h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    names = wide.page.evaluate("Array.from(document.querySelectorAll('[role=img]'), e => e.ariaLabel)")
    assert all(len(name) > 20 for name in names)


def test_dark_screens_get_dark_paper_and_light_ink_in_the_charts_too(browser, report):
    visit = Visit(browser, report, WIDE, scheme="dark")
    colors = visit.page.evaluate(
        """[getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('#drop [data-chart] svg .mark-text text')).fill,
            getComputedStyle(document.querySelector('#drop [data-chart] svg path[stroke="#0b5fa5"]')).stroke]"""
    )
    visit.context.close()
    assert colors == ["rgb(18, 23, 30)", "rgb(154, 166, 181)", "rgb(109, 183, 242)"]


def test_paper_shows_what_is_folded_and_stays_light(browser, report):
    visit = Visit(browser, report, WIDE, scheme="dark")
    visit.page.emulate_media(media="print", color_scheme="dark")
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert visit.page.locator("details:not([open]):not(.twin, .twin *)").count() == 0
    assert not visit.page.locator(".twin").is_visible()  # it repeats C3a
    widths = "Array.from(document.querySelectorAll('[data-chart] svg.marks'), s => s.getBoundingClientRect().width)"
    on_paper = visit.page.evaluate(widths)
    assert max(on_paper) <= A4_CONTENT
    assert min(on_paper) > 250
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    visit.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert visit.page.locator("details:not([open])").count() > 0
    assert max(visit.page.evaluate(widths)) > A4_CONTENT
    assert visit.page.pdf(format="A4")[:5] == b"%PDF-"
    visit.context.close()


def test_a_report_is_printed_as_pdf_with_everything_unfolded(browser, hostile, tmp_path):
    """What is folded on the screen is on paper, so its pages are many."""
    page = write_report(hostile, tmp_path / "report.pdf")
    printed = page.read_bytes()
    assert printed[:5] == b"%PDF-"
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") > 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.pdf", "report.pdf.json"]


def test_a_folded_figure_is_drawn_when_it_is_opened(wide):
    wide.page.evaluate("location.hash = 'predicted'")
    wide.page.wait_for_function("document.querySelector('#predicted details.fold').open", timeout=5_000)
    wide.page.wait_for_function(
        "document.querySelector('#predicted svg.marks').getBoundingClientRect().width > 200", timeout=5_000
    )
    wide.page.evaluate("document.querySelector('#predicted details.fold').open = false")
