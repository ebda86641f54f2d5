"""The truth about a planted circuit: which edges of a network's computational graph its logits depend on.

Names are those of edge attribution patching: nodes ``input`` (what both embeddings write), ``a0.h1`` (a head), ``m0``
(an MLP) and ``logits``; an edge ``a0.h1->a1.h0<k>`` is the source's term in the stream that the destination's keys
are computed from. Read next: ``planted_letters.py``, two circuits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError, nearest
from interp.showing import Shown

__all__ = ["Edge", "PlantedGraph"]

_NODE = re.compile(r"input|logits|m(?P<mlp>\d+)|a(?P<layer>\d+)\.h(?P<head>\d+)")
_EDGE = re.compile(r"(?P<source>[^<>]+)->(?P<destination>[^<>]+)(<(?P<port>[qkv])>)?")


@dataclass(frozen=True, slots=True, order=True, repr=False)
class Edge(Shown):
    """One term of one destination's input: ``str(Edge.parse("a0.h1->a1.h0<k>"))`` is the same string again."""

    source: str
    destination: str
    port: str | None = None
    """``"q"``, ``"k"`` or ``"v"`` where the destination is a head, else None."""

    def __post_init__(self) -> None:
        for node in (self.source, self.destination):
            if not _NODE.fullmatch(node):
                raise InputError(f"no node {node!r}; nodes are 'input', 'a0.h1', 'm0', 'logits'")
        if (self.port is not None) != self.destination.startswith("a") or self.port not in (None, *"qkv"):
            raise InputError(
                f"edge {self}: a head is entered at <q>, <k> or <v>, anything else without a port"
            )

    @classmethod
    def parse(cls, text: str) -> Edge:
        """The edge written as ``text``.

        Raises
        ------
        InputError
            It is no edge.
        """
        match = _EDGE.fullmatch(text)
        if match is None:
            raise InputError(f"no edge {text!r}; edges read 'input->a0.h1<q>', 'a0.h1->m0', 'm0->logits'")
        return cls(match["source"], match["destination"], match["port"])

    def __str__(self) -> str:
        return f"{self.source}->{self.destination}{'' if self.port is None else f'<{self.port}>'}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlantedGraph(Shown):
    """The true edges of a network of ``n_layers`` layers with ``n_heads`` heads and an MLP each.

    Removing a source's term from a destination's input destroys the behaviour exactly where the edge is essential, or
    where no path of the alternatives is left whole; removing any other edge of :attr:`candidates` changes no logit.

    Raises
    ------
    InputError
        An edge is not one of the network, or is given twice.
    """

    n_layers: int
    n_heads: int
    essential: tuple[Edge, ...]
    """Each of them alone destroys the behaviour when it is removed."""
    alternatives: tuple[tuple[Edge, ...], ...] = ()
    """Paths that back one another up: the answer stands, to the last digit, as long as one of them is whole."""
    still: tuple[Edge, ...] = ()
    """True edges that the corrupted prompts leave as they are (they carry positions or constants): no comparison of
    clean and corrupted runs can find them, only removal can."""
    decoys: tuple[str, ...] = ()
    """Nodes that carry the answer and cause nothing."""

    def __post_init__(self) -> None:
        known = {str(edge) for edge in self.candidates}
        edges = self.edges
        for edge in (*edges, *self.still):
            if str(edge) not in known:
                raise InputError(f"{edge} is no edge of this network{nearest(str(edge), known)}")
        if len(set(edges)) < len(edges) or not set(self.still) <= set(edges):
            raise InputError("an edge is given twice, or is called still but is none of the circuit's")

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Every true edge: the essential ones and the alternatives."""
        return (*self.essential, *(edge for path in self.alternatives for edge in path))

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that true edges touch, in forward order."""
        touched = {node for edge in self.edges for node in (edge.source, edge.destination)}
        return tuple(node for node in self.all_nodes if node in touched)

    @property
    def all_nodes(self) -> tuple[str, ...]:
        """Every node of the network, in forward order."""
        layers = (
            (*(f"a{layer}.h{head}" for head in range(self.n_heads)), f"m{layer}")
            for layer in range(self.n_layers)
        )
        return ("input", *(node for layer in layers for node in layer), "logits")

    @property
    def candidates(self) -> tuple[Edge, ...]:
        """Every edge of the network, true or not: all pairs whose source has written before the destination reads."""
        return tuple(self._candidates())

    @property
    def others(self) -> tuple[Edge, ...]:
        """The candidates that are no true edges."""
        true = set(self.edges)
        return tuple(edge for edge in self.candidates if edge not in true)

    def _candidates(self) -> Iterator[Edge]:
        written: list[str] = ["input"]
        for layer in range(self.n_layers):
            heads = [f"a{layer}.h{head}" for head in range(self.n_heads)]
            yield from (Edge(s, head, port) for head in heads for port in "qkv" for s in written)
            written += heads
            yield from (Edge(s, f"m{layer}") for s in written)
            written.append(f"m{layer}")
        yield from (Edge(s, "logits") for s in written)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: sizes, and edges by their names."""
        return {
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "nodes": list(self.nodes),
            "essential": [str(edge) for edge in self.essential],
            "alternatives": [[str(edge) for edge in path] for path in self.alternatives],
            "still": [str(edge) for edge in self.still],
            "decoys": list(self.decoys),
        }

    def __repr__(self) -> str:
        return (
            f"PlantedGraph({len(self.edges)} of {len(self.candidates)} edges, nodes {', '.join(self.nodes)})"
        )
