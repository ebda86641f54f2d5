"""Whether two coders do the same: codes and reconstructions side by side on rows that make latents fire."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError
from sae.coder import Coder

__all__ = ["agreement", "telling_rows"]

_PIECE = 32


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
def agreement(
    a: Coder, b: Coder, *, n_rows: int = 256, seed: int = 0, tolerance: float = 1e-5
) -> dict[str, float | int]:
    """How far codes and reconstructions of two coders lie apart, each over the largest of its kind.

    A row on which they differ by more than ``tolerance`` counts as undecided, and not as different, where ``a`` itself
    keeps other latents once its weights are moved by a few roundings: latents equal up to rounding may change places.

    Returns
    -------
    dict
        ``codes`` and ``rows``, the largest differences; ``undecided``, rows left out of them; ``l0``; ``n_rows``.

    Raises
    ------
    InputError
        Coders of different widths.
    """
    if (a.d_in, a.d_sae, a.d_out) != (b.d_in, b.d_sae, b.d_out):
        raise InputError(f"{a} and {b} are not of the same widths")
    x = telling_rows(a, n_rows, seed=seed)
    used, apart = 0, []
    for rows in x.split(_PIECE):
        codes = [coder.encode(rows) for coder in (a, b)]
        made = [coder.decode(z, rows) for coder, z in zip((a, b), codes, strict=True)]
        used += int((codes[0] != 0).sum())
        apart.append(torch.cat([_each(*codes), _each(*made)], 1))
    away = torch.cat(apart)  # [sample, 4]: codes' difference and size, rows' difference and size
    differ = away[:, [0, 2]] / away[:, [1, 3]].amax(0).clamp_min(1e-300)
    doubtful = (differ > tolerance).any(1).nonzero().squeeze(1)
    left_out = doubtful[_undecided(a, x[doubtful], seed)]
    differ[left_out] = 0.0
    return {
        "codes": float(differ[:, 0].max()),
        "rows": float(differ[:, 1].max()),
        "undecided": len(left_out),
        "l0": used / n_rows,
        "n_rows": n_rows,
    }


def _each(a: Tensor, b: Tensor) -> Tensor:
    """[sample, 2] the largest difference in each row, and the largest entry."""
    a, b = a.double(), b.double()
    return torch.stack([(a - b).abs().amax(1), torch.maximum(a.abs(), b.abs()).amax(1)], 1)


def _undecided(coder: Coder, rows: Tensor, seed: int) -> Tensor:
    """[sample] whether a few roundings of the coder's weights make it keep other latents of a row."""
    generator = torch.Generator().manual_seed(seed + 1)
    found = torch.zeros(len(rows), dtype=torch.bool)
    if not len(rows):
        return found
    kept, moved = coder.encode(rows) != 0, coder.alike()
    for _ in range(16):
        for name, value in coder.state_dict().items():
            noise = torch.randn(value.shape, generator=generator).to(value) * value.abs().mean()
            moved.state_dict()[name].copy_(value + 16 * torch.finfo(value.dtype).eps * noise)
        found |= ((moved.encode(rows) != 0) != kept).any(1)
    return found
