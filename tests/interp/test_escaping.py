"""Escaping: in each format a hostile text is read back as the visible form of itself, and as nothing else."""

from __future__ import annotations

import csv
import io
import json
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from interp import escaping
from tests.hostile import HOSTILE, alive, dot_strings, nodes_of_html, terminal_orders

hostile = pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))


def markdown_html(text: str) -> str:
    """As a reader with tables, bare links and HTML would show it."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


def test_visible_text_is_left_alone_and_the_rest_is_named() -> None:
    plain = "caf\u00e9 \u4e2d\u6587 \U0001f600 \u00a0wide\u3000 a-b_c"
    assert escaping.visible(plain) == plain
    assert escaping.visible("a\nb\tc\x1b[0m\x00\x7f") == "a\u21b5b\u21e5c\u241b[0m\u2400\u2421"
    assert (
        escaping.visible("\u202ex\u200b\ud800\u2028\x9b\U000e0001")
        == "\\u202ex\\u200b\\ud800\\u2028\\u009b\\U000e0001"
    )
    assert escaping.visible("a\nb\r", keep="\n") == "a\nb\u240d"
    assert escaping.shown({"a\x00": ["b\u202e", 1, None]}) == {"a\u2400": ["b\\u202e", 1, None]}


@hostile
def test_a_terminal_gets_one_line_without_orders(text: str) -> None:
    said = escaping.visible(text)
    assert terminal_orders(said) == []
    assert "\n" not in said
    said.encode("utf-8")


@hostile
def test_json_cannot_end_its_block_and_says_the_same(text: str) -> None:
    block = escaping.script_json({text: [text]})
    assert not set("<>&\u2028\u2029") & set(block)
    assert json.loads(block) == {text: [text]}


@hostile
def test_markdown_shows_the_text_and_makes_nothing_of_it(text: str) -> None:
    said = escaping.markdown(text)
    for held in (f"x {said} y", f"| x {said} y |\n|---|\n| {said} |"):
        page = markdown_html(held)
        tags, shown = nodes_of_html(page)
        assert {tag for tag, _ in tags} <= {"p", "table", "thead", "tbody", "tr", "th", "td"}
        assert escaping.visible(text).strip() in shown
    assert len([tag for tag, _ in tags if tag in ("th", "td")]) == 2
    assert not re.search(r"(?<!\\)://|www\.", said)


@hostile
def test_a_code_span_holds_the_text_and_ends_with_it(text: str) -> None:
    tags, shown = nodes_of_html(markdown_html(f"a {escaping.code(text)} b"))
    assert [tag for tag, _ in tags] == (["p", "code"])
    held = escaping.visible(text).replace("|", "\N{BROKEN BAR}")
    assert shown.split() == ["a", *held.split(), "b"]


@hostile
def test_xml_reads_back(text: str) -> None:
    root = ElementTree.fromstring(f'<a b="{escaping.xml(text)}">{escaping.xml(text)}</a>')
    assert root.text == (escaping.visible(text) or None)
    assert root.get("b") == escaping.visible(text)


@hostile
def test_dot_reads_back(text: str) -> None:
    assert (
        dot_strings(f'digraph x {{ "{escaping.dot(text)}" [label="{escaping.dot(text)}"]; }}')
        == [escaping.visible(text)] * 2
    )


@hostile
def test_a_cell_of_csv_is_no_formula(text: str) -> None:
    table = pd.DataFrame({"text": pd.Series([text] * 2, dtype=object), "n": [-1.5, 2.0]}).astype(object)
    table.columns = pd.Index([text, "n"], dtype=object)
    rows = list(csv.reader(io.StringIO(escaping.csv_text(table))))
    assert len(rows) == 3
    assert all(
        not cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d")) for row in rows for cell in row[:1]
    )
    assert rows[1][1] == "-1.5"
    assert rows[1][0] in (escaping.visible(text), f"'{escaping.visible(text)}")


@hostile
def test_a_figures_text_has_no_tag(text: str) -> None:
    assert alive(escaping.figure_text(text)) == []
    assert not set("<>") & set(escaping.figure_text(text))
