"""How edits, captures and gradients meet: the order given holds everywhere, and nobody's tensor is written to."""

from __future__ import annotations

import pytest
import torch

import interp
from tests.models import TinyNet, ids, loaded, quiet, random_model, shared_model

BACKENDS = ("transformers", "nnsight")
R = "blocks.1.hook_resid_post"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_two_edits_at_a_site_are_their_composition_and_a_capture_sees_both(family: str, backend: str) -> None:
    model = loaded(family, backend)
    for site in (s for s in model.sites if s.layer == 1 and s.kind != "attn_scores"):
        two, six = [interp.scale(site, 2.0), interp.scale(site, 3.0)], [interp.scale(site, 6.0)]
        a, b = (
            model.capture(ids(), [site, "logits"], edits=two),
            model.capture(ids(), [site, "logits"], edits=six),
        )
        plain = model.capture(ids(), site)
        torch.testing.assert_close(
            a["logits"], b["logits"], atol=2e-3, rtol=1e-3, msg=lambda m, s=site: f"{s}: {m}"
        )
        torch.testing.assert_close(
            a[site], 6 * plain[site], atol=1e-3, rtol=1e-3, msg=lambda m, s=site: f"{s}: {m}"
        )
        last = model.logits(ids(), edits=[interp.replace(site, 0.5), interp.replace(site, 1.5)])
        alone = model.logits(ids(), edits=[interp.replace(site, 1.5)])
        torch.testing.assert_close(last, alone, atol=1e-3, rtol=1e-3, msg=lambda m, s=site: f"{s}: {m}")


def test_an_edited_scale_is_what_the_normalised_stream_is_divided_by() -> None:
    model = loaded("gpt2", "transformers")
    scale, normalized = "blocks.1.ln1.hook_scale", "blocks.1.ln1.hook_normalized"
    plain = model.capture(ids(), [scale, normalized])
    halved = model.capture(ids(), [scale, normalized], edits=[interp.scale(scale, 2.0)])
    torch.testing.assert_close(halved[normalized], plain[normalized] / 2)
    both = model.logits(ids(), edits=[interp.scale(scale, 2.0), interp.replace(normalized, 0.0)])
    torch.testing.assert_close(
        both, model.logits(ids(), edits=[interp.replace(normalized, 0.0)]), atol=1e-5, rtol=1e-4
    )


def test_a_module_path_and_a_site_at_one_place_keep_the_given_order() -> None:
    model, vector = loaded("gpt2", "transformers"), torch.linspace(-1, 1, 32)
    acts = model.capture(ids(), R, edits=[interp.ablate("transformer.h.1"), interp.add(R, vector)])
    assert torch.equal(acts[R], vector.expand(2, 7, 32))
    acts = model.capture(ids(), R, edits=[interp.add(R, vector), interp.ablate("transformer.h.1")])
    assert not acts[R].any()


def test_a_function_that_works_in_place_is_confined_like_any_other() -> None:
    model, z = loaded("gpt2", "transformers"), "blocks.1.attn.hook_z"
    for site in (z, "blocks.1.hook_resid_mid", "blocks.1.attn.hook_result", "blocks.1.attn.hook_pattern"):
        in_place = model.logits(ids(), edits=[interp.edit(site, lambda t: t.mul_(0.5))])
        torch.testing.assert_close(in_place, model.logits(ids(), edits=[interp.scale(site, 0.5)]))
    one = model.logits(ids(), edits=[interp.edit(z, lambda t: t.mul_(0), head=1)])
    assert torch.equal(one, model.logits(ids(), edits=[interp.ablate(z, head=1)]))


