"""Hostile texts through every exporter: nothing runs, nothing is asked for, and each format says the text back."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
import torch

import circuits
import interp
import sae
from interp.cli import main
from interp.escaping import visible
from interp.report import outcome, report, write
from interp.tasks.pairs import Pair
from sae.gallery.examples import Plan
from tests.hostile import HOSTILE, SILENT, alive, dot_strings, nodes_of_html, terminal_orders
from tests.interp.fake_stations import section
from tests.interp.test_browser import CHROMIUM, browser, open_page, until
from tests.interp.test_escaping import markdown_html
from tests.interp.test_views import hostile_views

__all__ = ["browser"]  # a fixture

pytestmark = pytest.mark.slow
SITE = "blocks.0.hook_resid_post"
N = len(HOSTILE)


def show(token: int) -> str:
    return HOSTILE[token % N]


@pytest.fixture(scope="module")
def network() -> Any:
    model = interp.load("induction")
    model.name = SILENT
    return model


@pytest.fixture(scope="module")
def made(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each: reports, dashboards, graphs, tables."""
    folder = tmp_path_factory.mktemp("exports")
    sections = [
        outcome(f"s{i}", text, section=section(text=text or "empty"), seconds=1.0)
        for i, text in enumerate(HOSTILE)
    ]
    sections.append(outcome("bad", SILENT, status="failed", reason=SILENT))
    page = report(SILENT, sections=sections, warnings=HOSTILE, provenance={SILENT: list(HOSTILE)})
    write(page, folder, name="analyze")

    rng = np.random.default_rng(0)
    pairs = []
    for i in range(N):  # each text is a token of some prompt, an answer, a prompt's text, a fact
        clean = (i, int(rng.integers(1, 60)), (i + 1) % 60, (i + 2) % 60)
        pair = {
            "clean": clean,
            "corrupted": (clean[0], (clean[1] + 1) % 60, *clean[2:]),
            "facts": {"x": HOSTILE[i]},
        }
        texts = (f"{HOSTILE[i]} clean", f"{HOSTILE[i]} corrupted")
        pairs.append(Pair(**pair, answers=(i % 60,), wrong=((i + 5) % 60,), texts=texts))
    task = interp.tasks.Task.of(pairs, name=SILENT, measure="logit_difference", show=show)
    graph = circuits.attribute(network, task, method="eap").top(6)
    graph = dataclasses.replace(graph, provenance={**graph.provenance, "model": SILENT})
    told = circuits.report(network, task, graph, out=folder / "circuit.html", check=2, title=SILENT)
    graph.save(folder / "first.safetensors")
    graph.top(12).save(folder / "second.safetensors")
    circuits.exchange.write_dot(graph, folder / "circuit.dot")
    circuits.exchange.write_graphml(graph, folder / "circuit.graphml")
    circuits.exchange.write_neuronpedia(graph, folder / "np.json", prompt=SILENT, tokens=HOSTILE)
    assert told.record["title"] == SILENT

    ids = torch.arange(4 * N).view(-1, N) % 60
    tokens = interp.Tokens.full(ids, show=show)
    coder = sae.Coder(network.d_model, 60, 4, seed=0)
    codes = sae.encode(coder, network, tokens, SITE)
    first = int(codes.counts.argmax())
    names = {"low": (SILENT, HOSTILE[20])}
    sae.dashboard(
        coder, network, tokens, SITE, out=folder / "features.html", plan=Plan(top=4, intervals=2, each=2),
        labels={"low": (ids < 20).long()}, names=names, causal=[first],
        explanations={first: sae.Explanation(latent=first, text=SILENT, scores={SILENT: 0.5})},
    )  # fmt: skip
    for name, view in zip(("attention", "tokens"), hostile_views(), strict=True):
        view.save(folder / f"{name}.html")
    shown = [task, graph, tokens, codes, coder, network, told, *hostile_views(), task.clean]
    body = "".join(one._repr_html_() for one in shown)
    head = "<!doctype html><html data-ready=true><meta charset=utf-8><title>n</title><link rel=icon href='data:,'>"
    (folder / "notebook.html").write_bytes(f"{head}{body}".encode("utf-8", "replace"))
    return folder


