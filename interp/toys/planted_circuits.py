"""Planted circuits: networks whose weights were set by hand, so that their circuit is known edge by edge.

``interp.load("planted:induction")`` is the network alone; :func:`planted` hands it out with its prompts, its metric
and its graph, the truth that circuit methods are judged by. Read next: ``planted_design.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from interp.errors import InputError, ModelError, nearest
from interp.tasks.task import Task
from interp.tokens import Tokens
from interp.toys.collection import Embedded, last
from interp.toys.planted_design import Design
from interp.toys.planted_graph import PlantedGraph
from interp.toys.planted_letters import INDUCTION, PREVIOUS
from interp.toys.planted_records import BACKUP, DISTRACTOR, TWO_HOP

__all__ = ["Planted", "make", "names", "planted"]

DESIGNS = {
    "induction": INDUCTION,
    "previous": PREVIOUS,
    "two-hop": TWO_HOP,
    "distractor": DISTRACTOR,
    "backup": BACKUP,
}
"""The circuits by name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
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

    def task(self, n: int = 64, *, seed: int = 0) -> Task:
        """``n`` clean and corrupted prompts with their answers.

        The metric is the answer's logit minus that of the wrong one: the corrupted prompt's answer, or another word
        where the corrupted prompt has none.
        """
        if n < 1:
            raise InputError(f"n must be at least 1, got {n}")
        clean, corrupted, answers, wrong = self.design.draw(n, torch.Generator().manual_seed(seed))
        first, second = (Tokens.full(ids, show=self.strings.__getitem__) for ids in (clean, corrupted))
        texts = zip(first.strings, second.strings, strict=True)
        return Task(
            name=self.name,
            clean=first,
            corrupted=second,
            answers=answers[:, None],
            wrong=wrong[:, None],
            measure="logit_difference",
            facts=({},) * n,
            texts=tuple((" ".join(one), " ".join(other)) for one, other in texts),
            provenance={"source": "planted", "seed": seed},
        )

    def inputs(self, n: int, *, seed: int = 0) -> Int64[Tensor, "batch pos"]:
        """``n`` clean prompts."""
        return self.design.draw(n, torch.Generator().manual_seed(seed))[0]

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
        return f"{n} prompts of its own language, such as '{self.task(1).texts[0][0]}'"


def planted(name: str) -> Planted:
    """A planted circuit by name: ``"induction"``, ``"previous"``, ``"two-hop"``, ``"distractor"`` or ``"backup"``.

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
