"""The noun: a finite group with its irreps, characters, subgroups and their proof."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from jaxtyping import Complex128, Float64, Int64
from torch import Tensor

from interp.errors import InputError, nearest
from interp.showing import Shown
from interp.toys.groups.axioms import check_table
from interp.toys.groups.families import build, generated
from interp.toys.groups.irreps import Irrep, character_table, characters
from interp.toys.groups.lattice import Subgroup, subgroups_of
from interp.toys.groups.proof import Proof
from interp.toys.groups.proving import prove
from interp.toys.groups.splitting import Candidates, complete
from interp.toys.groups.table import GroupTable

__all__ = ["Group"]


class Group(Shown, GroupTable):
    """A finite group: ``table[i, j]`` is the index of the product of elements i and j.

    Parameters
    ----------
    name
        ``C59`` cyclic, ``D15`` dihedral (order 30), ``Dic26`` dicyclic (order 104), ``Q8`` generalised quaternion (by
        order), ``S4`` symmetric, ``A5`` alternating, ``C7:C3`` semidirect, ``F21`` Frobenius (the same group),
        ``SL(2,3)``, ``PSL(2,7)`` over a prime field, and direct products of these: ``S3xC4``.

        The elements are numbered. C: the exponent; D and Dic: rotations ``r^k``, then ``r^k s``; S and A:
        permutations in lexicographic order, composed as functions, ``(p q)(i) = p(q(i))``; products: the last factor
        runs fastest. Element 0 is the identity.

    Raises
    ------
    InputError
        The name is not understood (the message says the nearest), or the group is larger than 5040.

    Examples
    --------
    >>> group = Group("S4")
    >>> group.order, group.is_abelian, [irrep.dim for irrep in group.irreps()]
    (24, False, [1, 3, 2, 3, 1])
    """

    def __init__(self, name: str) -> None:
        self._set(name, *build(name))

    def _set(
        self, name: str, elements: Sequence[str], table: Tensor, candidates: Candidates | None = None
    ) -> Group:
        super().__init__(name, elements, table)
        self._candidates = candidates
        return self

    @classmethod
    def from_table(
        cls, table: Int64[Tensor, "left right"], *, name: str = "G", elements: Sequence[str] = ()
    ) -> Group:
        """A group from its multiplication table, which is checked.

        Cost: order^2 integer operations for each element of a generating set (Light's test).

        Raises
        ------
        InputError
            The table is no group; the message names the first axiom that fails and the elements where it does.
        """
        named = tuple(elements) or tuple(str(i) for i in range(len(table)))
        check_table(table, name=name, elements=named)
        return cls.__new__(cls)._set(name, named, table.clone())

    @classmethod
    def from_permutations(cls, generators: Sequence[Sequence[int]], *, name: str = "G") -> Group:
        """The group that permutations (images of 0..n-1) generate, its elements in lexicographic order.

        Raises
        ------
        InputError
            A generator is no permutation, or the group is larger than 5040.
        """
        return cls.__new__(cls)._set(name, *generated(generators, name=name))

    def _facts(self) -> dict[str, Any]:
        return {"name": self.name, "order": self.order, "abelian": self.is_abelian}

    def __repr__(self) -> str:
        return f"Group({self.name!r}, order={self.order}{', abelian' if self.is_abelian else ''})"

    # -- representations --------------------------------------------------------------------------

    def irreps(self) -> tuple[Irrep, ...]:
        """All irreducible real representations, the trivial one first. Computed once.

        Cost: the named families have closed forms (S6: about 2 CPU seconds); any other group takes one
        eigendecomposition of an order x order matrix (PSL(2,7): 0.1 s).
        """
        return self._irreps

    @functools.cached_property
    def _irreps(self) -> tuple[Irrep, ...]:
        return complete(self, self._candidates)

    def irrep(self, label: str) -> Irrep:
        """The irrep of that label.

        Raises
        ------
        InputError
            There is none; the message says the nearest and all of them.
        """
        labels = [irrep.label for irrep in self.irreps()]
        if label not in labels:
            raise InputError(
                f"{self.name} has no irrep {label!r}{nearest(label, labels)} (irreps: {', '.join(labels)})"
            )
        return self.irreps()[labels.index(label)]

    def characters(self) -> Float64[Tensor, "irrep element"]:
        """The characters of the real irreps."""
        return characters(self.irreps())

    def character_table(self) -> Complex128[Tensor, "row class"]:
        """The ordinary (complex) character table, a row per complex irrep, a column per class of :attr:`classes`.

        A real irrep of complex type gives two conjugate rows, one of quaternionic type half its character.
        """
        return character_table(self.irreps(), self.classes)

    def subgroups(self) -> tuple[Subgroup, ...]:
        """Every subgroup, by ascending order. Computed once; S5 (156) takes a second, S6 (1455) several."""
        return self._subgroups

    @functools.cached_property
    def _subgroups(self) -> tuple[Subgroup, ...]:
        return subgroups_of(self)

    def verify(self) -> Proof:
        """Check everything said about this group from its table, and return what was checked and how exactly.

        Raises
        ------
        CheckError
            Something does not hold; the message says what.
        """
        return prove(self, self.irreps())
