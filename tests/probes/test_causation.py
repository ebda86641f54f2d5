"""Encoded and used, encoded and unused, not encoded: each verdict where the truth was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.toys import Shape, Transformer
from probes import LDAProbe, ablate, causal_use, direction, patch_along, steer

SITE = "blocks.0.hook_resid_pre"
D, SILENT = 24, 8


def widened() -> Transformer:
    """The last directions carry the parity of the token and are read by nothing; the logits read the half."""
    module = Transformer(
        Shape(d_vocab=12, n_ctx=6, n_layers=1, d_model=D, n_heads=2, d_mlp=32),
        generator=torch.Generator().manual_seed(0),
    )
    ids = torch.arange(12)
    with torch.no_grad():
        block = module.blocks[0]
        for reader in (block.attn.q, block.attn.k, block.attn.v, block.mlp.up, module.unembed):
            reader.weight[:, -SILENT:] = 0
        for writer in (block.attn.o, block.mlp.down):
            writer.weight[-SILENT:] = 0
            writer.weight *= 0.3
        module.pos_embed.weight[:, -SILENT:] = 0
        module.embed.weight[:, -SILENT:] = 0.0
        module.embed.weight[:, -SILENT:] += torch.where(ids[:, None] % 2 == 1, 1.0, -1.0)
        module.embed.weight[:, :4] += torch.where(ids[:, None] >= 6, 1.5, -1.5)
        module.unembed.weight[6:, :4] += 1.0
        module.unembed.weight[:6, :4] -= 1.0
    return module


def setting() -> tuple[interp.Model, interp.Tokens, torch.Tensor]:
    ids = torch.randint(12, (80, 6), generator=torch.Generator().manual_seed(1))
    return interp.load(widened()), interp.Tokens.full(ids), ids


def high_against_low(logits: torch.Tensor) -> torch.Tensor:
    return (logits[..., 6:].mean(-1) - logits[..., :6].mean(-1)).mean(1)


def test_a_label_that_the_logits_read_is_encoded_and_used() -> None:
    model, tokens, ids = setting()
    found = causal_use(model, tokens, SITE, (ids >= 6).long(), high_against_low, controls=19, seeds=[0])
    assert found.verdict == "encoded and used"
    assert found.p_value == pytest.approx(0.05)
    effect = np.asarray(found.value)
    assert (np.diff(effect) > 0).all()  # more dose, more effect
    assert effect[0] > found.chance[0]
    assert len(found.plot().data) == 3


def test_a_label_written_where_nothing_reads_is_encoded_and_not_used() -> None:
    model, tokens, ids = setting()
    rows = model.capture(tokens, SITE).rows(SITE)
    probe = LDAProbe().fit(rows.numpy(), (ids % 2).flatten().numpy())
    silent = direction(probe, SITE)
    exact = torch.zeros(D, dtype=torch.float64)
    exact[-SILENT:] = 1.0
    planted = type(silent)(site=SITE, vector=exact, origin=silent.origin, name="planted")
    for along in (None, planted):
        found = causal_use(
            model, tokens, SITE, ids % 2, high_against_low, along=along, controls=19, seeds=[0]
        )
        assert found.verdict == "encoded, not used"
        assert found.accuracy > 0.99
    assert np.abs(found.value).max() < 1e-6  # the planted direction reaches no logit at all
    assert abs(found.ablation) < 1e-6


def test_a_random_label_is_not_encoded() -> None:
    model, tokens, ids = setting()
    noise = torch.randint(2, ids.shape, generator=torch.Generator().manual_seed(3))
    found = causal_use(model, tokens, SITE, noise, high_against_low, controls=19, seeds=[0, 1])
    assert found.verdict == "not encoded"
    assert found.accuracy_interval[0] <= found.nothing


def test_edits_along_a_direction_do_what_they_say_and_leave_the_rest() -> None:
    model, tokens, ids = setting()
    rows = model.capture(tokens, SITE).rows(SITE)
    along = direction(LDAProbe().fit(rows.numpy(), (ids >= 6).long().flatten().numpy()), SITE)
    assert isinstance(along, interp.Direction)
    unit = (along.vector / along.vector.norm()).float()
    plain = model.capture(tokens, SITE)[SITE]

    def after(edit: interp.Edit) -> tuple[torch.Tensor, torch.Tensor]:
        value = model.capture(tokens, SITE, edits=[edit])[SITE]
        rest = (value - plain) - ((value - plain) @ unit)[..., None] * unit
        return value @ unit, rest.abs().max()

    pushed, rest = after(steer(along, 2.5))
    torch.testing.assert_close(pushed, plain @ unit + 2.5, atol=1e-5, rtol=0)
    assert rest < 1e-5
    level, rest = after(ablate(along))
    assert level.std() < 1e-5
    assert level.mean() == pytest.approx(float((plain @ unit).mean()), abs=1e-4)
    assert rest < 1e-5
    other = interp.Tokens.full(ids.flip(0))
    source = model.capture(other, SITE)
    carried, rest = after(patch_along(along, source))
    torch.testing.assert_close(carried, source[SITE] @ unit, atol=1e-5, rtol=0)
    assert rest < 1e-5
    one = model.capture(tokens, SITE, edits=[steer(along, 1.0, position="last")])[SITE]
    torch.testing.assert_close(one[:, :-1], plain[:, :-1])


def test_what_has_no_direction_or_no_verdict_is_named() -> None:
    model, tokens, ids = setting()
    rows = model.capture(tokens, SITE).rows(SITE).numpy()
    three = LDAProbe().fit(rows, (ids % 3).flatten().numpy())
    with pytest.raises(InputError, match="knows 3 classes; say of which"):
        direction(three, SITE)
    with pytest.raises(InputError, match="knows no class 7"):
        direction(three, SITE, of=7)
    assert direction(three, SITE, of=1).vector.shape == (D,)
    with pytest.raises(InputError, match=r"has classes \[0, 1, 2\]; a verdict is given on two"):
        causal_use(model, tokens, SITE, ids % 3, high_against_low, controls=19, seeds=[0])
    with pytest.raises(InputError, match="needs at least 19"):
        causal_use(model, tokens, SITE, ids % 2, high_against_low, controls=5)
