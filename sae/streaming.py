"""Activations straight from a model, chunk by chunk, for training without a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError
from interp.showing import Shown
from interp.sites import Site
from interp.tokens import Tokens

__all__ = ["ModelRows", "model_rows"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ModelRows(Shown):
    """Can be iterated again and again: each pass runs the model over all texts, in the same order."""

    model: Any
    tokens: Any
    sites: tuple[str, ...]
    targets: tuple[str, ...]
    batch: int
    buffer: int
    include_first: bool
    first: int = 0

    @property
    def place(self) -> str:
        """For messages and provenance."""
        return ", ".join(self.sites) + (f" -> {', '.join(self.targets)}" if self.targets else "")

    def starting_at(self, n: int) -> ModelRows:
        """The same from the ``n``-th chunk on, without running the model on those before."""
        return replace(self, first=n)

    def widths(self) -> list[int]:
        """How wide the rows of each site are, from a forward pass over one text."""
        with torch.no_grad():
            acts = self.model.capture(self._part(0, 1), self.sites)
        return [acts.rows(site).flatten(1).shape[1] for site in self.sites]

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        for start in range(self.first * self.batch, len(self.tokens), self.batch):
            tokens = self._part(start, self.batch)
            with torch.no_grad():
                acts = self.model.capture(tokens, list(dict.fromkeys((*self.sites, *self.targets))))
            x = self._rows(acts, self.sites)
            yield (x, self._rows(acts, self.targets)) if self.targets else x

    def _part(self, start: int, size: int) -> Any:
        part = self.tokens[start : start + size]
        return part if isinstance(part, Tokens | Tensor) else self.model.tokens(part, truncate=True)

    def _rows(self, acts: Any, sites: Sequence[str]) -> Tensor:
        parts = []
        for site in sites:
            value = acts[site]
            if self.include_first or value.ndim < 3:
                parts.append(acts.rows(site).flatten(1).float().cpu())
                continue
            mask = (
                torch.ones(value.shape[:2], dtype=torch.bool)
                if acts.mask is None
                else acts.mask.cpu().clone()
            )
            mask[torch.arange(len(mask)), mask.long().argmax(1)] = False
            parts.append(value.cpu()[mask].flatten(1).float())
        return torch.cat(parts, 1)


def model_rows(
    model: Any,
    texts: Any,
    sites: str | Site | Sequence[str | Site],
    *,
    targets: str | Site | Sequence[str | Site] = (),
    batch: int = 16,
    buffer: int = 0,
    include_first: bool = False,
) -> ModelRows:
    """Rows for :func:`sae.train` that a model makes while it reads.

    Parameters
    ----------
    model
        A model of the toolkit.
    texts
        Strings, a file of texts, Tokens, or token ids [batch, pos]. A text longer than the context is cut.
    sites, targets
        Where to read; and, for transcoders, what to write. Several sites lie side by side.
    batch
        Texts a forward pass.
    buffer
        Rows that wait to be mixed; 0: sixteen batches.
    include_first
        Keep the first position of each text, whose activations are often of another size altogether.

    Raises
    ------
    InputError
        No texts. A site that the model lacks is a SiteError when the training begins.
    """
    if isinstance(texts, str | Path):
        from interp.stores.texts import read_texts

        texts = list(read_texts(texts))
    if not len(texts):
        raise InputError("there are no texts to read")

    def names(given: Any) -> tuple[str, ...]:
        one = isinstance(given, str | Site)
        return (str(given),) if one else tuple(str(site) for site in given)

    return ModelRows(model, texts, names(sites), names(targets), batch, buffer, include_first)