def test_a_head_of_a_site_is_edited_like_a_site_of_its_own() -> None:
    model, z = loaded("gpt2", "transformers"), "blocks.1.attn.hook_z"
    tokens = ids(1, 4)  # as many positions as heads: a mistaken axis would go unnoticed
    other = model.capture(ids(1, 4, seed=5), [z, f"{z}[2]"])
    expected = model.logits(tokens, edits=[interp.patch(z, other[z], head=2)])
    for source in (other, other[f"{z}[2]"]):
        assert torch.equal(model.logits(tokens, edits=[interp.patch(f"{z}[2]", source)]), expected)
    assert torch.equal(model.logits(tokens, edits=[interp.replace(f"{z}[2]", other[f"{z}[2]"])]), expected)
    seen = []
    model.logits(tokens, edits=[interp.edit(f"{z}[2]", lambda t: seen.append(t.shape) or t)])
    assert seen == [(1, 4, 8)]
    with pytest.raises(interp.InputError, match="give one of them"):
        model.logits(tokens, edits=[interp.ablate(f"{z}[1]", head=2)])
    pattern = model.capture(
        tokens,
        "blocks.1.attn.hook_pattern[2]",
        edits=[interp.ablate("blocks.1.attn.hook_pattern[2]", position=3)],
    )
    assert not pattern["blocks.1.attn.hook_pattern[2]"][:, 3].any()
    assert pattern["blocks.1.attn.hook_pattern[2]"][:, 2].any()


def test_one_row_serves_every_row_at_every_site() -> None:
    model = loaded("gpt2", "transformers")
    for site in (s for s in model.sites if s.layer == 1 and s.kind != "attn_scores"):
        source = model.capture(ids(1, 7, seed=4), site)
        got = model.capture(ids(3, 7), site, edits=[interp.patch(site, source)])[site]
        torch.testing.assert_close(got, source[site].expand_as(got), atol=1e-5, rtol=1e-4)


def test_values_with_a_row_each_follow_the_batches() -> None:
    model, value = (
        loaded("gpt2", "transformers"),
        torch.randn(4, 1, 32, generator=torch.Generator().manual_seed(0)),
    )
    whole = model.logits(ids(4, 5), edits=[interp.add(R, value)])
    torch.testing.assert_close(
        model.logits(ids(4, 5), edits=[interp.add(R, value)], batch_size=3), whole, atol=1e-5, rtol=1e-4
    )
    with pytest.raises(interp.InputError, match="was given 2 rows; this run has 4"):
        model.logits(ids(4, 5), edits=[interp.add(R, value[:2])], batch_size=2)
    with pytest.raises(interp.InputError, match="needs all rows in one pass"):
        model.logits(ids(4, 5), edits=[interp.ablate(R, how="resample")], batch_size=2)
    last = model.logits(ids(4, 5), edits=[interp.ablate(R, row=-1)])
    assert torch.equal(last, model.logits(ids(4, 5), edits=[interp.ablate(R, row=3)]))
    with pytest.raises(interp.InputError, match=r"rows \[99\]: the batch has 4"):
        model.logits(ids(4, 5), edits=[interp.ablate(R, row=99)])


def test_a_patched_tensor_stays_as_it_was() -> None:
    torch.manual_seed(0)
    net = interp.load(TinyNet())
    held = net.capture(torch.randn(4, 6), "first")
    before = held["first"].clone()
    assert (before < 0).any()
    net.logits(torch.randn(4, 6), edits=[interp.patch("first", held)])  # a ReLU in place stands behind it
    net.logits(torch.randn(4, 6), edits=[interp.replace("first", torch.linspace(-1, 1, 8))])
    assert torch.equal(held["first"], before)


def test_gradients_at_a_tensor_that_is_overwritten_are_those_of_what_stood_there() -> None:
    torch.manual_seed(0)
    module, x = TinyNet().eval(), torch.randn(4, 6)
    net = interp.load(module)
    values, grads = net.gradients(x, lambda out: out[:, 0], "first")
    linear = torch.nn.functional.linear(x, module.first.weight, module.first.bias)
    torch.testing.assert_close(values["first"], linear)
    assert not grads["first"][linear < 0].any()
    assert grads["first"][linear > 0].abs().min() > 0
    with pytest.raises(interp.SiteError, match="more than once"):
        net.gradients(x, lambda out: out[:, 0], "shared")
    with torch.inference_mode():
        torch.testing.assert_close(interp.load(module).capture(x, ["first", "last"])["first"], linear)


def test_an_edit_may_run_the_model_itself() -> None:
    model, inner = loaded("gpt2", "transformers"), []

    def change(value: torch.Tensor) -> torch.Tensor:
        inner.append(model.capture(ids(seed=3), R)[R])
        return value * 0

    model.logits(ids(), edits=[interp.edit(R, change)])
    assert torch.equal(inner[0], model.capture(ids(seed=3), R)[R])


