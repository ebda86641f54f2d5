"""The report in a real browser without a network: no request, no complaint, every figure drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp.report import outcome, report, write
from interp.study.analysis import analyze
from interp.study.stations import Section, Table
from tests.browsing import CHROMIUM, Opened, chromium, until
from tests.browsing import opened as open_page
from tests.interp.fake_stations import HOSTILE, section

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is absent")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


def assert_whole(opened: Opened, html: Path) -> None:
    assert opened.requests == [html.resolve().as_uri()]
    assert opened.messages == []
    assert opened.page.evaluate("document.documentElement.dataset.ready") == "true"
    boxes = opened.page.evaluate(
        "[...document.querySelectorAll('[data-figure]')].map(e => {"
        "const s = e.querySelector('svg.main-svg'); if (!s) return [0, 0];"
        "const b = s.getBoundingClientRect(); return [b.width, b.height]})"
    )
    assert all(width > 200 and height > 100 for width, height in boxes), boxes
    assert opened.page.evaluate("window.PWN") is None
    assert (
        opened.page.evaluate(
            'document.querySelectorAll(\'[data-title*="Share"], [data-title*="Cloud"]\').length'
        )
        == 0
    )


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    sections = [
        outcome("good", "Good", section=section(text=HOSTILE), seconds=1.5),
        outcome("bad", HOSTILE, status="failed", reason=HOSTILE),
    ]
    said = {"subtitle": HOSTILE, "warnings": [HOSTILE], "notes": [HOSTILE], "facts": [(HOSTILE, HOSTILE)]}
    page = report(HOSTILE, sections=sections, provenance={HOSTILE: HOSTILE}, **said)
    return write(page, tmp_path)[0]


@pytest.mark.slow
def test_the_main_jobs_report_opens_offline_with_every_figure(browser: Any, tmp_path: Path) -> None:
    html = analyze("group:C59", out=tmp_path, max_tokens=6000).html
    opened = open_page(browser, html)
    assert_whole(opened, html)
    n_figures = opened.page.evaluate("document.querySelectorAll('[data-figure]').length")
    assert n_figures >= 4
    opened.page.set_viewport_size({"width": 1200, "height": 900})
    clipped = (
        "[...document.querySelectorAll('.scroll:has(.sortable)')].filter(e => e.scrollWidth > e.clientWidth)"
        ".map(e => [e.getAttribute('aria-label'), e.scrollWidth, e.clientWidth])"
    )
    assert opened.page.evaluate(clipped) == []
    dead = (
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => decodeURIComponent(a.hash.slice(1)))"
        ".filter(name => !document.getElementById(name))"
    )
    assert opened.page.evaluate(dead) == []  # every entry of the index leads somewhere
    opened.page.click(".index a[href='#effects']")
    assert opened.page.evaluate("location.hash") == "#effects"
    until(opened.page, "document.getElementById('effects').getBoundingClientRect().top < innerHeight")
    shot = opened.page.screenshot(full_page=True, path=tmp_path / "report.png")
    assert len(shot) > 50_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_texts_do_nothing_in_either_light(browser: Any, hostile: Path, scheme: str) -> None:
    opened = open_page(browser, hostile, color_scheme=scheme)
    assert_whole(opened, hostile)
    shown = opened.page.inner_text("h1")
    assert "<script>window.PWN=1</script>" in shown


def test_the_page_follows_the_readers_light(browser: Any, hostile: Path) -> None:
    opened = open_page(browser, hostile, color_scheme="light")
    ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
    light = opened.page.evaluate(ink)
    opened.page.emulate_media(color_scheme="dark")
    until(opened.page, f"{ink} !== {light!r}", seconds=10)
    assert_whole(opened, hostile)


def test_tables_sort_by_number_from_the_keyboard(browser: Any, tmp_path: Path) -> None:
    table = Table(
        title="t",
        columns=("value", "name"),
        rows=((10, "ten"), (9.5, "nine"), (-3, "minus"), (20_000, "many")),
    )
    found = outcome("a", "A", section=Section(name="a", title="A", summary="s", tables=(table,)))
    page = open_page(browser, write(report("t", sections=[found]), tmp_path)[0]).page
    names = "[...document.querySelectorAll('table.sortable tbody tr')].map(r => r.cells[1].textContent)"
    page.focus("table.sortable th:first-child button")
    page.keyboard.press("Enter")
    assert page.evaluate(names) == ["minus", "nine", "ten", "many"]
    page.keyboard.press("Enter")
    assert page.evaluate(names) == ["many", "ten", "nine", "minus"]
    assert page.get_attribute("table.sortable th:first-child", "aria-sort") == "descending"


def test_the_first_tab_stop_skips_to_the_content(browser: Any, hostile: Path) -> None:
    page = open_page(browser, hostile).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


def test_without_javascript_the_text_and_tables_are_there(browser: Any, hostile: Path) -> None:
    opened = open_page(browser, hostile, java_script_enabled=False)
    text = opened.page.inner_text("main")
    assert "switched off here" in text
    assert "1.25" in text
    assert opened.messages == []


def test_a_narrow_screen_does_not_scroll_sideways(browser: Any, hostile: Path) -> None:
    page = open_page(browser, hostile, viewport={"width": 390, "height": 800}).page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_page_prints_with_its_figures(browser: Any, hostile: Path, tmp_path: Path) -> None:
    opened = open_page(browser, hostile, color_scheme="dark")
    printed = opened.page.pdf(path=tmp_path / "report.pdf")
    assert printed.startswith(b"%PDF")
    assert opened.messages == []
