"""Passes: what is kept of a run, and runs in which chosen edges carry another run's terms, many of them in one batch.

An edge is patched by changing what its destination reads: the stream as it is plus, for every patched source, that
source's other term minus its present one. Everything behind follows. Rows of a batch are (intervention, example), and a
pass begins at the first layer that any of its interventions changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from circuits.layout import Layout
from circuits.stream import Calls, Part, Stream, Visitor
from interp.tokens import Tokens

__all__ = ["Recorder", "Run", "Swap", "Writes", "patched_logits", "record"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Writes:
    """What every source wrote: heads as z [row pos head d_head], the rest as [row pos d_model]; None where there is
    none. One row stands for all."""

    input: Tensor
    z: tuple[Tensor | None, ...]
    mlp: tuple[Tensor | None, ...]

    def map(self, change: Callable[[Tensor], Tensor]) -> Writes:
        """The same with every tensor changed."""

        def each(tensors: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            return tuple(None if t is None else change(t) for t in tensors)

        return Writes(input=change(self.input), z=each(self.z), mlp=each(self.mlp))

    def term(self, stream: Stream, source: int) -> Tensor:
        """What one source adds to the stream [row pos d_model]."""
        layer, head = located(stream.layout, source)
        if layer < 0:
            return self.input
        z, mlp = self.z[layer], self.mlp[layer]
        if head is None:
            assert mlp is not None
            return mlp
        assert z is not None
        return z[:, :, head] @ stream.parts[layer].output[head]

    def terms(self, stream: Stream) -> Tensor:
        """What all sources add to the stream [row source pos d_model]."""
        rows, pos, d = self.input.shape
        out = self.input.new_empty(rows, len(stream.layout.sources), pos, d)
        out[:, 0] = self.input
        at = 1
        for part, z, mlp in zip(stream.parts, self.z, self.mlp, strict=True):
            if z is not None:
                for head in range(part.n_heads):
                    out[:, at + head] = z[:, :, head] @ part.output[head]
                at += part.n_heads
            if mlp is not None:
                out[:, at] = mlp
                at += 1
        return out

    def minus(self, other: Writes) -> Writes:
        """Differences, term by term."""
        pairs = zip((self.z, self.mlp), (other.z, other.mlp), strict=True)
        z, mlp = (
            tuple(None if x is None or y is None else x - y for x, y in zip(a, b, strict=True))
            for a, b in pairs
        )
        return Writes(input=self.input - other.input, z=z, mlp=mlp)


def located(layout: Layout, source: int) -> tuple[int, int | None]:
    """(layer, head) of a source; layer -1 is the input, head None an MLP."""
    name = layout.sources[source]
    if name == "input":
        return -1, None
    node, _, head = name.partition(".h")
    return int(node[1:]), int(head) if head else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One recorded run."""

    writes: Writes
    resid: tuple[Tensor, ...]
    """The stream [row pos d_model] in front of every block, and behind the last."""
    calls: Calls


class Recorder(Visitor):
    """Keeps what every source writes, and the stream in front of every block if asked to."""

    def __init__(self, n_layers: int, *, resid: bool = False) -> None:
        self.z: list[Tensor | None] = [None] * n_layers
        self.mlp: list[Tensor | None] = [None] * n_layers
        self.resid: list[Tensor] | None = [] if resid else None

    def attended(self, part: Part, z: Tensor) -> None:
        self.z[part.layer] = z.detach()

    def mlp_left(self, part: Part, y: Tensor) -> None:
        self.mlp[part.layer] = y.detach()

    def block_entered(self, part: Part, x: Tensor) -> None:
        if self.resid is not None:
            self.resid.append(x.detach())

    def writes(self, x: Tensor) -> Writes:
        """What was kept, with the stream ``x`` that the first block was given."""
        return Writes(input=x.detach(), z=tuple(self.z), mlp=tuple(self.mlp))


@torch.no_grad()
def record(stream: Stream, tokens: Tokens, calls: Calls | None = None) -> Run:
    """One run with everything an intervention needs. Cost: one forward pass (two without ``calls``), no unembedding."""
    if calls is None:
        x, calls = stream.enter(tokens)
    else:
        x = stream.embed(tokens)
    kept = Recorder(len(stream.parts), resid=True)
    end = stream.blocks(x, calls, visitor=kept)
    assert kept.resid is not None
    return Run(writes=kept.writes(x), resid=(*kept.resid, end), calls=calls)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Swap:
    """Edges [intervention edge] that carry the terms of another run instead of the present one's."""

    mask: Tensor
    source: Writes
    weight: float = 1.0
    """How far they go: 0 leaves the present term, 1 takes the other."""
    where: Tensor | None = None
    """[pos] 1 at the positions at which they are swapped, 0 elsewhere; everywhere by default."""


