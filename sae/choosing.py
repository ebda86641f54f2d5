"""The codes that a training step keeps, found piece by piece: the matrix of pre-activations is never whole in memory.

A piece of rows fits the cache, so that selecting costs little beside the one dense product, and the peak memory of a
step does not grow with batch x latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from sae.parallel import Alone, Peers
from sae.products import dots
from sae.screening import Screen, screens
from sae.selection import Support, above

if TYPE_CHECKING:
    from sae.coder import Coder

__all__ = ["chosen", "chosen_abreast"]

_PIECE = 1 << 21
"""Pre-activations held at once on a CPU, whose cache they are to fit."""
_PIECE_CUDA = 1 << 28
"""On a GPU, which must be kept busy."""
_MARGIN = 0.85
"""Of the last batch's smallest kept code: what is certainly smaller than this one's. A wrong guess costs time only."""
_FEW_ROWS = 64
"""Rows that are looked at first where there is no last batch."""


@torch.no_grad()
def chosen(
    coder: Coder,
    x: Float[Tensor, "sample d_in"],
    *,
    guess: float = 0.0,
    peers: Peers | Alone | None = None,
    screen: str = "never",
    precision: str = "float32",
) -> tuple[Support, Float[Tensor, "_"], float]:
    """Places and pre-activations of the codes that rows ``x`` (shifted) keep, and the smallest where rows compete.

    Parameters
    ----------
    guess
        The smallest code kept last time; 0 where it is not known.
    peers
        Processes that share the batch: the k n largest are those of all of them together.
    screen
        ``"always"``, ``"never"`` or, where it pays, ``"auto"``: find candidates by a bfloat16 product
        (``screening.py``). The codes are the same up to the order in which float32 products are added.
    precision
        ``"bf16"``: places by a bfloat16 product, values by products of bfloat16 numbers with float32 sums.

    Notes
    -----
    Equal values at the edge of a batch are all kept, so that the choice depends neither on the order of rows nor on
    how many processes share them. Cost: one dense product.
    """
    if precision == "bf16":
        return _rounded(coder, x, guess, peers or Alone())
    first = Screen(coder, x) if screens(coder, x, screen) else None
    if coder.rule.columns is not None:
        return *_each_row(coder, x, first), 0.0
    return _together(coder, x, guess, peers or Alone(), first)


def _pieces(coder: Coder, x: Tensor) -> list[slice]:
    size = max(1, _piece(x) // coder.d_sae)
    return [slice(start, min(start + size, len(x))) for start in range(0, len(x), size)]


def _piece(x: Tensor) -> int:
    return _PIECE_CUDA if x.is_cuda else _PIECE


def _room(coder: Coder, x: Tensor, screen: Screen | None) -> Tensor:
    rows = min(max(1, _piece(x) // coder.d_sae), len(x))
    return x.new_empty(rows, coder.d_sae, dtype=x.dtype if screen is None else torch.bfloat16)


def _product(coder: Coder, rows: Tensor, room: Tensor) -> Tensor:
    return torch.addmm(coder.b_enc, rows, coder.W_enc, out=room[: len(rows)])


def _each_row(coder: Coder, x: Tensor, screen: Screen | None) -> tuple[Support, Tensor]:
    columns = coder.rule.columns
    assert columns is not None  # the caller has looked
    cols, values, room = [], [], _room(coder, x, screen)
    for piece in _pieces(coder, x):
        found = None if screen is None else screen.of_rows(piece, room)
        if found is None:
            pre = _product(coder, x[piece], room if screen is None else room.float())
            kept = columns(coder, pre)
            found = kept, pre.gather(1, kept)
        cols.append(found[0])
        values.append(found[1])
    col = torch.cat(cols)
    starts = torch.arange(0, col.numel() + 1, col.shape[1], device=x.device)
    return Support(starts, col.view(-1), coder.d_sae), torch.cat(values).view(-1)


def _together(
    coder: Coder, x: Tensor, guess: float, peers: Peers | Alone, screen: Screen | None
) -> tuple[Support, Tensor, float]:
    count, found = coder.k * peers.total(len(x)), None
    guess = guess or _estimate(coder, x, peers)
    if screen is not None and guess > 0:
        found = screen.together(_pieces(coder, x), _room(coder, x, screen), _MARGIN * guess, peers)
    if found is None:
        found = _sifted(coder, x, _MARGIN * guess)
        if guess > 0 and peers.counted(len(found[0])) < count:
            found = _sifted(coder, x, 0.0)
    places, values, edge = _from_edge(*found, count, peers)
    return Support.of_flat(places, len(x), coder.d_sae), values, edge


def _from_edge(
    places: Tensor, values: Tensor, count: int, peers: Peers | Alone
) -> tuple[Tensor, Tensor, float]:
    """Of the places found those of the ``count`` largest values, if they are positive; and the smallest of these."""
    edge = peers.kth_largest(values, count)
    kept = (values >= edge) & (values > 0)
    if not bool(kept.all()):
        places, values = places[kept], values[kept]
    return places, values, edge


def _rounded(coder: Coder, x: Tensor, guess: float, peers: Peers | Alone) -> tuple[Support, Tensor, float]:
    """What rows and weights rounded to bfloat16 keep; values are not rounded, so that few are equal."""
    low, weight, bias = x.bfloat16(), coder.W_enc.T.bfloat16().contiguous(), coder.b_enc.bfloat16()
    columns, count = coder.rule.columns, coder.k * peers.total(len(x))
    room = x.new_empty(min(max(1, _piece(x) // coder.d_sae), len(x)), coder.d_sae, dtype=torch.bfloat16)

    def found(cut: float) -> Tensor:
        """Flat places, row after row."""
        places = []
        for piece in _pieces(coder, x):
            pre = torch.addmm(bias, low[piece], weight.T, out=room[: piece.stop - piece.start])
            pre = pre if x.is_cuda else pre.float()  # a CPU compares float32 faster
            if columns is None:
                places.append(above(pre, cut) + piece.start * coder.d_sae)
            else:
                row = torch.arange(piece.start, piece.stop, device=x.device)[:, None]
                places.append((row * coder.d_sae + columns(coder, pre)).view(-1))
        return torch.cat(places)

    if columns is None:
        guess = guess or _estimate(coder, x, peers)
    places = found(_MARGIN * guess)
    if columns is None and guess > 0 and peers.counted(len(places)) < count:
        places = found(0.0)
    support = Support.of_flat(places, len(x), coder.d_sae)
    values = dots(low, weight, support).add_(coder.b_enc[support.col])
    if columns is not None:
        return support, values, 0.0
    places, values, edge = _from_edge(places, values, count, peers)
    return Support.of_flat(places, len(x), coder.d_sae), values, edge


def _estimate(coder: Coder, x: Tensor, peers: Peers | Alone) -> float:
    """The smallest code that a few of everyone's rows would keep, the same for everyone; 0 if that is no guess."""
    few = x[:: max(1, len(x) // _FEW_ROWS)]
    values = (few @ coder.W_enc + coder.b_enc).view(-1)
    guess = peers.kth_largest(values[values > 0], coder.k * peers.total(len(few)))
    return guess if guess < float("inf") else 0.0


def _sifted(coder: Coder, x: Tensor, cut: float) -> tuple[Tensor, Tensor]:
    places, values, room = [], [], _room(coder, x, None)
    for piece in _pieces(coder, x):
        pre = _product(coder, x[piece], room)
        found = above(pre, cut)
        values.append(pre.view(-1)[found])
        places.append(found + piece.start * coder.d_sae)
    return torch.cat(places), torch.cat(values)


@torch.no_grad()
def chosen_abreast(
    coders: Sequence[Coder], x: Float[Tensor, "coder sample d_in"], guesses: Sequence[float]
) -> tuple[Support, Float[Tensor, "_"], list[float]]:
    """:func:`chosen` of coders of one make, each on its own rows: coder j has rows from j n on, latents from j d_sae.

    Each product is the one that the coder would make by itself where the pre-activations of a batch are one piece; the
    largest are looked for in several at a time, so that the codes are the same to the bit.
    """
    n, width = x.shape[1], coders[0].d_sae
    room = x.new_empty(min(len(coders), max(1, _piece(x) // (n * width))), n, width)
    cols, counts, values, edges = [], [], [], []
    for _, same in groupby(range(len(coders)), key=lambda j: coders[j].k):
        group = list(same)
        for start in range(0, len(group), len(room)):
            part = group[start : start + len(room)]
            pre = room[: len(part)]
            for j, out in zip(part, pre, strict=True):
                torch.addmm(coders[j].b_enc, x[j], coders[j].W_enc, out=out)
            some = [coders[j] for j in part]
            found = (
                _rows_abreast(some, pre)
                if coders[0].rule.columns is not None
                else _pools_abreast(some, x[part[0] :], pre, [guesses[j] for j in part])
            )
            cols.append(found[0] + part[0] * width)
            values.append(found[1])
            counts.append(found[2])
            edges += found[3]
    col, count = torch.cat(cols), torch.cat(counts)
    offsets = count.new_zeros(len(count) + 1)
    torch.cumsum(count, 0, out=offsets[1:])
    return Support(offsets, col, len(coders) * width), torch.cat(values), edges


def _rows_abreast(coders: Sequence[Coder], pre: Tensor) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """Columns, values, how many a row, and no edges."""
    columns = coders[0].rule.columns
    assert columns is not None  # the caller has looked
    m, n, width = pre.shape
    flat = pre.view(m * n, width)
    kept = columns(coders[0], flat)
    k = kept.shape[1]
    own = width * torch.arange(m, device=pre.device)
    count = torch.full((m * n,), k, device=pre.device)
    return (kept.view(m, -1) + own[:, None]).view(-1), flat.gather(1, kept).view(-1), count, [0.0] * m


def _pools_abreast(
    coders: Sequence[Coder], x: Tensor, pre: Tensor, guesses: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """The same where rows compete."""
    m, n, width = pre.shape
    count, alone = coders[0].k * n, Alone()
    guesses = [
        guess or _estimate(coder, x[j], alone)
        for j, (coder, guess) in enumerate(zip(coders, guesses, strict=True))
    ]
    cuts = pre.new_tensor([_MARGIN * guess for guess in guesses]).repeat_interleave(n)[:, None]
    found = above(pre.view(m * n, width), cuts)
    seen = pre.view(-1)[found]
    bounds = torch.searchsorted(found, n * width * torch.arange(m + 1, device=found.device)).tolist()
    places, values, edges = [], [], []
    for j, coder in enumerate(coders):
        mine = found[bounds[j] : bounds[j + 1]], seen[bounds[j] : bounds[j + 1]]
        if guesses[j] > 0 and len(mine[0]) < count:
            again = _sifted(coder, x[j], 0.0)
            mine = again[0] + j * n * width, again[1]
        place, value, edge = _from_edge(*mine, count, alone)
        places.append(place)
        values.append(value)
        edges.append(edge)
    place = torch.cat(places)
    row = place // width
    col = place - row * width + (row // n) * width
    return col, torch.cat(values), torch.bincount(row, minlength=m * n), edges
