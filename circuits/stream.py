"""Stream: a network as circuits see it, run block by block, with visitors at every source and destination.

The blocks are the model's own modules, called one after the other, so that a pass can begin at any layer; hooks show
a visitor every projection, every head's output and every MLP's input and output. Nothing is rebuilt, and the first
thing that is done with a model is to prove that this pass gives its logits. Read next: ``passes.py`` (what visitors
do), ``layout.py`` (what the places are called).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from circuits.layout import GQA, Layout
from interp.errors import InputError, ModelError
from interp.models.anatomy import (
    Block,
    Norm,
    head_output_weight,
    linear_weight,
    norm_eps,
    norm_weight,
    parameter,
)
from interp.models.hooked import HookedModel
from interp.models.running import evaluating, first_tensor
from interp.models.taps import Moment, View
from interp.sites import Site
from interp.tokens import Tokens

__all__ = ["Calls", "Part", "Stream", "Visitor", "normalized"]


class Visitor:
    """Is shown what passes; returns what stands there from now on, or None to leave it."""

    def projected(self, part: Part, ports: Sequence[str], out: Tensor, version: int) -> Tensor | None:
        """The output of a projection module that holds some of a layer's queries, keys and values."""

    def attended(self, part: Part, z: Tensor) -> Tensor | None:
        """What every head found [row pos head d_head]."""

    def mlp_entered(self, part: Part, x: Tensor) -> Tensor | None:
        """The stream [row pos d_model] that an MLP (or the norm before it) reads."""

    def mlp_left(self, part: Part, y: Tensor) -> Tensor | None:
        """What an MLP writes [row pos d_model]."""

    def block_entered(self, part: Part, x: Tensor) -> None:
        """The stream in front of a block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One block: its modules, and the weights by which its heads read and write."""

    layer: int
    module: nn.Module
    spec: Block
    norm: nn.Module | None
    views: dict[str, View]
    projections: dict[nn.Module, tuple[str, ...]]
    """Each projection module with the ports it holds."""
    n_versions: int
    """How often the attention runs so that query heads of one group can be given keys and values of their own."""
    _modules: dict[str, nn.Module] = field(repr=False)

    @cached_property
    def output(self) -> Tensor:
        """W_O [head d_head d_model]."""
        assert self.spec.attn is not None
        return head_output_weight(self._modules["o"], self.spec.attn).detach()

    def read(self, port: str, out: Tensor) -> Tensor:
        """A port's features [... head d_head] among those of its projection module."""
        return self.views[port].read(out, Moment(self._modules[port], None, out, None, len(out)))

    def written(self, port: str, out: Tensor, new: Tensor) -> Tensor:
        """The projection module's features with a port's replaced."""
        return self.views[port].write(out, out, new, Moment(self._modules[port], None, out, None, len(out)))

    def weight(self, port: str) -> Tensor:
        """W of a port [d_model head d_head] (key/value heads for k and v), made once."""
        return self._weights[port]

    def bias(self, port: str) -> Tensor | None:
        """The bias of a port [head d_head], where there is one."""
        held = parameter(self._modules[port], "bias")
        return None if held is None else self.read(port, held.detach())

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        return {p: self.read(p, linear_weight(self._modules[p]).detach()) for p in "qkv"}

    @property
    def n_heads(self) -> int:
        """Query heads; 0 where the block has no attention."""
        return self.spec.attn.n_heads if self.spec.attn else 0

    def heads_of(self, port: str, version: int) -> tuple[list[int], list[int]]:
        """(head of the tensor, row of the port's destinations) of what one version of a port's tensor stands for."""
        n = self.n_heads if port == "q" else self.spec.attn.n_kv_heads if self.spec.attn else 0
        if port == "q" or self.n_versions == 1:
            return list(range(n)), list(range(n))
        return list(range(n)), [group * self.n_versions + version for group in range(n)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calls:
    """What the model hands its blocks besides the stream (masks, rotary tables), recorded in one pass."""

    blocks: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    rows: int

    def tiled(self, n: int) -> Calls:
        """The same for ``n`` copies of the batch, one behind the other."""
        if n == 1:
            return self

        def tile(value: Any) -> Any:
            if isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == self.rows > 1:
                return value.repeat(n, *[1] * (value.ndim - 1))
            if isinstance(value, tuple | list):
                return type(value)(tile(item) for item in value)
            return value

        blocks = tuple(
            (tuple(map(tile, args)), {k: tile(v) for k, v in kw.items()}) for args, kw in self.blocks
        )
        return Calls(blocks=blocks, rows=self.rows * n)


_PROVED: WeakKeyDictionary[Any, tuple[GQA, int]] = WeakKeyDictionary()
"""Models whose pass by hand was seen to give their logits, with the state that they had: proved once, not per call."""


class Stream:
    """A model whose blocks can be run by hand.

    Raises
    ------
    ModelError
        The model's stream is no plain sum of heads and MLPs, it does not run on local modules, or something happens
        between its parts that its anatomy does not tell (scaled residuals, capped logits).
    """

    def __init__(self, model: Any, *, gqa: GQA = "ungrouped") -> None:
        self.model = model
        self.layout = Layout.of(model.anatomy, gqa=gqa)
        if not isinstance(model, HookedModel):
            raise ModelError(
                f"{model.name} runs on {model.backend}; circuits need a model that runs on torch modules"
            )
        anatomy = model.anatomy
        assert anatomy is not None
        if anatomy.unembed is None:
            raise ModelError(f"{model.name} has no unembedding: there are no logits for a circuit to end in")
        self.parts = tuple(self._part(layer, block, gqa) for layer, block in enumerate(anatomy.blocks))
        self.final_norm = model.submodule(anatomy.ln_final.path) if anatomy.ln_final else None
        self.unembed = model.submodule(anatomy.unembed)
        self.block_runs = 0
        """Blocks run so far, times rows: what a search costs."""
        state = (gqa, model.state_version)
        if _PROVED.get(model) != state:
            self._prove()
            _PROVED[model] = state

    def _part(self, layer: int, block: Block, gqa: GQA) -> Part:
        find, attn = self.model.submodule, block.attn
        views: dict[str, View] = {}
        projections: dict[nn.Module, tuple[str, ...]] = {}
        modules: dict[str, nn.Module] = {}
        if attn:
            for port, projection in zip("qkv", (attn.q, attn.k, attn.v), strict=True):
                views[port] = self.model.tap(Site(kind=port, layer=layer)).view
                modules[port] = find(projection.path)
                projections[modules[port]] = (*projections.get(modules[port], ()), port)
            modules["o"], modules["attn"] = find(attn.o.path), find(attn.path)
        if block.mlp:
            modules["mlp"] = find(block.mlp_write or block.mlp.path)
            modules["mlp_in"] = find(block.ln2.path) if block.ln2 else find(block.mlp.path)
        shared = attn is not None and attn.n_kv_heads != attn.n_heads and gqa == "ungrouped"
        return Part(
            layer=layer,
            module=find(block.path),
            spec=block,
            norm=find(block.ln1.path) if block.ln1 else None,
            views=views,
            projections=projections,
            n_versions=attn.n_heads // attn.n_kv_heads if attn and shared else 1,
            _modules=modules,
        )

    # -- passes -----------------------------------------------------------------------------------------

    @contextmanager
    def visited(self, visitor: Visitor, first: int = 0) -> Iterator[None]:
        """Hooks for ``visitor`` on every block from ``first`` on, which always come off."""
        handles: list[Any] = []
        try:
            for part in self.parts[first:]:
                handles += _Hooks(part, visitor).placed()
            yield
        finally:
            for handle in handles:
                handle.remove()

    def enter(
        self, tokens: Tokens, visitor: Visitor | None = None, *, streams: list[Tensor] | None = None
    ) -> tuple[Tensor, Calls]:
        """The stream in front of the first block [row pos d_model], and what the model hands its blocks.

        Cost: one forward pass without the unembedding, in which ``visitor`` is shown what passes, and ``streams`` gets
        the stream in front of every block and behind the last.
        """
        calls, x = [], []

        def record(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            if args and isinstance(args[0], Tensor):
                stream, rest = args[0], kwargs
            else:
                rest = dict(kwargs)
                stream = rest.pop("hidden_states")
            if streams is not None or not calls:
                x.append(stream.detach())
            calls.append((args[1:] if args else (), rest))

        handles = [part.module.register_forward_pre_hook(record, with_kwargs=True) for part in self.parts]
        last = Site(kind="resid_post", layer=len(self.parts) - 1)

        def seen(value: Tensor) -> None:
            x.append(value.detach())

        seen.reads_only = True  # type: ignore[attr-defined]
        try:
            ((inputs, frame),) = self.model.frames(tokens, None)
            with torch.no_grad(), self.visited(visitor or Visitor(), 0 if visitor else len(self.parts)):
                self.model.run(inputs, frame, [(last, seen)], wanted=[last])
        finally:
            for handle in handles:
                handle.remove()
        if streams is not None:
            streams.extend(x)
        return x[0], Calls(blocks=tuple(calls), rows=len(tokens))

    def embed(self, tokens: Tokens) -> Tensor:
        """The stream in front of the first block [row pos d_model]: no block is run."""
        site = Site(kind="resid_pre", layer=0)
        return self.model.capture(tokens, site)[site]

    def blocks(self, x: Tensor, calls: Calls, *, first: int = 0, visitor: Visitor | None = None) -> Tensor:
        """The stream behind the last block, from the one in front of block ``first``."""
        rows = x.shape[0] // max(1, calls.rows)
        calls = calls.tiled(rows)
        watched = self.visited(visitor or Visitor(), first if visitor else len(self.parts))
        with watched, evaluating(part.module for part in self.parts[first:]):
            for part, (args, kwargs) in zip(self.parts[first:], calls.blocks[first:], strict=True):
                if visitor is not None:
                    visitor.block_entered(part, x)
                out = first_tensor(part.module(x, *args, **kwargs))
                assert out is not None
                x = out
        self.block_runs += (len(self.parts) - first) * rows
        return x

    def head(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """Logits [row pos d_vocab] from the last stream, or [row d_vocab] at one position of each row."""
        if position is not None:
            at = position.to(x.device).repeat(x.shape[0] // len(position))
            x = x[torch.arange(len(x), device=x.device), at]
        if self.final_norm is not None:
            x = self.final_norm(x)
        return self.unembed(x)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within: no parameter asks for a gradient; afterwards each one does what it did."""
        asking = [p for p in self.model.module.parameters() if p.requires_grad]
        for p in asking:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in asking:
                p.requires_grad_(True)

    # -- proof ------------------------------------------------------------------------------------------

    def _prove(self) -> None:
        """The pass by hand must give the model's logits, and the stream be the sum of what the sources write."""
        tokens = self.model.probe()
        with torch.no_grad():
            logits = self.model.logits(tokens)
            x, calls = self.enter(tokens)
            sums = _Sums(x)
            end = self.blocks(x, calls, visitor=sums)
            ours = self.head(end)
        size = logits.double().abs().max().clamp(min=1e-30)
        # the same operations in the same order, but for the batch layout: rounding only
        tolerance = 200 * torch.finfo(logits.dtype).eps
        if ours.shape != logits.shape or float((ours - logits).double().abs().max() / size) > tolerance:
            raise ModelError(
                f"{self.model.name}: its blocks, final norm and unembedding, run one after the other, do not give its "
                "logits (capped or scaled logits, an unusual head?): circuits would explain another network"
            )
        rest = end - sums.total  # the biases of the output projections, the same everywhere
        uneven = float((rest - rest[:1, :1]).abs().max() / end.abs().max())
        if uneven > 10 * tolerance:
            raise ModelError(
                f"{self.model.name}: the stream is not the sum of what its heads and MLPs write (it is off by "
                f"{uneven:.2g} of its size; scaled residuals?): its edges would not be what they are called"
            )
        self.block_runs = 0


class _Sums(Visitor):
    def __init__(self, x: Tensor) -> None:
        self.total = x.clone()

    def attended(self, part: Part, z: Tensor) -> None:
        self.total += torch.einsum("bphd,hdm->bpm", z, part.output)

    def mlp_left(self, part: Part, y: Tensor) -> None:
        self.total += y


class _Hooks:
    """The hooks of one block; runs its attention once for each version of the shared keys and values."""

    def __init__(self, part: Part, visitor: Visitor) -> None:
        self.part, self.visitor = part, visitor
        self.version = 0
        self.found: list[Tensor] = []

    def placed(self) -> Iterator[Any]:
        part, modules = self.part, self.part._modules
        for module, ports in part.projections.items():
            yield module.register_forward_hook(self._projection(ports))
        if part.n_heads:
            yield modules["o"].register_forward_pre_hook(self._z)
        if part.n_versions > 1:
            yield modules["attn"].register_forward_pre_hook(self._again, with_kwargs=True)
        if part.spec.mlp:
            yield modules["mlp_in"].register_forward_pre_hook(self._mlp_in)
            yield modules["mlp"].register_forward_hook(self._mlp_out)

    def _projection(self, ports: tuple[str, ...]) -> Any:
        return lambda module, args, out: self.visitor.projected(self.part, ports, out, self.version)

    def _again(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self.found = []
        for version in range(1, self.part.n_versions):
            self.version = version
            module.forward(*args, **kwargs)
        self.version = 0

    def _z(self, module: nn.Module, args: tuple) -> tuple | None:
        z = args[0].unflatten(-1, (self.part.n_heads, -1))
        n = self.part.n_versions
        if n > 1:
            if self.version:
                self.found.append(z)
                return None
            # heads lie [group, member]; member j of every group is taken from version j
            each = [one.unflatten(2, (-1, n))[:, :, :, j] for j, one in enumerate([z, *self.found])]
            z = torch.stack(each, dim=3).flatten(2, 3)
        new = self.visitor.attended(self.part, z)
        if new is None and n == 1:
            return None
        return ((z if new is None else new).flatten(-2), *args[1:])

    def _mlp_in(self, module: nn.Module, args: tuple) -> tuple | None:
        new = self.visitor.mlp_entered(self.part, args[0])
        return None if new is None else (new, *args[1:])

    def _mlp_out(self, module: nn.Module, args: tuple, out: Any) -> Any:
        if not isinstance(out, Tensor):
            raise InputError(
                f"the MLP of block {self.part.layer} returns {type(out).__name__}, not one tensor"
            )
        return self.visitor.mlp_left(self.part, out)


def normalized(
    x: Tensor, norm: Norm | None, module: nn.Module | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(x - mean) / scale, 1 / scale [... 1], and the norm's weight; the norm's output but for weight and bias."""
    if norm is None or module is None:
        return torch.zeros_like(x), x.new_ones(*x.shape[:-1], 1), None
    centred = x - x.mean(-1, keepdim=True) if norm.kind == "layer" else x
    inverse = (centred.pow(2).mean(-1, keepdim=True) + norm_eps(module)).rsqrt()
    weight = norm_weight(module, norm)
    return centred * inverse, inverse, None if weight is None else weight.detach()
