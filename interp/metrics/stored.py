"""Stored: rows on disk in the place of a model that has run already, so that a profile reads either."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch

from interp.activations import Activations
from interp.errors import InputError, SiteError, nearest
from interp.sites import Site
from interp.stores.store import ActivationStore
from interp.tokens import Tokens

__all__ = ["StoredRuns"]


class StoredRuns:
    """A store's rows as runs of tokens: ``tokens`` hold row numbers in the place of ids, ``capture`` reads those rows.

    A run is a window of a document: it ends where the document changes or the position does not grow.

    Parameters
    ----------
    max_rows
        The first so many rows; all by default.
    """

    def __init__(self, store: ActivationStore, *, max_rows: int | None = None) -> None:
        n = store.n_rows if max_rows is None else min(max_rows, store.n_rows)
        if n < 4:
            raise InputError(f"{store.path}: {n} rows; at least 4 are needed")
        self.store, self.name, self.n_rows = store, str(store.path), n
        doc, pos = store.doc[:n].long(), store.pos[:n].long()
        new = torch.ones(n, dtype=torch.bool)
        new[1:] = (doc[1:] != doc[:-1]) | (pos[1:] <= pos[:-1])
        starts = torch.nonzero(new).flatten()
        lengths = torch.diff(torch.cat([starts, torch.tensor([n])]))
        steps = torch.arange(int(lengths.max()))
        mask = steps < lengths[:, None]
        self.tokens = Tokens(ids=torch.where(mask, starts[:, None] + steps, 0), mask=mask)

    def find(self, sites: Any = None) -> tuple[Site, ...]:
        """The stored sites that match, in their order; all for None."""
        names = [str(site) for site in self.store.sites]
        if sites is None:
            return self.store.sites
        asked = [sites] if isinstance(sites, str | Site) else list(sites)
        for pattern in map(str, asked):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise SiteError(f"{self.name} keeps no {pattern!r}{nearest(pattern, names)}")
        kept = {name for name in names if any(fnmatchcase(name, str(pattern)) for pattern in asked)}
        return tuple(site for site in self.store.sites if str(site) in kept)

    def capture(self, part: Tokens, sites: Sequence[Any], **options: Any) -> Activations:
        """The rows of these tokens, padded to [batch, pos, d] again."""
        if options.get("positions") is not None:
            raise InputError("a store keeps the rows that it keeps: positions= goes with a model")
        numbers = part.ids[part.mask]  # neighbours on the disk, since windows are asked for in order
        rows = self.store.batch(slice(int(numbers[0]), int(numbers[-1]) + 1), sites=list(sites))
        if len(rows) != len(numbers):
            rows = self.store.batch(numbers, sites=list(sites))
        tensors = {}
        for site in map(Site.parse, map(str, sites)):
            flat = rows[site].flatten(1)
            tensors[site] = flat.new_zeros((*part.ids.shape, flat.shape[1]))
            tensors[site][part.mask] = flat
        return Activations(tensors=tensors, mask=part.mask)
