"""Words as tensors: which triples of irreps (of a, of b, of the answer) a word needs, and which a network has.

The tensor of a word holds a 1 where c = w(a, b). Split by the irreps of each of its three indices, it lives on few
triples; the product itself on the diagonal alone. The fusion rule bounds the support from above: the irrep of a must
occur in as many tensor powers of the answer's irrep as a has letters in the word, and likewise for b.

References
----------
Shutman, Louidor and Tessler 2025, "Learning words in groups", section 3 (support of the word tensor).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from circuits.groups.subject import Subject
from interp.errors import InputError
from interp.showing import Shown
from interp.tables import tidy
from interp.toys import Group
from interp.toys.groups import Word

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LARGEST", "Triples", "network_triples", "word_triples"]

LARGEST = 200
"""The largest order: the work grows with its fourth power, the memory with its third (64 MB there)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Triples(Shown):
    """Shares of a tensor's squared norm by the irreps of a, b and the answer."""

    shares: Float64[Tensor, "left right answer"]
    predicted: Bool[Tensor, "left right answer"]
    """Where the fusion rule lets a triple be for this word."""
    norm: float
    """The squared norm of the tensor; of a word's own, order^2."""

    def support(self, least: float = 1e-9) -> Bool[Tensor, "left right answer"]:
        """Triples with more than ``least`` of the squared norm."""
        return self.shares > least

    @property
    def inside(self) -> float:
        """The share of the squared norm in predicted triples."""
        return float(self.shares[self.predicted].sum())

    def to_frame(self) -> pd.DataFrame:
        """A row per triple: the numbers of the irreps of a, b and the answer; its share; whether it is predicted."""
        n = range(len(self.shares))
        axes = {"left": n, "right": n, "answer": n}
        return tidy(axes, share=self.shares.numpy(), predicted=self.predicted.numpy())


def word_triples(group: Group, word: str = "ab") -> Triples:
    """The triples of a word's own tensor.

    Raises
    ------
    InputError
        The group is larger than 200.
    """
    chosen = Word(word)
    row = torch.arange(group.order)
    answers = chosen.values(group, row.repeat_interleave(group.order), row.repeat(group.order))
    return _triples(group, chosen, lambda basis: basis[answers])


def network_triples(subject: Subject) -> Triples:
    """The triples of a network's logits, each row's mean taken away, beside what its word predicts.

    Raises
    ------
    InputError
        The group is larger than 200.
    """

    def read(basis: Tensor) -> Tensor:
        blocks = []
        for a, b, _ in subject.pairs():
            logits = subject.logits_of(a, b)
            blocks.append((logits - logits.mean(1, keepdim=True)) @ basis)
        return torch.cat(blocks)

    return _triples(subject.group, subject.word, read)


def _triples(group: Group, word: Word, read: Callable[[Tensor], Tensor]) -> Triples:
    """``read`` gives the tensor times the basis of all functions of the answer [pair, function]."""
    order, irreps = group.order, group.irreps()
    if order > LARGEST:
        raise InputError(f"triples are computed up to order {LARGEST}; {group.name} has {order} elements")
    every = torch.cat([irrep.basis for irrep in irreps], 1)
    owner = torch.repeat_interleave(torch.arange(len(irreps)), torch.tensor([irrep.rank for irrep in irreps]))
    gather = torch.nn.functional.one_hot(owner).double()  # [function, irrep]
    powers = torch.zeros(len(irreps), len(irreps), len(irreps), dtype=torch.float64)
    columns = read(every).T.reshape(order, order, order)  # [function of the answer, a, b]
    for answer in range(len(irreps)):
        squares = (every.T @ columns[owner == answer] @ every).square().sum(0)
        powers[:, :, answer] = gather.T @ squares @ gather
    norm = float(powers.sum())
    return Triples(shares=powers / norm, predicted=fusion(group, word), norm=norm)


def fusion(group: Group, word: Word) -> Tensor:
    """Triples in which each operand's irrep occurs in the right tensor power of the answer's."""
    chi = group.characters()
    sides = []
    for letter in "ab":
        powers = chi ** word.occurrences(letter)
        sides.append((chi @ powers.T / group.order) > 1e-9)  # [operand, answer]
    return sides[0][:, None, :] & sides[1][None, :, :]
