"""The atlas of heads and neurons: matrices against their definitions, planted parts found, effects against patching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import circuits
import interp
from circuits.atlas.weights import embedding, head_weights, unembedding
from circuits.stream import Stream
from interp.errors import InputError
from interp.tasks.pairs import Pair
from interp.tasks.task import Task
from interp.toys.exam import repeats
from interp.toys.networks import Shape, Transformer
from tests.models import random_model

V = 12


def toy(*, seed: int = 0, **sizes: int) -> Any:
    given: dict[str, Any] = {"d_vocab": V, "n_ctx": 8, "n_layers": 2, "d_model": 16, "n_heads": 4, "d_mlp": 5}
    given.update(sizes)
    return Transformer(Shape(**given), generator=torch.Generator().manual_seed(seed)).double()


def random_task(n: int = 6, length: int = 7, *, seed: int = 0) -> Task:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(n):
        clean, corrupted = rng.integers(0, V, (2, length)).tolist()
        right, wrong = rng.choice(V, 2, replace=False).tolist()
        pairs.append(
            Pair(
                clean=tuple(clean), corrupted=tuple(corrupted), answers=(right,), wrong=(wrong,), facts={},
                texts=("", ""),
            )
        )  # fmt: skip
    return Task.of(pairs, name="random", measure="logit_difference")


# -- heads ------------------------------------------------------------------------------------------------------------


def test_the_heads_of_mini_are_those_of_its_card() -> None:
    embedded, model = interp.toys.embedded("mini"), interp.load("mini")
    task = interp.tasks.load("ioi", model=model, split="heldout", n=100, seed=1000)
    found = circuits.head_atlas(model, task=task, ids=repeats(100))
    stated = embedded.card["heads"]["attention"]
    value = np.asarray(found.value)
    for ours, theirs in (("previous",) * 2, ("induction",) * 2, ("duplicate",) * 2, ("answer", "name_mover")):
        grid = value[found.ticks[0].index(ours)]
        np.testing.assert_allclose(grid, stated[theirs], atol=0.002)  # the card has four digits
    assert found.best("induction", 2)[0][0] == "a2.h0"
    with pytest.raises(InputError, match="no score 'inductions'"):
        found.best("inductions")


def test_copying_is_the_share_of_positive_eigenvalues_of_the_whole_matrix() -> None:
    model = interp.load(toy())
    stream = Stream(model)
    ids = torch.tensor([[0, 1, 2, 3, 1, 2, 3]])
    found = circuits.head_atlas(model, ids=ids)
    grid = np.asarray(found.value)[found.ticks[0].index("copying")]
    for layer in range(2):
        w = head_weights(stream, layer)
        for head in range(4):
            whole = embedding(stream) @ w["v"][head] @ w["o"][head] @ unembedding(stream)
            values = torch.linalg.eigvals(whole)
            assert grid[layer, head] == pytest.approx(float(values.real.sum() / values.abs().sum()), abs=1e-6)


def test_a_head_that_copies_scores_one_and_one_that_erases_minus_one() -> None:
    net = toy(n_layers=1, d_model=16, n_heads=2, d_mlp=0)
    with torch.no_grad():
        net.unembed.weight.copy_(net.embed.weight)
        for head, sign in ((0, 1.0), (1, -1.0)):
            part = slice(8 * head, 8 * head + 8)
            net.blocks[0].attn.o.weight[:, part] = sign * net.blocks[0].attn.v.weight[part].T
    found = circuits.head_atlas(interp.load(net), ids=torch.tensor([[0, 1, 2, 1, 2]]))
    grid = np.asarray(found.value)[found.ticks[0].index("copying")]
    np.testing.assert_allclose(grid, [[1.0, -1.0]], atol=1e-6)


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["toy", "gpt2", "llama"])
def test_composition_is_its_definition_on_whole_matrices(family: str) -> None:
    model = interp.load(toy() if family == "toy" else random_model(family))
    found, stream = circuits.composition(model), Stream(model)
    whole = {}
    for layer, part in enumerate(stream.parts):
        w = head_weights(stream, layer)
        for head in range(part.n_heads):
            qk = w["q"][head] @ w["k"][head].T
            whole[f"a{layer}.h{head}"] = {"q": qk, "k": qk.T, "v": w["v"][head] @ w["o"][head]}
    for i, port in enumerate("qkv"):
        for a, writer in enumerate(found.ticks[1]):
            for b, reader in enumerate(found.ticks[2]):
                value = np.asarray(found.value)[i, a, b]
                if writer.split(".")[0] >= reader.split(".")[0]:
                    assert np.isnan(value)
                    continue
                ov, m = whole[writer]["v"], whole[reader][port]
                expected = float((ov @ m).norm() / (ov.norm() * m.norm()))
                assert value == pytest.approx(expected, rel=1e-5)


def test_random_weights_compose_as_chance_says_and_a_planted_reader_much_more() -> None:
    net = toy(d_model=64, n_heads=8)
    found = circuits.composition(interp.load(net))
    assert np.nanmean(np.asarray(found.value)) == pytest.approx(found.chance, rel=0.1)
    with torch.no_grad():  # head 2 of the second block takes for queries what head 5 of the first writes
        net.blocks[1].attn.q.weight[16:24] = net.blocks[0].attn.o.weight[:, 40:48].T
    writer, reader, score = circuits.composition(interp.load(net)).strongest("q", 1)[0]
    assert (writer, reader) == ("a0.h5", "a1.h2")
    assert score > 3 * found.chance


def test_the_singular_directions_are_those_of_the_whole_matrix() -> None:
    model = interp.load(random_model("gpt2"))
    stream = Stream(model)
    w = head_weights(stream, 1)
    for head in range(2):
        whole = torch.linalg.svdvals(w["v"][head] @ w["o"][head])
        found = circuits.directions(model, f"a1.h{head}", k=3)
        np.testing.assert_allclose(np.asarray(found.value), whole[:3].numpy(), rtol=1e-9)
        assert sum(found.share) <= 1 + 1e-12
    with pytest.raises(InputError, match=r"no head or MLP 'a1\.h9'"):
        circuits.directions(model, "a1.h9")


def test_a_planted_translation_is_read_off_its_first_direction() -> None:
    net = toy(n_layers=1, d_model=V, n_heads=2, d_mlp=0)
    with torch.no_grad():
        net.embed.weight.copy_(torch.eye(V))
        net.unembed.weight.copy_(torch.eye(V))
        net.blocks[0].attn.v.weight.zero_()
        net.blocks[0].attn.o.weight.zero_()
        net.blocks[0].attn.v.weight[0, 3] = 2.0  # head 0 reads token 3
        net.blocks[0].attn.o.weight[7, 0] = 5.0  # and says token 7
    found = circuits.directions(interp.load(net), "a0.h0", k=1, n_tokens=1)
    assert found.reads == (("3",),)
    assert found.writes == (("7",),)
    assert float(np.asarray(found.value)[0]) == pytest.approx(10.0)


# -- neurons ----------------------------------------------------------------------------------------------------------


def test_second_order_effects_add_up_to_path_patching() -> None:
    model, task = interp.load(toy()), random_task()
    found = circuits.second_order(model, task, layer=0)
    for head in range(4):
        path = circuits.path_patch(model, task, [f"m0->a1.h{head}<v>", f"a1.h{head}->logits"], mode="paths")
        ours = np.asarray(found.value)[:, found.ticks[1].index(f"a1.h{head}")].sum()
        assert ours == pytest.approx(float(np.asarray(path.value)[0]), abs=1e-9)


def test_the_second_order_effect_of_one_neuron_is_its_own_path() -> None:
    model, task = interp.load(toy(d_mlp=1, n_layers=3, seed=4)), random_task(seed=1)
    found = circuits.second_order(model, task, layer=0)
    assert found.ticks[1] == tuple(f"a{layer}.h{head}" for layer in (1, 2) for head in range(4))
    for j, head in enumerate(found.ticks[1]):
        path = circuits.path_patch(model, task, [f"m0->{head}<v>", f"{head}->logits"], mode="paths")
        assert np.asarray(found.value)[0, j] == pytest.approx(float(np.asarray(path.value)[0]), abs=1e-9)
        assert np.asarray(found.stderr)[0, j] == pytest.approx(float(np.asarray(path.stderr)[0]), abs=1e-9)


def test_second_order_effects_hold_the_scales_of_the_norms_as_they_were() -> None:
    """Neuron by neuron and token by token, in plain loops."""
    model = interp.load(random_model("gpt2").double())
    ids = torch.randint(1, 40, (2, 5), generator=torch.Generator().manual_seed(0)).tolist()
    task = Task.of(
        [Pair(clean=tuple(ids[0]), corrupted=tuple(ids[1]), answers=(3,), wrong=(5,), facts={}, texts=("", ""))],
        name="one", measure="logit_difference",
    )  # fmt: skip
    found = circuits.second_order(model, task, layer=0)
    names = ["blocks.0.mlp.hook_post", "blocks.1.hook_resid_pre", "blocks.1.attn.hook_pattern"]
    names.append("blocks.2.hook_resid_post")
    clean, other = model.capture(task.clean, names), model.capture(task.corrupted, names[:1])
    change = (other[names[0]] - clean[names[0]])[0]
    block = model.submodule("transformer.h.1")
    final, unembed = model.submodule("transformer.ln_f"), model.submodule("lm_head")
    stream, end = clean[names[1]][0], clean[names[3]][0, -1]
    d, heads = model.d_model, model.n_heads
    wv, wo = block.attn.c_attn.weight[:, 2 * d :], block.attn.c_proj.weight
    for neuron in (0, 7):
        for head in range(heads):
            part = slice(head * d // heads, (head + 1) * d // heads)
            moved = torch.zeros(d, dtype=torch.float64)
            for t in range(5):
                x = change[t, neuron] * model.submodule("transformer.h.0.mlp.c_proj").weight[neuron]
                x = (x - x.mean()) / (stream[t].var(correction=0) + block.ln_1.eps).sqrt() * block.ln_1.weight
                moved = moved + clean[names[2]][0, head, -1, t] * (x @ wv[:, part] @ wo[part])
            y = (moved - moved.mean()) / (end.var(correction=0) + final.eps).sqrt() * final.weight
            expected = float((y @ (unembed.weight[3] - unembed.weight[5])).detach())
            assert np.asarray(found.value)[neuron, head] == pytest.approx(expected, abs=1e-12)
    with pytest.raises(InputError, match="no MLP with heads behind it"):
        circuits.second_order(model, task, layer=model.n_layers - 1)


def planted_neurons() -> Any:
    """One-hot tokens and positions side by side; neurons: dead, suppressing detector, position, every token."""
    net = toy(n_layers=1, d_model=V + 8, n_heads=2, d_mlp=4)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        net.embed.weight[:, :V] = torch.eye(V)
        net.pos_embed.weight[:, V:] = torch.eye(8)
        net.unembed.weight[:, :V] = torch.eye(V)
        up, down = net.blocks[0].mlp.up.weight, net.blocks[0].mlp.down.weight
        up[1, 3] = up[1, 9] = 1.0
        down[3, 1] = down[9, 1] = -2.0
        up[2, V + 4 :] = 1.0
        up[3, :V] = 1.0
    return net


def test_dead_detecting_and_positional_neurons_are_found_exactly_where_they_were_planted() -> None:
    ids = torch.randint(0, V, (500, 8), generator=torch.Generator().manual_seed(0))
    found = circuits.neuron_census(interp.load(planted_neurons()), ids, layer=0)
    np.testing.assert_array_equal(found.dead, [True, False, False, False])
    np.testing.assert_array_equal(found.detector, [False, True, False, False])
    np.testing.assert_array_equal(found.suppressing, [False, True, False, False])
    np.testing.assert_array_equal(found.positional, [False, False, True, False])
    assert set(found.triggers[1]) == {3, 9}
    assert found.information[2] == pytest.approx(1.0, abs=1e-12)  # the later half of the positions: one bit
    assert found.information[1] < 4 * found.provenance["position_chance_bits"]
    share = ((ids == 3) | (ids == 9)).double().mean()
    assert np.asarray(found.value)[1] == pytest.approx(float(share), abs=1e-12)


def test_pairs_of_tokens_are_detected_as_pairs() -> None:
    net = planted_neurons()
    with (
        torch.no_grad()
    ):  # head 0 moves the token before into spare directions is too much here: count pairs only
        net.blocks[0].mlp.up.weight[1].zero_()
        net.blocks[0].mlp.up.weight[1, 3] = 1.0
    ids = torch.tensor([[5, 3, 7, 3, 5, 3, 2, 2]] * 10)
    found = circuits.neuron_census(interp.load(net), ids, layer=0, grams=2, most_tokens=2)
    assert set(found.triggers[1]) == {5 * V + 3, 7 * V + 3}
    with pytest.raises(InputError, match="GB; budget is"):
        circuits.neuron_census(interp.load(net), ids, layer=0, budget=10)


# -- flow -------------------------------------------------------------------------------------------------------------


def test_the_planted_previous_token_circuit_moves_one_token_to_the_next() -> None:
    circuit = interp.toys.planted("previous")
    model, task = interp.load("planted:previous"), circuit.task(12)
    for how in ("value", "knockout"):
        found = circuits.token_flow(model, task, how=how)
        layer, target, source, effect = found.strongest(1)[0]
        last = task.clean.ids.shape[1] - 1
        assert (target, source) == (last, last - 1), how
        others = np.nan_to_num(np.asarray(found.value)).copy()
        others[layer, target, source] = 0
        assert np.abs(others).max() < 0.02 * abs(effect), how  # its attention is 0.99 sharp


def test_every_move_is_what_running_the_attention_by_hand_gives() -> None:
    net, task = toy(d_mlp=0, n_layers=2), random_task(4, 5)
    model = interp.load(net)
    found = circuits.token_flow(model, task, rows=16)
    names = ["blocks.0.attn.hook_pattern", "blocks.0.attn.hook_v"]
    clean, other = model.capture(task.clean, names), model.capture(task.corrupted, names)
    pattern, value = clean[names[0]], clean[names[1]].transpose(1, 2)
    base = task.metric(model.logits(task.clean))
    attn = net.blocks[0].attn
    for t, s in ((4, 1), (2, 2), (3, 0)):
        mixed = value.clone()
        mixed[:, :, s] = other[names[1]].transpose(1, 2)[:, :, s]
        z = pattern @ value
        z[:, :, t] = (pattern @ mixed)[:, :, t]
        x = net.embed(task.clean.ids)
        if net.pos_embed is not None:
            x = x + net.pos_embed(torch.arange(5))
        x = x + attn.o(z.transpose(1, 2).reshape(4, 5, -1))
        with torch.no_grad():
            logits = net.unembed(net.blocks[1](x))
        expected = (task.metric(logits) - base).mean()
        assert np.asarray(found.value)[0, t, s] == pytest.approx(float(expected), abs=1e-9)
    assert np.isnan(np.asarray(found.value)[0, 1, 3])


def test_an_encoder_has_moves_in_both_directions() -> None:
    model = interp.load(random_model("bert"))
    ids = torch.randint(5, 40, (3, 4), generator=torch.Generator().manual_seed(0))
    other = torch.randint(5, 40, (3, 4), generator=torch.Generator().manual_seed(1))

    def metric(logits):
        return logits[:, 1, 7] - logits[:, 1, 8]

    found = circuits.token_flow(model, (ids, other, metric), layers=(0,), targets=(1,))
    row = np.asarray(found.value)[0, 1]
    assert np.isfinite(row).all()
    assert abs(row[3]) > 1e-9  # from behind
    assert np.isnan(np.asarray(found.value)[0, 2]).all()
    assert found.plot().data[0].type == "heatmap"


def test_prompts_without_common_positions_are_refused() -> None:
    model = interp.load("mini")
    task = interp.tasks.load("ioi", model=model, n=20)
    with pytest.raises(InputError, match="lengths .* have no common positions"):
        circuits.token_flow(model, task)
