"""Edge scores equal those of the published package on the same random GPT-2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import circuits
import interp
from benchmarks.peers.edge_scores import STEPS, difference, network, prompts

RECORD = json.loads((Path(__file__).parents[1] / "data/peers/edge_scores.json").read_text())
TOLERANCE = 1e-4
"""Of the largest score: float32 on both sides, sums in another order."""


def task():
    clean, corrupted, labels = prompts()
    return interp.Tokens.full(clean), interp.Tokens.full(corrupted), lambda logits: difference(logits, labels)


def published(graph: circuits.Graph, method: str) -> np.ndarray:
    scores = RECORD["scores"][method]
    assert set(scores) == set(graph.edges)
    return np.array([scores[name] for name in graph.edges])


def assert_equal(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * np.abs(theirs).max(), rtol=0)
    assert np.abs(theirs).max() > 0.1  # not the agreement of zeros


@pytest.mark.parametrize(
    ("method", "theirs"),
    [
        ("eap", "EAP"),
        ("clean-corrupted", "clean-corrupted"),
        ("eap-ig-activations", "EAP-IG-activations"),
    ],
)
def test_scores_equal_the_published_packages(method: str, theirs: str) -> None:
    graph = circuits.attribute(
        interp.load(network(), backend="transformers"), task(), method=method, steps=STEPS
    )
    assert_equal(graph.require_scores(), published(graph, theirs))


def test_integrated_gradients_equal_the_published_ones_up_to_their_last_point() -> None:
    # the published release sums the points 1/m ... 1, ours and the paper's code 0 ... (m-1)/m: they differ by the
    # gradients at the two ends, which two other methods give
    model = interp.load(network(), backend="transformers")
    left, eap, ends = (
        circuits.attribute(model, task(), method=method, steps=STEPS).require_scores()
        for method in ("eap-ig", "eap", "clean-corrupted")
    )
    theirs = published(circuits.Graph.from_model(model), "EAP-IG-inputs")
    assert_equal(left + 2 / STEPS * (eap - ends), theirs)
    assert np.abs(left - theirs).max() > 0.1 * np.abs(theirs).max()  # the end points matter


def test_information_flow_routes_equal_the_published_ones() -> None:
    # without position embeddings, which the published input node does not hold
    model = interp.load(network(positions=False), backend="transformers")
    graph = circuits.attribute(model, task(), method="ifr")
    assert_equal(-graph.require_scores(), published(graph, "information-flow-routes"))
    into = graph.layout.destination == len(graph.layout.destinations) - 1
    assert -graph.require_scores()[into].sum() == pytest.approx(1)  # shares of one stream
