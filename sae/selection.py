"""Which codes stay on: exact selections of the largest entries of a big matrix, faster than sorting it.

The k largest entries of a row lie in the k blocks with the largest maxima, so that a row is searched by its block
maxima first and then inside k blocks only. Every function here is exact; only its cost depends on the shape.
"""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["Support", "above", "largest_of_rows", "under_winners"]

_BLOCK = 16


class Support:
    """The places of the codes that are on: ``col[offsets[i]:offsets[i + 1]]`` are the latents of row ``i``."""

    def __init__(self, offsets: Int64[Tensor, "_"], col: Int64[Tensor, "_"], n_latents: int) -> None:
        self.offsets, self.col, self.n_latents = offsets, col, n_latents

    @classmethod
    def of_flat(cls, places: Int64[Tensor, "_"], n_rows: int, n_latents: int) -> Support:
        """From ascending places in the flattened [sample, latent] matrix."""
        return cls(_starts(places // n_latents, n_rows), places % n_latents, n_latents)

    @property
    def n_rows(self) -> int:
        """How many rows, the ones without a code included."""
        return len(self.offsets) - 1

    @cached_property
    def row(self) -> Int64[Tensor, "_"]:
        """The row of each code."""
        return torch.repeat_interleave(
            torch.arange(self.n_rows, device=self.col.device), self.offsets.diff(), output_size=len(self.col)
        )

    @property
    def flat(self) -> Int64[Tensor, "_"]:
        """Places in the flattened [sample, latent] matrix."""
        return self.row * self.n_latents + self.col

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same codes sorted by latent: their order, where each latent starts, and their rows."""
        narrow = self.col.to(
            torch.int16 if self.n_latents <= 1 << 15 else torch.int32
        )  # sorts in half the time
        order = torch.argsort(narrow, stable=True)
        return order, _starts(self.col, self.n_latents), self.row[order]

    def dense(self, values: Float[Tensor, "_"]) -> Float[Tensor, "sample latent"]:
        """The codes as a matrix."""
        flat = values.new_zeros(self.n_rows * self.n_latents).scatter(0, self.flat, values)
        return flat.view(self.n_rows, self.n_latents)


def _starts(sorted_or_not: Tensor, n: int) -> Tensor:
    starts = sorted_or_not.new_zeros(n + 1)
    torch.cumsum(torch.bincount(sorted_or_not, minlength=n), 0, out=starts[1:])
    return starts


def largest_of_rows(pre: Float[Tensor, "sample latent"], k: int) -> Int64[Tensor, "sample k"]:
    """Columns of the k largest entries of each row, in no order."""
    n, width = pre.shape
    blocks = width // _BLOCK
    if not _in_blocks(pre) or blocks < 4 * k:
        return pre.topk(k, dim=-1, sorted=False).indices
    winners = _peaks(pre).topk(k, dim=-1, sorted=False).indices
    places = winners[:, None, :] + (torch.arange(_BLOCK, device=pre.device) * blocks)[:, None]
    places = places.view(n, _BLOCK * k)
    inside = pre.gather(1, places).topk(k, dim=-1, sorted=False).indices
    return places.gather(1, inside)


def under_winners(
    pre: Float[Tensor, "sample latent"], k: int
) -> tuple[Float[Tensor, "sample"], Float[Tensor, "sample block"] | None]:
    """A number that the k-th largest entry of each row is not below, close to it; and the block maxima it came from."""
    if not _in_blocks(pre) or pre.shape[1] // _BLOCK < 4 * k:
        return pre.topk(k, dim=-1, sorted=False).values.amin(1), None
    peaks = _peaks(pre)
    return peaks.topk(k, dim=-1, sorted=False).values.amin(1), peaks


def above(
    pre: Float[Tensor, "sample latent"],
    cut: float | Float[Tensor, "sample 1"],
    peaks: Float[Tensor, "sample block"] | None = None,
) -> Int64[Tensor, "_"]:
    """Flat places of the entries larger than ``cut`` (one number, or one a row), row after row.

    With the block maxima ``peaks`` only blocks that hold such an entry are looked into; where they are few that is
    faster, and the places inside a row come in no order.
    """
    if peaks is None:
        return (pre > cut).view(-1).nonzero().squeeze(1)
    width, blocks = pre.shape[1], peaks.shape[1]
    inside = (peaks > cut).view(-1).nonzero().squeeze(1)
    row, start = inside // blocks, inside % blocks
    places = ((row * width + start)[:, None] + torch.arange(_BLOCK, device=pre.device) * blocks).view(-1)
    edge = cut.view(-1)[row].repeat_interleave(_BLOCK) if isinstance(cut, Tensor) else cut
    return places[(pre.view(-1)[places] > edge).nonzero().squeeze(1)]


def _in_blocks(pre: Tensor) -> bool:
    return pre.shape[1] % _BLOCK == 0 and not pre.is_cuda


def _peaks(pre: Tensor) -> Tensor:
    """[sample, block] maxima. Block j is the columns j, j + blocks, j + 2 blocks ...: whole cache lines are read."""
    return pre.view(len(pre), _BLOCK, -1).amax(1)
