"""Feature circuits: numbers against patching by hand, the whole against its parts, planted latents and idle ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import circuits
import interp
from circuits.features.graph import LOGITS
from circuits.features.splicing import codes_of, places_of, shifted
from interp.edits import replace
from interp.errors import InputError
from tests.circuits.test_atlas import random_task, toy

FIRST, SECOND = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"


class Rotated:
    """An orthonormal basis: a dictionary that leaves nothing over, or (``keep`` < d) all but some directions."""

    def __init__(self, d: int, *, keep: int | None = None, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.basis = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator)).Q[:keep]

    def encode(self, x: Tensor) -> Tensor:
        return x @ self.basis.T

    def decode(self, codes: Tensor) -> Tensor:
        return codes @ self.basis


@pytest.fixture(scope="module")
def asked() -> tuple[Any, Any]:
    return interp.load(toy(seed=3)), random_task(5, 5, seed=3)


def test_codes_put_back_as_they_are_change_nothing(asked) -> None:
    model, task = asked
    for place in places_of(model, {FIRST: Rotated(16, keep=5)}):
        edits = shifted(place, codes=lambda z: z, error=lambda e: e)
        torch.testing.assert_close(
            model.logits(task.clean, edits=edits), model.logits(task.clean), atol=1e-12, rtol=0
        )


def test_where_the_metric_is_linear_estimates_are_effects_and_add_up(asked) -> None:
    """Behind the last block of a network without norms."""
    model, task = asked
    dictionary = {SECOND: Rotated(16, keep=9)}
    found = circuits.feature_circuit(model, task, dictionary, n_nodes=10, n_edges=10, steps=2)
    np.testing.assert_allclose(found.estimate, np.asarray(found.value), atol=1e-10)
    assert set(found.edges) == {(node, LOGITS) for node in found.nodes}
    ordered = [found.edge_effect[found.edges.index((node, LOGITS))] for node in found.nodes]
    np.testing.assert_allclose(ordered, np.asarray(found.value), atol=1e-10)
    whole = task.metric(model.logits(task.corrupted)) - task.metric(model.logits(task.clean))
    # patching all of the stream at the answer's position is the corrupted run
    assert sum(found.scores[SECOND]) == pytest.approx(float(whole.mean()), abs=1e-9)
    assert found.positions is not None
    assert np.abs(found.positions[:, :-1]).max() < 1e-12  # only the last position is read
    np.testing.assert_allclose(found.positions.sum(1), found.estimate, atol=1e-12)


def test_integrated_gradients_add_up_to_the_effect_of_the_whole_place(asked) -> None:
    model, task = asked
    dictionary = Rotated(16, keep=6)
    found = circuits.feature_circuit(model, task, {FIRST: dictionary}, n_nodes=2, n_edges=2, steps=60)
    held = model.capture(task.corrupted, FIRST)
    whole = task.metric(model.logits(task.clean, edits=[replace(FIRST, held[FIRST])]))
    change = float((whole - task.metric(model.logits(task.clean))).mean())
    assert sum(found.scores[FIRST]) == pytest.approx(
        change, rel=0.02
    )  # the midpoint rule's error at 60 points


def test_nodes_and_edges_are_what_patching_by_hand_gives(asked) -> None:
    model, task = asked
    first, second = Rotated(16, keep=6, seed=1), Rotated(16, keep=7, seed=2)
    found = circuits.feature_circuit(model, task, {FIRST: first, SECOND: second}, n_nodes=8, n_edges=40)
    clean = model.capture(task.clean, [FIRST, SECOND])
    other = model.capture(task.corrupted, [FIRST, SECOND])
    base = task.metric(model.logits(task.clean))

    def moved(site: str, dictionary: Rotated, kind: str, x: Tensor, to: Tensor) -> Tensor:
        if kind == "error":
            return first_part(dictionary, x) + to - first_part(dictionary, to)
        row = dictionary.basis[int(kind[1:])]
        return x + ((to - x) @ row)[..., None] * row

    def first_part(dictionary: Rotated, x: Tensor) -> Tensor:
        return dictionary.decode(dictionary.encode(x))

    of = {FIRST: first, SECOND: second}
    for node, value in zip(found.nodes, np.asarray(found.value), strict=True):
        site, _, kind = node.rpartition(".")
        put = moved(site, of[site], kind, clean[site], other[site])
        expected = task.metric(model.logits(task.clean, edits=[replace(site, put)])) - base
        assert value == pytest.approx(float(expected.mean()), abs=1e-10)
    assert any(v != LOGITS for _, v in found.edges)
    for (u, v), effect in zip(found.edges, found.edge_effect, strict=True):
        site, _, kind = u.rpartition(".")
        put = moved(site, of[site], kind, clean[site], other[site])
        if v == LOGITS:
            edits = [replace(site, put)] + ([replace(SECOND, clean[SECOND])] if site == FIRST else [])
        else:
            there = model.capture(task.clean, SECOND, edits=[replace(site, put)])[SECOND]
            after = moved(SECOND, second, v.rpartition(".")[2], clean[SECOND], there)
            edits = [replace(SECOND, after)]
        expected = task.metric(model.logits(task.clean, edits=edits)) - base
        assert effect == pytest.approx(float(expected.mean()), abs=1e-10), (u, v)
        if v == LOGITS and site == FIRST:
            assert abs(effect) < 1e-12  # all of the stream passes the second place


def test_a_planted_latent_is_found_and_an_idle_one_is_not() -> None:
    net, task = toy(seed=5), random_task(4, 5, seed=5)
    model = interp.load(net)
    with torch.no_grad():
        net.unembed.weight[:, 0] = 0  # nothing reads feature 0
    d = Rotated(16)
    d.basis = torch.eye(16, dtype=torch.float64)
    found = circuits.feature_circuit(model, task, {SECOND: d}, n_nodes=16)
    assert found.scores[SECOND][0] == 0
    assert f"{SECOND}.f0" not in found.nodes
    assert len(found.nodes) == 15
    assert f"{SECOND}.error" not in found.nodes  # nothing is left over


def test_all_nodes_keep_everything_and_a_dictionary_that_says_nothing_leaves_it_to_the_errors(asked) -> None:
    model, task = asked
    whole = {FIRST: Rotated(16), SECOND: Rotated(16, seed=1)}
    graph = circuits.feature_circuit(model, task, whole, n_nodes=4, n_edges=4)
    found = circuits.feature_faithfulness(model, task, whole, graph)
    assert np.asarray(found.value)[-1] == pytest.approx(1.0, abs=1e-9)
    assert found.without_errors == pytest.approx(1.0, abs=1e-9)
    assert found.control[:, -1] == pytest.approx(1.0, abs=1e-9)

    class Mute(Rotated):
        def decode(self, codes: Tensor) -> Tensor:
            return 0 * codes @ self.basis

    silent = {SECOND: Mute(16)}
    graph = circuits.feature_circuit(model, task, silent, n_nodes=4)
    assert graph.nodes == (f"{SECOND}.error",)
    assert circuits.feature_faithfulness(model, task, silent, graph).without_errors == pytest.approx(
        0, abs=1e-9
    )


def test_a_transcoder_stands_for_its_module(asked) -> None:
    model, task = asked
    net = model.module
    read, write = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"

    class Exact:
        """The MLP itself: its neurons are the latents."""

        def encode(self, x: Tensor) -> Tensor:
            return torch.relu(x @ net.blocks[0].mlp.up.weight.T)

        def decode(self, codes: Tensor) -> Tensor:
            return codes @ net.blocks[0].mlp.down.weight.T

    places = places_of(model, {(read, write): Exact()})
    (codes,) = codes_of(model, task.clean, places)
    assert float(codes.error.abs().max()) < 1e-12
    found = circuits.feature_circuit(model, task, {(read, write): Exact()}, n_nodes=5, n_edges=5)
    clean, other = (model.capture(t, "blocks.0.mlp.hook_post") for t in (task.clean, task.corrupted))
    site = "blocks.0.mlp.hook_post"
    for node, value in zip(found.nodes, np.asarray(found.value), strict=True):
        put = clean[site].clone()
        j = int(node.rpartition(".f")[2])
        put[..., j] = other[site][..., j]
        expected = task.metric(model.logits(task.clean, edits=[replace(site, put)]))
        expected = expected - task.metric(model.logits(task.clean))
        assert value == pytest.approx(float(expected.mean()), abs=1e-10)


def test_neurons_are_nodes_with_measured_edges_and_no_error(asked) -> None:
    model, task = asked
    sites = ["blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"]
    found = circuits.feature_circuit(
        model, task, {site: circuits.Neurons() for site in sites}, n_nodes=10, n_edges=40
    )
    assert not any(node.endswith("error") for node in found.nodes)
    clean = model.capture(task.clean, sites)
    other = model.capture(task.corrupted, sites)
    base = task.metric(model.logits(task.clean))
    u, v = next((u, v) for u, v in found.edges if v.startswith(sites[1]))
    i, j = (int(node.rpartition(".f")[2]) for node in (u, v))
    put = clean[sites[0]].clone()
    put[..., i] = other[sites[0]][..., i]
    there = model.capture(task.clean, sites[1], edits=[replace(sites[0], put)])[sites[1]]
    after = clean[sites[1]].clone()
    after[..., j] = there[..., j]
    expected = float((task.metric(model.logits(task.clean, edits=[replace(sites[1], after)])) - base).mean())
    assert found.edge_effect[found.edges.index((u, v))] == pytest.approx(expected, abs=1e-10)


def test_groups_add_their_edges_and_the_export_has_no_dangling_links(asked, tmp_path) -> None:
    model, task = asked
    dictionaries = {FIRST: Rotated(16, keep=6, seed=1), SECOND: Rotated(16, keep=7, seed=2)}
    found = circuits.feature_circuit(model, task, dictionaries, n_nodes=8, n_edges=40)
    a = [node for node in found.nodes if node.startswith(FIRST)]
    frame = found.supernodes({"early": a}).set_index(["source", "destination"])["effect"]
    later = next(v for u, v in found.edges if u in a and v != LOGITS)
    expected = sum(
        e for (u, v), e in zip(found.edges, found.edge_effect, strict=True) if u in a and v == later
    )
    assert frame["early", later] == pytest.approx(expected)
    with pytest.raises(InputError, match="in two groups"):
        found.supernodes({"x": a[:1], "y": a[:1]})
    written = json.loads(found.to_neuronpedia(tmp_path / "g.json").read_text())
    ids = [node["node_id"] for node in written["nodes"]]
    assert len(set(ids)) == len(ids)
    assert all(link[end] in ids for link in written["links"] for end in ("source", "target"))
    assert circuits.FeatureGraph.load(found.save(tmp_path / "g.safetensors")).nodes == found.nodes


def test_a_feature_circuit_is_told_on_the_page_of_any_circuit(asked, tmp_path) -> None:
    model, task = asked
    dictionaries = {FIRST: Rotated(16, keep=6, seed=1), SECOND: Rotated(16, keep=7, seed=2)}
    graph = circuits.feature_circuit(model, task, dictionaries, n_nodes=8, n_edges=30)
    found = circuits.feature_faithfulness(model, task, dictionaries, graph)
    page = circuits.feature_report(model, task, graph, found, out=tmp_path / "f.html")
    held = json.loads(page.with_suffix(".json").read_text())["graph"]
    named = [
        (s, d) for d, n in zip(held["destinations"], held["reads"], strict=True) for s in held["sources"][:n]
    ]
    drawn = {named[e]: held["scores"][e] for e in held["chosen"]}
    assert drawn == dict(zip(graph.edges, graph.edge_effect.tolist(), strict=True))


def test_what_cannot_be_asked_is_named(asked) -> None:
    model, task = asked
    with pytest.raises(InputError, match="there are no dictionaries"):
        circuits.feature_circuit(model, task, {})
    with pytest.raises(InputError, match="does not take rows of 16 features"):
        circuits.feature_circuit(model, task, {FIRST: Rotated(12)})
    with pytest.raises(InputError, match="is asked a Task; got tuple"):
        circuits.feature_circuit(model, (1, 2), {FIRST: Rotated(16)})
    graph = circuits.feature_circuit(model, task, {FIRST: Rotated(16)}, n_nodes=2, n_edges=2)
    with pytest.raises(InputError, match="was found with dictionaries at"):
        circuits.feature_faithfulness(model, task, {SECOND: Rotated(16)}, graph)
    with pytest.raises(InputError, match="no node 'x'"):
        graph.score("x")
