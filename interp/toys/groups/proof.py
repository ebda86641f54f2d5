"""The proof of a group: every statement about it checked from its table, with how exactly each holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.errors import CheckError
from interp.toys.groups.axioms import check_table, generating_set
from interp.toys.groups.irreps import frobenius_schur

if TYPE_CHECKING:
    import pandas as pd

    from interp.toys.groups.group import Group
    from interp.toys.groups.irreps import Irrep

__all__ = ["Check", "Proof", "prove", "prove_irrep"]

TOLERANCE = 1e-8
"""Products of up to a hundred float64 matrices stay a thousand times closer than this."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Check:
    """One statement and how far it is from holding."""

    statement: str
    deviation: float
    tolerance: float = TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether the deviation is within the tolerance (never where it is not a number)."""
        return self.deviation <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proof:
    """What was checked, all of which holds."""

    subject: str
    checks: tuple[Check, ...]

    @property
    def worst(self) -> float:
        """The largest deviation of any check."""
        return max(check.deviation for check in self.checks)

    def to_frame(self) -> pd.DataFrame:
        """A row per check."""
        import pandas as pd

        return pd.DataFrame(
            [(c.statement, c.deviation, c.tolerance, c.holds) for c in self.checks],
            columns=["statement", "deviation", "tolerance", "holds"],
        )

    def __repr__(self) -> str:
        return f"Proof({self.subject}: {len(self.checks)} checks hold, worst deviation {self.worst:.1e})"


def prove(group: Group) -> Proof:
    """Latin square, associativity, and that the irreps are irreducible, different, and all there are.

    Cost: order^2 per generator for associativity; for each irrep order * generators * d^3; one order x order product.
    """
    check_table(group.table, name=group.name, elements=group.elements)
    checks = [Check(statement="the table is a Latin square with an identity, and associative", deviation=0.0)]
    for irrep in group.irreps():
        checks += _irrep_checks(irrep, group.generators)
    checks += _joint_checks(group)
    return _proof(repr(group), checks)


def prove_irrep(irrep: Irrep) -> Proof:
    """That one irrep is what it says."""
    return _proof(repr(irrep), list(_irrep_checks(irrep, generating_set(irrep.table))))


def _proof(subject: str, checks: list[Check]) -> Proof:
    broken = [check for check in checks if not check.holds]
    if broken:
        first = broken[0]
        raise CheckError(
            f"{subject}: {len(broken)} of {len(checks)} checks fail, first: {first.statement} "
            f"(off by {first.deviation:.3g}, allowed {first.tolerance:.0e})"
        )
    return Proof(subject=subject, checks=tuple(checks))


def _irrep_checks(irrep: Irrep, generators: Sequence[int]) -> Iterator[Check]:
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


def _joint_checks(group: Group) -> Iterator[Check]:
    irreps = group.irreps()
    gram = group.characters() @ group.characters().T / group.order
    yield Check(
        statement="different irreps have orthogonal characters",
        deviation=float((gram - gram.diagonal().diag()).abs().max()),
    )
    filled = sum(irrep.rank for irrep in irreps)
    yield Check(statement=f"the sum of d^2 / e is {group.order}", deviation=float(abs(filled - group.order)))
    # real irreps are as many as classes when a class and that of its inverses count once
    pairs = {
        tuple(sorted((int(group.class_of[c[0]]), int(group.class_of[group.inverse[c[0]]]))))
        for c in group.classes
    }
    yield Check(
        statement=f"there are as many real irreps as classes up to inversion, {len(pairs)}",
        deviation=float(abs(len(pairs) - len(irreps))),
    )
    table = group.character_table()
    yield Check(
        statement=f"there are as many complex irreps as classes, {len(group.classes)}",
        deviation=float(abs(len(table) - len(group.classes))),
    )
    sizes = torch.tensor([len(c) for c in group.classes], dtype=torch.float64)
    inner = (table * sizes) @ table.conj().T / group.order
    yield Check(
        statement="complex characters are orthonormal",
        deviation=float((inner - torch.eye(len(inner))).abs().max()),
    )
    stacked = torch.cat([irrep.basis for irrep in irreps], 1)
    yield Check(
        statement="the bases of all irreps together are orthonormal and fill the functions on the group",
        deviation=float((stacked.T @ stacked - torch.eye(group.order)).abs().max()),
    )