def test_threads_that_look_at_patterns_give_the_configuration_back() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with quiet():
        model = interp.load(random_model("gpt2"))
    expected = model.capture(ids(), "blocks.*.attn.hook_pattern")["blocks.2.attn.hook_pattern"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: model.capture(ids(), "blocks.*.attn.hook_pattern"), range(40)))
    assert all(torch.equal(acts["blocks.2.attn.hook_pattern"], expected) for acts in found)
    assert model.module.config._attn_implementation == "sdpa"


def test_positions_need_an_axis_of_positions() -> None:
    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mixed, self.out = (
                torch.nn.Embedding(10, 8),
                torch.nn.Linear(8, 8),
                torch.nn.Linear(8, 3),
            )

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.out(self.mixed(self.table(tokens).mean(1)))

    pooled = interp.load(Pooled())
    x = torch.randint(0, 10, (2, 5))
    assert pooled.capture(x, "table", positions="last")["table"].shape == (2, 1, 8)
    with pytest.raises(interp.SiteError, match="without positions"):
        pooled.logits(x, edits=[interp.ablate("mixed", position=1)])
    model = loaded("gpt2", "transformers")
    for wrong in (torch.tensor(1.9), torch.tensor([True, False]), torch.zeros(2, 3, dtype=torch.long)):
        with pytest.raises(interp.InputError, match="whole numbers"):
            model.capture(ids(), R, positions=wrong)


def test_a_part_in_training_mode_is_put_in_evaluation_mode_and_back() -> None:
    module = random_model("gpt2")
    module.transformer.train()
    assert not module.training
    with quiet():
        model = interp.load(module)
    assert torch.equal(model.logits(ids()), model.logits(ids()))
    assert module.transformer.training


def test_the_fingerprint_follows_the_weights() -> None:
    with quiet():
        model = interp.load(random_model("gpt2"))
    before = model.fingerprint()
    with torch.no_grad():
        model.module.transformer.h[1].mlp.c_fc.weight.add_(1.0)
    assert model.fingerprint() != before


def test_a_stream_far_from_zero_is_normalised_in_single_precision() -> None:
    module = random_model("gpt2").to(torch.bfloat16)
    with torch.no_grad():
        module.transformer.wte.weight.add_(30.0)
    with quiet():
        model = interp.load(module)
    acts = model.capture(ids(), ["blocks.0.ln1.hook_normalized", "blocks.0.ln1.hook_out"])
    norm = module.transformer.h[0].ln_1
    again = acts["blocks.0.ln1.hook_normalized"].float() * norm.weight.float() + norm.bias.float()
    torch.testing.assert_close(again, acts["blocks.0.ln1.hook_out"].float(), atol=0.03, rtol=0.02)


def test_scores_of_padding_stay_finite_when_scaled() -> None:
    tokens = interp.Tokens.of([[3, 4, 5, 6], [7, 8]], side="left")
    for family in ("gpt2", "llama"):
        logits = loaded(family, "transformers").logits(
            tokens, edits=[interp.scale("blocks.1.attn.hook_attn_scores", 2.0)]
        )
        assert torch.isfinite(logits).all()


def test_rows_of_tokens_end() -> None:
    tokens = interp.Tokens.full(ids(3, 4))
    assert [row.ids.shape for row in tokens] == [(1, 4)] * 3
    assert torch.equal(tokens[-1].ids, tokens.ids[2:])
    with pytest.raises(IndexError):
        tokens[3]


def test_captured_tensors_are_freed_at_once_and_streams_keep_nothing() -> None:
    import gc
    import weakref

    gc.disable()
    try:
        model = interp.load(shared_model("gpt2"), prove=False)
        acts = model.capture(ids(), "blocks.*.hook_resid_*")
        held = [weakref.ref(t) for t in acts.values()]
        del acts
        assert [ref() for ref in held] == [None] * len(held)
        kept = model.capture(ids(8, 5), R, batch_size=2, sink=lambda site, tensor: None)[R]
        assert kept.untyped_storage().nbytes() == 0
    finally:
        gc.enable()
