"""Heads and positions are told apart in one sweep."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import InputError, SiteError
from interp.toys import Shape, Transformer
from probes import by_position, sweep


def test_heads_and_positions_are_told_apart_in_one_call() -> None:
    module = Transformer(
        Shape(d_vocab=9, n_ctx=8, n_layers=2, d_model=16, n_heads=2, d_mlp=32),
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():  # the heads of the first layer attend to all tokens so far alike
        for p in (module.blocks[0].attn.q, module.blocks[0].attn.k):
            p.weight.zero_()
    model, ids = interp.load(module), torch.randint(9, (60, 8), generator=torch.Generator().manual_seed(1))
    tokens, labels = interp.Tokens.full(ids), (ids > 4).long()
    first = labels[:, :1].expand_as(labels).contiguous()
    found = sweep(
        model, by_position(first, [0, 7]), "blocks.*.attn.hook_z[*]", tokens=tokens, seeds=[0], probe="lda"
    )
    assert list(found) == ["position 0", "position 7"]
    early, late = (one.to_frame() for one in found.values())
    assert early.site.tolist() == [f"blocks.{i}.attn.hook_z[{h}]" for i in (0, 1) for h in (0, 1)]
    assert set(early.n) == set(late.n) == {60}
    # a mean over the tokens so far: the first token itself at position 0, an eighth of it at position 7
    assert early.value[:2].min() > 0.9 > late.value[:2].max()
    with pytest.raises(InputError, match="position 9 of labels with 8 columns"):
        by_position(labels, [9])
    with pytest.raises(SiteError, match="hook_resid_post' has no heads"):
        sweep(model, labels, "blocks.0.hook_resid_post[*]", tokens=tokens)
