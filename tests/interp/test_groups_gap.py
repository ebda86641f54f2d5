"""GAP, where it is installed, is asked for the character table of every group that the toolkit promises."""

from __future__ import annotations

import cmath
import json
import shutil
import subprocess

import pytest
import torch

from interp.toys import Group

pytestmark = pytest.mark.skipif(shutil.which("gap") is None, reason="GAP is not installed")

IN_GAP = {
    "C7": "CyclicGroup(7)",
    "C113": "CyclicGroup(113)",
    "C118": "CyclicGroup(118)",
    "D5": "DihedralGroup(10)",
    "D6": "DihedralGroup(12)",
    "D59": "DihedralGroup(118)",
    "Dic26": "DicyclicGroup(104)",
    "Q8": "QuaternionGroup(8)",
    **{f"S{n}": f"SymmetricGroup({n})" for n in (3, 4, 5, 6)},
    **{f"A{n}": f"AlternatingGroup({n})" for n in (4, 5, 6)},
    "C3xC5": "DirectProduct(CyclicGroup(3), CyclicGroup(5))",
    "S3xC4": "DirectProduct(SymmetricGroup(3), CyclicGroup(4))",
    "Q8xC3": "DirectProduct(QuaternionGroup(8), CyclicGroup(3))",
    "F21": "Group((1,2,3,4,5,6,7), (2,3,5)(4,7,6))",
    "SL(2,3)": "SL(2,3)",
    "PSL(2,7)": "PSL(2,7)",
}

SCRIPT = """
terms := function(v)
  local n, c;
  n := Conductor(v); c := CoeffsCyc(v, n);
  return [n, List(Filtered([1..n], i -> c[i] <> 0), i -> [i - 1, c[i]])];
end;;
for G in [{groups}] do
  t := CharacterTable(G);;
  Print("[", SizesConjugacyClasses(t), ",", OrdersClassRepresentatives(t), ",",
    List(Irr(t), x -> List(x, terms)), ",", Indicator(t, 2), "]|");
od; QUIT;
"""

Row = tuple[tuple[int, int, float, float], ...]


@pytest.fixture(scope="module")
def tables() -> dict[str, list]:
    """Of each group: sizes of classes, orders of their elements, characters as sums of roots of unity, Frobenius-Schur
    indicators."""
    script = SCRIPT.format(groups=", ".join(IN_GAP.values()))
    ran = subprocess.run(["gap", "-q", "-A"], input=script, capture_output=True, text=True, check=True)
    texts = "".join(ran.stdout.split()).replace("\\", "").split("|")
    return dict(zip(IN_GAP, map(json.loads, filter(None, texts)), strict=True))


def value(number: list) -> complex:
    """[n, [[exponent, coefficient], ...]]: a sum of n-th roots of unity."""
    n, terms = number
    return sum((c * cmath.exp(2j * cmath.pi * k / n) for k, c in terms), 0j)


def row(sizes: list[int], orders: list[int], values: list[complex]) -> Row:
    """A character without the order of the classes: how often it takes which value on elements of which order."""
    entries = zip(sizes, orders, values, strict=True)
    # + 0.0: no negative nought
    return tuple(sorted((s, o, round(v.real, 6) + 0.0, round(v.imag, 6) + 0.0) for s, o, v in entries))


@pytest.mark.parametrize("name", IN_GAP)
def test_gap_agrees_on_the_characters(name: str, tables: dict[str, list]) -> None:
    sizes, orders, characters, _ = tables[name]
    group = Group(name)
    ours_sizes = [len(members) for members in group.classes]
    ours_orders = [int(group.element_orders[members[0]]) for members in group.classes]
    theirs = sorted(row(sizes, orders, [value(c) for c in character]) for character in characters)
    ours = sorted(row(ours_sizes, ours_orders, character.tolist()) for character in group.character_table())
    assert ours == theirs


@pytest.mark.parametrize("name", IN_GAP)
def test_gap_agrees_on_the_types(name: str, tables: dict[str, list]) -> None:
    """Indicator 1: a real irrep of that dimension; -1: a quaternionic one of twice that; 0: half of a complex one."""
    *_, characters, indicators = tables[name]
    degrees = [round(value(character[0]).real) for character in characters]
    theirs = [(d, "real") for d, nu in zip(degrees, indicators, strict=True) if nu == 1]
    theirs += [(2 * d, "quaternionic") for d, nu in zip(degrees, indicators, strict=True) if nu == -1]
    pairs = sorted(2 * d for d, nu in zip(degrees, indicators, strict=True) if nu == 0)
    theirs += [(d, "complex") for d in pairs[::2]]
    assert sorted((irrep.dim, irrep.kind) for irrep in Group(name).irreps()) == sorted(theirs)


def test_another_character_would_be_noticed(tables: dict[str, list]) -> None:
    """The twins D4 and Q8 have one character table; orders of elements, and the types, tell them apart."""
    sizes, orders, characters, indicators = tables["Q8"]
    d4 = Group("D4")
    ours_orders = [int(d4.element_orders[members[0]]) for members in d4.classes]
    faithful = next(c for c in characters if abs(value(c[0])) == 2)
    ours = d4.character_table()[torch.tensor([abs(c[0]) > 1.5 for c in d4.character_table()])][0]
    assert row([len(m) for m in d4.classes], ours_orders, ours.tolist()) != row(
        sizes, orders, [value(c) for c in faithful]
    )
    assert -1 in indicators
    assert {irrep.kind for irrep in d4.irreps()} == {"real"}
