"""From what a caller hands in to checked batches: tokens, ids, texts, or a plain module's arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.edits import Frame
from interp.errors import InputError
from interp.tokens import Tokens

if TYPE_CHECKING:
    from interp.models.base import Model

__all__ = ["Inputs", "frames_of"]


@dataclass(slots=True)
class Inputs:
    """One batch ready to run: positional arguments, and for token models the mask where any token is padding."""

    args: tuple
    padding: Tensor | None = None
    left_padded: bool = False

    @property
    def ids(self) -> Tensor:
        """The token ids of a token model's batch."""
        return self.args[0]


def frames_of(model: Model, tokens: Any, batch_size: int | None) -> Iterator[tuple[Inputs, Frame]]:
    """Batches of the input with their frames; everything is checked before the first one is run."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size}")
    if model.d_vocab is None and not isinstance(tokens, Tokens):
        return _module_frames(model, tokens, batch_size)
    return _token_frames(model, tokens if isinstance(tokens, Tokens) else as_tokens(model, tokens), batch_size)


def as_tokens(model: Model, tokens: Any) -> Tokens:
    """Tokens from ids, lists of ids, or texts."""
    if isinstance(tokens, Tensor):
        return Tokens.full(tokens)
    if isinstance(tokens, str | list | tuple):
        return model.tokens(tokens)
    raise InputError(f"cannot read tokens from {type(tokens).__name__}; give Tokens, texts, or token ids [batch, pos]")


def check_ids(model: Model, tokens: Tokens) -> None:
    """Raise InputError for ids outside the vocabulary or a prompt longer than the context."""
    ids = tokens.ids
    if ids.numel() == 0:
        raise InputError(f"there are no tokens: ids have shape {list(ids.shape)}")
    vocab, n_ctx = model.d_vocab, model.n_ctx
    if vocab is not None:
        low, high = (int(x) for x in torch.aminmax(ids))
        if low < 0 or high >= vocab:
            row, column = (int(x) for x in ((ids < 0) | (ids >= vocab)).nonzero()[0])
            raise InputError(
                f"token id {int(ids[row, column])} at row {row}, position {column}: {model.name} has {vocab} token ids, "
                f"0-{vocab - 1} (was the text split by another model's tokenizer?)"
            )
    if n_ctx is not None and ids.shape[1] > n_ctx:
        raise InputError(f"the prompt has {ids.shape[1]} tokens; {model.name} takes at most {n_ctx} (truncate=True cuts texts)")


def _token_frames(model: Model, tokens: Tokens, batch_size: int | None) -> Iterator[tuple[Inputs, Frame]]:
    check_ids(model, tokens)
    size = batch_size or len(tokens)
    padded = not bool(tokens.mask.all())
    for row in range(0, len(tokens), size):
        part = tokens if size >= len(tokens) else tokens.select(slice(row, row + size))
        part = part if part.ids.device == model.device else part.to(model.device)
        pads = padded and not bool(part.mask.all())
        inputs = Inputs((part.ids,), part.mask if pads else None, pads and not bool(part.mask[:, 0].all()))
        width = part.ids.shape[1]
        last = part.last if padded else torch.full((len(part),), width - 1, device=part.ids.device)
        yield inputs, Frame(batch=len(part), pos=width, mask=part.mask, last=last, row=row, rows=len(tokens))


def _module_frames(model: Model, value: Any, batch_size: int | None) -> Iterator[tuple[Inputs, Frame]]:
    args = value if isinstance(value, tuple) else (value,)
    lead = next((a for a in args if isinstance(a, Tensor) and a.ndim), None)
    if lead is None:
        raise InputError(f"{model.name} takes a tensor (or a tuple of arguments with one); got {type(value).__name__}")
    rows = lead.shape[0]
    if rows == 0:
        raise InputError("the input has no rows")
    size = batch_size or rows
    # a matrix of ids, or features by position: the second axis is positions
    pos = lead.shape[1] if lead.ndim == 3 or (lead.ndim == 2 and not lead.is_floating_point()) else None
    for row in range(0, rows, size):
        cut = tuple(
            a[row : row + size].to(model.device) if isinstance(a, Tensor) and a.ndim and a.shape[0] == rows else a for a in args
        )
        batch = min(size, rows - row)
        mask = None if pos is None else torch.ones(batch, pos, dtype=torch.bool, device=model.device)
        last = None if pos is None else torch.full((batch,), pos - 1, device=model.device)
        yield Inputs(cut), Frame(batch=batch, pos=pos, mask=mask, last=last, row=row, rows=rows)
