"""The page of a circuit report in a real browser without a network: driven, looked into, and fed hostile tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import circuits
import interp
from interp.tasks.pairs import Pair
from interp.tasks.task import Task
from tests.interp.fake_stations import HOSTILE
from tests.interp.test_browser import CHROMIUM, browser, open_page, until

__all__ = ["browser"]  # a fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is absent"),
]


def gpt2(n_layers: int, n_heads: int):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=n_layers, n_head=n_heads, n_embd=4 * n_heads, n_positions=16, vocab_size=50,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return interp.load(GPT2LMHeadModel(config).eval().double())


def random_task(n: int, *, show: Callable[[int], str] = str) -> Task:
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(n):
        clean = tuple(rng.integers(1, 50, 6).tolist())
        corrupted = (clean[0], *((clean[1] % 49 + 1,)), *clean[2:])
        right, wrong = rng.choice(np.arange(1, 50), 2, replace=False).tolist()
        texts = (" ".join(map(show, clean)), " ".join(map(show, corrupted)))
        pairs.append(
            Pair(clean=clean, corrupted=corrupted, answers=(right,), wrong=(wrong,), facts={}, texts=texts)
        )
    return Task.of(pairs, name="random", measure="logit_difference", show=show)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    model = interp.load("group:C59")
    task = interp.toys.embedded("group:C59").task(24)
    graph = circuits.attribute(model, task, method="eap-ig", steps=3)
    return circuits.report(model, task, graph, out=tmp_path_factory.mktemp("page") / "report.html").html


def count(opened, selector: str) -> int:
    return opened.page.evaluate(f"document.querySelectorAll({selector!r}).length")


def assert_quiet(opened, html: Path) -> None:
    assert opened.requests == [html.resolve().as_uri()]
    assert opened.messages == []
    assert opened.page.evaluate("document.documentElement.dataset.ready") == "true"
    assert opened.page.evaluate("window.PWN") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_draws_and_answers_to_mouse_and_keyboard(browser, page, scheme) -> None:
    opened = open_page(browser, page, color_scheme=scheme, viewport={"width": 1400, "height": 1000})
    chosen = opened.page.evaluate(
        "JSON.parse(document.getElementById('record').textContent).graph.chosen.length"
    )
    assert count(opened, ".edge") == count(opened, "#edge-table tbody tr") == chosen
    assert count(opened, "#curve circle") > 3
    assert count(opened, "#calibration circle") == 23  # every edge was measured
    opened.page.click('[data-node="a0.h1"]')
    assert opened.page.evaluate("document.querySelector('#panel h3').textContent") == "a0.h1"
    assert count(opened, "#panel svg.pattern rect") == 6  # three tokens: the lower triangle
    assert count(opened, '[aria-pressed="true"]') == 1
    opened.page.keyboard.press("Escape")
    assert count(opened, '[aria-pressed="true"]') == 0
    opened.page.focus('[data-node="input"]')
    opened.page.keyboard.press("ArrowUp")
    assert opened.page.evaluate("document.activeElement.dataset.node").startswith("a0.")
    opened.page.keyboard.press("Enter")
    picked = opened.page.evaluate("document.activeElement.dataset.node")
    assert opened.page.evaluate("document.querySelector('#panel h3').textContent") == picked
    opened.page.keyboard.press("Escape")
    assert count(opened, '[aria-pressed="true"]') == 0
    opened.page.uncheck("#prune")
    opened.page.evaluate(
        "(() => { const s = document.getElementById('size'); s.value = 1000; s.dispatchEvent(new Event('input')) })()"
    )
    assert count(opened, ".edge") == 23
    opened.page.click("#back")
    assert count(opened, ".edge") == chosen
    assert_quiet(opened, page)


def test_pruning_in_the_page_is_pruning_in_python(browser, tmp_path) -> None:
    model, task = gpt2(3, 2), random_task(4)
    graph = circuits.attribute(model, task, method="eap")
    html = circuits.report(model, task, graph.top(10), out=tmp_path / "r.html", check=0).html
    opened = open_page(browser, html)
    n = graph.n_edges
    for value in (300, 500, 700, 900):
        opened.page.evaluate(
            f"(() => {{ const s = document.getElementById('size'); s.value = {value};"
            "s.dispatchEvent(new Event('input')) })()"
        )
        k = max(1, round(n ** (value / 1000)))
        expected = set(graph.top(k).circuit())
        at = opened.page.evaluate("[...document.querySelectorAll('.edge')].map((e) => +e.dataset.edge)")
        assert {graph.layout.name(i) for i in at} == expected


def test_without_javascript_the_tables_are_there(browser, page) -> None:
    opened = open_page(browser, page, java_script_enabled=False)
    assert "interp verify report.json" in opened.page.content()
    assert opened.page.locator("#edge-table tbody tr").count() > 3


def test_hostile_tokens_are_text(browser, tmp_path) -> None:
    model = gpt2(1, 2)
    task = random_task(3, show=lambda token: f"{HOSTILE}{token}")
    task = replace(task, name=HOSTILE)
    graph = circuits.attribute(model, task, method="eap").top(8)
    made = circuits.report(model, task, graph, out=tmp_path / "r.html", check=2, title=HOSTILE)
    opened = open_page(browser, made.html)
    for node in opened.page.evaluate("[...document.querySelectorAll('.node')].map((e) => e.dataset.node)"):
        opened.page.click(f'[data-node="{node}"]')
    assert_quiet(opened, made.html)
    assert "<script>window" not in made.html.with_suffix(".md").read_text("utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(f"<!doctype html><html data-ready='true'><body>{made._repr_html_()}</body></html>")
    framed = open_page(browser, frame)
    inner = framed.page.frames[1]
    for _ in range(100):
        if inner.evaluate("document.documentElement.dataset.ready") == "true":
            break
        framed.page.wait_for_timeout(50)
    assert inner.evaluate("document.querySelectorAll('.edge').length") > 0
    assert framed.page.evaluate("window.PWN") is None
    assert framed.messages == []


def test_the_edges_of_gpt2_small_fit_in_two_megabytes_and_stay_interactive(browser, tmp_path) -> None:
    model, task = gpt2(12, 12), random_task(4)
    graph = circuits.attribute(model, task, method="eap")
    assert graph.n_edges == 32_491
    found = circuits.evaluate(model, graph, task, sizes=[100, 1000], n_random=1)
    made = circuits.report(model, task, graph.top(400), faithfulness=found, out=tmp_path / "r.html", check=3)
    assert made.html.stat().st_size < 2_000_000
    opened = open_page(browser, made.html)
    opened.page.evaluate(
        "(() => { const s = document.getElementById('size'); s.value = 1000; s.dispatchEvent(new Event('input')) })()"
    )
    until(opened.page, "document.querySelectorAll('.edge').length > 30000")
    opened.page.click("#back")
    opened.page.click('[data-node="m3"]')
    assert opened.page.evaluate("document.querySelector('#panel h3').textContent") == "m3"
    assert_quiet(opened, made.html)
