"""The trained group networks among the embedded ones: ``group:C59``, ``group:S5`` ...; see ``train_group.py``."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError
from interp.toys.collection import Embedded, last, shipped, shipped_stems
from interp.toys.groups import Group
from interp.toys.groups.words import Word
from interp.toys.train_group import pairs
from interp.toys.training_runs import untrained

__all__ = ["GroupNetwork", "make", "names"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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

    def _source(self, n: int) -> str:
        return f"{n} of its {self.group.order**2} inputs 'a b ='"


def names() -> tuple[str, ...]:
    """The names of the group networks that ship."""
    return tuple(f"group:{stem}" for stem in shipped_stems("[ACDFQS][0-9]*"))


def make(name: str) -> GroupNetwork:
    """The group network called ``name``."""
    module, card = shipped(name, name.removeprefix("group:"), untrained)
    return GroupNetwork(name=name, module=module, card=card, group=Group(card["group"]))
