"""Which part of the work a pass is, and which part of a tensor an edit is confined to.

A long input is run in batches of rows, a continued sequence column by column; a :class:`Frame` tells
edits and captures where in the whole a pass lies. The masks here are broadcastable to a site's tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import InputError, SiteError
from interp.showing import Shown
from interp.sites import Site

__all__ = [
    "Frame",
    "Inputs",
    "Where",
    "along",
    "at_columns",
    "fitted",
    "window",
    "column_axis",
    "columns_of",
    "indices_of",
    "rows_of",
]

Where = int | Sequence[int] | Tensor | None
"""Indices along one axis; None for all of it."""


@dataclass(slots=True, kw_only=True, repr=False)
class Frame(Shown):
    """What part of the work a pass is: of all ``rows`` those from ``row``, the columns from ``offset``.

    ``pos`` is None for inputs without positions. ``mask`` [batch, pos] of the columns of this pass, and
    ``last`` [batch], the column of each row's last real token, are None where every token is real.
    """

    batch: int
    pos: int | None = None
    mask: Bool[Tensor, "batch pos"] | None = None
    last: Int[Tensor, "batch"] | None = None
    row: int = 0
    rows: int | None = None
    offset: int = 0
    prompt: int | None = None
    """How many columns the prompt had, where a sequence is being continued."""


@dataclass(slots=True, repr=False)
class Inputs(Shown):
    """One batch ready to run: positional arguments, and for token models the mask where any token is padding."""

    args: tuple
    padding: Tensor | None = None
    left_padded: bool = False

    @property
    def ids(self) -> Tensor:
        """The token ids of a token model's batch."""
        return self.args[0]


def indices_of(where: Where) -> Tensor:
    """Indices as a flat integer tensor; InputError for anything that does not count."""
    given = torch.as_tensor(where)
    if given.ndim > 1:
        raise InputError(
            f"heads, positions, neurons and rows are one list of whole numbers; got {list(given.shape)}"
        )
    indices = given.flatten()
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise InputError(f"heads, positions, neurons and rows are whole numbers; got {where!r}")
    return indices.long()


def _spread(mask: Tensor, value: Tensor, axes: tuple[int, ...]) -> Tensor:
    """``mask`` over the given axes of ``value``, with size 1 at the others."""
    shape = [1] * value.ndim
    for axis, size in zip(axes, mask.shape, strict=True):
        shape[axis] = size
    return mask.view(shape)


def along(value: Tensor, axis: int, where: Where, what: str, site: Site) -> Tensor:
    """Where the chosen indices lie along one axis of ``value``; ``what`` they count, for the message."""
    size, indices = value.shape[axis], indices_of(where)
    if indices.numel() and (int(indices.max()) >= size or int(indices.min()) < -size):
        raise InputError(f"{what} {indices.tolist()} at {site}: it has {size}, 0-{size - 1}")
    mask = torch.zeros(size, dtype=torch.bool, device=value.device)
    mask[indices.to(value.device)] = True
    return _spread(mask, value, (axis,))


def rows_of(value: Tensor, where: Where, frame: Frame) -> Tensor:
    """Where the chosen rows of the whole batch lie in this pass's ``value``."""
    total = value.shape[0] if frame.rows is None else frame.rows
    indices = indices_of(where).to(value.device)
    if indices.numel() and (int(indices.max()) >= total or int(indices.min()) < -total):
        raise InputError(f"rows {indices.tolist()}: the batch has {total}, 0-{total - 1}")
    here = torch.arange(frame.row, frame.row + value.shape[0], device=value.device)
    return _spread(torch.isin(here, indices % total), value, (0,))


def column_axis(site: Site) -> int:
    """Which axis of a site's tensor counts positions: queries at scores and patterns."""
    return site.axes.index("query") if site.axes is not None and "query" in site.axes else 1


