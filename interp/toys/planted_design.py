"""What a planted circuit is made of: its language, its wiring, its plain program and its true edges.

A :class:`Design` is one circuit; they lie in ``planted_letters.py`` and ``planted_records.py``. Tokens are written to
the stream as one-hot fields (``key 2``, ``word 0``), attention compares fields, and every softmax is left moderate
(``beta``), so that nothing is saturated unless the design says so. Prompts come in pairs: a pattern of symbols is
filled with fresh letters or records, and the corrupted prompt is the same pattern with two symbols exchanged. Read
next: one of the circuits, then ``planted_circuits.py``, which hands them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.toys.planted_graph import Edge, PlantedGraph
from interp.toys.wiring import Wiring

__all__ = ["Design", "Prompts", "edges", "one_hot", "orders"]

Prompts = tuple[
    Int64[Tensor, "batch pos"], Int64[Tensor, "batch pos"], Int64[Tensor, "batch"], Int64[Tensor, "batch"]
]
"""Clean ids, corrupted ids, answers, and the wrong answers they are measured against."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Design:
    """One planted circuit."""

    about: str
    """What it computes and by which parts, in a sentence or two."""
    strings: tuple[str, ...]
    length: int
    """Tokens in a prompt."""
    build: Callable[[], Wiring]
    program: Callable[[Sequence[int]], int]
    """The answer to a prompt, by plain means."""
    draw: Callable[[int, torch.Generator], Prompts]
    graph: PlantedGraph


def edges(text: str) -> tuple[Edge, ...]:
    """Edges from lines like ``input->a0.h0<q> <k> <v>``: a bare port repeats the line's nodes."""
    found = []
    for line in text.strip().splitlines():
        first, *more = line.split()
        stem = first.split("<")[0]
        found += [Edge.parse(first), *(Edge.parse(stem + port) for port in more)]
    return tuple(found)


def orders(n: int, of: int, generator: torch.Generator) -> Tensor:
    """[batch, of] each row a random order of 0 .. of - 1."""
    return torch.rand(n, of, generator=generator).argsort(1)


def one_hot(ids: Sequence[int], width: int, n_tokens: int) -> Tensor:
    """[n_tokens, width]: token ``i`` has the value ``ids[i]``, or nothing at all where that is -1."""
    table = torch.zeros(n_tokens, width)
    for token, value in enumerate(ids):
        if value >= 0:
            table[token, value] = 1
    return table
