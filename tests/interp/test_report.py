"""The report: one page that needs nothing else, and a JSON twin that holds the same."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import InputError, StoreError
from interp.escaping import script_json
from interp.plots.bundle import plotly_bundle
from interp.report import outcome, read, render, report, write
from interp.report.content import figure_json, plain
from tests.interp.fake_stations import HOSTILE, section


def sample(text: str = "All is well.") -> dict:
    sections = [
        outcome("good", "Good", section=section(text=text), seconds=1.5),
        outcome("bad", "Bad", status="failed", reason=f"ValueError: {text}"),
        outcome("none", "None", status="skipped", reason="it has no heads"),
    ]
    said = {"subtitle": text, "warnings": [text], "notes": [text], "facts": [("Layers", 5), (text, text)]}
    record = {"model": {"name": text, "weights_sha256": "ab" * 32}, "seed": 0}
    return report(text, sections=sections, provenance=record, **said)


class Page(HTMLParser):
    """Tags, scripts and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs)
            self.scripts.append((self._script, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[-1] = (self._script, self.scripts[-1][1] + data)
        else:
            self.text.append(data)


def csp(page: Page) -> str:
    (policy,) = [
        a["content"]
        for tag, a in page.tags
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    return policy


def scripts_of(page: Page) -> str:
    return next(part for part in csp(page).split("; ") if part.startswith("script-src "))


def test_the_page_asks_nothing_of_the_network() -> None:
    page = Page(render(sample(), twin="report.json"))
    assert "default-src 'none'" in csp(page)
    assert "unsafe-eval" not in csp(page)
    assert "'unsafe-inline'" not in scripts_of(page)
    for tag, attributes in page.tags:
        for name in ("src", "href", "data", "action", "poster", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:,")) or value in ("", "report.json"), (tag, value)
    style = render(sample()).split("<style>")[1].split("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style


def test_the_policy_allows_exactly_the_scripts_of_the_page() -> None:
    page = Page(render(sample()))
    run = [text for attributes, text in page.scripts if "type" not in attributes]
    (packed,) = [text for attributes, text in page.scripts if attributes.get("id") == "plotly"]
    bundle = gzip.decompress(base64.b64decode(packed))
    hashes = {
        "'sha256-" + base64.b64encode(hashlib.sha256(t).digest()).decode() + "'"
        for t in (run[0].encode(), bundle)
    }
    assert len(run) == 1
    assert set(scripts_of(page).split()[1:]) == hashes
    assert plotly_bundle().version.encode() in bundle[:2000]


def test_a_page_without_figures_carries_no_figure_library() -> None:
    html = render(report("t", sections=[outcome("a", "A", status="failed", reason="no")]))
    assert len(html) < 60_000


def test_hostile_texts_stay_data_in_every_place() -> None:
    hostile, tame = Page(render(sample(HOSTILE))), Page(render(sample()))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in tame.tags]
    assert len(hostile.scripts) == len(tame.scripts)
    assert any("window.PWN=1" in text for text in hostile.text)
    for attributes, text in hostile.scripts:
        if attributes.get("type") == "application/json":
            assert not set("<>&\u2028\u2029") & set(text)
            json.loads(text)


@given(st.recursive(st.text() | st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))  # fmt: skip
def test_script_json_says_the_same_and_cannot_end_its_block(value: object) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_the_reader_without_javascript_has_the_text_and_the_tables() -> None:
    page = Page(render(sample(), twin="report.json"))
    text = " ".join(page.text)
    for said in (
        "All is well.",
        "ValueError",
        "it has no heads",
        "1.25",
        "12345",
        "weights_sha256",
    ):
        assert said in text
    assert sum(tag == "noscript" for tag, _ in page.tags) == 3


def test_the_page_can_be_walked_by_keyboard_and_read_aloud() -> None:
    page = Page(render(sample()))
    assert ("a", {"class": "skip", "href": "#content"}) in page.tags
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {
        href[1:] for tag, a in page.tags if tag == "a" and (href := a.get("href") or "").startswith("#")
    }
    assert targets <= set(ids)
    for tag, attributes in page.tags:
        label = attributes.get("aria-labelledby")
        assert label is None or label in ids
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")


def test_writing_and_reading_back_gives_the_same_page(tmp_path) -> None:
    html, twin = write(sample(HOSTILE), tmp_path)
    again = read(twin)
    assert render(again, twin=twin.name) == html.read_text("utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema": "other/1"}'])
def test_what_is_no_report_is_refused(tmp_path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(StoreError, match="report"):
        read(tmp_path / "report.json")
    with pytest.raises(StoreError, match="missing|cannot read"):
        read(tmp_path / "absent.json")


def test_rendering_another_schema_is_refused() -> None:
    with pytest.raises(InputError, match="schema 'interp-report/1', got 'x'"):
        render({"schema": "x"})


def test_an_outcome_without_its_reason_is_refused() -> None:
    with pytest.raises(InputError, match="comes with a section"):
        outcome("a", "A", status="failed")
    with pytest.raises(InputError, match="comes with a section"):
        outcome("a", "A")
    with pytest.raises(InputError, match="unknown status 'odd'"):
        outcome("a", "A", status="odd", reason="x")


def test_plain_keeps_values_and_says_none_for_what_json_cannot_hold() -> None:
    value = {
        "a": np.float32(0.5),
        "b": np.arange(3),
        "c": float("inf"),
        4: torch.tensor([1.5, float("nan")]),
        "d": {1},
    }
    assert plain(value) == {"a": 0.5, "b": [0, 1, 2], "c": None, "4": [1.5, None], "d": [1]}
    assert plain(np.pi, digits=3) == 3.14
    assert plain(True) is True


def test_figures_become_plain_lists_without_webgl_and_without_links() -> None:
    import plotly.graph_objects as go

    trace = go.Scattergl(x=np.arange(3), y=np.arange(3.0), text=['<a href="https://x">t</a>'] * 3)
    spec = figure_json(go.Figure(trace))
    assert spec["data"][0]["type"] == "scatter"
    assert spec["data"][0]["y"] == [0.0, 1.0, 2.0]
    assert spec["data"][0]["text"][0].startswith("&lt;a href")
    z = figure_json(go.Figure(go.Heatmap(z=np.arange(6.0).reshape(2, 3))))["data"][0]["z"]
    assert z == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    with pytest.raises(InputError, match="'data' and 'layout'"):
        figure_json({"x": 1})


def test_a_heatmap_is_as_high_as_its_rows_ask_for() -> None:
    heights = [
        figure_json({"data": [{"type": "heatmap", "z": [[0]] * n}]})["layout"]["height"]
        for n in (1, 5, 12, 48)
    ]
    assert heights == sorted(heights)
    assert heights[0] < 250 < heights[1] < heights[3] == 680
    given = {"data": [{"type": "heatmap", "z": [[0]]}], "layout": {"height": 99}}
    assert figure_json(given)["layout"]["height"] == 99
