"""Activations on disk: shards of rows for several sites at once, read without loading them.

A store is a folder with ``config.json`` (what was harvested, and how), one manifest of JSON lines
for each process that harvested, and the shards they list. Rows are tokens (or whole inputs, for
networks without positions); row ``i`` of every site and of ``tokens``, ``doc`` and ``pos`` belong
together. Read next: ``harvesting.py`` makes stores, ``shards.py`` says what the bytes are.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from interp.errors import InputError, SiteError, StoreError, nearest
from interp.runs.files import inside
from interp.runs.provenance import digest
from interp.showing import Shown, brief
from interp.sites import Site
from interp.stores.manifest import Shard, layout_of, manifest_name, read_config, read_manifest, verify_shards
from interp.stores.orders import ordered_rows, shuffled_rows
from interp.stores.shards import COLUMNS, DTYPES, map_shard

__all__ = ["ActivationStore", "RowBatch"]

Rows = slice | Sequence[int] | np.ndarray | Tensor
"""Which rows: a slice, or whole numbers [sample]; negative ones count from the end."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RowBatch(Shown):
    """Rows of several sites; ``batch[site]`` is [sample, ...]."""

    acts: dict[Site, Tensor]
    index: Int[Tensor, "sample"]
    """Which rows of the store these are."""
    tokens: Int[Tensor, "sample"]
    doc: Int[Tensor, "sample"]
    pos: Int[Tensor, "sample"]

    def __getitem__(self, site: str | Site) -> Tensor:
        key = Site.parse(site)
        if key not in self.acts:
            raise _unknown(key, self.acts)
        return self.acts[key]

    def __len__(self) -> int:
        return len(self.index)


