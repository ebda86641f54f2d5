"""Subspaces: canonical correlations and the Procrustes distance of two representations of the same samples.

All of them read three scatter matrices, from rows or from a Moments. CCA sees neither rotation nor any invertible
map; Procrustes sees everything but rotation, scale and shift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import NO_PARTS, known_compat, outcome
from interp.metrics.rows import Data, Groups, constant, jackknife, jackknife_blocks, paired, plain_rows
from interp.moments.accumulator import SiteMoments, need_pair
from interp.moments.sums import Sums
from interp.results import Result

__all__ = ["angular_distance", "cca", "procrustes", "pwcca", "svcca"]

_BIAS = "canonical correlations of unrelated data are far above 0 (see chance)"
_OVERFIT = "n <= d_x + d_y: the canonical correlations are 1 whatever the data"
_CONSTANT = "a representation is constant over the samples"
_PERMUTATIONS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Scatter:
    """Centred scatter matrices of two sides; ``tol`` is the share of the top eigenvalue below which one is rounding."""

    n: int
    xx: Float64[Tensor, "d d"]
    yy: Float64[Tensor, "e e"]
    xy: Float64[Tensor, "d e"]
    tol: float


Statistic = Callable[[Scatter], float]


def _subsets(
    x: Data, y: Data, n_blocks: int, groups: Groups
) -> tuple[list[Scatter], list[Scatter], int, bool]:
    """Scatter of all rows and of each left-out subset, that of permuted rows, the number of blocks, constancy."""
    if isinstance(x, SiteMoments) and isinstance(y, SiteMoments):
        need_pair(x, y)
        tol = 1e-12 if x.moments.config.products == "float64" else 1e-6

        def of(sums: Sums) -> Scatter:
            fx, fy, n = sums["first", x.site], sums["first", y.site], sums[("n",)]
            xx, yy, xy = (sums.second(a, b) - torch.outer(fa, fb) / n for a, fa, b, fb in (
                (x.site, fx, x.site, fx), (y.site, fy, y.site, fy), (x.site, fx, y.site, fy)))  # fmt: skip
            return Scatter(sums.n, xx, yy, xy, tol)

        made = [of(sums) for sums in (x.moments.sums, *x.moments.left_out())]
        flat = min(float(made[0].xx.trace()), float(made[0].yy.trace())) <= 0
        return made, [], len(made) - 1, flat
    a, b = paired(plain_rows(x, "x", "this"), plain_rows(y, "y", "this"))
    blocks = jackknife_blocks(len(a), n_blocks, groups)
    tol = max(len(a), a.shape[1], b.shape[1]) * torch.finfo(torch.float64).eps
    whole = Scatter(len(a), a.T @ a, b.T @ b, a.T @ b, tol)
    made = [whole]
    for block in blocks:
        p, q, m = a[block], b[block], len(a) - len(block)
        sp, sq = p.sum(0), q.sum(0)  # centred rows sum to 0, so the rest sums to their opposite
        xx, yy, xy = (s - u.T @ v - torch.outer(su, sv) / m for s, u, v, su, sv in (
            (whole.xx, p, p, sp, sp), (whole.yy, q, q, sq, sq), (whole.xy, p, q, sp, sq)))  # fmt: skip
        made.append(Scatter(m, xx, yy, xy, tol))
    generator = torch.Generator().manual_seed(0)
    shuffled = [
        Scatter(len(a), whole.xx, whole.yy, a.T @ b[torch.randperm(len(a), generator=generator)], tol)
        for _ in range(_PERMUTATIONS)
    ]
    return made, shuffled, len(blocks), constant(a, x) or constant(b, y)  # type: ignore[arg-type]


def _measure(
    x: Data, y: Data, of: Statistic, name: str, convention: str, *, n_blocks: int, groups: Groups, **fields
) -> Result:
    """The statistic, its jackknife error, and its mean over permuted rows."""
    overfits = fields.pop("overfits", False)
    made, shuffled, count, flat = _subsets(x, y, n_blocks, groups)
    whole = made[0]
    widths = (whole.xx.shape[0], whole.yy.shape[0])
    reason = _CONSTANT if flat else None
    if overfits and not flat and whole.n <= sum(_rank(s, whole.tol) for s in (whole.xx, whole.yy)) + 1:
        reason = _OVERFIT
    value, stderr, chance = float("nan"), None, None
    if reason is None:
        value = of(whole)
        stderr = float(jackknife(torch.tensor([of(s) for s in made[1:]]).double())) if count else None
        chance = float(np.mean([of(s) for s in shuffled])) if shuffled else None
    error = f"; jackknife over {count} blocks of rows" if count else ""
    alone = {"no_stderr": NO_PARTS} if isinstance(x, SiteMoments) else {}
    return outcome(
        name, value, n=whole.n, d=widths, stderr=stderr, chance=chance, reason=reason,
        convention=f"{convention}; float64{error}", bias=_BIAS if overfits else "",
        no_chance="moments hold no rows to permute" if isinstance(x, SiteMoments) else reason or "", **alone, **fields,
    )  # fmt: skip


def _rank(scatter: Tensor, tol: float) -> int:
    eig = torch.linalg.eigvalsh(scatter)
    return int((eig > tol * eig[-1]).sum())


def _whitener(scatter: Tensor, tol: float, variance: float = 1.0) -> Float64[Tensor, "d k"]:
    """W with W'SW = 1 on the directions that are not rounding, the top ones holding ``variance`` of the trace."""
    eig, vectors = torch.linalg.eigh(scatter)
    eig, vectors = eig.flip(0), vectors.flip(1)
    keep = eig > tol * eig[0]
    if variance < 1:
        share = eig.cumsum(0) / eig.sum()
        keep &= torch.cat([share.new_zeros(1), share[:-1]]) < variance
    return vectors[:, keep] / eig[keep].sqrt()


