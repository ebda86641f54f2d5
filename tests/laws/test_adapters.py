"""The laws every adapter obeys, over families and backends; the plain module's hooks are the oracle."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import interp
from interp.sites import Site
from tests.models import BACKENDS, CONTEXT, FAMILIES, ids, loaded, quiet, random_model, shared_model

CELLS = [(family, backend) for family in FAMILIES for backend in BACKENDS]
cells = pytest.mark.parametrize(("family", "backend"), CELLS)
families = pytest.mark.parametrize("family", FAMILIES)


def resid(layer: int) -> str:
    return f"blocks.{layer}.hook_resid_post"


@cells
def test_capture_changes_no_bit_of_the_logits(family: str, backend: str) -> None:
    model = loaded(family, backend)
    before = model.logits(ids())
    acts = model.capture(ids(), "*")
    assert torch.equal(acts["logits"], before) or "pattern" in {s.kind for s in acts if s in model.inert}
    assert torch.equal(model.logits(ids()), before)


@cells
def test_logits_agree_with_the_bare_module(family: str, backend: str) -> None:
    with torch.no_grad():
        bare = shared_model(family)(ids()).logits
    got = loaded(family, backend).logits(ids())
    if backend == "transformer_lens":  # another attention kernel: float32 rounding, not bits
        torch.testing.assert_close(got, bare, atol=1e-4, rtol=0)
    else:
        assert torch.equal(got, bare)


@cells
def test_every_shared_site_agrees_with_the_transformers_backend(family: str, backend: str) -> None:
    model, reference = loaded(family, backend), loaded(family, "transformers")
    expected = reference.capture(ids(), "*")
    shared = [site for site in model.sites if site in expected]
    assert len(shared) >= 0.8 * len(reference.sites)
    got = model.capture(ids(), shared)
    lowest = torch.finfo(torch.float32).min
    for site in shared:
        assert got[site].shape == expected[site].shape, site
        a, b = (
            got[site].clamp(min=-1e30),
            expected[site].clamp(min=-1e30),
        )  # masked scores: -inf or the lowest number
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0, msg=lambda m, site=site: f"{site}: {m}")
        assert expected[site].min() >= lowest


@families
def test_the_same_weights_have_the_same_fingerprint_behind_every_backend(family: str) -> None:
    assert len({loaded(family, backend).fingerprint() for backend in BACKENDS}) == 1


@cells
def test_identity_edit_changes_nothing_and_zero_edit_something(family: str, backend: str) -> None:
    model = loaded(family, backend)
    before = model.logits(ids())
    for site in model.sites:
        if site in model.inert or site.layer in (0, 2):
            continue
        same = model.logits(ids(), edits=[interp.edit(site, lambda t: t.clone())])
        exact = backend != "transformer_lens" and site.kind not in ("attn_scores", "pattern")
        torch.testing.assert_close(
            same, before, atol=0 if exact else 1e-5, rtol=0, msg=lambda m, s=site: f"{s}: {m}"
        )
    for layer in range(model.n_layers):
        assert not torch.equal(model.logits(ids(), edits=[interp.replace(resid(layer), 0.0)]), before)


@cells
def test_every_site_is_causal_or_refused_by_name(family: str, backend: str) -> None:
    model = loaded(family, backend)
    editable = [
        site for site in model.sites if site not in model.inert and site.layer in (1, None)
    ]  # 1 stands for all
    report = model.audit(ids(), editable)
    frame = report.to_frame().set_index("site")
    silent = [name for name, row in frame.iterrows() if not (row.fires and row.causal)]
    assert silent == []
    for site in model.inert:
        with pytest.raises(interp.SiteError, match="cannot be edited"):
            model.logits(ids(), edits=[interp.ablate(site)])


def test_bridge_patterns_on_bert_are_inert_and_refused() -> None:
    inert = loaded("bert", "transformer_lens").inert
    assert {site.kind for site in inert} == {"pattern"}
    assert loaded("bert", "transformers").inert == {}


@cells
def test_patching_all_of_a_layer_from_another_run_yields_its_downstream(family: str, backend: str) -> None:
    model = loaded(family, backend)
    clean, other = ids(seed=1), ids(seed=2)
    for layer in (0, model.n_layers - 1):
        source = model.capture(other, resid(layer))
        patched = model.logits(clean, edits=[interp.patch(resid(layer), source)])
        torch.testing.assert_close(patched, model.logits(other), atol=1e-5, rtol=0)
        assert (patched - model.logits(clean)).abs().max() > 1e-3  # the two runs do differ


@cells
def test_a_capture_behind_an_edit_sees_it_and_one_before_does_not(family: str, backend: str) -> None:
    model = loaded(family, backend)
    edits = [interp.replace(resid(1), 0.0)]
    plain = model.capture(ids(), "blocks.*.hook_resid_post")
    edited = model.capture(ids(), "blocks.*.hook_resid_post", edits=edits)
    assert torch.equal(edited[resid(0)], plain[resid(0)])
    assert torch.equal(edited[resid(1)], torch.zeros_like(plain[resid(1)]))
    assert not torch.equal(edited[resid(2)], plain[resid(2)])


@families
def test_gradients_are_the_same_from_every_backend(family: str) -> None:
    sites = [resid(0), resid(2), "hook_embed"]

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1].logsumexp(-1)

    _, expected = loaded(family, "transformers").gradients(ids(), metric, sites)
    for backend in BACKENDS[1:]:
        _, got = loaded(family, backend).gradients(ids(), metric, sites)
        for site in sites:
            torch.testing.assert_close(got[site], expected[site], atol=1e-5, rtol=1e-4)


@families
def test_gradients_match_finite_differences_at_every_site(family: str) -> None:
    model = interp.load(random_model(family).double())
    tokens = ids(1, 5)

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, 7]

    # layer 1 stands for all; masked scores lie at the lowest number, which takes no step
    editable = [site for site in model.sites if site.kind != "attn_scores" and site.layer in (1, None)]
    _, grads = model.gradients(tokens, metric, editable)
    generator = torch.Generator().manual_seed(3)
    single = family in ("llama", "mamba")  # their norms compute in float32 whatever the weights are
    step, rtol = (1e-3, 2e-3) if single else (1e-5, 1e-4)
    for site in editable:
        direction = torch.randn(grads[site].shape, generator=generator, dtype=torch.float64)
        ends = [
            metric(model.logits(tokens, edits=[interp.edit(site, lambda t, h=h, d=direction: t + h * d)]))
            for h in (step, -step)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        along = (grads[site] * direction).sum()
        torch.testing.assert_close(
            along.double(),
            slope[0].double(),
            atol=1e-3 if single else 1e-6,
            rtol=rtol,
            msg=lambda m, s=site: f"{s}: {m}",
        )


@families
def test_a_callers_module_is_left_as_it_was(family: str) -> None:
    module = random_model(family).train()
    keys = list(module.state_dict())
    before = copy.deepcopy(module.state_dict())
    for backend in BACKENDS:
        with quiet():
            model = interp.load(module, backend=backend)
        model.capture(ids(), "blocks.*")
        model.logits(ids(), edits=[interp.ablate(resid(1))])
        with pytest.raises(ZeroDivisionError):
            model.logits(ids(), edits=[interp.edit(resid(1), lambda t: t / (1 // 0))])
    assert list(module.state_dict()) == keys
    assert all(torch.equal(module.state_dict()[k], before[k]) for k in keys)
    assert module.training
    assert all(m.training for m in module.modules())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in module.modules())
    if family != "mamba":
        assert module.config._attn_implementation == "sdpa"


@families
def test_the_residual_stream_is_the_sum_of_what_is_written_to_it(family: str) -> None:
    model = loaded(family, "transformers")
    assert model.anatomy is not None
    if not model.anatomy.is_sum:
        pytest.skip("the stream of a post-norm encoder is no plain sum")
    acts = model.capture(ids(), "*")
    total = acts["blocks.0.hook_resid_pre"]
    for layer in range(model.n_layers):
        for kind in ("attn_out", "mixer_out", "mlp_out"):
            site = Site(kind=kind, layer=layer)
            total = total + acts[site] if site in acts else total
    torch.testing.assert_close(total, acts[resid(model.n_layers - 1)], atol=1e-5, rtol=1e-5)


@families
def test_heads_through_their_output_weights_sum_to_the_attention_output(family: str) -> None:
    model = loaded(family, "transformers")
    if model.n_heads is None:
        pytest.skip("no attention heads")
    assert model.anatomy is not None
    acts = model.capture(ids(), ["blocks.1.attn.hook_result", "blocks.1.hook_attn_out"])
    attn = model.anatomy.blocks[1].attn
    assert attn is not None
    bias = getattr(model.submodule(attn.o.path), "bias", None)
    total = acts["blocks.1.attn.hook_result"].sum(2) + (0 if bias is None else bias)
    torch.testing.assert_close(total, acts["blocks.1.hook_attn_out"], atol=1e-5, rtol=1e-5)


@families
def test_padding_changes_no_real_token(family: str) -> None:
    model = loaded(family, "transformers")
    rows = [ids(1, 7)[0].tolist(), ids(1, 4, seed=5)[0].tolist()]
    sides = (
        ["right"] if family == "bert" else ["right", "left"]
    )  # an encoder's absolute positions would shift
    for side in sides:
        tokens = interp.Tokens.of(rows, side=side)
        acts = model.capture(tokens, resid(1))
        alone = model.capture(torch.tensor([rows[1]]), resid(1))
        torch.testing.assert_close(
            acts[resid(1)][1][tokens.mask[1]], alone[resid(1)][0], atol=1e-5, rtol=1e-4
        )
        assert acts.rows(resid(1)).shape[0] == 11


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "bert"])
def test_generation_with_the_cache_equals_generation_without(family: str) -> None:
    model = loaded(family, "transformers")
    tokens = interp.Tokens.of([ids(1, 6)[0].tolist(), ids(1, 4, seed=5)[0].tolist()], side="left")
    other = model.capture(ids(2, 6, seed=9), resid(1))
    kinds = {
        "none": [],
        "steering": [interp.add(resid(1), torch.linspace(-1, 1, 32), scale=2.0)],
        "one position": [interp.ablate(resid(0), position=2)],
        "the prompt's end": [interp.add(resid(0), 3.0, position=-1)],
        "the last real token": [interp.add(resid(0), 3.0, position="last")],
        "a position to come": [interp.add(resid(0), 3.0, position=[7])],
        "another prompt": [interp.patch(resid(1), other)],
        "a mean a position": [interp.ablate(resid(1), how="mean", over="position", reference=other)],
        "other examples": [interp.ablate(resid(1), how="resample", reference=other, seed=1)],
    }
    if family != "mamba":
        pattern = "blocks.1.attn.hook_pattern"
        kinds["another pattern"] = [interp.patch(pattern, model.capture(ids(2, 6, seed=9), pattern))]
    made = {}
    for name, edits in kinds.items():
        made[name] = model.generate(tokens, max_new_tokens=6, edits=edits, stop_at_eos=False).ids
        without = model.generate(
            tokens, max_new_tokens=6, edits=edits, stop_at_eos=False, use_cache=False
        ).ids
        assert torch.equal(made[name], without), name
        assert made[name].shape == (2, 12)
    assert sum(not torch.equal(made["none"], new) for new in made.values()) >= 2  # some edits do act


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_greedy_generation_equals_the_librarys_own(family: str) -> None:
    module = shared_model(family)
    own = loaded(family, "transformers").generate(ids(2, 5), max_new_tokens=8, stop_at_eos=False)
    with quiet(), torch.no_grad():
        theirs = module.generate(
            ids(2, 5),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            attention_mask=torch.ones(2, 5, dtype=torch.long),
        )
    assert torch.equal(own.ids, theirs)


@pytest.mark.parametrize("family", ["gpt_neox_serial", "gemma", "qwen3", "gemma2", "olmo2"])
def test_relatives_of_the_families_get_the_vocabulary_and_pass_the_audit(family: str) -> None:
    with quiet():
        model = interp.load(random_model(family))
    assert model.anatomy is not None
    assert {"resid_pre", "resid_mid", "resid_post", "z", "pattern", "mlp_post"} <= {
        s.kind for s in model.sites
    }
    assert model.audit(ids(), [s for s in model.sites if s.layer in (1, None)]).inert == ()
    acts = model.capture(ids(), "*")
    total = acts["blocks.0.hook_resid_pre"] + sum(
        acts[Site(kind=kind, layer=layer)] for layer in range(3) for kind in ("attn_out", "mlp_out")
    )
    torch.testing.assert_close(total, acts[resid(2)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["granite", "olmo"])
def test_what_only_looks_like_a_family_is_reached_by_module_path(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    with quiet():
        model = interp.load(random_model(family))
    assert model.anatomy is None
    assert "it is reached by module paths only" in caplog.text
    assert model.capture(ids(), "model.layers.1")["model.layers.1"].shape == (2, 7, 32)


def test_positions_that_begin_behind_the_padding_id_are_kept() -> None:
    with quiet():
        model = interp.load(random_model("roberta"))
    assert model.n_ctx == CONTEXT - 2
    tokens = interp.Tokens.of([[5, 6, 7, 8, 9, 10], [11, 12, 13]], side="left", pad=1)
    alone = model.logits(torch.tensor([[11, 12, 13]]))
    torch.testing.assert_close(model.logits(tokens)[1, 3:], alone[0], atol=1e-5, rtol=1e-4)


def test_an_architecture_we_do_not_know_is_reached_by_module_path() -> None:
    with quiet():
        model = interp.load(random_model("opt"))
    assert model.anatomy is None
    site = "model.decoder.layers.0"
    acts = model.capture(ids(), [site, f"{site}:in"])
    assert acts[site].shape == (2, 7, 32)
    assert not torch.equal(model.logits(ids(), edits=[interp.ablate(site)]), model.logits(ids()))
    with pytest.raises(interp.SiteError, match="no site 'blocks.0.hook_resid_post'"):
        model.capture(ids(), resid(0))