MARKDOWN = {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code"}
PAGES = ("analyze", "circuit", "features", "attention", "tokens", "notebook")


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is absent")
@pytest.mark.parametrize("page", PAGES)
def test_in_a_browser_nothing_runs_and_nothing_is_asked_for(browser: Any, made: Path, page: str) -> None:
    opened = open_page(browser, made / f"{page}.html")
    talk: list[str] = []
    opened.page.on("dialog", lambda dialog: talk.append(dialog.message))
    opened.page.wait_for_timeout(300)
    if page == "features":
        for _ in range(8):
            opened.page.keyboard.press("j")
            opened.page.wait_for_timeout(30)
    if page in ("attention", "tokens"):
        until(opened.page, "document.querySelectorAll('.chip').length > 20")
        for i in range(0, N, 7):
            opened.page.evaluate(f"document.querySelectorAll('.chip')[{i}].focus()")
        opened.page.evaluate("document.getElementById('exact').open = true")
        opened.page.wait_for_timeout(100)
    if page == "circuit":
        for node in opened.page.query_selector_all("[data-node]")[:3]:
            node.focus()
            opened.page.keyboard.press("Enter")
    assert [url for url in opened.requests if not url.startswith(("file:", "about:", "data:"))] == []
    assert opened.messages == talk == []
    for frame in opened.page.frames:
        assert frame.evaluate("window.PWN") is None
        assert (
            frame.evaluate("document.querySelectorAll('img, object, embed, [onerror], [onmouseover]').length")
            == 0
        )
    links = "[...document.querySelectorAll('a[href]')].map((a) => a.getAttribute('href'))"
    assert all(link.startswith("#") or link.endswith(".json") for link in opened.page.evaluate(links))
    assert not terminal_orders(opened.page.evaluate("document.body.innerText"))


@pytest.mark.parametrize("page", PAGES)
def test_no_page_holds_markup_of_a_token(made: Path, page: str) -> None:
    text = (made / f"{page}.html").read_text("utf-8")
    n_scripts = text.count("\n<script") + text.count("    <script type") + 3
    found = [one for one in alive(text, scripts=n_scripts) if one not in ("style", "link")]
    assert [one for one in found if ".json" not in one] == []


def test_the_json_twins_hold_the_texts_as_they_are(made: Path) -> None:
    twin = json.loads((made / "analyze.json").read_bytes())
    assert twin["warnings"] == list(HOSTILE)
    assert json.loads((made / "circuit.json").read_bytes())["title"] == SILENT
    held = json.loads((made / "np.json").read_bytes())
    assert held["metadata"]["prompt"] == SILENT
    assert len(held["metadata"]["prompt_tokens"]) == N
    with gzip.open(made / "features.jsonl.gz") as file:
        met = {token for line in file for group in json.loads(line)["examples_quantiles"]
               for example in group["examples"] for token in example["tokens"]}  # fmt: skip
    assert HOSTILE[0] in met


def test_markdown_has_no_link_image_or_markup_of_a_token(made: Path) -> None:
    text = (made / "circuit.md").read_text("utf-8")
    assert terminal_orders(text) == []
    tags, shown = nodes_of_html(markdown_html(text))
    assert {tag for tag, _ in tags} <= MARKDOWN
    assert [tag for tag, _ in tags].count("h1") == 1
    assert [tag for tag, _ in tags].count("table") == 3
    assert visible(HOSTILE[11]) in shown


def test_graphml_and_dot_read_back(made: Path) -> None:
    graph = networkx.read_graphml(made / "circuit.graphml")
    assert graph.number_of_edges() >= 3
    strings = dot_strings((made / "circuit.dot").read_text("utf-8"))
    assert set(graph.nodes) <= set(strings)


def test_tables_hold_no_formula(made: Path) -> None:
    with (made / "circuit.edges.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) > 10
    assert not [cell for row in rows[1:] for cell in row[:3] if cell.lstrip().startswith(("=", "+", "@"))]


def test_a_difference_of_circuits_says_nothing_that_a_terminal_obeys(made: Path, capsys: Any) -> None:
    assert main(["circuit", "diff", str(made / "first.safetensors"), str(made / "second.safetensors")]) == 0
    said = capsys.readouterr()
    assert terminal_orders(said.out + said.err) == []


def test_a_report_that_was_tampered_with_is_refused_in_plain_words(
    made: Path, tmp_path: Path, capsys: Any
) -> None:
    record = json.loads((made / "circuit.json").read_bytes())
    record["provenance"]["model"]["name"] = "induction"
    record["task"]["task"] = HOSTILE[20]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(record))
    assert main(["verify", str(path)]) == 1
    said = capsys.readouterr()
    assert terminal_orders(said.out + said.err) == []


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file of labels whose names act, and a file of pairs that do."""
    folder = tmp_path_factory.mktemp("files")
    texts = [
        f"The {noun} has {n} ."
        for noun in ("nurse", "farmer", "lion", "baker")
        for n in ("ten", "two", "six")
    ]
    lines = [{"text": text, "token": i, "label": HOSTILE[20 + 8 * i]} for text in texts for i in (0, 1)]
    labels = folder / "labels.jsonl"
    labels.write_text("\n".join(map(json.dumps, lines)))
    pairs = folder / "pairs.jsonl"
    rows = [
        {"clean": f"{HOSTILE[20]} {i}", "corrupted": "b", "answer": HOSTILE[21], "wrong": "x"}
        for i in range(2)
    ]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    return labels, pairs


def test_probes_of_hostile_labels_are_told_plainly(
    labelled: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "probes"
    words = [
        "probe",
        "mini",
        "--labels",
        str(labelled[0]),
        "--out",
        str(out),
        "--method",
        "lda",
        "--n-seeds",
        "1",
    ]
    assert main(words) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert terminal_orders(said.out + said.err) == []
    page = (out / "probes.html").read_text("utf-8")
    assert [
        one for one in alive(page, scripts=99) if one not in ("style", "link") and ".json" not in one
    ] == []
    with (out / "probes.csv").open(newline="", encoding="utf-8") as file:
        assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "@"))]


def test_errors_quote_texts_without_obeying_them(
    labelled: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    hostile = "\x1b[2Jname\u202e"
    commands = [
        ["circuit", "find", str(labelled[1]), "--model", "mini", "--out", str(tmp_path / "c")],
        ["analyze", hostile, "--out", str(tmp_path / "a")],
        ["probe", hostile, "--out", str(tmp_path / "p")],
        ["capture", hostile, "--out", str(tmp_path / "s")],
        ["audit", hostile],
        ["verify", str(tmp_path / hostile)],
    ]
    for words in commands:
        assert main(words) != 0
        said = capsys.readouterr()
        assert terminal_orders(said.out + said.err) == [], words
        assert said.err


def test_a_model_card_stays_markdown(tmp_path: Path) -> None:
    from sae.commands.cards import write_card

    model = {"name": SILENT, "weights_sha256": "0"}
    held = {"n_rows": 3, "fvu": 0.5, "l0": 2.0, "dead": 0.1}
    made = {
        "coder": {"d_in": 2, "d_sae": 4, "k": 1, "kind": "topk", "wiring": "sae"}, "held_out": held, "last_batch": held,
        "data": {"sites": [SILENT], "targets": [], "source": HOSTILE[16], "model": model},
        "advice": list(HOSTILE), "config": {"x": SILENT}, "provenance": {"command": HOSTILE[18]},
    }  # fmt: skip
    write_card(tmp_path, made)
    text = (tmp_path / "CARD.md").read_text("utf-8")
    assert terminal_orders(text) == []
    tags, _ = nodes_of_html(markdown_html(text))
    assert {tag for tag, _ in tags} <= MARKDOWN
    assert [tag for tag, _ in tags].count("h1") == 1