def _unknown(site: Site, known: Any) -> SiteError:
    names = [str(s) for s in known]
    return SiteError(
        f"{str(site)!r} was not harvested; the store holds {', '.join(names)}{nearest(str(site), names)}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Scattered:
    """Rows from all over a store: their order when sorted, and which sorted stretch lies in which shard."""

    order: Tensor
    ordered: Tensor
    stretches: list[tuple[int, int, int]]


class ActivationStore(Shown):
    """Activations of several sites, row by row, on disk.

    Open one with :func:`open_store`. Shards are mapped, not loaded: memory is what a call returns.
    """

    def __init__(self, path: str | Path, *, partial: bool = False) -> None:
        self.path = Path(path)
        self.config = read_config(self.path)
        self._layout = layout_of(self.config)
        ranks = [(rank, self.path / manifest_name(rank, self.world_size)) for rank in range(self.world_size)]
        self.missing_ranks = tuple(rank for rank, manifest in ranks if not manifest.exists())
        """Processes whose part is not here (only with ``partial=True``)."""
        if self.missing_ranks and not partial:
            raise StoreError(
                f"{self.path} lacks the part of rank {', '.join(map(str, self.missing_ranks))} of {self.world_size}: "
                f"{ranks[self.missing_ranks[0]][1].name} is missing; copy that rank's manifest and shards here"
            )
        parts = [
            read_manifest(manifest, self._layout, (rank, self.world_size))
            for rank, manifest in ranks
            if rank not in self.missing_ranks
        ]
        shards = sorted((shard for part in parts for shard in part), key=lambda s: (len(s.name), s.name))
        self.shards: tuple[Shard, ...] = tuple(shards)
        self._starts = [0]
        for shard in shards:
            self._starts.append(self._starts[-1] + shard.rows)
        self._mapped: dict[int, dict[str, Tensor]] = {}

    @property
    def world_size(self) -> int:
        """How many processes harvested it."""
        return self.config["world_size"]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self._starts[-1]

    def __len__(self) -> int:
        return self.n_rows

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The harvested sites in forward order."""
        return tuple(Site.parse(name) for name, _ in self._layout.sites)

    @property
    def shapes(self) -> dict[Site, tuple[int, ...]]:
        """The shape of one row of each site."""
        return {site: shape for site, (_, shape) in zip(self.sites, self._layout.sites, strict=True)}

    @property
    def widths(self) -> dict[Site, int]:
        """The last axis of each site's rows."""
        return {site: shape[-1] for site, shape in self.shapes.items()}

    @property
    def dtype(self) -> torch.dtype:
        """The float type on the disk."""
        return DTYPES[self._layout.dtype]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the rows came from: model, versions, settings, and the hash of the texts read."""
        texts: dict[str, Any] = {"source": None, "documents": 0, "sha256": None}
        if self.shards:  # every process reads all texts: the one that came furthest has read the most
            last = max(self.shards, key=lambda shard: (shard.doc, shard.window))
            texts = {
                "source": last.source,
                "documents": last.doc + (last.window > 0),
                "sha256": last.texts_sha256,
            }
        return {**self.config["provenance"], "harvest": self.config["identity"], "texts": texts,
                "store": {"hash": self.config["hash"], "n_rows": self.n_rows}}  # fmt: skip

    @cached_property
    def tokens(self) -> Int[Tensor, "sample"]:
        """The token id of every row (4 bytes a row)."""
        return self._column("tokens")

    @cached_property
    def doc(self) -> Int[Tensor, "sample"]:
        """The index of every row's document among the texts (8 bytes a row)."""
        return self._column("doc")

    @cached_property
    def pos(self) -> Int[Tensor, "sample"]:
        """Where every row's token stood in what the model was given (4 bytes a row)."""
        return self._column("pos")

    def _column(self, name: str) -> Tensor:
        parts = [self._tensors(i)[name] for i in range(len(self.shards))]
        return torch.cat(parts) if parts else torch.empty(0, dtype=COLUMNS[name])

    def rows(self, site: str | Site, index: Rows = slice(None)) -> Shaped[Tensor, "sample ..."]:
        """Rows ``index`` of a site, in that order, in the store's float type.

        A slice without a step is read in order; anything else row by row. ``slice(None)``, the
        default, reads the whole site into memory.

        Raises
        ------
        SiteError
            If the site was not harvested.
        InputError
            If an index is out of range.
        StoreError
            If a shard is missing or damaged.
        """
        return self._gather(f"acts/{self._site(site)}", self._scattered(self._index(index)))

    def _site(self, site: str | Site) -> Site:
        key = Site.parse(site)
        if key not in self.shapes:
            raise _unknown(key, self.sites)
        return key

    def _index(self, index: Rows) -> slice | Tensor:
        if isinstance(index, slice):
            start, stop, step = index.indices(self.n_rows)
            return slice(start, max(start, stop)) if step == 1 else torch.arange(start, stop, step)
        rows = torch.as_tensor(index)
        if rows.numel() == 0:
            return rows.long().reshape(0)
        if rows.ndim != 1 or rows.is_floating_point() or rows.dtype == torch.bool:
            raise InputError(
                f"rows are asked for by whole numbers [sample]; got {rows.dtype} {list(rows.shape)}"
            )
        low, high = int(rows.min()), int(rows.max())
        if low < -self.n_rows or high >= self.n_rows:
            wrong = low if low < -self.n_rows else high
            raise InputError(f"no row {wrong}: the store has {self.n_rows} rows")
        rows = rows.long().cpu()
        return torch.where(rows < 0, rows + self.n_rows, rows) if low < 0 else rows

    def _tensors(self, shard: int) -> dict[str, Tensor]:
        if shard not in self._mapped:
            s = self.shards[shard]
            self._mapped[shard] = map_shard(inside(self.path, s.name), self._layout, s.rows)
        return self._mapped[shard]

    def _gather(self, name: str, rows: slice | _Scattered) -> Tensor:
        if isinstance(rows, slice):
            return self._run(name, rows.start, rows.stop)
        out = self._empty(name, len(rows.order))
        for shard, low, high in rows.stretches:
            local = rows.ordered[low:high] - self._starts[shard]
            out[rows.order[low:high]] = self._tensors(shard)[name].index_select(0, local)
        return out

    def _scattered(self, rows: slice | Tensor) -> slice | _Scattered:
        if isinstance(rows, slice):
            return rows
        # Sorted, each shard is visited once and its pages in order; without the sort it takes 1.5 times as long.
        order = rows.argsort()
        ordered = rows[order]
        cuts = torch.searchsorted(ordered, torch.tensor(self._starts)).tolist()
        found = [(shard, low, high) for shard, (low, high) in enumerate(pairwise(cuts)) if low < high]
        return _Scattered(order, ordered, found)

    def _run(self, name: str, start: int, stop: int) -> Tensor:
        out = self._empty(name, stop - start)
        place = start
        while place < stop:
            shard = bisect.bisect_right(self._starts, place) - 1
            end = min(stop, self._starts[shard + 1])
            low, high = place - self._starts[shard], end - self._starts[shard]
            out[place - start : end - start] = self._tensors(shard)[name][low:high]
            place = end
        return out

    def _empty(self, name: str, n: int) -> Tensor:
        if name in COLUMNS:
            return torch.empty(n, dtype=COLUMNS[name])
        shape = dict(self._layout.sites)[name.removeprefix("acts/")]
        return torch.empty(n, *shape, dtype=self.dtype)

    def batch(self, index: Rows, *, sites: str | Site | Sequence[str | Site] | None = None) -> RowBatch:
        """Rows ``index`` of several sites (default: all) with their tokens, documents and positions."""
        rows = self._index(index)
        number = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        where = self._scattered(rows)
        acts = {site: self._gather(f"acts/{site}", where) for site in self._sites(sites)}
        return RowBatch(acts=acts, index=number, **{name: self._gather(name, where) for name in COLUMNS})

    def _sites(self, sites: str | Site | Sequence[str | Site] | None) -> tuple[Site, ...]:
        if sites is None:
            return self.sites
        asked = [sites] if isinstance(sites, str | Site) else sites
        return tuple(self._site(site) for site in asked)

    def random_batch(
        self,
        size: int,
        *,
        generator: torch.Generator,
        sites: str | Site | Sequence[str | Site] | None = None,
    ) -> RowBatch:
        """``size`` rows drawn independently (with replacement) by ``generator``."""
        if self.n_rows == 0:
            raise StoreError(f"{self.path} holds no rows yet")
        return self.batch(torch.randint(self.n_rows, (_positive(size),), generator=generator), sites=sites)

    def batches(
        self,
        size: int,
        *,
        sites: str | Site | Sequence[str | Site] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        epochs: int | None = 1,
        drop_last: bool = False,
        start: int = 0,
    ) -> Iterator[RowBatch]:
        """Batches of ``size`` rows, every row exactly once an epoch.

        Shuffled, blocks of 512 rows come in random order from the whole store and the rows of 128
        blocks at a time are mixed: near to a full shuffle, at the speed of reading blocks. Depends
        on ``seed`` alone.

        Parameters
        ----------
        epochs
            How often to go through; None: without end. A batch never spans two epochs.
        drop_last
            Leave out an epoch's last batch if it is shorter.
        start
            Batches to pass over without reading them: how a run that was cut off goes on.
        """
        sites, size = self._sites(sites), _positive(size)
        if start < 0 or (epochs is not None and epochs < 0):
            raise InputError(f"start and epochs count from 0; got start={start}, epochs={epochs}")
        if self.n_rows == 0:
            if epochs is None:
                raise StoreError(f"{self.path} holds no rows yet")
            return iter(())
        per_epoch = self.n_rows // size if drop_last else -(-self.n_rows // size)
        if per_epoch == 0 and epochs is None:
            raise InputError(f"a batch of {size} rows never fills: the store has {self.n_rows}")
        return self._batches(size, sites, seed if shuffle else None, epochs, per_epoch, start)

    def _batches(
        self,
        size: int,
        sites: tuple[Site, ...],
        seed: int | None,
        epochs: int | None,
        per_epoch: int,
        start: int,
    ) -> Iterator[RowBatch]:
        epoch, skip = divmod(start, max(per_epoch, 1))
        while epochs is None or epoch < epochs:
            order = (
                ordered_rows(self.n_rows, size)
                if seed is None
                else shuffled_rows(self.n_rows, size, seed, epoch)
            )
            for number, rows in zip(range(per_epoch), order, strict=False):
                if number >= skip:
                    yield self.batch(rows, sites=sites)
            epoch, skip = epoch + 1, 0

    def verify(self, *, progress: bool | None = None) -> ActivationStore:
        """Hash every shard again; the store itself if all are as they were written.

        Raises
        ------
        StoreError
            Naming every shard that is torn or has a changed bit.
        """
        verify_shards(self.path, self.shards, progress=progress)
        return self

    def _facts(self) -> dict[str, Any]:
        said = {"folder": self.path, "sites": [str(site) for site in self.sites], "rows": self.n_rows}
        said |= {
            "shards": len(self.shards),
            "dtype": self._layout.dtype,
            "configuration": digest(self.config),
        }
        return said | ({"missing ranks": list(self.missing_ranks)} if self.missing_ranks else {})

    def __repr__(self) -> str:
        part = f", without ranks {list(self.missing_ranks)}" if self.missing_ranks else ""
        shown = ", ".join(map(str, self.sites[:3])) + (", ..." if len(self.sites) > 3 else "")
        return f"ActivationStore({brief(self.path)!r}, {self.n_rows} rows of {shown} in {self._layout.dtype}{part})"


def _positive(size: int) -> int:
    if size < 1:
        raise InputError(f"a batch has at least one row; got size {size}")
    return size
