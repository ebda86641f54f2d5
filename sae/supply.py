"""Batches for training, from rows that lie still or rows that flow, drawn so that a resumed run draws the same.

:class:`Still` rows (a tensor, a store) are drawn by index: the batch of a step is a pure function of (seed, step).
:class:`Flow` rows (a DataLoader, any iterable of chunks, a model reading texts) pass through a mixing buffer: each
batch leaves from random places of it, which the next rows fill. Its state is the buffer, the random generator and how
far the flow was read. Read next: ``streaming.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError, StoreError, nearest
from sae.data import RowSource, batch_indices, row_source

__all__ = ["Flow", "Still", "columns_of", "supply"]

Pair = tuple[Tensor, Tensor]
_SAMPLE = 8192


class _Moved:
    """Rows that go to a device once they are drawn."""

    device: torch.device | None = None
    """None: they stay where they are."""

    def to_device(self, x: Tensor, y: Tensor) -> Pair:
        """The pair there; still one tensor if it was one."""
        if self.device is None:
            return x, y
        moved = x.to(self.device)
        return moved, moved if y is x else y.to(self.device)


class Still(_Moved):
    """Rows by index; targets are the same rows unless others are given."""

    def __init__(self, rows: RowSource, targets: RowSource | None, batch_size: int, seed: int) -> None:
        if targets is not None and targets.n != rows.n:
            raise InputError(f"{rows.n} rows cannot have {targets.n} targets: row i is paired with target i")
        self.rows, self.targets, self.batch_size, self.seed = rows, targets, batch_size, seed
        batch_indices(rows.n, batch_size, 0, seed)  # says at once if there is too little data
        self.d_in, self.d_out = rows.d, (targets or rows).d
        self.place = rows.place if targets is None else f"{rows.place} -> {targets.place}"
        self.n: int | None = rows.n

    def batch(self, step: int, share: Any) -> Pair:
        """The rows and targets of ``step`` that ``share`` leaves to this process."""
        return self._draw(share(batch_indices(self.rows.n, self.batch_size, step, self.seed)))

    def _draw(self, indices: Tensor) -> Pair:
        x = self.rows.draw(indices)
        return self.to_device(x, x if self.targets is None else self.targets.draw(indices))

    def sample(self) -> Pair:
        """Some thousand random rows, to learn where the data lie."""
        generator = torch.Generator().manual_seed(self.seed)
        return self._draw(torch.randperm(self.rows.n, generator=generator)[:_SAMPLE])

    def fingerprint(self) -> str:
        """Tells other data apart without reading everything."""
        ours = self.rows.fingerprint()
        if self.targets is None:
            return ours
        return hashlib.sha256((ours + self.targets.fingerprint()).encode()).hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: the step says everything."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Nothing to take over."""


