"""All subgroups of a group, and their cosets.

From the trivial subgroup upwards: every subgroup is reached by adding one cyclic subgroup of prime-power order at a
time, and it is enough to do so from one subgroup of each conjugacy class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.showing import Shown
from interp.toys.groups.axioms import span
from interp.toys.groups.table import GroupTable

__all__ = ["Subgroup", "subgroups_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subgroup(Shown):
    """A subgroup, by the indices of its elements."""

    members: Int64[Tensor, " member"]
    table: Int64[Tensor, "left right"]
    """The table of the whole group."""
    conjugates: int
    """The number of its conjugacy class among the classes of subgroups, in the order they are listed."""
    normal: bool

    @property
    def order(self) -> int:
        """How many elements it has."""
        return len(self.members)

    @property
    def index(self) -> int:
        """How many cosets it has."""
        return len(self.table) // self.order

    def left_cosets(self) -> Int64[Tensor, " element"]:
        """The number of the coset gH that each element lies in."""
        return _numbered(self.table[:, self.members].amin(1))

    def right_cosets(self) -> Int64[Tensor, " element"]:
        """The number of the coset Hg that each element lies in."""
        return _numbered(self.table[self.members].amin(0))

    def _facts(self) -> dict[str, Any]:
        return {"order": self.order, "index": self.index, "normal": self.normal, "class": self.conjugates}

    def __repr__(self) -> str:
        return f"Subgroup(order={self.order}, index={self.index}{', normal' if self.normal else ''})"


def _numbered(least: Tensor) -> Tensor:
    return torch.unique(least, return_inverse=True)[1]


def subgroups_of(group: GroupTable) -> tuple[Subgroup, ...]:
    """Every subgroup, by ascending order, conjugate ones side by side."""
    table, everything = group.table, range(group.order)
    conjugation = table[table, group.inverse[:, None]]  # [g, x] -> g x g^-1
    steps = list(_prime_power_spans(group))
    trivial = 1 << group.identity
    known: dict[int, tuple[int, bool]] = {}  # bits -> class, normal
    pending, count = [trivial], 0
    while pending:
        bits = pending.pop()
        if bits in known:
            continue
        members = torch.tensor(_indices(bits))
        images = conjugation[:, members].sort(1).values.unique(dim=0)
        conjugates = {_bits(row) for row in images.tolist()}
        known |= {image: (count, len(conjugates) == 1) for image in conjugates}
        count += 1
        stabiliser = [g for g in everything if _bits(conjugation[g, members].tolist()) == bits]
        tried: set[int] = set()
        for generator, cyclic in steps:
            if cyclic & bits == cyclic or cyclic in tried:
                continue
            # steps that the normaliser carries into one another give conjugate subgroups
            tried |= {_bits(row) for row in conjugation[stabiliser][:, _indices(cyclic)].tolist()}
            joined = span(table, [*members.tolist(), generator])
            joined_bits = _bits(joined.tolist())
            if joined_bits not in known:
                pending.append(joined_bits)
    listed = sorted(known.items(), key=lambda item: (item[0].bit_count(), item[1][0], item[0]))
    numbers: dict[int, int] = {}
    return tuple(
        Subgroup(
            members=torch.tensor(_indices(bits)),
            table=table,
            conjugates=numbers.setdefault(number, len(numbers)),
            normal=normal,
        )
        for bits, (number, normal) in listed
    )


def _prime_power_spans(group: GroupTable) -> Iterator[tuple[int, int]]:
    """One generator, and the elements as bits, of every cyclic subgroup of prime-power order."""
    seen = set()
    for g, order in enumerate(group.element_orders.tolist()):
        p = next((q for q in range(2, order + 1) if order % q == 0), 0)
        while p and order % p == 0:
            order //= p
        if not p or order != 1:
            continue
        bits = _bits(span(group.table, [g]).tolist())
        if bits not in seen:
            seen.add(bits)
            yield g, bits


def _bits(indices: list[int]) -> int:
    total = 0
    for i in indices:
        total |= 1 << i
    return total


def _indices(bits: int) -> list[int]:
    return [i for i in range(bits.bit_length()) if bits >> i & 1]
