"""Notebooks: each script is paired with a notebook without outputs, is short, and runs from top to bottom."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))

EXECUTE = """
import json, sys
import nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(book, timeout=600, resources={"metadata": {"path": sys.argv[2]}}).execute()
last = [cell for cell in book.cells if cell.cell_type == "code"][-1]
print(json.dumps([kind for output in last.outputs for kind in output.get("data", {})]))
"""


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
def test_a_notebook_runs_headless_and_its_last_cell_is_a_figure(script: Path, tmp_path: Path) -> None:
    book = str(script.with_suffix(".ipynb"))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXECUTE, book, str(tmp_path)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert "application/vnd.plotly.v1+json" in json.loads(ran.stdout.splitlines()[-1])


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

    from tests.interp.test_browser import CHROMIUM, QUIET, playwright

    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is absent")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOWN)])
    NotebookClient(book, timeout=300, kernel_name="python3").execute()
    html = tmp_path / "book.html"
    html.write_text(converting.HTMLExporter().from_notebook_node(book)[0], "utf-8")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
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
        browser.close()
