"""Irreducible real representations: the noun, and how a complete set is gathered from candidates.

A real irrep of dimension d has an endomorphism algebra of dimension e: 1 (real type), 2 (complex), 4 (quaternionic).
Its matrix entries span a space of functions on the group of dimension d^2 / e, and these spaces, one per irrep, are
orthogonal and fill all functions: the sum of d^2 / e is the order.

References
----------
Serre, "Linear Representations of Finite Groups", chapters 2 and 13.2 (the three types).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Complex128, Float64, Int64
from torch import Tensor

from interp.errors import CheckError

if TYPE_CHECKING:
    from interp.toys.groups.group import Group
    from interp.toys.groups.proof import Proof

__all__ = ["Irrep", "complete", "frobenius_schur", "kind_of", "spread"]

Kind = Literal["real", "complex", "quaternionic"]
_KINDS: dict[tuple[int, int], Kind] = {(1, 1): "real", (2, 0): "complex", (4, -2): "quaternionic"}
"""By <chi, chi> and the Frobenius-Schur sum of a real representation; every other pair is reducible."""


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: the basis is computed once, when first asked for
class Irrep:
    """An irreducible real representation by orthogonal matrices."""

    label: str
    kind: Kind
    matrices: Float64[Tensor, "element d d"]
    table: Int64[Tensor, "left right"]
    """The multiplication table that the matrices represent."""

    @property
    def dim(self) -> int:
        """The size d of the matrices."""
        return self.matrices.shape[1]

    @property
    def endomorphism_dim(self) -> int:
        """How many independent matrices commute with all of these: 1, 2 or 4 by type."""
        return {"real": 1, "complex": 2, "quaternionic": 4}[self.kind]

    @property
    def rank(self) -> int:
        """The dimension d^2 / e of the space of functions that the matrix entries span."""
        return self.dim**2 // self.endomorphism_dim

    @functools.cached_property
    def character(self) -> Float64[Tensor, " element"]:
        """The trace of each matrix."""
        return self.matrices.diagonal(dim1=1, dim2=2).sum(-1)

    @functools.cached_property
    def basis(self) -> Float64[Tensor, "element function"]:
        """An orthonormal basis of the functions that the matrix entries span, ``rank`` columns.

        For the real type the entries themselves, scaled by sqrt(d / order) (Schur); else left singular vectors, all
        of one singular value.
        """
        flat = self.matrices.flatten(1)
        if self.kind == "real":
            return flat * (self.dim / len(flat)) ** 0.5
        return torch.linalg.svd(flat, full_matrices=False).U[:, : self.rank]

    def complex_characters(self) -> tuple[Complex128[Tensor, " element"], ...]:
        """The characters of the complex irreps inside: one, or a conjugate pair for the complex type."""
        if self.kind == "real":
            return (self.character.to(torch.complex128),)
        if self.kind == "quaternionic":
            return (self.character.to(torch.complex128) / 2,)
        # J commutes with every matrix and J^2 = -1: it acts as i and -i on the two halves.
        j = _averaged(self.matrices, antisymmetric=True)
        j = j / (-(j @ j).diagonal().mean()).sqrt()
        imaginary = torch.einsum("gij,ji->g", self.matrices, j)
        half = torch.complex(self.character, imaginary) / 2
        return half, half.conj().resolve_conj()

    def verify(self) -> Proof:
        """Check that this is an irreducible orthogonal representation of its table, of the type it claims.

        Raises
        ------
        CheckError
            It is not.
        """
        from interp.toys.groups.proof import prove_irrep

        return prove_irrep(self)

    def __repr__(self) -> str:
        return f"Irrep({self.label!r}, dim={self.dim}, {self.kind})"


def spread(table: Int64[Tensor, "left right"], images: dict[int, Tensor]) -> Float64[Tensor, "element d d"]:
    """The matrices of all elements from those of generators, by breadth-first products from the identity."""
    order, d = len(table), next(iter(images.values())).shape[0]
    matrices = torch.zeros(order, d, d, dtype=torch.float64)
    identity = int((table.diagonal() == torch.arange(order)).nonzero()[0, 0])
    matrices[identity] = torch.eye(d, dtype=torch.float64)
    known = torch.zeros(order, dtype=torch.bool)
    known[identity] = True
    frontier = torch.tensor([identity])
    while len(frontier):
        found = []
        for generator, image in images.items():
            product = table[frontier, generator]
            new = ~known[product]
            # one flat product: batches of small matrices are slow
            matrices[product[new]] = (matrices[frontier[new]].reshape(-1, d) @ image).view(-1, d, d)
            known[product[new]] = True
            found.append(product[new])
        frontier = torch.cat(found)
    if not known.all():
        raise CheckError(f"the generators {list(images)} reach {int(known.sum())} of {order} elements")
    return matrices


def frobenius_schur(table: Tensor, character: Tensor) -> float:
    """The mean of chi(g^2): 1, 0, -1 for a complex irrep; 1, 0, -2 for a real one by type."""
    return float(character[table.diagonal()].mean())


def kind_of(table: Tensor, character: Tensor) -> Kind | None:
    """The type of a real representation with this character, None where it is reducible."""
    norm, indicator = float(character.square().mean()), frobenius_schur(table, character)
    if abs(norm - round(norm)) + abs(indicator - round(indicator)) > 1e-6:
        raise CheckError(f"no character: <chi, chi> = {norm:.6g}, Frobenius-Schur sum {indicator:.6g}")
    return _KINDS.get((round(norm), round(indicator)))


def complete(
    group: Group, candidates: Callable[[], Iterable[tuple[str, Tensor]]] | None
) -> tuple[Irrep, ...]:
    """Every irrep of ``group``, out of labelled candidates, or from its table alone.

    Raises
    ------
    CheckError
        The irreps found do not fill the functions on the group.
    """
    from interp.toys.groups.splitting import regular_parts, split

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


def _averaged(matrices: Tensor, *, antisymmetric: bool = False, seed: int = 0) -> Tensor:
    """A random operator that commutes with ``matrices``, symmetric or antisymmetric."""
    d = matrices.shape[1]
    x = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = x - x.T if antisymmetric else x + x.T
    sides = matrices.transpose(0, 1)  # [d, element, d]
    return (sides @ x).reshape(d, -1) @ sides.reshape(d, -1).T / len(matrices)
