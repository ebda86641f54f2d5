"""Which codes stay on: exact selections of the largest entries of a big matrix, faster than sorting it.

The k-th largest of the maxima of a row's blocks is not above its k-th largest entry, so that one comparison leaves few
entries to choose from. On the CPU maxima are sorted and places found by numpy, which has vector code for both: the
largest of rows cost a third to a sixth of ``topk``. Every function here is exact; only its cost depends on the shape.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["Support", "above", "largest_of_rows", "under_winners"]

_BLOCK = 16
_SORTED = 512
"""Rows so narrow are sorted whole where there are too few blocks."""
_NUMPY = (torch.float32, torch.float64)


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
    """Columns of the k largest entries of each row, in no order.

    Of equal entries at the edge those that come first, on the CPU in float32 and float64 where rows have blocks enough
    or are at most 512 wide; elsewhere (a GPU, bfloat16, wider rows of few blocks, NaN) those that ``topk`` takes.
    """
    n, width = pre.shape
    size = _block(width, 2 * k)
    if pre.is_cuda or pre.dtype not in _NUMPY or not n or not (size or width <= _SORTED):
        return pre.topk(k, dim=-1, sorted=False).indices
    entries = pre.detach().numpy()
    peaks = _peaks(pre.detach(), size).numpy() if size else entries
    # entries from the k-th largest peak on are at least k, and few more
    places = np.flatnonzero(entries >= np.sort(peaks, axis=1)[:, -k:][:, :1])
    row = places // width
    count = np.bincount(row, minlength=n)
    if int(count.min()) < k:  # NaN is not larger than anything
        return pre.topk(k, dim=-1, sorted=False).indices
    if len(places) > n * k:
        table = np.full((n, int(count.max())), -np.inf, dtype=entries.dtype)
        nth = np.arange(len(places)) - (np.cumsum(count) - count)[row]
        table[row, nth] = values = entries.reshape(-1)[places]
        kept = places[values >= np.sort(table, axis=1)[row, -k]]
        if len(kept) > n * k:  # equal entries
            first = np.sort(np.argsort(-table, axis=1, kind="stable")[:, :k], axis=1)
            kept = places[(np.cumsum(count) - count)[:, None] + first].reshape(-1)
        places = kept
    return torch.from_numpy(places % width).view(n, k)


def under_winners(
    pre: Float[Tensor, "sample latent"], k: int
) -> tuple[Float[Tensor, "sample"], Float[Tensor, "sample block"] | None]:
    """A number that the k-th largest entry of each row is not below, close to it; and the block maxima it came from."""
    size = _block(pre.shape[1], 4 * k)
    if pre.is_cuda or size < _BLOCK:
        return pre.topk(k, dim=-1, sorted=False).values.amin(1), None
    peaks = _peaks(pre, size)
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
        if pre.is_cuda or pre.dtype not in _NUMPY:
            return _where(pre > cut)
        entries = pre.detach().numpy()
        return torch.from_numpy(
            np.flatnonzero(entries > (cut.numpy() if isinstance(cut, Tensor) else entries.dtype.type(cut)))
        )
    width, blocks = pre.shape[1], peaks.shape[1]
    inside = _where(peaks > cut)
    row, start = inside // blocks, inside % blocks
    step = torch.arange(width // blocks, device=pre.device) * blocks
    places = ((row * width + start)[:, None] + step).view(-1)
    edge = cut.view(-1)[row].repeat_interleave(len(step)) if isinstance(cut, Tensor) else cut
    return places[_where(pre.view(-1)[places] > edge)]


def _where(mask: Tensor) -> Int64[Tensor, "_"]:
    """Flat places of what is true; numpy finds them in a fraction of torch's time."""
    if mask.is_cuda:
        return mask.view(-1).nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _block(width: int, fewest: int) -> int:
    """The largest size, up to 16, of blocks that divide a row and leave at least ``fewest``; 0 if there is none."""
    return next((b for b in (_BLOCK, 8, 4) if width % b == 0 and width // b >= fewest), 0)


def _peaks(pre: Tensor, size: int) -> Tensor:
    """[sample, block] maxima. Block j is the columns j, j + blocks, j + 2 blocks ...: whole cache lines are read."""
    return pre.view(len(pre), size, -1).amax(1)
