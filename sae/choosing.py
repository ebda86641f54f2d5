"""The codes that a training step keeps, found piece by piece: the matrix of pre-activations is never whole in memory.

A piece of rows fits the cache, so that selecting costs little beside the one dense product, and the peak memory of a
step does not grow with batch x latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from sae.parallel import Alone, Peers
from sae.selection import Support, above

if TYPE_CHECKING:
    from sae.coder import Coder

__all__ = ["chosen"]

_PIECE = 1 << 21
"""Pre-activations held at once."""
_MARGIN = 0.85
"""Of the last batch's smallest kept code: what is certainly smaller than this one's. A wrong guess costs time only."""


@torch.no_grad()
def chosen(
    coder: Coder, x: Float[Tensor, "sample d_in"], *, guess: float = 0.0, peers: Peers | Alone | None = None
) -> tuple[Support, Float[Tensor, "_"], float]:
    """Places and pre-activations of the codes that rows ``x`` (shifted) keep, and the smallest where rows compete.

    Parameters
    ----------
    guess
        The smallest code kept last time; 0 where it is not known.
    peers
        Processes that share the batch: the k n largest are those of all of them together.

    Notes
    -----
    Equal values at the edge of a batch are all kept, so that the choice depends neither on the order of rows nor on
    how many processes share them. Cost: one dense product.
    """
    if coder.rule.columns is not None:
        return *_each_row(coder, x), 0.0
    return _together(coder, x, guess, peers or Alone())


def _pieces(coder: Coder, x: Tensor):
    size = max(1, _PIECE // coder.d_sae)
    room = x.new_empty(min(size, len(x)), coder.d_sae)
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        yield start, torch.addmm(coder.b_enc, rows, coder.W_enc, out=room[: len(rows)])


def _each_row(coder: Coder, x: Tensor) -> tuple[Support, Tensor]:
    columns = coder.rule.columns
    assert columns is not None  # the caller has looked
    cols, values = [], []
    for _, pre in _pieces(coder, x):
        kept = columns(coder, pre)
        cols.append(kept)
        values.append(pre.gather(1, kept))
    col = torch.cat(cols)
    n, k = col.shape
    return Support(torch.arange(0, n * k + 1, k, device=x.device), col.view(-1), coder.d_sae), torch.cat(
        values
    ).view(-1)


def _together(coder: Coder, x: Tensor, guess: float, peers: Peers | Alone) -> tuple[Support, Tensor, float]:
    count = coder.k * peers.total(len(x))
    places, values = _sifted(coder, x, _MARGIN * guess)
    if guess > 0 and peers.total(len(values)) < count:
        places, values = _sifted(coder, x, 0.0)
    edge = peers.kth_largest(values, count)
    kept = values >= edge
    if not bool(kept.all()):
        places, values = places[kept], values[kept]
    return Support.of_flat(places, len(x), coder.d_sae), values, edge


def _sifted(coder: Coder, x: Tensor, cut: float) -> tuple[Tensor, Tensor]:
    places, values = [], []
    for start, pre in _pieces(coder, x):
        found = above(pre, cut)
        values.append(pre.view(-1)[found])
        places.append(found + start * coder.d_sae)
    return torch.cat(places), torch.cat(values)
