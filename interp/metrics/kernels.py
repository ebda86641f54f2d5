"""Kernels: CKA with a Gaussian kernel, and the rule for its width, which decides the value."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import known_compat, outcome
from interp.metrics.hsic import gram_sides, hsic
from interp.metrics.pairs import CONSTANT, TOO_FEW, ratio_of
from interp.metrics.rows import Groups, Rows, constant, jackknife, jackknife_blocks, paired
from interp.results import Result

__all__ = ["cka_rbf"]


def cka_rbf(
    x: Rows,
    y: Rows,
    *,
    bandwidth: Literal["median", "mean"] | float = "median",
    fraction: float = 1.0,
    unbiased: bool = False,
    compat: str | None = None,
    groups: Groups = None,
    n_blocks: int = 16,
) -> Result:
    """Centred kernel alignment with Gaussian kernels exp(-|x_i - x_j|^2 / (2 s^2)).

    Parameters
    ----------
    x, y
        [sample, d_x] and [sample, d_y]; at least 4 samples.
    bandwidth
        The rule for s on each side: s^2 = ``fraction`` x the median (or mean) of the squared distances over i < j, or
        a number: s itself. The rule decides the value, and libraries differ; it stands in ``.convention``.
    unbiased
        HSIC_1 instead of the biased form. ``.chance``: 0, or that of rows permuted.
    compat
        ``"platonic"``: s = 1 whatever the data (the kernel is the identity in high dimension, the value 1).

    Notes
    -----
    Cost: O(n^2 d) time, O(n^2) memory.

    References
    ----------
    Kornblith et al. 2019, section 3.
    """
    known_compat(compat, "platonic")
    if compat == "platonic":
        bandwidth = 1.0
    rows = paired(x, y)
    n = len(rows[0])
    blocks = jackknife_blocks(n, n_blocks, groups)
    value, stderr, reason, chance = float("nan"), None, CONSTANT, 0.0 if unbiased else None
    scales = [float("nan"), float("nan")]
    if not any(constant(a, raw) for a, raw in zip(rows, (x, y), strict=True)):
        kernels = []
        for i, a in enumerate(rows):
            squared = torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist").square()
            scales[i] = _bandwidth(squared, bandwidth, fraction)
            kernels.append(torch.exp(squared / (-2 * scales[i] ** 2)))
        chance = 0.0 if unbiased else _unrelated(*kernels)
        left, right = gram_sides(kernels, blocks, unbiased=unbiased)
        pairs = ((left, right), (left, left), (right, right))
        ratio = ratio_of(*(hsic(a, b, unbiased=unbiased) for a, b in pairs))
        value, reason = float(ratio[0]), None if bool(torch.isfinite(ratio[0])) else TOO_FEW
        stderr = float(jackknife(ratio[1:])) if blocks else None
    rule = (
        f"s^2 = {fraction:g} x {bandwidth} squared distance"
        if isinstance(bandwidth, str)
        else f"s = {bandwidth:g}"
    )
    return outcome(
        "RBF CKA",
        value,
        n=n,
        d=(rows[0].shape[1], rows[1].shape[1]),
        stderr=stderr,
        reason=reason,
        chance=chance,
        convention=f"Gaussian kernel, {rule}; {'debiased HSIC_1' if unbiased else 'biased'}; float64",
        provenance={"s": scales, "unbiased": unbiased},
    )


def _unrelated(k: Tensor, m: Tensor, *, n_permutations: int = 5) -> float:
    """Biased kernel alignment where the rows of one side are permuted, on average."""
    k, m = (a - a.mean(0) - a.mean(1, keepdim=True) + a.mean() for a in (k, m))
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(n_permutations):
        order = torch.randperm(len(k), generator=generator)
        total += float((k * m[order][:, order]).sum() / (k.norm() * m.norm()))
    return total / n_permutations


def _bandwidth(squared: Tensor, rule: str | float, fraction: float) -> float:
    if not isinstance(rule, str):
        return float(rule)
    if rule not in ("median", "mean"):
        raise InputError(f"bandwidth={rule!r}; it is 'median', 'mean' or a number")
    upper = torch.triu_indices(len(squared), len(squared), 1)
    distances = squared[upper[0], upper[1]]
    middle = distances.median() if rule == "median" else distances.mean()
    return float((fraction * middle).sqrt())
