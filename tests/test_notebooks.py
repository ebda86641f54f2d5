"""Notebooks: each script is paired with a notebook without outputs, is short, and runs from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs import build_gallery as gallery
from interp.pages import document
from tests.browsing import chromium, opened

FOLDER = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def cells_of(script: Path) -> list[tuple[str, str]]:
    """(kind, source) of each cell of a percent script, read by jupytext."""
    import jupytext

    return [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]


def test_there_are_notebooks() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_paired_with_a_notebook_without_outputs(script: Path) -> None:
    book = json.loads(script.with_suffix(".ipynb").read_text("utf-8"))
    paired = [(cell["cell_type"], "".join(cell["source"])) for cell in book["cells"]]
    assert paired == cells_of(script), f"jupytext --sync {script.name}"
    assert not any(cell.get("outputs") for cell in book["cells"])
    assert "ipynb,py:percent" in script.read_text("utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_ends_in_what_it_does_not_show(script: Path) -> None:
    cells = cells_of(script)
    assert len(cells) <= 15
    assert [kind for kind, _ in cells[-2:]] == ["code", "markdown"]
    assert "not show" in cells[-1][1]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_runs_headless_ends_in_a_figure_and_shows_as_a_page(script: Path, tmp_path: Path) -> None:
    """Run as its reader would; then its page of the gallery, opened without a network, every figure drawn."""
    book = gallery.execute(script.with_suffix(".ipynb"), folder=tmp_path)
    last = [cell for cell in book["cells"] if cell["cell_type"] == "code"][-1]
    assert gallery.PLOTLY in [kind for output in last["outputs"] for kind in output.get("data", {})]
    html = document.write(tmp_path / f"{script.stem}.html", gallery.page(book, name=script.name))
    with chromium() as browser:
        for scheme in ("light", "dark"):
            shown = opened(browser, html, color_scheme=scheme)
            shown.assert_silent()
            drawn, plates = shown.page.evaluate(
                "['.plate.drawn svg.main-svg', '.plate'].map((each) => document.querySelectorAll(each).length)"
            )
            assert drawn >= plates >= 1
            assert shown.page.inner_text("h1") == gallery.title_of(book)[0]


def test_an_output_of_each_kind_becomes_its_part_of_the_page() -> None:
    frame = document.frame("<script>1</script>", height=9)
    data = [
        {gallery.PLOTLY: {"data": [], "layout": {"title": {"text": "a<br>b"}, "height": 300}}},
        {gallery.HTML: ["<table></table>", frame], gallery.TEXT: "a table"},
        {gallery.TEXT: ["<script>"]},
    ]
    outputs = [{"output_type": "display_data", "data": one} for one in data]
    outputs += [
        {"output_type": "stream", "name": name, "text": [f"to {name}"]} for name in ("stdout", "stderr")
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "What *it* [says](x.md) <b>\n\nmore"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    page = gallery.page({"cells": cells}, name="x.ipynb")
    assert "a \N{EN DASH} b</figcaption>" in page
    assert 'style="height: 300px"' in page
    assert "<table></table>" in page
    assert document.csp_hash("1") in page
    assert '<pre class="words"' in page
    assert "&lt;script&gt;</pre>" in page
    assert "to stdout" in page
    assert "to stderr" not in page
    assert '<em>it</em> <a href="../../notebooks/x.md">says</a> &lt;b&gt;' in page
    entry = {"name": "x", "title": "Title", "summary": gallery.title_of({"cells": cells})[1], "picture": None}
    assert '<a href="x.html"><span>Title</span></a><p>What <em>it</em>' in gallery.index([entry])


SHOWN = """
import interp
model = interp.load("induction")
tokens = model.tokens([list(range(1, 9))])
interp.views.attention_patterns(model.capture(tokens, "blocks.*.attn.hook_pattern"), tokens)
"""


@pytest.mark.slow
def test_views_are_alive_in_a_notebook_made_into_html(tmp_path: Path) -> None:
    converting = pytest.importorskip("nbconvert")
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOWN)])
    NotebookClient(book, timeout=300, kernel_name="python3").execute()
    html = tmp_path / "book.html"
    html.write_text(converting.HTMLExporter().from_notebook_node(book)[0], "utf-8")
    with chromium() as browser:
        page = browser.new_context(offline=True).new_page()
        asked: list[str] = []
        page.on(
            "request", lambda request: asked.append(request.url) if request.frame != page.main_frame else None
        )
        page.goto(html.as_uri())  # the converter's own page asks for its maths; the view in it for nothing
        frame = page.frames[1]
        frame.wait_for_selector(".chip")
        frame.click('.chip[data-at="3"]')
        assert "(position 3) attends to" in frame.inner_text("#said")
        assert [url for url in asked if url.startswith("http")] == []


@pytest.mark.slow
def test_views_are_alive_in_the_gallery(tmp_path: Path) -> None:
    """A frame inherits the policy of the page around it, which must therefore allow the frame's script."""
    import nbformat

    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A view"), nbformat.v4.new_code_cell(SHOWN)]
    )
    nbformat.write(book, tmp_path / "view.ipynb")
    ran = gallery.execute(tmp_path / "view.ipynb", folder=tmp_path)
    html = document.write(tmp_path / "view.html", gallery.page(ran, name="view.ipynb"))
    with chromium() as browser:
        shown = opened(browser, html)
        frame = shown.page.frames[1]
        frame.wait_for_selector(".chip")
        frame.click('.chip[data-at="3"]')
        assert "(position 3) attends to" in frame.inner_text("#said")
        assert shown.messages == []
        assert [url for url in shown.requests if not url.startswith(("file:", "about:srcdoc"))] == []
