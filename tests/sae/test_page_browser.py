"""The feature page in a real browser without a network: list, search, sort, links, keys, map, hostile tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
import sae
from sae.gallery.examples import Plan
from tests.interp.fake_stations import HOSTILE
from tests.interp.test_browser import CHROMIUM, browser, open_page, until
from tests.models import random_model

__all__ = ["browser"]  # the fixture

SITE = "blocks.1.hook_resid_post"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is absent")]


@dataclass(frozen=True)
class Text:
    text: str
    scores: dict[str, float]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[sae.Dashboard, Any]:
    """A page of 400 latents, every text of it hostile; the codes it was made from."""
    model = interp.load(random_model("gpt2", seed=1))
    model.name = HOSTILE
    rng = np.random.default_rng(0)
    rows = [rng.integers(2, 50, rng.integers(6, 20)).tolist() for _ in range(80)]
    plain = model.tokens(rows)
    tokens = interp.Tokens(
        ids=plain.ids, mask=plain.mask, show=lambda i: f"w{i}" if i % 5 else f"{HOSTILE}{i}"
    )
    coder = sae.Coder(model.d_model or 0, 400, 5, seed=3)
    codes = sae.encode(coder, model, tokens, SITE)
    labels = {"low": (tokens.ids < 20).long()}
    out = tmp_path_factory.mktemp("page") / "features.html"
    page = sae.dashboard(
        coder, model, tokens, SITE, out=out, plan=Plan(top=4, intervals=3, each=2), labels=labels,
        names={"low": (HOSTILE, "low <b>")}, causal=[int(codes.counts.argmax())],
        explanations={int(codes.counts.argmax()): Text(HOSTILE, {"detection": 0.75})},
    )  # fmt: skip
    return page, codes


def state(page: Any) -> str:
    return page.evaluate("document.documentElement.dataset.latent")


def rows_shown(page: Any) -> list[int]:
    found = (
        "[...document.querySelectorAll('.row')].map(r => [parseFloat(r.style.top), Number(r.dataset.latent)])"
    )
    return [latent for _, latent in sorted(page.evaluate(found))]


def test_it_opens_without_a_request_and_shows_a_latent(browser: Any, made: Any, tmp_path: Path) -> None:
    opened = open_page(browser, made[0].html)
    page, codes = opened.page, made[1]
    assert opened.requests == [made[0].html.resolve().as_uri()]
    assert opened.messages == []
    until(page, "Boolean(document.documentElement.dataset.latent)")
    first = int(np.flatnonzero(codes.counts)[0])
    assert state(page) == str(first)
    assert f"Latent {first}" in page.inner_text("h2")
    assert page.evaluate("document.querySelectorAll('.example').length") > 0
    drawn = page.evaluate(
        "(() => { const c = document.getElementById('map'), d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let n = 0;"
        "for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; })()"
    )
    assert drawn > 100
    assert len(page.screenshot(path=tmp_path / "features.png")) > 30_000


def test_examples_are_coloured_by_code_and_say_it(browser: Any, made: Any) -> None:
    page, codes = open_page(browser, made[0].html).page, made[1]
    latent = int(codes.counts.argmax())
    page.evaluate(f"location.hash = '#f={latent}'")
    until(page, f"document.documentElement.dataset.latent === '{latent}'")
    strongest = float(page.inner_text(".example .v"))
    assert strongest == pytest.approx(float(codes.strongest[latent]), rel=0.01)
    peak = "document.querySelector('.example .peak')"
    assert "var(--plus)" in page.evaluate(f"{peak}.style.background")
    assert float(page.evaluate(f"{peak}.title")) == pytest.approx(strongest, rel=0.01)
    assert "Tried out" in page.inner_text("main")
    assert "detection 0.75" in page.inner_text("main")


def test_search_finds_numbers_and_tokens_and_sorting_sorts(browser: Any, made: Any) -> None:
    page, codes = open_page(browser, made[0].html).page, made[1]
    page.fill("#search", "123")
    until(page, "document.querySelectorAll('.row').length > 0")
    assert rows_shown(page)[0] == 123
    token = int(codes.ids[codes.of(int(codes.counts.argmax()))[0]][0])
    page.fill("#search", f"w{token}" if token % 5 else str(token))
    assert 0 < len(rows_shown(page)) < 400
    page.fill("#search", "no such thing")
    assert rows_shown(page) == []
    assert page.inner_text("#count") == "0 of 400 latents"
    page.fill("#search", "")
    page.select_option("#sort", "density")
    assert rows_shown(page)[0] == int(codes.counts.argmax())
    page.select_option("#sort", "max")
    assert rows_shown(page)[0] == int(codes.strongest.argmax())
    page.select_option("#show", "dead")
    dead = set(np.flatnonzero(codes.counts == 0).tolist())
    assert set(rows_shown(page)) <= dead
    assert page.inner_text("#count") == f"{len(dead)} of 400 latents"
    page.select_option("#show", "tried")
    assert rows_shown(page) == [int(codes.counts.argmax())]


def test_an_address_opens_a_latent_and_another_number_says_so(
    browser: Any, made: Any, tmp_path: Path
) -> None:
    page = browser.new_context(offline=True).new_page()
    page.goto(made[0].html.resolve().as_uri() + "#f=321")
    until(page, "document.documentElement.dataset.latent === '321'")
    assert "Latent 321" in page.inner_text("h2")
    page.evaluate("location.hash = '#f=400'")
    until(page, "document.querySelector('main').textContent.includes('from 0 to 399')")
    page.evaluate("location.hash = '#f=7'")
    until(page, "document.documentElement.dataset.latent === '7'")
    page.go_back()
    page.go_back()
    until(page, "document.documentElement.dataset.latent === '321'")


def test_the_keyboard_walks_searches_and_opens(browser: Any, made: Any) -> None:
    page = open_page(browser, made[0].html).page
    page.evaluate("location.hash = '#f=10'")
    until(page, "document.documentElement.dataset.latent === '10'")
    page.keyboard.press("j")
    until(page, "document.documentElement.dataset.latent === '11'")
    assert page.evaluate("location.hash") == "#f=11"
    page.keyboard.press("ArrowUp")
    until(page, "document.documentElement.dataset.latent === '10'")
    page.keyboard.press("End")
    until(page, "document.documentElement.dataset.latent === '399'")
    assert 399 in rows_shown(page)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("77")
    page.keyboard.press("Enter")
    until(page, "document.documentElement.dataset.latent === '77'")
    page.keyboard.press("Escape")
    assert page.input_value("#search") == ""
    assert page.evaluate("document.querySelector('.row[aria-selected=\"true\"]').dataset.latent") == "77"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_tokens_labels_and_names_do_nothing(browser: Any, made: Any, scheme: str) -> None:
    opened = open_page(browser, made[0].html, color_scheme=scheme)
    page, codes = opened.page, made[1]
    hostile = [i for i in range(400) if any(t % 5 == 0 for t in codes.ids[codes.of(i)[0]])]
    for latent in [int(codes.counts.argmax()), *hostile[:5]]:
        page.evaluate(f"location.hash = '#f={latent}'")
        until(page, f"document.documentElement.dataset.latent === '{latent}'")
        assert "<script>window.PWN=1</script>" in page.inner_text("main")
    page.hover("#map")
    assert page.evaluate("window.PWN") is None
    assert page.evaluate("document.images.length") == 0
    assert opened.messages == []
    assert len(opened.requests) == 1
    assert "<script>window.PWN=1</script>" in page.title()


def test_a_click_on_the_map_and_on_a_neighbour_opens_that_latent(browser: Any, made: Any) -> None:
    page = open_page(browser, made[0].html).page
    until(page, "Boolean(document.documentElement.dataset.latent)")
    before = state(page)
    page.click("main .link")
    until(page, f"document.documentElement.dataset.latent !== '{before}'")
    box = page.locator("#map").bounding_box()
    for share in (0.3, 0.5, 0.7):
        page.mouse.click(box["x"] + share * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    assert state(page).isdigit()
    assert page.evaluate("document.querySelectorAll('.row').length") > 0


def test_without_javascript_it_says_so(browser: Any, made: Any) -> None:
    opened = open_page(browser, made[0].html, java_script_enabled=False)
    assert "switched off here" in opened.page.inner_text("body")


def test_a_narrow_screen_does_not_scroll_sideways(browser: Any, made: Any) -> None:
    page = open_page(browser, made[0].html, viewport={"width": 390, "height": 800}).page
    until(page, "Boolean(document.documentElement.dataset.latent)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_bare_torch_dictionary_of_signed_codes_is_shown_orange(browser: Any, tmp_path: Path) -> None:
    model = interp.load(random_model("gpt2", seed=1))
    coder = sae.Coder(model.d_model or 0, 64, 4, kind="abstopk", seed=1)
    ids = torch.randint(2, 50, (20, 12), generator=torch.Generator().manual_seed(0))
    out = sae.dashboard(coder, model, ids, SITE, out=tmp_path / "f.html", json=False).html
    codes = sae.encode(coder, model, ids, SITE)
    latent = next(i for i in range(64) if codes.counts[i] and codes.of(i)[1].min() < -codes.of(i)[1].max())
    page = open_page(browser, out).page
    page.evaluate(f"location.hash = '#f={latent}'")
    until(page, f"document.documentElement.dataset.latent === '{latent}'")
    assert "var(--minus)" in page.evaluate("document.querySelector('.example .peak').style.background")
    assert float(page.inner_text(".example .v")) == pytest.approx(float(codes.of(latent)[1].min()), rel=0.02)
