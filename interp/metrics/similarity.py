"""Similarity: are two representations of the same samples the same up to rotation and scale?

Linear CKA, exact and in feature space: everything comes from d x d cross-products in float64, so memory does not grow
with n^2, and the debiased form costs what the biased one does. Read next: ``spectral.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.errors import InputError
from interp.metrics.rows import Rows, blocks_of, jackknife, rows64
from interp.results import Result
from interp.sites import Site

__all__ = ["cka", "cka_matrix"]

_CONSTANT = "a representation is constant over the samples: CKA is 0/0"
_TOO_FEW = "the debiased self-similarity is not positive at this n: too few samples for so many dimensions"


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One representation and the sums over each block's rows that no partner changes."""

    rows: Float64[Tensor, "sample d"]
    norms: Float64[Tensor, "sample"]
    """k_i = |x_i|^2, the diagonal of the Gram matrix."""
    sums: Float64[Tensor, "block d"]
    norm_sums: Float64[Tensor, "block"]


def _side(rows: Float64[Tensor, "sample d"], blocks: Sequence[Tensor]) -> _Side:
    norms = rows.square().sum(1)
    return _Side(
        rows,
        norms,
        torch.stack([rows[b].sum(0) for b in blocks]),
        torch.stack([norms[b].sum() for b in blocks]),
    )


def _hsic(x: _Side, y: _Side, blocks: Sequence[Tensor], *, unbiased: bool) -> Float64[Tensor, "subset"]:
    """HSIC of the two linear kernels on all rows, then with each block left out.

    Biased: |Xc'Yc|_F^2. Debiased: HSIC_1 of Song et al. 2012 (eq. 5), by the identities
    tr(K~L~) = |C|^2 - k.l;  1'K~1 = |sx|^2 - sum k;  1'K~L~1 = sx'C sy - sx'(X'l) - sy'(Y'k) + k.l,
    with C = X'Y, k_i = |x_i|^2, l_i = |y_i|^2 and sx, sy the column sums. All are sums over rows,
    so a block is left out by subtracting its own.
    """
    cross = [x.rows[b].T @ y.rows[b] for b in blocks]
    x_by_l = torch.stack([x.rows[b].T @ y.norms[b] for b in blocks])
    y_by_k = torch.stack([y.rows[b].T @ x.norms[b] for b in blocks])
    k_by_l = torch.stack([x.norms[b] @ y.norms[b] for b in blocks])
    total = torch.stack(cross).sum(0)
    out = []
    for left in [None, *range(len(blocks))]:

        def rest(parts: Tensor, left: int | None = left) -> Tensor:
            whole = parts.sum(0)
            return whole if left is None else whole - parts[left]

        n = len(x.rows) - (0 if left is None else len(blocks[left]))
        c = total if left is None else total - cross[left]
        sx, sy = rest(x.sums), rest(y.sums)
        if not unbiased:
            out.append((c - torch.outer(sx, sy) / n).square().sum())
            continue
        kl = rest(k_by_l)
        trace = c.square().sum() - kl
        ones = (sx.square().sum() - rest(x.norm_sums)) * (sy.square().sum() - rest(y.norm_sums))
        mixed = sx @ c @ sy - sx @ rest(x_by_l) - sy @ rest(y_by_k) + kl
        out.append((trace + ones / ((n - 1) * (n - 2)) - 2 / (n - 2) * mixed) / (n * (n - 3)))
    return torch.stack(out)


def _ratio(xy: Tensor, xx: Tensor, yy: Tensor) -> tuple[float, float | None, str | None]:
    """CKA and its standard error from HSIC on all rows (first) and on each left-out subset, or why there is none."""
    if min(float(xx[0]), float(yy[0])) <= 0:
        return float("nan"), None, _TOO_FEW
    values = xy / (xx * yy).sqrt()
    spread = jackknife(values[1:])  # not finite where a left-out subset is too small to be estimated itself
    return float(values[0]), float(spread) if bool(torch.isfinite(spread)) else None, None


def _constant(rows: Tensor, scale: float) -> bool:
    # what remains of a constant column after its mean was taken away is rounding, not signal
    return bool(rows.abs().max() <= 1e-12 * max(scale, 1e-300))


def _convention(unbiased: bool, n_blocks: int) -> str:
    form = (
        "debiased HSIC_1 (Song et al. 2012), may be negative"
        if unbiased
        else "biased, centred (Kornblith et al. 2019)"
    )
    return f"linear kernel, {form}; float64; standard error: jackknife over {n_blocks} blocks of rows"


