"""Masks: the blended pass is the patched one at its ends, gates have the right moments, planted truth is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuits
import interp
from circuits.blend import blended
from circuits.exact import benches
from circuits.layout import GQA
from circuits.masks import Concrete, Uniform
from circuits.stream import Stream
from interp.errors import InputError
from interp.toys import planted
from tests.models import ids, random_model


def a_bench(family: str, gqa: GQA = "ungrouped"):
    model = interp.load(random_model(family).double(), backend="transformers")
    clean, corrupted = ids(2, 6, seed=0), ids(2, 6, seed=1)
    stream = Stream(model, gqa=gqa)
    return stream, next(
        benches(stream, (clean, corrupted, lambda logits: logits[:, -1, 3] - logits[:, -1, 5]))
    )


@pytest.mark.parametrize(
    ("family", "gqa"),
    [("gpt2", "ungrouped"), ("gpt_neox", "ungrouped"), ("llama", "ungrouped"), ("llama", "grouped")],
)
def test_with_shares_of_0_and_1_blending_is_patching(family, gqa):
    stream, bench = a_bench(family, gqa)
    chances = torch.tensor([0.0, 0.1, 0.5, 1.0])[:, None]
    cut = torch.rand(4, stream.layout.n_edges, generator=torch.Generator().manual_seed(0)) < chances
    want = bench.cut(cut)
    for mask, scores in zip(cut, want, strict=True):
        with torch.no_grad():
            logits = blended(bench, mask[None].double(), position=None)
        # the same sums in another order, float64; rms norms compute in float32 whatever the model's type
        tolerance = 1e-5 if family == "llama" else 1e-10
        torch.testing.assert_close(bench.question.score(logits), scores, atol=tolerance, rtol=0)


def test_rows_are_cut_by_shares_of_their_own_and_slopes_are_those_of_the_shares():
    stream, bench = a_bench("gpt2")
    share = torch.rand(2, stream.layout.n_edges, generator=torch.Generator().manual_seed(0)).double()

    def scores(share):
        return bench.question.score(blended(bench, share, position=None))

    with torch.no_grad():
        torch.testing.assert_close(scores(share)[1:], scores(share[1:].expand(2, -1))[1:], atol=1e-10, rtol=0)
    share.requires_grad_(True)
    (slope,) = torch.autograd.grad(scores(share).sum(), share)
    for edge in range(0, stream.layout.n_edges, 7):
        step = torch.zeros_like(share)
        step[0, edge] = 1e-5
        with torch.no_grad():
            central = (scores(share + step)[0] - scores(share - step)[0]) / 2e-5
        torch.testing.assert_close(slope[0, edge], central, atol=1e-7, rtol=1e-5)


def test_hard_concrete_gates_are_open_as_often_as_the_formula_says():
    logits = torch.tensor([-3.0, -0.5, 0.0, 1.0, 4.0], dtype=torch.float64)
    drawn = Concrete().draw(logits, 40_000, torch.Generator().manual_seed(0))
    share = (drawn > 0).double().mean(0)
    # 4 standard errors of a share of 40,000 draws
    torch.testing.assert_close(share, Concrete().open(logits), atol=4 * 0.5 / 200, rtol=0)
    assert drawn.min() == 0
    assert drawn.max() == 1


def test_uniform_gradient_sampling_is_unbiased_for_the_expected_loss():
    """Of a loss linear in each gate the expectation over independent gates is the loss at their means."""
    logits = torch.tensor([-1.0, 0.3, 1.5], dtype=torch.float64, requires_grad=True)
    n = 200_000
    gate = Uniform().draw(logits, n, torch.Generator().manual_seed(0))
    p = torch.sigmoid(logits)

    def loss(g):
        return 3 * g[..., 0] * g[..., 1] - 2 * g[..., 1] * g[..., 2] + g[..., 0] * g[..., 1] * g[..., 2]

    (estimate,) = torch.autograd.grad(loss(gate).sum() / n, logits)
    (want,) = torch.autograd.grad(loss(p), logits)
    torch.testing.assert_close(gate.detach().mean(0), p.detach(), atol=5e-3, rtol=0)
    # slopes lie within 3, so 4 standard errors are below 4 x 3 x 0.5 / sqrt(n)
    torch.testing.assert_close(estimate, want, atol=0.014, rtol=0)


@pytest.mark.parametrize(
    ("name", "gates"),
    [
        ("distractor", "hard-concrete"),
        ("previous", "uniform"),
        *(
            pytest.param(name, gates, marks=pytest.mark.slow)
            for name in ("induction", "two-hop")
            for gates in ("hard-concrete", "uniform")
        ),
    ],
)
def test_masks_keep_planted_edges_and_no_others(name, gates):
    circuit = planted(name)
    model, trials = interp.load(circuit.module), circuit.task(16)
    graph = circuits.learn_mask(model, trials, sparsity=0.02, gates=gates, steps=150, lr=0.2)
    truth = {str(edge) for edge in circuit.graph.edges}
    moving = truth - {str(edge) for edge in circuit.graph.still}
    assert circuits.compare(graph, circuit.graph, without=truth - moving).value == 1.0
    assert set(graph.circuit()) == moving
    found = circuits.path_patch(model, trials, [name for name in graph.edges if name not in moving])
    np.testing.assert_allclose(found.patched[0], found.clean, atol=1e-4)


@pytest.mark.slow
def test_of_two_paths_that_back_each_other_up_a_mask_may_keep_one():
    circuit = planted("backup")
    model, trials = interp.load(circuit.module), circuit.task(16)
    truth = {str(edge) for edge in circuit.graph.edges}
    dear = circuits.learn_mask(model, trials, sparsity=0.2, steps=200, lr=0.2)
    assert set(dear.circuit()) < truth
    found = circuits.path_patch(
        model, trials, [name for name in dear.edges if name not in set(dear.circuit())]
    )
    np.testing.assert_allclose(found.patched[0], found.clean, atol=1e-3)


def test_where_nothing_is_at_stake_nothing_is_kept():
    """Clean prompts against themselves: no edge saves anything, so that a price on edges closes all gates."""
    circuit = planted("two-hop")
    model, trials = interp.load(circuit.module), circuit.task(8)
    graph = circuits.learn_mask(
        model, (trials.clean, trials.clean, trials.metric), sparsity=0.02, steps=40, lr=0.4
    )
    assert not graph.circuit()
    assert -graph.scores.min() < 0.05


def test_one_seed_gives_one_mask_and_parameters_ask_for_what_they_asked():
    circuit = planted("previous")
    model, trials = interp.load(circuit.module), circuit.task(4)
    asking = [p.requires_grad for p in model.module.parameters()]
    a, b, c = (
        circuits.learn_mask(model, trials, sparsity=0.02, steps=3, seed=seed).scores for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert [p.requires_grad for p in model.module.parameters()] == asking
    assert all(p.grad is None for p in model.module.parameters())


def test_impossible_masks_are_refused():
    circuit = planted("previous")
    model, trials = interp.load(circuit.module), circuit.task(2)
    with pytest.raises(InputError, match="must be positive"):
        circuits.learn_mask(model, trials, sparsity=0)
    with pytest.raises(InputError, match="did you mean 'uniform'"):
        circuits.learn_mask(model, trials, sparsity=1, gates="unifrom")
    with pytest.raises(InputError, match="it is one of"):
        circuits.learn_mask(model, trials, sparsity=1, measure="loss")