def _correlations(s: Scatter, variance: float = 1.0) -> Float64[Tensor, "k"]:
    wx, wy = (_whitener(m, s.tol, variance) for m in (s.xx, s.yy))
    return torch.linalg.svdvals(wx.T @ s.xy @ wy)


def cca(
    x: Data,
    y: Data,
    *,
    summary: str = "mean",
    compat: str | None = None,
    groups: Groups = None,
    n_blocks: int = 8,
) -> Result:
    """Mean canonical correlation of two representations of the same samples.

    Parameters
    ----------
    x, y
        [sample, d] and [sample, e], or two sites of one Moments with their cross block.
    summary
        ``"mean"``: mean r. ``"r2"``: mean r^2 (Yanai's measure, R^2_CCA).
    compat
        ``"svcca"``: the published SVCCA code's mean, which drops the trailing correlations behind 98% of their sum.
    groups, n_blocks
        Jackknife, as for :func:`interp.metrics.cka`.

    Returns
    -------
    Result
        ``.value`` in [0, 1], invariant to any invertible linear map and shift; ``.chance`` over permuted rows (of
        ``"r2"`` its expectation max(d, e) / (n - 1)). nan with a reason where n <= d + e.

    References
    ----------
    Raghu et al. 2017; Morcos et al. 2018; Kornblith et al. 2019, section 4.
    """
    known_compat(compat, "svcca")
    if summary not in ("mean", "r2"):
        raise InputError(f"summary={summary!r}; it is 'mean' or 'r2'")

    def of(s: Scatter) -> float:
        r = _correlations(s)
        if summary == "r2":
            return float(r.square().mean())
        return float(r[: _cropped(r)].mean() if compat == "svcca" else r.mean())

    what = "mean canonical correlation" if summary == "mean" else "mean squared canonical correlation"
    crop = ", trailing ones behind 98% of their sum dropped (compat svcca)" if compat else ""
    return _measure(x, y, of, "CCA", what + crop, n_blocks=n_blocks, groups=groups, overfits=True)


def _cropped(r: Tensor) -> int:
    """How many leading correlations the published code averages: the first count that holds 98% of the sum."""
    held = torch.cat([r.new_zeros(1), r.cumsum(0)]) / r.sum()
    return int(torch.nonzero(held >= 0.98)[0])


def svcca(x: Data, y: Data, *, variance: float = 0.99, groups: Groups = None, n_blocks: int = 8) -> Result:
    """:func:`cca` after each side is cut to its top principal components holding ``variance`` of its variance.

    Not invariant to a general linear map, since the cut is not.

    References
    ----------
    Raghu et al. 2017.
    """
    if not 0 < variance <= 1:
        raise InputError(f"variance={variance}; a share between 0 and 1")
    return _measure(
        x, y, lambda s: float(_correlations(s, variance).mean()), "SVCCA",
        f"mean canonical correlation of the components holding {variance:g} of the variance (sum of s^2)",
        n_blocks=n_blocks, groups=groups, overfits=True,
    )  # fmt: skip


