"""The fused kernels equal the eager products; without a GPU they are run by Triton's interpreter in a child."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from sae.products import fused

AGREE = """
import torch
from sae.products import fused, read, write
from sae.selection import Support
import os

def products(dtype, n, f, d, k):
    generator = torch.Generator().manual_seed(1)
    counts = torch.randint(0, k + 1, (n,), generator=torch.Generator().manual_seed(2))
    col = torch.cat([torch.randperm(f, generator=generator)[: int(c)] for c in counts])
    starts = torch.zeros(n + 1, dtype=torch.long)
    starts[1:] = counts.cumsum(0)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    support = Support(starts.to(place), col.to(place), f)
    draw = lambda *s: torch.randn(*s, generator=generator).to(place, dtype).requires_grad_()
    x, encoder, bias, decoder = draw(n, d), draw(d, f), draw(f), draw(f, d)
    at = (x @ encoder + bias)[support.row, support.col].detach()
    if dtype == torch.bfloat16:  # rounded rows and weights, float32 sums
        rows, low = x.detach(), decoder.detach()
        encoder, bias, decoder = (t.detach().float().requires_grad_() for t in (encoder, bias, decoder))
        out = write(torch.relu(read(rows, None, encoder, bias, at.float(), support)), decoder, support, low)
        out.square().sum().backward()
        assert {t.grad.dtype for t in (encoder, bias, decoder)} == {torch.float32} == {out.dtype}
        return [out.detach()] + [t.grad for t in (encoder, bias, decoder)]
    out = write(torch.relu(read(x, None, encoder, bias, at, support)), decoder, support)
    out.square().sum().backward()
    return [out.detach()] + [t.grad for t in (x, encoder, bias, decoder)]

cases = [(s, t) for s in ((9, 40, 200, 6), (3, 7, 128, 5), (5, 30, 33, 1)) for t in (torch.float32, torch.bfloat16)]
for shape, dtype in cases:
    found = {}
    for name in ("1", "0"):
        os.environ["TRITON_INTERPRET"] = name if not torch.cuda.is_available() else "0"
        if torch.cuda.is_available():
            import sae.kernels
            sae.kernels.AVAILABLE = name == "1"
        place = "cuda" if torch.cuda.is_available() else "cpu"
        assert (fused(torch.zeros(1, device=place)) is not None) == (name == "1")
        found[name] = products(dtype, *shape)
    for fast, slow in zip(found["1"], found["0"], strict=True):
        # float32 sums in another order
        torch.testing.assert_close(fast, slow, atol=2e-5 * float(slow.abs().max()) + 1e-6, rtol=1e-5)
print("agree")
"""


def test_off_a_gpu_and_in_float64_the_eager_form_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert fused(torch.zeros(2)) is None
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert fused(torch.zeros(2, dtype=torch.float64)) is None


@pytest.mark.slow
def test_kernels_have_the_values_and_gradients_of_the_eager_products() -> None:
    """On a GPU, or with Triton's interpreter on any machine where Triton is installed."""
    pytest.importorskip("triton")
    environment = os.environ | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AGREE],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stdout.strip() == "agree", done.stderr[-2000:]
