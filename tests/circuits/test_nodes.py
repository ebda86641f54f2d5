"""Node scores: attribution patching by its definition, its corrections exact where they must be, latents complete."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import circuits
import interp
from circuits import node_scores, patch_sweep
from interp.errors import InputError, ModelError
from interp.tasks import Task
from interp.toys import Shape, Transformer
from tests.models import ids, loaded, random_model


def difference(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 3] - logits[:, -1, 7]


def network(*, d_mlp: int = 24, n_layers: int = 2, seed: int = 0) -> Transformer:
    shape = Shape(d_vocab=10, n_ctx=8, n_layers=n_layers, d_model=16, n_heads=4, d_mlp=d_mlp)
    module = Transformer(shape, generator=torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        for block in module.blocks:  # attention that chooses: linearising the softmax goes wrong
            block.attn.q.weight.mul_(3)
    return module


def pairs(n: int = 4, length: int = 5) -> list[torch.Tensor]:
    return [torch.randint(10, (n, length), generator=torch.Generator().manual_seed(s)) for s in (1, 2)]


def test_plain_attribution_patching_is_the_sum_of_the_edges_that_leave_a_node() -> None:
    model = interp.load(network())
    task = (*pairs(), difference)
    found = node_scores(model, task, method="atp")
    graph = circuits.attribute(model, task, method="eap")
    want = graph.node_scores()
    assert found.nodes == tuple(name for name in graph.layout.sources if name != "input")
    np.testing.assert_allclose(found.value, [want[name] for name in found.nodes], atol=1e-12)
    np.testing.assert_allclose(found.value, found.examples.mean(0), atol=1e-14)
    np.testing.assert_allclose(found.variance, found.examples.var(0, ddof=1), atol=1e-14)
    by_position = node_scores(model, task, method="atp", positions=True)
    assert by_position.axes == ("node", "position")
    np.testing.assert_allclose(np.asarray(by_position.value).sum(1), found.value, atol=1e-12)


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("kind", ["q", "k"])
def test_the_recomputed_softmax_is_exact_where_only_the_softmax_is_not_linear(
    kind: str, positions: bool
) -> None:
    # one layer of attention and no norm: behind the pattern all is linear
    model = interp.load(network(d_mlp=0, n_layers=1))
    clean, corrupted = pairs()
    sites = f"blocks.0.attn.hook_{kind}"
    exact = patch_sweep(
        model, clean, corrupted, difference, sites=sites, mode="noise", n_draws=10,
        position="each" if positions else None,
    )  # fmt: skip
    effect = (exact.patched - exact.clean).mean(1)
    if positions:
        effect = effect.reshape(4, 5)
    options = {"sites": sites, "positions": positions}
    corrected = node_scores(model, (clean, corrupted, difference), method="atp-qk", **options)
    plain = node_scores(model, (clean, corrupted, difference), method="atp", **options)
    np.testing.assert_allclose(corrected.value, effect, atol=1e-10)
    assert corrected.nodes[1] == f"a0.h1<{kind}>"
    assert np.abs(np.asarray(plain.value) - effect).max() > 0.1 * np.abs(effect).max()


def test_shared_keys_get_the_effect_on_all_their_query_heads() -> None:
    module: Any = random_model("llama").double()
    with torch.no_grad():  # heads that write little: behind the last pattern all is as good as linear
        module.model.layers[2].self_attn.o_proj.weight.mul_(1e-3)
    model = interp.load(module, backend="transformers")
    clean, corrupted = ids(3, 5), ids(3, 5, seed=1)

    def metric(logits):
        return logits[:, -1, 3] - logits[:, -1, 4]

    scores = node_scores(
        model, (clean, corrupted, metric), method="atp-qk", sites="blocks.*.attn.hook_k", positions=True
    )
    assert scores.nodes[:2] == ("a0.kv0<k>", "a0.kv1<k>")
    exact = patch_sweep(
        model,
        clean,
        corrupted,
        metric,
        sites="blocks.2.attn.hook_k",
        position="each",
        mode="noise",
        n_draws=10,
    )
    effect, rows, _ = exact.by_position()
    want = (exact.patched - exact.clean).mean(1).reshape(2, 5)
    got = np.asarray(scores.value)[-2:]
    assert effect.shape == (len(rows), 5)
    np.testing.assert_allclose(got, want, atol=0.02 * np.abs(want).max())


def test_dropping_a_layers_gradient_is_holding_what_it_writes() -> None:
    # by central differences on networks in which one layer's outputs are held at their clean values
    model = interp.load(network())
    clean, corrupted = pairs()
    found = node_scores(model, (clean, corrupted, difference), method="atp*", sites="blocks.*.attn.hook_z")
    step, site = 1e-4, "blocks.0.attn.hook_z"
    outs = model.capture(clean, ["blocks.*.hook_attn_out", "blocks.*.hook_mlp_out"])
    values, other = model.capture(clean, site)[site], model.capture(corrupted, site)[site]
    total = np.zeros((4, 4))
    for layer in (0, 1):
        held = [interp.patch([f"blocks.{layer}.hook_{part}"], outs) for part in ("attn_out", "mlp_out")]
        for head in range(4):
            ends = []
            for sign in (1, -1):
                moved = values.clone()
                moved[:, :, head] += sign * step * (other - values)[:, :, head]
                ends.append(difference(model.logits(clean, edits=[interp.patch(site, moved), *held])))
            total[:, head] += ((ends[0] - ends[1]) / (2 * step)).abs().numpy()
    np.testing.assert_allclose(
        np.asarray(found.value)[:4], total.mean(0), atol=1e-7
    )  # step squared, rounding
    assert total.max() > 1e-3


def test_dropped_gradients_see_what_cancels() -> None:
    # the second layer's MLP takes away what head 0 of the first writes straight to the logits
    module = network(seed=2)
    with torch.no_grad():
        for block in module.blocks:
            block.attn.q.weight.zero_()
            block.mlp.down.weight.zero_()
        module.blocks[1].attn.o.weight.zero_()
        up, down = module.blocks[1].mlp.up.weight, module.blocks[1].mlp.down.weight
        up.zero_()
        up[:16] = torch.eye(16)
        up[16:24] = -torch.eye(16)[:8]  # relu(x) - relu(-x) = x in eight directions
        down.zero_()
        down[:8, :8] = -torch.eye(8)
        down[:8, 16:24] = torch.eye(8)
        module.blocks[0].attn.o.weight[8:] = 0  # heads write in those directions only, and alone
        module.embed.weight[:, :8] = 0
        module.pos_embed.weight[:, :8] = 0
    model = interp.load(module)
    task = (*pairs(), difference)
    plain = node_scores(model, task, method="atp", sites="blocks.0.attn.hook_z")
    starred = node_scores(model, task, method="atp*", sites="blocks.0.attn.hook_z")
    np.testing.assert_allclose(plain.value, 0, atol=1e-12)
    assert np.asarray(starred.value).max() > 1e-2


def test_head_importance_is_output_times_gradient_by_layer() -> None:
    module = network()
    model = interp.load(module)
    clean, corrupted = pairs()
    found = node_scores(model, (clean, corrupted, difference), method="hisp")
    for layer in (0, 1):
        kept = []
        handle = module.blocks[layer].attn.o.register_forward_pre_hook(
            lambda _, args, kept=kept: (kept.append(args[0].requires_grad_(True)), args)[1]
        )
        scores = difference(module(clean)).sum()
        handle.remove()
        (slope,) = torch.autograd.grad(scores, kept)
        each = (kept[0] * slope).unflatten(-1, (4, 4)).sum((1, 3)).abs().mean(0).detach()
        want = each / each.norm()
        np.testing.assert_allclose(np.asarray(found.value)[4 * layer : 4 * layer + 4], want, atol=1e-12)


class Coder:
    """A linear decoder behind a relu."""

    def __init__(self, d: int, n: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.up, self.down = (torch.randn(a, b, generator=generator).double() for a, b in ((d, n), (n, d)))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.up).relu()

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return codes @ self.down + 0.3


def test_latents_and_what_they_leave_over_share_out_the_whole_site() -> None:
    model = interp.load(network())
    task = (*pairs(), difference)
    site, coder = "blocks.1.hook_mlp_out", Coder(16, 6)
    whole = node_scores(model, task, method="atp", sites=site)
    parts = node_scores(model, task, method="atp", sites=site, dictionaries={site: coder})
    assert parts.nodes == (*(f"m1.f{i}" for i in range(6)), "m1.error")
    # a linear decoder: the changes of latents and error add up to the site's
    np.testing.assert_allclose(np.asarray(parts.value).sum(), whole.value[0], atol=1e-12)
    change = [coder.encode(model.capture(t, site)[site]) for t in task[:2]]
    _, slopes = model.gradients(task[0], difference, site)
    want = ((change[1] - change[0])[..., 4] * (slopes[site] @ coder.down[4])).sum(1).mean()
    assert parts.score("m1.f4") == pytest.approx(float(want), abs=1e-12)
    assert abs(parts.score("m1.error")) > 1e-6


def test_neurons_share_out_their_layer() -> None:
    model = interp.load(network())
    task = (*pairs(), difference)
    site = "blocks.0.mlp.hook_post"
    each = node_scores(model, task, method="atp", sites=site, neurons=True)
    assert (len(each.nodes), each.nodes[7]) == (24, "m0.n7")
    whole = node_scores(model, task, method="atp", sites="blocks.0.hook_mlp_out")
    np.testing.assert_allclose(np.asarray(each.value).sum(), whole.value[0], atol=1e-12)


def test_direct_attribution_reads_heads_and_layers_off_the_last_stream() -> None:
    model = loaded("gpt2", "transformers")
    clean, corrupted = ids(3, 6), ids(3, 6, seed=1)
    answers = torch.tensor([[3], [4], [5]]), torch.tensor([[7], [8], [9]])
    task = Task(
        name="t", clean=interp.Tokens.full(clean), corrupted=interp.Tokens.full(corrupted), answers=answers[0],
        wrong=answers[1], measure="logit_difference", facts=({},) * 3, texts=(("", ""),) * 3,
    )  # fmt: skip
    found = node_scores(model, task, method="dla")
    assert set(found.nodes) == {*(f"a{x}.h{h}" for x in range(3) for h in range(4)), "m0", "m1", "m2"}
    written = model.capture(clean, "blocks.1.attn.hook_result")["blocks.1.attn.hook_result"][:, -1, 2]
    scale = model.capture(clean, "ln_final.hook_scale")["ln_final.hook_scale"][:, -1]
    head, norm = model.module.lm_head.weight, model.module.transformer.ln_f.weight
    direction = head[answers[0][:, 0]] - head[answers[1][:, 0]]
    want = ((written - written.mean(-1, keepdim=True)) / scale * norm * direction).sum(-1)
    np.testing.assert_allclose(
        found.examples[:, found.nodes.index("a1.h2")], want.detach(), atol=1e-6
    )  # float32
    with pytest.raises(InputError, match="this task has others"):
        node_scores(model, (clean, corrupted, difference), method="dla")


def test_nodes_become_a_graph_whose_best_edges_lie_among_the_best_nodes() -> None:
    model = interp.load(network())
    found = node_scores(
        model, (*pairs(), difference), method="atp*", sites=["blocks.*.attn.hook_z", "blocks.*.hook_mlp_out"]
    )
    graph = found.to_graph(model)
    best = set(np.array(found.nodes)[np.argsort(-np.asarray(found.value))[:3]])
    first = graph.top(6, prune=False).circuit()
    ends = {end.split("<")[0] for edge in first for end in edge.split("->")}
    assert ends - {"input", "logits"} <= best
    with pytest.raises(InputError, match="has no score"):
        node_scores(model, (*pairs(), difference), method="hisp").to_graph(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "atp**"}, "did you mean 'atp\\*'"),
        ({"method": "hisp", "neurons": True}, "scores heads as they are"),
        ({"method": "atp", "dictionaries": {"blocks.0.attn.hook_z": Coder(4, 4)}}, "the site has heads"),
    ],
)
def test_options_without_a_meaning_are_named(options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        node_scores(interp.load(network()), (*pairs(), difference), **options)


def test_networks_that_the_corrections_cannot_be_made_for_are_named() -> None:
    with pytest.raises(InputError, match="one layer leaves none"):
        node_scores(interp.load(network(n_layers=1)), (*pairs(), difference), method="atp*")
    model = interp.load(network())
    model.inert.update({s: "hidden" for s in model.find("blocks.*.attn.hook_pattern")})
    with pytest.raises(ModelError, match="method='atp' does without"):
        node_scores(model, (*pairs(), difference), method="atp-qk")
