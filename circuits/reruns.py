"""Reruns: passes in which one part of a run is replaced, many of them in one batch, each begun at the first layer
that it changes.

The run that is changed is recorded once: the stream in front of every block. Where a model cannot be run block by
block, whole passes are made instead, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.components import Component
from circuits.stream import Stream
from interp.edits import Edit, patch
from interp.errors import ModelError
from interp.frames import Frame
from interp.models.hooked import HookedModel
from interp.sites import Site
from interp.tokens import Tokens

__all__ = ["Base", "Reruns", "at_place", "stream_of"]

Values = Mapping[Site, Tensor]
"""What is put at each (whole) site: [example ...], one row for all, or [component example ...]."""


def stream_of(model: Any, tokens: Any) -> Stream | None:
    """The model as blocks that can be run by hand; None where that is not its whole forward pass."""
    plain = isinstance(model, HookedModel) and type(model)._run_plan is HookedModel._run_plan
    if not plain or not isinstance(tokens, Tokens) or model.anatomy is None:
        return None
    try:
        return Stream(model, gqa="grouped")
    except ModelError:
        return None


def at_place(logits: Tensor, position: Tensor | None) -> Tensor:
    """Logits [row d_vocab] at one position of each row, or all of them."""
    return logits if position is None else logits[torch.arange(len(logits)), position.to(logits.device)]


class Base:
    """Some rows of the run that is changed: its tokens and the stream in front of every block."""

    def __init__(self, stream: Stream, tokens: Tokens) -> None:
        self.tokens = tokens
        self.resid: list[Tensor] = []
        _, self.calls = stream.enter(tokens, streams=self.resid)

    def frame(self, n: int) -> Frame:
        """The frame of ``n`` copies."""
        tokens, device = self.tokens, self.resid[0].device
        padded = not bool(tokens.mask.all())
        return Frame(
            batch=n * len(tokens),
            pos=tokens.ids.shape[1],
            mask=tokens.mask.repeat(n, 1).to(device) if padded else None,
            last=tokens.last.repeat(n).to(device),
        )


class Reruns:
    """The run of ``tokens``, ready to be changed.

    Parameters
    ----------
    batch_size
        Rows a pass.
    position
        The only place [batch] at which logits are wanted; None: at all.
    """

    def __init__(
        self, model: Any, tokens: Any, *, stream: Stream | None, batch_size: int, position: Tensor | None
    ) -> None:
        self.model, self.tokens, self.stream = model, tokens, stream
        self.batch_size, self.position = batch_size, position
        self.n = len(tokens)
        self.bases: list[tuple[slice, Base]] = []
        for start in range(0, self.n, batch_size) if stream is not None else ():
            rows = slice(start, min(start + batch_size, self.n))
            assert stream is not None
            self.bases.append((rows, Base(stream, tokens[rows])))

    @torch.no_grad()
    def unchanged(self) -> Tensor:
        """Logits [example ...] of the run as it is."""
        if self.stream is None:
            return at_place(self.model.logits(self.tokens, batch_size=self.batch_size), self.position)
        parts = []
        for rows, base in self.bases:
            at = None if self.position is None else self.position[rows]
            parts.append(self.stream.head(base.resid[-1], at))
        return torch.cat(parts)

    def groups(self, components: Sequence[Component]) -> Iterator[tuple[int | None, Sequence[Component]]]:
        """Components that go into one batch, with the layer at which it begins (None: a whole pass)."""
        size = max(1, self.batch_size // self.n)
        start = 0
        while start < len(components):
            site = components[start].site.whole
            first = site.layer if self.stream is not None else None
            stop = start + 1
            while stop < min(len(components), start + size) and (
                first is None or components[stop].site.whole == site
            ):
                stop += 1
            yield first, components[start:stop]
            start = stop

    def logits(self, first: int | None, group: Sequence[Component], values: Values) -> Tensor:
        """Logits [component example ...] with each component of ``group`` replaced."""
        if first is None or self.stream is None:
            return self._whole(group, values)
        parts = []
        for rows, base in self.bases:
            at = None if self.position is None else self.position[rows]
            parts.append(self.part(base, rows, first, group, values, position=at))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def part(
        self,
        base: Base,
        rows: slice,
        first: int,
        group: Sequence[Component],
        values: Values,
        *,
        position: Tensor | None,
    ) -> Tensor:
        """The same for the rows of one recorded base; differentiable in ``values`` where gradients are on."""
        assert self.stream is not None
        k, stream = len(group), self.stream
        x = base.resid[first].repeat(k, 1, 1)
        frame = base.frame(k)
        visits = [
            (site, _Swapped(site, group, values[site], frame, rows=rows, k=k))
            for site in dict.fromkeys(c.site.whole for c in group)
        ]

        def call() -> Tensor:
            return stream.head(stream.blocks(x, base.calls, first=first), position)

        logits = stream.model.run_part(call, frame, visits)
        return logits.view(k, -1, *logits.shape[1:])

    def _whole(self, group: Sequence[Component], values: Values) -> Tensor:
        """By whole passes of the model, in batches of rows as it cuts them."""
        index = torch.arange(self.n).repeat(len(group))
        tokens = self.tokens.select(index) if isinstance(self.tokens, Tokens) else self.tokens[index]
        edits = [
            self._edit(component, values[component.site.whole], i, index) for i, component in enumerate(group)
        ]
        logits = self.model.logits(tokens, edits=edits, batch_size=self.batch_size)
        logits = at_place(logits, None if self.position is None else self.position.repeat(len(group)))
        return logits.view(len(group), self.n, *logits.shape[1:])

    def _edit(self, component: Component, value: Tensor, i: int, index: Tensor) -> Edit:
        return patch(
            component.site.whole,
            value if len(value) == 1 else value[index.to(value.device)],
            head=component.site.head,
            row=range(i * self.n, (i + 1) * self.n),
            position=component.position,
            neuron=component.neuron,
        )


class _Swapped:
    """Puts each component's entries of one site into the rows of its copy."""

    reads_only = False

    def __init__(
        self, site: Site, group: Sequence[Component], value: Tensor, frame: Frame, *, rows: slice, k: int
    ) -> None:
        self.group = [(i, c) for i, c in enumerate(group) if c.site.whole == site]
        self.value, self.frame, self.rows, self.k = value, frame, rows, k
        self.own = value.ndim > len(site.axes or ())  # a source of its own for every component

    def __call__(self, value: Tensor) -> Tensor:
        copies = list(value.view(self.k, -1, *value.shape[1:]).unbind(0))
        for i, component in self.group:
            source = self.value[i] if self.own else self.value
            source = source if len(source) == 1 else source[self.rows]
            source = source.to(value)
            where = component.where(copies[i], self.frame)
            copies[i] = (
                source.expand_as(copies[i]) if where is None else torch.where(where, source, copies[i])
            )
        return torch.stack(copies).view_as(value)
