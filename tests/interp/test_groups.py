"""Finite groups: their proofs, and what the literature says about their irreps, characters and subgroups."""

from __future__ import annotations

import math
import re
import time

import pytest
import torch

from interp.errors import CheckError, InputError
from interp.toys import Group
from interp.toys.groups.irreps import Irrep
from interp.toys.groups.splitting import complete
from interp.toys.groups.words import Word
from interp.toys.groups.young import partitions, transpositions

F21 = [(1, 2, 3, 4, 5, 6, 0), (0, 2, 4, 6, 1, 3, 5)]
SL23 = [(3, 0, 1, 2, 7, 4, 5, 6), (4, 7, 6, 5, 2, 1, 0, 3), (0, 4, 2, 6, 5, 1, 7, 3)]
PSL27 = [(1, 2, 3, 4, 5, 6, 0, 7), (7, 6, 3, 2, 5, 4, 1, 0)]  # x + 1 and -1/x on the projective line over F_7

NAMED = (
    *("C7", "C113", "C118", "D5", "D6", "D59", "Dic26", "Q8", "S3", "S4", "S5", "S6", "A4", "A5", "A6"),
    *("C3xC5", "S3xC4", "Q8xC3", "F21", "SL(2,3)", "PSL(2,7)"),
    *("C1", "C2", "D1", "D2", "D52", "Dic3", "Q16", "S1", "S2", "A3", "C2xC2xC2", "Q8xQ8", "F20"),
)

DIMS = {  # real irreps by dimension and type, from the published character tables
    "Q8": "1r 1r 1r 1r 4q",
    "S4": "1r 1r 2r 3r 3r",
    "S5": "1r 1r 4r 4r 5r 5r 6r",
    "S6": "1r 1r 5r 5r 5r 5r 9r 9r 10r 10r 16r",
    "A4": "1r 2c 3r",
    "A5": "1r 3r 3r 4r 5r",
    "A6": "1r 5r 5r 8r 8r 9r 10r",
    "F21": "1r 2c 6c",
    "SL(2,3)": "1r 2c 3r 4q 4c",
    "PSL(2,7)": "1r 6c 6r 7r 8r",
    "Dic3": "1r 1r 2c 2r 4q",
}


@pytest.mark.parametrize("name", NAMED)
def test_a_named_group_proves_itself(name: str) -> None:
    group = Group(name)
    proof = group.verify()
    assert len(proof.checks) == len(proof.to_frame()) == 6 * len(group.irreps()) + 7
    assert proof.worst < 1e-12
    assert sum(irrep.rank for irrep in group.irreps()) == group.order
    assert group.irreps()[0].label == "trivial"
    labels = [irrep.label for irrep in group.irreps()]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", DIMS)
def test_dimensions_and_types_are_the_published_ones(name: str) -> None:
    found = sorted(
        (irrep.dim, irrep.kind[0] if irrep.kind != "complex" else "c") for irrep in Group(name).irreps()
    )
    published = sorted((int(word[:-1]), word[-1]) for word in DIMS[name].split())
    assert found == published


@pytest.mark.parametrize(
    ("generators", "name", "order"), [(F21, "F21", 21), (SL23, "SL(2,3)", 24), (PSL27, "PSL(2,7)", 168)]
)
def test_a_group_from_permutations_has_the_irreps_of_the_one_from_its_name(
    generators: list, name: str, order: int
) -> None:
    made, named = Group.from_permutations(generators, name="made"), Group(name)
    assert made.order == named.order == order
    made.verify()
    kinds = lambda group: sorted((irrep.dim, irrep.kind) for irrep in group.irreps())  # noqa: E731
    assert kinds(made) == kinds(named)
    assert sorted(made.element_orders.tolist()) == sorted(named.element_orders.tolist())


def test_an_irrep_that_is_none_is_refused() -> None:
    rotation = lambda t: torch.tensor([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]])  # noqa: E731
    table = Group("C5").table
    # an angle that does not close after five turns: what a wrong constant does to published A5 matrices
    matrices = torch.stack([rotation(1.26 * k) for k in range(5)]).double()
    with pytest.raises(CheckError, match=r"rho\(a\) rho\(b\) = rho\(ab\)"):
        Irrep(label="bad", kind="complex", matrices=matrices, table=table).verify()
    doubled = Group("S3").irreps()[1].matrices
    twice = torch.stack([torch.block_diag(m, m) for m in doubled])
    with pytest.raises(CheckError, match="<chi, chi> = 1"):
        Irrep(label="twice", kind="real", matrices=twice, table=Group("S3").table).verify()


