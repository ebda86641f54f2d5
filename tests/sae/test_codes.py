"""Sparse codes are the dense ones, row for row, whatever the kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sae
from interp.errors import InputError
from sae.codes import codes_of_rows, sparse_codes
from sae.rules import RULES
from tests.models import loaded

SITE = "blocks.0.hook_resid_post"


@pytest.mark.parametrize("kind", RULES)
def test_sparse_codes_are_the_dense_ones(kind: str) -> None:
    coder = sae.Coder(12, 64, 4, kind=kind, seed=2)
    if coder.rule.pooled:
        coder.threshold.fill_(0.3)
    rows = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    dense = coder.encode(rows).detach()
    np.testing.assert_allclose(sparse_codes(coder, rows).toarray(), dense, atol=1e-6)  # another order of sums
    codes = codes_of_rows(coder, rows)
    np.testing.assert_allclose(codes.dense(range(64)), dense, atol=1e-6)
    assert codes.l0 == pytest.approx(float((dense != 0).sum(1).double().mean()))
    np.testing.assert_allclose(codes.strongest, dense.abs().amax(0), atol=1e-6)
    np.testing.assert_array_equal(codes.counts, (dense != 0).sum(0))


def test_pieces_do_not_change_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    coder, rows = sae.Coder(12, 64, 4), torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    whole = sparse_codes(coder, rows).toarray()
    monkeypatch.setattr("sae.codes._CELLS", 64 * 7)
    np.testing.assert_allclose(sparse_codes(coder, rows).toarray(), whole, atol=1e-6)


def test_codes_of_texts_know_where_each_row_stood() -> None:
    model = loaded("gpt2", "transformers")
    tokens = model.tokens([[5, 6, 7], [3, 2], [9, 8, 7]])
    coder = sae.Coder(model.d_model or 0, 64, 4)
    codes = sae.encode(coder, model, tokens, SITE, batch_size=2)
    np.testing.assert_array_equal(codes.ids, [5, 6, 7, 3, 2, 9, 8, 7])
    dense = coder.encode(model.capture(tokens, SITE).rows(SITE)).detach()
    np.testing.assert_allclose(codes.dense(range(64)), dense, atol=1e-5)
    rows, values = codes.of(int(codes.counts.argmax()))
    assert list(rows) == sorted(rows)
    assert (values != 0).all()
    np.testing.assert_array_equal(codes.of_texts(tokens.ids), codes.ids)
    without = sae.encode(coder, model, tokens, SITE, skip_first=True)
    np.testing.assert_array_equal(without.ids, [6, 7, 2, 8, 7])


def test_what_does_not_fit_is_named() -> None:
    model = loaded("gpt2", "transformers")
    with pytest.raises(InputError, match=r"reads rows of width 5; blocks.0.hook_resid_post holds"):
        sae.encode(sae.Coder(5, 8, 2), model, torch.tensor([[1, 2]]), SITE)
    codes = codes_of_rows(sae.Coder(5, 8, 2), torch.ones(3, 5))
    with pytest.raises(InputError, match="latent 8: this coder has 8, 0-7"):
        codes.of(8)
    with pytest.raises(InputError, match="codes of bare rows"):
        _ = codes.ids
    with pytest.raises(InputError, match="there are no texts"):
        sae.encode(sae.Coder(5, 8, 2), model, [], SITE)
