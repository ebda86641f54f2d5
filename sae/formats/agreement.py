"""Whether two coders do the same: codes and reconstructions side by side on rows that make latents fire."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from sae.coder import Coder

__all__ = ["agreement", "telling_rows"]


def telling_rows(coder: Coder, n: int, *, seed: int) -> Float[Tensor, "sample d_in"]:
    """Rows about where the coder works: b_dec, and random sums of what its latents look for, of their size."""
    generator = torch.Generator().manual_seed(seed)
    sought = coder.W_dec if coder.rule.tied else coder.W_enc.T
    weights = torch.rand(n, coder.d_sae, generator=generator).pow(8).to(sought)
    rows = weights @ (sought / sought.norm(dim=1, keepdim=True).clamp_min(1e-12))
    size = (
        coder.W_dec.norm(dim=1).mean() * coder.k**0.5 + coder.b_enc.abs().mean()
        if not coder.rule.tied
        else 1.0
    )
    rows = rows * (size / rows.norm(dim=1, keepdim=True).clamp_min(1e-12))
    spread = torch.linspace(0.25, 4.0, n).to(rows)[:, None]
    return rows * spread + (coder.b_dec if coder.centred else 0.0)


@torch.no_grad()
def agreement(a: Coder, b: Coder, *, n_rows: int = 256, seed: int = 0) -> dict[str, float | int]:
    """Largest difference of codes and of reconstructions, each over the largest of its kind; and the codes used.

    Raises
    ------
    InputError
        Coders of different widths.
    """
    if (a.d_in, a.d_sae, a.d_out) != (b.d_in, b.d_sae, b.d_out):
        raise InputError(f"{a} and {b} are not of the same widths")
    x = telling_rows(a, n_rows, seed=seed)
    codes = [coder.encode(x).double() for coder in (a, b)]
    rows = [coder.decode(z.to(coder.W_dec.dtype), x).double() for coder, z in zip((a, b), codes, strict=True)]
    return {
        "codes": _apart(*codes),
        "rows": _apart(*rows),
        "l0": float((codes[0] != 0).sum() / n_rows),
        "n_rows": n_rows,
    }


def _apart(a: Tensor, b: Tensor) -> float:
    size = max(float(a.abs().max()), float(b.abs().max()))
    return float((a - b).abs().max()) / size if size > 0 else 0.0
