"""Sweeps: restarted in the middle they say what whole passes say; parts and ablations by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interp
from circuits import patch_sweep, patching
from interp import Tokens
from interp.errors import InputError, ModelError
from interp.toys import Shape, Transformer, planted
from tests.models import ids, random_model

KINDS = {
    "stream": "blocks.*.hook_resid_pre",
    "stream behind attention": "blocks.*.hook_resid_mid",
    "attention": "blocks.*.hook_attn_out",
    "MLP": "blocks.*.hook_mlp_out",
    "z": "blocks.*.attn.hook_z",
    "q": "blocks.*.attn.hook_q",
    "k": "blocks.*.attn.hook_k",
    "v": "blocks.*.attn.hook_v",
    "pattern": "blocks.*.attn.hook_pattern",
}


def network(seed: int = 0) -> Transformer:
    shape = Shape(d_vocab=10, n_ctx=8, n_layers=2, d_model=16, n_heads=4, d_mlp=24)
    return Transformer(shape, generator=torch.Generator().manual_seed(seed)).double()


def difference(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 3] - logits[:, -1, 7]


def whole(monkeypatch: pytest.MonkeyPatch, *args, **options):
    """The same sweep by whole passes of the model."""
    with monkeypatch.context() as patched:
        patched.setattr(patching, "stream_of", lambda model, tokens: None)
        return patch_sweep(*args, **options)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_restarted_passes_say_what_whole_passes_say(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = interp.load(random_model(family).double(), backend="transformers")
    clean, corrupted = ids(3, 5), ids(3, 5, seed=1)
    # llama's norms compute in float32 whatever the model's type
    tolerance = 1e-5 if family == "llama" else 1e-11
    for name, sites in KINDS.items():
        if name == "stream behind attention" and family == "gpt_neox":
            continue  # attention and MLP run side by side
        options = {"sites": sites, "mode": "noise", "n_draws": 10}
        ours = patch_sweep(model, clean, corrupted, difference, **options)
        theirs = whole(monkeypatch, model, clean, corrupted, difference, **options)
        assert (ours.provenance["restarted"], theirs.provenance["restarted"]) == (True, False)
        assert ours.components == theirs.components
        np.testing.assert_allclose(ours.patched, theirs.patched, atol=tolerance, err_msg=name)
        assert np.ptp(ours.patched) > 1e-3, name  # not the agreement of runs that nothing changed


def test_batches_of_rows_change_nothing_and_a_task_is_asked_at_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    circuit = planted("two-hop")
    model, trials = interp.load(circuit.module), circuit.task(7)
    by_task = patch_sweep(model, trials, batch_size=64, n_draws=10)
    cut = patch_sweep(model, trials, batch_size=3, n_draws=10)
    bare = whole(monkeypatch, model, trials.clean, trials.corrupted, trials.metric, n_draws=10)
    np.testing.assert_allclose(by_task.patched, cut.patched, atol=1e-5)  # float32
    np.testing.assert_allclose(by_task.patched, bare.patched, atol=1e-5)
    np.testing.assert_allclose(by_task.clean, bare.clean, atol=1e-5)


def test_padding_is_never_the_last_token_and_never_in_a_mean() -> None:
    model = interp.load(random_model("gpt2").double(), backend="transformers")
    grids = [ids(4, 6), ids(4, 6, seed=1)]

    def padded(width: int):
        rows = [torch.nn.functional.pad(grid, (0, width - 6), value=2) for grid in grids]
        return [Tokens(ids=r, mask=torch.arange(width).expand(4, -1) < 6) for r in rows]

    def at_five(logits):
        return logits[:, 5, 3] - logits[:, 5, 7]

    for options in (
        {"mode": "mean"},
        {"mode": "denoise", "position": "last", "sites": "blocks.*.hook_mlp_out"},
    ):
        plain, wide = (patch_sweep(model, *padded(width), at_five, n_draws=10, **options) for width in (6, 8))
        np.testing.assert_allclose(plain.patched, wide.patched, atol=1e-10)


def test_positions_and_neurons_one_by_one_are_what_they_are_alone() -> None:
    model = interp.load(network())
    clean, corrupted = (torch.randint(10, (4, 5), generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    each = patch_sweep(
        model, clean, corrupted, difference, sites="blocks.1.attn.hook_v", position="each", n_draws=10
    )
    matrix, rows, columns = each.by_position()
    assert (matrix.shape, columns) == ((4, 5), (0, 1, 2, 3, 4))
    assert rows[2] == "blocks.1.attn.hook_v[2]"
    for column in (1, 4):
        alone = patch_sweep(
            model, clean, corrupted, difference, sites="blocks.1.attn.hook_v", position=column, n_draws=10
        )
        np.testing.assert_allclose(matrix[:, column], alone.value, atol=1e-12)
    assert each.plot().data
    with pytest.raises(InputError, match="taken apart further"):
        each.grid()

    neurons = patch_sweep(
        model, clean, corrupted, difference, sites="blocks.0.mlp.hook_post", neuron="each", n_draws=10
    )
    assert neurons.components[7] == "blocks.0.mlp.hook_post #7"
    assert neurons.sites[7].kind == "mlp_post"
    source = model.capture(clean, "blocks.0.mlp.hook_post")
    by_hand = model.logits(corrupted, edits=[interp.patch("blocks.0.mlp.hook_post", source, neuron=7)])
    np.testing.assert_allclose(neurons.patched[7], difference(by_hand).numpy(), atol=1e-12)
    assert not np.isclose(neurons.patched, neurons.corrupted).all()


def test_behind_the_last_block_only_the_last_position_counts() -> None:
    model = interp.load(network())
    clean, corrupted = (torch.randint(10, (4, 5), generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    swept = patch_sweep(
        model, clean, corrupted, difference, sites="blocks.1.hook_resid_post", position="each", n_draws=10
    )
    np.testing.assert_allclose(swept.value, [0, 0, 0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_ablations_are_what_they_are_called(mode: str) -> None:
    model = interp.load(network())
    clean, corrupted = (torch.randint(10, (5, 5), generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    swept = patch_sweep(model, clean, corrupted, difference, mode=mode, seed=3, n_draws=10)
    acts = model.capture(clean, "blocks.*.attn.hook_z")
    for i, site in enumerate(swept.sites):
        held = acts[site.whole]
        if mode == "zero":
            source = torch.zeros_like(held)
        elif mode == "mean":
            source = held.mean(0, keepdim=True).expand_as(held)
        else:
            generator = torch.Generator().manual_seed(3)
            other = (torch.arange(5) + torch.randint(1, 5, (5,), generator=generator)) % 5
            assert (other != torch.arange(5)).all()
            source = held[other]
        logits = model.logits(clean, edits=[interp.patch(site.whole, source, head=site.head)])
        np.testing.assert_allclose(swept.patched[i], difference(logits).numpy(), atol=1e-12)
    assert mode.replace("zero", "by zero") in swept.convention or "another clean example" in swept.convention


def test_the_best_constant_costs_what_the_best_constant_must() -> None:
    # with the whole last stream replaced the output is one distribution for all, and the one nearest to all the
    # clean ones is their mean: what it costs is the entropy of the mean less the mean entropy
    module = network()
    with torch.no_grad():
        module.unembed.weight.mul_(6)  # decided enough for means of streams and of probabilities to differ
    model = interp.load(module)
    clean, corrupted = (torch.randint(10, (6, 5), generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    logs = model.logits(clean)[:, -1].log_softmax(-1)

    def loss(logits):
        return (logs.exp() * (logs - logits[:, -1].log_softmax(-1))).sum(-1)

    def cost(mode, **options):
        found = patch_sweep(
            model, clean, corrupted, loss, mode=mode, sites="blocks.1.hook_resid_post", n_draws=10, **options
        )
        return found.patched.mean()

    mean = logs.exp().mean(0)
    least = -(mean * mean.log()).sum() + (logs.exp() * logs).sum(-1).mean()
    best = cost("optimal", steps=150)
    assert best == pytest.approx(float(least), rel=2e-3)  # what 150 steps of gradient descent leave
    assert best < 0.9 * cost("mean")
    assert best < 0.9 * cost("zero")


def test_a_constant_is_learned_for_every_head_by_itself() -> None:
    model = interp.load(network())
    clean, corrupted = (torch.randint(10, (6, 5), generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    logs = model.logits(clean)[:, -1].log_softmax(-1)

    def loss(logits):
        return (logs.exp() * (logs - logits[:, -1].log_softmax(-1))).sum(-1)

    together = patch_sweep(model, clean, corrupted, loss, mode="optimal", steps=20, batch_size=64, n_draws=10)
    alone = patch_sweep(model, clean, corrupted, loss, mode="optimal", steps=20, batch_size=6, n_draws=10)
    np.testing.assert_allclose(together.patched, alone.patched, atol=1e-9)
    start = patch_sweep(model, clean, corrupted, loss, mode="optimal", steps=0, n_draws=10)
    assert (together.patched.mean(1) < start.patched.mean(1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": "first"}, "'last' or 'each'"),
        ({"neuron": "all"}, "several or 'each'"),
        ({"position": 9}, r"\[9\] along an axis of 5"),
        ({"mode": "optimal", "sites": "blocks.0.attn.hook_pattern"}, "no constant to learn"),
    ],
)
def test_options_that_mean_nothing_are_named(options, message: str) -> None:
    clean = torch.randint(10, (4, 5), generator=torch.Generator().manual_seed(1))
    with pytest.raises(InputError, match=message):
        patch_sweep(interp.load(network()), clean, clean.roll(1, 0), difference, **options)


def test_what_cannot_be_swept_is_named() -> None:
    clean = torch.randint(10, (4, 5), generator=torch.Generator().manual_seed(1))
    model = interp.load(network())
    with pytest.raises(InputError, match="or a task alone"):
        patch_sweep(model, clean, clean)
    with pytest.raises(InputError, match="two examples or more"):
        patch_sweep(model, clean[:1], clean[1:2], difference, mode="resample")
    plain = interp.load(torch.nn.Sequential(torch.nn.Embedding(10, 8), torch.nn.Linear(8, 10)))
    with pytest.raises(ModelError, match="block by block"):
        patch_sweep(plain, clean, clean.roll(1, 0), difference, mode="optimal")
