"""Screening: the encoder's product in bfloat16 says which codes can win; float32 says which of them do.

A bfloat16 product costs a fraction of a float32 one where the processor multiplies bfloat16, and its error is
bounded: with unit roundoff u = 2^-9 and float32 sums of d terms, |<x, w> - <x', w'>| <= (2u + u^2 + d 2^-23) |x| |w| by
Cauchy-Schwarz, and storing the result in bfloat16 adds u of its size. Whatever lies within the bound of the edge is
a candidate; its value is computed again in float32, so that the codes are those of the float32 encoder. The bound
holds for every row and every weight, so nothing is lost; how many candidates there are decides only what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.parallel import Alone, Peers
from sae.products import dots
from sae.selection import Support, above, under_winners

if TYPE_CHECKING:
    from sae.coder import Coder

__all__ = ["Screen", "native", "screens"]

_U = 2.0**-9
_CROWD = 8
"""With more candidates than this many times k a row, the plain product is cheaper."""


def native(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def screens(coder: Coder, x: Tensor, asked: str) -> bool:
    """Whether a step's product is screened; ``asked`` is ``"auto"``, ``"always"`` or ``"never"``."""
    able = coder.rule.rank is not None and x.dtype == torch.float32
    if asked != "auto":
        return able and asked == "always"
    # below these sizes what follows the product costs more than the product
    large = x.shape[1] >= 256 and coder.d_sae >= 64 * coder.k and coder.d_sae >= 2048
    return able and large and native(x.device)


class Screen:
    """One batch of rows before one encoder: rough pre-activations, and how far off they can be."""

    def __init__(self, coder: Coder, x: Float[Tensor, "sample d_in"]) -> None:
        rank = coder.rule.rank
        assert rank is not None  # ``screens`` has looked
        self.coder, self.x, self.rank = coder, x, rank
        self.weight = coder.W_enc.T.contiguous()
        self.rough, self.bias = self.weight.bfloat16().T, coder.b_enc.bfloat16()
        longest = self.weight.norm(dim=1).max()
        share = 2 * _U + _U**2 + x.shape[1] * 2.0**-23
        # the bias is rounded too; the hundredth more covers the rounding of what is computed here
        self.error = 1.01 * (share * longest * x.norm(dim=1) + 2 * _U * coder.b_enc.abs().max())
        """[sample] bound on |rough - exact|, up to the rounding of the rough value itself (u of its size)."""

    def product(self, rows: slice, room: Tensor) -> Float[Tensor, "sample latent"]:
        """Rough pre-activations of some rows, in bfloat16."""
        part = self.x[rows].bfloat16()
        return torch.addmm(self.bias, part, self.rough, out=room[: len(part)])

    def exact(self, x: Tensor, support: Support) -> Float[Tensor, "_"]:
        """Float32 pre-activations at the support."""
        return dots(x, self.weight, support).add_(self.coder.b_enc[support.col])

    def of_rows(
        self, rows: slice, room: Tensor
    ) -> tuple[Int64[Tensor, "sample k"], Float[Tensor, "sample k"]] | None:
        """Columns and values of the k largest of each row; None where candidates crowd."""
        k = self.coder.k
        height = self.rank(self.product(rows, room))
        # The k-th largest exact value is at least ``low`` less one error, and a winner shows at least that less
        # another. Three roundings to bfloat16 of about ``low`` come on top: eight are allowed for.
        low, peaks = under_winners(height, k)
        low = low.float()
        cut = low - 2 * self.error[rows] - 8 * _U * low.abs() - 1e-30  # below equal values, zeros too
        places = above(height, cut.bfloat16()[:, None], peaks)
        if len(places) > _CROWD * k * len(height):
            return None
        support = Support.of_flat(places, len(height), self.coder.d_sae)
        values = self.exact(self.x[rows], support)
        nth = torch.arange(len(places), device=places.device) - support.offsets[support.row]
        table = values.new_full((len(height), int(support.offsets.diff().max())), -torch.inf)
        table[support.row, nth] = self.rank(values)
        best = table.topk(k, dim=-1, sorted=False).indices + support.offsets[:-1, None]
        return support.col[best], values[best]

    def together(
        self, pieces: Sequence[slice], room: Tensor, cut: float, peers: Peers | Alone
    ) -> tuple[Int64[Tensor, "_"], Float[Tensor, "_"]] | None:
        """Flat places and values among which are the k n largest of everyone's rows; None where ``cut`` missed them.

        ``cut`` is a guess below which nothing is looked at; whether it was low enough is known afterwards.
        """
        width, count = self.coder.d_sae, self.coder.k * peers.total(len(self.x))
        found, seen = [], []
        for rows in pieces:
            pre = self.product(rows, room)
            places = above(pre, cut)
            found.append(places + rows.start * width)
            seen.append(pre.view(-1)[places])
        places, rough = torch.cat(found), torch.cat(seen).float()
        if peers.counted(len(places)) < count:
            return None
        doubt = self.error[places // width] + 2 * _U * rough
        low = peers.kth_largest(rough - doubt, count)  # the edge is not below this
        missed = low - float(self.error.max()) - 4 * _U * abs(low) <= cut
        if peers.counted(int(missed)):
            return None
        places = places[rough + doubt >= low]
        support = Support.of_flat(places, len(self.x), width)
        return places, self.exact(self.x, support)