def columns_of(value: Tensor, where: Where | str, site: Site, frame: Frame) -> Tensor:
    """Where the chosen columns lie in ``value``: tokens, or queries at scores and patterns.

    Raises
    ------
    SiteError
        The site has no positions.
    InputError
        The prompt has no such column.
    """
    axis = column_axis(site)
    if value.ndim <= axis or frame.pos is None or value.shape[axis] != frame.pos:
        raise SiteError(f"a position was named, but {site} holds {list(value.shape)} without positions")
    here = torch.arange(frame.offset, frame.offset + value.shape[axis], device=value.device)
    if isinstance(where, str):
        if where != "last":
            raise InputError(f"position {where!r}; it is a number, several, or 'last'")
        if frame.last is None:
            return _spread(here == frame.pos - 1, value, (axis,))
        return _spread(here == frame.last.to(value.device)[:, None], value, (0, axis))
    indices, n_prompt = indices_of(where).to(value.device), frame.prompt or frame.pos
    if indices.numel():
        low, high = int(indices.min()), int(indices.max())
        if low < -n_prompt or (high >= n_prompt and frame.prompt is None):
            wrong = low if low < -n_prompt else high
            raise InputError(
                f"position {wrong} at {site}: the prompt has {n_prompt} positions, 0-{n_prompt - 1}"
            )
    indices = torch.where(indices < 0, indices + n_prompt, indices)
    return _spread(torch.isin(here, indices), value, (axis,))


def fitted(value: Tensor | float, old: Tensor, site: Site, name: str, frame: Frame) -> Tensor:
    """``value`` broadcast to the site; one with a row for each of the whole batch is cut to this pass's rows."""
    tensor = torch.as_tensor(value).to(device=old.device, dtype=old.dtype)
    if tensor.ndim == old.ndim and tensor.shape[0] not in (1, old.shape[0]) and tensor.shape[0] == frame.rows:
        tensor = tensor[frame.row : frame.row + old.shape[0]]
    elif tensor.ndim == old.ndim and tensor.shape[0] not in (
        1,
        frame.rows,
        *([] if frame.rows else [old.shape[0]]),
    ):
        raise InputError(f"{name} at {site} was given {tensor.shape[0]} rows; this run has {frame.rows}")
    return broadcast(tensor, old, site, name)


def broadcast(tensor: Tensor, old: Tensor, site: Site, name: str) -> Tensor:
    """``tensor`` as the site's shape, or an error that says both."""
    try:
        return tensor.to(device=old.device, dtype=old.dtype).expand_as(old)
    except RuntimeError:
        raise InputError(
            f"{name} at {site} was given {list(tensor.shape)}; the site holds {list(old.shape)}"
        ) from None


def window(source: Tensor, old: Tensor, site: Site, frame: Frame) -> Tensor:
    """The part of another run's tensor that belongs to this pass's rows and columns."""
    total = old.shape[0] if frame.rows is None else frame.rows
    if source.ndim == old.ndim and source.shape[0] != 1:
        if source.shape[0] != total:
            raise InputError(f"patch at {site}: its source has {source.shape[0]} rows, this run {total}")
        source = source[frame.row : frame.row + old.shape[0]]
    return at_columns(source, old, site, frame, "patch")


def at_columns(source: Tensor, old: Tensor, site: Site, frame: Frame, name: str) -> Tensor:
    """``source`` at this pass's columns; where a continued sequence is longer than it, ``old`` stays."""
    whole = frame.offset == 0 and source.shape[1:] == old.shape[1:]
    if whole or frame.pos is None or old.ndim < 3 or source.ndim != old.ndim:
        return broadcast(source, old, site, name)
    scores = site.axes is not None and "query" in site.axes
    continued = frame.pos + frame.offset > (frame.prompt or frame.pos + frame.offset)
    if not continued:
        axis = 2 if scores else 1
        raise InputError(
            f"{name} at {site}: its source has {source.shape[axis]} positions, this run {old.shape[axis]}"
        )
    new = old.clone()
    source = source.to(device=old.device, dtype=old.dtype)
    if scores:  # a pattern of the prompt says nothing about the tokens generated behind it
        if frame.offset == 0:
            new[:, :, : source.shape[2], : source.shape[3]] = source
        return new
    part = source[:, frame.offset : frame.offset + old.shape[1]]
    new[:, : part.shape[1]] = part
    return new
