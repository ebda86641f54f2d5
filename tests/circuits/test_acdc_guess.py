"""ACDC's guess of which edges stay costs passes where it is wrong, and never a decision."""

from __future__ import annotations

import numpy as np
import pytest

import circuits
import interp
from circuits import pruning
from interp.toys import planted


@pytest.mark.parametrize("measure", ["kl", "metric"])
def test_a_good_a_bad_and_no_guess_decide_alike(measure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = planted("two-hop")
    model, trials = interp.load(circuit.module), circuit.task(6)
    search = {"tau": 0.05, "measure": measure}
    alone = circuits.acdc(model, trials, window=1, **search)
    guessed = circuits.acdc(model, trials, window=16, **search)
    order = np.random.default_rng(0)
    monkeypatch.setattr(pruning._Judge, "guess", lambda self: order.random(alone.n_edges))
    misled = circuits.acdc(model, trials, window=16, **search)
    for graph in (guessed, misled):
        np.testing.assert_array_equal(graph.chosen, alone.chosen)
        np.testing.assert_allclose(graph.scores, alone.scores, atol=1e-4)  # float32, other batches
    assert 0 < alone.chosen.sum() < alone.n_edges
    assert alone.provenance["passes"] <= guessed.provenance["passes"] <= misled.provenance["passes"]
