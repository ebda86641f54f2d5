"""Slopes: the metric's gradient at every destination's input, from ordinary forward and backward passes.

Gradients are read where the network itself has tensors (projection outputs, MLP inputs, the last stream) and carried
to the stream through the transposed projection and the norm in closed form, once for all passes: a head's input never
gets a copy of the stream of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from circuits.passes import Recorder, Writes
from circuits.stream import Calls, Part, Stream, normalized

__all__ = ["Slopes", "Watch"]

CHUNK = 2**24
"""Bytes of the terms that are held at once while scoring."""


class Watch(Recorder):
    """Keeps what gradients are asked at; records what is written along the way; may put other tensors in."""

    def __init__(self, n_layers: int, *, instead: dict[tuple[str, int], Tensor] | None = None) -> None:
        super().__init__(n_layers, resid=True)
        self.outs: list[tuple[Part, tuple[str, ...], int, Tensor]] = []
        self.branches: dict[int, Tensor] = {}
        self.instead = instead or {}

    def forget(self) -> None:
        """Let go of what gradients were asked at; what was written stays."""
        self.outs, self.branches, self.instead = [], {}, {}
        self.resid = []

    def projected(self, part: Part, ports: tuple[str, ...], out: Tensor, version: int) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.outs.append((part, ports, version, out))

    def mlp_entered(self, part: Part, x: Tensor) -> Tensor:
        # a view of its own, so that the gradient there counts the way through the MLP only
        self.branches[part.layer] = x.view_as(x)
        return self.branches[part.layer]

    def attended(self, part: Part, z: Tensor) -> Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().attended(part, z)
        return self.instead.get(("z", part.layer))

    def mlp_left(self, part: Part, y: Tensor) -> Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().mlp_left(part, y)
        return self.instead.get(("mlp", part.layer))


@dataclass(slots=True, eq=False)
class _Heads:
    """What is summed over passes for the ports of one block."""

    gradients: dict[str, Tensor] = field(default_factory=dict)
    """Port -> [row pos destination d_head] gradient over the norm's scale."""
    directions: list[Tensor] = field(default_factory=list)
    """[row pos d_model] the normalised stream of each pass."""
    shares: list[Tensor] = field(default_factory=list)
    """[row pos destination] how much of it the norm takes away."""


