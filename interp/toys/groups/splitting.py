"""Irreps of any group from its table alone: eigenspaces of random operators that commute with a representation.

The symmetric operators that commute with an orthogonal representation have, generically, one eigenspace per
irreducible part. For the regular representation such operators need no averaging: a kernel x(a^-1 b) with
x(g) = x(g^-1) commutes with left multiplication; if x is constant on classes, it commutes with both sides and its
eigenspaces are whole isotypic parts, each then cut once more.

References
----------
Dixon 1970, "Computing irreducible representations of groups".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from interp.errors import CheckError
from interp.toys.groups.irreps import Irrep
from interp.toys.groups.table import GroupTable
from interp.toys.groups.traces import commuting, kind_of

__all__ = ["Candidates", "complete", "regular_parts", "split"]

Candidates = Callable[[], Iterable[tuple[str, Tensor]]]
"""Labelled real orthogonal representations that together hold every irrep; they may be reducible or repeated."""

TRIES = 8
"""Random operators to try before giving up: two eigenvalues may fall together by chance."""


def complete(group: GroupTable, candidates: Candidates | None) -> tuple[Irrep, ...]:
    """Every irrep of ``group``, out of labelled candidates, or from its table alone.

    Raises
    ------
    CheckError
        The irreps found do not fill the functions on the group.
    """
    found: list[Irrep] = []
    filled = 0
    for label, matrices in (candidates or functools.partial(regular_parts, group))():
        pieces = split(matrices, group.table)
        for piece, mark in zip(pieces, _marks(len(pieces)), strict=True):
            character = piece.diagonal(dim1=1, dim2=2).sum(-1)
            if any(irrep.character.sub(character).abs().max() < 1e-6 for irrep in found):
                continue
            kind = kind_of(group.table, character)
            if kind is None:
                raise CheckError(f"a part of {label!r} of {group.name} is still reducible")
            found.append(Irrep(label=label + mark, kind=kind, matrices=piece, table=group.table))
            filled += found[-1].rank
        if filled == group.order:
            break
    if filled != group.order:
        raise CheckError(f"the irreps found for {group.name} fill {filled} of {group.order} dimensions")
    return tuple(_trivial_first(found))


def _trivial_first(found: Sequence[Irrep]) -> list[Irrep]:
    return sorted(found, key=lambda irrep: not bool((irrep.character - 1).abs().max() < 1e-6))


def _marks(n: int) -> list[str]:
    """What tells the parts of one candidate apart."""
    return [""] if n == 1 else ["+", "-"] if n == 2 else [f".{i + 1}" for i in range(n)]


def split(
    matrices: Float64[Tensor, "element d d"], table: Int64[Tensor, "left right"]
) -> list[Float64[Tensor, "element part part"]]:
    """The irreducible parts of an orthogonal representation (repeated ones repeatedly).

    Cost: order * d^3 for each cut; nothing where the representation is irreducible already.
    """
    if kind_of(table, matrices.diagonal(dim1=1, dim2=2).sum(-1)) is not None:
        return [matrices]
    for seed in range(TRIES):
        spaces = _eigenspaces(commuting(matrices, seed=seed))
        parts = [torch.einsum("gij,ik->gkj", matrices @ v, v) for v in spaces]
        if len(parts) > 1:
            return [piece for part in parts for piece in split(part, table)]
    raise CheckError(f"a reducible representation of dimension {matrices.shape[1]} could not be cut")


def regular_parts(group: GroupTable) -> Iterator[tuple[str, Float64[Tensor, "element d d"]]]:
    """One copy of every irrep, cut out of the regular representation; labelled by dimension and a letter."""
    for seed in range(TRIES):
        try:
            parts = sorted(_cut(group, seed), key=lambda m: (m.shape[1], -_signature(m)))
        except CheckError:
            continue
        counts: dict[int, int] = {}
        dims = [part.shape[1] for part in parts]
        for part in parts:
            d = part.shape[1]
            trivial = bool((part - 1).abs().max() < 1e-6) and d == 1
            letter = _letters(counts.get(d, 0)) if dims.count(d) > 1 else ""
            counts[d] = counts.get(d, 0) + 1
            yield "trivial" if trivial else f"{d}{letter}", part
        return
    raise CheckError(f"the regular representation of {group.name} could not be cut")


def _cut(group: GroupTable, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    difference = group.table[group.inverse]  # [a, b] -> a^-1 b

    def kernel(x: Tensor) -> Tensor:
        return (x + x[group.inverse])[difference]

    central = torch.randn(len(group.classes), dtype=torch.float64, generator=generator)[group.class_of]
    generic = kernel(torch.randn(group.order, dtype=torch.float64, generator=generator))
    parts = []
    for isotypic in _eigenspaces(kernel(central)):
        inner = _eigenspaces(isotypic.T @ generic @ isotypic)[0]
        v = isotypic @ inner  # [element, d]
        # (L(g) v)(x) = v(g^-1 x)
        matrices = torch.stack([v.T @ v[group.table[g]] for g in group.inverse.tolist()])
        if kind_of(group.table, matrices.diagonal(dim1=1, dim2=2).sum(-1)) is None:
            raise CheckError("two eigenvalues fell together")
        parts.append(matrices)
    return parts


def _eigenspaces(symmetric: Tensor) -> list[Tensor]:
    """Orthonormal bases of the eigenspaces, by ascending eigenvalue."""
    values, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
    breaks = (values.diff() > 1e-8 * values.abs().max()).nonzero()[:, 0] + 1
    return list(vectors.tensor_split(breaks.tolist(), dim=1))


def _signature(matrices: Tensor) -> float:
    """A number that orders irreps of one dimension the same way on every machine."""
    character = matrices.diagonal(dim1=1, dim2=2).sum(-1)
    return round(float((character * torch.cos(torch.arange(len(character)))).sum()), 6)


def _letters(i: int) -> str:
    return chr(97 + i) if i < 26 else _letters(i // 26 - 1) + chr(97 + i % 26)