@torch.no_grad()
def patched_logits(
    stream: Stream,
    base: Run,
    swaps: Sequence[Swap],
    *,
    position: Tensor | None = None,
    first: int | None = None,
) -> Tensor:
    """Logits [intervention row ...] of ``base`` with every intervention's edges swapped.

    ``first``: the layer to begin at; by default the first that is changed.
    """
    masks = [swap.mask for swap in swaps]
    n = masks[0].shape[0]
    changed = torch.stack([mask.any(0) for mask in masks]).any(0).cpu().numpy()
    touched = stream.layout.layer[stream.layout.destination[changed]]
    if first is None:
        first = int(touched.min()) if len(touched) else len(stream.parts)
    rows = base.resid[0].shape[0]
    x = base.resid[first].repeat(n, 1, 1)
    patcher = _Patcher(stream, base, swaps, first=first, n=n)
    end = stream.blocks(x, base.calls, first=first, visitor=patcher)
    end = patcher.entered(len(stream.layout.destinations) - 1, end)
    logits = stream.head(end, position)
    return logits.view(n, rows, *logits.shape[1:])


class _Patcher(Visitor):
    """Changes what destinations read, as each intervention says."""

    def __init__(self, stream: Stream, base: Run, swaps: Sequence[Swap], *, first: int, n: int) -> None:
        self.stream, self.layout, self.n = stream, stream.layout, n
        self.at = {name: i for i, name in enumerate(self.layout.destinations)}
        self.number = {name: i for i, name in enumerate(self.layout.sources)}
        self.stacks = [_Stack(self, swap, base, first) for swap in swaps]
        starts = self.layout.offsets[:-1]
        touched = [np.logical_or.reduceat(swap.mask.cpu().numpy(), starts, axis=1) for swap in swaps]
        self.touched = torch.from_numpy(np.logical_or.reduce(touched)).to(base.resid[0].device)
        """[intervention destination] whether any of its terms is swapped."""
        self.x: Tensor | None = None

    def block_entered(self, part: Part, x: Tensor) -> None:
        self.x = x

    def attended(self, part: Part, z: Tensor) -> None:
        for stack in self.stacks:
            other = stack.swap.source.z[part.layer]
            for head in range(part.n_heads):
                s = self.number[f"a{part.layer}.h{head}"]
                if s in stack.later:
                    assert other is not None
                    difference = stack.apart(other[:, :, head], z[:, :, head])
                    stack.put(s, difference @ part.output[head])

    def mlp_left(self, part: Part, y: Tensor) -> None:
        for stack in self.stacks:
            s = self.number[f"m{part.layer}"]
            if s in stack.later:
                other = stack.swap.source.mlp[part.layer]
                assert other is not None
                stack.put(s, stack.apart(other, y))

    def mlp_entered(self, part: Part, x: Tensor) -> Tensor:
        return self.entered(self.at[f"m{part.layer}"], x)

    def entered(self, d: int, x: Tensor) -> Tensor:
        """What destination ``d`` reads instead of ``x`` [row pos d_model]."""
        chosen = self._chosen([d])
        if not len(chosen[0]):
            return x
        new = x.clone().view(self.n, -1, *x.shape[1:])
        new[chosen[0]] += self._change([d], chosen)
        return new.view_as(x)

    def projected(self, part: Part, ports: Sequence[str], out: Tensor, version: int) -> Tensor | None:
        changed = False
        for port in ports:
            own, theirs = part.heads_of(port, version)
            kv = "h" if port == "q" or self.layout.blocks[part.layer].n_kv == part.n_heads else "kv"
            row = [self.at[f"a{part.layer}.{kv}{head}<{port}>"] for head in theirs]
            chosen = self._chosen(row)
            if not len(chosen[0]):
                continue
            value = part.read(port, out).clone()
            new = self._projected(part, port, row, chosen, [own[i] for i in chosen[1].tolist()])
            split = value.view(self.n, -1, *value.shape[1:])
            split[chosen[0], :, :, torch.tensor(own, device=out.device)[chosen[1]]] = new
            out = part.written(port, out, split.view_as(value))
            changed = True
        return out if changed else None

    def _projected(
        self, part: Part, port: str, row: list[int], chosen: tuple[Tensor, Tensor], heads: list[int]
    ) -> Tensor:
        """The port's features [chosen row pos d_head] of the changed stream."""
        assert self.x is not None
        x = self.x.view(self.n, -1, *self.x.shape[1:])[chosen[0]] + self._change(row, chosen)
        if part.norm is not None:
            x = part.norm(x)
        weight = part.weight(port)[:, heads].movedim(1, 0)
        found = torch.bmm(x.flatten(1, 2), weight).view(*x.shape[:3], -1)
        bias = part.bias(port)
        return found if bias is None else found + bias[heads][:, None, None]

    def _chosen(self, row: list[int]) -> tuple[Tensor, Tensor]:
        """(intervention, place in ``row``) of every destination of the row that is changed."""
        found = self.touched[:, row]
        index = found.nonzero()
        return index[:, 0], index[:, 1]

    def _change(self, row: list[int], chosen: tuple[Tensor, Tensor]) -> Tensor:
        """What is added to the stream [chosen row pos d_model] for the chosen destinations."""
        total = self.stacks[0].change(row, chosen)
        for stack in self.stacks[1:]:
            total = total + stack.change(row, chosen)
        return total


