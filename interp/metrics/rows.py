"""Rows: what a metric accepts as one representation, checked and shifted.

A representation is a matrix with one sample a row, or one site of a :class:`interp.Moments`. Everything downstream
works on shifted rows: residual streams carry a common mean hundreds of times their spread, and float32 Gram matrices
of such rows are noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from interp.errors import InputError
from interp.moments.accumulator import SiteMoments

__all__ = [
    "Data",
    "Groups",
    "Rows",
    "blocks_of",
    "clustered",
    "checked",
    "jackknife",
    "jackknife_blocks",
    "paired",
    "plain_rows",
    "rows64",
]

Rows = Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]
"""One representation: a tensor or array [sample, d]."""

Data = Rows | SiteMoments
"""Rows, or one site of a Moments (``moments["blocks.3.hook_resid_post"]``)."""

Groups = Sequence[int] | Tensor | np.ndarray | None


def rows64(x: Rows, name: str = "x", *, least: int = 4) -> Float64[Tensor, "sample d"]:
    """``x`` [sample, d] in float64 with its column means taken away.

    Raises
    ------
    InputError
        ``x`` is no matrix, has fewer than ``least`` rows, no columns, or holds NaN or infinity (how many rows, and
        the first of them).
    """
    matrix = checked(x, name, least=least)
    return matrix - matrix.mean(0, keepdim=True)


def plain_rows(x: Data, name: str, metric: str) -> Rows:
    """``x`` if it is rows; InputError if it is moments, from which ``metric`` cannot be computed."""
    if isinstance(x, SiteMoments):
        raise InputError(f"{metric} needs the rows themselves; {name} is the moments of {x.site}")
    return x


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
    bad = torch.nonzero(~torch.isfinite(matrix.sum(1))).flatten()
    if len(bad):
        raise InputError(
            f"{name} holds NaN or infinity in {len(bad)} of {n} rows, the first of them row {int(bad[0])}"
        )
    return matrix


def paired(
    x: Rows, y: Rows, *, least: int = 4, center: bool = True
) -> tuple[Float64[Tensor, "sample d"], Float64[Tensor, "sample e"]]:
    """Both sides checked, in float64 and (unless ``center=False``) centred; row i of both is one sample."""
    both = [(rows64 if center else checked)(a, name, least=least) for a, name in ((x, "x"), (y, "y"))]
    if len(both[0]) != len(both[1]):
        raise InputError(
            f"x has {len(both[0])} samples and y has {len(both[1])}; row i of both must stand for the same sample"
        )
    return both[0], both[1]


def constant(rows: Tensor, raw: Rows) -> bool:
    """Whether centred ``rows`` are nothing but rounding."""
    scale = float(torch.as_tensor(raw).abs().max())
    return bool(rows.abs().max() <= 1e-12 * max(scale, 1e-300))


def blocks_of(n: int, n_blocks: int, groups: Groups = None) -> list[Tensor]:
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


def jackknife_blocks(n: int, n_blocks: int, groups: Groups) -> list[Tensor]:
    """:func:`blocks_of` such that a left-out subset still allows HSIC_1, which divides by n - 3; none for 0 blocks."""
    if n_blocks == 0:
        return []
    if n_blocks < 2:
        raise InputError(f"n_blocks = {n_blocks}; a jackknife needs at least 2 (0: no standard error)")
    return blocks_of(n, min(n_blocks, max(2, n // 4)) if n >= 8 else n, groups)


def jackknife(left_out: Float64[Tensor, "block *other"]) -> Float64[Tensor, "*other"]:
    """The delete-a-block jackknife standard error from the statistic with each block left out (Efron 1982, eq. 3.3)."""
    n_blocks = left_out.shape[0]
    spread = left_out - left_out.mean(0, keepdim=True)
    return ((n_blocks - 1) / n_blocks * spread.square().sum(0)).sqrt()


def leave_out(statistic: Callable[[Tensor], float], n: int, *, n_blocks: int, groups: Groups) -> float | None:
    """Jackknife error of ``statistic(indices of the rows kept)``, one call a block; None if some block leaves < 4."""
    blocks = jackknife_blocks(n, n_blocks, groups)
    if not blocks or n - max(map(len, blocks)) < 4:
        return None
    values = []
    for block in blocks:
        kept = torch.ones(n, dtype=torch.bool)
        kept[block] = False
        values.append(statistic(torch.nonzero(kept).flatten()))
    spread = float(jackknife(torch.tensor(values, dtype=torch.float64)))
    return spread if np.isfinite(spread) else None


def clustered(values: Float64[Tensor, "sample"], groups: Groups = None) -> float | None:
    """Standard error of the mean of per-sample values; with ``groups`` of the mean over whole groups (clustered)."""
    n = len(values)
    if groups is None:
        return float(values.std(correction=1) / n**0.5) if n > 1 else None
    _, which = torch.unique(torch.as_tensor(groups), return_inverse=True)
    count = int(which.max()) + 1
    if count < 2:
        return None
    spread = torch.zeros(count, dtype=torch.float64).index_add_(0, which, values - values.mean())
    return float((count / (count - 1) * spread.square().sum()).sqrt() / n)
