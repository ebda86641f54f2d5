"""JumpReLU's straight-through gradients (Rajamanoharan et al. 2024, "Jumping ahead", eq. 11 and 12).

With the rectangle kernel K(u) = 1 for |u| < 1/2, of width eps about the threshold theta:
z = pre H(pre - theta):  dz/dpre = H(pre - theta),  dz/dtheta = -(theta / eps) K((pre - theta) / eps);
L0 = H(pre - theta):     dL0/dpre = 0,              dL0/dtheta = -(1 / eps) K((pre - theta) / eps).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["jump", "step"]


def jump(
    pre: Float[Tensor, "sample latent"], threshold: Float[Tensor, "latent"], bandwidth: float
) -> Float[Tensor, "sample latent"]:
    """``pre`` where it exceeds ``threshold``, else 0."""
    return _Jump.apply(pre, threshold, bandwidth)  # pyright: ignore[reportReturnType]


def step(
    pre: Float[Tensor, "sample latent"], threshold: Float[Tensor, "latent"], bandwidth: float
) -> Float[Tensor, "sample latent"]:
    """1 where ``pre`` exceeds ``threshold``, else 0; its gradient reaches the threshold only."""
    return _Step.apply(pre, threshold, bandwidth)  # pyright: ignore[reportReturnType]


def _kernel(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    return ((pre - threshold).abs() < bandwidth / 2).to(pre.dtype)


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        pre, threshold, bandwidth = given
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(pre > threshold, pre, torch.zeros_like(pre))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (g,) = given
        pre, threshold = ctx.saved_tensors
        near = (g * _kernel(pre, threshold, ctx.bandwidth)).sum(0)
        return g * (pre > threshold), -threshold / ctx.bandwidth * near, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        pre, threshold, bandwidth = given
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Any) -> tuple[None, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (g,) = given
        pre, threshold = ctx.saved_tensors
        return None, -(g * _kernel(pre, threshold, ctx.bandwidth)).sum(0) / ctx.bandwidth, None
