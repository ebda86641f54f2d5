"""Everything said about a group checked from its table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from interp.toys.groups.axioms import check_table
from interp.toys.groups.irreps import Irrep, character_table, characters, checks_of
from interp.toys.groups.proof import Check, Proof, concluded
from interp.toys.groups.table import GroupTable

__all__ = ["prove"]


def prove(group: GroupTable, irreps: Sequence[Irrep]) -> Proof:
    """Latin square, associativity, and that the irreps are irreducible, different, and all there are.

    Cost: order^2 per generator for associativity; for each irrep order * generators * d^3; one order x order product.
    """
    check_table(group.table, name=group.name, elements=group.elements)
    checks = [Check(statement="the table is a Latin square with an identity, and associative", deviation=0.0)]
    for irrep in irreps:
        checks += checks_of(irrep, group.generators)
    checks += _joint_checks(group, irreps)
    return concluded(repr(group), checks)


def _joint_checks(group: GroupTable, irreps: Sequence[Irrep]) -> Iterator[Check]:
    chi = characters(irreps)
    gram = chi @ chi.T / group.order
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
    table = character_table(irreps, group.classes)
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
