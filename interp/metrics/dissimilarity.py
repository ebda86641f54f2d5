"""Dissimilarity: representational similarity analysis, the comparison of two matrices of distances between stimuli."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.errors import InputError, nearest
from interp.metrics.declared import outcome
from interp.metrics.rows import Groups, Rows, jackknife, jackknife_blocks, paired
from interp.results import Result

__all__ = ["rdm", "rsa"]

_DISTANCES = ("euclidean", "correlation", "cosine")
_COMPARISONS = ("spearman", "pearson", "cosine")


def rdm(x: Rows, *, distance: str = "euclidean") -> Float64[Tensor, "sample sample"]:
    """Distances between the rows of ``x``: ``"euclidean"`` (squared), ``"correlation"`` or ``"cosine"`` (1 - r)."""
    rows = paired(x, x, center=False)[0]
    if distance == "euclidean":
        rows = rows - rows.mean(0)
        squares = rows.square().sum(1)
        return squares[:, None] + squares - 2 * rows @ rows.T
    if distance not in _DISTANCES:
        raise InputError(f"distance={distance!r}{nearest(distance, _DISTANCES)}")
    if distance == "correlation":
        rows = rows - rows.mean(1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    if float(length.min()) == 0:
        raise InputError(f"row {int(length.argmin())} has length 0: its {distance} distance is not defined")
    unit = rows / length
    return 1 - unit @ unit.T


def rsa(
    x: Rows,
    y: Rows,
    *,
    distance: str = "euclidean",
    comparison: str = "spearman",
    n_permutations: int = 200,
    seed: int = 0,
    groups: Groups = None,
    n_blocks: int = 10,
) -> Result:
    """Agreement of the two distance matrices over the same stimuli, with a permutation p-value.

    Parameters
    ----------
    x, y
        [sample, d] and [sample, e]: one row a stimulus, at least 4.
    distance
        As for :func:`rdm`. Squared Euclidean distances see no rotation; correlation distances do.
    comparison
        ``"spearman"``, ``"pearson"`` or ``"cosine"`` of the upper triangles.
    n_permutations, seed
        Stimuli of ``y`` relabelled at random: ``.chance`` is the mean, and the p-value (1 + #{>= value}) / (1 + P)
        stands in ``.provenance["p"]``.
    groups, n_blocks
        Stimuli are left out by block for the standard error, as for :func:`interp.metrics.cka`.

    Notes
    -----
    Cost: O(n^2 (d + e)), and O(n^2) for each permutation and block.

    References
    ----------
    Kriegeskorte et al. 2008.
    """
    if comparison not in _COMPARISONS:
        raise InputError(f"comparison={comparison!r}{nearest(comparison, _COMPARISONS)}")
    rows = paired(x, y)
    n = len(rows[0])
    a, b = rdm(x, distance=distance), rdm(y, distance=distance)
    upper = torch.triu_indices(n, n, 1)
    if comparison == "spearman":  # ranks of the whole triangle once; relabelling stimuli only moves them
        a, b = (_ranked(m, upper) for m in (a, b))
    value, reason, p, stderr, chance = float("nan"), None, None, None, None
    if min(float(m[upper[0], upper[1]].std()) for m in (a, b)) == 0:
        reason = "all distances on one side are equal: there is nothing to correlate"
    else:
        value = _agree(a[upper[0], upper[1]], b[upper[0], upper[1]], comparison)
        generator, null = torch.Generator().manual_seed(seed), []
        for _ in range(n_permutations):
            order = torch.randperm(n, generator=generator)
            null.append(_agree(a[upper[0], upper[1]], b[order[upper[0]], order[upper[1]]], comparison))
        if null:
            p, chance = (1 + sum(v >= value for v in null)) / (1 + len(null)), float(np.mean(null))
        stderr = _left_out(a, b, upper, comparison, jackknife_blocks(n, n_blocks, groups))
    return outcome(
        "RSA",
        value,
        n=n,
        d=(rows[0].shape[1], rows[1].shape[1]),
        stderr=stderr,
        chance=chance,
        no_chance="no permutation was asked for",
        reason=reason,
        convention=f"{comparison} of {'squared ' * (distance == 'euclidean')}{distance} distances over pairs i < j",
        provenance={"p": p, "n_permutations": n_permutations, "seed": seed},
    )


def _ranked(matrix: Tensor, upper: Tensor) -> Tensor:
    from scipy.stats import rankdata

    out = torch.zeros_like(matrix)
    out[upper[0], upper[1]] = torch.from_numpy(rankdata(matrix[upper[0], upper[1]].cpu().numpy()))
    return out + out.T


def _agree(u: Tensor, v: Tensor, comparison: str) -> float:
    if comparison != "cosine":
        u, v = u - u.mean(), v - v.mean()
    return float(u @ v / (u.norm() * v.norm()))


def _left_out(a: Tensor, b: Tensor, upper: Tensor, comparison: str, blocks: list[Tensor]) -> float | None:
    values = []
    for block in blocks:
        kept = torch.ones(len(a), dtype=torch.bool)
        kept[block] = False
        pairs = upper[:, kept[upper[0]] & kept[upper[1]]]
        u, v = a[pairs[0], pairs[1]], b[pairs[0], pairs[1]]
        if comparison == "spearman":  # ranks among what is left
            u, v = (t.argsort().argsort().double() for t in (u, v))
        values.append(_agree(u, v, comparison))
    return float(jackknife(torch.tensor(values, dtype=torch.float64))) if values else None
