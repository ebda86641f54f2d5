"""Layout: the nodes and the possible edges of a network, in flat arrays.

A *source* writes to the residual stream (the embedding, a head, an MLP); a *destination* reads it (a head's queries,
keys or values, an MLP, the logits). Every destination reads a prefix of the sources, so the edges are numbered
destination by destination, and a slice of any array over edges is one destination's row. Read next: ``graph.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from interp.errors import InputError, ModelError, nearest
from interp.models.anatomy import Anatomy
from interp.showing import Shown

__all__ = ["GQA", "Block", "Layout"]

GQA = Literal["ungrouped", "grouped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What one block adds to the graph."""

    n_heads: int = 0
    n_kv: int = 0
    """Key/value heads that are destinations of their own: ``n_heads`` unless grouped queries share them."""
    mlp: bool = False
    parallel: bool = False
    """Whether the MLP reads what the attention reads (and not what it writes)."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Layout(Shown):
    """Sources, destinations and edges of a network.

    Names are those of edge attribution patching: ``input``, ``a0.h1``, ``m0``, ``logits``; an edge is
    ``a0.h1->a1.h0<k>``. Under grouped-query attention ``gqa="ungrouped"`` gives every query head keys and values of
    its own (the published convention), ``"grouped"`` one destination ``a1.kv0<k>`` for each key/value head (what the
    network computes).
    """

    blocks: tuple[Block, ...]
    gqa: GQA = "ungrouped"

    @classmethod
    def of(cls, anatomy: Anatomy | None, *, gqa: GQA = "ungrouped") -> Layout:
        """The layout of a network.

        Raises
        ------
        ModelError
            Its stream is no plain sum of what heads and MLPs write: post-norm or sandwiched blocks, state-space
            mixers, or an architecture that is not known.
        """
        if gqa not in ("ungrouped", "grouped"):
            raise InputError(f"gqa={gqa!r}; it is 'ungrouped' or 'grouped'")
        if anatomy is None:
            raise ModelError(
                "circuits need to know which modules write to the residual stream, and the anatomy of this model is "
                "unknown; load it with backend='transformers', or give the module a method anatomy()"
            )
        for layer, block in enumerate(anatomy.blocks):
            if block.placement in ("post", "sandwich"):
                where = "itself" if block.placement == "post" else "behind attention and MLP"
                raise ModelError(
                    f"block {layer} of this {anatomy.family} model normalises the residual stream {where} "
                    f"({block.placement}-norm): what a head writes is not one term of a sum, so it has no edges"
                )
            if block.mixer is not None:
                raise ModelError(
                    f"block {layer} of this {anatomy.family} model is a state-space mixer: no heads"
                )
        return cls(
            blocks=tuple(
                Block(
                    n_heads=block.attn.n_heads if block.attn else 0,
                    n_kv=(block.attn.n_kv_heads if gqa == "grouped" else block.attn.n_heads)
                    if block.attn
                    else 0,
                    mlp=block.mlp is not None,
                    parallel=block.parallel,
                )
                for block in anatomy.blocks
            ),
            gqa=gqa,
        )

    @classmethod
    def plain(cls, n_layers: int, n_heads: int, *, mlp: bool = True) -> Layout:
        """The layout of ``n_layers`` equal blocks with ``n_heads`` heads each."""
        return cls(blocks=(Block(n_heads=n_heads, n_kv=n_heads, mlp=mlp),) * n_layers)

    # -- sources and destinations -------------------------------------------------------------------

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Who writes, in forward order."""
        return (
            "input",
            *(name for layer, block in enumerate(self.blocks) for name in self._writers(layer, block)),
        )

    @cached_property
    def destinations(self) -> tuple[str, ...]:
        """Who reads, in forward order; within a block queries, keys, values, MLP."""
        return tuple(name for name, _ in self._readers())

    @cached_property
    def reads(self) -> np.ndarray:
        """[destination] of how many sources it reads the sum: the first so many."""
        return np.array([n for _, n in self._readers()], dtype=np.int64)

    @cached_property
    def offsets(self) -> np.ndarray:
        """[destination + 1] where each destination's edges begin."""
        return np.concatenate([[0], np.cumsum(self.reads)])

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return int(self.offsets[-1])

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """All nodes in forward order, key/value groups behind the heads of their layer."""
        ends = dict.fromkeys(name.split("<")[0] for name in self.destinations)
        groups = [name for name in ends if ".kv" in name]
        named = [*self.sources, *groups, "logits"]
        return tuple(sorted(named, key=lambda name: (*self._place(name), ".kv" in name, named.index(name))))

    def _place(self, name: str) -> tuple[int, int]:
        if name in ("input", "logits"):
            return (-1, 0) if name == "input" else (len(self.blocks), 0)
        return int(name[1:].split(".")[0]), int(name[0] == "m")

    @staticmethod
    def _writers(layer: int, block: Block) -> Iterator[str]:
        yield from (f"a{layer}.h{head}" for head in range(block.n_heads))
        if block.mlp:
            yield f"m{layer}"

    def _readers(self) -> Iterator[tuple[str, int]]:
        written = 1
        for layer, block in enumerate(self.blocks):
            kv = "kv" if block.n_kv != block.n_heads else "h"
            yield from ((f"a{layer}.h{head}<q>", written) for head in range(block.n_heads))
            yield from (
                (f"a{layer}.{kv}{head}<{port}>", written) for port in "kv" for head in range(block.n_kv)
            )
            if block.mlp:
                yield f"m{layer}", written + (0 if block.parallel else block.n_heads)
            written += block.n_heads + block.mlp
        yield "logits", written

    # -- edges ----------------------------------------------------------------------------------------

    @cached_property
    def source(self) -> np.ndarray:
        """[edge] the number of its source."""
        return np.concatenate([np.arange(n) for n in self.reads]).astype(np.int32)

    @cached_property
    def destination(self) -> np.ndarray:
        """[edge] the number of its destination."""
        return np.repeat(np.arange(len(self.reads)), self.reads).astype(np.int32)

    @cached_property
    def layer(self) -> np.ndarray:
        """[destination] the block it lies in; for the logits the number of blocks."""
        return np.array([self._place(name)[0] for name in self.destinations], dtype=np.int64)

    def name(self, edge: int) -> str:
        """An edge's name."""
        return f"{self.sources[self.source[edge]]}->{self.destinations[self.destination[edge]]}"

    @property
    def names(self) -> list[str]:
        """All edges' names, in order."""
        return [self.name(edge) for edge in range(self.n_edges)]

    @cached_property
    def _number(self) -> tuple[dict[str, int], dict[str, int]]:
        return ({n: i for i, n in enumerate(self.sources)}, {n: i for i, n in enumerate(self.destinations)})

    def edge(self, name: str) -> int:
        """The number of the edge called ``name``.

        Raises
        ------
        InputError
            There is no such edge; says the nearest.
        """
        source, _, destination = str(name).partition("->")
        sources, destinations = self._number
        if source in sources and destination in destinations:
            at = destinations[destination]
            if sources[source] < self.reads[at]:
                return int(self.offsets[at]) + sources[source]
            raise InputError(f"no edge {str(name)!r}: {source} has not written when {destination} reads")
        known = sources if source not in sources else destinations
        wrong = source if source not in sources else destination
        raise InputError(
            f"no edge {str(name)!r}: {wrong!r} is none of this network's "
            f"{'sources' if known is sources else 'destinations'}"
            f"{nearest(wrong, known)}"
        )

    def edges(self, names: Any) -> np.ndarray:
        """Edge numbers from names, numbers, or a boolean array over all edges.

        Raises
        ------
        InputError
            A name or a number that is no edge, or a mask of another length.
        """
        if isinstance(names, str):
            names = [names]
        given = names if isinstance(names, np.ndarray) else list(names)
        if len(given) == 0:
            return np.zeros(0, dtype=np.int64)
        if not isinstance(given, np.ndarray) and not isinstance(given[0], int | np.integer | bool | np.bool_):
            return np.array([self.edge(str(name)) for name in given], dtype=np.int64)
        array = np.asarray(given)
        if array.dtype == bool:
            if array.shape != (self.n_edges,):
                raise InputError(
                    f"a mask over edges has {self.n_edges} entries here; got {list(array.shape)}"
                )
            return np.flatnonzero(array)
        if not np.issubdtype(array.dtype, np.integer) or array.min() < 0 or array.max() >= self.n_edges:
            raise InputError(f"edges are numbered 0-{self.n_edges - 1}; got {array.min()} to {array.max()}")
        return array.astype(np.int64)

    def mask(self, edges: Any) -> np.ndarray:
        """[edge] True at the given ones."""
        chosen = np.zeros(self.n_edges, dtype=bool)
        chosen[self.edges(edges)] = True
        return chosen

    def leaving(self, nodes: str | Sequence[str]) -> np.ndarray:
        """Every edge that leaves the given sources: what patching a node as a whole means."""
        wanted = [nodes] if isinstance(nodes, str) else list(nodes)
        sources = self._number[0]
        for node in wanted:
            if node not in sources:
                raise InputError(f"no source {node!r}{nearest(node, sources)}")
        return np.flatnonzero(np.isin(self.source, [sources[node] for node in wanted]))

    @cached_property
    def node_of(self) -> np.ndarray:
        """[destination] the source that the destination belongs to: the head it feeds, the MLP; -1 for the logits
        and, where key/value heads are shared, for those (see :attr:`feeds`)."""
        sources = self._number[0]
        return np.array([sources.get(name.split("<")[0], -1) for name in self.destinations])

    @cached_property
    def feeds(self) -> tuple[tuple[int, ...], ...]:
        """[destination] the sources whose output depends on it; none for the logits."""
        out = []
        for name, own in zip(self.destinations, self.node_of, strict=True):
            if ".kv" in name:
                layer, group = int(name[1:].split(".")[0]), int(name.split("kv")[1].split("<")[0])
                block = self.blocks[layer]
                each = block.n_heads // block.n_kv
                heads = range(group * each, (group + 1) * each)
                out.append(tuple(self._number[0][f"a{layer}.h{head}"] for head in heads))
            else:
                out.append((int(own),) if own >= 0 else ())
        return tuple(out)

    def pruned(self, chosen: np.ndarray) -> np.ndarray:
        """The mask without its dangling parts: edges that no path from the input to the logits goes through.

        Sources other than the input must be reached from it, destinations must reach the logits.
        """
        keep = chosen.copy()
        reached = np.zeros(len(self.sources), dtype=bool)
        reached[0] = True
        for d, (start, stop) in enumerate(zip(self.offsets, self.offsets[1:], strict=False)):
            keep[start:stop] &= reached[: stop - start]
            if keep[start:stop].any():
                reached[list(self.feeds[d])] = True
        wanted = np.zeros(len(self.sources), dtype=bool)
        for d in range(len(self.destinations) - 1, -1, -1):
            start, stop = self.offsets[d], self.offsets[d + 1]
            feeds = self.feeds[d]
            if feeds and not wanted[list(feeds)].any():
                keep[start:stop] = False
            wanted[: stop - start] |= keep[start:stop]
        return keep

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: what :meth:`from_dict` reads."""
        blocks = [[b.n_heads, b.n_kv, b.mlp, b.parallel] for b in self.blocks]
        return {"gqa": self.gqa, "blocks": blocks}

    @classmethod
    def from_dict(cls, record: Any) -> Layout:
        """The layout that :meth:`to_dict` described."""
        blocks = tuple(
            Block(n_heads=int(h), n_kv=int(kv), mlp=bool(mlp), parallel=bool(parallel))
            for h, kv, mlp, parallel in record["blocks"]
        )
        return cls(blocks=blocks, gqa=record["gqa"])
