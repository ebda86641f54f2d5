"""Neighbours: do two representations agree on which samples are close? Mutual k-NN and CKNNA."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from interp.errors import InputError, nearest
from interp.metrics.declared import known_compat, outcome
from interp.metrics.rows import Groups, Rows, clustered, leave_out, paired
from interp.results import Result

__all__ = ["cknna", "mutual_knn", "nearest_rows"]

_CLOSENESS = ("cosine", "inner", "euclidean")


def nearest_rows(
    x: Rows, *, k: int, closeness: str = "cosine", chunk: int = 2048
) -> Int64[Tensor, "sample k"]:
    """The ``k`` nearest other rows of every row. Memory O(n k + chunk n)."""
    rows = paired(x, x, center=closeness == "euclidean")[0]
    n = len(rows)
    if closeness not in _CLOSENESS:
        raise InputError(f"closeness={closeness!r}{nearest(closeness, _CLOSENESS)}")
    if not 0 < k < n:
        raise InputError(f"k = {k} neighbours among {n} rows: k must lie between 1 and {n - 1}")
    if closeness == "cosine":
        length = rows.norm(dim=1, keepdim=True)
        if float(length.min()) == 0:
            raise InputError(f"row {int(length.argmin())} has length 0: it has no direction")
        rows = rows / length
    half = (
        rows.square().sum(1) / 2
        if closeness == "euclidean"
        else torch.zeros(n, dtype=rows.dtype, device=rows.device)
    )
    found = []
    for start in range(0, n, chunk):
        close = rows[start : start + chunk] @ rows.T - half
        close[torch.arange(len(close)), torch.arange(start, start + len(close))] = -torch.inf
        found.append(close.topk(k, dim=1).indices)
    return torch.cat(found)


def mutual_knn(
    x: Rows,
    y: Rows,
    *,
    k: int = 10,
    closeness: str = "cosine",
    score: str = "overlap",
    groups: Groups = None,
) -> Result:
    """Mean share of the ``k`` nearest neighbours that a sample has in common in both representations.

    Parameters
    ----------
    x, y
        [sample, d] and [sample, e].
    closeness
        Normalisation is part of the metric: ``"cosine"`` (the published one: inner products of rows at length 1, not
        centred), ``"inner"`` (rows as they are), ``"euclidean"``.
    score
        ``"overlap"``: |intersection| / k. ``"jaccard"``: |intersection| / |union|.
    groups
        [sample] the unit of each row, for the standard error.

    Returns
    -------
    Result
        ``.chance`` is k / (n - 1) (its expectation; of the Jaccard score to first order). ``.stderr`` takes the
        samples' shares as independent; since they share neighbours it is too small, about 0.7 to 0.9 of the spread.

    References
    ----------
    Huh et al. 2024 (Platonic), appendix A.
    """
    rows = paired(x, y)
    n = len(rows[0])
    if score not in ("overlap", "jaccard"):
        raise InputError(f"score={score!r}; it is 'overlap' or 'jaccard'")
    a, b = nearest_rows(x, k=k, closeness=closeness), nearest_rows(y, k=k, closeness=closeness)
    common = (a[:, :, None] == b[:, None, :]).any(2).sum(1).double()
    share = common / k if score == "overlap" else common / (2 * k - common)
    expected = k / (n - 1)
    return outcome(
        "mutual k-NN", float(share.mean()), n=n, d=(rows[0].shape[1], rows[1].shape[1]),
        stderr=clustered(share, groups),
        chance=expected if score == "overlap" else expected / (2 - expected),
        convention=f"{score} of {k} nearest neighbours by {closeness}, self excluded",
        provenance={"k": k},
    )  # fmt: skip


def cknna(
    x: Rows,
    y: Rows,
    *,
    k: int = 10,
    compat: str | None = None,
    groups: Groups = None,
    n_blocks: int = 8,
    n_permutations: int = 5,
) -> Result:
    """CKA that counts only pairs which are near neighbours on both sides.

    HSIC_1 of the Gram matrices of rows at length 1, masked to the pairs (i, j) with j among the ``k`` nearest of i on
    both sides (each self-similarity: on its own side).

    Parameters
    ----------
    k
        Neighbours, at least 2; n - 1 gives debiased CKA.
    compat
        ``"platonic"``: rows as they are, and 1e-6 added to the denominator.
    groups, n_blocks
        Jackknife, as for :func:`interp.metrics.cka`; neighbours are found anew among the rows that are left.
    n_permutations
        ``.chance`` is the mean over this many permutations of y's rows (0 for k = n - 1, where it is exact).

    Notes
    -----
    Cost: O(n^2 (d + e)) for the value, each block and each permutation; O(n^2) memory.

    References
    ----------
    Huh et al. 2024 (Platonic), eq. 12 and following.
    """
    known_compat(compat, "platonic")
    if k < 2:
        raise InputError(f"k = {k}; CKNNA needs at least 2 neighbours")
    a, b = paired(x, y, center=False)
    n = len(a)
    closeness = "inner" if compat else "cosine"
    value = _masked_alignment(a, b, k, compat)
    reason = None if np.isfinite(value) else "the masked self-similarity is not positive at this n and k"
    generator, chance = torch.Generator().manual_seed(0), 0.0
    if k < n - 1:
        orders = [torch.randperm(n, generator=generator) for _ in range(n_permutations)]
        null = [_masked_alignment(a, b[order], k, compat) for order in orders]
        chance = float(np.nanmean(null)) if np.isfinite(null).any() else None

    def left(kept: Tensor) -> float:
        return _masked_alignment(a[kept], b[kept], min(k, len(kept) - 1), compat)

    return outcome(
        "CKNNA", value, n=n, d=(a.shape[1], b.shape[1]), reason=reason, chance=chance,
        stderr=None if reason else leave_out(left, n, n_blocks=n_blocks, groups=groups),
        no_chance="no permutation was asked for, or none gives a value",
        convention=f"HSIC_1 over common {k} nearest neighbours, {closeness}" + (" (compat platonic)" if compat else ""),
        provenance={"k": k},
    )  # fmt: skip


def _masked_alignment(a: Tensor, b: Tensor, k: int, compat: str | None) -> float:
    """nan where a self-similarity is not positive."""
    n, closeness = len(a), "inner" if compat else "cosine"
    near = [nearest_rows(side, k=k, closeness=closeness) for side in (a, b)]
    if compat is None:
        a, b = (side / side.norm(dim=1, keepdim=True) for side in (a, b))
    masks = [torch.zeros(n, n, dtype=torch.float64).scatter_(1, which, 1.0) for which in near]
    grams = [a @ a.T, b @ b.T]
    scores = [
        _hsic_any(masks[i] * masks[j] * grams[i], masks[i] * masks[j] * grams[j])
        for i, j in ((0, 1), (0, 0), (1, 1))
    ]
    scale = scores[1] * scores[2]
    if not float(scale) > 0:
        return float("nan")
    return float(scores[0] / (scale.sqrt() + (1e-6 if compat else 0.0)))


def _hsic_any(k: Tensor, m: Tensor) -> Tensor:
    """HSIC_1 of matrices that need not be symmetric (masks of nearest neighbours are not): Song et al. 2012, eq. 5."""
    n = len(k)
    k, m = (a - torch.diag(a.diagonal()) for a in (k, m))
    mixed = k.sum(0) @ m.sum(1)
    return ((k * m.T).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * mixed) / (n * (n - 3))
