"""Words in two letters: ``ab``, ``aba^-1``, ``a^2b``, ``[a,b]``, and their values in a group."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError

if TYPE_CHECKING:
    from interp.toys.groups.group import Group

__all__ = ["Word"]


@dataclass(frozen=True, slots=True)
class Word:
    """A word such as ``"aba^-1"``: letters a, b with powers; ``[u,v]`` stands for u v u^-1 v^-1.

    Raises
    ------
    InputError
        The text is no such word.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.letters:
            raise InputError(f"the word {self.text!r} is empty")

    @property
    def letters(self) -> tuple[tuple[str, int], ...]:
        """Each letter with its power, from left to right."""
        text = self.text.replace(" ", "").replace("**", "^")
        expanded = re.sub(r"\[([ab])\,([ab])\]", r"\1\2\1^-1\2^-1", text)
        pieces = re.findall(r"([ab])(?:\^(-?[0-9]{1,3}))?", expanded)
        rebuilt = "".join(letter + (f"^{power}" if power else "") for letter, power in pieces)
        if rebuilt != expanded:
            raise InputError(
                f"{self.text!r} is no word: letters a and b, powers such as a^-1 or b^2, commutators [a,b]"
            )
        return tuple((letter, int(power or 1)) for letter, power in pieces)

    def occurrences(self, letter: str) -> int:
        """How often a letter occurs, powers and inverses counted."""
        return sum(abs(power) for name, power in self.letters if name == letter)

    def values(
        self, group: Group, a: Int64[Tensor, " sample"], b: Int64[Tensor, " sample"]
    ) -> Int64[Tensor, " sample"]:
        """The index of w(a, b) for each pair of element indices."""
        out = torch.full_like(a, group.identity)
        for letter, power in self.letters:
            x = a if letter == "a" else b
            x = group.inverse.to(x.device)[x] if power < 0 else x
            for _ in range(abs(power)):
                out = group.table.to(x.device)[out, x]
        return out
