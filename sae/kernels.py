"""Fused kernels for sparse codes on a GPU (Triton), each beside the eager form in ``products.py`` that it equals.

Two shapes of work are enough for forward and backward: :func:`weighted_sum` (codes to rows, and by latents to the
gradients of both matrices) and :func:`inner` (gradients of codes). No [sample, code, d] tensor is made. Triton is
optional: without it, or off a GPU, the eager form is used. With ``TRITON_INTERPRET=1`` the same kernels run on the
CPU, slowly; that is how they are tested where there is no GPU. Sums are float32, whatever the weights, which may be
bfloat16; what comes out has the type of the values, and inner products are float32.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

triton: Any
tl: Any
try:
    import triton  # pyright: ignore[reportMissingImports]
    import triton.language as tl  # pyright: ignore[reportMissingImports]
except ImportError:  # it is optional: ``fused`` in products.py asks before it calls
    triton = tl = None

__all__ = ["AVAILABLE", "inner", "weighted_sum"]

AVAILABLE = triton is not None
_WIDTH = 128
"""Coordinates a program holds at once."""

if triton is not None:

    @triton.jit
    def _sum_kernel(out, weight, which, values, starts, d, WIDTH: tl.constexpr):  # noqa: N803  # pyright: ignore[reportInvalidTypeForm]
        bag, column = tl.program_id(0), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        total = tl.zeros([WIDTH], dtype=tl.float32)
        for at in range(tl.load(starts + bag), tl.load(starts + bag + 1)):
            row = tl.load(weight + tl.load(which + at) * d + column, mask=column < d, other=0.0)
            total += tl.load(values + at).to(tl.float32) * row.to(tl.float32)
        tl.store(out + bag.to(tl.int64) * d + column, total, mask=column < d)

    @triton.jit
    def _inner_kernel(out, rows, weight, row, col, d, WIDTH: tl.constexpr):  # noqa: N803  # pyright: ignore[reportInvalidTypeForm]
        code = tl.program_id(0).to(tl.int64)
        left, right = rows + tl.load(row + code) * d, weight + tl.load(col + code) * d
        total = tl.zeros([WIDTH], dtype=tl.float32)
        for start in range(0, d, WIDTH):
            column = start + tl.arange(0, WIDTH)
            a = tl.load(left + column, mask=column < d, other=0.0).to(tl.float32)
            total += a * tl.load(right + column, mask=column < d, other=0.0).to(tl.float32)
        tl.store(out + code, tl.sum(total, axis=0))


def weighted_sum(
    weight: Float[Tensor, "row d"],
    which: Int64[Tensor, "code"],
    starts: Int64[Tensor, "bag_and_one"],
    values: Float[Tensor, "code"],
) -> Float[Tensor, "bag d"]:
    """For each bag ``starts[b] : starts[b + 1]`` of ``which`` the sum of those rows of ``weight`` times ``values``."""
    d, bags = weight.shape[1], len(starts) - 1
    out = values.new_empty(bags, d)
    if bags:
        grid = (bags, -(-d // _WIDTH))
        _sum_kernel[grid](out, weight.contiguous(), which, values, starts, d, WIDTH=_WIDTH)
    return out


def inner(
    rows: Float[Tensor, "sample d"],
    weight: Float[Tensor, "latent d"],
    row: Int64[Tensor, "code"],
    col: Int64[Tensor, "code"],
) -> Float[Tensor, "code"]:
    """<rows[row], weight[col]> for each code."""
    out = rows.new_empty(len(col), dtype=torch.float32)
    if len(col):
        _inner_kernel[(len(col),)](
            out, rows.contiguous(), weight.contiguous(), row, col, rows.shape[1], WIDTH=_WIDTH
        )
    return out
