"""Blend: a pass in which every edge is cut by degrees, differentiable in how far.

A destination reads the stream as it is plus, for every source, the cut share of (other term - present term); with
shares of 0 and 1 this is what :mod:`circuits.passes` patches. Read next: ``masks.py``, which learns the shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from circuits.exact import Bench
from circuits.stream import Part, Stream, Visitor

__all__ = ["blended"]


def blended(bench: Bench, share: Tensor, *, position: Tensor | None) -> Tensor:
    """Logits [row ...] of a bench's clean prompts with the shares [row edge] (or [1 edge]) of its edges cut.

    Cost: a forward pass that norms and projects the stream once for every port of every head.
    """
    stream, clean = bench.stream, bench.clean
    blend = _Blend(stream, bench.other.terms(stream), share.to(clean.resid[0]))
    end = stream.blocks(clean.resid[0], clean.calls, visitor=blend)
    return stream.head(blend.entered(len(stream.layout.destinations) - 1, end), position)


class _Blend(Visitor):
    """Gives every destination a stream of its own."""

    def __init__(self, stream: Stream, other: Tensor, share: Tensor) -> None:
        self.layout, self.other, self.share = stream.layout, other, share
        self.at = {name: i for i, name in enumerate(stream.layout.destinations)}
        self.number = {name: i for i, name in enumerate(stream.layout.sources)}
        self.apart: dict[int, Tensor] = {}
        """Other term - present term [source row pos d_model] of some sources, by the number of the first."""
        self.joined = share.new_zeros(0)
        self.x: Tensor | None = None

    def _written(self, first: str, terms: Tensor) -> None:
        n = self.number[first]
        self.apart[n] = self.other[:, n : n + len(terms)].movedim(1, 0) - terms
        self.joined = torch.cat([self.apart[n] for n in sorted(self.apart)])

    def _change(self, row: Sequence[int]) -> Tensor:
        """What is added to the stream [row destination pos d_model] for destinations that read the same sources."""
        reads, offsets = int(self.layout.reads[row[0]]), self.layout.offsets
        apart = self.joined[:reads]
        shares = torch.stack([self.share[:, offsets[d] : offsets[d] + reads] for d in row], 1)
        return torch.einsum("bes,sbpd->bepd", shares.expand(apart.shape[1], -1, -1), apart)

    def block_entered(self, part: Part, x: Tensor) -> None:
        if not self.apart:
            self._written("input", x[None])
        self.x = x

    def attended(self, part: Part, z: Tensor) -> None:
        self._written(f"a{part.layer}.h0", torch.einsum("bphe,hed->hbpd", z, part.output))

    def mlp_entered(self, part: Part, x: Tensor) -> Tensor:
        return self.entered(self.at[f"m{part.layer}"], x)

    def mlp_left(self, part: Part, y: Tensor) -> None:
        self._written(f"m{part.layer}", y[None])

    def entered(self, d: int, x: Tensor) -> Tensor:
        """What destination ``d`` reads instead of ``x`` [row pos d_model]."""
        return x + self._change([d])[:, 0]

    def projected(self, part: Part, ports: Sequence[str], out: Tensor, version: int) -> Tensor:
        assert self.x is not None
        for port in ports:
            own, theirs = part.heads_of(port, version)
            kv = "h" if port == "q" or self.layout.blocks[part.layer].n_kv == part.n_heads else "kv"
            x = self.x[:, None] + self._change([self.at[f"a{part.layer}.{kv}{h}<{port}>"] for h in theirs])
            if part.norm is not None:
                x = part.norm(x)
            new = torch.einsum("bepd,deh->bpeh", x, part.weight(port)[:, own])
            bias = part.bias(port)
            value = part.read(port, out).clone()
            value[:, :, own] = new if bias is None else new + bias[own]
            out = part.written(port, out, value)
        return out
