"""Every page that the toolkit writes can be read and reached: contrast, keyboard, names, motion, print, one look.

The rules are those of WCAG 2.2 AA that can be computed: 1.1.1, 1.3.1, 1.4.3, 2.1.1, 2.4.3, 2.4.7, 3.1.1, 4.1.2.
Contrast is computed from what the browser computed for each element that holds text, against the backgrounds below it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browsing import CHROMIUM, chromium, opened

PAGES = (
    "analysis", "comparison", "geometry", "circuit", "features", "attention", "tokens", "notebook", "gallery",
)  # fmt: skip
SCHEMES = ("light", "dark")

AUDIT = (Path(__file__).parent / "reading.js").read_text("utf-8")
MOTION = """[...document.querySelectorAll('html, body, body *')].filter((e) => {
  const s = getComputedStyle(e);
  return [s.transitionDuration, s.animationDuration].some((d) => d.split(',').some((one) => parseFloat(one) > 0))
    || s.scrollBehavior === 'smooth';
}).map((e) => e.tagName + '.' + e.className)"""

CLIPPED = """[...document.querySelectorAll('body, body *')].filter((e) => {
  if (!e.checkVisibility() || e.closest('svg, pre, iframe')) return false;
  const s = getComputedStyle(e), cut = (o) => o !== 'visible';
  return (cut(s.overflowY) && e.scrollHeight > e.clientHeight + 2 && e.clientHeight > 0);
}).map((e) => `${e.tagName}#${e.id}.${e.className} ${e.scrollHeight} > ${e.clientHeight}`)"""

REACHABLE = """[...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled && e.tabIndex >= 0)
  .filter((e) => !e.closest('.modebar, [inert]'))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("pages")
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = globals()[f"write_{name}"](folder / name)
        return made[name]

    return get


def write_analysis(folder: Path) -> Path:
    from interp.study.analysis import analyze

    return analyze("group:D15", out=folder, max_tokens=2000).html


def write_comparison(folder: Path) -> Path:
    from interp.study.comparing import compare

    return Path(compare("group:D15", "group:S4", out=folder, preset="quick", max_tokens=600).html)


def write_geometry(folder: Path) -> Path:
    from interp.cli import main

    assert main(["-q", "metrics", "group:D15", "--max-tokens", "900", "--out", str(folder)]) == 0
    (page,) = folder.glob("*.html")
    return page


def write_circuit(folder: Path) -> Path:
    import circuits
    import interp

    model = interp.load("planted:two-hop")
    task = interp.toys.planted("two-hop").task(12)
    if not hasattr(task, "describe"):
        model = interp.load("group:D15")
        task = interp.toys.embedded("group:D15").task(12)
    graph = circuits.attribute(model, task, method="eap")
    return circuits.report(model, task, graph, out=folder / "report.html", check=5).html


def write_features(folder: Path) -> Path:
    import interp
    import sae
    from sae.gallery.examples import Plan

    model = interp.load("mini")
    sample = interp.toys.embedded("mini").sample(2000, seed=1)
    coder = sae.Coder(model.d_model or 0, 96, 4, seed=3)
    return sae.dashboard(
        coder, model, sample.tokens, "blocks.1.hook_resid_post", out=folder / "features.html", causal=[0, 1],
        plan=Plan(top=4, intervals=3, each=2), labels=dict(sample.labels),
    ).html  # fmt: skip


def write_attention(folder: Path) -> Path:
    from interp.views import attention_patterns

    pattern = np.tril(np.random.default_rng(0).random((2, 5, 5)))
    pattern /= pattern.sum(-1, keepdims=True)
    return attention_patterns({"0": pattern}, ["a", "b", "c", "d", "e"], title="five").save(folder / "v.html")


def write_tokens(folder: Path) -> Path:
    from interp.views import colored_tokens

    values = np.linspace(-1, 1, 6)
    return colored_tokens(list("abcdef"), values, title="six").save(folder / "v.html")


def write_notebook(folder: Path) -> Path:
    from docs import build_gallery as gallery
    from interp.pages import document

    return document.write(folder / "notebook.html", gallery.page(book(), name="x.ipynb"))