class Flow(_Moved):
    """Chunks of rows [sample, d] (or pairs of rows and targets) through a mixing buffer.

    An iterable that can be iterated again is, when it ends; an iterator that cannot ends the training with an error.
    One with a method ``starting_at(n)`` is asked for its chunks from the n-th on when a run is resumed; of others
    those chunks are read and dropped.
    """

    def __init__(self, chunks: Iterable[Any], batch_size: int, seed: int, *, capacity: int = 0) -> None:
        self.chunks, self.batch_size = chunks, batch_size
        self.capacity = max(capacity, 16 * batch_size)
        self.generator = torch.Generator().manual_seed(7_919 * seed + 17)
        self.place = str(getattr(chunks, "place", type(chunks).__name__))
        self.n: int | None = None
        self.read = 0  # chunks of this pass that have been taken
        self.once = iter(chunks) is chunks
        self._source: Iterator[Any] | None = None
        self._rest: Pair | None = None
        self._last: Pair | None = None
        x, y = self._take(self.capacity)
        self.same = x is y
        self.x, self.y = x.clone(), (y.clone() if not self.same else y)
        if self.same:
            self.y = self.x
        self.d_in, self.d_out = self.x.shape[1], self.y.shape[1]
        first = (part[:256].cpu().contiguous().numpy().tobytes() for part in (self.x, self.y))
        self._fingerprint = hashlib.sha256(b"".join(first)).hexdigest()

    def batch(self, step: int, share: Any) -> Pair:
        """The next rows; every process draws the whole batch and keeps its share."""
        places = torch.randperm(self.capacity, generator=self.generator)[: self.batch_size]
        places = places.to(self.x.device)
        kept = share(places)
        x = self.x.index_select(0, kept)
        y = x if self.same else self.y.index_select(0, kept)
        new_x, new_y = self._take(self.batch_size)
        self.x.index_copy_(0, places, new_x)
        if not self.same:
            self.y.index_copy_(0, places, new_y)
        return self.to_device(x, y)

    def sample(self) -> Pair:
        """The buffer's first rows."""
        x = self.x[:_SAMPLE]
        return self.to_device(x, x if self.same else self.y[:_SAMPLE])

    def fingerprint(self) -> str:
        """Of the first rows."""
        return self._fingerprint

    def tensors(self) -> dict[str, Tensor]:
        """Buffer, generator, and how far the flow was read."""
        left = 0 if self._rest is None else len(self._rest[0])
        kept = {
            "x": self.x,
            "generator": self.generator.get_state(),
            "cursor": torch.tensor([self.read, left]),
        }
        return kept if self.same else kept | {"y": self.y}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on where :meth:`tensors` was asked."""
        if tensors["x"].shape != self.x.shape:
            raise StoreError(
                f"the checkpoint's buffer is {list(tensors['x'].shape)}, this run's {list(self.x.shape)}"
            )
        self.x = tensors["x"].to(self.x.device, copy=True)
        self.y = self.x if self.same else tensors["y"].to(self.y.device, copy=True)
        self.generator.set_state(tensors["generator"])
        wanted, left = tensors["cursor"].tolist()
        self._seek(wanted)
        if left and self._rest is not None and self._last is not None:
            self._rest = self._last[0][-left:], self._last[1][-left:]
        elif not left:
            self._rest = None

    def _seek(self, wanted: int) -> None:
        """Read on to the ``wanted``-th chunk of a pass, and hold it."""
        if self.once and wanted >= self.read:
            begin, source = self.read, self._source
        elif hasattr(self.chunks, "starting_at"):
            begin, source = max(0, wanted - 1), iter(self.chunks.starting_at(max(0, wanted - 1)))  # pyright: ignore
        else:
            begin, source = 0, iter(self.chunks)
        self._source, self.read = source, begin
        while self.read < wanted:
            self._rest = self._next()

    def _take(self, n: int) -> Pair:
        """The next ``n`` rows."""
        parts: list[Pair] = []
        missing = n
        while missing:
            if self._rest is None or not len(self._rest[0]):
                self._rest = self._next()
            x, y = self._rest
            taken = x[:missing], (x if y is x else y)[:missing]
            self._rest = x[missing:], y[missing:]
            parts.append((taken[0], taken[0]) if y is x else taken)
            if y is x:
                self._rest = (self._rest[0], self._rest[0])
            missing -= len(taken[0])
        if len(parts) == 1:
            return parts[0]
        x = torch.cat([p[0] for p in parts])
        return (x, x) if all(p[0] is p[1] for p in parts) else (x, torch.cat([p[1] for p in parts]))

    def _check(self, pair: Pair) -> None:
        """Every chunk is as wide as the first."""
        widths = pair[0].shape[1], pair[1].shape[1]
        assert self._last is not None  # the caller has set it
        first = self._last[0].shape[1], self._last[1].shape[1]
        if widths != first:
            wide = "rows" if widths[0] != first[0] else "targets"
            one = wide != "rows"
            raise InputError(
                f"chunk {self.read} of {self.place} holds {wide} of width {widths[one]}, the first {first[one]}"
            )

    def _next(self) -> Pair:
        for attempt in range(2):
            if self._source is None:
                self._source, self.read = iter(self.chunks), 0
            for chunk in self._source:
                self.read += 1
                pair = _pair(chunk, self.place)
                if len(pair[0]):
                    self._last = self._last or pair
                    self._check(pair)
                    self._last = pair
                    return pair
            if self.once or attempt:
                break
            self._source = None
        raise InputError(
            f"{self.place} ran out of rows after {self.read} chunks"
            + (
                "; give something that can be iterated again (a list, a DataLoader) or fewer steps"
                if self.once
                else ""
            )
        )


def _pair(chunk: Any, place: str) -> Pair:
    x: Any
    y: Any
    x, y = chunk if isinstance(chunk, list | tuple) and len(chunk) == 2 else (chunk, None)
    if isinstance(x, list | tuple) and len(x) == 1:
        x = x[0]
    for rows in (x,) if y is None else (x, y):
        if not isinstance(rows, Tensor) or rows.ndim < 2 or not rows.is_floating_point():
            shape = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise InputError(f"{place} must give floats [sample, d]; it gave {shape}")
        if bool(torch.isfinite(rows.sum())):  # a sum is finite only if all its terms are
            continue
        bad = int((~torch.isfinite(rows.flatten(1)).all(1)).sum())
        if bad:
            raise InputError(f"{bad} of {len(rows)} rows that {place} gave hold NaN or infinity")
    assert isinstance(x, Tensor)
    x = x.detach().flatten(1).float()
    return x, x if y is None else y.detach().flatten(1).float()


def supply(data: Any, batch_size: int, seed: int, *, site: Any = None, target: Any = None) -> Still | Flow:
    """``data`` as batches.

    Parameters
    ----------
    data
        A tensor [sample, d] or [sample, site, d]; a pair of tensors (rows, targets); an activation store; or any
        iterable of chunks or pairs of chunks, such as a DataLoader or ``sae.model_rows``.
    site, target
        Which site(s) of a store are read, and which are written.

    Raises
    ------
    InputError
        Unusable data, NaN, or too few rows.
    """
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return Still(row_source(data[0]), row_source(data[1]), batch_size, seed)
    if isinstance(data, Tensor) or hasattr(data, "n_rows"):
        targets = None if target is None else row_source(data, target)
        return Still(row_source(data, site), targets, batch_size, seed)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | dict):
        if isinstance(data, list | tuple) and not all(isinstance(c, Tensor | list | tuple) for c in data):
            raise InputError(
                f"cannot train on a {type(data).__name__} of {type(data[0]).__name__}; give tensors"
            )
        return Flow(data, batch_size, seed, capacity=int(getattr(data, "buffer", 0)))
    return Still(row_source(data, site), None, batch_size, seed)  # says what it cannot use


def columns_of(data: Any, sites: Sequence[Any]) -> list[slice]:
    """Where each site's coordinates lie in the rows that :func:`supply` gives of them all.

    Raises
    ------
    InputError
        The data have no such site, or are of none.
    """
    held: Sequence[Any]
    if isinstance(data, Tensor) and data.ndim == 3:
        held, widths = range(data.shape[1]), [data.shape[2]] * data.shape[1]
    elif hasattr(data, "n_rows"):
        held = [str(site) for site in sites]
        widths = [row_source(data, site).d for site in held]
    elif not isinstance(data, Tensor) and hasattr(data, "sites") and hasattr(data, "widths"):
        held, widths = list(data.sites), data.widths()
    else:
        raise InputError(
            "configurations by site need rows by site: a store, sae.model_rows of several sites, or a tensor "
            "[sample, site, d]"
        )
    names, ends = [str(site) for site in held], list(accumulate(widths))
    for site in sites:
        if str(site) not in names:
            raise InputError(
                f"there are no rows of site {site!r}; there are of {names}{nearest(str(site), names)}"
            )
    return [slice(ends[i] - widths[i], ends[i]) for i in (names.index(str(site)) for site in sites)]
