"""The views in a real browser without a network: pointed at, walked by keyboard, in both lights, and in a frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from interp.views import attention_patterns, colored_tokens
from tests.interp.test_browser import CHROMIUM, browser, open_page, until
from tests.interp.test_views import triangle

__all__ = ["browser"]  # a fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is absent"),
]
WORDS = ["<bos>", "the", "cat", "sat", "down"]


def tints(page) -> list[bool]:
    return page.evaluate("[...document.querySelectorAll('.chip')].map((e) => e.style.background !== '')")


def assert_quiet(opened, html: Path) -> None:
    assert opened.requests == [html.resolve().as_uri()]
    assert opened.messages == []
    assert opened.page.evaluate("document.documentElement.dataset.ready") == "true"
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_token_shows_where_it_attends_and_what_attends_to_it(browser, tmp_path: Path, scheme: str) -> None:
    layers = {"0": triangle(2, 5, 0), "1": triangle(3, 5, 1)}
    html = attention_patterns(layers, WORDS, title="five tokens").save(tmp_path / "v.html")
    opened = open_page(browser, html, color_scheme=scheme)
    page = opened.page
    assert page.locator(".head").count() == 5
    assert tints(page) == [True] * 5  # the last token, which may look everywhere
    page.click('.head[data-layer="1"][data-head="2"]')
    page.click('.chip[data-at="2"]')
    assert tints(page) == [True, True, True, False, False]
    row = layers["1"][2, 2]
    top = int(row.argmax())
    assert f"cat (position 2) attends to {WORDS[top]} {row[top]:.3g}"[:38] in page.inner_text("#said")
    page.click("text=what attends to it")
    assert tints(page) == [False, False, True, True, True]
    page.click("text=As a table")
    column = layers["1"][2, 2:, 2]
    until(page, "document.querySelectorAll('#table tbody tr').length === 3")
    said = page.evaluate(
        "[...document.querySelectorAll('#table .num')].slice(1).map((e) => Number(e.textContent))"
    )
    np.testing.assert_allclose(said, np.sort(column)[::-1], rtol=1e-6)
    page.hover('.chip[data-at="4"]')
    assert page.get_attribute('.chip[data-at="2"]', "aria-pressed") == "true"  # held
    page.focus('.chip[data-at="2"]')
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    assert "sat (position 3)" in page.inner_text("#said")
    page.keyboard.press("ArrowDown")
    assert page.get_attribute('.head[data-layer="1"][data-head="0"]', "aria-pressed") == "true"
    page.focus('.head[data-layer="1"][data-head="0"]')
    page.keyboard.press("ArrowUp")
    assert page.get_attribute('.head[data-layer="0"][data-head="0"]', "aria-pressed") == "true"
    page.click("text=to the largest but the first token")
    assert float(page.inner_text(".legend").split()[-1]) == pytest.approx(
        layers["0"][0, :, 1:].max(), abs=1e-3
    )
    assert_quiet(opened, html)
    assert len(page.screenshot()) > 10_000


def test_prompts_and_many_layers_are_chosen_from_lists(browser, tmp_path: Path) -> None:
    layers = {str(i): np.stack([triangle(30, 3, i), triangle(30, 3, i + 50)]) for i in range(10)}
    html = attention_patterns(layers, [["a", "b", "c"], ["d", "e", "f"]]).save(tmp_path / "v.html")
    opened = open_page(browser, html)
    page = opened.page
    assert page.locator(".head").count() == 30  # a layer at a time
    page.select_option('select[aria-label="Layer"]', "7")
    page.select_option('select[aria-label="Prompt"]', "1")
    assert page.inner_text(".chips") == "def"
    assert page.inner_text(".layer > span") == "layer 7"
    page.click('.chip[data-at="1"]')
    value = layers["7"][1, 0, 1].max()
    assert f"{value:.3g}" in page.inner_text("#said")
    assert_quiet(opened, html)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tokens_take_the_colours_of_the_chosen_row(browser, tmp_path: Path, scheme: str) -> None:
    rows = {"loss": [float("nan"), 1.0, 2.0, 0.0, 4.0], "signed": [-1.0, 2.0, 0.0, 0.0, 1.0]}
    html = colored_tokens(WORDS, rows).save(tmp_path / "v.html")
    opened = open_page(browser, html, color_scheme=scheme)
    page = opened.page
    assert tints(page) == [False, True, True, False, True]
    assert page.inner_text(".legend").split() == ["0", "4"]
    page.focus(".chip")
    page.keyboard.press("ArrowDown")
    assert tints(page) == [True, True, False, False, True]
    assert "--minus" in page.evaluate("document.querySelector('.chip').style.background")
    assert page.inner_text(".legend").split() == ["\u22122", "2"]
    page.hover('.chip[data-at="4"]')
    assert page.inner_text("#said") == "down (position 4): loss 4; signed 1"
    page.click("text=As a table")
    # the table of a reader without scripts has five rows too: wait for the one that scripts write
    until(page, "document.querySelector('#table tbody tr').innerText.includes('\u2013')")
    assert page.inner_text("#table tbody tr:first-child").split() == ["0", "0", "<bos>", "\u2013", "\u22121"]
    assert_quiet(opened, html)


def test_without_javascript_the_table_is_there(browser, tmp_path: Path) -> None:
    for view in (attention_patterns(triangle(2, 5), WORDS), colored_tokens(WORDS, [1.0, 2, 3, 4, 5])):
        page = open_page(browser, view.save(tmp_path / "v.html"), java_script_enabled=False).page
        page.click("summary")
        assert "switched off here" in page.inner_text("body")
        assert "the" in page.inner_text("#table")


def test_a_view_works_shut_in_a_frame(browser, tmp_path: Path) -> None:
    html = tmp_path / "notebook.html"
    views = [attention_patterns(triangle(2, 5), WORDS), colored_tokens(WORDS, [1.0, 2, 3, 4, 5])]
    frames = "".join(view._repr_html_() for view in views)
    html.write_text(
        f"<!doctype html><html data-ready=true><title>n</title><link rel=icon href='data:,'>{frames}"
    )
    opened = open_page(browser, html, viewport={"width": 900, "height": 1600})
    for frame in opened.page.frames[1:]:
        until(_Frame(frame), "document.documentElement.dataset.ready === 'true'")
        frame.click('.chip[data-at="1"]')
        assert "the (position 1)" in frame.inner_text("#said")
        assert frame.evaluate(
            "document.documentElement.scrollHeight <= innerHeight"
        )  # the frame is tall enough
    assert [url for url in opened.requests if url.startswith("http")] == []
    assert opened.messages == []


class _Frame:
    """A frame that waits as a page does."""

    def __init__(self, frame) -> None:
        self.evaluate, self.wait_for_timeout = frame.evaluate, frame.page.wait_for_timeout