def pwcca(x: Data, y: Data, *, compat: str | None = None, groups: Groups = None, n_blocks: int = 8) -> Result:
    """Canonical correlations weighted by how much of ``x`` each canonical variate accounts for.

    Weights w_i = sum_j |<h_i, x_j>| with h_i the unit canonical variate of ``x`` and x_j its columns. Asymmetric.

    Parameters
    ----------
    compat
        ``"svcca"``: the published code, whose variates lack the whitening factor. ``"repsim"``: the mean of both
        directions.

    References
    ----------
    Morcos et al. 2018, eq. 2.
    """
    known_compat(compat, "svcca", "repsim")

    def one_way(s: Scatter) -> float:
        wx, wy = (_whitener(m, s.tol) for m in (s.xx, s.yy))
        u, r, _ = torch.linalg.svd(wx.T @ s.xy @ wy, full_matrices=False)
        if compat == "svcca":
            # symmetric whitening, then variates u' W^-1/2 left unwhitened and orthonormalised in the sample space
            eig, v = torch.linalg.eigh(s.xx)
            root = v / eig.sqrt() @ v.T
            eiy, vy = torch.linalg.eigh(s.yy)
            u, r, _ = torch.linalg.svd(root @ s.xy @ (vy / eiy.sqrt() @ vy.T), full_matrices=False)
            lower = torch.linalg.cholesky(u.T @ s.xx @ u)
            loads = torch.linalg.solve_triangular(lower, u.T @ s.xx, upper=False)
        else:
            loads = (wx @ u).T @ s.xx  # <h_i, x_j> for all i, j
        weights = loads.abs().sum(1)
        return float((weights * r).sum() / weights.sum())

    def of(s: Scatter) -> float:
        if compat != "repsim":
            return one_way(s)
        return (one_way(s) + one_way(Scatter(s.n, s.yy, s.xx, s.xy.T, s.tol))) / 2

    how = {
        None: "weights from x",
        "svcca": "unwhitened variates (compat svcca)",
        "repsim": "mean of both directions",
    }
    return _measure(
        x, y, of, "PWCCA", f"projection-weighted canonical correlation, {how[compat]}", n_blocks=n_blocks,
        groups=groups, overfits=True,
    )  # fmt: skip


def _nuclear(s: Scatter) -> float:
    return float(torch.linalg.matrix_norm(s.xy, "nuc") / (s.xx.trace() * s.yy.trace()).sqrt())


def procrustes(x: Data, y: Data, *, groups: Groups = None, n_blocks: int = 8) -> Result:
    """Squared Procrustes distance 2 - 2 |Xc'Yc|_* of the centred sides at unit Frobenius norm.

    0: the same up to rotation, scale and shift; at most 2. The narrower side counts as padded with zeros.
    (scipy's disparity is 1 - |Xc'Yc|_*^2.) Parameters as for :func:`cca`.

    References
    ----------
    Williams et al. 2021; Ding et al. 2021.
    """
    return _measure(
        x, y, lambda s: 2 - 2 * _nuclear(s), "Procrustes distance",
        "squared, 2 - 2 |Xc'Yc|_* at unit Frobenius norm", n_blocks=n_blocks, groups=groups,
    )  # fmt: skip


def angular_distance(x: Data, y: Data, *, groups: Groups = None, n_blocks: int = 8) -> Result:
    """The angle arccos |Xc'Yc|_* in radians: the shape metric, which obeys the triangle inequality.

    Parameters as for :func:`cca`. References: Williams et al. 2021, eq. 6.
    """

    def of(s: Scatter) -> float:
        cosine = _nuclear(s)
        if cosine > 1 + 1e-9:
            raise InputError(
                f"|Xc'Yc|_* = {cosine} exceeds 1: the cross block does not belong to these sites"
            )
        return float(np.arccos(min(cosine, 1.0)))  # above 1 by rounding alone

    return _measure(
        x, y, of, "angular shape distance", "arccos |Xc'Yc|_* at unit Frobenius norm, radians",
        n_blocks=n_blocks, groups=groups,
    )  # fmt: skip
