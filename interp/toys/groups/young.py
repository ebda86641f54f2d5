"""Young's orthogonal form: the irreps of the symmetric groups, one per partition, in exact closed form.

The basis of a partition's irrep are its standard tableaux. The transposition of i and i+1 keeps a tableau with weight
1/r and exchanges it with the one where i and i+1 have changed places with weight sqrt(1 - 1/r^2), where r is the
axial distance from i to i+1 (content of i+1 minus content of i).

References
----------
James and Kerber 1981, "The Representation Theory of the Symmetric Group", 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

__all__ = ["partitions", "transpositions"]

Tableau = tuple[tuple[int, int], ...]
"""The (row, column) of each number 0, 1, ... in turn."""


def partitions(n: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """The partitions of n, in reverse lexicographic order."""
    if n == 0:
        yield ()
        return
    for first in range(min(n, largest or n), 0, -1):
        for rest in partitions(n - first, first):
            yield (first, *rest)


def _tableaux(shape: tuple[int, ...]) -> list[Tableau]:
    """The standard tableaux of a shape: the last number sits in a corner, the others form a smaller tableau."""
    if sum(shape) == 0:
        return [()]
    found = []
    for row, length in enumerate(shape):
        if length > 0 and (row + 1 == len(shape) or shape[row + 1] < length):
            smaller = (*shape[:row], length - 1, *shape[row + 1 :])
            found += [(*tableau, (row, length - 1)) for tableau in _tableaux(smaller)]
    return found


def transpositions(shape: tuple[int, ...]) -> Float64[Tensor, "generator d d"]:
    """The matrices of the transpositions (0 1), (1 2), ... in the irrep of ``shape``."""
    basis = _tableaux(shape)
    place = {tableau: i for i, tableau in enumerate(basis)}
    n, d = sum(shape), len(basis)
    images = torch.zeros(n - 1, d, d, dtype=torch.float64)
    for i in range(n - 1):
        for k, tableau in enumerate(basis):
            (row, column), (row2, column2) = tableau[i], tableau[i + 1]
            r = (column2 - row2) - (column - row)
            images[i, k, k] = 1 / r
            other = place.get((*tableau[:i], tableau[i + 1], tableau[i], *tableau[i + 2 :]))
            if other is not None:
                images[i, other, k] = (1 - 1 / r**2) ** 0.5
    return images
