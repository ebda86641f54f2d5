"""Waiting: rows on their way into the sums, held until a chunk is full: how updates were cut does not matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

__all__ = ["Chunk", "Waiting"]

Chunk = tuple[dict[str, Tensor], Tensor | None]
"""Rows by site, and their labels."""


class Waiting:
    """Fewer than a chunk of rows of every site, in memory of its own; a whole chunk passes by without a copy."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.n = 0
        """Rows held."""
        self._rows: dict[str, Tensor] = {}
        self._labels = torch.full((0,), -1)
        self._marked = False

    def chunks(self, given: Mapping[str, Tensor], labels: Tensor | None) -> Iterator[Chunk]:
        """Take rows in, and give out each chunk that they fill; use it before asking for the next."""
        n, start = len(next(iter(given.values()))), 0
        while start < n:
            alone = self.n == 0 and n - start >= self.size
            stop = start + (self.size if alone else min(self.size - self.n, n - start))
            cut = {site: x[start:stop] for site, x in given.items()}
            marks = None if labels is None else labels[start:stop]
            if alone:
                yield cut, marks
            else:
                self._hold(cut, marks)
                if self.n == self.size:
                    yield self.rest()
            start = stop

    def rest(self) -> Chunk:
        """What is held; afterwards nothing is."""
        n, labels = self.n, self._labels[: self.n] if self._marked else None
        self.n, self._marked = 0, False
        return {site: x[:n] for site, x in self._rows.items()}, labels

    def _hold(self, cut: Mapping[str, Tensor], marks: Tensor | None) -> None:
        start, stop = self.n, self.n + len(next(iter(cut.values())))
        for site, x in cut.items():
            room = self._rows.get(site)
            dtype = torch.promote_types(torch.float32 if room is None else room.dtype, x.dtype)
            if room is None or room.dtype != dtype:
                with torch.inference_mode(False):  # the memory outlives the mode in which the rows came
                    wider = x.new_empty((self.size, x.shape[1]), dtype=dtype)
                if room is not None:
                    wider[:start] = room[:start]
                self._rows[site] = room = wider
            room[start:stop] = x
        if marks is not None or self._marked:
            if not len(self._labels):
                with torch.inference_mode(False):
                    self._labels = torch.full((self.size,), -1)
            if not self._marked:
                self._labels[:start] = -1
            self._labels[start:stop] = -1 if marks is None else marks.cpu()
            self._marked = True
        self.n = stop
