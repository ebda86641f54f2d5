"""Where in the module tree each site is, and how to read and rewrite it there.

A :class:`Tap` names a module and a side; its ``view`` turns the module's input or output into the
site's tensor and an edited tensor back. Derived sites (norm scales, per-head results, the stream
between attention and MLP) are read beside a module's output and written as the difference they
make to it, so that an identity edit changes no bit. Read next: ``running.py`` visits taps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from interp.models.anatomy import (
    Anatomy,
    Attention,
    Block,
    Norm,
    Projection,
    head_output_weight,
    norm_eps,
    norm_weight,
    parameter,
)
from interp.sites import Site

__all__ = ["WHOLE", "Moment", "Tap", "View", "Whole", "taps_of"]


@dataclass(slots=True)
class Moment:
    """What a view may look at while a module runs: the module, its tensors, the block's input, the batch."""

    module: nn.Module
    entering: Tensor | None
    leaving: Tensor | None
    base: Tensor | None
    batch: int
    now: dict[View, Tensor] = field(default_factory=dict)
    """What derived sites hold after the edits made at them so far: they are not read off the module's tensor."""

    def shown(self, view: View, tensor: Tensor) -> Tensor:
        """The site's tensor as it stands, edits included."""
        held = self.now.get(view) if view.reads_input else None
        return view.read(tensor, self) if held is None else held

    def written(self, view: View, tensor: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """The module's tensor with the site's tensor changed from ``old`` to ``new``."""
        tensor = view.write(tensor, old, new, self)
        if view.reads_input:
            self.now[view] = new
        return tensor


@runtime_checkable
class View(Protocol):
    """How a site's tensor is read from a moment, and how an edited one is written back."""

    reads_input: ClassVar[bool]
    """Whether the view of a module's output also looks at its input."""

    def read(self, tensor: Tensor, moment: Moment) -> Tensor: ...

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Whole:
    """The tensor itself."""

    reads_input: ClassVar[bool] = False

    def read(self, tensor: Tensor, moment: Moment) -> Tensor:
        return tensor

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor:
        return new


WHOLE = Whole()


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A tensor computed once for all rows (position embeddings), shown with the whole batch."""

    reads_input: ClassVar[bool] = False

    def read(self, tensor: Tensor, moment: Moment) -> Tensor:
        tensor = tensor if tensor.ndim == 3 else tensor[None]
        return tensor.expand(moment.batch, -1, -1) if tensor.shape[0] == 1 else tensor

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor:
        return new


@dataclass(frozen=True, slots=True)
class Heads:
    """Features split into heads: [batch pos head*d_head] as [batch pos head d_head]."""

    reads_input: ClassVar[bool] = False
    n: int

    def read(self, tensor: Tensor, moment: Moment) -> Tensor:
        return tensor.unflatten(-1, (self.n, -1))

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor:
        return new.flatten(-2)


@dataclass(frozen=True, slots=True)
class Span:
    """Heads inside one span of a fused projection's features."""

    reads_input: ClassVar[bool] = False
    n: int
    start: int
    width: int

    def read(self, tensor: Tensor, moment: Moment) -> Tensor:
        return tensor[..., self.start : self.start + self.width].unflatten(-1, (self.n, -1))

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor:
        before, after = tensor[..., : self.start], tensor[..., self.start + self.width :]
        return torch.cat([before, new.flatten(-2), after], dim=-1)


@dataclass(frozen=True, slots=True)
class Interleaved:
    """One of the ``parts`` that each head holds side by side in a fused projection."""

    reads_input: ClassVar[bool] = False
    n: int
    part: int
    parts: int

    def read(self, tensor: Tensor, moment: Moment) -> Tensor:
        return tensor.unflatten(-1, (self.n, self.parts, -1))[..., self.part, :]

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor:
        split = tensor.unflatten(-1, (self.n, self.parts, -1)).clone()
        split[..., self.part, :] = new
        return split.flatten(-3)


@dataclass(frozen=True, slots=True)
class Result:
    """What each head adds to the stream: z through its part of W_O (the output bias belongs to no head)."""

    reads_input: ClassVar[bool] = True
    attn: Attention

    def read(self, tensor: Tensor, moment: Moment) -> Tensor:
        assert moment.entering is not None
        z = moment.entering.unflatten(-1, (self.attn.n_heads, -1))
        return torch.einsum("bphd,hdm->bphm", z, head_output_weight(moment.module, self.attn))

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor:
        return tensor + (new - old).sum(dim=-2)


@dataclass(frozen=True, slots=True)
class Scale:
    """A norm's divisor, sqrt(variance + eps) or its root mean square [batch pos 1]."""

    reads_input: ClassVar[bool] = True
    norm: Norm

    def read(self, tensor: Tensor, moment: Moment) -> Tensor:
        assert moment.entering is not None
        return _scale(self.norm, moment).to(moment.entering.dtype)

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor:
        bias = parameter(moment.module, "bias")
        scaled = tensor if bias is None else tensor - bias
        return tensor + scaled * (old / new - 1)


def _scale(norm: Norm, moment: Moment) -> Tensor:
    """A norm's divisor in at least single precision."""
    assert moment.entering is not None
    x = moment.entering.to(torch.promote_types(moment.entering.dtype, torch.float32))
    square = (
        x.var(-1, keepdim=True, unbiased=False) if norm.kind == "layer" else x.pow(2).mean(-1, keepdim=True)
    )
    return (square + norm_eps(moment.module)).sqrt()


@dataclass(frozen=True, slots=True)
class Normalized:
    """A norm's output before its weight and bias: (x - mean) / scale."""

    reads_input: ClassVar[bool] = True
    norm: Norm

    def read(self, tensor: Tensor, moment: Moment) -> Tensor:
        assert moment.entering is not None
        x = moment.entering
        wide = x.to(
            torch.promote_types(x.dtype, torch.float32)
        )  # a stream far from zero would lose its digits
        centred = wide - wide.mean(-1, keepdim=True) if self.norm.kind == "layer" else wide
        scale = moment.now.get(Scale(self.norm))
        return (centred / (_scale(self.norm, moment) if scale is None else scale)).to(x.dtype)

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor:
        weight = norm_weight(moment.module, self.norm)
        change = new - old
        return tensor + (change if weight is None else change * weight)


@dataclass(frozen=True, slots=True)
class OnBase:
    """The stream after a write: the block's input plus the module's output."""

    reads_input: ClassVar[bool] = False

    def read(self, tensor: Tensor, moment: Moment) -> Tensor:
        assert moment.base is not None
        return tensor + moment.base

    def write(self, tensor: Tensor, old: Tensor, new: Tensor, moment: Moment) -> Tensor:
        return tensor + (new - old)


@dataclass(frozen=True, slots=True)
class Tap:
    """Where a site is: a module and its side, or a stage inside its attention function.

    ``base``: the module whose input must be remembered for the view (the block, for ``resid_mid``).
    ``call``: which call of the module in one pass is meant; None for every call. ``look``: a tap where the
    very same tensor passes by, enough (and cheaper) for a visit that changes nothing.
    """

    path: str
    side: Literal["in", "out", "rot_q", "rot_k", "attn_scores", "pattern"] = "out"
    view: View = WHOLE
    base: str | None = None
    call: int | None = None
    look: Tap | None = None

    @property
    def interface(self) -> bool:
        """Whether the tap lies inside the backend's attention function."""
        return self.side not in ("in", "out")


def _heads(projection: Projection, n: int) -> View:
    if projection.layout == "span":
        return Span(n, projection.start, projection.width)
    if projection.layout == "interleaved":
        return Interleaved(n, projection.start, projection.width)
    return Heads(n)


def _norm_taps(name: str, layer: int | None, norm: Norm) -> Iterator[tuple[Site, Tap]]:
    yield Site(kind=f"{name}_scale", layer=layer), Tap(norm.path, view=Scale(norm))
    yield Site(kind=f"{name}_normalized", layer=layer), Tap(norm.path, view=Normalized(norm))
    yield Site(kind=name, layer=layer), Tap(norm.path)


def _attention_taps(layer: int, block: Block, attn: Attention) -> Iterator[tuple[Site, Tap]]:
    def site(kind: str) -> Site:
        return Site(kind=kind, layer=layer)

    yield site("q"), Tap(attn.q.path, view=_heads(attn.q, attn.n_heads))
    yield site("k"), Tap(attn.k.path, view=_heads(attn.k, attn.n_kv_heads))
    yield site("v"), Tap(attn.v.path, view=_heads(attn.v, attn.n_kv_heads))
    core = attn.core or attn.path
    if attn.interface:
        if attn.rotary:
            yield site("rot_q"), Tap(core, "rot_q")
            yield site("rot_k"), Tap(core, "rot_k")
        yield site("attn_scores"), Tap(core, "attn_scores")
        yield site("pattern"), Tap(core, "pattern")
    if attn.scores:
        yield site("attn_scores"), Tap(attn.scores)
    if attn.pattern:
        yield site("pattern"), Tap(attn.pattern)
    yield site("z"), Tap(attn.o.path, "in", Heads(attn.n_heads))
    yield site("result"), Tap(attn.o.path, view=Result(attn))
    write = block.attn_write or attn.path
    yield site("attn_out"), Tap(write)
    if block.resid_mid:
        yield site("resid_mid"), Tap(block.resid_mid)
    elif not block.parallel and block.mlp is not None:
        look = Tap(block.ln2.path, "in") if block.ln2 else None
        yield site("resid_mid"), Tap(write, view=OnBase(), base=block.path, look=look)


def _block_taps(layer: int, block: Block, chained_to: str | None) -> Iterator[tuple[Site, Tap]]:
    def site(kind: str) -> Site:
        return Site(kind=kind, layer=layer)

    look = Tap(chained_to) if chained_to else None
    yield site("resid_pre"), Tap(block.path, "in", look=look)
    before = block.placement != "post"
    if block.ln1 and before:
        yield from _norm_taps("ln1", layer, block.ln1)
    if block.attn:
        attention = list(_attention_taps(layer, block, block.attn))
        mid = [pair for pair in attention if pair[0].kind == "resid_mid"]
        yield from (pair for pair in attention if pair[0].kind != "resid_mid")
        if block.ln1 and not before:
            yield from _norm_taps("ln1", layer, block.ln1)
        yield from mid
    if block.mixer:
        yield site("mixer_in"), Tap(block.mixer.path, "in")
        yield site("mixer_proj"), Tap(block.mixer.in_proj)
        yield site("mixer_post"), Tap(block.mixer.out_proj, "in")
        yield site("mixer_out"), Tap(block.mixer.path)
    if block.ln2 and before:
        yield from _norm_taps("ln2", layer, block.ln2)
    if block.mlp:
        mlp = block.mlp
        yield site("mlp_pre"), Tap(mlp.gate or mlp.up)
        if mlp.gate:
            yield site("mlp_pre_linear"), Tap(mlp.up)
        yield site("mlp_post"), Tap(mlp.act) if mlp.act else Tap(mlp.down, "in")
        yield site("mlp_out"), Tap(block.mlp_write or mlp.path)
    if block.ln2 and not before:
        yield from _norm_taps("ln2", layer, block.ln2)
    yield site("resid_post"), Tap(block.path)


def taps_of(anatomy: Anatomy) -> dict[Site, Tap]:
    """The site table of a network, in the order its forward pass reaches the sites."""
    table: dict[Site, Tap] = {Site(kind="embed"): Tap(anatomy.embed)}
    if anatomy.pos_embed:
        table[Site(kind="pos_embed")] = Tap(anatomy.pos_embed, view=Broadcast())
    for layer, block in enumerate(anatomy.blocks):
        before = anatomy.blocks[layer - 1].path if anatomy.chained and layer else None
        table.update(_block_taps(layer, block, before))
    if anatomy.ln_final:
        table.update(_norm_taps("ln_final", None, anatomy.ln_final))
    if anatomy.unembed:
        table[Site(kind="logits")] = Tap(anatomy.unembed)
    return table