def test_candidates_that_miss_an_irrep_are_refused() -> None:
    group = Group("S3")
    only = [(irrep.label, irrep.matrices) for irrep in group.irreps()[:2]]
    with pytest.raises(CheckError, match="fill 5 of 6 dimensions"):
        complete(group, lambda: only)


def test_irreps_from_the_table_alone_have_the_characters_of_the_closed_forms() -> None:
    for name in ("S4", "D6", "Q8", "A5", "C3xC5", "Dic3"):
        group = Group(name)
        bare = Group.from_table(group.table, name=name)
        bare.verify()
        rounded = lambda g: sorted(g.characters().mul(1e6).round().long().tolist())  # noqa: E731
        assert rounded(bare) == rounded(group)


def test_s6_is_complete_in_under_ten_seconds() -> None:
    started = time.process_time()
    group = Group("S6")
    group.verify()
    assert time.process_time() - started < 10
    # the characters of two partitions on the transposition, from Frobenius' formula: chi = C(6,2)^-1 d * content sum
    swap = group.index("102345")
    for shape in ("(5,1)", "(3,2,1)", "(2,2,2)"):
        parts = tuple(int(x) for x in shape.strip("()").split(","))
        contents = sum(column - row for row, length in enumerate(parts) for column in range(length))
        irrep = group.irrep(shape)
        assert irrep.character[swap] == pytest.approx(irrep.dim * contents / 15, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_young_s_forms_have_the_dimensions_of_the_hook_formula(n: int) -> None:
    total = 0
    for shape in partitions(n):
        columns = [sum(length > c for length in shape) for c in range(shape[0])]
        hooks = math.prod(
            shape[r] - c + columns[c] - r - 1 for r in range(len(shape)) for c in range(shape[r])
        )
        d = math.factorial(n) // hooks
        assert transpositions(shape).shape == (n - 1, d, d)
        total += d * d
    assert total == math.factorial(n)


@pytest.mark.parametrize("name", ["S4", "A4", "Q8", "SL(2,3)", "PSL(2,7)", "F21", "Dic26"])
def test_rows_and_columns_of_the_character_table_are_orthogonal(name: str) -> None:
    group = Group(name)
    table = group.character_table()
    sizes = torch.tensor([len(c) for c in group.classes], dtype=torch.float64)
    assert table.shape == (len(group.classes), len(group.classes))
    eye = torch.eye(len(table), dtype=torch.complex128)
    torch.testing.assert_close((table * sizes) @ table.mH / group.order, eye, atol=1e-10, rtol=0)
    centralisers = torch.diag(group.order / sizes).to(torch.complex128)
    torch.testing.assert_close(table.mH @ table, centralisers, atol=1e-8, rtol=0)
    # class multiplication coefficients are counts: whole numbers, none negative (Burnside's formula)
    weight = sizes[:, None, None] * sizes[None, :, None] / group.order
    values = torch.einsum("xi,xj,xk,x->ijk", table, table, table.conj(), 1 / table[:, 0])
    counts = weight * values.real
    assert (counts - counts.round()).abs().max() < 1e-8
    assert counts.min() > -1e-8


def test_twin_groups_share_their_character_table_and_nothing_below() -> None:
    d52, dic26 = Group("D52"), Group("Dic26")
    key = lambda group: sorted(  # noqa: E731
        tuple((c * 1e6).round().long().tolist()) for c in torch.view_as_real(group.character_table()).sum(-1)
    )
    # equal up to the order of classes: compare what does not depend on it
    for power in (2, 3, 4):
        moments = [
            sorted((group.character_table().real ** power).sum(1).mul(1e6).round().tolist())
            for group in (d52, dic26)
        ]
        assert moments[0] == moments[1]
    assert len(key(d52)) == len(key(dic26)) == 29
    assert {irrep.kind for irrep in d52.irreps()} == {"real"}
    assert {irrep.kind for irrep in dic26.irreps()} == {"real", "quaternionic"}
    assert (len(d52.subgroups()), len(dic26.subgroups())) == (104, 48)


@pytest.mark.parametrize(
    ("name", "total", "classes"),
    [("S3", 6, 4), ("Q8", 6, 6), ("S4", 30, 11), ("A5", 59, 9), ("S5", 156, 19), ("C12", 6, 6)],
)
def test_subgroups_are_as_many_as_is_known(name: str, total: int, classes: int) -> None:
    group = Group(name)
    found = group.subgroups()
    assert (len(found), found[-1].conjugates + 1) == (total, classes)
    assert [s.order for s in found] == sorted(s.order for s in found)
    for subgroup in found:
        members = set(subgroup.members.tolist())
        assert {int(x) for x in group.table[subgroup.members][:, subgroup.members].flatten()} == members
        assert subgroup.left_cosets().bincount().tolist() == [subgroup.order] * subgroup.index
        assert subgroup.normal == torch.equal(subgroup.left_cosets(), subgroup.right_cosets())


def test_every_subset_that_is_closed_is_found() -> None:
    group = Group("D4")
    closed = 0
    for bits in range(1, 2**8):
        members = [i for i in range(8) if bits >> i & 1]
        products = {int(x) for x in group.table[members][:, members].flatten()}
        closed += products <= set(members)
    assert closed == len(group.subgroups()) == 10


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1], [1, 1]], r"no Latin square: row 1 holds 1 twice, at 0 and 1"),
        ([[0, 1], [0, 1]], r"no Latin square: column 0 holds 0 twice, at 0 and 1"),
        ([[1, 2, 0], [0, 1, 2], [2, 0, 1]], "has no identity element"),
        ([[0, 1], [1, 5]], r"not closed: 1 \* 1 is 5"),
        (
            [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]],
            r"not associative: \((\d) \* (\d)\) \* (\d) = \d, but \1 \* \(\2 \* \3\) = \d",
        ),
    ],
)
def test_the_first_axiom_that_fails_is_named_with_its_elements(rows: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Group.from_table(torch.tensor(rows))


def test_every_single_error_in_a_table_is_found() -> None:
    table = Group("S3").table
    for a in range(6):
        for b in range(6):
            wrong = table.clone()
            wrong[a, b] = (wrong[a, b] + 1) % 6
            with pytest.raises(InputError, match="no Latin square"):
                Group.from_table(wrong)


def test_light_s_test_agrees_with_all_triples() -> None:
    # a Latin square with identity made from C2xC4 by turning an intercalate: a loop, not a group
    table = Group("C2xC4").table.clone()
    a, b, c, d = 1, 3, 5, 7
    square = table[[a, a, b, b], [c, d, c, d]]
    assert square[0] == square[3]
    table[a, c], table[a, d], table[b, c], table[b, d] = square[1], square[0], square[0], square[1]
    brute = all(torch.equal(table[table[x]], table[x][table]) for x in range(8))
    assert not brute
    with pytest.raises(InputError, match="not associative"):
        Group.from_table(table)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Dix26", "did you mean 'Dic26'"),
        ("PSL(2,8)", "8 is not prime"),
        ("F15", "no Frobenius group F15"),
        ("C5:C3", "no automorphism of order 3"),
        ("Q10", "order 4n"),
        ("S5xS5", "up to order 5040"),
        ("S3x", "unknown group 'S3x'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Group(name)


def test_unknown_elements_irreps_and_permutations_are_refused() -> None:
    group = Group("S4")
    with pytest.raises(InputError, match=re.escape("no irrep '(3,1,1)'; did you mean")):
        group.irrep("(3,1,1)")
    with pytest.raises(InputError, match="no element '0122'"):
        group.index("0122")
    with pytest.raises(InputError, match=r"\[0, 0, 1\] is no permutation"):
        Group.from_permutations([(0, 0, 1)])


def test_words_have_the_values_of_their_letters() -> None:
    group = Group("S4")
    pairs = torch.cartesian_prod(torch.arange(24), torch.arange(24))
    a, b = pairs.T
    t, inverse = group.table, group.inverse
    for text, value in {
        "ab": t[a, b],
        "aba^-1": t[t[a, b], inverse[a]],
        "a^2b": t[t[a, a], b],
        "[a,b]": t[t[t[a, b], inverse[a]], inverse[b]],
    }.items():
        assert torch.equal(Word(text).values(group, a, b), value)
    assert Word("aba^-1").occurrences("a") == 2
    for text in ("", "abc", "a^", "[a]"):
        with pytest.raises(InputError, match="word"):
            Word(text)
