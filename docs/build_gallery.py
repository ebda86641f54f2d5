"""Run the notebooks and show them as pages: one file each, interactive, that asks nothing of any network.

    python docs/build_gallery.py            # all of them into docs/gallery/
    python docs/build_gallery.py 03 05      # some

nbconvert's own HTML fetches require.js and MathJax; these pages carry plotly.js themselves, under the policy that the
reports have (``interp/pages/document.py``). The index shows a picture of each notebook's last figure where chromium is
on the machine, and says so where it is not.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
OUT = ROOT / "docs" / "gallery"
PLOTLY, FRAME, HTML, TEXT = (
    "application/vnd.plotly.v1+json",
    re.compile(r'srcdoc="([^"]*)"'),
    "text/html",
    "text/plain",
)
INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
CHROMIUM = next(
    (
        Path(path)
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    Path("/usr/bin/chromium"),
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]

logger = logging.getLogger("gallery")


def execute(notebook: Path, *, folder: Path, timeout: int = 600) -> dict[str, Any]:
    """The notebook with its outputs, run from top to bottom with ``folder`` as its working folder.

    Raises
    ------
    RuntimeError
        A cell raised; the message ends in its traceback.
    """
    code = (
        "import sys, nbformat; from nbclient import NotebookClient;"
        "book = nbformat.read(sys.argv[1], as_version=4);"
        "NotebookClient(book, timeout=int(sys.argv[3]), resources={'metadata': {'path': sys.argv[2]}}).execute();"
        "nbformat.write(book, sys.stdout)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, "-W", "ignore", "-c", code, str(notebook), str(folder), str(timeout)]
    ran = subprocess.run(words, env=env, capture_output=True, text=True, encoding="utf-8")
    if ran.returncode:
        raise RuntimeError(f"{notebook.name} did not run:\n{ran.stderr[-4000:]}")
    return json.loads(ran.stdout)


def title_of(book: dict[str, Any]) -> tuple[str, str]:
    """The notebook's heading, and the first paragraph below it as HTML."""
    first = "".join(book["cells"][0]["source"]).strip()
    heading, _, rest = first.partition("\n")
    return heading.lstrip("# "), _markdown(rest.strip().split("\n\n")[0], "../../notebooks/")


def page(book: dict[str, Any], *, name: str, links: str = "../../notebooks/") -> str:
    """The page of a notebook that ran; ``links`` is put before what its texts link to."""
    from interp.pages import document
    from interp.plots.bundle import plotly_bundle

    bundle = plotly_bundle()
    cells = [_cell(cell, f"cell-{i}", links) for i, cell in enumerate(book["cells"])]
    return document.render(
        "docs", "notebook.html.j2", styles=("interp.report:style.css", "notebook.css"),
        scripts=("interp.report:report.js",), allowed=[bundle.csp_hash, *sorted(_frame_hashes(book))],
        title=title_of(book)[0], name=name, cells=cells, bundle=bundle,
    )  # fmt: skip


def index(entries: Sequence[dict[str, Any]]) -> str:
    """The page that leads to the others: each with title, summary, link and, where there is one, a picture."""
    from interp.pages import document

    return document.render(
        "docs", "gallery.html.j2", styles=("interp.report:style.css", "notebook.css"), scripts=("gallery.js",),
        entries=entries,
    )  # fmt: skip


def _cell(cell: dict[str, Any], name: str, links: str) -> dict[str, Any]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return {"kind": "text", "html": _markdown(source, links)}
    outputs = [_output(output, f"{name}-{i}") for i, output in enumerate(cell.get("outputs", ()))]
    return {"kind": "code", "html": _coloured(source), "outputs": [one for one in outputs if one]}


def _output(output: dict[str, Any], name: str) -> dict[str, Any] | None:
    if output["output_type"] == "stream":
        return {"kind": "words", "text": "".join(output["text"])} if output["name"] == "stdout" else None
    data = output.get("data", {})
    if PLOTLY in data:
        figure = data[PLOTLY]
        layout = figure.get("layout", {})
        return {
            "kind": "figure", "name": name, "figure": {"data": figure["data"], "layout": layout},
            "title": _plain((layout.get("title") or {}).get("text") or "Figure"),
            "height": int(layout.get("height") or 450),
        }  # fmt: skip
    if HTML in data:
        return {"kind": "html", "html": "".join(data[HTML])}
    return {"kind": "words", "text": "".join(data.get(TEXT, ""))}


def _plain(text: str) -> str:
    """A figure's title without its tags."""
    return html.unescape(re.sub(r"<br\s*/?>", " \N{EN DASH} ", text)).replace("<b>", "").replace("</b>", "")


def _markdown(source: str, links: str) -> str:
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False}).enable("table").render(source)
    return re.sub(r'href="(?![a-z]+:|#|/)', f'href="{links}', made)


def _coloured(source: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))


def _frame_hashes(book: dict[str, Any]) -> Iterator[str]:
    """Scripts of framed pages: a frame inherits the policy of the page around it."""
    from interp.pages.document import csp_hash

    for cell in book["cells"]:
        for output in cell.get("outputs", ()):
            for inside in FRAME.findall("".join(output.get("data", {}).get(HTML, ""))):
                yield from (csp_hash(script) for script in INLINE.findall(html.unescape(inside)))


def pictures(pages: Sequence[Path]) -> dict[str, str]:
    """A picture of the last figure of every page, as a data URI; empty where there is no chromium to take them."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if not CHROMIUM.exists():
        return {}
    found = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        tab = browser.new_context(offline=True, viewport={"width": 1000, "height": 800}).new_page()
        for file in pages:
            tab.goto(file.resolve().as_uri())
            while not tab.evaluate("Boolean(document.documentElement.dataset.ready)"):
                tab.wait_for_timeout(50)  # playwright's own waiting needs eval, which the page forbids
            plates = tab.query_selector_all("[data-figure]")
            if plates:
                taken = plates[-1].screenshot(type="jpeg", quality=60)
                found[file.stem] = "data:image/jpeg;base64," + base64.b64encode(taken).decode("ascii")
        browser.close()
    return found


def build(names: Sequence[str], out: Path) -> Path:
    """Run, show and index the notebooks whose names begin so (all, if none are named); returns the index."""
    chosen = sorted(
        path for path in NOTEBOOKS.glob("*.ipynb") if not names or path.name.startswith(tuple(names))
    )
    if not chosen:
        raise SystemExit(f"no notebook of {NOTEBOOKS} begins with any of {list(names)}")
    from interp.pages import document

    entries = []
    for notebook in chosen:
        logger.info("running %s", notebook.name)
        work = out / "work" / notebook.stem
        work.mkdir(parents=True, exist_ok=True)
        book = execute(notebook, folder=work)
        document.write(out / f"{notebook.stem}.html", page(book, name=notebook.name))
        title, summary = title_of(book)
        entries.append({"name": notebook.stem, "title": title, "summary": summary})
    shots = pictures([out / f"{entry['name']}.html" for entry in entries])
    if not shots:
        logger.info("no chromium or no playwright: the index has no pictures")
    return document.write(
        out / "index.html", index([entry | {"picture": shots.get(entry["name"])} for entry in entries])
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="beginnings of names; all notebooks if none")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    logger.info("%s", build(asked.names, asked.out))
