"""Erasure: the least change of activations after which no linear probe can read a concept from them (LEACE).

:func:`leace` reads rows, or a Moments that passed over any number of sites once. What it returns says what it achieved:
the covariance left, the change made, the canonical correlations found. Read next: ``auditing.py``, ``nullspaces.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from interp.edits import Edit, edit
from interp.errors import InputError
from interp.moments.accumulator import SiteMoments, need_pair
from interp.showing import Shown
from interp.sites import Site

__all__ = ["Eraser", "Joint", "joint_of", "leace", "targets"]

Rows = TypeVar("Rows", Tensor, np.ndarray)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Eraser(Shown):
    """An affine map x - L R (x - mean), of rank ``len(R)``; call it on rows [..., d].

    Arithmetic is float64; type and device follow the input.
    """

    mean: np.ndarray
    left: np.ndarray
    """[d, rank] L."""
    right: np.ndarray
    """[rank, d] R."""
    method: str
    left_over: float
    """Largest |correlation| of a column of x with a column of z after erasure, on what the eraser was fitted on."""
    before: float
    """The same before."""
    distortion: float
    """Mean squared change of a row, sum over d."""
    variance: float
    """Mean squared distance of a row from the mean: what ``distortion`` is a part of."""
    n: int
    correlations: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Canonical correlations of x and z that were erased (for LEACE)."""

    @property
    def rank(self) -> int:
        """Directions that are changed."""
        return len(self.right)

    def __call__(self, x: Rows) -> Rows:
        """The rows with the concept erased."""
        if x.shape[-1] != len(self.mean):
            raise InputError(f"this eraser is of width {len(self.mean)}; got rows {list(x.shape)}")
        if isinstance(x, Tensor):
            mean, left, right = (
                torch.as_tensor(a, dtype=torch.float64, device=x.device)
                for a in (self.mean, self.left, self.right)
            )
            return (x.double() - (x.double() - mean) @ right.T @ left.T).to(x.dtype)
        return (x - (x - self.mean) @ self.right.T @ self.left.T).astype(x.dtype, copy=False)

    def edit(self, sites: str | Site, **where: Any) -> Edit:
        """The eraser as an edit of a model's forward pass; ``where`` as for :func:`interp.edit` (position, row)."""
        return edit(sites, self, name=f"erase[{self.method}]", **where)

    def _facts(self) -> dict[str, Any]:
        changed = self.distortion / self.variance if self.variance else 0.0
        said = {"method": self.method, "rank": f"{self.rank} of {len(self.mean)}", "n": self.n}
        said |= {"largest |correlation| before": self.before, "after": self.left_over}
        return said | {"variance changed": f"{changed:.3%}"}

    def __repr__(self) -> str:
        changed = self.distortion / self.variance if self.variance else 0.0
        return (
            f"Eraser({self.method}, rank {self.rank} of {len(self.mean)}, largest |corr| {self.before:.3g} -> "
            f"{self.left_over:.2g}, changes {changed:.3%} of the variance, n = {self.n})"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joint:
    """Centred second moments of rows x and concept z, sums over n rows, float64."""

    n: int
    mean: np.ndarray
    z_mean: np.ndarray
    xx: np.ndarray
    xz: np.ndarray
    zz: np.ndarray
    eps: float = float(np.finfo(np.float64).eps)
    """Rounding of the products."""

    def correlation(self, left: np.ndarray | None = None, right: np.ndarray | None = None) -> float:
        """Largest |cov(x', z)| / (sd x sd z), with x' = x - L R (x - mean)."""
        xz = self.xz if left is None or right is None else self.xz - left @ (right @ self.xz)
        sx, sz = np.sqrt(self.xx.diagonal()), np.sqrt(self.zz.diagonal())
        size = np.abs(xz) / np.where(sx > 0, sx, 1)[:, None] / np.where(sz > 0, sz, 1)
        return float(size.max()) if size.size else 0.0


def targets(z: Any) -> np.ndarray:
    """The concept as columns [sample, k]: classes become 0/1 columns, numbers stay.

    Raises
    ------
    InputError
        One class only, NaN, or a shape that is neither [sample] nor [sample, k].
    """
    values = np.asarray(z.detach().cpu() if isinstance(z, Tensor) else z)
    if values.ndim not in (1, 2) or values.size == 0:
        raise InputError(f"the concept is [sample] classes or [sample, k] numbers; got {list(values.shape)}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
        raise InputError(
            f"the concept holds NaN or infinity in {len(bad)} rows, the first of them row {bad[0]}"
        )
    if values.ndim == 2:
        return values.astype(np.float64)
    if values.dtype.kind == "f" and (values != np.round(values)).any():
        return values[:, None].astype(np.float64)
    names, codes = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"the concept has one class only ({names[0]}); there is nothing to erase")
    return (codes[:, None] == np.arange(len(names))).astype(np.float64)


def joint_of(x: Any, z: Any = None) -> Joint:
    """Moments of rows and concept: both given as rows, or a site of a Moments with its labels or its cross block."""
    if isinstance(x, SiteMoments):
        return _joint_of_moments(x, z)
    if z is None:
        raise InputError("rows were given without a concept; say z")
    rows, concept = matrix(x), targets(z)
    if len(rows) != len(concept):
        raise InputError(f"{len(concept)} concept values were given for {len(rows)} rows")
    mean, z_mean = rows.mean(0), concept.mean(0)
    xc, zc = rows - mean, concept - z_mean
    return Joint(n=len(rows), mean=mean, z_mean=z_mean, xx=xc.T @ xc, xz=xc.T @ zc, zz=zc.T @ zc)


def matrix(x: Any) -> np.ndarray:
    """Rows [sample, d] in float64."""
    rows = np.asarray(x.detach().cpu().double() if isinstance(x, Tensor) else x, dtype=np.float64)
    if rows.ndim != 2:
        raise InputError(f"rows are [sample, d]; got {list(rows.shape)}")
    if not np.isfinite(rows).all():
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        raise InputError(f"NaN or infinity in {len(bad)} rows, the first of them row {bad[0]}")
    return rows


def _joint_of_moments(x: SiteMoments, z: Any) -> Joint:
    eps = float(np.finfo(np.float32 if x.moments.config.products == "float32" else np.float64).eps)
    mean, xx = x.mean.cpu().numpy(), x.scatter.cpu().numpy()
    if isinstance(z, SiteMoments):
        need_pair(x, z)
        xz, zz = x.cross(z).cpu().numpy(), z.scatter.cpu().numpy()
        return Joint(n=x.n, mean=mean, z_mean=z.mean.cpu().numpy(), xx=xx, xz=xz, zz=zz, eps=eps)
    if z is not None:
        raise InputError(
            "with Moments the concept is another site of them (z=moments['z']) or their labels (no z)"
        )
    from probes.closed import Scatter

    one = Scatter.of_moments(x)
    if len(one.counts) < 2:
        raise InputError("the concept has one class only; there is nothing to erase")
    xz = (one.counts[:, None] * (one.means - one.mean)).T
    zz = np.diag(one.counts) - np.outer(one.counts, one.counts) / one.n
    return Joint(n=one.n, mean=mean, z_mean=one.counts / one.n, xx=xx, xz=xz, zz=zz, eps=eps)


def leace(x: Any, z: Any = None, *, rtol: float | None = None, orthogonal: bool = False) -> Eraser:
    """The affine map of least mean squared change after which x has no covariance with z.

    Then no linear probe of any convex loss does better than a constant. Directions are kept by their canonical
    correlation *relative* to the largest, so a weak concept is erased like a strong one.

    Parameters
    ----------
    x
        Rows [sample, d], or one site of a Moments (``products="float64"`` for the full exactness).
    z
        [sample] classes or [sample, k] numbers; for Moments another of their sites, or nothing: their labels.
    rtol
        Share of the largest canonical correlation (and of x's largest variance) below which a direction is rounding:
        1e-9 for float64 products, 1e-4 for float32.
    orthogonal
        Project out the span of cov(x, z) orthogonally instead: the same guarantee, more change.

    Notes
    -----
    r(x) = x - W^+ P W (x - mean), W = S_xx^(-1/2), P the projection on the columns of W S_xz. Cost: one pass and an
    eigendecomposition.

    References
    ----------
    Belrose et al. 2023, LEACE: perfect linear concept erasure in closed form, theorem 4.3.
    """
    joint = joint_of(x, z)
    share = rtol if rtol is not None else (1e-4 if joint.eps > 1e-10 else 1e-9)
    values, vectors = np.linalg.eigh(joint.xx)
    # float32 products are summed in float64, so their rounding does not grow with d
    floor = 10 * joint.eps if joint.eps > 1e-10 else max(share * 1e-3, len(values) * joint.eps)
    kept = values > floor * values[-1]
    root, basis = np.sqrt(values[kept]), vectors[:, kept]
    white = _whitened(joint.zz, share)
    turned = (basis.T @ joint.xz @ white) / root[:, None]
    u, s, _ = np.linalg.svd(turned, full_matrices=False)
    found = s > share * s.max(initial=0.0)
    u, s = u[:, found], s[found]
    if orthogonal:
        # the span of cov(x, z) itself, from the same directions so that both forms have one rank
        left = np.linalg.qr((basis * root) @ u)[0]
        right = left.T
    else:
        left, right = (basis * root) @ u, (u / root[:, None]).T @ basis.T
    return finished(joint, left, right, method="leace-orth" if orthogonal else "leace", correlations=s)


def finished(
    joint: Joint, left: np.ndarray, right: np.ndarray, *, method: str, correlations: Any = ()
) -> Eraser:
    """An Eraser with what it achieves on the moments it comes from."""
    inside = right @ joint.xx @ right.T
    return Eraser(
        mean=joint.mean,
        left=left,
        right=right,
        method=method,
        before=joint.correlation(),
        left_over=joint.correlation(left, right),
        distortion=float(np.einsum("dr,rs,ds->", left, inside, left)) / joint.n,
        variance=float(joint.xx.trace()) / joint.n,
        n=joint.n,
        correlations=np.asarray(correlations, dtype=float),
    )


def _whitened(scatter: np.ndarray, share: float) -> np.ndarray:
    """Columns A with A' scatter A = 1 on the directions of some variance (columns of one size first)."""
    size = np.sqrt(scatter.diagonal())
    size = np.where(size > 0, size, 1)
    values, vectors = np.linalg.eigh(scatter / size / size[:, None])
    kept = values > share * values[-1]
    return vectors[:, kept] / np.sqrt(values[kept]) / size[:, None]
