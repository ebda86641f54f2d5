"""The trained group networks among the embedded ones: ``group:C59``, ``group:S5`` ...; see ``train_group.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError
from interp.toys.collection import Embedded, last, shipped, shipped_stems
from interp.toys.groups import Group
from interp.toys.groups.words import Word
from interp.toys.train_group import pairs
from interp.toys.training_runs import untrained

if TYPE_CHECKING:
    from interp.tasks.task import Task

__all__ = ["GroupNetwork", "make", "names"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GroupNetwork(Embedded):
    """A network that was trained to multiply in a group."""

    group: Group = field(repr=False)

    @property
    def strings(self) -> tuple[str, ...]:
        """The group's elements, and ``=``."""
        return (*self.group.elements, "=")

    @property
    def notes(self) -> tuple[str, ...]:
        """What it was trained on, and how well it answers the rest."""
        card = self.card
        return (
            f"The network was trained on {card['n_train']} of its {self.group.order**2} inputs "
            f"(seed {card['seed']}, {card['epochs']} epochs) and answers {card['test_accuracy']:.2%} of the other "
            f"{card['n_test']}, which it never saw.",
        )

    def inputs(self, n: int, *, seed: int = 0) -> Int64[Tensor, "batch pos"]:
        """``n`` different inputs ``a b =`` in random order (all of them when ``n`` is that large)."""
        if n < 1:
            raise InputError(f"n must be at least 1, got {n}")
        ids, _ = pairs(self.group)
        return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))[:n]]

    def labels(self, ids: Int64[Tensor, "batch pos"]) -> dict[str, Int64[Tensor, "batch pos"]]:
        """What is known about each token: the answer and both operands, at the last position (-100 elsewhere)."""
        order = self.group.order
        if ids.shape[1] != 3 or (ids[:, :2] >= order).any() or (ids[:, 2] != order).any() or (ids < 0).any():
            raise InputError(
                f"inputs of {self.name!r} are rows 'a b =' with a, b < {order} and the id {order} for '='"
            )
        a, b = ids[:, 0], ids[:, 1]
        known = {"answer": Word(self.card.get("word", "ab")).values(self.group, a, b), "left": a, "right": b}
        return {name: last(ids, values) for name, values in known.items()}

    def task(self, n: int = 64, *, seed: int = 0) -> Task:
        """The product of ``a`` and ``b``, against that of another input with another product."""
        from interp.tasks.pairs import Pair
        from interp.tasks.task import Task

        ids = self.inputs(self.group.order**2, seed=seed)
        answers = self.labels(ids)["answer"][:, -1].tolist()
        rows = [tuple(row) for row in ids.tolist()]
        strings = self.strings
        made = []
        for i in range(min(n, len(rows))):
            other = next(
                j % len(rows) for j in range(i + 1, i + len(rows)) if answers[j % len(rows)] != answers[i]
            )
            texts = tuple(" ".join(strings[t] for t in rows[j]) for j in (i, other))
            made.append(Pair(
                clean=rows[i], corrupted=rows[other], answers=(answers[i],), wrong=(answers[other],), facts={},
                texts=(texts[0], texts[1]),
            ))  # fmt: skip
        return Task.of(
            made, name="product", measure="logit_difference", show=lambda token: strings[token],
            provenance={"source": self.name, "seed": seed, "corruption": "another input with another product"},
        )  # fmt: skip

    def _source(self, n: int) -> str:
        return f"{n} of its {self.group.order**2} inputs 'a b ='"


def names() -> tuple[str, ...]:
    """The names of the group networks that ship."""
    return tuple(f"group:{stem}" for stem in shipped_stems("[ACDFQS][0-9]*"))


def make(name: str) -> GroupNetwork:
    """The group network called ``name``."""
    module, card = shipped(name, name.removeprefix("group:"), untrained)
    return GroupNetwork(name=name, module=module, card=card, group=Group(card["group"]))
