"""What is taken apart: any callable logits(a, b), and where the weights are known, the parts of the network.

Everything downstream reads a network through a :class:`Subject` and, where there is one, its :class:`Parts`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from interp.errors import InputError
from interp.models.base import Model
from interp.showing import Shown
from interp.toys import Group, GroupRun, Perceptron, Transformer
from interp.toys.groups import Word

__all__ = ["Parts", "Subject", "subject_of"]

Logits = Callable[[Tensor, Tensor], Tensor]
BLOCK = 1 << 25
"""About so many logits are held at a time."""


@runtime_checkable
class Parts(Protocol):
    """A one-hidden-layer reading of a network: tables of the operands, a hidden layer, a table of the answers."""

    additive: bool
    """Whether ``left[a] + right[b]`` is what goes into the hidden layer, a column per neuron."""

    left: Float[Tensor, "element feature"]
    right: Float[Tensor, "element feature"]
    unembed: Float[Tensor, "element feature"]
    """The read-out of the hidden layer, a row per answer."""

    def hidden(self, a: Tensor, b: Tensor) -> Tensor:
        """The hidden activations [sample, neuron] that the answer is read from."""
        ...

    def read_out(self, hidden: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The logits [sample, answer], had the hidden activations been ``hidden``."""
        ...

    def both(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden activations and the logits, in one forward pass."""
        ...

    def projected(self, operands: Tensor, answers: Tensor) -> Logits:
        """The logits of the network with its tables multiplied from the left by [element, element] matrices."""
        ...


class PerceptronParts:
    """The tables are what each operand adds to the neurons: embedding times its part of the mixing map."""

    additive = True

    def __init__(self, module: Perceptron) -> None:
        self.left, self.right = (table.detach() for table in module.inputs())
        self.unembed = module.unembed.weight.detach()
        self.act = module.act
        mix = module.mix.weight.detach().split(module.shape.d_embed, dim=1)
        self.embeddings = tuple(
            (table.weight.detach(), part)
            for table, part in zip((module.left, module.right), mix, strict=True)
        )
        """Each operand's embedding and its map to the neurons."""

    def hidden(self, a: Tensor, b: Tensor) -> Tensor:
        """act(left[a] + right[b])."""
        return self.act(self.left[a] + self.right[b])

    def read_out(self, hidden: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """hidden @ unembed^T."""
        return hidden @ self.unembed.T

    def both(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Parts`."""
        hidden = self.hidden(a, b)
        return hidden, hidden @ self.unembed.T

    def projected(self, operands: Tensor, answers: Tensor) -> Logits:
        """See :class:`Parts`."""
        like = self.left
        left, right = operands.to(like) @ self.left, operands.to(like) @ self.right
        out = answers.to(like) @ self.unembed
        return lambda a, b: self.act(left[a] + right[b]) @ out.T


class _Reader:
    """The stream behind the only attention layer, at ``=``: its query is one and the same for every pair, so a score
    and a value for each element and place say all, and no pair needs a matrix product of its own."""

    @torch.no_grad()
    def __init__(self, module: Transformer, order: int) -> None:
        attn, places = module.blocks[0].attn, cast(nn.Embedding, module.pos_embed).weight.detach()[:3]
        n_heads, d_head = attn.n_heads, attn.d_head
        embed = module.embed.weight.detach()
        self.own = embed[order] + places[2]
        query = attn.q(self.own).view(n_heads, d_head)
        out = attn.o.weight.detach().view(-1, n_heads, d_head)
        self.scores, self.values = [], []
        for x in (embed[:order] + places[0], embed[:order] + places[1], self.own[None]):
            key, value = (part(x).view(-1, n_heads, d_head) for part in (attn.k, attn.v))
            self.scores.append((key * query).sum(-1) / d_head**0.5)
            self.values.append(torch.einsum("xhd,mhd->xhm", value, out))

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        rows = (a, b, torch.zeros_like(a))
        scores = torch.stack([table[row] for table, row in zip(self.scores, rows, strict=True)])
        weights = scores.softmax(0)  # [place, pair, head]
        x = self.own + weights[2] @ self.values[2][0]
        for weight, table, row in zip(weights, self.values, (a, b), strict=False):
            x = x + (weight[:, None] @ table[row])[:, 0]
        return x


class TransformerParts:
    """The operand table is the embedding without the row of ``=``; the hidden layer is the last block's MLP."""

    additive = False

    def __init__(self, module: Transformer, order: int) -> None:
        self.module, self.order = module, order
        self.left = self.right = module.embed.weight.detach()[:order]
        read = module.unembed.weight.detach()[:order]
        self.unembed = read @ module.blocks[-1].mlp.down.weight.detach()
        plain = len(module.blocks) == 1 and module.pos_embed is not None
        self.read = _Reader(module, order) if plain else None

    def _middle(self, a: Tensor, b: Tensor) -> Tensor:
        """The residual stream in front of the last MLP, at the last position."""
        if self.read is not None:
            return self.read(a, b)
        module, equals = self.module, torch.full_like(a, self.order)
        ids = torch.stack([a, b, equals], 1)
        x = module.embed(ids)
        if module.pos_embed is not None:
            x = x + module.pos_embed(torch.arange(3, device=ids.device))
        for block in module.blocks[:-1]:
            x = block(x)
        return (x + module.blocks[-1].attn(x))[:, -1]

    def hidden(self, a: Tensor, b: Tensor) -> Tensor:
        """The MLP's activations at ``=``."""
        mlp = self.module.blocks[-1].mlp
        return mlp.act(mlp.up(self._middle(a, b)))

    def read_out(self, hidden: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The rest of the last block, with the given activations."""
        return self._rest(self._middle(a, b), hidden)

    def _rest(self, middle: Tensor, hidden: Tensor) -> Tensor:
        x = middle + self.module.blocks[-1].mlp.down(hidden)
        return self.module.unembed(x)[:, : self.order]

    def both(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Parts`."""
        middle, mlp = self._middle(a, b), self.module.blocks[-1].mlp
        hidden = mlp.act(mlp.up(middle))
        return hidden, self._rest(middle, hidden)

    def projected(self, operands: Tensor, answers: Tensor) -> Logits:
        """See :class:`Parts`; answers are projected in the logits, which the whole stream is read into."""
        module = copy.deepcopy(self.module)
        with torch.no_grad():
            module.embed.weight[: self.order] = operands.to(self.left) @ self.left
        inner = TransformerParts(module, self.order)
        return lambda a, b: inner.both(a, b)[1] @ answers.to(self.left).T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Subject(Shown):
    """A function of two group elements with a logit for each answer."""

    name: str
    group: Group
    word: Word
    answers: Int64[Tensor, "left right"]
    """The right answer w(a, b) of each pair."""
    logits: Logits
    parts: Parts | None
    reason: str = ""
    """Why there are no parts."""

    def pairs(self, width: int | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All pairs in blocks of whole rows: a, b, answer; ``width`` numbers are to be held per pair."""
        order = self.group.order
        rows = max(1, BLOCK // (order * (width or order)))
        every = torch.arange(order)
        for block in every.split(rows):
            a, b = block.repeat_interleave(order), every.repeat(len(block))
            yield a, b, self.answers[block].flatten()

    @torch.no_grad()
    def logits_of(self, a: Tensor, b: Tensor) -> Float[Tensor, "sample answer"]:
        """The logits of pairs in float64.

        Raises
        ------
        InputError
            They have another shape, or are not finite.
        """
        return self.checked(self.logits(a, b), len(a))

    def checked(self, given: Any, n: int) -> Float[Tensor, "sample answer"]:
        """Logits of ``n`` pairs in float64, if that is what they are; see :meth:`logits_of`."""
        if not isinstance(given, Tensor) or given.shape != (n, self.group.order):
            shape = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise InputError(
                f"{self.name} gives {shape} for {n} pairs; logits of {self.group.name} are [{n}, {self.group.order}]"
            )
        given = given.detach().double()
        if not given.sum().isfinite() and not given.isfinite().all():  # a sum is the cheaper question
            raise InputError(f"{self.name} gives logits that are not finite")
        return given


def subject_of(what: Any, group: Group, *, word: str = "ab") -> Subject:
    """A subject from a trained run, a perceptron, a transformer, a loaded model, or any callable logits(a, b).

    A module that is neither of ours is asked for rows ``a b =`` (the id of ``=`` is the group's order); of its logits
    the last position and the first ``order`` answers are read. Nothing is known of its parts then.

    Raises
    ------
    InputError
        It is no network or callable, or its tables are not of the group's size.
    """
    if isinstance(what, GroupRun):
        what = what.module
    name = getattr(what, "name", None) or getattr(what, "__name__", type(what).__name__)
    module: Any = what.module if isinstance(what, Model) else what
    order, reason = group.order, ""
    parts: Parts | None = None
    logits: Logits
    if isinstance(module, Perceptron):
        _sized(name, module.shape.order, order, group, "answers")
        parts, logits = PerceptronParts(module), module.logits
    elif isinstance(module, Transformer):
        _sized(name, module.shape.d_vocab, order + 1, group, "tokens (with '=')")
        whole = TransformerParts(module, order)
        parts, logits = whole, lambda a, b: whole.both(a, b)[1]
    elif isinstance(what, Model):
        reason = f"{name} is not one of the toolkit's group networks: only its logits are read"
        logits = _asked(what.logits, order)
    elif isinstance(what, nn.Module):
        reason = f"{name} is not one of the toolkit's group networks: only its logits are read"
        logits = _asked(what, order)
    elif callable(what):
        reason, logits = "a bare function has no weights to look at", cast(Logits, what)
    else:
        raise InputError(
            f"cannot read a {type(what).__name__}: give a network, a model or a function (a, b) -> logits"
        )
    chosen = Word(word)
    every = torch.arange(order)
    grid = chosen.values(group, every.repeat_interleave(order), every.repeat(order)).view(order, order)
    return Subject(
        name=name, group=group, word=chosen, answers=grid, logits=logits, parts=parts, reason=reason
    )


def _sized(name: str, found: int, expected: int, group: Group, what: str) -> None:
    if found != expected:
        raise InputError(f"{name} has {found} {what}; {group.name}, of order {group.order}, needs {expected}")


def _asked(network: Callable[[Tensor], Tensor], order: int) -> Logits:
    """Rows ``a b =`` in, the last position's first ``order`` logits out."""

    def logits(a: Tensor, b: Tensor) -> Tensor:
        out = network(torch.stack([a, b, torch.full_like(a, order)], 1))
        out = out[:, -1] if out.ndim == 3 else out
        return out[:, :order]

    return logits
