"""Eigenvalues of a representation: of all rows, of each jackknife subset, and of isotropic rows of the same size.

A symmetric matrix is brought to tridiagonal form once (the cubic cost); both the centred spectrum and that about the
origin are then read off it, since the two differ in a single entry if the first axis points along the mean.
Read next: ``spectral.py``, whose ranks are functions of these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from interp.errors import InputError
from interp.metrics.declared import NO_PARTS, NOT_ASKED, caveat_of, outcome
from interp.metrics.rows import Data, Groups, blocks_of, checked, jackknife
from interp.moments.accumulator import SiteMoments, scatter_of
from interp.moments.sums import Sums
from interp.results import Result
from interp.showing import Shown

__all__ = ["CONSTANT", "Spectrum", "eigenvalues", "isotropic_spectrum", "spectra_of_moments", "spectrum_of"]

CONSTANT = "every row is the same: the spectrum is empty"
_BIAS = "the sample lacks directions, so the value reads low"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Spectrum(Shown):
    """Scatter-matrix eigenvalues of one representation, of each jackknife subset, and of isotropic rows of its size.

    Made once, it answers every rank; :func:`spectrum_of` makes it.
    """

    n: int
    d: int
    center: bool
    whole: Float64[Tensor, "_"] | None
    """None where every row is the same."""
    left_out: tuple[Float64[Tensor, "_"], ...]
    isotropic: Float64[Tensor, "_"]
    no_stderr: str = NOT_ASKED

    def rank(self, of: Callable[[Tensor], Tensor], name: str, formula: str) -> Result:
        """The statistic ``of`` (eigenvalues -> number) as a Result."""
        value, stderr = float("nan"), None
        if self.whole is not None:
            value = float(of(self.whole))
            if self.left_out:
                stderr = float(jackknife(torch.stack([of(eig) for eig in self.left_out])))
        centred = "centred" if self.center else "not centred"
        error = f"; jackknife over {len(self.left_out)} blocks of rows" if self.left_out else ""
        return outcome(
            name,
            value,
            n=self.n,
            d=self.d,
            stderr=stderr,
            reason=CONSTANT if self.whole is None else None,
            chance=float(of(self.isotropic)),
            convention=f"{formula}, {centred}{error}",
            no_stderr=self.no_stderr,
            provenance={"caveat": caveat_of(self.n, self.d, _BIAS)},
        )


def spectrum_of(x: Data, *, center: bool, groups: Groups = None, n_blocks: int = 16) -> Spectrum:
    """The :class:`Spectrum` of ``x`` [sample, d], or of one site of a Moments. Cost: O(n d^2 + n_blocks d^3)."""
    if isinstance(x, SiteMoments):
        return spectra_of_moments(x, (center,))[center]
    raw = checked(x)
    n, d = raw.shape
    if n_blocks == 1 or n_blocks < 0:
        raise InputError(f"n_blocks = {n_blocks}; a jackknife needs at least 2 (0: no standard error)")
    blocks = blocks_of(n, min(n_blocks, n // 2), groups) if n_blocks else []
    rows = raw - raw.mean(0, keepdim=True) if center else raw
    flat = bool(rows.abs().max() <= 1e-12 * raw.abs().max())
    # singular values, not eigenvalues of the scatter matrix: those lose half the digits of the small ones
    whole = None if flat else torch.linalg.svdvals(rows).square()
    return Spectrum(
        n=n,
        d=d,
        center=center,
        whole=whole,
        isotropic=isotropic_spectrum(n, d, center=center),
        left_out=() if flat else tuple(_left_out(rows, blocks, center=center)),
    )


def spectra_of_moments(x: SiteMoments, centers: Sequence[bool] = (True, False)) -> dict[bool, Spectrum]:
    """``center`` -> the Spectrum of one site of a Moments, all from one reduction of each subset's scatter matrix.

    Eigenvalues below about 1e-7 of the largest (1e-14 with float64 products) are rounding. Cost: 4/3 d^3 a subset.
    """
    shift = x.moments.shift[x.site]

    def of(sums: Sums) -> list[Tensor]:
        mean = shift + sums["first", x.site] / sums[("n",)]
        weights = [0.0 if center else sums.n for center in centers]
        return _spectra_along(scatter_of(sums, x.site), mean, weights)

    whole = of(x.moments.sums)
    size = float(shift.square().sum()) * x.n
    flat = [float(eig.sum()) <= 1e-24 * size for eig in whole]
    left = [] if all(flat) else [of(sums) for sums in x.moments.left_out()]
    return {
        center: Spectrum(
            n=x.n,
            d=x.d,
            center=center,
            whole=None if flat[i] else whole[i],
            isotropic=isotropic_spectrum(x.n, x.d, center=center),
            left_out=() if flat[i] else tuple(eigs[i] for eigs in left),
            no_stderr=NO_PARTS,
        )
        for i, center in enumerate(centers)
    }


def _spectra_along(scatter: Tensor, mean: Tensor, weights: Sequence[float]) -> list[Float64[Tensor, "_"]]:
    """Eigenvalues, the largest first, of scatter + w mean mean' for each weight w."""
    if scatter.is_cuda or len(mean) < 3:
        outer = torch.outer(mean, mean)
        return [torch.linalg.eigvalsh(scatter + w * outer).clamp_min(0).flip(0) for w in weights]
    a, m = scatter.numpy(), mean.numpy()
    length = float(np.linalg.norm(m))
    if length > 0 and any(weights):
        # Householder: v m' = +- |m| e_1, and a becomes H a H = a - v u' - u v'
        v = m / length
        v[0] += np.copysign(1.0, v[0])
        v /= np.linalg.norm(v)
        u = 2 * (a @ v)
        u -= (v @ u) * v
        a = a - np.outer(v, u) - np.outer(u, v)
    diagonal, off = _tridiagonal(a)  # leaves the first axis where it is
    out = []
    for weight in weights:
        shifted = diagonal.copy()
        shifted[0] += weight * length**2
        out.append(torch.from_numpy(_ascending(shifted, off)[::-1].copy()).clamp_min(0))
    return out


