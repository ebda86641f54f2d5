"""Hand-set weights: a residual stream of named subspaces, and heads and MLPs that each read and write a few of them.

A part reads a subspace through a small matrix and writes another one; two parts are connected exactly where one
writes what the other reads. Everything that is given no purpose is *idle*: random weights that read the whole stream
and write to the subspace ``scratch``, which no part with a purpose reads, so that the parts off the circuit are as
busy as those on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InputError, nearest
from interp.showing import Shown
from interp.toys.networks import Block, Shape, Transformer

__all__ = ["Wiring"]

Reads = Mapping[str, Float[Tensor, "_ _"]]
"""Subspace -> the matrix [width, code] that its coordinates are multiplied with; what is read from several is added."""
SCRATCH = 8
"""The least width of the idle parts' subspace."""


class Wiring(Shown):
    """A :class:`Transformer` whose weights are set by hand, part by part; :meth:`finish` hands it out.

    Parameters
    ----------
    spaces
        Widths of the named subspaces, in the order in which they lie in the residual stream.
    d_vocab, n_ctx, n_layers, n_heads, d_mlp
        The sizes of the network. Its width is that of the subspaces and of ``scratch``, which takes what is over when
        the width is a multiple of ``n_heads`` and a head is as wide as the widest subspace.
    """

    def _facts(self) -> dict[str, Any]:
        return {"subspaces": {name: at.stop - at.start for name, at in self.at.items()}, "shape": self.shape}

    def __init__(
        self,
        spaces: Mapping[str, int],
        *,
        d_vocab: int,
        n_ctx: int,
        n_layers: int = 2,
        n_heads: int = 4,
        d_mlp: int = 16,
    ) -> None:
        named = sum(spaces.values())
        d_head = max(-(-(named + SCRATCH) // n_heads), *spaces.values())
        d_model = n_heads * d_head
        self.at: dict[str, slice] = {}
        start = 0
        for name, width in {**spaces, "scratch": d_model - named}.items():
            self.at[name] = slice(start, start + width)
            start += width
        self.shape = Shape(
            d_vocab=d_vocab, n_ctx=n_ctx, n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_mlp=d_mlp
        )
        self.module = Transformer(self.shape)
        for weight in self.module.parameters():
            weight.detach().zero_()
        self._heads: set[tuple[int, int]] = set()
        self._neurons = [0] * n_layers

    def space(self, name: str) -> slice:
        """Where a subspace lies in the residual stream."""
        if name not in self.at:
            raise InputError(f"no subspace {name!r}{nearest(name, self.at)}")
        return self.at[name]

    @torch.no_grad()
    def tokens(self, **tables: Float[Tensor, "token _"]) -> None:
        """What the token embedding writes to each named subspace."""
        for name, table in tables.items():
            self.module.embed.weight[:, self.space(name)] = table

    @torch.no_grad()
    def positions(self, **tables: Float[Tensor, "pos _"]) -> None:
        """What the position embedding writes to each named subspace."""
        assert self.module.pos_embed is not None
        for name, table in tables.items():
            self.module.pos_embed.weight[:, self.space(name)] = table

    @torch.no_grad()
    def head(self, layer: int, head: int, *, q: Reads, k: Reads, v: Reads, to: str, beta: float) -> None:
        """Give a head its purpose: attend by ``beta <q, k>`` and write the attended ``v`` to the subspace ``to``.

        Each of ``q``, ``k`` and ``v`` is a code of at most d_head numbers; the softmax is over ``beta`` times the
        inner product of query and key code.
        """
        attn, d_head = self._block(layer).attn, self.shape.d_head
        rows = slice(head * d_head, (head + 1) * d_head)
        gain = beta * d_head**0.5  # attention divides scores by the root of d_head
        for part, reads, scale in ((attn.q, q, gain), (attn.k, k, 1.0), (attn.v, v, 1.0)):
            for name, matrix in reads.items():
                code = matrix.shape[1]
                if code > d_head:
                    raise InputError(f"a code of {code} numbers does not fit a head of width {d_head}")
                part.weight[rows, self.space(name)][:code] += scale * matrix.T
        width = next(iter(v.values())).shape[1]
        attn.o.weight[self.space(to), rows][:, :width] = torch.eye(width)
        self._heads.add((layer, head))

    @torch.no_grad()
    def neurons(self, layer: int, *, reads: Reads, to: str, writes: Float[Tensor, "code width"]) -> None:
        """Give as many neurons as the code is long their purpose: relu of what they read, written to ``to``."""
        mlp = self._block(layer).mlp
        assert mlp is not None
        code, first = writes.shape[0], self._neurons[layer]
        span = slice(first, first + code)
        if span.stop > self.shape.d_mlp:
            raise InputError(f"{span.stop} neurons were asked of an MLP of {self.shape.d_mlp}")
        for name, matrix in reads.items():
            mlp.up.weight[span, self.space(name)] += matrix.T
        mlp.down.weight[self.space(to), span] = writes.T
        self._neurons[layer] = span.stop

    @torch.no_grad()
    def answer(self, space: str, table: Float[Tensor, "width token"]) -> None:
        """What the unembedding reads: the logits are the subspace's coordinates times ``table``, and nothing else."""
        self.module.unembed.weight[:, self.space(space)] = table.T

    @torch.no_grad()
    def finish(self, *, seed: int) -> Transformer:
        """Make everything without a purpose idle, and hand out the network in evaluation mode."""
        generator = torch.Generator().manual_seed(seed)
        shape, scratch = self.shape, self.space("scratch")

        def noise(weight: Tensor) -> Tensor:
            return torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5

        assert self.module.pos_embed is not None
        for table in (self.module.embed.weight, self.module.pos_embed.weight):
            table[:, scratch] = noise(table[:, scratch])
        for layer in range(shape.n_layers):
            block = self._block(layer)
            for head in range(shape.n_heads):
                if (layer, head) in self._heads:
                    continue
                rows = slice(head * shape.d_head, (head + 1) * shape.d_head)
                for part in (block.attn.q, block.attn.k, block.attn.v):
                    part.weight[rows] = 2 * noise(part.weight[rows])
                block.attn.o.weight[scratch, rows] = noise(block.attn.o.weight[scratch, rows])
            if block.mlp is not None:
                rest = slice(self._neurons[layer], shape.d_mlp)
                block.mlp.up.weight[rest] = 2 * noise(block.mlp.up.weight[rest])
                block.mlp.down.weight[scratch, rest] = noise(block.mlp.down.weight[scratch, rest])
        return self.module.eval()

    def _block(self, layer: int) -> Block:
        block = self.module.blocks[layer]
        assert isinstance(block, Block)
        return block
