"""From what a caller hands in to checked batches: tokens, ids, texts, or a plain module's arguments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from interp.errors import InputError
from interp.frames import Frame, Inputs
from interp.models.ids import check_ids
from interp.models.network import Network
from interp.models.text import texts_to_tokens
from interp.tokens import Tokens, id_matrix

__all__ = ["as_tokens", "frames_of"]


def frames_of(model: Network, tokens: Any, batch_size: int | None) -> Iterator[tuple[Inputs, Frame]]:
    """Batches of the input with their frames; everything is checked before the first one is run."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size}")
    if model.d_vocab is None and not isinstance(tokens, Tokens):
        return _module_frames(model, tokens, batch_size)
    return _token_frames(
        model, tokens if isinstance(tokens, Tensor) else as_tokens(model, tokens), batch_size
    )


def as_tokens(model: Network, tokens: Any) -> Tokens:
    """Tokens from ids, lists of ids, or texts."""
    if isinstance(tokens, Tokens):
        return tokens
    if isinstance(tokens, Tensor):
        return Tokens.full(tokens)
    if isinstance(tokens, str | list | tuple):
        return texts_to_tokens(model, tokens)
    raise InputError(
        f"cannot read tokens from {type(tokens).__name__}; give Tokens, texts, or token ids [batch, pos]"
    )


def _token_frames(
    model: Network, tokens: Tokens | Tensor, batch_size: int | None
) -> Iterator[tuple[Inputs, Frame]]:
    if isinstance(tokens, Tensor):  # no padding: no mask is made, which counts on small networks
        ids, mask = id_matrix(tokens), None
    else:
        ids, mask = tokens.ids, None if bool(tokens.mask.all()) else tokens.mask
    check_ids(model, ids)
    rows, width = ids.shape
    size = batch_size or rows
    device = model.device
    for row in range(0, rows, size):
        part = ids if size >= rows else ids[row : row + size]
        part = part if part.device == device else part.to(device)
        frame = Frame(batch=part.shape[0], pos=width, row=row, rows=rows)
        inputs = Inputs((part,))
        if mask is not None:
            frame.mask = mask[row : row + size].to(device)
            frame.last = Tokens(ids=part, mask=frame.mask).last
            if not bool(frame.mask.all()):
                inputs.padding, inputs.left_padded = frame.mask, not bool(frame.mask[:, 0].all())
        yield inputs, frame


def _module_frames(model: Network, value: Any, batch_size: int | None) -> Iterator[tuple[Inputs, Frame]]:
    args = value if isinstance(value, tuple) else (value,)
    lead = next((a for a in args if isinstance(a, Tensor) and a.ndim), None)
    if lead is None:
        raise InputError(
            f"{model.name} takes a tensor (or a tuple of arguments with one); got {type(value).__name__}"
        )
    rows = lead.shape[0]
    if rows == 0:
        raise InputError("the input has no rows")
    size = batch_size or rows
    # a matrix of ids, or features by position: the second axis is positions
    pos = lead.shape[1] if lead.ndim == 3 or (lead.ndim == 2 and not lead.is_floating_point()) else None
    for row in range(0, rows, size):
        cut = tuple(
            a[row : row + size].to(model.device)
            if isinstance(a, Tensor) and a.ndim and a.shape[0] == rows
            else a
            for a in args
        )
        yield Inputs(cut), Frame(batch=min(size, rows - row), pos=pos, row=row, rows=rows)
