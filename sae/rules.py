"""Sparsity rules: from pre-activations to codes, one function a kind; the coder knows them only through the table.

A rule whose codes are few gives their places (a :class:`Support`), so that training need not touch the others; the
others give a dense matrix. ``act`` is what happens to a value once its place is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interp.showing import Shown
from sae.estimators import jump
from sae.selection import largest_of_rows

__all__ = ["RULES", "Rule"]


class Parts(nn.Module):
    """What a rule reads of its coder: ``k``, and the vectors that the kind has."""

    k: int
    bandwidth: float
    threshold: Tensor
    b_enc: nn.Parameter
    r_mag: nn.Parameter
    b_mag: nn.Parameter


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Rule(Shown):
    """What makes a kind: how codes come from pre-activations, and which tensors it has besides the four."""

    codes: Callable[[Parts, Tensor], Tensor]
    """(coder, pre [sample, latent]) -> codes [sample, latent], as at inference, differentiable."""
    columns: Callable[[Parts, Tensor], Tensor] | None = None
    """(coder, pre [sample, latent]) -> [sample, k] the latents each row keeps; None where rows differ in number."""
    rank: Callable[[Tensor], Tensor] | None = None
    """What rows (or all rows together) keep the largest of, if it is that; else None."""
    act: Callable[[Tensor], Tensor] = torch.relu
    """Values at the kept places -> codes."""
    extra: tuple[str, ...] = ()
    """Further vectors over the latents: trained with the rest."""
    pooled: bool = False
    """Training keeps the k n largest codes of n rows together; inference compares with the threshold it learnt."""
    tied: bool = False
    """No encoder of its own: codes are found with the dictionary (see ``pursuit.py``)."""


def _rows(coder: Parts, pre: Tensor) -> Tensor:
    return largest_of_rows(pre, coder.k)


def _signed_rows(coder: Parts, pre: Tensor) -> Tensor:
    return largest_of_rows(pre.abs(), coder.k)


def _groups(coder: Parts, pre: Tensor) -> Tensor:
    """The largest of each of k equal groups of neighbouring latents; what is left over belongs to no group."""
    size = pre.shape[1] // coder.k
    inside = pre[:, : size * coder.k].reshape(len(pre), coder.k, size).argmax(2)
    return inside + size * torch.arange(coder.k, device=pre.device)


def _kept(columns: Callable[[Parts, Tensor], Tensor], act: Callable[[Tensor], Tensor]) -> Callable:
    """The dense form of a rule that chooses places in each row."""

    def codes(coder: Parts, pre: Tensor) -> Tensor:
        kept = columns(coder, pre.detach())
        return torch.zeros_like(pre).scatter(1, kept, act(pre.gather(1, kept)))

    return codes


def _identity(values: Tensor) -> Tensor:
    return values


def _above(coder: Parts, pre: Tensor) -> Tensor:
    """BatchTopK at inference (Bussmann et al. 2024): every code not below the learnt threshold."""
    return torch.where((pre >= coder.threshold) & (pre > 0), pre, torch.zeros_like(pre))


def _relu(coder: Parts, pre: Tensor) -> Tensor:
    return pre.relu()


def _jump(coder: Parts, pre: Tensor) -> Tensor:
    return jump(pre, coder.threshold, coder.bandwidth)


def _gated(coder: Parts, pre: Tensor) -> Tensor:
    """Which: pre > 0; how much: relu(exp(r_mag) (pre - b_enc) + b_mag) (Rajamanoharan et al. 2024, eq. 6-7)."""
    return torch.where(pre > 0, ((pre - coder.b_enc) * coder.r_mag.exp() + coder.b_mag).relu(), 0.0)


def _none(coder: Parts, pre: Tensor) -> Tensor:
    raise AssertionError("a tied rule finds its codes in pursuit.py")


RULES: dict[str, Rule] = {
    "relu": Rule(codes=_relu),
    "panneal": Rule(codes=_relu),
    "topk": Rule(codes=_kept(_rows, torch.relu), columns=_rows, rank=_identity),
    "abstopk": Rule(
        codes=_kept(_signed_rows, _identity), columns=_signed_rows, rank=torch.abs, act=_identity
    ),
    "groupmax": Rule(codes=_kept(_groups, torch.relu), columns=_groups),
    "batchtopk": Rule(codes=_above, pooled=True, rank=_identity),
    "matryoshka": Rule(codes=_above, pooled=True, rank=_identity),
    "jumprelu": Rule(codes=_jump, extra=("threshold",)),
    "gated": Rule(codes=_gated, extra=("r_mag", "b_mag")),
    "pursuit": Rule(codes=_none, tied=True),
    "codebook": Rule(codes=_none, tied=True),
}
"""Sparsity rules by name."""
