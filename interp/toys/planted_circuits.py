"""Planted circuits: networks whose weights were set by hand, so that their circuit is known edge by edge.

``interp.load("planted:induction")`` is the network alone; :func:`planted` hands it out with its prompts, its metric
and its graph, the truth that circuit methods are judged by. Read next: ``planted_designs.py``, the five circuits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from interp.errors import InputError, ModelError, nearest
from interp.tokens import Tokens
from interp.toys.collection import Embedded, last
from interp.toys.planted_designs import DESIGNS, Design
from interp.toys.planted_graph import PlantedGraph

__all__ = ["Planted", "Trials", "make", "names", "planted"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trials:
    """Prompts of a planted circuit in pairs, aligned token by token, and what tells their answers apart."""

    clean: Tokens
    corrupted: Tokens
    answers: Int64[Tensor, "batch"]
    wrong: Int64[Tensor, "batch"]
    """What the answers are measured against: the corrupted prompts' answers, where they have one."""

    def metric(self, logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, "batch"]:
        """Logit of the answer minus logit of the wrong one, at the last position, one number an example.

        Raises
        ------
        InputError
            The logits are not those of as many examples.
        """
        if len(logits) != len(self.answers):
            raise InputError(f"logits of {len(logits)} examples were given for {len(self.answers)} trials")
        ends = (
            logits[:, -1].gather(1, ids.to(logits.device)[:, None])[:, 0]
            for ids in (self.answers, self.wrong)
        )
        return next(ends) - next(ends)

    def batches(self, size: int) -> Iterator[Trials]:
        """The trials in order, ``size`` at a time."""
        for clean, start in zip(self.clean.batches(size), range(0, len(self), size), strict=True):
            rows = slice(start, start + size)
            yield Trials(
                clean=clean,
                corrupted=self.corrupted.select(rows),
                answers=self.answers[rows],
                wrong=self.wrong[rows],
            )

    def __len__(self) -> int:
        return len(self.answers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planted(Embedded):
    """A network with a planted circuit.

    Examples
    --------
    >>> circuit = planted("two-hop")
    >>> [str(edge) for edge in circuit.graph.edges][-2:]
    ['a0.h1->a1.h0<v>', 'a1.h0->logits']
    """

    design: Design = field(repr=False)

    @property
    def graph(self) -> PlantedGraph:
        """The truth: the edges that the logits depend on."""
        return self.design.graph

    @property
    def strings(self) -> tuple[str, ...]:
        """The tokens of the circuit's language."""
        return self.design.strings

    @property
    def notes(self) -> tuple[str, ...]:
        """That the weights were set by hand, and for what."""
        graph = self.graph
        return (
            f"The weights were set by hand; {len(graph.edges)} of {len(graph.candidates)} edges matter, all others "
            f"change no logit. {self.design.about}",
        )

    def trials(self, n: int = 64, *, seed: int = 0) -> Trials:
        """``n`` pairs of prompts with their answers."""
        if n < 1:
            raise InputError(f"n must be at least 1, got {n}")
        clean, corrupted, answers, wrong = self.design.draw(n, torch.Generator().manual_seed(seed))
        strings = self.strings
        first, second = (Tokens.full(ids, show=lambda token: strings[token]) for ids in (clean, corrupted))
        return Trials(clean=first, corrupted=second, answers=answers, wrong=wrong)

    def inputs(self, n: int, *, seed: int = 0) -> Int64[Tensor, "batch pos"]:
        """``n`` clean prompts."""
        return self.trials(n, seed=seed).clean.ids

    def labels(self, ids: Int64[Tensor, "batch pos"]) -> dict[str, Int64[Tensor, "batch pos"]]:
        """The answer at the last position, by the circuit's plain program (-100 elsewhere).

        Raises
        ------
        InputError
            A row is no prompt of the circuit's language.
        """
        design = self.design
        if ids.shape[1] != design.length or (ids < 0).any() or (ids >= len(design.strings)).any():
            raise InputError(
                f"prompts of {self.name!r} are rows of {design.length} ids below {len(design.strings)}, got "
                f"{list(ids.shape)}"
            )
        return {"answer": last(ids, torch.tensor([design.program(row) for row in ids.tolist()]))}

    def subspace(self, name: str) -> Float64[Tensor, "d_model width"]:
        """The basis of a named subspace of the residual stream, such as ``"previous"``: columns of the identity.

        Raises
        ------
        InputError
            There is no subspace of that name.
        """
        spaces = self.card["spaces"]
        if name not in spaces:
            raise InputError(f"no subspace {name!r}{nearest(name, spaces)} (subspaces: {', '.join(spaces)})")
        start, stop = spaces[name]
        return torch.eye(self.card["shape"]["d_model"], dtype=torch.float64)[:, start:stop]

    def _source(self, n: int) -> str:
        return f"{n} prompts of its own language, such as '{' '.join(self._example())}'"

    def _example(self) -> list[str]:
        return self.trials(1).clean.strings[0]


def planted(name: str) -> Planted:
    """The planted circuit called ``name``: ``"induction"``, ``"previous"``, ``"two-hop"``, ``"distractor"``, ``"backup"``.

    Raises
    ------
    ModelError
        There is none of that name; the message says the nearest and all names.
    """
    design = DESIGNS.get(name)
    if design is None:
        raise ModelError(
            f"no planted circuit {name!r}{nearest(name, DESIGNS)} (planted: {', '.join(DESIGNS)})"
        )
    wiring = design.build()
    card = {
        "task": design.about,
        "shape": wiring.module.config(),
        "spaces": {space: [at.start, at.stop] for space, at in wiring.at.items()},
        "graph": design.graph.to_dict(),
    }
    return Planted(name=f"planted:{name}", module=wiring.finish(seed=0), card=card, design=design)


def names() -> tuple[str, ...]:
    """The names of the planted circuits."""
    return tuple(f"planted:{name}" for name in DESIGNS)


def make(name: str) -> Planted:
    """The planted circuit called ``name``, with its prefix."""
    return planted(name.removeprefix("planted:"))
