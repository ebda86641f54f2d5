"""The methods against planted truth, and the exact engine against the oracle that runs explicit edge sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuits
import interp
from interp.toys import planted
from tests import oracles


def asked(name: str, n: int = 12):
    circuit = planted(name)
    return circuit, interp.load(circuit.module), circuit.task(n, seed=1)


@pytest.mark.parametrize("name", ["previous", "induction", "two-hop"])
@pytest.mark.parametrize("method", ["exact", "eap-ig"])
def test_where_nothing_is_redundant_true_edges_score_above_all_others(name: str, method: str) -> None:
    circuit, model, task = asked(name)
    graph = circuits.attribute(model, task, method=method, steps=20)
    # edges that carry positions or constants are alike in both runs: no comparison of runs can find them
    found = circuits.compare(graph, circuit.graph, without=[str(edge) for edge in circuit.graph.still])
    assert found.value == pytest.approx(1.0)


def test_random_scores_tell_nothing() -> None:
    circuit, model, _ = asked("two-hop")
    graph = circuits.Graph.from_model(model)
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(200):
        scored = circuits.Graph(layout=graph.layout, scores=rng.normal(size=graph.n_edges), n=1)
        areas.append(circuits.compare(scored, circuit.graph).value)
    # four standard errors of the mean of 200 areas
    assert abs(np.mean(areas) - 0.5) < 4 * np.std(areas) / 200**0.5


def test_a_set_of_edges_patched_at_once_is_the_run_with_those_terms_exchanged() -> None:
    circuit, model, task = asked("two-hop", 6)
    module = circuit.module.double()
    model = interp.load(module)
    names = oracles.all_edges(circuit.module.shape.n_layers, circuit.module.shape.n_heads)
    rng = np.random.default_rng(1)
    sets = [sorted(rng.choice(names, size=k, replace=False).tolist()) for k in (1, 3, 10, 40)]
    got = circuits.path_patch(model, task, [*sets, names])
    every = got.patched[-1]
    corrupted = task.metric(model.logits(task.corrupted))
    np.testing.assert_allclose(every, corrupted.numpy(), atol=1e-9)
    whole = task.metric(model.logits(task.clean))
    np.testing.assert_allclose(got.clean, whole.numpy(), atol=1e-9)
    single = circuits.edge_effects(model, task, edges=[graph_index(model, sets[0][0])])
    effect = single.exact[graph_index(model, sets[0][0])]
    assert effect == pytest.approx(float(np.mean(got.patched[0] - got.clean)), abs=1e-9)


def graph_index(model, name: str) -> int:
    return circuits.Graph.from_model(model).layout.edge(name)


def test_the_whole_graph_is_faithful_and_none_of_it_is_not() -> None:
    _, model, task = asked("two-hop")
    graph = circuits.attribute(model, task, method="exact")
    found = circuits.evaluate(model, graph, task)
    assert found.value[-1] == pytest.approx(1.0, abs=1e-5)
    size = found.smallest(0.9)
    assert size is not None
    assert size < graph.n_edges / 2
    random = np.asarray(found.control).mean(0)
    at = list(found.sizes).index(size)
    assert random[at] < 0.5  # a random circuit of that size does nothing


@pytest.mark.parametrize("window", [4, 64])
def test_pruning_in_batches_decides_as_pruning_one_by_one(window: int) -> None:
    circuit, model, task = asked("two-hop", 6)
    one = circuits.acdc(model, task, tau=0.05, measure="metric", window=1)
    many = circuits.acdc(model, task, tau=0.05, measure="metric", window=window)
    assert one.circuit() == many.circuit()
    moved = {str(edge) for edge in circuit.graph.edges} - {str(edge) for edge in circuit.graph.still}
    assert moved <= set(many.circuit())
    assert torch.isfinite(torch.tensor(many.scores)).all()
