"""Routes: how much of what every destination reads each source has written, from one forward pass and no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.passes import Recorder
from circuits.questions import Question
from circuits.stream import Part, Stream

__all__ = ["shares"]


class _Reads(Recorder):
    """Keeps what is written, and the stream in front of every MLP."""

    def __init__(self, n_layers: int) -> None:
        super().__init__(n_layers)
        self.mlp_reads: list[Tensor | None] = [None] * n_layers

    def mlp_entered(self, part: Part, x: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.mlp_reads[part.layer] = x.detach()


@torch.no_grad()
def shares(stream: Stream, question: Question) -> Tensor:
    """[row edge] the share of the source's term in what the destination reads, mean over real positions.

    A term's proximity to the sum is max(0, |sum| - |sum - term|) in the L1 norm; a share is its part of all
    proximities (0 where no term is near). Queries, keys and values of a layer read the same stream, so their
    edges share one number.

    References
    ----------
    Ferrando and Voita 2024, "Information flow routes", eq. 4.
    """
    layout, visitor = stream.layout, _Reads(len(stream.parts))
    streams: list[Tensor] = []
    x, _ = stream.enter(question.clean, visitor, streams=streams)
    terms = visitor.writes(x).terms(stream)
    mask = question.clean.mask.to(x.device)
    found = torch.zeros(len(question), layout.n_edges, dtype=torch.float64, device=x.device)
    d = 0
    for layer, block in enumerate(layout.blocks):
        n = block.n_heads + 2 * block.n_kv
        d = (
            _filled(stream, found, d, n, _share(streams[layer], terms, int(layout.reads[d]), mask))
            if n
            else d
        )
        read = visitor.mlp_reads[layer]
        if block.mlp:
            assert read is not None
            d = _filled(stream, found, d, 1, _share(read, terms, int(layout.reads[d]), mask))
    _filled(stream, found, d, 1, _share(streams[-1], terms, int(layout.reads[d]), mask))
    return found


def _share(total: Tensor, terms: Tensor, reads: int, mask: Tensor) -> Tensor:
    """[row source] for one stream [row pos d_model]."""
    whole = total.double().abs().sum(-1)
    near = total.new_zeros(len(total), reads, total.shape[1], dtype=torch.float64)
    for source in range(reads):  # one source at a time: the differences of all would be as large as all terms
        near[:, source] = (whole - (total - terms[:, source]).double().abs().sum(-1)).clamp(min=0)
    sums = near.sum(1, keepdim=True)
    share = torch.where(sums > 0, near / sums, 0.0)
    return (share * mask[:, None]).sum(-1) / mask.sum(1)[:, None]


def _filled(stream: Stream, found: Tensor, d: int, n: int, share: Tensor) -> int:
    start = int(stream.layout.offsets[d])
    found[:, start : start + n * share.shape[1]] = share.repeat(1, n)
    return d + n
