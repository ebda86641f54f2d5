"""Components: the parts that a sweep changes one by one: sites, heads, positions, neurons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from interp.errors import InputError
from interp.frames import Frame
from interp.sites import Site

__all__ = ["Component", "components_of"]

_WRITTEN = re.compile(r"^(?P<site>.*?)(?: @(?P<position>-?\d+))?(?: #(?P<neuron>\d+))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a run: a site (with its head), at all positions or some, all of its features or one.

    Its name is the site's, then ``@`` and the position, then ``#`` and the neuron, where a sweep goes one by one.
    """

    site: Site
    position: int | tuple[int, ...] | Literal["last"] | None = None
    neuron: int | tuple[int, ...] | None = None

    def __str__(self) -> str:
        position = f" @{self.position}" if isinstance(self.position, int) else ""
        neuron = f" #{self.neuron}" if isinstance(self.neuron, int) else ""
        return f"{self.site}{position}{neuron}"

    @classmethod
    def parse(cls, name: str) -> Component:
        """The component that ``name`` (as :meth:`__str__` writes it) names."""
        found = _WRITTEN.match(name)
        assert found is not None  # the pattern takes any text
        position, neuron = (found[key] for key in ("position", "neuron"))
        return cls(
            site=Site.parse(found["site"]),
            position=None if position is None else int(position),
            neuron=None if neuron is None else int(neuron),
        )

    def where(self, value: Tensor, frame: Frame) -> Tensor | None:
        """The entries of ``value`` (some rows of the site) it is made of, broadcastable; None: all of them."""
        masks = []
        if self.site.head is not None:
            assert self.site.head_axis is not None
            masks.append(_one_of(value, self.site.head_axis, (self.site.head,)))
        if self.neuron is not None:
            masks.append(_one_of(value, value.ndim - 1, _several(self.neuron)))
        if self.position == "last":
            last = value.new_full((len(value),), value.shape[_pos(self.site)] - 1, dtype=torch.long)
            last = last if frame.last is None else frame.last[: len(value)].to(value.device)
            shape = [len(value), *[1] * (value.ndim - 1)]
            columns = torch.arange(value.shape[_pos(self.site)], device=value.device)
            across = [1] * value.ndim
            across[_pos(self.site)] = len(columns)
            masks.append(columns.view(across) == last.view(shape))
        elif self.position is not None:
            masks.append(_one_of(value, _pos(self.site), _several(self.position)))
        chosen = None
        for mask in masks:
            chosen = mask if chosen is None else chosen & mask
        return chosen


def _several(where: int | tuple[int, ...]) -> tuple[int, ...]:
    return (where,) if isinstance(where, int) else where


def _pos(site: Site) -> int:
    """The axis of positions: of the queries at attention scores and patterns."""
    axes = site.axes
    return axes.index("query") if axes and "query" in axes else 1


def _one_of(value: Tensor, axis: int, indices: tuple[int, ...]) -> Tensor:
    size = value.shape[axis]
    if any(not -size <= i < size for i in indices):
        raise InputError(f"{list(indices)} along an axis of {size} (shape {list(value.shape)})")
    shape, mask = [1] * value.ndim, torch.zeros(size, dtype=torch.bool, device=value.device)
    mask[list(indices)] = True
    shape[axis] = size
    return mask.view(shape)


def components_of(
    model: Any,
    sites: Any,
    *,
    position: int | Sequence[int] | str | None,
    neuron: int | Sequence[int] | str | None,
    n_pos: int | None,
) -> list[Component]:
    """The asked sites: those with heads head by head, and position by position, neuron by neuron where asked.

    Raises
    ------
    InputError
        Positions one by one of an input that has none, or a word that is neither ``"each"`` nor ``"last"``.
    """
    if isinstance(position, str) and position not in ("each", "last"):
        raise InputError(f"position={position!r}; it is a number, several, 'last' or 'each'")
    if isinstance(neuron, str) and neuron != "each":
        raise InputError(f"neuron={neuron!r}; it is a number, several or 'each'")
    if position == "each" and n_pos is None:
        raise InputError("position='each': the input has no positions")
    columns: Sequence[Any] = range(n_pos or 0) if position == "each" else [_plain(position)]
    out = []
    for site in _by_head(model, model.find(sites) if sites is not None else _default_sites(model)):
        units: Sequence[Any] = range(model.width(site.whole)) if neuron == "each" else [_plain(neuron)]
        out += [Component(site=site, position=p, neuron=u) for p in columns for u in units]
    return out


def _plain(where: Any) -> Any:
    if where is None or isinstance(where, int | str):
        return where
    return tuple(int(i) for i in torch.as_tensor(where).flatten())


def _by_head(model: Any, sites: Sequence[Site]) -> list[Site]:
    out: list[Site] = []
    for site in sites:
        if site.head is None and site.head_axis is not None:
            out.extend(replace(site, head=head) for head in range(model.sites.n_heads(site) or 0))
        else:
            out.append(site)
    return out


def _default_sites(model: Any) -> tuple[Site, ...]:
    for kinds in (("z",), ("attn_out", "mixer_out", "mlp_out")):
        found = tuple(site for site in model.sites if site.kind in kinds and site.whole not in model.inert)
        if found:
            return found
    return tuple(model.sites)
