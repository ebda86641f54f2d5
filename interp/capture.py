"""Capture: what a model holds at the sites asked for, and nothing more.

One pass keeps only the sites, positions and float type asked for, streams to a sink if one is
given, and stops behind the last site. Gradients of any metric come from one backward pass. These
functions stand behind the methods of the same names on :class:`interp.models.base.Model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from interp.activations import Activations
from interp.edits import Edit
from interp.errors import CheckError, InputError, SiteError
from interp.frames import Frame, indices_of
from interp.models.inputs import frames_of
from interp.models.network import Network
from interp.models.running import Visit, Visitor
from interp.sites import KINDS, Site

__all__ = ["Keep", "Positions", "Sink", "capture", "edit_visits", "gradients", "logits"]

Positions = int | str | slice | Sequence[int] | Tensor | None
"""Which columns to keep: all (None), one, several, a slice, or ``"last"`` (each row's last real token)."""

Sink = Callable[[Site, Tensor], None]

_DERIVED = frozenset(kind for kind in KINDS if kind.endswith(("_scale", "_normalized"))) | {
    "result",
    "resid_mid",
}
"""Kinds that are computed beside the pass: what the model goes on with is not that tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """In what form a captured tensor is kept."""

    positions: Positions = None
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None


def edit_visits(model: Network, edits: Sequence[Edit], frame: Frame) -> list[Visit]:
    """The visits that carry out ``edits``, in their order; refuses sites where edits do nothing."""
    visits = []
    for one in edits:
        if not isinstance(one, Edit):
            raise InputError(
                f"edits= takes Edit objects (interp.ablate, interp.patch, ...); got {type(one).__name__}"
            )
        for site in model.find(one.sites):
            model.require_causal(site)
            visits.append((site, _editor(one, site, frame)))
    return visits


def _editor(one: Edit, site: Site, frame: Frame) -> Visitor:
    return lambda value: one.apply(value, site, frame)


def columns(positions: Positions, frame: Frame) -> Tensor | slice | None:
    """``positions`` as an index of columns: None, a slice, or a tensor [k] or [batch, k]."""
    if positions is None or isinstance(positions, slice):
        return positions
    if frame.pos is None:
        raise InputError(f"positions={positions!r}, but the model's input has no positions")
    if isinstance(positions, str):
        if positions != "last":
            raise InputError(f"positions={positions!r}; they are numbers, a slice, or 'last'")
        return torch.tensor([frame.pos - 1]) if frame.last is None else frame.last[:, None]
    index = indices_of(positions)
    if index.numel() == 0 or int(index.max()) >= frame.pos or int(index.min()) < -frame.pos:
        raise InputError(
            f"positions {index.tolist()}: the input has {frame.pos} positions, 0-{frame.pos - 1}"
        )
    return index % frame.pos


def take(value: Tensor, index: Tensor | slice | None, axis: int) -> Tensor:
    """The chosen columns of ``value`` along ``axis``."""
    if index is None:
        return value
    if isinstance(index, slice):
        return value[(slice(None),) * axis + (index,)]
    index = index.to(value.device)
    if index.ndim == 1:
        return value.index_select(axis, index)
    rows = torch.arange(value.shape[0], device=value.device)[:, None]
    return value[rows, index] if axis == 1 else value[rows, :, index].movedim(1, 2)


def _again(site: Site) -> SiteError:
    """The error for a site that one pass reaches twice: which of the two is meant?"""
    if site.path is None:
        return SiteError(f"{site} is reached more than once in a forward pass: its layers share a module")
    side = ":in" if site.kind == "module_in" else ""
    return SiteError(
        f"module {site.path!r} runs more than once in a forward pass; "
        f"name the call: '{site.path}#0{side}', '{site.path}#1{side}', ..."
    )


class _Keeper:
    """Collects one pass's tensors; knows which of them the model overwrote after they were shown."""

    def __init__(self, frame: Frame, keep: Keep, sink: Sink | None, clone: set[Site]) -> None:
        self.frame, self.keep, self.sink, self.clone = frame, keep, sink, clone
        self.tensors: dict[Site, Tensor] = {}
        self.versions: dict[Site, tuple[Tensor, int]] = {}
        self.index = columns(keep.positions, frame)

    def visitor(self, site: Site) -> Visitor:
        axis = 2 if site.kind in ("attn_scores", "pattern") else 1
        tensors, sink = self.tensors, self.sink
        selecting = self.index is not None

        def visit(value: Tensor) -> None:
            if site in tensors:
                raise _again(site)
            shown = value if site.head is None else value.select(site.head_axis, site.head)  # type: ignore[arg-type]
            if selecting and shown.ndim > axis:
                if site.path is not None and shown.shape[axis] != self.frame.pos:
                    raise SiteError(
                        f"positions were asked for, but {site} holds {list(shown.shape)} without positions"
                    )
                shown = take(shown, self.index, axis - (site.head is not None and axis == 2))
            shown = self._kept(site, shown, value)
            if sink is None:
                tensors[site] = shown
            else:
                tensors[site] = shown.new_empty((0, *shown.shape[1:]))  # a slice would keep all of it alive
                sink(site, shown)

        visit.reads_only = True  # type: ignore[attr-defined]  # a remote backend may show it the tensor afterwards
        return visit

    def _kept(self, site: Site, shown: Tensor, value: Tensor) -> Tensor:
        keep = self.keep
        kept = shown
        if keep.device is not None or keep.dtype is not None:
            kept = shown.to(device=keep.device, dtype=keep.dtype if shown.is_floating_point() else None)
        if kept is shown:
            # a view into a bigger tensor would keep all of it alive
            if site in self.clone or (
                shown._is_view() and shown.untyped_storage().nbytes() > 2 * shown.nbytes
            ):
                return shown.clone(memory_format=torch.contiguous_format)
            if value.is_inference():
                return shown.clone()  # such tensors do not count what is written over them
            if shown is value or shown._is_view():
                self.versions[site] = (value, value._version)
        return kept

    def overwritten(self) -> set[Site]:
        """Sites whose tensor the model changed in place after it was shown (``ReLU(inplace=True)``)."""
        return {site for site, (value, version) in self.versions.items() if value._version != version}


def capture_batch(
    model: Network,
    inputs: Any,
    frame: Frame,
    sites: Sequence[Site],
    *,
    edits: Sequence[Edit],
    keep: Keep,
    sink: Sink | None = None,
) -> dict[Site, Tensor]:
    """One pass over one batch; the tensors in forward order."""
    with torch.no_grad():
        for _ in range(2):
            keeper = _Keeper(frame, keep, sink, model.overwritten)
            visits = [*edit_visits(model, edits, frame), *((site, keeper.visitor(site)) for site in sites)]
            model.run(inputs, frame, visits, wanted=sites)
            again = keeper.overwritten()
            if not again:
                return keeper.tensors if len(sites) == 1 else {site: keeper.tensors[site] for site in sites}
            # the model writes over these in place: learn it, keep copies from now on, and run again
            model.overwritten.update(again)
            if sink is not None:
                raise CheckError(
                    f"the model overwrites {', '.join(map(str, sorted(again)))} in place after it was streamed; "
                    f"capture again"
                )
    raise CheckError("a captured tensor was overwritten although it was copied")  # cannot happen


def capture(
    model: Network,
    tokens: Any,
    sites: Any,
    *,
    edits: Sequence[Edit] = (),
    keep: Keep | None = None,
    batch_size: int | None = None,
    sink: Sink | None = None,
) -> Activations:
    """What the model holds at ``sites`` for ``tokens``; see :meth:`interp.models.base.Model.capture`."""
    found, keep = model.find(sites), keep or Keep()
    parts: list[dict[Site, Tensor]] = []
    frames: list[Frame] = []
    for inputs, frame in frames_of(model, tokens, batch_size):
        parts.append(capture_batch(model, inputs, frame, found, edits=edits, keep=keep, sink=sink))
        frames.append(frame)
    whole = parts[0] if len(parts) == 1 else {site: _joined(site, parts, frames, sink) for site in found}
    mask, positions = _where(frames, keep.positions)
    provenance = {"model": model.name, "backend": model.backend, "edits": [one.name for one in edits]}
    return Activations(tensors=whole, mask=mask, positions=positions, provenance=provenance)


def _joined(
    site: Site, parts: Sequence[dict[Site, Tensor]], frames: Sequence[Frame], sink: Sink | None
) -> Tensor:
    """The batches of a site as one tensor; refuses a tensor whose first axis is not the batch."""
    tensors = [part[site] for part in parts]
    if sink is None and any(t.shape[:1] != (f.batch,) for t, f in zip(tensors, frames, strict=True)):
        raise SiteError(
            f"{site} holds {list(tensors[0].shape)}, whose first axis is not the batch: capture it without batch_size"
        )
    return torch.cat(tensors)


@lru_cache(maxsize=64)
def _constants(n: int) -> tuple[Tensor, Tensor]:
    """0..n-1 and n times True, made once: captures of small networks are short."""
    return torch.arange(n), torch.ones(n, dtype=torch.bool)


def _where(frames: Sequence[Frame], positions: Positions) -> tuple[Tensor | None, Tensor | None]:
    """The mask and the columns of the kept positions, over all batches."""
    if frames[0].pos is None:
        return None, None
    masks, places = [], []
    for frame in frames:
        index = columns(positions, frame)
        count, true = _constants(frame.pos or 0)
        place = count.expand(frame.batch, -1)
        mask = true.expand(frame.batch, -1) if frame.mask is None else frame.mask.cpu()
        masks.append(take(mask, index, 1))
        places.append(take(place, index, 1))
    if len(masks) == 1:
        return masks[0], places[0]
    return torch.cat(masks), torch.cat(places)


def logits(
    model: Network, tokens: Any, *, edits: Sequence[Edit] = (), batch_size: int | None = None
) -> Tensor:
    """The model's output under ``edits``; see :meth:`interp.models.base.Model.logits`."""
    parts = []
    with torch.no_grad():
        for inputs, frame in frames_of(model, tokens, batch_size):
            parts.append(model.run(inputs, frame, edit_visits(model, edits, frame), wanted=None))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def gradients(
    model: Network, tokens: Any, metric: Callable[[Tensor], Tensor], sites: Any, *, edits: Sequence[Edit] = ()
) -> tuple[Activations, Activations]:
    """Values and gradients of ``metric(logits).sum()`` at ``sites``; see :meth:`interp.models.base.Model.gradients`."""
    found = model.find(sites)
    for site in found:
        if site.head is not None:
            raise SiteError(
                f"gradients are taken at whole sites: ask for {site.whole} and index head {site.head}"
            )
    ((inputs, frame),) = frames_of(model, tokens, None)
    values: dict[Site, Tensor] = {}
    nudges: dict[Site, Tensor] = {}

    def watch(site: Site) -> Visitor:
        def visit(value: Tensor) -> Tensor:
            if site in values:
                raise _again(site)
            values[site] = value
            if site.kind in _DERIVED or not value.requires_grad:
                # dL/dvalue is dL/dnudge at nudge = 0; a derived tensor itself is not on the path to the logits
                values[site], nudges[site] = value.detach(), torch.zeros_like(value, requires_grad=True)
                return value + nudges[site]
            # put back, so that a view (heads, parts of fused projections) lies on the path; a copy goes on,
            # because the model may write over it
            return value.clone()

        return visit

    with torch.enable_grad():
        visits = [*edit_visits(model, edits, frame), *((site, watch(site)) for site in found)]
        logits = model.run(inputs, frame, visits, wanted=None)
        scores = metric(logits)
        if not isinstance(scores, Tensor) or not scores.requires_grad:
            raise InputError("the metric must return a tensor computed from the logits")
        grads = torch.autograd.grad(
            scores.sum(), [nudges.get(s, values[s]) for s in found], allow_unused=True
        )
    lost = [str(site) for site, grad in zip(found, grads, strict=True) if grad is None]
    if lost:
        raise SiteError(f"the metric does not depend on {', '.join(lost[:4])}: no gradient reaches there")
    mask, positions = _where([frame], None)
    provenance = {"model": model.name, "backend": model.backend, "edits": [one.name for one in edits]}

    def pack(tensors: list[Tensor]) -> Activations:
        held = dict(zip(found, tensors, strict=True))
        return Activations(tensors=held, mask=mask, positions=positions, provenance=provenance)

    return pack([values[s].detach() for s in found]), pack([g for g in grads if g is not None])
