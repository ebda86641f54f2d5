"""Budgets: about how much memory work will take, said before it begins, and the batches that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from circuits.questions import Question, asked
from circuits.stream import Stream
from interp.errors import InputError

__all__ = ["attribution_bytes", "bench_bytes", "fitting"]


def fitting(
    task: Any,
    need: Callable[[Question], int],
    *,
    batch_size: int | None,
    budget: float,
    together: bool = False,
) -> int | None:
    """How many examples go into a batch that ``budget`` bytes hold; None: all of them.

    ``need`` gives the bytes of one example; ``together``: all batches are held at once.

    Raises
    ------
    InputError
        Not even one example fits, or fewer than ``batch_size``, or (``together``) not all.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size}")
    first = next(iter(asked(task)))
    n, each = len(first), need(first)
    least = n if together else min(n, batch_size or 1)
    if least * each > budget:
        shown = f"{least} example{'s' if least > 1 else ''} of {first.clean.ids.shape[1]} tokens"
        raise InputError(
            f"{shown} would take about {least * each / 1e9:.2g} GB; budget is {budget / 1e9:.2g} GB (raise budget=, "
            f"{'ask fewer examples, ' if least > 1 else ''}or shorten the prompts)"
        )
    size = min(n, batch_size or int(budget // each))
    return size if size < n else None


def attribution_bytes(stream: Stream, question: Question) -> int:
    """Of one example's scores: every source's term, gradients of one block, the pass itself."""
    layout, itemsize = stream.layout, stream.model.dtype.itemsize
    pos, d = question.clean.ids.shape[1], stream.model.d_model
    ports = max((3 * b.n_heads for b in layout.blocks), default=1)
    kept = len(layout.sources) + 2 * ports + 24 * len(layout.blocks)
    heads = sum(b.n_heads * pos * pos for b in layout.blocks)
    return itemsize * (kept * pos * d + 2 * heads + 6 * _vocab(stream, question)) + 16 * layout.n_edges


def bench_bytes(stream: Stream, question: Question) -> int:
    """Of one example's interventions: two recorded runs, and one pass in which every source may differ."""
    layout, itemsize = stream.layout, stream.model.dtype.itemsize
    pos, d = question.clean.ids.shape[1], stream.model.d_model
    kept = 6 * len(layout.blocks) + 2 + len(layout.sources) + 16
    return itemsize * (kept * pos * d + 4 * _vocab(stream, question))


def _vocab(stream: Stream, question: Question) -> int:
    pos = question.clean.ids.shape[1]
    return (stream.model.d_vocab or 0) * (1 if question.position is not None else pos)