class Slopes:
    """The sum over passes of the metric's gradient at every destination's input."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.heads = [_Heads() for _ in stream.parts]
        self.mlps: dict[int, Tensor] = {}
        self.final: Tensor | None = None
        self.n_passes = 0

    def add(
        self, x: Tensor, calls: Calls, score, *, position: Tensor | None, watch: Watch | None = None
    ) -> tuple[Watch, Tensor]:
        """One forward and one backward pass from the stream ``x`` in front of the first block.

        ``score`` maps logits to one number per example. Returns what was watched, and the numbers.
        """
        stream = self.stream
        watch = watch or Watch(len(stream.parts))
        with stream.frozen(), torch.enable_grad():
            end = stream.blocks(x.detach().requires_grad_(True), calls, visitor=watch)
            scores = score(stream.head(end, position))
            layers = list(watch.branches)
            wanted = [end, *(watch.branches[layer] for layer in layers), *(out for *_, out in watch.outs)]
            grads = torch.autograd.grad(scores.sum(), wanted, allow_unused=True, materialize_grads=True)
        self._sum("final", grads[0])
        for layer, grad in zip(layers, grads[1:], strict=False):
            self._sum(layer, grad)
        with torch.no_grad():
            self._ports(watch, grads[1 + len(layers) :])
        watch.forget()
        self.n_passes += 1
        return watch, scores.detach()

    def _sum(self, where: str | int, grad: Tensor) -> None:
        held = self.final if where == "final" else self.mlps.get(where)  # type: ignore[arg-type]
        if held is not None:
            held += grad
        elif where == "final":
            self.final = grad.clone()  # two gradients may be one tensor
        else:
            self.mlps[where] = grad.clone()  # type: ignore[index]

    def _ports(self, watch: Watch, grads: tuple[Tensor, ...]) -> None:
        fresh: dict[int, dict[str, Tensor]] = {}
        for (part, ports, version, _), grad in zip(watch.outs, grads, strict=True):
            for port in ports:
                own, theirs = part.heads_of(port, version)
                read = part.read(port, grad)
                n = part.n_heads if port == "q" or part.n_versions > 1 else len(own)
                held = fresh.setdefault(part.layer, {})
                if n == len(own) and part.n_versions == 1:
                    held[port] = read
                    continue
                if port not in held:
                    held[port] = read.new_zeros(*read.shape[:2], n, read.shape[-1])
                held[port][:, :, theirs] += read
        assert watch.resid is not None
        for layer, ports in fresh.items():
            self._normed(self.stream.parts[layer], watch.resid[layer], ports)

    def _normed(self, part: Part, x: Tensor, ports: dict[str, Tensor]) -> None:
        heads = self.heads[part.layer]
        unit, inverse, _ = normalized(x, part.spec.ln1, part.norm)
        shares = []
        for port in "qkv":
            scaled = ports[port] * inverse[..., None]
            if port in heads.gradients:
                heads.gradients[port] += scaled
            else:
                heads.gradients[port] = scaled
            if part.norm is not None:
                # v . unit / d for v = W g, in the head's own width
                seen = torch.einsum("bpd,dhe->bphe", unit, self._weight(part, port))
                shares.append((scaled * seen).sum(-1) / x.shape[-1])
        if part.norm is not None:
            heads.directions.append(unit)
            heads.shares.append(torch.cat(shares, dim=-1))

    def _weight(self, part: Part, port: str) -> Tensor:
        """[d_model destination d_head] the projection with the norm's weight, a column for every destination."""
        weight = part.weight(port)
        scale = None
        if part.norm is not None:
            scale = normalized(weight.new_zeros(1, weight.shape[0]), part.spec.ln1, part.norm)[2]
        if scale is not None:
            weight = weight * scale.to(weight)[:, None, None]
        return (
            weight.repeat_interleave(part.n_versions, dim=1)
            if port != "q" and part.n_versions > 1
            else weight
        )

    def at_heads(self, layer: int, rows: slice = slice(None)) -> Tensor:
        """Summed gradients at the inputs of a block's ports [row destination pos d_model]: queries, keys, values."""
        part, heads = self.stream.parts[layer], self.heads[layer]
        carried = [
            torch.einsum("bphe,dhe->bhpd", heads.gradients[port][rows], self._weight(part, port))
            for port in "qkv"
        ]
        total = torch.cat(carried, dim=1)
        if part.norm is None or part.spec.ln1 is None:
            return total
        # J^T v = (v - mean(v) - unit mean(v unit)) / scale, the scale being in v already
        if part.spec.ln1.kind == "layer":
            total -= total.mean(-1, keepdim=True)
        for share, unit in zip(heads.shares, heads.directions, strict=True):
            total.addcmul_(share[rows].transpose(1, 2)[..., None], unit[rows][:, None], value=-1)
        return total

    def scores(self, difference: Writes, *, positions: bool = False) -> Tensor:
        """[row edge] differences between two runs' terms, along the mean gradient at each destination.

        With ``positions`` they are not summed over positions: [row pos edge].

        A few rows at a time: the terms of all sources are the largest tensor of an attribution.
        """
        layout = self.stream.layout
        assert self.final is not None
        n, pos, d = difference.input.shape
        found = self.final.new_empty(n, *((pos,) if positions else ()), layout.n_edges)
        size = max(1, CHUNK // (len(layout.sources) * pos * d * found.element_size()))
        for start in range(0, n, size):
            rows = slice(start, min(start + size, n))
            terms = difference.map(lambda t, rows=rows: t[rows]).terms(self.stream)
            self._scored(found[rows], terms if positions else terms.flatten(2), rows)
        return found.div_(self.n_passes)

    def _scored(self, found: Tensor, terms: Tensor, rows: slice) -> None:
        layout, d = self.stream.layout, 0
        for layer, block in enumerate(layout.blocks):
            if block.n_heads + 2 * block.n_kv:
                d = self._filled(found, terms, self.at_heads(layer, rows), d)
            if block.mlp:
                d = self._filled(found, terms, self.mlps[layer][rows][:, None], d)
        assert self.final is not None
        self._filled(found, terms, self.final[rows][:, None], d)

    def _filled(self, found: Tensor, terms: Tensor, gradient: Tensor, d: int) -> int:
        layout, n = self.stream.layout, gradient.shape[1]
        reads, start = int(layout.reads[d]), int(layout.offsets[d])
        if terms.ndim == 4:  # position by position: row pos destination source
            block = gradient.transpose(1, 2) @ terms[:, :reads].permute(0, 2, 3, 1)
        else:
            block = torch.bmm(gradient.flatten(2), terms[:, :reads].mT)
        found[..., start : start + n * reads] = block.flatten(-2)
        return d + n
