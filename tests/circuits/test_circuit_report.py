"""Circuit reports: what is written is what was measured, is checked by doing it again, and bad input is named."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

import circuits
import interp
from circuits.telling.caveats import caveats
from circuits.telling.checking import graph_of, read
from circuits.telling.record import PARTS, sha256_of
from circuits.telling.text import edge_names
from interp.cli import main
from interp.errors import InputError, ModelError, StoreError
from interp.tasks.pairs import Pair
from interp.tasks.task import Task


@pytest.fixture(scope="module")
def asked():
    embedded = interp.toys.embedded("group:C59")
    return interp.load("group:C59"), embedded.task(40, seed=1)


@pytest.fixture(scope="module")
def made(asked, tmp_path_factory):
    model, task = asked
    graph = circuits.attribute(model, task, method="eap-ig", steps=5)
    return circuits.report(model, task, graph, out=tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def record(made):
    return copy.deepcopy(json.loads(made.json.read_text("utf-8")))


def sealed(record: dict) -> dict:
    """The record with hashes that fit what it now says: a forger's work."""
    record["provenance"]["parts"] = {part: sha256_of(record[part]) for part in PARTS}
    return record


def test_all_files_are_written_and_the_graph_comes_back_from_each(made, record) -> None:
    names = {path.name for path in made.html.parent.iterdir()}
    assert names == {
        "report.html", "report.json", "report.md", "report.edges.csv", "report.graph.safetensors",
    }  # fmt: skip
    for graph in (graph_of(record), circuits.Graph.load(made.html.with_suffix(".graph.safetensors"))):
        np.testing.assert_array_equal(graph.scores, made.graph.scores)
        np.testing.assert_array_equal(graph.chosen, made.graph.chosen)
        np.testing.assert_array_equal(graph.exact, made.graph.exact)
        assert graph.stderr is not None
        np.testing.assert_allclose(graph.stderr, made.graph.stderr, rtol=1e-12)  # a square root and back
    assert edge_names(record["graph"]) == made.graph.edges
    text = made.html.with_suffix(".md").read_text("utf-8")
    assert all(f"`{edge}`" in text for edge in made.graph.circuit())


def test_a_nodes_standard_error_is_that_of_its_edges_sums_example_by_example(made, record) -> None:
    layout, examples = made.graph.layout, made.graph.examples.astype(np.float64)
    for node, score, stderr in zip(*(record["nodes"][k] for k in ("names", "scores", "stderr")), strict=True):
        sums = examples[:, layout.source == layout.sources.index(node)].sum(1)
        assert score == pytest.approx(sums.mean(), abs=1e-5)  # single examples are kept in float32
        assert stderr == pytest.approx(sums.std(ddof=1) / len(sums) ** 0.5, abs=1e-6)


def test_the_patterns_on_the_page_are_the_models_to_half_a_level(asked, record) -> None:
    model, task = asked
    site = "blocks.0.attn.hook_pattern"
    attention = model.capture(task.clean, site)[site]
    for row in record["attention"]["rows"]:
        for head in range(model.n_heads):
            held = record["attention"]["heads"][f"a0.h{head}"][row]
            query, key = torch.tril_indices(3, 3)
            torch.testing.assert_close(
                torch.tensor(held) / 99, attention[row, head, query, key], atol=0.5 / 99 + 1e-6, rtol=0
            )


def test_a_fresh_report_is_verified(made, capsys) -> None:
    assert circuits.verify(made.json).ok
    assert main(["verify", str(made.json)]) == 0
    assert capsys.readouterr().out.startswith("VERIFIED product in group:C59")


def test_a_report_cuts_what_its_scores_cut(asked, tmp_path) -> None:
    model, task = asked
    graph = circuits.attribute(model, task, method="eap", ablation="mean")
    made = circuits.report(model, task, graph, out=tmp_path / "r.html", check=5)
    assert made.faithfulness.ablation == "mean"
    at = np.flatnonzero(np.isfinite(made.graph.exact))
    exact = circuits.edge_effects(model, task, edges=at, ablation="mean").exact
    np.testing.assert_allclose(made.graph.exact[at], exact[at], atol=1e-9)
    found = circuits.verify(made.json)
    assert found.ok, str(found)


def test_other_weights_are_named(asked, record) -> None:
    model, _ = asked
    other = copy.deepcopy(model.module)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-3
    found = circuits.verify(record, model=interp.load(other, backend=model.backend))
    assert [one.field for one in found.differences] == ["provenance.model.weights_sha256"]


def test_whatever_was_changed_is_named_even_when_the_hashes_were_made_to_fit(record) -> None:
    edge = edge_names(record["graph"])[int(np.argmax(np.abs(record["graph"]["scores"])))]
    at, exact_at = edge_names(record["graph"]).index(edge), record["graph"]["exact"]["edges"].index

    def scores(r):
        r["graph"]["scores"][at] *= 1.01

    def exact(r):
        for i in range(len(r["graph"]["exact"]["values"])):
            r["graph"]["exact"]["values"][i] += 0.01

    def curve(r):
        r["faithfulness"]["value"] = [v + 0.05 for v in r["faithfulness"]["value"]]

    def shown(r):
        r["prompts"][0]["clean"][0] = "other"

    def asked(r):
        r["pairs"][1]["clean_ids"][0] += 1

    def version(r):
        r["provenance"]["versions"]["torch"] = "1.0"

    assert exact_at(at) >= 0
    for change, field in (
        (scores, f"graph.scores[{edge}]"),
        (exact, "graph.exact["),
        (curve, "faithfulness.value["),
        (shown, "prompts[0].clean"),
        (asked, "pairs"),
        (version, "provenance.versions.torch"),
    ):
        changed = copy.deepcopy(record)
        change(changed)
        found = circuits.verify(sealed(changed))
        assert not found.ok
        assert all(one.field.startswith(field) for one in found.differences), (field, str(found))
    unsealed = copy.deepcopy(record)
    curve(unsealed)
    assert "provenance.parts.faithfulness" in {one.field for one in circuits.verify(unsealed).differences}


