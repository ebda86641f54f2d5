"""A finite group as its multiplication table, and what follows from the table alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError, nearest
from interp.toys.groups.axioms import generating_set

__all__ = ["GroupTable"]


class GroupTable:
    """``table[i, j]`` is the index of the product of elements i and j; that it is a group is taken on trust here."""

    name: str
    order: int
    elements: tuple[str, ...]
    table: Int64[Tensor, "left right"]

    def __init__(self, name: str, elements: Sequence[str], table: Tensor) -> None:
        self.name, self.elements, self.table = name, tuple(elements), table
        self.order = len(self.elements)

    def __len__(self) -> int:
        return self.order

    # -- elements ---------------------------------------------------------------------------------

    @functools.cached_property
    def identity(self) -> int:
        """The index of the identity element."""
        return int((self.table.diagonal() == torch.arange(self.order)).nonzero()[0, 0])

    @functools.cached_property
    def inverse(self) -> Int64[Tensor, " element"]:
        """The index of each element's inverse."""
        return (self.table == self.identity).int().argmax(1)

    @functools.cached_property
    def is_abelian(self) -> bool:
        """Whether every two elements commute."""
        return torch.equal(self.table, self.table.T)

    @functools.cached_property
    def generators(self) -> tuple[int, ...]:
        """A small generating set, found greedily."""
        return generating_set(self.table)

    @functools.cached_property
    def element_orders(self) -> Int64[Tensor, " element"]:
        """The order of each element."""
        row = torch.arange(self.order)
        power, orders = row.clone(), torch.ones(self.order, dtype=torch.int64)
        while (power != self.identity).any():
            orders += power != self.identity
            power = torch.where(power == self.identity, power, self.table[power, row])
        return orders

    def index(self, element: str) -> int:
        """The index of an element by its name.

        Raises
        ------
        InputError
            No element has that name; the message says the nearest.
        """
        if element not in self.elements:
            raise InputError(f"{self.name} has no element {element!r}{nearest(element, self.elements)}")
        return self.elements.index(element)

    # -- structure --------------------------------------------------------------------------------

    @functools.cached_property
    def class_of(self) -> Int64[Tensor, " element"]:
        """The conjugacy class of each element, numbered by first appearance."""
        found = torch.full((self.order,), -1)
        count = 0
        for x in range(self.order):
            if found[x] < 0:
                found[self.table[self.table[:, x], self.inverse]] = count
                count += 1
        return found

    @functools.cached_property
    def classes(self) -> tuple[tuple[int, ...], ...]:
        """The conjugacy classes as element indices."""
        return tuple(
            tuple((self.class_of == c).nonzero()[:, 0].tolist()) for c in range(int(self.class_of.max()) + 1)
        )
