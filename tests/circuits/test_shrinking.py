"""Shrinking: the smallest circuit that was asked for, checked against every size."""

from __future__ import annotations

import numpy as np
import pytest

import circuits
import interp
from interp.errors import InputError
from interp.toys import planted


@pytest.mark.parametrize("by", ["abs", "signed"])
def test_the_size_found_is_enough_and_one_edge_fewer_is_not(by):
    circuit = planted("two-hop")
    model, trials = interp.load(circuit.module), circuit.task(4)
    graph = circuits.attribute(model, trials, method="eap-ig", steps=5)
    every = circuits.evaluate(model, graph, trials, sizes=range(1, 111), by=by, n_random=0).value
    for least in (0.5, 0.9):
        small = circuits.shrink(model, graph, trials, least=least, by=by)
        found = small.provenance["shrunk"]
        size = found["size"]
        assert every[size - 1] >= least
        assert size == 1 or every[size - 2] < least
        for k, share in found["tried"]:
            assert share == pytest.approx(every[k - 1], abs=1e-5)
            assert k < size or share >= least
        np.testing.assert_array_equal(small.chosen, graph.top(size, by=by).chosen)


def test_scores_that_put_the_circuit_last_need_the_whole_network():
    circuit = planted("previous")
    model, trials = interp.load(circuit.module), circuit.task(8)
    graph = circuits.Graph.from_model(model)
    scores = np.ones(graph.n_edges)
    scores[graph.layout.edge("a0.h0->logits")] = 0.5
    small = circuits.shrink(model, circuits.Graph(layout=graph.layout, scores=scores), trials)
    assert small.provenance["shrunk"]["size"] == graph.n_edges
    with pytest.raises(InputError, match="lies in"):
        circuits.shrink(model, small, trials, least=1.5)