def write_gallery(folder: Path) -> Path:
    from docs import build_gallery as gallery
    from interp.pages import document

    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    entries = [
        {"name": "01", "title": "Probe a model", "summary": "<p>What <em>is</em> read.</p>", "picture": dot}
    ]
    return document.write(folder / "index.html", gallery.index(entries * 5))


def book() -> dict[str, Any]:
    """A notebook that ran: text, code, words, a table, two figures."""
    import pandas as pd

    from docs import build_gallery as gallery
    from interp.plots import Series, heatmap, lines

    figures = [
        lines(
            [1, 2, 3],
            [Series(name="a", y=[1, 3, 2]), Series(name="b", y=[1, 1, 1], baseline=True)],
            title="A line",
        )
    ]
    figures.append(
        heatmap(np.eye(3) - 0.3, rows=list("abc"), columns=list("xyz"), title="A map", diverging=True)
    )
    shown: list[dict[str, Any]] = [{gallery.PLOTLY: json.loads(figure.to_json())} for figure in figures]
    shown += [{gallery.HTML: pd.DataFrame({"x": [1, 2]}).to_html()}]
    outputs = [{"output_type": "display_data", "data": one} for one in shown]
    outputs.append({"output_type": "stream", "name": "stdout", "text": ["words\n"]})
    source = '# a comment\nimport interp\n\nfor x in (1, 2.5, "text", None):\n    print(f"{x:3}", not x)\n'
    return {
        "cells": [
            {"cell_type": "markdown", "source": "# A notebook\nSome *text* with `code` and a [link](x.md).\n\n## Part"},
            {"cell_type": "code", "source": source, "outputs": outputs},
            {"cell_type": "markdown", "source": "| a | b |\n|---|---|\n| 1 | 2 |\n\nEnd."},
        ]
    }  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


slow = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is absent")]
BROWSED = [pytest.param(name, marks=slow) for name in PAGES]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", BROWSED)
def test_every_text_can_be_read_and_every_control_has_a_name(
    browser: Any, pages: Callable[[str], Path], name: str, scheme: str
) -> None:
    shown = opened(browser, pages(name), color_scheme=scheme, viewport={"width": 1300, "height": 900})
    for summary in shown.page.query_selector_all("details:not([open]) > summary"):
        summary.click()
    found = shown.page.evaluate(AUDIT)
    assert found["problems"] == []
    shown.assert_silent()


@pytest.mark.parametrize("name", BROWSED)
def test_every_page_has_the_same_paper_ink_and_type(
    browser: Any, pages: Callable[[str], Path], name: str
) -> None:
    """And those that are articles with a list of contents lie on the same sheet."""
    page = opened(browser, pages(name), viewport={"width": 1300, "height": 900}).page
    look = "(({ backgroundColor, color, fontFamily }) => [backgroundColor, color, fontFamily])"
    paper, ink, type_ = page.evaluate(f"{look}(getComputedStyle(document.documentElement))")
    assert (paper, ink) == ("rgb(252, 252, 250)", "rgb(29, 35, 41)")
    assert type_.startswith('Inter, "Source Sans 3"')
    sheets = page.evaluate("[...document.querySelectorAll('.sheet')].map((e) => getComputedStyle(e).display)")
    assert sheets == (["grid"] if name in ("analysis", "comparison", "geometry", "circuit") else [])


@pytest.mark.parametrize("name", BROWSED)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    browser: Any, pages: Callable[[str], Path], name: str
) -> None:
    size = {"width": 1300, "height": 900}
    page = opened(browser, pages(name), viewport=size, reduced_motion="reduce").page
    hidden = []
    for _ in range(900):
        page.keyboard.press("Tab")
        at = page.evaluate("""(() => {
          const e = document.activeElement;
          if (!e || e === document.body) return null;
          const s = getComputedStyle(e), box = e.querySelector('rect');
          const r = e.getBoundingClientRect(), again = e.dataset.reached;
          e.dataset.reached = 'yes';
          const shown = (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2)
            || (box && parseFloat(getComputedStyle(box).strokeWidth) >= 2);
          const inside = r.bottom > 0 && r.top < innerHeight && r.right > 0 && r.left < innerWidth;
          return [`<${e.tagName} class=${e.getAttribute('class')} id=${e.id}>`, Boolean(shown), inside, Boolean(again)];
        })()""")
        if at is None or at[3]:
            break
        if not (at[1] and at[2]):
            hidden.append(at)
    missed = page.evaluate(
        f"{REACHABLE}.filter((e) => !e.dataset.reached).map((e) => e.tagName + '.' + e.className + '#' + e.id)"
    )
    assert hidden == []
    assert missed == []
    assert page.evaluate("document.querySelectorAll('[data-reached]').length") >= 1


