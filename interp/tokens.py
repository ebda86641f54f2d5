"""Tokens: ids, which of them are real, and the strings to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import InputError
from interp.showing import Shown

__all__ = ["Tokens", "id_matrix"]


def id_matrix(ids: Tensor) -> Int[Tensor, "batch pos"]:
    """Token ids [batch, pos] from [batch, pos] or [pos]; InputError for anything that cannot be ids."""
    if ids.ndim == 1:
        ids = ids[None]
    if ids.ndim != 2 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(
            f"token ids must be an integer tensor [batch, pos]; got {ids.dtype} {list(ids.shape)}"
        )
    if ids.numel() == 0:
        raise InputError(f"there are no tokens: ids have shape {list(ids.shape)}")
    return ids if ids.dtype == torch.int64 else ids.long()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens(Shown):
    """A batch of token sequences, padded to one length.

    ``ids`` [batch, pos] int64; ``mask`` [batch, pos], True at real tokens (padding may stand on
    either side). ``strings`` are made on demand from ``show``, one id to its text.
    """

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    show: Callable[[int], str] = field(default=str, repr=False)

    @classmethod
    def of(
        cls,
        sequences: Sequence[Sequence[int]],
        *,
        pad: int = 0,
        side: str = "right",
        show: Callable[[int], str] = str,
    ) -> Tokens:
        """Tokens from lists of ids of any lengths, padded with ``pad`` on ``side``."""
        if side not in ("left", "right"):
            raise InputError(f"padding side {side!r}; it is 'left' or 'right'")
        if not sequences or min(len(s) for s in sequences) == 0:
            raise InputError("there are no tokens: each sequence needs at least one token id")
        width = max(len(s) for s in sequences)
        ids = torch.full((len(sequences), width), pad, dtype=torch.int64)
        mask = torch.zeros(len(sequences), width, dtype=torch.bool)
        for row, sequence in enumerate(sequences):
            span = slice(width - len(sequence), width) if side == "left" else slice(0, len(sequence))
            ids[row, span] = torch.as_tensor(list(sequence), dtype=torch.int64)
            mask[row, span] = True
        return cls(ids=ids, mask=mask, show=show)

    @classmethod
    def full(cls, ids: Tensor, *, show: Callable[[int], str] = str) -> Tokens:
        """Tokens from an id tensor [batch, pos] (or [pos]) without padding."""
        ids = id_matrix(ids)
        return cls(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), show=show)

    @property
    def strings(self) -> list[list[str]]:
        """The text of every token, padding included as the padding token's text."""
        return [[self.show(i) for i in row] for row in self.ids.tolist()]

    @property
    def lengths(self) -> Int[Tensor, "batch"]:
        """How many real tokens each row holds."""
        return self.mask.sum(-1)

    @property
    def last(self) -> Int[Tensor, "batch"]:
        """The position of each row's last real token."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return torch.where(self.mask, places, -1).amax(-1)

    def select(self, rows) -> Tokens:
        """The given rows (a slice, a list of indices, or an index tensor)."""
        return Tokens(ids=self.ids[rows], mask=self.mask[rows], show=self.show)

    def __getitem__(self, rows: int | slice) -> Tokens:
        if not isinstance(rows, int):
            return self.select(rows)
        if not -len(self) <= rows < len(self):
            raise IndexError(f"row {rows} of {len(self)}")
        return self.select(slice(rows % len(self), rows % len(self) + 1))

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device) -> Tokens:
        """The same tokens on ``device``."""
        return Tokens(ids=self.ids.to(device), mask=self.mask.to(device), show=self.show)

    def batches(self, size: int) -> Iterator[Tokens]:
        """The rows in order, ``size`` at a time."""
        if size < 1:
            raise InputError(f"a batch size must be at least 1; got {size}")
        return (self.select(slice(i, i + size)) for i in range(0, len(self), size))

    def _facts(self) -> dict[str, Any]:
        said: dict[str, Any] = {"rows": len(self), "positions": self.ids.shape[1]}
        said |= {"real tokens": int(self.mask.sum()), "device": str(self.ids.device)}
        for i in range(min(4, len(self))):
            said[f"row {i}"] = " ".join(map(self.show, self.ids[i][self.mask[i]][:40].tolist()))
        return said

    def __repr__(self) -> str:
        return f"Tokens({self.ids.shape[0]} x {self.ids.shape[1]}, {int(self.mask.sum())} real)"