def cka(
    x: Rows,
    y: Rows,
    *,
    unbiased: bool = True,
    groups: Sequence[int] | Tensor | np.ndarray | None = None,
    n_blocks: int = 16,
) -> Result:
    """Linear centred kernel alignment of two representations of the same samples.

    Assumes row i of ``x`` and row i of ``y`` stand for the same sample. Invariant to rotation, isotropic scale and
    shift of either side; not to a general linear map.

    Parameters
    ----------
    x, y
        [sample, d_x] and [sample, d_y], any float type; at least 4 samples.
    unbiased
        True: ratio of debiased HSIC estimates, near 0 for unrelated data at any n, and possibly negative.
        False: the biased form, in [0, 1], which for unrelated isotropic data is about d / (n + d), not 0.
    groups
        [sample] which text (or other unit) each row came from: the standard error then leaves out whole groups.
    n_blocks
        Jackknife blocks; contiguous rows where no ``groups`` are given.

    Returns
    -------
    Result
        ``.value``, ``.stderr``, ``.chance`` (0 debiased; d_x d_y-dependent figure of unrelated isotropic data biased).
        For constant data ``.value`` is nan and ``.reason`` says so.

    Raises
    ------
    InputError
        Rows differ in number, are fewer than 4, or hold NaN.

    Notes
    -----
    n d_x d_y multiplications and O(n_blocks d_x d_y) memory; no forward pass.

    References
    ----------
    Kornblith et al. 2019, eq. 4; Song et al. 2012, eq. 5; Nguyen et al. 2021.
    """
    sides = [rows64(x, "x"), rows64(y, "y")]
    n = len(sides[0])
    if len(sides[1]) != n:
        raise InputError(
            f"x has {n} samples and y has {len(sides[1])}; row i of both must stand for the same sample"
        )
    blocks = _blocks(n, n_blocks, groups)
    value, stderr, reason = float("nan"), None, _CONSTANT
    scales = [float(torch.as_tensor(a).abs().max()) for a in (x, y)]
    if not any(_constant(side, scale) for side, scale in zip(sides, scales, strict=True)):
        left, right = (_side(_unit(side), blocks) for side in sides)
        pairs = ((left, right), (left, left), (right, right))
        value, stderr, reason = _ratio(*(_hsic(a, b, blocks, unbiased=unbiased) for a, b in pairs))
    widths = [side.shape[1] for side in sides]
    return Result(
        name="linear CKA",
        value=value,
        stderr=stderr,
        n=n,
        reason=reason,
        convention=_convention(unbiased, len(blocks)),
        chance=0.0 if unbiased else _biased_chance(n, *widths),
        provenance={"d": widths, "n_over_d": n / max(widths), "unbiased": unbiased},
    )


def cka_matrix(
    acts_by_site: Mapping[str, Rows] | Mapping[Site, Rows],
    *,
    unbiased: bool = True,
    groups: Sequence[int] | Tensor | np.ndarray | None = None,
    n_blocks: int = 16,
) -> Result:
    """:func:`cka` of every pair of sites: a symmetric matrix [site, site] with its standard errors.

    Parameters
    ----------
    acts_by_site
        Site -> rows [sample, d]; the same samples at every site, widths may differ.
    unbiased, groups, n_blocks
        As for :func:`cka`.

    Raises
    ------
    InputError
        Fewer than two sites, or sites with different numbers of rows.
    """
    names = tuple(str(site) for site in acts_by_site)
    if len(names) < 2:
        raise InputError(f"a similarity matrix needs at least two sites; got {list(names)}")
    rows = {name: rows64(x, name) for name, x in zip(names, acts_by_site.values(), strict=True)}
    counts = {name: len(x) for name, x in rows.items()}
    n = counts[names[0]]
    if len(set(counts.values())) > 1:
        raise InputError(f"sites hold different numbers of samples: {counts}")
    blocks = _blocks(n, n_blocks, groups)
    constant = {
        name: _constant(rows[name], float(torch.as_tensor(x).abs().max()))
        for name, x in zip(names, acts_by_site.values(), strict=True)
    }
    sides = {name: _side(x if constant[name] else _unit(x), blocks) for name, x in rows.items()}
    own = {name: _hsic(side, side, blocks, unbiased=unbiased) for name, side in sides.items()}
    value, stderr = np.full((2, len(names), len(names)), np.nan)
    reasons = set()
    for i, a in enumerate(names):
        for j, b in enumerate(names[: i + 1]):
            if constant[a] or constant[b]:
                reasons.add(f"{a if constant[a] else b}: {_CONSTANT}")
                continue
            cross = own[a] if a == b else _hsic(sides[a], sides[b], blocks, unbiased=unbiased)
            value[i, j], spread, why = _ratio(cross, own[a], own[b])
            stderr[i, j] = np.nan if spread is None else spread
            value[j, i], stderr[j, i] = value[i, j], stderr[i, j]
            reasons |= set() if why is None else {f"{a} with {b}: {why}"}
    widths = [x.shape[1] for x in rows.values()]
    return Result(
        name="linear CKA",
        value=value,
        stderr=stderr,
        n=n,
        axes=("site", "site"),
        ticks=(names, names),
        convention=_convention(unbiased, len(blocks)),
        chance=0.0 if unbiased else np.array([[_biased_chance(n, p, q) for q in widths] for p in widths]),
        reason="; ".join(sorted(reasons)) or None,
        provenance={"d": widths, "n_over_d": n / max(widths), "unbiased": unbiased},
    )


def _blocks(n: int, n_blocks: int, groups: Sequence[int] | Tensor | np.ndarray | None) -> list[Tensor]:
    if n_blocks < 2:
        raise InputError(f"n_blocks = {n_blocks}; a jackknife needs at least 2")
    # a left-out subset must itself allow HSIC_1, which divides by n - 3
    return blocks_of(n, min(n_blocks, max(2, n // 4)) if n >= 8 else n, groups)


def _unit(rows: Float64[Tensor, "sample d"]) -> Float64[Tensor, "sample d"]:
    """Scaled to a root-mean-square row norm of 1: CKA ignores scale, and fourth powers stay in range."""
    return rows / rows.square().sum(1).mean().sqrt()


def _biased_chance(n: int, d_x: int, d_y: int) -> float:
    """Biased CKA expected of unrelated isotropic Gaussian rows, to first order: for d_x = d_y = d it is d / (n + d)."""
    return float(np.sqrt(d_x / (n + d_x) * d_y / (n + d_y)))
