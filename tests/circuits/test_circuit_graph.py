"""Graphs: the right edges, and every file says what it should."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

import circuits
import interp
from circuits.exchange import write_csv, write_dot, write_graphml
from circuits.layout import Block, Layout
from interp.errors import InputError, StoreError
from interp.toys import planted
from tests.models import loaded


@pytest.mark.parametrize(
    ("layers", "heads", "edges"),
    [
        (12, 12, 32_491),
        (24, 16, 231_877),
        (26, 8, 74_218),
        (6, 6, 2_188),
        (24, 14, 179_749),
        (32, 32, 1_592_881),
    ],
)
def test_edge_counts_are_the_published_ones(layers, heads, edges):
    assert Layout.plain(layers, heads).n_edges == edges


@pytest.mark.parametrize(
    ("layers", "heads", "kv", "edges"), [(32, 32, 8, 805_681), (5, 8, 4, 1_701), (5, 8, 8, 2_461)]
)
def test_grouped_keys_and_values_are_counted_once(layers, heads, kv, edges):
    assert Layout(blocks=(Block(n_heads=heads, n_kv=kv, mlp=True),) * layers, gqa="grouped").n_edges == edges


def test_edges_are_those_of_the_planted_truth():
    truth = planted("two-hop").graph
    graph = circuits.Graph.from_model(interp.load("planted:two-hop"))
    assert set(graph.edges) == {str(edge) for edge in truth.candidates}
    assert graph.nodes == truth.all_nodes


def test_a_parallel_mlp_does_not_read_the_heads_beside_it():
    edges = circuits.Graph.from_model(loaded("gpt_neox", "transformers")).edges
    assert "a0.h1->m0" not in edges
    assert "a0.h1->m1" in edges
    assert "a0.h1->m0" in circuits.Graph.from_model(loaded("gpt_neox_serial", "transformers")).edges


def test_group_networks_and_attention_only_networks_have_graphs():
    assert circuits.Graph.from_model(interp.load("group:C59")).n_edges > 0
    graph = circuits.Graph.from_model(interp.load("induction"))
    assert not any(node.startswith("m") for node in graph.nodes)


def scored(*, seed: int = 0) -> circuits.Graph:
    layout, rng = Layout.plain(2, 3), np.random.default_rng(seed)
    n = layout.n_edges
    return circuits.Graph(
        layout=layout,
        scores=rng.normal(size=n),
        variance=rng.random(n),
        exact=np.where(rng.random(n) < 0.5, np.nan, 1.0),
        examples=rng.normal(size=(4, n)),
        n=4,
        method="eap",
        convention="said",
        provenance={"model": "toy"},
    ).top(20)


def test_saving_and_loading_gives_the_same_graph(tmp_path):
    graph = scored()
    again = circuits.Graph.load(graph.save(tmp_path / "deep" / "graph.safetensors"))
    assert again.layout.to_dict() == graph.layout.to_dict()
    for name in ("scores", "variance", "exact", "chosen", "examples"):
        np.testing.assert_array_equal(getattr(again, name), getattr(graph, name))
    assert (again.n, again.method, again.convention, again.provenance) == (4, "eap", "said", {"model": "toy"})


def test_foreign_and_torn_files_are_refused(tmp_path):
    with pytest.raises(StoreError, match="no circuit at"):
        circuits.Graph.load(tmp_path / "none")
    path = scored().save(tmp_path / "graph.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match="torn"):
        circuits.Graph.load(path)


def test_the_eap_format_goes_both_ways(tmp_path):
    graph = scored()
    again = circuits.Graph.from_eap_json(graph.to_eap_json(tmp_path / "graph.json"))
    np.testing.assert_array_equal(again.scores, graph.scores)
    np.testing.assert_array_equal(again.chosen, graph.chosen)
    record = json.loads((tmp_path / "graph.json").read_text())
    assert record["edges"]["input->a0.h1<k>"]["score"] == graph.score("input->a0.h1<k>")
    del record["edges"]["input->a0.h1<k>"]
    (tmp_path / "graph.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match="lacks 1 edges.*input->a0.h1<k>"):
        circuits.Graph.from_eap_json(tmp_path / "graph.json")
    uneven = circuits.Graph(layout=Layout(blocks=(Block(n_heads=4, n_kv=2, mlp=True),), gqa="grouped"))
    with pytest.raises(InputError, match="ungrouped"):
        uneven.to_eap_json(tmp_path / "no.json")


def test_neuronpedia_nodes_are_unique_and_no_link_dangles(tmp_path):
    graph = scored()
    record = json.loads(
        graph.to_neuronpedia(tmp_path / "n.json", prompt="a b", tokens=("a", "b")).read_text()
    )
    ids = [node["node_id"] for node in record["nodes"]]
    assert len(set(ids)) == len(ids)
    assert {end for link in record["links"] for end in (link["source"], link["target"])} <= set(ids)
    total = sum(link["weight"] for link in record["links"])
    assert total == pytest.approx(graph.scores[graph.chosen].sum())


def test_tables_and_drawings_hold_the_chosen_edges(tmp_path):
    graph = scored()
    tree = ET.parse(write_graphml(graph, tmp_path / "g.graphml"))
    space = "{http://graphml.graphdrawing.org/xmlns}"
    assert len(tree.findall(f".//{space}edge")) == graph.chosen.sum()
    nodes = {node.get("id") for node in tree.findall(f".//{space}node")}
    assert {
        edge.get(end) for edge in tree.findall(f".//{space}edge") for end in ("source", "target")
    } == nodes
    assert write_dot(graph, tmp_path / "g.dot").read_text().count("->") == graph.chosen.sum()
    lines = write_csv(graph, tmp_path / "g.csv").read_text().splitlines()
    assert len(lines) == graph.n_edges + 1


def test_every_format_read_back_by_other_means_gives_the_same_edges_and_scores(tmp_path):
    graph = scored()
    want = {name: graph.score(name) for name in graph.circuit()}
    space = "{http://graphml.graphdrawing.org/xmlns}"

    def named(source: str, destination: str, port: str | None) -> str:
        return f"{source}->{destination}<{port}>" if port else f"{source}->{destination}"

    drawn = {}
    for edge in ET.parse(write_graphml(graph, tmp_path / "g.graphml")).findall(f".//{space}edge"):
        facts = {data.get("key"): str(data.text) for data in edge.findall(f"{space}data")}
        drawn[named(str(edge.get("source")), str(edge.get("target")), facts.get("port"))] = float(
            facts["score"]
        )
    assert drawn == want

    pattern = r'"(.*?)" -> "(.*?)" \[label="(.*?)".* tooltip="(.*?)"'
    found = re.findall(pattern, write_dot(graph, tmp_path / "g.dot").read_text())
    assert {named(*ends): float(score) for *ends, score in found} == want

    with write_csv(graph, tmp_path / "g.csv").open() as file:
        table = {row["edge"]: row for row in csv.DictReader(file)}
    assert {name: float(row["scores"]) for name, row in table.items()} == {
        name: graph.score(name) for name in graph.edges
    }
    assert {name for name, row in table.items() if row["chosen"] == "True"} == set(want)

    record = json.loads(graph.to_neuronpedia(tmp_path / "n.json").read_text())
    called = {node["node_id"]: node["clerp"] for node in record["nodes"]}
    linked = {
        named(called[link["source"]], called[link["target"]], None if port == "in" else port): score
        for link in record["links"]
        for port, score in link["ports"].items()
    }
    assert linked == want


def test_a_graph_of_a_model_is_written_with_the_width_that_the_published_reader_asks_for(tmp_path):
    graph = circuits.Graph.from_model(loaded("gpt2", "transformers"))
    path = graph.to_eap_json(tmp_path / "graph.json")
    assert json.loads(path.read_text())["cfg"]["d_model"] == 32
    assert circuits.Graph.from_eap_json(path).provenance["d_model"] == 32


def test_pruning_leaves_only_edges_on_paths_from_input_to_logits():
    layout = Layout.plain(2, 2)
    path = ["input->a0.h0<v>", "a0.h0->m1", "m1->logits"]
    loose = ["a0.h1->m1", "input->a1.h0<q>", "m0->a1.h1<k>"]
    kept = layout.pruned(layout.mask(path + loose))
    assert [layout.name(int(e)) for e in np.flatnonzero(kept)] == path
    assert not layout.pruned(layout.mask(path[:2])).any()


def test_greedy_growth_takes_a_strong_edge_only_once_it_leads_somewhere():
    layout = Layout.plain(2, 2)
    scores = np.zeros(layout.n_edges)
    for name, score in [
        ("input->a0.h0<v>", 5.0),
        ("a0.h0->logits", 1.0),
        ("m1->logits", 2.0),
        ("a0.h1->m1", 0.5),
    ]:
        scores[layout.edge(name)] = score
    graph = circuits.Graph(layout=layout, scores=scores)
    assert graph.greedy(2).circuit() == ["a0.h0->logits", "m1->logits"]
    assert "input->a0.h0<v>" in graph.greedy(3).circuit()


def test_signed_selection_takes_what_hurts_most_when_cut():
    layout = Layout.plain(1, 1)
    scores = np.linspace(-1, 2, layout.n_edges)
    graph = circuits.Graph(layout=layout, scores=scores)
    assert graph.order(by="signed")[0] == 0
    assert graph.order(by="abs")[0] == layout.n_edges - 1


def test_wrong_names_get_the_nearest():
    layout = Layout.plain(2, 3)
    with pytest.raises(InputError, match="did you mean 'a0.h2'"):
        layout.edge("a0.h22->logits")
    with pytest.raises(InputError, match="m1 has not written"):
        layout.edge("m1->m0")
    with pytest.raises(InputError, match="0-"):
        layout.edges([layout.n_edges])
    with pytest.raises(InputError, match="no scores yet"):
        circuits.Graph(layout=layout).top(3)
    with pytest.raises(InputError, match="no circuit is chosen"):
        replace(scored(), chosen=None).circuit()
