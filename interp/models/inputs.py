"""From what a caller hands in to checked batches: tokens, ids, texts, or a plain module's arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.errors import InputError
from interp.frames import Frame
from interp.tokens import Tokens, id_matrix

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
    return _token_frames(
        model, tokens if isinstance(tokens, Tensor) else as_tokens(model, tokens), batch_size
    )


def as_tokens(model: Model, tokens: Any) -> Tokens:
    """Tokens from ids, lists of ids, or texts."""
    if isinstance(tokens, Tokens):
        return tokens
    if isinstance(tokens, Tensor):
        return Tokens.full(tokens)
    if isinstance(tokens, str | list | tuple):
        return model.tokens(tokens)
    raise InputError(
        f"cannot read tokens from {type(tokens).__name__}; give Tokens, texts, or token ids [batch, pos]"
    )


def check_ids(model: Model, ids: Tensor) -> None:
    """Raise InputError for a prompt longer than the context or ids outside the vocabulary.

    On the CPU the embedding itself refuses a foreign id, so there the vocabulary is looked at only
    once that has happened (:func:`explain_ids`): three reductions are a tenth of a small network's pass.
    """
    n_ctx = model.n_ctx
    if ids.numel() == 0:
        raise InputError(f"there are no tokens: ids have shape {list(ids.shape)}")
    if n_ctx is not None and ids.shape[1] > n_ctx:
        raise InputError(
            f"the prompt has {ids.shape[1]} tokens; {model.name} takes at most {n_ctx} (truncate=True cuts texts)"
        )
    if ids.device.type != "cpu" or model.device.type != "cpu":
        explain_ids(model, ids)


def explain_ids(model: Model, ids: Tensor) -> None:
    """Raise InputError naming the first id outside the vocabulary, if there is one."""
    vocab = model.d_vocab
    if vocab is None:
        return
    outside = (ids < 0) | (ids >= vocab)
    if bool(outside.any()):
        row, column = outside.nonzero()[0].tolist()
        raise InputError(
            f"token id {int(ids[row, column])} at row {row}, position {column}: {model.name} has {vocab} token ids, "
            f"0-{vocab - 1} (was the text split by another model's tokenizer?)"
        )


def _token_frames(
    model: Model, tokens: Tokens | Tensor, batch_size: int | None
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


def _module_frames(model: Model, value: Any, batch_size: int | None) -> Iterator[tuple[Inputs, Frame]]:
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