@pytest.mark.parametrize("name", BROWSED)
def test_nothing_moves_for_those_who_asked_for_rest(
    browser: Any, pages: Callable[[str], Path], name: str
) -> None:
    page = opened(browser, pages(name), reduced_motion="reduce").page
    assert page.evaluate(MOTION) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", BROWSED)
def test_print_shows_everything_on_white_and_leaves_controls_out(
    browser: Any, pages: Callable[[str], Path], name: str, scheme: str, tmp_path: Path
) -> None:
    shown = opened(browser, pages(name), color_scheme=scheme, viewport={"width": 760, "height": 1000})
    page = shown.page
    page.emulate_media(media="print", color_scheme=scheme)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(300)
    assert page.evaluate(CLIPPED) == []
    controls = "[...document.querySelectorAll('input, select, nav, .skip, .modebar-container')]"
    assert page.evaluate(f"{controls}.filter((e) => e.checkVisibility()).map((e) => e.outerHTML)") == []
    found = page.evaluate(AUDIT)
    assert [problem for problem in found["problems"] if "contrast" in problem] == []
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert min(int(value) for value in re.findall(r"\d+", ground)[:3]) > 240, ground
    assert page.pdf(path=tmp_path / "page.pdf").startswith(b"%PDF")
    shown.assert_silent()


def tokens_of(css: str) -> dict[str, dict[str, str]]:
    """The colours of the shared style sheet in light and dark."""
    light, _, dark = css.partition("prefers-color-scheme: dark")
    found = re.compile(r"--(\w+(?:-\w+)?):\s*(#[0-9a-f]{6})\b")
    return {"light": dict(found.findall(light)), "dark": dict(found.findall(dark))}


# Machado, Oliveira & Fernandes 2009, severity 1: what a dichromat sees, in linear RGB.
DICHROMATS = {
    "none": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "protan": [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
    "deutan": [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881],
    "tritan": [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900],
}  # fmt: skip


def lab(colour: str, sight: np.ndarray) -> np.ndarray:
    """CIELAB of a hex colour as such eyes see it."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(sight @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = np.cbrt(np.maximum(xyz / np.array([0.9505, 1.0, 1.089]), 1e-4))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", list(DICHROMATS))
def test_more_and_less_are_told_apart_by_every_eye(root: Path, sight: str) -> None:
    """A distance of 20 in CIELAB is one that nobody overlooks; red and green, by contrast, would fail."""
    eyes = np.array(DICHROMATS[sight]).reshape(3, 3)
    colours = tokens_of((root / "interp" / "pages" / "base.css").read_text("utf-8"))
    for scheme in SCHEMES:
        plus, minus, paper = (lab(colours[scheme][name], eyes) for name in ("plus", "minus", "paper"))
        for a, b in itertools.combinations((plus, minus, paper), 2):
            assert np.linalg.norm(a - b) > 20, scheme
    if sight == "deutan":
        assert np.linalg.norm(lab("#d62728", eyes) - lab("#2ca02c", eyes)) < 60


def test_colours_have_one_home(root: Path) -> None:
    """A page's own style sheet names the shared colours, and writes none of its own but white paper for print."""
    folders = ("interp", "probes", "sae", "circuits", "docs")
    sheets = [
        path for folder in folders for path in (root / folder).rglob("*.css") if path.name != "base.css"
    ]
    own = {
        str(path.relative_to(root)): found
        for path in sheets
        if (found := re.findall(r":[^;{}]*?(#[0-9a-fA-F]{3,8})\b", path.read_text("utf-8")))
        not in ([], ["#fff"])
    }
    assert sheets
    assert own == {}
