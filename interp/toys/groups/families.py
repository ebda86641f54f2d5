"""The named groups: elements, multiplication table, and labelled representations that hold every irrep."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from interp.errors import InputError, nearest
from interp.toys.groups.irreps import Irrep, spread
from interp.toys.groups.splitting import complete
from interp.toys.groups.table import GroupTable
from interp.toys.groups.young import partitions, transpositions

__all__ = ["LARGEST", "build", "generated"]

LARGEST = 5040
"""The largest order a name may ask for: its table takes 200 MB."""

Candidates = Callable[[], Iterator[tuple[str, Tensor]]]
Made = tuple[Sequence[str], Tensor, Candidates | None]

EXAMPLES = (
    *(
        "C7",
        "C59",
        "C113",
        "D5",
        "D15",
        "D59",
        "Dic26",
        "Q8",
        "Q16",
        "S3",
        "S4",
        "S5",
        "S6",
        "A4",
        "A5",
        "A6",
    ),
    *("C7:C3", "F21", "F20", "SL(2,3)", "PSL(2,7)", "C3xC5", "S3xC4", "Q8xC3"),
)


def build(name: str) -> Made:
    """Elements, table and candidate representations of the group called ``name``.

    Raises
    ------
    InputError
        The name is not understood, or the group is larger than 5040.
    """
    factors = name.split("x")
    if len(factors) > 1:
        return _product(name, [_simple(factor, name) for factor in factors])
    return _simple(name, name)


def _simple(name: str, asked: str) -> Made:
    for pattern, make in _FAMILIES.items():
        match = re.fullmatch(pattern, name)
        if match is not None:
            return make(*(int(number) for number in match.groups()))
    raise InputError(
        f"unknown group {asked!r}{nearest(asked, EXAMPLES)} (C<n>, D<n>, Dic<n>, Q<4n>, S<n>, A<n>, C<n>:C<m>, "
        "F<order>, SL(2,p), PSL(2,p), and products such as S3xC4)"
    )


def _sized(name: str, order: int) -> int:
    if order > LARGEST:
        raise InputError(f"{name} has {order} elements; tables are made up to order {LARGEST}")
    return order


# -- tables ---------------------------------------------------------------------------------------


def _permutations_table(rows: Int64[Tensor, "element point"]) -> Int64[Tensor, "left right"]:
    """The table of permutations in lexicographic order, composed as functions."""
    n = rows.shape[1]
    weights = torch.tensor([n**i for i in range(n - 1, -1, -1)])
    codes = rows @ weights
    return torch.stack([torch.searchsorted(codes, p[rows] @ weights) for p in rows])


def generated(generators: Sequence[Sequence[int]], *, name: str) -> Made:
    """The permutation group that ``generators`` span: its elements in lexicographic order."""
    given = [tuple(int(i) for i in g) for g in generators]
    n = max((len(g) for g in given), default=0)
    for g in given:
        if sorted(g) != list(range(n)):
            raise InputError(f"{list(g)} is no permutation of 0..{max(n - 1, 0)}")
    if not 1 <= n <= 15:
        raise InputError(f"{name!r}: permutations of 1 to 15 points are taken, got {n}")
    found, frontier = {tuple(range(n))}, [tuple(range(n))]
    while frontier:
        reached = {tuple(p[i] for i in g) for p in frontier for g in given}
        frontier = list(reached - found)
        found |= reached
        if len(found) > LARGEST:
            raise InputError(f"{name} has more than {LARGEST} elements; tables are made up to that order")
    rows = sorted(found)
    joint = "" if n <= 10 else " "
    return [joint.join(str(i) for i in p) for p in rows], _permutations_table(torch.tensor(rows)), None


def _cyclic(n: int) -> Made:
    _sized(f"C{n}", n)
    row = torch.arange(n)

    def candidates() -> Iterator[tuple[str, Tensor]]:
        yield "trivial", _characters(torch.ones(n))
        for k in range(1, (n + 1) // 2):
            yield f"f{k}", _rotation(2 * math.pi * k * row.double() / n)
        if n % 2 == 0:
            yield "sign", _characters((-1.0) ** row)

    return [str(k) for k in range(n)], (row[:, None] + row) % n, candidates


def _rotary(m: int, twist: int) -> tuple[list[str], Tensor]:
    """Elements r^k, then r^k s, with r^m = 1, s r = r^-1 s and s^2 = r^twist."""
    k, flip = torch.arange(m).repeat(2), torch.arange(2).repeat_interleave(m)
    power = k[:, None] + torch.where(flip[:, None] == 1, -k, k) + twist * (flip[:, None] & flip)
    names = [f"r{int(i)}{'s' * int(e)}" for i, e in zip(k, flip, strict=True)]
    return names, power % m + m * (flip[:, None] ^ flip)


def _dihedral(n: int) -> Made:
    _sized(f"D{n}", 2 * n)
    names, table = _rotary(n, 0)

    def candidates() -> Iterator[tuple[str, Tensor]]:
        def spun(r: Any, s: Any) -> Tensor:
            return spread(table, {1 % n: _square(r), n: _square(s)})

        yield "trivial", spun(1, 1)
        yield "sign", spun(1, -1)
        if n % 2 == 0:
            yield "alternating", spun(-1, 1)
            yield "alternating sign", spun(-1, -1)
        for k in range(1, (n + 1) // 2):
            yield f"f{k}", spun(_rotation(2 * math.pi * k / n), [[1, 0], [0, -1]])

    return names, table, candidates


def _dicyclic(n: int) -> Made:
    _sized(f"Dic{n}", 4 * n)
    names, table = _rotary(2 * n, n)

    def candidates() -> Iterator[tuple[str, Tensor]]:
        def spun(r: Any, s: Any) -> Tensor:
            return spread(table, {1: _square(r), 2 * n: _square(s)})

        yield "trivial", spun(1, 1)
        yield "sign", spun(1, -1)
        if n % 2 == 0:
            yield "alternating", spun(-1, 1)
            yield "alternating sign", spun(-1, -1)
        else:  # s -> i and s -> -i together
            yield "i", spun([[-1, 0], [0, -1]], [[0, -1], [1, 0]])
        for k in range(1, n):
            turn = _square(_rotation(math.pi * k / n))
            if k % 2 == 0:
                yield f"f{k}", spun(turn, [[1, 0], [0, -1]])
            else:  # quaternions z + w j under multiplication from the left: r -> exp(i t), s -> j
                j = torch.tensor([[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]])
                yield f"h{k}", spun(torch.block_diag(turn, turn), j)

    return names, table, candidates


def _quaternion(order: int) -> Made:
    if order % 4 or order < 8:
        raise InputError(f"no group Q{order}: generalised quaternion groups have an order 4n, n >= 2")
    return _dicyclic(order // 4)


def _symmetric(n: int) -> Made:
    _sized(f"S{n}", math.factorial(n)) if n < 20 else _sized(f"S{n}", LARGEST + 1)
    rows = torch.tensor(list(itertools.permutations(range(n))))
    table = _permutations_table(rows)
    return _permutation_names(rows), table, lambda: _young(n, rows, table)


def _young(n: int, rows: Tensor, table: Tensor) -> Iterator[tuple[str, Tensor]]:
    swaps = []
    for i in range(n - 1):
        swap = torch.arange(n)
        swap[[i, i + 1]] = swap[[i + 1, i]]
        swaps.append(int((rows == swap).all(1).int().argmax()))
    for shape in partitions(n):
        label = "trivial" if len(shape) == 1 else "sign" if len(shape) == n else str(shape).replace(" ", "")
        images = transpositions(shape)
        if n == 1:
            yield label, _characters(torch.ones(1))
        else:
            yield label, spread(table, dict(zip(swaps, images, strict=True)))


def _alternating(n: int) -> Made:
    _sized(f"A{n}", math.factorial(n) // 2 if n < 20 else LARGEST + 1)
    rows = torch.tensor(list(itertools.permutations(range(n))))
    inversions = sum((rows[:, i] > rows[:, j]).int() for i in range(n) for j in range(i + 1, n))
    even = (torch.as_tensor(inversions) % 2 == 0) if n > 1 else torch.ones(1, dtype=torch.bool)
    table = _permutations_table(rows[even])

    def candidates() -> Iterator[tuple[str, Tensor]]:
        # restricted from S_n: a shape and its conjugate become the same, a self-conjugate one splits
        for label, matrices in _young(n, rows, _permutations_table(rows)):
            yield label, matrices[even]

    return _permutation_names(rows[even]), table, candidates


def _semidirect(n: int, m: int) -> Made:
    _sized(f"C{n}:C{m}", n * m)
    action = next((u for u in range(1, n + 1) if _order_mod(u, n) == m), None)
    if action is None:
        raise InputError(f"no group C{n}:C{m}: C{n} has no automorphism of order {m}")
    k, e = torch.arange(n).repeat_interleave(m), torch.arange(m).repeat(n)
    powers = torch.tensor([pow(action, i, n) for i in range(m)])
    table = (k[:, None] + powers[e][:, None] * k) % n * m + (e[:, None] + e) % m
    return [f"a{i}b{j}" for i, j in zip(k.tolist(), e.tolist(), strict=True)], table, None


def _frobenius(order: int) -> Made:
    """The Frobenius group C_p : C_m of order p m, p its largest prime factor."""
    p = max((q for q in range(2, order + 1) if order % q == 0 and _is_prime(q)), default=1)
    m = order // p
    if m < 2 or (p - 1) % m:
        raise InputError(f"no Frobenius group F{order}: an order p * m with p prime and m > 1 dividing p - 1")
    return _semidirect(p, m)


def _linear(p: int, projective: bool) -> Made:
    name = f"{'P' if projective else ''}SL(2,{p})"
    if not _is_prime(p):
        raise InputError(f"no group {name} here: {p} is not prime")
    _sized(name, p * (p * p - 1) // (2 if projective and p > 2 else 1))
    quads = [q for q in itertools.product(range(p), repeat=4) if (q[0] * q[3] - q[1] * q[2]) % p == 1]
    quads.sort(key=lambda q: q != (1, 0, 0, 1))
    if projective:  # of a matrix and its negative, the first
        quads = [
            q for q in quads if q == (1, 0, 0, 1) or (q <= _negative(q, p) and q != (p - 1, 0, 0, p - 1))
        ]
    place = {q: i for i, q in enumerate(quads)}
    if projective:
        place |= {_negative(q, p): i for q, i in tuple(place.items())}

    def times(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...]:
        (a, b, c, d), (e, f, g, h) = x, y
        return (a * e + b * g) % p, (a * f + b * h) % p, (c * e + d * g) % p, (c * f + d * h) % p

    table = torch.tensor([[place[times(x, y)] for y in quads] for x in quads])
    return ["[" + " ".join(map(str, q)) + "]" for q in quads], table, None


def _product(name: str, factors: Sequence[Made]) -> Made:
    _sized(name, math.prod(len(names) for names, _, _ in factors))
    names, table, candidates = factors[0]
    for names2, table2, candidates2 in factors[1:]:
        n = len(names2)
        # what a factor's irreps need is the factor itself, as a group
        left, right = _irreps_of(names, table, candidates), _irreps_of(names2, table2, candidates2)
        names = [f"{x},{y}" for x in names for y in names2]
        table = (table[:, None, :, None] * n + table2[None, :, None, :]).reshape(len(names), len(names))
        candidates = _tensored(left, right)
    return names, table, candidates


def _irreps_of(
    names: Sequence[str], table: Tensor, candidates: Candidates | None
) -> Callable[[], Sequence[Irrep]]:
    return lambda: complete(GroupTable("factor", names, table), candidates)


def _tensored(left: Callable[[], Sequence[Irrep]], right: Callable[[], Sequence[Irrep]]) -> Candidates:
    """Kronecker products; where both factors are not of real type they are reducible, and repeat one another."""

    def candidates() -> Iterator[tuple[str, Tensor]]:
        for x, y in itertools.product(left(), right()):
            matrices = torch.einsum("gij,hkl->ghikjl", x.matrices, y.matrices)
            d = x.dim * y.dim
            both = [irrep.label for irrep in (x, y)]
            yield "trivial" if set(both) == {"trivial"} else " x ".join(both), matrices.reshape(-1, d, d)

    return candidates


# -- small pieces ---------------------------------------------------------------------------------


def _characters(values: Tensor) -> Float64[Tensor, "element d d"]:
    return values.double()[:, None, None]


def _square(value: Any) -> Float64[Tensor, "d d"]:
    tensor = torch.as_tensor(value, dtype=torch.float64)
    return tensor if tensor.ndim == 2 else tensor.reshape(1, 1)


def _rotation(angle: Tensor | float) -> Tensor:
    t = torch.as_tensor(angle, dtype=torch.float64)
    c, s = t.cos(), t.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def _permutation_names(rows: Tensor) -> list[str]:
    return ["".join(str(i) for i in p) for p in rows.tolist()]


def _negative(q: tuple[int, ...], p: int) -> tuple[int, ...]:
    return tuple(-x % p for x in q)


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % q for q in range(2, math.isqrt(n) + 1))


def _order_mod(u: int, n: int) -> int:
    """The multiplicative order of u modulo n, 0 where it has none."""
    if math.gcd(u, n) != 1:
        return 0
    order, power = 1, u % n
    while power != 1 % n:
        order, power = order + 1, power * u % n
    return order


_NUMBER = "([1-9][0-9]{0,4})"
_FAMILIES: dict[str, Callable[..., Made]] = {
    f"C{_NUMBER}": _cyclic,
    f"D{_NUMBER}": _dihedral,
    f"Dic{_NUMBER}": _dicyclic,
    f"Q{_NUMBER}": _quaternion,
    f"S{_NUMBER}": _symmetric,
    f"A{_NUMBER}": _alternating,
    f"C{_NUMBER}:C{_NUMBER}": _semidirect,
    f"F{_NUMBER}": _frobenius,
    rf"SL\(2,{_NUMBER}\)": lambda p: _linear(p, False),
    rf"PSL\(2,{_NUMBER}\)": lambda p: _linear(p, True),
}
