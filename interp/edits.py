"""Edits: what to do at a site while a forward pass runs.

An :class:`Edit` is a value: it names sites, a change, and the heads, positions, neurons and rows
it is confined to. Edits compose in the order given and are applied by hooks that live for one pass,
so they always come off. Every constructor takes the sites first (a name, a glob, or several).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from interp.activations import Activations
from interp.errors import InputError, SiteError
from interp.frames import Frame, Where, along, at_columns, columns_of, fitted, rows_of, window
from interp.showing import Shown
from interp.sites import Site

__all__ = ["Edit", "ablate", "add", "edit", "patch", "project", "replace", "scale"]

Sites = str | Site | Iterable[str | Site]
Values = Activations | Mapping[Site, Tensor] | Tensor


Change = Callable[[Tensor, Site, Frame], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Edit(Shown):
    """A change at some sites, confined to the chosen heads, positions, neurons and rows.

    ``position`` counts the columns of the tokens (negative from the end of the prompt; ``"last"``:
    each row's last real token; the query's position at attention scores and patterns); ``neuron``
    counts the last axis; ``row`` the batch.
    """

    sites: tuple[str | Site, ...]
    change: Change = field(repr=False)
    name: str = "edit"
    head: Where = None
    position: Where | str = None
    neuron: Where = None
    row: Where = None
    copies: bool = False
    """Whether ``change`` returns somebody else's tensor, which the model might write over."""

    def apply(self, value: Tensor, site: Site, frame: Frame) -> Tensor:
        """The tensor that shall stand at ``site``; ``value`` itself is never changed in place."""
        if site.head is not None:
            return self._apply_to_head(value, site, frame)
        return self._applied(value, site, frame)

    def _apply_to_head(self, value: Tensor, site: Site, frame: Frame) -> Tensor:
        if self.head is not None:
            raise InputError(f"{self.name} names head {self.head} and site {site}: give one of them")
        axis = site.head_axis
        assert axis is not None  # a Site with a head has an axis of heads
        assert site.head is not None
        new = self._applied(value.select(axis, site.head), site, frame)
        index = torch.tensor([site.head], device=value.device)
        return value.index_copy(axis, index, new.unsqueeze(axis))

    def _applied(self, value: Tensor, site: Site, frame: Frame) -> Tensor:
        new = self.change(value, site, frame)
        if not isinstance(new, Tensor) or new.shape != value.shape:
            got = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise InputError(
                f"{self.name} at {site} returned {got}; the site holds {list(value.shape)} {value.dtype}"
            )
        if new.device != value.device:
            raise InputError(
                f"{self.name} at {site} returned a tensor on {new.device}; the site is on {value.device}"
            )
        new = new.to(value.dtype)
        chosen = self._selection(value, site, frame)
        if chosen is None:
            return new.clone(memory_format=torch.contiguous_format) if self.copies else new
        return torch.where(chosen, new, value)

    def _selection(self, value: Tensor, site: Site, frame: Frame) -> Tensor | None:
        """Where the change holds, broadcastable to ``value``; None for everywhere."""
        masks = []
        if self.head is not None:
            if site.head_axis is None:
                raise SiteError(f"{self.name} names head {self.head}, but {site} has no heads")
            masks.append(along(value, site.head_axis, self.head, "head", site))
        if self.neuron is not None:
            masks.append(along(value, value.ndim - 1, self.neuron, "neuron", site))
        if self.row is not None:
            masks.append(rows_of(value, self.row, frame))
        if self.position is not None:
            masks.append(columns_of(value, self.position, site, frame))
        chosen = None
        for mask in masks:
            chosen = mask if chosen is None else chosen & mask
        return chosen


def _sites(sites: Sites) -> tuple[str | Site, ...]:
    return (sites,) if isinstance(sites, str | Site) else tuple(sites)


def edit(
    sites: Sites,
    change: Callable[[Tensor], Tensor],
    *,
    head: Where = None,
    position: Where | str = None,
    neuron: Where = None,
    row: Where = None,
    name: str = "edit",
) -> Edit:
    """Any change: ``change`` is given the site's whole tensor and returns one of the same shape."""
    return Edit(
        sites=_sites(sites),
        change=lambda value, site, frame: change(value.clone()),  # it may well work in place
        name=name,
        head=head,
        position=position,
        neuron=neuron,
        row=row,
    )


