"""Irreducible real representations: the noun, its proof, and the characters of many.

A real irrep of dimension d has an endomorphism algebra of dimension e: 1 (real type), 2 (complex), 4 (quaternionic).
Its matrix entries span a space of functions on the group of dimension d^2 / e, and these spaces, one per irrep, are
orthogonal and fill all functions: the sum of d^2 / e is the order.

References
----------
Serre, "Linear Representations of Finite Groups", chapters 2 and 13.2 (the three types).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex128, Float64, Int64
from torch import Tensor

from interp.errors import CheckError
from interp.showing import Shown
from interp.toys.groups.axioms import generating_set
from interp.toys.groups.proof import Check, Proof, concluded
from interp.toys.groups.traces import Kind, commuting, frobenius_schur

__all__ = ["Irrep", "character_table", "characters", "checks_of", "spread"]


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: the basis is computed once, when first asked for
class Irrep(Shown):
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
        j = commuting(self.matrices, antisymmetric=True)
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
        return concluded(repr(self), checks_of(self, generating_set(self.table)))

    def _facts(self) -> dict[str, Any]:
        return {"label": self.label, "dimension": self.dim, "type": self.kind}

    def __repr__(self) -> str:
        return f"Irrep({self.label!r}, dim={self.dim}, {self.kind})"


def checks_of(irrep: Irrep, generators: Sequence[int]) -> Iterator[Check]:
    """Every statement that an irrep makes about itself, and how far each is from holding."""
    rho, table, d = irrep.matrices, irrep.table, irrep.dim
    chi, e = irrep.character, irrep.endomorphism_dim
    order = len(table)

    def check(statement: str, deviation: Tensor | float) -> Check:
        return Check(statement=f"{irrep.label}: {statement}", deviation=float(deviation))

    # rho(g) rho(b) = rho(g b) for generators g and all b carries over to all products of generators
    off = [(rho[g] @ rho - rho[table[g]]).abs().max() for g in generators]
    yield check("rho(a) rho(b) = rho(ab)", torch.stack(off).max())
    eye = torch.eye(d, dtype=torch.float64)
    yield check("rho(a) is orthogonal", (rho @ rho.transpose(1, 2) - eye).abs().max())
    yield check(f"<chi, chi> = {e}", abs(float(chi.square().mean()) - e))
    indicator = {1: 1, 2: 0, 4: -2}[e]
    yield check(f"mean of chi(a^2) = {indicator}", abs(frobenius_schur(table, chi) - indicator))
    yield check(
        "chi is constant on classes",
        torch.stack([(chi[table[g]] - chi[table[:, g]]).abs().max() for g in generators]).max(),
    )
    rank = int(torch.linalg.matrix_rank(rho.flatten(1))) if order <= 1000 or e > 1 else irrep.rank
    yield check(f"its entries span d^2 / e = {irrep.rank} dimensions", abs(rank - irrep.rank))


def characters(irreps: Sequence[Irrep]) -> Float64[Tensor, "irrep element"]:
    """The characters of real irreps."""
    return torch.stack([irrep.character for irrep in irreps])


def character_table(
    irreps: Sequence[Irrep], classes: Sequence[Sequence[int]]
) -> Complex128[Tensor, "row class"]:
    """The ordinary character table, a row per complex irrep, a column per conjugacy class."""
    rows = [row for irrep in irreps for row in irrep.complex_characters()]
    return torch.stack(rows)[:, [members[0] for members in classes]]


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
