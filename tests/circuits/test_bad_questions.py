"""Questions that cannot be answered are refused by name, and before any work where that can be known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import circuits
from circuits.stream import Stream
from interp import Tokens
from interp.errors import InputError, ModelError
from interp.tasks import Task
from tests.models import ids, loaded


def difference(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 3] - logits[:, -1, 4]


CALLS = {
    "attribute": lambda model, task, **options: circuits.attribute(model, task, **options),
    "edge_effects": lambda model, task, **options: circuits.edge_effects(model, task, edges=[0], **options),
    "path_patch": lambda model, task, **options: circuits.path_patch(
        model, task, ["input->a0.h0<q>"], **options
    ),
    "acdc": lambda model, task, **options: circuits.acdc(model, task, tau=0.1, **options),
    "evaluate": lambda model, task, **options: circuits.evaluate(
        model, _scored(model), task, n_random=0, **options
    ),
}


def _scored(model) -> circuits.Graph:
    graph = circuits.Graph.from_model(model)
    return replace(graph, scores=np.arange(graph.n_edges, dtype=float))


def written(**change) -> Task:
    held = {
        "name": "t",
        "clean": Tokens.full(ids(2)),
        "corrupted": Tokens.full(ids(2, seed=1)),
        "answers": torch.tensor([[3], [4]]),
        "wrong": torch.tensor([[5], [6]]),
        "measure": "logit_difference",
        "facts": ({}, {}),
        "texts": (("", ""),) * 2,
    }
    return Task(**{**held, **change})


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_does_not_fit_into_memory_is_said_before_any_work(call, monkeypatch) -> None:
    model = loaded("gpt2", "transformers")
    Stream(model)  # proved before
    runs: list[str] = []
    monkeypatch.setattr(Stream, "blocks", lambda *args, **options: runs.append("blocks"))
    monkeypatch.setattr(type(model), "run", lambda *args, **options: runs.append("run"))
    with pytest.raises(InputError, match="would take about .* GB; budget is .* GB"):
        call(model, (ids(2), ids(2, seed=1), difference), budget=1e4)
    assert not runs


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_misaligned_pairs_are_named(call) -> None:
    model = loaded("gpt2", "transformers")
    with pytest.raises(InputError, match="line up token by token"):
        call(model, (ids(2, 7), ids(2, 6), difference))
    rows = ids(2, 6)
    masks = torch.ones(2, 6, dtype=torch.bool), torch.arange(6).expand(2, -1) < torch.tensor([[6], [5]])
    pair = [Tokens(ids=rows, mask=mask) for mask in masks]
    with pytest.raises(InputError, match="pair 1 has 6 clean and 5 corrupted tokens"):
        call(model, (*pair, difference))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_models_whose_stream_is_no_sum_are_named(call) -> None:
    if call is CALLS["evaluate"]:
        with pytest.raises(ModelError, match="post-norm"):
            circuits.Graph.from_model(loaded("bert", "transformers"))
        return
    with pytest.raises(ModelError, match="post-norm"):
        call(loaded("bert", "transformers"), (ids(2), ids(2, seed=1), difference))


def test_tied_answers_are_named_where_they_are_written_and_where_they_leave_nothing() -> None:
    with pytest.raises(InputError, match="pair 1 has an answer that is also a wrong one"):
        written(wrong=torch.tensor([[5], [4]]))

    def tied(logits):
        return logits[:, -1, 3] - logits[:, -1, 3]

    model = loaded("gpt2", "transformers")
    task = (ids(2), ids(2, seed=1), tied)
    with pytest.raises(InputError, match="no slope at the clean run"):
        circuits.attribute(model, task, method="eap")
    with pytest.raises(InputError, match="no behaviour for a circuit to keep"):
        circuits.evaluate(model, _scored(model), task, n_random=0)


def test_a_divergence_from_the_clean_run_is_explained_for_every_method_that_looks_there_only() -> None:
    model, clean = loaded("gpt2", "transformers"), ids(2)
    own = model.logits(clean)[:, -1].log_softmax(-1)

    def divergence(logits):
        return (own.exp() * (own - logits[:, -1].log_softmax(-1))).sum(-1)

    task = (clean, ids(2, seed=1), divergence)
    with pytest.raises(InputError, match="smallest there, so its gradient is zero.*method='eap-ig'"):
        circuits.attribute(model, task, method="eap")
    assert np.abs(circuits.attribute(model, task, method="eap-ig").require_scores()).max() > 0


def test_a_missing_reference_is_named() -> None:
    model = loaded("gpt2", "transformers")
    with pytest.raises(InputError, match="no reference circuit: the task has none"):
        circuits.compare(_scored(model), written().reference)


def test_a_task_is_cut_into_batches_that_fit() -> None:
    model, task = loaded("gpt2", "transformers"), written()
    whole = circuits.edge_effects(model, task, edges=["input->a0.h0<q>", "m1->logits"])
    for budget in (2e9, 6e5):
        cut = circuits.edge_effects(model, task, edges=["input->a0.h0<q>", "m1->logits"], budget=budget)
        np.testing.assert_allclose(cut.exact, whole.exact, atol=1e-6)
    with pytest.raises(InputError, match="cannot be split into batches"):
        circuits.edge_effects(model, (task.clean, task.corrupted, difference), edges=[0], batch_size=1)
