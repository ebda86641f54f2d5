"""Capture keeps what is asked and no more, on plain modules as on language models."""

from __future__ import annotations

import threading

import pytest
import torch

import interp
from tests.models import CONTEXT, VOCAB, TinyNet, ids, loaded, quiet, random_model

R = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model():
    return loaded("llama", "transformers")


def test_positions_are_selected_inside_the_pass(model) -> None:
    whole = model.capture(ids(), [R, "blocks.1.attn.hook_pattern"])
    pattern = whole["blocks.1.attn.hook_pattern"]
    for positions, columns in ((3, [3]), ([0, -1], [0, 6]), (slice(2, 5), [2, 3, 4]), ("last", [6])):
        part = model.capture(ids(), [R, "blocks.1.attn.hook_pattern"], positions=positions)
        assert torch.equal(part[R], whole[R][:, columns])
        assert torch.equal(part["blocks.1.attn.hook_pattern"], pattern[:, :, columns])
        assert part.positions is not None
        assert part.positions[0].tolist() == columns
        assert part[R].untyped_storage().nbytes() == part[R].nbytes  # the rest is not kept alive


def test_last_follows_the_padding(model) -> None:
    tokens = interp.Tokens.of([[3, 4, 5, 6], [7, 8]])
    acts, whole = model.capture(tokens, R, positions="last"), model.capture(tokens, R)
    assert torch.equal(acts[R][:, 0], torch.stack([whole[R][0, 3], whole[R][1, 1]]))
    assert acts.positions is not None
    assert acts.positions[:, 0].tolist() == [3, 1]


def test_batches_join_and_stream(model) -> None:
    tokens = ids(7, 5)
    whole = model.capture(tokens, R)
    split = model.capture(tokens, R, batch_size=3)
    torch.testing.assert_close(split[R], whole[R], atol=1e-5, rtol=1e-5)
    streamed: list[tuple[str, torch.Tensor]] = []
    empty = model.capture(tokens, R, batch_size=3, sink=lambda site, t: streamed.append((str(site), t)))
    assert [t.shape[0] for _, t in streamed] == [3, 3, 1]
    assert torch.equal(torch.cat([t for _, t in streamed]), split[R])
    assert empty[R].shape[0] == 0


def test_a_tensor_without_a_batch_axis_is_not_joined_over_batches() -> None:
    class Normed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.weight = torch.nn.Softmax(dim=-1), torch.nn.Parameter(torch.randn(3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.norm(self.weight)

    model, x = interp.load(Normed()), torch.randn(4, 3)
    assert model.capture(x, "norm")["norm"].shape == (3, 3)
    with pytest.raises(interp.SiteError, match="first axis is not the batch: capture it without batch_size"):
        model.capture(x, "norm", batch_size=2)


def test_dtype_is_chosen(model) -> None:
    acts = model.capture(ids(), [R, "logits"], dtype=torch.float16)
    assert {t.dtype for t in acts.values()} == {torch.float16}


def test_single_heads_are_captured(model) -> None:
    whole = model.capture(ids(), "blocks.1.attn.hook_z")
    one = model.capture(ids(), "blocks.1.attn.hook_z[3]")
    assert torch.equal(one["blocks.1.attn.hook_z[3]"], whole["blocks.1.attn.hook_z"][:, :, 3])
    assert torch.equal(whole["blocks.1.attn.hook_z[3]"], one["blocks.1.attn.hook_z[3]"])
    with pytest.raises(interp.SiteError, match="2 heads, 0-1"):
        model.capture(ids(), "blocks.1.attn.hook_k[2]")  # grouped: two key heads for four query heads


def test_the_pass_stops_behind_the_last_site(model) -> None:
    ran = []
    handles = [
        model.submodule(path).register_forward_hook(lambda *a, p=path: ran.append(p))
        for path in ("model.layers.0", "model.layers.1", "model.layers.2", "lm_head")
    ]
    try:
        model.capture(ids(), [R, "hook_embed"])
        assert ran == ["model.layers.0", "model.layers.1"]
        ran.clear()
        model.capture(ids(), "unembed.hook_out")
        assert ran[-1] == "lm_head"
    finally:
        for handle in handles:
            handle.remove()


def test_patterns_are_shown_without_changing_the_attention_in_use(model) -> None:
    assert model.module.config._attn_implementation == "sdpa"
    acts = model.capture(ids(), ["blocks.*.attn.hook_pattern", "logits"])
    assert torch.equal(acts["logits"], model.logits(ids()))
    pattern = acts["blocks.0.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 7))
    assert not pattern.triu(1).any()
    z, v = (model.capture(ids(), f"blocks.0.attn.hook_{k}")[f"blocks.0.attn.hook_{k}"] for k in "zv")
    wide = v.repeat_interleave(2, dim=2)
    torch.testing.assert_close(z, torch.einsum("bhqk,bkhd->bqhd", pattern, wide), atol=1e-5, rtol=1e-5)


def test_gradients_reach_watched_sites_without_disturbing_each_other(model) -> None:
    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1, 5]

    everything = [s for s in model.sites if s.kind != "attn_scores"]
    values, together = model.gradients(ids(), metric, everything)
    for name in ("blocks.0.hook_resid_mid", "blocks.1.ln1.hook_scale", "blocks.1.attn.hook_result", R):
        _, alone = model.gradients(ids(), metric, name)
        torch.testing.assert_close(together[name], alone[name], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(values[R], model.capture(ids(), R)[R], atol=1e-5, rtol=1e-5)
    result = torch.einsum(
        "bphm,bphm->bph", together["blocks.1.attn.hook_result"], values["blocks.1.attn.hook_result"]
    )
    through_z = torch.einsum(
        "bphd,bphd->bph", together["blocks.1.attn.hook_z"], values["blocks.1.attn.hook_z"]
    )
    torch.testing.assert_close(result, through_z, atol=1e-5, rtol=1e-4)  # the same path, in other coordinates


def test_gradients_work_on_frozen_weights() -> None:
    module = random_model("gpt2").requires_grad_(False)
    with quiet():
        frozen = interp.load(module)
    _, grads = frozen.gradients(ids(), lambda logits: logits[:, -1, 5], R)
    _, expected = loaded("gpt2", "transformers").gradients(ids(), lambda logits: logits[:, -1, 5], R)
    torch.testing.assert_close(grads[R], expected[R])
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda m: m.logits(torch.tensor([[1, VOCAB, 2]])),
            rf"token id {VOCAB} at row 0, position 1: .* has {VOCAB} token ids",
        ),
        (lambda m: m.logits(torch.tensor([[1, -3]])), "token id -3 at row 0, position 1"),
        (
            lambda m: m.logits(torch.zeros(1, CONTEXT + 1, dtype=torch.long)),
            f"{CONTEXT + 1} tokens; .* takes at most {CONTEXT}",
        ),
        (lambda m: m.logits(torch.zeros(0, 3, dtype=torch.long)), "there are no tokens"),
        (lambda m: m.logits(torch.zeros(2, 3)), "must be an integer tensor"),
        (lambda m: m.logits([[]]), "not a list of token ids"),
        (lambda m: m.logits({"a": 1}), "cannot read tokens from dict"),
        (lambda m: m.logits(["a text"]), "came without a tokenizer"),
        (lambda m: m.capture(ids(), "blocks.9.hook_resid_post"), "3 layers, 0-2"),
        (lambda m: m.capture(ids(), R, positions=9), "7 positions, 0-6"),
        (lambda m: m.capture(ids(), R, batch_size=0), "at least 1"),
        (lambda m: m.capture(ids(), R)["blocks.0.hook_resid_post"], "was not captured.*did you mean"),
        (lambda m: m.generate(interp.Tokens.of([[1, 2], [3]]), max_new_tokens=2), "padded on the left"),
        (lambda m: m.generate(ids(), max_new_tokens=CONTEXT), "exceed the context"),
        (lambda m: m.gradients(ids(), lambda logits: 3.0, R), "must return a tensor"),
        (
            lambda m: m.gradients(ids(), lambda logits: logits[:, 0, 0], "blocks.1.attn.hook_z[1]"),
            "whole sites",
        ),
    ],
)
def test_bad_input_is_an_error_that_names_the_thing(model, run, message: str) -> None:
    with pytest.raises(interp.InterpError, match=message):
        run(model)


