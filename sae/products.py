"""Products with sparse codes whose gradients are written out: they touch only the codes that are on.

Two maps are enough for every form of the TopK family. :func:`read` gives the encoder's values at chosen places,
:func:`write` sums the directions that codes weigh; both are differentiable in everything they read, so a loss built
from them (reconstruction, AuxK on the residual, nested prefixes) sends its gradient to encoder and decoder alike.
With z at the places of a support, gradients g_z of the values and g_y of the rows:
d W_enc[:, f] = sum over rows i using f of g_z[i, f] x_i,   d W_dec[f] = sum over rows i using f of z[i, f] g_y[i].
"""

from __future__ import annotations

import os
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from sae.selection import Support

__all__ = ["dots", "read", "write"]


def read(
    x: Float[Tensor, "sample d_in"],
    shift: Float[Tensor, "*coder d_in"] | None,
    weight: Float[Tensor, "d_in latent"],
    bias: Float[Tensor, "latent"],
    values: Float[Tensor, "_"],
    support: Support,
) -> Float[Tensor, "_"]:
    """``values`` = (x weight + bias) at the support, which the caller has computed; this makes them differentiable.

    ``shift`` is what the caller has subtracted from its rows to get ``x``; its gradient, minus the sum of those of
    the rows, costs one product with a vector. Coders side by side have a row of it each.
    """
    return _Read.apply(x, shift, weight, bias, values, support)  # pyright: ignore[reportReturnType]


def write(
    values: Float[Tensor, "_"],
    weight: Float[Tensor, "latent d_out"],
    support: Support,
    rounded: Float[Tensor, "latent d_out"] | None = None,
) -> Float[Tensor, "sample d_out"]:
    """Each row's sum of the directions its codes weigh. Cost: one direction read a code.

    ``rounded``: a bfloat16 copy of ``weight`` that is read in its place, forwards and backwards; sums are float32.
    """
    return _Write.apply(values, weight, support, rounded)  # pyright: ignore[reportReturnType]


def fused(weight: Tensor) -> Any:
    """The module of Triton kernels where they can run on ``weight`` (a GPU, or ``TRITON_INTERPRET=1``), else None."""
    if weight.dtype == torch.float64 or not (weight.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        return None
    from sae import kernels

    return kernels if kernels.AVAILABLE else None


def _bags(weight: Tensor, which: Tensor, starts: Tensor, values: Tensor) -> Tensor:
    """[bag, d]: for each bag of ``which`` the weighted sum of rows of ``weight``, of the type of ``values``."""
    if len(which) == 0:
        return values.new_zeros(len(starts) - 1, weight.shape[1])
    if (kernels := fused(weight)) is not None:
        return kernels.weighted_sum(weight, which, starts, values)
    weight = weight.to(values.dtype)
    return embedding_bag(which, weight, starts[:-1], mode="sum", per_sample_weights=values)


def dots(
    rows: Float[Tensor, "sample d"], weight: Float[Tensor, "latent d"], support: Support
) -> Float[Tensor, "_"]:
    """<rows[i], weight[f]> at each code (i, f); float32 if they are bfloat16."""
    if len(support.col) == 0:
        return rows.new_zeros(0, dtype=torch.float32 if rows.dtype == torch.bfloat16 else rows.dtype)
    if (kernels := fused(weight)) is not None:
        return kernels.inner(rows, weight, support.row, support.col)
    if rows.dtype == torch.bfloat16:
        rows, weight = rows.float(), weight.float()
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        rows.contiguous(), weight, support.col, support.offsets[:-1], support.row, 0, -1
    )


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        x, shift, weight, _, values, support = given
        ctx.save_for_backward(x, weight)
        ctx.support, ctx.many = support, shift is not None and shift.ndim > 1 and len(shift)
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (g,) = given
        x, weight = ctx.saved_tensors
        support: Support = ctx.support
        needs = ctx.needs_input_grad
        order, starts, row = support.by_latent
        g_bias = g.new_zeros(support.n_latents).index_add_(0, support.col, g)
        g_x = _bags(weight.T.contiguous(), support.col, support.offsets, g) if needs[0] else None
        g_weight = _bags(x, row, starts, g[order]).T if needs[2] else None
        g_shift = None
        if needs[1] and ctx.many:  # each by itself, as it would be alone
            own = weight.tensor_split(ctx.many, 1), g_bias.tensor_split(ctx.many)
            g_shift = -torch.stack([w @ b for w, b in zip(*own, strict=True)])
        elif needs[1]:
            g_shift = -(weight @ g_bias)
        return g_x, g_shift, g_weight, g_bias, None, None


class _Write(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        values, weight, support, rounded = given
        read_from = weight if rounded is None else rounded
        ctx.save_for_backward(values, read_from)
        ctx.support = support
        return _bags(read_from, support.col, support.offsets, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (g,) = given
        values, weight = ctx.saved_tensors
        support: Support = ctx.support
        g = g.to(weight.dtype)
        g_values = dots(g, weight, support) if ctx.needs_input_grad[0] else None
        g_weight = None
        if ctx.needs_input_grad[1]:
            order, starts, row = support.by_latent
            g_weight = _bags(g.contiguous(), row, starts, values[order])
        return g_values, g_weight, None, None
