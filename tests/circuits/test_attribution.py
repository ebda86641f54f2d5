"""Attribution: equal to its definition, to slopes of the patched network, to exact effects where all is linear."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuits
import interp
from circuits.exact import benches
from circuits.stream import Stream
from interp import Tokens
from interp.errors import InputError, ModelError
from interp.toys import Transformer, planted
from interp.toys.networks import Shape
from tests import oracles
from tests.models import ids, loaded, random_model


def difference(logits):
    return logits[:, -1, 3] - logits[:, -1, 4]


def toy(*, seed: int = 0, **shape):
    shape = {"d_vocab": 11, "n_ctx": 8, "n_layers": 2, "d_model": 12, "n_heads": 3, "d_mlp": 16, **shape}
    return Transformer(Shape(**shape), generator=torch.Generator().manual_seed(seed)).double().eval()


def pairs(module, *, rows: int = 4, columns: int = 6):
    high = module.shape.d_vocab
    return [
        torch.randint(0, high, (rows, columns), generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    ]


@pytest.mark.parametrize(
    ("method", "steps", "points"),
    [("eap", 1, [1.0]), ("eap-ig", 4, [0, 0.25, 0.5, 0.75]), ("clean-corrupted", 1, [0.0, 1.0])],
)
def test_scores_equal_their_definition_on_a_graph_built_by_hand(method, steps, points):
    module = toy()
    clean, corrupted = pairs(module)
    graph = circuits.attribute(
        interp.load(module), (clean, corrupted, difference), method=method, steps=steps, keep=True
    )
    names = oracles.all_edges(2, 3)
    want = oracles.edge_scores(module, clean, corrupted, difference, points=points)
    order = [graph.layout.edge(name) for name in names]
    # the same sums in another order, in float64
    np.testing.assert_allclose(graph.examples[:, order], want.numpy(), atol=1e-12, rtol=1e-9)
    np.testing.assert_allclose(graph.scores[order], want.mean(0).numpy(), atol=1e-12, rtol=1e-9)
    np.testing.assert_allclose(graph.variance[order], want.var(0).numpy(), atol=1e-12, rtol=1e-9)


def test_scores_taken_apart_are_slopes_of_the_edge_patched_at_one_position():
    model = interp.load(random_model("gpt2").double(), backend="transformers")
    task = (ids(2, 5), ids(2, 5, seed=1), difference)
    graph = circuits.attribute(model, task, method="eap", positions=True)
    np.testing.assert_allclose(graph.by_position.sum(0), graph.scores, atol=1e-12)
    bench = next(benches(Stream(model), task))
    each, step = torch.eye(graph.n_edges, dtype=torch.bool)[::7], 1e-4
    for position in (1, 4):
        where = torch.zeros(5, dtype=torch.float64)
        where[position] = 1
        ends = [bench.cut(each, weight=sign * step, where=where).mean(1) for sign in (1, -1)]
        slope = ((ends[0] - ends[1]) / (2 * step)).numpy()
        np.testing.assert_allclose(graph.at(position).scores[::7], slope, atol=1e-7)  # step squared, rounding
        assert np.abs(slope).max() > 1e-3
    with pytest.raises(InputError, match="position 5: the prompts have 5, 0-4"):
        graph.at(5)
    with pytest.raises(InputError, match="were not taken apart"):
        graph.at(1).at(0)


@pytest.mark.parametrize("gqa", ["ungrouped", "grouped"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gpt_neox_serial", "llama", "qwen3"])
def test_every_score_is_the_slope_of_the_metric_when_that_edge_is_patched_a_little(family, gqa):
    model = interp.load(random_model(family).double(), backend="transformers")
    task = (ids(2, 5), ids(2, 5, seed=1), difference)
    scores = circuits.attribute(model, task, method="eap", gqa=gqa).scores
    bench = next(benches(Stream(model, gqa=gqa), task))
    # rms norms compute in float32 whatever the model's type: a wider step, and what float32 leaves over it
    rough = family in ("llama", "qwen3")
    step, tolerance = (2e-2, 2e-4) if rough else (1e-3, 1e-8)
    each = torch.eye(len(scores), dtype=torch.bool)

    def slope(width: float):
        ends = [bench.cut(each, weight=sign * width).mean(1) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * width)

    # Richardson: the error of the plain difference is of second order
    extrapolated = (4 * slope(step / 2) - slope(step)) / 3
    np.testing.assert_allclose(scores, extrapolated.numpy(), atol=tolerance)
    assert np.abs(scores).max() > 0.05  # not the agreement of zeros


def test_on_a_linear_network_estimates_equal_exact_effects():
    module = toy(d_mlp=0)
    with (
        torch.no_grad()
    ):  # no query, no preference: every head averages, and the network is linear in its input
        for block in module.blocks:
            block.attn.q.weight.zero_()
    clean, corrupted = pairs(module)
    model, task = interp.load(module), (clean, corrupted, difference)
    exact = circuits.edge_effects(model, task).exact
    for method in ("eap", "eap-ig", "clean-corrupted"):
        found = circuits.attribute(model, task, method=method)
        np.testing.assert_allclose(found.scores, exact, atol=1e-12)
    assert np.abs(exact).max() > 0.01


def test_node_scores_are_attribution_patching():
    model = loaded("gpt2", "transformers")
    clean, corrupted = ids(3), ids(3, seed=1)
    graph = circuits.attribute(model, (clean, corrupted, difference), method="eap")
    site = "blocks.1.attn.hook_result"
    values, slopes = model.gradients(clean, difference, site)
    other = model.capture(corrupted, site)
    want = ((other[site] - values[site]) * slopes[site]).sum((1, 3)).mean(0)
    got = [graph.node_scores()[f"a1.h{head}"] for head in range(4)]
    np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-5)  # float32


@pytest.mark.parametrize("method", ["eap", "eap-ig", "eap-ig-activations"])
def test_batches_change_nothing(method):
    circuit = planted("two-hop")
    model, trials = interp.load(circuit.module), circuit.task(7)
    whole, parts = (circuits.attribute(model, trials, method=method, batch_size=size) for size in (None, 3))
    np.testing.assert_allclose(whole.scores, parts.scores, atol=1e-5)  # float32
    np.testing.assert_allclose(whole.variance, parts.variance, atol=1e-4)
    assert whole.n == parts.n == 7


def test_grouped_keys_and_values_get_the_sum_of_their_query_heads():
    model = loaded("llama", "transformers")
    task = (ids(3), ids(3, seed=1), difference)
    fine, coarse = (
        circuits.attribute(model, task, method="eap", gqa=gqa) for gqa in ("ungrouped", "grouped")
    )
    for port in "kv":
        members = sum(fine.score(f"a0.h1->a1.h{head}<{port}>") for head in (2, 3))
        assert coarse.score(f"a0.h1->a1.kv1<{port}>") == pytest.approx(members, abs=1e-6)
    assert coarse.score("a0.h1->a1.h3<q>") == pytest.approx(fine.score("a0.h1->a1.h3<q>"), abs=1e-6)


def test_padding_on_the_right_changes_no_score():
    model = loaded("llama", "transformers")
    clean, corrupted = ids(3, 6), ids(3, 6, seed=1)

    def task(width: int):
        tokens = []
        for grid in (clean, corrupted):
            rows = torch.nn.functional.pad(grid, (0, width - 6), value=1)
            tokens.append(Tokens(ids=rows, mask=torch.arange(width).expand(3, -1) < 6))
        return (*tokens, lambda logits: logits[:, 5, 3] - logits[:, 5, 4])

    plain, padded = (circuits.attribute(model, task(width), method="eap-ig").scores for width in (6, 9))
    np.testing.assert_allclose(plain, padded, atol=1e-6)


def test_zero_and_mean_ablation_replace_the_other_term():
    module = toy()
    clean, corrupted = pairs(module)
    model, task = interp.load(module), (clean, corrupted, difference)
    zero = circuits.edge_effects(model, task, ablation="zero")
    for name in ("input->a0.h1<k>", "a0.h2->m1", "m0->logits"):
        left = [edge for edge in oracles.all_edges(2, 3) if edge != name]
        want = difference(oracles.edge_forward(module, clean, left)) - difference(module(clean))
        assert zero.score(name) == pytest.approx(want.mean().item(), abs=1e-12)
    mean = circuits.attribute(model, task, method="eap", ablation="mean", keep=True)
    # what every example's term differs from is the mean of all: at the logits the differences cancel
    gradient_is_constant = [mean.layout.edge(f"{s}->logits") for s in mean.layout.sources]
    np.testing.assert_allclose(mean.scores[gradient_is_constant], 0, atol=1e-12)
    assert np.abs(mean.examples[:, gradient_is_constant]).max() > 0.01


def test_parameters_and_their_gradients_are_left_as_they_were():
    module = random_model("gpt2")
    asking = [p.requires_grad for p in module.parameters()]
    model = interp.load(module, backend="transformers")
    before = model.fingerprint()
    circuits.attribute(model, (ids(2), ids(2, seed=1), difference))
    assert [p.requires_grad for p in module.parameters()] == asking
    assert all(p.grad is None for p in module.parameters())
    assert model.fingerprint() == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_a_metric_without_slope_is_refused_with_the_reason():
    model = loaded("gpt2", "transformers")
    clean, corrupted = ids(2), ids(2, seed=1)
    own = model.logits(clean)[:, -1].log_softmax(-1)

    def divergence(logits):
        return (own.exp() * (own - logits[:, -1].log_softmax(-1))).sum(-1)

    with pytest.raises(InputError, match="no slope at the clean run.*divergence"):
        circuits.attribute(model, (clean, corrupted, divergence), method="eap")
    assert np.abs(circuits.attribute(model, (clean, corrupted, divergence), method="exact").scores).max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "eapig"}, "did you mean 'eap-ig'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"ablation": "nothing"}, "one of .*corrupted"),
        ({"positions": True, "method": "exact"}, "path_patch.* measures an edge there"),
        ({"ablation": "zero", "method": "eap-ig"}, "interpolates between"),
        ({"budget": 1e3}, "would take about .* GB; budget"),
        ({"batch_size": 1}, "cannot be split into batches"),
    ],
)
def test_bad_options_are_named(change, message):
    task = (ids(2), ids(2, seed=1), difference)
    with pytest.raises(InputError, match=message):
        circuits.attribute(loaded("gpt2", "transformers"), task, **change)


def test_pairs_that_do_not_line_up_are_refused():
    model = loaded("gpt2", "transformers")
    with pytest.raises(InputError, match="line up token by token"):
        circuits.attribute(model, (ids(2, 7), ids(2, 6), difference))
    with pytest.raises(InputError, match="one number per example"):
        circuits.attribute(model, (ids(2), ids(2), lambda logits: logits))


@pytest.mark.parametrize(
    ("family", "message"),
    [("bert", "post-norm"), ("gemma2", "sandwich-norm"), ("mamba", "mixer"), ("olmo", "anatomy")],
)
def test_a_stream_that_is_no_plain_sum_is_refused_by_name(family, message):
    with pytest.raises(ModelError, match=message):
        circuits.attribute(loaded(family, "transformers"), (ids(2), ids(2), difference))


def test_a_model_is_proved_once_and_again_when_its_weights_change(monkeypatch):
    from circuits.stream import Stream

    proofs = []
    prove = Stream._prove
    monkeypatch.setattr(Stream, "_prove", lambda self: (proofs.append(self.layout.gqa), prove(self)))
    model = interp.load(toy())
    Stream(model)
    Stream(model)
    assert len(proofs) == 1
    with torch.no_grad():
        next(model.module.parameters()).mul_(1.5)
    Stream(model)
    assert len(proofs) == 2
