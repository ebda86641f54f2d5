"""The order in which a pass over a store reads its rows: as they lie, or near to shuffled.

An order is a stream of row numbers, so it costs no reading to make one or to pass over its
beginning. Read next: ``store.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["BLOCK", "POOL_BLOCKS", "ordered_rows", "shuffled_rows"]

BLOCK = 512
"""Rows that a shuffled pass moves as one piece: long enough to be read from a disk at its full rate."""
POOL_BLOCKS = 128
"""Blocks from all over the store whose rows are mixed at any time."""


def ordered_rows(n_rows: int, size: int) -> Iterator[slice]:
    """The rows in order, ``size`` at a time."""
    return (slice(i, min(i + size, n_rows)) for i in range(0, n_rows, size))


def shuffled_rows(n_rows: int, size: int, seed: int, epoch: int) -> Iterator[Int[Tensor, "sample"]]:
    """Row numbers of one shuffled epoch, ``size`` at a time, each row once.

    A pool is kept filled with the rows of randomly chosen blocks; half of it leaves, in random
    order, before more come in. Only row numbers are held: 8 bytes for each row in the pool.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    n_blocks = -(-n_rows // BLOCK)
    blocks = torch.randperm(n_blocks, generator=generator).tolist()
    pool = torch.empty(0, dtype=torch.int64)
    ready = torch.empty(0, dtype=torch.int64)
    place = 0
    while place < n_blocks or len(pool) or len(ready):
        if len(ready) >= size or (place >= n_blocks and not len(pool)):
            yield ready[:size]
            ready = ready[size:]
            continue
        room = max(POOL_BLOCKS - len(pool) // BLOCK, 1)
        fresh = [torch.arange(b * BLOCK, min((b + 1) * BLOCK, n_rows)) for b in blocks[place : place + room]]
        place += room
        pool = torch.cat([pool, *fresh])
        pool = pool[torch.randperm(len(pool), generator=generator)]
        leave = len(pool) if place >= n_blocks else len(pool) // 2
        ready, pool = torch.cat([ready, pool[:leave]]), pool[leave:]
