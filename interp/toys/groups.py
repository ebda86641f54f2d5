"""Finite groups as multiplication tables: cyclic, dihedral and symmetric ones by name, any other from its table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError

__all__ = ["Group"]

LARGEST = 5040
"""The largest order a name may ask for: its table takes 200 MB."""


class Group:
    """A finite group: ``table[i, j]`` is the index of the product of elements i and j.

    Parameters
    ----------
    name
        ``"C59"`` (cyclic), ``"D15"`` (dihedral, order 30) or ``"S4"`` (symmetric, order 24). The elements are
        numbered: ``C``: the exponent; ``D``: rotations ``r^k``, then reflections ``r^k s``; ``S``: permutations
        in lexicographic order, composed as functions, ``(p q)(i) = p(q(i))``. Element 0 is the identity.

    Raises
    ------
    InputError
        The name is not understood, or the group is larger than 5040.

    Examples
    --------
    >>> group = Group("S4")
    >>> group.order, group.is_abelian
    (24, False)
    """

    name: str
    order: int
    elements: tuple[str, ...]
    table: Int64[Tensor, "left right"]

    def __init__(self, name: str) -> None:
        match = re.fullmatch(r"([CDS])([1-9][0-9]{0,4})", name)
        if match is None:
            raise InputError(f"unknown group {name!r}: give C<n>, D<n> or S<n>, such as 'C59', 'D15', 'S4'")
        family, n = match[1], int(match[2])
        self.name = name
        self.elements, self.table = _FAMILIES[family](name, n)
        self.order = len(self.elements)

    @classmethod
    def from_table(
        cls, table: Int64[Tensor, "left right"], *, name: str = "G", elements: Sequence[str] = ()
    ) -> Group:
        """A group from its multiplication table; the table is checked (cost: order^3 integer operations).

        Raises
        ------
        InputError
            The table is not a Latin square with an identity, or the product is not associative.
        """
        order = table.shape[0]
        if table.shape != (order, order) or order == 0:
            raise InputError(
                f"a multiplication table is square and not empty, got shape {tuple(table.shape)}"
            )
        row = torch.arange(order)
        every = row.expand(order, order)
        if not (torch.equal(table.sort(0).values, every.T) and torch.equal(table.sort(1).values, every)):
            raise InputError(
                f"the table of {name!r} is no Latin square: each row and column holds 0..{order - 1} once"
            )
        if not any(torch.equal(table[e], row) and torch.equal(table[:, e], row) for e in range(order)):
            raise InputError(f"the table of {name!r} has no identity element")
        for a in range(order):
            if not torch.equal(table[table[a]], table[a][table]):
                raise InputError(f"the product of {name!r} is not associative at left element {a}")
        group = cls.__new__(cls)
        group.name, group.order, group.table = name, order, table.clone()
        group.elements = tuple(elements) or tuple(str(i) for i in range(order))
        return group

    @property
    def identity(self) -> int:
        """The index of the identity element."""
        return int((self.table.diagonal() == torch.arange(self.order)).nonzero()[0, 0])

    @property
    def is_abelian(self) -> bool:
        """Whether every two elements commute."""
        return torch.equal(self.table, self.table.T)

    def __len__(self) -> int:
        return self.order

    def __repr__(self) -> str:
        return f"Group({self.name!r}, order={self.order}{', abelian' if self.is_abelian else ''})"


def _checked(name: str, order: int) -> None:
    if order > LARGEST:
        raise InputError(f"{name} has {order} elements; tables are made up to order {LARGEST}")


def _from_product(
    elements: Sequence[Hashable], product: Callable[[Any, Any], Hashable]
) -> Int64[Tensor, "left right"]:
    index = {element: i for i, element in enumerate(elements)}
    return torch.tensor([[index[product(x, y)] for y in elements] for x in elements], dtype=torch.int64)


def _cyclic(name: str, n: int) -> tuple[tuple[str, ...], Tensor]:
    _checked(name, n)
    row = torch.arange(n)
    return tuple(str(k) for k in range(n)), (row[:, None] + row) % n


def _dihedral(name: str, n: int) -> tuple[tuple[str, ...], Tensor]:
    _checked(name, 2 * n)
    # (k, e) stands for r^k s^e, and s r = r^-1 s.
    pairs = [(k, e) for e in (0, 1) for k in range(n)]
    table = _from_product(pairs, lambda x, y: ((x[0] + (-y[0] if x[1] else y[0])) % n, x[1] ^ y[1]))
    return tuple(f"r{k}{'s' * e}" for k, e in pairs), table


def _symmetric(name: str, n: int) -> tuple[tuple[str, ...], Tensor]:
    if n > 7:
        raise InputError(f"{name} has {n}! elements; tables are made up to order {LARGEST}")
    elements = list(itertools.permutations(range(n)))
    table = _from_product(elements, lambda p, q: tuple(p[i] for i in q))
    return tuple("".join(str(i) for i in p) for p in elements), table


_FAMILIES = {"C": _cyclic, "D": _dihedral, "S": _symmetric}
