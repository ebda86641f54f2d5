"""Latents in use: what each edit does to the activation, in a pass and in generation, and beside random latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
import sae
from interp.errors import InputError
from tests.models import ids, loaded

SITE = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model() -> interp.Model:
    return loaded("gpt2", "transformers")


@pytest.fixture(scope="module")
def coder(model: interp.Model) -> sae.Coder:
    return sae.Coder(model.d_model or 0, 64, 4, seed=3)


def held(model: interp.Model, edits: list[interp.Edit]) -> Tensor:
    return model.capture(ids(), SITE, edits=edits)[SITE]


def test_steering_adds_the_direction_and_nothing_else(model: interp.Model, coder: sae.Coder) -> None:
    edit = sae.steer(coder, SITE, [3, 5], amount=2.5, position=4)
    moved = held(model, [edit]) - held(model, [])
    want = 2.5 * (coder.W_dec[3] + coder.W_dec[5]).detach()
    torch.testing.assert_close(moved[:, 4], want.expand(2, -1), atol=1e-5, rtol=1e-4)
    assert float(moved[:, [0, 1, 2, 3, 5, 6]].abs().max()) == 0


def test_ablating_takes_a_latents_own_contribution_away(model: interp.Model, coder: sae.Coder) -> None:
    before = held(model, [])
    codes = coder.encode(before).detach()
    latent = int((codes != 0).sum((0, 1)).argmax())
    after = held(model, [sae.ablate(coder, SITE, latent)])
    want = before - codes[..., latent, None] * coder.W_dec[latent].detach()
    torch.testing.assert_close(after, want, atol=1e-5, rtol=1e-4)
    silent = int((codes != 0).sum((0, 1)).argmin())
    assert float(codes[..., silent].abs().max()) == 0
    assert torch.equal(held(model, [sae.ablate(coder, SITE, silent)]), before)


def test_clamping_holds_a_code_where_it_fires_or_everywhere(model: interp.Model, coder: sae.Coder) -> None:
    before = held(model, [])
    codes = coder.encode(before).detach()
    latent = int((codes != 0).sum((0, 1)).argmax())
    direction = coder.W_dec[latent].detach()
    everywhere = held(model, [sae.clamp(coder, SITE, latent, value=3.0)]) - before
    torch.testing.assert_close(everywhere, (3 - codes[..., latent, None]) * direction, atol=1e-5, rtol=1e-3)
    active = held(model, [sae.clamp(coder, SITE, latent, value=3.0, where="active")]) - before
    on = codes[..., latent] != 0
    torch.testing.assert_close(active[on], everywhere[on])
    assert float(active[~on].abs().max()) == 0
    whole = held(model, [sae.clamp(coder, SITE, latent, value=3.0, keep_error=False)])
    changed = codes.clone()
    changed[..., latent] = 3
    torch.testing.assert_close(whole, coder.decode(changed).detach(), atol=1e-5, rtol=1e-4)


def test_generation_is_steered_at_every_new_token(model: interp.Model) -> None:
    unembed = model.module.lm_head.weight.detach()
    token = 17
    coder = sae.Coder(model.d_model or 0, 64, 4)
    with torch.no_grad():
        coder.W_dec[9] = unembed[token] / unembed[token].norm()
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    edit = sae.steer(coder, last, 9, amount=200.0)
    made = model.generate(ids(), max_new_tokens=4, edits=[edit], stop_at_eos=False)
    assert (made.ids[:, 7:] == token).all()
    plain = model.generate(ids(), max_new_tokens=4, stop_at_eos=False)
    assert not (plain.ids[:, 7:] == token).all()


def test_a_latent_that_writes_a_token_beats_random_latents_of_equal_length(model: interp.Model) -> None:
    unembed = model.module.lm_head.weight.detach()
    coder = sae.Coder(model.d_model or 0, 64, 4, seed=1)
    with torch.no_grad():
        coder.W_dec[9] = 0.5 * unembed[17] / unembed[17].norm()
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1].log_softmax(-1)[:, 17]

    found = sae.effect_curve(coder, model, ids(), last, 9, amounts=(0.0, 1.0, 4.0), metric=metric)
    assert np.asarray(found.value)[0] == pytest.approx(0)
    np.testing.assert_allclose(found.rank[1:], 1 / 21)
    assert np.all(np.diff(np.asarray(found.value, dtype=float)) > 0)
    direction = coder.W_dec[9].detach()
    by_hand = metric(model.logits(ids(), edits=[interp.add(last, direction, scale=4.0)])) - metric(
        model.logits(ids())
    )
    assert np.asarray(found.value)[2] == pytest.approx(float(by_hand.double().mean()), rel=1e-4)
    other = sae.effect_curve(coder, model, ids(), last, 30, amounts=(4.0,), metric=metric)
    assert other.rank[0] > 1 / 21
    assert len(found.plot().data) >= 2


def test_the_default_effect_is_a_divergence_over_real_tokens(model: interp.Model, coder: sae.Coder) -> None:
    tokens = model.tokens([[5, 6, 7], [3, 2]])
    found = sae.effect_curve(coder, model, tokens, SITE, 3, amounts=(5.0,), n_random=3)
    edit = sae.steer(coder, SITE, 3, amount=5.0)
    logp, logq = (model.logits(tokens, edits=e).double().log_softmax(-1) for e in ([], [edit]))
    kl = (logp.exp() * (logp - logq)).sum(-1)
    want = (kl[0].mean() + kl[1, :2].mean()) / 2
    assert float(np.asarray(found.value)[0]) == pytest.approx(float(want), rel=1e-4)


def test_bad_latents_and_sites_are_named(model: interp.Model, coder: sae.Coder) -> None:
    with pytest.raises(InputError, match="latent 64: this coder has 64, 0-63"):
        sae.steer(coder, SITE, 64, amount=1.0)
    with pytest.raises(InputError, match="no latent was named"):
        sae.ablate(coder, SITE, [])
    with pytest.raises(InputError, match="another site"):
        held(model, [sae.steer(coder, "blocks.0.mlp.hook_post", 1, amount=1.0)])
    with pytest.raises(InputError, match="'everywhere' or 'active'"):
        sae.clamp(coder, SITE, 1, where="somewhere")
    with pytest.raises(InputError, match="there are 63 to draw from"):
        sae.effect_curve(coder, model, ids(), SITE, 3, amounts=(1.0,), n_random=64)
