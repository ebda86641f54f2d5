"""The type of a real representation, read off its character or off what commutes with it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from interp.errors import CheckError

__all__ = ["Kind", "commuting", "frobenius_schur", "kind_of"]

Kind = Literal["real", "complex", "quaternionic"]
_KINDS: dict[tuple[int, int], Kind] = {(1, 1): "real", (2, 0): "complex", (4, -2): "quaternionic"}
"""By <chi, chi> and the Frobenius-Schur sum of a real representation; every other pair is reducible."""


def frobenius_schur(table: Tensor, character: Tensor) -> float:
    """The mean of chi(g^2): 1, 0, -1 for a complex irrep; 1, 0, -2 for a real one by type."""
    return float(character[table.diagonal()].mean())


def kind_of(table: Tensor, character: Tensor) -> Kind | None:
    """The type of a real representation with this character, None where it is reducible."""
    norm, indicator = float(character.square().mean()), frobenius_schur(table, character)
    if abs(norm - round(norm)) + abs(indicator - round(indicator)) > 1e-6:
        raise CheckError(f"no character: <chi, chi> = {norm:.6g}, Frobenius-Schur sum {indicator:.6g}")
    return _KINDS.get((round(norm), round(indicator)))


def commuting(matrices: Tensor, *, antisymmetric: bool = False, seed: int = 0) -> Tensor:
    """A random operator that commutes with ``matrices``, symmetric or antisymmetric."""
    d = matrices.shape[1]
    x = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = x - x.T if antisymmetric else x + x.T
    sides = matrices.transpose(0, 1)  # [d, element, d]
    return (sides @ x).reshape(d, -1) @ sides.reshape(d, -1).T / len(matrices)
