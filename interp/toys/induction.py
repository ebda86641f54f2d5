"""``interp.load("induction")``: a two-layer attention-only transformer that was trained to repeat what it has seen.

See ``train_induction.py`` for how, and ``repeats.py`` for the sequences and the scores of heads on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError
from interp.toys.collection import IGNORE, Embedded, shipped
from interp.toys.networks import Shape, Transformer
from interp.toys.repeats import period_of, repeated

__all__ = ["InductionNetwork", "make", "names"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class InductionNetwork(Embedded):
    """The trained induction network; its tokens mean nothing, so they are called by their numbers."""

    @property
    def strings(self) -> tuple[str, ...]:
        """``<s>`` and numbered tokens."""
        return ("<s>", *(f"t{token}" for token in range(1, self.card["shape"]["d_vocab"])))

    @property
    def notes(self) -> tuple[str, ...]:
        """What it was trained on, and what it has learned."""
        card = self.card
        return (
            f"The network was trained on random blocks of {card['recipe']['shortest']} to {card['recipe']['longest']} "
            f"tokens, each repeated once (seed {card['seed']}, {card['recipe']['steps']} steps). On {card['n']} "
            f"fresh sequences its loss is {card['first_copy_loss']:.2f} nats on the first copy and "
            f"{card['second_copy_loss']:.2f} on the second.",
        )

    def inputs(self, n: int, *, seed: int = 0) -> Int64[Tensor, "batch pos"]:
        """``n`` rows: ``<s>`` and a block of different tokens twice, so that every answer is determined."""
        generator = torch.Generator().manual_seed(seed)
        return repeated(
            n, self.card["recipe"]["longest"], d_vocab=len(self.strings), generator=generator, distinct=True
        )

    def labels(self, ids: Int64[Tensor, "batch pos"]) -> dict[str, Int64[Tensor, "batch pos"]]:
        """The token that must follow (in the second copy, where it is known), the token before, and which copy.

        Raises
        ------
        InputError
            The rows are no repeated sequences.
        """
        period = period_of(ids)
        answer, previous, copy = (torch.full_like(ids, IGNORE) for _ in range(3))
        answer[:, period + 1 : -1] = ids[:, period + 2 :]
        previous[:, 1:] = ids[:, :-1]
        copy[:, 1 : period + 1], copy[:, period + 1 :] = 0, 1
        return {"answer": answer, "previous": previous, "copy": copy}

    def _source(self, n: int) -> str:
        return f"{n} random sequences of its own kind, each a block of different tokens twice"


def names() -> tuple[str, ...]:
    """The one name of this family."""
    return ("induction",)


def make(name: str) -> InductionNetwork:
    """The induction network."""
    if name not in names():
        raise InputError(f"this family holds {names()}, not {name!r}")
    module, card = shipped(name, "induction", lambda card: Transformer(Shape(**card["shape"])))
    return InductionNetwork(name=name, module=module, card=card)
