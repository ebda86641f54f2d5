"""Rows: what a metric accepts as one representation, checked and brought to float64.

A representation is a matrix with one sample a row. Everything downstream works in float64 on shifted rows:
residual streams carry a common mean hundreds of times their spread, and float32 Gram matrices of such rows are noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from interp.errors import InputError

__all__ = ["Rows", "blocks_of", "checked", "jackknife", "rows64"]

Rows = Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]
"""One representation: a tensor or array [sample, d]."""


def rows64(x: Rows, name: str = "x", *, least: int = 4) -> Float64[Tensor, "sample d"]:
    """``x`` [sample, d] in float64 with its column means taken away (every metric here is free to shift).

    Raises
    ------
    InputError
        ``x`` is no matrix, has fewer than ``least`` rows, no columns, or holds NaN or infinity (how many rows, and
        the first of them).
    """
    matrix = checked(x, name, least=least)
    return matrix - matrix.mean(0, keepdim=True)


def checked(x: Rows, name: str = "x", *, least: int = 4) -> Float64[Tensor, "sample d"]:
    """``x`` checked and in float64, not shifted."""
    matrix = torch.as_tensor(x).detach()
    if matrix.ndim != 2:
        raise InputError(
            f"{name} must be a matrix [sample, d]; got shape {list(matrix.shape)}"
            " (flatten batch and positions first, e.g. with Activations.rows)"
        )
    n, d = matrix.shape
    if n < least or d < 1:
        raise InputError(f"{name} has shape [{n}, {d}]; at least {least} samples and one column are needed")
    if matrix.is_complex():
        raise InputError(f"{name} is complex; give real rows")
    matrix = matrix.to(torch.float64)
    bad = torch.nonzero(~torch.isfinite(matrix).all(1)).flatten()
    if len(bad):
        raise InputError(
            f"{name} holds NaN or infinity in {len(bad)} of {n} rows, the first of them row {int(bad[0])}"
        )
    return matrix


def blocks_of(
    n: int, n_blocks: int, groups: Sequence[int] | Tensor | np.ndarray | None = None
) -> list[Tensor]:
    """The row indices of each jackknife block.

    Without ``groups``: contiguous runs of nearly equal length, since neighbouring rows come from one text and are not
    independent. With ``groups`` [sample]: whole groups, dealt to blocks so that their sizes are nearly equal.
    """
    if groups is None:
        return [piece for piece in torch.arange(n).tensor_split(min(n_blocks, n)) if len(piece)]
    labels = torch.as_tensor(groups).flatten()
    if len(labels) != n:
        raise InputError(f"groups has {len(labels)} entries for {n} samples")
    _, which, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise InputError("groups holds one group only; a standard error over groups needs at least two")
    block_of_group = torch.zeros(len(counts), dtype=torch.long)
    load = torch.zeros(min(n_blocks, len(counts)), dtype=torch.long)
    for group in torch.argsort(counts, descending=True).tolist():  # largest first, to the emptiest block
        block = int(load.argmin())
        block_of_group[group] = block
        load[block] += counts[group]
    return [torch.nonzero(block_of_group[which] == block).flatten() for block in range(len(load))]


def jackknife(left_out: Float64[Tensor, "block"] | Float64[Tensor, "block other"]) -> Float64[Tensor, "..."]:
    """The delete-a-block jackknife standard error from the statistic with each block left out (Efron 1982, eq. 3.3)."""
    n_blocks = left_out.shape[0]
    spread = left_out - left_out.mean(0, keepdim=True)
    return ((n_blocks - 1) / n_blocks * spread.square().sum(0)).sqrt()
