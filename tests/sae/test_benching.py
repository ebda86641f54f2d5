"""SAEBench's contract for custom SAEs, item by item, and that nothing about the coder changes."""

from __future__ import annotations

import pytest
import torch

import sae
from interp.errors import InputError
from sae.rules import RULES


@pytest.mark.parametrize("kind", RULES)
def test_the_adapter_keeps_the_contract_and_every_reconstruction(kind: str) -> None:
    coder = sae.Coder(12, 64, 4, kind=kind, seed=2)
    with torch.no_grad():
        coder.W_dec.mul_(torch.linspace(0.5, 3, 64)[:, None])
        coder.b_dec.normal_(generator=torch.Generator().manual_seed(1))
        coder.W_dec[5] = 0
    before = {name: value.clone() for name, value in coder.state_dict().items()}
    bench = sae.saebench(coder, model_name="gpt2-small", site="blocks.3.hook_resid_post")
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bench(x), coder(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(bench.decode(bench.encode(x)), bench(x))
    torch.testing.assert_close(bench.encode(x) > 0, (coder.encode(x) > 0) & (coder.W_dec.norm(dim=1) > 0))
    assert bench.check_decoder_norms()
    shapes = (bench.W_enc.shape, bench.W_dec.shape, bench.b_enc.shape, bench.b_dec.shape)
    assert shapes == ((12, 64), (64, 12), (64,), (12,))
    cfg = bench.cfg
    assert (cfg.model_name, cfg.d_in, cfg.d_sae, cfg.dtype) == ("gpt2-small", 12, 64, "float32")
    assert (cfg.hook_layer, cfg.hook_name) == (3, "blocks.3.hook_resid_post")
    assert cfg.to_dict()["training_tokens"] == -100_000
    for name, value in coder.state_dict().items():
        assert torch.equal(value, before[name])


def test_moving_the_adapter_moves_what_it_says_of_itself() -> None:
    bench = sae.saebench(sae.Coder(12, 64, 4), model_name="m", site="blocks.0.hook_resid_post")
    assert bench.to(dtype=torch.bfloat16) is bench
    assert (bench.dtype, bench.cfg.dtype) == (torch.bfloat16, "bfloat16")
    codes = bench.encode(torch.ones(3, 12, dtype=torch.bfloat16))
    assert (codes.dtype, bench.decode(codes).dtype) == (torch.bfloat16, torch.bfloat16)
    assert bench.check_decoder_norms()


def test_what_is_no_autoencoder_of_a_layer_is_refused() -> None:
    with pytest.raises(InputError, match="a transcoder"):
        sae.saebench(sae.Coder(4, 8, 2, wiring="transcoder"), model_name="m", site="blocks.0.hook_resid_post")
    with pytest.raises(InputError, match="no layer"):
        sae.saebench(sae.Coder(4, 8, 2), model_name="m", site="hook_embed")