def _tridiagonal(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal and off-diagonal of a symmetric matrix in tridiagonal form."""
    from scipy.linalg.lapack import dsytrd, dsytrd_lwork

    work, _ = dsytrd_lwork(len(a), lower=1)
    _, diagonal, off, _, _ = dsytrd(a, lower=1, lwork=int(work))
    return diagonal, off


def _ascending(diagonal: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Eigenvalues of a tridiagonal matrix (Pal-Walker-Kahan)."""
    from scipy.linalg.lapack import dsterf

    eig, failed = dsterf(diagonal, off)
    if failed:
        raise InputError(
            f"{failed} eigenvalues of a {len(diagonal)} x {len(diagonal)} matrix did not converge"
        )
    return eig


def eigenvalues(matrix: Float64[Tensor, "d d"]) -> Float64[Tensor, "d"]:
    """Eigenvalues of a positive semidefinite matrix, ascending; on the CPU by scipy's LAPACK, which is the quicker."""
    if matrix.is_cuda or len(matrix) < 3:
        return torch.linalg.eigvalsh(matrix).clamp_min(0)
    return torch.from_numpy(_ascending(*_tridiagonal(matrix.numpy()))).clamp_min(0)


def _left_out(rows: Tensor, blocks: Sequence[Tensor], *, center: bool) -> list[Float64[Tensor, "eigen"]]:
    """Eigenvalues of the scatter matrix with each block left out, by subtraction.

    A bootstrap would draw rows twice, and duplicated rows lower every rank: it is biased here, the jackknife is not.
    """
    n, total, sums = len(rows), rows.T @ rows, rows.sum(0)
    out = []
    for block in blocks:
        part = rows[block]
        scatter = total - part.T @ part
        if center:
            rest = sums - part.sum(0)
            scatter = scatter - torch.outer(rest, rest) / (n - len(block))
        # rounding leaves exact zeros at about -1e-16 of the largest eigenvalue
        out.append(eigenvalues(scatter))
    return out


@lru_cache(maxsize=32)
def isotropic_spectrum(n: int, d: int, *, center: bool) -> Float64[Tensor, "_"]:
    """The spectrum of one draw of isotropic Gaussian rows of the same n and d (ranks fluctuate by ~1/d; seed fixed).

    A Wishart matrix in the tridiagonal form that Householder's reduction gives it, whose entries are independent chi
    variables: no matrix is made, and the cost grows with min(n, d)^2 only. References: Dumitriu & Edelman 2002.
    """
    small, large = sorted((n - center, d))
    generator = np.random.default_rng(0)
    chi = np.sqrt(generator.chisquare(large - np.arange(small)))
    below = np.sqrt(generator.chisquare(np.arange(small - 1, 0, -1)))
    diagonal = chi**2
    diagonal[1:] += below**2
    from scipy.linalg import eigvalsh_tridiagonal

    return torch.from_numpy(eigvalsh_tridiagonal(diagonal, chi[:-1] * below)).clamp_min(0)
