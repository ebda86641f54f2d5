"""Whether a table is a group, and if not, which axiom fails first and where."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError

__all__ = ["check_table", "generating_set", "span"]


def span(table: Int64[Tensor, "left right"], generators: Sequence[int]) -> Int64[Tensor, " element"]:
    """All products ``((g1 g2) g3) ...`` of the generators, sorted."""
    reached = torch.zeros(len(table), dtype=torch.bool)
    frontier = torch.tensor(list(generators), dtype=torch.int64).unique()
    step = frontier
    while len(frontier):
        reached[frontier] = True
        products = table[frontier][:, step].unique()
        frontier = products[~reached[products]]
    return reached.nonzero()[:, 0]


def generating_set(table: Int64[Tensor, "left right"]) -> tuple[int, ...]:
    """Elements whose products reach every element; each new one is the first that the others do not reach."""
    order = len(table)
    # the cyclic spans first: an element that reaches many spares others
    chosen: list[int] = []
    reached = torch.zeros(order, dtype=torch.bool)
    while not reached.all():
        missing = (~reached).nonzero()[:, 0].tolist()
        trial = missing if len(missing) <= 8 else missing[:4] + missing[-4:]
        best = max(trial, key=lambda g: len(span(table, [*chosen, g])))
        chosen.append(best)
        reached[span(table, chosen)] = True
    return tuple(chosen)


def check_table(table: Int64[Tensor, "left right"], *, name: str, elements: Sequence[str]) -> None:
    """Raise unless ``table`` is a group's.

    Associativity is checked by Light's test: ``(a g) b = a (g b)`` for all a, b and each g of a generating set
    implies it for every g, since the elements that satisfy it are closed under products.

    Raises
    ------
    InputError
        With the first axiom that fails, and the elements where it does.
    """
    order = len(table)
    if table.shape != (order, order) or order == 0:
        raise InputError(f"a multiplication table is square and not empty, got shape {tuple(table.shape)}")
    if len(elements) != order or len(set(elements)) != order:
        raise InputError(f"{name!r} has {order} elements; {len(set(elements))} different names were given")
    outside = ((table < 0) | (table >= order)).nonzero()
    if len(outside):
        a, b = outside[0].tolist()
        raise InputError(
            f"the table of {name!r} is not closed: {elements[a]} * {elements[b]} is {int(table[a, b])}, "
            f"not one of 0..{order - 1}"
        )
    row = torch.arange(order)
    for axis, word in ((1, "row"), (0, "column")):
        wrong = (table.sort(axis).values != (row if axis else row[:, None])).any(axis).nonzero()
        if len(wrong):
            at = int(wrong[0, 0])
            line = table[at] if axis else table[:, at]
            twice = int((torch.bincount(line, minlength=order) > 1).int().argmax())
            first, second = (line == twice).nonzero()[:2, 0].tolist()
            raise InputError(
                f"the table of {name!r} is no Latin square: {word} {elements[at]} holds {elements[twice]} twice, "
                f"at {elements[first]} and {elements[second]}"
            )
    identities = ((table == row).all(1) & (table == row[:, None]).all(0)).nonzero()
    if not len(identities):
        raise InputError(
            f"the table of {name!r} has no identity element: no e with e x = x e = x for every x"
        )
    _check_associative(table, name, elements)


def _check_associative(table: Tensor, name: str, elements: Sequence[str]) -> None:
    for g in generating_set(table):
        # (a g) b  against  a (g b)
        wrong = (table[table[:, g]] != table[:, table[g]]).nonzero()
        if len(wrong):
            a, b = wrong[0].tolist()
            left, right = int(table[table[a, g], b]), int(table[a, table[g, b]])
            x, y, z = elements[a], elements[g], elements[b]
            raise InputError(
                f"the product of {name!r} is not associative: ({x} * {y}) * {z} = {elements[left]}, "
                f"but {x} * ({y} * {z}) = {elements[right]}"
            )
