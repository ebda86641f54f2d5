"""HSIC: the covariance of two kernels, biased and debiased, in whichever space is cheaper, with blocks left out.

Biased: |Xc'Yc|_F^2. Debiased: HSIC_1 of Song et al. 2012 (eq. 5). Both need three numbers only, sum K o L, 1'KL1 and
(1'K1)(1'L1) (K, L without diagonals in the debiased form), and each of them comes from n x n Grams or, with
C = X'Y, k_i = |x_i|^2, l_i = |y_i|^2 and column sums sx, sy, from d x d sums:
tr(K~L~) = |C|^2 - k.l;  1'K~1 = |sx|^2 - sum k;  1'K~L~1 = sx'C sy - sx'(X'l) - sy'(Y'k) + k.l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.moments.sums import Sums, self_product

__all__ = ["FeatureSide", "GramSide", "combine", "feature_sides", "gram_sides", "hsic", "hsic_of_sums"]


def combine(
    trace: Tensor, mixed: Tensor, ones: Tensor, n: Tensor, *, unbiased: bool
) -> Float64[Tensor, "..."]:
    """HSIC from sum K o L, 1'KL1 and (1'K1)(1'L1); up to a constant power of n in the biased form."""
    if unbiased:
        return (trace + ones / ((n - 1) * (n - 2)) - 2 / (n - 2) * mixed) / (n * (n - 3))
    return trace - 2 / n * mixed + ones / n**2


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSide:
    """Centred rows by block, and what no partner changes; entry 0 of ``kept`` sums leaves nothing out."""

    blocks: list[Tensor]
    lengths: list[Tensor]
    sums: Float64[Tensor, "subset d"]
    totals: Float64[Tensor, "subset"]
    n: Float64[Tensor, "subset"]


def _subsets(parts: Tensor) -> Tensor:
    """The sum over blocks, then with each block left out; a single block is the whole."""
    total = parts.sum(0, keepdim=True)
    return torch.cat([total, total - parts]) if len(parts) > 1 else total


def feature_sides(
    rows: Sequence[Tensor], blocks: Sequence[Tensor], *, dtype: torch.dtype
) -> list[FeatureSide]:
    """Each of ``rows`` (centred) cut into blocks; products will be taken in ``dtype``, sums are float64."""
    out = []
    for x in rows:
        lengths = x.square().sum(1, dtype=torch.float64)
        cut = [x[b] for b in blocks] or [x]
        k = [lengths[b] for b in blocks] or [lengths]
        out.append(
            FeatureSide(
                [piece.to(dtype) for piece in cut],
                k,
                _subsets(torch.stack([piece.sum(0, dtype=torch.float64) for piece in cut])),
                _subsets(torch.stack([piece.sum() for piece in k])),
                _subsets(torch.tensor([len(piece) for piece in k], dtype=torch.float64, device=x.device)),
            )
        )
    return out


@dataclass(frozen=True, slots=True, eq=False)
class GramSide:
    """The Gram matrix, and its row sums over what each subset keeps."""

    gram: Float[Tensor, "sample sample"]
    row_sums: Float64[Tensor, "sample subset"]
    ones: Float64[Tensor, "subset"]
    kept: Float[Tensor, "sample subset"]
    within: tuple[tuple[Tensor, Tensor], ...]
    """The rows of each block, and the Gram among them."""


def gram_sides(grams: Sequence[Tensor], blocks: Sequence[Tensor], *, unbiased: bool) -> list[GramSide]:
    """Sides from Grams [sample, sample]; their diagonals are cleared, in place, in the debiased form."""
    kept = torch.ones(len(grams[0]), len(blocks) + 1, dtype=grams[0].dtype, device=grams[0].device)
    for j, block in enumerate(blocks):
        kept[block, j + 1] = 0
    out = []
    for gram in grams:
        if unbiased:
            gram.fill_diagonal_(0)
        row_sums = (gram @ kept).double()
        within = tuple((block, gram[block][:, block].flatten()) for block in blocks)
        out.append(GramSide(gram, row_sums, (kept * row_sums).sum(0), kept, within))
    return out


def hsic(
    x: FeatureSide | GramSide, y: FeatureSide | GramSide, *, unbiased: bool
) -> Float64[Tensor, "subset"]:
    """HSIC on all rows, then with each block left out."""
    if isinstance(x, GramSide) and isinstance(y, GramSide):
        # one dot product a row: no n x n product is made; a block left out takes its rows and columns along
        rows = torch.bmm(x.gram[:, None, :], y.gram[:, :, None]).flatten().double()
        total = rows.sum()
        left = [
            total - 2 * rows[block].sum() + (own @ other).double()
            for (block, own), (_, other) in zip(x.within, y.within, strict=True)
        ]
        trace = torch.stack([total, *left])
        mixed = (x.kept * x.row_sums * y.row_sums).sum(0)
        return combine(trace, mixed, x.ones * y.ones, x.kept.sum(0, dtype=torch.float64), unbiased=unbiased)
    assert isinstance(x, FeatureSide) and isinstance(y, FeatureSide)  # noqa: PT018  (both or neither)
    same = x is y
    cross = torch.stack(
        [self_product(a) if same else a.T @ b for a, b in zip(x.blocks, y.blocks, strict=True)]
    )
    total = cross.sum(0, dtype=torch.float64)
    trace, middle = total.square().sum()[None], x.sums[0] @ total @ y.sums[0]
    middle = middle[None]
    if len(cross) > 1:  # |C - C_b|^2 = |C|^2 - 2 <C, C_b> + |C_b|^2, without a copy of C for each block
        flat = cross.flatten(1)
        inner = (flat @ total.flatten().to(flat.dtype)).double()
        own = torch.stack([row @ row for row in flat]).double()
        without = torch.einsum("bd,bd->b", x.sums[1:] @ total, y.sums[1:])
        part = torch.bmm(cross, y.sums[1:, :, None].to(cross.dtype))[:, :, 0].double()
        trace = torch.cat([trace, trace - 2 * inner + own])
        middle = torch.cat([middle, without - (x.sums[1:] * part).sum(1)])
    ones = x.sums.square().sum(1) * y.sums.square().sum(1)
    if unbiased:
        blocks = list(zip(x.blocks, x.lengths, y.blocks, y.lengths, strict=True))
        kl = _subsets(torch.stack([k @ m for _, k, _, m in blocks]))
        x_by_l = _subsets(torch.stack([(a.T @ m.to(a.dtype)).double() for a, _, _, m in blocks]))
        y_by_k = _subsets(torch.stack([(b.T @ k.to(b.dtype)).double() for _, k, b, _ in blocks]))
        trace = trace - kl
        middle = middle - (x.sums * x_by_l).sum(1) - (y.sums * y_by_k).sum(1) + kl
        ones = (x.sums.square().sum(1) - x.totals) * (y.sums.square().sum(1) - y.totals)
    return combine(trace, middle, ones, x.n, unbiased=unbiased)


def hsic_of_sums(sums: Sums, a: str, b: str, *, unbiased: bool) -> Float64[Tensor, ""]:
    """HSIC of two sites of a Moments."""
    n, c = sums[("n",)], sums.second(a, b)
    sx, sy = sums["first", a], sums["first", b]
    if not unbiased:
        return (c - torch.outer(sx, sy) / n).square().sum()
    kl = sums.norms(a, b)
    mixed = sx @ c @ sy - sx @ sums["by_norm", a, b] - sy @ sums["by_norm", b, a] + kl
    ones = (sx.square().sum() - sums["norm", a]) * (sy.square().sum() - sums["norm", b])
    return combine(c.square().sum() - kl, mixed, ones, n, unbiased=True)