def replace(
    sites: Sites,
    value: Tensor | float,
    *,
    head: Where = None,
    position: Where | str = None,
    neuron: Where = None,
    row: Where = None,
) -> Edit:
    """Put ``value`` (broadcast to the site's shape) there."""

    def change(old: Tensor, site: Site, frame: Frame) -> Tensor:
        return fitted(value, old, site, "replace", frame)

    return Edit(
        sites=_sites(sites),
        change=change,
        name="replace",
        copies=True,
        head=head,
        position=position,
        neuron=neuron,
        row=row,
    )


def add(
    sites: Sites,
    vector: Tensor | float,
    *,
    scale: float = 1.0,
    head: Where = None,
    position: Where | str = None,
    neuron: Where = None,
    row: Where = None,
) -> Edit:
    """Add ``scale * vector`` (broadcast to the site's shape): steering."""

    def change(old: Tensor, site: Site, frame: Frame) -> Tensor:
        return old + scale * fitted(vector, old, site, "add", frame)

    return Edit(
        sites=_sites(sites), change=change, name="add", head=head, position=position, neuron=neuron, row=row
    )


def scale(
    sites: Sites,
    factor: float | Tensor,
    *,
    head: Where = None,
    position: Where | str = None,
    neuron: Where = None,
    row: Where = None,
) -> Edit:
    """Multiply with ``factor`` (a number, or a tensor broadcast to the site's shape)."""

    def change(old: Tensor, site: Site, frame: Frame) -> Tensor:
        return old * fitted(factor, old, site, "scale", frame)

    return Edit(
        sites=_sites(sites), change=change, name="scale", head=head, position=position, neuron=neuron, row=row
    )


def patch(
    sites: Sites,
    source: Values,
    *,
    head: Where = None,
    position: Where | str = None,
    neuron: Where = None,
    row: Where = None,
) -> Edit:
    """Put there what another run held at the same site, row for row and column for column.

    ``source``: that run's :class:`~interp.Activations` (captured at all positions), a mapping by site,
    or one tensor. A source of one row serves every row. While generating, columns that the source
    does not have are left alone.
    """

    def change(old: Tensor, site: Site, frame: Frame) -> Tensor:
        return window(_of(source, site, "patch"), old, site, frame)

    return Edit(
        sites=_sites(sites),
        change=change,
        name="patch",
        copies=True,
        head=head,
        position=position,
        neuron=neuron,
        row=row,
    )


def ablate(
    sites: Sites,
    *,
    how: Literal["zero", "mean", "resample"] = "zero",
    reference: Values | None = None,
    over: Literal["all", "position"] = "all",
    seed: int = 0,
    head: Where = None,
    position: Where | str = None,
    neuron: Where = None,
    row: Where = None,
) -> Edit:
    """Take away what a site says: put zero, a mean, or another example's value there.

    Parameters
    ----------
    how
        ``"zero"``; ``"mean"`` over ``reference``'s real tokens (``over="all"``: one vector for every
        position; ``"position"``: a mean for each position, over rows); ``"resample"``: the whole row of
        a random reference example (without a reference: of another example of the same batch).
    reference
        Activations, a mapping by site, or one tensor [batch, pos, ...] of the reference set.
    seed
        Which examples are drawn by ``"resample"``.

    Raises
    ------
    InputError
        For a mean without a reference set.
    """
    if how not in ("zero", "mean", "resample"):
        raise InputError(f"ablation how={how!r}; it is 'zero', 'mean' or 'resample'")
    if over not in ("all", "position"):
        raise InputError(f"mean over={over!r}; it is 'all' or 'position'")
    if how == "mean" and reference is None:
        raise InputError("a mean ablation needs reference=: the activations over which the mean is taken")
    means: dict[Site, Tensor] = {}

    def change(old: Tensor, site: Site, frame: Frame) -> Tensor:
        if how == "zero":
            return torch.zeros_like(old)
        if how == "resample":
            return _resampled(reference, old, site, frame, seed)
        assert reference is not None
        if site not in means:
            means[site] = _mean(reference, site, over)
        mean = means[site].to(device=old.device, dtype=old.dtype)
        if over == "position":
            return window(mean, old, site, frame)
        return fitted(mean, old, site, "ablate[mean]", frame)

    return Edit(
        sites=_sites(sites),
        change=change,
        name=f"ablate[{how}]",
        copies=True,
        head=head,
        position=position,
        neuron=neuron,
        row=row,
    )


