"""Erasers that are told the concept when they are used: the oracle form of LEACE, and the quadratic one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.showing import Shown
from probes.erasing import joint_of, matrix, targets

__all__ = ["OracleEraser", "QuadraticEraser", "oracle_leace", "quadratic_leace"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OracleEraser(Shown):
    """x - S_xz S_zz^+ (z - mean z): what a linear map of z predicts of x is taken away."""

    slope: np.ndarray
    """[d, k]"""
    z_mean: np.ndarray
    distortion: float
    left_over: float
    """Largest |correlation| with the concept on the rows it was fitted on."""
    classes: np.ndarray | None

    def __call__(self, x: np.ndarray, z: Any) -> np.ndarray:
        """The rows [sample, d] with their concept z taken out."""
        columns = _columns(z, self.classes, len(self.z_mean))
        return (np.asarray(x) - (columns - self.z_mean) @ self.slope.T).astype(np.asarray(x).dtype)


def oracle_leace(x: Any, z: Any) -> OracleEraser:
    """The map r(x, z) of least mean squared change without covariance with z: a lower bound for every other eraser.

    References
    ----------
    Belrose et al. 2023, theorem 4.4 (oracle LEACE).
    """
    joint = joint_of(x, z)
    slope = np.linalg.lstsq(joint.zz, joint.xz.T, rcond=1e-12)[0].T
    rest = joint.xz - slope @ joint.zz
    sx, sz = np.sqrt(joint.xx.diagonal()), np.sqrt(joint.zz.diagonal())
    size = np.abs(rest) / np.where(sx > 0, sx, 1)[:, None] / np.where(sz > 0, sz, 1)
    return OracleEraser(
        slope=slope,
        z_mean=joint.z_mean,
        distortion=float(np.einsum("dk,kl,dl->", slope, joint.zz, slope)) / joint.n,
        left_over=float(size.max()),
        classes=_classes(z),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class QuadraticEraser(Shown):
    """Each class is carried onto one Gaussian, the barycentre of all: x -> A_k (x - mean_k) + mean."""

    maps: np.ndarray
    """[class, d, d]"""
    means: np.ndarray
    mean: np.ndarray
    classes: np.ndarray
    distortion: float
    left_over: float
    """Largest difference of two covariances after erasure, as a share of the barycentre's largest eigenvalue."""

    def __call__(self, x: np.ndarray, z: Any) -> np.ndarray:
        """The rows [sample, d] of classes z, alike in mean and covariance."""
        rows, codes = np.asarray(x), _codes(z, self.classes)
        moved = np.empty(rows.shape)
        for k in range(len(self.classes)):
            moved[codes == k] = (rows[codes == k] - self.means[k]) @ self.maps[k].T + self.mean
        return moved.astype(rows.dtype)


def quadratic_leace(x: Any, z: Any, *, n_steps: int = 200, tol: float = 1e-12) -> QuadraticEraser:
    """The map r(x, z) of least change after which classes differ in neither mean nor covariance.

    No quadratic probe can then tell them apart. Classes need more rows than columns.

    Raises
    ------
    InputError
        A class has no more rows than columns, so its covariance cannot be carried.

    References
    ----------
    Belrose et al. 2023, appendix on quadratic erasure; Alvarez-Esteban et al. 2016 (barycentre by fixed point).
    """
    rows = matrix(x)
    classes, codes = np.unique(np.asarray(z), return_inverse=True)
    targets(z)  # refuses a concept of one class
    counts = np.bincount(codes)
    if counts.min() <= rows.shape[1]:
        k = int(counts.argmin())
        raise InputError(
            f"class {classes[k]} has {counts[k]} rows for {rows.shape[1]} columns; its covariance is singular"
        )
    groups = [rows[codes == k] for k in range(len(classes))]
    means = np.stack([g.mean(0) for g in groups])
    covariances = [np.cov(g.T, bias=True).reshape(rows.shape[1], -1) for g in groups]
    share = counts / counts.sum()
    centre = _barycentre(covariances, share, n_steps, tol)
    maps = np.stack([_transport(c, centre) for c in covariances])
    after = [a @ c @ a.T for a, c in zip(maps, covariances, strict=True)]
    gap = max(float(np.abs(a - after[0]).max()) for a in after)
    mean = rows.mean(0)
    made = QuadraticEraser(
        maps=maps, means=means, mean=mean, classes=classes, distortion=0.0,
        left_over=gap / float(np.linalg.eigvalsh(centre)[-1]),
    )  # fmt: skip
    change = float(((made(rows, z) - rows) ** 2).sum(1).mean())
    return QuadraticEraser(
        maps=maps, means=means, mean=mean, classes=classes, distortion=change, left_over=made.left_over
    )


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, np.finfo(float).tiny) ** exponent) @ vectors.T


def _transport(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The symmetric map A with A source A = target."""
    root, back = _power(source, 0.5), _power(source, -0.5)
    return back @ _power(root @ target @ root, 0.5) @ back


def _barycentre(covariances: list[np.ndarray], share: np.ndarray, n_steps: int, tol: float) -> np.ndarray:
    centre = np.tensordot(share, np.stack(covariances), 1)
    for _ in range(n_steps):
        root, back = _power(centre, 0.5), _power(centre, -0.5)
        mixed = sum(w * _power(root @ c @ root, 0.5) for w, c in zip(share, covariances, strict=True))
        new = back @ mixed @ mixed @ back
        done = np.abs(new - centre).max() <= tol * np.abs(centre).max()
        centre = new
        if done:
            break
    return np.asarray(centre)


def _classes(z: Any) -> np.ndarray | None:
    values = np.asarray(z)
    return np.unique(values) if values.ndim == 1 and not (values != np.round(values)).any() else None


def _codes(z: Any, classes: np.ndarray) -> np.ndarray:
    values = np.asarray(z)
    where = np.minimum(np.searchsorted(classes, values), len(classes) - 1)
    if (classes[where] != values).any():
        row = int(np.flatnonzero(classes[where] != values)[0])
        raise InputError(
            f"row {row} is of class {values[row]}, which the eraser has not seen ({classes.tolist()})"
        )
    return where


def _columns(z: Any, classes: np.ndarray | None, k: int) -> np.ndarray:
    if classes is None:
        return np.asarray(z, dtype=float).reshape(-1, k)
    return (_codes(z, classes)[:, None] == np.arange(k)).astype(float)