def test_a_report_that_differs_ends_with_exit_code_1(record, tmp_path, capsys) -> None:
    record["graph"]["scores"][0] += 1.0
    (tmp_path / "r.json").write_text(json.dumps(record))
    assert main(["verify", str(tmp_path / "r.json")]) == 1
    said = capsys.readouterr().err
    assert "NOT VERIFIED" in said
    assert "graph.scores[" in said


def test_what_cannot_be_verified_is_named(record, tmp_path) -> None:
    record["provenance"]["model"]["name"] = "group:C60"
    with pytest.raises(ModelError, match=r"model 'group:C60' cannot be loaded.*--model"):
        circuits.verify(record)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(StoreError, match="no circuit report"):
        read(tmp_path / "a.json")
    del record["graph"]
    (tmp_path / "b.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match="lacks its part 'graph'"):
        circuits.verify(tmp_path / "b.json")
    assert main(["verify", str(tmp_path / "a.json")]) == 1


def test_what_cannot_be_reported_is_named(asked, made, tmp_path) -> None:
    model, task = asked
    bare = circuits.Graph.from_model(model)
    with pytest.raises(InputError, match="no scores yet"):
        circuits.report(model, task, bare, out=tmp_path)
    empty = made.graph.top(0)
    with pytest.raises(InputError, match="the circuit is empty"):
        circuits.report(model, task, empty, faithfulness=made.faithfulness, out=tmp_path)
    other = interp.load("group:D15")
    with pytest.raises(InputError, match="scored on 'group:C59'; this is 'group:D15'"):
        circuits.report(
            other, interp.toys.embedded("group:D15").task(8), made.graph, faithfulness=made.faithfulness,
            out=tmp_path,
        )  # fmt: skip
    with pytest.raises(InputError, match="must be a Task"):
        circuits.report(model, (task.clean, task.corrupted, task.metric), made.graph, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_circuits_are_compared_edge_by_edge(made, record, tmp_path, capsys) -> None:
    same = circuits.diff(made.json, made.graph)
    assert same.value == 1
    assert same.gained == same.lost == ()
    assert same.correlation == pytest.approx(1)
    few = made.graph.top(5, prune=False)
    found = circuits.diff(made.graph, few)
    a, b = set(made.graph.circuit()), set(few.circuit())
    assert found.value == len(a & b) / len(a | b)
    assert set(found.lost) == a - b
    assert set(found.gained) == b - a
    k, n = len(a), made.graph.n_edges
    expected = k * 5 / n
    assert found.chance == pytest.approx(expected / (k + 5 - expected))
    few.save(tmp_path / "few.safetensors")
    assert main(["circuit", "diff", str(made.json), str(tmp_path / "few.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lost"] == list(found.lost)
    other = circuits.Graph.from_model(interp.load("induction"))
    with pytest.raises(InputError, match=r"different networks: 23 edges \(group:C59"):
        circuits.diff(made.graph, other)
    with pytest.raises(InputError, match="the second graph has no circuit"):
        circuits.diff(made.graph, circuits.Graph.from_model(interp.load("group:C59")))


def test_caveats_follow_from_the_numbers(record) -> None:
    changed = copy.deepcopy(record)
    changed["graph"]["stderr"] = [0.0] * len(changed["graph"]["scores"])
    calm = caveats(changed)
    assert len(calm) == 2  # those that every circuit has
    changed["faithfulness"]["value"][-2] = 1.4
    changed["faithfulness"]["smallest"]["0.9"] = None
    changed["graph"]["n"] = 5
    changed["graph"]["stderr"] = [1e3] * len(changed["graph"]["scores"])
    changed["stability"]["jaccard"] = 0.3
    changed["calibration"] |= {"r2": 0.2}
    changed["graph"]["layout"] = {"gqa": "ungrouped", "blocks": [[4, 2, True, False]]}
    said = " ".join(caveats(changed))
    for words in (
        "No circuit tried",
        "overshoot",
        "5 examples are few",
        "holds zero",
        "share 30%",
        "share keys",
    ):
        assert words in said, words
    assert "r\u00b2 = 0.20" in said


def test_prompts_of_unequal_length_are_refused_before_anything_is_told() -> None:
    ends = {"answers": (4,), "wrong": (5,), "facts": {}, "texts": ("a", "b")}
    pairs = [Pair(clean=(1, 2, 3), corrupted=(1, 2), **ends), Pair(clean=(1,), corrupted=(1, 2, 3), **ends)]
    with pytest.raises(InputError, match="pair 0 is not aligned"):
        Task.of(pairs, name="x", measure="logit_difference")


def test_the_command_finds_and_tells(tmp_path, capsys) -> None:
    words = [
        "circuit",
        "report",
        "own",
        "--model",
        "group:D15",
        "--out",
        str(tmp_path),
        "--n",
        "12",
        "--check",
        "4",
    ]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["title"] == "product in group:D15"
    assert len(read(told["json"])["graph"]["exact"]["edges"]) == 4
    assert main(["circuit", "report", "own", "--model", str(tmp_path), "--out", str(tmp_path / "b")]) == 1