def project(
    sites: Sites,
    directions: Tensor,
    *,
    keep: bool = False,
    head: Where = None,
    position: Where | str = None,
    row: Where = None,
) -> Edit:
    """Remove the span of ``directions`` [d] or [k, d] from the site's last axis; ``keep=True`` keeps only it.

    The directions need not be orthogonal or of unit length; a rank-deficient set raises InputError.
    """
    matrix = torch.as_tensor(directions)
    matrix = matrix[None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or not matrix.is_floating_point():
        raise InputError(f"directions are [d] or [k, d] floats; got {list(matrix.shape)} {matrix.dtype}")
    basis, triangle = torch.linalg.qr(matrix.to(torch.float64).T)
    size = triangle.diagonal().abs()
    if (
        not torch.isfinite(size).all()
        or matrix.shape[0] > matrix.shape[1]
        or bool((size < 1e-10 * size.max()).any())
        or float(size.max()) == 0
    ):
        raise InputError(f"the {matrix.shape[0]} directions are not linearly independent")

    def change(old: Tensor, site: Site, frame: Frame) -> Tensor:
        if basis.shape[0] != old.shape[-1]:
            raise InputError(f"directions have {basis.shape[0]} entries; {site} has {old.shape[-1]}")
        q = basis.to(device=old.device, dtype=old.dtype)
        inside = (old @ q) @ q.T
        return inside if keep else old - inside

    return Edit(sites=_sites(sites), change=change, name="project", head=head, position=position, row=row)


def _of(source: Values, site: Site, name: str) -> Tensor:
    if isinstance(source, Tensor):
        return source
    if site not in source and site.head is not None and site.whole in source:
        axis = site.head_axis
        assert axis is not None  # a Site with a head has an axis of heads
        return source[site.whole].select(axis, site.head)
    if site not in source:
        held = ", ".join(str(s) for s in list(source)[:4])
        raise SiteError(f"{name} at {site}: its source holds no such site; it holds {held}")
    return source[site]


def _mean(reference: Values, site: Site, over: str) -> Tensor:
    value = _of(reference, site, "ablate[mean]")
    wide = value.to(torch.promote_types(value.dtype, torch.float32))
    scores = site.axes is not None and "query" in site.axes
    axes = (0,) if over == "position" or scores or value.ndim < 3 else (0, 1)
    mask = reference.mask if isinstance(reference, Activations) and not scores else None
    if mask is None or value.ndim < 3 or mask.shape != value.shape[:2]:
        return wide.mean(axes, keepdim=True)
    real = mask.to(wide.device).view(*mask.shape, *[1] * (wide.ndim - 2))
    # padding may hold anything, NaN included, so it is cut out rather than multiplied with zero
    kept = torch.where(real, wide, torch.zeros_like(wide))
    return kept.sum(axes, keepdim=True) / real.sum(axes, keepdim=True).clamp(min=1)


def _resampled(reference: Values | None, old: Tensor, site: Site, frame: Frame, seed: int) -> Tensor:
    source = old if reference is None else _of(reference, site, "ablate[resample]")
    generator = torch.Generator().manual_seed(seed)
    n, rows = source.shape[0], old.shape[0]
    if reference is None:
        if frame.rows is not None and frame.rows != frame.batch:
            raise InputError(
                f"resampling at {site} within the batch needs all rows in one pass: no batch_size, or give reference="
            )
        if n < 2:
            raise InputError(f"resampling at {site} within a batch of one row: give reference= or more rows")
        chosen = (torch.arange(n) + torch.randint(1, n, (n,), generator=generator)) % n  # never itself
    else:
        # drawn for the whole batch, so that the draw does not depend on how it is split
        chosen = torch.randint(n, (frame.row + rows,), generator=generator)[frame.row :]
    return at_columns(source[chosen.to(source.device)], old, site, frame, "ablate[resample]")