@dataclass(slots=True)
class _Place:
    """Sources in the order of their slots in a buffer."""

    sources: list[int] = field(default_factory=list)

    def upto(self, n: int) -> list[int]:
        return [s for s in self.sources if s < n]


class _Stack:
    """Differences of one swap: of sources in front of the first layer (the same for all interventions), and behind."""

    def __init__(self, patcher: _Patcher, swap: Swap, base: Run, first: int) -> None:
        self.patcher, self.swap = patcher, swap
        stream, layout = patcher.stream, patcher.layout
        used = sorted({int(s) for s in layout.source[swap.mask.any(0).cpu().numpy()]})
        early = [s for s in used if located(layout, s)[0] < first]
        self.early, self.late = _Place(early), _Place([s for s in used if s not in set(early)])
        self.later = {s: i for i, s in enumerate(self.late.sources)}
        rows, pos, d = base.resid[0].shape
        self.before = base.resid[0].new_zeros(len(early), rows, pos, d)
        for i, s in enumerate(early):
            self.before[i] = self._masked(swap.source.term(stream, s) - base.writes.term(stream, s))
        self.behind = base.resid[0].new_zeros(patcher.n, len(self.later), rows, pos, d)

    def of(self, d: int) -> Tensor:
        """[intervention source] which terms of destination ``d`` are swapped."""
        offsets = self.patcher.layout.offsets
        return self.swap.mask[:, offsets[d] : offsets[d + 1]]

    def _masked(self, difference: Tensor) -> Tensor:
        where = self.swap.where
        scaled = difference if self.swap.weight == 1 else self.swap.weight * difference
        return scaled if where is None else scaled * where[:, None].to(scaled)

    def apart(self, other: Tensor, now: Tensor) -> Tensor:
        """The other run's term minus the present one [intervention row pos d]."""
        now = now.view(self.patcher.n, -1, *now.shape[1:])
        return self._masked((other - now).flatten(0, 1)).view_as(now)

    def put(self, source: int, difference: Tensor) -> None:
        self.behind[:, self.later[source]] = difference

    def change(self, row: list[int], chosen: tuple[Tensor, Tensor]) -> Tensor:
        reads = int(self.patcher.layout.reads[row[0]])
        masks = torch.stack([self.of(d) for d in row], 1)[chosen[0], chosen[1]].to(self.before)
        early, late = self.early.upto(reads), self.late.upto(reads)
        shape = self.before.shape[1:]
        total = self.before.new_zeros(len(masks), *shape)
        if early:
            weights = masks[:, early]
            used = weights.any(0).nonzero()[:, 0]
            if len(used):
                total = (weights[:, used] @ self.before[used].flatten(1)).view_as(total)
        if late:
            weights = masks[:, late]
            for k in chosen[0].unique().tolist():
                mine = (chosen[0] == k).nonzero()[:, 0]
                if weights[mine].any():
                    part = weights[mine] @ self.behind[k, : len(late)].flatten(1)
                    total[mine] += part.view(-1, *shape)
        return total
