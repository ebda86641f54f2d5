"""A step on one process's share of the latents: what ``objectives.py`` is where all of them are in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from sae.choosing import chosen
from sae.objectives import Moment, Terms, attempt
from sae.parallel import Alone
from sae.products import read, write
from sae.selection import Support
from sae.sharding import Shards

if TYPE_CHECKING:
    from sae.coder import Coder
    from sae.config import TrainConfig

__all__ = ["objective_sharded", "winners"]


class _Summed(torch.autograd.Function):
    """The sum over processes of what each writes; each gets the whole gradient for its own."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        total = given[0].clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return given[0]


class _Shared(torch.autograd.Function):
    """What all processes hold and each uses for its own latents: gradients are summed."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        return given[0].clone()

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = given[0].clone()
        dist.all_reduce(total)
        return total


def objective_sharded(
    coder: Coder, x: Tensor, y: Tensor, config: TrainConfig, moment: Moment, shards: Shards
) -> Terms:
    """The loss of everyone's latents together; the gradients that come of it are those of this process's own."""
    low = coder.W_dec.detach().bfloat16() if config.precision == "bf16" else None
    shift = _Shared.apply(coder.b_dec) if coder.centred else None
    centred = coder.shifted(x).detach()
    peers = shards if coder.rule.pooled else Alone()
    support, values, smallest = chosen(
        coder, centred, guess=moment.guess, peers=peers, screen=config.screen, precision=config.precision
    )
    if not coder.rule.pooled:
        support, values = winners(
            coder, support.col.view(len(x), -1), values.view(len(x), -1), coder.k, shards
        )
    rows = centred if low is None else centred.bfloat16()
    codes = coder.rule.act(read(rows, shift, coder.W_enc, coder.b_enc, values, support))  # pyright: ignore[reportArgumentType]
    rest = y - coder.base(x) - _sum(write(codes, coder.W_dec, support, low))
    error = rest.square().sum(1)
    total = error.sum()
    if config.flops:
        use = codes.new_zeros(coder.d_sae).index_add(0, support.col, codes.abs()) / len(x)
        total = total + config.flops * len(x) * _sum(use.square().sum())
    if moment.dead is not None and config.auxk and (n_dead := shards.counted(len(moment.dead))):
        k = min(config.k_aux or max(1, coder.d_out // 2), n_dead)
        kept, pre = _attempts(coder, rows, moment.dead, k)
        places, values = winners(coder, kept, pre, k, shards)
        again = coder.rule.act(read(rows, None, coder.W_enc, coder.b_enc, values, places))
        written = _sum(write(again, coder.W_dec, places, low))
        total = total + config.auxk * (rest.detach() - written).square().sum()
    on = support.col[codes.detach() != 0]
    return Terms(
        loss=total / (len(x) * coder.d_out),
        error=error.detach(),
        fired=torch.bincount(on, minlength=coder.d_sae),
        smallest=smallest,
    )


def _sum(own: Tensor) -> Tensor:
    return _Summed.apply(own)  # pyright: ignore[reportReturnType]


def _attempts(coder: Coder, rows: Tensor, dead: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best of this process's dead latents for each row, of which there may be none."""
    if len(dead):
        return attempt(coder, rows, dead, k)
    return dead.new_zeros(len(rows), 0), coder.b_enc.new_zeros(len(rows), 0)


@torch.no_grad()
def winners(coder: Coder, col: Tensor, values: Tensor, k: int, shards: Shards) -> tuple[Support, Tensor]:
    """Of each row's candidates [sample, at most k] of every process the k largest: those of them that are here.

    Of equal ones those with the lower number stay, as where all latents are in one place.
    """
    rank = coder.rule.rank
    assert rank is not None  # ``Shards.ask`` has looked
    col, order = col.sort(1)
    values = values.gather(1, order)
    score = values.new_full((len(col), k), -torch.inf)
    score[:, : col.shape[1]] = rank(values)
    parts = [torch.empty_like(score) for _ in range(shards.size)]
    dist.all_gather(parts, score)
    best = torch.cat(parts, 1).argsort(dim=1, descending=True, stable=True)[:, :k]
    won = torch.zeros(len(col), k * shards.size, dtype=torch.bool, device=col.device).scatter_(1, best, True)
    mine = won[:, shards.rank * k :][:, : col.shape[1]]
    offsets = torch.zeros(len(col) + 1, dtype=torch.long, device=col.device)
    torch.cumsum(mine.sum(1), 0, out=offsets[1:])
    return Support(offsets, col[mine], coder.d_sae), values[mine]
