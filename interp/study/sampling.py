"""Sampling: the rows of activations that a station looks at, and where each of them came from.

Stations read the study's store where there is one; without it (nothing could be harvested, or a station is used on
its own) the same rows come from capturing the study's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from interp.errors import InputError
from interp.sites import Site
from interp.study.stations import Study

__all__ = ["Rows", "draw", "layer_sites", "residual_sites"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Rows of several sites, row i of each from the same token."""

    acts: dict[Site, Tensor]
    """Site -> [sample, d] float32; heads laid side by side."""
    ids: Int64[Tensor, "sample"]
    """Token ids."""
    doc: Int64[Tensor, "sample"]
    """Row of ``study.tokens``."""
    pos: Int64[Tensor, "sample"]
    """Column of ``study.tokens``; -1 at sites without positions."""

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, grid: Int64[Tensor, "batch pos"]) -> Int64[Tensor, "sample"]:
        """The entries of a per-token grid that belong to these rows (its last column where rows have no position)."""
        return grid[self.doc, self.pos]  # position -1 is the last column

    def at(self, index: Tensor) -> Rows:
        """Some of the rows."""
        return Rows(
            acts={s: x[index] for s, x in self.acts.items()},
            ids=self.ids[index],
            doc=self.doc[index],
            pos=self.pos[index],
        )


def layer_sites(study: Study) -> tuple[Site, ...]:
    """The sites a station walks through in order: the store's, else the residual stream's, else the modules'."""
    if study.store is not None:
        return tuple(study.store.sites)
    canonical = [s for s in study.model.sites if s.kind == "resid_post"]
    first = [s for s in study.model.sites if s.kind == "resid_pre"][:1]
    return tuple(sorted([*first, *canonical])) or tuple(s for s in study.model.sites if s.path is not None)


def residual_sites(sites: Sequence[Site]) -> tuple[Site, ...]:
    """Of ``sites`` one a layer: the stream before the first and after every block; for plain modules all of them."""
    chosen = [s for s in sites if s.kind == "resid_post" or (s.kind == "resid_pre" and s.layer == 0)]
    # a network of one or two blocks has too few of those to draw a profile over
    return tuple(chosen) if len(chosen) > 3 else tuple(sites)


def draw(study: Study, sites: Sequence[Site], *, n_rows: int, seed: int, where: Tensor | None = None) -> Rows:
    """At most ``n_rows`` rows of ``sites``, drawn at random over all texts and positions.

    Parameters
    ----------
    where
        [batch, pos] the tokens to draw from; all real ones by default. Beginning-of-sequence marks are left out:
        their row is one vector, repeated, and often huge.

    Raises
    ------
    InputError
        No rows are left, or sites with and without positions were mixed.
    """
    tokens = study.tokens
    allowed = (
        tokens.mask.cpu().clone() if where is None else (tokens.mask & where.to(tokens.mask.device)).cpu()
    )
    allowed[:, 0] &= ~_begins(study)
    if not bool(allowed.any()) or n_rows < 1:
        raise InputError(f"no rows of {', '.join(map(str, sites))} are left to look at")
    read = _captured if study.store is None else _stored
    return read(study, sites, allowed, n_rows, seed)


def _begins(study: Study) -> Bool[Tensor, "batch"]:
    """Which sequences begin with a mark: the tokenizer's own, or a first token that all of them share."""
    first = study.tokens.ids[:, 0].cpu()
    if study.tokens.ids.shape[1] > 2 and len(first) > 1 and bool((first == first[0]).all()):
        return torch.ones_like(first, dtype=torch.bool)
    mark = getattr(study.model.tokenizer, "bos_token_id", None)
    return first == (-1 if mark is None else mark)


def _pick(n: int, n_rows: int, seed: int) -> Tensor:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:n_rows]
    return order.sort().values


def _stored(study: Study, sites: Sequence[Site], allowed: Tensor, n_rows: int, seed: int) -> Rows:
    store = study.store
    doc, pos = store.doc.long(), store.pos.long()
    whole_inputs = bool((pos < 0).any())  # sites without positions: a row an input
    keep = torch.arange(store.n_rows) if whole_inputs else torch.nonzero(allowed[doc, pos]).flatten()
    index = keep[_pick(len(keep), n_rows, seed)]
    acts = {site: store.rows(site, index).flatten(1).float() for site in sites}
    return Rows(acts=acts, ids=store.tokens[index].long(), doc=doc[index], pos=pos[index])


def _captured(study: Study, sites: Sequence[Site], allowed: Tensor, n_rows: int, seed: int) -> Rows:
    tokens = study.tokens
    doc, pos = torch.nonzero(allowed, as_tuple=True)
    picked = _pick(len(doc), n_rows, seed)
    doc, pos = doc[picked], pos[picked]
    texts = doc.unique()  # only the texts that some row comes from are run
    acts = study.model.capture(tokens.select(texts), list(sites), batch_size=16, device="cpu")
    row_of = torch.full((len(tokens),), -1, dtype=torch.long)
    row_of[texts] = torch.arange(len(texts))
    by_token = {site: _has_positions(acts[site], acts.mask) for site in sites}
    if len(set(by_token.values())) > 1:
        raise InputError(
            f"sites with and without positions cannot be drawn together: {', '.join(map(str, sites))}"
        )
    if not next(iter(by_token.values())):
        whole = {site: acts[site].flatten(1).float() for site in sites}
        return Rows(
            acts=whole, ids=tokens.ids.cpu()[texts, -1].long(), doc=texts, pos=torch.full_like(texts, -1)
        )
    found = {site: acts[site][row_of[doc], pos].flatten(1).float() for site in sites}
    return Rows(acts=found, ids=tokens.ids.cpu()[doc, pos].long(), doc=doc, pos=pos)


def _has_positions(value: Tensor, mask: Any) -> bool:
    return mask is not None and value.ndim >= 3 and value.shape[:2] == mask.shape