# -- plain modules ------------------------------------------------------------------------------


@pytest.fixture
def net() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet()


def test_plain_modules_have_their_paths_as_sites(net: TinyNet) -> None:
    model = interp.load(net)
    x = torch.randn(4, 6)
    acts = model.capture(x, ["first:in", "twice", "last"])
    assert torch.equal(acts["first:in"], x)
    assert torch.equal(acts["last"], net(x))
    assert {str(s) for s in model.sites} == {"first", "act", "shared", "twice", "last"}


def test_a_tensor_overwritten_in_place_is_shown_as_it_was(net: TinyNet) -> None:
    x = torch.randn(4, 6)
    with torch.no_grad():
        expected = torch.nn.functional.linear(x, net.first.weight, net.first.bias)
    assert (expected < 0).any()  # the in-place ReLU behind it would have cut these off
    for _ in range(2):
        torch.testing.assert_close(interp.load(net).capture(x, ["first", "last"])["first"], expected)


def test_a_module_that_runs_twice_must_be_asked_for_by_call(net: TinyNet) -> None:
    model, x = interp.load(net), torch.randn(4, 6)
    with pytest.raises(interp.SiteError, match=r"runs more than once .* 'shared#0'"):
        model.capture(x, "shared")
    acts = model.capture(x, ["shared#0", "shared#1"])
    with torch.no_grad():
        first = net.shared(torch.relu(torch.nn.functional.linear(x, net.first.weight, net.first.bias)))
        torch.testing.assert_close(acts["shared#0"], first)
        torch.testing.assert_close(acts["shared#1"], net.shared(torch.tanh(first)))
    cut = model.logits(x, edits=[interp.ablate("shared#1")])
    assert torch.equal(cut, net.last(torch.zeros(4, 8)))


def test_a_site_the_pass_never_reaches_is_an_error() -> None:
    class Unused(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = interp.load(Unused())
    with pytest.raises(interp.SiteError, match="never reached spare"):
        model.logits(torch.zeros(2, 3), edits=[interp.ablate("spare")])
    with pytest.raises(interp.SiteError, match="never reached spare"):
        model.capture(torch.zeros(2, 3), "spare")


def test_two_threads_do_not_see_each_others_hooks() -> None:
    model = loaded("gpt2", "transformers")
    plain = model.logits(ids())

    def edit_all_the_time() -> None:
        for _ in range(15):
            model.logits(ids(), edits=[interp.ablate(R)])

    worker = threading.Thread(target=edit_all_the_time)
    worker.start()
    wrong = [float((model.logits(ids()) - plain).abs().max()) for _ in range(15)]
    worker.join()
    assert max(wrong) == 0.0
